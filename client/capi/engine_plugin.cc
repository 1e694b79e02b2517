#include "client/capi/engine_plugin.h"

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "client/capi/engine/engine_adapter.h"
#include "client/capi/shared_object.h"
#include "client/capi/struct_reader.h"

namespace selvage::capi {
namespace {

constexpr char kTorchPlugin[] = "libselvage-torch.so.0";
constexpr char kEntry[] = "selvage_engine_plugin";

Result<std::unique_ptr<client::Trainer>> OpenPlugin(const Path& file) {
  const std::string name = file.empty() ? kTorchPlugin : file.string();
  Result<void*> symbol = OpenSharedObject(name, kEntry);
  if (!symbol.ok()) {
    return symbol.status().WithContext("the engine cannot be opened");
  }
  const auto entry = reinterpret_cast<selvage_engine_plugin_function>(*symbol);
  selvage_engine engine{};
  engine.struct_size = sizeof engine;
  selvage_engine_error error{};
  error.struct_size = sizeof error;
  if (entry(SELVAGE_ABI_VERSION, &engine, &error) != SELVAGE_OK) {
    return FailedPrecondition(
        name + ": " +
        std::string(error.text, strnlen(error.text, sizeof error.text)));
  }
  // A plug-in of an older version has a smaller table; the rest is still zero.
  if (engine.struct_size < kFirstSize<selvage_engine> ||
      engine.struct_size > sizeof engine) {
    return FailedPrecondition(name + " gave an engine of another version");
  }
  SELVAGE_RETURN_IF_ERROR(ValidateEngine(engine).WithContext(name));
  return MakeEngineTrainer(engine);
}

class PluginTrainer final : public client::Trainer {
 public:
  PluginTrainer(Path file, EventSink& events)
      : file_(std::move(file)), events_(events) {}

  std::vector<std::string> engines() const override {
    const Result<client::Trainer*> engine = Open();
    return engine.ok() ? (*engine)->engines() : std::vector<std::string>();
  }
  Result<std::unique_ptr<client::TrainableModel>> Load(
      const plan::Program& program, ByteSpan archive) override {
    SELVAGE_ASSIGN_OR_RETURN(client::Trainer * engine, Open());
    return engine->Load(program, archive);
  }

 private:
  Result<client::Trainer*> Open() const SELVAGE_EXCLUDES(mu_) {
    const MutexLock lock(mu_);
    if (engine_ == nullptr) {
      Result<std::unique_ptr<client::Trainer>> engine = OpenPlugin(file_);
      if (!engine.ok()) {
        events_.Write(LogLevel::kWarning, "engine_missing",
                      {{"reason", engine.status().message()}});
        return engine.status();
      }
      engine_ = *std::move(engine);
    }
    return engine_.get();
  }

  const Path file_;
  EventSink& events_;
  mutable Mutex mu_;
  mutable std::unique_ptr<client::Trainer> engine_ SELVAGE_GUARDED_BY(mu_);
};

}  // namespace

std::unique_ptr<client::Trainer> MakePluginTrainer(Path file,
                                                   EventSink& events) {
  return std::make_unique<PluginTrainer>(std::move(file), events);
}

}  // namespace selvage::capi

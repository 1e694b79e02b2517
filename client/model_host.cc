#include "client/model_host.h"

#include <algorithm>

#include "plan/checkpoint.h"

namespace selvage::client {
namespace {

// Devices rarely take part in more tasks than this at once.
constexpr size_t kLoadedMax = 2;

}  // namespace

Result<TrainableModel*> ModelHost::Training(
    const crypto::Digest& program_digest, const plan::Program& program,
    ByteSpan archive) {
  const auto it = std::find_if(
      loaded_.begin(), loaded_.end(),
      [&](const Loaded& l) { return l.program_digest == program_digest; });
  if (it != loaded_.end()) {
    loaded_.splice(loaded_.begin(), loaded_, it);
    return loaded_.front().model.get();
  }
  // Make room first: two large models at once may not fit.
  while (loaded_.size() >= kLoadedMax) loaded_.pop_back();
  SELVAGE_ASSIGN_OR_RETURN(std::unique_ptr<TrainableModel> model,
                           trainer_.Load(program, archive));
  loaded_.push_front(
      {.program_digest = program_digest, .model = std::move(model)});
  return loaded_.front().model.get();
}

Result<std::shared_ptr<ModelHost::Serving>> ModelHost::Build(
    const std::string& task) {
  SELVAGE_ASSIGN_OR_RETURN(const std::optional<StoredModel> stored,
                           store_.LoadModel(task));
  if (!stored.has_value()) {
    return NotFound("no model of task " + task + " is installed");
  }
  SELVAGE_ASSIGN_OR_RETURN(const Bytes json,
                           store_.LoadArtefact(stored->program_digest));
  SELVAGE_ASSIGN_OR_RETURN(const plan::Program program,
                           plan::ParseProgram(AsText(json)));
  Bytes archive;
  if (!stored->archive_digest.empty()) {
    SELVAGE_ASSIGN_OR_RETURN(archive,
                             store_.LoadArtefact(stored->archive_digest));
  }
  SELVAGE_ASSIGN_OR_RETURN(
      const plan::Checkpoint values,
      plan::ParseMaster(program.table, stored->personal_serving
                                           ? *stored->personal_values
                                           : stored->global_values));
  auto serving = std::make_shared<Serving>();
  serving->input_size = program.inputs.front().SizeBytes();
  MutexLock lock(serving->mu);
  SELVAGE_ASSIGN_OR_RETURN(serving->model, trainer_.Load(program, archive));
  SELVAGE_RETURN_IF_ERROR(serving->model->SetValues(values));
  return serving;
}

Result<TrainableModel::Prediction> ModelHost::Predict(std::string_view task,
                                                      ByteSpan input,
                                                      size_t count) {
  std::shared_ptr<Serving> serving;
  while (serving == nullptr) {
    uint64_t generation = 0;
    {
      MutexLock lock(mu_);
      const auto it = serving_.find(task);
      if (it != serving_.end()) serving = it->second;
      generation = generation_;
    }
    if (serving != nullptr) break;
    SELVAGE_ASSIGN_OR_RETURN(std::shared_ptr<Serving> built,
                             Build(std::string(task)));
    MutexLock lock(mu_);
    // Something was installed meanwhile: what was built may be old.
    if (generation != generation_) continue;
    serving_[std::string(task)] = built;
    serving = std::move(built);
  }
  if (count == 0 || input.size() != count * serving->input_size) {
    return InvalidArgument("the input has " + std::to_string(input.size()) +
                           " bytes, " + std::to_string(count) +
                           " examples take " +
                           std::to_string(count * serving->input_size));
  }
  MutexLock lock(serving->mu);
  return serving->model->Predict(count, input);
}

Status ModelHost::Refresh(std::string_view task) {
  bool serving = false;
  {
    MutexLock lock(mu_);
    ++generation_;
    serving = serving_.contains(task);
  }
  if (!serving) return OkStatus();  // loaded when somebody asks
  SELVAGE_ASSIGN_OR_RETURN(std::shared_ptr<Serving> built,
                           Build(std::string(task)));
  MutexLock lock(mu_);
  serving_[std::string(task)] = std::move(built);
  return OkStatus();
}

}  // namespace selvage::client

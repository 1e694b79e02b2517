#include "cli/context.h"

#include <array>
#include <utility>

#include "base/bytes.h"

namespace selvage::cli {

Context::Context(Environment& environment, GlobalOptions options,
                 ConnectionOptions env, ConnectionOptions file,
                 OutputFormat format)
    : environment_(environment),
      options_(std::move(options)),
      env_(std::move(env)),
      file_(std::move(file)),
      output_(environment, format) {}

Result<Connection> Context::ResolvedConnection() {
  return ResolveConnection(environment_, options_.connection, env_, file_);
}

Result<AdminClient*> Context::Admin() {
  if (admin_ == nullptr) {
    SELVAGE_ASSIGN_OR_RETURN(Connection connection, ResolvedConnection());
    admin_ = std::make_unique<AdminClient>(std::move(connection),
                                           environment_.interrupt);
  }
  return admin_.get();
}

TorchTool& Context::torch() {
  if (torch_ == nullptr) torch_ = std::make_unique<TorchTool>(environment_);
  return *torch_;
}

const std::string& Context::RequestId() {
  if (options_.request_id.empty()) {
    std::array<uint8_t, 16> id{};
    environment_.random.Fill(id);
    options_.request_id = ToHex(id);
  }
  return options_.request_id;
}

Status Context::Confirm(const std::string& question) {
  if (options_.no_input || !environment_.in_is_terminal) {
    return FailedPrecondition(question + " Nobody is there to ask: pass --yes");
  }
  environment_.err << question << " [y/N] ";
  environment_.err.flush();
  std::string answer;
  std::getline(environment_.in, answer);
  if (answer == "y" || answer == "Y" || answer == "yes") return OkStatus();
  return Cancelled("not confirmed");
}

}  // namespace selvage::cli

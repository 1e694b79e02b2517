#include "cli/torch_tool.h"

#include <unistd.h>

#include "cli/exit_code.h"
#include "cli/subprocess.h"
#include "cli/text.h"

namespace selvage::cli {
namespace {

constexpr const char* kName = "selvage-torch";

bool IsProgram(const Path& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(path, error) &&
         access(path.c_str(), X_OK) == 0;
}

// Its last line without "selvage-torch: error: ".
std::string ErrorText(std::string text) {
  text.erase(text.find_last_not_of(" \n") + 1);
  const std::string prefix = std::string(kName) + ": ";
  if (text.starts_with(prefix)) text.erase(0, prefix.size());
  if (text.starts_with("error: ")) text.erase(0, 7);
  return text;
}

}  // namespace

std::optional<Path> FindProgram(const Environment& environment,
                                const std::string& name,
                                const std::string& variable) {
  if (const auto given = environment.get_env(variable);
      given && !given->empty()) {
    return IsProgram(*given) ? std::optional<Path>(*given) : std::nullopt;
  }
  if (!environment.program_directory.empty()) {
    const Path neighbour = environment.program_directory / name;
    if (IsProgram(neighbour)) return neighbour;
  }
  const std::string search = environment.get_env("PATH").value_or("");
  for (size_t begin = 0; begin < search.size();) {
    const size_t end = std::min(search.find(':', begin), search.size());
    const Path candidate = Path(search.substr(begin, end - begin)) / name;
    if (candidate.is_absolute() && IsProgram(candidate)) return candidate;
    begin = end + 1;
  }
  return std::nullopt;
}

TorchTool::TorchTool(Environment& environment)
    : environment_(environment),
      path_(FindProgram(environment, kName, "SELVAGE_TORCH")) {}

Result<std::string> TorchTool::Run(const std::vector<std::string>& arguments) {
  if (!path_) {
    return FailedPrecondition(
        "this needs selvage-torch, which is neither beside selvage nor in "
        "PATH; install it, or say where it is with SELVAGE_TORCH=PATH");
  }
  std::vector<std::string> command = {path_->string()};
  command.insert(command.end(), arguments.begin(), arguments.end());
  SELVAGE_ASSIGN_OR_RETURN(ProcessOutcome outcome,
                           RunProcess(command, environment_.interrupt));
  if (outcome.exit_code != 0) {
    std::string text = ErrorText(std::move(outcome.err));
    if (text.empty()) {
      text = "ended with exit code " + std::to_string(outcome.exit_code);
    }
    const StatusCode code =
        outcome.exit_code == static_cast<int>(ExitCode::kPrecondition)
            ? StatusCode::kFailedPrecondition
        : outcome.exit_code == static_cast<int>(ExitCode::kUsage)
            ? StatusCode::kInvalidArgument
            : StatusCode::kInternal;
    return Status(code, "selvage-torch " + arguments.at(0) + ": " + text);
  }
  return std::move(outcome.out);
}

}  // namespace selvage::cli

// selvage-torch, the one tool that links LibTorch, as calls. `selvage` itself
// does not link it, so that it stays small and works on machines without it.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/file_system.h"
#include "base/status.h"
#include "cli/environment.h"

namespace selvage::cli {

// A program of ours: what the variable says (a path), or `name` beside this
// binary, or in PATH. nullopt if it is nowhere.
std::optional<Path> FindProgram(const Environment& environment,
                                const std::string& name,
                                const std::string& variable);

// Thread-compatible.
class TorchTool {
 public:
  // Looks in SELVAGE_TORCH (a path), beside this binary, then in PATH.
  // `environment` must outlive it.
  explicit TorchTool(Environment& environment);

  // nullopt if it is nowhere.
  std::optional<Path> path() const { return path_; }

  // `arguments` after the program's name; returns its standard output.
  // FAILED_PRECONDITION says how to get the tool if it is missing, or that a
  // program did not pass its checks; another failure of the tool is
  // INVALID_ARGUMENT (it did not like what it was given) or INTERNAL. Both have
  // the tool's message.
  Result<std::string> Run(const std::vector<std::string>& arguments);

 private:
  Environment& environment_;
  std::optional<Path> path_;
};

}  // namespace selvage::cli

// A task file and everything it refers to, read and checked on this side first,
// so that mistakes come with file names and lines before anything is sent.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"
#include "cli/environment.h"
#include "cli/torch_tool.h"
#include "plan/program.h"
#include "plan/task.h"

namespace selvage::cli {

inline constexpr uint64_t kInitialModelSizeMax = uint64_t{4} << 30;

// A directory of our own that goes away with all that is in it.
class TemporaryDirectory {
 public:
  static Result<TemporaryDirectory> Create(const GetEnv& get_env);
  ~TemporaryDirectory();
  TemporaryDirectory(TemporaryDirectory&& other) noexcept
      : path_(std::move(other.path_)) {
    other.path_.clear();
  }
  TemporaryDirectory& operator=(TemporaryDirectory&& other) noexcept {
    std::swap(path_, other.path_);
    return *this;
  }

  const Path& path() const { return path_; }

 private:
  explicit TemporaryDirectory(Path path) : path_(std::move(path)) {}

  Path path_;
};

struct ProgramBundle {
  plan::Program program;
  std::string json;             // canonical: the artefact
  std::optional<Path> archive;  // kArchive: the file to upload
  // The archive's own values as safetensors, when selvage-torch took them out.
  std::optional<Path> values;
  std::optional<TemporaryDirectory> scratch;  // where such files are
};

// `reference` as a task file has it, relative to `directory`:
//   model.yaml    a program file (source, archive or native)
//   model.pt      a TorchScript archive; selvage-torch derives the tensors
//   native:NAME   NAME.yaml, which says `native: NAME` and lists the tensors
// INVALID_ARGUMENT names file and line.
Result<ProgramBundle> LoadProgram(Environment& environment, TorchTool& torch,
                                  const Path& directory,
                                  const std::string& reference);

// A copy of a task file under another name, with settings ("strategy.cohort",
// "20") replaced. INVALID_ARGUMENT if the result is not a task file.
using Setting = std::pair<std::string, std::string>;
Result<std::string> EditTaskFile(const std::string& task_file,
                                 const std::string& name,
                                 const std::vector<Setting>& settings);
// "key=value". INVALID_ARGUMENT otherwise.
Result<Setting> ParseSetting(std::string_view text);

struct TaskBundle {
  plan::TaskSpec spec;
  std::string task_file;  // as it will be sent
  ProgramBundle program;
  // `initial: FILE`, checked against the program's tensors; or a bare archive's
  // own values, when the task file says nothing else.
  std::optional<Path> initial;
};
// `settings` change the task file before it is used.
Result<TaskBundle> LoadTask(Environment& environment, TorchTool& torch,
                            const Path& task_file,
                            const std::vector<Setting>& settings = {});

}  // namespace selvage::cli

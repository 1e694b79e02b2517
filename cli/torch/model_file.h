// A model as it lies on disk: a program file, a program document, or a bare
// TorchScript archive.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/file_system.h"
#include "base/status.h"
#include "plan/checkpoint.h"
#include "plan/program.h"

namespace selvage::cli {

struct RoleOption {
  std::string match;  // searched for in a tensor's name
  plan::Role role = plan::Role::kShared;
};
// "REGEX=ROLE"; the last = counts. INVALID_ARGUMENT otherwise.
Result<RoleOption> ParseRoleOption(const std::string& text);

struct ModelFile {
  plan::Program program;
  Bytes archive;  // kArchive: the archive itself
  // What the archive had in it, if it came without a program file.
  std::optional<plan::Checkpoint> values;
};

// `path`: model.yaml (a program file; what it names lies beside it),
// program.json (with `archive` if it is of that kind), or model.pt (an archive
// with an extra file selvage.yaml that says inputs, metrics and roles). Only a
// bare archive takes `roles`: the first that matches a tensor counts, before
// those of its selvage.yaml; other buffers become buffer_float and buffer_int,
// the rest is shared. Errors name the file.
Result<ModelFile> ReadModelFile(FileSystem& files, const Path& path,
                                const std::optional<Path>& archive,
                                const std::vector<RoleOption>& roles);

}  // namespace selvage::cli

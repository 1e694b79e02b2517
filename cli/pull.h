// `selvage pull`: a task's model and history as files.
#pragma once

#include <optional>
#include <string>

#include "cli/context.h"

namespace selvage::cli {

enum class TorchScriptExport {
  kAuto,    // model.pt if selvage-torch is there, else a message
  kAlways,  // an error without it
  kNever,
};

struct PullOptions {
  std::string task;
  std::optional<uint64_t> version;  // the latest
  bool best = false;                // instead: the best key metric
  Path out;                         // directory, created
  TorchScriptExport torchscript = TorchScriptExport::kAuto;
};

// Writes model.safetensors, program.json (and archive.pt if the program is an
// archive), rounds.jsonl (one round a line, by number) and model.pt. Each file
// is replaced whole or not at all.
// A version's program as it lies in a directory.
struct ProgramFiles {
  Path program;                 // program.json
  std::optional<Path> archive;  // archive.pt, if it is one
  bool native = false;          // the program has no TorchScript form
};
Result<ProgramFiles> DownloadProgram(AdminClient& admin, FileSystem& files,
                                     const v1::ModelVersion& version,
                                     const Path& directory);

Result<ExitCode> Pull(Context& context, const PullOptions& options);

}  // namespace selvage::cli

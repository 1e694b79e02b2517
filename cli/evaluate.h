// `selvage evaluate`: versions scored on a data set of the caller's, and the
// scores attached to them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/context.h"

namespace selvage::cli {

struct EvaluateOptions {
  std::string task;
  std::optional<uint64_t> version;  // the latest
  bool best = false;                // instead: the best key metric
  // Instead: every version that has no evaluation on the data set, until the
  // task ended.
  bool watch = false;
  std::vector<std::string> data;  // files, as selvage-torch takes them
  std::string data_set = "default";
  bool dry_run = false;  // attach nothing
};

// Models are scored by selvage-torch: FAILED_PRECONDITION without it. What is
// downloaded goes to a directory of its own below TMPDIR, which is removed.
Result<ExitCode> Evaluate(Context& context, const EvaluateOptions& options);

}  // namespace selvage::cli

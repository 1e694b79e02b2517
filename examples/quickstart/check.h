// Whether a finished quickstart left what it promised: for CI, and for whoever
// changes the demo.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/file_system.h"

namespace selvage::quickstart {

struct Expectations {
  std::optional<int> devices;
  std::optional<int> rounds;
  // Hold the accuracies to docs/benchmarks.md's targets; for whole runs.
  bool targets = false;
};

// Everything that is wrong with the artefacts in `directory`, a line each;
// empty if nothing is.
std::vector<std::string> CheckArtefacts(FileSystem& files,
                                        const Path& directory,
                                        const Expectations& expected);

}  // namespace selvage::quickstart

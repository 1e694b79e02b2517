// The accuracy table of a data set: what devices reach alone, with the global
// model and with their own, over several seeds, beside the targets
// (docs/benchmarks.md).
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file_system.h"
#include "base/status.h"
#include "examples/quickstart/report.h"

namespace selvage::users {

// What the devices of one run wrote.
struct Run {
  std::vector<quickstart::DeviceScore> fleet;
  std::vector<quickstart::DeviceScore> newcomers;
};

// DIRECTORY/{devices,newcomers}/*.json. NOT_FOUND if either is empty.
Result<Run> ReadRun(FileSystem& files, const Path& directory);

// Over runs: means of their means and of their 10th percentiles, the worst
// device of all. In percent.
struct Summary {
  size_t runs = 0;
  quickstart::Spread alone;
  quickstart::Spread global;
  quickstart::Spread personal;
  quickstart::Spread newcomers_before;
  quickstart::Spread newcomers_after;
  // Personal less global, of the run where it is least.
  double least_gain = 0;
};
// REQUIRES: there is a run; none has an empty member.
Summary Summarise(std::span<const Run> runs);

struct Target {
  std::string_view what;  // "personal - global"
  double (*value)(const Summary&);
  double least;
};
// NOT_FOUND names the data sets that there are.
Result<std::span<const Target>> TargetsOf(std::string_view data_set);

bool AllMet(const Summary& summary, std::span<const Target> targets);
std::string Table(std::string_view data_set, const Summary& summary,
                  std::span<const Target> targets);

// Appends the figures to a list of benchmark rows (bench/README.md), which is
// begun if there is none, in place of the data set's earlier ones. DATA_LOSS if
// the file is not such a list.
Status AppendRows(FileSystem& files, const Path& path,
                  std::string_view data_set, const Summary& summary,
                  std::span<const Target> targets);

}  // namespace selvage::users

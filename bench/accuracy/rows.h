// What docs/results.md reports on: one row, one federation a seed. The table of
// all of them is in rows.cc.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/file_system.h"
#include "base/status.h"
#include "bench/accuracy/data.h"
#include "bench/accuracy/federation.h"

namespace selvage::bench {

// What a row's figure is.
enum class Measure {
  kRoundsTo,  // the first round whose model reaches `threshold`; it ends there
  kBest,      // the best round's accuracy
  kLast,      // the last round's accuracy
  kDevices,   // what devices reach: alone, with the global model, their own
};

struct Row {
  std::string suite = {};   // rows of one table
  std::string line = {};    // "2 labels"
  std::string column = {};  // "fednova"; empty where a suite has one
  Measure measure = Measure::kBest;
  DataSet data = DataSet::kFashionIid;
  std::string task = {};  // task file, from the top of the source tree
  // What is different in the task file: {"train.proximal_mu", "0.01"}.
  std::vector<std::pair<std::string, std::string>> settings = {};
  double threshold = 0;  // kRoundsTo: percent
  // kRoundsTo: at most so many rounds are wanted; 0: no target.
  double wanted = 0;
  // What somebody else measured, in the unit of the figure; 0: nobody.
  double reference = 0;
  Attack attack = Attack::kNone;
  size_t attackers = 0;
  bool may_break = false;  // as in FederationOptions
  bool nightly = false;

  std::string name() const {
    return column.empty() ? line : line + ", " + column;
  }
  // strategy.name as set above, or "" where the task file decides.
  std::string strategy() const;
};

// Every row, in the order of the tables.
std::vector<Row> Rows();

// Whether this build knows the row's strategy.
bool IsAvailable(const Row& row);

struct Work {
  std::string task_file;
  plan::Program program;
};
// The row's task with `seed`, and with `rounds` rounds if that is not 0, and
// its program. `source` is the top of the source tree.
Result<Work> LoadWork(FileSystem& files, const Path& source, const Row& row,
                      uint64_t seed, uint64_t rounds);

}  // namespace selvage::bench

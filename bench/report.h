// What every benchmark does with its numbers: a readable line for a person, a
// row in a JSON list for programs (docs/benchmarks.md), and first of all what
// machine and build they come from.
#pragma once

#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"

namespace selvage::bench {

// One figure beside the limit or rival that was measured in the same run.
struct Row {
  std::string id;         // "B1"
  std::string case_name;  // "100x1e6"
  double value = 0;
  std::string unit;       // of both values: "GB/s", "s", "MiB"
  std::string reference;  // what reference_value is: "float axpy, 1 thread"
  double reference_value = 0;

  double ratio() const {
    return reference_value == 0 ? 0 : value / reference_value;
  }
};

class Report {
 public:
  // Takes --out=FILE from the command line; without it, rows are only printed.
  // INVALID_ARGUMENT names an argument it does not know, unless `rest` is given
  // to take those.
  static Result<Report> FromArgs(int argc, char** argv,
                                 std::vector<std::string>* rest = nullptr);

  // Processor, caches, memory, compiler, build type and commit.
  void PrintMachine() const;

  // Prints the row and appends it to the list in FILE, which is whole after
  // every call, so that several benchmarks can write into it one after the
  // other. `note` is printed behind the row.
  Status Add(const Row& row, const std::string& note = "");

 private:
  explicit Report(std::filesystem::path out) : out_(std::move(out)) {}

  std::filesystem::path out_;
};

// What main() of a benchmark does that starts itself anew, as --only=WHAT, to
// measure one thing alone: `only(WHAT)` is that, `run` all the rest.
int RunBench(int argc, char** argv, const std::function<Status(Report&)>& run,
             const std::function<int(const std::string& what)>& only);

// Of an odd number of values, or the mean of the middle two. Not empty.
double Median(std::span<const double> values);

// Of this process and of this thread, in seconds.
double WallSeconds();
double ProcessCpuSeconds();
double ThreadCpuSeconds();

}  // namespace selvage::bench

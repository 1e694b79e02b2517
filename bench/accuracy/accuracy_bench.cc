// Runs the federations of rows.h and writes docs/results.md; scripts/results
// gives it the data.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "base/file_system.h"
#include "base/status.h"
#include "base/version.h"
#include "bench/accuracy/data.h"
#include "bench/accuracy/federation.h"
#include "bench/accuracy/results.h"
#include "bench/accuracy/rows.h"
#include "client/training/torch/torch_trainer.h"

namespace selvage::bench {
namespace {

struct Options {
  std::string source = ".";
  std::string data;
  std::string cells;
  std::string write;
  std::string append;
  std::string command = "scripts/bench results";
  std::string date;
  std::vector<std::string> wanted;
  std::vector<uint64_t> seeds = {1, 2, 3};
  uint64_t rounds = 0;
  int threads = 2;
  bool nightly = false;
  bool again = false;
  bool list = false;
};

std::string Machine() {
  std::ifstream in("/proc/cpuinfo");
  std::string processor = "unknown processor";
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("model name")) {
      processor = line.substr(line.find(':') + 2);
      break;
    }
  }
  return processor + ", " +
         std::to_string(std::thread::hardware_concurrency()) +
         " threads, g++ " + std::to_string(__GNUC__);
}

// Named by its suite, or by any part of "SUITE: NAME".
bool IsWanted(const Options& options, const Row& row) {
  if (row.nightly && !options.nightly) return false;
  if (options.wanted.empty()) return true;
  const std::string name = row.suite + ": " + row.name();
  return std::any_of(options.wanted.begin(), options.wanted.end(),
                     [&](const std::string& wanted) {
                       return wanted == row.suite ||
                              (wanted.find(':') != std::string::npos &&
                               name.find(wanted) != std::string::npos);
                     });
}

Result<Cell> RunRow(const Options& options, const Row& row, uint64_t seed,
                    client::Trainer& trainer) {
  PosixFileSystem files;
  SELVAGE_ASSIGN_OR_RETURN(const FederationData data,
                           LoadData(files, options.data, row.data, seed));
  SELVAGE_ASSIGN_OR_RETURN(
      Work work, LoadWork(files, options.source, row, seed, options.rounds));
  FederationOptions federation;
  federation.task_file = std::move(work.task_file);
  federation.program = std::move(work.program);
  federation.attack = row.attack;
  federation.attackers = row.attackers;
  federation.may_break = row.may_break;
  federation.threads = options.threads;
  federation.score_devices = row.measure == Measure::kDevices;
  if (row.measure == Measure::kRoundsTo) {
    federation.on_version = [&](const VersionScore& score) {
      return score.accuracy < row.threshold;
    };
  }
  const auto start = std::chrono::steady_clock::now();
  SELVAGE_ASSIGN_OR_RETURN(const FederationResult result,
                           RunFederation(federation, data, trainer));
  Cell cell = CellOf(row, seed, result);
  cell.commit = Commit();
  cell.date = options.date;
  cell.machine = Machine();
  cell.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
  return cell;
}

void Print(const Row& row, const Cell& cell) {
  std::printf("%s: %s, seed %llu: ", row.suite.c_str(), row.name().c_str(),
              static_cast<unsigned long long>(cell.seed));
  if (row.measure == Measure::kRoundsTo && !cell.reached) {
    std::printf("not reached in %llu rounds",
                static_cast<unsigned long long>(cell.rounds));
  } else {
    std::printf("%.2f", cell.figure);
  }
  std::printf(" (%.0f s, %llu rounds, %llu abandoned, %llu rejected)%s%s\n",
              cell.seconds, static_cast<unsigned long long>(cell.rounds),
              static_cast<unsigned long long>(cell.abandoned),
              static_cast<unsigned long long>(cell.rejected),
              cell.failure.empty() ? "" : ": ", cell.failure.c_str());
  std::fflush(stdout);
}

Status Run(const Options& options) {
  PosixFileSystem files;
  const std::vector<Row> rows = Rows();
  client::TorchTrainer trainer;  // one thread an operator
  size_t matched = 0;
  // All rows with the first seed first: every table has something early.
  for (const uint64_t seed : options.seeds) {
    for (const Row& row : rows) {
      if (!IsWanted(options, row)) continue;
      ++matched;
      const std::string name = row.suite + ": " + row.name();
      if (options.list) {
        std::printf("%s%s\n", name.c_str(), row.nightly ? " (nightly)" : "");
        continue;
      }
      if (!IsAvailable(row)) {
        std::printf("SKIPPED %s: strategy %s is not in this build\n",
                    name.c_str(), row.strategy().c_str());
        continue;
      }
      if (!options.cells.empty() && !options.again && options.rounds == 0) {
        SELVAGE_ASSIGN_OR_RETURN(const std::vector<Cell> cells,
                                 ReadCells(files, options.cells));
        const bool done =
            std::any_of(cells.begin(), cells.end(), [&](const Cell& cell) {
              return cell.suite == row.suite && cell.row == row.name() &&
                     cell.seed == seed;
            });
        if (done) continue;
      }
      const Result<Cell> cell = RunRow(options, row, seed, trainer);
      if (cell.status().code() == StatusCode::kNotFound) {
        std::printf("SKIPPED %s: %s\n", name.c_str(),
                    std::string(cell.status().message()).c_str());
        continue;
      }
      if (!cell.ok()) return cell.status().WithContext(name);
      Print(row, *cell);
      // A shortened run is no result.
      if (!options.cells.empty() && options.rounds == 0) {
        SELVAGE_RETURN_IF_ERROR(WriteCell(files, options.cells, *cell));
      }
    }
    if (options.list) break;
  }
  if (matched == 0) return InvalidArgument("no row has such a name");
  return OkStatus();
}

Status Write(const Options& options) {
  PosixFileSystem files;
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<Cell> cells,
                           ReadCells(files, options.cells));
  const std::vector<Row> rows = Rows();
  if (!options.write.empty()) {
    SELVAGE_RETURN_IF_ERROR(WriteFileDurably(
        files, options.write,
        AsBytes(ResultsPage(rows, cells, options.command)), 0644));
  }
  if (!options.append.empty()) {
    SELVAGE_RETURN_IF_ERROR(
        AppendBenchRows(files, options.append, rows, cells));
  }
  return OkStatus();
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("Federations in one process, whose figures are docs/results.md.",
               "accuracy_bench");
  app.add_option("rows", options.wanted,
                 "suites (mnist, devices, niid, niid-full, robust) or parts of "
                 "\"SUITE: ROW\"; none: all");
  app.add_option("--source", options.source, "top of the source tree");
  app.add_option("--data", options.data, "unpacked data sets");
  CLI::Option* cells = app.add_option(
      "--cells", options.cells,
      "keep what was run here; what is there already is not run again");
  app.add_option("--seeds", options.seeds)
      ->delimiter(',')
      ->allow_extra_args(false);
  app.add_option("--rounds", options.rounds,
                 "instead of the rows' own; nothing is kept");
  app.add_option("--threads", options.threads, "sessions at a time")
      ->check(CLI::Range(1, 64));
  app.add_option("--write", options.write,
                 "write this page of all that is kept")
      ->needs(cells);
  app.add_option("--append", options.append,
                 "put the figures into this list of benchmark rows")
      ->needs(cells);
  app.add_option("--command", options.command, "what the page says made it");
  app.add_option("--date", options.date, "of the commit");
  app.add_flag("--nightly", options.nightly, "the long rows too");
  app.add_flag("--again", options.again, "run also what is kept");
  app.add_flag("--list", options.list, "the rows' names alone");
  bool only_write = false;
  app.add_flag("--only-write", only_write, "run nothing")->needs(cells);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  Status status = only_write ? OkStatus() : Run(options);
  if (status.ok()) status = Write(options);
  if (!status.ok()) {
    std::cerr << "accuracy_bench: " << status.message() << '\n';
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace selvage::bench

int main(int argc, char** argv) { return selvage::bench::Main(argc, argv); }

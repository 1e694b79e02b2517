// What the federations of rows.h gave: kept in a file from run to run, since
// all of them take hours, and printed as docs/results.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "base/status.h"
#include "bench/accuracy/federation.h"
#include "bench/accuracy/rows.h"

namespace selvage::bench {

// One row with one seed.
struct Cell {
  std::string suite;
  std::string row;  // Row::name()
  uint64_t seed = 0;
  // Where it comes from.
  std::string commit;
  std::string date;  // of the commit; empty: not told
  std::string machine;
  double seconds = 0;
  // What it gave.
  bool reached = false;          // kRoundsTo
  double figure = 0;             // rounds; percent
  std::vector<double> accuracy;  // percent, of every round's model
  users::Run run;                // kDevices
  uint64_t rounds = 0;
  uint64_t abandoned = 0;
  uint64_t rejected = 0;
  std::string model;    // SHA-256
  std::string failure;  // FederationResult::failure
};

// What `result` says of the row's measure.
Cell CellOf(const Row& row, uint64_t seed, const FederationResult& result);

// An empty list if there is no such file. DATA_LOSS if it is none of ours.
Result<std::vector<Cell>> ReadCells(FileSystem& files, const Path& path);
// Adds a cell, in place of that of the same row and seed.
Status WriteCell(FileSystem& files, const Path& path, const Cell& cell);

// docs/results.md: a table a suite, with what is wanted beside it. A row
// without cells is said not to be run, or not to be in this build. `command`
// is what made it.
std::string ResultsPage(const std::vector<Row>& rows,
                        const std::vector<Cell>& cells,
                        const std::string& command);

// Rows for scripts/bench's list (bench/README.md) with the id `results`, in
// place of those that are there.
Status AppendBenchRows(FileSystem& files, const Path& path,
                       const std::vector<Row>& rows,
                       const std::vector<Cell>& cells);

}  // namespace selvage::bench

// What the demo found out, for a manager (table), for programs (summary.json)
// and for a browser (report.html).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/file_system.h"
#include "base/status.h"

namespace selvage::quickstart {

// Accuracies of one device on its own test images, in percent.
struct DeviceScore {
  std::string device;
  double alone = 0;     // trained on this device's images only
  double global = 0;    // the fleet's model as it is
  double personal = 0;  // what the device serves after personalising
};

struct Spread {
  double mean = 0;
  double p10 = 0;  // 10th percentile over devices, linearly interpolated
  double worst = 0;
};
// REQUIRES: values is not empty.
Spread SpreadOf(std::vector<double> values);

// One committed or abandoned round, as `selvage pull` writes it.
struct RoundPoint {
  uint64_t round = 0;
  bool committed = false;
  uint64_t accepted = 0;
  double seconds = 0;
  bool measured = false;  // the rest is set
  double accuracy = 0;    // percent, mean over held-out examples of devices
  // Over devices; nullopt: not said, which is for metrics beyond [0, 1].
  std::optional<double> p10;
  std::optional<double> p90;
};

struct Findings {
  uint64_t seed = 0;
  int devices = 0;
  int rounds = 0;
  std::vector<DeviceScore> fleet;
  std::vector<DeviceScore> newcomers;
  std::vector<RoundPoint> history;
  uint64_t bytes_up = 0;  // at the coordinator's socket
  uint64_t bytes_down = 0;
  uint64_t certificates = 0;
  uint64_t connections = 0;
  double seconds = 0;  // after the build
  std::string model;   // path of model.pt
  std::string model_digest;
};

// The files that `selvage-device --results` writes, sorted by device. NOT_FOUND
// if there is none; INVALID_ARGUMENT names the file.
Result<std::vector<DeviceScore>> ReadScores(FileSystem& files,
                                            const Path& directory);
Result<std::vector<RoundPoint>> ParseRounds(std::string_view jsonl);
// `selvage show server -o json` into the four counters.
Status ParseServerInfo(std::string_view json, Findings& findings);

// REQUIRES, for all three: fleet and newcomers are not empty.
std::string SummaryJson(const Findings& findings);
std::string SummaryTable(const Findings& findings);
// One file without a link to anything: styles and drawings are inside.
std::string ReportHtml(const Findings& findings);

}  // namespace selvage::quickstart

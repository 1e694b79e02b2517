#include "examples/quickstart/report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace selvage::quickstart {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kScoreSizeMax = 64 << 10;

double Percent(double share) { return 100 * share; }

// Two decimals: what 100 test images can tell.
double Rounded(double value) { return std::round(value * 100) / 100; }

Json SpreadJson(const Spread& spread) {
  return Json{{"mean", Rounded(spread.mean)},
              {"p10", Rounded(spread.p10)},
              {"worst", Rounded(spread.worst)}};
}

std::vector<double> Column(const std::vector<DeviceScore>& scores,
                           double DeviceScore::*member) {
  std::vector<double> out;
  for (const DeviceScore& score : scores) out.push_back(score.*member);
  return out;
}

double Mean(const std::vector<DeviceScore>& scores,
            double DeviceScore::*member) {
  return SpreadOf(Column(scores, member)).mean;
}

std::string Row(const char* name, const Spread& spread, const char* meaning) {
  char line[160];
  std::snprintf(line, sizeof line, "  %-10s %6.1f %8.1f %7.1f   %s\n", name,
                spread.mean, spread.p10, spread.worst, meaning);
  return line;
}

}  // namespace

Spread SpreadOf(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  Spread out;
  for (const double value : values) out.mean += value;
  out.mean /= static_cast<double>(values.size());
  const double position = 0.1 * static_cast<double>(values.size() - 1);
  const auto low = static_cast<size_t>(position);
  const size_t high = std::min(low + 1, values.size() - 1);
  out.p10 = values[low] + (position - static_cast<double>(low)) *
                              (values[high] - values[low]);
  out.worst = values.front();
  return out;
}

Result<std::vector<DeviceScore>> ReadScores(FileSystem& files,
                                            const Path& directory) {
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                           files.List(directory));
  std::vector<DeviceScore> out;
  for (const std::string& name : names) {
    if (!name.ends_with(".json")) continue;
    const Path path = directory / name;
    SELVAGE_ASSIGN_OR_RETURN(const Bytes text,
                             ReadFile(files, path, kScoreSizeMax));
    try {
      const Json json = Json::parse(AsText(text));
      const auto accuracy = [&](const char* slot) {
        return Percent(json.at(slot).at("accuracy").get<double>());
      };
      out.push_back({json.at("device").get<std::string>(), accuracy("alone"),
                     accuracy("global"), accuracy("serving")});
    } catch (const Json::exception& e) {
      return InvalidArgument(path.string() + ": " + e.what());
    }
  }
  if (out.empty()) {
    return NotFound("no device wrote its scores to " + directory.string());
  }
  return out;
}

Result<std::vector<RoundPoint>> ParseRounds(std::string_view jsonl) {
  std::vector<RoundPoint> out;
  for (size_t begin = 0; begin < jsonl.size();) {
    const size_t end = std::min(jsonl.find('\n', begin), jsonl.size());
    const std::string_view line = jsonl.substr(begin, end - begin);
    begin = end + 1;
    if (line.empty()) continue;
    try {
      const Json json = Json::parse(line);
      RoundPoint point;
      point.round = json.at("round").get<uint64_t>();
      point.committed = json.at("state") == "COMMITTED";
      point.accepted = json.at("funnel").at("accepted").get<uint64_t>();
      point.seconds = json.at("seconds").get<double>();
      const Json& metrics = json.at("metrics");
      if (metrics.contains("accuracy")) {
        const Json& accuracy = metrics.at("accuracy");
        point.measured = true;
        point.accuracy = Percent(accuracy.at("mean").get<double>());
        if (accuracy.contains("p10") && accuracy.contains("p90")) {
          point.p10 = Percent(accuracy.at("p10").get<double>());
          point.p90 = Percent(accuracy.at("p90").get<double>());
        }
      }
      out.push_back(point);
    } catch (const Json::exception& e) {
      return InvalidArgument("line " + std::to_string(out.size() + 1) +
                             " of the rounds: " + e.what());
    }
  }
  return out;
}

Status ParseServerInfo(std::string_view json, Findings& findings) {
  try {
    const Json data = Json::parse(json).at("data");
    findings.bytes_up = data.at("socket_bytes_received").get<uint64_t>();
    findings.bytes_down = data.at("socket_bytes_sent").get<uint64_t>();
    findings.certificates = data.at("certificates_issued").get<uint64_t>();
    findings.connections = data.at("tls_connections").get<uint64_t>();
  } catch (const Json::exception& e) {
    return InvalidArgument(std::string("the coordinator's facts: ") + e.what());
  }
  return OkStatus();
}

std::string SummaryJson(const Findings& f) {
  const Json json = {
      {"seed", f.seed},
      {"devices", f.devices},
      {"rounds", f.rounds},
      {"alone", SpreadJson(SpreadOf(Column(f.fleet, &DeviceScore::alone)))},
      {"global", SpreadJson(SpreadOf(Column(f.fleet, &DeviceScore::global)))},
      {"personal",
       SpreadJson(SpreadOf(Column(f.fleet, &DeviceScore::personal)))},
      {"newcomers",
       {{"before", Rounded(Mean(f.newcomers, &DeviceScore::global))},
        {"after", Rounded(Mean(f.newcomers, &DeviceScore::personal))}}},
      {"bytes_up", f.bytes_up},
      {"bytes_down", f.bytes_down},
      {"seconds", Rounded(f.seconds)},
      {"model", f.model},
      {"model_digest", f.model_digest},
      {"certificates", f.certificates},
      {"connections", f.connections}};
  return json.dump(2) + "\n";
}

std::string SummaryTable(const Findings& f) {
  std::string out =
      "Accuracy on each device's own held-back images, in percent\n"
      "               mean  10th pc   worst\n";
  out += Row("alone", SpreadOf(Column(f.fleet, &DeviceScore::alone)),
             "each device learns by itself");
  out += Row("global", SpreadOf(Column(f.fleet, &DeviceScore::global)),
             "one model, learned together, for all");
  out += Row("personal", SpreadOf(Column(f.fleet, &DeviceScore::personal)),
             "that model, finished by each device");
  char line[160];
  std::snprintf(line, sizeof line,
                "%zu newcomer%s that never took part: %.1f before, %.1f after "
                "personalising\n",
                f.newcomers.size(), f.newcomers.size() == 1 ? "" : "s",
                Mean(f.newcomers, &DeviceScore::global),
                Mean(f.newcomers, &DeviceScore::personal));
  out += line;
  std::snprintf(line, sizeof line,
                "Moved: %.1f MB up, %.1f MB down. Time: %.0f s. %llu "
                "certificates, %llu TLS connections.\n",
                static_cast<double>(f.bytes_up) / 1e6,
                static_cast<double>(f.bytes_down) / 1e6, f.seconds,
                static_cast<unsigned long long>(f.certificates),
                static_cast<unsigned long long>(f.connections));
  return out + line;
}

}  // namespace selvage::quickstart

#include "examples/users/table.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace selvage::users {
namespace {

using Json = nlohmann::ordered_json;
using quickstart::DeviceScore;
using quickstart::Spread;

constexpr uint64_t kListSizeMax = 64 << 20;
constexpr const char* kId = "accuracy";

double Global(const Summary& s) { return s.global.mean; }
double Personal(const Summary& s) { return s.personal.mean; }
double PersonalP10(const Summary& s) { return s.personal.p10; }
double OverGlobal(const Summary& s) { return s.personal.mean - s.global.mean; }
double OverAlone(const Summary& s) { return s.personal.mean - s.alone.mean; }
double GlobalOverAlone(const Summary& s) {
  return s.global.mean - s.alone.mean;
}
double LeastGain(const Summary& s) { return s.least_gain; }
double Newcomers(const Summary& s) { return s.newcomers_after.mean; }
double NewcomersGain(const Summary& s) {
  return s.newcomers_after.mean - s.newcomers_before.mean;
}

constexpr Target kFashion[] = {{"personal", Personal, 84.5},
                               {"personal - global", OverGlobal, 3.5},
                               {"personal - alone", OverAlone, 3.5}};
constexpr Target kHar[] = {{"global", Global, 87},
                           {"personal", Personal, 94},
                           {"newcomers' gain", NewcomersGain, 7}};
constexpr Target kHarAccelerometer[] = {{"personal", Personal, 93},
                                        {"personal - global", OverGlobal, 8}};
constexpr Target kWisdm[] = {{"personal", Personal, 80.5},
                             {"personal, p10", PersonalP10, 65},
                             {"personal - alone", OverAlone, 6},
                             {"newcomers", Newcomers, 80}};
constexpr Target kWriters[] = {{"global", Global, 90},
                               {"personal", Personal, 93},
                               {"newcomers", Newcomers, 92}};
constexpr Target kShakespeare[] = {
    {"global", Global, 43},
    {"global - alone", GlobalOverAlone, 12},
    {"personal - global, least", LeastGain, -0.2}};

struct DataSet {
  std::string_view name;
  std::span<const Target> targets;
};
constexpr DataSet kDataSets[] = {{"fashion", kFashion},
                                 {"har", kHar},
                                 {"har-accelerometer", kHarAccelerometer},
                                 {"wisdm", kWisdm},
                                 {"writers", kWriters},
                                 {"shakespeare", kShakespeare}};

Spread Of(const std::vector<DeviceScore>& scores, double DeviceScore::*member) {
  std::vector<double> values;
  for (const DeviceScore& score : scores) values.push_back(score.*member);
  return quickstart::SpreadOf(std::move(values));
}

// What the file keeps of a figure.
double Rounded(double value) { return std::round(value * 1000) / 1000; }

bool Met(const Target& target, const Summary& summary) {
  return target.value(summary) >= target.least;
}

std::string Line(const char* name, const Spread& spread) {
  char line[80];
  std::snprintf(line, sizeof line, "  %-18s %6.1f %8.1f %7.1f\n", name,
                spread.mean, spread.p10, spread.worst);
  return line;
}

Json RowJson(std::string_view data_set, std::string_view what, double value,
             std::string_view reference, double reference_value) {
  return Json{
      {"id", kId},
      {"case", std::string(data_set) + ": " + std::string(what)},
      {"value", Rounded(value)},
      {"unit", "%"},
      {"reference", reference},
      {"reference_value", Rounded(reference_value)},
      {"ratio", reference_value == 0 ? 0.0 : Rounded(value / reference_value)}};
}

}  // namespace

Result<Run> ReadRun(FileSystem& files, const Path& directory) {
  Run run;
  SELVAGE_ASSIGN_OR_RETURN(
      run.fleet, quickstart::ReadScores(files, directory / "devices"));
  SELVAGE_ASSIGN_OR_RETURN(
      run.newcomers, quickstart::ReadScores(files, directory / "newcomers"));
  return run;
}

Summary Summarise(std::span<const Run> runs) {
  Summary out;
  out.runs = runs.size();
  const auto add = [&](Spread& total, const Spread& one, bool first) {
    const auto count = static_cast<double>(runs.size());
    total.mean += one.mean / count;
    total.p10 += one.p10 / count;
    total.worst = first ? one.worst : std::min(total.worst, one.worst);
  };
  for (size_t i = 0; i < runs.size(); ++i) {
    const Run& run = runs[i];
    const bool first = i == 0;
    const Spread global = Of(run.fleet, &DeviceScore::global);
    const Spread personal = Of(run.fleet, &DeviceScore::personal);
    add(out.alone, Of(run.fleet, &DeviceScore::alone), first);
    add(out.global, global, first);
    add(out.personal, personal, first);
    add(out.newcomers_before, Of(run.newcomers, &DeviceScore::global), first);
    add(out.newcomers_after, Of(run.newcomers, &DeviceScore::personal), first);
    const double gain = personal.mean - global.mean;
    out.least_gain = first ? gain : std::min(out.least_gain, gain);
  }
  return out;
}

Result<std::span<const Target>> TargetsOf(std::string_view data_set) {
  std::string known;
  for (const DataSet& one : kDataSets) {
    if (one.name == data_set) return one.targets;
    known += (known.empty() ? "" : ", ") + std::string(one.name);
  }
  return NotFound("there is no data set " + std::string(data_set) +
                  "; there are " + known);
}

bool AllMet(const Summary& summary, std::span<const Target> targets) {
  return std::all_of(targets.begin(), targets.end(), [&](const Target& target) {
    return Met(target, summary);
  });
}

std::string Table(std::string_view data_set, const Summary& summary,
                  std::span<const Target> targets) {
  std::string out = std::string(data_set) +
                    ": accuracy on each device's own test data, in percent (" +
                    std::to_string(summary.runs) +
                    (summary.runs == 1 ? " seed)\n" : " seeds)\n");
  out += "                       mean  10th pc   worst\n";
  out += Line("alone", summary.alone);
  out += Line("global", summary.global);
  out += Line("personal", summary.personal);
  out += Line("newcomers, before", summary.newcomers_before);
  out += Line("newcomers, after", summary.newcomers_after);
  for (const Target& target : targets) {
    char line[120];
    std::snprintf(line, sizeof line, "  %-26s %6.1f  (target %.1f: %s)\n",
                  std::string(target.what).c_str(), target.value(summary),
                  target.least, Met(target, summary) ? "met" : "MISSED");
    out += line;
  }
  return out;
}

Status AppendRows(FileSystem& files, const Path& path,
                  std::string_view data_set, const Summary& summary,
                  std::span<const Target> targets) {
  Json list = Json::array();
  const Result<Bytes> before = ReadFile(files, path, kListSizeMax);
  if (before.ok()) {
    list = Json::parse(AsText(*before), nullptr, false);
    if (!list.is_array()) {
      return DataLoss(path.string() + " is not a JSON list");
    }
  } else if (before.status().code() != StatusCode::kNotFound) {
    return before.status();
  }
  const std::string prefix = std::string(data_set) + ": ";
  Json rows = Json::array();
  for (Json& row : list) {
    const bool ours = row.is_object() && row.value("id", "") == kId &&
                      row.value("case", "").starts_with(prefix);
    if (!ours) rows.push_back(std::move(row));
  }
  const double alone = summary.alone.mean;
  const auto add = [&](const std::string& what, const Spread& spread) {
    rows.push_back(
        RowJson(data_set, what + ", mean", spread.mean, "alone, mean", alone));
    rows.push_back(RowJson(data_set, what + ", p10", spread.p10, "alone, p10",
                           summary.alone.p10));
    rows.push_back(RowJson(data_set, what + ", worst", spread.worst,
                           "alone, worst", summary.alone.worst));
  };
  add("alone", summary.alone);
  add("global", summary.global);
  add("personal", summary.personal);
  rows.push_back(RowJson(data_set, "newcomers, after",
                         summary.newcomers_after.mean, "newcomers, before",
                         summary.newcomers_before.mean));
  for (const Target& target : targets) {
    rows.push_back(RowJson(data_set, target.what, target.value(summary),
                           "target", target.least));
  }
  return WriteFileDurably(files, path, AsBytes(rows.dump(2) + "\n"), 0644);
}

}  // namespace selvage::users

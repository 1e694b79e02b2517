#include "bench/accuracy/results.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "examples/users/table.h"

namespace selvage::bench {
namespace {

using Json = nlohmann::ordered_json;
using quickstart::DeviceScore;

constexpr uint64_t kFileSizeMax = 256 << 20;
constexpr const char* kId = "results";
// A rule holds that loses at most this much to attackers.
constexpr double kHolds = 3;

// The words between the tables.
constexpr char kHowText[] = R"(`; not by hand. How it is measured and
what the data sets are: [benchmarks](benchmarks.md#results). Federations run in
one process on virtual time: client library and coordinator as they are shipped,
the messages of the wire without sockets, models trained with LibTorch. Percent;
figures are means over seeds, in brackets the seeds.

)";
constexpr char kMnistText[] = R"(
## MNIST: rounds to an accuracy

100 devices x 600 images, 10 a round, SGD at 0.1, B = 10; 2NN: E = 1, CNN: E = 5.
"2 shards": sorted by label, cut into 200, two each. Wanted is what McMahan et
al. (2017) report in Table 1.

)";
constexpr char kDevicesText[] = R"(
## Devices and their own models

Accuracy on every device's own test examples, as in
[benchmarks](benchmarks.md#accuracy-on-real-users-data-scriptsbench-accuracy),
where the same federations run as processes over TLS.

)";
constexpr char kNiidText[] = R"(
## NIID-Bench, Fashion-MNIST, quick

10 devices that all take part, 10 rounds of 1 epoch, B = 64, SGD at 0.01 with
momentum 0.9; the best round. `fedprox`: mu = 0.01. Nobody else's figures are
known for so few rounds; those for 50 rounds of 10 epochs are in the next table.

)";
constexpr char kFullText[] = R"(
## NIID-Bench, Fashion-MNIST, full

The same with 50 rounds of 10 epochs (`--nightly`). References: Flower's baseline
`niid_bench`.

)";
constexpr char kRobustText[] = R"(
## Devices that lie

20 devices x 300 images of Fashion-MNIST, IID, all in every round; 10 rounds of
2 epochs; the last round, and its distance to the same rule without attackers.
*sign-flip*: -5 times the update. *scaled*: a million times the update, cut to
what `update.max_abs` lets through. *out of range*: the same uncut, which the
coordinator refuses. `normbound` bounds each update to 0.7 and steps 2.3 times the
mean, which makes up for what the bound takes.

)";

double Rounded(double value) { return std::round(value * 1000) / 1000; }

std::string Number(double value, int digits) {
  char text[40];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

Json ScoresJson(const std::vector<DeviceScore>& scores) {
  Json list = Json::array();
  for (const DeviceScore& score : scores) {
    list.push_back({score.device, Rounded(score.alone), Rounded(score.global),
                    Rounded(score.personal)});
  }
  return list;
}

std::vector<DeviceScore> ScoresOf(const Json& list) {
  std::vector<DeviceScore> out;
  for (const Json& score : list) {
    out.push_back({score.at(0).get<std::string>(), score.at(1).get<double>(),
                   score.at(2).get<double>(), score.at(3).get<double>()});
  }
  return out;
}

Json ToJson(const Cell& cell) {
  Json accuracy = Json::array();
  for (const double value : cell.accuracy) accuracy.push_back(Rounded(value));
  return {{"suite", cell.suite},
          {"row", cell.row},
          {"seed", cell.seed},
          {"commit", cell.commit},
          {"date", cell.date},
          {"machine", cell.machine},
          {"seconds", Rounded(cell.seconds)},
          {"reached", cell.reached},
          {"figure", Rounded(cell.figure)},
          {"accuracy", std::move(accuracy)},
          {"fleet", ScoresJson(cell.run.fleet)},
          {"newcomers", ScoresJson(cell.run.newcomers)},
          {"rounds", cell.rounds},
          {"abandoned", cell.abandoned},
          {"rejected", cell.rejected},
          {"model", cell.model},
          {"failure", cell.failure}};
}

Cell FromJson(const Json& json) {
  Cell cell;
  cell.suite = json.at("suite");
  cell.row = json.at("row");
  cell.seed = json.at("seed");
  cell.commit = json.at("commit");
  cell.date = json.at("date");
  cell.machine = json.at("machine");
  cell.seconds = json.at("seconds");
  cell.reached = json.at("reached");
  cell.figure = json.at("figure");
  cell.accuracy = json.at("accuracy").get<std::vector<double>>();
  cell.run.fleet = ScoresOf(json.at("fleet"));
  cell.run.newcomers = ScoresOf(json.at("newcomers"));
  cell.rounds = json.at("rounds");
  cell.abandoned = json.at("abandoned");
  cell.rejected = json.at("rejected");
  cell.model = json.at("model");
  cell.failure = json.at("failure");
  return cell;
}

Result<Json> ReadList(FileSystem& files, const Path& path) {
  const Result<Bytes> bytes = ReadFile(files, path, kFileSizeMax);
  if (bytes.status().code() == StatusCode::kNotFound) return Json::array();
  if (!bytes.ok()) return bytes.status();
  Json list = Json::parse(AsText(*bytes), nullptr, false);
  if (!list.is_array()) return DataLoss(path.string() + " is not a JSON list");
  return list;
}

Status WriteList(FileSystem& files, const Path& path, const Json& list) {
  return WriteFileDurably(files, path, AsBytes(list.dump(1) + "\n"), 0644);
}

// A row and its cells, by seed.
struct Group {
  const Row* row = nullptr;
  std::vector<const Cell*> cells;

  // Whether a seed ended before its rounds were done.
  bool Broke() const {
    return std::any_of(cells.begin(), cells.end(),
                       [](const Cell* cell) { return !cell->failure.empty(); });
  }
  double Mean() const {
    double sum = 0;
    for (const Cell* cell : cells) sum += cell->figure;
    return sum / static_cast<double>(cells.size());
  }
  double Least() const {
    double least = cells.front()->figure;
    for (const Cell* cell : cells) least = std::min(least, cell->figure);
    return least;
  }
  double Most() const {
    double most = cells.front()->figure;
    for (const Cell* cell : cells) most = std::max(most, cell->figure);
    return most;
  }
  bool AllReached() const {
    return std::all_of(cells.begin(), cells.end(),
                       [](const Cell* cell) { return cell->reached; });
  }
  std::string WhyEmpty() const {
    return IsAvailable(*row) ? "not run" : "not in this build";
  }
};

std::vector<Group> GroupsOf(const std::vector<Row>& rows,
                            const std::vector<Cell>& cells,
                            const std::string& suite) {
  std::vector<Group> groups;
  for (const Row& row : rows) {
    if (row.suite != suite) continue;
    Group group{.row = &row, .cells = {}};
    for (const Cell& cell : cells) {
      if (cell.suite == suite && cell.row == row.name()) {
        group.cells.push_back(&cell);
      }
    }
    std::sort(group.cells.begin(), group.cells.end(),
              [](const Cell* a, const Cell* b) { return a->seed < b->seed; });
    groups.push_back(std::move(group));
  }
  return groups;
}

const Group* Find(const std::vector<Group>& groups, const std::string& line,
                  const std::string& column) {
  for (const Group& group : groups) {
    if (group.row->line == line && group.row->column == column) return &group;
  }
  return nullptr;
}

// Of rows in the order in which they first come.
std::vector<std::string> Names(const std::vector<Group>& groups,
                               std::string Row::*member) {
  std::vector<std::string> names;
  for (const Group& group : groups) {
    const std::string& name = group.row->*member;
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      names.push_back(name);
    }
  }
  return names;
}

std::string TableHead(const std::string& first,
                      const std::vector<std::string>& columns) {
  std::string out = "| " + first + " |";
  std::string rule = "|---|";
  for (const std::string& column : columns) {
    out += " " + column + " |";
    rule += "---|";
  }
  return out + "\n" + rule + "\n";
}

// "84.12 (83.90, 84.20, 84.26)"; one seed: without the list.
std::string Figures(const Group& group, int digits) {
  std::string out = Number(group.Mean(), digits);
  if (group.cells.size() < 2) return out + " (one seed)";
  out += " (";
  for (size_t i = 0; i < group.cells.size(); ++i) {
    out += (i == 0 ? "" : ", ") + Number(group.cells[i]->figure, digits);
  }
  return out + ")";
}

std::string RoundsTable(const std::vector<Group>& groups) {
  std::string out = TableHead(
      "", {"rounds to", "by seed", "mean", "wanted", "reference run"});
  for (const Group& group : groups) {
    const Row& row = *group.row;
    out += "| " + row.line + " | " + Number(row.threshold, 0) + " % | ";
    if (group.cells.empty()) {
      out += group.WhyEmpty() + " | | <= " + Number(row.wanted, 0) + " | ";
    } else {
      for (size_t i = 0; i < group.cells.size(); ++i) {
        const Cell& cell = *group.cells[i];
        const double best =
            cell.accuracy.empty()
                ? 0
                : *std::max_element(cell.accuracy.begin(), cell.accuracy.end());
        out += (i == 0 ? "" : ", ") +
               (cell.reached ? Number(cell.figure, 0)
                             : "not in " + std::to_string(cell.rounds) + " (" +
                                   Number(best, 2) + " %)");
      }
      const bool met = group.AllReached() && group.Mean() <= row.wanted;
      out += " | " + (group.AllReached() ? Number(group.Mean(), 1) : "") +
             " | <= " + Number(row.wanted, 0) + ": **" +
             (met ? "met" : "missed") + "** | ";
    }
    out += (row.reference > 0 ? Number(row.reference, 0) : "") + " |\n";
  }
  return out;
}

std::string DevicesTable(const std::vector<Group>& groups) {
  std::string out = TableHead(
      "data set",
      {"", "alone", "global", "personal", "newcomers before, after", "wanted"});
  for (const Group& group : groups) {
    const std::string& name = group.row->line;
    if (group.cells.empty()) {
      out += "| `" + name + "` | " + group.WhyEmpty() + " | | | | | |\n";
      continue;
    }
    std::vector<users::Run> runs;
    for (const Cell* cell : group.cells) runs.push_back(cell->run);
    const users::Summary all = users::Summarise(runs);
    std::string wanted;
    const Result<std::span<const users::Target>> targets =
        users::TargetsOf(name);
    if (targets.ok()) {
      for (const users::Target& target : *targets) {
        const double value = target.value(all);
        wanted += (wanted.empty() ? "" : "; ") + std::string(target.what) +
                  " >= " + Number(target.least, 1) + ": " + Number(value, 1) +
                  (value >= target.least ? " **met**" : " **missed**");
      }
    }
    const auto line = [&](const std::string& head, const char* what,
                          double quickstart::Spread::*member,
                          const std::string& tail) {
      out += "| " + head + " | " + what + " | " + Number(all.alone.*member, 1) +
             " | " + Number(all.global.*member, 1) + " | " +
             Number(all.personal.*member, 1) + " | " +
             Number(all.newcomers_before.*member, 1) + ", " +
             Number(all.newcomers_after.*member, 1) + " | " + tail + " |\n";
    };
    line("`" + name + "`, " + std::to_string(runs.size()) +
             (runs.size() == 1 ? " seed" : " seeds"),
         "mean", &quickstart::Spread::mean, wanted);
    line("", "p10", &quickstart::Spread::p10, "");
    line("", "worst", &quickstart::Spread::worst, "");
  }
  return out;
}

std::string MatrixTable(const std::vector<Group>& groups) {
  const std::vector<std::string> columns = Names(groups, &Row::column);
  std::string out = TableHead("", columns);
  for (const std::string& line : Names(groups, &Row::line)) {
    out += "| " + line + " |";
    for (const std::string& column : columns) {
      const Group* group = Find(groups, line, column);
      if (group == nullptr) {
        out += " |";
      } else if (group->cells.empty()) {
        out += " " + group->WhyEmpty() + " |";
      } else {
        out += " " + Figures(*group, 2);
        if (group->Broke()) out += "; could not go on";
        if (group->row->reference > 0) {
          out += "; reference " + Number(group->row->reference, 2);
        }
        out += " |";
      }
    }
    out += "\n";
  }
  return out;
}

std::string SpreadOfTwoLabels(const std::vector<Group>& groups) {
  const Group* scaffold = Find(groups, "2 labels", "scaffold");
  const Group* fedavg = Find(groups, "2 labels", "fedavg");
  if (scaffold == nullptr || fedavg == nullptr || scaffold->cells.empty() ||
      fedavg->cells.empty()) {
    return "";
  }
  return "\nAt two labels a device, best rounds by seed: `scaffold` from " +
         Number(scaffold->Least(), 2) + " to " + Number(scaffold->Most(), 2) +
         " (" + Number(scaffold->Most() - scaffold->Least(), 2) +
         " points apart), `fedavg` from " + Number(fedavg->Least(), 2) +
         " to " + Number(fedavg->Most(), 2) + " (" +
         Number(fedavg->Most() - fedavg->Least(), 2) + ").\n";
}

// "2 seeds", of all that was run of a line; "2 to 3 seeds" if some had more.
std::string SeedsOf(const std::vector<Group>& groups, const std::string& line) {
  size_t least = SIZE_MAX;
  size_t most = 0;
  for (const Group& group : groups) {
    if (group.row->line != line || group.cells.empty()) continue;
    least = std::min(least, group.cells.size());
    most = std::max(most, group.cells.size());
  }
  if (most == 0) return "no seed";
  return (least == most ? "" : std::to_string(least) + " to ") +
         std::to_string(most) + (most == 1 ? " seed" : " seeds");
}

// Lines are rules, columns attacks; the first column is without any.
std::string RobustTable(const std::vector<Group>& groups) {
  const std::vector<std::string> columns = Names(groups, &Row::column);
  std::string out = TableHead("", columns);
  std::string verdicts;
  for (const std::string& line : Names(groups, &Row::line)) {
    const Group* calm = Find(groups, line, columns.front());
    out += "| `" + line + "`, " + SeedsOf(groups, line) + " |";
    std::string broken;
    size_t judged = 0;
    for (const std::string& column : columns) {
      const Group* group = Find(groups, line, column);
      if (group == nullptr) {
        out += " |";
        continue;
      }
      if (group->cells.empty()) {
        out += " " + group->WhyEmpty() + " |";
        continue;
      }
      out += " " + Number(group->Mean(), 1);
      if (group->Broke()) out += " (could not go on)";
      const bool is_attack = group->row->attackers > 0;
      if (is_attack && calm != nullptr && !calm->cells.empty()) {
        const double loss = calm->Mean() - group->Mean();
        out += " (" + Number(-loss, 1) + ")";
        ++judged;
        if (loss > kHolds) broken += (broken.empty() ? "" : ", ") + column;
      }
      out += " |";
    }
    out += "\n";
    if (judged > 0) {
      verdicts += "* `" + line + "`: " +
                  (broken.empty() ? "holds" : "loses more at " + broken) + "\n";
    }
  }
  return out + "\nWanted: at most " + Number(kHolds, 0) +
         " points below the same rule without attackers.\n\n" + verdicts;
}

std::string Provenance(const std::vector<Cell>& cells) {
  std::map<std::string, double> by_build;  // seconds
  std::set<std::string> machines;
  for (const Cell& cell : cells) {
    by_build["`" + cell.commit + "`" +
             (cell.date.empty() ? "" : " of " + cell.date)] += cell.seconds;
    machines.insert(cell.machine);
  }
  std::string out;
  for (const auto& [build, seconds] : by_build) {
    out += "* commit " + build + ": " + Number(seconds / 60, 0) +
           " minutes of federations\n";
  }
  for (const std::string& machine : machines) {
    out += "* machine: " + machine + "\n";
  }
  return out;
}

}  // namespace

Cell CellOf(const Row& row, uint64_t seed, const FederationResult& result) {
  Cell cell;
  cell.suite = row.suite;
  cell.row = row.name();
  cell.seed = seed;
  for (const VersionScore& version : result.versions) {
    cell.accuracy.push_back(version.accuracy);
  }
  cell.run = result.run;
  cell.rounds = result.rounds;
  cell.abandoned = result.abandoned;
  cell.rejected = result.rejected;
  cell.model = result.model.ToHex();
  cell.failure = result.failure;
  const std::vector<double>& accuracy = cell.accuracy;
  switch (row.measure) {
    case Measure::kRoundsTo: {
      const auto first =
          std::find_if(accuracy.begin(), accuracy.end(),
                       [&](double value) { return value >= row.threshold; });
      cell.reached = first != accuracy.end();
      cell.figure = static_cast<double>(first - accuracy.begin()) +
                    (cell.reached ? 1 : 0);
      break;
    }
    case Measure::kBest:
      cell.figure = accuracy.empty()
                        ? 0
                        : *std::max_element(accuracy.begin(), accuracy.end());
      break;
    case Measure::kLast:
      cell.figure = accuracy.empty() ? 0 : accuracy.back();
      break;
    case Measure::kDevices: {
      const users::Run runs[] = {cell.run};
      cell.figure = users::Summarise(runs).personal.mean;
      break;
    }
  }
  return cell;
}

Result<std::vector<Cell>> ReadCells(FileSystem& files, const Path& path) {
  SELVAGE_ASSIGN_OR_RETURN(const Json list, ReadList(files, path));
  std::vector<Cell> cells;
  try {
    for (const Json& json : list) cells.push_back(FromJson(json));
  } catch (const nlohmann::json::exception& e) {
    return DataLoss(path.string() + ": " + e.what());
  }
  return cells;
}

Status WriteCell(FileSystem& files, const Path& path, const Cell& cell) {
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<Cell> before,
                           ReadCells(files, path));
  Json list = Json::array();
  for (const Cell& other : before) {
    if (other.suite != cell.suite || other.row != cell.row ||
        other.seed != cell.seed) {
      list.push_back(ToJson(other));
    }
  }
  list.push_back(ToJson(cell));
  return WriteList(files, path, list);
}

std::string ResultsPage(const std::vector<Row>& rows,
                        const std::vector<Cell>& cells,
                        const std::string& command) {
  const auto groups = [&](const char* suite) {
    return GroupsOf(rows, cells, suite);
  };
  const std::vector<Group> niid = groups("niid");
  const std::vector<Group> full = groups("niid-full");
  return "# Results\n\nWritten by `" + command + kHowText + Provenance(cells) +
         kMnistText + RoundsTable(groups("mnist")) + kDevicesText +
         DevicesTable(groups("devices")) + kNiidText + MatrixTable(niid) +
         SpreadOfTwoLabels(niid) + kFullText + MatrixTable(full) +
         SpreadOfTwoLabels(full) + kRobustText + RobustTable(groups("robust"));
}

Status AppendBenchRows(FileSystem& files, const Path& path,
                       const std::vector<Row>& rows,
                       const std::vector<Cell>& cells) {
  SELVAGE_ASSIGN_OR_RETURN(const Json before, ReadList(files, path));
  Json list = Json::array();
  for (const Json& row : before) {
    if (!row.is_object() || row.value("id", "") != kId) list.push_back(row);
  }
  std::set<std::string> suites;
  for (const Row& row : rows) suites.insert(row.suite);
  for (const std::string& suite : suites) {
    for (const Group& group : GroupsOf(rows, cells, suite)) {
      if (group.cells.empty()) continue;
      const Row& row = *group.row;
      const bool rounds = row.measure == Measure::kRoundsTo;
      const double reference = rounds ? row.wanted : row.reference;
      const double value = group.Mean();
      list.push_back(
          {{"id", kId},
           {"case", suite + ": " + row.name()},
           {"value", Rounded(value)},
           {"unit", rounds ? "rounds" : "%"},
           {"reference", reference == 0 ? ""
                         : rounds       ? "wanted, at most"
                                        : "reference run"},
           {"reference_value", reference},
           {"ratio", reference == 0 ? 0.0 : Rounded(value / reference)}});
    }
  }
  return WriteList(files, path, list);
}

}  // namespace selvage::bench

// The federations of docs/results.md in small: data made up here, a linear
// model, the real engine, client and coordinator.
#include "bench/accuracy/federation.h"

#include <cmath>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/random.h"
#include "bench/accuracy/data.h"
#include "bench/accuracy/results.h"
#include "bench/accuracy/rows.h"
#include "client/training/torch/torch_trainer.h"
#include "tests/testing/status_matchers.h"

namespace selvage::bench {
namespace {

using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr size_t kFeatures = 8;
constexpr size_t kClasses = 4;

plan::Program LinearProgram() {
  plan::Program program;
  program.source = R"(
def forward(self, x):
    return torch.linear(x, self.w, self.b)

def training_loss(self, x, y):
    return torch.cross_entropy_loss(self.forward(x), y)

def example_scores(self, x, y):
    z = self.forward(x)
    hits = (z.argmax(1) == y).float()
    return torch.stack([hits, torch.cross_entropy_loss(z, y, None, 0)], 1)
)";
  program.table =
      *plan::TensorTable::Create({{.name = "w", .shape = {kClasses, kFeatures}},
                                  {.name = "b", .shape = {kClasses}}});
  program.inputs = {{"x", plan::DType::kFloat32, {kFeatures}},
                    {"y", plan::DType::kInt64, {}}};
  program.metrics = {"accuracy", "loss"};
  return program;
}

// Points around the corner of their class; `own`: how often a device sees its
// favourite one.
client::ExampleSet Points(size_t count, double own, size_t favourite,
                          RandomSource& random) {
  client::ExampleSet out;
  out.count = count;
  out.inputs.resize(2);
  for (size_t i = 0; i < count; ++i) {
    const size_t label =
        UniformUnit(random) < own
            ? favourite
            : static_cast<size_t>(UniformBelow(random, kClasses));
    for (size_t j = 0; j < kFeatures; ++j) {
      const double corner = j % kClasses == label ? 1 : 0;
      AppendLe(out.inputs[0],
               static_cast<float>(corner + 1.6 * (UniformUnit(random) - 0.5)));
    }
    AppendLe(out.inputs[1], static_cast<int64_t>(label));
  }
  return out;
}

FederationData MakeData(size_t devices, double own) {
  SeededRandom random(17);
  FederationData data;
  for (size_t i = 0; i < devices; ++i) {
    data.devices.push_back({Points(40, own, i % kClasses, random),
                            Points(40, own, i % kClasses, random)});
  }
  data.newcomers.push_back(
      {Points(40, own, 1, random), Points(40, own, 1, random)});
  data.test = Points(300, 0, 0, random);
  return data;
}

std::string Task(const std::string& strategy, const std::string& more = "") {
  return R"(name: points
population: demo
program: model.yaml
seed: 5
train: {local_epochs: 2, batch_size: 10, optimizer: {name: sgd, lr: 0.1}}
strategy: {num_rounds: 3, over_selection: 1.0, round_deadline: 1m, )" +
         strategy + R"(}
evaluate: {key_metric: accuracy}
)" + more;
}

class FederationTest : public ::testing::Test {
 protected:
  Result<FederationResult> Run(FederationOptions options,
                               const FederationData& data) {
    options.program = LinearProgram();
    return RunFederation(options, data, trainer_);
  }

  client::TorchTrainer trainer_;
};

TEST_F(FederationTest, Run_DrawnDevices_LearnsTheSameWithAnyThreads) {
  const FederationData data = MakeData(8, 0.6);
  FederationOptions options;
  options.task_file =
      Task("cohort: 4, min_available_nodes: 8",
           "personalize: {method: fine_tune, epochs: 3, baseline_alone: true,"
           " optimizer: {name: sgd, lr: 0.1}}\n");
  options.score_devices = true;
  const auto one = Run(options, data);
  ASSERT_THAT(one, IsOk());
  ASSERT_EQ(one->versions.size(), 3u);
  EXPECT_EQ(one->rounds, 3u);
  EXPECT_EQ(one->abandoned, 0u);
  EXPECT_EQ(one->rejected, 0u);
  // Guessing has 25.
  EXPECT_GT(one->versions.back().accuracy, 80);
  ASSERT_EQ(one->run.fleet.size(), 8u);
  ASSERT_EQ(one->run.newcomers.size(), 1u);
  for (const quickstart::DeviceScore& score : one->run.fleet) {
    EXPECT_GT(score.alone, 50) << score.device;
    EXPECT_GT(score.global, 50) << score.device;
    EXPECT_GT(score.personal, 50) << score.device;
  }

  options.threads = 2;
  const auto two = Run(options, data);
  ASSERT_THAT(two, IsOk());
  EXPECT_EQ(two->model, one->model);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(two->versions[i].accuracy, one->versions[i].accuracy);
    EXPECT_EQ(two->versions[i].loss, one->versions[i].loss);
  }
  for (size_t i = 0; i < one->run.fleet.size(); ++i) {
    EXPECT_EQ(two->run.fleet[i].alone, one->run.fleet[i].alone);
    EXPECT_EQ(two->run.fleet[i].global, one->run.fleet[i].global);
    EXPECT_EQ(two->run.fleet[i].personal, one->run.fleet[i].personal);
  }
}

TEST_F(FederationTest, Run_OnVersionSaysStop_EndsThere) {
  const FederationData data = MakeData(4, 0);
  FederationOptions options;
  options.task_file = Task("cohort: 4");
  options.on_version = [](const VersionScore& s) { return s.version < 2; };
  const auto result = Run(options, data);
  ASSERT_THAT(result, IsOk());
  EXPECT_EQ(result->versions.size(), 2u);
}

TEST_F(FederationTest, Run_Attackers_BreakTheMeanAndNotTheMedian) {
  const FederationData data = MakeData(8, 0);
  const auto last = [&](const std::string& strategy, Attack attack) {
    FederationOptions options;
    options.task_file = Task(strategy, "update: {codec: float32}\n");
    options.attack = attack;
    options.attackers = attack == Attack::kNone ? 0 : 2;
    options.may_break = options.attackers > 0;
    options.threads = 2;
    const auto result = Run(options, data);
    EXPECT_THAT(result, IsOk());
    return result.ok() ? result->versions.back().accuracy : -1;
  };
  // Two of eight: the mean goes backwards, the median is one of the honest.
  const std::string mean = "cohort: 8";
  const std::string median = "name: fedmedian, cohort: 8";
  const double calm = last(mean, Attack::kNone);
  EXPECT_GT(calm, 80);
  EXPECT_LT(last(mean, Attack::kSignFlip), calm - 20);
  EXPECT_GT(last(median, Attack::kScaledInRange), calm - 15);
  EXPECT_GT(last(median, Attack::kSignFlip), calm - 15);
}

TEST_F(FederationTest, Run_UpdatesBeyondMaxAbs_AreRefused) {
  const FederationData data = MakeData(5, 0);
  FederationOptions options;
  options.task_file =
      Task("cohort: 5, min_updates: 4", "update: {codec: float32}\n");
  options.attack = Attack::kScaled;
  options.attackers = 1;
  const auto result = Run(options, data);
  ASSERT_THAT(result, IsOk());
  EXPECT_EQ(result->rounds, 3u);
  EXPECT_GE(result->rejected, 3u);
  EXPECT_GT(result->versions.back().accuracy, 80);
}

TEST_F(FederationTest, Run_NobodyCanGoOn_IsAnErrorOrAResult) {
  const FederationData data = MakeData(2, 0);
  FederationOptions options;
  options.task_file =
      Task("cohort: 2", "update: {max_abs: {default: 0.0001}}\n");
  EXPECT_THAT(Run(options, data),
              StatusIs(StatusCode::kInternal, HasSubstr("DECLINED")));
  options.may_break = true;
  const auto result = Run(options, data);
  ASSERT_THAT(result, IsOk());
  EXPECT_THAT(result->failure, HasSubstr("DECLINED"));
  EXPECT_EQ(result->rounds, 0u);
}

TEST_F(FederationTest, Run_WhatCannotBe_IsRefused) {
  const FederationData data = MakeData(2, 0);
  FederationOptions options;
  options.task_file = Task("cohort: 2");
  options.attackers = 3;
  EXPECT_THAT(Run(options, data), StatusIs(StatusCode::kInvalidArgument));
  options.attackers = 0;
  options.threads = 0;
  EXPECT_THAT(Run(options, data), StatusIs(StatusCode::kInvalidArgument));
  options.threads = 1;
  options.task_file = "name: x";
  EXPECT_THAT(Run(options, data), StatusIs(StatusCode::kInvalidArgument));
}

// ------------------------------------------------------------- partitions

std::vector<uint8_t> Labels() {
  std::vector<uint8_t> labels;
  for (size_t i = 0; i < 2000; ++i) {
    labels.push_back(static_cast<uint8_t>(i * 7 % 10));
  }
  return labels;
}

std::set<uint8_t> LabelsOf(const std::vector<size_t>& part) {
  const std::vector<uint8_t> labels = Labels();
  std::set<uint8_t> out;
  for (const size_t i : part) out.insert(labels.at(i));
  return out;
}

void ExpectDealtOnce(const Parts& parts, size_t count) {
  std::set<size_t> seen;
  size_t total = 0;
  for (const auto& part : parts) {
    seen.insert(part.begin(), part.end());
    total += part.size();
  }
  EXPECT_EQ(seen.size(), total);
  EXPECT_EQ(total, count);
}

TEST(DealTest, Evenly_GivesEverythingOnce) {
  SeededRandom random(1);
  const Parts parts = DealEvenly(2000, 16, random);
  ExpectDealtOnce(parts, 2000);
  for (const auto& part : parts) EXPECT_EQ(part.size(), 125u);
  EXPECT_EQ(LabelsOf(parts[3]).size(), 10u);
}

TEST(DealTest, Shards_TwoEach_FewLabels) {
  SeededRandom random(1);
  const Parts parts = DealShards(Labels(), 20, 2, random);
  ExpectDealtOnce(parts, 2000);
  for (const auto& part : parts) {
    EXPECT_EQ(part.size(), 100u);
    EXPECT_LE(LabelsOf(part).size(), 2u);  // 50 divides the 200 of a label
  }
}

TEST(DealTest, Dirichlet_GivesEverythingOnceAndTenAtLeast) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    SeededRandom random(seed);
    const Parts parts = DealDirichlet(Labels(), 10, 0.5, random);
    ExpectDealtOnce(parts, 2000);
    size_t smallest = 2000;
    size_t largest = 0;
    for (const auto& part : parts) {
      smallest = std::min(smallest, part.size());
      largest = std::max(largest, part.size());
    }
    EXPECT_GE(smallest, 10u);
    EXPECT_GT(largest, smallest + 50);
  }
}

TEST(DealTest, Labels_TwoEach_AreTwo) {
  SeededRandom random(1);
  const Parts parts = DealLabels(Labels(), 10, 2, random);
  ExpectDealtOnce(parts, 2000);
  for (size_t i = 0; i < parts.size(); ++i) {
    EXPECT_EQ(LabelsOf(parts[i]).size(), 2u);
    EXPECT_TRUE(LabelsOf(parts[i]).contains(static_cast<uint8_t>(i)));
  }
}

// ---------------------------------------------------- the table of all rows

TEST(RowsTest, Rows_EveryOne_HasATaskAndAProgram) {
  PosixFileSystem files;
  std::set<std::string> names;
  for (const Row& row : Rows()) {
    EXPECT_TRUE(names.insert(row.suite + ": " + row.name()).second)
        << row.name();
    if (!IsAvailable(row)) {
      std::printf("SKIPPED %s: strategy %s is not in this build\n",
                  row.name().c_str(), row.strategy().c_str());
      continue;
    }
    const auto work = LoadWork(files, SELVAGE_SOURCE_DIR, row, 3, 0);
    ASSERT_THAT(work, IsOk()) << row.suite << ": " << row.name();
    const auto task = plan::ParseTaskFile(work->task_file);
    ASSERT_THAT(task, IsOk());
    EXPECT_EQ(task->seed, 3u);
  }
}

TEST(RowsTest, LoadData_AbsentFiles_IsNotFound) {
  PosixFileSystem files;
  for (const Row& row : Rows()) {
    EXPECT_THAT(LoadData(files, "/nowhere", row.data, 1),
                StatusIs(StatusCode::kNotFound))
        << row.name();
  }
}

// ------------------------------------------------------------------ the page

Row RoundsRow() {
  return {.suite = "mnist",
          .line = "2NN, IID",
          .measure = Measure::kRoundsTo,
          .threshold = 97,
          .wanted = 87};
}

FederationResult ResultOf(const std::vector<double>& accuracy) {
  FederationResult result;
  for (const double value : accuracy) {
    result.versions.push_back(
        {.version = result.versions.size() + 1, .accuracy = value});
  }
  result.rounds = accuracy.size();
  return result;
}

TEST(ResultsTest, CellOf_EachMeasure_TakesItsRound) {
  Row row = RoundsRow();
  const FederationResult result = ResultOf({50, 98, 97});
  const Cell rounds = CellOf(row, 1, result);
  EXPECT_TRUE(rounds.reached);
  EXPECT_EQ(rounds.figure, 2);
  row.measure = Measure::kBest;
  EXPECT_EQ(CellOf(row, 1, result).figure, 98);
  row.measure = Measure::kLast;
  EXPECT_EQ(CellOf(row, 1, result).figure, 97);
  EXPECT_FALSE(CellOf(RoundsRow(), 1, ResultOf({50, 60})).reached);
}

TEST(ResultsTest, Cells_WrittenTwice_AreReplaced) {
  PosixFileSystem files;
  const Path path = Path(::testing::TempDir()) / "accuracy_cells.json";
  (void)files.Remove(path);
  const Row row = RoundsRow();
  for (const double last : {90.0, 97.5}) {
    Cell cell = CellOf(row, 1, ResultOf({50, last}));
    cell.run.fleet = {{"device-000", 70, 80, 90}};
    ASSERT_THAT(WriteCell(files, path, cell), IsOk());
  }
  ASSERT_THAT(WriteCell(files, path, CellOf(row, 2, ResultOf({99}))), IsOk());
  const auto cells = ReadCells(files, path);
  ASSERT_THAT(cells, IsOk());
  ASSERT_EQ(cells->size(), 2u);
  EXPECT_EQ((*cells)[0].figure, 2);
  EXPECT_EQ((*cells)[0].run.fleet.at(0).personal, 90);
  EXPECT_EQ((*cells)[1].seed, 2u);
  const std::string page = ResultsPage(Rows(), *cells, "scripts/bench results");
  EXPECT_THAT(page,
              HasSubstr("| 2NN, IID | 97 % | 2, 1 | 1.5 | <= 87: **met**"));
  // What was not run is said, never left out.
  EXPECT_THAT(page, HasSubstr("| CNN, IID | 99 % | not run"));
  EXPECT_THAT(page, HasSubstr("| `wisdm` | not run"));
  ASSERT_THAT(WriteFileDurably(files, path, AsBytes("{}")), IsOk());
  EXPECT_THAT(ReadCells(files, path), StatusIs(StatusCode::kDataLoss));
}

TEST(ResultsTest, Page_RuleThatLosesMuch_IsNamed) {
  std::vector<Row> rows;
  std::vector<Cell> cells;
  for (const char* rule : {"fedavg", "fedmedian"}) {
    for (const size_t attackers : {0u, 6u}) {
      Row row{.suite = "robust",
              .line = rule,
              .column = attackers == 0 ? "no attack" : "scaled 30 %",
              .measure = Measure::kLast,
              .attackers = attackers};
      const bool breaks = attackers > 0 && std::string(rule) == "fedavg";
      cells.push_back(CellOf(row, 1, ResultOf({breaks ? 10.0 : 80.0})));
      rows.push_back(row);
    }
  }
  const std::string page = ResultsPage(rows, cells, "x");
  EXPECT_THAT(page, HasSubstr("`fedavg`: loses more at scaled 30 %"));
  EXPECT_THAT(page, HasSubstr("`fedmedian`: holds"));
  EXPECT_THAT(page, HasSubstr("| `fedavg`, 1 seed | 80.0 | 10.0 (-70.0) |"));
}

}  // namespace
}  // namespace selvage::bench

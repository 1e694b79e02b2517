// The rules that stand between a plan and a device, each on its own.
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/core/conditions.h"
#include "client/core/memory_estimate.h"
#include "client/core/privacy_floor.h"
#include "client/core/rate_schedule.h"
#include "client/core/usage_ledger.h"
#include "tests/testing/status_matchers.h"

namespace selvage::client {
namespace {

using namespace std::chrono_literals;  // NOLINT

using ::testing::HasSubstr;
using ::testing::Optional;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

TEST(ConditionsTest, UnmetCondition_Each_IsNamed) {
  const plan::ConditionsSpec all = {true, true, true, 0.3};
  const Conditions good;
  EXPECT_EQ(UnmetCondition(all, good), std::nullopt);
  Conditions now = good;
  now.charging = false;
  EXPECT_THAT(UnmetCondition(all, now), Optional(HasSubstr("not charging")));
  EXPECT_EQ(UnmetCondition({}, now), std::nullopt);
  now = good;
  now.unmetered = false;
  EXPECT_THAT(UnmetCondition(all, now), Optional(HasSubstr("metered")));
  now = good;
  now.idle = false;
  EXPECT_THAT(UnmetCondition(all, now), Optional(HasSubstr("not idle")));
  now = good;
  now.battery = 0.29;
  EXPECT_THAT(UnmetCondition(all, now),
              Optional(HasSubstr("battery (0.29) is below 0.3")));
  now.battery = 0.3;
  EXPECT_EQ(UnmetCondition(all, now), std::nullopt);
  now.battery = kNan;
  EXPECT_THAT(UnmetCondition(all, now), Optional(HasSubstr("battery")));
}

TEST(ConditionsTest, UnmetCondition_TooHot_StopsWhateverIsWanted) {
  Conditions now;
  now.thermal = Thermal::kSerious;
  EXPECT_EQ(UnmetCondition({}, now), std::nullopt);
  now.thermal = Thermal::kCritical;
  EXPECT_THAT(UnmetCondition({}, now), Optional(HasSubstr("hot")));
}

TEST(PrivacyFloorTest, BelowFloor_Default_DemandsNothing) {
  plan::Plan plan;
  plan.train.local_epochs = 1000;
  EXPECT_EQ(BelowFloor({}, plan), std::nullopt);
}

TEST(PrivacyFloorTest, BelowFloor_EachDemand_NamesSettingValueAndBound) {
  plan::Plan plan;
  plan.privacy.min_cohort = 10;
  plan.privacy.clip_norm = 2;
  plan.train.local_epochs = 5;
  plan.data.collection = "taps";
  PrivacyFloor floor;
  floor.min_cohort = 10;
  floor.clip_norm_max = 2;
  floor.epochs_max = 5;
  floor.collections = {"keys", "taps"};
  EXPECT_EQ(BelowFloor(floor, plan), std::nullopt);

  PrivacyFloor high = floor;
  high.min_cohort = 11;
  EXPECT_EQ(BelowFloor(high, plan),
            "privacy.min_cohort (10) is below this device's floor (11)");
  high = floor;
  high.require_secure_aggregation = true;
  EXPECT_THAT(BelowFloor(high, plan),
              Optional(HasSubstr("privacy.secure_aggregation is off")));
  high = floor;
  high.clip_norm_max = 1.5;
  EXPECT_EQ(BelowFloor(high, plan),
            "privacy.clip.norm (2) is above the most that this device allows "
            "(1.5)");
  high = floor;
  high.epochs_max = 4;
  EXPECT_EQ(BelowFloor(high, plan),
            "train.local_epochs (5) is above the most that this device allows "
            "(4)");
  // A step may be an epoch, and both phases see the examples.
  plan::Plan steps = plan;
  steps.train.local_epochs = 1;
  steps.train.local_steps = 5;
  EXPECT_EQ(BelowFloor(high, steps),
            "train.local_steps (5) may be as many epochs, which is above the "
            "most that this device allows (4)");
  plan::Plan fedrep = plan;
  fedrep.train.method = plan::TrainMethod::kFedRep;
  fedrep.train.local_epochs = 3;
  fedrep.train.head_epochs = 2;
  EXPECT_EQ(BelowFloor(high, fedrep),
            "train.head_epochs (2) with those of the shared tensors is above "
            "the most that this device allows (4)");
  fedrep.train.head_epochs = 1;
  EXPECT_EQ(BelowFloor(high, fedrep), std::nullopt);
  high = floor;
  high.collections = {"keys"};
  EXPECT_EQ(BelowFloor(high, plan),
            "data.collection (taps) is none that this device allows");
  plan.privacy.clip_norm = 0;
  EXPECT_THAT(BelowFloor(floor, plan),
              Optional(HasSubstr("privacy.clip is off")));
}

TEST(PrivacyFloorTest, CheckFloor_OutOfRange_IsNamed) {
  EXPECT_THAT(CheckFloor({}), test::IsOk());
  const auto message = [](const PrivacyFloor& floor) {
    return std::string(CheckFloor(floor).message());
  };
  PrivacyFloor floor;
  floor.min_cohort = -1;
  EXPECT_EQ(message(floor), "floor.min_cohort (-1) is negative");
  floor = {};
  floor.epochs_max = -2;
  EXPECT_EQ(message(floor), "floor.epochs_max (-2) is negative");
  floor = {};
  floor.uploads_per_day_max = -3;
  EXPECT_EQ(message(floor), "floor.uploads_per_day_max (-3) is negative");
  for (const double bad : {-0.5, kNan}) {
    floor = {};
    floor.clip_norm_max = bad;
    EXPECT_THAT(message(floor), HasSubstr("floor.clip_norm_max"));
  }
}

constexpr Time kNoon = FromMicros(int64_t{1'700'000'000'000'000});

TEST(UsageLedgerTest, Observe_Midnight_StartsAgain) {
  UsageLedger ledger;
  ledger.Observe(kNoon);
  ledger.AddBytes(/*unmetered=*/false, 5);
  ledger.AddBytes(/*unmetered=*/true, 7);
  ledger.AddCpu(3s);
  ledger.AddUpload("a");
  ledger.AddUpload("a");  // sent again
  ledger.AddUpload("b");
  const DayUsage wanted = {
      .metered_bytes = 5, .unmetered_bytes = 7, .cpu = 3s, .uploads = 2};
  ledger.Observe(ledger.NextDay() - 1us);
  EXPECT_EQ(ledger.today(), wanted);
  ledger.Observe(ledger.NextDay());
  EXPECT_EQ(ledger.today(), DayUsage{});
  EXPECT_EQ((ledger.NextDay() - Time{}) % 24h, Duration::zero());
}

TEST(UsageLedgerTest, Observe_ClockJumpsBackAndForth_CountsOn) {
  UsageLedger ledger;
  ledger.Observe(kNoon);
  ledger.AddUpload("a");
  for (const Duration jump : {24h * 365 * 20, 48h, 24h, 1h}) {
    ledger.Observe(kNoon - jump);
    EXPECT_EQ(ledger.today().uploads, 1U);
    ledger.Observe(kNoon);
    EXPECT_EQ(ledger.today().uploads, 1U);
  }
  // A device that boots in 1970 every time, before it learns the time.
  ledger.Observe(Time{} + 1s);
  ledger.Observe(kNoon + 1h);
  EXPECT_EQ(ledger.today().uploads, 1U);
  ledger.Observe(kNoon + 24h);
  EXPECT_EQ(ledger.today().uploads, 0U);
}

TEST(UsageLedgerTest, Observe_ClockWasAheadByYears_CostsOneDay) {
  UsageLedger ledger;
  ledger.Observe(kNoon + 24h * 5000);
  ledger.AddUpload("a");
  ledger.Observe(kNoon);
  EXPECT_EQ(ledger.today().uploads, 1U);
  EXPECT_GT(ledger.NextDay(), kNoon);
  EXPECT_LE(ledger.NextDay(), kNoon + 24h);
  ledger.Observe(ledger.NextDay());
  EXPECT_EQ(ledger.today().uploads, 0U);
}

TEST(UsageLedgerTest, Add_HugeCounts_Saturate) {
  UsageLedger ledger;
  ledger.Observe(kNoon);
  for (int i = 0; i < 3; ++i) {
    ledger.AddBytes(true, std::numeric_limits<uint64_t>::max() - 1);
    ledger.AddCpu(Duration::max());
    ledger.AddCpu(-1s);
  }
  EXPECT_EQ(ledger.today().unmetered_bytes,
            std::numeric_limits<uint64_t>::max());
  EXPECT_GT(ledger.today().cpu, Duration::zero());
  EXPECT_THAT(UsageLedger::Restore(ledger.Save()), test::IsOk());
}

TEST(UsageLedgerTest, Restore_RoundTripAndDamage) {
  UsageLedger ledger;
  ledger.Observe(kNoon);
  ledger.AddBytes(false, 5);
  ledger.AddCpu(3s);
  ledger.AddUpload("round-1");
  const Bytes saved = ledger.Save();
  const Result<UsageLedger> restored = UsageLedger::Restore(saved);
  ASSERT_THAT(restored, test::IsOk());
  EXPECT_EQ(restored->today(), ledger.today());
  EXPECT_TRUE(restored->HasUpload("round-1"));
  EXPECT_EQ(restored->Save(), saved);
  for (size_t size = 0; size < saved.size(); ++size) {
    const Bytes part(saved.begin(),
                     saved.begin() + static_cast<std::ptrdiff_t>(size));
    EXPECT_FALSE(UsageLedger::Restore(part).ok()) << size;
  }
  Bytes longer = saved;
  longer.push_back(0);
  EXPECT_THAT(UsageLedger::Restore(longer),
              test::StatusIs(StatusCode::kDataLoss, HasSubstr("ledger")));
  Bytes negative = saved;
  negative[13] = 0x80;  // the sign of `day`
  EXPECT_THAT(UsageLedger::Restore(negative),
              test::StatusIs(StatusCode::kDataLoss, HasSubstr("ledger")));
}

TEST(RateFactorTest, Shapes_AreTheStatedOnes) {
  plan::RateSchedule s;
  EXPECT_EQ(RateFactor(s, 0), 1);
  EXPECT_EQ(RateFactor(s, ~uint64_t{0}), 1);
  s.warmup = 4;
  EXPECT_EQ(RateFactor(s, 0), 0.25);
  EXPECT_EQ(RateFactor(s, 2), 0.75);
  EXPECT_EQ(RateFactor(s, 3), 1);
  EXPECT_EQ(RateFactor(s, 4), 1);
  s.name = plan::RateShape::kStep;
  s.every = 10;
  s.factor = 0.5;
  EXPECT_EQ(RateFactor(s, 13), 1);
  EXPECT_EQ(RateFactor(s, 14), 0.5);
  EXPECT_EQ(RateFactor(s, 24), 0.25);
  EXPECT_EQ(RateFactor(s, 1'000'000'000'000), 0);
  s.name = plan::RateShape::kCosine;
  s.length = 10;
  s.lowest = 0.1;
  EXPECT_EQ(RateFactor(s, 4), 1);
  EXPECT_NEAR(RateFactor(s, 9), 0.55, 1e-12);
  EXPECT_NEAR(RateFactor(s, 14), 0.1, 1e-12);
  EXPECT_NEAR(RateFactor(s, 1'000'000), 0.1, 1e-12);
  s.warmup = 0;
  EXPECT_EQ(RateFactor(s, 0), 1);
}

plan::Program MatrixProgram() {
  plan::Program program;
  program.inputs = {
      {.name = "x", .dtype = plan::DType::kUint8, .shape = {28, 28}},
      {.name = "y", .dtype = plan::DType::kInt64, .shape = {}}};
  program.table = *plan::TensorTable::Create(
      {{.name = "w", .shape = {100, 784}, .role = plan::Role::kShared}});
  return program;
}

TEST(MemoryEstimateTest, EstimateMemory_GrowsWithWhatItIsMadeOf) {
  const plan::Program program = MatrixProgram();
  TrainingSize size;
  size.examples = 1000;
  size.batch_size = 10;
  size.checkpoints = false;
  const uint64_t plain = EstimateMemory(program, size);
  const uint64_t values = 100 * 784 * 4;
  const uint64_t activations = (4 * 785 + 6 * 100) * 4;
  // 4 copies of the values, gradients, 2 of the largest tensor; the examples
  // and a batch; activations of a batch.
  EXPECT_EQ(plain, 7 * values + (784 + 8) * 1010 + 10 * activations);
  size.optimizer = plan::OptimizerName::kAdamW;
  EXPECT_EQ(EstimateMemory(program, size), plain + 2 * values);
  size.checkpoints = true;
  EXPECT_EQ(EstimateMemory(program, size), plain + 8 * values);
  size.checkpoints = false;
  size.optimizer = plan::OptimizerName::kSgd;
  size.momentum = true;
  EXPECT_EQ(EstimateMemory(program, size), plain + values);
  size.proximal = true;
  EXPECT_EQ(EstimateMemory(program, size), plain + 3 * values);
  size.clips = true;
  EXPECT_EQ(EstimateMemory(program, size), plain + 5 * values);
  size.clips = false;
  size.momentum = false;
  size.proximal = false;
  size.archive_size = 7;
  EXPECT_EQ(EstimateMemory(program, size), plain + 21);
  size.archive_size = 0;
  // A few scored examples take less than the step, many more than it.
  size.holdout = 20;
  EXPECT_EQ(EstimateMemory(program, size), plain + 10 * 792);
  // A batch is never larger than the data.
  size.holdout = 0;
  size.examples = 1;
  size.batch_size = 65536;
  EXPECT_LT(EstimateMemory(program, size), plain);
  size.examples = std::numeric_limits<uint64_t>::max();
  EXPECT_EQ(EstimateMemory(program, size),
            std::numeric_limits<uint64_t>::max());
}

TEST(MemoryEstimateTest, EstimateMemory_LargeModel_HoldsFewerCopies) {
  plan::Program program = MatrixProgram();
  std::vector<plan::TensorSpec> layers(
      20, {.name = "", .shape = {100, 784}, .role = plan::Role::kShared});
  for (size_t i = 0; i < layers.size(); ++i) {
    layers[i].name = "w" + std::to_string(i);
  }
  program.table = *plan::TensorTable::Create(layers);
  TrainingSize size;
  size.examples = 10;
  size.checkpoints = false;
  const uint64_t values = 20 * 100 * 784 * 4;
  const uint64_t plain = EstimateMemory(program, size);
  size.base_on_disk = true;
  EXPECT_EQ(EstimateMemory(program, size), plain - values);
  size.by_tensor = true;
  EXPECT_EQ(EstimateMemory(program, size), plain - 2 * values);
  // Another work has nothing of it.
  size.work = LocalWork::kPersonalize;
  const uint64_t personal = EstimateMemory(program, size);
  size.base_on_disk = false;
  size.by_tensor = false;
  EXPECT_EQ(EstimateMemory(program, size), personal);
  // One tensor that is the model saves nothing: it is held many times.
  program = MatrixProgram();
  size.work = LocalWork::kTrainRound;
  const uint64_t whole = EstimateMemory(program, size);
  size.by_tensor = true;
  EXPECT_GE(EstimateMemory(program, size), whole);
}

TEST(MemoryEstimateTest, EstimateMemory_OtherWork_HasItsOwnCopies) {
  const plan::Program program = MatrixProgram();
  TrainingSize size;
  size.examples = 100;
  size.holdout = 20;
  size.checkpoints = false;
  const uint64_t values = 100 * 784 * 4;
  const uint64_t round = EstimateMemory(program, size);
  size.work = LocalWork::kPersonalize;
  const uint64_t personal = EstimateMemory(program, size);
  EXPECT_EQ(personal, round + 4 * values);
  // A checkpoint, and an optimizer that is kept.
  size.checkpoints = true;
  EXPECT_EQ(EstimateMemory(program, size), personal + 2 * values);
  size.checkpoints = false;
  size.keeps_optimizer = true;
  EXPECT_EQ(EstimateMemory(program, size), personal);
  size.optimizer = plan::OptimizerName::kAdam;
  EXPECT_EQ(EstimateMemory(program, size), personal + (2 + 3 * 2) * values);
  size.optimizer = plan::OptimizerName::kSgd;
  size.keeps_optimizer = false;
  size.work = LocalWork::kEvaluate;
  EXPECT_EQ(EstimateMemory(program, size),
            2 * values + EstimateScoreMemory(program, size) + 120 * 792);
}

// Where a layer is applied at many places its outputs are as many.
TEST(MemoryEstimateTest, EstimateStepMemory_Places) {
  const auto step = [](std::vector<int64_t> input, plan::DType dtype,
                       std::vector<int64_t> weight) {
    plan::Program program;
    program.inputs = {{.name = "x", .dtype = dtype, .shape = std::move(input)}};
    program.table =
        *plan::TensorTable::Create({{.name = "w", .shape = std::move(weight)}});
    TrainingSize size;
    size.batch_size = 1;
    return EstimateStepMemory(program, size) -
           3 * 4 * program.table.float_count();
  };
  constexpr auto kFloat = plan::DType::kFloat32;
  constexpr auto kByte = plan::DType::kUint8;
  EXPECT_EQ(step({50}, kFloat, {7, 50}), 4 * (4 * 50 + 6 * 7));
  // A recurrent network over 20 steps of 5 numbers.
  EXPECT_EQ(step({20, 5}, kFloat, {7, 5}), 4 * (4 * 100 + 6 * 7 * 20));
  // Convolutions over an image and over characters, with their unfolding.
  EXPECT_EQ(step({3, 8, 8}, kByte, {7, 3, 5, 5}),
            4 * (4 * 192 + 6 * 7 * 64 + 75 * 64));
  EXPECT_EQ(step({80}, kByte, {7, 16, 3}), 4 * (4 * 80 + 6 * 7 * 80 + 48 * 80));
}

}  // namespace
}  // namespace selvage::client

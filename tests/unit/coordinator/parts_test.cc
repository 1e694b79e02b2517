// The small parts: tickets, budget, partials, results.
#include <algorithm>
#include <set>

#include <gmock/gmock.h>

#include "coordinator/byte_budget.h"
#include "coordinator/outcome_cache.h"
#include "coordinator/partial.h"
#include "coordinator/round_result.h"
#include "coordinator/store/file_blob_store.h"
#include "coordinator/task_definition.h"
#include "coordinator/tickets.h"
#include "crypto/aead.h"
#include "tests/testing/fault_file_system.h"
#include "tests/testing/status_matchers.h"

namespace selvage::coordinator {
namespace {

using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;
using ::testing::HasSubstr;

TEST(TicketsTest, AssignmentId_OpensForItsDeviceOnly) {
  SeededRandom random(1);
  const crypto::SecretBytes key = crypto::NewAeadKey(random);
  const crypto::SecretBytes other_key = crypto::NewAeadKey(random);
  const Tickets tickets(key);
  const DeviceIdentity device{"demo", "d"};
  const std::string id = tickets.AssignmentId({12, 345}, device);

  EXPECT_EQ(tickets.RoundOf(id, device), (RoundKey{12, 345}));
  EXPECT_EQ(tickets.RoundOf(id, {"demo", "e"}), std::nullopt);
  EXPECT_EQ(tickets.RoundOf(id, {"demo2", "d"}), std::nullopt);
  EXPECT_EQ(Tickets(other_key).RoundOf(id, device), std::nullopt);
  EXPECT_NE(tickets.AssignmentToken(id),
            Tickets(other_key).AssignmentToken(id));
  for (size_t i = 0; i < id.size(); ++i) {
    std::string damaged = id;
    damaged[i] = damaged[i] == '1' ? '2' : '1';
    EXPECT_EQ(tickets.RoundOf(damaged, device), std::nullopt) << damaged;
    EXPECT_EQ(tickets.RoundOf(id.substr(0, i), device), std::nullopt);
  }
  for (const char* text : {"", ".", "..", "1..", "1.2.",
                           "0"
                           "12.345.x"}) {
    EXPECT_EQ(tickets.RoundOf(text, device), std::nullopt) << text;
  }
  const uint64_t huge = ~uint64_t{0};
  EXPECT_LE(tickets.AssignmentId({huge, huge}, device).size(), 64u);
}

TEST(ByteBudgetTest, Take_UntilFull_AndAlwaysOne) {
  ByteBudget budget(100);
  ByteBudget::Share first = budget.Take(60);
  EXPECT_FALSE(first.empty());
  EXPECT_TRUE(budget.Take(41).empty());
  ByteBudget::Share second = budget.Take(40);
  EXPECT_FALSE(second.empty());
  EXPECT_EQ(budget.used(), 100u);
  second = ByteBudget::Share();
  EXPECT_EQ(budget.used(), 60u);
  ByteBudget::Share moved = std::move(first);
  EXPECT_EQ(budget.used(), 60u);
  moved = ByteBudget::Share();
  EXPECT_EQ(budget.used(), 0u);
  EXPECT_FALSE(budget.Take(1000).empty());  // bigger than the budget, alone
}

TEST(OutcomeCacheTest, Put_ManyRounds_ForgetsTheOldest) {
  OutcomeCache cache;
  for (uint64_t i = 1; i <= OutcomeCache::kRoundsMax + 1; ++i) {
    cache.Put({1, i}, OutcomeState::kCommitted);
  }
  EXPECT_EQ(cache.Find({1, 1}), std::nullopt);
  EXPECT_EQ(cache.Find({1, 2}), OutcomeState::kCommitted);
}

class PartialTest : public ::testing::Test {
 protected:
  RoundSums Sums(float value) {
    RoundSums sums{*aggregation::ExactSum::Create(layout_),
                   aggregation::MetricSums(1)};
    const std::vector<float> values = {value, 2 * value};
    EXPECT_THAT(sums.sum.Add({values, 3}), IsOk());
    const std::vector<aggregation::MetricValue> metrics = {{1 << 20, 2}};
    EXPECT_THAT(sums.metrics.Add(metrics), IsOk());
    return sums;
  }
  const aggregation::SumLayout layout_{{{2, 8.0}}, 100, 1000};
  SeededRandom random_{1};
  const crypto::SecretBytes key_ = crypto::NewAeadKey(random_);
  const crypto::SecretBytes wrapping_ = crypto::NewAeadKey(random_);
};

TEST_F(PartialTest, SealThenMerge_AddsExactly) {
  const auto sealed = SealPartial(key_, {1, 2}, "p", Sums(1.5f), random_);
  ASSERT_THAT(sealed, IsOk());
  RoundSums into = Sums(0.25f);

  ASSERT_THAT(MergePartial(key_, {1, 2}, "p", *sealed, into), IsOk());

  EXPECT_EQ(into.sum.update_count(), 2u);
  EXPECT_EQ(into.metrics.sums()[0].device_count, 2);
  const auto mean = std::move(into.sum).FinishMean();
  EXPECT_DOUBLE_EQ((*mean)[0], 0.875);
  EXPECT_DOUBLE_EQ((*mean)[1], 1.75);
}

TEST_F(PartialTest, Merge_AnotherPlaceOrDamaged_IsDataLoss) {
  const auto sealed = SealPartial(key_, {1, 2}, "p", Sums(1.5f), random_);
  RoundSums into = Sums(0);
  Bytes damaged = *sealed;
  damaged[damaged.size() / 2] ^= 1;

  EXPECT_THAT(MergePartial(key_, {1, 3}, "p", *sealed, into),
              StatusIs(StatusCode::kDataLoss));
  EXPECT_THAT(MergePartial(key_, {1, 2}, "q", *sealed, into),
              StatusIs(StatusCode::kDataLoss));
  EXPECT_THAT(MergePartial(wrapping_, {1, 2}, "p", *sealed, into),
              StatusIs(StatusCode::kDataLoss));
  EXPECT_THAT(MergePartial(key_, {1, 2}, "p", damaged, into),
              StatusIs(StatusCode::kDataLoss));
  EXPECT_EQ(into.sum.update_count(), 1u);
}

TEST_F(PartialTest, RoundKey_WrapsForItsRoundOnly) {
  const auto wrapped = WrapRoundKey(wrapping_, key_, {1, 2}, random_);
  ASSERT_THAT(wrapped, IsOk());

  const auto opened = UnwrapRoundKey(wrapping_, *wrapped, {1, 2});
  ASSERT_THAT(opened, IsOk());
  EXPECT_TRUE(*opened == key_);
  EXPECT_THAT(UnwrapRoundKey(wrapping_, *wrapped, {1, 3}),
              StatusIs(StatusCode::kDataLoss));
  EXPECT_THAT(UnwrapRoundKey(key_, *wrapped, {1, 2}),
              StatusIs(StatusCode::kDataLoss));
  EXPECT_THAT(UnwrapRoundKey(wrapping_, Bytes(wrapped->size(), 0), {1, 2}),
              StatusIs(StatusCode::kDataLoss));
}

class ResultTest : public ::testing::Test {
 protected:
  ResultTest() {
    plan::Program program;
    program.source = "def forward(self, x):\n    return x\n";
    program.table = *plan::TensorTable::Create({{"w",
                                                 {2},
                                                 plan::DType::kFloat32,
                                                 plan::Role::kShared,
                                                 plan::Init::kZeros},
                                                {"head",
                                                 {1},
                                                 plan::DType::kFloat32,
                                                 plan::Role::kPersonal,
                                                 plan::Init::kZeros},
                                                {"mean",
                                                 {1},
                                                 plan::DType::kFloat32,
                                                 plan::Role::kBufferFloat,
                                                 plan::Init::kZeros},
                                                {"steps",
                                                 {},
                                                 plan::DType::kInt64,
                                                 plan::Role::kBufferInt,
                                                 plan::Init::kZeros}});
    program.inputs = {{"x", plan::DType::kFloat32, {1}}};
    program.metrics = {"loss"};
    plan::TaskSpec spec;
    spec.name = "t";
    spec.population = "demo";
    spec.program = "model.yaml";
    spec.strategy.cohort = 3;
    spec.strategy.server_learning_rate = 0.5;
    auto defined = DefineTask(spec, program, crypto::Sha256(AsBytes("p")));
    EXPECT_THAT(defined, IsOk());
    definition_ = *std::move(defined);
  }
  TaskDefinition definition_;
};

TEST_F(ResultTest, DefineTask_LayoutAndBounds_FollowRolesAndSlots) {
  ASSERT_EQ(definition_.layout.ranges.size(), 2u);
  EXPECT_EQ(definition_.layout.ranges[0].max_abs, 8.0);
  EXPECT_EQ(definition_.layout.ranges[1].max_abs, 65536.0);
  EXPECT_EQ(definition_.layout.update_count_max, 16u);  // 4 x ceil(3 x 1.3)
  const RoundConfig config = definition_.ConfigOf(7, RoundMode::kTrain);
  EXPECT_THAT(config.Validate(), IsOk());
  EXPECT_EQ(config.slot_count, 4u);
  EXPECT_EQ(config.min_updates, 3u);
  EXPECT_EQ(config.selection_window, std::chrono::seconds(150));
}

TEST_F(ResultTest, ApplyMean_TouchesWhatIsAggregatedByItsRole) {
  plan::Checkpoint master;
  master.floats = {1.0f, 2.0f, 7.0f, 10.0f};
  master.ints = {42};

  aggregation::ServerState state;
  ASSERT_THAT(ApplyMean(definition_, {1.0, -1.0, 3.0}, master, state), IsOk());

  EXPECT_THAT(master.floats, ::testing::ElementsAre(1.5f, 1.5f, 7.0f, 13.0f));
  EXPECT_THAT(master.ints, ::testing::ElementsAre(42));
  EXPECT_EQ(state, aggregation::ServerState());
}

TEST_F(ResultTest, ApplyMean_StrategyWithState_StepsSharedTensorsOnly) {
  definition_.spec.strategy.name = plan::StrategyName::kFedAvgM;
  ASSERT_EQ(SharedCount(definition_.program.table), 2u);
  plan::Checkpoint master;
  master.floats = {1.0f, 2.0f, 7.0f, 10.0f};
  master.ints = {42};
  aggregation::ServerState state =
      aggregation::InitialServerState(definition_.spec.strategy, 2);

  for (int round = 0; round < 2; ++round) {
    ASSERT_THAT(ApplyMean(definition_, {1.0, -1.0, 3.0}, master, state),
                IsOk());
  }

  EXPECT_THAT(state.momentum, ::testing::ElementsAre(1.9f, -1.9f));
  // 0.5 (1 + 1.9) for the weights; the buffer moves by the mean each time.
  EXPECT_THAT(master.floats, ::testing::ElementsAre(2.45f, 0.55f, 7.0f, 16.0f));
}

TEST_F(ResultTest, LoadServerState_OfAnotherStrategy_IsDataLoss) {
  selvage::test::FaultFileSystem files;
  const auto blobs = FileBlobStore::Open(files, "/blobs");
  definition_.spec.strategy.name = plan::StrategyName::kFedAvgM;
  plan::Checkpoint master;
  master.floats = {1.5f, -2.0f, 0.25f, 4.0f};
  master.ints = {9};
  const aggregation::ServerState state{{0.5f, -0.5f}, {}};
  const auto stored = StoreVersion(definition_, 3, 5, master, state, **blobs);
  ASSERT_THAT(stored, IsOk());
  VersionRow row;
  EXPECT_EQ(*LoadServerState(definition_, row, **blobs),
            aggregation::InitialServerState(definition_.spec.strategy, 2));
  row.server_state_digest = stored->server_state_digest;

  EXPECT_EQ(*LoadServerState(definition_, row, **blobs), state);
  definition_.spec.strategy.name = plan::StrategyName::kFedYogi;
  EXPECT_THAT(LoadServerState(definition_, row, **blobs),
              StatusIs(StatusCode::kDataLoss, HasSubstr("another strategy")));
}

TEST_F(ResultTest, ApplyMean_NotFinite_NamesTheTensor) {
  plan::Checkpoint master;
  master.floats = {3.4e38f, 0, 0, 0};
  master.ints = {0};

  aggregation::ServerState state;
  EXPECT_THAT(ApplyMean(definition_, {1e38, 0, 0}, master, state),
              StatusIs(StatusCode::kOutOfRange, HasSubstr("tensor w")));
}

TEST_F(ResultTest, StoreVersion_Twice_SameDigestsAndReadBack) {
  selvage::test::FaultFileSystem files;
  const auto blobs = FileBlobStore::Open(files, "/blobs");
  plan::Checkpoint master;
  master.floats = {1.5f, -2.0f, 0.25f, 4.0f};
  master.ints = {9};

  const auto first = StoreVersion(definition_, 3, 5, master, {}, **blobs);
  const auto second = StoreVersion(definition_, 3, 5, master, {}, **blobs);

  ASSERT_THAT(first, IsOk());
  EXPECT_EQ(first->master_digest, second->master_digest);
  EXPECT_EQ(first->checkpoint_digest, second->checkpoint_digest);
  VersionRow row;
  row.master_digest = first->master_digest;
  EXPECT_EQ(*LoadMaster(definition_.program.table, row, **blobs), master);
}

TEST_F(ResultTest, StoreVersion_FrozenBackbone_WritesOnlyWhatChanged) {
  using plan::DType;
  using plan::Init;
  using plan::Role;
  definition_.program.table = *plan::TensorTable::Create(
      {{"w", {3}, DType::kFloat32, Role::kShared, Init::kZeros},
       {"backbone", {50000}, DType::kFloat32, Role::kFrozen, Init::kZeros},
       {"steps", {}, DType::kInt64, Role::kBufferInt, Init::kZeros}});
  definition_.spec.update.codec = plan::CodecName::kFloat32;
  selvage::test::FaultFileSystem files;
  const auto blobs = FileBlobStore::Open(files, "/blobs");
  plan::Checkpoint master;
  master.floats.assign(50003, 0.25f);
  master.ints = {9};
  const auto first = StoreVersion(definition_, 1, 1, master, {}, **blobs);
  ASSERT_THAT(first, IsOk());
  uint64_t stored = 0;
  for (const Path directory : {"/blobs/artefacts", "/blobs/joined"}) {
    const auto names = files.List(directory);
    ASSERT_THAT(names, IsOk());
    for (const std::string& name : *names) {
      stored += (*files.Open(directory / name))->size();
    }
  }
  // The backbone is there once, for checkpoint and master both.
  EXPECT_LT(stored, 200000u + 2000);
  const size_t count = (*blobs)->List()->size();
  master.floats[0] = 4;

  const auto second = StoreVersion(definition_, 2, 2, master, {}, **blobs);

  ASSERT_THAT(second, IsOk());
  EXPECT_NE(first->checkpoint_digest, second->checkpoint_digest);
  // The trained part, the list, the master's beginning, its values, and what
  // joins them.
  EXPECT_EQ((*blobs)->List()->size(), count + 5);
  // Everything in the store is in one of the versions' lists, with its size.
  std::set<crypto::Digest> named;
  for (const auto* version : {&*first, &*second}) {
    for (const auto& [digest, size] : version->artefacts) {
      named.insert(digest);
      EXPECT_EQ((*(*blobs)->Open(digest))->size(), size);
    }
    // Devices may fetch the list and both parts, and nothing of the master
    // that is not in the checkpoint.
    EXPECT_EQ(version->references.size(), 3u);
    EXPECT_EQ(std::count(version->references.begin(), version->references.end(),
                         version->master_digest),
              0);
  }
  EXPECT_EQ(named.size(), (*blobs)->List()->size());
  VersionRow row;
  row.master_digest = second->master_digest;
  EXPECT_EQ(*LoadMaster(definition_.program.table, row, **blobs), master);
}

TEST(ReleasableMetricsTest, BelowMinCohort_IsNothing) {
  aggregation::MetricSums metrics(1);
  const std::vector<aggregation::MetricValue> one = {{1 << 20, 2}};
  ASSERT_THAT(metrics.Add(one), IsOk());
  ASSERT_THAT(metrics.Add(one), IsOk());

  EXPECT_FALSE(ReleasableMetrics(metrics, 2).empty());
  EXPECT_TRUE(ReleasableMetrics(metrics, 3).empty());
}

}  // namespace
}  // namespace selvage::coordinator

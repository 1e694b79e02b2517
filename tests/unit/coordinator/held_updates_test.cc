// Strategies that must see individual updates, and what is kept of these: the
// sealed blobs alone, and whole rounds.
#include "coordinator/held_updates.h"

#include <cmath>

#include <gmock/gmock.h>

#include "coordinator/round_result.h"
#include "tests/unit/coordinator/world.h"

namespace selvage::coordinator::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

constexpr RoundKey kRound{1, 2};

class HeldUpdatesTest : public ::testing::Test {
 protected:
  HeldUpdatesTest() {
    plan::Program program;
    program.source = "def forward(self, x):\n    return x\n";
    program.table = *plan::TensorTable::Create({{"w",
                                                 {300, 100},  // two blocks
                                                 plan::DType::kFloat32,
                                                 plan::Role::kShared,
                                                 plan::Init::kZeros},
                                                {"mean",
                                                 {3},
                                                 plan::DType::kFloat32,
                                                 plan::Role::kBufferFloat,
                                                 plan::Init::kZeros}});
    program.inputs = {{"x", plan::DType::kFloat32, {1}}};
    program.metrics = {"loss"};
    plan::TaskSpec spec;
    spec.name = "t";
    spec.population = "demo";
    spec.program = "model.yaml";
    spec.strategy.name = plan::StrategyName::kFedMedian;
    spec.strategy.cohort = 3;
    auto defined = DefineTask(spec, program, crypto::Sha256(AsBytes("p")));
    EXPECT_THAT(defined, IsOk());
    definition_ = *std::move(defined);
    blobs_ = *FileBlobStore::Open(files_, "/blobs");
  }
  std::vector<float> Values(float first) const {
    std::vector<float> values(definition_.layout.element_count());
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = first + static_cast<float>(i % 7) / 8;
    }
    return values;
  }
  Bytes Encoded(float first) const {
    return *aggregation::Encode(plan::CodecName::kFloat16,
                                definition_.update_counts, Values(first));
  }
  Result<Bytes> Seal(const std::string& id,
                     const std::map<std::string, float>& updates) {
    std::vector<Bytes> encoded;
    std::vector<UpdateToHold> held;
    for (const auto& [name, first] : updates) encoded.push_back(Encoded(first));
    for (const auto& [name, first] : updates) {
      held.push_back(
          {name, encoded[held.size()], static_cast<uint32_t>(10 * first)});
    }
    aggregation::MetricSums metrics(1);
    const std::vector<aggregation::MetricValue> one = {{1 << 20, 2}};
    EXPECT_THAT(metrics.Add(one), IsOk());
    return SealUpdates(definition_, key_, kRound, id, held, metrics, random_);
  }
  void Put(const std::string& id, const std::map<std::string, float>& updates) {
    const auto sealed = Seal(id, updates);
    ASSERT_THAT(sealed, IsOk());
    ASSERT_THAT(blobs_->PutSealed(id, *sealed), IsOk());
    partials_.push_back({id, kRound, updates.size(), 0});
  }
  Result<std::unique_ptr<HeldUpdates>> Open() {
    return HeldUpdates::Open(definition_, kRound, partials_, *blobs_, key_);
  }

  FaultFileSystem files_;
  std::unique_ptr<FileBlobStore> blobs_;
  SeededRandom random_{1};
  const crypto::SecretBytes key_ = crypto::NewAeadKey(random_);
  TaskDefinition definition_;
  std::vector<PartialRow> partials_;
};

TEST_F(HeldUpdatesTest, SealThenOpen_IsTheSameUpdatesInTheOrderOfTheirIds) {
  Put("p2", {{"b", 2.0f}, {"d", 4.0f}});
  Put("p1", {{"c", 3.0f}, {"a", 1.0f}});

  const auto held = Open();

  ASSERT_THAT(held, IsOk());
  ASSERT_EQ((*held)->update_count(), 4u);
  EXPECT_EQ((*held)->element_count(), 30'003u);
  EXPECT_EQ((*held)->block_count(), 2u);
  EXPECT_EQ((*held)->metrics().sums()[0].device_count, 2);
  for (size_t u = 0; u < 4; ++u) {
    EXPECT_EQ((*held)->weight(u), 10 * (u + 1));
    std::vector<float> values;
    for (size_t index = 0; index < 2; ++index) {
      std::vector<float> part((*held)->block(index).count);
      ASSERT_THAT((*held)->Read(u, index, part), IsOk());
      values.insert(values.end(), part.begin(), part.end());
    }
    EXPECT_EQ(values, Values(static_cast<float>(u + 1)));
  }
}

TEST_F(HeldUpdatesTest, Blob_ShowsNothingOfAnUpdate) {
  const auto first = Seal("p", {{"assignment-1", 1.0f}});
  const auto second = Seal("p", {{"assignment-1", 1.0f}});
  ASSERT_THAT(first, IsOk());
  EXPECT_THAT(std::string(AsText(*first)), Not(HasSubstr("assignment-1")));
  EXPECT_NE(*first, *second);  // another nonce every time
}

TEST_F(HeldUpdatesTest, AnotherPlaceOrDamaged_IsDataLoss) {
  Put("p1", {{"a", 1.0f}});
  Put("p2", {{"b", 2.0f}});
  const Bytes good = *blobs_->ReadSealed("p1");
  const auto opens_with = [&](const Bytes& bytes) -> Status {
    SELVAGE_RETURN_IF_ERROR(blobs_->PutSealed("p1", bytes));
    SELVAGE_ASSIGN_OR_RETURN(const auto held, Open());
    std::vector<float> part(held->block(0).count);
    return held->Read(0, 0, part);
  };
  EXPECT_THAT(opens_with(good), IsOk());
  // Every byte counts: of the size, the header, the first block.
  for (const size_t at : {size_t{0}, size_t{7}, size_t{8}, size_t{40},
                          good.size() - 30'003 * 4 - 50}) {
    Bytes damaged = good;
    damaged[at] ^= 1;
    EXPECT_THAT(opens_with(damaged), StatusIs(StatusCode::kDataLoss)) << at;
  }
  for (const size_t size :
       {size_t{0}, size_t{3}, size_t{100}, good.size() - 1}) {
    EXPECT_THAT(
        opens_with(Bytes(good.begin(),
                         good.begin() + static_cast<std::ptrdiff_t>(size))),
        StatusIs(StatusCode::kDataLoss))
        << size;
  }
  EXPECT_THAT(opens_with(*blobs_->ReadSealed("p2")),
              StatusIs(StatusCode::kDataLoss));

  ASSERT_THAT(blobs_->PutSealed("p1", good), IsOk());
  partials_[0].update_count = 2;
  EXPECT_THAT(Open(), StatusIs(StatusCode::kDataLoss, HasSubstr("row says 2")));
  partials_[0].update_count = 1;
  EXPECT_THAT(HeldUpdates::Open(definition_, {1, 3}, partials_, *blobs_, key_),
              StatusIs(StatusCode::kDataLoss));
  const crypto::SecretBytes other = crypto::NewAeadKey(random_);
  EXPECT_THAT(HeldUpdates::Open(definition_, kRound, partials_, *blobs_, other),
              StatusIs(StatusCode::kDataLoss));
  ASSERT_THAT(blobs_->RemoveSealed("p2"), IsOk());
  EXPECT_THAT(Open(), StatusIs(StatusCode::kNotFound, HasSubstr("p2")));
}

TEST_F(HeldUpdatesTest, Seal_UpdateThatCannotBeDecoded_IsRefused) {
  const Bytes bytes = {1, 2, 3};
  const std::vector<UpdateToHold> held = {{"a", bytes, 1}};
  EXPECT_THAT(SealUpdates(definition_, key_, kRound, "p", held,
                          aggregation::MetricSums(1), random_),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST_F(HeldUpdatesTest, Limits_FollowTheModelAndTheCohort) {
  // 16 updates of 30,003 floats and two tags.
  const uint64_t bytes = 16 * (30'003 * 4 + 2 * 28);
  EXPECT_EQ(HeldBytesMax(definition_), bytes);
  EXPECT_THAT(CheckHeldBytes(definition_, bytes), IsOk());
  EXPECT_THAT(
      CheckHeldBytes(definition_, bytes - 1),
      StatusIs(StatusCode::kInvalidArgument,
               HasSubstr("fedmedian keeps every update until the round ends: "
                         "up to 16 of 30003 values, " +
                         std::to_string(bytes) + " bytes; the limit is ")));
  EXPECT_EQ(HeldBatchMax(definition_), (64u << 20) / (30'003 * 4 + 56));
  definition_.spec.strategy.name = plan::StrategyName::kFedAvg;
  EXPECT_THAT(CheckHeldBytes(definition_, 0), IsOk());
}

// ------------------------------------------------------------- whole rounds

constexpr char kFive[] =
    "cohort: 5, min_updates: 5, over_selection: 1.0, round_deadline: 5m";

class HeldRoundTest : public ::testing::TestWithParam<bool> {
 protected:
  World& Start(const std::string& name, const std::string& parameters) {
    WorldOptions options;
    options.sqlite = GetParam();
    options.devices = 5;
    options.strategy_name = name;
    options.strategy = kFive + parameters;
    options.rounds = 2;
    world_ = std::make_unique<World>(std::move(options));
    world_->SetUpTask();
    world_->Turn();
    return *world_;
  }
  // Device i sends `values[i]` at its own coordinate and `all` elsewhere.
  static Bytes Update(float all, size_t own, float value) {
    std::vector<float> values(10, all);
    values[own] = value;
    const std::vector<size_t> counts = {10};
    return *aggregation::Encode(plan::CodecName::kFloat32, counts, values);
  }
  // One round; four devices send 1 everywhere and 2 at their own coordinate,
  // the last one a lie.
  void Round(World& world) {
    for (const auto& [device, work] : world.DrawRound()) {
      const Bytes bytes = device == 4
                              ? Update(-7, 0, -7.5f)
                              : Update(1, static_cast<size_t>(device), 2);
      const auto answer = world.Send(device, world.Header(work, bytes), bytes);
      world.coordinator().Poll();
      ASSERT_TRUE(answer->has_value());
      ASSERT_THAT(**answer, IsOk());
      ASSERT_EQ((**answer)->status, ReceiptStatus::kAccepted)
          << (**answer)->message;
    }
  }
  std::unique_ptr<World> world_;
};
INSTANTIATE_TEST_SUITE_P(Stores, HeldRoundTest, ::testing::Bool(),
                         [](const auto& param) {
                           return param.param ? "Sqlite" : "Memory";
                         });

TEST_P(HeldRoundTest, RobustRules_MakeTheModelThatTheyShould) {
  struct Case {
    const char* name;
    const char* parameters;
    float own;    // of coordinate 0
    float other;  // of coordinate 7, where all honest ones agree
  };
  const std::vector<Case> cases = {
      {"fedmedian", "", 1, 1},
      {"fedtrimmedavg", ", beta: 0.2", 1, 1},
      {"fedmedian", ", server_learning_rate: 0.5", 0.5f, 0.5f},
      {"multikrum", ", num_malicious_nodes: 1", 1.25f, 1},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    World& world = Start(c.name, c.parameters);
    Round(world);
    ASSERT_FALSE(HasFatalFailure());
    EXPECT_EQ(world.Model()[0], c.own);
    EXPECT_EQ(world.Model()[7], c.other);
  }
  World& krum = Start("krum", ", num_malicious_nodes: 1");
  Round(krum);
  EXPECT_EQ(krum.Model()[7], 1);
  World& rfa = Start("rfa", "");
  Round(rfa);
  EXPECT_NEAR(rfa.Model()[7], 1, 0.2);
}

TEST_P(HeldRoundTest, Restart_InTheMiddle_LosesNothingAndCountsNothingTwice) {
  World& world = Start("multikrum", ", num_malicious_nodes: 0");
  std::map<int, Assignment> assigned = world.DrawRound();
  ASSERT_EQ(assigned.size(), 5u);
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(world.Upload(i, assigned.at(i)).status, ReceiptStatus::kAccepted);
    ASSERT_THAT(world.Reopen(), IsOk());
    // Its first receipt again.
    EXPECT_EQ(world.Upload(i, assigned.at(i)).status, ReceiptStatus::kAccepted);
  }
  ASSERT_EQ(world.coordinator().GetRound("task", 1)->state,
            RoundState::kCommitted);
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(world.Model()[world.Coordinate(1, i)], 0.2f);
  }
}

TEST_P(HeldRoundTest, AfterTheRound_NothingOfAnUpdateIsLeft) {
  World& world = Start("fedmedian", "");
  std::map<int, Assignment> assigned = world.DrawRound();
  for (int i = 0; i < 4; ++i) world.Upload(i, assigned.at(i));
  EXPECT_THAT(*world.blobs().ListSealed(), Not(IsEmpty()));
  world.Upload(4, assigned.at(4));
  ASSERT_EQ(world.coordinator().GetRound("task", 1)->state,
            RoundState::kCommitted);
  EXPECT_THAT(*world.blobs().ListSealed(), IsEmpty());
  const Bytes key = world.store().GetRound({1, 1})->wrapped_key;
  EXPECT_EQ(key, Bytes(key.size(), 0));
}

TEST_P(HeldRoundTest, ABlobThatIsGone_AbandonsTheRound) {
  World& world = Start("fedmedian", "");
  std::map<int, Assignment> assigned = world.DrawRound();
  for (int i = 0; i < 4; ++i) world.Upload(i, assigned.at(i));
  ASSERT_THAT(world.blobs().RemoveSealed(world.blobs().ListSealed()->front()),
              IsOk());
  world.Upload(4, assigned.at(4));
  const auto round = world.coordinator().GetRound("task", 1);
  EXPECT_EQ(round->state, RoundState::kAbandoned);
  EXPECT_THAT(round->reason, HasSubstr("held updates"));
}

TEST_P(HeldRoundTest, Metrics_AreThoseOfAllUpdates) {
  World& world = Start("fedmedian", "");
  Round(world);
  const auto round = world.coordinator().GetRound("task", 1);
  ASSERT_THAT(round->metrics, SizeIs(2));
  EXPECT_EQ(round->metrics[0].device_count, 5u);
  EXPECT_DOUBLE_EQ(round->metrics[0].mean, 0.5);
  // The rule's own mean: ten coordinates of 1.
  ASSERT_THAT(round->figures, SizeIs(1));
  EXPECT_NEAR(round->figures.at("update_norm"), std::sqrt(10.0), 1e-6);
}

TEST_P(HeldRoundTest, TaskThatCouldNeedTooMuchDisk_IsRefused) {
  WorldOptions options;
  options.sqlite = GetParam();
  options.strategy_name = "fedmedian";
  options.strategy = "cohort: 4";
  options.options.held_bytes_max = 100;
  World world(std::move(options));
  ASSERT_THAT(world.coordinator().CreatePopulation("demo", "p"), IsOk());
  EXPECT_THAT(world.CreateTask("task"),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("the limit is 100 (limits.held_bytes")));
}

TEST(CoordinatorOptionsTest, RuleThreads_OutOfRange_AreRefused) {
  CoordinatorOptions options;
  for (const size_t threads : {size_t{0}, size_t{65}, SIZE_MAX}) {
    options.rule_threads = threads;
    EXPECT_THAT(options.Validate(),
                StatusIs(StatusCode::kInvalidArgument,
                         HasSubstr("rule_threads (" + std::to_string(threads) +
                                   ") is not in 1..64")));
  }
  for (const size_t threads : {size_t{1}, size_t{64}}) {
    options.rule_threads = threads;
    EXPECT_THAT(options.Validate(), IsOk());
  }
}

// The mean of updates of norms that are known: 1 stays, 4 becomes 1.
TEST_P(HeldRoundTest, NormBound_ScalesAndSaysHowMany) {
  World& world = Start("normbound", ", clipping_norm: 1");
  for (const auto& [device, work] : world.DrawRound()) {
    const Bytes bytes = world.OneHot(1, device, device < 2 ? 4.0f : 0.5f);
    const auto answer = world.Send(device, world.Header(work, bytes), bytes);
    world.coordinator().Poll();
    ASSERT_EQ((**answer)->status, ReceiptStatus::kAccepted);
    ASSERT_THAT(world.Reopen(), IsOk());
  }
  const auto round = world.coordinator().GetRound("task", 1);
  ASSERT_EQ(round->state, RoundState::kCommitted);
  EXPECT_EQ(round->figures.at("clip_fraction"), 0.4);
  // Means of 1/5 from two devices and 1/10 from three.
  EXPECT_NEAR(round->figures.at("update_norm"), std::sqrt(0.11), 1e-6);
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(world.Model()[world.Coordinate(1, i)], i < 2 ? 0.2f : 0.1f);
  }
}

TEST(FiguresTest, Text_RoundTripsAndRefusesTheRest) {
  const std::map<std::string, double> figures = {{"a", 0.1}, {"b", -3e300}};
  EXPECT_EQ(*ParseFigures(FiguresText(figures)), figures);
  EXPECT_THAT(*ParseFigures(""), IsEmpty());
  for (const char* bad : {"a", "a=1", "a\n", "a=\n", "a=x\n", "a=nan\n"}) {
    EXPECT_THAT(ParseFigures(bad), StatusIs(StatusCode::kDataLoss)) << bad;
  }
}

}  // namespace
}  // namespace selvage::coordinator::test

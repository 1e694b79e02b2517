// The small parts: tickets, budget, partials, results.
#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <set>

#include <gmock/gmock.h>

#include "aggregation/codec/checkpoint_parts.h"
#include "aggregation/contribution.h"
#include "coordinator/byte_budget.h"
#include "coordinator/known_devices.h"
#include "coordinator/model_store.h"
#include "coordinator/next_model.h"
#include "coordinator/outcome_cache.h"
#include "coordinator/partial.h"
#include "coordinator/round_result.h"
#include "coordinator/running_sums.h"
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
  // The sums of one update in two stretches.
  std::vector<aggregation::ExactSum> Sums(float value) {
    std::vector<aggregation::ExactSum> sums;
    for (const auto& stretch : stretches_) {
      sums.push_back(*aggregation::ExactSum::Create(stretch.layout));
      std::vector<float> values(stretch.layout.element_count(), value);
      if (stretch.first > 0) values[0] = 2 * value;
      EXPECT_THAT(sums.back().Add({values, 3}), IsOk());
    }
    return sums;
  }
  PartialHead Head() {
    PartialHead head{1, aggregation::MetricSums(1), {7, -8}};
    const std::vector<aggregation::MetricValue> metrics = {{1 << 20, 2}};
    EXPECT_THAT(head.metrics.Add(metrics), IsOk());
    return head;
  }
  Status Write(const PartialName& name, float value) {
    const auto sums = Sums(value);
    return WritePartial(
        name, Head(), sums.size(),
        [&](size_t i) { return Result<aggregation::ExactSum>(sums[i]); },
        *blobs_, random_);
  }
  // All of it.
  Status Read(const PartialName& name,
              std::vector<aggregation::ExactSum>& into) {
    SELVAGE_ASSIGN_OR_RETURN(PartialReader reader,
                             PartialReader::Open(name, into.size(), *blobs_));
    EXPECT_EQ(reader.head().scalars, Head().scalars);
    EXPECT_EQ(reader.head().metrics.sums(), Head().metrics.sums());
    for (aggregation::ExactSum& sum : into) {
      SELVAGE_RETURN_IF_ERROR(reader.MergeNext(sum));
    }
    return OkStatus();
  }

  const std::vector<aggregation::SumStretch> stretches_ =
      aggregation::CutLayout({{{2, 8.0}, {3, 4.0}}, 100, 1000}, 3);
  SeededRandom random_{1};
  const crypto::SecretBytes key_ = crypto::NewAeadKey(random_);
  const crypto::SecretBytes wrapping_ = crypto::NewAeadKey(random_);
  selvage::test::FaultFileSystem files_;
  const std::unique_ptr<FileBlobStore> blobs_ =
      *FileBlobStore::Open(files_, "/blobs");
};

TEST_F(PartialTest, WriteThenRead_AddsExactly) {
  ASSERT_THAT(Write({key_, {1, 2}, "p"}, 1.5f), IsOk());
  std::vector<aggregation::ExactSum> into = Sums(0.25f);
  ASSERT_EQ(into.size(), 2u);

  ASSERT_THAT(Read({key_, {1, 2}, "p"}, into), IsOk());

  for (aggregation::ExactSum& sum : into) EXPECT_EQ(sum.update_count(), 2u);
  EXPECT_THAT(*std::move(into[0]).FinishMean(),
              ::testing::ElementsAre(0.875, 0.875, 0.875));
  EXPECT_THAT(*std::move(into[1]).FinishMean(),
              ::testing::ElementsAre(1.75, 0.875));
}

TEST_F(PartialTest, Read_AnotherPlaceOrDamaged_IsDataLoss) {
  ASSERT_THAT(Write({key_, {1, 2}, "p"}, 1.5f), IsOk());
  ASSERT_THAT(Write({key_, {1, 2}, "other"}, 1.5f), IsOk());
  const Bytes good = *blobs_->ReadSealed("p");
  const auto reads = [&](const PartialName& name) {
    std::vector<aggregation::ExactSum> into = Sums(0);
    return Read(name, into);
  };
  ASSERT_THAT(reads({key_, {1, 2}, "p"}), IsOk());
  EXPECT_THAT(reads({wrapping_, {1, 2}, "p"}), StatusIs(StatusCode::kDataLoss));
  EXPECT_THAT(reads({key_, {1, 3}, "p"}), StatusIs(StatusCode::kDataLoss));
  EXPECT_THAT(reads({key_, {1, 2}, "q"}), StatusIs(StatusCode::kNotFound));
  std::vector<aggregation::ExactSum> one = {Sums(0)[0]};
  EXPECT_THAT(Read({key_, {1, 2}, "p"}, one), StatusIs(StatusCode::kDataLoss));

  const auto reads_with = [&](const Bytes& bytes) {
    EXPECT_THAT(blobs_->PutSealed("p", bytes), IsOk());
    return reads({key_, {1, 2}, "p"});
  };
  EXPECT_THAT(reads_with(*blobs_->ReadSealed("other")),
              StatusIs(StatusCode::kDataLoss));
  for (size_t at = 0; at < good.size(); ++at) {
    Bytes damaged = good;
    damaged[at] ^= 1;
    EXPECT_THAT(reads_with(damaged), StatusIs(StatusCode::kDataLoss)) << at;
    const auto cut = good.begin() + static_cast<std::ptrdiff_t>(at);
    EXPECT_THAT(reads_with(Bytes(good.begin(), cut)),
                StatusIs(StatusCode::kDataLoss))
        << at;
  }
  Bytes longer = good;
  longer.push_back(0);
  EXPECT_THAT(reads_with(longer), StatusIs(StatusCode::kDataLoss));
  // The two stretches in each other's place.
  uint64_t head_size = 0;
  std::memcpy(&head_size, good.data(), sizeof head_size);
  const size_t begin = 8 + static_cast<size_t>(head_size);
  uint64_t first_size = 0;
  std::memcpy(&first_size, good.data() + begin, sizeof first_size);
  const size_t middle = begin + 8 + static_cast<size_t>(first_size);
  Bytes swapped(good.begin(),
                good.begin() + static_cast<std::ptrdiff_t>(begin));
  AppendBytes(swapped, ByteSpan(good).subspan(middle));
  AppendBytes(swapped, ByteSpan(good).subspan(begin, middle - begin));
  EXPECT_THAT(reads_with(swapped), StatusIs(StatusCode::kDataLoss));
}

TEST_F(PartialTest, Write_AnErrorOrAFullDisk_LeavesNothing) {
  EXPECT_THAT(WritePartial(
                  {key_, {1, 2}, "p"}, Head(), 2,
                  [](size_t) -> Result<aggregation::ExactSum> {
                    return Internal("no sum");
                  },
                  *blobs_, random_),
              StatusIs(StatusCode::kInternal));
  EXPECT_THAT(*blobs_->ListSealed(), ::testing::IsEmpty());
  EXPECT_THAT(*files_.List("/blobs/incoming"), ::testing::IsEmpty());
}

// What Take() gives for partials of these names.
std::optional<RunningSums::Kept> TakeFrom(
    RunningSums& sums, const std::vector<std::string>& names) {
  std::vector<PartialRow> rows;
  for (const std::string& name : names) rows.emplace_back().id = name;
  return sums.Take(rows);
}

TEST_F(PartialTest, RunningSums_OfConfirmedPartials_AreTheirSums) {
  ByteBudget room(1000);
  RunningSums running(room);
  const auto write = [&](const std::string& id, float value) {
    const auto sums = Sums(value);
    running.Begin(5);
    EXPECT_THAT(
        WritePartial(
            {key_, {1, 2}, id}, Head(), sums.size(),
            [&](size_t i) { return Result<aggregation::ExactSum>(sums[i]); },
            *blobs_, random_,
            [&](size_t i, aggregation::ExactSum sum) {
              running.Add(i, std::move(sum));
            }),
        IsOk());
  };
  write("a", 1.5f);
  running.Confirm("a");
  write("b", 0.25f);
  running.Confirm("b");
  EXPECT_EQ(room.used(), 40u);

  // "c" is somebody else's.
  std::optional<RunningSums::Kept> kept = TakeFrom(running, {"c", "b", "a"});
  ASSERT_TRUE(kept.has_value());
  EXPECT_THAT(kept->ids, ::testing::ElementsAre("a", "b"));
  std::vector<aggregation::ExactSum> read = Sums(1.5f);
  ASSERT_THAT(Read({key_, {1, 2}, "b"}, read), IsOk());
  ASSERT_EQ(kept->sums.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(kept->sums[i].Serialize(), read[i].Serialize());
  }
  EXPECT_FALSE(TakeFrom(running, {"a", "b"}).has_value());  // given away
  kept.reset();
  EXPECT_EQ(room.used(), 0u);
}

TEST_F(PartialTest, RunningSums_OfWhatMayNotCount_AreNone) {
  ByteBudget room(100);
  RunningSums running(room);
  const auto add = [&](float value) {
    running.Begin(5);
    std::vector<aggregation::ExactSum> sums = Sums(value);
    running.Add(0, std::move(sums[0]));
    running.Add(1, std::move(sums[1]));
  };
  EXPECT_FALSE(TakeFrom(running, {}).has_value());
  // Nobody knows whether it has a row.
  running.Reset();
  add(1);
  running.Confirm("a");
  add(0.5f);
  EXPECT_FALSE(TakeFrom(running, {"a"}).has_value());
  // It has none; what comes later in the round cannot make up for that.
  running.Reset();
  add(1);
  running.Drop();
  add(0.5f);
  running.Confirm("b");
  EXPECT_FALSE(TakeFrom(running, {"b"}).has_value());
  // A row is missing.
  running.Reset();
  add(1);
  running.Confirm("a");
  EXPECT_FALSE(TakeFrom(running, {"b"}).has_value());
  // No room, in the budget or at all.
  running.Reset();
  const ByteBudget::Share other = room.Take(90);
  add(1);
  running.Confirm("a");
  EXPECT_FALSE(TakeFrom(running, {"a"}).has_value());
  EXPECT_EQ(room.used(), 90u);
  running.Reset();
  running.Begin(RunningSums::kBytesMax / 8 + 1);
  running.Confirm("a");
  EXPECT_FALSE(TakeFrom(running, {"a"}).has_value());
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

  // Master values, from memory.
  class Values final : public ModelSource {
   public:
    Values(const plan::TensorTable& table, const plan::Checkpoint& values)
        : table_(table), values_(values) {}
    Status Read(size_t entry, size_t begin, std::span<float> out) override {
      std::copy_n(
          values_.floats.begin() + static_cast<std::ptrdiff_t>(
                                       table_.entries()[entry].offset + begin),
          out.size(), out.begin());
      return OkStatus();
    }
    Result<std::vector<int64_t>> Ints() override { return values_.ints; }

   private:
    const plan::TensorTable& table_;
    const plan::Checkpoint& values_;
  };
  Result<VersionArtefacts> Store(uint64_t version,
                                 const plan::Checkpoint& values) {
    Values source(definition_.program.table, values);
    return StoreVersion(definition_, version, version + 2, source, *blobs_);
  }
  Result<plan::Checkpoint> Load(const crypto::Digest& master) {
    SELVAGE_ASSIGN_OR_RETURN(const Bytes bytes,
                             blobs_->Read(master, uint64_t{1} << 30));
    return plan::ReadSafetensors(definition_.program.table, bytes);
  }
  // What a round whose updates have this mean makes of `base`, the mean given
  // `at_once` values at a time.
  Result<VersionArtefacts> Next(const VersionRow& base,
                                const std::vector<double>& mean,
                                size_t at_once = 1000) {
    size_t given = 0;
    SELVAGE_ASSIGN_OR_RETURN(
        const std::unique_ptr<NextModel> next,
        NextModel::Create(
            definition_, base,
            [&]() -> Result<std::vector<double>> {
              const size_t end = std::min(mean.size(), given + at_once);
              std::vector<double> out(
                  mean.begin() + static_cast<std::ptrdiff_t>(given),
                  mean.begin() + static_cast<std::ptrdiff_t>(end));
              given = end;
              return out;
            },
            *blobs_));
    SELVAGE_ASSIGN_OR_RETURN(
        VersionArtefacts artefacts,
        StoreVersion(definition_, base.version + 1, 9, *next, *blobs_));
    SELVAGE_RETURN_IF_ERROR(next->StoreState(artefacts));
    EXPECT_EQ(given, mean.size());
    return artefacts;
  }
  // The same twice, a value at a time, from a version made here.
  Result<VersionArtefacts> AfterTwoRounds(const std::vector<double>& mean) {
    plan::Checkpoint master;
    master.floats = {1.0f, 2.0f, 7.0f, 10.0f};
    master.ints = {42};
    SELVAGE_ASSIGN_OR_RETURN(VersionArtefacts version, Store(0, master));
    for (int round = 0; round < 2; ++round) {
      SELVAGE_ASSIGN_OR_RETURN(version, Next(RowOf(version), mean, 1));
    }
    return version;
  }
  static VersionRow RowOf(const VersionArtefacts& artefacts) {
    VersionRow row;
    row.master_digest = artefacts.master_digest;
    row.server_state_digest = artefacts.server_state_digest;
    return row;
  }
  std::vector<float> StateOf(const VersionArtefacts& artefacts) {
    const Bytes bytes =
        *blobs_->Read(artefacts.server_state_digest, uint64_t{1} << 30);
    std::vector<float> values((bytes.size() - 16) / sizeof(float));
    std::memcpy(values.data(), bytes.data() + 16,
                values.size() * sizeof(float));
    return values;
  }

  TaskDefinition definition_;
  selvage::test::FaultFileSystem files_;
  const std::unique_ptr<FileBlobStore> blobs_ =
      *FileBlobStore::Open(files_, "/blobs");
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

TEST_F(ResultTest, NextModel_TouchesWhatIsAggregatedByItsRole) {
  plan::Checkpoint master;
  master.floats = {1.0f, 2.0f, 7.0f, 10.0f};
  master.ints = {42};
  const auto base = Store(0, master);
  ASSERT_THAT(base, IsOk());

  for (const size_t at_once : {1u, 2u, 3u}) {
    const auto next = Next(RowOf(*base), {1.0, -1.0, 3.0}, at_once);
    ASSERT_THAT(next, IsOk());
    EXPECT_TRUE(next->server_state_digest.empty());
    const auto values = Load(next->master_digest);
    ASSERT_THAT(values, IsOk());
    EXPECT_THAT(values->floats,
                ::testing::ElementsAre(1.5f, 1.5f, 7.0f, 13.0f));
    EXPECT_THAT(values->ints, ::testing::ElementsAre(42));
  }
}

TEST_F(ResultTest, NextModel_StrategyWithState_StepsSharedTensorsOnly) {
  definition_.spec.strategy.name = plan::StrategyName::kFedAvgM;
  ASSERT_EQ(aggregation::SharedCount(definition_.program.table), 2u);
  const auto version = AfterTwoRounds({1.0, -1.0, 3.0});
  ASSERT_THAT(version, IsOk());

  EXPECT_THAT(StateOf(*version), ::testing::ElementsAre(1.9f, -1.9f));
  // 0.5 (1 + 1.9) for the weights; the buffer moves by the mean each time.
  EXPECT_THAT(Load(version->master_digest)->floats,
              ::testing::ElementsAre(2.45f, 0.55f, 7.0f, 16.0f));
}

TEST_F(ResultTest, NextModel_SecondMoments_FollowTheFirst) {
  definition_.spec.strategy.name = plan::StrategyName::kFedAdagrad;
  definition_.spec.strategy.tau = 0.5;
  definition_.spec.strategy.beta_1 = 0;
  const auto version = AfterTwoRounds({1.0, -2.0, 3.0});
  ASSERT_THAT(version, IsOk());

  // tau^2 + d^2 + d^2.
  EXPECT_THAT(StateOf(*version),
              ::testing::ElementsAre(1.0f, -2.0f, 2.25f, 8.25f));
  // Everything it consists of is named, with its size.
  std::set<crypto::Digest> named;
  for (const auto& [digest, size] : version->artefacts) {
    named.insert(digest);
    EXPECT_EQ((*blobs_->Open(digest))->size(), size);
  }
  EXPECT_TRUE(named.count(version->server_state_digest) > 0);
  EXPECT_EQ(named.size(), 5u);  // master, checkpoint, state and its two pieces
}

TEST_F(ResultTest, NextModel_StateOfAnotherStrategyOrDamaged_IsDataLoss) {
  definition_.spec.strategy.name = plan::StrategyName::kFedAvgM;
  plan::Checkpoint master;
  master.floats = {1.5f, -2.0f, 0.25f, 4.0f};
  master.ints = {9};
  const auto base = Store(0, master);
  ASSERT_THAT(base, IsOk());
  const auto stored = Next(RowOf(*base), {1, 1, 1});
  ASSERT_THAT(stored, IsOk());

  VersionRow row = RowOf(*stored);
  Bytes state = *blobs_->Read(row.server_state_digest, 1000);
  definition_.spec.strategy.name = plan::StrategyName::kFedYogi;
  EXPECT_THAT(Next(row, {1, 1, 1}),
              StatusIs(StatusCode::kDataLoss, HasSubstr("another strategy")));
  definition_.spec.strategy.name = plan::StrategyName::kFedAvgM;
  for (size_t size = 0; size < state.size(); ++size) {
    row.server_state_digest = *blobs_->Put(ByteSpan(state).first(size));
    EXPECT_THAT(Next(row, {1, 1, 1}), StatusIs(StatusCode::kDataLoss)) << size;
  }
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(state.data() + 16, &nan, sizeof nan);
  row.server_state_digest = *blobs_->Put(state);
  EXPECT_THAT(Next(row, {1, 1, 1}),
              StatusIs(StatusCode::kDataLoss, HasSubstr("impossible")));
}

TEST_F(ResultTest, NextModel_NotFinite_NamesTheTensor) {
  plan::Checkpoint master;
  master.floats = {3.4e38f, 0, 0, 0};
  master.ints = {0};
  const auto base = Store(0, master);
  ASSERT_THAT(base, IsOk());
  const size_t before = blobs_->List()->size();

  EXPECT_THAT(Next(RowOf(*base), {1e38, 0, 0}),
              StatusIs(StatusCode::kOutOfRange, HasSubstr("tensor w")));
  EXPECT_EQ(blobs_->List()->size(), before);
}

TEST_F(ResultTest, StoreVersion_Twice_SameDigestsAndReadBack) {
  plan::Checkpoint master;
  master.floats = {1.5f, -2.0f, 0.25f, 4.0f};
  master.ints = {9};

  const auto first = Store(3, master);
  const auto second = Store(3, master);

  ASSERT_THAT(first, IsOk());
  EXPECT_EQ(first->master_digest, second->master_digest);
  EXPECT_EQ(first->checkpoint_digest, second->checkpoint_digest);
  EXPECT_EQ(*Load(first->master_digest), master);
  const auto initial = MasterReader::Open(definition_.program.table,
                                          first->master_digest, *blobs_);
  ASSERT_THAT(initial, IsOk());
  EXPECT_THAT(CheckModel(definition_.program.table, **initial), IsOk());
}

// Written in pieces, read in pieces: what the codecs make of the whole.
TEST_F(ResultTest, StoreVersion_LargerThanAPiece_IsTheWholeEncoded) {
  using plan::DType;
  using plan::Init;
  using plan::Role;
  definition_.program.table = *plan::TensorTable::Create(
      {{"a", {700, 1000}, DType::kFloat32, Role::kShared, Init::kNormal},
       {"frozen", {300, 1000}, DType::kFloat32, Role::kFrozen, Init::kOnes},
       {"steps", {2}, DType::kInt64, Role::kBufferInt, Init::kZeros},
       {"b", {5}, DType::kFloat32, Role::kShared, Init::kNormal}});
  const plan::TensorTable& table = definition_.program.table;
  const plan::Checkpoint values = plan::InitializeCheckpoint(table, 3);
  for (const auto codec :
       {plan::CodecName::kFloat32, plan::CodecName::kFloat16}) {
    definition_.spec.update.codec = codec;
    InitialModel source(table, 3);
    const auto stored = StoreVersion(definition_, 0, 0, source, *blobs_);
    ASSERT_THAT(stored, IsOk());
    EXPECT_EQ(*Load(stored->master_digest), values);
    const auto layout = aggregation::LayOutParts(codec, table);
    ASSERT_EQ(layout.size(), 2u);
    const auto parts = aggregation::ParsePartList(
        layout, *blobs_->Read(stored->checkpoint_digest, 5000));
    ASSERT_THAT(parts, IsOk());
    for (size_t i = 0; i < layout.size(); ++i) {
      EXPECT_EQ(*blobs_->Read((*parts)[i].digest, (*parts)[i].size),
                *aggregation::EncodePart(codec, table, layout[i], values));
    }
  }
}

TEST_F(ResultTest, StoreVersion_BySeveralThreads_GivesTheSameBlobs) {
  using plan::DType;
  using plan::Init;
  using plan::Role;
  definition_.program.table = *plan::TensorTable::Create(
      {{"a", {700, 1000}, DType::kFloat32, Role::kShared, Init::kNormal},
       {"steps", {2}, DType::kInt64, Role::kBufferInt, Init::kZeros},
       {"b", {5}, DType::kFloat32, Role::kShared, Init::kNormal}});
  using plan::CodecName;
  const plan::TensorTable small = definition_.program.table;
  const plan::TensorTable large = *plan::TensorTable::Create(
      {{"a", {1200, 1000}, DType::kFloat32, Role::kShared, Init::kNormal},
       {"frozen", {50, 1000}, DType::kFloat32, Role::kFrozen, Init::kOnes}});
  for (const auto& [table, codec] : {std::pair(small, CodecName::kFloat32),
                                     std::pair(small, CodecName::kFloat16),
                                     std::pair(small, CodecName::kInt8),
                                     std::pair(large, CodecName::kFloat16),
                                     std::pair(large, CodecName::kFloat32)}) {
    definition_.program.table = table;
    definition_.spec.update.codec = codec;
    InitialModel source(table, 3);
    const auto alone = StoreVersion(definition_, 0, 0, source, *blobs_);
    ASSERT_THAT(alone, IsOk());
    for (const auto& artefact : alone->artefacts) {
      ASSERT_THAT(blobs_->Remove(artefact.first), IsOk());
    }
    InitialModel again(table, 3);
    const auto stored = StoreVersion(definition_, 0, 0, again, *blobs_, 2);
    ASSERT_THAT(stored, IsOk());
    EXPECT_EQ(stored->master_digest, alone->master_digest);
    EXPECT_EQ(stored->checkpoint_digest, alone->checkpoint_digest);
    EXPECT_EQ(stored->artefacts, alone->artefacts);
    EXPECT_EQ(stored->references, alone->references);
    EXPECT_EQ(*Load(stored->master_digest),
              plan::InitializeCheckpoint(table, 3));
    EXPECT_THAT(blobs_->Open(stored->checkpoint_digest), IsOk());
  }
}

// A float32 checkpoint is what the master has after its head: stored once.
TEST_F(ResultTest, StoreVersion_Float32Alone_StoresTheValuesOnce) {
  using plan::DType;
  using plan::Init;
  using plan::Role;
  definition_.program.table = *plan::TensorTable::Create(
      {{"a", {300, 10}, DType::kFloat32, Role::kShared, Init::kNormal},
       {"b", {5}, DType::kFloat32, Role::kBufferFloat, Init::kZeros}});
  const plan::TensorTable& table = definition_.program.table;
  definition_.spec.update.codec = plan::CodecName::kFloat32;
  InitialModel source(table, 3);
  const auto stored = StoreVersion(definition_, 0, 0, source, *blobs_);
  ASSERT_THAT(stored, IsOk());
  const plan::Checkpoint values = plan::InitializeCheckpoint(table, 3);
  EXPECT_EQ(*Load(stored->master_digest), values);
  const ByteSpan as_bytes = AsBytes(std::span<const float>(values.floats));
  EXPECT_EQ(*blobs_->Read(stored->checkpoint_digest, 3005 * 4),
            Bytes(as_bytes.begin(), as_bytes.end()));
  // The values, the head, and the list of both.
  EXPECT_EQ(stored->artefacts.size(), 3u);
  EXPECT_EQ(stored->references,
            std::vector<crypto::Digest>{stored->checkpoint_digest});
  // A collector that keeps what the version names keeps the master whole.
  ASSERT_THAT(blobs_->Remove(stored->master_digest), IsOk());
  EXPECT_EQ(blobs_->List()->size(), 2u);
}

TEST_F(ResultTest, StoreVersion_BySeveralThreads_AnErrorLeavesNothing) {
  using plan::DType;
  definition_.program.table = *plan::TensorTable::Create(
      {{"a", {1'000'000}, DType::kFloat32, plan::Role::kShared}});
  class Broken final : public ModelSource {
   public:
    Status Read(size_t, size_t begin, std::span<float> out) override {
      if (begin > 700'000) return InvalidArgument("tensor a: not finite");
      std::fill(out.begin(), out.end(), 1.0F);
      return OkStatus();
    }
    Result<std::vector<int64_t>> Ints() override {
      return std::vector<int64_t>();
    }
  } source;
  EXPECT_THAT(StoreVersion(definition_, 0, 0, source, *blobs_, 2),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(*blobs_->List(), ::testing::IsEmpty());
  EXPECT_THAT(*files_.List("/blobs/incoming"), ::testing::IsEmpty());
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
  plan::Checkpoint master;
  master.floats.assign(50003, 0.25f);
  master.ints = {9};
  const auto first = Store(1, master);
  ASSERT_THAT(first, IsOk());
  uint64_t stored = 0;
  for (const Path directory : {"/blobs/artefacts", "/blobs/joined"}) {
    const auto names = files_.List(directory);
    ASSERT_THAT(names, IsOk());
    for (const std::string& name : *names) {
      stored += (*files_.Open(directory / name))->size();
    }
  }
  // The backbone is there once, for checkpoint and master both.
  EXPECT_LT(stored, 200000u + 2000);
  const size_t count = blobs_->List()->size();
  master.floats[0] = 4;

  const auto second = Store(2, master);

  ASSERT_THAT(second, IsOk());
  EXPECT_NE(first->checkpoint_digest, second->checkpoint_digest);
  // The trained part, the list, the master's beginning, its values, and what
  // joins them.
  EXPECT_EQ(blobs_->List()->size(), count + 5);
  // Everything in the store is in one of the versions' lists, with its size.
  std::set<crypto::Digest> named;
  for (const auto* version : {&*first, &*second}) {
    for (const auto& [digest, size] : version->artefacts) {
      named.insert(digest);
      EXPECT_EQ((*blobs_->Open(digest))->size(), size);
    }
    // Devices may fetch the list and both parts, and nothing of the master
    // that is not in the checkpoint.
    EXPECT_EQ(version->references.size(), 3u);
    EXPECT_EQ(std::count(version->references.begin(), version->references.end(),
                         version->master_digest),
              0);
  }
  EXPECT_EQ(named.size(), blobs_->List()->size());
  EXPECT_EQ(*Load(second->master_digest), master);
}

TEST(ReleasableMetricsTest, BelowMinCohort_IsNothing) {
  aggregation::MetricSums metrics(1);
  const std::vector<aggregation::MetricValue> one = {{1 << 20, 2}};
  ASSERT_THAT(metrics.Add(one), IsOk());
  ASSERT_THAT(metrics.Add(one), IsOk());

  EXPECT_FALSE(ReleasableMetrics(metrics, 2).empty());
  EXPECT_TRUE(ReleasableMetrics(metrics, 3).empty());
}

TEST(KnownDevices, Add_MoreThanItKeeps_TheLastOnesAreKnown) {
  KnownDevices known(4);
  const auto device = [](int i) {
    return DeviceIdentity{"p", "d-" + std::to_string(i)};
  };
  for (int i = 0; i < 100; ++i) {
    EXPECT_FALSE(known.Contains(device(i)));
    known.Add(device(i));
    known.Add(device(i));
    for (int j = std::max(0, i - 3); j <= i; ++j) {
      EXPECT_TRUE(known.Contains(device(j))) << j << " after " << i;
    }
  }
  EXPECT_FALSE(known.Contains(device(0)));
  // Where one name ends and the other begins counts.
  known.Add({"a", "bc"});
  EXPECT_FALSE(known.Contains({"ab", "c"}));
}

}  // namespace
}  // namespace selvage::coordinator

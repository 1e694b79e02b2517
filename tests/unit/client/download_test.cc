// What a device downloads, and what it keeps of it: checkpoints in parts, and
// the cache.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>

#include <gmock/gmock.h>

#include "aggregation/codec/checkpoint_parts.h"
#include "aggregation/contribution.h"
#include "aggregation/server_optimizer.h"
#include "client/base_file.h"
#include "client/store/blob_cache.h"
#include "tests/unit/client/client_fixture.h"

namespace selvage::client {
namespace {

using ::selvage::test::ClientFixture;
using ::selvage::test::IsOk;
using ::selvage::test::MakeFakePlan;
using ::selvage::test::MakeFakeProgram;
using ::selvage::test::ScratchFolder;
using ::selvage::test::StatusIs;

constexpr auto kCodec = plan::CodecName::kFloat32;

// A backbone of 400 KB, and 41 values that are trained.
class DownloadTest : public ClientFixture {
 protected:
  DownloadTest() {
    server_->chunk_size = 64 << 10;
    program_ = MakeFakeProgram(/*with_personal=*/false);
    std::vector<plan::TensorSpec> tensors;
    for (const auto& entry : program_.table.entries()) {
      tensors.push_back(entry.spec);
    }
    tensors.push_back({.name = "backbone",
                       .shape = {100000},
                       .role = plan::Role::kFrozen,
                       .init = plan::Init::kNormal});
    program_.table = *plan::TensorTable::Create(tensors);
    server_->Publish(MakeFakePlan(program_), program_);
    values_ = plan::InitializeCheckpoint(program_.table, 1);
    PublishVersion();
  }

  // The next version: only what is trained is another.
  void PublishVersion() {
    values_.floats[0] += 0.5F;
    server_->checkpoint = values_;
    names_.clear();
    for (const auto& part : aggregation::LayOutParts(kCodec, program_.table)) {
      Bytes bytes =
          *aggregation::EncodePart(kCodec, program_.table, part, values_);
      names_.push_back({crypto::Sha256(bytes), bytes.size()});
      server_->artefacts[names_.back().digest] = std::move(bytes);
    }
    PublishList(aggregation::SerializePartList(names_));
  }
  void PublishList(Bytes list) {
    server_->checkpoint_digest = crypto::Sha256(list);
    server_->artefacts[server_->checkpoint_digest] = std::move(list);
  }
  uint64_t FetchedBytes() const {
    uint64_t all = 0;
    for (const auto& [digest, bytes] : server_->fetched) all += bytes;
    return all;
  }
  void Contribute() {
    WaitForTurn();
    server_->Give(server_->NewAssignment());
    EXPECT_EQ(RunUntil(RunResult::kContributed).result,
              RunResult::kContributed);
  }
  Path CacheFile(const crypto::Digest& digest) const {
    return directory_.path() / "cache" / digest.ToHex();
  }

  plan::Program program_;
  plan::Checkpoint values_;
  std::vector<aggregation::PartName> names_;
};

TEST_F(DownloadTest, BaseFile_ReadsTensorsOfTheParts) {
  Open();
  AddExamples(24);
  Contribute();
  selvage::PosixFileSystem files;
  BlobCache cache(files, directory_.path() / "cache");
  const auto base =
      BaseFile::Open(server_->checkpoint_digest, kCodec, program_.table, cache);
  ASSERT_THAT(base, IsOk());
  for (size_t i = 0; i < program_.table.entries().size(); ++i) {
    const auto& entry = program_.table.entries()[i];
    if (entry.spec.dtype != plan::DType::kFloat32) continue;
    const auto begin =
        values_.floats.begin() + static_cast<std::ptrdiff_t>(entry.offset);
    std::vector<float> read;
    ASSERT_THAT((*base)->Read(i, read), IsOk());
    EXPECT_EQ(read,
              std::vector<float>(
                  begin, begin + static_cast<std::ptrdiff_t>(entry.count)));
  }
  EXPECT_THAT(
      BaseFile::Open(crypto::Sha256(Bytes()), kCodec, program_.table, cache),
      StatusIs(StatusCode::kNotFound));
  std::ofstream(CacheFile(names_.back().digest), std::ios::app) << "more";
  EXPECT_THAT(
      BaseFile::Open(server_->checkpoint_digest, kCodec, program_.table, cache),
      StatusIs(StatusCode::kNotFound));
}

// Of which no copy is kept beside a training: the same updates, the same model.
TEST_F(DownloadTest, LargeModel_ContributesAndIsInstalled) {
  std::vector<plan::TensorSpec> tensors;
  for (const auto& entry : program_.table.entries()) {
    if (entry.spec.name != "backbone") tensors.push_back(entry.spec);
  }
  tensors.push_back({.name = "wide",
                     .shape = {3000, 2800},
                     .role = plan::Role::kShared,
                     .init = plan::Init::kOnes});
  program_.table = *plan::TensorTable::Create(tensors);
  ASSERT_TRUE(IsLarge(program_.table));
  plan::Plan plan = MakeFakePlan(program_);
  plan.update.codec = plan::CodecName::kFloat16;
  server_->chunk_size = 1 << 20;
  server_->Publish(plan, program_);
  server_->PublishCheckpoint(plan::InitializeCheckpoint(program_.table, 1));
  Open();
  AddExamples(24);

  for (int round = 0; round < 2; ++round) {
    Contribute();
    ASSERT_EQ(server_->payloads.size(), static_cast<size_t>(round + 1));
    const Bytes& payload = std::prev(server_->payloads.end())->second;
    const auto update =
        aggregation::Decode(plan::CodecName::kFloat16,
                            aggregation::UpdateCounts(program_.table), payload);
    ASSERT_THAT(update, IsOk());
    EXPECT_EQ(crypto::Sha256(payload),
              std::prev(server_->updates.end())->second);
    // Something was learned.
    EXPECT_TRUE(std::any_of(update->begin(), update->end(),
                            [](float value) { return value != 0; }));
  }
  EXPECT_GT(trainer_.state.loads, 2);
}

// Its update lies in the outbox in pieces, and is sent from there by another
// process than the one that made it.
TEST_F(DownloadTest, LargeModel_NotSent_IsSentAfterARestart) {
  std::vector<plan::TensorSpec> tensors;
  for (const auto& entry : program_.table.entries()) {
    if (entry.spec.name != "backbone") tensors.push_back(entry.spec);
  }
  tensors.push_back({.name = "wide",
                     .shape = {3000, 2800},
                     .role = plan::Role::kShared,
                     .init = plan::Init::kOnes});
  program_.table = *plan::TensorTable::Create(tensors);
  plan::Plan plan = MakeFakePlan(program_);
  plan.update.codec = plan::CodecName::kFloat32;
  server_->chunk_size = 1 << 20;
  server_->Publish(plan, program_);
  server_->PublishCheckpoint(plan::InitializeCheckpoint(program_.table, 1));
  Open();
  AddExamples(24);
  server_->Give(server_->NewAssignment());
  server_->hook = [](const std::string& call) {
    return call == "upload" ? Unavailable("no network") : OkStatus();
  };
  EXPECT_EQ(Run().result, RunResult::kFailed);
  const uint64_t size = aggregation::EncodedSize(
      plan::CodecName::kFloat32, aggregation::UpdateCounts(program_.table));
  ASSERT_EQ(client_->InspectOutbox()->size(), 1U);
  EXPECT_EQ(client_->InspectOutbox()->front().size_bytes, size);
  server_->hook = [](const auto&) { return OkStatus(); };
  Open();
  WaitForTurn();

  EXPECT_EQ(Run().result, RunResult::kContributed);

  EXPECT_EQ(server_->payloads.at("round-1").size(), size);
  EXPECT_EQ(crypto::Sha256(server_->payloads.at("round-1")),
            server_->updates.at("round-1"));
  EXPECT_EQ(server_->conflicts, 0);
  EXPECT_TRUE(client_->InspectOutbox()->empty());
}

TEST_F(DownloadTest, SecondRound_FetchesOnlyWhatIsTrained) {
  Open();
  AddExamples(24);
  Contribute();
  EXPECT_GT(FetchedBytes(), 400000u);
  for (int round = 0; round < 3; ++round) {
    PublishVersion();
    server_->fetched.clear();
    Open();  // what is cached survives the process
    Contribute();
    // 41 floats, and the list of two parts.
    EXPECT_EQ(FetchedBytes(), 41u * 4 + (28 + 4 + 2 * 40));
  }
}

TEST_F(DownloadTest, PartsAndWhole_TrainToTheSameUpdate) {
  Open();
  AddExamples(24);
  Contribute();
  // What an older coordinator made: one blob in table order.
  server_->PublishCheckpoint(values_);
  Contribute();
  EXPECT_EQ(server_->payloads.at("round-1").size(),
            server_->payloads.at("round-2").size());
  EXPECT_EQ(server_->fetched.at(server_->checkpoint_digest.ToHex()),
            100041u * 4);
}

TEST_F(DownloadTest, BackboneDamagedInTheCache_IsFetchedAgain) {
  Open();
  AddExamples(24);
  Contribute();
  ASSERT_TRUE(std::filesystem::exists(CacheFile(names_[0].digest)));
  for (const std::string& damage : {std::string("garbage"), std::string()}) {
    std::ofstream(CacheFile(names_[0].digest), std::ios::binary) << damage;
    PublishVersion();
    server_->fetched.clear();
    Contribute();
    EXPECT_EQ(server_->fetched.at(names_[0].digest.ToHex()), 400000u);
  }
}

TEST_F(DownloadTest, FetchOfAPartBreaks_GoesOnFromThere) {
  Open();
  AddExamples(24);
  int chunks = 0;
  server_->hook = [&](const std::string& call) {
    return call == "fetch chunk" && ++chunks == 7 ? Unavailable("broken")
                                                  : OkStatus();
  };
  server_->Give(server_->NewAssignment());
  EXPECT_EQ(Run().result, RunResult::kFailed);
  Open();
  WaitForTurn();
  EXPECT_EQ(RunUntil(RunResult::kContributed).result, RunResult::kContributed);
  EXPECT_EQ(server_->fetched.at(names_[0].digest.ToHex()), 400000u);
}

// A scaffold plan, and the server's control variate of a version.
class ControlTest : public DownloadTest {
 protected:
  ControlTest() {
    trainer_.state.features |= kFeatureCorrection;
    plan::Plan plan = MakeFakePlan(program_);
    plan.contribution.name = plan::ContributionName::kScaffold;
    plan.contribution.max_abs_control = 64;
    plan.update.codec = kCodec;  // what is sent is what was made
    server_->Publish(plan, program_);
    control_.resize(aggregation::SharedCount(program_.table));
    for (size_t i = 0; i < control_.size(); ++i) {
      control_[i] = 0.5F * static_cast<float>(i % 3);
    }
  }

  Bytes Artefact(const std::vector<float>& control,
                 plan::StrategyName of = plan::StrategyName::kScaffold) const {
    plan::StrategySpec strategy;
    strategy.name = of;
    Bytes bytes = aggregation::FormOf(strategy, control.size()).head;
    AppendBytes(bytes, AsBytes(std::span<const float>(control)));
    return bytes;
  }
  Assignment Work(const Bytes& control) {
    Assignment work = server_->NewAssignment();
    work.control_digest = crypto::Sha256(control);
    server_->artefacts[work.control_digest] = control;
    return work;
  }
  // What the update of an assignment holds: the delta, then the change of the
  // device's own control variate.
  std::vector<float> Sent(const std::string& assignment) {
    const std::vector<size_t> counts = aggregation::ContributionCounts(
        plan::ContributionName::kScaffold, program_.table);
    const auto values =
        aggregation::Decode(kCodec, counts, server_->payloads.at(assignment));
    EXPECT_THAT(values, IsOk());
    return values.ok() ? *values : std::vector<float>();
  }

  std::vector<float> control_;
};

TEST_F(ControlTest, OfAVersion_IsFetchedOnceAndTakenOff) {
  Open();
  AddExamples(24);
  const Bytes artefact = Artefact(control_);
  const Assignment work = Work(artefact);
  server_->Give(work);
  ASSERT_EQ(RunUntil(RunResult::kContributed).result, RunResult::kContributed);
  EXPECT_EQ(server_->fetched.at(work.control_digest.ToHex()), artefact.size());
  const std::vector<float> sent = Sent(work.id);
  const size_t deltas = program_.table.update_count();
  ASSERT_EQ(sent.size(), deltas + control_.size());
  // Delta c_i = -c - Delta / (tau lr), tau lr being the same for all.
  const std::span<const float> change = std::span(sent).subspan(deltas);
  size_t at = 0;
  double rate = 0;
  for (const auto& slice : program_.table.aggregated()) {
    if (slice.role != plan::Role::kShared) continue;
    for (size_t i = 0; i < slice.count; ++i, ++at) {
      const double delta = double{sent[slice.update_offset + i]};
      const double moved = -double{change[at]} - double{control_[at]};
      if (rate == 0 && delta != 0) rate = delta / moved;
      if (rate != 0) {
        EXPECT_NEAR(delta, rate * moved, 1e-5) << at;
      } else {
        EXPECT_EQ(moved, 0) << at;
      }
    }
  }
  EXPECT_GT(rate, 0);

  // The next version has the same one: it is in the cache.
  PublishVersion();
  server_->fetched.clear();
  WaitForTurn();
  server_->Give(Work(artefact));
  ASSERT_EQ(RunUntil(RunResult::kContributed).result, RunResult::kContributed);
  EXPECT_EQ(server_->fetched.count(work.control_digest.ToHex()), 0u);
}

TEST_F(ControlTest, NotOfThisModelAndStrategy_NothingIsTrained) {
  Open();
  AddExamples(24);
  std::vector<float> one_less = control_;
  one_less.pop_back();
  std::vector<float> endless = control_;
  endless.back() = std::numeric_limits<float>::infinity();
  Bytes longer = Artefact(control_);
  longer.push_back(0);
  Bytes truncated = Artefact(control_);
  truncated.resize(truncated.size() / 2);
  for (const Bytes& artefact :
       {Artefact(one_less), Artefact(endless),
        Artefact(control_, plan::StrategyName::kFedAvgM), longer, truncated,
        Bytes()}) {
    WaitForTurn();
    server_->Give(Work(artefact));
    EXPECT_NE(Run().result, RunResult::kContributed) << artefact.size();
    EXPECT_TRUE(server_->updates.empty());
    EXPECT_EQ(trainer_.state.trainings, 0);
    server_->Forget();
    clock_.Advance(std::chrono::hours(24));
    Open();
  }
}

TEST_F(DownloadTest, PartsThatAreNotWhatTheListSays_AreRefused) {
  Open();
  AddExamples(24);
  const std::map<crypto::Digest, Bytes> honest = server_->artefacts;
  const std::vector<std::function<void()>> lies = {
      // Other bytes of the right size; too many; too few; none.
      [&] { server_->artefacts[names_[0].digest][17] ^= 1; },
      [&] { server_->artefacts[names_[0].digest].push_back(0); },
      [&] { server_->artefacts[names_[1].digest].pop_back(); },
      [&] { server_->artefacts.erase(names_[1].digest); },
      // Lists of other sizes, of parts in another order, and no list at all.
      [&] {
        auto names = names_;
        names[1].size = uint64_t{1} << 40;
        PublishList(aggregation::SerializePartList(names));
      },
      [&] {
        auto names = names_;
        std::swap(names[0], names[1]);
        PublishList(aggregation::SerializePartList(names));
      },
      [&] {
        auto names = names_;
        names.resize(60, names[0]);
        PublishList(aggregation::SerializePartList(names));
      },
      [&] { PublishList(Bytes(112, 'x')); }, [&] { PublishList(Bytes()); }};
  const crypto::Digest list = server_->checkpoint_digest;
  for (size_t i = 0; i < lies.size(); ++i) {
    std::filesystem::remove_all(directory_.path() / "cache");
    lies[i]();
    WaitForTurn();
    server_->Give(server_->NewAssignment());
    const RunOutcome outcome = Run();
    EXPECT_NE(outcome.result, RunResult::kContributed) << i;
    EXPECT_TRUE(server_->updates.empty()) << i;
    EXPECT_EQ(trainer_.state.trainings, 0) << i;
    server_->artefacts = honest;
    server_->checkpoint_digest = list;
    server_->Forget();
    clock_.Advance(std::chrono::hours(24));
    Open();
  }
  Contribute();
}

// ---- deltas

// 20,000 values that are trained, 80 KB; nothing is constant.
class DeltaTest : public ClientFixture {
 protected:
  DeltaTest() {
    server_->chunk_size = 4096;
    program_ = MakeFakeProgram(/*with_personal=*/false);
    std::vector<plan::TensorSpec> tensors;
    for (const auto& entry : program_.table.entries()) {
      tensors.push_back(entry.spec);
    }
    tensors.push_back({.name = "large",
                       .shape = {20000},
                       .role = plan::Role::kShared,
                       .init = plan::Init::kNormal});
    program_.table = *plan::TensorTable::Create(tensors);
    server_->Publish(MakeFakePlan(program_), program_);
    values_ = plan::InitializeCheckpoint(program_.table, 1);
    server_->PublishCheckpoint(values_);
    server_->hook = [this](const std::string& call) {
      if (call == "fetch delta") ++asked_;
      return OkStatus();
    };
  }

  void PublishVersion() {
    SeededRandom random(7);
    for (float& value : values_.floats) {
      value += 1e-4F * static_cast<float>(UniformUnit(random) - 0.5);
    }
    server_->PublishCheckpoint(values_);
    server_->fetched.clear();
    server_->fetched_deltas = 0;
    asked_ = 0;
  }
  void Contribute() {
    WaitForTurn();
    server_->Give(server_->NewAssignment());
    EXPECT_EQ(RunUntil(RunResult::kContributed).result,
              RunResult::kContributed);
  }
  uint64_t FetchedWhole() {
    return server_->fetched[server_->checkpoint_digest.ToHex()];
  }
  // A round with an honest coordinator that makes deltas of the version before.
  void Start() {
    Open();
    AddExamples(24);
    Contribute();
    EXPECT_EQ(asked_, 0);  // nothing that it could be made of
    EXPECT_EQ(FetchedWhole(), kWhole);
    PublishVersion();
  }

  static constexpr uint64_t kWhole = 20041 * sizeof(float);
  plan::Program program_;
  plan::Checkpoint values_;
  int asked_ = 0;
};

TEST_F(DeltaTest, NextVersion_ComesAsADelta) {
  Start();
  Contribute();
  EXPECT_EQ(FetchedWhole(), 0u);
  EXPECT_GT(server_->fetched_deltas, 0u);
  EXPECT_LT(server_->fetched_deltas, kWhole * 3 / 4);
  // It is in the cache as if it had come whole.
  server_->fetched_deltas = 0;
  Open();
  Contribute();
  EXPECT_EQ(FetchedWhole() + server_->fetched_deltas, 0u);
}

TEST_F(DeltaTest, DeltaAndWhole_TrainToTheSameUpdate) {
  Start();
  Contribute();
  const auto with_delta = server_->payloads.at("round-2");
  std::filesystem::remove_all(directory_.path() / "cache");
  client::Assignment again = server_->NewAssignment();
  again.seed = 1002;  // the second round's
  WaitForTurn();
  server_->Give(again);
  RunUntil(RunResult::kContributed);
  EXPECT_EQ(FetchedWhole(), kWhole);
  EXPECT_EQ(server_->payloads.at("round-3"), with_delta);
}

TEST_F(DeltaTest, AnythingButTheDelta_TheWholeIsFetched) {
  Start();
  const auto honest = server_->deltas;
  using Answer = std::function<Result<Bytes>(Bytes)>;
  const std::vector<Answer> answers = {
      [](Bytes) { return NotFound("no delta"); },
      [](Bytes) { return Unimplemented("an older coordinator"); },
      [](Bytes) { return Bytes(); }, [](Bytes) { return Bytes(1000, 7); },
      [](Bytes delta) {
        delta[delta.size() / 2] ^= 1;
        return delta;
      },
      [](Bytes delta) {
        delta.pop_back();
        return delta;
      },
      [](Bytes delta) {
        delta.push_back(0);
        return delta;
      },
      // Larger than the whole: not even received.
      [](Bytes) { return Bytes(kWhole + 1, 0); }};
  for (size_t i = 0; i < answers.size(); ++i) {
    server_->deltas = [&](const auto& digest, const auto& base,
                          auto codec) -> Result<Bytes> {
      SELVAGE_ASSIGN_OR_RETURN(Bytes delta, honest(digest, base, codec));
      return answers[i](std::move(delta));
    };
    Contribute();
    EXPECT_EQ(asked_, 1) << i;
    EXPECT_EQ(FetchedWhole(), kWhole) << i;
    PublishVersion();
  }
  server_->deltas = honest;
  Contribute();
  EXPECT_EQ(FetchedWhole(), 0u);
}

TEST_F(DeltaTest, DeltaOfTheSameSizeAsTheWhole_MayBeTheWhole) {
  Start();
  server_->deltas = [this](const auto& digest, const auto&, auto) {
    return Result<Bytes>(server_->artefacts.at(digest));
  };
  Contribute();
  EXPECT_EQ(FetchedWhole(), 0u);
  EXPECT_EQ(server_->fetched_deltas, kWhole);
}

TEST_F(DeltaTest, BaseDamagedInTheCache_TheWholeIsFetched) {
  Start();
  for (const auto& entry :
       std::filesystem::directory_iterator(directory_.path() / "cache")) {
    if (entry.file_size() != kWhole) continue;
    std::ofstream(entry.path(), std::ios::binary) << std::string(kWhole, 'x');
  }
  Contribute();
  EXPECT_EQ(asked_, 0);
  EXPECT_EQ(FetchedWhole(), kWhole);
}

TEST_F(DeltaTest, CoordinatorAwayMeanwhile_IsTriedAgainLater) {
  Start();
  server_->hook = [this](const std::string& call) {
    return call == "fetch delta" && ++asked_ == 1 ? Unavailable("broken")
                                                  : OkStatus();
  };
  server_->Give(server_->NewAssignment());
  WaitForTurn();
  EXPECT_EQ(Run().result, RunResult::kFailed);
  EXPECT_EQ(FetchedWhole(), 0u);
  WaitForTurn();
  EXPECT_EQ(RunUntil(RunResult::kContributed).result, RunResult::kContributed);
  EXPECT_EQ(FetchedWhole(), 0u);
  EXPECT_EQ(asked_, 2);
}

// ---- the cache

class BlobCacheTest : public ::testing::Test {
 protected:
  void Open(uint64_t bytes_max) {
    cache_.emplace(files_, directory_.path() / "cache", bytes_max);
  }
  crypto::Digest Put(char byte, size_t size) {
    const Bytes bytes(size, static_cast<uint8_t>(byte));
    const crypto::Digest digest = crypto::Sha256(bytes);
    EXPECT_THAT(cache_->Put(digest, bytes), IsOk());
    return digest;
  }
  bool Has(const crypto::Digest& digest) {
    return std::filesystem::exists(directory_.path() / "cache" /
                                   digest.ToHex());
  }
  crypto::Digest PutAsWork(char byte, size_t size) {
    cache_->BeginWork();
    const crypto::Digest digest = Put(byte, size);
    cache_->EndWork();
    return digest;
  }

  ScratchFolder directory_;
  PosixFileSystem files_;
  std::optional<BlobCache> cache_;
};

TEST_F(BlobCacheTest, Put_OverTheBound_TheLongestUnusedGoes) {
  Open(1000);
  const crypto::Digest a = PutAsWork('a', 400);
  const crypto::Digest b = PutAsWork('b', 400);
  cache_->BeginWork();
  EXPECT_THAT(cache_->Get(a, 1000), IsOk());
  cache_->EndWork();
  Open(1000);  // the order survives the process

  const crypto::Digest c = PutAsWork('c', 400);

  EXPECT_TRUE(Has(a));
  EXPECT_FALSE(Has(b));
  EXPECT_TRUE(Has(c));
}

TEST_F(BlobCacheTest, Put_WhatTheWorkUses_StaysOverTheBound) {
  Open(1000);
  const crypto::Digest old = PutAsWork('o', 10);
  cache_->BeginWork();
  const crypto::Digest a = Put('a', 900);
  const crypto::Digest b = Put('b', 900);
  EXPECT_FALSE(Has(old));
  cache_->EndWork();
  EXPECT_TRUE(Has(a));
  EXPECT_TRUE(Has(b));
  // The next work is another.
  const crypto::Digest c = PutAsWork('c', 200);
  EXPECT_FALSE(Has(a));
  EXPECT_FALSE(Has(b));
  EXPECT_TRUE(Has(c));
}

TEST_F(BlobCacheTest, PutPart_CountsAndMakesRoomLikeAnyOther) {
  Open(1000);
  const crypto::Digest a = PutAsWork('a', 600);
  cache_->BeginWork();
  const crypto::Digest b = crypto::Sha256(AsBytes("b"));
  EXPECT_THAT(cache_->PutPart(b, Bytes(600)), IsOk());
  cache_->EndWork();
  EXPECT_FALSE(Has(a));
  EXPECT_EQ(cache_->GetPart(b, 1000).size(), 600u);
  PutAsWork('c', 600);
  EXPECT_TRUE(cache_->GetPart(b, 1000).empty());
}

TEST_F(BlobCacheTest, DamagedOrder_CostsTheOrderOnly) {
  Open(1000);
  const crypto::Digest a = PutAsWork('a', 400);
  for (const std::string& text :
       {std::string("garbage"), std::string(300000, '\n'), std::string()}) {
    std::ofstream(directory_.path() / "cache" / "order", std::ios::binary)
        << text;
    Open(1000);
    cache_->BeginWork();
    EXPECT_THAT(cache_->Get(a, 1000), IsOk());
    cache_->EndWork();
    const crypto::Digest b = PutAsWork('b', 400);
    EXPECT_TRUE(Has(a));
    EXPECT_TRUE(Has(b));
  }
}

TEST_F(BlobCacheTest, EndWork_ClearsWhatIsNotTheCaches) {
  Open(1000);
  const crypto::Digest a = PutAsWork('a', 4);
  std::ofstream(directory_.path() / "cache" / (a.ToHex() + ".tmp")) << "x";
  std::ofstream(directory_.path() / "cache" / "notes.txt") << "x";
  cache_->BeginWork();
  cache_->EndWork();
  size_t files = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(directory_.path() / "cache")) {
    EXPECT_THAT(entry.path().filename().string(),
                ::testing::AnyOf(a.ToHex(), "order"));
    ++files;
  }
  EXPECT_EQ(files, 2u);
}

TEST_F(BlobCacheTest, NewestOfSize_IsTheOneUsedLast) {
  Open(1000);
  const crypto::Digest a = PutAsWork('a', 40);
  const crypto::Digest b = PutAsWork('b', 40);
  PutAsWork('c', 41);
  EXPECT_EQ(cache_->NewestOfSize(40), b);
  cache_->BeginWork();
  EXPECT_THAT(cache_->Get(a, 1000), IsOk());
  cache_->EndWork();
  EXPECT_EQ(cache_->NewestOfSize(40), a);
  EXPECT_EQ(cache_->NewestOfSize(42), std::nullopt);
}

TEST_F(BlobCacheTest, NoDirectory_IsAnEmptyCache) {
  Open(1000);
  cache_->BeginWork();
  EXPECT_THAT(cache_->Get(crypto::Sha256(AsBytes("a")), 10),
              StatusIs(StatusCode::kNotFound));
  cache_->EndWork();
  EXPECT_FALSE(std::filesystem::exists(directory_.path() / "cache"));
}

}  // namespace
}  // namespace selvage::client

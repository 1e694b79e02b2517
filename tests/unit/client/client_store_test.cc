#include "client/store/client_store.h"

#include <SQLiteCpp/SQLiteCpp.h>

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/fault_vfs.h"
#include "tests/testing/scratch_folder.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/client/client_fixture.h"
#include "tests/unit/client/store_fixture.h"

namespace selvage::client {
namespace {

using test::FaultVfs;
using test::IsOk;
using test::StatusIs;
using ::testing::ElementsAre;

OutboxEntry MakeEntry(const std::string& id) {
  OutboxEntry entry;
  entry.assignment_id = id;
  entry.update.encoded = ToBytes("update of " + id);
  entry.update.digest = crypto::Sha256(entry.update.encoded);
  entry.update.weight = 12;
  entry.update.metrics = {{.numerator = -5, .count = 3}};
  return entry;
}

StoredModel MakeModel(uint64_t version, ByteSpan program) {
  StoredModel model;
  model.task = "digits";
  model.version = version;
  model.plan_json = "{}";
  model.program_digest = crypto::Sha256(program);
  model.global_values = Bytes(16, static_cast<uint8_t>(version));
  model.personal_values = Bytes(16, static_cast<uint8_t>(100 + version));
  model.personal_serving = true;
  model.holdout_count = 9;
  model.global_scores = {0.5, 1.25};
  model.personal_scores = {0.75, 1.0};
  return model;
}

class ClientStoreTest : public ::testing::Test {
 protected:
  Result<std::unique_ptr<ClientStore>> TryOpen(const std::string& vfs = "") {
    return parts_.Open(path_, vfs);
  }
  void Open() {
    store_.reset();
    auto store = TryOpen();
    ASSERT_THAT(store, IsOk());
    store_ = *std::move(store);
  }

  test::StoreParts parts_;
  test::ScratchFolder directory_;
  Path path_ = directory_.path() / "client.db";
  std::unique_ptr<ClientStore> store_;
};

TEST_F(ClientStoreTest, SaveSession_OutboxAndCounters_SurviveReopening) {
  Open();
  const OutboxEntry entry = MakeEntry("a1");
  const PersonalTensors tensors{.task = "digits",
                                .program_digest = crypto::Sha256({}),
                                .master_values = Bytes(4, 3)};
  ASSERT_THAT(store_->SaveSession({.session = ToBytes("state"),
                                   .counters = {"trained", "trained"},
                                   .outbox = &entry,
                                   .tensors = &tensors}),
              IsOk());
  Open();
  EXPECT_EQ(**store_->LoadSession(), ToBytes("state"));
  const auto kept = store_->LoadOutbox();
  ASSERT_THAT(kept, IsOk());
  ASSERT_TRUE(kept->has_value());
  EXPECT_EQ((*kept)->assignment_id, "a1");
  EXPECT_EQ((*kept)->update.encoded, entry.update.encoded);
  EXPECT_EQ((*kept)->update.metrics, entry.update.metrics);
  EXPECT_EQ((*store_->LoadTensors("digits"))->master_values, Bytes(4, 3));
  ASSERT_THAT(
      store_->SaveSession({.session = ToBytes("later"), .drop_outbox = true}),
      IsOk());
  EXPECT_FALSE(store_->LoadOutbox()->has_value());
}

// Two updates are under way at once; each commit adds its own change, whatever
// the order, and an abandoned one nothing.
TEST_F(ClientStoreTest, Residual_MovesOnlyWithTheOutcome) {
  Open();
  const crypto::Digest program = crypto::Sha256({});
  const auto stage = [&](const std::string& id, std::vector<float> values) {
    const OutboxEntry entry = MakeEntry(id);
    const ResidualChange change{.task = "digits",
                                .program_digest = program,
                                .values = std::move(values)};
    ASSERT_THAT(store_->SaveSession(
                    {.session = {1}, .outbox = &entry, .residual = &change}),
                IsOk());
    ASSERT_THAT(store_->SaveSession({.session = {2},
                                     .drop_outbox = true,
                                     .dropped = AuditResult::kAccepted}),
                IsOk());
  };
  const auto settle = [&](const std::string& id, OutcomeState state) {
    const std::vector<AssignmentOutcome> outcomes = {{id, state}};
    ASSERT_THAT(store_->SaveSession({.session = {3}, .outcomes = outcomes}),
                IsOk());
  };
  stage("a1", {1, 2});
  stage("a2", {10, 20});
  stage("a3", {100, 200});
  EXPECT_THAT(*store_->LoadResidual("digits", program), ElementsAre());
  settle("a2", OutcomeState::kCommitted);
  settle("a1", OutcomeState::kPending);
  settle("a3", OutcomeState::kAbandoned);
  EXPECT_THAT(*store_->LoadResidual("digits", program), ElementsAre(10, 20));
  Open();  // durable, and so is what is staged
  settle("a1", OutcomeState::kCommitted);
  settle("a1", OutcomeState::kCommitted);
  settle("a3", OutcomeState::kCommitted);
  EXPECT_THAT(*store_->LoadResidual("digits", program), ElementsAre(11, 22));
  EXPECT_THAT(*store_->LoadResidual("other", program), ElementsAre());
  EXPECT_THAT(*store_->LoadResidual("digits", crypto::Sha256(Bytes{1})),
              ElementsAre());
  ASSERT_THAT(store_->Forget(Bytes{4}, {}), IsOk());
  EXPECT_THAT(*store_->LoadResidual("digits", program), ElementsAre());
}

TEST_F(ClientStoreTest, Residual_OfALateUpdate_IsDropped) {
  Open();
  const OutboxEntry entry = MakeEntry("a1");
  const crypto::Digest program = crypto::Sha256({});
  const ResidualChange change{
      .task = "digits", .program_digest = program, .values = {1}};
  ASSERT_THAT(store_->SaveSession(
                  {.session = {1}, .outbox = &entry, .residual = &change}),
              IsOk());
  ASSERT_THAT(
      store_->SaveSession(
          {.session = {2}, .drop_outbox = true, .dropped = AuditResult::kLate}),
      IsOk());
  const std::vector<AssignmentOutcome> outcomes = {
      {"a1", OutcomeState::kCommitted}};
  ASSERT_THAT(store_->SaveSession({.session = {3}, .outcomes = outcomes}),
              IsOk());
  EXPECT_THAT(*store_->LoadResidual("digits", program), ElementsAre());
}

TEST_F(ClientStoreTest, InstallModel_NewProgram_RemovesTheOldOne) {
  Open();
  const Bytes first = ToBytes("program one");
  const Bytes second = ToBytes("program two");
  ASSERT_THAT(store_->InstallModel(MakeModel(1, first), first, {}), IsOk());
  ASSERT_THAT(store_->InstallModel(MakeModel(2, second), second, {}), IsOk());

  const auto model = store_->LoadModel("digits");
  ASSERT_THAT(model, IsOk());
  EXPECT_EQ((*model)->version, 2U);
  EXPECT_THAT((*model)->global_scores, ElementsAre(0.5, 1.25));
  EXPECT_EQ(*store_->LoadArtefact(crypto::Sha256(second)), second);
  EXPECT_THAT(store_->LoadArtefact(crypto::Sha256(first)),
              StatusIs(StatusCode::kNotFound));
}

TEST_F(ClientStoreTest, LoadExamples_Order_IsThatOfTheIds) {
  Open();
  const std::vector<size_t> sizes = {2, 1};
  std::vector<int64_t> ids;
  for (uint8_t i = 0; i < 5; ++i) {
    const std::vector<Example> one = {
        {{Bytes(2, i), Bytes(1, static_cast<uint8_t>(50 + i))}}};
    ids.push_back(store_->AddExamples("numbers", one)->front());
  }
  ASSERT_THAT(store_->DeleteExample(ids[1]), IsOk());
  EXPECT_THAT(*store_->ExampleIds("numbers", sizes),
              ElementsAre(ids[0], ids[2], ids[3], ids[4]));
  const std::vector<int64_t> wanted = {ids[4], ids[0]};
  const auto set = store_->LoadExamples(wanted, sizes);
  ASSERT_THAT(set, IsOk());
  EXPECT_EQ(set->count, 2U);
  EXPECT_THAT(set->inputs[0], ElementsAre(4, 4, 0, 0));
  EXPECT_THAT(set->inputs[1], ElementsAre(54, 50));
  const std::vector<int64_t> gone = {ids[1]};
  EXPECT_THAT(store_->LoadExamples(gone, sizes),
              StatusIs(StatusCode::kNotFound));
  const std::vector<size_t> other = {3};
  EXPECT_THAT(*store_->ExampleIds("numbers", other), ElementsAre());
}

TEST_F(ClientStoreTest, AddExample_AfterDeletingTheLast_IdIsNotGivenAgain) {
  Open();
  const std::vector<Example> one = {{{Bytes(1, 1)}}};
  const int64_t first = store_->AddExamples("numbers", one)->front();
  ASSERT_THAT(store_->DeleteExample(first), IsOk());
  EXPECT_GT(store_->AddExamples("numbers", one)->front(), first);
}

TEST_F(ClientStoreTest, TakeReport_Unanswered_IsTheSameAgain) {
  Open();
  EXPECT_FALSE(store_->TakeReport("r0")->has_value());
  ASSERT_THAT(store_->SaveSession({.session = {}, .counters = {"late"}}),
              IsOk());
  const auto first = store_->TakeReport("r1");
  ASSERT_TRUE(first->has_value());
  ASSERT_THAT(store_->SaveSession({.session = {}, .counters = {"late"}}),
              IsOk());
  Open();
  const auto again = store_->TakeReport("r2");
  EXPECT_EQ((*again)->report_id, "r1");
  EXPECT_EQ((*again)->counters, (*first)->counters);
  ASSERT_THAT(store_->ForgetReport("r1"), IsOk());
  const auto next = store_->TakeReport("r3");
  EXPECT_EQ((*next)->report_id, "r3");
  EXPECT_EQ((*next)->counters.front().second, 1U);
}

TEST_F(ClientStoreTest, Open_NewerSchema_IsRefused) {
  Open();
  store_.reset();
  SQLite::Database(path_.string(), SQLite::OPEN_READWRITE)
      .exec("PRAGMA user_version = 99");
  EXPECT_THAT(TryOpen(), StatusIs(StatusCode::kFailedPrecondition));
}

TEST_F(ClientStoreTest, Open_SchemaDiffers_IsRefused) {
  Open();
  store_.reset();
  SQLite::Database(path_.string(), SQLite::OPEN_READWRITE)
      .exec("ALTER TABLE outbox ADD COLUMN extra TEXT");
  EXPECT_THAT(TryOpen(),
              StatusIs(StatusCode::kDataLoss, ::testing::HasSubstr("outbox")));
}

TEST_F(ClientStoreTest, Open_ForeignDatabase_IsRefused) {
  SQLite::Database(path_.string(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE)
      .exec("CREATE TABLE theirs (x)");
  EXPECT_THAT(TryOpen(), StatusIs(StatusCode::kDataLoss));
}

// The power fails after every operation in turn; what SaveSession() and
// InstallModel() said is durable is there, whole, and nothing is half there.
// ---- trainings and optimizers

StoredTuning MakeTuning(uint64_t steps) {
  return {.fingerprint = crypto::Sha256(AsBytes("of this")),
          .examples = 48,
          .steps = steps,
          .done = steps > 100,
          .state = Bytes(40, static_cast<uint8_t>(steps)),
          .optimizer = steps > 100 ? Bytes{1, 2} : Bytes()};
}

TEST_F(ClientStoreTest, SaveTuning_IsOfItsTaskAndPart_UntilTheModelIsThere) {
  Open();
  const Bytes program = ToBytes("program");
  EXPECT_FALSE(
      store_->LoadTuning("digits", TuningPart::kPersonal)->has_value());
  for (const uint64_t steps : {1U, 7U}) {
    ASSERT_THAT(
        store_->SaveTuning("digits", TuningPart::kPersonal, MakeTuning(steps)),
        IsOk());
  }
  ASSERT_THAT(store_->SaveTuning("digits", TuningPart::kAlone, MakeTuning(101)),
              IsOk());
  ASSERT_THAT(
      store_->SaveTuning("letters", TuningPart::kPersonal, MakeTuning(3)),
      IsOk());
  Open();
  EXPECT_EQ(*store_->LoadTuning("digits", TuningPart::kPersonal),
            MakeTuning(7));
  EXPECT_EQ(*store_->LoadTuning("digits", TuningPart::kAlone), MakeTuning(101));
  EXPECT_FALSE(
      store_->LoadTuning("digits", TuningPart::kAloneHoldout)->has_value());
  ASSERT_THAT(store_->InstallModel(MakeModel(1, program), program, {}), IsOk());
  EXPECT_FALSE(
      store_->LoadTuning("digits", TuningPart::kPersonal)->has_value());
  EXPECT_FALSE(store_->LoadTuning("digits", TuningPart::kAlone)->has_value());
  EXPECT_EQ(*store_->LoadTuning("letters", TuningPart::kPersonal),
            MakeTuning(3));
}

TEST_F(ClientStoreTest, LoadTuning_Damaged_IsNotThereAndCounted) {
  Open();
  ASSERT_THAT(
      store_->SaveTuning("digits", TuningPart::kPersonal, MakeTuning(7)),
      IsOk());
  store_.reset();
  // Whole and authentic, but of another part.
  SQLite::Database(path_.string(), SQLite::OPEN_READWRITE)
      .exec("UPDATE tuning SET part = 'alone'");
  Open();
  EXPECT_FALSE(store_->LoadTuning("digits", TuningPart::kAlone)->has_value());
  EXPECT_THAT(parts_.log.str(), ::testing::HasSubstr("stored_value_damaged"));
}

TEST_F(ClientStoreTest, InstallModel_Optimizer_IsThePersonalSlots) {
  Open();
  const Bytes program = ToBytes("program");
  StoredModel model = MakeModel(1, program);
  EXPECT_FALSE(store_->LoadOptimizer("digits")->has_value());
  model.personal_optimizer = Bytes{3, 4, 5};
  ASSERT_THAT(store_->InstallModel(model, program, {}), IsOk());
  Open();
  EXPECT_EQ(*store_->LoadOptimizer("digits"), (Bytes{3, 4, 5}));
  EXPECT_FALSE((*store_->LoadModel("digits"))->personal_optimizer.has_value());
  // Without a slot there is none of its optimizer either.
  model.personal_values.reset();
  model.personal_serving = false;
  ASSERT_THAT(store_->InstallModel(model, program, {}), IsOk());
  EXPECT_FALSE(store_->LoadOptimizer("digits")->has_value());
}

TEST_F(ClientStoreTest, Forget_TakesTrainingsAndOptimizers) {
  Open();
  const Bytes program = ToBytes("program");
  StoredModel model = MakeModel(1, program);
  model.personal_optimizer = Bytes{3, 4, 5};
  ASSERT_THAT(store_->InstallModel(model, program, {}), IsOk());
  ASSERT_THAT(
      store_->SaveTuning("digits", TuningPart::kPersonal, MakeTuning(7)),
      IsOk());
  ASSERT_THAT(store_->Forget(AsBytes("idle"), {}), IsOk());
  EXPECT_FALSE(
      store_->LoadTuning("digits", TuningPart::kPersonal)->has_value());
  EXPECT_FALSE(store_->LoadOptimizer("digits")->has_value());
}

// A store of schema version 5 keeps what it has.
TEST_F(ClientStoreTest, Open_Version5_KeepsItsSlots) {
  Open();
  const Bytes program = ToBytes("program");
  ASSERT_THAT(store_->InstallModel(MakeModel(4, program), program, {}), IsOk());
  const auto model = store_->LoadModel("digits");
  store_.reset();
  {
    SQLite::Database database(path_.string(), SQLite::OPEN_READWRITE);
    database.exec("DROP TABLE outbox_piece");
    database.exec("DROP TABLE tuning");
    database.exec("ALTER TABLE model DROP COLUMN personal_optimizer");
    database.exec("PRAGMA user_version = 5");
  }
  Open();
  const auto again = store_->LoadModel("digits");
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ((*again)->version, 4U);
  EXPECT_EQ((*again)->personal_values, (*model)->personal_values);
  EXPECT_TRUE((*again)->personal_serving);
  EXPECT_EQ((*again)->personal_scores, (*model)->personal_scores);
  EXPECT_FALSE(store_->LoadOptimizer("digits")->has_value());
  ASSERT_THAT(
      store_->SaveTuning("digits", TuningPart::kPersonal, MakeTuning(7)),
      IsOk());
}

// A slot and its optimizer, and the end of its training, are one.
TEST(ClientStorePowerTest,
     InstallModel_PowerCutAnywhere_SlotAndOptimizerAreOne) {
  const Bytes program = ToBytes("program");
  int failed = 0;
  for (uint64_t point = 0;; ++point) {
    SCOPED_TRACE("power cut after operation " + std::to_string(point));
    FaultVfs vfs;
    test::StoreParts parts;
    bool installed = false;
    {
      auto store = parts.Open("/client.db", vfs.name());
      ASSERT_THAT(store, IsOk());
      StoredModel model = MakeModel(1, program);
      model.personal_optimizer = Bytes(9, 1);
      ASSERT_THAT((*store)->InstallModel(model, program, {}), IsOk());
      ASSERT_THAT(
          (*store)->SaveTuning("digits", TuningPart::kPersonal, MakeTuning(7)),
          IsOk());
      vfs.FailAfter(point);
      (void)(*store)->SaveTuning("digits", TuningPart::kPersonal,
                                 MakeTuning(9));
      model = MakeModel(2, program);
      model.personal_optimizer = Bytes(9, 2);
      installed = (*store)->InstallModel(model, program, {}).ok();
      SeededRandom random(point);
      vfs.CrashTorn(random);
    }
    vfs.ClearFaults();
    auto store = parts.Open("/client.db", vfs.name());
    ASSERT_THAT(store, IsOk());
    const auto model = (*store)->LoadModel("digits");
    const auto optimizer = (*store)->LoadOptimizer("digits");
    const auto tuning = (*store)->LoadTuning("digits", TuningPart::kPersonal);
    ASSERT_THAT(model, IsOk());
    ASSERT_THAT(optimizer, IsOk());
    ASSERT_THAT(tuning, IsOk());
    const auto version = static_cast<uint8_t>((*model)->version);
    EXPECT_EQ((*model)->personal_values->front(), 100 + version);
    EXPECT_EQ(**optimizer, Bytes(9, version));
    EXPECT_EQ(tuning->has_value(), version == 1);
    if (tuning->has_value()) {
      EXPECT_TRUE(**tuning == MakeTuning(7) || **tuning == MakeTuning(9));
    }
    if (installed) {
      EXPECT_EQ(version, 2);
      break;
    }
    ++failed;
  }
  EXPECT_GT(failed, 5);
}

TEST(ClientStorePowerTest, SaveSession_PowerCutAnywhere_AllOrNothing) {
  const Bytes program = ToBytes("program");
  int cuts = 0;
  for (uint64_t point = 0; point < 400; point += 3) {
    SCOPED_TRACE("power cut after operation " + std::to_string(point));
    FaultVfs vfs;
    test::StoreParts parts;
    int durable = 0;
    bool finished = false;
    {
      auto store = parts.Open("/client.db", vfs.name());
      ASSERT_THAT(store, IsOk());
      vfs.FailAfter(point);
      for (int i = 1; i <= 4; ++i) {
        const OutboxEntry entry = MakeEntry("a" + std::to_string(i));
        if (!(*store)
                 ->SaveSession({.session = ToBytes(entry.assignment_id),
                                .outbox = &entry})
                 .ok()) {
          break;
        }
        if (!(*store)
                 ->InstallModel(MakeModel(static_cast<uint64_t>(i), program),
                                program, {})
                 .ok()) {
          durable = i * 2 - 1;
          break;
        }
        durable = i * 2;
        finished = i == 4;
      }
    }
    SeededRandom random(point);
    if (point % 2 == 0) {
      vfs.Crash();
    } else {
      vfs.CrashTorn(random);
    }
    vfs.ClearFaults();
    auto store = parts.Open("/client.db", vfs.name());
    ASSERT_THAT(store, IsOk());
    const auto session = (*store)->LoadSession();
    const auto outbox = (*store)->LoadOutbox();
    const auto model = (*store)->LoadModel("digits");
    ASSERT_THAT(session, IsOk());
    ASSERT_THAT(outbox, IsOk());
    ASSERT_THAT(model, IsOk());
    const int saved = session->has_value() ? AsText(**session).back() - '0' : 0;
    const int installed =
        model->has_value() ? static_cast<int>((*model)->version) : 0;
    EXPECT_GE(saved, (durable + 1) / 2);
    EXPECT_GE(installed, durable / 2);
    // State and outbox are one transaction.
    ASSERT_EQ(outbox->has_value(), saved > 0);
    if (saved > 0) {
      EXPECT_EQ((*outbox)->assignment_id, "a" + std::to_string(saved));
    }
    if (installed > 0) {
      EXPECT_EQ((*model)->global_values[0], installed);
      EXPECT_EQ((*model)->personal_values->front(), 100 + installed);
    }
    ++cuts;
    if (finished && point > 100) break;
  }
  EXPECT_GT(cuts, 10);
}

TEST(ClientStorePowerTest, SaveSession_DiskFull_SaysSoAndRecovers) {
  FaultVfs vfs;
  test::StoreParts parts;
  auto store = parts.Open("/client.db", vfs.name());
  ASSERT_THAT(store, IsOk());
  OutboxEntry entry = MakeEntry("a1");
  entry.update.encoded = Bytes(100'000, 7);
  entry.update.digest = crypto::Sha256(entry.update.encoded);
  vfs.SetFreeBytes(20'000);
  EXPECT_THAT((*store)->SaveSession({.session = {1}, .outbox = &entry}),
              StatusIs(StatusCode::kResourceExhausted));
  EXPECT_FALSE((*store)->LoadOutbox()->has_value());
  vfs.SetFreeBytes(std::nullopt);
  EXPECT_THAT((*store)->SaveSession({.session = {1}, .outbox = &entry}),
              IsOk());
  EXPECT_TRUE((*store)->LoadOutbox()->has_value());
}

}  // namespace
}  // namespace selvage::client

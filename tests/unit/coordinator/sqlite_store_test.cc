// What only the SQLite store does: files, locks, schemas.
#include "coordinator/store/sqlite_store.h"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <sqlite3.h>

#include "coordinator/store/sqlite_schema.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fault_vfs.h"
#include "tests/testing/scratch_folder.h"
#include "tests/testing/status_matchers.h"

namespace selvage::coordinator {
namespace {

using ::selvage::test::FakeClock;
using ::selvage::test::FaultVfs;
using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;

class SqliteStoreTest : public ::testing::Test {
 protected:
  Result<std::unique_ptr<SqliteStore>> Open() {
    return SqliteStore::Open({.path = path()}, clock_, random_);
  }
  Path path() const { return directory_.path() / "store.db"; }
  void Execute(const std::string& sql) {
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open(path().c_str(), &db), SQLITE_OK);
    EXPECT_EQ(sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr),
              SQLITE_OK);
    sqlite3_close(db);
  }

  const test::ScratchFolder directory_;
  FakeClock clock_;
  SeededRandom random_{1};
};

TEST_F(SqliteStoreTest, Open_Twice_SecondIsRefused) {
  const auto first = Open();
  ASSERT_THAT(first, IsOk());

  EXPECT_THAT(Open(), StatusIs(StatusCode::kFailedPrecondition,
                               HasSubstr("another coordinator")));
}

TEST_F(SqliteStoreTest, Open_Again_IsTheSameInstance) {
  std::string id;
  {
    const auto store = Open();
    ASSERT_THAT(store, IsOk());
    id = (*store)->instance_id();
    EXPECT_EQ((*store)->schema_version(), Migrations().back().version);
  }
  EXPECT_EQ((*Open())->instance_id(), id);
}

TEST_F(SqliteStoreTest, Open_NewerSchema_IsRefusedAndUntouched) {
  { ASSERT_THAT(Open(), IsOk()); }
  Execute("PRAGMA user_version = 999");

  EXPECT_THAT(Open(), StatusIs(StatusCode::kFailedPrecondition,
                               HasSubstr("newer selvage-coordinator")));
}

TEST_F(SqliteStoreTest, Open_FirstSchema_IsMigrated) {
  std::string id;
  {
    const auto store = Open();
    ASSERT_THAT(store, IsOk());
    id = (*store)->instance_id();
  }
  Execute(
      "ALTER TABLE version DROP COLUMN server_state_digest;"
      "DROP TABLE evaluation_metric; DROP TABLE evaluation;"
      "ALTER TABLE task DROP COLUMN evaluated_rounds;"
      "ALTER TABLE task DROP COLUMN end_reason;"
      "ALTER TABLE task DROP COLUMN measured;"
      "ALTER TABLE task DROP COLUMN last_measured;"
      "ALTER TABLE task DROP COLUMN best_version;"
      "ALTER TABLE task DROP COLUMN best_value;"
      "ALTER TABLE task DROP COLUMN reference;"
      "ALTER TABLE task DROP COLUMN stale;"
      "ALTER TABLE round DROP COLUMN mode;"
      "ALTER TABLE round DROP COLUMN class_metrics;"
      "ALTER TABLE assignment DROP COLUMN device_class;"
      "ALTER TABLE device DROP COLUMN nonce_made;"
      "ALTER TABLE round DROP COLUMN figures;"
      "DROP TABLE claim; DROP TABLE candidate;"
      "PRAGMA user_version = 1");

  const auto store = Open();

  ASSERT_THAT(store, IsOk());
  EXPECT_EQ((*store)->instance_id(), id);
  EXPECT_EQ((*store)->schema_version(), Migrations().back().version);
}

TEST_F(SqliteStoreTest, Open_SomebodyElsesDatabase_IsRefused) {
  Execute("CREATE TABLE cookies (jar TEXT)");

  EXPECT_THAT(Open(), StatusIs(StatusCode::kFailedPrecondition,
                               HasSubstr("not a Selvage")));
}

TEST_F(SqliteStoreTest, Open_Garbage_IsDataLoss) {
  std::ofstream(path()) << std::string(8192, 'x');

  EXPECT_THAT(Open(), StatusIs(StatusCode::kDataLoss));
}

TEST(SqliteSchemaTest, Migrations_AreNumberedWithoutGaps) {
  uint32_t expected = 1;
  for (const Migration& migration : Migrations()) {
    EXPECT_EQ(migration.version, expected++);
  }
}

// What is overwritten is gone from the file and the log.
TEST(SqliteSecretsTest, EndedRound_KeyIsNowhereInTheFiles) {
  FaultVfs vfs;
  FakeClock clock;
  SeededRandom random(1);
  auto opened = SqliteStore::Open(
      {.path = "/data/store.db", .lock_directory = false, .vfs = vfs.name()},
      clock, random);
  ASSERT_THAT(opened, IsOk());
  Store& store = **opened;
  ASSERT_THAT(store.CreatePopulation({"demo", Time{}, 0}, {}), IsOk());
  Store::NewTask task;
  task.task.name = "t";
  task.task.population = "demo";
  task.initial.checkpoint_digest = crypto::Sha256(AsBytes("c"));
  task.initial.master_digest = crypto::Sha256(AsBytes("m"));
  task.artefacts = {{task.initial.checkpoint_digest, 1},
                    {task.initial.master_digest, 1}};
  ASSERT_THAT(store.CreateTask(task, {}), IsOk());
  RoundRow round;
  round.key = {1, 1};
  round.wrapped_key = Bytes(60, 0xAB);
  ASSERT_THAT(store.OpenRound(round), IsOk());
  const std::string key_text = ToHex(round.wrapped_key);
  const auto everything = [&] {
    std::string all;
    for (const std::string& file : vfs.Files()) all += *vfs.Contents(file);
    return all;
  };
  ASSERT_THAT(everything(), HasSubstr(key_text));

  ASSERT_THAT(store.AbandonRound({round.key, 1}, RoundState::kSelecting, Time{},
                                 "test"),
              IsOk());

  EXPECT_THAT(everything(), Not(HasSubstr(key_text)));
}

TEST(SqliteFaultTest, EveryOperationFailing_IsAStatusAndNothingIsHalfDone) {
  for (uint64_t k = 0; k < 60; ++k) {
    FaultVfs vfs;
    FakeClock clock;
    SeededRandom random(1);
    SqliteStoreOptions options;
    options.path = "/data/store.db";
    options.lock_directory = false;
    options.vfs = vfs.name();
    Status made;
    {
      auto opened = SqliteStore::Open(options, clock, random);
      ASSERT_THAT(opened, IsOk());
      vfs.FailAfter(k);
      RequestRow request{"r", "create_population", {}, "demo", Time{}};
      made = (*opened)->CreatePopulation({"demo", Time{}, 0}, request);
      vfs.ClearFaults();
    }
    vfs.Crash();
    auto again = SqliteStore::Open(options, clock, random);
    ASSERT_THAT(again, IsOk()) << k;
    const bool there = (*again)->GetPopulation("demo").ok();
    EXPECT_EQ(there, (*again)->FindRequest("r")->has_value()) << k;
    if (made.ok()) {
      EXPECT_TRUE(there) << k;
    }
  }
}

}  // namespace
}  // namespace selvage::coordinator

#include "tests/testing/fault_vfs.h"

#include <SQLiteCpp/SQLiteCpp.h>

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include "base/random.h"

namespace selvage::test {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

const std::string kPath = "/data/test.db";

class FaultVfsTest : public ::testing::Test {
 protected:
  std::unique_ptr<SQLite::Database> Open(const std::string& journal = "WAL",
                                         const std::string& sync = "FULL") {
    auto db = std::make_unique<SQLite::Database>(
        kPath, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE,
        /*aBusyTimeoutMs=*/0, vfs_.name());
    db->exec("PRAGMA journal_mode=" + journal);
    db->exec("PRAGMA synchronous=" + sync);
    return db;
  }
  static void CreateTable(SQLite::Database& db) {
    db.exec("CREATE TABLE IF NOT EXISTS t(x INTEGER PRIMARY KEY, y TEXT)");
  }
  static void Insert(SQLite::Database& db, int x) {
    db.exec("INSERT INTO t VALUES(" + std::to_string(x) + ", 'row " +
            std::to_string(x) + "')");
  }
  static std::vector<int> Rows(SQLite::Database& db) {
    std::vector<int> rows;
    SQLite::Statement query(db, "SELECT x FROM t ORDER BY x");
    while (query.executeStep()) rows.push_back(query.getColumn(0).getInt());
    return rows;
  }
  static std::string IntegrityOf(SQLite::Database& db) {
    return db.execAndGet("PRAGMA integrity_check").getString();
  }

  FaultVfs vfs_;
};

TEST_F(FaultVfsTest, Crash_AfterCommitWithSyncFull_KeepsTheRow) {
  for (const char* journal : {"WAL", "TRUNCATE"}) {
    auto db = Open(journal, "FULL");
    EXPECT_EQ(db->execAndGet("PRAGMA journal_mode").getString(),
              std::string(journal) == "WAL" ? "wal" : "truncate");
    CreateTable(*db);
    db->exec("DELETE FROM t");
    Insert(*db, 1);
    vfs_.Crash();
    db.reset();
    db = Open(journal);
    EXPECT_THAT(Rows(*db), ::testing::ElementsAre(1)) << journal;
    EXPECT_EQ(IntegrityOf(*db), "ok");
    db.reset();
  }
}

TEST_F(FaultVfsTest, Crash_AfterCommitWithSyncOff_LosesTheRow) {
  for (const char* journal : {"WAL", "TRUNCATE"}) {
    auto db = Open(journal, "FULL");
    CreateTable(*db);
    db->exec("DELETE FROM t");
    db->exec("PRAGMA synchronous=OFF");
    Insert(*db, 1);
    EXPECT_THAT(Rows(*db), ::testing::ElementsAre(1));
    vfs_.Crash();
    db.reset();
    db = Open(journal);
    EXPECT_THAT(Rows(*db), ::testing::IsEmpty()) << journal;
    EXPECT_EQ(IntegrityOf(*db), "ok");
    db.reset();
  }
}

TEST_F(FaultVfsTest, Crash_AfterCommitWithSyncNormal_LosesTheRowInWal) {
  auto db = Open("WAL", "NORMAL");
  CreateTable(*db);
  db->exec("PRAGMA wal_checkpoint(TRUNCATE)");
  Insert(*db, 1);
  vfs_.Crash();
  db = nullptr;
  db = Open();
  EXPECT_THAT(Rows(*db), ::testing::IsEmpty());
}

TEST_F(FaultVfsTest, Crash_DatabaseNeverSynced_IsGone) {
  {
    SQLite::Database db(kPath, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE, 0,
                        vfs_.name());
    db.exec("PRAGMA synchronous=OFF");
    CreateTable(db);
  }
  EXPECT_THAT(vfs_.Files(), ::testing::ElementsAre(kPath));
  vfs_.Crash();
  EXPECT_THAT(vfs_.Files(), ::testing::IsEmpty());
}

TEST_F(FaultVfsTest, Crash_OpenTransaction_IsRolledBack) {
  auto db = Open();
  CreateTable(*db);
  Insert(*db, 1);
  db->exec("BEGIN");
  Insert(*db, 2);
  vfs_.Crash();
  EXPECT_THROW(db->exec("COMMIT"), SQLite::Exception);
  db = nullptr;
  db = Open();
  EXPECT_THAT(Rows(*db), ::testing::ElementsAre(1));
}

TEST_F(FaultVfsTest, Crash_OldConnection_CannotTouchTheNewWorld) {
  auto old = Open();
  CreateTable(*old);
  Insert(*old, 1);
  vfs_.Crash();
  auto db = Open();
  EXPECT_THROW(Insert(*old, 2), SQLite::Exception);
  EXPECT_THROW(Rows(*old), SQLite::Exception);
  Insert(*db, 3);
  old.reset();
  EXPECT_THAT(Rows(*db), ::testing::ElementsAre(1, 3));
}

TEST_F(FaultVfsTest, Crash_AfterEveryTransaction_LosesNone) {
  auto db = Open();
  CreateTable(*db);
  for (int x = 0; x < 30; ++x) {
    Insert(*db, x);
    if (x % 7 == 0) db->exec("PRAGMA wal_checkpoint(TRUNCATE)");
    vfs_.Crash();
    db = nullptr;
    db = Open();
    ASSERT_EQ(Rows(*db).size(), static_cast<size_t>(x) + 1);
  }
  EXPECT_EQ(IntegrityOf(*db), "ok");
}

// The property SQLite promises with synchronous=FULL: whatever was committed is
// there, at most the transaction in flight besides, and the file is sound.
TEST_F(FaultVfsTest, CrashTorn_AtEveryOperation_KeepsWhatWasCommitted) {
  uint64_t crashes = 0;
  for (uint64_t n = 0;; ++n) {
    FaultVfs vfs;
    const auto open = [&vfs] {
      auto db = std::make_unique<SQLite::Database>(
          kPath, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE, 0, vfs.name());
      db->exec("PRAGMA journal_mode=WAL");
      db->exec("PRAGMA synchronous=FULL");
      return db;
    };
    std::unique_ptr<SQLite::Database> db;
    vfs.FailAfter(n);
    int committed = 0;
    bool failed = false;
    try {
      db = open();
      CreateTable(*db);
      for (int x = 0; x < 4; ++x) {
        Insert(*db, x);
        ++committed;
        if (x == 1) db->exec("PRAGMA wal_checkpoint(TRUNCATE)");
      }
    } catch (const SQLite::Exception&) {
      failed = true;
    }
    SeededRandom random(n);
    vfs.CrashTorn(random);
    db.reset();
    vfs.ClearFaults();
    db = open();
    CreateTable(*db);
    const std::vector<int> rows = Rows(*db);
    EXPECT_GE(rows.size(), static_cast<size_t>(committed)) << n;
    EXPECT_LE(rows.size(), static_cast<size_t>(committed) + 1) << n;
    EXPECT_EQ(IntegrityOf(*db), "ok") << n;
    ++crashes;
    if (!failed) break;
  }
  EXPECT_GT(crashes, 50U);
}

TEST_F(FaultVfsTest, CrashTorn_WithSyncOff_CanShowHalfATransaction) {
  // What the seam is for: without syncs some crash is seen.
  bool harmed = false;
  for (uint64_t seed = 0; seed < 50 && !harmed; ++seed) {
    FaultVfs vfs;
    const auto open = [&vfs] {
      return std::make_unique<SQLite::Database>(
          kPath, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE, 0, vfs.name());
    };
    auto db = open();
    CreateTable(*db);
    db->exec("PRAGMA synchronous=OFF");
    for (int x = 0; x < 20; ++x) Insert(*db, x);
    SeededRandom random(seed);
    vfs.CrashTorn(random);
    db.reset();
    try {
      db = open();
      harmed = IntegrityOf(*db) != "ok" || Rows(*db).size() != 20;
    } catch (const SQLite::Exception&) {
      harmed = true;
    }
  }
  EXPECT_TRUE(harmed);
}

TEST_F(FaultVfsTest, Sync_FailedOnce_IsAnErrorAndTheRowNotPromised) {
  auto db = Open();
  CreateTable(*db);
  Insert(*db, 1);
  const uint64_t before = vfs_.operations();
  Insert(*db, 2);
  // The last operation of a commit is its xSync.
  const uint64_t per_insert = vfs_.operations() - before;
  vfs_.FailAfter(per_insert - 1, /*times=*/1);
  EXPECT_THROW(Insert(*db, 3), SQLite::Exception);
  Insert(*db, 4);
  vfs_.Crash();
  db = nullptr;
  db = Open();
  EXPECT_THAT(Rows(*db), ::testing::ElementsAre(1, 2, 4));
}

TEST_F(FaultVfsTest, FailAfter_ForAWhile_ThenWorksAgain) {
  auto db = Open();
  CreateTable(*db);
  vfs_.FailAfter(0);
  EXPECT_THROW(Insert(*db, 1), SQLite::Exception);
  EXPECT_THROW(Insert(*db, 1), SQLite::Exception);
  EXPECT_THROW(Open(), SQLite::Exception);
  vfs_.ClearFaults();
  Insert(*db, 1);
  EXPECT_THAT(Rows(*db), ::testing::ElementsAre(1));
}

TEST_F(FaultVfsTest, SetFreeBytes_DiskFull_IsSqliteFullUntilThereIsRoom) {
  auto db = Open();
  CreateTable(*db);
  Insert(*db, 1);
  vfs_.SetFreeBytes(100);
  try {
    Insert(*db, 2);
    ADD_FAILURE() << "the disk is full";
  } catch (const SQLite::Exception& e) {
    EXPECT_EQ(e.getErrorCode(), SQLITE_FULL);
  }
  EXPECT_THAT(Rows(*db), ::testing::ElementsAre(1));
  vfs_.SetFreeBytes(1 << 20);
  Insert(*db, 3);
  vfs_.Crash();
  db = nullptr;
  db = Open();
  EXPECT_THAT(Rows(*db), ::testing::ElementsAre(1, 3));
}

TEST_F(FaultVfsTest, Syncs_PerCommit_AreOneInWalAndNoneWhenOff) {
  auto db = Open();
  CreateTable(*db);
  Insert(*db, 1);
  const uint64_t before = vfs_.syncs();
  Insert(*db, 2);
  EXPECT_EQ(vfs_.syncs(), before + 1);
  db->exec("PRAGMA synchronous=OFF");
  Insert(*db, 3);
  EXPECT_EQ(vfs_.syncs(), before + 1);
}

TEST_F(FaultVfsTest, TwoConnections_ReaderAndWriter_SeeWalSemantics) {
  auto writer = Open();
  CreateTable(*writer);
  Insert(*writer, 1);
  auto reader = Open();
  reader->exec("BEGIN");
  EXPECT_THAT(Rows(*reader), ::testing::ElementsAre(1));
  Insert(*writer, 2);
  EXPECT_THAT(Rows(*reader), ::testing::ElementsAre(1));  // its snapshot
  reader->exec("COMMIT");
  EXPECT_THAT(Rows(*reader), ::testing::ElementsAre(1, 2));
  writer->exec("BEGIN IMMEDIATE");
  try {
    reader->exec("BEGIN IMMEDIATE");
    ADD_FAILURE() << "two writers";
  } catch (const SQLite::Exception& e) {
    EXPECT_EQ(e.getErrorCode(), SQLITE_BUSY);
  }
}

TEST_F(FaultVfsTest, TwoConnections_RollbackJournal_ExcludeEachOther) {
  auto a = Open("DELETE");
  CreateTable(*a);
  auto b = Open("DELETE");
  a->exec("BEGIN EXCLUSIVE");
  EXPECT_THROW(Rows(*b), SQLite::Exception);
  a->exec("COMMIT");
  EXPECT_THAT(Rows(*b), ::testing::IsEmpty());
  b->exec("BEGIN");
  EXPECT_THAT(Rows(*b), ::testing::IsEmpty());
  a->exec("BEGIN IMMEDIATE");  // a reader does not hinder the preparation,
  Insert(*a, 1);
  EXPECT_THROW(a->exec("COMMIT"), SQLite::Exception);  // but the commit
  b->exec("COMMIT");
  a->exec("COMMIT");
  EXPECT_THAT(Rows(*b), ::testing::ElementsAre(1));
}

TEST_F(FaultVfsTest, Threads_WithTheirOwnConnections_AllCommit) {
  {
    auto db = Open();
    CreateTable(*db);
  }
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([this, t] {
      SQLite::Database db(kPath, SQLite::OPEN_READWRITE,
                          /*aBusyTimeoutMs=*/60'000, vfs_.name());
      for (int i = 0; i < 20; ++i) Insert(db, 100 * t + i);
    });
  }
  for (std::thread& thread : threads) thread.join();
  vfs_.Crash();
  auto db = Open();
  EXPECT_EQ(Rows(*db).size(), 60U);
  EXPECT_EQ(IntegrityOf(*db), "ok");
}

TEST_F(FaultVfsTest, Contents_AfterACommit_ShowWhatTheDiskWouldShow) {
  auto db = Open();
  CreateTable(*db);
  Insert(*db, 7);
  EXPECT_THAT(vfs_.Files(), Contains("/data/test.db-wal"));
  EXPECT_THAT(vfs_.Contents("/data/test.db-wal").value_or(""),
              HasSubstr("row 7"));
  EXPECT_EQ(vfs_.Contents("/data/none"), std::nullopt);
}

TEST_F(FaultVfsTest, TwoVfs_SamePath_AreDifferentDisks) {
  FaultVfs other;
  EXPECT_NE(other.name(), vfs_.name());
  auto db = Open();
  CreateTable(*db);
  EXPECT_THROW(SQLite::Database(kPath, SQLite::OPEN_READWRITE, 0, other.name()),
               SQLite::Exception);
}

}  // namespace
}  // namespace selvage::test

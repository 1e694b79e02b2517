#include "coordinator/store/sqlite_connection.h"

#include <SQLiteCpp/SQLiteCpp.h>

#include <string>

#include <gtest/gtest.h>
#include <sqlite3.h>

#include "coordinator/store/sqlite_sql.h"

namespace selvage::coordinator {
namespace {

class SqliteConnectionTest : public ::testing::Test {
 protected:
  SqliteConnectionTest() {
    db_.Execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT)");
  }
  std::string TextOf(int64_t id) {
    Sql sql(db_, "SELECT text FROM t WHERE id = ?", id);
    std::string text = "nothing";
    if (sql.Next()) sql.Columns(text);
    return text;
  }
  SqliteConnection db_{":memory:",
                       SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE};
};

TEST_F(SqliteConnectionTest, SameText_IsCompiledOnce) {
  constexpr char kText[] = "SELECT text FROM t";
  std::unique_ptr<SQLite::Statement> statement = db_.Take(kText);
  const SQLite::Statement* const first = statement.get();
  db_.GiveBack(std::move(statement));
  statement = db_.Take(kText);
  EXPECT_EQ(statement.get(), first);
  // In use: another one.
  const std::unique_ptr<SQLite::Statement> second = db_.Take(kText);
  EXPECT_NE(second.get(), first);
}

TEST_F(SqliteConnectionTest, GivenBackInTheMiddle_BeginsAnewWithoutItsValues) {
  for (int64_t id = 1; id <= 3; ++id) {
    Sql(db_, "INSERT INTO t VALUES (?, ?)", id, std::to_string(id)).Run();
  }
  for (int64_t id = 1; id <= 3; ++id) EXPECT_EQ(TextOf(id), std::to_string(id));
  constexpr char kText[] = "SELECT text FROM t WHERE id >= ? ORDER BY id";
  {
    Sql sql(db_, kText, 2);
    ASSERT_TRUE(sql.Next());
  }
  {
    Sql sql(db_, kText, 1);
    ASSERT_TRUE(sql.Next());
    std::string text;
    sql.Columns(text);
    EXPECT_EQ(text, "1");
  }
  // Nothing bound: NULL, which no id is.
  Sql sql(db_, kText);
  EXPECT_FALSE(sql.Next());
}

TEST_F(SqliteConnectionTest, FailedStatement_IsCompiledAnewAndWorks) {
  constexpr char kText[] = "INSERT INTO t VALUES (?, ?)";
  Sql(db_, kText, 1, std::string("a")).Run();
  for (int i = 0; i < 3; ++i) {
    EXPECT_THROW(Sql(db_, kText, 1, std::string("again")).Run(),
                 SQLite::Exception);
  }
  Sql(db_, kText, 2, std::string("b")).Run();
  EXPECT_EQ(TextOf(1), "a");
  EXPECT_EQ(TextOf(2), "b");
  EXPECT_THROW(Sql(db_, "no such statement"), SQLite::Exception);
}

TEST_F(SqliteConnectionTest, ChangedSchema_StatementsGoOn) {
  Sql(db_, "INSERT INTO t VALUES (?, ?)", 1, std::string("a")).Run();
  EXPECT_EQ(TextOf(1), "a");
  db_.Execute("ALTER TABLE t ADD COLUMN more TEXT");
  db_.Execute("CREATE INDEX by_text ON t (text)");
  EXPECT_EQ(TextOf(1), "a");
}

TEST_F(SqliteConnectionTest, ManyTexts_AreNotAllKept) {
  for (int i = 0; i < 1000; ++i) {
    Sql sql(db_, ("SELECT " + std::to_string(i)).c_str());
    ASSERT_TRUE(sql.Next());
    int64_t value = -1;
    sql.Columns(value);
    ASSERT_EQ(value, i);
  }
  int kept = 0;
  for (sqlite3_stmt* s = nullptr;
       (s = sqlite3_next_stmt(db_.database().getHandle(), s)) != nullptr;) {
    ++kept;
  }
  EXPECT_GT(kept, 0);
  EXPECT_LE(kept, 200);
}

}  // namespace
}  // namespace selvage::coordinator

#include "coordinator/store/sqlite_sql.h"

#include <SQLiteCpp/SQLiteCpp.h>

#include <utility>

#include <sqlite3.h>

#include "coordinator/store/sqlite_connection.h"

namespace selvage::coordinator {

SqliteConnection::SqliteConnection(const std::string& path, int flags,
                                   int busy_ms, const std::string& vfs)
    : database_(std::make_unique<SQLite::Database>(path, flags, busy_ms, vfs)) {
}

SqliteConnection::~SqliteConnection() = default;

void SqliteConnection::Execute(const std::string& sql) { database_->exec(sql); }

std::unique_ptr<SQLite::Statement> SqliteConnection::Take(const char* text) {
  if (const auto it = idle_.find(text); it != idle_.end()) {
    return std::move(idle_.extract(it).mapped());
  }
  return std::make_unique<SQLite::Statement>(*database_, text);
}

void SqliteConnection::GiveBack(std::unique_ptr<SQLite::Statement> statement) {
  // What failed is made anew, and so is what there is no room for.
  if (statement->tryReset() != SQLITE_OK || idle_.size() >= kIdleMax) return;
  statement->clearBindings();
  const std::string& text = statement->getQuery();
  idle_.emplace(text, std::move(statement));
}

Sql::Sql(SqliteConnection& db, const char* text, Unbound)
    : db_(db), statement_(db.Take(text)) {}

Sql::~Sql() { db_.GiveBack(std::move(statement_)); }

bool Sql::Next() { return statement_->executeStep(); }

int Sql::Run() { return statement_->exec(); }

void Sql::Reset() {
  statement_->reset();
  bound_ = 0;
}

void Sql::BindInt(int64_t value) { statement_->bind(++bound_, value); }

void Sql::BindReal(double value) { statement_->bind(++bound_, value); }

void Sql::BindText(const std::string& value) {
  statement_->bind(++bound_, value);
}

int64_t Sql::ReadInt() { return statement_->getColumn(column_++).getInt64(); }

double Sql::ReadReal() { return statement_->getColumn(column_++).getDouble(); }

std::string Sql::ReadText() {
  return statement_->getColumn(column_++).getString();
}

void Sql::Corrupt() {
  throw SQLite::Exception(std::string(statement_->getColumnName(column_ - 1)) +
                              " is not what was written there",
                          SQLITE_CORRUPT);
}

}  // namespace selvage::coordinator

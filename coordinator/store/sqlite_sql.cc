#include "coordinator/store/sqlite_sql.h"

#include <SQLiteCpp/SQLiteCpp.h>

#include <utility>

#include <sqlite3.h>

#include "coordinator/store/sqlite_connection.h"

namespace selvage::coordinator {

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

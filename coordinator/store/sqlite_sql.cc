#include "coordinator/store/sqlite_sql.h"

#include <SQLiteCpp/SQLiteCpp.h>

#include <sqlite3.h>

namespace selvage::coordinator {

Sql::Sql(SQLite::Database& db, const char* text, Unbound)
    : statement_(std::make_unique<SQLite::Statement>(db, text)) {}

Sql::~Sql() = default;

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

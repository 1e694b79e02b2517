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

Bytes Sql::ReadHex(size_t size) {
  const int column = column_;
  Result<Bytes> bytes = FromHex(ReadText());
  if (!bytes.ok() || (size != 0 && bytes->size() != size)) {
    throw SQLite::Exception(std::string(statement_->getColumnName(column)) +
                                " is not what was written there",
                            SQLITE_CORRUPT);
  }
  return *std::move(bytes);
}

crypto::Digest Sql::ReadDigest() {
  crypto::Digest digest;
  const Bytes bytes = ReadHex(0);
  if (bytes.empty()) return digest;
  if (bytes.size() != digest.bytes.size()) {
    throw SQLite::Exception("a digest is not 32 bytes", SQLITE_CORRUPT);
  }
  std::copy(bytes.begin(), bytes.end(), digest.bytes.begin());
  return digest;
}

}  // namespace selvage::coordinator

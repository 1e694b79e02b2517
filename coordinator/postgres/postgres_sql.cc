#include "coordinator/postgres/postgres_sql.h"

#include <array>
#include <charconv>
#include <cstdlib>
#include <utility>

#include <libpq-fe.h>

namespace selvage::coordinator {
namespace {

[[noreturn]] void Corrupt(const std::string& what) {
  throw PostgresError{"XX001", what + " is not what was written there", false};
}

}  // namespace

std::string RealText(double value) {
  std::array<char, 64> text{};
  const auto end =
      std::to_chars(text.data(), text.data() + text.size(), value).ptr;
  return std::string(text.data(), end);
}

void PostgresArray::AddText(const std::string& value) {
  if (text_.size() > 1) text_ += ',';
  text_ += '"';
  for (const char c : value) {
    if (c == '"' || c == '\\') text_ += '\\';
    text_ += c;
  }
  text_ += '"';
}

PostgresSql::PostgresSql(Connection::Rows rows) : rows_(std::move(rows)) {
  PGresult* result = const_cast<PGresult*>(rows_.get());
  row_count_ = PQntuples(result);
  affected_ = std::strtoll(PQcmdTuples(result), nullptr, 10);
}

bool PostgresSql::Next() { return ++row_ < row_count_; }

std::string PostgresSql::ReadText() {
  const int column = column_++;
  return std::string(
      PQgetvalue(rows_.get(), row_, column),
      static_cast<size_t>(PQgetlength(rows_.get(), row_, column)));
}

int64_t PostgresSql::ReadInt() {
  const int column = column_;
  const std::string text = ReadText();
  if (text.empty()) return 0;
  int64_t value = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) {
    Corrupt(PQfname(rows_.get(), column));
  }
  return value;
}

double PostgresSql::ReadReal() {
  const int column = column_;
  const std::string text = ReadText();
  double value = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) {
    Corrupt(PQfname(rows_.get(), column));
  }
  return value;
}

Bytes PostgresSql::ReadHex(size_t size) {
  const int column = column_;
  Result<Bytes> bytes = FromHex(ReadText());
  if (!bytes.ok() || (size != 0 && bytes->size() != size)) {
    Corrupt(PQfname(rows_.get(), column));
  }
  return *std::move(bytes);
}

crypto::Digest PostgresSql::ReadDigest() {
  crypto::Digest digest;
  const int column = column_;
  const Bytes bytes = ReadHex(0);
  if (bytes.empty()) return digest;
  if (bytes.size() != digest.bytes.size()) {
    Corrupt(PQfname(rows_.get(), column));
  }
  std::copy(bytes.begin(), bytes.end(), digest.bytes.begin());
  return digest;
}

}  // namespace selvage::coordinator

#include "coordinator/postgres/postgres_sql.h"

#include <array>
#include <charconv>
#include <cstdlib>
#include <utility>

#include <libpq-fe.h>

namespace selvage::coordinator {
namespace {

template <typename T>
bool Parse(const std::string& text, T& value) {
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, value);
  return error == std::errc{} && end == last;
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
  const std::string text = ReadText();
  int64_t value = 0;
  if (!text.empty() && !Parse(text, value)) Corrupt();
  return value;
}

double PostgresSql::ReadReal() {
  double value = 0;
  if (!Parse(ReadText(), value)) Corrupt();
  return value;
}

void PostgresSql::Corrupt() {
  throw PostgresError{"XX001",
                      std::string(PQfname(rows_.get(), column_ - 1)) +
                          " is not what was written there",
                      false};
}

}  // namespace selvage::coordinator

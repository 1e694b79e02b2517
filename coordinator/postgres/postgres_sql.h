// One SQL statement with typed parameters and typed reading, so that the
// store's methods read as SQL and structs. Failures are PostgresError.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "base/bytes.h"
#include "base/time.h"
#include "coordinator/postgres/connection.h"
#include "coordinator/store/sql_value.h"
#include "crypto/digest.h"

namespace selvage::coordinator {

// A value as PostgreSQL reads it. Times are microseconds; digests and bytes are
// lower-case hexadecimal.
std::string RealText(double value);
template <typename T>
std::string ValueText(const T& value) {
  if constexpr (std::is_same_v<T, Time>) {
    return std::to_string(ToMicros(value));
  } else if constexpr (std::is_same_v<T, crypto::Digest>) {
    return value.empty() ? std::string() : value.ToHex();
  } else if constexpr (std::is_same_v<T, double>) {
    return RealText(value);
  } else if constexpr (std::is_integral_v<T> || std::is_enum_v<T>) {
    return std::to_string(static_cast<int64_t>(value));
  } else if constexpr (std::is_convertible_v<T, ByteSpan> &&
                       !std::is_convertible_v<T, std::string>) {
    return ToHex(value);
  } else {
    return value;
  }
}

// An array parameter: '{"a","b"}'. Say its type in the statement:
// unnest($1::text[]).
class PostgresArray {
 public:
  template <typename T>
  void Add(const T& value) {
    AddText(ValueText(value));
  }
  std::string text() const { return text_ + "}"; }

 private:
  void AddText(const std::string& value);

  std::string text_ = "{";
};

class PostgresSql {
 public:
  // Runs `text` with `args` as its parameters, in order.
  template <typename... Args>
  PostgresSql(Connection& db, const std::string& text, const Args&... args)
      : PostgresSql(
            db.Run(text, std::vector<std::string>{Parameter(args)...})) {}

  // Reads what Connection::Run() returned.
  explicit PostgresSql(Connection::Rows rows);

  // Moves to the next row; false at the end.
  bool Next();
  // Reads the row's columns, in order. NULL is 0 or "".
  template <typename... Fields>
  void Columns(Fields&... fields) {
    column_ = 0;
    (ReadColumn(*this, fields), ...);
  }
  // For ReadColumn(). NULL is 0 or "".
  int64_t ReadInt();
  double ReadReal();
  std::string ReadText();
  [[noreturn]] void Corrupt();
  // Rows that were changed, or read.
  int64_t affected() const { return affected_; }

 private:
  template <typename T>
  static std::string Parameter(const T& value) {
    if constexpr (std::is_same_v<T, PostgresArray>) {
      return value.text();
    } else {
      return ValueText(value);
    }
  }

  Connection::Rows rows_;
  int row_ = -1;
  int column_ = 0;
  int row_count_ = 0;
  int64_t affected_ = 0;
};

}  // namespace selvage::coordinator

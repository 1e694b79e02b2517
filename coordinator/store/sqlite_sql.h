// One SQL statement with typed binding and reading, so that the store's methods
// read as SQL and structs. Failures are SQLite::Exception; SqliteStore::Read()
// and Write() turn them into a Status.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>

#include "base/bytes.h"
#include "base/time.h"
#include "coordinator/store/sql_value.h"
#include "crypto/digest.h"

namespace SQLite {
class Statement;
}  // namespace SQLite

namespace selvage::coordinator {

class SqliteConnection;  // sqlite_connection.h

class Sql {
 public:
  // Binds `args` to the statement's parameters, in order.
  template <typename... Args>
  Sql(SqliteConnection& db, const char* text, const Args&... args)
      : Sql(db, text, Unbound{}) {
    (BindNext(args), ...);
  }
  ~Sql();
  Sql(const Sql&) = delete;
  Sql& operator=(const Sql&) = delete;

  // Moves to the next row; false at the end.
  bool Next();
  // Reads the row's columns, in order.
  template <typename... Fields>
  void Columns(Fields&... fields) {
    column_ = 0;
    (ReadColumn(*this, fields), ...);
  }
  // For ReadColumn().
  int64_t ReadInt();
  double ReadReal();
  std::string ReadText();
  [[noreturn]] void Corrupt();
  // Executes a statement that returns nothing. Returns the rows it changed.
  int Run();
  // Run() again with other values.
  template <typename... Args>
  int RunWith(const Args&... args) {
    Reset();
    (BindNext(args), ...);
    return Run();
  }

 private:
  struct Unbound {};
  Sql(SqliteConnection& db, const char* text, Unbound);

  void Reset();
  void BindInt(int64_t value);
  void BindReal(double value);
  void BindText(const std::string& value);

  template <typename T>
  void BindNext(const T& value) {
    if constexpr (std::is_same_v<T, Time>) {
      BindInt(ToMicros(value));
    } else if constexpr (std::is_same_v<T, crypto::Digest>) {
      BindText(value.empty() ? std::string() : value.ToHex());
    } else if constexpr (std::is_same_v<T, double>) {
      BindReal(value);
    } else if constexpr (std::is_integral_v<T> || std::is_enum_v<T>) {
      BindInt(static_cast<int64_t>(value));
    } else if constexpr (std::is_convertible_v<T, ByteSpan> &&
                         !std::is_convertible_v<T, std::string>) {
      BindText(ToHex(value));
    } else {
      BindText(value);
    }
  }
  SqliteConnection& db_;
  std::unique_ptr<SQLite::Statement> statement_;
  int bound_ = 0;
  int column_ = 0;
};

}  // namespace selvage::coordinator

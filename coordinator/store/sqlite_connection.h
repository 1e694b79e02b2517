// A connection that keeps the statements it has compiled: to compile one takes
// longer than to run most of ours.
//
// Thread-compatible, and so are its statements.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <string>

namespace SQLite {
class Database;
class Statement;
}  // namespace SQLite

namespace selvage::coordinator {

class SqliteConnection {
 public:
  // As SQLite::Database; SQLite::Exception.
  SqliteConnection(const std::string& path, int flags, int busy_ms = 0,
                   const std::string& vfs = "");
  ~SqliteConnection();
  SqliteConnection(const SqliteConnection&) = delete;
  SqliteConnection& operator=(const SqliteConnection&) = delete;

  SQLite::Database& database() { return *database_; }
  void Execute(const std::string& sql);

  // A statement of this text with nothing bound, for Sql. It must not outlive
  // the connection.
  std::unique_ptr<SQLite::Statement> Take(const char* text);
  void GiveBack(std::unique_ptr<SQLite::Statement> statement);

 private:
  // The store has about a hundred texts.
  static constexpr size_t kIdleMax = 200;

  const std::unique_ptr<SQLite::Database> database_;
  std::map<std::string, std::unique_ptr<SQLite::Statement>, std::less<>> idle_;
};

}  // namespace selvage::coordinator

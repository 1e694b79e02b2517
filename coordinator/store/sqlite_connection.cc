#include "coordinator/store/sqlite_connection.h"

#include <SQLiteCpp/SQLiteCpp.h>

#include <utility>

#include <sqlite3.h>

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

}  // namespace selvage::coordinator

// Shared by the files that implement ClientStore; not for anybody else.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "client/store/client_store.h"

namespace SQLite {
class Column;
class Database;
class Statement;
}  // namespace SQLite

namespace selvage::client {

namespace store_internal {

// What SQLiteCpp just threw, as a Status; call it in a catch clause.
Status CaughtStatus();

void Bind(SQLite::Statement& statement, int index, ByteSpan bytes);
Bytes BlobOf(const SQLite::Column& column);

// RESOURCE_EXHAUSTED if SQLite could not hold it (1e9 bytes by default).
Status CheckBlobSize(std::string_view what, ByteSpan bytes);

}  // namespace store_internal

struct ClientStore::Impl {
  explicit Impl(std::unique_ptr<SQLite::Database> database)
      : db(std::move(database)) {}

  // One call at a time; exceptions end here.
  template <typename Body>
  auto Run(Body body) -> decltype(body(std::declval<SQLite::Database&>())) {
    MutexLock lock(mu);
    if (db == nullptr) return FailedPrecondition("the client is closed");
    SQLite::Database& database = *db;
    try {
      return body(database);
    } catch (...) {
      return store_internal::CaughtStatus();
    }
  }

  Mutex mu;
  std::unique_ptr<SQLite::Database> db SELVAGE_GUARDED_BY(mu);
};

}  // namespace selvage::client

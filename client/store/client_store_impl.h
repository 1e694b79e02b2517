// Shared by the files that implement ClientStore; not for anybody else.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/mutex.h"
#include "client/store/client_store.h"
#include "client/store/value_seal.h"

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
// Without a copy: the bytes must outlive the statement's execution.
void BindInPlace(SQLite::Statement& statement, int index, ByteSpan bytes);
Bytes BlobOf(const SQLite::Column& column);

// RESOURCE_EXHAUSTED if SQLite could not hold it (1e9 bytes by default).
Status CheckBlobSize(std::string_view what, ByteSpan bytes);

// Settings and names, one row each; those that are sealed.
inline constexpr const char* kMetaWrappedKey = "data_key";
inline constexpr const char* kMetaSession = "session";
inline constexpr const char* kMetaBundle = "bundle";
inline constexpr const char* kMetaCrashes = "crashes";     // not sealed
inline constexpr const char* kMetaUsage = "usage_of_day";  // not sealed
inline constexpr const char* kMetaTraining = "training";

std::optional<Bytes> GetMeta(SQLite::Database& db, const char* name);
void SetMeta(SQLite::Database& db, const char* name, ByteSpan value);
void DropMeta(SQLite::Database& db, const char* name);

// When every page was last looked at; not sealed. Never throws.
inline constexpr const char* kMetaChecked = "checked";
void ForgetCheck(SQLite::Database& db);

// Where sealed values belong. What is passed must outlive the place.
ValuePlace MetaPlace(std::string_view name);
ValuePlace OutboxPlace(std::string_view column,
                       const std::string& assignment_id);
ValuePlace PiecePlace(const Bytes& row);
Bytes PieceRow(const std::string& assignment_id, uint64_t number);
ValuePlace TaskPlace(std::string_view table, std::string_view column,
                     std::string_view task);
ValuePlace AuditPlace(const Bytes& row);
Bytes AuditRow(int64_t id);
// All that is known of an example is bound to it, its consent above all.
ValuePlace PlaceOf(const Bytes& example_row);
Bytes ExampleRow(int64_t id, std::string_view collection,
                 std::string_view layout, Time timestamp, bool consent);

// What is kept of an update besides its bytes.
struct OutboxAbout {
  std::string task;
  uint64_t round = 0;
  uint64_t version = 0;
  Time expires{};
  crypto::Digest digest;
  int codec = 0;
  uint32_t weight = 0;
  double norm = 0;
  Bytes metrics;
  std::vector<int64_t> scalars = {};
};
Bytes EncodeAbout(const OutboxAbout& about);
Result<OutboxAbout> DecodeAbout(ByteSpan bytes);

// client_store_outbox.cc: within the caller's transaction. Puts an update into
// the outbox in the place of what is there, with an entry in the audit.
Status PutOutbox(ClientStore::Impl& impl, SQLite::Database& db,
                 const OutboxEntry& entry);
// Empties the outbox, with an entry in the audit; one that was not accepted
// takes its residual along. A row that is damaged goes without an entry.
Status DropOutbox(ClientStore::Impl& impl, SQLite::Database& db,
                  AuditResult result);

// The pieces that no entry of the outbox is made of.
void DropLoosePieces(SQLite::Database& db);

// client_store_residual.cc: within the caller's transaction.
Status StageResidual(ClientStore::Impl& impl, SQLite::Database& db,
                     const std::string& assignment,
                     const ResidualChange& change);
Status SettleResidual(ClientStore::Impl& impl, SQLite::Database& db,
                      const std::string& assignment, bool committed);

// Adds to a counter of the next report.
void CountUp(SQLite::Database& db, const std::string& name, uint64_t by);

}  // namespace store_internal

struct ClientStore::Impl {
  Impl(std::unique_ptr<SQLite::Database> database, ValueSeal value_seal,
       const ClientStoreOptions& options)
      : seal(std::move(value_seal)),
        clock(options.clock),
        events(options.events),
        bytes_max(options.bytes_max),
        source(options.source),
        db(std::move(database)) {}

  // One call at a time; exceptions end here.
  template <typename Body>
  auto Run(Body body) -> decltype(body(std::declval<SQLite::Database&>())) {
    MutexLock lock(mu);
    if (db == nullptr) return FailedPrecondition("the client is closed");
    SQLite::Database& database = *db;
    try {
      return body(database);
    } catch (...) {
      Status status = store_internal::CaughtStatus();
      // The next Open() looks at every page, however large the file is.
      if (status.code() == StatusCode::kDataLoss) {
        store_internal::ForgetCheck(database);
      }
      return status;
    }
  }

  // nullopt: there is none, or it is damaged, which is counted and told.
  Result<std::optional<Bytes>> OpenOrDrop(SQLite::Database& database,
                                          const ValuePlace& place,
                                          const SQLite::Column& column);
  void TellDamaged(SQLite::Database& database, const ValuePlace& place);

  // Removes what is older than the collection's ttl.
  void Expire(SQLite::Database& database, const std::string& collection,
              const CollectionOptions& options);
  // Applies a collection's bounds.
  void EvictFrom(SQLite::Database& database, const std::string& collection,
                 const CollectionOptions& options);
  // Applies the store's; `keep_from` and later ids stay. RESOURCE_EXHAUSTED if
  // it is too large without all the others.
  Status EvictFromAll(SQLite::Database& database, int64_t keep_from);
  Status LoadCollections(SQLite::Database& database);
  // Without any bound if the collection was not declared.
  CollectionOptions OptionsOf(const std::string& collection) const;

  const ValueSeal seal;
  Clock& clock;
  EventSink& events;
  const uint64_t bytes_max;
  const ExampleSource source;
  Mutex mu;
  std::unique_ptr<SQLite::Database> db SELVAGE_GUARDED_BY(mu);
  // As the table has them.
  std::map<std::string, CollectionOptions, std::less<>> collections;
};

}  // namespace selvage::client

// Opening, migrating, transactions. The rows are in sqlite_identities.cc,
// sqlite_tasks.cc and sqlite_rounds.cc.
#include "coordinator/store/sqlite_store.h"

#include <SQLiteCpp/Backup.h>
#include <SQLiteCpp/SQLiteCpp.h>

#include <utility>

#include <sqlite3.h>

#include "base/bytes.h"
#include "coordinator/store/row_text.h"
#include "coordinator/store/sqlite_connection.h"
#include "coordinator/store/sqlite_schema.h"
#include "coordinator/store/sqlite_sql.h"

namespace selvage::coordinator {
namespace {

Status FromSqlite(const SQLite::Exception& e) {
  const std::string message = std::string("database: ") + e.what();
  switch (e.getErrorCode() & 0xff) {
    case SQLITE_FULL:
      return ResourceExhausted(message);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return Unavailable(message);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return DataLoss(message);
    default:
      return Internal(message);
  }
}

// FAILED_PRECONDITION unless the file is empty or one of ours and not newer.
Status CheckSchema(SqliteConnection& db, const Path& path, int64_t& version) {
  int64_t application_id = 0;
  int64_t table_count = 0;
  {
    Sql sql(db, "PRAGMA application_id");
    if (sql.Next()) sql.Columns(application_id);
  }
  {
    Sql sql(db, "PRAGMA user_version");
    if (sql.Next()) sql.Columns(version);
  }
  {
    Sql sql(db, "SELECT COUNT(*) FROM sqlite_master");
    if (sql.Next()) sql.Columns(table_count);
  }
  if (table_count > 0 && application_id != kApplicationId) {
    return FailedPrecondition(path.string() +
                              " is not a Selvage coordinator's database");
  }
  const int64_t newest = Migrations().back().version;
  if (version > newest) {
    return FailedPrecondition(
        path.string() + " has schema " + std::to_string(version) +
        ", this program knows schemas up to " + std::to_string(newest) +
        ": run a newer selvage-coordinator");
  }
  return OkStatus();
}

// Each migration is one transaction, so a crash leaves a whole schema.
void Migrate(SqliteConnection& db, int64_t version) {
  for (const Migration& migration : Migrations()) {
    if (migration.version <= version) continue;
    SQLite::Transaction transaction(db.database(),
                                    SQLite::TransactionBehavior::IMMEDIATE);
    db.Execute(migration.sql);
    db.Execute("PRAGMA application_id = " + std::to_string(kApplicationId));
    db.Execute("PRAGMA user_version = " + std::to_string(migration.version));
    transaction.commit();
  }
}

}  // namespace

Result<std::unique_ptr<SqliteStore>> SqliteStore::Open(
    const SqliteStoreOptions& options, Clock& clock, RandomSource& random) {
  std::unique_ptr<FileLock> lock;
  if (options.lock_directory) {
    SELVAGE_ASSIGN_OR_RETURN(
        lock, FileLock::Acquire(
                  (options.path.has_parent_path() ? options.path.parent_path()
                                                  : Path(".")) /
                      kLockFile,
                  "coordinator"));
  }
  try {
    const auto busy_ms = std::chrono::duration_cast<std::chrono::milliseconds>(
        options.busy_timeout);
    auto db = std::make_unique<SqliteConnection>(
        options.path.string(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE,
        static_cast<int>(busy_ms.count()), options.vfs);
    db->Execute("PRAGMA locking_mode = EXCLUSIVE");  // no shared-memory index
    db->Execute("PRAGMA journal_mode = WAL");
    db->Execute("PRAGMA synchronous = FULL");
    db->Execute("PRAGMA foreign_keys = ON");
    db->Execute("PRAGMA secure_delete = ON");
    db->Execute("PRAGMA trusted_schema = OFF");
    int64_t version = 0;
    SELVAGE_RETURN_IF_ERROR(CheckSchema(*db, options.path, version));
    Migrate(*db, version);
    {
      SQLite::Transaction transaction(db->database(),
                                      SQLite::TransactionBehavior::IMMEDIATE);
      Sql(*db,
          "INSERT INTO meta (id, instance_id, high_water, certificates_issued) "
          "VALUES (1, ?, 0, 0) ON CONFLICT DO NOTHING",
          NewInstanceId(random))
          .Run();
      transaction.commit();
    }
    std::string instance_id;
    Time floor{};
    {
      Sql sql(*db, "SELECT instance_id, high_water FROM meta");
      if (!sql.Next()) return DataLoss("database: meta is empty");
      sql.Columns(instance_id, floor);
    }
    return std::unique_ptr<SqliteStore>(
        new SqliteStore(std::move(lock), std::move(db), clock, floor,
                        std::move(instance_id), Migrations().back().version));
  } catch (const SQLite::Exception& e) {
    return FromSqlite(e).WithContext(options.path.string());
  }
}

SqliteStore::SqliteStore(std::unique_ptr<FileLock> lock,
                         std::unique_ptr<SqliteConnection> db, Clock& clock,
                         Time floor, std::string instance_id,
                         uint32_t schema_version)
    : lock_(std::move(lock)),
      db_(std::move(db)),
      clock_(clock, floor),
      instance_id_(std::move(instance_id)),
      schema_version_(schema_version) {}

SqliteStore::~SqliteStore() = default;

Time SqliteStore::Now() { return clock_.Now(); }

uint32_t SqliteStore::schema_version() const { return schema_version_; }

std::string SqliteStore::instance_id() const { return instance_id_; }

Status SqliteStore::Read(const Body& body) {
  MutexLock lock(mu_);
  try {
    return body(*db_);
  } catch (const SQLite::Exception& e) {
    return FromSqlite(e);
  }
}

Status SqliteStore::Write(const Body& body) {
  MutexLock lock(mu_);
  try {
    SQLite::Transaction transaction(db_->database(),
                                    SQLite::TransactionBehavior::IMMEDIATE);
    SELVAGE_RETURN_IF_ERROR(body(*db_));
    Sql(*db_, "UPDATE meta SET high_water = ?1 WHERE high_water < ?1",
        clock_.last())
        .Run();
    transaction.commit();
    return OkStatus();
  } catch (const SQLite::Exception& e) {
    return FromSqlite(e);
  }
}

void SqliteStore::TruncateLog() {
  // Best effort: what it would remove is a key wrapped under another key, and
  // the next checkpoint removes it too.
  (void)Read([](SqliteConnection& db) {
    Sql sql(db, "PRAGMA wal_checkpoint(TRUNCATE)");
    while (sql.Next()) {
    }
    return OkStatus();
  });
}

Result<std::vector<crypto::Digest>> SqliteStore::Snapshot(
    const Path& to, const std::function<bool()>& stop) {
  constexpr int kPagesPerStep = 256;
  try {
    SqliteConnection copy(to.string(),
                          SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE);
    // What this connection writes between two steps goes to the copy, too.
    std::unique_ptr<SQLite::Backup> backup;
    for (int step = SQLITE_OK; step == SQLITE_OK;) {
      if (stop()) return Cancelled("the backup was interrupted");
      MutexLock lock(mu_);
      if (backup == nullptr) {
        backup =
            std::make_unique<SQLite::Backup>(copy.database(), db_->database());
      }
      step = backup->executeStep(kPagesPerStep);
      if (step == SQLITE_DONE) backup.reset();
    }
    if (backup != nullptr) return Unavailable("the database is busy");
    copy.Execute("PRAGMA synchronous = FULL");
    copy.Execute("PRAGMA secure_delete = ON");
    copy.Execute("UPDATE round SET wrapped_key = ''");
    copy.Execute("PRAGMA journal_mode = DELETE");
    std::vector<crypto::Digest> artefacts;
    Sql sql(copy, "SELECT digest FROM artefact");
    while (sql.Next()) sql.Columns(artefacts.emplace_back());
    return artefacts;
  } catch (const SQLite::Exception& e) {
    return FromSqlite(e).WithContext(to.string());
  }
}

Status SqliteStore::Prune(Time before) {
  return Write([&](SqliteConnection& db) {
    static constexpr char kOld[] =
        "INSERT INTO funnel (task_id, number, state, reason, count) "
        "SELECT a.task_id, a.number, a.state, a.reason, COUNT(*) "
        "FROM assignment a JOIN round r USING (task_id, number) "
        "WHERE a.expires < ? AND r.state IN (?, ?) "
        "GROUP BY a.task_id, a.number, a.state, a.reason "
        "ON CONFLICT (task_id, number, state, reason) "
        "DO UPDATE SET count = count + excluded.count";
    Sql(db, kOld, before, RoundState::kCommitted, RoundState::kAbandoned).Run();
    Sql(db,
        "DELETE FROM assignment WHERE expires < ?1 AND EXISTS (SELECT 1 FROM "
        "round r WHERE r.task_id = assignment.task_id AND "
        "r.number = assignment.number AND r.state IN (?2, ?3))",
        before, RoundState::kCommitted, RoundState::kAbandoned)
        .Run();
    Sql(db, "DELETE FROM request WHERE created < ?", before).Run();
    Sql(db, "DELETE FROM report WHERE created < ?", before).Run();
    return OkStatus();
  });
}

}  // namespace selvage::coordinator

// Opening, migrating, transactions. The rows are in postgres_identities.cc,
// postgres_tasks.cc and postgres_rounds.cc.
#include "coordinator/postgres/postgres_store.h"

#include <algorithm>
#include <utility>

#include "coordinator/postgres/postgres_rows.h"
#include "coordinator/postgres/postgres_schema.h"
#include "coordinator/store/row_text.h"

namespace selvage::coordinator {
namespace {

constexpr int kOldestServer = 130000;
// Deadlocks and lost connections in a row before a call gives up.
constexpr int kAttempts = 5;
// How much longer than its statement timeout the server may take to say so.
constexpr Duration kGrace = std::chrono::seconds(2);
// Of pg_advisory_xact_lock: one process migrates at a time; one prunes.
constexpr char kMigrationLock[] = "6870219453086731265";
constexpr char kPruneLock[] = "6870219453086731266";

int64_t Millis(Duration d) {
  return std::max<int64_t>(
      1, std::chrono::duration_cast<std::chrono::milliseconds>(d).count());
}

bool LostTheRace(const PostgresError& error) {
  return error.sqlstate == "40001" || error.sqlstate == "40P01";
}

Status ToStatus(const PostgresError& error, const std::string& what) {
  const std::string& state = error.sqlstate;
  const std::string message =
      what + ": database: " + error.message +
      (state.empty() ? "" : " (SQLSTATE " + state + ")");
  if (error.lost || LostTheRace(error)) return Unavailable(message);
  if (state == "53100") return ResourceExhausted(message);  // disk full
  if (state.starts_with("53") || state.starts_with("57") || state == "55P03" ||
      state == "25006") {  // a standby that was not promoted
    return Unavailable(message);
  }
  if (state == "23505") return AlreadyExists(message);
  if (state == "22021") return InvalidArgument(message);
  if (state == "XX001" || state == "XX002") return DataLoss(message);
  return Internal(message);
}

// 0: none.
int64_t SchemaVersion(Connection& db) {
  int64_t version = 0;
  int64_t present = 0;
  PostgresSql table(
      db, "SELECT (to_regclass('selvage.schema_version') IS NOT NULL)::int");
  if (table.Next()) table.Columns(present);
  if (present == 0) return 0;
  PostgresSql sql(db, "SELECT version FROM selvage.schema_version");
  if (sql.Next()) sql.Columns(version);
  return version;
}

}  // namespace

PostgresStore::PostgresStore(const PostgresStoreOptions& options, Clock& clock)
    : options_(options),
      steady_(clock),
      clock_(clock, Time{}),
      pool_(options.connect, options.pool_size) {}

Result<std::unique_ptr<PostgresStore>> PostgresStore::Open(
    const PostgresStoreOptions& options, Clock& clock, RandomSource& random) {
  SELVAGE_RETURN_IF_ERROR(CheckConnectionString(options.connect.conninfo));
  std::unique_ptr<PostgresStore> store(new PostgresStore(options, clock));
  SELVAGE_RETURN_IF_ERROR(store->CheckServer());
  SELVAGE_RETURN_IF_ERROR(store->PrepareSchema());
  SELVAGE_RETURN_IF_ERROR(store->PrepareInstance(random));
  return store;
}

Status PostgresStore::CheckServer() {
  return Read("opening the store", [&](Connection& db) -> Status {
    if (db.server_version() < kOldestServer) {
      return FailedPrecondition(
          "database: the server's version is " +
          std::to_string(db.server_version() / 10000) + ", at least " +
          std::to_string(kOldestServer / 10000) + " is needed");
    }
    for (const char* name : {"synchronous_commit", "fsync"}) {
      std::string value;
      PostgresSql sql(db, "SELECT current_setting($1)", std::string(name));
      if (sql.Next()) sql.Columns(value);
      if (value == "off") {
        return FailedPrecondition(
            std::string("database: ") + name +
            " is off: acknowledged updates would not survive a crash");
      }
    }
    std::string encoding;
    PostgresSql sql(db, "SELECT current_setting('server_encoding')");
    if (sql.Next()) sql.Columns(encoding);
    if (encoding == "UTF8") return OkStatus();
    return FailedPrecondition("database: its encoding is " + encoding +
                              ", not UTF8");
  });
}

Status PostgresStore::PrepareSchema() {
  const int64_t newest = PostgresMigrations().back().version;
  schema_version_ = static_cast<uint32_t>(newest);
  int64_t version = 0;
  SELVAGE_RETURN_IF_ERROR(Read("the schema", [&](Connection& db) {
    version = SchemaVersion(db);
    return OkStatus();
  }));
  const auto too_new = [&] {
    return FailedPrecondition(
        "the database has schema " + std::to_string(version) +
        ", this program knows schemas up to " + std::to_string(newest) +
        ": run a newer selvage-coordinator");
  };
  if (version > newest) return too_new();
  if (version < newest && !options_.migrate) {
    return FailedPrecondition("the database has schema " +
                              std::to_string(version) +
                              ", this program needs " + std::to_string(newest) +
                              ": set store.migrate for one start");
  }
  for (const PostgresMigration& migration : PostgresMigrations()) {
    if (migration.version <= version) continue;
    SELVAGE_RETURN_IF_ERROR(Write(
        "migration " + std::to_string(migration.version),
        [&](Connection& db) -> Status {
          PostgresSql(db, std::string("SELECT pg_advisory_xact_lock(") +
                              kMigrationLock + ")");
          version = SchemaVersion(db);  // another process may have been faster
          if (version > newest) return too_new();
          if (migration.version <= version) return OkStatus();
          db.Run("SET LOCAL statement_timeout = 0");
          db.Run(migration.sql);
          db.Run(
              "CREATE TABLE IF NOT EXISTS selvage.schema_version ("
              "id INTEGER PRIMARY KEY CHECK (id = 1), version BIGINT NOT "
              "NULL)");
          PostgresSql(db,
                      "INSERT INTO selvage.schema_version (id, version) VALUES "
                      "(1, $1) ON CONFLICT (id) DO UPDATE SET version = $1",
                      migration.version);
          return OkStatus();
        }));
  }
  return OkStatus();
}

Status PostgresStore::PrepareInstance(RandomSource& random) {
  const std::string fresh = NewInstanceId(random);
  return Write("the instance's id", [&](Connection& db) -> Status {
    instance_id_.clear();
    PostgresSql(db,
                "INSERT INTO selvage.meta (id, instance_id) VALUES (1, $1) "
                "ON CONFLICT DO NOTHING",
                fresh);
    PostgresSql sql(db, "SELECT instance_id FROM selvage.meta");
    if (!sql.Next()) return DataLoss("database: meta is empty");
    sql.Columns(instance_id_);
    return OkStatus();
  });
}

Time PostgresStore::Now() { return clock_.Now(); }

uint32_t PostgresStore::schema_version() const { return schema_version_; }

std::string PostgresStore::instance_id() const { return instance_id_; }

// One round trip: the transaction, its limits, and what time it is. A process
// that is stopped in the middle of a transaction loses it, and its locks.
void PostgresStore::Begin(Connection& db, Mode mode, Duration left) {
  db.SetBudget(left + kGrace);
  const std::string statement =
      std::to_string(Millis(std::min(left, options_.statement_timeout)));
  const std::string lock =
      std::to_string(Millis(std::min(left, options_.lock_timeout)));
  PostgresSql sql(db.Run(
      std::string("BEGIN ISOLATION LEVEL ") +
      (mode == Mode::kRead ? "REPEATABLE READ READ ONLY"
                           : "READ COMMITTED READ WRITE") +
      "; SET LOCAL statement_timeout = " + statement +
      "; SET LOCAL lock_timeout = " + lock +
      "; SET LOCAL idle_in_transaction_session_timeout = " +
      std::to_string(Millis(options_.operation_timeout)) +
      "; SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"));
  Time now{};
  if (sql.Next()) sql.Columns(now);
  clock_.Observe(now);
}

Status PostgresStore::Run(Mode mode, const std::string& what,
                          const Body& body) {
  const Time deadline = steady_.Now() + options_.operation_timeout;
  Status failed = Unavailable(what + ": database: no time left");
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const Duration left = deadline - steady_.Now();
    if (left <= Duration::zero()) return failed;
    auto lease = pool_.Acquire(left);
    if (!lease.ok()) return lease.status().WithContext(what);
    Connection& db = **lease;
    bool committing = false;
    try {
      Begin(db, mode, deadline - steady_.Now());
      if (Status done = body(db); !done.ok()) {
        db.Run("ROLLBACK");
        return done;
      }
      committing = true;
      // Not limited: a commit that waits for a standby must not be told to
      // stop waiting, which would acknowledge it.
      db.Run("SET LOCAL statement_timeout = 0; COMMIT");
      return OkStatus();
    } catch (const PostgresError& error) {
      if (committing && error.lost && mode == Mode::kWrite) {
        return Unavailable(what +
                           ": database: the connection was lost during "
                           "COMMIT, whose outcome is not known: " +
                           error.message);
      }
      failed = ToStatus(error, what);
      if (!db.lost()) {
        try {
          db.Run("ROLLBACK");
        } catch (const PostgresError&) {
          // Then it is lost: the server rolls back.
        }
      }
      if (!LostTheRace(error) && !error.lost) return failed;
    }
  }
  return failed;
}

Status PostgresStore::Read(const std::string& what, const Body& body) {
  return Run(Mode::kRead, what, body);
}

Status PostgresStore::Write(const std::string& what, const Body& body) {
  return Run(Mode::kWrite, what, body);
}

Status PostgresStore::Prune(Time before) {
  return Write("pruning", [&](Connection& db) -> Status {
    int64_t alone = 0;
    PostgresSql lock(db, std::string("SELECT pg_try_advisory_xact_lock(") +
                             kPruneLock + ")::int");
    if (lock.Next()) lock.Columns(alone);
    if (alone == 0) return OkStatus();  // another replica is at it
    PostgresSql(
        db,
        "WITH gone AS (DELETE FROM selvage.assignment a USING selvage.round r "
        "WHERE a.expires < $1 AND r.task_id = a.task_id AND "
        "r.number = a.number AND r.state IN ($2, $3) "
        "RETURNING a.task_id, a.number, a.state, a.reason) "
        "INSERT INTO selvage.funnel AS f (task_id, number, state, reason, "
        "count) SELECT task_id, number, state, reason, COUNT(*) FROM gone "
        "GROUP BY task_id, number, state, reason "
        "ON CONFLICT (task_id, number, state, reason) "
        "DO UPDATE SET count = f.count + excluded.count",
        before, RoundState::kCommitted, RoundState::kAbandoned);
    PostgresSql(db, "DELETE FROM selvage.request WHERE created < $1", before);
    PostgresSql(db, "DELETE FROM selvage.report WHERE created < $1", before);
    return OkStatus();
  });
}

}  // namespace selvage::coordinator

// Which processes have the database of PostgresStore open.
#include <algorithm>

#include "coordinator/postgres/postgres_rows.h"
#include "coordinator/postgres/postgres_sql.h"
#include "coordinator/postgres/postgres_store.h"

namespace selvage::coordinator {

// One at a time: the table is small, and nobody is let in past another who is
// being let in.
Result<std::vector<std::string>> PostgresStore::KeepReplica(
    const ReplicaRow& row, Duration ttl, bool enter) {
  std::vector<std::string> others;
  const Time asked = Now();
  const Status done =
      Write("the replica " + row.name, [&](Connection& db) -> Status {
        others.clear();
        db.Run("LOCK TABLE selvage.replica IN SHARE ROW EXCLUSIVE MODE");
        // Now() was set by this transaction's clock; the lock may have waited.
        const Time now = std::max(asked, Now());
        PostgresSql(db, "DELETE FROM selvage.replica WHERE expires < $1", now);
        PostgresSql sql(db,
                        "SELECT name, session, shared, keys, expires "
                        "FROM selvage.replica ORDER BY name");
        while (sql.Next()) {
          ReplicaRow other;
          int64_t shared = 0;
          Time expires{};
          sql.Columns(other.name, other.session, shared, other.keys, expires);
          other.shared = shared != 0;
          if (other.name == row.name) {
            if (enter || other.session == row.session) continue;
            return Aborted("another coordinator has taken the place of " +
                           row.name + " in the database");
          }
          const auto seconds =
              std::chrono::duration_cast<std::chrono::seconds>(expires - now);
          if (!row.shared || !other.shared) {
            return FailedPrecondition(
                "the database is in use by the coordinator " + other.name +
                (row.shared ? ", which does not share it (replicas.enabled "
                              "is off there)"
                            : "; several need replicas.enabled on each") +
                "; if that one is dead, its place is free in " +
                std::to_string(seconds.count() + 1) + " s");
          }
          if (other.keys != row.keys) {
            return FailedPrecondition(
                "the keys in keys_dir are not those of the replica " +
                other.name + ": all replicas need the same ones");
          }
          others.push_back(std::move(other.name));
        }
        PostgresSql(
            db,
            "INSERT INTO selvage.replica (name, session, shared, keys, expires)"
            " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (name) DO UPDATE SET "
            "session = $2, shared = $3, keys = $4, expires = $5",
            row.name, row.session, int64_t{row.shared ? 1 : 0}, row.keys,
            now + ttl);
        return OkStatus();
      });
  SELVAGE_RETURN_IF_ERROR(done);
  return others;
}

Status PostgresStore::RemoveReplica(const ReplicaRow& row) {
  return Write("the replica " + row.name, [&](Connection& db) -> Status {
    PostgresSql(db,
                "DELETE FROM selvage.replica WHERE name = $1 AND session = $2",
                row.name, row.session);
    return OkStatus();
  });
}

}  // namespace selvage::coordinator

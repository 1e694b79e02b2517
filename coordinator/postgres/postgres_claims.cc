// Claims of tasks and the queues of candidates of PostgresStore.
#include <algorithm>
#include <set>

#include "coordinator/postgres/postgres_rows.h"
#include "coordinator/postgres/postgres_sql.h"
#include "coordinator/postgres/postgres_store.h"
#include "coordinator/store/row_text.h"

namespace selvage::coordinator {
namespace {

const std::string kClaim = "SELECT holder, token, expires FROM selvage.claim ";

}  // namespace

// The claim's row is locked before the rounds', here and in OpenRound(): a
// round is either opened before the takeover, which then raises its epoch, or
// refused after it.
Result<TaskClaim> PostgresStore::ClaimTask(uint64_t task_id,
                                           const std::string& holder,
                                           Duration ttl) {
  TaskClaim claim;
  const Time asked = Now();
  const std::string what = "the claim of task " + std::to_string(task_id);
  const Status done = Write(what, [&](Connection& db) -> Status {
    claim = TaskClaim{task_id, "", 0, Time{}};
    PostgresSql(db,
                "INSERT INTO selvage.claim (task_id, holder, token, expires) "
                "SELECT id, '', 0, 0 FROM selvage.task WHERE id = $1 "
                "ON CONFLICT DO NOTHING",
                task_id);
    const auto read = [&](const std::string& lock) {
      PostgresSql sql(db, kClaim + "WHERE task_id = $1" + lock, task_id);
      if (!sql.Next()) return false;
      sql.Columns(claim.holder, claim.token, claim.expires);
      return true;
    };
    if (!read("")) return NotFound("no task " + std::to_string(task_id));
    // Now() was set by this transaction's clock; a lock may have waited.
    const auto is_anothers = [&] {
      return claim.holder != holder && !claim.holder.empty() &&
             std::max(asked, Now()) < claim.expires;
    };
    // Replicas look at each other's claims all the time: without a lock. One
    // that is free is somebody else's if somebody is taking it right now.
    if (is_anothers()) return OkStatus();
    const bool renews = claim.holder == holder;
    if (!read(renews ? " FOR NO KEY UPDATE"
                     : " FOR NO KEY UPDATE SKIP LOCKED")) {
      return OkStatus();
    }
    if (is_anothers()) return OkStatus();
    const Time now = std::max(asked, Now());
    if (claim.holder != holder) {
      claim.holder = holder;
      ++claim.token;
      PostgresSql(db,
                  "UPDATE selvage.round SET epoch = epoch + 1 "
                  "WHERE task_id = $1 AND state NOT IN ($2, $3)",
                  task_id, RoundState::kCommitted, RoundState::kAbandoned);
    }
    claim.expires = now + ttl;
    PostgresSql(db,
                "UPDATE selvage.claim SET holder = $2, token = $3, "
                "expires = $4 WHERE task_id = $1",
                task_id, claim.holder, claim.token, claim.expires);
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return claim;
}

Status PostgresStore::ReleaseTask(const TaskClaim& claim) {
  return Write("the claim of task " + std::to_string(claim.task_id),
               [&](Connection& db) -> Status {
                 PostgresSql(db,
                             "UPDATE selvage.claim SET holder = '' "
                             "WHERE task_id = $1 AND token = $2",
                             claim.task_id, claim.token);
                 return OkStatus();
               });
}

// One writer of a round's queue at a time, so that places are in the order of
// the commits; the round is held so that it does not end meanwhile.
Status PostgresStore::PutCandidates(const RoundKey& key,
                                    std::span<const CandidateRow> rows) {
  return Write("candidates of " + Text(key), [&](Connection& db) -> Status {
    PostgresSql(db, "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))",
                "selvage candidates " + Text(key));
    PostgresSql round(db,
                      "SELECT 1 FROM selvage.round WHERE task_id = $1 AND "
                      "number = $2 AND state IN ($3, $4) FOR SHARE",
                      key.task_id, key.number, RoundState::kSelecting,
                      RoundState::kCollecting);
    if (!round.Next()) return OkStatus();
    PostgresArray devices;
    PostgresArray classes;
    std::set<std::string> seen;
    for (const CandidateRow& row : rows) {
      if (!seen.insert(row.device_id).second) continue;
      devices.Add(row.device_id);
      classes.Add(row.device_class);
    }
    PostgresSql(db,
                "DELETE FROM selvage.candidate WHERE task_id = $1 AND "
                "number = $2 AND device_id = ANY($3::text[])",
                key.task_id, key.number, devices);
    PostgresSql(db,
                "INSERT INTO selvage.candidate (task_id, number, device_id, "
                "device_class) SELECT $1::bigint, $2::bigint, d, c FROM "
                "unnest($3::text[], $4::text[]) WITH ORDINALITY "
                "AS u (d, c, o) ORDER BY o",
                key.task_id, key.number, devices, classes);
    return OkStatus();
  });
}

Result<Candidates> PostgresStore::ListCandidates(const RoundKey& key,
                                                 uint64_t after) {
  Candidates found;
  const Status done =
      Read("the candidates of " + Text(key), [&](Connection& db) {
        found.rows.clear();
        found.last = after;
        PostgresSql sql(
            db,
            "SELECT place, device_id, device_class FROM selvage.candidate "
            "WHERE task_id = $1 AND number = $2 AND place > $3 ORDER BY place",
            key.task_id, key.number, after);
        while (sql.Next()) {
          CandidateRow& row = found.rows.emplace_back();
          sql.Columns(found.last, row.device_id, row.device_class);
        }
        return OkStatus();
      });
  SELVAGE_RETURN_IF_ERROR(done);
  return found;
}

Result<std::string> PostgresStore::RoundPulse(const RoundKey& key) {
  std::string pulse;
  const Status done = Read(Text(key), [&](Connection& db) -> Status {
    PostgresSql sql(
        db,
        "SELECT r.state || ' ' || r.epoch || ' ' || "
        "COALESCE((SELECT string_agg(a.state || '=' || a.n || '/' || a.d, ' ' "
        "ORDER BY a.state) FROM (SELECT state, COUNT(*) AS n, "
        "SUM(lease_deadline) AS d FROM selvage.assignment "
        "WHERE task_id = $1 AND number = $2 GROUP BY state) AS a), '') || "
        "' ' || COALESCE((SELECT MAX(place) FROM selvage.candidate "
        "WHERE task_id = $1 AND number = $2), 0) "
        "FROM selvage.round r WHERE r.task_id = $1 AND r.number = $2",
        key.task_id, key.number);
    if (!sql.Next()) return NotFound("no " + Text(key));
    sql.Columns(pulse);
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return pulse;
}

}  // namespace selvage::coordinator

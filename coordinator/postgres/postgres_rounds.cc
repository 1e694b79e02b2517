// Rounds, assignments, receipts and partials of PostgresStore.
#include <algorithm>
#include <set>

#include "coordinator/postgres/postgres_rows.h"
#include "coordinator/postgres/postgres_sql.h"
#include "coordinator/postgres/postgres_store.h"
#include "coordinator/store/row_columns.h"
#include "coordinator/store/row_text.h"

namespace selvage::coordinator {
namespace {

const std::string kRound =
    "SELECT r.task_id, r.number, r.state, r.epoch, r.base_version, "
    "r.result_version, r.opened, r.ended, r.reason, r.wrapped_key, "
    "r.checked_in, (SELECT COALESCE(SUM(b.bytes_up), 0)::bigint "
    "FROM selvage.round_bytes b WHERE b.task_id = r.task_id AND "
    "b.number = r.number), r.metrics, r.mode, r.class_metrics, r.figures "
    "FROM selvage.round r ";

// With its receipt, whose columns are NULL if there is none.
const std::string kAssignment =
    "SELECT a.id, a.task_id, a.number, a.device_id, a.lease_deadline, "
    "a.expires, a.state, a.reason, (r.assignment_id IS NOT NULL)::int, "
    "r.digest, r.status, r.reason, r.message, r.partial_id, r.created, "
    "a.device_class FROM selvage.assignment a "
    "LEFT JOIN selvage.receipt r ON r.assignment_id = a.id ";

// NOT_FOUND, or ABORTED unless the round has this epoch. Nobody else changes
// the row until the transaction ends.
Status ReadHeld(Connection& db, const RoundLease& lease, RoundRow& row) {
  SELVAGE_RETURN_IF_ERROR(ReadRound(db, lease.key, RoundLock::kForUpdate, row));
  if (row.epoch != lease.epoch) return StaleEpoch(lease, row.epoch);
  return OkStatus();
}

Status ReadHeldIn(Connection& db, const RoundLease& lease, RoundState from,
                  RoundRow& row) {
  SELVAGE_RETURN_IF_ERROR(ReadHeld(db, lease, row));
  if (row.state != from) return WrongState(lease.key, row.state, from);
  return OkStatus();
}

// Many transactions hold the round like this at once; none of them while it
// changes its state or epoch, and the other way round.
Status ShareHeld(Connection& db, const RoundLease& lease, RoundState& state) {
  PostgresSql sql(db,
                  "SELECT state, epoch FROM selvage.round "
                  "WHERE task_id = $1 AND number = $2 FOR SHARE",
                  lease.key.task_id, lease.key.number);
  if (!sql.Next()) return NotFound("no " + Text(lease.key));
  uint64_t epoch = 0;
  sql.Columns(state, epoch);
  if (epoch != lease.epoch) return StaleEpoch(lease, epoch);
  return OkStatus();
}

void InsertHistory(Connection& db, const RoundKey& key, int64_t from,
                   RoundState to, uint64_t epoch, Time at,
                   const std::string& reason) {
  PostgresSql(db,
              "WITH h AS (INSERT INTO selvage.history (task_id, number, "
              "from_state, to_state, epoch, at, reason) "
              "VALUES ($1, $2, $3, $4, $5, $6, $7)) SELECT pg_notify($8, $9)",
              key.task_id, key.number, from, to, epoch, at, reason,
              std::string(kRoundChannel),
              std::to_string(key.task_id) + "/" + std::to_string(key.number));
}

// Returns the ids that were inserted: those that had no receipt.
std::set<std::string> InsertReceipts(Connection& db,
                                     std::span<const ReceiptRow> rows) {
  PostgresArray ids;
  PostgresArray digests;
  PostgresArray statuses;
  PostgresArray reasons;
  PostgresArray messages;
  PostgresArray partials;
  PostgresArray times;
  for (const ReceiptRow& row : rows) {
    ids.Add(row.assignment_id);
    digests.Add(row.digest);
    statuses.Add(row.status);
    reasons.Add(row.reason);
    messages.Add(row.message);
    partials.Add(row.partial_id);
    times.Add(row.created);
  }
  PostgresSql sql(
      db,
      "INSERT INTO selvage.receipt (assignment_id, digest, status, reason, "
      "message, partial_id, created) SELECT * FROM unnest($1::text[], "
      "$2::text[], $3::int[], $4::int[], $5::text[], $6::text[], "
      "$7::bigint[]) AS r (id, d, s, e, m, p, c) ORDER BY id "
      "ON CONFLICT DO NOTHING RETURNING assignment_id",
      ids, digests, statuses, reasons, messages, partials, times);
  std::set<std::string> inserted;
  while (sql.Next()) {
    std::string id;
    sql.Columns(id);
    inserted.insert(std::move(id));
  }
  return inserted;
}

Status ReadAssignment(Connection& db, const std::string& id,
                      AssignmentRecord& record) {
  PostgresSql sql(db, kAssignment + "WHERE a.id = $1", id);
  if (!sql.Next()) return NotFound("no assignment " + id);
  ReadRow(sql, record);
  return OkStatus();
}

// What of a round takes part in no decision.
void StoreRound(Connection& db, const RoundKey& key, const Bytes& metrics,
                const Bytes& class_metrics, const std::string& figures,
                uint64_t result_version) {
  PostgresSql(db,
              "UPDATE selvage.round SET metrics = $3, class_metrics = $4, "
              "figures = $5, result_version = $6 "
              "WHERE task_id = $1 AND number = $2",
              key.task_id, key.number, metrics, class_metrics, figures,
              result_version);
}

}  // namespace

Status ReadRound(Connection& db, const RoundKey& key, RoundLock lock,
                 RoundRow& row) {
  PostgresSql sql(
      db,
      kRound + "WHERE r.task_id = $1 AND r.number = $2" +
          (lock == RoundLock::kForUpdate ? " FOR NO KEY UPDATE OF r" : ""),
      key.task_id, key.number);
  if (!sql.Next()) return NotFound("no " + Text(key));
  ReadRow(sql, row);
  return OkStatus();
}

void MoveRound(Connection& db, const RoundRow& round, RoundState to, Time at,
               const std::string& reason) {
  if (IsTerminal(to)) {
    PostgresSql(db,
                "UPDATE selvage.round SET state = $3, ended = $4, reason = $5, "
                "wrapped_key = $6 WHERE task_id = $1 AND number = $2",
                round.key.task_id, round.key.number, to, at, reason,
                Bytes(round.wrapped_key.size(), 0));
    PostgresSql(db,
                "DELETE FROM selvage.candidate "
                "WHERE task_id = $1 AND number = $2",
                round.key.task_id, round.key.number);
  } else {
    PostgresSql(db,
                "UPDATE selvage.round SET state = $3 "
                "WHERE task_id = $1 AND number = $2",
                round.key.task_id, round.key.number, to);
  }
  InsertHistory(db, round.key, static_cast<int64_t>(round.state), to,
                round.epoch, at, reason);
}

Status PostgresStore::OpenRound(const RoundRow& row) {
  return Write(Text(row.key), [&](Connection& db) -> Status {
    TaskState state{};
    std::string name;
    // Whoever ends the task waits, and then finds this round.
    PostgresSql task(
        db, "SELECT state, name FROM selvage.task WHERE id = $1 FOR SHARE",
        row.key.task_id);
    if (!task.Next()) {
      return NotFound("no task " + std::to_string(row.key.task_id));
    }
    task.Columns(state, name);
    if (state != TaskState::kRunning) {
      return FailedPrecondition("task " + name + " is not running");
    }
    if (row.claim != 0) {
      uint64_t token = 0;
      PostgresSql claim(
          db, "SELECT token FROM selvage.claim WHERE task_id = $1 FOR SHARE",
          row.key.task_id);
      if (claim.Next()) claim.Columns(token);
      if (token != row.claim) return StaleClaim(row.key.task_id, row.claim);
    }
    const int64_t inserted =
        PostgresSql(db,
                    "INSERT INTO selvage.round (task_id, number, state, epoch, "
                    "base_version, result_version, opened, ended, reason, "
                    "wrapped_key, checked_in, metrics, mode, class_metrics, "
                    "figures) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, "
                    "$11, $12, $13, $14, $15) ON CONFLICT DO NOTHING",
                    row.key.task_id, row.key.number, row.state, row.epoch,
                    row.base_version, row.result_version, row.opened, row.ended,
                    row.reason, row.wrapped_key, row.checked_in, row.metrics,
                    row.mode, row.class_metrics, row.figures)
            .affected();
    if (inserted != 1) return AlreadyExists(Text(row.key) + " exists");
    if (row.bytes_up != 0) {
      PostgresSql(db, "INSERT INTO selvage.round_bytes VALUES ($1, $2, 0, $3)",
                  row.key.task_id, row.key.number, row.bytes_up);
    }
    if (!row.carried.empty()) {
      PostgresArray ids;
      for (const std::string& id : row.carried) ids.Add(id);
      // Locked in the order in which everybody does.
      PostgresSql(db,
                  "WITH carried AS (SELECT id FROM selvage.assignment WHERE "
                  "id = ANY($1::text[]) AND task_id = $2 AND number < $3 AND "
                  "state = $4 ORDER BY id FOR NO KEY UPDATE) "
                  "UPDATE selvage.assignment a SET number = $3 FROM carried "
                  "WHERE a.id = carried.id",
                  ids, row.key.task_id, row.key.number,
                  AssignmentState::kLeased);
    }
    InsertHistory(db, row.key, 0, row.state, row.epoch, row.opened, "");
    return OkStatus();
  });
}

Result<RoundLease> PostgresStore::TakeRound(const RoundKey& key) {
  RoundLease lease{key, 0};
  const Status done = Write(Text(key), [&](Connection& db) -> Status {
    PostgresSql sql(db,
                    "UPDATE selvage.round SET epoch = epoch + 1 "
                    "WHERE task_id = $1 AND number = $2 RETURNING epoch",
                    key.task_id, key.number);
    if (!sql.Next()) return NotFound("no " + Text(key));
    sql.Columns(lease.epoch);
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return lease;
}

Result<RoundRow> PostgresStore::GetRound(const RoundKey& key) {
  RoundRow row;
  const Status done = Read(Text(key), [&](Connection& db) {
    return ReadRound(db, key, RoundLock::kNone, row);
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return row;
}

Result<std::vector<RoundRow>> PostgresStore::ListRounds(uint64_t task_id,
                                                        uint64_t first,
                                                        uint32_t limit) {
  std::vector<RoundRow> rows;
  const Status done = Read(
      "the rounds of task " + std::to_string(task_id), [&](Connection& db) {
        rows.clear();
        PostgresSql sql(db,
                        kRound +
                            "WHERE r.task_id = $1 AND r.number >= $2 "
                            "ORDER BY r.number LIMIT $3",
                        task_id, first, limit);
        while (sql.Next()) ReadRow(sql, rows.emplace_back());
        return OkStatus();
      });
  SELVAGE_RETURN_IF_ERROR(done);
  return rows;
}

Result<std::optional<RoundRow>> PostgresStore::LatestRound(uint64_t task_id) {
  std::optional<RoundRow> found;
  const Status done = Read(
      "the latest round of task " + std::to_string(task_id),
      [&](Connection& db) {
        found.reset();
        PostgresSql sql(
            db, kRound + "WHERE r.task_id = $1 ORDER BY r.number DESC LIMIT 1",
            task_id);
        if (sql.Next()) ReadRow(sql, found.emplace());
        return OkStatus();
      });
  SELVAGE_RETURN_IF_ERROR(done);
  return found;
}

Result<std::optional<RoundRow>> PostgresStore::RoundMeasuring(
    uint64_t task_id, uint64_t version) {
  std::optional<RoundRow> found;
  const Status done = Read(
      "the rounds of task " + std::to_string(task_id), [&](Connection& db) {
        found.reset();
        PostgresSql sql(db,
                        kRound +
                            "WHERE r.task_id = $1 AND "
                            "r.base_version = $2 AND r.state = $3 "
                            "ORDER BY r.mode DESC, r.number LIMIT 1",
                        task_id, version, RoundState::kCommitted);
        if (sql.Next()) ReadRow(sql, found.emplace());
        return OkStatus();
      });
  SELVAGE_RETURN_IF_ERROR(done);
  return found;
}

Status PostgresStore::Transition(const RoundLease& lease, RoundState from,
                                 RoundState to, Time at, uint64_t checked_in) {
  return Write(Text(lease.key), [&](Connection& db) -> Status {
    RoundRow round;
    SELVAGE_RETURN_IF_ERROR(ReadHeldIn(db, lease, from, round));
    MoveRound(db, round, to, at, "");
    PostgresSql(db,
                "UPDATE selvage.round SET checked_in = $3 WHERE task_id = $1 "
                "AND number = $2 AND checked_in < $3",
                lease.key.task_id, lease.key.number, checked_in);
    return OkStatus();
  });
}

Status PostgresStore::CommitRound(const RoundLease& lease,
                                  const CommittedRound& result, Time at) {
  const RoundKey& key = lease.key;
  return Write(Text(key), [&](Connection& db) -> Status {
    LockTask(db, key.task_id);
    RoundRow round;
    SELVAGE_RETURN_IF_ERROR(
        ReadHeldIn(db, lease, RoundState::kApplying, round));
    std::string population;
    uint64_t latest = 0;
    PostgresSql task(
        db, "SELECT population, latest_version FROM selvage.task WHERE id = $1",
        key.task_id);
    if (task.Next()) task.Columns(population, latest);
    const uint64_t version = result.version.version;
    if (version != latest + 1) {
      return Aborted("version " + std::to_string(version) +
                     " does not follow version " + std::to_string(latest));
    }
    InsertArtefacts(db, result.artefacts);
    InsertReferences(db, population, result.references);
    InsertVersion(db, result.version);
    MoveRound(db, round, RoundState::kCommitted, at, "");
    StoreRound(db, key, result.metrics, {}, result.figures, version);
    PostgresSql(db,
                "UPDATE selvage.task SET latest_version = $2, "
                "revision = revision + 1, "
                "committed_rounds = committed_rounds + 1 WHERE id = $1",
                key.task_id, version);
    StoreProgress(db, key.task_id, result.progress);
    if (result.finish_task) {
      StoreFinished(db, key.task_id, at, result.end_reason);
    }
    return OkStatus();
  });
}

Status PostgresStore::CommitEvaluation(const RoundLease& lease,
                                       const EvaluatedRound& result, Time at) {
  const RoundKey& key = lease.key;
  return Write(Text(key), [&](Connection& db) -> Status {
    LockTask(db, key.task_id);
    RoundRow round;
    SELVAGE_RETURN_IF_ERROR(
        ReadHeldIn(db, lease, RoundState::kApplying, round));
    MoveRound(db, round, RoundState::kCommitted, at, "");
    StoreRound(db, key, result.metrics, result.class_metrics, round.figures,
               round.result_version);
    PostgresSql(db,
                "UPDATE selvage.task SET revision = revision + 1, "
                "evaluated_rounds = evaluated_rounds + 1 WHERE id = $1",
                key.task_id);
    StoreProgress(db, key.task_id, result.progress);
    if (result.finish_task) {
      StoreFinished(db, key.task_id, at, result.end_reason);
    }
    return OkStatus();
  });
}

Status PostgresStore::AbandonRound(const RoundLease& lease, RoundState from,
                                   Time at, const std::string& reason) {
  return Write(Text(lease.key), [&](Connection& db) -> Status {
    LockTask(db, lease.key.task_id);
    RoundRow round;
    SELVAGE_RETURN_IF_ERROR(ReadHeldIn(db, lease, from, round));
    MoveRound(db, round, RoundState::kAbandoned, at, reason);
    PostgresSql(db,
                "UPDATE selvage.task SET "
                "abandoned_rounds = abandoned_rounds + $2, "
                "revision = revision + 1 WHERE id = $1",
                lease.key.task_id, round.mode == RoundMode::kTrain ? 1 : 0);
    return OkStatus();
  });
}

Result<std::vector<HistoryRow>> PostgresStore::History(const RoundKey& key) {
  std::vector<HistoryRow> rows;
  const Status done = Read("the history of " + Text(key), [&](Connection& db) {
    rows.clear();
    PostgresSql sql(
        db,
        "SELECT from_state, to_state, epoch, at, reason FROM selvage.history "
        "WHERE task_id = $1 AND number = $2 ORDER BY id",
        key.task_id, key.number);
    while (sql.Next()) {
      HistoryRow& row = rows.emplace_back();
      int64_t from = 0;
      row.key = key;
      sql.Columns(from, row.to, row.epoch, row.at, row.reason);
      if (from != 0) row.from = static_cast<RoundState>(from);
    }
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return rows;
}

Status PostgresStore::PutAssignments(const RoundLease& lease,
                                     std::span<const AssignmentRow> rows) {
  return Write(
      "assignments of " + Text(lease.key), [&](Connection& db) -> Status {
        RoundState state{};
        SELVAGE_RETURN_IF_ERROR(ShareHeld(db, lease, state));
        if (!IsOpen(state)) {
          return WrongState(lease.key, state, RoundState::kCollecting);
        }
        PostgresArray ids;
        PostgresArray tasks;
        PostgresArray numbers;
        PostgresArray devices;
        PostgresArray deadlines;
        PostgresArray expiries;
        PostgresArray reasons;
        PostgresArray classes;
        for (const AssignmentRow& row : rows) {
          ids.Add(row.id);
          tasks.Add(row.round.task_id);
          numbers.Add(row.round.number);
          devices.Add(row.device_id);
          deadlines.Add(row.lease_deadline);
          expiries.Add(row.expires);
          reasons.Add(row.reason);
          classes.Add(row.device_class);
        }
        // A statement changes a row once: of several rows of an id, the last.
        PostgresSql(
            db,
            "INSERT INTO selvage.assignment AS a (id, task_id, number, "
            "device_id, "
            "lease_deadline, expires, state, reason, device_class) "
            "SELECT DISTINCT ON (id) id, t, n, d, l, x, $9::int, r, c FROM "
            "unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], "
            "$5::bigint[], $6::bigint[], $7::text[], $8::text[]) WITH "
            "ORDINALITY "
            "AS u (id, t, n, d, l, x, r, c, o) ORDER BY id, o DESC "
            "ON CONFLICT (id) DO UPDATE SET state = excluded.state, "
            "lease_deadline = excluded.lease_deadline WHERE a.state IN ($9, "
            "$10)",
            ids, tasks, numbers, devices, deadlines, expiries, reasons, classes,
            AssignmentState::kLeased, AssignmentState::kExpired);
        return OkStatus();
      });
}

Status PostgresStore::ChangeAssignments(
    std::span<const AssignmentChange> changes) {
  if (changes.empty()) return OkStatus();
  return Write("assignment " + changes.front().id, [&](Connection& db) {
    PostgresArray ids;
    PostgresArray states;
    PostgresArray reasons;
    for (const AssignmentChange& change : changes) {
      ids.Add(change.id);
      states.Add(change.state);
      reasons.Add(change.reason);
    }
    PostgresSql(db,
                "SELECT 1 FROM selvage.assignment WHERE id = ANY($1::text[]) "
                "AND state IN ($2, $3) ORDER BY id FOR NO KEY UPDATE",
                ids, AssignmentState::kLeased, AssignmentState::kExpired);
    // Of several changes of an id the first one that is final, as if they came
    // one after the other.
    PostgresSql(
        db,
        "UPDATE selvage.assignment a SET state = c.s, reason = c.r FROM "
        "(SELECT DISTINCT ON (id) id, s, r FROM unnest($1::text[], $2::int[], "
        "$3::text[]) WITH ORDINALITY AS u (id, s, r, o) "
        "ORDER BY id, (s = $5::int), o) AS c "
        "WHERE a.id = c.id AND a.state IN ($4, $5)",
        ids, states, reasons, AssignmentState::kLeased,
        AssignmentState::kExpired);
    return OkStatus();
  });
}

Result<std::vector<AssignmentRecord>> PostgresStore::ListAssignments(
    const RoundKey& key) {
  std::vector<AssignmentRecord> records;
  const Status done =
      Read("the assignments of " + Text(key), [&](Connection& db) {
        records.clear();
        PostgresSql sql(db,
                        kAssignment +
                            "WHERE a.task_id = $1 AND a.number = $2 "
                            "ORDER BY a.id",
                        key.task_id, key.number);
        while (sql.Next()) ReadRow(sql, records.emplace_back());
        return OkStatus();
      });
  SELVAGE_RETURN_IF_ERROR(done);
  return records;
}

Result<std::optional<AssignmentRecord>> PostgresStore::FindAssignment(
    const std::string& id) {
  std::optional<AssignmentRecord> found;
  const Status done = Read("assignment " + id, [&](Connection& db) {
    found.reset();
    AssignmentRecord record;
    if (ReadAssignment(db, id, record).ok()) found = std::move(record);
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return found;
}

Result<std::vector<FunnelCount>> PostgresStore::CountAssignments(
    const RoundKey& key) {
  std::vector<FunnelCount> rows;
  const Status done =
      Read("the assignments of " + Text(key), [&](Connection& db) {
        rows.clear();
        PostgresSql sql(
            db,
            "SELECT state, reason, SUM(n)::bigint FROM ("
            "SELECT state, reason, COUNT(*) AS n FROM selvage.assignment "
            "WHERE task_id = $1 AND number = $2 GROUP BY state, reason "
            "UNION ALL SELECT state, reason, count FROM selvage.funnel "
            "WHERE task_id = $1 AND number = $2) AS f "
            "GROUP BY state, reason ORDER BY state, reason",
            key.task_id, key.number);
        while (sql.Next()) {
          FunnelCount& row = rows.emplace_back();
          sql.Columns(row.state, row.reason, row.count);
        }
        return OkStatus();
      });
  SELVAGE_RETURN_IF_ERROR(done);
  return rows;
}

// docs/protocol.md, "Uploads in a replica". The round is held FOR SHARE: a
// close waits for this transaction, and whoever lists the partials afterwards
// sees it. With `WHERE EXISTS (...)` on the insert instead, a concurrent close
// would lose it. Of the assignments, which are locked in the order of their
// ids, the state alone decides: it is read again after waiting for a lock,
// while a joined receipt would be as old as the statement.
Result<std::vector<std::string>> PostgresStore::CommitPartial(
    const RoundLease& lease, const PartialRow& partial,
    std::span<const ReceiptRow> receipts) {
  std::vector<std::string> conflicts;
  const Status done =
      Write("partial " + partial.id, [&](Connection& db) -> Status {
        conflicts.clear();
        RoundState state{};
        SELVAGE_RETURN_IF_ERROR(ShareHeld(db, lease, state));
        if (!IsOpen(state)) return RoundClosed(lease.key, state);
        PostgresArray ids;
        for (const ReceiptRow& receipt : receipts)
          ids.Add(receipt.assignment_id);
        std::set<std::string> pending;
        std::set<std::string> answered;
        {
          PostgresSql sql(
              db,
              "SELECT id, state FROM selvage.assignment WHERE "
              "id = ANY($1::text[]) AND task_id = $2 AND number = $3 "
              "ORDER BY id FOR NO KEY UPDATE",
              ids, lease.key.task_id, lease.key.number);
          while (sql.Next()) {
            std::string id;
            AssignmentState is{};
            sql.Columns(id, is);
            (IsPending(is) ? pending : answered).insert(id);
          }
        }
        for (const ReceiptRow& receipt : receipts) {
          const std::string& id = receipt.assignment_id;
          if (answered.contains(id)) {
            conflicts.push_back(id);
          } else if (!pending.contains(id)) {
            return NotFound("no assignment " + id + " in " + Text(lease.key));
          }
        }
        if (!conflicts.empty()) return OkStatus();  // nothing was written
        PostgresSql(db,
                    "INSERT INTO selvage.partial (id, task_id, number, "
                    "update_count, bytes_up) VALUES ($1, $2, $3, $4, $5)",
                    partial.id, partial.round.task_id, partial.round.number,
                    partial.update_count, partial.bytes_up);
        const std::set<std::string> inserted = InsertReceipts(db, receipts);
        if (inserted.size() != receipts.size()) {
          return Internal("partial " + partial.id +
                          ": a pending assignment has a receipt, or is there "
                          "twice");
        }
        PostgresSql(db,
                    "UPDATE selvage.assignment SET state = $2, reason = '' "
                    "WHERE id = ANY($1::text[])",
                    ids, AssignmentState::kAccepted);
        PostgresSql(
            db,
            std::string("INSERT INTO selvage.round_bytes AS b (task_id, "
                        "number, shard, bytes_up) VALUES ($1, $2, ") +
                kRandomShard +
                ", $3) ON CONFLICT (task_id, number, shard) "
                "DO UPDATE SET bytes_up = b.bytes_up + excluded.bytes_up",
            lease.key.task_id, lease.key.number, partial.bytes_up);
        return OkStatus();
      });
  SELVAGE_RETURN_IF_ERROR(done);
  return conflicts;
}

Result<std::vector<PartialRow>> PostgresStore::ListPartials(
    const RoundKey& key) {
  std::vector<PartialRow> rows;
  const Status done = Read("the partials of " + Text(key), [&](Connection& db) {
    rows.clear();
    PostgresSql sql(db,
                    "SELECT id, task_id, number, update_count, bytes_up FROM "
                    "selvage.partial WHERE task_id = $1 AND number = $2 "
                    "ORDER BY id",
                    key.task_id, key.number);
    while (sql.Next()) {
      PartialRow& row = rows.emplace_back();
      sql.Columns(row.id, row.round.task_id, row.round.number, row.update_count,
                  row.bytes_up);
    }
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return rows;
}

Result<std::vector<std::string>> PostgresStore::LivePartials() {
  std::vector<std::string> ids;
  const Status done = Read("the live partials", [&](Connection& db) {
    ids.clear();
    PostgresSql sql(db,
                    "SELECT p.id FROM selvage.partial p JOIN selvage.round r "
                    "USING (task_id, number) WHERE r.state NOT IN ($1, $2) "
                    "ORDER BY p.id",
                    RoundState::kCommitted, RoundState::kAbandoned);
    while (sql.Next()) sql.Columns(ids.emplace_back());
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return ids;
}

Result<ReceiptRow> PostgresStore::RecordRefusal(const ReceiptRow& row) {
  ReceiptRow stored = row;
  const Status done =
      Write("assignment " + row.assignment_id, [&](Connection& db) -> Status {
        stored = row;
        PostgresSql(db,
                    "SELECT 1 FROM selvage.assignment WHERE id = $1 "
                    "FOR NO KEY UPDATE",
                    row.assignment_id);
        // In a later statement: what was committed while we waited is seen.
        AssignmentRecord record;
        SELVAGE_RETURN_IF_ERROR(ReadAssignment(db, row.assignment_id, record));
        if (record.receipt.has_value()) {
          stored = *record.receipt;
          return OkStatus();
        }
        InsertReceipts(db, {&row, 1});
        PostgresSql(db,
                    "UPDATE selvage.assignment SET state = $2, reason = $3 "
                    "WHERE id = $1 AND state IN ($4, $5)",
                    row.assignment_id, AssignmentState::kRejected,
                    std::string(RejectReasonName(row.reason)),
                    AssignmentState::kLeased, AssignmentState::kExpired);
        return OkStatus();
      });
  SELVAGE_RETURN_IF_ERROR(done);
  return stored;
}

}  // namespace selvage::coordinator

// Rounds, assignments, receipts and partials of SqliteStore.
#include <SQLiteCpp/SQLiteCpp.h>

#include "coordinator/store/row_columns.h"
#include "coordinator/store/row_text.h"
#include "coordinator/store/sqlite_connection.h"
#include "coordinator/store/sqlite_rows.h"
#include "coordinator/store/sqlite_sql.h"
#include "coordinator/store/sqlite_store.h"

namespace selvage::coordinator {
namespace {

const std::string kRound =
    "SELECT task_id, number, state, epoch, base_version, result_version, "
    "opened, ended, reason, wrapped_key, checked_in, bytes_up, metrics, mode, "
    "class_metrics, figures FROM round ";

// With its receipt, whose columns are NULL (read as zeros) if there is none.
const std::string kAssignment =
    "SELECT a.id, a.task_id, a.number, a.device_id, a.lease_deadline, "
    "a.expires, a.state, a.reason, r.assignment_id IS NOT NULL, "
    "IFNULL(r.digest, ''), r.status, r.reason, IFNULL(r.message, ''), "
    "IFNULL(r.partial_id, ''), r.created, a.device_class "
    "FROM assignment a LEFT JOIN receipt r ON r.assignment_id = a.id ";

// NOT_FOUND, or ABORTED unless the round has this epoch.
Status ReadHeld(SqliteConnection& db, const RoundLease& lease, RoundRow& row) {
  SELVAGE_RETURN_IF_ERROR(ReadRound(db, lease.key, row));
  if (row.epoch != lease.epoch) return StaleEpoch(lease, row.epoch);
  return OkStatus();
}

Status ReadHeldIn(SqliteConnection& db, const RoundLease& lease,
                  RoundState from, RoundRow& row) {
  SELVAGE_RETURN_IF_ERROR(ReadHeld(db, lease, row));
  if (row.state != from) return WrongState(lease.key, row.state, from);
  return OkStatus();
}

void InsertHistory(SqliteConnection& db, const RoundKey& key, int64_t from,
                   RoundState to, uint64_t epoch, Time at,
                   const std::string& reason) {
  Sql(db,
      "INSERT INTO history (task_id, number, from_state, to_state, epoch, at, "
      "reason) VALUES (?, ?, ?, ?, ?, ?, ?)",
      key.task_id, key.number, from, to, epoch, at, reason)
      .Run();
}

void InsertReceipt(SqliteConnection& db, const ReceiptRow& row) {
  Sql(db,
      "INSERT INTO receipt (assignment_id, digest, status, reason, message, "
      "partial_id, created) VALUES (?, ?, ?, ?, ?, ?, ?)",
      row.assignment_id, row.digest, row.status, row.reason, row.message,
      row.partial_id, row.created)
      .Run();
}

Status ReadAssignment(SqliteConnection& db, const std::string& id,
                      AssignmentRecord& record) {
  Sql sql(db, (kAssignment + "WHERE a.id = ?").c_str(), id);
  if (!sql.Next()) return NotFound("no assignment " + id);
  ReadRow(sql, record);
  return OkStatus();
}

}  // namespace

Status ReadRound(SqliteConnection& db, const RoundKey& key, RoundRow& row) {
  Sql sql(db, (kRound + "WHERE task_id = ? AND number = ?").c_str(),
          key.task_id, key.number);
  if (!sql.Next()) return NotFound("no " + Text(key));
  ReadRow(sql, row);
  return OkStatus();
}

Status MoveRound(SqliteConnection& db, const RoundRow& round, RoundState to,
                 Time at, const std::string& reason) {
  Sql(db, "UPDATE round SET state = ? WHERE task_id = ? AND number = ?", to,
      round.key.task_id, round.key.number)
      .Run();
  if (IsTerminal(to)) {
    // The same length, so that it lies over the old key.
    Sql(db,
        "UPDATE round SET ended = ?, reason = ?, wrapped_key = ? "
        "WHERE task_id = ? AND number = ?",
        at, reason, Bytes(round.wrapped_key.size(), 0), round.key.task_id,
        round.key.number)
        .Run();
    Sql(db, "DELETE FROM candidate WHERE task_id = ? AND number = ?",
        round.key.task_id, round.key.number)
        .Run();
  }
  InsertHistory(db, round.key, static_cast<int64_t>(round.state), to,
                round.epoch, at, reason);
  return OkStatus();
}

Status SqliteStore::OpenRound(const RoundRow& row) {
  return Write([&](SqliteConnection& db) -> Status {
    TaskState state{};
    std::string name;
    Sql task(db, "SELECT state, name FROM task WHERE id = ?", row.key.task_id);
    if (!task.Next()) {
      return NotFound("no task " + std::to_string(row.key.task_id));
    }
    task.Columns(state, name);
    if (state != TaskState::kRunning) {
      return FailedPrecondition("task " + name + " is not running");
    }
    if (row.claim != 0) {
      uint64_t token = 0;
      Sql claim(db, "SELECT token FROM claim WHERE task_id = ?",
                row.key.task_id);
      if (claim.Next()) claim.Columns(token);
      if (token != row.claim) return StaleClaim(row.key.task_id, row.claim);
    }
    const int inserted =
        Sql(db,
            "INSERT INTO round (task_id, number, state, epoch, base_version, "
            "result_version, opened, ended, reason, wrapped_key, checked_in, "
            "bytes_up, metrics, mode, class_metrics, figures) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT DO NOTHING",
            row.key.task_id, row.key.number, row.state, row.epoch,
            row.base_version, row.result_version, row.opened, row.ended,
            row.reason, row.wrapped_key, row.checked_in, row.bytes_up,
            row.metrics, row.mode, row.class_metrics, row.figures)
            .Run();
    if (inserted != 1) return AlreadyExists(Text(row.key) + " exists");
    for (const std::string& id : row.carried) {
      Sql(db,
          "UPDATE assignment SET number = ? WHERE id = ? AND task_id = ? AND "
          "number < ? AND state = ?",
          row.key.number, id, row.key.task_id, row.key.number,
          AssignmentState::kLeased)
          .Run();
    }
    InsertHistory(db, row.key, 0, row.state, row.epoch, row.opened, "");
    return OkStatus();
  });
}

Result<TaskClaim> SqliteStore::ClaimTask(uint64_t task_id,
                                         const std::string& holder,
                                         Duration ttl) {
  const Time now = Now();
  TaskClaim claim{task_id, "", 0, Time{}};
  const Status done = Write([&](SqliteConnection& db) -> Status {
    {
      Sql task(db, "SELECT id FROM task WHERE id = ?", task_id);
      if (!task.Next()) return NotFound("no task " + std::to_string(task_id));
    }
    {
      Sql sql(db, "SELECT holder, token, expires FROM claim WHERE task_id = ?",
              task_id);
      if (sql.Next()) sql.Columns(claim.holder, claim.token, claim.expires);
    }
    if (claim.holder != holder) {
      if (!claim.holder.empty() && now < claim.expires) return OkStatus();
      claim.holder = holder;
      ++claim.token;
      Sql(db,
          "UPDATE round SET epoch = epoch + 1 "
          "WHERE task_id = ? AND state NOT IN (?, ?)",
          task_id, RoundState::kCommitted, RoundState::kAbandoned)
          .Run();
    }
    claim.expires = now + ttl;
    Sql(db,
        "INSERT INTO claim (task_id, holder, token, expires) "
        "VALUES (?, ?, ?, ?) ON CONFLICT (task_id) DO UPDATE SET "
        "holder = excluded.holder, token = excluded.token, "
        "expires = excluded.expires",
        task_id, claim.holder, claim.token, claim.expires)
        .Run();
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return claim;
}

Status SqliteStore::ReleaseTask(const TaskClaim& claim) {
  return Write([&](SqliteConnection& db) -> Status {
    Sql(db, "UPDATE claim SET holder = '' WHERE task_id = ? AND token = ?",
        claim.task_id, claim.token)
        .Run();
    return OkStatus();
  });
}

Status SqliteStore::PutCandidates(const RoundKey& key,
                                  std::span<const CandidateRow> rows) {
  return Write([&](SqliteConnection& db) -> Status {
    RoundRow round;
    const Status read = ReadRound(db, key, round);
    if (read.code() == StatusCode::kNotFound) return OkStatus();
    SELVAGE_RETURN_IF_ERROR(read);
    if (!IsOpen(round.state)) return OkStatus();
    for (const CandidateRow& row : rows) {
      // REPLACE: a new place, at the end.
      Sql(db,
          "INSERT OR REPLACE INTO candidate "
          "(task_id, number, device_id, device_class) VALUES (?, ?, ?, ?)",
          key.task_id, key.number, row.device_id, row.device_class)
          .Run();
    }
    return OkStatus();
  });
}

Result<Candidates> SqliteStore::ListCandidates(const RoundKey& key,
                                               uint64_t after) {
  Candidates found;
  found.last = after;
  const Status done = Read([&](SqliteConnection& db) {
    Sql sql(db,
            "SELECT place, device_id, device_class FROM candidate "
            "WHERE task_id = ? AND number = ? AND place > ? ORDER BY place",
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

Result<std::string> SqliteStore::RoundPulse(const RoundKey& key) {
  std::string pulse;
  const Status done = Read([&](SqliteConnection& db) -> Status {
    RoundRow round;
    SELVAGE_RETURN_IF_ERROR(ReadRound(db, key, round));
    pulse = std::to_string(static_cast<int>(round.state)) + " " +
            std::to_string(round.epoch);
    Sql counts(
        db,
        "SELECT state, COUNT(*), SUM(lease_deadline - ?) FROM assignment "
        "WHERE task_id = ? AND number = ? GROUP BY state ORDER BY state",
        round.opened, key.task_id, key.number);
    while (counts.Next()) {
      int64_t state = 0;
      int64_t count = 0;
      int64_t deadlines = 0;
      counts.Columns(state, count, deadlines);
      pulse += " " + std::to_string(state) + "=" + std::to_string(count) + "/" +
               std::to_string(deadlines);
    }
    uint64_t place = 0;
    Sql last(db,
             "SELECT IFNULL(MAX(place), 0) FROM candidate "
             "WHERE task_id = ? AND number = ?",
             key.task_id, key.number);
    if (last.Next()) last.Columns(place);
    pulse += " " + std::to_string(place);
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return pulse;
}

Result<RoundLease> SqliteStore::TakeRound(const RoundKey& key) {
  RoundRow row;
  const Status done = Write([&](SqliteConnection& db) -> Status {
    Sql(db,
        "UPDATE round SET epoch = epoch + 1 WHERE task_id = ? AND number = ?",
        key.task_id, key.number)
        .Run();
    return ReadRound(db, key, row);
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return RoundLease{key, row.epoch};
}

Result<RoundRow> SqliteStore::GetRound(const RoundKey& key) {
  RoundRow row;
  const Status done =
      Read([&](SqliteConnection& db) { return ReadRound(db, key, row); });
  SELVAGE_RETURN_IF_ERROR(done);
  return row;
}

Result<std::vector<RoundRow>> SqliteStore::ListRounds(uint64_t task_id,
                                                      uint64_t first,
                                                      uint32_t limit) {
  std::vector<RoundRow> rows;
  const Status done = Read([&](SqliteConnection& db) {
    Sql sql(
        db,
        (kRound + "WHERE task_id = ? AND number >= ? ORDER BY number LIMIT ?")
            .c_str(),
        task_id, first, limit);
    while (sql.Next()) ReadRow(sql, rows.emplace_back());
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return rows;
}

Result<std::optional<RoundRow>> SqliteStore::LatestRound(uint64_t task_id) {
  std::optional<RoundRow> found;
  const Status done = Read([&](SqliteConnection& db) {
    Sql sql(db,
            (kRound + "WHERE task_id = ? ORDER BY number DESC LIMIT 1").c_str(),
            task_id);
    if (sql.Next()) ReadRow(sql, found.emplace());
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return found;
}

Result<std::optional<RoundRow>> SqliteStore::RoundMeasuring(uint64_t task_id,
                                                            uint64_t version) {
  std::optional<RoundRow> found;
  const Status done = Read([&](SqliteConnection& db) {
    Sql sql(db,
            (kRound + "WHERE task_id = ? AND base_version = ? AND state = ? "
                      "ORDER BY mode DESC, number LIMIT 1")
                .c_str(),
            task_id, version, RoundState::kCommitted);
    if (sql.Next()) ReadRow(sql, found.emplace());
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return found;
}

Status SqliteStore::Transition(const RoundLease& lease, RoundState from,
                               RoundState to, Time at, uint64_t checked_in) {
  return Write([&](SqliteConnection& db) -> Status {
    RoundRow round;
    SELVAGE_RETURN_IF_ERROR(ReadHeldIn(db, lease, from, round));
    SELVAGE_RETURN_IF_ERROR(MoveRound(db, round, to, at, ""));
    Sql(db,
        "UPDATE round SET checked_in = MAX(checked_in, ?) "
        "WHERE task_id = ? AND number = ?",
        checked_in, lease.key.task_id, lease.key.number)
        .Run();
    return OkStatus();
  });
}

Status SqliteStore::CommitRound(const RoundLease& lease,
                                const CommittedRound& result, Time at) {
  const RoundKey& key = lease.key;
  const Status done = Write([&](SqliteConnection& db) -> Status {
    RoundRow round;
    SELVAGE_RETURN_IF_ERROR(
        ReadHeldIn(db, lease, RoundState::kApplying, round));
    std::string population;
    uint64_t latest = 0;
    {
      Sql task(db, "SELECT population, latest_version FROM task WHERE id = ?",
               key.task_id);
      if (task.Next()) task.Columns(population, latest);
    }
    const uint64_t version = result.version.version;
    if (version != latest + 1) {
      return Aborted("version " + std::to_string(version) +
                     " does not follow version " + std::to_string(latest));
    }
    for (const auto& [digest, size] : result.artefacts) {
      SELVAGE_RETURN_IF_ERROR(InsertArtefact(db, digest, size));
    }
    for (const crypto::Digest& digest : result.references) {
      SELVAGE_RETURN_IF_ERROR(InsertReference(db, population, digest));
    }
    SELVAGE_RETURN_IF_ERROR(InsertVersion(db, result.version));
    SELVAGE_RETURN_IF_ERROR(
        MoveRound(db, round, RoundState::kCommitted, at, ""));
    Sql(db,
        "UPDATE round SET result_version = ?, metrics = ?, figures = ? "
        "WHERE task_id = ? AND number = ?",
        version, result.metrics, result.figures, key.task_id, key.number)
        .Run();
    Sql(db,
        "UPDATE task SET latest_version = ?, revision = revision + 1, "
        "committed_rounds = committed_rounds + 1 WHERE id = ?",
        version, key.task_id)
        .Run();
    StoreProgress(db, key.task_id, result.progress);
    if (result.finish_task) {
      StoreFinished(db, key.task_id, at, result.end_reason);
    }
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  TruncateLog();
  return OkStatus();
}

Status SqliteStore::CommitEvaluation(const RoundLease& lease,
                                     const EvaluatedRound& result, Time at) {
  const RoundKey& key = lease.key;
  const Status done = Write([&](SqliteConnection& db) -> Status {
    RoundRow round;
    SELVAGE_RETURN_IF_ERROR(
        ReadHeldIn(db, lease, RoundState::kApplying, round));
    SELVAGE_RETURN_IF_ERROR(
        MoveRound(db, round, RoundState::kCommitted, at, ""));
    Sql(db,
        "UPDATE round SET metrics = ?, class_metrics = ? "
        "WHERE task_id = ? AND number = ?",
        result.metrics, result.class_metrics, key.task_id, key.number)
        .Run();
    Sql(db,
        "UPDATE task SET revision = revision + 1, "
        "evaluated_rounds = evaluated_rounds + 1 WHERE id = ?",
        key.task_id)
        .Run();
    StoreProgress(db, key.task_id, result.progress);
    if (result.finish_task) {
      StoreFinished(db, key.task_id, at, result.end_reason);
    }
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  TruncateLog();
  return OkStatus();
}

Status SqliteStore::AbandonRound(const RoundLease& lease, RoundState from,
                                 Time at, const std::string& reason) {
  const Status done = Write([&](SqliteConnection& db) -> Status {
    RoundRow round;
    SELVAGE_RETURN_IF_ERROR(ReadHeldIn(db, lease, from, round));
    SELVAGE_RETURN_IF_ERROR(
        MoveRound(db, round, RoundState::kAbandoned, at, reason));
    Sql(db,
        "UPDATE task SET abandoned_rounds = abandoned_rounds + ?, "
        "revision = revision + 1 WHERE id = ?",
        round.mode == RoundMode::kTrain ? 1 : 0, lease.key.task_id)
        .Run();
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  TruncateLog();
  return OkStatus();
}

Result<std::vector<HistoryRow>> SqliteStore::History(const RoundKey& key) {
  std::vector<HistoryRow> rows;
  const Status done = Read([&](SqliteConnection& db) {
    Sql sql(db,
            "SELECT from_state, to_state, epoch, at, reason FROM history "
            "WHERE task_id = ? AND number = ? ORDER BY id",
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

Status SqliteStore::PutAssignments(const RoundLease& lease,
                                   std::span<const AssignmentRow> rows) {
  return Write([&](SqliteConnection& db) -> Status {
    RoundRow round;
    SELVAGE_RETURN_IF_ERROR(ReadHeld(db, lease, round));
    if (!IsOpen(round.state)) {
      return WrongState(lease.key, round.state, RoundState::kCollecting);
    }
    for (const AssignmentRow& row : rows) {
      Sql(db,
          "INSERT INTO assignment (id, task_id, number, device_id, "
          "lease_deadline, expires, state, reason, device_class) "
          "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
          "ON CONFLICT (id) DO UPDATE SET state = excluded.state, "
          "lease_deadline = excluded.lease_deadline "
          "WHERE assignment.state IN (?, ?)",
          row.id, row.round.task_id, row.round.number, row.device_id,
          row.lease_deadline, row.expires, AssignmentState::kLeased, row.reason,
          row.device_class, AssignmentState::kLeased, AssignmentState::kExpired)
          .Run();
    }
    return OkStatus();
  });
}

Status SqliteStore::ChangeAssignments(
    std::span<const AssignmentChange> changes) {
  return Write([&](SqliteConnection& db) {
    for (const AssignmentChange& change : changes) {
      Sql(db,
          "UPDATE assignment SET state = ?, reason = ? "
          "WHERE id = ? AND state IN (?, ?)",
          change.state, change.reason, change.id, AssignmentState::kLeased,
          AssignmentState::kExpired)
          .Run();
    }
    return OkStatus();
  });
}

Result<std::vector<AssignmentRecord>> SqliteStore::ListAssignments(
    const RoundKey& key) {
  std::vector<AssignmentRecord> records;
  const Status done = Read([&](SqliteConnection& db) {
    Sql sql(db,
            (kAssignment + "WHERE a.task_id = ? AND a.number = ? ORDER BY a.id")
                .c_str(),
            key.task_id, key.number);
    while (sql.Next()) ReadRow(sql, records.emplace_back());
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return records;
}

Result<std::optional<AssignmentRecord>> SqliteStore::FindAssignment(
    const std::string& id) {
  std::optional<AssignmentRecord> found;
  const Status done = Read([&](SqliteConnection& db) {
    AssignmentRecord record;
    if (ReadAssignment(db, id, record).ok()) found = std::move(record);
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return found;
}

Result<std::vector<FunnelCount>> SqliteStore::CountAssignments(
    const RoundKey& key) {
  std::vector<FunnelCount> rows;
  const Status done = Read([&](SqliteConnection& db) {
    Sql sql(db,
            "SELECT state, reason, SUM(n) FROM ("
            "SELECT state, reason, COUNT(*) AS n FROM assignment "
            "WHERE task_id = ?1 AND number = ?2 GROUP BY state, reason "
            "UNION ALL SELECT state, reason, count FROM funnel "
            "WHERE task_id = ?1 AND number = ?2) "
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

Result<std::vector<std::string>> SqliteStore::CommitPartial(
    const RoundLease& lease, const PartialRow& partial,
    std::span<const ReceiptRow> receipts) {
  std::vector<std::string> conflicts;
  const Status done = Write([&](SqliteConnection& db) -> Status {
    RoundRow round;
    SELVAGE_RETURN_IF_ERROR(ReadHeld(db, lease, round));
    if (!IsOpen(round.state)) return RoundClosed(lease.key, round.state);
    for (const ReceiptRow& receipt : receipts) {
      AssignmentRecord record;
      SELVAGE_RETURN_IF_ERROR(
          ReadAssignment(db, receipt.assignment_id, record));
      if (record.assignment.round != lease.key) {
        return NotFound("no assignment " + receipt.assignment_id + " in " +
                        Text(lease.key));
      }
      if (record.receipt.has_value() || !IsPending(record.assignment.state)) {
        conflicts.push_back(receipt.assignment_id);
      }
    }
    if (!conflicts.empty()) return OkStatus();
    Sql(db,
        "INSERT INTO partial (id, task_id, number, update_count, bytes_up) "
        "VALUES (?, ?, ?, ?, ?)",
        partial.id, partial.round.task_id, partial.round.number,
        partial.update_count, partial.bytes_up)
        .Run();
    for (const ReceiptRow& receipt : receipts) {
      InsertReceipt(db, receipt);
      Sql(db, "UPDATE assignment SET state = ?, reason = '' WHERE id = ?",
          AssignmentState::kAccepted, receipt.assignment_id)
          .Run();
    }
    Sql(db,
        "UPDATE round SET bytes_up = bytes_up + ? "
        "WHERE task_id = ? AND number = ?",
        partial.bytes_up, lease.key.task_id, lease.key.number)
        .Run();
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return conflicts;
}

Result<std::vector<PartialRow>> SqliteStore::ListPartials(const RoundKey& key) {
  std::vector<PartialRow> rows;
  const Status done = Read([&](SqliteConnection& db) {
    Sql sql(db,
            "SELECT id, task_id, number, update_count, bytes_up FROM partial "
            "WHERE task_id = ? AND number = ? ORDER BY id",
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

Result<std::vector<std::string>> SqliteStore::LivePartials() {
  std::vector<std::string> ids;
  const Status done = Read([&](SqliteConnection& db) {
    Sql sql(db,
            "SELECT p.id FROM partial p JOIN round r USING (task_id, number) "
            "WHERE r.state NOT IN (?, ?) ORDER BY p.id",
            RoundState::kCommitted, RoundState::kAbandoned);
    while (sql.Next()) sql.Columns(ids.emplace_back());
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return ids;
}

Result<ReceiptRow> SqliteStore::RecordRefusal(const ReceiptRow& row) {
  ReceiptRow stored = row;
  const Status done = Write([&](SqliteConnection& db) -> Status {
    AssignmentRecord record;
    SELVAGE_RETURN_IF_ERROR(ReadAssignment(db, row.assignment_id, record));
    if (record.receipt.has_value()) {
      stored = *record.receipt;
      return OkStatus();
    }
    InsertReceipt(db, row);
    Sql(db,
        "UPDATE assignment SET state = ?, reason = ? "
        "WHERE id = ? AND state IN (?, ?)",
        AssignmentState::kRejected, std::string(RejectReasonName(row.reason)),
        row.assignment_id, AssignmentState::kLeased, AssignmentState::kExpired)
        .Run();
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return stored;
}

}  // namespace selvage::coordinator

// Tasks and model versions of SqliteStore.
#include <SQLiteCpp/SQLiteCpp.h>

#include <algorithm>

#include "coordinator/store/row_columns.h"
#include "coordinator/store/row_text.h"
#include "coordinator/store/sqlite_connection.h"
#include "coordinator/store/sqlite_rows.h"
#include "coordinator/store/sqlite_sql.h"
#include "coordinator/store/sqlite_store.h"

namespace selvage::coordinator {
namespace {

const std::string kTask = Select(kTaskColumns, "task");

const std::string kVersion = Select(kVersionColumns, "version");

Status ReadTask(SqliteConnection& db, const std::string& name, TaskRow& row) {
  Sql sql(db, (kTask + "WHERE name = ?").c_str(), name);
  if (!sql.Next()) return NotFound("no task " + name);
  ReadRow(sql, row);
  return OkStatus();
}

Status ReadTaskById(SqliteConnection& db, uint64_t id, TaskRow& row) {
  Sql sql(db, (kTask + "WHERE id = ?").c_str(), id);
  if (!sql.Next()) return NotFound("no task " + std::to_string(id));
  ReadRow(sql, row);
  return OkStatus();
}

// Every round of the task that is open -> ABANDONED. Returns how many of them
// were training rounds.
Result<uint64_t> EndOpenRounds(SqliteConnection& db, uint64_t task_id, Time at,
                               const std::string& reason) {
  std::vector<uint64_t> open;
  {
    Sql sql(db,
            "SELECT number FROM round WHERE task_id = ? AND "
            "state NOT IN (?, ?)",
            task_id, RoundState::kCommitted, RoundState::kAbandoned);
    while (sql.Next()) sql.Columns(open.emplace_back());
  }
  uint64_t trained = 0;
  for (const uint64_t number : open) {
    RoundRow round;
    SELVAGE_RETURN_IF_ERROR(ReadRound(db, {task_id, number}, round));
    SELVAGE_RETURN_IF_ERROR(
        MoveRound(db, round, RoundState::kAbandoned, at, reason));
    if (round.mode == RoundMode::kTrain) ++trained;
  }
  return trained;
}

}  // namespace

void StoreProgress(SqliteConnection& db, uint64_t task_id,
                   const std::optional<TaskProgress>& progress) {
  if (!progress.has_value()) return;
  Sql(db,
      "UPDATE task SET measured = ?, last_measured = ?, best_version = ?, "
      "best_value = ?, reference = ?, stale = ? WHERE id = ?",
      progress->measured, progress->last_measured, progress->best_version,
      progress->best_value, progress->reference, progress->stale, task_id)
      .Run();
}

void StoreFinished(SqliteConnection& db, uint64_t task_id, Time at,
                   const std::string& reason) {
  Sql(db, "UPDATE task SET state = ?, ended = ?, end_reason = ? WHERE id = ?",
      TaskState::kFinished, at, reason, task_id)
      .Run();
}

Status InsertVersion(SqliteConnection& db, const VersionRow& row) {
  Sql(db,
      "INSERT INTO version (task_id, version, round, checkpoint_digest, "
      "checkpoint_codec, master_digest, created, server_state_digest) "
      "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
      row.task_id, row.version, row.round, row.checkpoint_digest,
      row.checkpoint_codec, row.master_digest, row.created,
      row.server_state_digest)
      .Run();
  return OkStatus();
}

Result<TaskRow> SqliteStore::CreateTask(const NewTask& task,
                                        const RequestRow& request) {
  TaskRow stored;
  const Status done = Write([&](SqliteConnection& db) -> Status {
    const TaskRow& row = task.task;
    SELVAGE_RETURN_IF_ERROR(InsertRequest(db, request));
    SELVAGE_RETURN_IF_ERROR(RequirePopulation(db, row.population));
    const int inserted =
        Sql(db,
            "INSERT INTO task (name, population, state, task_file, "
            "program_digest, plan_digest, plan_signature, initial_digest, "
            "created, ended, committed_rounds, abandoned_rounds, "
            "latest_version, revision) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1) "
            "ON CONFLICT (name) DO NOTHING",
            row.name, row.population, row.state, row.task_file,
            row.program_digest, row.plan_digest, row.plan_signature,
            row.initial_digest, row.created, row.ended, row.committed_rounds,
            row.abandoned_rounds, row.latest_version)
            .Run();
    if (inserted != 1) return AlreadyExists("task " + row.name + " exists");
    SELVAGE_RETURN_IF_ERROR(ReadTask(db, row.name, stored));
    for (const auto& [digest, size] : task.artefacts) {
      SELVAGE_RETURN_IF_ERROR(InsertArtefact(db, digest, size));
    }
    for (const crypto::Digest& digest : task.references) {
      SELVAGE_RETURN_IF_ERROR(InsertReference(db, row.population, digest));
    }
    VersionRow initial = task.initial;
    initial.task_id = stored.id;
    return InsertVersion(db, initial);
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return stored;
}

Result<TaskRow> SqliteStore::GetTask(const std::string& name) {
  TaskRow row;
  const Status done =
      Read([&](SqliteConnection& db) { return ReadTask(db, name, row); });
  SELVAGE_RETURN_IF_ERROR(done);
  return row;
}

Result<TaskRow> SqliteStore::GetTaskById(uint64_t id) {
  TaskRow row;
  const Status done =
      Read([&](SqliteConnection& db) { return ReadTaskById(db, id, row); });
  SELVAGE_RETURN_IF_ERROR(done);
  return row;
}

Result<std::vector<TaskRow>> SqliteStore::ListTasks(
    const std::string& population, uint64_t after, uint32_t limit) {
  std::vector<TaskRow> rows;
  const Status done = Read([&](SqliteConnection& db) {
    Sql sql(db,
            (kTask + "WHERE id > ?1 AND (?2 = '' OR population = ?2) "
                     "ORDER BY id LIMIT ?3")
                .c_str(),
            after, population, limit);
    while (sql.Next()) ReadRow(sql, rows.emplace_back());
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return rows;
}

Result<TaskRow> SqliteStore::StopTask(const std::string& name,
                                      std::optional<uint64_t> revision, Time at,
                                      const RequestRow& request) {
  TaskRow task;
  const Status done = Write([&](SqliteConnection& db) -> Status {
    SELVAGE_RETURN_IF_ERROR(InsertRequest(db, request));
    SELVAGE_RETURN_IF_ERROR(ReadTask(db, name, task));
    if (revision.has_value() && *revision != task.revision) {
      return WrongRevision(name, task.revision, *revision);
    }
    if (task.state != TaskState::kRunning) {
      return FailedPrecondition("task " + name + " is not running");
    }
    const std::string reason = "the task was stopped";
    SELVAGE_ASSIGN_OR_RETURN(const uint64_t abandoned,
                             EndOpenRounds(db, task.id, at, reason));
    Sql(db,
        "UPDATE task SET state = ?, ended = ?, end_reason = ?, "
        "revision = revision + 1, abandoned_rounds = abandoned_rounds + ? "
        "WHERE id = ?",
        TaskState::kStopped, at, reason, abandoned, task.id)
        .Run();
    return ReadTask(db, name, task);
  });
  SELVAGE_RETURN_IF_ERROR(done);
  TruncateLog();
  return task;
}

Result<TaskRow> SqliteStore::FinishTask(uint64_t task_id, Time at,
                                        const std::string& reason) {
  TaskRow task;
  const Status done = Write([&](SqliteConnection& db) -> Status {
    SELVAGE_RETURN_IF_ERROR(ReadTaskById(db, task_id, task));
    if (task.state != TaskState::kRunning) {
      return FailedPrecondition("task " + task.name + " is not running");
    }
    SELVAGE_ASSIGN_OR_RETURN(const uint64_t abandoned,
                             EndOpenRounds(db, task_id, at, reason));
    StoreFinished(db, task_id, at, reason);
    Sql(db,
        "UPDATE task SET revision = revision + 1, "
        "abandoned_rounds = abandoned_rounds + ? WHERE id = ?",
        abandoned, task_id)
        .Run();
    return ReadTaskById(db, task_id, task);
  });
  SELVAGE_RETURN_IF_ERROR(done);
  TruncateLog();
  return task;
}

Status SqliteStore::AddEvaluation(const EvaluationRow& row,
                                  const std::optional<TaskProgress>& progress,
                                  uint64_t revision) {
  return Write([&](SqliteConnection& db) -> Status {
    TaskRow task;
    if (!ReadTaskById(db, row.task_id, task).ok()) {
      return NoVersion(row.task_id, row.version);
    }
    {
      Sql version(db, "SELECT 1 FROM version WHERE task_id = ? AND version = ?",
                  row.task_id, row.version);
      if (!version.Next()) return NoVersion(row.task_id, row.version);
    }
    const int inserted =
        Sql(db,
            "INSERT INTO evaluation (task_id, version, data_set, data_digest, "
            "example_count, created) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT DO NOTHING",
            row.task_id, row.version, row.data_set, row.data_digest,
            row.example_count, row.created)
            .Run();
    if (inserted != 1) return EvaluationExists(row);
    if (task.revision != revision) {
      return WrongRevision(task.name, task.revision, revision);
    }
    for (const auto& metric : row.metrics) {
      Sql(db,
          "INSERT INTO evaluation_metric (task_id, version, data_set, name, "
          "value) VALUES (?, ?, ?, ?, ?)",
          row.task_id, row.version, row.data_set, metric.first, metric.second)
          .Run();
    }
    StoreProgress(db, row.task_id, progress);
    Sql(db, "UPDATE task SET revision = revision + 1 WHERE id = ?", row.task_id)
        .Run();
    return OkStatus();
  });
}

Result<std::vector<EvaluationRow>> SqliteStore::ListEvaluations(
    uint64_t task_id, uint64_t version) {
  std::vector<EvaluationRow> rows;
  const Status done = Read([&](SqliteConnection& db) {
    {
      Sql sql(db,
              "SELECT data_set, data_digest, example_count, created "
              "FROM evaluation WHERE task_id = ? AND version = ? "
              "ORDER BY data_set",
              task_id, version);
      while (sql.Next()) {
        EvaluationRow& row = rows.emplace_back();
        row.task_id = task_id;
        row.version = version;
        sql.Columns(row.data_set, row.data_digest, row.example_count,
                    row.created);
      }
    }
    for (EvaluationRow& row : rows) {
      Sql sql(db,
              "SELECT name, value FROM evaluation_metric WHERE task_id = ? "
              "AND version = ? AND data_set = ? ORDER BY name",
              task_id, version, row.data_set);
      while (sql.Next()) {
        auto& metric = row.metrics.emplace_back();
        sql.Columns(metric.first, metric.second);
      }
    }
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return rows;
}

Result<VersionRow> SqliteStore::GetVersion(uint64_t task_id, uint64_t version) {
  VersionRow row;
  const Status done = Read([&](SqliteConnection& db) -> Status {
    Sql sql(db, (kVersion + "WHERE task_id = ? AND version = ?").c_str(),
            task_id, version);
    if (!sql.Next()) {
      return NoVersion(task_id, version);
    }
    ReadRow(sql, row);
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return row;
}

Result<std::vector<VersionRow>> SqliteStore::ListVersions(uint64_t task_id,
                                                          uint64_t first,
                                                          uint32_t limit) {
  std::vector<VersionRow> rows;
  const Status done = Read([&](SqliteConnection& db) {
    Sql sql(db,
            (kVersion +
             "WHERE task_id = ? AND version >= ? ORDER BY version LIMIT ?")
                .c_str(),
            task_id, first, limit);
    while (sql.Next()) ReadRow(sql, rows.emplace_back());
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return rows;
}

Result<std::string> SqliteStore::BeginEpoch(const std::string& epoch, Time at) {
  const std::string reason = kRestoredReason;
  const uint64_t floor = FirstNumberAfterRestore(at);
  const std::string id = InstanceIdOfEpoch(instance_id_, epoch);
  const Status done = Write([&](SqliteConnection& db) -> Status {
    std::vector<TaskRow> running;
    {
      Sql sql(db, (kTask + "WHERE state = ?").c_str(), TaskState::kRunning);
      while (sql.Next()) ReadRow(sql, running.emplace_back());
    }
    for (const TaskRow& task : running) {
      SELVAGE_ASSIGN_OR_RETURN(const uint64_t abandoned,
                               EndOpenRounds(db, task.id, at, reason));
      uint64_t number = 0;
      {
        Sql sql(db,
                "SELECT COALESCE(MAX(number), 0) FROM round WHERE "
                "task_id = ?",
                task.id);
        if (sql.Next()) sql.Columns(number);
      }
      number = std::max(number + 1, floor);
      const uint64_t version = std::max(task.latest_version + 1, floor);
      // A round that nobody took part in, for the numbers of those to come.
      Sql(db,
          "INSERT INTO round (task_id, number, state, epoch, base_version, "
          "result_version, opened, ended, reason, wrapped_key, checked_in, "
          "bytes_up, metrics, mode) VALUES (?, ?, ?, 1, ?, 0, ?, ?, ?, '', 0, "
          "0, '', ?)",
          task.id, number, RoundState::kAbandoned, task.latest_version, at, at,
          reason, RoundMode::kTrain)
          .Run();
      Sql(db,
          "INSERT INTO history (task_id, number, from_state, to_state, epoch, "
          "at, reason) VALUES (?, ?, 0, ?, 1, ?, ?)",
          task.id, number, RoundState::kAbandoned, at, reason)
          .Run();
      Sql(db,
          "INSERT INTO version (task_id, version, round, checkpoint_digest, "
          "checkpoint_codec, master_digest, created, server_state_digest) "
          "SELECT task_id, ?, round, checkpoint_digest, checkpoint_codec, "
          "master_digest, ?, server_state_digest FROM version "
          "WHERE task_id = ? AND version = ?",
          version, at, task.id, task.latest_version)
          .Run();
      Sql(db,
          "UPDATE task SET latest_version = ?, revision = revision + 1, "
          "abandoned_rounds = abandoned_rounds + ? WHERE id = ?",
          version, abandoned, task.id)
          .Run();
    }
    Sql(db, "UPDATE token SET revoked = 1").Run();
    Sql(db, "UPDATE claim SET token = token + 1, holder = ''").Run();
    Sql(db, "UPDATE meta SET instance_id = ?", id).Run();
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  TruncateLog();
  return id;
}

}  // namespace selvage::coordinator

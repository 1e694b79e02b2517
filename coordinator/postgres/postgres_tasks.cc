// Tasks and model versions of PostgresStore.
#include "coordinator/postgres/postgres_rows.h"
#include "coordinator/postgres/postgres_sql.h"
#include "coordinator/postgres/postgres_store.h"
#include "coordinator/store/row_columns.h"
#include "coordinator/store/row_text.h"

namespace selvage::coordinator {
namespace {

const std::string kTask = Select(kTaskColumns, "selvage.task");

const std::string kVersion = Select(kVersionColumns, "selvage.version");

// For the transactions that change the row.
const std::string kLocked = " FOR NO KEY UPDATE";

Status ReadTask(Connection& db, const std::string& name, TaskRow& row,
                const std::string& lock = "") {
  PostgresSql sql(db, kTask + "WHERE name = $1" + lock, name);
  if (!sql.Next()) return NotFound("no task " + name);
  ReadRow(sql, row);
  return OkStatus();
}

Status ReadTaskById(Connection& db, uint64_t id, TaskRow& row,
                    const std::string& lock = "") {
  PostgresSql sql(db, kTask + "WHERE id = $1" + lock, id);
  if (!sql.Next()) return NotFound("no task " + std::to_string(id));
  ReadRow(sql, row);
  return OkStatus();
}

// Every round of the task that is open -> ABANDONED. Returns how many of them
// were training rounds.
Result<uint64_t> EndOpenRounds(Connection& db, uint64_t task_id, Time at,
                               const std::string& reason) {
  std::vector<uint64_t> open;
  {
    PostgresSql sql(db,
                    "SELECT number FROM selvage.round WHERE task_id = $1 AND "
                    "state NOT IN ($2, $3) ORDER BY number",
                    task_id, RoundState::kCommitted, RoundState::kAbandoned);
    while (sql.Next()) sql.Columns(open.emplace_back());
  }
  uint64_t trained = 0;
  for (const uint64_t number : open) {
    RoundRow round;
    SELVAGE_RETURN_IF_ERROR(
        ReadRound(db, {task_id, number}, RoundLock::kForUpdate, round));
    MoveRound(db, round, RoundState::kAbandoned, at, reason);
    if (round.mode == RoundMode::kTrain) ++trained;
  }
  return trained;
}

}  // namespace

void StoreProgress(Connection& db, uint64_t task_id,
                   const std::optional<TaskProgress>& progress) {
  if (!progress.has_value()) return;
  PostgresSql(db,
              "UPDATE selvage.task SET measured = $1, last_measured = $2, "
              "best_version = $3, "
              "best_value = $4, reference = $5, stale = $6 WHERE id = $7",
              progress->measured, progress->last_measured,
              progress->best_version, progress->best_value, progress->reference,
              progress->stale, task_id);
}

void StoreFinished(Connection& db, uint64_t task_id, Time at,
                   const std::string& reason) {
  PostgresSql(db,
              "UPDATE selvage.task SET state = $1, ended = $2, end_reason = $3 "
              "WHERE id = $4",
              TaskState::kFinished, at, reason, task_id);
}

void LockTask(Connection& db, uint64_t task_id) {
  PostgresSql(db, "SELECT 1 FROM selvage.task WHERE id = $1" + kLocked,
              task_id);
}

void InsertVersion(Connection& db, const VersionRow& row) {
  PostgresSql(db,
              "INSERT INTO selvage.version (task_id, version, round, "
              "checkpoint_digest, "
              "checkpoint_codec, master_digest, created, server_state_digest) "
              "VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
              row.task_id, row.version, row.round, row.checkpoint_digest,
              row.checkpoint_codec, row.master_digest, row.created,
              row.server_state_digest);
}

Result<TaskRow> PostgresStore::CreateTask(const NewTask& task,
                                          const RequestRow& request) {
  TaskRow stored;
  const Status done =
      Write("task " + task.task.name, [&](Connection& db) -> Status {
        const TaskRow& row = task.task;
        SELVAGE_RETURN_IF_ERROR(InsertRequest(db, request));
        SELVAGE_RETURN_IF_ERROR(RequirePopulation(db, row.population));
        const int64_t inserted =
            PostgresSql(
                db,
                "INSERT INTO selvage.task (name, population, state, task_file, "
                "program_digest, plan_digest, plan_signature, initial_digest, "
                "created, ended, committed_rounds, abandoned_rounds, "
                "latest_version, revision) "
                "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, "
                "$13, "
                "1) "
                "ON CONFLICT (name) DO NOTHING",
                row.name, row.population, row.state, row.task_file,
                row.program_digest, row.plan_digest, row.plan_signature,
                row.initial_digest, row.created, row.ended,
                row.committed_rounds, row.abandoned_rounds, row.latest_version)
                .affected();
        if (inserted != 1) return AlreadyExists("task " + row.name + " exists");
        SELVAGE_RETURN_IF_ERROR(ReadTask(db, row.name, stored));
        InsertArtefacts(db, task.artefacts);
        InsertReferences(db, row.population, task.references);
        VersionRow initial = task.initial;
        initial.task_id = stored.id;
        InsertVersion(db, initial);
        return OkStatus();
      });
  SELVAGE_RETURN_IF_ERROR(done);
  return stored;
}

Result<TaskRow> PostgresStore::GetTask(const std::string& name) {
  TaskRow row;
  const Status done = Read(
      "task " + name, [&](Connection& db) { return ReadTask(db, name, row); });
  SELVAGE_RETURN_IF_ERROR(done);
  return row;
}

Result<TaskRow> PostgresStore::GetTaskById(uint64_t id) {
  TaskRow row;
  const Status done = Read("task " + std::to_string(id), [&](Connection& db) {
    return ReadTaskById(db, id, row);
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return row;
}

Result<std::vector<TaskRow>> PostgresStore::ListTasks(
    const std::string& population, uint64_t after, uint32_t limit) {
  std::vector<TaskRow> rows;
  const Status done = Read("the tasks", [&](Connection& db) {
    rows.clear();
    PostgresSql sql(db,
                    (kTask + "WHERE id > $1 AND ($2 = '' OR population = $2) "
                             "ORDER BY id LIMIT $3"),
                    after, population, limit);
    while (sql.Next()) ReadRow(sql, rows.emplace_back());
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return rows;
}

Result<TaskRow> PostgresStore::StopTask(const std::string& name,
                                        std::optional<uint64_t> revision,
                                        Time at, const RequestRow& request) {
  TaskRow task;
  const Status done = Write("task " + name, [&](Connection& db) -> Status {
    SELVAGE_RETURN_IF_ERROR(InsertRequest(db, request));
    SELVAGE_RETURN_IF_ERROR(ReadTask(db, name, task, kLocked));
    if (revision.has_value() && *revision != task.revision) {
      return WrongRevision(name, task.revision, *revision);
    }
    if (task.state != TaskState::kRunning) {
      return FailedPrecondition("task " + name + " is not running");
    }
    const std::string reason = "the task was stopped";
    SELVAGE_ASSIGN_OR_RETURN(const uint64_t abandoned,
                             EndOpenRounds(db, task.id, at, reason));
    PostgresSql(
        db,
        "UPDATE selvage.task SET state = $1, ended = $2, end_reason = $3, "
        "revision = revision + 1, abandoned_rounds = abandoned_rounds + $4 "
        "WHERE id = $5",
        TaskState::kStopped, at, reason, abandoned, task.id);
    return ReadTask(db, name, task);
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return task;
}

Result<TaskRow> PostgresStore::FinishTask(uint64_t task_id, Time at,
                                          const std::string& reason) {
  TaskRow task;
  const Status done =
      Write("task " + std::to_string(task_id), [&](Connection& db) -> Status {
        SELVAGE_RETURN_IF_ERROR(ReadTaskById(db, task_id, task, kLocked));
        if (task.state != TaskState::kRunning) {
          return FailedPrecondition("task " + task.name + " is not running");
        }
        SELVAGE_ASSIGN_OR_RETURN(const uint64_t abandoned,
                                 EndOpenRounds(db, task_id, at, reason));
        StoreFinished(db, task_id, at, reason);
        PostgresSql(db,
                    "UPDATE selvage.task SET revision = revision + 1, "
                    "abandoned_rounds = abandoned_rounds + $1 WHERE id = $2",
                    abandoned, task_id);
        return ReadTaskById(db, task_id, task);
      });
  SELVAGE_RETURN_IF_ERROR(done);
  return task;
}

Status PostgresStore::AddEvaluation(const EvaluationRow& row,
                                    const std::optional<TaskProgress>& progress,
                                    uint64_t revision) {
  return Write(
      "an evaluation of task " + std::to_string(row.task_id),
      [&](Connection& db) -> Status {
        TaskRow task;
        if (!ReadTaskById(db, row.task_id, task, kLocked).ok()) {
          return NoVersion(row.task_id, row.version);
        }
        {
          PostgresSql version(db,
                              "SELECT 1 FROM selvage.version WHERE task_id = "
                              "$1 AND version = $2",
                              row.task_id, row.version);
          if (!version.Next()) return NoVersion(row.task_id, row.version);
        }
        const int64_t inserted =
            PostgresSql(
                db,
                "INSERT INTO selvage.evaluation (task_id, version, "
                "data_set, data_digest, "
                "example_count, created) VALUES ($1, $2, $3, $4, $5, $6) "
                "ON CONFLICT DO NOTHING",
                row.task_id, row.version, row.data_set, row.data_digest,
                row.example_count, row.created)
                .affected();
        if (inserted != 1) return EvaluationExists(row);
        if (task.revision != revision) {
          return WrongRevision(task.name, task.revision, revision);
        }
        PostgresArray names;
        PostgresArray values;
        for (const auto& metric : row.metrics) {
          names.Add(metric.first);
          values.Add(metric.second);
        }
        PostgresSql(db,
                    "INSERT INTO selvage.evaluation_metric (task_id, version, "
                    "data_set, name, value) SELECT $1, $2, $3, n, v FROM "
                    "unnest($4::text[], $5::float8[]) AS m (n, v)",
                    row.task_id, row.version, row.data_set, names, values);
        StoreProgress(db, row.task_id, progress);
        PostgresSql(
            db, "UPDATE selvage.task SET revision = revision + 1 WHERE id = $1",
            row.task_id);
        return OkStatus();
      });
}

Result<std::vector<EvaluationRow>> PostgresStore::ListEvaluations(
    uint64_t task_id, uint64_t version) {
  std::vector<EvaluationRow> rows;
  const Status done = Read(
      "the evaluations of task " + std::to_string(task_id),
      [&](Connection& db) {
        rows.clear();
        {
          PostgresSql sql(
              db,
              "SELECT data_set, data_digest, example_count, created "
              "FROM selvage.evaluation WHERE task_id = $1 AND version = $2 "
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
          PostgresSql sql(
              db,
              "SELECT name, value FROM selvage.evaluation_metric WHERE "
              "task_id = $1 "
              "AND version = $2 AND data_set = $3 ORDER BY name",
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

Result<VersionRow> PostgresStore::GetVersion(uint64_t task_id,
                                             uint64_t version) {
  VersionRow row;
  const Status done = Read(
      "version " + std::to_string(version) + " of task " +
          std::to_string(task_id),
      [&](Connection& db) -> Status {
        PostgresSql sql(db, kVersion + "WHERE task_id = $1 AND version = $2",
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

Result<std::vector<VersionRow>> PostgresStore::ListVersions(uint64_t task_id,
                                                            uint64_t first,
                                                            uint32_t limit) {
  std::vector<VersionRow> rows;
  const Status done = Read(
      "the versions of task " + std::to_string(task_id), [&](Connection& db) {
        rows.clear();
        PostgresSql sql(
            db,
            (kVersion +
             "WHERE task_id = $1 AND version >= $2 ORDER BY version LIMIT $3"),
            task_id, first, limit);
        while (sql.Next()) ReadRow(sql, rows.emplace_back());
        return OkStatus();
      });
  SELVAGE_RETURN_IF_ERROR(done);
  return rows;
}

Result<std::string> PostgresStore::BeginEpoch(const std::string& epoch,
                                              Time at) {
  const std::string reason = kRestoredReason;
  const uint64_t floor = FirstNumberAfterRestore(at);
  const std::string id = InstanceIdOfEpoch(instance_id_, epoch);
  const Status done = Write("a new epoch", [&](Connection& db) -> Status {
    std::vector<TaskRow> running;
    {
      PostgresSql sql(db, kTask + "WHERE state = $1 ORDER BY id" + kLocked,
                      TaskState::kRunning);
      while (sql.Next()) ReadRow(sql, running.emplace_back());
    }
    for (const TaskRow& task : running) {
      SELVAGE_ASSIGN_OR_RETURN(const uint64_t abandoned,
                               EndOpenRounds(db, task.id, at, reason));
      uint64_t number = 0;
      {
        PostgresSql sql(db,
                        "SELECT COALESCE(MAX(number), 0) FROM selvage.round "
                        "WHERE task_id = $1",
                        task.id);
        if (sql.Next()) sql.Columns(number);
      }
      number = std::max(number + 1, floor);
      const uint64_t version = std::max(task.latest_version + 1, floor);
      // A round that nobody took part in, for the numbers of those to come.
      PostgresSql(
          db,
          "INSERT INTO selvage.round (task_id, number, state, epoch, "
          "base_version, result_version, opened, ended, reason, wrapped_key, "
          "checked_in, metrics, mode, class_metrics, figures) VALUES ($1, $2, "
          "$3, 1, $4, 0, $5, $6, $7, '', 0, '', $8, '', '')",
          task.id, number, RoundState::kAbandoned, task.latest_version, at, at,
          reason, RoundMode::kTrain);
      PostgresSql(db,
                  "INSERT INTO selvage.history (task_id, number, from_state, "
                  "to_state, epoch, at, reason) VALUES ($1, $2, 0, $3, 1, $4, "
                  "$5)",
                  task.id, number, RoundState::kAbandoned, at, reason);
      PostgresSql(
          db,
          "INSERT INTO selvage.version (task_id, version, round, "
          "checkpoint_digest, checkpoint_codec, master_digest, created, "
          "server_state_digest) SELECT task_id, $1, round, checkpoint_digest, "
          "checkpoint_codec, master_digest, $2, server_state_digest FROM "
          "selvage.version WHERE task_id = $3 AND version = $4",
          version, at, task.id, task.latest_version);
      PostgresSql(db,
                  "UPDATE selvage.task SET latest_version = $1, revision = "
                  "revision + 1, abandoned_rounds = abandoned_rounds + $2 "
                  "WHERE id = $3",
                  version, abandoned, task.id);
    }
    PostgresSql(db, "UPDATE selvage.token SET revoked = 1");
    PostgresSql(db, "UPDATE selvage.claim SET token = token + 1, holder = ''");
    PostgresSql(db, "UPDATE selvage.meta SET instance_id = $1", id);
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return id;
}

}  // namespace selvage::coordinator

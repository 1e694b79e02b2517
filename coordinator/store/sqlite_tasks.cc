// Tasks and model versions of SqliteStore.
#include <SQLiteCpp/SQLiteCpp.h>

#include "coordinator/store/row_text.h"
#include "coordinator/store/sqlite_rows.h"
#include "coordinator/store/sqlite_sql.h"
#include "coordinator/store/sqlite_store.h"

namespace selvage::coordinator {
namespace {

const std::string kTask =
    "SELECT id, name, population, state, task_file, program_digest, "
    "plan_digest, plan_signature, initial_digest, created, ended, "
    "committed_rounds, abandoned_rounds, latest_version, revision FROM task ";
void ReadRow(Sql& sql, TaskRow& row) {
  sql.Columns(row.id, row.name, row.population, row.state, row.task_file,
              row.program_digest, row.plan_digest, row.plan_signature,
              row.initial_digest, row.created, row.ended, row.committed_rounds,
              row.abandoned_rounds, row.latest_version, row.revision);
}

const std::string kVersion =
    "SELECT task_id, version, round, checkpoint_digest, checkpoint_codec, "
    "master_digest, created, server_state_digest FROM version ";
void ReadRow(Sql& sql, VersionRow& row) {
  sql.Columns(row.task_id, row.version, row.round, row.checkpoint_digest,
              row.checkpoint_codec, row.master_digest, row.created,
              row.server_state_digest);
}

Status ReadTask(SQLite::Database& db, const std::string& name, TaskRow& row) {
  Sql sql(db, (kTask + "WHERE name = ?").c_str(), name);
  if (!sql.Next()) return NotFound("no task " + name);
  ReadRow(sql, row);
  return OkStatus();
}

}  // namespace

Status InsertVersion(SQLite::Database& db, const VersionRow& row) {
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
  const Status done = Write([&](SQLite::Database& db) -> Status {
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
      Read([&](SQLite::Database& db) { return ReadTask(db, name, row); });
  SELVAGE_RETURN_IF_ERROR(done);
  return row;
}

Result<TaskRow> SqliteStore::GetTaskById(uint64_t id) {
  TaskRow row;
  const Status done = Read([&](SQLite::Database& db) -> Status {
    Sql sql(db, (kTask + "WHERE id = ?").c_str(), id);
    if (!sql.Next()) return NotFound("no task " + std::to_string(id));
    ReadRow(sql, row);
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return row;
}

Result<std::vector<TaskRow>> SqliteStore::ListTasks(
    const std::string& population, uint64_t after, uint32_t limit) {
  std::vector<TaskRow> rows;
  const Status done = Read([&](SQLite::Database& db) {
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
  const Status done = Write([&](SQLite::Database& db) -> Status {
    SELVAGE_RETURN_IF_ERROR(InsertRequest(db, request));
    SELVAGE_RETURN_IF_ERROR(ReadTask(db, name, task));
    if (revision.has_value() && *revision != task.revision) {
      return Aborted("task " + name + " is at revision " +
                     std::to_string(task.revision) + ", not " +
                     std::to_string(*revision));
    }
    if (task.state != TaskState::kRunning) {
      return FailedPrecondition("task " + name + " is not running");
    }
    std::vector<uint64_t> open;
    {
      Sql sql(db,
              "SELECT number FROM round WHERE task_id = ? AND "
              "state NOT IN (?, ?)",
              task.id, RoundState::kCommitted, RoundState::kAbandoned);
      while (sql.Next()) sql.Columns(open.emplace_back());
    }
    for (const uint64_t number : open) {
      RoundRow round;
      SELVAGE_RETURN_IF_ERROR(ReadRound(db, {task.id, number}, round));
      SELVAGE_RETURN_IF_ERROR(MoveRound(db, round, RoundState::kAbandoned, at,
                                        "the task was stopped"));
    }
    Sql(db,
        "UPDATE task SET state = ?, ended = ?, revision = revision + 1, "
        "abandoned_rounds = abandoned_rounds + ? WHERE id = ?",
        TaskState::kStopped, at, open.size(), task.id)
        .Run();
    return ReadTask(db, name, task);
  });
  SELVAGE_RETURN_IF_ERROR(done);
  TruncateLog();
  return task;
}

Result<VersionRow> SqliteStore::GetVersion(uint64_t task_id, uint64_t version) {
  VersionRow row;
  const Status done = Read([&](SQLite::Database& db) -> Status {
    Sql sql(db, (kVersion + "WHERE task_id = ? AND version = ?").c_str(),
            task_id, version);
    if (!sql.Next()) {
      return NotFound("task " + std::to_string(task_id) + " has no version " +
                      std::to_string(version));
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
  const Status done = Read([&](SQLite::Database& db) {
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

}  // namespace selvage::coordinator

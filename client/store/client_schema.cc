#include "client/store/client_schema.h"

#include <SQLiteCpp/SQLiteCpp.h>

#include <array>
#include <string>
#include <vector>

namespace selvage::client {
namespace {

// 1: what a device must remember.
//   meta       names and settings: population, device_id, certificate, session
//   plan_key   Ed25519 keys that may sign plans, pinned at enrolment
//   example    the owner's data; AUTOINCREMENT so that an id, which decides
//              what is held out, is never given twice; layout: the inputs'
//              sizes in bytes, "784,8"
//   artefact   programs and archives of installed models, by digest
//   model      one row per task: plan, global values, personal slot, scores
//   tensors    personal-role tensors of a task, as federated training left them
//   outbox     at most one update that was recorded and not yet answered
//   counter    outcomes since the last report
//   report     at most one report that was sent and not yet answered
constexpr const char* kMigration1 = R"sql(
CREATE TABLE meta (
  name  TEXT PRIMARY KEY,
  value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE plan_key (
  public_key BLOB PRIMARY KEY CHECK (length(public_key) = 32)
) STRICT, WITHOUT ROWID;
CREATE TABLE example (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  collection TEXT NOT NULL CHECK (length(collection) BETWEEN 1 AND 64),
  layout     TEXT NOT NULL,
  inputs     BLOB NOT NULL
) STRICT;
CREATE INDEX example_by_collection ON example (collection, layout, id);
CREATE TABLE artefact (
  digest BLOB PRIMARY KEY CHECK (length(digest) = 32),
  bytes  BLOB NOT NULL
) STRICT;
CREATE TABLE model (
  task             TEXT PRIMARY KEY,
  version          INTEGER NOT NULL,
  plan             TEXT NOT NULL,
  program          BLOB NOT NULL REFERENCES artefact (digest),
  archive          BLOB REFERENCES artefact (digest),
  global_values    BLOB NOT NULL,
  personal_values  BLOB,
  alone_values     BLOB,
  personal_serving INTEGER NOT NULL CHECK (personal_serving IN (0, 1)),
  holdout_count    INTEGER NOT NULL CHECK (holdout_count >= 0),
  global_scores    BLOB NOT NULL,
  personal_scores  BLOB NOT NULL,
  CHECK (personal_serving = 0 OR personal_values IS NOT NULL)
) STRICT;
CREATE INDEX model_by_program ON model (program);
CREATE INDEX model_by_archive ON model (archive);
CREATE TABLE tensors (
  task           TEXT PRIMARY KEY,
  program        BLOB NOT NULL CHECK (length(program) = 32),
  master_values  BLOB NOT NULL
) STRICT;
CREATE TABLE outbox (
  one           INTEGER PRIMARY KEY CHECK (one = 1),
  assignment_id TEXT NOT NULL,
  digest        BLOB NOT NULL CHECK (length(digest) = 32),
  codec         INTEGER NOT NULL,
  weight        INTEGER NOT NULL CHECK (weight BETWEEN 1 AND 65535),
  metrics       BLOB NOT NULL,
  payload       BLOB NOT NULL
) STRICT;
CREATE TABLE counter (
  name  TEXT PRIMARY KEY,
  value INTEGER NOT NULL CHECK (value > 0)
) STRICT, WITHOUT ROWID;
CREATE TABLE report (
  one       INTEGER PRIMARY KEY CHECK (one = 1),
  report_id TEXT NOT NULL,
  counters  BLOB NOT NULL
) STRICT;
)sql";

constexpr std::array<const char*, 1> kMigrations = {kMigration1};

int Pragma(SQLite::Database& database, const std::string& name) {
  return database.execAndGet("PRAGMA " + name).getInt();
}

std::vector<std::string> Describe(SQLite::Database& database) {
  std::vector<std::string> rows;
  SQLite::Statement query(database,
                          "SELECT type, name, sql FROM sqlite_schema "
                          "WHERE name NOT LIKE 'sqlite_%' ORDER BY type, name");
  while (query.executeStep()) {
    rows.push_back(query.getColumn(0).getString() + " " +
                   query.getColumn(1).getString() + ": " +
                   query.getColumn(2).getString());
  }
  return rows;
}

}  // namespace

Status MigrateClientSchema(SQLite::Database& database) {
  const int version = Pragma(database, "user_version");
  const int id = Pragma(database, "application_id");
  const auto newest = static_cast<int>(kMigrations.size());
  const bool empty = version == 0 && id == 0 && Describe(database).empty();
  if (!empty && id != kClientApplicationId) {
    return DataLoss("the file is no store of this library (application_id " +
                    std::to_string(id) + ")");
  }
  if (version > newest) {
    return FailedPrecondition("the store has schema version " +
                              std::to_string(version) +
                              ", this library knows " + std::to_string(newest));
  }
  if (version < newest) {
    SQLite::Transaction transaction(database,
                                    SQLite::TransactionBehavior::IMMEDIATE);
    for (int next = version; next < newest; ++next) {
      database.exec(kMigrations[static_cast<size_t>(next)]);
    }
    database.exec("PRAGMA application_id = " +
                  std::to_string(kClientApplicationId));
    database.exec("PRAGMA user_version = " + std::to_string(newest));
    transaction.commit();
  }
  SQLite::Database wanted(":memory:",
                          SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE);
  for (const char* migration : kMigrations) wanted.exec(migration);
  const std::vector<std::string> expected = Describe(wanted);
  const std::vector<std::string> found = Describe(database);
  for (size_t i = 0; i < std::max(expected.size(), found.size()); ++i) {
    if (i < expected.size() && i < found.size() && expected[i] == found[i]) {
      continue;
    }
    return DataLoss("the store's schema is not version " +
                    std::to_string(newest) + "'s at " +
                    (i < expected.size() ? expected[i] : found[i]));
  }
  return OkStatus();
}

}  // namespace selvage::client

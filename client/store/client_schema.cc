#include "client/store/client_schema.h"

#include <SQLiteCpp/SQLiteCpp.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <vector>

#include "client/core/session.h"
#include "client/store/client_store_impl.h"

namespace selvage::client {

using store_internal::Bind;
using store_internal::BlobOf;
using store_internal::EncodeAbout;
using store_internal::ExampleRow;
using store_internal::GetMeta;
using store_internal::kMetaBundle;
using store_internal::kMetaSession;
using store_internal::kMetaWrappedKey;
using store_internal::MetaPlace;
using store_internal::OutboxAbout;
using store_internal::OutboxPlace;
using store_internal::PlaceOf;
using store_internal::SetMeta;
namespace {

// 1: what a device must remember.
//   meta       names and settings: population, device_id, certificate,
//              identity_key (digest of the one it is for, if any), session
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

// 2: what was learned from the owner is sealed (ValueSeal); see docs/privacy.md
//    for what and what not.
//   example    timestamp in microseconds; consent; size of the inputs in bytes
//   collection what a host declared
//   usage      examples and their bytes by collection, kept by triggers
//   outbox     about: which work it belongs to and everything but the payload
//   audit      what became of updates, oldest first
constexpr const char* kMigration2Before = R"sql(
ALTER TABLE example ADD COLUMN timestamp INTEGER NOT NULL DEFAULT 0;
ALTER TABLE example ADD COLUMN consent INTEGER NOT NULL DEFAULT 1
  CHECK (consent IN (0, 1));
ALTER TABLE example ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
DROP INDEX example_by_collection;
CREATE INDEX example_by_layout ON example (collection, layout, id, consent);
CREATE INDEX example_by_age ON example (timestamp, id, size);
CREATE INDEX example_by_collection_age
  ON example (collection, timestamp, id, size);
CREATE TABLE collection (
  name      TEXT PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 64),
  schema    TEXT NOT NULL,
  ttl       INTEGER NOT NULL CHECK (ttl >= 0),
  count_max INTEGER NOT NULL CHECK (count_max >= 0),
  bytes_max INTEGER NOT NULL CHECK (bytes_max >= 0)
) STRICT, WITHOUT ROWID;
CREATE TABLE usage (
  collection TEXT PRIMARY KEY,
  count      INTEGER NOT NULL CHECK (count >= 0),
  bytes      INTEGER NOT NULL CHECK (bytes >= 0)
) STRICT, WITHOUT ROWID;
CREATE TABLE audit (
  id    INTEGER PRIMARY KEY AUTOINCREMENT,
  entry BLOB NOT NULL
) STRICT;
ALTER TABLE outbox RENAME TO outbox_1;
CREATE TABLE outbox (
  one           INTEGER PRIMARY KEY CHECK (one = 1),
  assignment_id TEXT NOT NULL,
  about         BLOB NOT NULL,
  payload       BLOB NOT NULL
) STRICT;
)sql";
constexpr const char* kMigration2After = R"sql(
DROP TABLE outbox_1;
INSERT INTO usage (collection, count, bytes)
  SELECT collection, count(*), sum(size) FROM example GROUP BY collection;
CREATE TRIGGER example_added AFTER INSERT ON example BEGIN
  INSERT INTO usage (collection, count, bytes)
    VALUES (NEW.collection, 1, NEW.size)
    ON CONFLICT (collection) DO UPDATE
    SET count = count + 1, bytes = bytes + NEW.size;
END;
CREATE TRIGGER example_removed AFTER DELETE ON example BEGIN
  UPDATE usage SET count = count - 1, bytes = bytes - OLD.size
    WHERE collection = OLD.collection;
END;
)sql";

// 3: the life of a model.
//   model      the digests that its values must have when they are loaded
//   (NULL:
//              installed before 3); the base version that the personal slot was
//              made for; sealed scores of local-only training
//   good_model what served before the model did, values sealed
constexpr const char* kMigration3 = R"sql(
ALTER TABLE model ADD COLUMN global_digest BLOB;
ALTER TABLE model ADD COLUMN personal_digest BLOB;
ALTER TABLE model ADD COLUMN personal_version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE model ADD COLUMN alone_scores BLOB;
UPDATE model SET personal_version = version;
CREATE TABLE good_model (
  task           TEXT PRIMARY KEY,
  version        INTEGER NOT NULL,
  plan           TEXT NOT NULL,
  program        BLOB NOT NULL REFERENCES artefact (digest),
  archive        BLOB REFERENCES artefact (digest),
  personal       INTEGER NOT NULL CHECK (personal IN (0, 1)),
  serving_values BLOB NOT NULL
) STRICT;
CREATE INDEX good_model_by_program ON good_model (program);
CREATE INDEX good_model_by_archive ON good_model (archive);
)sql";

// 4: residual   by task and assignment, what an update's commit adds to what
//              top_k left out; assignment '': what is settled. Sealed
constexpr const char* kMigration4 = R"sql(
CREATE TABLE residual (
  task       TEXT NOT NULL,
  assignment TEXT NOT NULL,
  program    BLOB NOT NULL CHECK (length(program) = 32),
  change     BLOB NOT NULL,
  PRIMARY KEY (task, assignment)
) STRICT;
CREATE INDEX residual_by_assignment ON residual (assignment);
)sql";

// 5: example.key: a keyed hash of collection and Example::key (NULL: none), so
//    that the file does not tell the host's names.
constexpr const char* kMigration5 = R"sql(
ALTER TABLE example ADD COLUMN key BLOB
  CHECK (key IS NULL OR length(key) = 32);
CREATE UNIQUE INDEX example_by_key ON example (key) WHERE key IS NOT NULL;
)sql";

// 6: model.personal_optimizer: the optimizer's state after the fine-tuning that
//    made the personal slot (NULL: none is kept)
//    tuning     trainings of a task's slots that were interrupted, or are done
//               while the installation that needs them is not. Sealed, both
constexpr const char* kMigration6 = R"sql(
ALTER TABLE model ADD COLUMN personal_optimizer BLOB;
CREATE TABLE tuning (
  task     TEXT NOT NULL,
  part     TEXT NOT NULL CHECK (part IN ('personal', 'alone', 'alone_holdout')),
  training BLOB NOT NULL,
  PRIMARY KEY (task, part)
) STRICT;
)sql";

// 7: outbox_piece   the bytes of an update that was written a piece at a time,
//                  sealed; the payload in `outbox` is empty then. Pieces of an
//                  assignment that is not in `outbox` are nobody's
constexpr const char* kMigration7 = R"sql(
CREATE TABLE outbox_piece (
  assignment_id TEXT NOT NULL,
  number        INTEGER NOT NULL CHECK (number >= 0),
  payload       BLOB NOT NULL,
  PRIMARY KEY (assignment_id, number)
) STRICT;
)sql";

// A migration: tables, values, tables. The values of an empty database need
// nothing.
struct Migration {
  const char* before;
  Status (*values)(SQLite::Database& database, const ValueSeal& seal,
                   ByteSpan wrapped_key, Time now);
  const char* after;
};

Status SealColumn(SQLite::Database& database, const ValueSeal& seal,
                  const std::string& table, const std::string& column,
                  const std::string& key) {
  std::vector<std::string> rows;
  {
    SQLite::Statement query(database, "SELECT " + key + " FROM " + table +
                                          " WHERE " + column + " IS NOT NULL");
    while (query.executeStep()) rows.push_back(query.getColumn(0).getString());
  }
  SQLite::Statement read(database, "SELECT " + column + " FROM " + table +
                                       " WHERE " + key + " = ?");
  SQLite::Statement write(database, "UPDATE " + table + " SET " + column +
                                        " = ? WHERE " + key + " = ?");
  for (const std::string& row : rows) {
    read.reset();
    read.bind(1, row);
    if (!read.executeStep()) continue;
    const Bytes plain = BlobOf(read.getColumn(0));
    read.reset();
    SELVAGE_ASSIGN_OR_RETURN(
        const Bytes sealed,
        seal.Seal({.table = table, .column = column, .row = AsBytes(row)},
                  plain));
    write.reset();
    Bind(write, 1, sealed);
    write.bind(2, row);
    write.exec();
  }
  return OkStatus();
}

size_t SumOf(const std::string& layout) {
  size_t sum = 0;
  size_t number = 0;
  for (const char c : layout + ",") {
    if (c == ',') {
      sum += number;
      number = 0;
    } else {
      number = number * 10 + static_cast<size_t>(c - '0');
    }
  }
  return sum;
}

Status SealExamples(SQLite::Database& database, const ValueSeal& seal,
                    Time now) {
  std::vector<int64_t> ids;
  {
    SQLite::Statement query(database, "SELECT id FROM example ORDER BY id");
    while (query.executeStep()) ids.push_back(query.getColumn(0).getInt64());
  }
  SQLite::Statement read(
      database, "SELECT collection, layout, inputs FROM example WHERE id = ?");
  SQLite::Statement write(database,
                          "UPDATE example SET timestamp = ?, size = ?, inputs "
                          "= ? WHERE id = ?");
  for (const int64_t id : ids) {
    read.reset();
    read.bind(1, id);
    if (!read.executeStep()) continue;
    const std::string collection = read.getColumn(0).getString();
    const std::string layout = read.getColumn(1).getString();
    const Bytes inputs = BlobOf(read.getColumn(2));
    read.reset();
    if (inputs.size() != SumOf(layout)) {
      return DataLoss("example " + std::to_string(id) +
                      " does not have the size it was stored with");
    }
    SELVAGE_ASSIGN_OR_RETURN(
        const Bytes sealed,
        seal.Seal(PlaceOf(ExampleRow(id, collection, layout, now, true)),
                  inputs));
    write.reset();
    write.bind(1, ToMicros(now));
    write.bind(2, static_cast<int64_t>(inputs.size()));
    Bind(write, 3, sealed);
    write.bind(4, id);
    write.exec();
  }
  return OkStatus();
}

// Which work it belongs to stood in the session alone. Bytes that do not read
// are the driver's to refuse; the update then belongs to nothing.
Status SealOutbox(SQLite::Database& database, const ValueSeal& seal,
                  ByteSpan session_bytes) {
  SQLite::Statement read(database,
                         "SELECT assignment_id, digest, codec, weight, "
                         "metrics, payload FROM outbox_1");
  if (!read.executeStep()) return OkStatus();
  OutboxAbout about;
  const std::string assignment = read.getColumn(0).getString();
  SELVAGE_ASSIGN_OR_RETURN(
      about.digest, crypto::Digest::FromBytes(BlobOf(read.getColumn(1))));
  about.codec = read.getColumn(2).getInt();
  about.weight = static_cast<uint32_t>(read.getColumn(3).getInt64());
  about.metrics = BlobOf(read.getColumn(4));
  const Bytes payload = BlobOf(read.getColumn(5));
  const Result<Session> session = Session::Restore(session_bytes);
  if (session.ok() && session->work().assignment_id == assignment) {
    about.task = session->work().task;
    about.round = session->work().round;
    about.version = session->work().version;
    about.expires = session->work().upload_deadline;
  }
  SELVAGE_ASSIGN_OR_RETURN(
      const Bytes sealed_about,
      seal.Seal(OutboxPlace("about", assignment), EncodeAbout(about)));
  SELVAGE_ASSIGN_OR_RETURN(
      const Bytes sealed_payload,
      seal.Seal(OutboxPlace("payload", assignment), payload));
  SQLite::Statement write(database,
                          "INSERT INTO outbox (one, assignment_id, about, "
                          "payload) VALUES (1, ?, ?, ?)");
  write.bind(1, assignment);
  Bind(write, 2, sealed_about);
  Bind(write, 3, sealed_payload);
  write.exec();
  return OkStatus();
}

Status SealValues(SQLite::Database& database, const ValueSeal& seal,
                  ByteSpan wrapped_key, Time now) {
  Bytes session;
  {
    SQLite::Statement query(database,
                            "SELECT value FROM meta WHERE name = 'session'");
    if (query.executeStep()) session = BlobOf(query.getColumn(0));
  }
  SELVAGE_RETURN_IF_ERROR(SealOutbox(database, seal, session));
  for (const char* name : {kMetaSession, kMetaBundle}) {
    const std::optional<Bytes> plain = GetMeta(database, name);
    if (!plain.has_value()) continue;
    SELVAGE_ASSIGN_OR_RETURN(const Bytes sealed,
                             seal.Seal(MetaPlace(name), *plain));
    SetMeta(database, name, sealed);
  }
  SELVAGE_RETURN_IF_ERROR(SealExamples(database, seal, now));
  for (const char* column : {"personal_values", "alone_values", "global_scores",
                             "personal_scores"}) {
    SELVAGE_RETURN_IF_ERROR(
        SealColumn(database, seal, "model", column, "task"));
  }
  SELVAGE_RETURN_IF_ERROR(
      SealColumn(database, seal, "tensors", "master_values", "task"));
  SetMeta(database, kMetaWrappedKey, wrapped_key);
  return OkStatus();
}

constexpr std::array<Migration, 7> kMigrations = {
    Migration{.before = kMigration1, .values = nullptr, .after = ""},
    Migration{.before = kMigration2Before,
              .values = &SealValues,
              .after = kMigration2After},
    Migration{.before = kMigration3, .values = nullptr, .after = ""},
    Migration{.before = kMigration4, .values = nullptr, .after = ""},
    Migration{.before = kMigration5, .values = nullptr, .after = ""},
    Migration{.before = kMigration6, .values = nullptr, .after = ""},
    Migration{.before = kMigration7, .values = nullptr, .after = ""}};

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

Result<int> ClientSchemaVersion(SQLite::Database& database) {
  const int version = Pragma(database, "user_version");
  const int id = Pragma(database, "application_id");
  const auto newest = static_cast<int>(kMigrations.size());
  const bool empty = version == 0 && id == 0 && Describe(database).empty();
  if (empty) return 0;
  if (id != kClientApplicationId || version < 1) {
    return DataLoss("the file is no store of this library (application_id " +
                    std::to_string(id) + ", version " +
                    std::to_string(version) + ")");
  }
  if (version > newest) {
    return FailedPrecondition("the store has schema version " +
                              std::to_string(version) +
                              ", this library knows " + std::to_string(newest));
  }
  return version;
}

Status MigrateClientSchema(SQLite::Database& database, const ValueSeal& seal,
                           ByteSpan wrapped_key, Time now) {
  SELVAGE_ASSIGN_OR_RETURN(const int version, ClientSchemaVersion(database));
  const auto newest = static_cast<int>(kMigrations.size());
  if (version < newest) {
    SQLite::Transaction transaction(database,
                                    SQLite::TransactionBehavior::IMMEDIATE);
    for (int next = version; next < newest; ++next) {
      const Migration& migration = kMigrations[static_cast<size_t>(next)];
      database.exec(migration.before);
      if (migration.values != nullptr) {
        SELVAGE_RETURN_IF_ERROR(
            migration.values(database, seal, wrapped_key, now));
      }
      database.exec(migration.after);
    }
    database.exec("PRAGMA application_id = " +
                  std::to_string(kClientApplicationId));
    database.exec("PRAGMA user_version = " + std::to_string(newest));
    transaction.commit();
    // What lay open is overwritten in its pages; it must not stay in the log.
    database.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  }
  SQLite::Database wanted(":memory:",
                          SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE);
  for (const Migration& migration : kMigrations) {
    wanted.exec(migration.before);
    wanted.exec(migration.after);
  }
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

// A store as the first version of this library made it, values in the open:
// for tests of what becomes of it. Never changes.
#pragma once

#include <SQLiteCpp/SQLiteCpp.h>

#include <string>

#include "base/bytes.h"
#include "crypto/digest.h"

namespace selvage::test {

inline constexpr const char* kVersion1 = R"sql(
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

inline constexpr char kExampleCanary[] = "CANARY-EXAMPLE-BYTES";   // 20 bytes
inline constexpr char kTensorCanary[] = "CANARY-PERSONAL-TENSOR";  // 22
inline constexpr char kUpdateCanary[] = "CANARY-UPDATE-PAYLOAD";   // 21
inline constexpr char kSessionCanary[] = "CANARY-SESSION-STATE";   // 20
inline constexpr char kBundleCanary[] = "CANARY-BUNDLE-TOKEN";     // 19
inline constexpr const char* kCanaries[] = {kExampleCanary, kTensorCanary,
                                            kUpdateCanary, kSessionCanary,
                                            kBundleCanary};

// Ten examples of collection "numbers" with inputs of 20 and 1 bytes, a model
// with all slots, personal tensors, an update, a session and a bundle.
inline void MakeVersion1Store(const std::string& path, const std::string& vfs) {
  SQLite::Database db(path, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE, 0,
                      vfs);
  db.exec("PRAGMA journal_mode = WAL");
  db.exec("PRAGMA secure_delete = ON");
  SQLite::Transaction transaction(db);
  db.exec(kVersion1);
  db.exec("PRAGMA application_id = 1399617091");  // "SlvC"
  db.exec("PRAGMA user_version = 1");
  const auto put = [&](const std::string& sql, const std::string& a,
                       const std::string& b, const std::string& c) {
    SQLite::Statement insert(db, sql);
    int index = 1;
    for (const std::string& value : {a, b, c}) {
      if (index <= insert.getBindParameterCount()) {
        insert.bind(index++, value.data(), static_cast<int>(value.size()));
      }
    }
    insert.exec();
  };
  for (int i = 0; i < 10; ++i) {
    put("INSERT INTO example (collection, layout, inputs) VALUES "
        "('numbers', '20,1', ?)",
        std::string(kExampleCanary) + static_cast<char>('0' + i), "", "");
  }
  put("INSERT INTO meta VALUES ('session', ?)", kSessionCanary, "", "");
  put("INSERT INTO meta VALUES ('bundle', ?)", kBundleCanary, "", "");
  const crypto::Digest program = crypto::Sha256(AsBytes("program"));
  put("INSERT INTO artefact VALUES (?, ?)", std::string(AsText(program.span())),
      "program", "");
  put("INSERT INTO model VALUES ('digits', 3, '{}', ?, NULL, x'01020304', ?, "
      "?, 1, 4, x'000000000000e03f', x'000000000000f03f')",
      std::string(AsText(program.span())), kTensorCanary, kTensorCanary);
  put("INSERT INTO tensors VALUES ('digits', ?, ?)",
      std::string(AsText(program.span())), kTensorCanary, "");
  const crypto::Digest update = crypto::Sha256(AsBytes(kUpdateCanary));
  put("INSERT INTO outbox VALUES (1, 'a1', ?, 1, 12, x'', ?)",
      std::string(AsText(update.span())), kUpdateCanary, "");
  transaction.commit();
}

}  // namespace selvage::test

#include "coordinator/store/sqlite_schema.h"

namespace selvage::coordinator {
namespace {

// Times are microseconds since the Unix epoch. Digests and other bytes are
// lower-case hexadecimal, so that the database can be read with a shell. The
// numbers of states are those of the enums in coordinator/api.h and store.h.
constexpr Migration kMigrations[] = {
    {1, R"sql(
CREATE TABLE meta (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  instance_id TEXT NOT NULL,
  high_water INTEGER NOT NULL,
  certificates_issued INTEGER NOT NULL
) STRICT;

CREATE TABLE request (
  id TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  fingerprint TEXT NOT NULL,
  resource TEXT NOT NULL,
  created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE population (
  name TEXT PRIMARY KEY,
  created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE token (
  id TEXT PRIMARY KEY,
  population TEXT NOT NULL REFERENCES population (name),
  secret_digest TEXT NOT NULL,
  created INTEGER NOT NULL,
  expires INTEGER NOT NULL,
  uses_max INTEGER NOT NULL,
  uses INTEGER NOT NULL CHECK (uses BETWEEN 0 AND uses_max),
  revoked INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE device (
  population TEXT NOT NULL REFERENCES population (name),
  device_id TEXT NOT NULL,
  key_digest TEXT NOT NULL,
  token_id TEXT NOT NULL,
  certificate_pem TEXT NOT NULL,
  certificate_expires INTEGER NOT NULL,
  enrolled INTEGER NOT NULL,
  PRIMARY KEY (population, device_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE artefact (
  digest TEXT PRIMARY KEY,
  size INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE reference (
  population TEXT NOT NULL REFERENCES population (name),
  digest TEXT NOT NULL REFERENCES artefact (digest),
  PRIMARY KEY (population, digest)
) STRICT, WITHOUT ROWID;

CREATE TABLE task (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE,
  population TEXT NOT NULL REFERENCES population (name),
  state INTEGER NOT NULL,
  task_file TEXT NOT NULL,
  program_digest TEXT NOT NULL,
  plan_digest TEXT NOT NULL,
  plan_signature TEXT NOT NULL,
  initial_digest TEXT NOT NULL,
  created INTEGER NOT NULL,
  ended INTEGER NOT NULL,
  committed_rounds INTEGER NOT NULL,
  abandoned_rounds INTEGER NOT NULL,
  latest_version INTEGER NOT NULL,
  revision INTEGER NOT NULL
) STRICT;

CREATE TABLE version (
  task_id INTEGER NOT NULL REFERENCES task (id),
  version INTEGER NOT NULL,
  round INTEGER NOT NULL,
  checkpoint_digest TEXT NOT NULL REFERENCES artefact (digest),
  checkpoint_codec INTEGER NOT NULL,
  master_digest TEXT NOT NULL REFERENCES artefact (digest),
  created INTEGER NOT NULL,
  PRIMARY KEY (task_id, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE round (
  task_id INTEGER NOT NULL REFERENCES task (id),
  number INTEGER NOT NULL,
  state INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  base_version INTEGER NOT NULL,
  result_version INTEGER NOT NULL,
  opened INTEGER NOT NULL,
  ended INTEGER NOT NULL,
  reason TEXT NOT NULL,
  wrapped_key TEXT NOT NULL,
  checked_in INTEGER NOT NULL,
  bytes_up INTEGER NOT NULL,
  metrics TEXT NOT NULL,
  PRIMARY KEY (task_id, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE history (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  task_id INTEGER NOT NULL,
  number INTEGER NOT NULL,
  from_state INTEGER NOT NULL,
  to_state INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  at INTEGER NOT NULL,
  reason TEXT NOT NULL,
  FOREIGN KEY (task_id, number) REFERENCES round (task_id, number)
) STRICT;
CREATE INDEX history_round ON history (task_id, number);

CREATE TABLE assignment (
  id TEXT PRIMARY KEY,
  task_id INTEGER NOT NULL,
  number INTEGER NOT NULL,
  device_id TEXT NOT NULL,
  lease_deadline INTEGER NOT NULL,
  expires INTEGER NOT NULL,
  state INTEGER NOT NULL,
  reason TEXT NOT NULL,
  UNIQUE (task_id, number, device_id),
  FOREIGN KEY (task_id, number) REFERENCES round (task_id, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE partial (
  id TEXT PRIMARY KEY,
  task_id INTEGER NOT NULL,
  number INTEGER NOT NULL,
  update_count INTEGER NOT NULL,
  bytes_up INTEGER NOT NULL,
  FOREIGN KEY (task_id, number) REFERENCES round (task_id, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX partial_round ON partial (task_id, number);

-- An accepted update is its receipt: one per assignment, whatever happens.
CREATE TABLE receipt (
  assignment_id TEXT PRIMARY KEY REFERENCES assignment (id) ON DELETE CASCADE,
  digest TEXT NOT NULL,
  status INTEGER NOT NULL,
  reason INTEGER NOT NULL,
  message TEXT NOT NULL,
  partial_id TEXT NOT NULL,
  created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What is left of assignments that were pruned.
CREATE TABLE funnel (
  task_id INTEGER NOT NULL,
  number INTEGER NOT NULL,
  state INTEGER NOT NULL,
  reason TEXT NOT NULL,
  count INTEGER NOT NULL,
  PRIMARY KEY (task_id, number, state, reason)
) STRICT, WITHOUT ROWID;

CREATE TABLE report (
  population TEXT NOT NULL,
  device_id TEXT NOT NULL,
  report_id TEXT NOT NULL,
  created INTEGER NOT NULL,
  PRIMARY KEY (population, device_id, report_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE counter (
  population TEXT NOT NULL,
  name TEXT NOT NULL,
  value INTEGER NOT NULL,
  PRIMARY KEY (population, name)
) STRICT, WITHOUT ROWID;
)sql"},
    // What a server strategy remembers; '': nothing.
    {2, R"sql(
ALTER TABLE version ADD COLUMN server_state_digest TEXT NOT NULL DEFAULT '';
)sql"},
    // Evaluation: rounds that measure and make no version (mode 2), what a task
    // has shown so far, and scores on data sets of the server's.
    {3, R"sql(
ALTER TABLE task ADD COLUMN evaluated_rounds INTEGER NOT NULL DEFAULT 0;
ALTER TABLE task ADD COLUMN end_reason TEXT NOT NULL DEFAULT '';
ALTER TABLE task ADD COLUMN measured INTEGER NOT NULL DEFAULT 0;
ALTER TABLE task ADD COLUMN last_measured INTEGER NOT NULL DEFAULT 0;
ALTER TABLE task ADD COLUMN best_version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE task ADD COLUMN best_value REAL NOT NULL DEFAULT 0;
ALTER TABLE task ADD COLUMN reference REAL NOT NULL DEFAULT 0;
ALTER TABLE task ADD COLUMN stale INTEGER NOT NULL DEFAULT 0;
ALTER TABLE round ADD COLUMN mode INTEGER NOT NULL DEFAULT 1;
ALTER TABLE round ADD COLUMN class_metrics TEXT NOT NULL DEFAULT '';
ALTER TABLE assignment ADD COLUMN device_class TEXT NOT NULL DEFAULT '';

CREATE TABLE evaluation (
  task_id INTEGER NOT NULL,
  version INTEGER NOT NULL,
  data_set TEXT NOT NULL,
  data_digest TEXT NOT NULL,
  example_count INTEGER NOT NULL,
  created INTEGER NOT NULL,
  PRIMARY KEY (task_id, version, data_set),
  FOREIGN KEY (task_id, version) REFERENCES version (task_id, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE evaluation_metric (
  task_id INTEGER NOT NULL,
  version INTEGER NOT NULL,
  data_set TEXT NOT NULL,
  name TEXT NOT NULL,
  value REAL NOT NULL,
  PRIMARY KEY (task_id, version, data_set, name),
  FOREIGN KEY (task_id, version, data_set)
    REFERENCES evaluation (task_id, version, data_set)
) STRICT, WITHOUT ROWID;
)sql"},
    // Devices with identity keys; 0: the key is its certificate's.
    {4, R"sql(
ALTER TABLE device ADD COLUMN nonce_made INTEGER NOT NULL DEFAULT 0;
)sql"},
    // How a round's mean came about; '': nothing to say.
    {5, R"sql(
ALTER TABLE round ADD COLUMN figures TEXT NOT NULL DEFAULT '';
)sql"},
    // Several coordinators over one store: who drives a task, and who checked
    // in elsewhere. AUTOINCREMENT: a place in the queue is never used again.
    {6, R"sql(
CREATE TABLE claim (
  task_id INTEGER PRIMARY KEY REFERENCES task (id),
  holder TEXT NOT NULL,
  token INTEGER NOT NULL,
  expires INTEGER NOT NULL
) STRICT;

CREATE TABLE candidate (
  place INTEGER PRIMARY KEY AUTOINCREMENT,
  task_id INTEGER NOT NULL,
  number INTEGER NOT NULL,
  device_id TEXT NOT NULL,
  device_class TEXT NOT NULL,
  UNIQUE (task_id, number, device_id)
) STRICT;
)sql"},
};

}  // namespace

std::span<const Migration> Migrations() { return kMigrations; }

}  // namespace selvage::coordinator

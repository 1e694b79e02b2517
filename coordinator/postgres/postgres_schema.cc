#include "coordinator/postgres/postgres_schema.h"

namespace selvage::coordinator {
namespace {

// Times are microseconds since the Unix epoch. Digests and other bytes are
// lower-case hexadecimal, so that the database can be read with psql. The
// numbers of states are those of the enums in coordinator/api.h and store.h.
// Everything is in a schema of its own and named with it: a search_path would
// be state of the session. Text is compared byte by byte.
//
// Counters that many replicas add to have 32 rows each, summed on read.
// Fill factors leave room for an updated row on its page (HOT).
constexpr PostgresMigration kMigrations[] = {
    {1, R"sql(
CREATE SCHEMA IF NOT EXISTS selvage;

CREATE TABLE selvage.meta (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  instance_id TEXT NOT NULL
);

CREATE TABLE selvage.issued (
  shard INTEGER PRIMARY KEY,
  count BIGINT NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE selvage.request (
  id TEXT COLLATE "C" PRIMARY KEY,
  kind TEXT NOT NULL,
  fingerprint TEXT NOT NULL,
  resource TEXT NOT NULL,
  created BIGINT NOT NULL
);
CREATE INDEX request_created ON selvage.request (created);

CREATE TABLE selvage.population (
  name TEXT COLLATE "C" PRIMARY KEY,
  created BIGINT NOT NULL
);

CREATE TABLE selvage.token (
  id TEXT COLLATE "C" PRIMARY KEY,
  population TEXT COLLATE "C" NOT NULL REFERENCES selvage.population (name),
  secret_digest TEXT NOT NULL,
  created BIGINT NOT NULL,
  expires BIGINT NOT NULL,
  uses_max BIGINT NOT NULL,
  uses BIGINT NOT NULL CHECK (uses BETWEEN 0 AND uses_max),
  revoked INTEGER NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX token_population ON selvage.token (population, id);

CREATE TABLE selvage.device (
  population TEXT COLLATE "C" NOT NULL REFERENCES selvage.population (name),
  device_id TEXT COLLATE "C" NOT NULL,
  key_digest TEXT NOT NULL,
  token_id TEXT NOT NULL,
  certificate_pem TEXT NOT NULL,
  certificate_expires BIGINT NOT NULL,
  enrolled BIGINT NOT NULL,
  nonce_made BIGINT NOT NULL,
  PRIMARY KEY (population, device_id)
);

CREATE TABLE selvage.artefact (
  digest TEXT COLLATE "C" PRIMARY KEY,
  size BIGINT NOT NULL
);

CREATE TABLE selvage.reference (
  population TEXT COLLATE "C" NOT NULL REFERENCES selvage.population (name),
  digest TEXT COLLATE "C" NOT NULL REFERENCES selvage.artefact (digest),
  PRIMARY KEY (population, digest)
);

CREATE TABLE selvage.task (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name TEXT COLLATE "C" NOT NULL UNIQUE,
  population TEXT COLLATE "C" NOT NULL REFERENCES selvage.population (name),
  state INTEGER NOT NULL,
  task_file TEXT NOT NULL,
  program_digest TEXT NOT NULL,
  plan_digest TEXT NOT NULL,
  plan_signature TEXT NOT NULL,
  initial_digest TEXT NOT NULL,
  created BIGINT NOT NULL,
  ended BIGINT NOT NULL,
  committed_rounds BIGINT NOT NULL,
  abandoned_rounds BIGINT NOT NULL,
  latest_version BIGINT NOT NULL,
  revision BIGINT NOT NULL,
  evaluated_rounds BIGINT NOT NULL DEFAULT 0,
  end_reason TEXT NOT NULL DEFAULT '',
  measured BIGINT NOT NULL DEFAULT 0,
  last_measured BIGINT NOT NULL DEFAULT 0,
  best_version BIGINT NOT NULL DEFAULT 0,
  best_value DOUBLE PRECISION NOT NULL DEFAULT 0,
  reference DOUBLE PRECISION NOT NULL DEFAULT 0,
  stale BIGINT NOT NULL DEFAULT 0
) WITH (fillfactor = 70);

CREATE TABLE selvage.version (
  task_id BIGINT NOT NULL REFERENCES selvage.task (id),
  version BIGINT NOT NULL,
  round BIGINT NOT NULL,
  checkpoint_digest TEXT COLLATE "C" NOT NULL
    REFERENCES selvage.artefact (digest),
  checkpoint_codec INTEGER NOT NULL,
  master_digest TEXT COLLATE "C" NOT NULL REFERENCES selvage.artefact (digest),
  server_state_digest TEXT NOT NULL,
  created BIGINT NOT NULL,
  PRIMARY KEY (task_id, version)
);

CREATE TABLE selvage.evaluation (
  task_id BIGINT NOT NULL,
  version BIGINT NOT NULL,
  data_set TEXT COLLATE "C" NOT NULL,
  data_digest TEXT NOT NULL,
  example_count BIGINT NOT NULL,
  created BIGINT NOT NULL,
  PRIMARY KEY (task_id, version, data_set),
  FOREIGN KEY (task_id, version) REFERENCES selvage.version (task_id, version)
);

CREATE TABLE selvage.evaluation_metric (
  task_id BIGINT NOT NULL,
  version BIGINT NOT NULL,
  data_set TEXT COLLATE "C" NOT NULL,
  name TEXT COLLATE "C" NOT NULL,
  value DOUBLE PRECISION NOT NULL,
  PRIMARY KEY (task_id, version, data_set, name),
  FOREIGN KEY (task_id, version, data_set)
    REFERENCES selvage.evaluation (task_id, version, data_set)
);

CREATE TABLE selvage.round (
  task_id BIGINT NOT NULL REFERENCES selvage.task (id),
  number BIGINT NOT NULL,
  state INTEGER NOT NULL,
  epoch BIGINT NOT NULL,
  base_version BIGINT NOT NULL,
  result_version BIGINT NOT NULL,
  opened BIGINT NOT NULL,
  ended BIGINT NOT NULL,
  reason TEXT NOT NULL,
  wrapped_key TEXT NOT NULL,
  checked_in BIGINT NOT NULL,
  metrics TEXT NOT NULL,
  mode INTEGER NOT NULL,
  class_metrics TEXT NOT NULL,
  figures TEXT NOT NULL,
  PRIMARY KEY (task_id, number)
) WITH (fillfactor = 50);

CREATE TABLE selvage.round_bytes (
  task_id BIGINT NOT NULL,
  number BIGINT NOT NULL,
  shard INTEGER NOT NULL,
  bytes_up BIGINT NOT NULL,
  PRIMARY KEY (task_id, number, shard),
  FOREIGN KEY (task_id, number) REFERENCES selvage.round (task_id, number)
) WITH (fillfactor = 50);

CREATE TABLE selvage.history (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  task_id BIGINT NOT NULL,
  number BIGINT NOT NULL,
  from_state INTEGER NOT NULL,
  to_state INTEGER NOT NULL,
  epoch BIGINT NOT NULL,
  at BIGINT NOT NULL,
  reason TEXT NOT NULL,
  FOREIGN KEY (task_id, number) REFERENCES selvage.round (task_id, number)
);
CREATE INDEX history_round ON selvage.history (task_id, number, id);

CREATE TABLE selvage.assignment (
  id TEXT COLLATE "C" PRIMARY KEY,
  task_id BIGINT NOT NULL,
  number BIGINT NOT NULL,
  device_id TEXT COLLATE "C" NOT NULL,
  lease_deadline BIGINT NOT NULL,
  expires BIGINT NOT NULL,
  state INTEGER NOT NULL,
  reason TEXT COLLATE "C" NOT NULL,
  device_class TEXT NOT NULL,
  UNIQUE (task_id, number, device_id),
  FOREIGN KEY (task_id, number) REFERENCES selvage.round (task_id, number)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX assignment_expires ON selvage.assignment (expires);

CREATE TABLE selvage.partial (
  id TEXT COLLATE "C" PRIMARY KEY,
  task_id BIGINT NOT NULL,
  number BIGINT NOT NULL,
  update_count BIGINT NOT NULL,
  bytes_up BIGINT NOT NULL,
  FOREIGN KEY (task_id, number) REFERENCES selvage.round (task_id, number)
);
CREATE INDEX partial_round ON selvage.partial (task_id, number, id);

-- An accepted update is its receipt: one per assignment, whatever happens.
CREATE TABLE selvage.receipt (
  assignment_id TEXT COLLATE "C" PRIMARY KEY
    REFERENCES selvage.assignment (id) ON DELETE CASCADE,
  digest TEXT NOT NULL,
  status INTEGER NOT NULL,
  reason INTEGER NOT NULL,
  message TEXT NOT NULL,
  partial_id TEXT NOT NULL,
  created BIGINT NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02);

-- What is left of assignments that were pruned.
CREATE TABLE selvage.funnel (
  task_id BIGINT NOT NULL,
  number BIGINT NOT NULL,
  state INTEGER NOT NULL,
  reason TEXT COLLATE "C" NOT NULL,
  count BIGINT NOT NULL,
  PRIMARY KEY (task_id, number, state, reason)
);

CREATE TABLE selvage.report (
  population TEXT COLLATE "C" NOT NULL,
  device_id TEXT COLLATE "C" NOT NULL,
  report_id TEXT COLLATE "C" NOT NULL,
  created BIGINT NOT NULL,
  PRIMARY KEY (population, device_id, report_id)
) WITH (autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX report_created ON selvage.report (created);

CREATE TABLE selvage.counter (
  population TEXT COLLATE "C" NOT NULL,
  name TEXT COLLATE "C" NOT NULL,
  shard INTEGER NOT NULL,
  value BIGINT NOT NULL,
  PRIMARY KEY (population, name, shard)
) WITH (fillfactor = 50);
)sql"},
    // Several coordinators over one store: who drives a task, and who checked
    // in elsewhere.
    {2, R"sql(
CREATE TABLE selvage.claim (
  task_id BIGINT PRIMARY KEY REFERENCES selvage.task (id),
  holder TEXT NOT NULL,
  token BIGINT NOT NULL,
  expires BIGINT NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE selvage.candidate (
  place BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  task_id BIGINT NOT NULL,
  number BIGINT NOT NULL,
  device_id TEXT COLLATE "C" NOT NULL,
  device_class TEXT NOT NULL,
  UNIQUE (task_id, number, device_id)
) WITH (autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX candidate_place ON selvage.candidate (task_id, number, place);
)sql"},
    // The processes that have the database open.
    {3, R"sql(
CREATE TABLE selvage.replica (
  name TEXT COLLATE "C" PRIMARY KEY,
  session TEXT COLLATE "C" NOT NULL,
  shared INTEGER NOT NULL,
  keys TEXT NOT NULL,
  expires BIGINT NOT NULL
) WITH (fillfactor = 50);
)sql"},
};

}  // namespace

std::span<const PostgresMigration> PostgresMigrations() { return kMigrations; }

}  // namespace selvage::coordinator

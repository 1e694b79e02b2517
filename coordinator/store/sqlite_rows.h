// What the files of SqliteStore share: inserts that are part of several
// transactions.
#pragma once

#include <string>

#include "base/status.h"
#include "coordinator/store.h"

namespace SQLite {
class Database;
}

namespace selvage::coordinator {

// Nothing if the id is empty; ALREADY_EXISTS if it is taken.
Status InsertRequest(SQLite::Database& db, const RequestRow& request);
// NOT_FOUND.
Status RequirePopulation(SQLite::Database& db, const std::string& name);
// Nothing if it is there already.
Status InsertArtefact(SQLite::Database& db, const crypto::Digest& digest,
                      uint64_t size);
Status InsertReference(SQLite::Database& db, const std::string& population,
                       const crypto::Digest& digest);
Status InsertVersion(SQLite::Database& db, const VersionRow& row);
// Nothing if there is none.
void StoreProgress(SQLite::Database& db, uint64_t task_id,
                   const std::optional<TaskProgress>& progress);
// The task's state, end and reason.
void StoreFinished(SQLite::Database& db, uint64_t task_id, Time at,
                   const std::string& reason);
// Moves the round to `to` with a row of history; if `to` is terminal, also
// notes the end and overwrites the round key.
Status MoveRound(SQLite::Database& db, const RoundRow& round, RoundState to,
                 Time at, const std::string& reason);
// The round, or NOT_FOUND.
Status ReadRound(SQLite::Database& db, const RoundKey& key, RoundRow& row);

}  // namespace selvage::coordinator

// What the files of SqliteStore share: inserts that are part of several
// transactions.
#pragma once

#include <string>

#include "base/status.h"
#include "coordinator/store.h"

namespace selvage::coordinator {

class SqliteConnection;

// Nothing if the id is empty; ALREADY_EXISTS if it is taken.
Status InsertRequest(SqliteConnection& db, const RequestRow& request);
// NOT_FOUND.
Status RequirePopulation(SqliteConnection& db, const std::string& name);
// Nothing if it is there already.
Status InsertArtefact(SqliteConnection& db, const crypto::Digest& digest,
                      uint64_t size);
Status InsertReference(SqliteConnection& db, const std::string& population,
                       const crypto::Digest& digest);
Status InsertVersion(SqliteConnection& db, const VersionRow& row);
// Nothing if there is none.
void StoreProgress(SqliteConnection& db, uint64_t task_id,
                   const std::optional<TaskProgress>& progress);
// The task's state, end and reason.
void StoreFinished(SqliteConnection& db, uint64_t task_id, Time at,
                   const std::string& reason);
// Moves the round to `to` with a row of history; if `to` is terminal, also
// notes the end and overwrites the round key.
Status MoveRound(SqliteConnection& db, const RoundRow& round, RoundState to,
                 Time at, const std::string& reason);
// The round, or NOT_FOUND.
Status ReadRound(SqliteConnection& db, const RoundKey& key, RoundRow& row);

}  // namespace selvage::coordinator

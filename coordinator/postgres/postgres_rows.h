// What the files of PostgresStore share. Rows are locked in this order: task,
// round, assignments by id.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <utility>

#include "base/status.h"
#include "coordinator/postgres/postgres_sql.h"
#include "coordinator/store.h"

namespace selvage::coordinator {

// Of a counter with 32 rows, one at random, the same for the whole statement.
inline constexpr char kRandomShard[] = "(SELECT floor(random() * 32)::int)";

// Nothing if the id is empty; ALREADY_EXISTS if it is taken.
Status InsertRequest(Connection& db, const RequestRow& request);
// NOT_FOUND.
Status RequirePopulation(Connection& db, const std::string& name);
// Nothing of what is there already.
void InsertArtefacts(
    Connection& db,
    std::span<const std::pair<crypto::Digest, uint64_t>> artefacts);
void InsertReferences(Connection& db, const std::string& population,
                      std::span<const crypto::Digest> digests);
void InsertVersion(Connection& db, const VersionRow& row);
// Nothing if there is none.
void StoreProgress(Connection& db, uint64_t task_id,
                   const std::optional<TaskProgress>& progress);
// The task's state, end and reason.
void StoreFinished(Connection& db, uint64_t task_id, Time at,
                   const std::string& reason);
// Locks the row against other writers until the transaction ends. Nothing if
// there is no such task.
void LockTask(Connection& db, uint64_t task_id);
enum class RoundLock { kNone, kForUpdate };
// The round, or NOT_FOUND.
Status ReadRound(Connection& db, const RoundKey& key, RoundLock lock,
                 RoundRow& row);
// Moves the round, which is locked, to `to` with a row of history and a
// NOTIFY; if `to` is terminal, also notes the end and overwrites the round key.
void MoveRound(Connection& db, const RoundRow& round, RoundState to, Time at,
               const std::string& reason);

}  // namespace selvage::coordinator

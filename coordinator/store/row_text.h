// How stores name rows in errors, and rules that every store shares.
#pragma once

#include <string>

#include "base/random.h"
#include "coordinator/store.h"

namespace selvage::coordinator {

inline std::string Text(const RoundKey& key) {
  return "round " + std::to_string(key.number) + " of task " +
         std::to_string(key.task_id);
}
inline bool IsOpen(RoundState state) {
  return state == RoundState::kSelecting || state == RoundState::kCollecting;
}
inline bool IsTerminal(RoundState state) {
  return state == RoundState::kCommitted || state == RoundState::kAbandoned;
}
// The device may still send an update for it.
inline bool IsPending(AssignmentState state) {
  return state == AssignmentState::kLeased ||
         state == AssignmentState::kExpired;
}
inline Status RequestTaken(const std::string& id) {
  return AlreadyExists("request id " + id + " was used before");
}
inline Status StaleEpoch(const RoundLease& lease, uint64_t current) {
  return Aborted(Text(lease.key) + " is held at epoch " +
                 std::to_string(current) + ", not " +
                 std::to_string(lease.epoch));
}
inline Status StaleClaim(uint64_t task_id, uint64_t token) {
  return Aborted("the claim of task " + std::to_string(task_id) +
                 " is not the one with token " + std::to_string(token) +
                 " any more");
}
inline Status WrongState(const RoundKey& key, RoundState is,
                         RoundState wanted) {
  return Aborted(Text(key) + " is " + std::string(RoundStateName(is)) +
                 ", not " + std::string(RoundStateName(wanted)));
}
inline Status RoundClosed(const RoundKey& key, RoundState is) {
  return FailedPrecondition(Text(key) + " takes no more updates: it is " +
                            std::string(RoundStateName(is)));
}
inline Status TokenRefused(const std::string& id) {
  return FailedPrecondition("enrolment token " + id +
                            " is unknown, revoked, expired or used up");
}
inline Status WrongRevision(const std::string& task, uint64_t is,
                            uint64_t wanted) {
  return Aborted("task " + task + " is at revision " + std::to_string(is) +
                 ", not " + std::to_string(wanted));
}
inline Status NoVersion(uint64_t task_id, uint64_t version) {
  return NotFound("task " + std::to_string(task_id) + " has no version " +
                  std::to_string(version));
}
inline Status EvaluationExists(const EvaluationRow& row) {
  return AlreadyExists("version " + std::to_string(row.version) +
                       " has an evaluation on data set " + row.data_set);
}
inline std::string NewInstanceId(RandomSource& random) {
  Bytes raw(8);
  random.Fill(raw);
  return ToHex(raw);
}

// Of an older state that was put back (docs/decisions/0013).
inline constexpr char kRestoredReason[] = "an older state was restored";
inline std::string InstanceIdOfEpoch(const std::string& instance_id,
                                     const std::string& epoch) {
  return instance_id.substr(0, instance_id.find('.')) + "." + epoch;
}
// Nobody ends a thousand rounds a second: numbers that were given out, since
// the backup or after any earlier restore, are below this one.
inline uint64_t FirstNumberAfterRestore(Time at) {
  return static_cast<uint64_t>(ToMicros(at) / 1000);
}

}  // namespace selvage::coordinator

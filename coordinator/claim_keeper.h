// Renews the claims of a coordinator whose worker is busy for long: to apply a
// large round may take longer than a claim lasts. Only while a turn of the
// worker runs, and not longer than one may take: a worker that hangs loses its
// claims, and so does a process that is stopped.
#pragma once

#include <map>
#include <string>

#include "base/mutex.h"
#include "base/time.h"
#include "coordinator/store.h"

namespace selvage::coordinator {

// Thread-safe. A call may wait for one of the store's.
class ClaimKeeper {
 public:
  ClaimKeeper(Store& store, Duration claim_ttl, Duration turn_max)
      : store_(store), claim_ttl_(claim_ttl), turn_max_(turn_max) {}

  // The worker's turn; what it got and what it gave back or lost.
  void BeginTurn() SELVAGE_EXCLUDES(mu_);
  void EndTurn() SELVAGE_EXCLUDES(mu_);
  void Hold(const TaskClaim& claim) SELVAGE_EXCLUDES(mu_);
  void Drop(uint64_t task_id) SELVAGE_EXCLUDES(mu_);

  // Renews what would end within two thirds of its time. To be called at least
  // three times per claim_ttl. What another process has taken is dropped.
  void Renew() SELVAGE_EXCLUDES(mu_);

 private:
  Store& store_;
  const Duration claim_ttl_;
  const Duration turn_max_;
  Mutex mu_;
  std::map<uint64_t, TaskClaim> held_ SELVAGE_GUARDED_BY(mu_);
  bool in_turn_ SELVAGE_GUARDED_BY(mu_) = false;
  Time turn_began_ SELVAGE_GUARDED_BY(mu_){};
};

}  // namespace selvage::coordinator

#include "coordinator/claim_keeper.h"

#include <utility>

namespace selvage::coordinator {

void ClaimKeeper::BeginTurn() {
  const Time now = store_.Now();
  MutexLock lock(mu_);
  in_turn_ = true;
  turn_began_ = now;
}

void ClaimKeeper::EndTurn() {
  MutexLock lock(mu_);
  in_turn_ = false;
}

void ClaimKeeper::Hold(const TaskClaim& claim) {
  MutexLock lock(mu_);
  held_[claim.task_id] = claim;
}

void ClaimKeeper::Drop(uint64_t task_id) {
  MutexLock lock(mu_);
  held_.erase(task_id);
}

void ClaimKeeper::Renew() {
  // Held over the store's calls, so that nothing is renewed after Drop().
  MutexLock lock(mu_);
  if (!in_turn_) return;
  for (auto it = held_.begin(); it != held_.end();) {
    TaskClaim& claim = it->second;
    const Time now = store_.Now();
    if (now - turn_began_ > turn_max_) return;
    if (now < claim.expires - claim_ttl_ * 2 / 3) {
      ++it;
      continue;
    }
    Result<TaskClaim> renewed =
        store_.ClaimTask(claim.task_id, claim.holder, claim_ttl_);
    // No answer: perhaps next time.
    if (!renewed.ok()) return;
    if (renewed->holder == claim.holder && renewed->token == claim.token) {
      claim = *std::move(renewed);
      ++it;
      continue;
    }
    // Another process had it meanwhile, and the worker's turn is for nothing,
    // as it will find out. What was claimed anew just now is not its doing.
    if (renewed->holder == claim.holder) {
      static_cast<void>(store_.ReleaseTask(*renewed));
    }
    it = held_.erase(it);
  }
}

}  // namespace selvage::coordinator

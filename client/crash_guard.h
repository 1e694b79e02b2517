// The crash ledger of an open client: durable before the risky work begins.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/mutex.h"
#include "base/status.h"
#include "base/time.h"
#include "client/core/crash_ledger.h"
#include "client/store/client_store.h"

namespace selvage::client {

// Thread-safe.
class CrashGuard {
 public:
  // Ended when it goes out of scope; an empty one guards nothing.
  class Scope {
   public:
    Scope() = default;
    Scope(CrashGuard* guard, RiskyWork work, const crypto::Digest& what)
        : guard_(guard), work_(work), what_(what) {}
    Scope(Scope&& other) noexcept
        : guard_(other.guard_), work_(other.work_), what_(other.what_) {
      other.guard_ = nullptr;
    }
    Scope& operator=(Scope&& other) noexcept {
      std::swap(guard_, other.guard_);
      std::swap(work_, other.work_);
      std::swap(what_, other.what_);
      return *this;
    }
    ~Scope() {
      if (guard_ != nullptr) guard_->End(work_, what_);
    }

   private:
    CrashGuard* guard_ = nullptr;
    RiskyWork work_ = RiskyWork::kTraining;
    crypto::Digest what_;
  };

  // All must outlive the guard. A ledger that cannot be read is set aside with
  // an event. Errors: the store's.
  static Result<std::unique_ptr<CrashGuard>> Open(ClientStore& store,
                                                  Clock& clock,
                                                  EventSink& events);

  // What the last process left behind, to be made durable together with the
  // session (SessionChange::crashes); nullopt if it ended well.
  struct Death {
    Bytes ledger;
    std::vector<std::string> counters;  // "crashed", "training_paused"
  };
  std::optional<Death> CountDeath(bool session_died) SELVAGE_EXCLUDES(mu_);

  // Durable when it returns. Errors: the store's; the work must not begin.
  Result<Scope> Begin(RiskyWork work, const crypto::Digest& what)
      SELVAGE_EXCLUDES(mu_);
  // The same only on a device that died lately: where something else was
  // written down already, and this only says more exactly what it was.
  Result<Scope> BeginIfWary(RiskyWork work, const crypto::Digest& what)
      SELVAGE_EXCLUDES(mu_);

  bool IsPutAside(const crypto::Digest& what) SELVAGE_EXCLUDES(mu_);
  std::optional<Time> PausedUntil() SELVAGE_EXCLUDES(mu_);
  // "training is paused until 2026-03-01T12:00:00Z after repeated crashes";
  // OK if it is not.
  Status CheckNotPaused() SELVAGE_EXCLUDES(mu_);
  void TrainingSurvived() SELVAGE_EXCLUDES(mu_);
  // A checkpoint that is further than the last one is durable.
  void TrainingProgressed() SELVAGE_EXCLUDES(mu_);

 private:
  CrashGuard(ClientStore& store, Clock& clock, EventSink& events)
      : store_(store), clock_(clock), events_(events) {}
  void End(RiskyWork work, const crypto::Digest& what) SELVAGE_EXCLUDES(mu_);
  // Writes the ledger if it changed.
  Status Save() SELVAGE_REQUIRES(mu_);

  ClientStore& store_;
  Clock& clock_;
  EventSink& events_;
  Mutex mu_;
  CrashLedger ledger_ SELVAGE_GUARDED_BY(mu_);
  Bytes saved_ SELVAGE_GUARDED_BY(mu_);  // what the store has
};

}  // namespace selvage::client

// Runs the session machine: makes its state durable, does what it says, tells
// it what came of it. One session at most per Run().
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/log.h"
#include "base/random.h"
#include "base/status.h"
#include "base/time.h"
#include "client/client.h"
#include "client/core/session.h"
#include "client/crash_guard.h"
#include "client/device_identity.h"
#include "client/model_host.h"
#include "client/round_trainer.h"
#include "client/run_policy.h"
#include "client/store/blob_cache.h"
#include "client/store/client_store.h"
#include "client/work_loader.h"

namespace selvage::client {

// All must outlive the driver.
struct SessionParts {
  const ClientOptions& options;
  const ClientDependencies& deps;
  ClientStore& store;
  BlobCache& cache;
  DeviceIdentity& identity;
  ModelHost& host;
  CrashGuard& guard;
  uint64_t holdout_salt = 0;
};

// Thread-compatible. Between sessions it keeps the connection.
class SessionDriver {
 public:
  // Goes on with the session that the store remembers. What it cannot
  // understand is set aside with an event, and the session starts anew. If the
  // process before this one died at work, that is counted.
  static Result<std::unique_ptr<SessionDriver>> Create(SessionParts parts);

  RunOutcome Run(const RunBudget& budget, const CancelToken& cancel);

  // Forgets what the store and this session learned from the owner, in one
  // transaction, and gives open work back at the next session.
  Status Withdraw(const ForgetOptions& options);

 private:
  explicit SessionDriver(SessionParts parts)
      : parts_(parts),
        loader_(parts.cache, parts.options.population),
        policy_(parts.options, parts.deps, parts.store) {}

  Time Now() const { return parts_.deps.clock.Now(); }
  // True once the host wants its device back.
  bool Stopped() { return policy_.Stopped(); }
  Transport::KeepGoing KeepGoingUntil(Time deadline);
  SessionEvent Interrupted(bool progressed = false);
  void Tell(Phase phase, uint64_t step = 0, uint64_t steps = 0);

  // A pause of training, as the host sees it: nothing to do, and why.
  void TellPause(RunOutcome& outcome);
  std::optional<WorkRefused> RefusedByPause();
  Status Save(const Session& next, const SessionAction& action);
  SessionEvent Perform(const SessionAction& action);
  SessionEvent Enroll();
  SessionEvent CheckIn();
  SessionEvent Fetch();
  SessionEvent Train();
  // A checkpoint of the training is durable: its deaths so far are forgiven.
  void TrainingProgressed();
  SessionEvent Upload();
  SessionEvent Abandon(const SessionAction& action);
  SessionEvent Personalize(const SessionAction& action);
  Status Renew();
  void RenewIfNeeded();
  void ReportIfDue();

  // As the device it gets itself a certificate first if its own is over.
  Result<Transport*> Connect(bool as_device);
  // The keys that may sign plans here.
  std::vector<crypto::Ed25519PublicKey> PlanKeys() const;
  // What this device's host has against a plan: its floor, its budget, its
  // consent. From then on the plan's conditions are the session's.
  std::optional<WorkRefused> CheckPlan(const plan::Plan& plan);
  bool Consents(const plan::Plan& plan, bool upload);
  // The artefacts of the current work, fetched if they are not in memory, and
  // its plan checked in this session.
  std::optional<SessionEvent> EnsureLoaded();
  // The same for the plan alone.
  std::optional<SessionEvent> EnsurePlanChecked();
  SessionEvent FailedOrInterrupted(Status status);

  const SessionParts parts_;
  WorkLoader loader_;
  Session session_;
  Bytes saved_;  // what the store has

  std::unique_ptr<Transport> transport_;
  bool transport_is_device_ = false;
  bool answered_ = false;  // the coordinator, in this session
  std::string pause_;      // why training was refused in this session

  RunPolicy policy_;

  // Of this Run().
  bool plan_checked_ = false;  // of the current work
  bool over_uploads_ = false;  // work was refused: no more uploads today
  uint64_t memory_estimate_ = 0;

  // Of the current work; only in memory.
  std::optional<VerifiedWork> loaded_;
  std::optional<OutboxEntry> outbox_;
  std::optional<PersonalTensors> tensors_;
  std::optional<ResidualChange> residual_;
  // Of the last answer, until the session that heard of them is durable.
  std::vector<AssignmentOutcome> outcomes_;
  // The store may have a checkpoint of a training.
  bool has_training_ = true;
};

}  // namespace selvage::client

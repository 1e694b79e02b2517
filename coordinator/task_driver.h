// Runs one task: the imperative shell around its current Round.
//
// RPC threads ask (Wants, DoorOf); the worker hands in what happened and calls
// Advance(), which steps the machine, makes what it decided durable (all
// assignments of one call in one transaction), and only then answers. The mutex
// guards the machine's memory and is never held during I/O.
//
// Several coordinators (options.replicas.shared): the one that holds the task's
// claim drives it as above. The others follow: their Round mirrors the store,
// they commit the uploads they get and hand the devices they see to the driver
// as candidates; they decide nothing. Both poll (task_driver_replicas.cc).
//
// Crash-only: after any store or disk error the machine is thrown away and
// built again from the store, by the code that runs after a restart.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "coordinator/claim_keeper.h"
#include "coordinator/options.h"
#include "coordinator/outcome_cache.h"
#include "coordinator/pace.h"
#include "coordinator/round.h"
#include "coordinator/round_result.h"
#include "coordinator/task_definition.h"
#include "coordinator/telemetry.h"
#include "coordinator/tickets.h"
#include "coordinator/upload_batch.h"
#include "coordinator/upload_ingest.h"

namespace selvage::coordinator {

// What a device said of itself when it checked in.
struct DeviceTraits {
  std::string device_class;
  bool evaluates = false;  // may be given an evaluation
};

using CheckInCallback = std::function<void(Result<CheckInAnswer>)>;

class TaskDriver {
 public:
  // What all drivers share. All of it outlives them.
  struct Context {
    const CoordinatorOptions& options;
    const CoordinatorDependencies& deps;
    const Tickets& tickets;
    OutcomeCache& outcomes;
    // Streams of a task whose bytes are still arriving.
    std::function<size_t(uint64_t task_id)> active_streams;
    // For the sums of their rounds.
    ByteBudget& sums_room;
    PaceSteering& pace;
    // This one's name among the coordinators over the store; empty: the only
    // one.
    std::string replica = {};
    ClaimKeeper* claims = nullptr;  // with a replica's name: not null
  };

  TaskDriver(const Context& context, TaskRow row,
             std::shared_ptr<const TaskDefinition> definition);

  uint64_t task_id() const { return task_id_; }
  const std::shared_ptr<const TaskDefinition>& definition() const {
    return definition_;
  }

  // ---------------------------------------------------------- any thread
  // False: a check-in of this device would change nothing.
  bool Wants(const std::string& device, const DeviceTraits& traits) const
      SELVAGE_EXCLUDES(mu_);
  // It has an assignment of the open round, and has not ended it.
  bool Holds(const std::string& device) const SELVAGE_EXCLUDES(mu_);
  // What a draw waits for.
  Gathering gathering() const SELVAGE_EXCLUDES(mu_);
  UploadSink::Door DoorOf(uint64_t round) const SELVAGE_EXCLUDES(mu_);
  // Devices the open round has seen so far.
  uint64_t CheckInCount(uint64_t round) const SELVAGE_EXCLUDES(mu_);

  // -------------------------------------------------------------- worker
  // Nothing is answered before Advance().
  void OnCheckIn(const DeviceIdentity& device, DeviceTraits traits,
                 CheckInAnswer answer, CheckInCallback done);
  void OnUpload(VerifiedUpload upload);
  void OnEvent(uint64_t round, const RoundEvent& event);
  void OnGaveUp(uint64_t round, const std::string& device,
                const std::string& assignment_id, AbandonReason reason);
  // Another coordinator may have changed its round.
  void OnHint() { next_sync_ = Time{}; }
  // The store has stopped the task.
  void OnStopped();

  // Brings the task into memory, or back into it. DATA_LOSS if its round key
  // cannot be unwrapped.
  Status Recover(Time now);
  // Everything that is due. `drain`: flush at once, there is no next time.
  void Advance(Time now, bool drain);
  // In the past if Advance() has work.
  Time NextDeadline() const;
  // True once after anything changed that a watcher can see.
  bool TakeChanged() { return std::exchange(changed_, false); }
  bool ended() const { return ended_; }
  bool idle() const { return batch_.empty() && check_ins_.empty(); }
  // Answers whatever still waits: UNAVAILABLE.
  void Shutdown();

 private:
  struct WaitingCheckIn {
    DeviceIdentity device;
    DeviceTraits traits;
    CheckInAnswer answer;
    CheckInCallback done;
    CheckInVerdict verdict = CheckInVerdict::kNothing;
  };
  struct WaitingEvent {
    uint64_t round = 0;
    RoundEvent event;
  };
  struct WaitingGaveUp {
    uint64_t round = 0;
    std::string device;
    Store::AssignmentChange change;
  };

  // The machine's turn. What it decides goes to actions_.
  void Step(const RoundEvent& event, Time now);
  // Makes actions_ durable, in order.
  Status Persist(Time now);
  Status PersistState(const EnterState& enter, Time now);
  Status PersistAssignments(std::vector<AssignmentRow>& rows);
  Status PersistExpiries(std::vector<Store::AssignmentChange>& changes);

  // ----------------------------------------------- several coordinators
  bool shared() const { return !context_.replica.empty(); }
  // Every options.replicas.poll: who drives, and what the others did.
  Status Sync(Time now, bool drain);
  Status Claim(Time now);
  // ABORTED unless the claim is still the one that made this the driver. What
  // was read before (an epoch) is fenced off by any later claim.
  Status ConfirmClaim();
  // The driver: updates and refusals recorded elsewhere, candidates.
  Status Hear(Time now);
  // A follower: the open round as the store has it.
  Status Mirror();
  Status Follow(Time now, bool drain);
  // The driver, when it leaves: the next one need not wait.
  void GiveBackClaim();

  // What follows the rounds that have ended: a round, or the task's end.
  Status OpenNext(uint64_t number, bool after_training, Time now);
  Status OpenRound(uint64_t number, RoundMode mode, Time now);
  // How the round is to be run; what others did before may decide.
  Result<RoundConfig> ConfigOf(uint64_t number, RoundMode mode);
  // Asynchronous tasks: there are no rounds to be late for, only versions that
  // an update is behind.
  bool asynchronous() const {
    return definition_->spec.strategy.asynchronous.enabled;
  }
  // The round that made this assignment of the current round.
  uint64_t OriginOf(const AssignmentRow& assignment) const;
  RoundKey OriginOf(const Round::Member& member) const;
  // When an update for a lease that ends then comes too late.
  Time UploadEnd(Time lease_deadline) const;
  // The base version of an earlier round, or of this one.
  Result<uint64_t> BaseOf(uint64_t round);
  // What goes on from the round before to one of `base`: its assignments in
  // `row`, the devices in the result.
  Result<std::map<std::string, Round::Member>> CarryOver(RoundRow& row,
                                                         Time now);
  // Whether what happened to an assignment that `origin` made is about this
  // round.
  bool Concerns(uint64_t origin, const RoundEvent& event) const;
  Status FinishTask(const std::string& reason, Time now);
  Status RestoreRound(const RoundRow& row);
  Status HandleEvents(Time now);
  Status HandleCheckIns(Time now);
  bool FlushIsDue(Time now, bool drain) const;
  Status Flush(Time now);
  Status HandleDeadline(Time now);
  // CLOSING and APPLYING: from partials to a committed version.
  Status Finish(Time now);
  Status Commit(Time now);
  Status FinishEvaluation(Time now);
  // The task's progress after a round with these metrics of its base version.
  std::optional<TaskProgress> ProgressAfter(
      const aggregation::MetricSums& metrics) const;
  // Of a round that has ended, for the devices that ask.
  void RememberOutcome(const RoundKey& key, RoundState state);
  // After COMMITTED or ABANDONED: the partials' blobs go.
  Status EndRound(Time now);

  // The task has ended: nothing will be taken or handed out any more.
  void End();
  // The store and the machine may differ: forget the machine.
  void Lose(const Status& why, Time now);
  void AnswerCheckIns(Time now);
  void AnswerUploads(std::vector<PendingAnswer> answers);
  // An error of the store.
  Result<Assignment> AssignmentFor(const DeviceIdentity& device, Time now);
  RetryWindow CandidateWindow() const;
  // round_ as the worker, the only thread that changes it, may read it.
  const std::optional<Round>& round() const
      SELVAGE_TSA(no_thread_safety_analysis) {
    return round_;
  }
  void SetRound(std::optional<Round> round) SELVAGE_EXCLUDES(mu_);

  // -------------------------------------------------------- telemetry
  // All do nothing where nobody watches. From now on this round is told of. It
  // has `assigned` assignments; unless this one drove it all the time, somebody
  // else has told of them.
  void WatchRound(uint64_t assigned);
  // How the current round stands.
  void TellRound();
  // How the watched round ended, if it has; once, by whoever drove it then.
  void TellEnd();

  const Context context_;
  const uint64_t task_id_;
  const std::shared_ptr<const TaskDefinition> definition_;

  // Worker only.
  TaskRow row_;
  VersionRow base_;   // of the current round
  RoundLease lease_;  // likewise
  RoundState durable_state_ = RoundState::kSelecting;
  crypto::SecretBytes round_key_{0};
  std::vector<std::string> partials_;  // sealed blobs of the current round
  // Classes of the devices of an evaluation round, by device id.
  std::map<std::string, std::string> classes_;
  std::optional<RoundContent> content_;  // between CLOSING and the commit
  // Of an asynchronous task: base versions of rounds, by number, and the
  // devices whose updates were arriving when the last round ended.
  std::map<uint64_t, uint64_t> bases_;
  std::set<std::string> uploading_;
  std::vector<RoundAction> actions_;
  std::vector<WaitingCheckIn> check_ins_;
  std::vector<WaitingEvent> events_;
  std::vector<WaitingGaveUp> gave_up_;
  UploadBatch batch_;
  RunningSums sums_;    // of the current round
  Time retry_at_{};     // after Lose()
  bool drives_ = true;  // the rest is for several coordinators
  TaskClaim claim_;
  Time next_sync_{};
  std::string pulse_;                // of the round as it was read last
  uint64_t candidates_read_ = 0;     // by the driver: a place in the queue
  std::set<std::string> announced_;  // by a follower: candidates in the queue
  bool changed_ = true;
  bool ended_ = false;
  // The round whose end is to be told, and the token of the claim it is driven
  // by.
  struct Watched {
    RoundLease lease;
    uint64_t claim = 0;
  };
  std::optional<Watched> watched_;
  uint64_t issued_ = 0;  // its assignments that were told of
  RoundView told_;       // last

  mutable Mutex mu_;
  std::optional<Round> round_ SELVAGE_GUARDED_BY(mu_);
  uint64_t last_ended_ SELVAGE_GUARDED_BY(mu_) = 0;  // round number
  bool closed_ SELVAGE_GUARDED_BY(mu_) = false;      // ended_, for any thread
};

}  // namespace selvage::coordinator

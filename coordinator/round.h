// One synchronous round, as a state machine with no I/O.
//
//                the draw              goal, or deadline          sums merged
//                                      with >= min_updates
//   SELECTING -----------> COLLECTING --------------> CLOSING ---> APPLYING
//       |                      |                         |            |    |
//       | deadline, stop       | deadline below the      | failed     |    |
//       |                      | minimum, stop           |     failed |    |
//       v                      v                         v            |    |
//   ABANDONED <----------------+-------------------------+------------+    |
//                                                                          |
//   COMMITTED <------------------------------------- version committed ----+
//
// (UNMASKING, between CLOSING and APPLYING, belongs to secure aggregation: the
// enum has it, no round enters it yet.)
//
// Selection: who checks in during SELECTING is a candidate and comes back soon.
// The draw happens when `available_min` candidates are there, or when the
// selection window is over and `min_updates` are: candidates sorted by device
// id, shuffled by (task seed, round number), the first `slot_count` get a slot.
// So with available_min = all devices and no losses, a round's participants are
// a function of (seed, device ids, round). The others are sent home; from then
// on any device that checks in while a slot is free takes it.
//
// A slot is a lease: it ends at its compute deadline unless an upload began.
// An expired lease frees the slot, yet an update of it still counts while the
// round is open. One device has at most one assignment, so with at most
// `update_max` assignments no sum can exceed its bound.
//
// A round of an asynchronous task (RoundConfig::buffered) is the buffer of one
// version: it has no draw, whoever checks in while a slot is free takes it, and
// an update frees its slot at once. Its members at the beginning are those that
// were at work when the version before was made; their leases outlive rounds.
//
// An evaluation round runs the same way: its updates are evaluations, what is
// merged are metrics, and its commit makes no version.
//
// Round decides; it does not act. Step() takes what happened and the time, and
// returns what the owner must do next. It reads no clock, takes no lock, draws
// no unseeded number and touches no disk.
//
// Thread-compatible: the owner serialises calls.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/status.h"
#include "base/time.h"
#include "coordinator/api.h"

namespace selvage::coordinator {

struct RoundConfig {
  uint64_t number = 0;  // from 1
  RoundMode mode = RoundMode::kTrain;
  uint64_t seed = 0;    // the task's
  uint32_t cohort = 0;  // the goal: updates
  uint32_t min_updates = 0;
  // Leases and updates at a time; >= cohort. Buffered: leases.
  uint32_t slot_count = 0;
  uint32_t available_min = 0;  // candidates before the draw; >= slot_count
  // Assignments at most; >= slot_count. Buffered: >= slot_count + cohort.
  uint64_t update_max = 0;
  bool buffered = false;  // no draw: available_min means nothing
  Duration selection_window{};
  Duration compute_deadline{};  // of a lease, from its assignment
  Duration round_deadline{};    // from the opening

  // INVALID_ARGUMENT names field, value and bound.
  Status Validate() const;
};

// What happened.
struct CheckedIn {
  std::string device;
};
struct UploadBegan {  // its bytes are arriving: do not expire the lease
  std::string device;
};
struct UploadBroke {  // the stream ended without a whole update
  std::string device;
};
struct UpdatesAccepted {  // their sum is durable
  std::vector<std::string> devices;
};
struct UpdateRefused {  // a recorded rejection: this device is done
  std::string device;
};
struct GaveUp {  // the device abandoned its assignment
  std::string device;
};
struct Tick {};  // look at the deadlines
struct SumsMerged {};
struct VersionCommitted {};
struct Failed {  // stopped by a person, or the result cannot be used
  std::string reason;
};
using RoundEvent = std::variant<CheckedIn, UploadBegan, UploadBroke,
                                UpdatesAccepted, UpdateRefused, GaveUp, Tick,
                                SumsMerged, VersionCommitted, Failed>;

// What the owner must do, in this order. Assign, Expire and EnterState must be
// durable before anything later in the list, and before a device hears of it.
struct Assign {  // a new assignment, or an expired one's new lease
  std::string device;
  Time lease_deadline{};
};
struct Expire {
  std::string device;
};
struct EnterState {
  RoundState state = RoundState::kSelecting;
  std::string reason;  // of kAbandoned
};
enum class CheckInVerdict {
  kAssigned,   // holds a lease
  kCandidate,  // come back soon
  kNothing,    // come back as usual
};
struct AnswerCheckIn {
  std::string device;
  CheckInVerdict verdict = CheckInVerdict::kNothing;
};
using RoundAction = std::variant<Assign, Expire, EnterState, AnswerCheckIn>;

// After an upload broke, the device has this long to resume before its lease
// is judged again.
inline constexpr Duration kResumeGrace = std::chrono::seconds(60);

class Round {
 public:
  // A member of the round: a device with an assignment.
  enum class MemberState { kLeased, kUploading, kExpired, kAccepted, kDone };
  struct Member {
    MemberState state = MemberState::kLeased;
    Time lease_deadline{};
    uint64_t origin = 0;  // the round that made its assignment; 0: this one
  };

  // INVALID_ARGUMENT if `config` is not valid.
  static Result<Round> Create(const RoundConfig& config, Time now);

  // A round as it was before a restart, or with the members that go on from the
  // one before. `state` must not be terminal; a kUploading member whose stream
  // is gone is to be given as kLeased. Candidates are not kept: they check in
  // again.
  static Result<Round> Restore(const RoundConfig& config, Time opened,
                               RoundState state,
                               std::map<std::string, Member> members);

  // Applies one event that happened at `now`. Duplicate, late and unknown
  // devices are normal on a network and never fail.
  // REQUIRES: now is not earlier than in the previous call.
  std::vector<RoundAction> Step(const RoundEvent& event, Time now);

  RoundState state() const { return state_; }
  bool open() const {  // updates are accepted
    return state_ == RoundState::kSelecting ||
           state_ == RoundState::kCollecting;
  }
  bool finished() const {
    return state_ == RoundState::kCommitted || state_ == RoundState::kAbandoned;
  }
  // When the owner should next call Step(Tick{}); kNever while it is the
  // owner's turn (CLOSING, APPLYING) or the end.
  Time NextDeadline() const;

  // False: a check-in of this device would change nothing and be answered
  // kNothing.
  bool Wants(const std::string& device) const;
  // nullptr: no assignment.
  const Member* Find(const std::string& device) const;

  const std::map<std::string, Member>& members() const { return members_; }
  const RoundConfig& config() const { return config_; }
  Time opened() const { return opened_; }
  Time deadline() const { return opened_ + config_.round_deadline; }
  uint64_t accepted() const { return accepted_; }
  // Devices with an assignment, whatever became of it.
  uint64_t assigned() const { return members_.size(); }
  // Updates wanted before the goal; 0 once it is reached.
  uint64_t missing() const {
    return accepted_ < config_.cohort ? config_.cohort - accepted_ : 0;
  }
  // Different devices that checked in since Create() or Restore().
  uint64_t checked_in() const { return seen_.size(); }

 private:
  using Actions = std::vector<RoundAction>;

  Round(const RoundConfig& config, Time opened)
      : config_(config), opened_(opened), last_step_(opened) {}

  void OnEvent(const CheckedIn& e, Time now, Actions& actions);
  void OnEvent(const UploadBegan& e, Time now, Actions& actions);
  void OnEvent(const UploadBroke& e, Time now, Actions& actions);
  void OnEvent(const UpdatesAccepted& e, Time now, Actions& actions);
  void OnEvent(const UpdateRefused& e, Time now, Actions& actions);
  void OnEvent(const GaveUp& e, Time now, Actions& actions);
  void OnEvent(const Tick& e, Time now, Actions& actions);
  void OnEvent(const SumsMerged& e, Time now, Actions& actions);
  void OnEvent(const VersionCommitted& e, Time now, Actions& actions);
  void OnEvent(const Failed& e, Time now, Actions& actions);

  bool DrawIsDue(Time now) const;
  void Draw(Time now, Actions& actions);
  bool HasFreeSlot() const { return taken_ < config_.slot_count; }
  void Lease(const std::string& device, Time now, Actions& actions);
  void ExpireLeases(Time now, Actions& actions);
  // Frees what the device holds for good, if it still can send an update.
  void Settle(const std::string& device);
  // Whether the member holds one of the slots.
  bool HoldsSlot(MemberState state) const {
    return state == MemberState::kLeased || state == MemberState::kUploading ||
           (state == MemberState::kAccepted && !config_.buffered);
  }
  // When a lease of now, or one whose upload broke, ends at the latest.
  Time LeaseEnd(Time wanted) const {
    return config_.buffered ? wanted : std::min(wanted, deadline());
  }
  // The only function that assigns Member::state of an existing member.
  void SetMember(Member& member, MemberState next);

  // The only function that assigns state_; checks the move is on the diagram.
  void Enter(RoundState next, std::string reason, Actions& actions);
  void CheckInvariants() const;

  RoundConfig config_;
  Time opened_;
  Time last_step_;
  RoundState state_ = RoundState::kSelecting;
  std::map<std::string, Member> members_;  // ordered: sorted by device id
  std::set<std::string> seen_;  // who checked in; the candidates of the draw
  uint64_t taken_ = 0;          // slots held
  uint64_t accepted_ = 0;
};

}  // namespace selvage::coordinator

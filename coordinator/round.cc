#include "coordinator/round.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/random.h"

namespace selvage::coordinator {
namespace {

std::string Count(uint64_t n) { return std::to_string(n); }

}  // namespace

Status RoundConfig::Validate() const {
  if (number == 0) return InvalidArgument("number must be positive");
  if (min_updates == 0) return InvalidArgument("min_updates must be positive");
  if (cohort < min_updates) {
    return InvalidArgument("cohort (" + Count(cohort) +
                           ") is below min_updates (" + Count(min_updates) +
                           ")");
  }
  if (buffered) {
    if (slot_count == 0) return InvalidArgument("slot_count must be positive");
    if (update_max < uint64_t{slot_count} + cohort) {
      return InvalidArgument("update_max (" + Count(update_max) +
                             ") is below slot_count + cohort (" +
                             Count(uint64_t{slot_count} + cohort) + ")");
    }
  } else if (slot_count < cohort) {
    return InvalidArgument("slot_count (" + Count(slot_count) +
                           ") is below cohort (" + Count(cohort) + ")");
  }
  if (!buffered && available_min < slot_count) {
    return InvalidArgument("available_min (" + Count(available_min) +
                           ") is below slot_count (" + Count(slot_count) + ")");
  }
  if (update_max < slot_count) {
    return InvalidArgument("update_max (" + Count(update_max) +
                           ") is below slot_count (" + Count(slot_count) + ")");
  }
  if (selection_window <= Duration::zero() ||
      compute_deadline <= Duration::zero() ||
      round_deadline <= Duration::zero()) {
    return InvalidArgument(
        "selection_window, compute_deadline and round_deadline must be "
        "positive");
  }
  return OkStatus();
}

Result<Round> Round::Create(const RoundConfig& config, Time now) {
  SELVAGE_RETURN_IF_ERROR(config.Validate());
  return Round(config, now);
}

Result<Round> Round::Restore(const RoundConfig& config, Time opened,
                             RoundState state,
                             std::map<std::string, Member> members) {
  SELVAGE_RETURN_IF_ERROR(config.Validate());
  Round round(config, opened);
  round.state_ = state;
  round.members_ = std::move(members);
  for (const auto& [device, member] : round.members_) {
    round.seen_.insert(device);
    if (round.HoldsSlot(member.state)) ++round.taken_;
    if (member.state == MemberState::kAccepted) ++round.accepted_;
  }
  if (round.finished()) {
    return FailedPrecondition("round " + Count(config.number) + " has ended: " +
                              std::string(RoundStateName(state)));
  }
  return round;
}

std::vector<RoundAction> Round::Step(const RoundEvent& event, Time now) {
  SELVAGE_CHECK(now >= last_step_);
  last_step_ = now;
  Actions actions;
  if (state_ == RoundState::kSelecting && !members_.empty()) {
    // Restored between the durable draw and the durable change of state.
    Enter(RoundState::kCollecting, "", actions);
  }
  std::visit([&](const auto& e) { OnEvent(e, now, actions); }, event);
  CheckInvariants();
  return actions;
}

void Round::OnEvent(const CheckedIn& e, Time now, Actions& actions) {
  const auto answer = [&](CheckInVerdict verdict) {
    actions.push_back(AnswerCheckIn{e.device, verdict});
  };
  if (!open() || now >= deadline()) return answer(CheckInVerdict::kNothing);
  seen_.insert(e.device);
  if (config_.buffered && state_ == RoundState::kSelecting) {
    Enter(RoundState::kCollecting, "", actions);
  }
  if (DrawIsDue(now)) Draw(now, actions);
  if (state_ == RoundState::kSelecting) {
    return answer(CheckInVerdict::kCandidate);
  }
  const auto it = members_.find(e.device);
  const bool may_take_slot = it == members_.end()
                                 ? members_.size() < config_.update_max
                                 : it->second.state == MemberState::kExpired;
  if (may_take_slot && HasFreeSlot()) {
    Lease(e.device, now, actions);
    return answer(CheckInVerdict::kAssigned);
  }
  const bool holds_lease =
      it != members_.end() && (it->second.state == MemberState::kLeased ||
                               it->second.state == MemberState::kUploading);
  answer(holds_lease ? CheckInVerdict::kAssigned : CheckInVerdict::kNothing);
}

void Round::OnEvent(const UploadBegan& e, Time, Actions&) {
  const auto it = members_.find(e.device);
  if (it == members_.end() || it->second.state != MemberState::kLeased) return;
  SetMember(it->second, MemberState::kUploading);
}

void Round::OnEvent(const UploadBroke& e, Time now, Actions&) {
  const auto it = members_.find(e.device);
  if (it == members_.end() || it->second.state != MemberState::kUploading) {
    return;
  }
  SetMember(it->second, MemberState::kLeased);
  it->second.lease_deadline =
      LeaseEnd(std::max(it->second.lease_deadline, now + kResumeGrace));
}

void Round::OnEvent(const UpdatesAccepted& e, Time, Actions& actions) {
  if (!open()) return;
  for (const std::string& device : e.devices) {
    const auto it = members_.find(device);
    if (it == members_.end() || it->second.state == MemberState::kAccepted ||
        it->second.state == MemberState::kDone) {
      continue;
    }
    SetMember(it->second, MemberState::kAccepted);
  }
  if (accepted_ >= config_.cohort) Enter(RoundState::kClosing, "", actions);
}

void Round::OnEvent(const UpdateRefused& e, Time, Actions&) {
  Settle(e.device);
}

void Round::OnEvent(const GaveUp& e, Time, Actions&) { Settle(e.device); }

void Round::OnEvent(const Tick&, Time now, Actions& actions) {
  if (!open()) return;
  if (accepted_ >= config_.cohort) {
    // Restored between the durable update that was the last and the close.
    return Enter(RoundState::kClosing, "", actions);
  }
  if (now < deadline()) {
    ExpireLeases(now, actions);
    if (DrawIsDue(now)) Draw(now, actions);
    return;
  }
  const bool evaluates = config_.mode == RoundMode::kEvaluate;
  const std::string least =
      (evaluates ? "min_devices is " : "min_updates is ") +
      Count(config_.min_updates);
  if (accepted_ >= config_.min_updates) {
    Enter(RoundState::kClosing, "", actions);
  } else if (members_.empty()) {
    Enter(RoundState::kAbandoned,
          "only " + Count(seen_.size()) + " devices checked in before the " +
              "round deadline, " + least,
          actions);
  } else {
    Enter(RoundState::kAbandoned,
          "only " + Count(accepted_) +
              (evaluates ? " evaluations" : " updates") +
              " arrived before the round deadline, " + least,
          actions);
  }
}

void Round::OnEvent(const SumsMerged&, Time, Actions& actions) {
  if (state_ != RoundState::kClosing) return;
  Enter(RoundState::kApplying, "", actions);
}

void Round::OnEvent(const VersionCommitted&, Time, Actions& actions) {
  if (state_ != RoundState::kApplying) return;
  Enter(RoundState::kCommitted, "", actions);
}

void Round::OnEvent(const Failed& e, Time, Actions& actions) {
  if (finished()) return;
  Enter(RoundState::kAbandoned, e.reason, actions);
}

bool Round::DrawIsDue(Time now) const {
  if (config_.buffered) return false;
  if (state_ != RoundState::kSelecting || !members_.empty()) return false;
  const bool window_over = now >= opened_ + config_.selection_window;
  return seen_.size() >= config_.available_min ||
         (window_over && seen_.size() >= config_.min_updates);
}

void Round::Draw(Time now, Actions& actions) {
  std::vector<std::string> order(seen_.begin(), seen_.end());  // sorted
  SeededRandom random(DeriveSeed(config_.seed, "selection", config_.number));
  Shuffle(order, random);
  const size_t drawn = std::min<size_t>(order.size(), config_.slot_count);
  for (size_t i = 0; i < drawn; ++i) Lease(order[i], now, actions);
  Enter(RoundState::kCollecting, "", actions);
}

void Round::Lease(const std::string& device, Time now, Actions& actions) {
  const Time until = LeaseEnd(now + config_.compute_deadline);
  const auto [it, is_new] =
      members_.try_emplace(device, Member{MemberState::kLeased, until});
  if (is_new) {
    ++taken_;
  } else {
    SetMember(it->second, MemberState::kLeased);
    it->second.lease_deadline = until;
  }
  actions.push_back(Assign{device, until});
}

void Round::ExpireLeases(Time now, Actions& actions) {
  for (auto& [device, member] : members_) {
    if (member.state != MemberState::kLeased || now < member.lease_deadline) {
      continue;
    }
    SetMember(member, MemberState::kExpired);
    actions.push_back(Expire{device});
  }
}

void Round::Settle(const std::string& device) {
  const auto it = members_.find(device);
  if (it == members_.end() || it->second.state == MemberState::kAccepted ||
      it->second.state == MemberState::kDone) {
    return;
  }
  SetMember(it->second, MemberState::kDone);
}

void Round::SetMember(Member& member, MemberState next) {
  if (HoldsSlot(member.state)) --taken_;
  if (HoldsSlot(next)) ++taken_;
  if (next == MemberState::kAccepted) ++accepted_;
  SELVAGE_CHECK(member.state != MemberState::kAccepted &&
                member.state != MemberState::kDone);
  member.state = next;
}

Time Round::NextDeadline() const {
  if (!open()) return kNever;
  if (accepted_ >= config_.cohort) return opened_;
  Time next = deadline();
  if (state_ == RoundState::kSelecting && !config_.buffered &&
      seen_.size() >= config_.min_updates) {
    next = std::min(next, opened_ + config_.selection_window);
  }
  for (const auto& [device, member] : members_) {
    if (member.state == MemberState::kLeased) {
      next = std::min(next, member.lease_deadline);
    }
  }
  return next;
}

bool Round::Wants(const std::string& device) const {
  if (!open()) return false;
  if (state_ == RoundState::kSelecting && !config_.buffered) return true;
  const auto it = members_.find(device);
  if (it == members_.end()) {
    return HasFreeSlot() && members_.size() < config_.update_max;
  }
  switch (it->second.state) {
    case MemberState::kLeased:
    case MemberState::kUploading:
      return true;
    case MemberState::kExpired:
      return HasFreeSlot();
    case MemberState::kAccepted:
    case MemberState::kDone:
      return false;
  }
  return false;
}

const Round::Member* Round::Find(const std::string& device) const {
  const auto it = members_.find(device);
  return it == members_.end() ? nullptr : &it->second;
}

void Round::Enter(RoundState next, std::string reason, Actions& actions) {
  const bool on_diagram =
      (next == RoundState::kCollecting && state_ == RoundState::kSelecting) ||
      (next == RoundState::kClosing && state_ == RoundState::kCollecting) ||
      (next == RoundState::kApplying && state_ == RoundState::kClosing) ||
      (next == RoundState::kCommitted && state_ == RoundState::kApplying) ||
      (next == RoundState::kAbandoned && !finished());
  SELVAGE_CHECK(on_diagram);
  state_ = next;
  actions.push_back(EnterState{next, std::move(reason)});
}

void Round::CheckInvariants() const {
  SELVAGE_CHECK(members_.size() <= config_.update_max);
  SELVAGE_CHECK(accepted_ <= members_.size());
  SELVAGE_CHECK(taken_ <= members_.size());
  SELVAGE_CHECK(config_.buffered || accepted_ <= taken_);
  // Nothing below the minimum ever becomes a model.
  const bool past_collecting = state_ == RoundState::kClosing ||
                               state_ == RoundState::kApplying ||
                               state_ == RoundState::kCommitted;
  SELVAGE_CHECK(!past_collecting || accepted_ >= config_.min_updates);
  SELVAGE_CHECK(state_ != RoundState::kUnmasking);
}

}  // namespace selvage::coordinator

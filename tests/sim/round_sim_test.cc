// Thousands of rounds on virtual time, each from a seed: devices that vanish,
// come back late, send twice, break off, give up. A checker outside the machine
// judges safety (I1, I2, I4, I5) and liveness bounded in virtual time.
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <queue>
#include <set>

#include <gtest/gtest.h>

#include "base/random.h"
#include "coordinator/round.h"

namespace selvage::coordinator {
namespace {

// A SELVAGE_CHECK aborts without gtest's output, so the seed is said here too.
volatile uint64_t current_seed = 0;
extern "C" void SayTheSeed(int) {
  std::fprintf(stderr, "aborted at seed %llu\n",
               static_cast<unsigned long long>(current_seed));
}

struct Outcome {
  bool committed = false;
  bool refilled = false;
  bool expired = false;
  bool late = false;
  bool resumed = false;
  bool buffered = false;
};

class Simulation {
 public:
  explicit Simulation(uint64_t seed)
      : random_(seed),
        config_(DrawConfig(random_, seed)),
        round_(*Round::Create(config_, now_)) {
    loss_ = UniformUnit(random_) * 0.5;
    duplicate_ = UniformUnit(random_) * 0.3;
    break_ = UniformUnit(random_) * 0.3;
    refuse_ = UniformUnit(random_) * 0.1;
    const auto extra = UniformBelow(random_, 6);
    device_count_ = UniformUnit(random_) < 0.9
                        ? config_.available_min + extra
                        : UniformBelow(random_, config_.available_min + 1);
    for (uint64_t i = 0; i < device_count_; ++i) {
      const std::string device = "d" + std::to_string(i);
      Later(UpTo(config_.selection_window * 3 / 2), CheckedIn{device});
    }
    ScheduleTick();
  }

  Outcome Run() {
    const Time latest_finish =
        Time{} + config_.round_deadline + std::chrono::seconds(1);
    while (!round_.finished()) {
      EXPECT_FALSE(queue_.empty()) << "nothing left to happen";
      if (queue_.empty()) return outcome_;
      const Scheduled next = queue_.top();
      queue_.pop();
      now_ = next.at;
      EXPECT_LE(now_, latest_finish);  // liveness, bounded in virtual time
      if (now_ > latest_finish) return outcome_;
      Happen(next.event);
      if (std::holds_alternative<Tick>(next.event)) tick_at_ = kNever;
      ScheduleTick();
    }
    // What still arrives changes nothing any more.
    const RoundState end = round_.state();
    for (; !queue_.empty(); queue_.pop()) {
      now_ = queue_.top().at;
      Happen(queue_.top().event);
      EXPECT_EQ(round_.state(), end);
    }
    outcome_.committed = round_.state() == RoundState::kCommitted;
    outcome_.buffered = config_.buffered && outcome_.committed;
    CheckEnd();
    return outcome_;
  }
  std::vector<std::string> participants() const {
    return {assigned_.begin(), assigned_.end()};
  }

 private:
  struct Scheduled {
    Time at;
    uint64_t sequence = 0;
    RoundEvent event;
    bool operator<(const Scheduled& other) const {
      return std::pair(at, sequence) > std::pair(other.at, other.sequence);
    }
  };

  static RoundConfig DrawConfig(RandomSource& random, uint64_t seed) {
    RoundConfig config;
    config.number = 1 + UniformBelow(random, 5);
    config.seed = seed;
    config.min_updates = static_cast<uint32_t>(1 + UniformBelow(random, 4));
    config.cohort =
        config.min_updates + static_cast<uint32_t>(UniformBelow(random, 4));
    config.slot_count =
        config.cohort + static_cast<uint32_t>(UniformBelow(random, 3));
    config.available_min =
        config.slot_count + static_cast<uint32_t>(UniformBelow(random, 5));
    config.update_max = config.slot_count + UniformBelow(random, 12);
    if (seed % 3 == 0) {  // the buffer of an asynchronous task
      config.buffered = true;
      config.slot_count =
          1 + static_cast<uint32_t>(UniformBelow(random, config.cohort + 3));
      config.update_max =
          config.slot_count + config.cohort + UniformBelow(random, 12);
    }
    config.round_deadline = std::chrono::seconds(200);
    config.compute_deadline = std::chrono::seconds(100);
    config.selection_window =
        std::chrono::seconds(10 + UniformBelow(random, 60));
    return config;
  }

  Duration UpTo(Duration most) {
    return Duration(static_cast<int64_t>(
        UniformBelow(random_, static_cast<uint64_t>(most.count()) + 1)));
  }
  bool Chance(double p) { return UniformUnit(random_) < p; }
  void Later(Duration delay, RoundEvent event) {
    queue_.push({now_ + delay, sequence_++, std::move(event)});
  }

  // What the machine's owner does: look at the clock when it is asked to.
  void ScheduleTick() {
    const Time next = std::max(now_, round_.NextDeadline());
    if (next == kNever || next >= tick_at_) return;
    tick_at_ = next;
    Later(next - now_, Tick{});
  }

  void Happen(const RoundEvent& event) {
    const RoundState before = round_.state();
    const bool was_open = round_.open();
    if (const auto* accepted = std::get_if<UpdatesAccepted>(&event)) {
      // The store accepts a receipt once, and only while the round is open.
      if (!was_open) {
        outcome_.late = true;
        return;
      }
      const std::string& device = accepted->devices.front();
      if (settled_.contains(device)) return;
      settled_.insert(device);
      acknowledged_.insert(device);
    }
    if (const auto* refused = std::get_if<UpdateRefused>(&event)) {
      if (!settled_.insert(refused->device).second) return;
    }
    if (const auto* gave_up = std::get_if<GaveUp>(&event)) {
      if (!settled_.insert(gave_up->device).second) return;
    }
    for (const RoundAction& action : round_.Step(event, now_)) {
      std::visit([&](const auto& a) { Do(a); }, action);
    }
    // Nothing but actions changes the state.
    EXPECT_EQ(last_state_, round_.state()) << RoundStateName(before);
    EXPECT_EQ(round_.accepted(), acknowledged_.size());
  }

  void Do(const Assign& assign) {
    EXPECT_TRUE(round_.checked_in() > 0);
    if (config_.buffered) {
      EXPECT_EQ(assign.lease_deadline, now_ + config_.compute_deadline);
    } else {
      EXPECT_LE(assign.lease_deadline, Time{} + config_.round_deadline);
    }
    CheckSlots();
    EXPECT_FALSE(settled_.contains(assign.device));
    if (last_state_ == RoundState::kCollecting) outcome_.refilled = true;
    assigned_.insert(assign.device);
    EXPECT_LE(assigned_.size(), config_.update_max);
  }
  void Do(const Expire& expire) {
    EXPECT_TRUE(assigned_.contains(expire.device));
    EXPECT_FALSE(settled_.contains(expire.device));
    outcome_.expired = true;
  }
  void Do(const EnterState& enter) {
    EXPECT_LT(static_cast<int>(last_state_), static_cast<int>(enter.state));
    last_state_ = enter.state;
    if (enter.state == RoundState::kClosing) Later(UpTo(kWork), SumsMerged{});
    if (enter.state == RoundState::kApplying) {
      if (Chance(0.05)) {
        Later(UpTo(kWork), Failed{"not finite"});
      } else {
        Later(UpTo(kWork), VersionCommitted{});
      }
    }
    EXPECT_EQ(enter.state == RoundState::kAbandoned, !enter.reason.empty());
  }
  void Do(const AnswerCheckIn& answer) {
    const std::string& device = answer.device;
    switch (answer.verdict) {
      case CheckInVerdict::kCandidate:
        Later(std::chrono::seconds(1) + UpTo(std::chrono::seconds(4)),
              CheckedIn{device});
        return;
      case CheckInVerdict::kNothing:
        if (round_.open()) {
          Later(std::chrono::seconds(5) + UpTo(std::chrono::seconds(30)),
                CheckedIn{device});
        }
        return;
      case CheckInVerdict::kAssigned:
        EXPECT_TRUE(assigned_.contains(device));
        if (!at_work_.insert(device).second) return;
        Work(device);
    }
  }
  // Never more at work than there are slots.
  void CheckSlots() {
    uint32_t held = 0;
    for (const auto& [device, member] : round_.members()) {
      const bool at_work = member.state == Round::MemberState::kLeased ||
                           member.state == Round::MemberState::kUploading;
      const bool counted = member.state == Round::MemberState::kAccepted;
      held += at_work || (counted && !config_.buffered) ? 1 : 0;
    }
    EXPECT_LE(held, config_.slot_count);
  }
  void Work(const std::string& device) {
    if (Chance(loss_)) {  // vanishes; perhaps it turns up again
      at_work_.erase(device);
      if (Chance(0.5)) Later(UpTo(config_.round_deadline), CheckedIn{device});
      return;
    }
    if (Chance(0.05)) {
      Later(UpTo(config_.compute_deadline), GaveUp{device});
      return;
    }
    Duration delay = UpTo(config_.compute_deadline * 5 / 4);
    Later(delay, UploadBegan{device});
    while (Chance(break_)) {
      outcome_.resumed = true;
      delay += UpTo(std::chrono::seconds(20));
      Later(delay, UploadBroke{device});
      delay += UpTo(std::chrono::seconds(40));
      Later(delay, UploadBegan{device});
    }
    delay += UpTo(std::chrono::seconds(5));
    if (Chance(refuse_)) {
      Later(delay, UpdateRefused{device});
      return;
    }
    Later(delay, UpdatesAccepted{{device}});
    while (Chance(duplicate_)) {
      Later(delay + UpTo(std::chrono::seconds(50)), UpdatesAccepted{{device}});
    }
  }

  void CheckEnd() {
    if (round_.state() == RoundState::kCommitted) {
      EXPECT_GE(acknowledged_.size(), config_.min_updates);
    }
    for (const std::string& device : acknowledged_) {
      EXPECT_TRUE(assigned_.contains(device));
    }
  }

  static constexpr Duration kWork = std::chrono::milliseconds(100);

  SeededRandom random_;
  Time now_{};
  const RoundConfig config_;
  Round round_;
  std::priority_queue<Scheduled> queue_;
  Time tick_at_ = kNever;  // the next Tick in the queue
  uint64_t sequence_ = 0;
  uint64_t device_count_ = 0;
  double loss_ = 0, duplicate_ = 0, break_ = 0, refuse_ = 0;

  RoundState last_state_ = RoundState::kSelecting;
  std::set<std::string> assigned_;
  std::set<std::string> at_work_;
  std::set<std::string> settled_;  // has a receipt, or gave up
  std::set<std::string> acknowledged_;
  Outcome outcome_;
};

TEST(RoundSimTest, ManySeeds_SafeAndLive) {
  std::signal(SIGABRT, SayTheSeed);
  uint64_t seeds = 3000;
  if (const char* wanted = std::getenv("SELVAGE_SIM_SEEDS")) {
    seeds = std::strtoull(wanted, nullptr, 10);
  }
  std::map<std::string, uint64_t> seen;
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    current_seed = seed;
    SCOPED_TRACE("seed " + std::to_string(seed));
    const Outcome outcome = Simulation(seed).Run();
    ++seen[outcome.committed ? "committed" : "abandoned"];
    seen["refilled"] += outcome.refilled ? 1 : 0;
    seen["expired"] += outcome.expired ? 1 : 0;
    seen["late"] += outcome.late ? 1 : 0;
    seen["resumed"] += outcome.resumed ? 1 : 0;
    seen["buffered"] += outcome.buffered ? 1 : 0;
    if (HasFailure()) break;
  }
  std::signal(SIGABRT, SIG_DFL);
  // A simulator that never reaches a state tests nothing.
  for (const char* what : {"committed", "abandoned", "refilled", "expired",
                           "late", "resumed", "buffered"}) {
    EXPECT_GT(seen[what], seeds / 50) << what;
    RecordProperty(what, static_cast<int>(seen[what]));
  }
}

TEST(RoundSimTest, SameSeed_SameHistory) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    Simulation a(seed);
    Simulation b(seed);
    EXPECT_EQ(a.Run().committed, b.Run().committed);
    EXPECT_EQ(a.participants(), b.participants());
  }
}

// With available_min = all devices, who takes part is a function of seed,
// device ids and round: not of the order of arrival.
TEST(RoundSimTest, Participants_DoNotDependOnArrival) {
  RoundConfig config;
  config.seed = 42;
  config.cohort = 10;
  config.min_updates = 8;
  config.slot_count = 10;
  config.available_min = 30;
  config.update_max = 40;
  config.round_deadline = std::chrono::seconds(300);
  config.compute_deadline = std::chrono::seconds(150);
  config.selection_window = std::chrono::seconds(150);
  std::vector<std::string> devices;
  for (int i = 0; i < 30; ++i) devices.push_back("d" + std::to_string(i));
  std::map<std::string, int> times;
  for (uint64_t number = 1; number <= 60; ++number) {
    config.number = number;
    std::set<std::string> first;
    for (uint64_t arrival = 0; arrival < 3; ++arrival) {
      SeededRandom random(number * 10 + arrival);
      Shuffle(devices, random);
      Round round = *Round::Create(config, Time{});
      std::set<std::string> drawn;
      for (const std::string& device : devices) {
        for (const RoundAction& action :
             round.Step(CheckedIn{device}, Time{})) {
          if (const auto* assign = std::get_if<Assign>(&action)) {
            drawn.insert(assign->device);
          }
        }
      }
      ASSERT_EQ(drawn.size(), 10u);
      if (arrival == 0) first = drawn;
      EXPECT_EQ(drawn, first);
    }
    for (const std::string& device : first) ++times[device];
  }
  // Uniform: everybody about 20 of 60 times.
  EXPECT_EQ(times.size(), 30u);
  for (const auto& [device, count] : times) {
    EXPECT_GT(count, 6) << device;
    EXPECT_LT(count, 36) << device;
  }
}

}  // namespace
}  // namespace selvage::coordinator

// Judges a run from its histories alone: what devices were answered, what the
// coordinator's rows say happened, and what the model holds. It shares no code
// with what it judges. The invariants are those of the project's reliability
// page: I1 (exactly once), I2 (single commit), I4 (monotone states), I5
// (minimum cohort), I11 (idempotency).
//
// The model is the one-hot oracle's: every device has an element of its own for
// every round, so that the sum says who was counted where, and how often.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace selvage::test {

struct Answer {
  size_t device = 0;
  uint64_t round = 0;
  std::string name;  // "ACCEPTED", "LATE", or the reason of a rejection
};

struct Transition {
  uint64_t round = 0;
  std::string from;  // "" opens it
  std::string to;
};

struct RoundEnd {
  std::string state;
  uint64_t accepted = 0;  // of its funnel
};

struct History {
  size_t devices = 0;
  uint64_t cohort_min = 0;
  // To every upload of the one update that a device has for a round, in the
  // order in which they came.
  std::vector<Answer> answers;
  // What was sent at all, with or without an answer.
  std::set<std::pair<size_t, uint64_t>> sent;
  // Of the coordinator, after the task has ended.
  bool ended = false;
  uint64_t latest_version = 0;
  std::map<uint64_t, RoundEnd> rounds;  // by number
  std::vector<Transition> transitions;  // in the order they were made
  // How often the model holds a device's update of a round.
  std::map<std::pair<size_t, uint64_t>, int> counted;
};

// What is wrong, one sentence each; empty: nothing.
std::vector<std::string> Judge(const History& history);

}  // namespace selvage::test

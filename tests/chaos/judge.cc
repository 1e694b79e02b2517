#include "tests/chaos/judge.h"

namespace selvage::test {
namespace {

using Violations = std::vector<std::string>;

std::string Who(size_t device, uint64_t round) {
  return "device " + std::to_string(device) + " in round " +
         std::to_string(round);
}

bool IsEnd(const std::string& state) {
  return state == "COMMITTED" || state == "ABANDONED";
}

// I1: what the model holds is what was acknowledged.
void JudgeCounts(const History& history, Violations& out) {
  std::set<std::pair<size_t, uint64_t>> accepted;
  for (const Answer& answer : history.answers) {
    if (answer.name == "ACCEPTED") {
      accepted.insert({answer.device, answer.round});
    }
  }
  const auto state_of = [&](uint64_t round) -> std::string {
    const auto it = history.rounds.find(round);
    return it == history.rounds.end() ? "unknown" : it->second.state;
  };
  for (const auto& [device, round] : accepted) {
    const auto it = history.counted.find({device, round});
    const int count = it == history.counted.end() ? 0 : it->second;
    if (state_of(round) == "COMMITTED" && count == 0) {
      out.push_back("I1: the acknowledged update of " + Who(device, round) +
                    " is not in the model");
    }
  }
  std::map<uint64_t, uint64_t> sums;
  for (const auto& [key, count] : history.counted) {
    const auto& [device, round] = key;
    if (count == 0) continue;
    sums[round] += static_cast<uint64_t>(count < 0 ? 0 : count);
    if (count < 0 || count > 1) {
      out.push_back("I1: the update of " + Who(device, round) +
                    " is in the model " + std::to_string(count) + " times");
    }
    if (state_of(round) != "COMMITTED") {
      out.push_back("I1: the update of " + Who(device, round) +
                    " is in the model, the round is " + state_of(round));
    }
    if (!history.sent.contains({device, round})) {
      out.push_back("I1: the model holds an update of " + Who(device, round) +
                    " that was never sent");
    }
  }
  for (const auto& [number, round] : history.rounds) {
    if (round.state != "COMMITTED") continue;
    if (sums[number] != round.accepted) {
      out.push_back("I1: round " + std::to_string(number) +
                    " says it accepted " + std::to_string(round.accepted) +
                    ", the model holds " + std::to_string(sums[number]));
    }
    if (round.accepted < history.cohort_min) {
      out.push_back("I5: round " + std::to_string(number) + " committed " +
                    std::to_string(round.accepted) + " updates, the least is " +
                    std::to_string(history.cohort_min));
    }
  }
}

// I11: one update, one answer.
void JudgeAnswers(const History& history, Violations& out) {
  std::map<std::pair<size_t, uint64_t>, std::string> first;
  for (const Answer& answer : history.answers) {
    const auto [it, is_new] =
        first.try_emplace({answer.device, answer.round}, answer.name);
    if (!is_new && it->second != answer.name) {
      out.push_back("I11: " + Who(answer.device, answer.round) + " was told " +
                    it->second + ", then " + answer.name);
    }
  }
}

// I4: states go forward, one after another, to an end that stays. I2: one
// version a committed round.
void JudgeStates(const History& history, Violations& out) {
  static const std::map<std::string, std::set<std::string>> kNext = {
      {"", {"SELECTING"}},
      {"SELECTING", {"COLLECTING", "CLOSING", "ABANDONED"}},
      {"COLLECTING", {"CLOSING", "ABANDONED"}},
      {"CLOSING", {"APPLYING", "ABANDONED"}},
      {"APPLYING", {"COMMITTED", "ABANDONED"}}};
  std::map<uint64_t, std::string> states;
  for (const Transition& step : history.transitions) {
    std::string& state = states[step.round];
    const std::string name = "I4: round " + std::to_string(step.round);
    if (step.from != state) {
      out.push_back(name + " went from " + step.from + " to " + step.to +
                    ", but it was " + state);
    }
    const auto next = kNext.find(step.from);
    if (next == kNext.end() || !next->second.contains(step.to)) {
      out.push_back(name + " may not go from " + step.from + " to " + step.to);
    }
    state = step.to;
  }
  uint64_t committed = 0;
  uint64_t expected = 1;
  for (const auto& [number, round] : history.rounds) {
    if (number != expected++) {
      out.push_back("I4: round " + std::to_string(number) +
                    " has no predecessor");
    }
    if (history.ended && !IsEnd(round.state)) {
      out.push_back("I4: the task has ended, round " + std::to_string(number) +
                    " is " + round.state);
    }
    if (states[number] != round.state) {
      out.push_back("I4: round " + std::to_string(number) + " is " +
                    round.state + ", its history ends with " + states[number]);
    }
    if (round.state == "COMMITTED") ++committed;
  }
  if (committed != history.latest_version) {
    out.push_back("I2: " + std::to_string(committed) +
                  " rounds are committed, the latest version is " +
                  std::to_string(history.latest_version));
  }
  if (!history.ended) out.push_back("I4: the task has not ended");
}

}  // namespace

std::vector<std::string> Judge(const History& history) {
  Violations out;
  JudgeCounts(history, out);
  JudgeAnswers(history, out);
  JudgeStates(history, out);
  return out;
}

}  // namespace selvage::test

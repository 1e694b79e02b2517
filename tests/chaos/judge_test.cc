// The judge finds what it is there to find.
#include "tests/chaos/judge.h"

#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace selvage::test {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<Transition> Committed(uint64_t round) {
  return {{round, "", "SELECTING"},
          {round, "SELECTING", "COLLECTING"},
          {round, "COLLECTING", "CLOSING"},
          {round, "CLOSING", "APPLYING"},
          {round, "APPLYING", "COMMITTED"}};
}

// Two devices, a committed round, an abandoned one, and a committed one in
// which an update was counted whose answer was lost.
History Good() {
  History history;
  history.devices = 2;
  history.cohort_min = 2;
  history.answers = {{0, 1, "ACCEPTED"}, {1, 1, "ACCEPTED"},
                     {0, 1, "ACCEPTED"}, {0, 2, "ACCEPTED"},
                     {1, 2, "LATE"},     {0, 3, "ACCEPTED"}};
  history.sent = {{0, 1}, {1, 1}, {0, 2}, {1, 2}, {0, 3}, {1, 3}};
  history.ended = true;
  history.latest_version = 2;
  history.rounds = {
      {1, {"COMMITTED", 2}}, {2, {"ABANDONED", 1}}, {3, {"COMMITTED", 2}}};
  history.transitions = Committed(1);
  for (const char* const step : {"SELECTING", "COLLECTING", "ABANDONED"}) {
    history.transitions.push_back({2,
                                   history.transitions.back().round == 2
                                       ? history.transitions.back().to
                                       : std::string(),
                                   step});
  }
  for (const Transition& step : Committed(3)) {
    history.transitions.push_back(step);
  }
  history.counted = {
      {{0, 1}, 1}, {{1, 1}, 1}, {{0, 2}, 0}, {{0, 3}, 1}, {{1, 3}, 1}};
  return history;
}

TEST(JudgeTest, GoodHistory_HasNothingAgainstIt) {
  EXPECT_THAT(Judge(Good()), IsEmpty());
}

struct Crime {
  const char* name;
  std::function<void(History&)> commit;
  const char* found;
};

class JudgeCrimeTest : public ::testing::TestWithParam<Crime> {};

TEST_P(JudgeCrimeTest, BadHistory_IsFound) {
  History history = Good();
  GetParam().commit(history);
  EXPECT_THAT(Judge(history), ::testing::Contains(HasSubstr(GetParam().found)));
}

INSTANTIATE_TEST_SUITE_P(
    All, JudgeCrimeTest,
    ::testing::Values(
        Crime{"LostUpdate",
              [](History& h) {
                h.counted[{0, 1}] = 0;
              },
              "I1: the acknowledged update of device 0 in round 1 is not in"},
        Crime{"DoubleCount",
              [](History& h) {
                h.counted[{1, 1}] = 2;
              },
              "is in the model 2 times"},
        Crime{"NegativeCount",
              [](History& h) {
                h.counted[{1, 1}] = -1;
              },
              "is in the model -1 times"},
        Crime{"CountedWhereAbandoned",
              [](History& h) {
                h.counted[{0, 2}] = 1;
              },
              "is in the model, the round is ABANDONED"},
        Crime{"CountedButNeverSent",
              [](History& h) {
                h.sent.erase({1, 3});
              },
              "that was never sent"},
        Crime{"WrongFunnel", [](History& h) { h.rounds[1].accepted = 3; },
              "says it accepted 3, the model holds 2"},
        Crime{"TooFew",
              [](History& h) {
                h.rounds[3].accepted = 1;
                h.counted[{1, 3}] = 0;
              },
              "I5: round 3 committed 1 updates, the least is 2"},
        Crime{"AnotherAnswer",
              [](History& h) {
                h.answers.push_back({0, 1, "LATE"});
              },
              "I11: device 0 in round 1 was told ACCEPTED, then LATE"},
        Crime{"CommittedTwice",
              [](History& h) {
                h.transitions.push_back({1, "APPLYING", "COMMITTED"});
              },
              "I4: round 1 went from APPLYING to COMMITTED, but it was"},
        Crime{"Resurrected",
              [](History& h) {
                h.transitions.push_back({2, "ABANDONED", "COLLECTING"});
              },
              "I4: round 2 may not go from ABANDONED to COLLECTING"},
        Crime{"SkippedState",
              [](History& h) {
                h.transitions.push_back({4, "", "SELECTING"});
                h.transitions.push_back({4, "SELECTING", "APPLYING"});
              },
              "I4: round 4 may not go from SELECTING to APPLYING"},
        Crime{"Gap", [](History& h) { h.rounds.erase(2); },
              "I4: round 3 has no predecessor"},
        Crime{"NoHistory",
              [](History& h) {
                h.rounds[4] = {"ABANDONED", 0};
              },
              "its history ends with"},
        Crime{"StillOpen", [](History& h) { h.rounds[2].state = "CLOSING"; },
              "I4: the task has ended, round 2 is CLOSING"},
        Crime{"TwoVersions", [](History& h) { h.latest_version = 3; },
              "I2: 2 rounds are committed, the latest version is 3"},
        Crime{"NeverEnded", [](History& h) { h.ended = false; },
              "I4: the task has not ended"}),
    [](const auto& crime) { return crime.param.name; });

}  // namespace
}  // namespace selvage::test

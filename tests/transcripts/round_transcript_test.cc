// Rounds as text: a line per event, indented lines for what the machine does.
// SELVAGE_REWRITE=1 writes the indented lines anew.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <gtest/gtest.h>

#include "coordinator/round.h"

namespace selvage::coordinator {
namespace {

namespace fs = std::filesystem;

Time At(int64_t seconds) { return Time(std::chrono::seconds(seconds)); }

int64_t SecondsOf(Time t) {
  return std::chrono::duration_cast<std::chrono::seconds>(t.time_since_epoch())
      .count();
}

std::string Text(const RoundAction& action) {
  std::ostringstream out;
  if (const auto* assign = std::get_if<Assign>(&action)) {
    out << "assign " << assign->device << " until "
        << SecondsOf(assign->lease_deadline);
  } else if (const auto* expire = std::get_if<Expire>(&action)) {
    out << "expire " << expire->device;
  } else if (const auto* enter = std::get_if<EnterState>(&action)) {
    out << "enter " << RoundStateName(enter->state);
    if (!enter->reason.empty()) out << ": " << enter->reason;
  } else if (const auto* answer = std::get_if<AnswerCheckIn>(&action)) {
    out << "answer " << answer->device << " ";
    switch (answer->verdict) {
      case CheckInVerdict::kAssigned:
        out << "assigned";
        break;
      case CheckInVerdict::kCandidate:
        out << "candidate";
        break;
      case CheckInVerdict::kNothing:
        out << "nothing";
        break;
    }
  }
  return out.str();
}

// "round 1 seed=3 cohort=2 min=1 slots=3 available=4 max=12 window=30
//  compute=60 deadline=120" opens it at second 0.
Result<Round> OpenFrom(std::istringstream& line) {
  RoundConfig config;
  line >> config.number;
  for (std::string field; line >> field;) {
    const size_t equals = field.find('=');
    const std::string name = field.substr(0, equals);
    const auto value =
        static_cast<uint32_t>(std::stoul(field.substr(equals + 1)));
    const Duration duration = std::chrono::seconds(value);
    if (name == "mode") config.mode = static_cast<RoundMode>(value);
    if (name == "seed") config.seed = value;
    if (name == "cohort") config.cohort = value;
    if (name == "min") config.min_updates = value;
    if (name == "slots") config.slot_count = value;
    if (name == "available") config.available_min = value;
    if (name == "max") config.update_max = value;
    if (name == "window") config.selection_window = duration;
    if (name == "compute") config.compute_deadline = duration;
    if (name == "deadline") config.round_deadline = duration;
  }
  return Round::Create(config, At(0));
}

// "NAME DEVICE... @SECONDS"
std::pair<RoundEvent, Time> EventFrom(const std::string& name,
                                      std::istringstream& line) {
  std::vector<std::string> words;
  for (std::string word; line >> word;) words.push_back(word);
  const Time now = At(std::stol(words.back().substr(1)));
  words.pop_back();
  if (name == "check-in") return {CheckedIn{words.at(0)}, now};
  if (name == "upload-began") return {UploadBegan{words.at(0)}, now};
  if (name == "upload-broke") return {UploadBroke{words.at(0)}, now};
  if (name == "accepted") return {UpdatesAccepted{words}, now};
  if (name == "refused") return {UpdateRefused{words.at(0)}, now};
  if (name == "gave-up") return {GaveUp{words.at(0)}, now};
  if (name == "merged") return {SumsMerged{}, now};
  if (name == "committed") return {VersionCommitted{}, now};
  if (name == "failed") return {Failed{words.at(0)}, now};
  EXPECT_EQ(name, "tick");
  return {Tick{}, now};
}

std::string Replay(const std::string& text) {
  std::ostringstream out;
  std::istringstream in(text);
  std::optional<Round> round;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("  ")) continue;
    out << line << "\n";
    if (line.empty() || line.starts_with("#")) continue;
    std::istringstream words(line);
    std::string name;
    words >> name;
    if (name == "round") {
      Result<Round> opened = OpenFrom(words);
      EXPECT_TRUE(opened.ok()) << opened.status();
      round = *std::move(opened);
      continue;
    }
    const auto [event, now] = EventFrom(name, words);
    for (const RoundAction& action : round->Step(event, now)) {
      out << "  " << Text(action) << "\n";
    }
  }
  return out.str();
}

TEST(RoundTranscriptTest, EveryTranscript_IsWhatTheMachineDoes) {
  int count = 0;
  for (const auto& entry : fs::directory_iterator(SELVAGE_TRANSCRIPTS)) {
    if (entry.path().extension() != ".txt" ||
        !entry.path().filename().string().starts_with("round_")) {
      continue;
    }
    ++count;
    std::stringstream expected;
    expected << std::ifstream(entry.path()).rdbuf();
    const std::string actual = Replay(expected.str());
    if (std::getenv("SELVAGE_REWRITE") != nullptr) {
      std::ofstream(entry.path()) << actual;
    } else {
      EXPECT_EQ(actual, expected.str()) << entry.path();
    }
  }
  EXPECT_GE(count, 7);
}

}  // namespace
}  // namespace selvage::coordinator

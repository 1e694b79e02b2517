// How a session ended, as the host sees it.
#pragma once

#include <cstdint>
#include <string_view>

namespace selvage::client {

enum class RunResult : uint8_t {
  kNothingToDo,  // checked in, or not due yet; come back later
  kContributed,  // an update was accepted
  kNotAccepted,  // late or rejected; see reason
  kInstalled,    // a new model version was installed and personalised
  kDeclined,     // this device refused the work; see reason
  kInterrupted,  // budget or cancel; goes on next time
  kFailed,       // network or engine; see reason; goes on next time
};

// "NOTHING_TO_DO", "CONTRIBUTED", ...
std::string_view RunResultName(RunResult result);

// What became of an update, for the device's own audit.
enum class AuditResult : uint8_t {
  kRecorded = 0,   // trained and put into the outbox; nothing was sent yet
  kAccepted = 1,   // the coordinator has it
  kLate = 2,       // the coordinator threw it away: the round was over
  kRejected = 3,   // the coordinator threw it away
  kWithdrawn = 4,  // dropped here without an answer: forgotten, expired or
                   // given up; if an answer was lost, the coordinator has it
};
// "recorded", "accepted", ...
std::string_view AuditResultName(AuditResult result);

}  // namespace selvage::client

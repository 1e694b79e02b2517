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

}  // namespace selvage::client

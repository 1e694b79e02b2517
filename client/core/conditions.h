// The state of the device as its host sees it, and what a plan wants of it.
#pragma once

#include <optional>
#include <string>

#include "plan/task.h"

namespace selvage::client {

enum class Thermal { kNominal, kFair, kSerious, kCritical };

// What the host's callback answers. The defaults are a device that nothing
// holds back: a host without the callback is taken for one.
struct Conditions {
  bool charging = true;
  bool unmetered = true;  // the network costs nothing
  bool idle = true;       // nobody uses the device
  double battery = 1;     // 0..1
  Thermal thermal = Thermal::kNominal;
};

// The first condition that does not hold, for people: "the device is not
// charging"; nullopt if all hold. kCritical never holds, whatever is wanted,
// and neither does a battery level that is no number.
std::optional<std::string> UnmetCondition(const plan::ConditionsSpec& wanted,
                                          const Conditions& now);

}  // namespace selvage::client

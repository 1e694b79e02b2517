#include "client/core/conditions.h"

#include <sstream>

namespace selvage::client {

std::optional<std::string> UnmetCondition(const plan::ConditionsSpec& wanted,
                                          const Conditions& now) {
  if (now.thermal == Thermal::kCritical) return "the device is too hot";
  if (wanted.charging && !now.charging) return "the device is not charging";
  if (wanted.unmetered && !now.unmetered) return "the network is metered";
  if (wanted.idle && !now.idle) return "the device is not idle";
  // Written so that a NaN fails.
  if (wanted.min_battery > 0 && !(now.battery >= wanted.min_battery)) {
    std::ostringstream text;
    text << "the battery (" << now.battery << ") is below "
         << wanted.min_battery;
    return text.str();
  }
  return std::nullopt;
}

}  // namespace selvage::client

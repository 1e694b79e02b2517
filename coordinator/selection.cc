#include "coordinator/selection.h"

#include <algorithm>
#include <cmath>

#include "plan/task.h"

namespace selvage::coordinator {

DropOut DropOutOf(std::span<const FunnelCount> counts) {
  DropOut out;
  for (const FunnelCount& count : counts) {
    switch (count.state) {
      case AssignmentState::kAccepted:
      case AssignmentState::kLate:
        out.sent += count.count;
        break;
      case AssignmentState::kExpired:
      case AssignmentState::kRejected:
      case AssignmentState::kAbandoned:
        out.lost += count.count;
        break;
      case AssignmentState::kLeased:
        break;
    }
  }
  return out;
}

uint32_t SlotsFor(uint32_t cohort, double first_guess,
                  std::span<const DropOut> rounds) {
  const double wanted = cohort;
  const uint32_t most = cohort * plan::kOverSelectionMax;
  // 70 x 1.1 is 77.00000000000001 in binary; 77 is meant.
  constexpr double kRounding = 1e-9;
  if (rounds.empty()) {
    const double slots = std::ceil(wanted * first_guess - kRounding);
    return std::clamp(static_cast<uint32_t>(slots), cohort, most);
  }
  double lost = wanted * (1 - 1 / first_guess);
  double all = wanted;
  for (const DropOut& round : rounds) {
    lost += static_cast<double>(round.lost);
    all += static_cast<double>(round.sent) + static_cast<double>(round.lost);
  }
  const double p = lost / all;
  for (uint32_t slots = cohort; slots < most; ++slots) {
    const double sent = slots * (1 - p);
    if (sent - std::sqrt(sent * p) >= wanted - kRounding) return slots;
  }
  return most;
}

}  // namespace selvage::coordinator

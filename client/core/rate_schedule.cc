#include "client/core/rate_schedule.h"

#include <algorithm>
#include <cmath>

namespace selvage::client {

double RateFactor(const plan::RateSchedule& schedule, uint64_t t) {
  const auto warmup = static_cast<uint64_t>(std::max(0, schedule.warmup));
  if (t < warmup) {
    return static_cast<double>(t + 1) / static_cast<double>(warmup);
  }
  const uint64_t after = t - warmup;
  switch (schedule.name) {
    case plan::RateShape::kConstant:
      return 1;
    case plan::RateShape::kStep: {
      const auto every = static_cast<uint64_t>(std::max(1, schedule.every));
      return std::pow(schedule.factor, static_cast<double>(after / every));
    }
    case plan::RateShape::kCosine: {
      const auto length = static_cast<double>(std::max(1, schedule.length));
      const double share = std::min(1.0, static_cast<double>(after) / length);
      return schedule.lowest +
             (1 - schedule.lowest) * (1 + std::cos(M_PI * share)) / 2;
    }
  }
  return 1;
}

}  // namespace selvage::client

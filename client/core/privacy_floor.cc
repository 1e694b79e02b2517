#include "client/core/privacy_floor.h"

#include <algorithm>
#include <sstream>

namespace selvage::client {
namespace {

template <typename T, typename U>
std::string Below(std::string_view key, T value, std::string_view relation,
                  U bound) {
  std::ostringstream text;
  text << key << " (" << value << ") " << relation << " (" << bound << ")";
  return text.str();
}

}  // namespace

std::optional<std::string> BelowFloor(const PrivacyFloor& floor,
                                      const plan::Plan& plan) {
  if (plan.privacy.min_cohort < floor.min_cohort) {
    return Below("privacy.min_cohort", plan.privacy.min_cohort,
                 "is below this device's floor", floor.min_cohort);
  }
  if (floor.require_secure_aggregation) {
    return "privacy.secure_aggregation is off and this device requires it";
  }
  if (floor.clip_norm_max > 0) {
    if (plan.privacy.clip_norm == 0) {
      return "privacy.clip is off and this device requires it";
    }
    if (!(plan.privacy.clip_norm <= floor.clip_norm_max)) {
      return Below("privacy.clip.norm", plan.privacy.clip_norm,
                   "is above the most that this device allows",
                   floor.clip_norm_max);
    }
  }
  if (floor.epochs_max > 0) {
    constexpr std::string_view kAbove =
        "is above the most that this device allows";
    const plan::TrainSpec& train = plan.train;
    // A step may be a whole epoch: it depends on the examples.
    if (train.local_steps > floor.epochs_max) {
      return Below("train.local_steps", train.local_steps,
                   "may be as many epochs, which " + std::string(kAbove),
                   floor.epochs_max);
    }
    if (train.local_epochs > floor.epochs_max) {
      return Below("train.local_epochs", train.local_epochs, kAbove,
                   floor.epochs_max);
    }
    const int body = std::max(train.local_epochs, train.local_steps);
    if (train.head_epochs > floor.epochs_max - body) {
      return Below("train.head_epochs", train.head_epochs,
                   "with those of the shared tensors " + std::string(kAbove),
                   floor.epochs_max);
    }
  }
  if (!floor.collections.empty() &&
      std::find(floor.collections.begin(), floor.collections.end(),
                plan.data.collection) == floor.collections.end()) {
    return "data.collection (" + plan.data.collection +
           ") is none that this device allows";
  }
  return std::nullopt;
}

Status CheckFloor(const PrivacyFloor& floor) {
  const auto negative = [](std::string_view field, int value) {
    return InvalidArgument("floor." + std::string(field) + " (" +
                           std::to_string(value) + ") is negative");
  };
  if (floor.min_cohort < 0) return negative("min_cohort", floor.min_cohort);
  if (floor.epochs_max < 0) return negative("epochs_max", floor.epochs_max);
  if (floor.uploads_per_day_max < 0) {
    return negative("uploads_per_day_max", floor.uploads_per_day_max);
  }
  // Written so that a NaN fails.
  if (!(floor.clip_norm_max >= 0)) {
    return InvalidArgument("floor.clip_norm_max (" +
                           std::to_string(floor.clip_norm_max) +
                           ") is no norm");
  }
  return OkStatus();
}

}  // namespace selvage::client

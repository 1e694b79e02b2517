#include "client/core/holdout.h"

#include "base/random.h"

namespace selvage::client {

bool IsHeldOut(uint64_t salt, int64_t id, double fraction) {
  const uint64_t hash =
      DeriveSeed(salt, "selvage/v1 holdout", static_cast<uint64_t>(id));
  return static_cast<double>(hash >> 11) * 0x1p-53 < fraction;
}

HoldoutSplit SplitHoldout(uint64_t salt, std::span<const int64_t> ids,
                          double fraction) {
  HoldoutSplit split;
  for (const int64_t id : ids) {
    (IsHeldOut(salt, id, fraction) ? split.holdout : split.train).push_back(id);
  }
  return split;
}

}  // namespace selvage::client

// Which examples are held out: chosen by a hash of the example's id, so that an
// example is never trained on in one session and judged upon in another, for
// federated and personal training alike.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace selvage::client {

// Whether example `id` is held out under `fraction` (plan.data.holdout). `salt`
// is the store's own, so devices that number their examples alike do not all
// hold out the same ones. Nested: held out under a fraction, held out under
// every larger one.
bool IsHeldOut(uint64_t salt, int64_t id, double fraction);

struct HoldoutSplit {
  std::vector<int64_t> train;  // in the order given
  std::vector<int64_t> holdout;
};
HoldoutSplit SplitHoldout(uint64_t salt, std::span<const int64_t> ids,
                          double fraction);

}  // namespace selvage::client

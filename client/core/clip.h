// Clipping an update to an L2 norm, exactly: what a coordinator decodes has no
// larger norm. (Norm clipping of DP-FedAvg: McMahan et al., "Learning
// Differentially Private Recurrent Language Models", ICLR 2018.)
#pragma once

#include <span>
#include <vector>

#include "aggregation/codec/codec.h"
#include "base/bytes.h"
#include "base/random.h"
#include "base/status.h"

namespace selvage::client {

// The root of the sum of squares in double, element after element: the same
// bits everywhere.
double L2Norm(std::span<const float> values);

struct ClippedUpdate {
  Bytes encoded;
  std::vector<float> decoded;  // what the coordinator sees
  double norm = 0;             // L2Norm(decoded); <= the bound
  double factor = 1;           // of what was encoded
};

// Encodes `delta`, scaled by one factor in double so that L2Norm of what it
// decodes to is at most `norm_max`; as it is if it fits already. A codec that
// rounds up is met by a factor that is smaller by 2^-12, 2^-11, ... until it
// fits; in the end everything is zero, which does.
// `norm_max` 0: not clipped. INVALID_ARGUMENT if a value is not finite.
// REQUIRES: `random` for a codec that draws.
Result<ClippedUpdate> EncodeClipped(const aggregation::CodecSpec& codec,
                                    std::span<const size_t> counts,
                                    std::span<const float> delta,
                                    double norm_max,
                                    RandomSource* random = nullptr);

}  // namespace selvage::client

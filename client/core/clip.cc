#include "client/core/clip.h"

#include <algorithm>
#include <cmath>

#include "aggregation/codec/codec.h"

namespace selvage::client {
namespace {

constexpr double kFirstMargin = 1.0 / 4096;

Result<ClippedUpdate> EncodeAll(const aggregation::CodecSpec& codec,
                                std::span<const size_t> counts,
                                std::span<const float> values,
                                RandomSource* random) {
  ClippedUpdate out;
  SELVAGE_ASSIGN_OR_RETURN(out.encoded,
                           aggregation::Encode(codec, counts, values, random));
  if (codec.name == plan::CodecName::kFloat32) {
    out.decoded.assign(values.begin(), values.end());
  } else {
    SELVAGE_ASSIGN_OR_RETURN(out.decoded,
                             aggregation::Decode(codec, counts, out.encoded));
  }
  out.norm = L2Norm(out.decoded);
  return out;
}

}  // namespace

double L2Norm(std::span<const float> values) {
  double sum = 0;
  for (const float value : values) {
    sum += static_cast<double>(value) * static_cast<double>(value);
  }
  return std::sqrt(sum);
}

Result<ClippedUpdate> EncodeClipped(const aggregation::CodecSpec& codec,
                                    std::span<const size_t> counts,
                                    std::span<const float> delta,
                                    double norm_max, RandomSource* random) {
  const double norm = L2Norm(delta);
  if (norm_max <= 0 || norm <= norm_max || !std::isfinite(norm)) {
    // Not finite: the codec names the element.
    SELVAGE_ASSIGN_OR_RETURN(ClippedUpdate whole,
                             EncodeAll(codec, counts, delta, random));
    if (norm_max <= 0 || whole.norm <= norm_max) return whole;
  }
  const double fitting = std::min(1.0, norm_max / norm);
  std::vector<float> scaled(delta.size());
  // The first try without a margin, the last one with nothing left.
  for (double margin = 0;; margin = std::max(kFirstMargin, margin * 2)) {
    const double factor = fitting * std::max(0.0, 1 - margin);
    std::transform(
        delta.begin(), delta.end(), scaled.begin(), [factor](float value) {
          return static_cast<float>(static_cast<double>(value) * factor);
        });
    SELVAGE_ASSIGN_OR_RETURN(ClippedUpdate out,
                             EncodeAll(codec, counts, scaled, random));
    out.factor = factor;
    if (out.norm <= norm_max) return out;
  }
}

}  // namespace selvage::client

// Metrics as exact sums: a device's sum of scores is a 2^-20 fixed-point
// numerator, so round metrics do not depend on arrival order either; and a
// 64-bucket histogram over devices for percentiles. Never kept per device.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "aggregation/summable.h"
#include "base/bytes.h"
#include "base/status.h"
#include "crypto/digest.h"

namespace selvage::aggregation {

inline constexpr int64_t kMetricNumeratorMax = int64_t{1} << 42;
inline constexpr int64_t kMetricCountMax = int64_t{1} << 31;
// With the bounds above no sum can overflow.
inline constexpr int64_t kMetricDevicesMax = int64_t{1} << 20;

// What one device reports for one metric.
struct MetricValue {
  int64_t numerator = 0;  // sum of scores * 2^20, rounded; |.| <= 2^42
  int64_t count = 0;      // examples; 0..2^31; 0 only with numerator 0
  friend bool operator==(const MetricValue&, const MetricValue&) = default;
};

// score_sum is the sum of the examples' scores. It is clamped to +-2^42 / 2^20
// and rounded half to even. INVALID_ARGUMENT for NaN, a count out of range, or
// a score without examples.
Result<MetricValue> MakeMetric(double score_sum, int64_t count);
double MeanOf(const MetricValue& value);  // 0 if count is 0
// SHA-256 of "selvage/v1 metrics\n" and each value's numerator and count,
// little-endian: the digest of an evaluation, which has no other bytes.
crypto::Digest DigestOf(std::span<const MetricValue> values);

// Sums over devices of each metric of a task. Thread-compatible.
class MetricSums {
 public:
  explicit MetricSums(size_t metric_count) : sums_(metric_count) {}

  // INVALID_ARGUMENT for the wrong number of metrics or values out of bounds,
  // RESOURCE_EXHAUSTED beyond kMetricDevicesMax devices; nothing has been added
  // then. A value with count 0 adds nothing: that device is not counted.
  Status Add(std::span<const MetricValue> device);
  // INVALID_ARGUMENT if the numbers of metrics differ, RESOURCE_EXHAUSTED as
  // above; *this is unchanged then.
  Status MergeWith(const MetricSums& other);

  struct Sum {
    int64_t numerator = 0;
    int64_t count = 0;
    int64_t device_count = 0;
    // Devices by their mean: bucket b holds means in [b/64, (b+1)/64); smaller
    // means are in the first, larger ones in the last.
    std::array<uint32_t, 64> histogram{};
    // Devices whose mean is not in [0, 1], so that the histogram does not say
    // where they are. Of sums that version 1 serialized: those that may be.
    int64_t outside_count = 0;
    friend bool operator==(const Sum&, const Sum&) = default;
  };
  const std::vector<Sum>& sums() const { return sums_; }

  Bytes Serialize() const;
  // Reads version 1, without outside counts, too. DATA_LOSS for anything else
  // that Serialize() cannot have made.
  static Result<MetricSums> Parse(ByteSpan bytes);

 private:
  std::vector<Sum> sums_;
};

static_assert(ExactlySummable<MetricSums, std::vector<MetricValue>>);

}  // namespace selvage::aggregation

// Metrics as exact sums: an example's score is a 2^-20 fixed-point numerator,
// so round metrics do not depend on arrival order either; and a 64-bucket
// histogram over devices for percentiles. Never kept per device.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"

namespace selvage::aggregation {

// What one device reports for one metric.
struct MetricValue {
  int64_t numerator = 0;  // sum over examples of score * 2^20, rounded
  int64_t count = 0;      // examples; 0..2^31
  friend bool operator==(const MetricValue&, const MetricValue&) = default;
};

// |sum of scores| is clamped to 2^42 / 2^20 before rounding; NaN is refused.
Result<MetricValue> MakeMetric(double score_sum, int64_t count);
double MeanOf(const MetricValue& value);  // 0 if count is 0

// Sums over devices of each metric of a task. Thread-compatible.
class MetricSums {
 public:
  explicit MetricSums(size_t metric_count) : sums_(metric_count) {}

  // INVALID_ARGUMENT for the wrong number of metrics or values out of bounds;
  // nothing has been added then.
  Status Add(std::span<const MetricValue> device);
  Status MergeWith(const MetricSums& other);

  struct Sum {
    int64_t numerator = 0;
    int64_t count = 0;
    int64_t device_count = 0;
    // Devices by their mean: bucket b holds means in [b/64, (b+1)/64), clamped.
    std::array<uint32_t, 64> histogram{};
    friend bool operator==(const Sum&, const Sum&) = default;
  };
  const std::vector<Sum>& sums() const { return sums_; }

  Bytes Serialize() const;
  static Result<MetricSums> Parse(ByteSpan bytes);

 private:
  std::vector<Sum> sums_;
};

}  // namespace selvage::aggregation

// What an evaluation round adds up to: the metrics of all devices, and of each
// class of devices. Exact (metrics.h), so neither the order of arrival nor how
// it was split into partial sums shows.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "aggregation/metrics.h"
#include "aggregation/summable.h"
#include "base/bytes.h"
#include "base/status.h"

namespace selvage::aggregation {

// Of a class's name; a device says its own (docs/protocol.md).
inline constexpr size_t kDeviceClassSizeMax = 64;
// Most classes that are released; the largest ones.
inline constexpr size_t kReleasedClassesMax = 64;

// Thread-compatible.
class EvaluationSums {
 public:
  explicit EvaluationSums(size_t metric_count) : total_(metric_count) {}

  // Adds one device's metrics to the total and to its class. Errors as
  // MetricSums::Add(), and INVALID_ARGUMENT for a longer class; nothing has
  // been added then.
  Status Add(std::string_view device_class,
             std::span<const MetricValue> device);
  // Errors as MetricSums::MergeWith(); *this is unchanged then.
  Status MergeWith(const EvaluationSums& other);

  uint64_t device_count() const { return device_count_; }
  const MetricSums& total() const { return total_; }
  const std::map<std::string, MetricSums>& classes() const { return classes_; }

  // Drops every class in which some metric is of fewer than `min_cohort`
  // devices, then all but the kReleasedClassesMax largest; of equal ones the
  // first by name stay. What is left out must not follow from the total and
  // the rest: the smallest ones go too until it is of no device or of at least
  // min_cohort.
  void Suppress(uint64_t min_cohort);

  Bytes Serialize() const;
  // DATA_LOSS for anything that Serialize() cannot have made.
  static Result<EvaluationSums> Parse(ByteSpan bytes);

 private:
  uint64_t device_count_ = 0;
  MetricSums total_;
  std::map<std::string, MetricSums> classes_;
};

static_assert(
    ExactlySummable<EvaluationSums, std::string, std::vector<MetricValue>>);

}  // namespace selvage::aggregation

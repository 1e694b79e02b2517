// Exact weighted sums of updates (architecture.md, "Exact sums").
//
// A value x of an update is accepted iff it is finite and |x| < max_abs. It
// becomes q = round_half_even(x * S), where S is the largest power of two with
// S * max_abs <= 2^31, so q fits 32 bits; q * w is added to an int64
// accumulator where w in 1..65,535 is the update's one weight. Integer addition
// is associative: the result is the same to the bit whatever the order of Add()
// and MergeWith(), the number of shards, threads or replicas. It cannot
// overflow: weight_max * update_count_max * 2^31 <= 2^63 - 1 is checked by
// Create().
//
// Resolution 1/S: 4e-9 for max_abs = 8.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"

namespace selvage::aggregation {

inline constexpr uint32_t kWeightMax = 65'535;

// Consecutive elements of an update under one bound.
struct SumRange {
  size_t count = 0;
  double max_abs = 8;
  friend bool operator==(const SumRange&, const SumRange&) = default;
};

struct SumLayout {
  std::vector<SumRange> ranges;
  uint32_t weight_max = kWeightMax;  // of one update
  uint64_t update_count_max = 0;     // of everything that is ever merged

  size_t element_count() const;
  // INVALID_ARGUMENT names field and bound: max_abs not in (0, 2^24],
  // weight_max not in 1..kWeightMax, weight_max * update_count_max * 2^31 >
  // 2^63 - 1.
  Status Validate() const;
  friend bool operator==(const SumLayout&, const SumLayout&) = default;
};

// The largest power of two S with S * max_abs <= 2^31.
double ScaleFor(double max_abs);

struct WeightedUpdate {
  std::span<const float> values;  // layout.element_count() of them
  uint32_t weight = 1;
};

// Thread-compatible. 8 bytes per element, whatever the number of updates.
class ExactSum {
 public:
  static Result<ExactSum> Create(SumLayout layout);

  // INVALID_ARGUMENT names the first offending element, its value and the
  // bound, or the wrong element count, or the weight. Reads only.
  static Status Check(const SumLayout& layout, const WeightedUpdate& update);

  // Checks and adds. On error nothing has been added: a rejected update leaves
  // no trace. RESOURCE_EXHAUSTED beyond update_count_max.
  Status Add(const WeightedUpdate& update);

  // Adds several at once, reading the accumulator once per group: faster than
  // Add() in a loop, with the same result to the bit. All or nothing.
  Status AddAll(std::span<const WeightedUpdate> updates);

  // INVALID_ARGUMENT if the layouts differ, RESOURCE_EXHAUSTED if together they
  // exceed update_count_max; *this is unchanged then.
  Status MergeWith(ExactSum&& other);

  uint64_t update_count() const { return update_count_; }
  uint64_t weight_sum() const { return weight_sum_; }
  std::span<const int64_t> sums() const { return sums_; }

  // Little-endian: magic, version, layout digest, counts, sums. For partials;
  // seal before writing to disk.
  Bytes Serialize() const;
  // DATA_LOSS if the bytes are not a serialized sum of this layout.
  static Result<ExactSum> Parse(const SumLayout& layout, ByteSpan bytes);

  // sum_k w_k x_k / sum_k w_k per element, in double: exact up to one rounding.
  // FAILED_PRECONDITION if nothing was added. Consumes the sum.
  Result<std::vector<double>> FinishMean() &&;

 private:
  explicit ExactSum(SumLayout layout);

  SumLayout layout_;
  std::vector<int64_t> sums_;
  uint64_t update_count_ = 0;
  uint64_t weight_sum_ = 0;
};

}  // namespace selvage::aggregation

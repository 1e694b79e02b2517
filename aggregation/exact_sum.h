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
// Resolution 1/S: 4e-9 for max_abs = 8. (S is at most 2^180, where the smallest
// positive float is already 2^31 steps, so that S exists for every max_abs.)
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "aggregation/codec/codec.h"
#include "aggregation/summable.h"
#include "base/bytes.h"
#include "base/executor.h"
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

// Consecutive elements of a layout, across its ranges, as a layout of their
// own: they can be summed apart, with the same sums.
struct SumStretch {
  size_t first = 0;
  SumLayout layout;
};
// Of `size` elements each (the last one: the rest), at least one. REQUIRES:
// size > 0.
std::vector<SumStretch> CutLayout(const SumLayout& layout, size_t size);

// The largest power of two S <= 2^180 with S * max_abs <= 2^31. max_abs > 0.
double ScaleFor(double max_abs);

struct WeightedUpdate {
  std::span<const float> values;  // layout.element_count() of them
  uint32_t weight = 1;
};

// An update as it was uploaded (aggregation/codec/codec.h): the ranges of the
// layout are its blocks. Nothing is decoded before it is folded, and then a
// few thousand values at a time.
struct EncodedUpdate {
  CodecSpec codec;
  ByteSpan bytes;
  uint32_t weight = 1;
};

// Thread-compatible. 8 bytes per element, whatever the number of updates.
class ExactSum {
 public:
  static Result<ExactSum> Create(SumLayout layout);

  // INVALID_ARGUMENT names the first offending element, its value and the
  // bound, or the wrong element count, or the weight. Reads only.
  static Status Check(const SumLayout& layout, const WeightedUpdate& update);

  // The same for an encoded update; also everything that Decode() refuses. It
  // accepts exactly the updates whose decoded values Check() accepts.
  static Status CheckEncoded(const SumLayout& layout,
                             const EncodedUpdate& update);

  // Checks and adds. On error nothing has been added: a rejected update leaves
  // no trace. RESOURCE_EXHAUSTED beyond update_count_max.
  Status Add(const WeightedUpdate& update);

  // Adds several at once, reading the accumulator once per group: faster than
  // Add() in a loop, with the same result to the bit. All or nothing.
  // With an executor each of its threads folds a stretch of the sum, with the
  // same bits; null: the caller's thread does it all.
  Status AddAll(std::span<const WeightedUpdate> updates,
                Executor* executor = nullptr);
  // The same to the bit as AddAll() of the decoded updates.
  Status AddAllEncoded(std::span<const EncodedUpdate> updates,
                       Executor* executor = nullptr);

  // INVALID_ARGUMENT if the layouts differ, RESOURCE_EXHAUSTED if together they
  // exceed update_count_max; *this is unchanged then.
  Status MergeWith(ExactSum&& other);

  uint64_t update_count() const { return update_count_; }
  uint64_t weight_sum() const { return weight_sum_; }
  std::span<const int64_t> sums() const { return sums_; }

  // Little-endian: magic, version, layout digest, counts, sums (narrow.h). For
  // partials; seal before writing to disk.
  Bytes Serialize() const;
  // Serialize()'s bytes in order, in small pieces: no second copy of the sums.
  // Stops at the first error of `sink` and returns it.
  Status SerializeTo(const std::function<Status(ByteSpan)>& sink) const;
  uint64_t serialized_size() const;  // reads all sums
  // DATA_LOSS if the bytes are not a serialized sum of this layout.
  static Result<ExactSum> Parse(const SumLayout& layout, ByteSpan bytes);
  // MergeWith(Parse(bytes)) without a second sum in memory. DATA_LOSS as
  // Parse(), RESOURCE_EXHAUSTED as MergeWith(); *this is unchanged then.
  Status MergeSerialized(ByteSpan bytes);

  // sum_k w_k x_k / sum_k w_k per element of the quantised x, correctly rounded
  // to double. Consumes the sum.
  // FAILED_PRECONDITION if nothing was added. Consumes the sum.
  Result<std::vector<double>> FinishMean() &&;

 private:
  explicit ExactSum(SumLayout layout);

  // The sums (narrow.h) of a serialized sum of this weight. DATA_LOSS; *this is
  // unchanged then.
  Status AddSerialized(ByteSpan sums, uint64_t weight_sum);
  Status CheckRoomFor(uint64_t count) const;
  // Everything that AddAll() does after the checks that cost nothing.
  Status FoldAll(std::span<const EncodedUpdate> updates, Executor* executor);

  SumLayout layout_;
  std::vector<int64_t> sums_;
  uint64_t update_count_ = 0;
  uint64_t weight_sum_ = 0;
};

static_assert(ExactlySummable<ExactSum, WeightedUpdate>);

}  // namespace selvage::aggregation

// The one algebra of everything that devices contribute to and that can be
// summed: exact integers, so that the result is the same to the bit whatever
// the order, and however the contributions were spread over threads, shards
// and replicas.
//
//   Add          one contribution in: all of it, or an error and nothing
//   MergeWith    another sum in, likewise; associative and commutative
//   Serialize    equal sums have equal bytes, and equal bytes are equal sums
//
// Beginning from an empty sum of the same shape, any tree of these that holds
// the same contributions serializes to the same bytes (summable_test.cc). What
// a sum finishes to is its own affair: ExactSum::FinishMean() && gives means,
// and EvaluationSums::Suppress() what may be released.
#pragma once

#include <concepts>
#include <utility>

#include "base/bytes.h"
#include "base/status.h"

namespace selvage::aggregation {

// `Contribution`: the arguments of Add().
template <typename Sum, typename... Contribution>
concept ExactlySummable = std::movable<Sum> &&
    requires(Sum& sum, Sum&& other, const Sum& done,
             const Contribution&... contribution) {
  { sum.Add(contribution...) } -> std::same_as<Status>;
  { sum.MergeWith(std::move(other)) } -> std::same_as<Status>;
  { done.Serialize() } -> std::same_as<Bytes>;
};

}  // namespace selvage::aggregation

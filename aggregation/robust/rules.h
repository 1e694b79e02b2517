// Robust rules: what to take for the mean of updates when some of them may be
// lies. n updates, at most f of them from attackers.
//
// Every rule works block by block on `threads` threads and gives the same bits
// for any number of them: a block's part of a sum is computed by one thread,
// and the parts are added in the order of the blocks. With updates in an order
// that does not depend on their arrival (UpdateBlocks), nothing else does.
// Arithmetic is in double; -0 counts as 0.
//
// Errors: FAILED_PRECONDITION if there are too few updates for the rule;
// INTERNAL if a value is not finite (update and element are named); whatever
// UpdateBlocks::Read returns.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

#include "aggregation/robust/update_blocks.h"
#include "base/status.h"
#include "plan/task.h"

namespace selvage::aggregation {

// The median of every coordinate, of an even number of values the mean of the
// two in the middle (Yin et al., "Byzantine-Robust Distributed Learning:
// Towards Optimal Statistical Rates", ICML 2018). Updates count alike, whatever
// their weight: a weight is a claim. With f < n/2 every coordinate is within
// the range of the honest ones. n >= 1.
Result<std::vector<double>> CoordinateMedian(const UpdateBlocks& updates,
                                             size_t threads);

// Of every coordinate the mean without the `trim` largest and the `trim`
// smallest values (ibid.). Unweighted. Within the honest range for f <= trim.
// n > 2 trim.
Result<std::vector<double>> TrimmedMean(const UpdateBlocks& updates,
                                        size_t trim, size_t threads);

// How many values a trimmed mean with `beta` takes off each end: floor(beta n),
// where a product that is an integer but for rounding is that integer.
size_t TrimCount(double beta, size_t update_count);

// The updates in the order of their Krum scores, best first, equal scores in
// the order of UpdateBlocks: a score is the sum of the squared distances to the
// n - f - 2 nearest other updates (Blanchard et al., "Machine Learning with
// Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017). Krum is the
// first, multi-Krum(m) the unweighted mean of the first m. n >= 2f + 3.
// Elements in `ignored` (disjoint, ascending) do not count for distances.
// Memory: threads x n^2 doubles besides the blocks. The squared distances come
// from a Gram matrix: to about 1e-15 of the squared norms.
Result<std::vector<size_t>> KrumRanking(const UpdateBlocks& updates, size_t f,
                                        std::span<const ElementRange> ignored,
                                        size_t threads);
// KrumRanking() of squared distances that are known, n x n.
Result<std::vector<size_t>> RankByKrum(
    std::span<const double> squared_distances, size_t update_count, size_t f);

// The unweighted mean of the `chosen` updates, added in their order.
Result<std::vector<double>> MeanOfChosen(const UpdateBlocks& updates,
                                         std::span<const size_t> chosen,
                                         size_t threads);

// The geometric median, argmin_v sum_i alpha_i ||v - x_i|| with alpha_i the
// weights' shares, by `iterations` steps of the smoothed Weiszfeld algorithm
// (Pillutla et al., "Robust Aggregation for Federated Learning", IEEE TSP
// 2022):
//   beta_i = alpha_i / max(nu, ||v - x_i||),  v <- sum beta_i x_i / sum beta_i
// It starts from the coordinate median, which no minority can move far, so that
// few steps are enough also against an update of a million times the others'
// size; from the mean, three steps are not. Breakdown point: half of the
// weight. n >= 1. Elements in `ignored` do not count for distances, and of
// these the coordinate median is what is returned.
Result<std::vector<double>> GeometricMedian(
    const UpdateBlocks& updates, int iterations, double nu,
    std::span<const ElementRange> ignored, size_t threads);

// What a strategy that looks at individual updates (plan::HoldsUpdates) makes
// of them: its rule for the shared elements and, whatever the rule, the
// coordinate median for the elements of `buffers` (ascending, disjoint).
// Buffers are statistics, not directions: their size would decide what is near,
// and a rule that chose by the shared elements alone would take a chosen
// update's word for its buffers.
Result<std::vector<double>> AggregateRobustly(
    const plan::StrategySpec& strategy, const UpdateBlocks& updates,
    std::span<const ElementRange> buffers, size_t threads);

// Server-side norm bounding (Sun et al., "Can You Really Backdoor Federated
// Learning?", 2019) of an update that is seen a stretch at a time: the elements
// in `shared` are scaled so that their L2 norm is at most a bound, but for the
// rounding of each to float. The norm is the root of the sum of squares in
// double, element after element.
//
// `sum`, which begins as 0, and the squares of those of the elements
// [first, first + values.size()) that are in `shared`, added in order.
double AddSquares(std::span<const ElementRange> shared, size_t first,
                  std::span<const float> values, double sum);
// What to multiply with, given the sum over all: 1 if the norm is within.
double BoundFactor(double sum_of_squares, double bound);
// Multiplies those of these elements that are in `shared`.
void ScaleElements(std::span<const ElementRange> shared, size_t first,
                   double factor, std::span<float> values);

}  // namespace selvage::aggregation

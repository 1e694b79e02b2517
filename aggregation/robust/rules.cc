#include "aggregation/robust/rules.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>

#include <Eigen/Core>

#include "aggregation/robust/block_runner.h"
#include "base/check.h"

namespace selvage::aggregation {
namespace {

using robust::BlockWork;
using robust::ForEachOverlap;
using robust::Rows;
using robust::RunBlocks;

// Columns worked on at a time: with a hundred updates they stay in the second
// cache.
constexpr size_t kColumns = 256;

Status TooFew(std::string_view rule, size_t update_count, size_t needed) {
  return FailedPrecondition(
      std::string(rule) + " of " + std::to_string(update_count) +
      " updates: it needs at least " + std::to_string(needed));
}

Status CheckNotEmpty(std::string_view rule, const UpdateBlocks& updates) {
  return updates.update_count() > 0 ? OkStatus() : TooFew(rule, 0, 1);
}

// Makes lower[i] <= upper[i] for all columns.
void CompareExchange(float* __restrict lower, float* __restrict upper,
                     size_t columns) {
  for (size_t i = 0; i < columns; ++i) {
    const float a = lower[i];
    const float b = upper[i];
    lower[i] = b < a ? b : a;
    upper[i] = b < a ? a : b;
  }
}

// Sorts every column of a stretch of rows: row r holds the r-th smallest
// afterwards. Batcher's merge exchange (Knuth, TAOCP 3, 5.2.2, Algorithm M):
// its comparisons do not depend on the values, so whole rows are compared at
// once.
void SortColumns(Rows& rows, size_t begin, size_t columns) {
  const size_t n = rows.update_count;
  if (n < 2) return;
  size_t top = 1;
  while (top * 2 < n) top *= 2;
  for (size_t p = top; p > 0; p /= 2) {
    size_t q = top;
    size_t r = 0;
    size_t d = p;
    for (;;) {
      for (size_t i = 0; i + d < n; ++i) {
        if ((i & p) != r) continue;
        CompareExchange(rows.row(i).data() + begin,
                        rows.row(i + d).data() + begin, columns);
      }
      if (q == p) break;
      d = q - p;
      q /= 2;
      r = p;
    }
  }
}

// out[i] = the mean of the ranks [first, last) of column begin + i.
void MeanOfRanks(Rows& rows, size_t first, size_t last, size_t begin,
                 std::span<double> out) {
  for (size_t at = 0; at < out.size(); at += kColumns) {
    const size_t columns = std::min(kColumns, out.size() - at);
    SortColumns(rows, begin + at, columns);
    const std::span<double> part = out.subspan(at, columns);
    std::fill(part.begin(), part.end(), 0.0);
    for (size_t r = first; r < last; ++r) {
      const float* row = rows.row(r).data() + begin + at;
      for (size_t i = 0; i < columns; ++i) part[i] += double{row[i]};
    }
    const auto count = static_cast<double>(last - first);
    for (double& value : part) value /= count;
  }
}

// The ranks whose mean is the median of n values.
std::pair<size_t, size_t> MiddleRanks(size_t n) {
  return {(n - 1) / 2, n / 2 + 1};
}

// The coordinate median of the elements in `ranges`, into `out`.
Status MedianInto(const UpdateBlocks& updates,
                  std::span<const ElementRange> ranges, size_t threads,
                  std::vector<double>& out) {
  const auto [first, last] = MiddleRanks(updates.update_count());
  const size_t rank_first = first;
  const size_t rank_last = last;
  BlockWork work;
  work.wanted = [&](const ElementRange& block) {
    bool any = false;
    ForEachOverlap(block, ranges, [&](size_t, size_t) { any = true; });
    return any;
  };
  work.compute = [&](size_t, Rows& rows) {
    ForEachOverlap(rows.range, ranges, [&](size_t begin, size_t count) {
      MeanOfRanks(rows, rank_first, rank_last, begin,
                  std::span(out).subspan(rows.range.begin + begin, count));
    });
  };
  return RunBlocks(updates, threads, work);
}

// Elements that do not count become the same in all updates.
void Blank(Rows& rows, std::span<const ElementRange> ignored) {
  ForEachOverlap(rows.range, ignored, [&](size_t begin, size_t count) {
    for (size_t u = 0; u < rows.update_count; ++u) {
      const auto part = rows.row(u).subspan(begin, count);
      std::fill(part.begin(), part.end(), 0.0f);
    }
  });
}

// n x n, symmetric.
Result<std::vector<double>> SquaredDistances(
    const UpdateBlocks& updates, std::span<const ElementRange> ignored,
    size_t threads) {
  const size_t n = updates.update_count();
  const auto size = static_cast<Eigen::Index>(n);
  std::vector<Eigen::MatrixXd> grams(std::max<size_t>(1, threads));
  Eigen::MatrixXd gram = Eigen::MatrixXd::Zero(size, size);
  BlockWork work;
  work.compute = [&](size_t slot, Rows& rows) {
    Blank(rows, ignored);
    grams[slot].setZero(size, size);
    Eigen::MatrixXd part;
    for (size_t at = 0; at < rows.range.count; at += kColumns) {
      const size_t columns = std::min(kColumns, rows.range.count - at);
      part.resize(static_cast<Eigen::Index>(columns), size);
      for (size_t u = 0; u < n; ++u) {
        part.col(static_cast<Eigen::Index>(u)) =
            Eigen::Map<const Eigen::VectorXf>(
                rows.row(u).data() + at, static_cast<Eigen::Index>(columns))
                .cast<double>();
      }
      grams[slot].selfadjointView<Eigen::Lower>().rankUpdate(part.transpose());
    }
  };
  work.reduce = [&](size_t slot) { gram += grams[slot]; };
  SELVAGE_RETURN_IF_ERROR(RunBlocks(updates, threads, work));
  std::vector<double> distances(n * n, 0.0);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < i; ++j) {
      const auto row = static_cast<Eigen::Index>(i);
      const auto column = static_cast<Eigen::Index>(j);
      const double distance = std::max(
          0.0, gram(row, row) + gram(column, column) - 2 * gram(row, column));
      distances[i * n + j] = distance;
      distances[j * n + i] = distance;
    }
  }
  return distances;
}

// out = sum of factors[u] x_u.
Status WeightedSum(const UpdateBlocks& updates, std::span<const double> factors,
                   size_t threads, std::vector<double>& out) {
  BlockWork work;
  work.compute = [&](size_t, Rows& rows) {
    const std::span<double> part =
        std::span(out).subspan(rows.range.begin, rows.range.count);
    std::fill(part.begin(), part.end(), 0.0);
    for (size_t u = 0; u < rows.update_count; ++u) {
      if (factors[u] == 0) continue;
      const std::span<const float> row = rows.row(u);
      for (size_t i = 0; i < part.size(); ++i) {
        part[i] += factors[u] * double{row[i]};
      }
    }
  };
  return RunBlocks(updates, threads, work);
}

// ||center - x_u|| for all u.
Result<std::vector<double>> DistancesTo(const UpdateBlocks& updates,
                                        std::span<const double> center,
                                        std::span<const ElementRange> ignored,
                                        size_t threads) {
  const size_t n = updates.update_count();
  std::vector<std::vector<double>> parts(std::max<size_t>(1, threads),
                                         std::vector<double>(n));
  std::vector<double> squares(n, 0.0);
  BlockWork work;
  work.compute = [&](size_t slot, Rows& rows) {
    const auto middle = center.subspan(rows.range.begin, rows.range.count);
    std::vector<bool> counts(rows.range.count, true);
    ForEachOverlap(rows.range, ignored, [&](size_t begin, size_t count) {
      std::fill_n(counts.begin() + static_cast<std::ptrdiff_t>(begin), count,
                  false);
    });
    for (size_t u = 0; u < n; ++u) {
      const std::span<const float> row = rows.row(u);
      double sum = 0;
      for (size_t i = 0; i < row.size(); ++i) {
        const double difference = counts[i] ? double{row[i]} - middle[i] : 0.0;
        sum += difference * difference;
      }
      parts[slot][u] = sum;
    }
  };
  work.reduce = [&](size_t slot) {
    for (size_t u = 0; u < n; ++u) squares[u] += parts[slot][u];
  };
  SELVAGE_RETURN_IF_ERROR(RunBlocks(updates, threads, work));
  for (double& value : squares) value = std::sqrt(value);
  return squares;
}

}  // namespace

Result<std::vector<double>> CoordinateMedian(const UpdateBlocks& updates,
                                             size_t threads) {
  SELVAGE_RETURN_IF_ERROR(CheckNotEmpty("the coordinate median", updates));
  std::vector<double> out(updates.element_count());
  const ElementRange all = {0, out.size()};
  SELVAGE_RETURN_IF_ERROR(
      MedianInto(updates, std::span(&all, 1), threads, out));
  return out;
}

size_t TrimCount(double beta, size_t update_count) {
  constexpr double kRounding = 1e-9;
  return static_cast<size_t>(
      std::floor(beta * static_cast<double>(update_count) + kRounding));
}

Result<std::vector<double>> TrimmedMean(const UpdateBlocks& updates,
                                        size_t trim, size_t threads) {
  const size_t n = updates.update_count();
  if (n <= 2 * trim) {
    return TooFew("a mean trimmed by " + std::to_string(trim) + " at each end",
                  n, 2 * trim + 1);
  }
  std::vector<double> out(updates.element_count());
  BlockWork work;
  work.compute = [&](size_t, Rows& rows) {
    MeanOfRanks(rows, trim, n - trim, 0,
                std::span(out).subspan(rows.range.begin, rows.range.count));
  };
  SELVAGE_RETURN_IF_ERROR(RunBlocks(updates, threads, work));
  return out;
}

Result<std::vector<size_t>> RankByKrum(
    std::span<const double> squared_distances, size_t update_count, size_t f) {
  const size_t n = update_count;
  SELVAGE_CHECK(squared_distances.size() == n * n);
  if (n < 2 * f + 3) {
    return TooFew("Krum against " + std::to_string(f) + " attackers", n,
                  2 * f + 3);
  }
  std::vector<double> scores(n);
  std::vector<double> others;
  for (size_t i = 0; i < n; ++i) {
    const auto row = squared_distances.subspan(i * n, n);
    others.assign(row.begin(), row.end());
    others.erase(others.begin() + static_cast<std::ptrdiff_t>(i));
    std::sort(others.begin(), others.end());
    const auto nearest = static_cast<std::ptrdiff_t>(n - f - 2);
    scores[i] = std::accumulate(others.begin(), others.begin() + nearest, 0.0);
  }
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return scores[a] < scores[b]; });
  return order;
}

Result<std::vector<size_t>> KrumRanking(const UpdateBlocks& updates, size_t f,
                                        std::span<const ElementRange> ignored,
                                        size_t threads) {
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<double> distances,
                           SquaredDistances(updates, ignored, threads));
  return RankByKrum(distances, updates.update_count(), f);
}

Result<std::vector<double>> MeanOfChosen(const UpdateBlocks& updates,
                                         std::span<const size_t> chosen,
                                         size_t threads) {
  if (chosen.empty()) return TooFew("the mean of the chosen", 0, 1);
  std::vector<double> out(updates.element_count());
  BlockWork work;
  work.compute = [&](size_t, Rows& rows) {
    const std::span<double> part =
        std::span(out).subspan(rows.range.begin, rows.range.count);
    std::fill(part.begin(), part.end(), 0.0);
    for (const size_t u : chosen) {
      const std::span<const float> row = rows.row(u);
      for (size_t i = 0; i < part.size(); ++i) part[i] += double{row[i]};
    }
    for (double& value : part) value /= static_cast<double>(chosen.size());
  };
  SELVAGE_RETURN_IF_ERROR(RunBlocks(updates, threads, work));
  return out;
}

Result<std::vector<double>> GeometricMedian(
    const UpdateBlocks& updates, int iterations, double nu,
    std::span<const ElementRange> ignored, size_t threads) {
  SELVAGE_ASSIGN_OR_RETURN(std::vector<double> center,
                           CoordinateMedian(updates, threads));
  const std::vector<double> median =
      ignored.empty() ? std::vector<double>() : center;
  const size_t n = updates.update_count();
  std::vector<double> factors(n);
  for (int step = 0; step < iterations; ++step) {
    SELVAGE_ASSIGN_OR_RETURN(const std::vector<double> distances,
                             DistancesTo(updates, center, ignored, threads));
    double sum = 0;
    for (size_t u = 0; u < n; ++u) {
      factors[u] =
          static_cast<double>(updates.weight(u)) / std::max(nu, distances[u]);
      sum += factors[u];
    }
    for (double& factor : factors) factor /= sum;
    SELVAGE_RETURN_IF_ERROR(WeightedSum(updates, factors, threads, center));
  }
  for (const ElementRange& range : ignored) {
    std::copy_n(median.begin() + static_cast<std::ptrdiff_t>(range.begin),
                range.count,
                center.begin() + static_cast<std::ptrdiff_t>(range.begin));
  }
  return center;
}

Result<std::vector<double>> AggregateRobustly(
    const plan::StrategySpec& strategy, const UpdateBlocks& updates,
    std::span<const ElementRange> buffers, size_t threads) {
  const auto f = static_cast<size_t>(strategy.num_malicious_nodes);
  const auto best = [&](size_t m) -> Result<std::vector<double>> {
    SELVAGE_ASSIGN_OR_RETURN(const std::vector<size_t> ranking,
                             KrumRanking(updates, f, buffers, threads));
    m = std::min(m == 0 ? ranking.size() - f : m, ranking.size());
    return MeanOfChosen(updates, std::span(ranking).first(m), threads);
  };
  const auto rule = [&]() -> Result<std::vector<double>> {
    switch (strategy.name) {
      case plan::StrategyName::kFedMedian:
        return CoordinateMedian(updates, threads);
      case plan::StrategyName::kFedTrimmedAvg:
        return TrimmedMean(
            updates, TrimCount(strategy.beta, updates.update_count()), threads);
      case plan::StrategyName::kKrum:
        return best(1);
      case plan::StrategyName::kMultiKrum:
        return best(static_cast<size_t>(strategy.num_nodes_to_select));
      case plan::StrategyName::kRfa:
        return GeometricMedian(updates, strategy.num_iterations, strategy.nu,
                               buffers, threads);
      case plan::StrategyName::kFedAvg:
      case plan::StrategyName::kFedAvgM:
      case plan::StrategyName::kFedAdam:
      case plan::StrategyName::kFedAdagrad:
      case plan::StrategyName::kFedYogi:
      case plan::StrategyName::kNormBound:
      case plan::StrategyName::kFedNova:
      case plan::StrategyName::kQFedAvg:
      case plan::StrategyName::kScaffold:
        break;
    }
    return Internal(std::string(plan::StrategyNameText(strategy.name)) +
                    " needs no individual updates");
  };
  SELVAGE_ASSIGN_OR_RETURN(std::vector<double> out, rule());
  if (!buffers.empty() && strategy.name != plan::StrategyName::kFedMedian &&
      strategy.name != plan::StrategyName::kRfa) {
    SELVAGE_RETURN_IF_ERROR(MedianInto(updates, buffers, threads, out));
  }
  return out;
}

double AddSquares(std::span<const ElementRange> shared, size_t first,
                  std::span<const float> values, double sum) {
  for (const ElementRange& range : shared) {
    for (const float value : Within(range, first, values)) {
      sum += double{value} * double{value};
    }
  }
  return sum;
}

double BoundFactor(double sum_of_squares, double bound) {
  const double norm = std::sqrt(sum_of_squares);
  return norm <= bound ? 1 : bound / norm;
}

void ScaleElements(std::span<const ElementRange> shared, size_t first,
                   double factor, std::span<float> values) {
  if (factor == 1) return;
  for (const ElementRange& range : shared) {
    for (float& value : Within(range, first, values)) {
      value = static_cast<float>(double{value} * factor);
    }
  }
}

}  // namespace selvage::aggregation

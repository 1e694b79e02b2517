#include "client/core/personal_gate.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace selvage::client {
namespace {

// The continued fraction of I_x(a, b) by Lentz's method; converges fast for
// x < (a + 1) / (a + b + 2).
double BetaFraction(double a, double b, double x) {
  constexpr double kTiny = 1e-300;
  constexpr double kPrecision = 1e-15;
  constexpr int kStepsMax = 10'000;
  const auto away_from_zero = [](double v) {
    return std::fabs(v) < kTiny ? kTiny : v;
  };
  double c = 1;
  double d = 1 / away_from_zero(1 - (a + b) * x / (a + 1));
  double h = d;
  for (int m = 1; m <= kStepsMax; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / away_from_zero(1 + even * d);
    c = away_from_zero(1 + even / c);
    h *= d * c;
    const double odd =
        -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / away_from_zero(1 + odd * d);
    c = away_from_zero(1 + odd / c);
    const double step = d * c;
    h *= step;
    if (std::fabs(step - 1) < kPrecision) break;
  }
  return h;
}

// I_x(a, b).
double RegularizedBeta(double a, double b, double x) {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  const double front =
      std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) +
               a * std::log(x) + b * std::log1p(-x));
  if (x < (a + 1) / (a + b + 2)) return front * BetaFraction(a, b, x) / a;
  return 1 - front * BetaFraction(b, a, 1 - x) / b;
}

double McNemar(std::span<const double> differences) {
  int gained = 0;
  int lost = 0;
  for (const double d : differences) {
    if (d > 0) ++gained;
    if (d < 0) ++lost;
  }
  return BinomialHalfTail(gained + lost, lost);
}

}  // namespace

double StudentCdf(double t, double degrees) {
  const double tail =
      RegularizedBeta(degrees / 2, 0.5, degrees / (degrees + t * t)) / 2;
  return t < 0 ? tail : 1 - tail;
}

double BinomialHalfTail(int n, int k) {
  if (k <= 0) return 1;
  double sum = 0;
  for (int i = k; i <= n; ++i) {
    sum += std::exp(std::lgamma(n + 1) - std::lgamma(i + 1) -
                    std::lgamma(n - i + 1) - n * std::log(2.0));
  }
  return std::min(sum, 1.0);
}

Result<GateVerdict> JudgePersonal(std::span<const float> personal,
                                  std::span<const float> global,
                                  bool maximize) {
  if (personal.size() != global.size()) {
    return InvalidArgument(
        "the personal model has " + std::to_string(personal.size()) +
        " scores, the global one " + std::to_string(global.size()));
  }
  std::vector<double> differences;
  differences.reserve(personal.size());
  double sum = 0;
  bool like_counts = true;
  for (size_t i = 0; i < personal.size(); ++i) {
    if (!std::isfinite(personal[i]) || !std::isfinite(global[i])) {
      return OutOfRange("score " + std::to_string(i) + " is not finite");
    }
    const double gain =
        static_cast<double>(personal[i]) - static_cast<double>(global[i]);
    differences.push_back(maximize ? gain : -gain);
    sum += differences.back();
    like_counts = like_counts && (gain == 0 || gain == 1 || gain == -1);
  }
  GateVerdict verdict;
  if (differences.empty()) return verdict;
  const auto n = static_cast<double>(differences.size());
  verdict.mean_difference = sum / n;
  if (differences.size() < 2) return verdict;

  const bool all_equal =
      std::all_of(differences.begin(), differences.end(),
                  [&](double d) { return d == differences.front(); });
  if (like_counts || all_equal) {
    verdict.p_value = McNemar(differences);
  } else {
    double squares = 0;
    for (const double d : differences) {
      squares += (d - verdict.mean_difference) * (d - verdict.mean_difference);
    }
    const double error = std::sqrt(squares / (n - 1) / n);
    verdict.p_value = StudentCdf(verdict.mean_difference / error, n - 1);
  }
  verdict.personal_serves = verdict.p_value >= kGateLevel;
  return verdict;
}

}  // namespace selvage::client

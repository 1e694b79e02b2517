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

namespace {

// p of H0: mean d >= 0.
double PValue(std::span<const double> differences, double mean) {
  if (differences.size() < 2) return 1;
  bool like_counts = true;
  bool all_equal = true;
  for (const double d : differences) {
    like_counts = like_counts && (d == 0 || d == 1 || d == -1);
    all_equal = all_equal && d == differences.front();
  }
  if (like_counts || all_equal) return McNemar(differences);
  const auto n = static_cast<double>(differences.size());
  double squares = 0;
  for (const double d : differences) squares += (d - mean) * (d - mean);
  const double error = std::sqrt(squares / (n - 1) / n);
  return StudentCdf(mean / error, n - 1);
}

bool Serves(plan::GateRule rule, const GateVerdict& verdict,
            std::span<double> differences) {
  const bool not_worse = verdict.p_value >= kGateLevel;
  switch (rule) {
    case plan::GateRule::kNotWorse:
      return not_worse;
    case plan::GateRule::kNotLower:
      return not_worse && !differences.empty() && verdict.mean_difference >= 0;
    case plan::GateRule::kBetter:
      for (double& d : differences) d = -d;
      return PValue(differences, -verdict.mean_difference) < kGateLevel;
  }
  return false;
}

}  // namespace

Result<GateVerdict> JudgePersonal(std::span<const float> personal,
                                  std::span<const float> global, bool maximize,
                                  plan::GateRule rule) {
  if (personal.size() != global.size()) {
    return InvalidArgument(
        "the personal model has " + std::to_string(personal.size()) +
        " scores, the global one " + std::to_string(global.size()));
  }
  std::vector<double> differences;
  differences.reserve(personal.size());
  double sum = 0;
  for (size_t i = 0; i < personal.size(); ++i) {
    if (!std::isfinite(personal[i]) || !std::isfinite(global[i])) {
      return OutOfRange("score " + std::to_string(i) + " is not finite");
    }
    const double gain =
        static_cast<double>(personal[i]) - static_cast<double>(global[i]);
    differences.push_back(maximize ? gain : -gain);
    sum += differences.back();
  }
  GateVerdict verdict;
  if (!differences.empty()) {
    verdict.mean_difference = sum / static_cast<double>(differences.size());
  }
  verdict.p_value = PValue(differences, verdict.mean_difference);
  verdict.personal_serves = Serves(rule, verdict, differences);
  return verdict;
}

}  // namespace selvage::client

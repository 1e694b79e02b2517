// The gate between a personal model and the user. By default the personal model
// serves unless a paired one-sided 95 % test on the local hold-out says that it
// is worse than the global one (architecture.md, 6.4); a plan may ask for more.
//
// Let d_i = personal_i - global_i be the difference of the key metric on
// held-out example i, its sign turned when the metric is to be minimised.
// H0: the personal model is not worse (mean d >= 0).
//
//   scores like 0 and 1 (every d_i in {-1, 0, 1}): McNemar's exact test. With b
//     examples gained and c lost, p = P(X >= c), X ~ Binomial(b + c, 1/2).
//   otherwise: Student's paired t test. t = mean(d) / (s / sqrt(n)),
//     p = P(T_{n-1} <= t). If all d_i are equal (s = 0) the t test has no
//     answer and the sign test takes its place: p = 2^-n for d < 0, else 1.
//
// Worse iff p < 0.05. With fewer than two examples, or none that differ, p = 1.
//
// The personal model serves (plan::GateRule):
//
//   not_worse   unless it is worse: without evidence the personal model serves.
//     A personal model that does a little harm everywhere is let through
//     nearly everywhere, since a small hold-out proves little.
//   not_lower   if it is not worse and mean d >= 0, of at least one example.
//   The
//     better of two models by their means, ties to the personal one: right
//     where fine-tuning may do harm and a score is a mean over much (many
//     tokens of a sequence), wrong where ten scores of 0 and 1 are all noise.
//   better      only if the same test with the sides exchanged says that the
//     global model is worse than the personal one (p < 0.05).
#pragma once

#include <span>

#include "base/status.h"
#include "plan/task.h"

namespace selvage::client {

inline constexpr double kGateLevel = 0.05;

struct GateVerdict {
  bool personal_serves = true;
  double p_value = 1;          // of "the personal model is not worse"
  double mean_difference = 0;  // > 0: personal is better; 0 without examples
};

// INVALID_ARGUMENT if the sizes differ; OUT_OF_RANGE if a score is not finite.
Result<GateVerdict> JudgePersonal(
    std::span<const float> personal, std::span<const float> global,
    bool maximize, plan::GateRule rule = plan::GateRule::kNotWorse);

// P(T <= t) for Student's t with `degrees` > 0 of freedom, by the continued
// fraction of the regularised incomplete beta function (Numerical Recipes, 6.4;
// Abramowitz and Stegun, 26.5.8 and 26.7.1). Absolute error below 1e-10.
double StudentCdf(double t, double degrees);

// P(X >= k), X ~ Binomial(n, 1/2).
double BinomialHalfTail(int n, int k);

}  // namespace selvage::client

// What a strategy has its devices make of their deltas, and declare beside
// them, so that an exact integer sum is enough for the server. Device and
// coordinator share it: what the one computes the other bounds.
//
// fednova (Wang et al., 2020). A device sends Delta / tau and declares w tau,
// tau being what its local steps add up to. Of the `shared` part
//
//   d = (sum w tau / sum w) (sum w Delta / tau / sum w)
//
// so that a device which took more steps does not pull the model further; a
// plain mean has its optimum elsewhere.
//
// qfedavg (Li et al., 2020, "Fair Resource Allocation in Federated Learning").
// F is the mean loss of the received model on the examples that the device
// trains on, within [1e-10, max_loss], L = 1 / lr. With everything divided by
// L max_loss^q, a device's weight is f = (F / max_loss)^q in 1/65,535ths, and
// what it declares is h = f + q L |Delta|^2 F^(q-1) / max_loss^q, |Delta| being
// the norm of the `shared` part:
//
//   d = sum f Delta / sum h
//
// q = 0 is the mean without weights.
//
// scaffold (Karimireddy et al., 2020, option II). The server keeps a control
// variate c of the `shared` tensors, every device one of its own, c_i, all 0 at
// first. A device trains with c - c_i added to its gradients, and sends beside
// Delta, as one more tensor for each shared one,
//
//   Delta c_i = -c - Delta / (tau lr)
//
// which its c_i has moved by when the round is committed. Nothing has a weight:
//
//   d = mean Delta;  c <- c + min(1, updates / N) mean Delta c_i
//
// Declared numbers are integers: multiples of 2^-10, at most 2^20 for every
// unit of weight, so that a round's sum cannot overflow (plan/task.h: the sum
// of weights is at most 2^32).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/status.h"
#include "plan/task.h"
#include "plan/tensor_table.h"

namespace selvage::aggregation {

inline constexpr int kScalarFractionBits = 10;
// Of tau, and of h in units of the largest weight.
inline constexpr int64_t kDeclaredMax = int64_t{1} << 20;

// Elements of the parts of an update: those of UpdateCounts(table), then of
// scaffold the shared tensors once more.
std::vector<size_t> ContributionCounts(plan::ContributionName name,
                                       const plan::TensorTable& table);

// Elements of the shared tensors, which have control variates.
size_t SharedCount(const plan::TensorTable& table);

// Delta c_i, from the change of the shared elements; `rate` is tau lr.
std::vector<float> ControlChange(std::span<const float> control,
                                 std::span<const float> delta, double rate);

// How many numbers a device declares.
size_t DeclaredScalars(plan::ContributionName name);

// tau: the sum of what each of `steps` local steps counts in Delta = -lr sum
// a_k g_k, for SGD with its momentum (and Nesterov's), the proximal term mu and
// the rate factors (nullptr: 1). Without any of these it is `steps`; with
// momentum rho, (steps - rho (1 - rho^steps) / (1 - rho)) / (1 - rho).
double NormalisedSteps(const plan::OptimizerSpec& optimizer, double proximal_mu,
                       uint64_t steps,
                       const std::function<double(uint64_t step)>& rate_factor);

// What fednova declares. OUT_OF_RANGE unless 0 < tau <= kDeclaredMax.
Result<int64_t> DeclareSteps(uint32_t weight, double tau);

struct LossWeight {
  uint32_t weight = 0;  // 1..65,535
  int64_t declared = 0;
};
// Of qfedavg; `norm` is |Delta|. OUT_OF_RANGE if a number is not finite.
// What is beyond the bounds is taken for the bound.
Result<LossWeight> WeighByLoss(const plan::ContributionSpec& contribution,
                               double lr, double loss, double norm);

// OUT_OF_RANGE or INVALID_ARGUMENT unless `scalars` is what an honest device
// of this plan may declare beside this weight: as many as there should be; for
// fednova in [1, weight tau_max], tau_max following from the plan and, if it is
// below weight_cap, from the weight, which is a number of examples then; for
// qfedavg at least the weight.
Status CheckDeclared(const plan::ContributionSpec& contribution,
                     const plan::TrainSpec& train, int weight_cap,
                     uint32_t weight, std::span<const int64_t> scalars);

// What turns the weighted mean of the `shared` part into d. REQUIRES: the sums
// of updates that CheckDeclared() passed; `declared_sum` is not looked at for a
// plain contribution.
double MeanFactor(plan::ContributionName name, uint64_t weight_sum,
                  int64_t declared_sum);

}  // namespace selvage::aggregation

// Server strategies: what the coordinator does with a round's mean delta.
#pragma once

#include <cstddef>
#include <span>

#include "base/bytes.h"
#include "base/status.h"
#include "plan/task.h"

namespace selvage::aggregation {

// What a strategy remembers from one committed round to the next: float32
// values, one of each kind for each element of the `shared` tensors, in table
// order. As bytes: the head, all momenta, all second moments, little-endian.
struct ServerStateForm {
  Bytes head;  // magic, version, strategy, count
  // fedavgm: v; the adaptive ones: m; scaffold: the control variate c.
  bool has_momentum = false;
  bool has_second_moment = false;  // the adaptive ones: v
  // Before the first round (a momentum is 0): tau^2, the smallest start that
  // Reddi et al. allow, so that early steps are not divided by nothing.
  float initial_second_moment = 0;
};
// Second moments are never negative; there are none without momenta.
ServerStateForm FormOf(const plan::StrategySpec& strategy, size_t shared_count);

// One step over a tensor of role `shared`; d is the mean delta, x the master,
// eta the server's learning rate. Computed in double without contraction and
// rounded once to float32, so that a step is the same everywhere.
//
//   fedavg      x <- x + eta d                       (McMahan et al., 2017)
//               and so the robust rules, fednova and qfedavg, of which d is
//               the result, and scaffold, whose c moves by ApplyMean()
//   fedavgm     v <- beta v + d;  x <- x + eta v      (Hsu et al., 2019)
//               with Nesterov: x <- x + eta (d + beta v)
//   adaptive    m <- beta_1 m + (1 - beta_1) d       (Reddi et al., 2021,
//               x <- x + eta m / (sqrt(v) + tau)      Algorithm 2)
//     fedadagrad  v <- v + d^2
//     fedadam     v <- beta_2 v + (1 - beta_2) d^2
//     fedyogi     v <- v - (1 - beta_2) d^2 sign(v - d^2)
//
// `momentum` and `second_moment` are this tensor's part of the state, empty
// where the step needs none. INVALID_ARGUMENT if sizes differ; OUT_OF_RANGE
// if a result is not finite: master and state are unspecified then.
Status ApplyServerStep(const plan::StrategySpec& strategy,
                       std::span<const double> mean_delta,
                       std::span<float> momentum,
                       std::span<float> second_moment, std::span<float> master);

// x <- x + d: for buffers, which are means, not directions, and for scaffold's
// control variate. No strategy scales them, and above all no adaptive one: a
// BatchNorm variance that was stepped instead of averaged can turn negative.
// Errors as above.
Status ApplyMean(std::span<const double> mean_delta, std::span<float> master);

}  // namespace selvage::aggregation

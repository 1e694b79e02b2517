// Server strategies: what the coordinator does with a round's mean delta.
#pragma once

#include <span>

#include "base/status.h"

namespace selvage::aggregation {

// FedAvg with a server learning rate (McMahan et al., 2017, Algorithm 1; Reddi
// et al., 2021, for eta): x <- x + eta * delta, computed in double without
// contraction and rounded once to float32. buffer_float tensors always use
// eta = 1: a BatchNorm statistic is a mean, not a direction.
//
// INVALID_ARGUMENT if sizes differ; OUT_OF_RANGE if a result is not finite
// (`master` is unchanged then).
Status ApplyFedAvg(double server_learning_rate,
                   std::span<const double> mean_delta, std::span<float> master);

}  // namespace selvage::aggregation

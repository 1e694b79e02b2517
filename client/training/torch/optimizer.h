// SGD and Adam over a list of tensors. Internal to the engine.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "base/bytes.h"
#include "base/status.h"
#include "plan/task.h"

namespace selvage::client::torch_engine {

// PyTorch's formulas, operation by operation: torch.optim.SGD without dampening
// and Nesterov, torch.optim.Adam without AMSGrad. `proximal_mu` > 0 adds
// mu (w - w_0) to every gradient, w_0 being the parameters' values now.
// Thread-compatible.
class Optimizer {
 public:
  Optimizer(const plan::OptimizerSpec& spec, std::vector<at::Tensor> parameters,
            double proximal_mu);

  // Moves every parameter that has a gradient and drops the gradients.
  void Step();

  // The state of all parameters, for an Optimizer that is made alike.
  Bytes Save() const;
  // DATA_LOSS unless Save() wrote it for parameters of these sizes; the state
  // is unspecified then.
  Status Restore(ByteSpan bytes);

 private:
  struct State {
    int64_t steps = 0;
    at::Tensor momentum;  // SGD: the velocity; Adam: the mean of gradients
    at::Tensor variance;  // Adam: the mean of their squares
  };
  void StepSgd(at::Tensor& parameter, at::Tensor gradient, State& state) const;
  void StepAdam(at::Tensor& parameter, at::Tensor gradient, State& state) const;

  const plan::OptimizerSpec spec_;
  const double proximal_mu_;
  std::vector<at::Tensor> parameters_;
  std::vector<at::Tensor> anchors_;  // empty unless proximal_mu_ > 0
  std::vector<State> states_;
};

}  // namespace selvage::client::torch_engine

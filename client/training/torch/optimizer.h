// SGD, Adam and AdamW over a list of tensors. Internal to the engine.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <ATen/core/Tensor.h>

#include "base/bytes.h"
#include "base/status.h"
#include "plan/task.h"

namespace selvage::client::torch_engine {

// `mu` > 0 adds mu (w - w_0) to the gradients of the parameters that are
// marked, w_0 being their values when the Optimizer is made.
struct Proximal {
  double mu = 0;
  std::vector<bool> on;  // one a parameter
};

// PyTorch's formulas, operation by operation: torch.optim.SGD without
// dampening, torch.optim.Adam and AdamW without AMSGrad. `clip_norm` > 0 scales
// all gradients together to at most this L2 norm, the proximal term included.
// `correction`: none, or one tensor a parameter, undefined where nothing is
// added to its gradient; before everything else. Thread-compatible.
class Optimizer {
 public:
  // `parameters` are the only tensors that are ever written to.
  Optimizer(const plan::OptimizerSpec& spec, std::vector<at::Tensor> parameters,
            Proximal proximal, double clip_norm,
            std::vector<at::Tensor> correction = {});

  // Moves every parameter that has a gradient, at spec.lr times `rate_factor`,
  // and drops the gradients.
  void Step(double rate_factor);

  // The state of all parameters, for an Optimizer that is made alike.
  Bytes Save() const;
  // DATA_LOSS unless Save() wrote it for parameters of these sizes; the state
  // is unspecified then.
  Status Restore(ByteSpan bytes);

  // The same for a training of its own, which may have another learning rate:
  // with the kind of the optimizer and `tensors`, which the parameters are of
  // the program, in their order.
  Bytes Export(std::span<const size_t> tensors) const;
  // DATA_LOSS unless Export() wrote it for the same kind and tensors, and it is
  // a state that training could have left: finite, no variance below zero. The
  // state is unspecified then.
  Status Import(std::span<const size_t> tensors, ByteSpan bytes);

 private:
  struct State {
    int64_t steps = 0;
    at::Tensor momentum;  // SGD: the velocity; Adam: the mean of gradients
    at::Tensor variance;  // Adam: the mean of their squares
  };
  // Whether training with this kind could have left it.
  bool IsSound(const State& state) const;
  void StepSgd(at::Tensor& parameter, at::Tensor gradient, State& state,
               double lr) const;
  void StepAdam(at::Tensor& parameter, at::Tensor gradient, State& state,
                double lr) const;

  const plan::OptimizerSpec spec_;
  const double proximal_mu_;
  const double clip_norm_;
  std::vector<at::Tensor> parameters_;
  std::vector<at::Tensor> correction_;
  std::vector<at::Tensor> anchors_;  // undefined where there is no term
  std::vector<State> states_;
};

}  // namespace selvage::client::torch_engine

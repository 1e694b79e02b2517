#include "client/training/torch/optimizer.h"

#include <cmath>
#include <utility>

#include <torch/torch.h>

namespace selvage::client::torch_engine {

Optimizer::Optimizer(const plan::OptimizerSpec& spec,
                     std::vector<at::Tensor> parameters, double proximal_mu)
    : spec_(spec),
      proximal_mu_(proximal_mu),
      parameters_(std::move(parameters)),
      states_(parameters_.size()) {
  if (proximal_mu_ == 0) return;
  for (const at::Tensor& parameter : parameters_) {
    anchors_.push_back(parameter.detach().clone());
  }
}

void Optimizer::Step() {
  const torch::NoGradGuard no_grad;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    at::Tensor& parameter = parameters_[i];
    at::Tensor gradient = parameter.grad();
    if (!gradient.defined()) continue;
    if (proximal_mu_ != 0) {
      gradient = gradient.add(parameter - anchors_[i], proximal_mu_);
    }
    if (spec_.name == plan::OptimizerName::kSgd) {
      StepSgd(parameter, gradient, states_[i]);
    } else {
      StepAdam(parameter, gradient, states_[i]);
    }
    parameter.mutable_grad().reset();
  }
}

void Optimizer::StepSgd(at::Tensor& parameter, at::Tensor gradient,
                        State& state) const {
  if (spec_.weight_decay != 0) {
    gradient = gradient.add(parameter, spec_.weight_decay);
  }
  if (spec_.momentum != 0) {
    if (state.momentum.defined()) {
      state.momentum.mul_(spec_.momentum).add_(gradient);
    } else {
      state.momentum = gradient.clone();
    }
    gradient = state.momentum;
  }
  parameter.add_(gradient, -spec_.lr);
}

void Optimizer::StepAdam(at::Tensor& parameter, at::Tensor gradient,
                         State& state) const {
  if (!state.momentum.defined()) {
    state.momentum = at::zeros_like(parameter);
    state.variance = at::zeros_like(parameter);
  }
  if (spec_.weight_decay != 0) {
    gradient = gradient.add(parameter, spec_.weight_decay);
  }
  const auto steps = static_cast<double>(++state.steps);
  const double correction1 = 1 - std::pow(spec_.beta1, steps);
  const double correction2 = 1 - std::pow(spec_.beta2, steps);
  state.momentum.mul_(spec_.beta1).add_(gradient, 1 - spec_.beta1);
  state.variance.mul_(spec_.beta2)
      .addcmul_(gradient, gradient, 1 - spec_.beta2);
  const at::Tensor denominator =
      (state.variance.sqrt() / std::sqrt(correction2)).add_(spec_.eps);
  parameter.addcdiv_(state.momentum, denominator, -spec_.lr / correction1);
}

}  // namespace selvage::client::torch_engine

#include "client/training/torch/optimizer.h"

#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include <torch/torch.h>

namespace selvage::client::torch_engine {
namespace {

ByteSpan AsByteSpan(const at::Tensor& dense) {
  return ByteSpan(static_cast<const uint8_t*>(dense.data_ptr()),
                  static_cast<size_t>(dense.nbytes()));
}

}  // namespace

Optimizer::Optimizer(const plan::OptimizerSpec& spec,
                     std::vector<at::Tensor> parameters, Proximal proximal,
                     double clip_norm)
    : spec_(spec),
      proximal_mu_(proximal.mu),
      clip_norm_(clip_norm),
      parameters_(std::move(parameters)),
      anchors_(parameters_.size()),
      states_(parameters_.size()) {
  if (proximal_mu_ == 0) return;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (proximal.on.at(i)) anchors_[i] = parameters_[i].detach().clone();
  }
}

void Optimizer::Step(double rate_factor) {
  const torch::NoGradGuard no_grad;
  std::vector<at::Tensor> gradients(parameters_.size());
  double squares = 0;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    gradients[i] = parameters_[i].grad();
    if (!gradients[i].defined()) continue;
    if (anchors_[i].defined()) {
      gradients[i] =
          gradients[i].add(parameters_[i] - anchors_[i], proximal_mu_);
    }
    if (clip_norm_ > 0) {
      squares += gradients[i].to(torch::kFloat64).square().sum().item<double>();
    }
  }
  const double norm = std::sqrt(squares);
  const double lr = spec_.lr * rate_factor;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    at::Tensor gradient = gradients[i];
    if (!gradient.defined()) continue;
    if (clip_norm_ > 0 && norm > clip_norm_) {
      gradient = gradient.mul(clip_norm_ / norm);
    }
    if (spec_.name == plan::OptimizerName::kSgd) {
      StepSgd(parameters_[i], gradient, states_[i], lr);
    } else {
      StepAdam(parameters_[i], gradient, states_[i], lr);
    }
    parameters_[i].mutable_grad().reset();
  }
}

Bytes Optimizer::Save() const {
  Bytes out;
  const auto put = [&out](const at::Tensor& tensor) {
    AppendLe(out, static_cast<uint8_t>(tensor.defined() ? 1 : 0));
    if (!tensor.defined()) return;
    const at::Tensor dense = tensor.contiguous();
    AppendBytes(out, AsByteSpan(dense));
  };
  AppendLe(out, static_cast<uint64_t>(states_.size()));
  for (const State& state : states_) {
    AppendLe(out, state.steps);
    put(state.momentum);
    put(state.variance);
  }
  return out;
}

Status Optimizer::Restore(ByteSpan bytes) {
  ByteReader in(bytes);
  const auto get = [&](const at::Tensor& like, at::Tensor& tensor) -> Status {
    SELVAGE_ASSIGN_OR_RETURN(const auto defined, in.Read<uint8_t>("defined"));
    if (defined > 1) return DataLoss("the optimizer state is damaged");
    if (defined == 0) {
      tensor = at::Tensor();
      return OkStatus();
    }
    at::Tensor loaded = at::empty_like(like, at::MemoryFormat::Contiguous);
    SELVAGE_ASSIGN_OR_RETURN(
        const ByteSpan raw,
        in.ReadBytes(static_cast<size_t>(loaded.nbytes()), "tensor"));
    std::memcpy(loaded.data_ptr(), raw.data(), raw.size());
    tensor = std::move(loaded);
    return OkStatus();
  };
  const torch::NoGradGuard no_grad;
  SELVAGE_ASSIGN_OR_RETURN(const auto count, in.Read<uint64_t>("count"));
  if (count != states_.size()) {
    return DataLoss("the optimizer state is of " + std::to_string(count) +
                    " tensors, not " + std::to_string(states_.size()));
  }
  for (size_t i = 0; i < states_.size(); ++i) {
    State& state = states_[i];
    SELVAGE_ASSIGN_OR_RETURN(state.steps, in.Read<int64_t>("steps"));
    SELVAGE_RETURN_IF_ERROR(get(parameters_[i], state.momentum));
    SELVAGE_RETURN_IF_ERROR(get(parameters_[i], state.variance));
  }
  if (in.remaining() != 0) return DataLoss("the optimizer state is too long");
  return OkStatus();
}

void Optimizer::StepSgd(at::Tensor& parameter, at::Tensor gradient,
                        State& state, double lr) const {
  if (spec_.weight_decay != 0) {
    gradient = gradient.add(parameter, spec_.weight_decay);
  }
  if (spec_.momentum != 0) {
    if (state.momentum.defined()) {
      state.momentum.mul_(spec_.momentum).add_(gradient);
    } else {
      state.momentum = gradient.clone();
    }
    gradient = spec_.nesterov ? gradient.add(state.momentum, spec_.momentum)
                              : state.momentum;
  }
  parameter.add_(gradient, -lr);
}

void Optimizer::StepAdam(at::Tensor& parameter, at::Tensor gradient,
                         State& state, double lr) const {
  if (!state.momentum.defined()) {
    state.momentum = at::zeros_like(parameter);
    state.variance = at::zeros_like(parameter);
  }
  if (spec_.weight_decay != 0) {
    if (spec_.name == plan::OptimizerName::kAdamW) {
      parameter.mul_(1 - lr * spec_.weight_decay);
    } else {
      gradient = gradient.add(parameter, spec_.weight_decay);
    }
  }
  const auto steps = static_cast<double>(++state.steps);
  const double correction1 = 1 - std::pow(spec_.beta1, steps);
  const double correction2 = 1 - std::pow(spec_.beta2, steps);
  state.momentum.mul_(spec_.beta1).add_(gradient, 1 - spec_.beta1);
  state.variance.mul_(spec_.beta2)
      .addcmul_(gradient, gradient, 1 - spec_.beta2);
  const at::Tensor denominator =
      (state.variance.sqrt() / std::sqrt(correction2)).add_(spec_.eps);
  parameter.addcdiv_(state.momentum, denominator, -lr / correction1);
}

}  // namespace selvage::client::torch_engine

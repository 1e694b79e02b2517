#include "client/training/torch/optimizer.h"

#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include <torch/torch.h>

namespace selvage::client::torch_engine {
namespace {

constexpr uint32_t kStateMagic = 0x534f4c53;  // "SLOS"
constexpr uint16_t kStateVersion = 1;

// Whose formula a state belongs to: of SGD with and without momentum, and of
// Adam, coupled and not.
uint16_t KindOf(const plan::OptimizerSpec& spec) {
  switch (spec.name) {
    case plan::OptimizerName::kSgd:
      return spec.momentum != 0 ? 2 : 1;
    case plan::OptimizerName::kAdam:
      return 3;
    case plan::OptimizerName::kAdamW:
      return 4;
  }
  return 0;
}

ByteSpan AsByteSpan(const at::Tensor& dense) {
  return ByteSpan(static_cast<const uint8_t*>(dense.data_ptr()),
                  static_cast<size_t>(dense.nbytes()));
}

}  // namespace

Optimizer::Optimizer(const plan::OptimizerSpec& spec,
                     std::vector<at::Tensor> parameters, Proximal proximal,
                     double clip_norm, std::vector<at::Tensor> correction)
    : spec_(spec),
      proximal_mu_(proximal.mu),
      clip_norm_(clip_norm),
      parameters_(std::move(parameters)),
      correction_(std::move(correction)),
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
    if (!correction_.empty() && correction_[i].defined()) {
      gradients[i] = gradients[i].add(correction_[i]);
    }
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

Bytes Optimizer::Export(std::span<const size_t> tensors) const {
  Bytes out;
  AppendLe(out, kStateMagic);
  AppendLe(out, kStateVersion);
  AppendLe(out, KindOf(spec_));
  AppendLe(out, static_cast<uint64_t>(tensors.size()));
  for (const size_t i : tensors) AppendLe(out, static_cast<uint64_t>(i));
  AppendBytes(out, Save());
  return out;
}

Status Optimizer::Import(std::span<const size_t> tensors, ByteSpan bytes) {
  ByteReader in(bytes);
  SELVAGE_ASSIGN_OR_RETURN(const auto magic, in.Read<uint32_t>("magic"));
  SELVAGE_ASSIGN_OR_RETURN(const auto version, in.Read<uint16_t>("version"));
  if (magic != kStateMagic || version != kStateVersion) {
    return DataLoss("the optimizer state is of another engine");
  }
  SELVAGE_ASSIGN_OR_RETURN(const auto kind, in.Read<uint16_t>("kind"));
  if (kind != KindOf(spec_)) {
    return DataLoss("the state is of another kind of optimizer");
  }
  SELVAGE_ASSIGN_OR_RETURN(const auto count, in.Read<uint64_t>("count"));
  bool same = count == tensors.size();
  for (size_t i = 0; same && i < tensors.size(); ++i) {
    SELVAGE_ASSIGN_OR_RETURN(const auto tensor, in.Read<uint64_t>("tensor"));
    same = tensor == tensors[i];
  }
  if (!same) return DataLoss("the optimizer state is of other tensors");
  SELVAGE_ASSIGN_OR_RETURN(const ByteSpan rest,
                           in.ReadBytes(in.remaining(), "state"));
  SELVAGE_RETURN_IF_ERROR(Restore(rest));
  for (const State& state : states_) {
    if (!IsSound(state)) return DataLoss("the optimizer state is damaged");
  }
  return OkStatus();
}

bool Optimizer::IsSound(const State& state) const {
  const torch::NoGradGuard no_grad;
  const auto finite = [](const at::Tensor& tensor) {
    return !tensor.defined() || tensor.isfinite().all().item<bool>();
  };
  if (!finite(state.momentum) || !finite(state.variance)) return false;
  if (spec_.name == plan::OptimizerName::kSgd) {
    return state.steps == 0 && !state.variance.defined() &&
           (spec_.momentum != 0 || !state.momentum.defined());
  }
  // A parameter that never had a gradient has no state.
  const bool begun = state.momentum.defined();
  return begun == state.variance.defined() && begun == (state.steps > 0) &&
         state.steps >= 0 &&
         (!begun || state.variance.ge(0).all().item<bool>());
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

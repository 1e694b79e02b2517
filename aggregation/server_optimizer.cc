#include "aggregation/server_optimizer.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>

#include <Eigen/Core>

namespace selvage::aggregation {
namespace {

using plan::StrategyName;

constexpr uint32_t kMagic = 0x534f5653;  // "SVOS"
constexpr uint16_t kVersion = 1;

using plan::IsAdaptive;
bool HasMomentum(StrategyName name) {
  return IsAdaptive(name) || name == StrategyName::kFedAvgM;
}

Status NotFinite(size_t element) {
  return OutOfRange("element " + std::to_string(element) +
                    " of the model would not be a finite float32");
}

Status CheckSize(std::string_view what, size_t size, size_t wanted) {
  if (size == wanted) return OkStatus();
  return InvalidArgument(std::string(what) + " has " + std::to_string(size) +
                         " elements, not " + std::to_string(wanted));
}

// Elements worked on at a time: their doubles stay in the nearest cache.
constexpr Eigen::Index kBlock = 1024;
using Doubles = Eigen::Array<double, Eigen::Dynamic, 1, 0, kBlock, 1>;

// Moves the block's state and returns what is added to its parameters.
Doubles Step(const plan::StrategySpec& s, const Doubles& d, Doubles& momentum,
             Doubles& second_moment) {
  const double eta = s.server_learning_rate;
  switch (s.name) {
    case StrategyName::kFedAvg:
    case StrategyName::kFedMedian:
    case StrategyName::kFedTrimmedAvg:
    case StrategyName::kKrum:
    case StrategyName::kMultiKrum:
    case StrategyName::kRfa:
    case StrategyName::kNormBound:
    case StrategyName::kFedNova:
    case StrategyName::kQFedAvg:
    case StrategyName::kScaffold:
      return eta * d;
    case StrategyName::kFedAvgM:
      momentum = s.server_momentum * momentum + d;
      if (s.nesterov) return eta * (d + s.server_momentum * momentum);
      return eta * momentum;
    case StrategyName::kFedAdagrad:
      second_moment += d * d;
      break;
    case StrategyName::kFedAdam:
      second_moment = s.beta_2 * second_moment + (1 - s.beta_2) * d * d;
      break;
    case StrategyName::kFedYogi:
      second_moment -=
          (1 - s.beta_2) * d * d * (second_moment - d * d).sign().eval();
      break;
  }
  momentum = s.beta_1 * momentum + (1 - s.beta_1) * d;
  return eta * momentum / (second_moment.sqrt() + s.tau);
}

}  // namespace

ServerStateForm FormOf(const plan::StrategySpec& strategy,
                       size_t shared_count) {
  ServerStateForm form;
  AppendLe(form.head, kMagic);
  AppendLe(form.head, kVersion);
  AppendLe(form.head, static_cast<uint16_t>(strategy.name));
  AppendLe(form.head, static_cast<uint64_t>(shared_count));
  form.has_momentum =
      (HasMomentum(strategy.name) || strategy.name == StrategyName::kScaffold);
  form.has_second_moment = IsAdaptive(strategy.name);
  if (form.has_second_moment) {
    form.initial_second_moment =
        static_cast<float>(strategy.tau * strategy.tau);
  }
  return form;
}

Status ApplyServerStep(const plan::StrategySpec& strategy,
                       std::span<const double> mean_delta,
                       std::span<float> momentum,
                       std::span<float> second_moment,
                       std::span<float> master) {
  const size_t size = master.size();
  SELVAGE_RETURN_IF_ERROR(CheckSize("mean delta", mean_delta.size(), size));
  SELVAGE_RETURN_IF_ERROR(CheckSize("momentum", momentum.size(),
                                    HasMomentum(strategy.name) ? size : 0));
  SELVAGE_RETURN_IF_ERROR(CheckSize("second moment", second_moment.size(),
                                    IsAdaptive(strategy.name) ? size : 0));
  using Floats = Eigen::Map<Eigen::ArrayXf>;
  const auto count = static_cast<Eigen::Index>(size);
  const Eigen::Map<const Eigen::ArrayXd> deltas(mean_delta.data(), count);
  Floats x(master.data(), count);
  Floats m(momentum.data(), static_cast<Eigen::Index>(momentum.size()));
  Floats v(second_moment.data(),
           static_cast<Eigen::Index>(second_moment.size()));
  for (Eigen::Index at = 0; at < count; at += kBlock) {
    const Eigen::Index n = std::min(kBlock, count - at);
    const Doubles delta = deltas.segment(at, n);
    Doubles first;
    Doubles second;
    if (m.size() > 0) first = m.segment(at, n).cast<double>();
    if (v.size() > 0) second = v.segment(at, n).cast<double>();
    const Doubles step = Step(strategy, delta, first, second);
    x.segment(at, n) =
        (x.segment(at, n).cast<double>() + step).cast<float>().eval();
    if (m.size() > 0) m.segment(at, n) = first.cast<float>();
    if (v.size() > 0) v.segment(at, n) = second.cast<float>();
    for (Eigen::Index i = at; i < at + n; ++i) {
      if (!std::isfinite(x(i)) || (m.size() > 0 && !std::isfinite(m(i))) ||
          (v.size() > 0 && !std::isfinite(v(i)))) {
        return NotFinite(static_cast<size_t>(i));
      }
    }
  }
  return OkStatus();
}

Status ApplyMean(std::span<const double> mean_delta, std::span<float> master) {
  const plan::StrategySpec plain;  // fedavg with a learning rate of one
  return ApplyServerStep(plain, mean_delta, {}, {}, master);
}

}  // namespace selvage::aggregation

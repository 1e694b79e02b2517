#include "aggregation/server_optimizer.h"

#include <cmath>
#include <cstdint>
#include <string>

#include "base/check.h"

namespace selvage::aggregation {
namespace {

using plan::StrategyName;

constexpr uint32_t kMagic = 0x534f5653;  // "SVOS"
constexpr uint16_t kVersion = 1;

bool HasMomentum(StrategyName name) { return name != StrategyName::kFedAvg; }
bool IsAdaptive(StrategyName name) {
  return HasMomentum(name) && name != StrategyName::kFedAvgM;
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

// The values of one element.
struct Element {
  double delta = 0;
  double momentum = 0;
  double second_moment = 0;
};

// Moves the element's state and returns what is added to its parameter.
double Step(const plan::StrategySpec& s, Element& e) {
  const double d = e.delta;
  switch (s.name) {
    case StrategyName::kFedAvg:
      return s.server_learning_rate * d;
    case StrategyName::kFedAvgM:
      e.momentum = s.server_momentum * e.momentum + d;
      return s.server_learning_rate *
             (s.nesterov ? d + s.server_momentum * e.momentum : e.momentum);
    case StrategyName::kFedAdagrad:
      e.second_moment += d * d;
      break;
    case StrategyName::kFedAdam:
      e.second_moment = s.beta_2 * e.second_moment + (1 - s.beta_2) * d * d;
      break;
    case StrategyName::kFedYogi: {
      const double excess = e.second_moment - d * d;
      const double sign = excess > 0 ? 1 : excess < 0 ? -1 : 0;
      e.second_moment -= (1 - s.beta_2) * d * d * sign;
      break;
    }
  }
  e.momentum = s.beta_1 * e.momentum + (1 - s.beta_1) * d;
  return s.server_learning_rate * e.momentum /
         (std::sqrt(e.second_moment) + s.tau);
}

}  // namespace

ServerState InitialServerState(const plan::StrategySpec& strategy,
                               size_t shared_count) {
  ServerState state;
  if (HasMomentum(strategy.name)) state.momentum.assign(shared_count, 0);
  if (IsAdaptive(strategy.name)) {
    state.second_moment.assign(shared_count,
                               static_cast<float>(strategy.tau * strategy.tau));
  }
  return state;
}

Bytes SerializeServerState(const plan::StrategySpec& strategy,
                           const ServerState& state) {
  Bytes out;
  out.reserve(16 + sizeof(float) *
                       (state.momentum.size() + state.second_moment.size()));
  AppendLe(out, kMagic);
  AppendLe(out, kVersion);
  AppendLe(out, static_cast<uint16_t>(strategy.name));
  AppendLe(out, static_cast<uint64_t>(state.momentum.size()));
  for (const std::vector<float>* values :
       {&state.momentum, &state.second_moment}) {
    AppendBytes(out, ByteSpan(reinterpret_cast<const uint8_t*>(values->data()),
                              values->size() * sizeof(float)));
  }
  return out;
}

Result<ServerState> ParseServerState(const plan::StrategySpec& strategy,
                                     size_t shared_count, ByteSpan bytes) {
  ByteReader in(bytes);
  ServerState state = InitialServerState(strategy, shared_count);
  const auto read = [&]() -> Status {
    SELVAGE_ASSIGN_OR_RETURN(const auto magic, in.Read<uint32_t>("magic"));
    SELVAGE_ASSIGN_OR_RETURN(const auto version, in.Read<uint16_t>("version"));
    SELVAGE_ASSIGN_OR_RETURN(const auto name, in.Read<uint16_t>("strategy"));
    SELVAGE_ASSIGN_OR_RETURN(const auto count, in.Read<uint64_t>("count"));
    if (magic != kMagic || version != kVersion ||
        name != static_cast<uint16_t>(strategy.name) ||
        count != state.momentum.size()) {
      return DataLoss("it is another strategy's or model's");
    }
    for (std::vector<float>* values : {&state.momentum, &state.second_moment}) {
      for (float& value : *values) {
        SELVAGE_ASSIGN_OR_RETURN(value, in.Read<float>("value"));
        if (!std::isfinite(value) ||
            (values == &state.second_moment && value < 0)) {
          return DataLoss("a value is impossible");
        }
      }
    }
    if (in.remaining() != 0) return DataLoss("something follows the end");
    return OkStatus();
  };
  if (const Status status = read(); !status.ok()) {
    return DataLoss("server state: " + std::string(status.message()));
  }
  return state;
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
  for (size_t i = 0; i < size; ++i) {
    Element element;
    element.delta = mean_delta[i];
    if (!momentum.empty()) element.momentum = momentum[i];
    if (!second_moment.empty()) element.second_moment = second_moment[i];
    const auto next = static_cast<float>(static_cast<double>(master[i]) +
                                         Step(strategy, element));
    const auto first = static_cast<float>(element.momentum);
    const auto second = static_cast<float>(element.second_moment);
    if (!std::isfinite(next) || !std::isfinite(first) ||
        !std::isfinite(second)) {
      return NotFinite(i);
    }
    master[i] = next;
    if (!momentum.empty()) momentum[i] = first;
    if (!second_moment.empty()) second_moment[i] = second;
  }
  return OkStatus();
}

Status ApplyMeanOfBuffer(std::span<const double> mean_delta,
                         std::span<float> master) {
  const plan::StrategySpec plain;  // fedavg with a learning rate of one
  return ApplyServerStep(plain, mean_delta, {}, {}, master);
}

}  // namespace selvage::aggregation

#include "client/core/trainer.h"

#include <algorithm>
#include <utility>

namespace selvage::client {

Status ValidateExamples(const plan::Program& program,
                        const ExampleSet& examples) {
  if (examples.inputs.size() != program.inputs.size()) {
    return InvalidArgument(
        "examples have " + std::to_string(examples.inputs.size()) +
        " inputs, the program takes " + std::to_string(program.inputs.size()));
  }
  for (size_t i = 0; i < examples.inputs.size(); ++i) {
    const size_t wanted = examples.count * program.inputs[i].SizeBytes();
    if (examples.inputs[i].size() != wanted) {
      return InvalidArgument("input " + program.inputs[i].name + " has " +
                             std::to_string(examples.inputs[i].size()) +
                             " bytes for " + std::to_string(examples.count) +
                             " examples, not " + std::to_string(wanted));
    }
  }
  return OkStatus();
}

uint64_t FeaturesOf(const LocalTraining& options) {
  uint64_t out = 0;
  const auto add = [&out](bool wanted, TrainingFeature feature) {
    if (wanted) out |= feature;
  };
  add(options.optimizer.nesterov, kFeatureNesterov);
  add(options.optimizer.name == plan::OptimizerName::kAdamW, kFeatureAdamW);
  add(options.clip_norm != 0, kFeatureClip);
  add(static_cast<bool>(options.rate_factor), kFeatureRateFactor);
  add(options.step_count != 0, kFeatureStepCount);
  add(options.stop_patience != 0, kFeatureEarlyStop);
  add(options.proximal_shared_only && options.proximal_mu != 0,
      kFeatureSharedProximal);
  add(options.optimizer_state != nullptr ||
          static_cast<bool>(options.save_optimizer),
      kFeatureOptimizerState);
  add(options.correction != nullptr, kFeatureCorrection);
  return out;
}

Status TrainableModel::SetArrays(std::span<const float> floats,
                                 std::span<const int64_t> ints) {
  plan::Checkpoint values;
  values.floats.assign(floats.begin(), floats.end());
  values.ints.assign(ints.begin(), ints.end());
  return SetValues(values);
}

Status TrainableModel::CopyArrays(std::span<float> floats,
                                  std::span<int64_t> ints) {
  SELVAGE_ASSIGN_OR_RETURN(const plan::Checkpoint values, Values());
  std::copy(values.floats.begin(), values.floats.end(), floats.begin());
  std::copy(values.ints.begin(), values.ints.end(), ints.begin());
  return OkStatus();
}

Status RequireFeatures(uint64_t features, const LocalTraining& options) {
  constexpr std::pair<TrainingFeature, const char*> kNames[] = {
      {kFeatureNesterov, "Nesterov momentum"},
      {kFeatureAdamW, "adamw"},
      {kFeatureClip, "clip_gradient"},
      {kFeatureRateFactor, "lr_schedule"},
      {kFeatureStepCount, "local_steps"},
      {kFeatureEarlyStop, "early_stop"},
      {kFeatureSharedProximal, "proximal_mu beside personal tensors"},
      {kFeatureOptimizerState, "an optimizer that goes on"},
      {kFeatureCorrection, "scaffold's correction"},
  };
  const uint64_t missing = FeaturesOf(options) & ~features;
  for (const auto& [feature, name] : kNames) {
    if ((missing & feature) != 0) {
      return Unimplemented("the engine cannot train with " + std::string(name));
    }
  }
  return OkStatus();
}

}  // namespace selvage::client

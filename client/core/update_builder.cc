#include "client/core/update_builder.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>
#include <string>

#include "aggregation/codec/checkpoint_codec.h"
#include "aggregation/contribution.h"
#include "client/core/clip.h"

namespace selvage::client {
namespace {

double BoundFor(plan::Role role, const plan::UpdateSpec& update) {
  return role == plan::Role::kBufferFloat ? update.max_abs_buffer_float
                                          : update.max_abs_default;
}

// `values` are those of one slice.
Status CheckSlice(const plan::TensorTable& table,
                  const plan::TensorTable::AggregatedSlice& slice,
                  const plan::UpdateSpec& update,
                  std::span<const float> values) {
  const double bound = BoundFor(slice.role, update);
  for (size_t i = 0; i < slice.count; ++i) {
    const float value = values[i];
    // Written so that a NaN fails.
    if (std::fabs(static_cast<double>(value)) < bound) continue;
    std::ostringstream message;
    message << "the change of " << table.entries()[slice.entry].spec.name << "["
            << i << "] (" << value << ") is not inside the bound (" << bound
            << ")";
    return OutOfRange(message.str());
  }
  return OkStatus();
}

Status CheckRange(const plan::TensorTable& table,
                  const plan::UpdateSpec& update,
                  std::span<const float> values) {
  for (const auto& slice : table.aggregated()) {
    SELVAGE_RETURN_IF_ERROR(
        CheckSlice(table, slice, update,
                   values.subspan(slice.update_offset, slice.count)));
  }
  return OkStatus();
}

constexpr double kAnything = std::numeric_limits<double>::infinity();

// The same of the changes of control variates, which come last.
Status CheckControl(const plan::TensorTable& table, double bound,
                    std::span<const float> update) {
  const std::span<const float> control = update.subspan(table.update_count());
  for (size_t i = 0; i < control.size(); ++i) {
    if (std::fabs(static_cast<double>(control[i])) < bound) continue;
    std::ostringstream message;
    message << "the change of element " << i << " of the control variate ("
            << control[i] << ") is not inside the bound (" << bound << ")";
    return OutOfRange(message.str());
  }
  return OkStatus();
}

// Before clipping: finite is enough.
plan::UpdateSpec AnyFinite() {
  plan::UpdateSpec any;
  any.max_abs_default = kAnything;
  any.max_abs_buffer_float = kAnything;
  return any;
}

Status CheckLayout(const plan::Program& program, const UpdateInput& input) {
  const plan::TensorTable& table = program.table;
  for (const plan::Checkpoint* values : {&input.base, &input.trained}) {
    if (values == &input.base && input.base_tensors != nullptr) continue;
    if (values->floats.size() != table.float_count()) {
      return InvalidArgument(
          "a checkpoint has " + std::to_string(values->floats.size()) +
          " floats, the table " + std::to_string(table.float_count()));
    }
  }
  if (input.example_count == 0) {
    return InvalidArgument("an update needs at least one example");
  }
  if (input.holdout_scores.size() !=
      input.holdout_count * program.metrics.size()) {
    return InvalidArgument(
        "there are " + std::to_string(input.holdout_scores.size()) +
        " hold-out scores for " + std::to_string(input.holdout_count) +
        " examples and " + std::to_string(program.metrics.size()) + " metrics");
  }
  return OkStatus();
}

// L2 norm of the `shared` part.
double SharedNorm(const plan::TensorTable& table,
                  std::span<const float> update) {
  double squares = 0;
  for (const auto& slice : table.aggregated()) {
    if (slice.role != plan::Role::kShared) continue;
    for (const float value : update.subspan(slice.update_offset, slice.count)) {
      squares += static_cast<double>(value) * static_cast<double>(value);
    }
  }
  return std::sqrt(squares);
}

// The weight, and what is declared beside it. `decoded`: the update as the
// coordinator sees it.
Status Weigh(const plan::TensorTable& table, const plan::Plan& plan,
             const UpdateInput& input, std::span<const float> decoded,
             BuiltUpdate& update) {
  update.weight = static_cast<uint32_t>(
      std::min(input.example_count,
               static_cast<uint64_t>(std::max(1, plan.update.weight_cap))));
  switch (plan.contribution.name) {
    case plan::ContributionName::kPlain:
      return OkStatus();
    case plan::ContributionName::kFedNova: {
      SELVAGE_ASSIGN_OR_RETURN(
          const int64_t declared,
          aggregation::DeclareSteps(update.weight, input.steps));
      update.scalars = {declared};
      return OkStatus();
    }
    case plan::ContributionName::kQFedAvg: {
      SELVAGE_ASSIGN_OR_RETURN(
          const aggregation::LossWeight weight,
          aggregation::WeighByLoss(plan.contribution, plan.train.optimizer.lr,
                                   input.loss, SharedNorm(table, decoded)));
      update.weight = weight.weight;
      update.scalars = {weight.declared};
      return OkStatus();
    }
    case plan::ContributionName::kScaffold:
      update.weight = 1;
      return OkStatus();
  }
  return OkStatus();
}

// Encoded update, its digest and its norm, a tensor at a time.
Status BuildTensors(const plan::Program& program, const plan::Plan& plan,
                    const UpdateInput& input, BuiltUpdate& update) {
  const plan::TensorTable& table = program.table;
  const aggregation::CodecSpec codec = plan.update;
  if (input.sink == nullptr) {
    update.encoded.reserve(static_cast<size_t>(
        aggregation::EncodedSize(codec, aggregation::UpdateCounts(table))));
  }
  crypto::Sha256Hasher hasher;
  double squares = 0;
  std::vector<float> delta;
  for (const auto& slice : table.aggregated()) {
    SELVAGE_RETURN_IF_ERROR(input.base_tensors->Read(slice.entry, delta));
    for (size_t i = 0; i < slice.count; ++i) {
      delta[i] = input.trained.floats[slice.float_offset + i] - delta[i];
    }
    SELVAGE_RETURN_IF_ERROR(CheckSlice(table, slice, plan.update, delta));
    const std::span<const size_t> count(&slice.count, 1);
    SELVAGE_ASSIGN_OR_RETURN(
        const Bytes encoded,
        aggregation::Encode(codec, count, delta, input.random));
    SELVAGE_ASSIGN_OR_RETURN(delta, aggregation::Decode(codec, count, encoded));
    SELVAGE_RETURN_IF_ERROR(CheckSlice(table, slice, plan.update, delta));
    for (const float value : delta) {
      squares += static_cast<double>(value) * static_cast<double>(value);
    }
    hasher.Update(encoded);
    if (input.sink != nullptr) {
      SELVAGE_RETURN_IF_ERROR(input.sink->Append(encoded));
      update.stored_bytes += encoded.size();
    } else {
      AppendBytes(update.encoded, encoded);
    }
  }
  update.digest = std::move(hasher).Finish();
  update.norm = std::sqrt(squares);
  return Weigh(table, plan, input, {}, update);
}

// The same of the whole at once, with what the strategy wants, clipped if the
// plan says so.
Status BuildWhole(const plan::Program& program, const plan::Plan& plan,
                  const UpdateInput& input, BuiltUpdate& update) {
  const plan::TensorTable& table = program.table;
  std::vector<float> delta(table.update_count());
  const std::vector<size_t> counts =
      aggregation::ContributionCounts(plan.contribution.name, table);
  const bool per_step =
      plan.contribution.name == plan::ContributionName::kFedNova;
  for (const auto& slice : table.aggregated()) {
    const bool divided = per_step && slice.role == plan::Role::kShared;
    for (size_t i = 0; i < slice.count; ++i) {
      const float change = input.trained.floats[slice.float_offset + i] -
                           input.base.floats[slice.float_offset + i];
      delta[slice.update_offset + i] =
          divided
              ? static_cast<float>(static_cast<double>(change) / input.steps)
              : change;
    }
  }
  const bool controlled =
      plan.contribution.name == plan::ContributionName::kScaffold;
  if (controlled) {
    if (input.control_change.size() != aggregation::SharedCount(table)) {
      return InvalidArgument("the change of the control variate has " +
                             std::to_string(input.control_change.size()) +
                             " values, not " +
                             std::to_string(aggregation::SharedCount(table)));
    }
    delta.insert(delta.end(), input.control_change.begin(),
                 input.control_change.end());
  }
  const bool feeds_back = plan.update.codec == plan::CodecName::kTopK;
  if (feeds_back && !input.residual.empty()) {
    if (input.residual.size() != delta.size()) {
      return InvalidArgument(
          "the residual has " + std::to_string(input.residual.size()) +
          " values, the update " + std::to_string(delta.size()));
    }
    for (size_t i = 0; i < delta.size(); ++i) delta[i] += input.residual[i];
  }
  const double clip = plan.privacy.clip_norm;
  SELVAGE_RETURN_IF_ERROR(
      CheckRange(table, clip > 0 ? AnyFinite() : plan.update, delta));
  SELVAGE_RETURN_IF_ERROR(CheckControl(
      table, clip > 0 ? kAnything : plan.contribution.max_abs_control, delta));

  SELVAGE_ASSIGN_OR_RETURN(
      ClippedUpdate clipped,
      EncodeClipped(plan.update, counts, delta, clip, input.random));
  // Rounding may have reached the bound, and the coordinator sees the rounded
  // value.
  SELVAGE_RETURN_IF_ERROR(CheckRange(table, plan.update, clipped.decoded));
  SELVAGE_RETURN_IF_ERROR(
      CheckControl(table, plan.contribution.max_abs_control, clipped.decoded));
  if (controlled) {
    update.residual_change.assign(
        clipped.decoded.begin() +
            static_cast<std::ptrdiff_t>(table.update_count()),
        clipped.decoded.end());
  }
  if (feeds_back) {
    update.residual_change.resize(delta.size());
    for (size_t i = 0; i < delta.size(); ++i) {
      const float left =
          static_cast<float>(static_cast<double>(delta[i]) * clipped.factor) -
          clipped.decoded[i];
      update.residual_change[i] =
          left - (input.residual.empty() ? 0.0f : input.residual[i]);
    }
  }
  update.encoded = std::move(clipped.encoded);
  update.digest = crypto::Sha256(update.encoded);
  update.norm = clipped.norm;
  return Weigh(table, plan, input, clipped.decoded, update);
}

}  // namespace

bool BuildsByTensor(const plan::Plan& plan) {
  return plan.privacy.clip_norm == 0 &&
         plan.contribution.name == plan::ContributionName::kPlain &&
         plan.update.codec != plan::CodecName::kTopK &&
         plan.update.codec != plan::CodecName::kRotatedInt8;
}

Result<std::vector<aggregation::MetricValue>> MetricsOf(
    std::span<const float> scores, size_t count, size_t metric_count) {
  if (count == 0 || scores.size() != count * metric_count) {
    return InvalidArgument("there are " + std::to_string(scores.size()) +
                           " scores for " + std::to_string(count) +
                           " examples and " + std::to_string(metric_count) +
                           " metrics");
  }
  std::vector<aggregation::MetricValue> metrics;
  for (size_t m = 0; m < metric_count; ++m) {
    double sum = 0;
    for (size_t i = 0; i < count; ++i) {
      sum += static_cast<double>(scores[i * metric_count + m]);
    }
    SELVAGE_ASSIGN_OR_RETURN(
        const aggregation::MetricValue value,
        aggregation::MakeMetric(sum, static_cast<int64_t>(count)));
    metrics.push_back(value);
  }
  return metrics;
}

Result<BuiltUpdate> BuildUpdate(const plan::Program& program,
                                const plan::Plan& plan,
                                const UpdateInput& input) {
  SELVAGE_RETURN_IF_ERROR(CheckLayout(program, input));
  BuiltUpdate update;
  update.codec = plan.update.codec;
  SELVAGE_RETURN_IF_ERROR(input.base_tensors != nullptr
                              ? BuildTensors(program, plan, input, update)
                              : BuildWhole(program, plan, input, update));

  if (input.holdout_count > 0) {
    SELVAGE_ASSIGN_OR_RETURN(
        update.metrics, MetricsOf(input.holdout_scores, input.holdout_count,
                                  program.metrics.size()));
  }
  return update;
}

}  // namespace selvage::client

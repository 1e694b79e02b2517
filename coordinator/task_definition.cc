#include "coordinator/task_definition.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "aggregation/codec/checkpoint_codec.h"
#include "aggregation/codec/codec.h"
#include "aggregation/contribution.h"
#include "plan/plan.h"

namespace selvage::coordinator {
namespace {

// Room for refills: every slot may vanish and be offered again this often.
constexpr uint64_t kAssignmentsPerSlot = 4;

// As many as the exact sum can hold without overflow, at most
// kAssignmentsPerSlot per slot. TaskSpec::Validate() made sure that the slots
// themselves fit.
uint64_t UpdateMax(const plan::TaskSpec& spec) {
  const uint64_t bound =
      static_cast<uint64_t>(std::numeric_limits<int64_t>::max() >> 31) /
      static_cast<uint64_t>(spec.WeightMax());
  return std::min(
      bound, kAssignmentsPerSlot * static_cast<uint64_t>(spec.SlotCount()));
}

}  // namespace

RoundConfig TaskDefinition::ConfigOf(uint64_t round, RoundMode mode,
                                     std::optional<uint32_t> slots) const {
  const plan::StrategySpec& strategy = spec.strategy;
  RoundConfig config;
  config.number = round;
  config.mode = mode;
  config.seed = spec.seed;
  if (mode == RoundMode::kEvaluate) {
    config.cohort = static_cast<uint32_t>(spec.EvaluationCohort());
    config.min_updates = static_cast<uint32_t>(spec.MinEvaluations());
    config.slot_count = static_cast<uint32_t>(spec.EvaluationSlotCount());
    config.available_min = config.slot_count;
    config.update_max = kAssignmentsPerSlot * uint64_t{config.slot_count};
    config.round_deadline = spec.EvaluationDeadline();
  } else {
    config.cohort = static_cast<uint32_t>(strategy.cohort);
    config.min_updates = static_cast<uint32_t>(spec.MinUpdates());
    config.buffered = strategy.asynchronous.enabled;
    config.slot_count =
        config.buffered
            ? static_cast<uint32_t>(strategy.asynchronous.concurrency)
            : slots.value_or(static_cast<uint32_t>(spec.SlotCount()));
    config.available_min = std::max(
        config.slot_count, static_cast<uint32_t>(strategy.min_available_nodes));
    config.update_max = layout.update_count_max;
    config.round_deadline = strategy.round_deadline;
  }
  config.compute_deadline = config.round_deadline / 2;
  config.selection_window = config.round_deadline / 2;
  if (strategy.selection_window > Duration::zero()) {
    config.selection_window =
        std::min(strategy.selection_window, config.round_deadline);
  }
  return config;
}

Result<TaskDefinition> DefineTask(plan::TaskSpec spec, plan::Program program,
                                  const crypto::Digest& program_digest) {
  SELVAGE_RETURN_IF_ERROR(spec.Validate());
  SELVAGE_ASSIGN_OR_RETURN(const plan::Plan plan,
                           plan::MakePlan(spec, program_digest, program));
  TaskDefinition definition;
  definition.key_metric = plan.key_metric;
  definition.program_digest = program_digest;
  for (const auto& slice : program.table.aggregated()) {
    (slice.role == plan::Role::kBufferFloat ? definition.buffers
                                            : definition.shared)
        .push_back({slice.update_offset, slice.count});
    definition.layout.ranges.push_back(
        {slice.count, slice.role == plan::Role::kBufferFloat
                          ? spec.update.max_abs_buffer_float
                          : spec.update.max_abs_default});
  }
  if (spec.strategy.name == plan::StrategyName::kScaffold) {
    for (const aggregation::ElementRange& range : definition.shared) {
      definition.layout.ranges.push_back(
          {range.count, spec.strategy.max_abs_control});
    }
  }
  definition.layout.weight_max = static_cast<uint32_t>(spec.WeightMax());
  definition.layout.update_count_max = UpdateMax(spec);
  SELVAGE_RETURN_IF_ERROR(definition.layout.Validate());
  definition.stretches =
      aggregation::CutLayout(definition.layout, kStretchElements);
  definition.contribution = spec.Contribution();
  const plan::ContributionName contribution = definition.contribution.name;
  definition.update_counts =
      aggregation::ContributionCounts(contribution, program.table);
  definition.update_size_bytes =
      aggregation::EncodedSize(spec.update, definition.update_counts);
  definition.scalar_count = spec.strategy.name == plan::StrategyName::kNormBound
                                ? 1
                                : aggregation::DeclaredScalars(contribution);
  definition.spec = std::move(spec);
  definition.program = std::move(program);
  return definition;
}

Result<plan::Program> LoadProgram(const crypto::Digest& digest,
                                  BlobStore& blobs) {
  SELVAGE_ASSIGN_OR_RETURN(const Bytes json,
                           blobs.Read(digest, plan::kProgramJsonSizeMax));
  return plan::ParseProgram(AsText(json));
}

Result<TaskDefinition> LoadDefinition(const TaskRow& row, BlobStore& blobs) {
  Result<plan::TaskSpec> spec = plan::ParseTaskFile(row.task_file);
  if (!spec.ok()) {
    return DataLoss("the stored file of task " + row.name +
                    " no longer parses: " + spec.status().ToString());
  }
  Result<plan::Program> program = LoadProgram(row.program_digest, blobs);
  if (!program.ok()) {
    return program.status().WithContext("the program of task " + row.name);
  }
  return DefineTask(*std::move(spec), *std::move(program), row.program_digest);
}

}  // namespace selvage::coordinator

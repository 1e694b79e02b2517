// A task as the coordinator runs it: the spec, its program, and what follows
// from the two.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "aggregation/exact_sum.h"
#include "aggregation/robust/update_blocks.h"
#include "base/status.h"
#include "coordinator/blob_store.h"
#include "coordinator/round.h"
#include "coordinator/store.h"
#include "plan/program.h"
#include "plan/task.h"

namespace selvage::coordinator {

// Elements that a coordinator works on at a time: 4 MiB of sums, which stay in
// the processor's caches and which the allocator has for the next ones.
inline constexpr size_t kStretchElements = size_t{512} << 10;

struct TaskDefinition {
  plan::TaskSpec spec;
  plan::Program program;
  crypto::Digest program_digest;
  // One range per aggregated tensor, in table order: the blocks of an update.
  // Of scaffold then one per shared tensor, of the control variates' changes.
  aggregation::SumLayout layout;
  std::vector<size_t> update_counts;
  // The layout in stretches of kStretchElements: what is summed, sealed and
  // applied at a time, so that memory does not grow with the model.
  std::vector<aggregation::SumStretch> stretches;
  uint64_t update_size_bytes = 0;  // encoded
  // The parts of an update that are `shared` and `buffer_float`.
  std::vector<aggregation::ElementRange> shared;
  std::vector<aggregation::ElementRange> buffers;
  plan::ContributionSpec contribution;  // what devices send
  // Sums besides that of the values: of what devices declare; normbound counts
  // the updates it scaled.
  size_t scalar_count = 0;
  std::string key_metric;  // explicit

  // `slots`: of a training round, instead of cohort x over_selection.
  RoundConfig ConfigOf(uint64_t round, RoundMode mode,
                       std::optional<uint32_t> slots = std::nullopt) const;
};

// INVALID_ARGUMENT if spec and program do not go together (plan::MakePlan), or
// an element bound does not fit the exact sum.
Result<TaskDefinition> DefineTask(plan::TaskSpec spec, plan::Program program,
                                  const crypto::Digest& program_digest);

// Of a task that the store holds. DATA_LOSS if it can no longer be read.
Result<TaskDefinition> LoadDefinition(const TaskRow& row, BlobStore& blobs);

// The program document of that digest, parsed. NOT_FOUND.
Result<plan::Program> LoadProgram(const crypto::Digest& digest,
                                  BlobStore& blobs);

}  // namespace selvage::coordinator

#include "client/core/memory_estimate.h"

#include <algorithm>
#include <limits>

namespace selvage::client {
namespace {

constexpr uint64_t kMost = std::numeric_limits<uint64_t>::max();

uint64_t Times(uint64_t a, uint64_t b) {
  return a != 0 && b > kMost / a ? kMost : a * b;
}
uint64_t Plus(uint64_t a, uint64_t b) { return a > kMost - b ? kMost : a + b; }

}  // namespace

uint64_t EstimateTrainingMemory(const plan::Program& program,
                                const TrainingSize& size) {
  const uint64_t values = Plus(Times(program.table.float_count(), 4),
                               Times(program.table.int_count(), 8));
  uint64_t state_copies = 0;
  if (size.optimizer != plan::OptimizerName::kSgd) {
    state_copies = 2;
  } else if (size.momentum) {
    state_copies = 1;
  }
  uint64_t copies = 4 + 1 + state_copies;
  if (size.checkpoints) copies += 2 * (1 + state_copies);

  uint64_t example_bytes = 0;
  uint64_t elements = 0;
  for (const plan::InputSpec& input : program.inputs) {
    example_bytes += input.SizeBytes();
    uint64_t count = 1;
    for (const int64_t dimension : input.shape) {
      count =
          Times(count, static_cast<uint64_t>(std::max<int64_t>(dimension, 0)));
    }
    elements = Plus(elements, count);
  }
  uint64_t rows = 0;
  for (const plan::TensorTable::Entry& entry : program.table.entries()) {
    if (entry.spec.shape.size() < 2) continue;
    rows = Plus(
        rows, static_cast<uint64_t>(std::max<int64_t>(entry.spec.shape[0], 0)));
  }
  const uint64_t activations =
      Plus(Times(elements, 32 * sizeof(float)), Times(rows, 4 * sizeof(float)));
  const uint64_t batch =
      std::min(static_cast<uint64_t>(std::max(1, size.batch_size)),
               std::max<uint64_t>(size.examples, 1));

  uint64_t sum = Times(values, copies);
  sum = Plus(sum, Times(example_bytes, Plus(size.examples, batch)));
  sum = Plus(sum, Times(batch, activations));
  return Plus(sum, Times(size.archive_size, 3));
}

}  // namespace selvage::client

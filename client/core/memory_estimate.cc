#include "client/core/memory_estimate.h"

#include <algorithm>
#include <limits>
#include <span>

namespace selvage::client {
namespace {

constexpr uint64_t kMost = std::numeric_limits<uint64_t>::max();

constexpr uint64_t kRoundCopies = 4;
constexpr uint64_t kPersonalCopies = 8;
constexpr uint64_t kEvaluateCopies = 2;
// c, c_i, the correction here and in the engine, the change and its encoding.
constexpr uint64_t kControlCopies = 6;
constexpr uint64_t kTensorCopies = 6;  // of an update that goes by tensor
constexpr uint64_t kFloatsPerInput = 4;
constexpr uint64_t kFloatsPerRow = 6;
constexpr uint64_t kScoreShare = 2;

uint64_t Times(uint64_t a, uint64_t b) {
  return a != 0 && b > kMost / a ? kMost : a * b;
}
uint64_t Plus(uint64_t a, uint64_t b) { return a > kMost - b ? kMost : a + b; }

uint64_t Dimension(int64_t dimension) {
  return static_cast<uint64_t>(std::max<int64_t>(dimension, 1));
}
uint64_t Product(std::span<const int64_t> shape) {
  uint64_t product = 1;
  for (const int64_t d : shape) product = Times(product, Dimension(d));
  return product;
}

uint64_t ValueBytes(const plan::Program& program) {
  return Plus(Times(program.table.float_count(), 4),
              Times(program.table.int_count(), 8));
}

uint64_t StateCopies(const TrainingSize& size) {
  if (size.optimizer != plan::OptimizerName::kSgd) return 2;
  return size.momentum ? 1 : 0;
}

// At how many places a layer may be applied.
uint64_t PlacesOf(const plan::InputSpec& input) {
  const uint64_t elements = Product(input.shape);
  if (input.shape.size() < 2) {
    return input.dtype == plan::DType::kFloat32 ? 1 : elements;
  }
  return elements /
         Dimension(*std::min_element(input.shape.begin(), input.shape.end()));
}

// Bytes for one example, forward and backward.
uint64_t Activations(const plan::Program& program) {
  uint64_t elements = 0;
  uint64_t largest = 0;
  uint64_t places = 1;
  for (const plan::InputSpec& input : program.inputs) {
    const uint64_t count = Product(input.shape);
    elements = Plus(elements, count);
    if (count > largest) {
      largest = count;
      places = PlacesOf(input);
    }
  }
  uint64_t columns = 0;  // of the largest convolution
  bool takes_all = false;
  for (const plan::TensorTable::Entry& entry : program.table.entries()) {
    const std::span<const int64_t> shape = entry.spec.shape;
    if (shape.size() < 2) continue;
    const uint64_t in = Product(shape.subspan(1));
    if (shape.size() > 2) columns = std::max(columns, in);
    takes_all = takes_all || (shape.size() == 2 && in >= largest);
  }
  uint64_t floats = Times(elements, kFloatsPerInput);
  for (const plan::TensorTable::Entry& entry : program.table.entries()) {
    const std::span<const int64_t> shape = entry.spec.shape;
    if (shape.size() < 2) continue;
    const bool everywhere = shape.size() > 2 || (columns == 0 && !takes_all);
    floats = Plus(floats, Times(Times(Dimension(shape[0]), kFloatsPerRow),
                                everywhere ? places : 1));
  }
  return Times(Plus(floats, Times(columns, places)), sizeof(float));
}

uint64_t LargestTensor(const plan::Program& program) {
  uint64_t largest = 0;
  for (const plan::TensorTable::Entry& entry : program.table.entries()) {
    largest = std::max(largest, static_cast<uint64_t>(entry.count));
  }
  return Times(largest, sizeof(float));
}

}  // namespace

uint64_t EstimateStepMemory(const plan::Program& program,
                            const TrainingSize& size) {
  const auto batch =
      std::min(static_cast<uint64_t>(std::max(1, size.batch_size)),
               std::max<uint64_t>(size.examples, 1));
  const uint64_t copies = 1 + StateCopies(size) + (size.proximal ? 2 : 0);
  uint64_t sum = Times(ValueBytes(program), copies);
  sum = Plus(sum, Times(LargestTensor(program), size.clips ? 4 : 2));
  return Plus(sum, Times(batch, Activations(program)));
}

uint64_t EstimateScoreMemory(const plan::Program& program,
                             const TrainingSize& size) {
  return Times(std::min(size.holdout, kScoreChunk),
               Activations(program) / kScoreShare);
}

uint64_t EstimateMemory(const plan::Program& program,
                        const TrainingSize& size) {
  const uint64_t values = ValueBytes(program);
  uint64_t copies = kEvaluateCopies;
  uint64_t batch = std::min(size.holdout, kScoreChunk);
  uint64_t work = EstimateScoreMemory(program, size);
  if (size.work != LocalWork::kEvaluate) {
    copies =
        size.work == LocalWork::kTrainRound ? kRoundCopies : kPersonalCopies;
    if (size.work == LocalWork::kTrainRound) {
      if (size.base_on_disk) --copies;
      if (size.by_tensor) --copies;
    }
    if (size.checkpoints) copies += 2 * (1 + StateCopies(size));
    if (size.keeps_optimizer) copies += 3 * StateCopies(size);
    if (size.controlled) copies += kControlCopies;
    batch = std::max(
        batch, std::min(static_cast<uint64_t>(std::max(1, size.batch_size)),
                        std::max<uint64_t>(size.examples, 1)));
    work = std::max(work, EstimateStepMemory(program, size));
  }
  if (size.work == LocalWork::kTrainRound && size.by_tensor) {
    // Gradients and what a step needs are gone by then, but are counted.
    work = std::max(work, Times(LargestTensor(program), kTensorCopies));
  }
  uint64_t example_bytes = 0;
  for (const plan::InputSpec& input : program.inputs) {
    example_bytes = Plus(example_bytes, input.SizeBytes());
  }
  uint64_t sum = Times(values, copies);
  sum = Plus(sum, work);
  sum = Plus(sum, Times(example_bytes, Plus(size.examples, batch)));
  return Plus(sum, Times(size.archive_size, 3));
}

}  // namespace selvage::client

// How much memory a training will take, estimated before it starts.
#pragma once

#include <cstdint>

#include "plan/program.h"
#include "plan/task.h"

namespace selvage::client {

struct TrainingSize {
  uint64_t examples = 0;      // in memory: trained on and held out
  uint64_t archive_size = 0;  // bytes of the program's archive
  int batch_size = 1;
  plan::OptimizerName optimizer = plan::OptimizerName::kSgd;
  bool momentum = false;    // of SGD
  bool checkpoints = true;  // the training keeps a local checkpoint
};

// Bytes, saturating:
//   tensors      4 copies of the values: the round's, the engine's, the trained
//                ones and the update that is built from them
//   gradients    1 copy; optimizer state: 0 (SGD), 1 (momentum), 2 (Adam)
//   checkpoint   1 copy of values and optimizer state, twice: as it is made
//                and as it is written
//   examples     their inputs, and one batch of them
//   activations  for every example of a batch 32 floats per element of its
//                inputs, and 4 floats per row of every tensor of rank 2 or more
//                (its outputs, forward and backward); a guess that was never
//                measured, too low for deep networks with wide layers on small
//                inputs
//   program      3 times its archive
// Neither the engine's own code nor what the process uses besides.
uint64_t EstimateTrainingMemory(const plan::Program& program,
                                const TrainingSize& size);

}  // namespace selvage::client

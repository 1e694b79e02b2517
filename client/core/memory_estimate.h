// How much memory local work will take, estimated before it starts.
#pragma once

#include <cstdint>

#include "plan/program.h"
#include "plan/task.h"

namespace selvage::client {

enum class LocalWork {
  kTrainRound,   // and score the hold-out before it
  kPersonalize,  // fine-tune, score, and hold what serves beside it
  kEvaluate,     // score alone
};

struct TrainingSize {
  LocalWork work = LocalWork::kTrainRound;
  uint64_t examples = 0;      // in memory: trained on and held out
  uint64_t holdout = 0;       // of them scored
  uint64_t archive_size = 0;  // bytes of the program's archive
  int batch_size = 1;
  plan::OptimizerName optimizer = plan::OptimizerName::kSgd;
  bool momentum = false;    // of SGD
  bool proximal = false;    // keeps the values at the start
  bool clips = false;       // clips the gradient
  bool checkpoints = true;  // the training keeps a local checkpoint
  // The optimizer's state comes from the store and goes there again.
  bool keeps_optimizer = false;
  bool controlled = false;  // has control variates (scaffold)
  // Of a round: what it began with is read from the cache as it is needed, and
  // its update is built, sealed and stored a tensor at a time.
  bool base_on_disk = false;
  bool by_tensor = false;
};

// Examples that an engine scores at a time.
inline constexpr uint64_t kScoreChunk = 256;

// Bytes, saturating:
//   tensors      copies of the values. A round: the round's, the engine's, the
//                trained ones and the update that is built from them; without
//                the first if that is on disk, and without the last if it goes
//                by tensor, but then six of the largest tensor: as it was, its
//                change, that encoded and decoded, and what reading and
//                sealing need. Personalising: eight, of the new base, what was
//                installed before and what is to be. Evaluating: two
//   a step       EstimateStepMemory; of scoring EstimateScoreMemory, if that is
//                more; six copies more with control variates
//   checkpoint   1 copy of values and optimizer state, twice: as it is made
//                and as it is written
//   optimizer    its state, if that is kept, three times: as it was loaded, as
//                it came out, and as it is written
//   examples     their inputs, and one batch of them
//   program      3 times its archive
// Neither the engine's own code nor what the process uses besides.
uint64_t EstimateMemory(const plan::Program& program, const TrainingSize& size);

// Bytes of tensors that an engine makes for a step besides the values:
// gradients (1 copy), optimizer state (0 copies SGD, 1 momentum, 2 Adam), the
// anchor of a proximal term and the gradients with it (2), two copies of the
// largest tensor for intermediate results of the optimizer (four to clip, in
// double), and activations.
//
// A program does not say how large its activations are; they are guessed from
// its tensors. P is the number of places that a layer is applied at: the
// largest input's elements over its smallest dimension (over 1 for bytes and
// integers of one dimension, which are tokens). For every example of a batch,
// in floats:
//   4 per element of the inputs
//   6 per row of a tensor of rank 2 or more, and place: a convolution (rank 3
//     or more) is at all places, a matrix at one if some row of a matrix or a
//     convolution takes the whole input in, else at all (recurrent networks)
//   the columns of the largest convolution at all places, once (its unfolding)
// Counted with an allocator of the test's (tests/unit/training/memory_test.cc)
// the estimate is 1.0 to 2.3 times what a step of an MLP takes, 1.3 to 2.9 of a
// convolution over characters, 2.9 to 4.0 of an LSTM, 1.6 to 10.6 of LeNet-5,
// whose pooling it does not see. Skip connections and attention can make it too
// low.
uint64_t EstimateStepMemory(const plan::Program& program,
                            const TrainingSize& size);

// ... and for scoring: of min(holdout, kScoreChunk) examples half of the
// activations, since nothing is kept for a backward pass.
uint64_t EstimateScoreMemory(const plan::Program& program,
                             const TrainingSize& size);

}  // namespace selvage::client

// Trainer: the seam between a session and whatever computes. LibTorch is the
// reference (client/training/torch); tests and benchmarks bring their own.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"
#include "base/time.h"
#include "plan/checkpoint.h"
#include "plan/program.h"
#include "plan/task.h"

namespace selvage::client {

// Examples as the program's inputs: inputs[i] holds `count` examples of
// program.inputs[i], one after another, little-endian, no padding.
struct ExampleSet {
  size_t count = 0;
  std::vector<Bytes> inputs;
};

// INVALID_ARGUMENT unless there is one array per input, each of count x
// SizeBytes().
Status ValidateExamples(const plan::Program& program,
                        const ExampleSet& examples);

// Where an interrupted training goes on: made by an engine, and understood by
// no other.
struct TrainingCheckpoint {
  uint64_t steps = 0;  // done
  Bytes state;         // values, optimizer, order, random numbers

  friend bool operator==(const TrainingCheckpoint&,
                         const TrainingCheckpoint&) = default;
};

// What of LocalTraining an engine need not be able to do, as bits of
// TrainableModel::features() and of the C API's training_features. Append only.
enum TrainingFeature : uint64_t {
  kFeatureNesterov = 1,
  kFeatureAdamW = 2,
  kFeatureClip = 4,
  kFeatureRateFactor = 8,
  kFeatureStepCount = 16,
  kFeatureEarlyStop = 32,
  kFeatureSharedProximal = 64,
  kFeatureOptimizerState = 128,
  kFeatureCorrection = 256,
};
inline constexpr uint64_t kAllTrainingFeatures = 511;

struct LocalTraining {
  int epochs = 1;
  int batch_size = 32;  // the last batch of an epoch may be smaller
  plan::OptimizerSpec optimizer;
  uint64_t seed =
      0;  // order of examples (and dropout, as far as the engine can)
  // Entries of the tensor table to train; the others stay as they are. Buffers
  // of the program (BatchNorm statistics) move only when `update_buffers`.
  std::vector<size_t> trainable;
  bool update_buffers = true;
  // Adds mu/2 ||w - w_start||^2 to the loss, over `trainable`: mu (w - w_start)
  // to the gradient, before weight decay and momentum. w_start: the values when
  // Train() is called.
  double proximal_mu = 0;
  // A single step that takes longer is stopped where the engine can stop it
  // (between the operators of a loop) and fails with DEADLINE_EXCEEDED.
  Duration step_time_max = std::chrono::seconds(30);
  // Asked before every step; false stops training with CANCELLED.
  std::function<bool()> keep_going;
  // Threads of one operator, where the engine has a choice; 0: its own choice.
  int threads = 0;
  // Goes on after the steps of this checkpoint of an earlier call with the same
  // examples and options, before which the same values had been set: the result
  // is that of a call that nothing interrupted, to the bit. An engine without
  // checkpoints never made one. Must outlive the call; nullptr: from the start.
  const TrainingCheckpoint* resume = nullptr;
  // If set, and the engine can make checkpoints: called with one when
  // `checkpoint_due` (asked before every step but the first) says so, and
  // before a stop by `keep_going`.
  std::function<bool()> checkpoint_due = {};
  std::function<void(TrainingCheckpoint)> save_checkpoint = {};

  // What follows is for engines with the feature that is named.
  //
  // RateFactor. If set: the learning rate of step `step`, from 0, is
  // optimizer.lr times this; the same at every call.
  std::function<double(uint64_t step)> rate_factor = {};
  // Clip. > 0: the gradient of a step, over all of `trainable` together and
  // with the proximal term, before weight decay and momentum, is scaled by
  // min(1, clip_norm / its L2 norm), the norm summed in double.
  double clip_norm = 0;
  // StepCount. > 0: so many steps, over as many passes as it takes; `epochs` is
  // not looked at.
  uint64_t step_count = 0;
  // EarlyStop. > 0: training ends when this many epochs in a row did not bring
  // the mean loss of an epoch below the least one before by more than
  // stop_min_delta.
  int stop_patience = 0;
  double stop_min_delta = 0;
  // SharedProximal. The proximal term is over the trainable tensors of role
  // `shared` alone.
  bool proximal_shared_only = false;
  // OptimizerState. The optimizer begins with what `save_optimizer` of an
  // earlier training got, with the same kind of optimizer and the same
  // `trainable`; nullptr: afresh. Not looked at with `resume`, whose checkpoint
  // has a state of its own. Must outlive the call.
  const Bytes* optimizer_state = nullptr;
  // If set: gets the optimizer's state after the last step, once, if the
  // training succeeds.
  std::function<void(Bytes)> save_optimizer = {};
  // Correction. If set: a number for each float of the table, added to the
  // gradient of that element in every step, before everything else. Shared, so
  // that options are cheap to copy.
  std::shared_ptr<const std::vector<float>> correction = {};
};

// The features that `options` asks for.
uint64_t FeaturesOf(const LocalTraining& options);

// UNIMPLEMENTED names the first one that is not among `features`: what an
// engine does not know is refused, never left out.
Status RequireFeatures(uint64_t features, const LocalTraining& options);

struct TrainingReport {
  uint64_t steps = 0;
  double mean_loss = 0;  // over the steps of the last epoch
  bool stopped_early = false;
};

// One loaded program with its current values. Thread-compatible.
class TrainableModel {
 public:
  virtual ~TrainableModel() = default;

  // Copies `values` in. INVALID_ARGUMENT if they do not fit the table.
  virtual Status SetValues(const plan::Checkpoint& values) = 0;
  virtual Result<plan::Checkpoint> Values() = 0;
  // The same from and to arrays of the caller's, which have the table's sizes:
  // an engine that can does without a copy of its own.
  virtual Status SetArrays(std::span<const float> floats,
                           std::span<const int64_t> ints);
  virtual Status CopyArrays(std::span<float> floats, std::span<int64_t> ints);

  // Bits of TrainingFeature. Ask RequireFeatures() before Train().
  virtual uint64_t features() const { return 0; }

  // Trains on `examples` (at least one). The same values, examples, options and
  // thread count give the same result to the bit. On error the values are
  // unspecified: SetValues() before going on.
  // FAILED_PRECONDITION (`resume` is no checkpoint of this training, or
  // `optimizer_state` no state of its optimizer; nothing was trained),
  // CANCELLED, DEADLINE_EXCEEDED (a step took too long), OUT_OF_RANGE (the loss
  // is not finite), RESOURCE_EXHAUSTED (memory), INTERNAL (the engine's words).
  virtual Result<TrainingReport> Train(const ExampleSet& examples,
                                       const LocalTraining& options) = 0;

  // example_scores: float32 [count, metrics], row-major, in evaluation mode.
  // OUT_OF_RANGE if a score is not finite, INTERNAL if the program returns
  // another shape.
  virtual Result<std::vector<float>> Score(const ExampleSet& examples) = 0;

  struct Prediction {
    std::vector<int64_t> shape;  // first dimension: examples
    std::vector<float> values;   // row-major
  };
  // forward() on the first input of `examples` (labels are not needed: the
  // other inputs may be absent), in evaluation mode.
  virtual Result<Prediction> Predict(size_t count, ByteSpan input) = 0;
};

// And whose answer it is.
struct ServedPrediction : TrainableModel::Prediction {
  uint64_t version = 0;   // of the global model; 0: the one the app installed
  bool personal = false;  // else the global one answered
};

// Checks and loads programs. Thread-safe.
class Trainer {
 public:
  virtual ~Trainer() = default;

  // What CheckIn tells the coordinator, e.g. {"libtorch/1.13", "native:mlp2"}.
  virtual std::vector<std::string> engines() const = 0;

  // `archive` holds the bytes that program.archive_digest names, empty for the
  // other kinds. Nothing of the program runs before it was checked.
  // PERMISSION_DENIED names the operator that is not permitted;
  // INVALID_ARGUMENT: does not compile, a method is missing, or the tensors are
  // not those of the table; DATA_LOSS: the archive's digest is wrong;
  // NOT_FOUND: no such native architecture.
  virtual Result<std::unique_ptr<TrainableModel>> Load(
      const plan::Program& program, ByteSpan archive) = 0;
};

}  // namespace selvage::client

// One training of a personalisation: fine-tuning, or the local-only baseline.
// What interrupts it costs nothing but time.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "base/log.h"
#include "base/status.h"
#include "base/time.h"
#include "client/core/trainer.h"
#include "client/store/client_store.h"
#include "plan/plan.h"
#include "plan/program.h"

namespace selvage::client {

struct TuningJob {
  TuningPart part = TuningPart::kPersonal;
  // Without anything of checkpoints and optimizer states.
  LocalTraining training;
  // What the optimizer begins with; nullopt: afresh.
  std::optional<Bytes> optimizer = {};
  bool keep_optimizer = false;  // Tuned::optimizer is wanted
  // Another training follows before anything is installed: the result is kept
  // until then, so that an interruption of that one does not cost this one.
  bool more_to_come = false;
};

struct Tuned {
  plan::Checkpoint values;
  // If it is wanted, the engine has one, and it is no larger than
  // OptimizerBytesMax().
  std::optional<Bytes> optimizer = {};
  uint64_t steps = 0;  // of all sessions
};

struct TuningParts {
  const plan::Plan& plan;
  const plan::Program& program;
  TrainableModel& model;
  ClientStore& store;
  Clock& clock;
  EventSink& events;
  // After each checkpoint that is durable, and further than the last one.
  std::function<void()> progressed = {};
  // Checkpoints go to the store this often, and when training is interrupted.
  Duration checkpoint_every = std::chrono::minutes(1);
};

// Of an optimizer's state: three copies of the values, and 64 KiB.
uint64_t OptimizerBytesMax(const plan::Program& program);

// Trains `start` on `examples` (at least one).
//
// What was interrupted goes on from its checkpoint, if plan, start, optimizer,
// seed and threads are the same, and the engine can; the result is that of a
// training that nothing interrupted, to the bit. It goes on with the examples
// that it began with: those that were added since wait for the next training.
// If one of the first is gone, or the new ones are more than they are, it
// begins again, with all of them.
//
// An optimizer state that the engine does not take is passed over, with the
// event optimizer_reset; so is one where the engine has no states.
// Errors: TrainableModel's; ValidateCheckpoint's for what came out.
Result<Tuned> RunTuning(const TuningParts& parts, const TuningJob& job,
                        const plan::Checkpoint& start,
                        const ExampleSet& examples);

}  // namespace selvage::client

// One device's part in a round: train the round's checkpoint on local examples
// and build the update.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <variant>

#include "base/status.h"
#include "base/time.h"
#include "client/core/session.h"
#include "client/core/transport.h"
#include "client/core/update_builder.h"
#include "client/model_host.h"
#include "client/store/client_store.h"
#include "client/work_loader.h"

namespace selvage::client {

struct RoundUpdate {
  BuiltUpdate update;
  // Of a program with personal-role tensors: what becomes of them.
  std::optional<PersonalTensors> tensors;
  // Of a plan whose codec leaves something out.
  std::optional<ResidualChange> residual = {};
};

struct RoundOptions {
  uint64_t holdout_salt = 0;
  Transport::KeepGoing keep_going;
  int threads = 0;                // LocalTraining::threads
  uint64_t memory_bytes_max = 0;  // refused above it; 0: any
  Clock& clock;
  // Checkpoints go to the store this often, and when training is interrupted.
  Duration checkpoint_every = std::chrono::minutes(1);
  // Before every step: how many were begun, of how many.
  std::function<void(uint64_t step, uint64_t steps)> progress = {};
  // After each checkpoint that is durable, and further than the last one.
  std::function<void()> progressed = {};
  // Where the round's checkpoint lies. If given, TrainRound() may let go of
  // `verified.base`, and of the loaded program, of a large model.
  std::function<Result<std::unique_ptr<BaseTensors>>()> open_base = {};
};

// What came of it besides the update; set as soon as it is known.
struct RoundFacts {
  uint64_t memory_estimate = 0;
  bool saved = false;  // a checkpoint: training goes on from it
  // Of a training that was done.
  uint64_t steps = 0;
  double mean_loss = 0;  // of its last epoch
  bool stopped_early = false;
};

// Refused: too few examples, too little memory, the program does not load,
// training failed, the update is out of range. Status: CANCELLED, or the
// store's.
using TrainedRound = std::variant<RoundUpdate, WorkRefused, Status>;

// A function of the checkpoint, the examples and the assignment's seed: run
// again it gives the same bytes. Personal-role tensors start from the device's
// own (FedPer) and are never part of the update.
//
// train.method = fedrep trains twice: the personal-role tensors with all others
// fixed, statistics included, then the shared ones with those fixed. Each has a
// fresh optimizer.
//
// What was interrupted goes on, in its phase, from its checkpoint if
// checkpoint, examples, plan, seed and threads are still the same, and the
// engine can; the bytes are those of a training that nothing interrupted.
// Otherwise it begins again.
TrainedRound TrainRound(const SessionWork& work, VerifiedWork& verified,
                        const RoundOptions& options, ClientStore& store,
                        ModelHost& host, RoundFacts& facts);

// One device's part in an evaluation round: the scores of the checkpoint, with
// the device's own personal-role tensors, on the local hold-out, which nothing
// ever trains on. The update has metrics and no other bytes.
// Refused: too few examples or none held out, too little memory, the program
// does not load or run. Status: CANCELLED, or the store's.
TrainedRound EvaluateRound(const SessionWork& work,
                           const VerifiedWork& verified,
                           const RoundOptions& options, ClientStore& store,
                           ModelHost& host, RoundFacts& facts);

// `base` with the personal-role tensors that this device keeps for the task, if
// it keeps any that fit.
Result<plan::Checkpoint> WithPersonalTensors(
    ClientStore& store, const std::string& task, const crypto::Digest& program,
    const plan::TensorTable& table, plan::Checkpoint base, bool* found);

}  // namespace selvage::client

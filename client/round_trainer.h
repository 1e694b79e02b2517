// One device's part in a round: train the round's checkpoint on local examples
// and build the update.
#pragma once

#include <optional>
#include <variant>

#include "base/status.h"
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
};

// Refused: too few examples, the program does not load, training failed, the
// update is out of range. Status: CANCELLED, or the store's.
using TrainedRound = std::variant<RoundUpdate, WorkRefused, Status>;

// A function of the checkpoint, the examples and the assignment's seed: run
// again it gives the same bytes. Personal-role tensors start from the device's
// own (FedPer) and are never part of the update.
TrainedRound TrainRound(const SessionWork& work, const VerifiedWork& verified,
                        uint64_t holdout_salt, ClientStore& store,
                        ModelHost& host,
                        const Transport::KeepGoing& keep_going);

// `base` with the personal-role tensors that this device keeps for the task, if
// it keeps any that fit.
Result<plan::Checkpoint> WithPersonalTensors(
    ClientStore& store, const std::string& task, const crypto::Digest& program,
    const plan::TensorTable& table, plan::Checkpoint base, bool* found);

}  // namespace selvage::client

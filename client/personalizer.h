// Installing a model version: try it, fine-tune it on local examples, judge the
// results on the hold-out, and make both slots active as one.
//
// What becomes active, in this order (docs/embedding.md):
//   1. The global values must load, and their outputs on local examples (the
//      hold-out, else training examples, else zeros) must be finite; if not,
//      nothing changes.
//   2. The new personal values: fine-tuned from the global ones, or with
//      personalize.start = personal from the personal slot and with its
//      optimizer, if that is of the same base; or with
//      personalize.on_new_base = keep_if_better the old personal tensors on the
//      new base, if the fine-tuned ones are significantly worse than those.
//      They must pass 1 as well.
//   3. Significantly worse than what serves now, they are dropped for it, if
//      that was personal: the old personal values stay in their slot.
//   4. The personal slot serves unless it is significantly worse than the
//      global one, or as the plan's personalize.gate says.
// "Significantly worse" is JudgePersonal's paired test on the hold-out.
#pragma once

#include <functional>
#include <string>
#include <variant>

#include "base/log.h"
#include "base/status.h"
#include "base/time.h"
#include "client/core/personal_gate.h"
#include "client/core/session.h"
#include "client/core/transport.h"
#include "client/crash_guard.h"
#include "client/model_host.h"
#include "client/store/client_store.h"
#include "client/work_loader.h"

namespace selvage::client {

struct PersonalizeOptions {
  Clock& clock;
  EventSink& events;
  uint64_t version = 0;
  uint64_t holdout_salt = 0;
  std::string device_id = {};  // separates devices' seeds
  bool global_only = false;    // do not train: it crashed before
  bool with_alone = false;     // train the local-only baseline if the plan asks
  int threads = 0;             // LocalTraining::threads
  // Nothing is trained if that is estimated to take more; 0: any.
  uint64_t memory_bytes_max = 0;
  // After each checkpoint of a training that is durable, and further than the
  // last one.
  std::function<void()> progressed = {};
  // If given, called when `verified.base` is not needed any more, before the
  // installation; the loaded program is dropped as well.
  std::function<void()> release_base = {};
};

struct PersonalizeOutcome {
  StoredModel model;      // as installed
  GateVerdict verdict;    // personal slot against global
  bool personal = false;  // there is a personal slot
  // The personal slot holds values from before, not newly fine-tuned ones.
  bool kept = false;
  uint64_t steps = 0;
  Status training;  // why there is no personal slot although one was wanted
};

// Refused: the program does not load, the global values give no finite outputs,
// or they were put aside because the process died under them. Status:
// CANCELLED, or the store's.
using Personalized = std::variant<PersonalizeOutcome, WorkRefused, Status>;

// Nothing is installed before everything is done; then all of it is, in one
// transaction. Trainings that were interrupted go on (client/fine_tuning.h). If
// fine-tuning itself fails, the global model is installed alone: a device
// always has a model it can serve. The local-only baseline is trained on all
// examples, hold-out included; it never serves and is judged on data from
// elsewhere (Client::Evaluate). Its scores on the hold-out come from a second
// one, trained without it and then forgotten. What served before is kept as the
// last known good model.
Personalized InstallPersonalized(const VerifiedWork& verified,
                                 const PersonalizeOptions& options,
                                 ClientStore& store, ModelHost& host,
                                 CrashGuard& guard,
                                 const Transport::KeepGoing& keep_going);

}  // namespace selvage::client

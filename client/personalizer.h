// Installing a model version: fine-tune it on local examples, judge it on the
// hold-out, and make both slots active as one.
#pragma once

#include <string>
#include <variant>

#include "base/status.h"
#include "client/core/personal_gate.h"
#include "client/core/session.h"
#include "client/core/transport.h"
#include "client/model_host.h"
#include "client/store/client_store.h"
#include "client/work_loader.h"

namespace selvage::client {

struct PersonalizeOptions {
  uint64_t version = 0;
  uint64_t holdout_salt = 0;
  std::string device_id;     // separates devices' seeds
  bool global_only = false;  // do not train: it crashed before
  bool with_alone = false;   // train the local-only baseline if the plan asks
};

struct PersonalizeOutcome {
  StoredModel model;  // as installed
  GateVerdict verdict;
  bool personal = false;  // there is a personal slot
  uint64_t steps = 0;
  Status training;  // why there is no personal slot although one was wanted
};

// Refused: the program does not load. Status: CANCELLED, or the store's.
using Personalized = std::variant<PersonalizeOutcome, WorkRefused, Status>;

// Nothing is installed before everything is done; then all of it is, in one
// transaction. If fine-tuning itself fails, the global model is installed
// alone: a device always has a model it can serve. The local-only baseline is
// trained on all examples, hold-out included; it never serves and is judged on
// data from elsewhere (Client::Evaluate).
Personalized InstallPersonalized(const VerifiedWork& verified,
                                 const PersonalizeOptions& options,
                                 ClientStore& store, ModelHost& host,
                                 const Transport::KeepGoing& keep_going);

}  // namespace selvage::client

// The privacy floor: what this device's host demands of every plan that asks
// for an update. Compiled into the host or given at open; no message of a
// coordinator can lower it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "crypto/signature.h"
#include "plan/plan.h"

namespace selvage::client {

// The defaults demand nothing.
struct PrivacyFloor {
  int min_cohort = 0;  // plan.privacy.min_cohort is at least this
  // No plan of this version has it: refuses every update.
  bool require_secure_aggregation = false;
  double clip_norm_max = 0;  // plan.privacy.clip.norm is at most this; 0: any
  // Of train.local_epochs: what trains an update. Personalisation stays on the
  // device and has no bound here.
  int epochs_max = 0;           // 0: any
  int uploads_per_day_max = 0;  // 0: any; durable (client/core/usage_ledger.h)
  std::vector<std::string> collections = {};  // that may train; empty: any
  // That may sign plans, of those that the enrolment gave; empty: all of those.
  std::vector<crypto::Ed25519PublicKey> plan_keys = {};
};

// Why an update must not be made for `plan`, for people and for the
// coordinator: it names setting, value and bound. nullopt if it may. Neither
// uploads_per_day_max nor plan_keys, which need more than the plan.
std::optional<std::string> BelowFloor(const PrivacyFloor& floor,
                                      const plan::Plan& plan);

// INVALID_ARGUMENT names the first field that is out of its range.
Status CheckFloor(const PrivacyFloor& floor);

}  // namespace selvage::client

// A plan: the signed, immutable description of what a device will execute. Made
// from a task when it is created; its canonical bytes are an artefact.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/status.h"
#include "crypto/digest.h"
#include "crypto/signature.h"
#include "plan/task.h"

namespace selvage::plan {

inline constexpr size_t kPlanSizeMax = 256 << 10;
inline constexpr int kPlanFormat = 1;

struct Plan {
  std::string task;
  std::string population;
  crypto::Digest program_digest;  // of the program's canonical JSON
  TrainSpec train;
  PersonalizeSpec personalize;
  UpdateSpec update;
  PrivacySpec privacy;
  DataSpec data;
  std::string key_metric;
  bool maximize = true;
  uint64_t seed = 0;

  friend bool operator==(const Plan&, const Plan&) = default;
};

// Canonical JSON: {"format":1, ...}, sorted keys, no white space.
std::string CanonicalJson(const Plan& plan);

// As strict as the task file: an unknown key or format is INVALID_ARGUMENT, so
// a device refuses what it does not understand.
Result<Plan> ParsePlan(std::string_view json);

// The bytes that a plan key signs: "selvage/v1 plan\n" || canonical JSON.
Bytes PlanSigningInput(std::string_view canonical_json);

}  // namespace selvage::plan

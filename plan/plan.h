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
#include "plan/program.h"
#include "plan/task.h"

namespace selvage::plan {

inline constexpr size_t kPlanSizeMax = 256 << 10;
inline constexpr int kPlanFormat = 1;

// The metric that qfedavg weighs devices by.
inline constexpr std::string_view kLossMetric = "loss";

struct Plan {
  std::string task;
  std::string population;
  crypto::Digest program_digest;  // of the program's canonical JSON
  TrainSpec train;
  PersonalizeSpec personalize;
  UpdateSpec update;
  PrivacySpec privacy;
  ConditionsSpec conditions;
  DataSpec data;
  ContributionSpec contribution;
  std::string key_metric;
  bool maximize = true;
  uint64_t seed = 0;

  // Every range of task.h. INVALID_ARGUMENT names key, value and bound.
  Status Validate() const;

  friend bool operator==(const Plan&, const Plan&) = default;
};

// What devices are asked to do for `task`, defaults made explicit: key_metric,
// and batch_size and baseline_epochs of personalize. INVALID_ARGUMENT if either
// argument is not valid, or if they do not go together: key_metric is no metric
// of the program, a pattern of personalize.tensors matches no tensor, nothing
// is left to average or to fine-tune, train.method is fedrep and the program
// has no personal or no shared tensor to train, the strategy is qfedavg and no
// metric is named "loss", or scaffold and no tensor is shared.
Result<Plan> MakePlan(const TaskSpec& task,
                      const crypto::Digest& program_digest,
                      const Program& program);

// Canonical JSON: {"format":1, ...}, sorted keys, no white space. Equal plans
// have equal bytes. REQUIRES: plan.Validate().ok().
std::string CanonicalJson(const Plan& plan);

// As strict as the task file: an unknown key or format is INVALID_ARGUMENT, so
// a device refuses what it does not understand; and so is anything that
// CanonicalJson would write differently.
Result<Plan> ParsePlan(std::string_view json);

// The bytes that a plan key signs: "selvage/v1 plan\n" || canonical JSON.
Bytes PlanSigningInput(std::string_view canonical_json);

}  // namespace selvage::plan

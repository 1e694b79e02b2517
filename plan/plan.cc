#include "plan/plan.h"

#include <algorithm>
#include <limits>

#include "plan/internal/document.h"
#include "plan/internal/fields.h"
#include "plan/internal/sections.h"
#include "plan/internal/text.h"
#include "plan/tensor_match.h"

namespace selvage::plan {
namespace {

using internal::Fields;
using internal::Node;

constexpr int kBaselineEpochsDefault = 30;

void VisitPlan(Fields& f, Plan& p) {
  for (const std::string_view key :
       {"format", "task", "population", "program_digest", "key_metric"}) {
    f.Require(key);
  }
  int64_t format = kPlanFormat;
  f.Integer("format", {kPlanFormat, kPlanFormat}, format);
  f.Text("task", internal::NameProblem, p.task);
  f.Text("population", internal::NameProblem, p.population);
  std::string digest = p.program_digest.ToHex();
  f.Text("program_digest", internal::DigestProblem, digest);
  if (const auto parsed = crypto::Digest::FromHex(digest); parsed.ok()) {
    p.program_digest = *parsed;
  }
  f.Section("train", [&](Fields& c) { internal::VisitTrain(c, p.train); });
  f.OptionalSection("personalize", p.personalize.enabled, [&](Fields& c) {
    internal::VisitPersonalize(c, p.personalize);
  });
  f.Section("update", [&](Fields& c) { internal::VisitUpdate(c, p.update); });
  f.Section("privacy",
            [&](Fields& c) { internal::VisitPrivacy(c, p.privacy); });
  internal::VisitConditions(f, p.conditions);
  f.Section("data", [&](Fields& c) { internal::VisitData(c, p.data); });
  internal::VisitContribution(f, p.contribution);
  f.Text("key_metric", internal::WordProblem, p.key_metric);
  internal::VisitMode(f, p.maximize);
  f.Unsigned("seed", std::numeric_limits<uint64_t>::max(), p.seed);
}

Status CheckAcrossFields(const Plan& p) {
  if (p.program_digest.empty()) {
    return InvalidArgument("program_digest is not set");
  }
  SELVAGE_RETURN_IF_ERROR(internal::CheckTrain(p.train));
  SELVAGE_RETURN_IF_ERROR(
      internal::CheckContribution(p.contribution, p.train, p.update));
  return internal::CheckPersonalize(p.personalize);
}

Status CheckPersonalizedTensors(const TensorTable& table,
                                const std::vector<std::string>& patterns) {
  const Result<std::vector<size_t>> chosen = MatchTensors(table, patterns);
  if (!chosen.ok()) {
    return chosen.status().WithContext("personalize.tensors");
  }
  const bool any =
      std::any_of(chosen->begin(), chosen->end(), [&table](size_t i) {
        const Role role = table.entries()[i].spec.role;
        return role != Role::kBufferFloat && role != Role::kBufferInt;
      });
  if (!any) {
    return InvalidArgument(
        "personalize.tensors chooses no tensor that can be trained");
  }
  return OkStatus();
}

bool HasTrainable(const TensorTable& table, Role role) {
  return std::any_of(table.entries().begin(), table.entries().end(),
                     [role](const TensorTable::Entry& entry) {
                       return entry.spec.role == role &&
                              entry.spec.dtype == DType::kFloat32;
                     });
}

// The two phases of FedRep each need something to train.
Status CheckFedRep(const TensorTable& table) {
  for (const Role role : {Role::kPersonal, Role::kShared}) {
    if (!HasTrainable(table, role)) {
      return InvalidArgument(
          "train.method is fedrep, but no f32 tensor of the "
          "program is " +
          std::string(RoleName(role)));
    }
  }
  return OkStatus();
}

}  // namespace

Status Plan::Validate() const {
  Plan copy = *this;
  SELVAGE_RETURN_IF_ERROR(
      internal::CheckFields([&](Fields& f) { VisitPlan(f, copy); }));
  return CheckAcrossFields(*this);
}

Result<Plan> MakePlan(const TaskSpec& task,
                      const crypto::Digest& program_digest,
                      const Program& program) {
  SELVAGE_RETURN_IF_ERROR(task.Validate());
  if (Status status = program.Validate(); !status.ok()) {
    return status.WithContext("program");
  }
  if (program.table.update_count() == 0) {
    return InvalidArgument(
        "program: no tensor is shared or buffer_float; there is nothing to "
        "average");
  }
  Plan plan;
  plan.task = task.name;
  plan.population = task.population;
  plan.program_digest = program_digest;
  plan.train = task.train;
  plan.personalize = task.personalize;
  plan.update = task.update;
  plan.privacy = task.privacy;
  plan.conditions = task.conditions;
  plan.data = task.data;
  plan.contribution = task.Contribution();
  plan.maximize = task.evaluate.maximize;
  plan.seed = task.seed;

  plan.key_metric = task.evaluate.key_metric.empty() ? program.metrics[0]
                                                     : task.evaluate.key_metric;
  if (std::find(program.metrics.begin(), program.metrics.end(),
                plan.key_metric) == program.metrics.end()) {
    return InvalidArgument(
        "evaluate.key_metric is " + internal::Quoted(plan.key_metric) +
        "; the program's metrics are " +
        internal::Join({program.metrics.begin(), program.metrics.end()}));
  }
  if (!task.evaluate.stop_condition.empty()) {
    SELVAGE_ASSIGN_OR_RETURN(const StopCondition stop,
                             ParseStopCondition(task.evaluate.stop_condition));
    if (stop.metric != plan.key_metric) {
      return InvalidArgument("evaluate.stop_condition is about " + stop.metric +
                             ", the key metric is " + plan.key_metric);
    }
  }
  if (plan.train.method == TrainMethod::kFedRep) {
    SELVAGE_RETURN_IF_ERROR(CheckFedRep(program.table));
  }
  if (plan.contribution.name == ContributionName::kScaffold &&
      !HasTrainable(program.table, Role::kShared)) {
    return InvalidArgument(
        "strategy.name is scaffold, but no f32 tensor of the program is "
        "shared: there is nothing to keep control variates of");
  }
  if (plan.contribution.name == ContributionName::kQFedAvg &&
      std::find(program.metrics.begin(), program.metrics.end(), kLossMetric) ==
          program.metrics.end()) {
    return InvalidArgument(
        "strategy.name is qfedavg, and no metric of the program is named "
        "loss; its metrics are " +
        internal::Join({program.metrics.begin(), program.metrics.end()}));
  }
  if (plan.personalize.enabled) {
    SELVAGE_RETURN_IF_ERROR(
        CheckPersonalizedTensors(program.table, plan.personalize.tensors));
    if (plan.personalize.batch_size == 0) {
      plan.personalize.batch_size = plan.train.batch_size;
    }
    if (plan.personalize.baseline_alone &&
        plan.personalize.baseline_epochs == 0) {
      plan.personalize.baseline_epochs = kBaselineEpochsDefault;
    }
  }
  SELVAGE_RETURN_IF_ERROR(plan.Validate());
  return plan;
}

std::string CanonicalJson(const Plan& plan) {
  Plan copy = plan;
  return internal::WriteFields([&](Fields& f) { VisitPlan(f, copy); });
}

Result<Plan> ParsePlan(std::string_view json) {
  SELVAGE_ASSIGN_OR_RETURN(const Node root,
                           internal::ParseJson(json, kPlanSizeMax));
  Plan plan;
  SELVAGE_RETURN_IF_ERROR(internal::ReadFields(
      root, "the plan", [&](Fields& f) { VisitPlan(f, plan); }));
  SELVAGE_RETURN_IF_ERROR(CheckAcrossFields(plan));
  SELVAGE_RETURN_IF_ERROR(
      internal::RequireCanonical(json, CanonicalJson(plan), "the plan"));
  return plan;
}

Bytes PlanSigningInput(std::string_view canonical_json) {
  Bytes out = ToBytes("selvage/v1 plan\n");
  AppendBytes(out, AsBytes(canonical_json));
  return out;
}

}  // namespace selvage::plan

#include "coordinator/describe.h"

#include <algorithm>
#include <utility>

#include "aggregation/evaluation_sums.h"
#include "aggregation/metrics.h"
#include "coordinator/round_result.h"
#include "coordinator/task_definition.h"

namespace selvage::coordinator {
namespace {

// The middle of the bucket that holds the q-th part of the devices.
double Percentile(const aggregation::MetricSums::Sum& sum, double q) {
  const double wanted = q * static_cast<double>(sum.device_count);
  double seen = 0;
  const size_t buckets = sum.histogram.size();
  for (size_t i = 0; i < buckets; ++i) {
    seen += sum.histogram[i];
    if (seen >= wanted && seen > 0) {
      return (static_cast<double>(i) + 0.5) / static_cast<double>(buckets);
    }
  }
  return 0;
}

std::vector<MetricSummary> SummariesOf(const aggregation::MetricSums& metrics,
                                       const std::vector<std::string>& names) {
  std::vector<MetricSummary> summaries;
  for (size_t i = 0; i < metrics.sums().size() && i < names.size(); ++i) {
    const aggregation::MetricSums::Sum& sum = metrics.sums()[i];
    if (sum.device_count == 0) continue;
    MetricSummary& summary = summaries.emplace_back();
    summary.name = names[i];
    summary.mean = aggregation::MeanOf({sum.numerator, sum.count});
    summary.example_count = static_cast<uint64_t>(sum.count);
    summary.device_count = static_cast<uint64_t>(sum.device_count);
    if (sum.outside_count > 0) continue;
    summary.percentiles = {.p10 = Percentile(sum, 0.10),
                           .p50 = Percentile(sum, 0.50),
                           .p90 = Percentile(sum, 0.90)};
  }
  return summaries;
}

void Count(Funnel& funnel, const FunnelCount& row, bool ended) {
  funnel.assigned += row.count;
  switch (row.state) {
    case AssignmentState::kLeased:
      (ended ? funnel.expired : funnel.outstanding) += row.count;
      break;
    case AssignmentState::kExpired:
      funnel.expired += row.count;
      break;
    case AssignmentState::kAccepted:
      funnel.accepted += row.count;
      break;
    case AssignmentState::kRejected:
      funnel.rejected += row.count;
      break;
    case AssignmentState::kLate:
      funnel.late += row.count;
      break;
    case AssignmentState::kAbandoned:
      funnel.abandoned += row.count;
      break;
  }
  if (!row.reason.empty()) funnel.reasons[row.reason] += row.count;
}

}  // namespace

std::string EtagOf(const TaskRow& row) {
  return std::to_string(row.id) + "-" + std::to_string(row.revision);
}

Result<std::shared_ptr<const TaskFacts>> Describer::FactsOf(
    const TaskRow& row) {
  {
    MutexLock lock(mu_);
    const auto it = facts_.find(row.id);
    if (it != facts_.end()) return it->second;
  }
  SELVAGE_ASSIGN_OR_RETURN(const TaskDefinition definition,
                           LoadDefinition(row, blobs_));
  auto facts = std::make_shared<TaskFacts>();
  facts->key_metric = definition.key_metric;
  facts->metrics = definition.program.metrics;
  facts->num_rounds =
      static_cast<uint64_t>(definition.spec.strategy.num_rounds);
  MutexLock lock(mu_);
  return facts_.emplace(row.id, std::move(facts)).first->second;
}

Result<TaskInfo> Describer::Describe(const TaskRow& row) {
  SELVAGE_ASSIGN_OR_RETURN(const std::shared_ptr<const TaskFacts> facts,
                           FactsOf(row));
  TaskInfo info;
  info.name = row.name;
  info.population = row.population;
  info.state = row.state;
  info.task_file = row.task_file;
  info.program_digest = row.program_digest;
  info.plan_digest = row.plan_digest;
  info.initial_digest = row.initial_digest;
  info.num_rounds = facts->num_rounds;
  info.committed_rounds = row.committed_rounds;
  info.abandoned_rounds = row.abandoned_rounds;
  info.latest_version = row.latest_version;
  info.created = row.created;
  info.ended = row.ended;
  info.key_metric = facts->key_metric;
  info.metrics = facts->metrics;
  info.etag = EtagOf(row);
  info.evaluated_rounds = row.evaluated_rounds;
  info.end_reason = row.end_reason;
  if (row.progress.measured > 0) {
    info.best = {row.progress.best_version, row.progress.best_value};
    info.stale = row.progress.stale;
  }
  return info;
}

Result<std::vector<MetricSummary>> Describer::Summaries(const TaskRow& task,
                                                        const RoundRow& row) {
  if (row.metrics.empty()) return std::vector<MetricSummary>();
  SELVAGE_ASSIGN_OR_RETURN(const std::shared_ptr<const TaskFacts> facts,
                           FactsOf(task));
  SELVAGE_ASSIGN_OR_RETURN(const aggregation::MetricSums metrics,
                           aggregation::MetricSums::Parse(row.metrics));
  return SummariesOf(metrics, facts->metrics);
}

Result<RoundInfo> Describer::Describe(const TaskRow& task, const RoundRow& row,
                                      uint64_t checked_in) {
  RoundInfo info;
  info.task = task.name;
  info.number = row.key.number;
  info.state = row.state;
  info.base_version = row.base_version;
  info.result_version = row.result_version;
  info.opened = row.opened;
  info.ended = row.ended;
  info.reason = row.reason;
  info.bytes_up = row.bytes_up;
  info.mode = row.mode;
  info.funnel.checked_in = std::max(row.checked_in, checked_in);
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<FunnelCount> counts,
                           store_.CountAssignments(row.key));
  const bool ended = row.state == RoundState::kCommitted ||
                     row.state == RoundState::kAbandoned;
  for (const FunnelCount& count : counts) Count(info.funnel, count, ended);
  SELVAGE_ASSIGN_OR_RETURN(info.metrics, Summaries(task, row));
  SELVAGE_ASSIGN_OR_RETURN(info.figures, ParseFigures(row.figures));
  if (row.class_metrics.empty()) return info;
  SELVAGE_ASSIGN_OR_RETURN(const std::shared_ptr<const TaskFacts> facts,
                           FactsOf(task));
  SELVAGE_ASSIGN_OR_RETURN(
      const aggregation::EvaluationSums sums,
      aggregation::EvaluationSums::Parse(row.class_metrics));
  for (const auto& [name, metrics] : sums.classes()) {
    info.classes.push_back({name, SummariesOf(metrics, facts->metrics)});
  }
  return info;
}

EvaluationInfo Describer::Describe(const TaskRow& task,
                                   const EvaluationRow& row,
                                   const VersionRow& version) {
  EvaluationInfo info;
  info.task = task.name;
  info.version = row.version;
  info.data_set = row.data_set;
  info.data_digest = row.data_digest;
  info.model_digest = version.master_digest;
  info.example_count = row.example_count;
  info.metrics = row.metrics;
  info.created = row.created;
  return info;
}

Result<ModelVersionInfo> Describer::Describe(const TaskRow& task,
                                             const VersionRow& row) {
  ModelVersionInfo info;
  info.task = task.name;
  info.version = row.version;
  info.round = row.round;
  info.checkpoint_digest = row.checkpoint_digest;
  info.checkpoint_codec = row.checkpoint_codec;
  info.safetensors_digest = row.master_digest;
  info.program_digest = task.program_digest;
  info.created = row.created;
  SELVAGE_ASSIGN_OR_RETURN(const std::optional<RoundRow> measured,
                           store_.RoundMeasuring(task.id, row.version));
  if (measured.has_value()) {
    SELVAGE_ASSIGN_OR_RETURN(info.metrics, Summaries(task, *measured));
  }
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<EvaluationRow> evaluations,
                           store_.ListEvaluations(task.id, row.version));
  for (const EvaluationRow& evaluation : evaluations) {
    info.evaluations.push_back(Describe(task, evaluation, row));
  }
  return info;
}

}  // namespace selvage::coordinator

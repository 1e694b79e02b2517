#include "coordinator/stopping.h"

#include <algorithm>
#include <cstdio>

namespace selvage::coordinator {
namespace {

std::string Number(double value) {
  char text[32];
  (void)std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

// Whether `a` is better than `b` by more than `delta`.
bool Betters(const plan::EvaluateSpec& spec, double a, double b, double delta) {
  return spec.maximize ? a > b + delta : a < b - delta;
}

}  // namespace

std::optional<double> KeyMetricOf(const TaskDefinition& definition,
                                  const aggregation::MetricSums& metrics,
                                  uint64_t min_cohort) {
  const std::vector<std::string>& names = definition.program.metrics;
  const auto it = std::find(names.begin(), names.end(), definition.key_metric);
  if (it == names.end()) return std::nullopt;
  const aggregation::MetricSums::Sum& sum =
      metrics.sums().at(static_cast<size_t>(it - names.begin()));
  const auto least = static_cast<int64_t>(std::max<uint64_t>(1, min_cohort));
  if (sum.device_count < least) return std::nullopt;
  // Sums of many devices exceed MetricValue's bounds, not its meaning.
  return aggregation::MeanOf({sum.numerator, sum.count});
}

TaskProgress Observe(const plan::EvaluateSpec& spec, uint64_t version,
                     double value, const TaskProgress& progress) {
  TaskProgress next = progress;
  const bool first = progress.measured == 0;
  ++next.measured;
  if (first || Betters(spec, value, progress.best_value, 0)) {
    next.best_version = version;
    next.best_value = value;
  }
  if (!first && version <= progress.last_measured) return next;
  next.last_measured = version;
  if (first || Betters(spec, value, progress.reference, spec.min_delta)) {
    next.reference = value;
    next.stale = 0;
  } else {
    ++next.stale;
  }
  return next;
}

std::optional<std::string> EarlyEnd(const TaskDefinition& definition,
                                    const TaskProgress& progress) {
  const plan::EvaluateSpec& spec = definition.spec.evaluate;
  if (progress.measured == 0) return std::nullopt;
  const std::string best = definition.key_metric + " of version " +
                           std::to_string(progress.best_version) + " is " +
                           Number(progress.best_value);
  if (!spec.stop_condition.empty()) {
    const Result<plan::StopCondition> stop =
        plan::ParseStopCondition(spec.stop_condition);
    if (stop.ok() && stop->IsMet(progress.best_value)) {
      return "target reached: " + best + ", evaluate.stop_condition is " +
             spec.stop_condition;
    }
  }
  if (spec.patience > 0 &&
      progress.stale >= static_cast<uint64_t>(spec.patience)) {
    return "patience is over: " + best + ", " + std::to_string(progress.stale) +
           " measured versions have not improved on it since";
  }
  return std::nullopt;
}

bool EvaluationIsDue(const plan::TaskSpec& spec, uint64_t committed_rounds) {
  if (spec.evaluate.every == 0 || committed_rounds == 0) return false;
  return committed_rounds % static_cast<uint64_t>(spec.evaluate.every) == 0 ||
         committed_rounds >= static_cast<uint64_t>(spec.strategy.num_rounds);
}

std::optional<std::string> RoundsAreDone(const plan::TaskSpec& spec,
                                         uint64_t committed_rounds) {
  if (committed_rounds < static_cast<uint64_t>(spec.strategy.num_rounds)) {
    return std::nullopt;
  }
  return "all " + std::to_string(spec.strategy.num_rounds) + " rounds are done";
}

}  // namespace selvage::coordinator

// When a task has learned enough: the best version so far, patience, the stop
// condition. Decisions are functions of what the store holds, so a restart
// changes none.
#pragma once

#include <optional>
#include <string>

#include "aggregation/metrics.h"
#include "coordinator/store.h"
#include "coordinator/task_definition.h"

namespace selvage::coordinator {

// The key metric in a round's metrics; nullopt if they were suppressed.
std::optional<double> KeyMetricOf(const TaskDefinition& definition,
                                  const aggregation::MetricSums& metrics,
                                  uint64_t min_cohort);

// `progress` after `version` was measured. A tie leaves the earlier version the
// best. A version that is not above the last one measured may become the best,
// and says nothing about patience.
TaskProgress Observe(const plan::EvaluateSpec& spec, uint64_t version,
                     double value, const TaskProgress& progress);

// Why the task ends before its rounds are done; nullopt: it goes on.
std::optional<std::string> EarlyEnd(const TaskDefinition& definition,
                                    const TaskProgress& progress);

// Whether an evaluation round follows the commit of that many training rounds.
bool EvaluationIsDue(const plan::TaskSpec& spec, uint64_t committed_rounds);

// Why the task ends when so many rounds are committed and nothing is left to
// evaluate; nullopt: there are more.
std::optional<std::string> RoundsAreDone(const plan::TaskSpec& spec,
                                         uint64_t committed_rounds);

}  // namespace selvage::coordinator

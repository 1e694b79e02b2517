// Rows of the store as people see them.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "coordinator/api.h"
#include "coordinator/blob_store.h"
#include "coordinator/store.h"

namespace selvage::coordinator {

// "TASK-REVISION": changes with every change of the task's row.
std::string EtagOf(const TaskRow& row);

// What a task's rows do not say themselves.
struct TaskFacts {
  std::string key_metric;
  std::vector<std::string> metrics;
  uint64_t num_rounds = 0;
};

// Thread-safe.
class Describer {
 public:
  Describer(Store& store, BlobStore& blobs) : store_(store), blobs_(blobs) {}

  Result<TaskInfo> Describe(const TaskRow& row);
  // `checked_in`: of a round that is still open, more than its row says.
  Result<RoundInfo> Describe(const TaskRow& task, const RoundRow& row,
                             uint64_t checked_in);
  Result<ModelVersionInfo> Describe(const TaskRow& task, const VersionRow& row);
  static EvaluationInfo Describe(const TaskRow& task, const EvaluationRow& row,
                                 const VersionRow& version);
  // Summaries of a round's metrics; none if they were suppressed.
  Result<std::vector<MetricSummary>> Summaries(const TaskRow& task,
                                               const RoundRow& row);
  // Cached: a task never changes what it is.
  Result<std::shared_ptr<const TaskFacts>> FactsOf(const TaskRow& row);

 private:
  Store& store_;
  BlobStore& blobs_;
  Mutex mu_;
  std::map<uint64_t, std::shared_ptr<const TaskFacts>> facts_
      SELVAGE_GUARDED_BY(mu_);
};

}  // namespace selvage::coordinator

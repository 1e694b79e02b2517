// From the partials of a closed round to the mean of its updates.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "aggregation/metrics.h"
#include "base/status.h"
#include "coordinator/blob_store.h"
#include "coordinator/held_updates.h"
#include "coordinator/partial.h"
#include "coordinator/running_sums.h"
#include "coordinator/store.h"
#include "coordinator/task_definition.h"
#include "crypto/secret.h"

namespace selvage::coordinator {

// Makes of the weighted mean of updates, the elements from `first` on, what the
// strategy takes for it: the shared part times the factor of the contribution
// (aggregation::MeanFactor); the changes of scaffold's control variates, which
// come last, times the part of the population that took part.
void ScaleMean(const TaskDefinition& definition, double factor,
               uint64_t update_count, size_t first, std::span<double> mean);

// Everything that a closed round has received: the sums of its partials, or its
// updates, where they lie. Thread-compatible.
class RoundContent {
 public:
  // Reads the heads of what the partials that committed rows name hold.
  // DATA_LOSS, or NOT_FOUND, if one cannot be read: acknowledged updates are
  // gone, and no model may be made from the rest. What `sums` has of them,
  // unless it is null, need not be read again. `definition`, `blobs` and
  // `round_key` must outlive the result.
  static Result<RoundContent> Gather(const TaskDefinition& definition,
                                     const RoundKey& round, Store& store,
                                     BlobStore& blobs,
                                     const crypto::SecretBytes& round_key,
                                     RunningSums* sums = nullptr);

  uint64_t update_count() const { return update_count_; }
  const aggregation::MetricSums& metrics() const { return metrics_; }
  // What people may know of how the mean came about, after NextMean().
  // clip_fraction: which part of the updates was scaled down (normbound).
  // local_steps: of a mean device (fednova). fair_step: what the mean of the
  // updates was multiplied by (qfedavg).
  std::map<std::string, double> Figures() const;

  // What the strategy takes for the mean of the updates, the next values in the
  // order of an update's elements: a stretch (TaskDefinition::stretches), or
  // all of them by a robust rule, which uses `threads` threads. DATA_LOSS as
  // Gather(). REQUIRES: there are some left.
  Result<std::vector<double>> NextMean(size_t threads);

 private:
  RoundContent(const TaskDefinition& definition)
      : definition_(&definition), metrics_(0) {}

  const TaskDefinition* definition_;
  uint64_t update_count_ = 0;
  aggregation::MetricSums metrics_;
  std::vector<int64_t> scalars_;
  // Held updates, or sums: those in memory and those that are to be read.
  std::unique_ptr<HeldUpdates> held_;
  std::optional<RunningSums::Kept> kept_;
  std::vector<PartialReader> partials_;
  size_t next_ = 0;    // stretch
  double factor_ = 1;  // MeanFactor of the last one
};

// The figure that every committed training round has: NextModel::update_norm().
inline constexpr char kUpdateNormFigure[] = "update_norm";

// "clip_fraction=0.25\n": how a store keeps figures, and back. Names are
// [a-z_]+; DATA_LOSS for anything that FiguresText() does not write.
std::string FiguresText(const std::map<std::string, double>& figures);
Result<std::map<std::string, double>> ParseFigures(const std::string& text);

// Serialized metrics, or nothing below `min_cohort` devices (invariant I5).
Bytes ReleasableMetrics(const aggregation::MetricSums& metrics,
                        uint64_t min_cohort);

}  // namespace selvage::coordinator

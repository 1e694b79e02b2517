// From the partials of a closed round to the next model version.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "aggregation/metrics.h"
#include "aggregation/server_optimizer.h"
#include "base/status.h"
#include "coordinator/blob_store.h"
#include "coordinator/held_updates.h"
#include "coordinator/partial.h"
#include "coordinator/store.h"
#include "coordinator/task_definition.h"
#include "crypto/secret.h"
#include "plan/checkpoint.h"

namespace selvage::coordinator {

// Everything that a closed round has received: the sum of its partials, or its
// updates where they lie. Thread-compatible.
class RoundContent {
 public:
  // What the partials that committed rows name hold; one partial in memory at a
  // time. DATA_LOSS, or NOT_FOUND, if one cannot be read: acknowledged updates
  // are gone, and no model may be made from the rest. `blobs` and `round_key`
  // must outlive the result.
  static Result<RoundContent> Gather(const TaskDefinition& definition,
                                     const RoundKey& round, Store& store,
                                     BlobStore& blobs,
                                     const crypto::SecretBytes& round_key);

  uint64_t update_count() const;
  const aggregation::MetricSums& metrics() const;

  // What the strategy takes for the mean of the updates, one value for each of
  // their elements, and what people may know of how it came about.
  struct Mean {
    std::vector<double> values;
    // clip_fraction: which part of the updates was scaled down (normbound).
    std::map<std::string, double> figures;
  };
  // Robust rules use `threads` threads. DATA_LOSS as Gather().
  Result<Mean> Finish(const TaskDefinition& definition, size_t threads) &&;

 private:
  RoundContent() = default;

  // One of the two.
  std::optional<RoundSums> sums_;
  std::unique_ptr<HeldUpdates> held_;
};

// Applies the mean of a round to its base: shared tensors by the task's
// strategy, buffer_float tensors as the means they are; the others stay.
// OUT_OF_RANGE if a value would not be finite: master and state are unspecified
// then.
Status ApplyMean(const TaskDefinition& definition,
                 const std::vector<double>& mean, plan::Checkpoint& master,
                 aggregation::ServerState& state);

// Elements of the tensors that a strategy steps.
size_t SharedCount(const plan::TensorTable& table);

// What the strategy remembers since `base`; the initial state if nothing.
Result<aggregation::ServerState> LoadServerState(
    const TaskDefinition& definition, const VersionRow& base, BlobStore& blobs);

// The artefacts of a version, durable in `blobs`: what devices download, and
// the float32 master as safetensors. Tensors that no round changes are in parts
// of their own (aggregation/codec/checkpoint_parts.h), of both, so the versions
// of a task share them: what is written is what changed.
struct VersionArtefacts {
  crypto::Digest checkpoint_digest;  // of the checkpoint, or its list of parts
  crypto::Digest master_digest;
  crypto::Digest server_state_digest;  // empty: the strategy has none
  // Everything that must be kept for it, and what devices may fetch.
  std::vector<std::pair<crypto::Digest, uint64_t>> artefacts;  // digest, size
  std::vector<crypto::Digest> references;
};
Result<VersionArtefacts> StoreVersion(const TaskDefinition& definition,
                                      uint64_t version, uint64_t round,
                                      const plan::Checkpoint& master,
                                      const aggregation::ServerState& state,
                                      BlobStore& blobs);

// The master copy of a version.
Result<plan::Checkpoint> LoadMaster(const plan::TensorTable& table,
                                    const VersionRow& row, BlobStore& blobs);

// "clip_fraction=0.25\n": how a store keeps figures, and back. Names are
// [a-z_]+; DATA_LOSS for anything that FiguresText() does not write.
std::string FiguresText(const std::map<std::string, double>& figures);
Result<std::map<std::string, double>> ParseFigures(const std::string& text);

// Serialized metrics, or nothing below `min_cohort` devices (invariant I5).
Bytes ReleasableMetrics(const aggregation::MetricSums& metrics,
                        uint64_t min_cohort);

}  // namespace selvage::coordinator

// Individual updates of a round, for the rules that must compare them
// (aggregation/robust). A batch of them is one sealed blob under the id of its
// partial, and has all that a partial has: it is durable before the transaction
// that names it together with the receipts, bound to its round and id, sealed
// under the round's key, unreadable and removed when the round has ended.
//
// Every update is sealed in blocks of coordinates, decoded to float32, so that
// a rule can read the same block of all updates without the rest:
//   u64 n || Seal(header), n bytes || for each update, for each block:
//   Seal(float32...)
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "aggregation/metrics.h"
#include "aggregation/robust/update_blocks.h"
#include "base/random.h"
#include "coordinator/blob_store.h"
#include "coordinator/store.h"
#include "coordinator/task_definition.h"
#include "crypto/secret.h"

namespace selvage::coordinator {

// Bytes that a round of this task may keep on disk at most: as many updates as
// it can ever accept.
uint64_t HeldBytesMax(const TaskDefinition& definition);
// INVALID_ARGUMENT, with the figures, if that is more than `limit`. OK for a
// task that needs no individual updates.
Status CheckHeldBytes(const TaskDefinition& definition, uint64_t limit);

// Updates that one batch may hold: what they are decoded to stays within
// 64 MiB. >= 1.
size_t HeldBatchMax(const TaskDefinition& definition);

struct UpdateToHold {
  std::string id;    // of its assignment
  ByteSpan encoded;  // as the plan says
  uint32_t weight = 1;
};

// Memory: one decoded update besides the blob. INVALID_ARGUMENT if an update
// cannot be decoded.
Result<Bytes> SealUpdates(const TaskDefinition& definition,
                          const crypto::SecretBytes& round_key,
                          const RoundKey& round, const std::string& id,
                          std::span<const UpdateToHold> updates,
                          const aggregation::MetricSums& metrics,
                          RandomSource& random);

// The updates that committed rows name, in the order of their assignments' ids:
// it has nothing to do with the order of their arrival.
class HeldUpdates final : public aggregation::UpdateBlocks {
 public:
  // Reads the headers of the blobs. DATA_LOSS, or NOT_FOUND, if one cannot be
  // read or is not what its row says. `blobs` and `round_key` must outlive the
  // result.
  static Result<std::unique_ptr<HeldUpdates>> Open(
      const TaskDefinition& definition, const RoundKey& round,
      std::span<const PartialRow> partials, BlobStore& blobs,
      const crypto::SecretBytes& round_key);

  const aggregation::MetricSums& metrics() const { return metrics_; }

  size_t update_count() const override { return updates_.size(); }
  size_t element_count() const override { return element_count_; }
  size_t block_size() const override { return block_size_; }
  uint32_t weight(size_t update) const override {
    return updates_[update].weight;
  }
  // DATA_LOSS if the block is not what was sealed.
  Status Read(size_t update, size_t index, std::span<float> out) const override;

 private:
  struct Held {
    std::string id;
    uint32_t weight = 1;
    size_t blob = 0;   // index into blobs
    size_t place = 0;  // in the blob
  };
  struct Blob {
    std::string id;
    uint64_t body = 0;  // where the first update begins
  };
  HeldUpdates(const TaskDefinition& definition, const RoundKey& round,
              BlobStore& blobs, const crypto::SecretBytes& round_key);

  Status OpenBlob(const PartialRow& partial);

  const RoundKey round_;
  const size_t element_count_;
  const size_t block_size_;
  BlobStore& store_;
  const crypto::SecretBytes& round_key_;
  aggregation::MetricSums metrics_;
  std::vector<Blob> blobs_;
  std::vector<Held> updates_;
};

}  // namespace selvage::coordinator

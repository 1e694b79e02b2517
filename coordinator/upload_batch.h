// The open batch of a round: verified updates that wait for one partial and one
// transaction (docs/protocol.md, "Uploads in a replica: group commit").
//
// Thread-compatible: the round's driver owns it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "aggregation/metrics.h"
#include "base/random.h"
#include "base/time.h"
#include "coordinator/blob_store.h"
#include "coordinator/buffer_pool.h"
#include "coordinator/byte_budget.h"
#include "coordinator/running_sums.h"
#include "coordinator/staged_upload.h"
#include "coordinator/store.h"
#include "coordinator/task_definition.h"
#include "crypto/secret.h"

namespace selvage::coordinator {

using ReceiptCallback = std::function<void(Result<Receipt>)>;

// Its bytes have the announced digest and pass every check of the plan.
struct VerifiedUpload {
  std::string assignment_id;
  RoundKey round;  // that made the assignment
  std::string device_id;
  crypto::Digest digest;
  // Given up before the room they take, so that this is true.
  ByteBudget::Share share;
  BufferPool::Buffer bytes;
  // Instead of `bytes`: on disk, and its part of what the disk may hold. Only
  // where slices of the encoding can be read (SliceBytesPerElement()).
  ByteBudget::Share staged_share = {};
  std::unique_ptr<StagedUpload> staged = {};
  uint32_t weight = 1;
  std::vector<int64_t> scalars = {};  // declared by the device
  std::vector<aggregation::MetricValue> metrics;
  std::string device_class = {};  // of an evaluation
  ReceiptCallback done;

  uint64_t size_bytes() const {
    return staged != nullptr ? staged->size() : bytes.size();
  }
};

// An answer that may be given once what it says is durable and known.
struct PendingAnswer {
  ReceiptCallback done;
  Result<Receipt> answer;
};

// The receipt a row stands for, as the device gets it.
Receipt ToReceipt(const ReceiptRow& row, const RetryWindow& retry);
// The answer to an update of `digest` for an assignment that is settled:
// its receipt again, or CONFLICT, WITHDRAWN, LATE. nullopt: not settled.
std::optional<Receipt> SettledAnswer(const AssignmentRecord& record,
                                     const crypto::Digest& digest,
                                     const RetryWindow& retry);

class UploadBatch {
 public:
  struct Limits {
    size_t updates_max = 16;
    Duration age_max = std::chrono::milliseconds(500);
  };
  explicit UploadBatch(const Limits& limits) : limits_(limits) {}

  void Add(VerifiedUpload upload, Time now);
  bool empty() const { return uploads_.empty(); }
  size_t size() const { return uploads_.size(); }
  // When it is to be flushed at the latest; kNever if empty.
  Time deadline() const { return empty() ? kNever : oldest_ + limits_.age_max; }
  bool IsDue(Time now) const {
    return uploads_.size() >= limits_.updates_max || now >= deadline();
  }

  struct Context {
    const TaskDefinition& definition;
    Store& store;
    BlobStore& blobs;
    RandomSource& random;
    const crypto::SecretBytes& round_key;
    RoundLease lease;
    RetryWindow retry;
    Time now{};
    RoundMode mode = RoundMode::kTrain;
    // Of the round; null: none are kept.
    RunningSums* sums = nullptr;
    // Whoever drives the round may change: the epoch is then read again. What
    // counts is that the round is open. Without `sums`.
    bool any_epoch = false;
    // Of an asynchronous task, else null: how many versions older than the
    // round's base the base of an earlier round was. Updates for assignments
    // that went on from there to this round count, for less
    // (plan::TaskSpec::StaleWeight).
    std::function<Result<uint64_t>(uint64_t round)> staleness_of = nullptr;
  };
  struct Flushed {
    // OK, or why nothing could be made durable: then every answer is that, and
    // the caller must look at the store again before it trusts its own memory.
    Status status;
    std::vector<std::string> accepted;  // device ids
    std::string partial_id;             // that holds them
    std::vector<PendingAnswer> answers;
  };
  // Sum, seal, durable blob, then one transaction. On conflicts it sums again
  // without them. Uploads of an earlier round are LATE; of an asynchronous task
  // those whose assignment did not go on to this one are, and where this one
  // closed first they are UNAVAILABLE, since the next one may take them.
  // Afterwards the batch is empty.
  Flushed Flush(const Context& context);

  // Empties the batch of a task that has ended: receipts again, LATE for the
  // others.
  std::vector<PendingAnswer> CloseOut(Store& store, const RetryWindow& retry);
  // Empties the batch: everyone gets `answer`.
  std::vector<PendingAnswer> TakeAll(const Result<Receipt>& answer);

 private:
  const Limits limits_;
  std::vector<VerifiedUpload> uploads_;
  Time oldest_{};
};

}  // namespace selvage::coordinator

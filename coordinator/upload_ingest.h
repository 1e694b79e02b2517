// Uploads from header to verified update: everything that needs no decision of
// the round. Bytes are staged in memory, those of large uploads sealed on disk,
// admitted by a budget of each, and survive a broken stream for a while. What
// does not fit waits in line, first come first served: the stream is there, its
// bytes are not read yet.
//
// Runs on the RPC threads, except where it says worker; what it finds out goes
// to the driver through the sink.
#pragma once

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>

#include "base/mutex.h"
#include "base/random.h"
#include "coordinator/api.h"
#include "coordinator/blob_store.h"
#include "coordinator/buffer_pool.h"
#include "coordinator/byte_budget.h"
#include "coordinator/round.h"
#include "coordinator/staged_upload.h"
#include "coordinator/store.h"
#include "coordinator/tickets.h"
#include "coordinator/upload_batch.h"

namespace selvage::coordinator {

// What ingest needs to know of a round, and whom it tells. Thread-safe.
class UploadSink {
 public:
  virtual ~UploadSink() = default;

  enum class Door {
    kOpen,         // the round takes updates
    kEvaluates,    // the round takes evaluations
    kClosed,       // it never will again: LATE
    kUnavailable,  // the store is not well: try again
  };
  virtual Door DoorOf(const RoundKey& round) = 0;
  // nullptr unless the task is running.
  virtual std::shared_ptr<const TaskDefinition> DefinitionOf(
      uint64_t task_id) = 0;
  virtual RetryWindow PaceOf(uint64_t task_id) = 0;
  virtual void Post(const RoundKey& round, RoundEvent event) = 0;
  virtual void Post(VerifiedUpload upload) = 0;
  // Makes the worker call Advance() soon.
  virtual void Wake() = 0;
};

class UploadIngest {
 public:
  struct Limits {
    uint64_t bytes_max = uint64_t{256} << 20;
    // What is larger is staged on disk where that can be (staged_upload.h), as
    // long as all of them are at most `staged_bytes_max` there.
    uint64_t staged_above = uint64_t{64} << 20;
    uint64_t staged_bytes_max = uint64_t{16} << 30;
    Duration staging_ttl = std::chrono::seconds(60);
    // Uploads in line for room, and how long they stay there.
    size_t waiting_max = 1000;
    Duration wait_max = std::chrono::seconds(10);
    // How long after the last upload their memory is kept for the next ones.
    Duration buffers_kept = std::chrono::seconds(10);
  };
  // What the transport holds of an upload that is arriving, at most: the chunk
  // that was read and what the flow control lets in ahead of it.
  static constexpr uint64_t kTransportBytesMax = 1 << 20;
  // All must outlive this. `random` is thread-safe.
  struct Dependencies {
    Store& store;
    BlobStore& blobs;
    RandomSource& random;
    const Tickets& tickets;
    UploadSink& sink;
  };
  UploadIngest(const Limits& limits, const Dependencies& dependencies)
      : limits_(limits),
        store_(dependencies.store),
        blobs_(dependencies.blobs),
        random_(dependencies.random),
        tickets_(dependencies.tickets),
        sink_(dependencies.sink),
        budget_(limits.bytes_max),
        disk_budget_(limits.staged_bytes_max),
        buffers_(limits.bytes_max) {}

  // As in DeviceApi. Thread-safe.
  void Begin(const DeviceIdentity& device, const UploadHeader& header,
             BeginUploadCallback done);
  Status Append(uint64_t upload_id, std::span<const ByteSpan> pieces);
  void Finish(uint64_t upload_id, ReceiptCallback done);
  void Drop(uint64_t upload_id);

  // Worker: forgets what broken streams left behind longer than staging_ttl
  // ago, lets in from the line what fits now, and gives memory back that has
  // long been unused. Whoever frees room wakes the worker.
  void Advance(Time now);
  // When Advance() has something to do by itself; kNever.
  Time NextDeadline();
  // Worker: ends the line, also for those who come later.
  void RefuseWaiting(const Status& status);
  // Streams of a task whose bytes are still arriving.
  size_t ActiveStreams(uint64_t task_id);
  // Nothing waits or is arriving and nothing verified waits for its answer.
  bool Idle();

 private:
  struct Staging {
    UploadHeader header;
    RoundKey round;
    std::string device_id;
    std::shared_ptr<const TaskDefinition> definition;
    bool evaluation = false;
    bool on_disk = false;
    ByteBudget::Share share;
    ByteBudget::Share staged_share;  // if it is on disk
    Mutex mu;
    // The one stream that may append; 0 once the bytes were taken.
    uint64_t owner SELVAGE_GUARDED_BY(mu) = 0;
    BufferPool::Buffer bytes SELVAGE_GUARDED_BY(mu);
    std::unique_ptr<StagedUpload> staged SELVAGE_GUARDED_BY(mu);
    crypto::Sha256Hasher hasher SELVAGE_GUARDED_BY(mu);
  };
  struct Entry {
    std::shared_ptr<Staging> staging;
    uint64_t upload_id = 0;  // of the stream that feeds it
    bool active = true;
    Time expires{};  // unless active
  };
  struct Waiting {
    DeviceIdentity device;
    UploadHeader header;
    BeginUploadCallback done;
    Time expires{};
  };
  enum class Line { kJoins, kHeads };

  // OK, or why the header cannot be what the plan asks for.
  static std::optional<Receipt> CheckHeader(const TaskDefinition& definition,
                                            const UploadHeader& header);
  // The same for an evaluation, which is all in its header.
  static std::optional<Receipt> CheckEvaluation(
      const TaskDefinition& definition, const UploadHeader& header);
  // The same for the bytes.
  static std::optional<Receipt> CheckBytes(const TaskDefinition& definition,
                                           const UploadHeader& header,
                                           ByteSpan bytes);
  // The same for bytes on disk; an error if they cannot be read.
  static Result<std::optional<Receipt>> CheckStaged(
      const TaskDefinition& definition, const UploadHeader& header,
      const StagedUpload& staged);
  // Whether an upload of this task is staged on disk.
  bool GoesToDisk(const TaskDefinition& definition) const;
  // Room for an upload; false: there is none.
  bool Admit(Staging& staging);
  static uint64_t StagedBytes(const Staging& staging)
      SELVAGE_REQUIRES(staging.mu);
  Status AppendLocked(Staging& staging, ByteSpan piece)
      SELVAGE_REQUIRES(staging.mu);
  // Ends an upload whose bytes are lost: the device begins anew.
  void Forget(uint64_t upload_id) SELVAGE_EXCLUDES(mu_);
  // Begin()'s answer; nullopt: there is no room. Whoever joins the line never
  // overtakes it.
  Result<std::optional<BegunUpload>> TryBegin(const DeviceIdentity& device,
                                              const UploadHeader& header,
                                              Line line) SELVAGE_EXCLUDES(mu_);
  void Wait(const DeviceIdentity& device, const UploadHeader& header,
            BeginUploadCallback done) SELVAGE_EXCLUDES(mu_);
  void Expire(Time now) SELVAGE_EXCLUDES(mu_);
  void AdmitWaiting(Time now) SELVAGE_EXCLUDES(mu_);
  // Makes a refusal durable, so that a repeat gets the same answer, and frees
  // the slot. Returns what is recorded for the assignment.
  Result<Receipt> Refuse(const RoundKey& round, const std::string& device_id,
                         const UploadHeader& header, const Receipt& receipt);
  std::shared_ptr<Staging> Find(uint64_t upload_id) SELVAGE_EXCLUDES(mu_);
  Status GoneStatus(uint64_t upload_id) SELVAGE_EXCLUDES(mu_);

  const Limits limits_;
  Store& store_;
  BlobStore& blobs_;
  RandomSource& random_;
  const Tickets& tickets_;
  UploadSink& sink_;
  ByteBudget budget_;
  ByteBudget disk_budget_;
  BufferPool buffers_;
  Time last_used_{};  // the worker's

  Mutex mu_;
  std::map<std::string, Entry> entries_ SELVAGE_GUARDED_BY(mu_);
  std::map<uint64_t, std::string> streams_ SELVAGE_GUARDED_BY(mu_);
  uint64_t next_upload_id_ SELVAGE_GUARDED_BY(mu_) = 1;
  // Only the worker takes from it.
  std::list<Waiting> waiting_ SELVAGE_GUARDED_BY(mu_);
  std::optional<Status> line_closed_ SELVAGE_GUARDED_BY(mu_);
};

}  // namespace selvage::coordinator

// The coordinator: DeviceApi and AdminApi over a Store, a BlobStore and one
// worker. Everything it needs is handed in; it opens no socket, reads no file
// and owns no clock, so tests run it whole on virtual time.
//
//   RPC threads ----> UploadIngest (verify, stage) --+
//        |                                           v
//        +--> inbox -------------------------> Poll() on one thread:
//                                              TaskDriver per running task
//                                              (Round decides; the driver
//                                              persists, then answers)
//
// A caller either lets the coordinator run its own thread (Start ... Stop) or
// calls Poll() itself and sleeps until NextDeadline() (tests). Every public
// method is thread-safe except these two: one thread calls them.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <variant>

#include "base/status.h"
#include "base/time.h"
#include "coordinator/api.h"
#include "coordinator/options.h"

namespace selvage::coordinator {

class Coordinator final : public DeviceApi, public AdminApi {
 public:
  // Recovers what the store holds: open rounds continue with the same
  // participants and sums, orphaned blobs are removed.
  static Result<std::unique_ptr<Coordinator>> Open(
      const CoordinatorOptions& options, const CoordinatorDependencies& deps);
  ~Coordinator() override;  // Stop()
  Coordinator(const Coordinator&) = delete;
  Coordinator& operator=(const Coordinator&) = delete;

  // Handles everything posted so far and every deadline that has passed.
  // Never fails: what could not be made durable is answered UNAVAILABLE (or
  // the store's reason) and tried again when it is offered again.
  void Poll();
  // By when Poll() should be called again; in the past if work is waiting.
  // Comparable with Store::Now().
  Time NextDeadline();

  // Runs Poll() on a thread of its own. Once.
  void Start();
  // How often the thread of Start() has come round: at least every second, and
  // not while it hangs. Thread-safe.
  uint64_t turns() const { return turns_; }
  // Graceful stop, first step: from here on no device gets work. Whoever has
  // some may fetch and upload. Idempotent; thread-safe.
  void StopAssigning();
  // Graceful stop, second step: hands out no more work, takes no new uploads
  // (UNAVAILABLE) but lets running ones finish. Idempotent.
  void Drain();
  // True once nothing is in flight any more: Stop() would interrupt nobody.
  bool Drained();
  // Of several over one store: another one may have changed a round of this
  // task. It is looked at sooner than polling would.
  void Hint(uint64_t task_id);
  // Likewise: renews the claims of a turn that takes long. Start() runs it on
  // a thread of its own; thread-safe.
  void RenewClaims();
  // Ends the thread; whatever waits for an answer gets UNAVAILABLE. Idempotent.
  void Stop();

  // DeviceApi.
  Result<EnrollAnswer> Enroll(const std::optional<DeviceIdentity>& current,
                              const EnrollRequest& request) override;
  void CheckIn(const DeviceIdentity& device, CheckInRequest request,
               std::function<void(Result<CheckInAnswer>)> done) override;
  Result<std::unique_ptr<ArtefactReader>> OpenArtefact(
      const DeviceIdentity& device, const crypto::Digest& digest) override;
  Result<std::unique_ptr<ArtefactReader>> OpenDelta(
      const DeviceIdentity& device, const crypto::Digest& digest,
      const crypto::Digest& base, plan::CodecName codec) override;
  void BeginUpload(const DeviceIdentity& device, const UploadHeader& header,
                   BeginUploadCallback done) override;
  using DeviceApi::AppendUpload;
  Status AppendUpload(uint64_t upload_id,
                      std::span<const ByteSpan> pieces) override;
  void FinishUpload(uint64_t upload_id,
                    std::function<void(Result<Receipt>)> done) override;
  void DropUpload(uint64_t upload_id) override;
  Result<RetryWindow> Abandon(const DeviceIdentity& device,
                              const std::string& assignment_id, ByteSpan token,
                              AbandonReason reason,
                              const std::string& message) override;
  Result<RetryWindow> Report(
      const DeviceIdentity& device, const std::string& report_id,
      const std::map<std::string, uint64_t>& counters) override;

  // AdminApi.
  Result<ServiceInfo> Info() override;
  Result<PopulationInfo> CreatePopulation(
      const std::string& name, const std::string& request_id) override;
  Result<PopulationInfo> GetPopulation(const std::string& name) override;
  Result<Page<PopulationInfo>> ListPopulations(
      const PageRequest& page) override;
  Result<std::optional<uint64_t>> BeginArtefact(const crypto::Digest& digest,
                                                uint64_t size_bytes) override;
  Status AppendArtefact(uint64_t id, ByteSpan chunk) override;
  Status FinishArtefact(uint64_t id) override;
  void DropArtefact(uint64_t id) override;
  Result<std::unique_ptr<ArtefactReader>> OpenArtefactAsAdmin(
      const crypto::Digest& digest) override;
  Result<TaskInfo> CreateTask(const CreateTaskRequest& request) override;
  Result<TaskInfo> GetTask(const std::string& name) override;
  Result<Page<TaskInfo>> ListTasks(const std::string& population,
                                   const PageRequest& page) override;
  Result<TaskInfo> StopTask(const std::string& name,
                            const std::string& request_id,
                            const std::string& etag) override;
  Result<RoundInfo> GetRound(const std::string& task, uint64_t number) override;
  Result<Page<RoundInfo>> ListRounds(const std::string& task,
                                     const PageRequest& page) override;
  Result<ModelVersionInfo> GetModelVersion(
      const std::string& task, std::optional<uint64_t> version) override;
  Result<Page<ModelVersionInfo>> ListModelVersions(
      const std::string& task, const PageRequest& page) override;
  Result<ModelVersionInfo> GetBestModelVersion(
      const std::string& task) override;
  Result<EvaluationInfo> AddEvaluation(
      const EvaluationInfo& evaluation) override;
  // The first call of `on_change` comes with the next Poll().
  Result<uint64_t> WatchTask(
      const std::string& name,
      std::function<void(const TaskSnapshot&)> on_change) override;
  void Unwatch(uint64_t watch_id) override;
  Result<NewToken> CreateToken(const std::string& population, Duration ttl,
                               uint32_t uses_max,
                               const std::string& request_id) override;
  Result<Page<TokenInfo>> ListTokens(const std::string& population,
                                     const PageRequest& page) override;
  Result<TokenInfo> RevokeToken(const std::string& id) override;

 private:
  struct Parts;  // everything that lives as long as the coordinator

  explicit Coordinator(std::unique_ptr<Parts> parts);

  const std::unique_ptr<Parts> parts_;
  std::atomic<uint64_t> turns_{0};
  std::thread worker_;
  std::thread renewer_;
};

}  // namespace selvage::coordinator

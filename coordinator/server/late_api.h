// The two APIs before there is a coordinator: while its database is away.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "coordinator/api.h"

namespace selvage::coordinator {

// Until Open() everything is answered UNAVAILABLE, which tells a device to come
// back; from then on by the coordinator. Thread-safe.
class LateApi final : public DeviceApi, public AdminApi {
 public:
  // Once. `devices` and `people` must outlive every call.
  void Open(DeviceApi& devices, AdminApi& people);

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
  std::atomic<DeviceApi*> devices_{nullptr};
  std::atomic<AdminApi*> people_{nullptr};
};

}  // namespace selvage::coordinator

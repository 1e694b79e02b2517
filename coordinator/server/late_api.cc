#include "coordinator/server/late_api.h"

#include <utility>

namespace selvage::coordinator {
namespace {

Status Away() { return Unavailable("the coordinator's database is away"); }

}  // namespace

void LateApi::Open(DeviceApi& devices, AdminApi& people) {
  people_.store(&people, std::memory_order_release);
  devices_.store(&devices, std::memory_order_release);
}

Result<EnrollAnswer> LateApi::Enroll(
    const std::optional<DeviceIdentity>& current,
    const EnrollRequest& request) {
  auto* const api = devices_.load(std::memory_order_acquire);
  if (api == nullptr) return Away();
  return api->Enroll(current, request);
}

void LateApi::CheckIn(const DeviceIdentity& device, CheckInRequest request,
                      std::function<void(Result<CheckInAnswer>)> done) {
  auto* const api = devices_.load(std::memory_order_acquire);
  if (api == nullptr) {
    done(Away());
    return;
  }
  api->CheckIn(device, std::move(request), std::move(done));
}

Result<std::unique_ptr<ArtefactReader>> LateApi::OpenArtefact(
    const DeviceIdentity& device, const crypto::Digest& digest) {
  auto* const api = devices_.load(std::memory_order_acquire);
  if (api == nullptr) return Away();
  return api->OpenArtefact(device, digest);
}

Result<std::unique_ptr<ArtefactReader>> LateApi::OpenDelta(
    const DeviceIdentity& device, const crypto::Digest& digest,
    const crypto::Digest& base, plan::CodecName codec) {
  auto* const api = devices_.load(std::memory_order_acquire);
  if (api == nullptr) return Away();
  return api->OpenDelta(device, digest, base, codec);
}

void LateApi::BeginUpload(const DeviceIdentity& device,
                          const UploadHeader& header,
                          BeginUploadCallback done) {
  auto* const api = devices_.load(std::memory_order_acquire);
  if (api == nullptr) {
    done(Away());
    return;
  }
  api->BeginUpload(device, header, std::move(done));
}

Status LateApi::AppendUpload(uint64_t upload_id,
                             std::span<const ByteSpan> pieces) {
  auto* const api = devices_.load(std::memory_order_acquire);
  if (api == nullptr) return Away();
  return api->AppendUpload(upload_id, pieces);
}

void LateApi::FinishUpload(uint64_t upload_id,
                           std::function<void(Result<Receipt>)> done) {
  auto* const api = devices_.load(std::memory_order_acquire);
  if (api == nullptr) {
    done(Away());
    return;
  }
  api->FinishUpload(upload_id, std::move(done));
}

void LateApi::DropUpload(uint64_t upload_id) {
  auto* const api = devices_.load(std::memory_order_acquire);
  if (api != nullptr) api->DropUpload(upload_id);
}

Result<RetryWindow> LateApi::Abandon(const DeviceIdentity& device,
                                     const std::string& assignment_id,
                                     ByteSpan token, AbandonReason reason,
                                     const std::string& message) {
  auto* const api = devices_.load(std::memory_order_acquire);
  if (api == nullptr) return Away();
  return api->Abandon(device, assignment_id, token, reason, message);
}

Result<RetryWindow> LateApi::Report(
    const DeviceIdentity& device, const std::string& report_id,
    const std::map<std::string, uint64_t>& counters) {
  auto* const api = devices_.load(std::memory_order_acquire);
  if (api == nullptr) return Away();
  return api->Report(device, report_id, counters);
}

Result<ServiceInfo> LateApi::Info() {
  auto* const api = people_.load(std::memory_order_acquire);
  if (api == nullptr) return Away();
  return api->Info();
}

Result<PopulationInfo> LateApi::CreatePopulation(
    const std::string& name, const std::string& request_id) {
  auto* const api = people_.load(std::memory_order_acquire);
  if (api == nullptr) return Away();
  return api->CreatePopulation(name, request_id);
}

Result<PopulationInfo> LateApi::GetPopulation(const std::string& name) {
  auto* const api = people_.load(std::memory_order_acquire);
  if (api == nullptr) return Away();
  return api->GetPopulation(name);
}

Result<Page<PopulationInfo>> LateApi::ListPopulations(const PageRequest& page) {
  auto* const api = people_.load(std::memory_order_acquire);
  if (api == nullptr) return Away();
  return api->ListPopulations(page);
}

Result<std::optional<uint64_t>> LateApi::BeginArtefact(
    const crypto::Digest& digest, uint64_t size_bytes) {
  auto* const api = people_.load(std::memory_order_acquire);
  if (api == nullptr) return Away();
  return api->BeginArtefact(digest, size_bytes);
}

Status LateApi::AppendArtefact(uint64_t id, ByteSpan chunk) {
  auto* const api = people_.load(std::memory_order_acquire);
  if (api == nullptr) return Away();
  return api->AppendArtefact(id, chunk);
}

Status LateApi::FinishArtefact(uint64_t id) {
  auto* const api = people_.load(std::memory_order_acquire);
  if (api == nullptr) return Away();
  return api->FinishArtefact(id);
}

void LateApi::DropArtefact(uint64_t id) {
  auto* const api = people_.load(std::memory_order_acquire);
  if (api != nullptr) api->DropArtefact(id);
}

Result<std::unique_ptr<ArtefactReader>> LateApi::OpenArtefactAsAdmin(
    const crypto::Digest& digest) {
  auto* const api = people_.load(std::memory_order_acquire);
  if (api == nullptr) return Away();
  return api->OpenArtefactAsAdmin(digest);
}

Result<TaskInfo> LateApi::CreateTask(const CreateTaskRequest& request) {
  auto* const api = people_.load(std::memory_order_acquire);
  if (api == nullptr) return Away();
  return api->CreateTask(request);
}

Result<TaskInfo> LateApi::GetTask(const std::string& name) {
  auto* const api = people_.load(std::memory_order_acquire);
  if (api == nullptr) return Away();
  return api->GetTask(name);
}

Result<Page<TaskInfo>> LateApi::ListTasks(const std::string& population,
                                          const PageRequest& page) {
  auto* const api = people_.load(std::memory_order_acquire);
  if (api == nullptr) return Away();
  return api->ListTasks(population, page);
}

Result<TaskInfo> LateApi::StopTask(const std::string& name,
                                   const std::string& request_id,
                                   const std::string& etag) {
  auto* const api = people_.load(std::memory_order_acquire);
  if (api == nullptr) return Away();
  return api->StopTask(name, request_id, etag);
}

Result<RoundInfo> LateApi::GetRound(const std::string& task, uint64_t number) {
  auto* const api = people_.load(std::memory_order_acquire);
  if (api == nullptr) return Away();
  return api->GetRound(task, number);
}

Result<Page<RoundInfo>> LateApi::ListRounds(const std::string& task,
                                            const PageRequest& page) {
  auto* const api = people_.load(std::memory_order_acquire);
  if (api == nullptr) return Away();
  return api->ListRounds(task, page);
}

Result<ModelVersionInfo> LateApi::GetModelVersion(
    const std::string& task, std::optional<uint64_t> version) {
  auto* const api = people_.load(std::memory_order_acquire);
  if (api == nullptr) return Away();
  return api->GetModelVersion(task, version);
}

Result<Page<ModelVersionInfo>> LateApi::ListModelVersions(
    const std::string& task, const PageRequest& page) {
  auto* const api = people_.load(std::memory_order_acquire);
  if (api == nullptr) return Away();
  return api->ListModelVersions(task, page);
}

Result<ModelVersionInfo> LateApi::GetBestModelVersion(const std::string& task) {
  auto* const api = people_.load(std::memory_order_acquire);
  if (api == nullptr) return Away();
  return api->GetBestModelVersion(task);
}

Result<EvaluationInfo> LateApi::AddEvaluation(
    const EvaluationInfo& evaluation) {
  auto* const api = people_.load(std::memory_order_acquire);
  if (api == nullptr) return Away();
  return api->AddEvaluation(evaluation);
}

Result<uint64_t> LateApi::WatchTask(
    const std::string& name,
    std::function<void(const TaskSnapshot&)> on_change) {
  auto* const api = people_.load(std::memory_order_acquire);
  if (api == nullptr) return Away();
  return api->WatchTask(name, std::move(on_change));
}

void LateApi::Unwatch(uint64_t watch_id) {
  auto* const api = people_.load(std::memory_order_acquire);
  if (api != nullptr) api->Unwatch(watch_id);
}

Result<NewToken> LateApi::CreateToken(const std::string& population,
                                      Duration ttl, uint32_t uses_max,
                                      const std::string& request_id) {
  auto* const api = people_.load(std::memory_order_acquire);
  if (api == nullptr) return Away();
  return api->CreateToken(population, ttl, uses_max, request_id);
}

Result<Page<TokenInfo>> LateApi::ListTokens(const std::string& population,
                                            const PageRequest& page) {
  auto* const api = people_.load(std::memory_order_acquire);
  if (api == nullptr) return Away();
  return api->ListTokens(population, page);
}

Result<TokenInfo> LateApi::RevokeToken(const std::string& id) {
  auto* const api = people_.load(std::memory_order_acquire);
  if (api == nullptr) return Away();
  return api->RevokeToken(id);
}

}  // namespace selvage::coordinator

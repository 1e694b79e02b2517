#include "coordinator/coordinator.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "coordinator/coordinator_parts.h"
#include "crypto/aead.h"

namespace selvage::coordinator {
namespace {

// The worker looks at the clock at least this often, so a jump of it is seen.
constexpr Duration kSleepMax = std::chrono::seconds(1);
constexpr size_t kServerKeySize = 32;
constexpr size_t kReportIdSizeMax = 64;
constexpr size_t kCountersMax = 64;
constexpr size_t kCounterNameSizeMax = 64;

bool IsCounterName(const std::string& name) {
  return !name.empty() && name.size() <= kCounterNameSizeMax &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                  c == '_' || c == '.';
         });
}

CheckInOutcome OutcomeOf(const Result<CheckInAnswer>& answer) {
  if (!answer.ok()) {
    return answer.status().code() == StatusCode::kPermissionDenied
               ? CheckInOutcome::kDenied
               : CheckInOutcome::kFailed;
  }
  if (std::holds_alternative<Assignment>(answer->work)) {
    return CheckInOutcome::kAssigned;
  }
  return std::holds_alternative<ModelOffer>(answer->work)
             ? CheckInOutcome::kOffered
             : CheckInOutcome::kNothing;
}

}  // namespace

Status CoordinatorOptions::Validate() const {
  SELVAGE_RETURN_IF_ERROR(PaceOptionsOf(*this).Validate());
  if (candidate_retry_min <= Duration::zero() ||
      candidate_retry_max < candidate_retry_min) {
    return InvalidArgument("candidate_retry must be 0 < min <= max");
  }
  if (batch_updates_max == 0) {
    return InvalidArgument("batch_updates_max must be positive");
  }
  if (rule_threads < 1 || rule_threads > 64) {
    return InvalidArgument("rule_threads (" + std::to_string(rule_threads) +
                           ") is not in 1..64");
  }
  if (replicas.poll <= Duration::zero() ||
      replicas.claim_ttl < 4 * replicas.poll) {
    return InvalidArgument(
        "replicas.poll must be positive and a quarter of replicas.claim_ttl at "
        "most");
  }
  if (replicas.turn_max < replicas.claim_ttl) {
    return InvalidArgument(
        "replicas.turn_max must be replicas.claim_ttl at least");
  }
  if (certificate_lifetime <= Duration::zero()) {
    return InvalidArgument("certificate_lifetime must be positive");
  }
  if (identity_certificate_lifetime <= Duration::zero() ||
      identity_certificate_lifetime > kIdentityCertificateMax) {
    return InvalidArgument(
        "identity_certificate_lifetime must be positive and at most 24 hours");
  }
  return OkStatus();
}

Result<std::unique_ptr<Coordinator>> Coordinator::Open(
    const CoordinatorOptions& options, const CoordinatorDependencies& deps) {
  SELVAGE_RETURN_IF_ERROR(options.Validate());
  if (deps.wrapping_key.size() != crypto::kAeadKeySize ||
      deps.server_key.size() != kServerKeySize) {
    return InvalidArgument("wrapping_key and server_key must be 32 bytes");
  }
  auto parts = std::make_unique<Parts>(options, deps);
  SELVAGE_RETURN_IF_ERROR(parts->Recover());
  return std::unique_ptr<Coordinator>(new Coordinator(std::move(parts)));
}

Coordinator::Coordinator(std::unique_ptr<Parts> parts)
    : parts_(std::move(parts)) {}

Coordinator::~Coordinator() { Stop(); }

void Coordinator::Poll() { parts_->Poll(); }

Time Coordinator::NextDeadline() { return parts_->NextDeadline(); }

void Coordinator::Start() {
  SELVAGE_CHECK(!worker_.joinable());
  worker_ = std::thread([this] {
    for (;;) {
      parts_->Poll();
      ++turns_;
      const Time now = parts_->deps.store.Now();
      const Time next = parts_->NextDeadline();
      const Duration pause =
          next <= now ? Duration::zero() : std::min(kSleepMax, next - now);
      if (!parts_->queue.Wait(pause)) return;
    }
  });
  if (!parts_->options.replicas.shared) return;
  renewer_ = std::thread([this] {
    while (!parts_->queue.WaitForStop(parts_->options.replicas.claim_ttl / 6)) {
      RenewClaims();
    }
  });
}

void Coordinator::Hint(uint64_t task_id) { parts_->Enqueue(HintWork{task_id}); }

void Coordinator::RenewClaims() { parts_->claims.Renew(); }

void Coordinator::StopAssigning() { parts_->assigning = false; }

void Coordinator::Drain() {
  StopAssigning();
  parts_->draining = true;
  parts_->Wake();
}

bool Coordinator::Drained() {
  return parts_->draining && parts_->ingest.Idle() && parts_->queue.empty() &&
         !parts_->busy;
}

void Coordinator::Stop() {
  parts_->queue.Stop();
  if (worker_.joinable()) worker_.join();
  if (renewer_.joinable()) renewer_.join();
  parts_->AnswerEverythingUnavailable();
}

// --------------------------------------------------------------- DeviceApi

Result<EnrollAnswer> Coordinator::Enroll(
    const std::optional<DeviceIdentity>& current,
    const EnrollRequest& request) {
  Result<EnrollAnswer> answer = parts_->enrolment.Enroll(current, request);
  switch (answer.status().code()) {
    case StatusCode::kUnauthenticated:
    case StatusCode::kPermissionDenied:
      parts_->telemetry.AuthFailed(AuthFailure::kEnrolmentToken);
      break;
    case StatusCode::kResourceExhausted:
      parts_->telemetry.RateLimited(RateLimit::kEnrolment);
      break;
    default:
      break;
  }
  return answer;
}

void Coordinator::CheckIn(const DeviceIdentity& device, CheckInRequest request,
                          std::function<void(Result<CheckInAnswer>)> done) {
  parts_->CheckIn(
      device, request,
      [&telemetry = parts_->telemetry, population = device.population,
       done = std::move(done)](Result<CheckInAnswer> answer) {
        const CheckInOutcome outcome = OutcomeOf(answer);
        if (outcome == CheckInOutcome::kDenied) {
          // Nobody vouches for the name.
          telemetry.CheckedIn("unknown", outcome);
          telemetry.AuthFailed(AuthFailure::kNotEnrolled);
        } else {
          telemetry.CheckedIn(population, outcome);
        }
        done(std::move(answer));
      });
}

Result<std::unique_ptr<ArtefactReader>> Coordinator::OpenArtefact(
    const DeviceIdentity& device, const crypto::Digest& digest) {
  SELVAGE_RETURN_IF_ERROR(parts_->enrolment.CheckEnrolled(device));
  SELVAGE_ASSIGN_OR_RETURN(
      const bool referenced,
      parts_->deps.store.IsReferenced(device.population, digest));
  if (!referenced) return NotFound("no artefact " + digest.ToHex());
  return parts_->deps.blobs.Open(digest);
}

Result<std::unique_ptr<ArtefactReader>> Coordinator::OpenDelta(
    const DeviceIdentity& device, const crypto::Digest& digest,
    const crypto::Digest& base, plan::CodecName codec) {
  SELVAGE_RETURN_IF_ERROR(parts_->enrolment.CheckEnrolled(device));
  for (const crypto::Digest& artefact : {digest, base}) {
    SELVAGE_ASSIGN_OR_RETURN(
        const bool referenced,
        parts_->deps.store.IsReferenced(device.population, artefact));
    if (!referenced) return NotFound("no artefact " + artefact.ToHex());
  }
  return parts_->deltas.Open({.codec = codec, .base = base, .target = digest});
}

void Coordinator::BeginUpload(const DeviceIdentity& device,
                              const UploadHeader& header,
                              BeginUploadCallback done) {
  if (Status enrolled = parts_->enrolment.CheckEnrolled(device);
      !enrolled.ok()) {
    if (enrolled.code() == StatusCode::kPermissionDenied) {
      parts_->telemetry.AuthFailed(AuthFailure::kNotEnrolled);
    }
    done(std::move(enrolled));
  } else if (parts_->draining) {
    done(Unavailable("the coordinator is draining"));
  } else {
    parts_->ingest.Begin(
        device, header, parts_->uploads.Begin(device, header, std::move(done)));
  }
}

Status Coordinator::AppendUpload(uint64_t upload_id,
                                 std::span<const ByteSpan> pieces) {
  return parts_->ingest.Append(upload_id, pieces);
}

void Coordinator::FinishUpload(uint64_t upload_id,
                               std::function<void(Result<Receipt>)> done) {
  parts_->ingest.Finish(upload_id,
                        parts_->uploads.Finish(upload_id, std::move(done)));
}

void Coordinator::DropUpload(uint64_t upload_id) {
  parts_->uploads.Drop(upload_id);
  parts_->ingest.Drop(upload_id);
}

Result<RetryWindow> Coordinator::Abandon(const DeviceIdentity& device,
                                         const std::string& assignment_id,
                                         ByteSpan token, AbandonReason reason,
                                         const std::string& message) {
  return parts_->Abandon(device, assignment_id, token, reason, message);
}

Result<RetryWindow> Coordinator::Report(
    const DeviceIdentity& device, const std::string& report_id,
    const std::map<std::string, uint64_t>& counters) {
  SELVAGE_RETURN_IF_ERROR(parts_->enrolment.CheckEnrolled(device));
  if (report_id.empty() || report_id.size() > kReportIdSizeMax) {
    return InvalidArgument("report_id must have 1 to 64 bytes");
  }
  if (counters.size() > kCountersMax) {
    return InvalidArgument(std::to_string(counters.size()) +
                           " counters, the limit is " +
                           std::to_string(kCountersMax));
  }
  for (const auto& [name, value] : counters) {
    if (!IsCounterName(name)) {
      return InvalidArgument("a counter's name must be [a-z0-9_.]{1,64}");
    }
    if (value > (uint64_t{1} << 32)) {
      return InvalidArgument("counter " + name + " is " +
                             std::to_string(value) + ", the limit is 2^32");
    }
  }
  Store& store = parts_->deps.store;
  SELVAGE_RETURN_IF_ERROR(
      store.AddReport(device, report_id, store.Now(), counters));
  return parts_->pace.AfterWork(device.population, false);
}

// ---------------------------------------------------------------- AdminApi

Result<ServiceInfo> Coordinator::Info() {
  const CoordinatorDependencies& deps = parts_->deps;
  ServiceInfo info;
  info.schema_version = deps.store.schema_version();
  info.now = deps.store.Now();
  info.instance_id = deps.store.instance_id();
  SELVAGE_ASSIGN_OR_RETURN(info.free_bytes, deps.blobs.FreeBytes());
  SELVAGE_ASSIGN_OR_RETURN(info.certificates_issued,
                           deps.store.CertificatesIssued());
  return info;
}

Result<PopulationInfo> Coordinator::CreatePopulation(
    const std::string& name, const std::string& request_id) {
  return parts_->enrolment.CreatePopulation(name, request_id);
}

Result<PopulationInfo> Coordinator::GetPopulation(const std::string& name) {
  return parts_->enrolment.GetPopulation(name);
}

Result<Page<PopulationInfo>> Coordinator::ListPopulations(
    const PageRequest& page) {
  return parts_->enrolment.ListPopulations(page);
}

Result<std::optional<uint64_t>> Coordinator::BeginArtefact(
    const crypto::Digest& digest, uint64_t size_bytes) {
  return parts_->artefacts.Begin(digest, size_bytes);
}

Status Coordinator::AppendArtefact(uint64_t id, ByteSpan chunk) {
  return parts_->artefacts.Append(id, chunk);
}

Status Coordinator::FinishArtefact(uint64_t id) {
  return parts_->artefacts.Finish(id);
}

void Coordinator::DropArtefact(uint64_t id) { parts_->artefacts.Drop(id); }

Result<std::unique_ptr<ArtefactReader>> Coordinator::OpenArtefactAsAdmin(
    const crypto::Digest& digest) {
  return parts_->deps.blobs.Open(digest);
}

Result<TaskInfo> Coordinator::CreateTask(const CreateTaskRequest& request) {
  SELVAGE_ASSIGN_OR_RETURN(TaskAdmin::Created created,
                           parts_->admin.CreateTask(request));
  if (created.definition != nullptr) {
    parts_->Enqueue(
        NewTaskWork{std::move(created.row), std::move(created.definition)});
  }
  return std::move(created.info);
}

Result<TaskInfo> Coordinator::GetTask(const std::string& name) {
  return parts_->admin.GetTask(name);
}

Result<Page<TaskInfo>> Coordinator::ListTasks(const std::string& population,
                                              const PageRequest& page) {
  return parts_->admin.ListTasks(population, page);
}

Result<TaskInfo> Coordinator::StopTask(const std::string& name,
                                       const std::string& request_id,
                                       const std::string& etag) {
  SELVAGE_ASSIGN_OR_RETURN(TaskAdmin::Stopped stopped,
                           parts_->admin.StopTask(name, request_id, etag));
  parts_->Enqueue(StoppedTaskWork{stopped.task_id});
  return std::move(stopped.info);
}

Result<RoundInfo> Coordinator::GetRound(const std::string& task,
                                        uint64_t number) {
  return parts_->admin.GetRound(task, number);
}

Result<Page<RoundInfo>> Coordinator::ListRounds(const std::string& task,
                                                const PageRequest& page) {
  return parts_->admin.ListRounds(task, page);
}

Result<ModelVersionInfo> Coordinator::GetModelVersion(
    const std::string& task, std::optional<uint64_t> version) {
  return parts_->admin.GetModelVersion(task, version);
}

Result<Page<ModelVersionInfo>> Coordinator::ListModelVersions(
    const std::string& task, const PageRequest& page) {
  return parts_->admin.ListModelVersions(task, page);
}

Result<ModelVersionInfo> Coordinator::GetBestModelVersion(
    const std::string& task) {
  return parts_->admin.GetBestModelVersion(task);
}

Result<EvaluationInfo> Coordinator::AddEvaluation(
    const EvaluationInfo& evaluation) {
  SELVAGE_ASSIGN_OR_RETURN(TaskAdmin::Evaluated evaluated,
                           parts_->admin.AddEvaluation(evaluation));
  if (evaluated.finished_task != 0) {
    parts_->Enqueue(StoppedTaskWork{evaluated.finished_task});
  }
  return std::move(evaluated.info);
}

Result<uint64_t> Coordinator::WatchTask(
    const std::string& name,
    std::function<void(const TaskSnapshot&)> on_change) {
  SELVAGE_ASSIGN_OR_RETURN(const TaskRow row, parts_->deps.store.GetTask(name));
  const uint64_t id = parts_->watchers.Add(row.id, std::move(on_change));
  parts_->Wake();
  return id;
}

void Coordinator::Unwatch(uint64_t watch_id) {
  parts_->watchers.Remove(watch_id);
}

Result<NewToken> Coordinator::CreateToken(const std::string& population,
                                          Duration ttl, uint32_t uses_max,
                                          const std::string& request_id) {
  return parts_->enrolment.CreateToken(population, ttl, uses_max, request_id);
}

Result<Page<TokenInfo>> Coordinator::ListTokens(const std::string& population,
                                                const PageRequest& page) {
  return parts_->enrolment.ListTokens(population, page);
}

Result<TokenInfo> Coordinator::RevokeToken(const std::string& id) {
  return parts_->enrolment.RevokeToken(id);
}

}  // namespace selvage::coordinator

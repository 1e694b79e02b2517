#include "coordinator/rpc/convert.h"

#include <algorithm>
#include <utility>

#include "crypto/identity_key.h"

namespace selvage::coordinator {
namespace {

Status TooLong(std::string_view field, size_t size, size_t size_max) {
  return InvalidArgument(std::string(field) + " has " + std::to_string(size) +
                         " bytes, allowed are at most " +
                         std::to_string(size_max));
}

Status CheckSize(std::string_view field, size_t size, size_t size_max) {
  if (size > size_max) return TooLong(field, size, size_max);
  return OkStatus();
}

Status CheckCount(std::string_view field, int count, size_t count_max) {
  if (static_cast<size_t>(count) > count_max) {
    return InvalidArgument(
        std::string(field) + " has " + std::to_string(count) +
        " entries, allowed are at most " + std::to_string(count_max));
  }
  return OkStatus();
}

// What may be stored, logged and printed without quoting.
bool IsNameCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

// Free text that ends up in one log field or one table cell.
Status CheckPrintable(std::string_view field, std::string_view text,
                      size_t size_max) {
  SELVAGE_RETURN_IF_ERROR(CheckSize(field, text.size(), size_max));
  const bool printable = std::all_of(text.begin(), text.end(), [](char c) {
    return static_cast<unsigned char>(c) >= 0x20 && c != 0x7F;
  });
  if (!printable) {
    return InvalidArgument(std::string(field) + " has a control character");
  }
  return OkStatus();
}

// An id that the coordinator itself made.
Status CheckId(std::string_view field, std::string_view id, size_t size_max) {
  if (id.empty()) return InvalidArgument(std::string(field) + " is missing");
  return CheckPrintable(field, id, size_max);
}

Result<crypto::Digest> DigestFrom(std::string_view field,
                                  std::string_view raw) {
  if (raw.size() != sizeof(crypto::Digest::bytes)) {
    return InvalidArgument(std::string(field) + " has " +
                           std::to_string(raw.size()) +
                           " bytes, a SHA-256 digest has 32");
  }
  return crypto::Digest::FromBytes(AsBytes(raw));
}

std::string DigestBytes(const crypto::Digest& digest) {
  return ToString(digest.span());
}

Result<plan::CodecName> CodecFrom(std::string_view field, v1::Codec codec) {
  switch (codec) {
    case v1::FLOAT32:
      return plan::CodecName::kFloat32;
    case v1::FLOAT16:
      return plan::CodecName::kFloat16;
    case v1::BFLOAT16:
      return plan::CodecName::kBFloat16;
    case v1::INT8:
      return plan::CodecName::kInt8;
    case v1::TOP_K:
      return plan::CodecName::kTopK;
    case v1::ROTATED_INT8:
      return plan::CodecName::kRotatedInt8;
    default:
      return InvalidArgument(std::string(field) + " " +
                             std::to_string(static_cast<int>(codec)) +
                             " is not a codec of this version");
  }
}

v1::Codec ToProto(plan::CodecName codec) {
  switch (codec) {
    case plan::CodecName::kFloat32:
      return v1::FLOAT32;
    case plan::CodecName::kFloat16:
      return v1::FLOAT16;
    case plan::CodecName::kBFloat16:
      return v1::BFLOAT16;
    case plan::CodecName::kInt8:
      return v1::INT8;
    case plan::CodecName::kTopK:
      return v1::TOP_K;
    case plan::CodecName::kRotatedInt8:
      return v1::ROTATED_INT8;
  }
  return v1::CODEC_UNSPECIFIED;
}

uint64_t ToMillis(Duration d) {
  const int64_t ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(d).count();
  return ms < 0 ? 0 : static_cast<uint64_t>(ms);
}

v1::AssignmentOutcome::State ToProto(OutcomeState state) {
  switch (state) {
    case OutcomeState::kPending:
      return v1::AssignmentOutcome::PENDING;
    case OutcomeState::kCommitted:
      return v1::AssignmentOutcome::COMMITTED;
    case OutcomeState::kAbandoned:
      return v1::AssignmentOutcome::ABANDONED;
    case OutcomeState::kUnknown:
      return v1::AssignmentOutcome::UNKNOWN;
  }
  return v1::AssignmentOutcome::STATE_UNSPECIFIED;
}

v1::Receipt::Status ToProto(ReceiptStatus status) {
  switch (status) {
    case ReceiptStatus::kAccepted:
      return v1::Receipt::ACCEPTED;
    case ReceiptStatus::kLate:
      return v1::Receipt::LATE;
    case ReceiptStatus::kRejected:
      return v1::Receipt::REJECTED;
  }
  return v1::Receipt::STATUS_UNSPECIFIED;
}

// These enums are the wire's, number for number (coordinator/api.h).
#define SELVAGE_SAME_NUMBER(ours, theirs) \
  static_assert(static_cast<int>(ours) == static_cast<int>(theirs))
SELVAGE_SAME_NUMBER(RejectReason::kNone, v1::Receipt::REASON_UNSPECIFIED);
SELVAGE_SAME_NUMBER(RejectReason::kConflict, v1::Receipt::CONFLICT);
SELVAGE_SAME_NUMBER(RejectReason::kBadToken, v1::Receipt::BAD_TOKEN);
SELVAGE_SAME_NUMBER(RejectReason::kBadDigest, v1::Receipt::BAD_DIGEST);
SELVAGE_SAME_NUMBER(RejectReason::kBadSize, v1::Receipt::BAD_SIZE);
SELVAGE_SAME_NUMBER(RejectReason::kBadEncoding, v1::Receipt::BAD_ENCODING);
SELVAGE_SAME_NUMBER(RejectReason::kOutOfRange, v1::Receipt::OUT_OF_RANGE);
SELVAGE_SAME_NUMBER(RejectReason::kNotFinite, v1::Receipt::NOT_FINITE);
SELVAGE_SAME_NUMBER(RejectReason::kBadWeight, v1::Receipt::BAD_WEIGHT);
SELVAGE_SAME_NUMBER(RejectReason::kBadMetrics, v1::Receipt::BAD_METRICS);
SELVAGE_SAME_NUMBER(RejectReason::kBadScalars, v1::Receipt::BAD_SCALARS);
SELVAGE_SAME_NUMBER(RejectReason::kUnknownAssignment,
                    v1::Receipt::UNKNOWN_ASSIGNMENT);
SELVAGE_SAME_NUMBER(RejectReason::kWithdrawn, v1::Receipt::WITHDRAWN);
static_assert(v1::Receipt::Reason_MAX == 12);

SELVAGE_SAME_NUMBER(AbandonReason::kUnspecified,
                    v1::AbandonRequest::REASON_UNSPECIFIED);
SELVAGE_SAME_NUMBER(AbandonReason::kInterrupted,
                    v1::AbandonRequest::INTERRUPTED);
SELVAGE_SAME_NUMBER(AbandonReason::kPlanRefused,
                    v1::AbandonRequest::PLAN_REFUSED);
SELVAGE_SAME_NUMBER(AbandonReason::kProgramRefused,
                    v1::AbandonRequest::PROGRAM_REFUSED);
SELVAGE_SAME_NUMBER(AbandonReason::kTooFewExamples,
                    v1::AbandonRequest::TOO_FEW_EXAMPLES);
SELVAGE_SAME_NUMBER(AbandonReason::kTrainingFailed,
                    v1::AbandonRequest::TRAINING_FAILED);
SELVAGE_SAME_NUMBER(AbandonReason::kUpdateOutOfRange,
                    v1::AbandonRequest::UPDATE_OUT_OF_RANGE);
SELVAGE_SAME_NUMBER(AbandonReason::kPlanBelowFloor,
                    v1::AbandonRequest::PLAN_BELOW_FLOOR);
SELVAGE_SAME_NUMBER(AbandonReason::kOverBudget,
                    v1::AbandonRequest::OVER_BUDGET);
static_assert(v1::AbandonRequest::Reason_MAX == 8);

SELVAGE_SAME_NUMBER(TaskState::kRunning, v1::Task::RUNNING);
SELVAGE_SAME_NUMBER(TaskState::kStopped, v1::Task::STOPPED);
SELVAGE_SAME_NUMBER(TaskState::kFinished, v1::Task::FINISHED);
SELVAGE_SAME_NUMBER(RoundState::kSelecting, v1::Round::SELECTING);
SELVAGE_SAME_NUMBER(RoundState::kCollecting, v1::Round::COLLECTING);
SELVAGE_SAME_NUMBER(RoundState::kClosing, v1::Round::CLOSING);
SELVAGE_SAME_NUMBER(RoundState::kUnmasking, v1::Round::UNMASKING);
SELVAGE_SAME_NUMBER(RoundState::kApplying, v1::Round::APPLYING);
SELVAGE_SAME_NUMBER(RoundState::kCommitted, v1::Round::COMMITTED);
SELVAGE_SAME_NUMBER(RoundState::kAbandoned, v1::Round::ABANDONED);
SELVAGE_SAME_NUMBER(RoundMode::kTrain, v1::Assignment::TRAIN);
SELVAGE_SAME_NUMBER(RoundMode::kEvaluate, v1::Assignment::EVALUATE);
#undef SELVAGE_SAME_NUMBER

Status CheckCounterName(std::string_view name) {
  if (name.empty() || name.size() > kNameSizeMax) {
    return InvalidArgument("counters.name has " + std::to_string(name.size()) +
                           " bytes, allowed are 1.." +
                           std::to_string(kNameSizeMax));
  }
  const bool fits = std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.';
  });
  if (!fits) {
    return InvalidArgument(
        "counters.name has a character outside a-z, 0-9, '_' and '.'");
  }
  return OkStatus();
}

void AddMetrics(const std::vector<MetricSummary>& metrics,
                google::protobuf::RepeatedPtrField<v1::MetricSummary>* out) {
  for (const MetricSummary& metric : metrics) {
    v1::MetricSummary& proto = *out->Add();
    proto.set_name(metric.name);
    proto.set_mean(metric.mean);
    proto.set_example_count(metric.example_count);
    proto.set_device_count(metric.device_count);
    if (!metric.percentiles.has_value()) continue;
    proto.set_p10(metric.percentiles->p10);
    proto.set_p50(metric.percentiles->p50);
    proto.set_p90(metric.percentiles->p90);
  }
}

Status CheckAbsentOrSize(std::string_view field, std::string_view value,
                         size_t size) {
  if (value.empty() || value.size() == size) return OkStatus();
  return InvalidArgument(std::string(field) + " has " +
                         std::to_string(value.size()) +
                         " bytes, expected are " + std::to_string(size));
}

// The fields of a device with an identity key: all, or a question for a nonce,
// or none.
Status ReadIdentity(const v1::EnrollRequest& proto, EnrollRequest& request) {
  SELVAGE_RETURN_IF_ERROR(CheckAbsentOrSize("identity_public_key",
                                            proto.identity_public_key(),
                                            crypto::kP256PublicKeySize));
  SELVAGE_RETURN_IF_ERROR(CheckAbsentOrSize("identity_signature",
                                            proto.identity_signature(),
                                            crypto::kP256SignatureSize));
  SELVAGE_RETURN_IF_ERROR(CheckAbsentOrSize(
      "identity_nonce", proto.identity_nonce(), kIdentityNonceSize));
  if (proto.identity_public_key().empty()) {
    if (!proto.identity_signature().empty() ||
        !proto.identity_nonce().empty()) {
      return InvalidArgument(
          "identity_signature or identity_nonce without identity_public_key");
    }
    return OkStatus();
  }
  if (proto.identity_signature().empty() != proto.identity_nonce().empty()) {
    return InvalidArgument(
        "identity_signature and identity_nonce belong together");
  }
  SELVAGE_RETURN_IF_ERROR(CheckWireName("population", proto.population()));
  request.identity_public_key = ToBytes(proto.identity_public_key());
  request.identity_signature = ToBytes(proto.identity_signature());
  request.identity_nonce = ToBytes(proto.identity_nonce());
  request.population = proto.population();
  return OkStatus();
}

}  // namespace

// ---------------------------------------------------------------- devices

Result<EnrollRequest> FromProto(const v1::EnrollRequest& proto) {
  SELVAGE_RETURN_IF_ERROR(
      CheckPrintable("token_id", proto.token_id(), kTokenIdSizeMax));
  // Neither: a renewal with the old certificate.
  const size_t secret_size = proto.token_id().empty() ? 0 : kTokenSecretSize;
  if (proto.token_secret().size() != secret_size) {
    return InvalidArgument(
        "token_secret has " + std::to_string(proto.token_secret().size()) +
        " bytes, expected are " + std::to_string(secret_size));
  }
  const bool asks_for_nonce = !proto.identity_public_key().empty() &&
                              proto.identity_signature().empty();
  if (proto.csr_pem().empty() && !asks_for_nonce) {
    return InvalidArgument("csr_pem is missing");
  }
  SELVAGE_RETURN_IF_ERROR(
      CheckSize("csr_pem", proto.csr_pem().size(), kRequestPemSizeMax));
  if (!proto.device_name().empty()) {
    SELVAGE_RETURN_IF_ERROR(CheckWireName("device_name", proto.device_name()));
  }
  EnrollRequest request{proto.token_id(), ToBytes(proto.token_secret()),
                        proto.csr_pem(), proto.device_name()};
  SELVAGE_RETURN_IF_ERROR(ReadIdentity(proto, request));
  return request;
}

v1::EnrollResponse ToProto(const EnrollAnswer& answer) {
  v1::EnrollResponse proto;
  proto.set_certificate_pem(answer.certificate_pem);
  proto.set_device_id(answer.device_id);
  proto.set_population(answer.population);
  for (const crypto::Ed25519PublicKey& key : answer.plan_public_keys) {
    proto.add_plan_public_keys(key.data(), key.size());
  }
  proto.set_nonce(ToString(answer.nonce));
  return proto;
}

Result<CheckInRequest> FromProto(const v1::CheckInRequest& proto) {
  CheckInRequest request;
  SELVAGE_RETURN_IF_ERROR(CheckWireName("population", proto.population()));
  request.population = proto.population();

  const v1::DeviceAttributes& attributes = proto.attributes();
  SELVAGE_RETURN_IF_ERROR(CheckPrintable(
      "attributes.device_class", attributes.device_class(), kAttributeSizeMax));
  SELVAGE_RETURN_IF_ERROR(CheckPrintable(
      "attributes.app_version", attributes.app_version(), kAttributeSizeMax));
  SELVAGE_RETURN_IF_ERROR(CheckPrintable("attributes.library_version",
                                         attributes.library_version(),
                                         kAttributeSizeMax));
  request.device_class = attributes.device_class();

  const v1::Capabilities& capabilities = proto.capabilities();
  SELVAGE_RETURN_IF_ERROR(CheckCount("capabilities.engines",
                                     capabilities.engines_size(), kEnginesMax));
  for (const std::string& engine : capabilities.engines()) {
    SELVAGE_RETURN_IF_ERROR(
        CheckPrintable("capabilities.engines", engine, kAttributeSizeMax));
    request.engines.push_back(engine);
  }
  SELVAGE_RETURN_IF_ERROR(CheckCount("capabilities.codecs",
                                     capabilities.codecs_size(), kCodecsMax));
  for (const std::string& codec : capabilities.codecs()) {
    SELVAGE_RETURN_IF_ERROR(
        CheckPrintable("capabilities.codecs", codec, kAttributeSizeMax));
    // A newer device names codecs that we do not know: not an error.
    for (const plan::CodecName known : plan::kCodecNames) {
      if (codec == plan::CodecNameText(known)) request.codecs.push_back(known);
    }
  }
  SELVAGE_RETURN_IF_ERROR(CheckCount("capabilities.contributions",
                                     capabilities.contributions_size(),
                                     kCodecsMax));
  for (const std::string& name : capabilities.contributions()) {
    SELVAGE_RETURN_IF_ERROR(
        CheckPrintable("capabilities.contributions", name, kAttributeSizeMax));
    for (const plan::ContributionName known : plan::kContributionNames) {
      if (name == plan::ContributionNameText(known)) {
        request.contributions.push_back(known);
      }
    }
  }
  request.plan_format = capabilities.plan_format();
  request.evaluates = capabilities.evaluate();

  SELVAGE_RETURN_IF_ERROR(CheckCount("unsettled_assignments",
                                     proto.unsettled_assignments_size(),
                                     kUnsettledMax));
  for (const std::string& id : proto.unsettled_assignments()) {
    SELVAGE_RETURN_IF_ERROR(
        CheckId("unsettled_assignments", id, kAssignmentIdSizeMax));
    request.unsettled_assignments.push_back(id);
  }
  SELVAGE_RETURN_IF_ERROR(
      CheckCount("installed", proto.installed_size(), kInstalledMax));
  for (const v1::InstalledModel& installed : proto.installed()) {
    SELVAGE_RETURN_IF_ERROR(CheckWireName("installed.task", installed.task()));
    request.installed.push_back({installed.task(), installed.version()});
  }
  return request;
}

v1::CheckInResponse ToProto(const CheckInAnswer& answer) {
  v1::CheckInResponse proto;
  if (const auto* assignment = std::get_if<Assignment>(&answer.work)) {
    v1::Assignment& out = *proto.mutable_assignment();
    out.set_id(assignment->id);
    out.set_task(assignment->task);
    out.set_round(assignment->round);
    out.set_mode(static_cast<v1::Assignment::Mode>(assignment->mode));
    out.set_plan_digest(DigestBytes(assignment->plan_digest));
    out.set_plan_signature(assignment->plan_signature.data(),
                           assignment->plan_signature.size());
    out.set_checkpoint_digest(DigestBytes(assignment->checkpoint_digest));
    out.set_checkpoint_codec(ToProto(assignment->checkpoint_codec));
    out.set_base_version(assignment->base_version);
    out.set_token(DigestBytes(assignment->token));
    out.set_compute_deadline_ms(ToMillis(assignment->compute_deadline));
    out.set_upload_deadline_ms(ToMillis(assignment->upload_deadline));
    out.set_seed(assignment->seed);
    if (!assignment->control_digest.empty()) {
      out.set_control_digest(DigestBytes(assignment->control_digest));
    }
  } else if (const auto* offer = std::get_if<ModelOffer>(&answer.work)) {
    v1::ModelOffer& out = *proto.mutable_model();
    out.set_task(offer->task);
    out.set_version(offer->version);
    out.set_plan_digest(DigestBytes(offer->plan_digest));
    out.set_plan_signature(offer->plan_signature.data(),
                           offer->plan_signature.size());
    out.set_checkpoint_digest(DigestBytes(offer->checkpoint_digest));
    out.set_checkpoint_codec(ToProto(offer->checkpoint_codec));
  }
  *proto.mutable_retry_if_accepted() = ToProto(answer.retry_if_accepted);
  *proto.mutable_retry() = ToProto(answer.retry);
  for (const AssignmentOutcome& outcome : answer.outcomes) {
    v1::AssignmentOutcome& out = *proto.add_outcomes();
    out.set_assignment_id(outcome.assignment_id);
    out.set_state(ToProto(outcome.state));
  }
  return proto;
}

Result<FetchRequest> FromProto(const v1::FetchRequest& proto) {
  FetchRequest request;
  SELVAGE_ASSIGN_OR_RETURN(request.digest,
                           DigestFrom("digest", proto.digest()));
  request.offset = proto.offset();
  if (!proto.base().empty()) {
    SELVAGE_ASSIGN_OR_RETURN(request.base, DigestFrom("base", proto.base()));
    SELVAGE_ASSIGN_OR_RETURN(request.codec, CodecFrom("codec", proto.codec()));
  }
  return request;
}

Result<UploadHeader> FromProto(const v1::UploadHeader& proto) {
  UploadHeader header;
  SELVAGE_RETURN_IF_ERROR(
      CheckId("assignment_id", proto.assignment_id(), kAssignmentIdSizeMax));
  header.assignment_id = proto.assignment_id();
  SELVAGE_RETURN_IF_ERROR(
      CheckSize("token", proto.token().size(), kAssignmentTokenSizeMax));
  header.token = ToBytes(proto.token());
  SELVAGE_ASSIGN_OR_RETURN(header.digest, DigestFrom("digest", proto.digest()));
  // Nothing but metrics: an evaluation.
  const bool empty = proto.size() == 0 && proto.metrics_size() == 0;
  if (empty || proto.size() > kUpdateSizeMax) {
    return InvalidArgument("size is " + std::to_string(proto.size()) +
                           ", allowed are 1.." +
                           std::to_string(kUpdateSizeMax));
  }
  header.size_bytes = proto.size();
  SELVAGE_ASSIGN_OR_RETURN(header.codec, CodecFrom("codec", proto.codec()));
  header.weight = proto.weight();
  SELVAGE_RETURN_IF_ERROR(
      CheckCount("scalars", proto.scalars_size(), kScalarsMax));
  header.scalars.assign(proto.scalars().begin(), proto.scalars().end());
  SELVAGE_RETURN_IF_ERROR(
      CheckCount("metrics", proto.metrics_size(), kMetricsMax));
  for (const v1::MetricValue& metric : proto.metrics()) {
    header.metrics.push_back({metric.numerator(), metric.count()});
  }
  return header;
}

v1::Receipt ToProto(const Receipt& receipt) {
  v1::Receipt proto;
  proto.set_status(ToProto(receipt.status));
  proto.set_reason(static_cast<v1::Receipt::Reason>(receipt.reason));
  proto.set_message(receipt.message);
  *proto.mutable_retry() = ToProto(receipt.retry);
  return proto;
}

v1::RetryWindow ToProto(const RetryWindow& window) {
  v1::RetryWindow proto;
  proto.set_min_ms(ToMillis(window.min));
  proto.set_max_ms(ToMillis(std::max(window.min, window.max)));
  return proto;
}

Result<AbandonRequest> FromProto(const v1::AbandonRequest& proto) {
  AbandonRequest request;
  SELVAGE_RETURN_IF_ERROR(
      CheckId("assignment_id", proto.assignment_id(), kAssignmentIdSizeMax));
  request.assignment_id = proto.assignment_id();
  SELVAGE_RETURN_IF_ERROR(
      CheckSize("token", proto.token().size(), kAssignmentTokenSizeMax));
  request.token = ToBytes(proto.token());
  if (proto.reason() == v1::AbandonRequest::REASON_UNSPECIFIED ||
      !v1::AbandonRequest::Reason_IsValid(proto.reason())) {
    return InvalidArgument("reason " +
                           std::to_string(static_cast<int>(proto.reason())) +
                           " is not a reason of this version");
  }
  request.reason = static_cast<AbandonReason>(proto.reason());
  SELVAGE_RETURN_IF_ERROR(
      CheckSize("message", proto.message().size(), kAbandonMessageSizeMax));
  request.message = proto.message();
  return request;
}

Result<ReportRequest> FromProto(const v1::ReportRequest& proto) {
  SELVAGE_RETURN_IF_ERROR(
      CheckSize("report", proto.ByteSizeLong(), kReportSizeMax));
  ReportRequest request;
  SELVAGE_RETURN_IF_ERROR(
      CheckId("report_id", proto.report_id(), kReportIdSizeMax));
  request.report_id = proto.report_id();
  SELVAGE_RETURN_IF_ERROR(
      CheckCount("counters", proto.counters_size(), kCountersMax));
  for (const v1::ReportRequest::Counter& counter : proto.counters()) {
    SELVAGE_RETURN_IF_ERROR(CheckCounterName(counter.name()));
    if (!request.counters.emplace(counter.name(), counter.value()).second) {
      return InvalidArgument("counters names " + counter.name() + " twice");
    }
  }
  return request;
}

// ------------------------------------------------------------------- people

Status CheckWireName(std::string_view field, std::string_view name) {
  if (name.empty() || name.size() > kNameSizeMax) {
    return InvalidArgument(
        std::string(field) + " has " + std::to_string(name.size()) +
        " characters, allowed are 1.." + std::to_string(kNameSizeMax));
  }
  if (!std::all_of(name.begin(), name.end(), IsNameCharacter)) {
    return InvalidArgument(
        std::string(field) +
        " has a character outside letters, digits, '.', '_' and '-'");
  }
  return OkStatus();
}

Status CheckRequestId(std::string_view request_id) {
  return CheckPrintable("request_id", request_id, kRequestIdSizeMax);
}

Result<PageRequest> PageFrom(uint32_t page_size,
                             const std::string& page_token) {
  if (page_size > kPageSizeMax) {
    return InvalidArgument("page_size is " + std::to_string(page_size) +
                           ", allowed are at most " +
                           std::to_string(kPageSizeMax));
  }
  SELVAGE_RETURN_IF_ERROR(
      CheckPrintable("page_token", page_token, kPageTokenSizeMax));
  return PageRequest{page_size == 0 ? kPageSizeDefault : page_size, page_token};
}

Result<ArtefactHeader> FromProto(const v1::ArtifactHeader& proto) {
  ArtefactHeader header;
  SELVAGE_ASSIGN_OR_RETURN(header.digest, DigestFrom("digest", proto.digest()));
  if (proto.size() == 0 || proto.size() > kArtefactSizeMax) {
    return InvalidArgument("size is " + std::to_string(proto.size()) +
                           ", allowed are 1.." +
                           std::to_string(kArtefactSizeMax));
  }
  header.size = proto.size();
  return header;
}

Result<FetchRequest> FromProto(const v1::DownloadArtifactRequest& proto) {
  FetchRequest request;
  SELVAGE_ASSIGN_OR_RETURN(request.digest,
                           DigestFrom("digest", proto.digest()));
  request.offset = proto.offset();
  return request;
}

Result<CreateTaskRequest> FromProto(const v1::CreateTaskRequest& proto) {
  CreateTaskRequest request;
  if (proto.task_file().empty()) return InvalidArgument("task_file is missing");
  SELVAGE_RETURN_IF_ERROR(
      CheckSize("task_file", proto.task_file().size(), plan::kTaskFileSizeMax));
  request.task_file = proto.task_file();
  SELVAGE_ASSIGN_OR_RETURN(
      request.program_digest,
      DigestFrom("program_digest", proto.program_digest()));
  if (!proto.initial_digest().empty()) {
    SELVAGE_ASSIGN_OR_RETURN(
        request.initial_digest,
        DigestFrom("initial_digest", proto.initial_digest()));
  }
  SELVAGE_RETURN_IF_ERROR(CheckRequestId(proto.request_id()));
  request.request_id = proto.request_id();
  request.validate_only = proto.validate_only();
  return request;
}

Result<CreateTokenRequest> FromProto(
    const v1::CreateEnrolmentTokenRequest& proto) {
  CreateTokenRequest request;
  SELVAGE_RETURN_IF_ERROR(CheckWireName("population", proto.population()));
  request.population = proto.population();
  if (proto.ttl_seconds() > kTokenTtlSecondsMax) {
    return InvalidArgument(
        "ttl_seconds is " + std::to_string(proto.ttl_seconds()) +
        ", allowed are at most " + std::to_string(kTokenTtlSecondsMax));
  }
  const uint64_t ttl_seconds =
      proto.ttl_seconds() == 0 ? kTokenTtlSecondsDefault : proto.ttl_seconds();
  request.ttl = std::chrono::seconds(static_cast<int64_t>(ttl_seconds));
  if (proto.uses_max() > kTokenUsesMax) {
    return InvalidArgument("uses_max is " + std::to_string(proto.uses_max()) +
                           ", allowed are at most " +
                           std::to_string(kTokenUsesMax));
  }
  request.uses_max = proto.uses_max() == 0 ? 1 : proto.uses_max();
  SELVAGE_RETURN_IF_ERROR(CheckRequestId(proto.request_id()));
  request.request_id = proto.request_id();
  return request;
}

v1::Population ToProto(const PopulationInfo& population) {
  v1::Population proto;
  proto.set_name(population.name);
  proto.set_created_micros(ToMicros(population.created));
  proto.set_device_count(population.device_count);
  return proto;
}

v1::Task ToProto(const TaskInfo& task) {
  v1::Task proto;
  proto.set_name(task.name);
  proto.set_population(task.population);
  proto.set_state(static_cast<v1::Task::State>(task.state));
  proto.set_task_file(task.task_file);
  proto.set_program_digest(DigestBytes(task.program_digest));
  proto.set_plan_digest(DigestBytes(task.plan_digest));
  if (!task.initial_digest.empty()) {
    proto.set_initial_digest(DigestBytes(task.initial_digest));
  }
  proto.set_num_rounds(task.num_rounds);
  proto.set_committed_rounds(task.committed_rounds);
  proto.set_abandoned_rounds(task.abandoned_rounds);
  proto.set_latest_version(task.latest_version);
  proto.set_created_micros(ToMicros(task.created));
  proto.set_ended_micros(ToMicros(task.ended));
  proto.set_key_metric(task.key_metric);
  for (const std::string& metric : task.metrics) proto.add_metrics(metric);
  proto.set_etag(task.etag);
  proto.set_evaluated_rounds(task.evaluated_rounds);
  proto.set_end_reason(task.end_reason);
  if (task.best.has_value()) {
    proto.set_best_version(task.best->version);
    proto.set_best_value(task.best->value);
    proto.set_stale_versions(task.stale);
  }
  return proto;
}

v1::Round ToProto(const RoundInfo& round) {
  v1::Round proto;
  proto.set_task(round.task);
  proto.set_number(round.number);
  proto.set_state(static_cast<v1::Round::State>(round.state));
  proto.set_base_version(round.base_version);
  proto.set_result_version(round.result_version);
  proto.set_opened_micros(ToMicros(round.opened));
  proto.set_ended_micros(ToMicros(round.ended));
  v1::Funnel& funnel = *proto.mutable_funnel();
  funnel.set_checked_in(round.funnel.checked_in);
  funnel.set_assigned(round.funnel.assigned);
  funnel.set_accepted(round.funnel.accepted);
  funnel.set_rejected(round.funnel.rejected);
  funnel.set_late(round.funnel.late);
  funnel.set_abandoned(round.funnel.abandoned);
  funnel.set_expired(round.funnel.expired);
  funnel.set_outstanding(round.funnel.outstanding);
  for (const auto& [reason, count] : round.funnel.reasons) {
    (*funnel.mutable_reasons())[reason] = count;
  }
  AddMetrics(round.metrics, proto.mutable_metrics());
  proto.set_reason(round.reason);
  proto.set_bytes_up(round.bytes_up);
  proto.set_mode(static_cast<v1::Assignment::Mode>(round.mode));
  for (const ClassMetrics& one : round.classes) {
    v1::ClassMetrics& out = *proto.add_classes();
    out.set_device_class(one.device_class);
    AddMetrics(one.metrics, out.mutable_metrics());
  }
  for (const auto& [name, value] : round.figures) {
    (*proto.mutable_figures())[name] = value;
  }
  return proto;
}

Result<EvaluationInfo> FromProto(const v1::Evaluation& proto) {
  EvaluationInfo out;
  SELVAGE_RETURN_IF_ERROR(CheckWireName("task", proto.task()));
  out.task = proto.task();
  out.version = proto.version();
  SELVAGE_RETURN_IF_ERROR(CheckWireName("data_set", proto.data_set()));
  out.data_set = proto.data_set();
  SELVAGE_ASSIGN_OR_RETURN(out.data_digest,
                           DigestFrom("data_digest", proto.data_digest()));
  SELVAGE_ASSIGN_OR_RETURN(out.model_digest,
                           DigestFrom("model_digest", proto.model_digest()));
  out.example_count = proto.example_count();
  SELVAGE_RETURN_IF_ERROR(
      CheckCount("metrics", proto.metrics_size(), kMetricsMax));
  for (const v1::Evaluation::NamedValue& metric : proto.metrics()) {
    SELVAGE_RETURN_IF_ERROR(CheckWireName("metrics.name", metric.name()));
    out.metrics.emplace_back(metric.name(), metric.value());
  }
  return out;
}

v1::Evaluation ToProto(const EvaluationInfo& evaluation) {
  v1::Evaluation proto;
  proto.set_task(evaluation.task);
  proto.set_version(evaluation.version);
  proto.set_data_set(evaluation.data_set);
  proto.set_data_digest(DigestBytes(evaluation.data_digest));
  proto.set_model_digest(DigestBytes(evaluation.model_digest));
  proto.set_example_count(evaluation.example_count);
  for (const auto& [name, value] : evaluation.metrics) {
    v1::Evaluation::NamedValue& metric = *proto.add_metrics();
    metric.set_name(name);
    metric.set_value(value);
  }
  proto.set_created_micros(ToMicros(evaluation.created));
  return proto;
}

v1::ModelVersion ToProto(const ModelVersionInfo& version) {
  v1::ModelVersion proto;
  proto.set_task(version.task);
  proto.set_version(version.version);
  proto.set_round(version.round);
  proto.set_checkpoint_digest(DigestBytes(version.checkpoint_digest));
  proto.set_checkpoint_codec(ToProto(version.checkpoint_codec));
  proto.set_safetensors_digest(DigestBytes(version.safetensors_digest));
  proto.set_program_digest(DigestBytes(version.program_digest));
  proto.set_created_micros(ToMicros(version.created));
  AddMetrics(version.metrics, proto.mutable_metrics());
  for (const EvaluationInfo& evaluation : version.evaluations) {
    *proto.add_evaluations() = ToProto(evaluation);
  }
  return proto;
}

v1::EnrolmentToken ToProto(const TokenInfo& token) {
  v1::EnrolmentToken proto;
  proto.set_id(token.id);
  proto.set_population(token.population);
  proto.set_expires_micros(ToMicros(token.expires));
  proto.set_uses_max(token.uses_max);
  proto.set_uses(token.uses);
  proto.set_revoked(token.revoked);
  return proto;
}

v1::CreateEnrolmentTokenResponse ToProto(const NewToken& token) {
  v1::CreateEnrolmentTokenResponse proto;
  *proto.mutable_token() = ToProto(token.info);
  proto.set_bundle(token.bundle);
  return proto;
}

v1::TaskSnapshot ToProto(const TaskSnapshot& snapshot) {
  v1::TaskSnapshot proto;
  *proto.mutable_task() = ToProto(snapshot.task);
  if (snapshot.round.has_value()) {
    *proto.mutable_round() = ToProto(*snapshot.round);
  }
  proto.mutable_key_metric_history()->Assign(
      snapshot.key_metric_history.begin(), snapshot.key_metric_history.end());
  proto.mutable_loss_history()->Assign(snapshot.loss_history.begin(),
                                       snapshot.loss_history.end());
  return proto;
}

}  // namespace selvage::coordinator

#include "client/rpc/convert.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "base/version.h"
#include "plan/plan.h"

namespace selvage::client {
namespace {

constexpr uint64_t kRetryMsMax = uint64_t{90} * 24 * 3600 * 1000;
constexpr uint64_t kDeadlineMsMax = uint64_t{30} * 24 * 3600 * 1000;
constexpr size_t kNameSizeMax = 64;
constexpr size_t kAssignmentIdSizeMax = 128;
constexpr size_t kTokenSizeMax = 64;
constexpr size_t kNonceSizeMax = 64;
constexpr int kPlanKeysMax = 16;
constexpr int kOutcomesMax = 64;
constexpr size_t kMessageSizeMax = 1024;

Bytes ToBytesOf(const std::string& text) {
  return Bytes(text.begin(), text.end());
}

std::string ToStringOf(ByteSpan bytes) { return ToString(bytes); }

Status CheckSize(std::string_view field, const std::string& value,
                 size_t size_max) {
  if (!value.empty() && value.size() <= size_max) return OkStatus();
  return InvalidArgument(std::string(field) + " has " +
                         std::to_string(value.size()) + " bytes, not 1.." +
                         std::to_string(size_max));
}

Result<crypto::Digest> ToDigest(std::string_view field,
                                const std::string& bytes) {
  Result<crypto::Digest> digest = crypto::Digest::FromBytes(AsBytes(bytes));
  if (!digest.ok()) return digest.status().WithContext(field);
  return digest;
}

// Of a checkpoint; the other codecs are for updates.
Result<plan::CodecName> ToCodec(v1::Codec codec) {
  switch (codec) {
    case v1::FLOAT32:
      return plan::CodecName::kFloat32;
    case v1::FLOAT16:
      return plan::CodecName::kFloat16;
    default:
      return InvalidArgument("codec " + std::to_string(codec) +
                             " is not understood");
  }
}

Result<Duration> ToDeadline(std::string_view field, uint64_t ms) {
  if (ms == 0 || ms > kDeadlineMsMax) {
    return InvalidArgument(std::string(field) + " is " + std::to_string(ms) +
                           " ms, not 1.." + std::to_string(kDeadlineMsMax));
  }
  return Duration(std::chrono::milliseconds(ms));
}

Result<Assignment> ToAssignment(const v1::Assignment& proto) {
  SELVAGE_RETURN_IF_ERROR(
      CheckSize("assignment.id", proto.id(), kAssignmentIdSizeMax));
  SELVAGE_RETURN_IF_ERROR(
      CheckSize("assignment.task", proto.task(), kNameSizeMax));
  SELVAGE_RETURN_IF_ERROR(
      CheckSize("assignment.token", proto.token(), kTokenSizeMax));
  if (proto.mode() != v1::Assignment::TRAIN &&
      proto.mode() != v1::Assignment::EVALUATE) {
    return InvalidArgument("assignment.mode " + std::to_string(proto.mode()) +
                           " is not understood");
  }
  Assignment out;
  out.id = proto.id();
  out.task = proto.task();
  out.round = proto.round();
  out.evaluate = proto.mode() == v1::Assignment::EVALUATE;
  SELVAGE_ASSIGN_OR_RETURN(
      out.plan_digest, ToDigest("assignment.plan_digest", proto.plan_digest()));
  out.plan_signature = ToBytesOf(proto.plan_signature());
  SELVAGE_ASSIGN_OR_RETURN(
      out.checkpoint_digest,
      ToDigest("assignment.checkpoint_digest", proto.checkpoint_digest()));
  SELVAGE_ASSIGN_OR_RETURN(out.checkpoint_codec,
                           ToCodec(proto.checkpoint_codec()));
  out.base_version = proto.base_version();
  out.token = ToBytesOf(proto.token());
  SELVAGE_ASSIGN_OR_RETURN(
      out.compute_deadline,
      ToDeadline("assignment.compute_deadline_ms",
                 std::max<uint64_t>(1, proto.compute_deadline_ms())));
  SELVAGE_ASSIGN_OR_RETURN(
      out.upload_deadline,
      ToDeadline("assignment.upload_deadline_ms",
                 std::max<uint64_t>(1, proto.upload_deadline_ms())));
  out.seed = proto.seed();
  if (!proto.control_digest().empty()) {
    SELVAGE_ASSIGN_OR_RETURN(
        out.control_digest,
        ToDigest("assignment.control_digest", proto.control_digest()));
  }
  return out;
}

Result<ModelOffer> ToModelOffer(const v1::ModelOffer& proto) {
  SELVAGE_RETURN_IF_ERROR(CheckSize("model.task", proto.task(), kNameSizeMax));
  ModelOffer out;
  out.task = proto.task();
  out.version = proto.version();
  SELVAGE_ASSIGN_OR_RETURN(out.plan_digest,
                           ToDigest("model.plan_digest", proto.plan_digest()));
  out.plan_signature = ToBytesOf(proto.plan_signature());
  SELVAGE_ASSIGN_OR_RETURN(
      out.checkpoint_digest,
      ToDigest("model.checkpoint_digest", proto.checkpoint_digest()));
  SELVAGE_ASSIGN_OR_RETURN(out.checkpoint_codec,
                           ToCodec(proto.checkpoint_codec()));
  return out;
}

OutcomeState ToOutcome(v1::AssignmentOutcome::State state) {
  switch (state) {
    case v1::AssignmentOutcome::PENDING:
      return OutcomeState::kPending;
    case v1::AssignmentOutcome::COMMITTED:
      return OutcomeState::kCommitted;
    case v1::AssignmentOutcome::ABANDONED:
      return OutcomeState::kAbandoned;
    default:
      return OutcomeState::kUnknown;
  }
}

}  // namespace

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

Result<RetryWindow> FromProto(const v1::RetryWindow& proto) {
  if (proto.max_ms() < proto.min_ms() || proto.max_ms() > kRetryMsMax) {
    return InvalidArgument("retry window " + std::to_string(proto.min_ms()) +
                           ".." + std::to_string(proto.max_ms()) +
                           " ms is empty or over " +
                           std::to_string(kRetryMsMax));
  }
  return RetryWindow{.min = std::chrono::milliseconds(proto.min_ms()),
                     .max = std::chrono::milliseconds(proto.max_ms())};
}

v1::EnrollRequest ToProto(const EnrollRequest& request) {
  v1::EnrollRequest proto;
  proto.set_token_id(request.token_id);
  proto.set_token_secret(ToStringOf(request.token_secret));
  proto.set_csr_pem(request.csr_pem);
  proto.set_device_name(request.device_name);
  proto.set_identity_public_key(ToStringOf(request.identity_public_key));
  proto.set_identity_signature(ToStringOf(request.identity_signature));
  proto.set_identity_nonce(ToStringOf(request.identity_nonce));
  proto.set_population(request.population);
  return proto;
}

Result<EnrollAnswer> FromProto(const v1::EnrollResponse& proto) {
  if (!proto.nonce().empty()) {
    SELVAGE_RETURN_IF_ERROR(CheckSize("nonce", proto.nonce(), kNonceSizeMax));
    EnrollAnswer question;
    question.nonce = ToBytesOf(proto.nonce());
    return question;
  }
  SELVAGE_RETURN_IF_ERROR(
      CheckSize("device_id", proto.device_id(), kNameSizeMax));
  SELVAGE_RETURN_IF_ERROR(
      CheckSize("population", proto.population(), kNameSizeMax));
  if (proto.plan_public_keys_size() == 0 ||
      proto.plan_public_keys_size() > kPlanKeysMax) {
    return InvalidArgument("plan_public_keys has " +
                           std::to_string(proto.plan_public_keys_size()) +
                           " keys, not 1.." + std::to_string(kPlanKeysMax));
  }
  EnrollAnswer out;
  out.certificate_pem = proto.certificate_pem();
  out.device_id = proto.device_id();
  out.population = proto.population();
  for (const std::string& bytes : proto.plan_public_keys()) {
    crypto::Ed25519PublicKey key{};
    if (bytes.size() != key.size()) {
      return InvalidArgument("a plan public key has " +
                             std::to_string(bytes.size()) + " bytes, not " +
                             std::to_string(key.size()));
    }
    std::copy(bytes.begin(), bytes.end(), key.begin());
    out.plan_public_keys.push_back(key);
  }
  return out;
}

v1::CheckInRequest ToProto(const CheckInRequest& request) {
  v1::CheckInRequest proto;
  proto.set_population(request.population);
  v1::DeviceAttributes& attributes = *proto.mutable_attributes();
  attributes.set_device_class(request.device_class);
  attributes.set_app_version(request.app_version);
  attributes.set_library_version(std::string(Version()));
  v1::Capabilities& capabilities = *proto.mutable_capabilities();
  for (const std::string& engine : request.engines) {
    capabilities.add_engines(engine);
  }
  for (const plan::CodecName codec : plan::kCodecNames) {
    capabilities.add_codecs(std::string(plan::CodecNameText(codec)));
  }
  capabilities.set_plan_format(plan::kPlanFormat);
  capabilities.set_evaluate(true);
  for (const plan::ContributionName name : plan::kContributionNames) {
    if (name == plan::ContributionName::kPlain) continue;
    capabilities.add_contributions(
        std::string(plan::ContributionNameText(name)));
  }
  for (const std::string& id : request.unsettled_assignments) {
    proto.add_unsettled_assignments(id);
  }
  for (const InstalledModel& model : request.installed) {
    v1::InstalledModel& entry = *proto.add_installed();
    entry.set_task(model.task);
    entry.set_version(model.version);
  }
  return proto;
}

Result<CheckInAnswer> FromProto(const v1::CheckInResponse& proto) {
  CheckInAnswer out;
  switch (proto.work_case()) {
    case v1::CheckInResponse::kAssignment: {
      SELVAGE_ASSIGN_OR_RETURN(out.work, ToAssignment(proto.assignment()));
      break;
    }
    case v1::CheckInResponse::kModel: {
      SELVAGE_ASSIGN_OR_RETURN(out.work, ToModelOffer(proto.model()));
      break;
    }
    case v1::CheckInResponse::WORK_NOT_SET:
      break;
  }
  SELVAGE_ASSIGN_OR_RETURN(out.retry_if_accepted,
                           FromProto(proto.retry_if_accepted()));
  SELVAGE_ASSIGN_OR_RETURN(out.retry, FromProto(proto.retry()));
  if (proto.outcomes_size() > kOutcomesMax) {
    return InvalidArgument(
        "outcomes has " + std::to_string(proto.outcomes_size()) +
        " entries, the bound is " + std::to_string(kOutcomesMax));
  }
  for (const v1::AssignmentOutcome& outcome : proto.outcomes()) {
    out.outcomes.push_back(
        {outcome.assignment_id(), ToOutcome(outcome.state())});
  }
  return out;
}

v1::UploadHeader ToProto(const UploadHeader& header) {
  v1::UploadHeader proto;
  proto.set_assignment_id(header.assignment_id);
  proto.set_token(ToStringOf(header.token));
  proto.set_digest(ToStringOf(header.digest.span()));
  proto.set_size(header.size_bytes);
  proto.set_codec(ToProto(header.codec));
  proto.set_weight(header.weight);
  for (const int64_t scalar : header.scalars) proto.add_scalars(scalar);
  for (const aggregation::MetricValue& metric : header.metrics) {
    v1::MetricValue& entry = *proto.add_metrics();
    entry.set_numerator(metric.numerator);
    entry.set_count(metric.count);
  }
  return proto;
}

Result<Receipt> FromProto(const v1::Receipt& proto) {
  Receipt out;
  switch (proto.status()) {
    case v1::Receipt::ACCEPTED:
      out.status = ReceiptStatus::kAccepted;
      break;
    case v1::Receipt::LATE:
      out.status = ReceiptStatus::kLate;
      break;
    case v1::Receipt::REJECTED:
      out.status = ReceiptStatus::kRejected;
      out.reason = v1::Receipt::Reason_Name(proto.reason());
      if (out.reason.empty()) out.reason = std::to_string(proto.reason());
      break;
    default:
      return InvalidArgument("receipt.status " +
                             std::to_string(proto.status()) +
                             " is not understood");
  }
  out.message = proto.message().substr(0, kMessageSizeMax);
  SELVAGE_ASSIGN_OR_RETURN(out.retry, FromProto(proto.retry()));
  return out;
}

}  // namespace selvage::client

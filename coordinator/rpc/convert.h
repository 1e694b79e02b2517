// selvage.v1 messages <-> the structs of coordinator/api.h.
//
// FromProto is strict: every count, size, alphabet and enum of the .proto
// comments is enforced here, with INVALID_ARGUMENT that names field, value and
// bound, so nothing behind this line sees an unbounded string. What only the
// service can judge (a weight against its plan, a token against its key) passes
// through. ToProto cannot fail.
#pragma once

#include <selvage/v1/admin.pb.h>
#include <selvage/v1/device.pb.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "base/status.h"
#include "coordinator/api.h"

namespace selvage::coordinator {

inline constexpr size_t kChunkSizeMax = size_t{1} << 20;
// Of a whole message on the device port: a chunk and its frame.
inline constexpr size_t kMessageSizeMax = size_t{2} << 20;
inline constexpr size_t kTokenIdSizeMax = 64;
inline constexpr size_t kTokenSecretSize = 32;
inline constexpr size_t kRequestPemSizeMax = 8 << 10;
inline constexpr size_t kNameSizeMax = 64;
inline constexpr size_t kAttributeSizeMax = 64;
inline constexpr size_t kEnginesMax = 16;
inline constexpr size_t kCodecsMax = 16;
inline constexpr size_t kUnsettledMax = 16;
inline constexpr size_t kInstalledMax = 16;
inline constexpr size_t kAssignmentIdSizeMax = 128;
inline constexpr size_t kAssignmentTokenSizeMax = 64;
inline constexpr size_t kScalarsMax = 16;
inline constexpr size_t kMetricsMax = 32;
inline constexpr uint64_t kUpdateSizeMax = uint64_t{4} << 30;
inline constexpr size_t kReportSizeMax = 64 << 10;
inline constexpr size_t kReportIdSizeMax = 64;
inline constexpr size_t kCountersMax = 64;
inline constexpr size_t kAbandonMessageSizeMax = 512;
inline constexpr uint64_t kArtefactSizeMax = uint64_t{4} << 30;
inline constexpr size_t kRequestIdSizeMax = 64;
inline constexpr size_t kEtagSizeMax = 128;
inline constexpr uint32_t kPageSizeMax = 1000;
inline constexpr uint32_t kPageSizeDefault = 100;
inline constexpr size_t kPageTokenSizeMax = 256;
inline constexpr uint64_t kTokenTtlSecondsMax = uint64_t{30} * 24 * 3600;
inline constexpr uint64_t kTokenTtlSecondsDefault = uint64_t{24} * 3600;
inline constexpr uint32_t kTokenUsesMax = 100'000;

// ---------------------------------------------------------------- devices
Result<EnrollRequest> FromProto(const v1::EnrollRequest& proto);
v1::EnrollResponse ToProto(const EnrollAnswer& answer);

Result<CheckInRequest> FromProto(const v1::CheckInRequest& proto);
v1::CheckInResponse ToProto(const CheckInAnswer& answer);

struct FetchRequest {
  crypto::Digest digest;
  uint64_t offset = 0;
  std::optional<crypto::Digest> base;                 // a delta against it
  plan::CodecName codec = plan::CodecName::kFloat16;  // with a base
};
Result<FetchRequest> FromProto(const v1::FetchRequest& proto);

Result<UploadHeader> FromProto(const v1::UploadHeader& proto);
v1::Receipt ToProto(const Receipt& receipt);
v1::RetryWindow ToProto(const RetryWindow& window);

struct AbandonRequest {
  std::string assignment_id;
  Bytes token;
  AbandonReason reason = AbandonReason::kUnspecified;
  std::string message;
};
Result<AbandonRequest> FromProto(const v1::AbandonRequest& proto);

struct ReportRequest {
  std::string report_id;
  std::map<std::string, uint64_t> counters;
};
Result<ReportRequest> FromProto(const v1::ReportRequest& proto);

// ------------------------------------------------------------------- people
// One name of a population, task or enrolment token: not empty, at most
// kNameSizeMax bytes, letters, digits, '.', '_' and '-'. `field` is for the
// error.
Status CheckWireName(std::string_view field, std::string_view name);
Status CheckRequestId(std::string_view request_id);
Result<PageRequest> PageFrom(uint32_t page_size, const std::string& page_token);

struct ArtefactHeader {
  crypto::Digest digest;
  uint64_t size = 0;
};
Result<ArtefactHeader> FromProto(const v1::ArtifactHeader& proto);
Result<FetchRequest> FromProto(const v1::DownloadArtifactRequest& proto);
Result<CreateTaskRequest> FromProto(const v1::CreateTaskRequest& proto);

struct CreateTokenRequest {
  std::string population;
  Duration ttl{};
  uint32_t uses_max = 0;
  std::string request_id;
};
Result<CreateTokenRequest> FromProto(
    const v1::CreateEnrolmentTokenRequest& proto);

v1::Population ToProto(const PopulationInfo& population);
v1::Task ToProto(const TaskInfo& task);
v1::Round ToProto(const RoundInfo& round);
Result<EvaluationInfo> FromProto(const v1::Evaluation& proto);
v1::Evaluation ToProto(const EvaluationInfo& evaluation);
v1::ModelVersion ToProto(const ModelVersionInfo& version);
v1::EnrolmentToken ToProto(const TokenInfo& token);
v1::CreateEnrolmentTokenResponse ToProto(const NewToken& token);
v1::TaskSnapshot ToProto(const TaskSnapshot& snapshot);

}  // namespace selvage::coordinator

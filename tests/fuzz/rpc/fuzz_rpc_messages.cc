// Whatever a stranger sends: bytes to message to struct. The first byte picks
// the message. What FromProto lets through must respect the limits that the
// code behind it relies on.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "coordinator/rpc/convert.h"
#include "crypto/identity_key.h"

namespace selvage::coordinator {
namespace {

void Check(const EnrollRequest& request) {
  SELVAGE_CHECK(request.token_id.size() <= kTokenIdSizeMax);
  SELVAGE_CHECK(request.token_secret.size() ==
                (request.token_id.empty() ? 0 : kTokenSecretSize));
  SELVAGE_CHECK(request.csr_pem.size() <= kRequestPemSizeMax);
  SELVAGE_CHECK(request.device_name.size() <= kNameSizeMax);
  SELVAGE_CHECK(request.population.size() <= kNameSizeMax);
  const bool with_key = !request.identity_public_key.empty();
  const bool with_signature = !request.identity_signature.empty();
  SELVAGE_CHECK(request.identity_public_key.size() ==
                (with_key ? crypto::kP256PublicKeySize : 0));
  SELVAGE_CHECK(request.identity_signature.size() ==
                (with_signature ? crypto::kP256SignatureSize : 0));
  SELVAGE_CHECK(request.identity_nonce.size() ==
                (with_signature ? kIdentityNonceSize : 0));
  SELVAGE_CHECK(with_key || !with_signature);
  SELVAGE_CHECK(with_key != request.population.empty());
}
void Check(const CheckInRequest& request) {
  SELVAGE_CHECK(!request.population.empty());
  SELVAGE_CHECK(request.engines.size() <= kEnginesMax);
  SELVAGE_CHECK(request.codecs.size() <= kCodecsMax);
  SELVAGE_CHECK(request.unsettled_assignments.size() <= kUnsettledMax);
  SELVAGE_CHECK(request.installed.size() <= kInstalledMax);
  SELVAGE_CHECK(request.device_class.find('\n') == std::string::npos);
}
void Check(const FetchRequest&) {}
void Check(const UploadHeader& header) {
  SELVAGE_CHECK(!header.assignment_id.empty());
  SELVAGE_CHECK(header.token.size() <= kAssignmentTokenSizeMax);
  SELVAGE_CHECK(header.size_bytes <= kUpdateSizeMax);  // 0: an evaluation
  SELVAGE_CHECK(header.scalars.size() <= kScalarsMax);
  SELVAGE_CHECK(header.metrics.size() <= kMetricsMax);
}
void Check(const AbandonRequest& request) {
  SELVAGE_CHECK(request.reason != AbandonReason::kUnspecified);
  SELVAGE_CHECK(request.message.size() <= kAbandonMessageSizeMax);
}
void Check(const ReportRequest& request) {
  SELVAGE_CHECK(request.counters.size() <= kCountersMax);
}
void Check(const CreateTaskRequest& request) {
  SELVAGE_CHECK(!request.task_file.empty());
  SELVAGE_CHECK(request.task_file.size() <= plan::kTaskFileSizeMax);
}
void Check(const ArtefactHeader& header) {
  SELVAGE_CHECK(header.size > 0 && header.size <= kArtefactSizeMax);
}
void Check(const CreateTokenRequest& request) {
  SELVAGE_CHECK(request.uses_max > 0 && request.uses_max <= kTokenUsesMax);
  SELVAGE_CHECK(request.ttl > Duration::zero());
}

template <typename Message>
void Try(const uint8_t* data, size_t size) {
  Message message;
  if (!message.ParseFromArray(data, static_cast<int>(size))) return;
  const auto converted = FromProto(message);
  if (converted.ok()) Check(*converted);
}

}  // namespace
}  // namespace selvage::coordinator

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace sc = selvage::coordinator;
  namespace v1 = selvage::v1;
  if (size == 0 || size > sc::kMessageSizeMax) return 0;
  const uint8_t which = data[0];
  ++data;
  --size;
  switch (which) {
    case '0':
      sc::Try<v1::EnrollRequest>(data, size);
      break;
    case '1':
      sc::Try<v1::CheckInRequest>(data, size);
      break;
    case '2':
      sc::Try<v1::FetchRequest>(data, size);
      break;
    case '3':
      sc::Try<v1::UploadHeader>(data, size);
      break;
    case '4':
      sc::Try<v1::AbandonRequest>(data, size);
      break;
    case '5':
      sc::Try<v1::ReportRequest>(data, size);
      break;
    case '6':
      sc::Try<v1::CreateTaskRequest>(data, size);
      break;
    case '7':
      sc::Try<v1::ArtifactHeader>(data, size);
      break;
    case '8':
      sc::Try<v1::CreateEnrolmentTokenRequest>(data, size);
      break;
    default:
      break;
  }
  return 0;
}

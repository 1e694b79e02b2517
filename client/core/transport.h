// Transport: the seam between a session and the network. gRPC implements it in
// client/rpc; tests and simulations use an in-process one. No examples and no
// personal tensors can pass: there is no field for them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "aggregation/metrics.h"
#include "base/bytes.h"
#include "base/status.h"
#include "base/time.h"
#include "client/core/update_bytes.h"
#include "crypto/digest.h"
#include "crypto/signature.h"
#include "plan/task.h"

namespace selvage::client {

struct RetryWindow {
  Duration min{};
  Duration max{};
  friend bool operator==(const RetryWindow&, const RetryWindow&) = default;
};

struct InstalledModel {
  std::string task;
  uint64_t version = 0;
};

struct CheckInRequest {
  std::string population;
  std::string device_class;
  std::string app_version;
  std::vector<std::string> engines;
  std::vector<std::string> unsettled_assignments;
  std::vector<InstalledModel> installed;
};

struct Assignment {
  std::string id;
  std::string task;
  uint64_t round = 0;
  bool evaluate = false;  // score the checkpoint, send metrics alone
  crypto::Digest plan_digest;
  Bytes plan_signature;
  crypto::Digest checkpoint_digest;
  crypto::Digest control_digest = {};  // scaffold's c; empty: all zeros
  plan::CodecName checkpoint_codec = plan::CodecName::kFloat16;
  uint64_t base_version = 0;
  Bytes token;
  Duration compute_deadline{};  // from when the answer arrived
  Duration upload_deadline{};
  uint64_t seed = 0;
};

struct ModelOffer {
  std::string task;
  uint64_t version = 0;
  crypto::Digest plan_digest;
  Bytes plan_signature;
  crypto::Digest checkpoint_digest;
  plan::CodecName checkpoint_codec = plan::CodecName::kFloat16;
};

enum class OutcomeState { kPending, kCommitted, kAbandoned, kUnknown };
struct AssignmentOutcome {
  std::string assignment_id;
  OutcomeState state = OutcomeState::kUnknown;
};

struct CheckInAnswer {
  std::variant<std::monostate, Assignment, ModelOffer> work;
  RetryWindow retry_if_accepted;
  RetryWindow retry;
  std::vector<AssignmentOutcome> outcomes;
};

// Of an evaluation: size_bytes 0, weight 1, digest aggregation::DigestOf(
// metrics).
struct UploadHeader {
  std::string assignment_id;
  Bytes token;
  crypto::Digest digest;
  uint64_t size_bytes = 0;
  plan::CodecName codec = plan::CodecName::kFloat16;
  uint32_t weight = 0;
  std::vector<int64_t> scalars = {};  // what the plan's contribution declares
  std::vector<aggregation::MetricValue> metrics;
};

enum class ReceiptStatus { kAccepted, kLate, kRejected };
struct Receipt {
  ReceiptStatus status = ReceiptStatus::kRejected;
  std::string reason;  // "OUT_OF_RANGE", ... ; empty unless rejected
  std::string message;
  RetryWindow retry;
};

enum class AbandonReason {
  kInterrupted = 1,
  kPlanRefused = 2,
  kProgramRefused = 3,
  kTooFewExamples = 4,
  kTrainingFailed = 5,
  kUpdateOutOfRange = 6,
  kPlanBelowFloor = 7,
  kOverBudget = 8,
};

struct EnrollRequest {
  std::string token_id;
  Bytes token_secret;
  std::string csr_pem;
  std::string device_name;
  // With an identity key; empty otherwise, and without a signature the answer
  // is a nonce.
  Bytes identity_public_key = {};
  Bytes identity_signature = {};
  Bytes identity_nonce = {};
  std::string population = {};
};
struct EnrollAnswer {
  std::string certificate_pem;
  std::string device_id;
  std::string population;
  std::vector<crypto::Ed25519PublicKey> plan_public_keys;
  Bytes nonce = {};  // to be signed; then there is nothing else
};

// Blocking calls with deadlines of their own (docs/protocol.md);
// thread-compatible. Errors carry the coordinator's code and words; UNAVAILABLE
// and DEADLINE_EXCEEDED are worth a retry, the others are not. `keep_going` is
// asked between chunks; false ends the call with CANCELLED.
class Transport {
 public:
  virtual ~Transport() = default;

  using KeepGoing = std::function<bool()>;

  virtual Result<EnrollAnswer> Enroll(const EnrollRequest& request) = 0;
  virtual Result<CheckInAnswer> CheckIn(const CheckInRequest& request) = 0;
  // When the last call that is no transfer failed: the window in which the
  // coordinator wants to be asked again; zero if it did not say.
  virtual RetryWindow asked_to_wait() const { return {}; }
  // Calls `sink` with consecutive bytes from `offset` on. `total` is the
  // artefact's size, known from the first call on.
  using Sink = std::function<Status(ByteSpan bytes, uint64_t total)>;
  virtual Status Fetch(const crypto::Digest& digest, uint64_t offset,
                       const Sink& sink, const KeepGoing& keep_going) = 0;
  // As Fetch(), from the start: a delta that makes `digest` of `base`, which
  // has the same size (aggregation/codec/delta_codec.h). NOT_FOUND if there is
  // none; what does not rebuild is worth a Fetch() of the whole.
  virtual Status FetchDelta(const crypto::Digest& digest,
                            const crypto::Digest& base, plan::CodecName codec,
                            const Sink& sink, const KeepGoing& keep_going) = 0;
  // Resumes where the coordinator says; returns its receipt.
  virtual Result<Receipt> Upload(const UploadHeader& header,
                                 const UpdateBytes& update,
                                 const KeepGoing& keep_going) = 0;
  virtual Result<RetryWindow> Abandon(const std::string& assignment_id,
                                      ByteSpan token, AbandonReason reason,
                                      const std::string& message) = 0;
  virtual Result<RetryWindow> Report(
      const std::string& report_id,
      const std::vector<std::pair<std::string, uint64_t>>& counters) = 0;
};

// What a transport needs to know; parsed from the enrolment bundle and the
// store.
struct Endpoint {
  std::string address;          // host:port
  std::string ca_certificate;   // PEM: the only CA that is trusted
  std::string certificate_pem;  // empty: not enrolled yet
  std::string private_key_pem;
  bool insecure = false;  // plaintext; loopback only, explicit
  // "selvage://POPULATION/device/ID" once enrolled. With `insecure` it stands
  // in for the certificate; over TLS it is not sent.
  std::string device_uri;
};
using TransportFactory =
    std::function<Result<std::unique_ptr<Transport>>(const Endpoint&)>;

}  // namespace selvage::client

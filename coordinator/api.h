// What the coordinator offers, in plain structs: the seam between the network
// (coordinator/rpc) and the service (coordinator/coordinator.h). The RPC layer
// translates, authenticates and enforces message sizes; everything else is
// decided behind this interface.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "aggregation/metrics.h"
#include "base/bytes.h"
#include "base/status.h"
#include "base/time.h"
#include "crypto/digest.h"
#include "crypto/signature.h"
#include "plan/task.h"

namespace selvage::coordinator {

// ---------------------------------------------------------------- devices

// From the verified client certificate.
struct DeviceIdentity {
  std::string population;
  std::string device_id;
  friend auto operator<=>(const DeviceIdentity&,
                          const DeviceIdentity&) = default;
};

struct RetryWindow {
  Duration min{};
  Duration max{};
};

inline constexpr size_t kIdentityNonceSize = 40;  // of the coordinator's

struct EnrollRequest {
  std::string token_id;
  Bytes token_secret;
  std::string csr_pem;
  std::string device_name;
  // Of a device with a key of its keystore's; empty otherwise.
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

struct InstalledModel {
  std::string task;
  uint64_t version = 0;
};
struct CheckInRequest {
  std::string population;
  std::string device_class;
  std::vector<std::string> engines;
  std::vector<plan::CodecName> codecs;
  uint32_t plan_format = 0;
  bool evaluates = false;  // understands RoundMode::kEvaluate
  std::vector<plan::ContributionName> contributions = {};  // besides plain
  std::vector<std::string> unsettled_assignments;
  std::vector<InstalledModel> installed;
};

// What the devices of a round do. Numbers as in selvage.v1.Assignment.Mode.
enum class RoundMode {
  kTrain = 1,
  kEvaluate = 2,  // score the checkpoint, send metrics and nothing else
};
std::string_view RoundModeName(RoundMode mode);  // "TRAIN", "EVALUATE"

struct Assignment {
  std::string id;
  std::string task;
  uint64_t round = 0;
  RoundMode mode = RoundMode::kTrain;
  crypto::Digest plan_digest;
  crypto::Ed25519Signature plan_signature{};
  crypto::Digest checkpoint_digest;
  crypto::Digest control_digest = {};  // scaffold's c; empty: all zeros
  plan::CodecName checkpoint_codec = plan::CodecName::kFloat16;
  uint64_t base_version = 0;
  crypto::Digest token;
  Duration compute_deadline{};  // from now
  Duration upload_deadline{};   // from now
  uint64_t seed = 0;
};
struct ModelOffer {
  std::string task;
  uint64_t version = 0;
  crypto::Digest plan_digest;
  crypto::Ed25519Signature plan_signature{};
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
// metrics), and no bytes follow.
struct UploadHeader {
  std::string assignment_id;
  Bytes token;
  crypto::Digest digest;
  uint64_t size_bytes = 0;
  plan::CodecName codec = plan::CodecName::kFloat16;
  uint32_t weight = 0;
  std::vector<int64_t> scalars;
  std::vector<aggregation::MetricValue> metrics;
};
enum class ReceiptStatus { kAccepted, kLate, kRejected };
// Numbers as in selvage.v1.Receipt.Reason.
enum class RejectReason {
  kNone = 0,
  kConflict = 1,
  kBadToken = 2,
  kBadDigest = 3,
  kBadSize = 4,
  kBadEncoding = 5,
  kOutOfRange = 6,
  kNotFinite = 7,
  kBadWeight = 8,
  kBadMetrics = 9,
  kBadScalars = 10,
  kUnknownAssignment = 11,
  kWithdrawn = 12,
};
std::string_view RejectReasonName(RejectReason reason);  // "CONFLICT", ...
struct Receipt {
  ReceiptStatus status = ReceiptStatus::kRejected;
  RejectReason reason = RejectReason::kNone;
  std::string message;
  RetryWindow retry;
  // The answer to this update once more. Not on the wire.
  bool repeated = false;
};
// One upload being streamed in. Bytes already staged by an earlier stream for
// the same assignment and digest are kept for 60 s: send from `offset`.
struct UploadTicket {
  uint64_t upload_id = 0;
  uint64_t offset = 0;
};
using BegunUpload = std::variant<Receipt, UploadTicket>;
using BeginUploadCallback = std::function<void(Result<BegunUpload>)>;

enum class AbandonReason {
  kUnspecified = 0,
  kInterrupted = 1,
  kPlanRefused = 2,
  kProgramRefused = 3,
  kTooFewExamples = 4,
  kTrainingFailed = 5,
  kUpdateOutOfRange = 6,
  kPlanBelowFloor = 7,
  kOverBudget = 8,
};
std::string_view AbandonReasonName(AbandonReason reason);

// An artefact being read. Thread-compatible.
class ArtefactReader {
 public:
  virtual ~ArtefactReader() = default;
  virtual uint64_t size() const = 0;
  // Fills `out` from `offset`; fewer bytes only at the end.
  virtual Result<size_t> ReadAt(uint64_t offset, std::span<uint8_t> out) = 0;
};

// Thread-safe. Nothing here blocks for longer than a local read or write,
// except where a callback says so. Callbacks come exactly once, on the caller's
// thread or on one of the coordinator's; they must not block.
class DeviceApi {
 public:
  virtual ~DeviceApi() = default;

  // `current`: the identity of the presented certificate, if any (renewal).
  // UNAUTHENTICATED: unknown, expired, revoked or used-up token, wrong secret
  // (one message for all); INVALID_ARGUMENT: the CSR or the name;
  // ALREADY_EXISTS: the name belongs to another key.
  // With an identity key also: UNAUTHENTICATED: its signature does not fit;
  // PERMISSION_DENIED: without a token, the key is not that of an enrolled
  // device of this name; RESOURCE_EXHAUSTED: it had a certificate within the
  // last minute; ABORTED: another request of the key was faster.
  virtual Result<EnrollAnswer> Enroll(
      const std::optional<DeviceIdentity>& current,
      const EnrollRequest& request) = 0;

  // PERMISSION_DENIED if the identity is not an enrolled device of the
  // population. The rejecting path touches no database.
  virtual void CheckIn(const DeviceIdentity& device, CheckInRequest request,
                       std::function<void(Result<CheckInAnswer>)> done) = 0;

  // NOT_FOUND unless the device's population references `digest`.
  virtual Result<std::unique_ptr<ArtefactReader>> OpenArtefact(
      const DeviceIdentity& device, const crypto::Digest& digest) = 0;
  // The delta (aggregation/codec/delta_codec.h) that makes `digest` of `base`,
  // which the device has. NOT_FOUND unless its population references both and
  // there is one that is smaller; then there is always the whole. The first
  // call waits until the delta is made.
  virtual Result<std::unique_ptr<ArtefactReader>> OpenDelta(
      const DeviceIdentity& device, const crypto::Digest& digest,
      const crypto::Digest& base, plan::CodecName codec) = 0;

  // A Receipt if the answer is known before a byte was sent (a repeat, a late
  // or invalid header). `done` comes at once, or from another thread when there
  // is room for the upload. RESOURCE_EXHAUSTED: too many bytes in flight for
  // too long, come back.
  virtual void BeginUpload(const DeviceIdentity& device,
                           const UploadHeader& header,
                           BeginUploadCallback done) = 0;
  // OUT_OF_RANGE beyond the announced size; ABORTED if a newer stream for the
  // same assignment took over; NOT_FOUND if the staging expired.
  // The bytes of all `pieces`, in order.
  virtual Status AppendUpload(uint64_t upload_id,
                              std::span<const ByteSpan> pieces) = 0;
  Status AppendUpload(uint64_t upload_id, ByteSpan bytes) {
    return AppendUpload(upload_id, std::span(&bytes, 1));
  }
  // All bytes are in: verify, fold, commit; `done` comes when the answer is
  // durable. UNAVAILABLE: not durable, try again.
  virtual void FinishUpload(uint64_t upload_id,
                            std::function<void(Result<Receipt>)> done) = 0;
  // The stream broke: keep what was staged for a resume.
  virtual void DropUpload(uint64_t upload_id) = 0;

  // UNAUTHENTICATED for a wrong token. OK also when the slot is already gone.
  virtual Result<RetryWindow> Abandon(const DeviceIdentity& device,
                                      const std::string& assignment_id,
                                      ByteSpan token, AbandonReason reason,
                                      const std::string& message) = 0;

  // Counted once per report_id.
  virtual Result<RetryWindow> Report(
      const DeviceIdentity& device, const std::string& report_id,
      const std::map<std::string, uint64_t>& counters) = 0;
};

// ------------------------------------------------------------------- people

template <typename T>
struct Page {
  std::vector<T> items;
  std::string next_page_token;  // empty: the last page
};
struct PageRequest {
  uint32_t size = 0;  // 0: 100; at most 1000
  std::string token;
};

struct PopulationInfo {
  std::string name;
  Time created{};
  uint64_t device_count = 0;
};

enum class TaskState { kRunning = 1, kStopped = 2, kFinished = 3 };
struct TaskInfo {
  std::string name;
  std::string population;
  TaskState state = TaskState::kRunning;
  std::string task_file;
  crypto::Digest program_digest;
  crypto::Digest plan_digest;
  crypto::Digest initial_digest;  // empty unless `initial: FILE`
  uint64_t num_rounds = 0;
  uint64_t committed_rounds = 0;
  uint64_t abandoned_rounds = 0;
  uint64_t latest_version = 0;
  Time created{};
  Time ended{};  // zero while running
  std::string key_metric;
  std::vector<std::string> metrics;
  std::string etag;
  uint64_t evaluated_rounds = 0;
  // Why it ended; empty while running, and of tasks that ended before 0.2.
  std::string end_reason;
  // The version with the best key metric so far; nullopt: none was measured.
  struct Best {
    uint64_t version = 0;
    double value = 0;
  };
  std::optional<Best> best;
  // Measured versions since the key metric last improved.
  uint64_t stale = 0;
};

struct MetricSummary {
  std::string name;
  double mean = 0;
  uint64_t example_count = 0;
  uint64_t device_count = 0;
  // Over devices, from the histogram on [0, 1].
  struct Percentiles {
    double p10 = 0, p50 = 0, p90 = 0;
  };
  std::optional<Percentiles> percentiles;  // if every mean is in that range
};

// The metrics of one class of devices.
struct ClassMetrics {
  std::string device_class;
  std::vector<MetricSummary> metrics;
};

// Numbers as in selvage.v1.Round.State.
enum class RoundState {
  kSelecting = 1,
  kCollecting = 2,
  kClosing = 3,
  kUnmasking = 4,
  kApplying = 5,
  kCommitted = 6,
  kAbandoned = 7,
};
std::string_view RoundStateName(RoundState state);  // "SELECTING", ...

// assigned = accepted + rejected + late + abandoned + expired + outstanding.
struct Funnel {
  uint64_t checked_in = 0;
  uint64_t assigned = 0;
  uint64_t accepted = 0;
  uint64_t rejected = 0;
  uint64_t late = 0;
  uint64_t abandoned = 0;
  uint64_t expired = 0;
  uint64_t outstanding = 0;
  std::map<std::string, uint64_t> reasons;
};
struct RoundInfo {
  std::string task;
  uint64_t number = 0;
  RoundState state = RoundState::kSelecting;
  uint64_t base_version = 0;
  uint64_t result_version = 0;
  Time opened{};
  Time ended{};
  Funnel funnel;
  std::vector<MetricSummary> metrics;
  std::string reason;
  uint64_t bytes_up = 0;
  RoundMode mode = RoundMode::kTrain;
  std::vector<ClassMetrics> classes;      // kEvaluate
  std::map<std::string, double> figures;  // clip_fraction, ...
};

// A version scored on a data set of the server's, by whoever ran
// `selvage evaluate`.
struct EvaluationInfo {
  std::string task;
  uint64_t version = 0;
  std::string data_set;         // 1..64 of a-z, 0-9, _, - and .
  crypto::Digest data_digest;   // of the files
  crypto::Digest model_digest;  // of the version's safetensors
  uint64_t example_count = 0;
  std::vector<std::pair<std::string, double>> metrics;  // by name; finite
  Time created{};                                       // ignored in a request
};

struct ModelVersionInfo {
  std::string task;
  uint64_t version = 0;
  uint64_t round = 0;
  crypto::Digest checkpoint_digest;
  plan::CodecName checkpoint_codec = plan::CodecName::kFloat16;
  crypto::Digest safetensors_digest;
  crypto::Digest program_digest;
  Time created{};
  std::vector<MetricSummary> metrics;
  std::vector<EvaluationInfo> evaluations;  // by data set
};

inline constexpr size_t kEvaluationsMax = 64;  // of one version

struct TokenInfo {
  std::string id;
  std::string population;
  Time expires{};
  uint32_t uses_max = 0;
  uint32_t uses = 0;
  bool revoked = false;
};
struct NewToken {
  TokenInfo info;
  std::string bundle;  // JSON; shown once
};

struct TaskSnapshot {
  TaskInfo task;
  std::optional<RoundInfo> round;
  std::vector<double> key_metric_history;
  std::vector<double> loss_history;  // of the metric named "loss", if any
};

struct CreateTaskRequest {
  std::string task_file;
  crypto::Digest program_digest;
  crypto::Digest initial_digest;
  std::string request_id;
  bool validate_only = false;
};

struct ServiceInfo {
  uint32_t schema_version = 0;
  Time now{};
  uint64_t free_bytes = 0;
  uint64_t certificates_issued = 0;
  std::string instance_id;
};

// Thread-safe. The usual errors: INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS,
// FAILED_PRECONDITION, ABORTED (etag), each naming resource, value and bound. A
// repeated request_id gets the first answer and has one effect.
class AdminApi {
 public:
  virtual ~AdminApi() = default;

  virtual Result<ServiceInfo> Info() = 0;

  virtual Result<PopulationInfo> CreatePopulation(
      const std::string& name, const std::string& request_id) = 0;
  virtual Result<PopulationInfo> GetPopulation(const std::string& name) = 0;
  virtual Result<Page<PopulationInfo>> ListPopulations(
      const PageRequest& page) = 0;

  // Streams an artefact into the blob store: returns whether it existed already
  // (then send nothing), else an id for Append/Finish.
  virtual Result<std::optional<uint64_t>> BeginArtefact(
      const crypto::Digest& digest, uint64_t size_bytes) = 0;
  virtual Status AppendArtefact(uint64_t id, ByteSpan chunk) = 0;
  // DATA_LOSS if the bytes do not have the announced digest.
  virtual Status FinishArtefact(uint64_t id) = 0;
  virtual void DropArtefact(uint64_t id) = 0;
  // Any artefact.
  virtual Result<std::unique_ptr<ArtefactReader>> OpenArtefactAsAdmin(
      const crypto::Digest& digest) = 0;

  virtual Result<TaskInfo> CreateTask(const CreateTaskRequest& request) = 0;
  virtual Result<TaskInfo> GetTask(const std::string& name) = 0;
  // population empty: all.
  virtual Result<Page<TaskInfo>> ListTasks(const std::string& population,
                                           const PageRequest& page) = 0;
  virtual Result<TaskInfo> StopTask(const std::string& name,
                                    const std::string& request_id,
                                    const std::string& etag) = 0;

  virtual Result<RoundInfo> GetRound(const std::string& task,
                                     uint64_t number) = 0;
  virtual Result<Page<RoundInfo>> ListRounds(const std::string& task,
                                             const PageRequest& page) = 0;
  // nullopt: the latest.
  virtual Result<ModelVersionInfo> GetModelVersion(
      const std::string& task, std::optional<uint64_t> version) = 0;
  virtual Result<Page<ModelVersionInfo>> ListModelVersions(
      const std::string& task, const PageRequest& page) = 0;
  // The version with the best key metric. FAILED_PRECONDITION while none was
  // measured.
  virtual Result<ModelVersionInfo> GetBestModelVersion(
      const std::string& task) = 0;
  // Attaches an evaluation to its version, once per data set: the same again
  // changes nothing, another one is ALREADY_EXISTS. It may end the task, if
  // evaluate.source is server. FAILED_PRECONDITION if model_digest is not the
  // version's; RESOURCE_EXHAUSTED above kEvaluationsMax data sets.
  virtual Result<EvaluationInfo> AddEvaluation(
      const EvaluationInfo& evaluation) = 0;

  // Calls `on_change` once at once and then after every change of the task or
  // its current round, on a coordinator thread, until Unwatch() returned or the
  // task ended (state != kRunning is the last call). Must not block.
  virtual Result<uint64_t> WatchTask(
      const std::string& name,
      std::function<void(const TaskSnapshot&)> on_change) = 0;
  virtual void Unwatch(uint64_t watch_id) = 0;

  virtual Result<NewToken> CreateToken(const std::string& population,
                                       Duration ttl, uint32_t uses_max,
                                       const std::string& request_id) = 0;
  virtual Result<Page<TokenInfo>> ListTokens(const std::string& population,
                                             const PageRequest& page) = 0;
  virtual Result<TokenInfo> RevokeToken(const std::string& id) = 0;
};

}  // namespace selvage::coordinator

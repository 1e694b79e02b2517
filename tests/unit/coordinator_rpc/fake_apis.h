// Fakes of the service behind the RPC layer: they record what arrived and
// answer what the test says.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "coordinator/api.h"

namespace selvage::coordinator::test {

class BytesReader final : public ArtefactReader {
 public:
  explicit BytesReader(Bytes bytes) : bytes_(std::move(bytes)) {}
  uint64_t size() const override { return bytes_.size(); }
  Result<size_t> ReadAt(uint64_t offset, std::span<uint8_t> out) override {
    const size_t count = std::min<size_t>(
        out.size(), bytes_.size() - static_cast<size_t>(offset));
    std::copy_n(bytes_.begin() + static_cast<ptrdiff_t>(offset), count,
                out.begin());
    return count;
  }

 private:
  const Bytes bytes_;
};

class FakeDeviceApi final : public DeviceApi {
 public:
  Result<EnrollAnswer> Enroll(const std::optional<DeviceIdentity>& current,
                              const EnrollRequest& request) override {
    const MutexLock lock(mu_);
    last_current = current;
    last_enroll = request;
    if (!enroll_status.ok()) return enroll_status;
    return EnrollAnswer{"CERTIFICATE", "phone-1", "demo", {{1, 2, 3}}};
  }

  void CheckIn(const DeviceIdentity& device, CheckInRequest request,
               std::function<void(Result<CheckInAnswer>)> done) override {
    Result<CheckInAnswer> answer = CheckInAnswer{};
    {
      const MutexLock lock(mu_);
      last_device = device;
      ++check_ins;
      last_check_in = std::move(request);
      answer = check_in_answer;
      if (hold_check_ins) {
        held.push_back(std::move(done));
        return;
      }
    }
    done(std::move(answer));
  }
  size_t Held() {
    const MutexLock lock(mu_);
    return held.size();
  }
  int CheckIns() {
    const MutexLock lock(mu_);
    return check_ins;
  }
  void AnswerHeld() {
    std::vector<std::function<void(Result<CheckInAnswer>)>> waiting;
    {
      const MutexLock lock(mu_);
      waiting.swap(held);
    }
    for (const auto& done : waiting) done(CheckInAnswer{});
  }

  Result<std::unique_ptr<ArtefactReader>> OpenArtefact(
      const DeviceIdentity& device, const crypto::Digest& digest) override {
    const MutexLock lock(mu_);
    last_device = device;
    const auto it = artefacts.find(digest);
    if (it == artefacts.end()) {
      return NotFound("no artefact " + digest.ToHex());
    }
    return std::unique_ptr<ArtefactReader>(
        std::make_unique<BytesReader>(it->second));
  }

  // The codec's name, the base's digest and the artefact are "the delta".
  Result<std::unique_ptr<ArtefactReader>> OpenDelta(
      const DeviceIdentity& device, const crypto::Digest& digest,
      const crypto::Digest& base, plan::CodecName codec) override {
    const MutexLock lock(mu_);
    last_device = device;
    const auto it = artefacts.find(digest);
    if (it == artefacts.end()) return NotFound("no delta");
    Bytes delta = ToBytes(plan::CodecNameText(codec));
    AppendBytes(delta, base.span());
    AppendBytes(delta, it->second);
    return std::unique_ptr<ArtefactReader>(
        std::make_unique<BytesReader>(std::move(delta)));
  }

  void BeginUpload(const DeviceIdentity& device, const UploadHeader& header,
                   BeginUploadCallback done) override {
    Result<BegunUpload> begun = Internal("unset");
    {
      const MutexLock lock(mu_);
      last_device = device;
      last_header = header;
      if (!begin_status.ok()) {
        begun = begin_status;
      } else if (early_receipt.has_value()) {
        begun = BegunUpload(*early_receipt);
      } else {
        begun = BegunUpload(UploadTicket{++next_upload_id, staged.size()});
      }
    }
    done(std::move(begun));
  }

  Status AppendUpload(uint64_t upload_id,
                      std::span<const ByteSpan> pieces) override {
    const MutexLock lock(mu_);
    if (upload_id != next_upload_id) return Aborted("a newer stream took over");
    if (!append_status.ok()) return append_status;
    for (const ByteSpan piece : pieces) AppendBytes(staged, piece);
    return OkStatus();
  }

  void FinishUpload(uint64_t upload_id,
                    std::function<void(Result<Receipt>)> done) override {
    Result<Receipt> receipt = Internal("unset");
    {
      const MutexLock lock(mu_);
      finished.push_back(upload_id);
      receipt = finish_receipt;
    }
    done(std::move(receipt));
  }

  void DropUpload(uint64_t upload_id) override {
    const MutexLock lock(mu_);
    dropped.push_back(upload_id);
  }

  Result<RetryWindow> Abandon(const DeviceIdentity& device,
                              const std::string& assignment_id, ByteSpan token,
                              AbandonReason reason,
                              const std::string& message) override {
    const MutexLock lock(mu_);
    last_device = device;
    abandoned = assignment_id + "|" + ToString(token) + "|" +
                std::string(AbandonReasonName(reason)) + "|" + message;
    return window;
  }

  Result<RetryWindow> Report(
      const DeviceIdentity& device, const std::string& report_id,
      const std::map<std::string, uint64_t>& counters) override {
    const MutexLock lock(mu_);
    last_device = device;
    reports[report_id] = counters;
    return window;
  }

  std::vector<uint64_t> Dropped() {
    const MutexLock lock(mu_);
    return dropped;
  }
  Bytes Staged() {
    const MutexLock lock(mu_);
    return staged;
  }
  void SetArtefact(Bytes bytes) {
    const MutexLock lock(mu_);
    artefacts[crypto::Sha256(bytes)] = std::move(bytes);
  }

  // Set before the calls, read after them.
  Mutex mu_;
  Status enroll_status;
  Status begin_status;
  Status append_status;
  Result<CheckInAnswer> check_in_answer = CheckInAnswer{};
  Result<Receipt> finish_receipt =
      Receipt{ReceiptStatus::kAccepted,
              RejectReason::kNone,
              "",
              {std::chrono::seconds(1), std::chrono::seconds(2)}};
  bool hold_check_ins = false;
  std::vector<std::function<void(Result<CheckInAnswer>)>> held;
  std::optional<Receipt> early_receipt;
  RetryWindow window{std::chrono::seconds(60), std::chrono::seconds(120)};
  std::map<crypto::Digest, Bytes> artefacts;

  std::optional<DeviceIdentity> last_current;
  EnrollRequest last_enroll;
  DeviceIdentity last_device;
  int check_ins = 0;
  CheckInRequest last_check_in;
  UploadHeader last_header;
  Bytes staged;
  uint64_t next_upload_id = 0;
  std::vector<uint64_t> finished;
  std::vector<uint64_t> dropped;
  std::string abandoned;
  std::map<std::string, std::map<std::string, uint64_t>> reports;
};

class FakeAdminApi final : public AdminApi {
 public:
  Result<ServiceInfo> Info() override {
    return ServiceInfo{7, FromMicros(42), 1000, 3, "instance-1"};
  }
  Result<PopulationInfo> CreatePopulation(
      const std::string& name, const std::string& request_id) override {
    last = "CreatePopulation " + name + " " + request_id;
    return PopulationInfo{name, FromMicros(5), 9};
  }
  Result<PopulationInfo> GetPopulation(const std::string& name) override {
    return NotFound("no population " + name);
  }
  Result<Page<PopulationInfo>> ListPopulations(
      const PageRequest& page) override {
    last = "ListPopulations " + std::to_string(page.size) + " " + page.token;
    return Page<PopulationInfo>{{{"a", {}, 1}, {"b", {}, 2}}, "next"};
  }
  Result<std::optional<uint64_t>> BeginArtefact(const crypto::Digest& digest,
                                                uint64_t size_bytes) override {
    last = "BeginArtefact " + std::to_string(size_bytes);
    if (existing.contains(digest)) return std::optional<uint64_t>();
    begun = digest;
    received.clear();
    return std::optional<uint64_t>(1);
  }
  Status AppendArtefact(uint64_t, ByteSpan chunk) override {
    AppendBytes(received, chunk);
    return OkStatus();
  }
  Status FinishArtefact(uint64_t) override {
    if (crypto::Sha256(received) != begun) return DataLoss("another digest");
    existing[begun] = received;
    return OkStatus();
  }
  void DropArtefact(uint64_t) override { ++dropped; }
  Result<std::unique_ptr<ArtefactReader>> OpenArtefactAsAdmin(
      const crypto::Digest& digest) override {
    const auto it = existing.find(digest);
    if (it == existing.end()) return NotFound("no artefact");
    return std::unique_ptr<ArtefactReader>(
        std::make_unique<BytesReader>(it->second));
  }
  Result<TaskInfo> CreateTask(const CreateTaskRequest& request) override {
    TaskInfo task;
    task.name = "t";
    task.task_file = request.task_file;
    task.program_digest = request.program_digest;
    task.etag = "v1";
    return task;
  }
  Result<TaskInfo> GetTask(const std::string& name) override {
    return NotFound("no task " + name);
  }
  Result<Page<TaskInfo>> ListTasks(const std::string& population,
                                   const PageRequest&) override {
    last = "ListTasks " + population;
    return Page<TaskInfo>{};
  }
  Result<TaskInfo> StopTask(const std::string& name, const std::string&,
                            const std::string& etag) override {
    if (etag != "v1") return Aborted("the task " + name + " has changed");
    TaskInfo task;
    task.name = name;
    task.state = TaskState::kStopped;
    return task;
  }
  Result<RoundInfo> GetRound(const std::string& task,
                             uint64_t number) override {
    RoundInfo round;
    round.task = task;
    round.number = number;
    round.state = RoundState::kAbandoned;
    round.funnel.reasons["OUT_OF_RANGE"] = 4;
    round.metrics.push_back({"accuracy", 0.5, 10, 2, {{0.1, 0.2, 0.3}}});
    round.metrics.push_back({"loss", 2.5, 10, 2, std::nullopt});
    round.figures = {{"clip_fraction", 0.25}};
    return round;
  }
  Result<Page<RoundInfo>> ListRounds(const std::string&,
                                     const PageRequest&) override {
    return Page<RoundInfo>{};
  }
  Result<ModelVersionInfo> GetModelVersion(
      const std::string& task, std::optional<uint64_t> version) override {
    ModelVersionInfo info;
    info.task = task;
    info.version = version.value_or(99);
    return info;
  }
  Result<ModelVersionInfo> GetBestModelVersion(
      const std::string& task) override {
    last = "GetBestModelVersion " + task;
    ModelVersionInfo info;
    info.task = task;
    info.version = 7;
    return info;
  }
  Result<EvaluationInfo> AddEvaluation(
      const EvaluationInfo& evaluation) override {
    last = "AddEvaluation " + evaluation.data_set;
    EvaluationInfo stored = evaluation;
    stored.created = FromMicros(77);
    return stored;
  }
  Result<Page<ModelVersionInfo>> ListModelVersions(
      const std::string&, const PageRequest&) override {
    return Page<ModelVersionInfo>{};
  }
  Result<uint64_t> WatchTask(
      const std::string& name,
      std::function<void(const TaskSnapshot&)> on_change) override {
    if (name != "t") return NotFound("no task " + name);
    {
      const MutexLock lock(mu);
      watcher = on_change;
    }
    TaskSnapshot snapshot;
    snapshot.task.name = name;
    on_change(snapshot);
    return uint64_t{11};
  }
  void Unwatch(uint64_t watch_id) override {
    const MutexLock lock(mu);
    watcher = nullptr;
    unwatched = watch_id;
  }
  Result<NewToken> CreateToken(const std::string& population, Duration ttl,
                               uint32_t uses_max, const std::string&) override {
    NewToken token;
    token.info.population = population;
    token.info.uses_max = uses_max;
    token.info.expires = Time(ttl);
    token.bundle = "{}";
    return token;
  }
  Result<Page<TokenInfo>> ListTokens(const std::string&,
                                     const PageRequest&) override {
    return Page<TokenInfo>{};
  }
  Result<TokenInfo> RevokeToken(const std::string& id) override {
    TokenInfo token;
    token.id = id;
    token.revoked = true;
    return token;
  }

  // A snapshot as the coordinator's thread would send it.
  void Send(const TaskSnapshot& snapshot) {
    const MutexLock lock(mu);
    if (watcher) watcher(snapshot);
  }

  std::string last;
  std::map<crypto::Digest, Bytes> existing;
  crypto::Digest begun;
  Bytes received;
  std::atomic<int> dropped{0};
  Mutex mu;
  std::function<void(const TaskSnapshot&)> watcher;
  std::atomic<uint64_t> unwatched{0};
};

}  // namespace selvage::coordinator::test

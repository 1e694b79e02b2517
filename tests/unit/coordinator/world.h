// A whole coordinator on virtual time, and devices that upload one-hot updates.
//
// The oracle (after ISRG's Janus): in round r, device i uploads 1 at coordinate
// (r, i) and 0 elsewhere, always with weight 1. So the committed model says
// exactly how often each update was counted.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "aggregation/codec/codec.h"
#include "base/check.h"
#include "base/log.h"
#include "base/mutex.h"
#include "coordinator/coordinator.h"
#include "coordinator/store/file_blob_store.h"
#include "coordinator/store/memory_store.h"
#include "coordinator/store/sqlite_store.h"
#include "crypto/aead.h"
#include "plan/checkpoint.h"
#include "plan/program.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fault_file_system.h"
#include "tests/testing/fault_vfs.h"
#include "tests/testing/locked_random.h"
#include "tests/testing/memory_sink.h"
#include "tests/testing/status_matchers.h"

namespace selvage::coordinator::test {

using ::selvage::test::FakeClock;
using ::selvage::test::FaultFileSystem;
using ::selvage::test::FaultVfs;
using ::selvage::test::IsOk;
using ::selvage::test::LockedRandom;
using ::selvage::test::MemorySink;
using ::selvage::test::StatusIs;

// Whole runs by seeds: so many times more of them where no sanitizer makes each
// ten times as slow.
#ifdef NDEBUG
inline constexpr uint64_t kSeedFactor = 5;
#else
inline constexpr uint64_t kSeedFactor = 1;
#endif

struct WorldOptions {
  bool sqlite = false;  // over a FaultVfs; else a MemoryStore
  Path folder = {};     // a real one, for SQLite and blobs; empty: simulated
  int devices = 4;
  int rounds = 3;  // coordinates for this many rounds
  std::string strategy_name = "fedavg";
  std::string strategy;  // YAML flow map without name and num_rounds
  std::string privacy = "{min_cohort: 1}";
  std::string evaluate;    // YAML flow map; empty: absent
  bool evaluates = false;  // devices can evaluate
  std::vector<plan::ContributionName> contributions;  // that devices know
  std::string update_extra = ", weight_cap: 100";     // of `update`
  plan::CodecName codec = plan::CodecName::kFloat32;
  uint64_t task_seed = 7;
  uint64_t random_seed = 1;
  CoordinatorOptions options;
  Telemetry* telemetry = nullptr;
  EventSink* events = nullptr;  // null: World::log
  // What coordinators get for the store; null: the store.
  std::function<Store&(Store&)> store_around = {};
};

class World {
 public:
  explicit World(WorldOptions options)
      : options_(std::move(options)),
        random_(options_.random_seed),
        wrapping_key_(crypto::NewAeadKey(random_)),
        server_key_(crypto::NewAeadKey(random_)),
        plan_key_(crypto::NewEd25519KeyPair(random_)),
        authority_(*crypto::CertificateAuthority::Create(
            "test", Time(std::chrono::hours(1)), std::chrono::hours(9999),
            random_)) {
    clock.Advance(std::chrono::hours(2));
    options_.options.device_endpoint = "localhost:1";
    options_.options.pace = {std::chrono::milliseconds(100),
                             std::chrono::milliseconds(200)};
    const Status opened = Reopen();
    EXPECT_THAT(opened, IsOk());
  }
  ~World() { Close(); }

  // Opens what is on the (simulated) disk.
  Status Reopen() {
    Close();
    const bool real = !options_.folder.empty();
    const Path folder = real ? options_.folder : Path("/data");
    SELVAGE_ASSIGN_OR_RETURN(
        blobs_, FileBlobStore::Open(
                    real ? static_cast<FileSystem&>(real_files_) : files,
                    folder / "blobs"));
    if (options_.sqlite) {
      SELVAGE_ASSIGN_OR_RETURN(
          sqlite_, SqliteStore::Open({.path = folder / "store.db",
                                      .lock_directory = false,
                                      .vfs = real ? "" : vfs.name(),
                                      .busy_timeout = Duration::zero()},
                                     clock, random_));
    } else if (memory_ == nullptr) {
      memory_ = std::make_unique<MemoryStore>(clock, random_);
    }
    current_ = 0;
    SELVAGE_RETURN_IF_ERROR(AddReplica());
    return OkStatus();
  }
  // Another folder on the real disk, from the next Reopen() on.
  void MoveTo(const Path& folder) { options_.folder = folder; }
  SqliteStore& sqlite() { return *sqlite_; }
  // One more coordinator over the same store and blobs; the first call is
  // Reopen()'s. What follows talks to the one that Use() named last.
  Status AddReplica() {
    SELVAGE_ASSIGN_OR_RETURN(auto replica, OpenCoordinator());
    coordinators_.push_back(std::move(replica));
    return OkStatus();
  }
  size_t replica_count() const { return coordinators_.size(); }
  void Use(size_t replica) { current_ = replica; }
  // Its process is killed, and another takes its place.
  Status RestartReplica(size_t replica) {
    coordinators_.at(replica).reset();
    SELVAGE_ASSIGN_OR_RETURN(coordinators_.at(replica), OpenCoordinator());
    return OkStatus();
  }
  // The process ends. What it did not sync is still in the page cache.
  void Close() {
    coordinators_.clear();
    sqlite_.reset();
    blobs_.reset();
  }
  // The machine loses power and starts again.
  Status Crash() {
    Close();
    files.ClearFaults();
    vfs.ClearFaults();
    files.Crash();
    vfs.Crash();
    return Reopen();
  }

  Coordinator& coordinator() { return *coordinators_.at(current_); }
  bool running() const { return !coordinators_.empty(); }
  Store& store() {
    if (options_.sqlite) return *sqlite_;
    return *memory_;
  }
  BlobStore& blobs() { return *blobs_; }
  const crypto::Ed25519KeyPair& plan_key() const { return plan_key_; }
  const crypto::CertificateAuthority& authority() const { return authority_; }
  const crypto::SecretBytes& server_key() const { return server_key_; }
  RandomSource& random() { return random_; }

  void Turn(Duration step = std::chrono::milliseconds(50)) {
    clock.Advance(step);
    coordinator().Poll();
  }

  // --------------------------------------------------------------- set-up
  static std::string DeviceName(int i) {
    return "device-" + std::string(i < 10 ? "0" : "") + std::to_string(i);
  }
  DeviceIdentity Device(int i) const { return {"demo", DeviceName(i)}; }

  // Population, devices, program, task "task" of `rounds` rounds.
  void SetUpTask() {
    ASSERT_THAT(coordinator().CreatePopulation("demo", "p"), IsOk());
    EnrolDevices();
    ASSERT_THAT(CreateTask("task"), IsOk());
  }
  void EnrolDevices() {
    const auto token =
        coordinator().CreateToken("demo", std::chrono::hours(1),
                                  static_cast<uint32_t>(options_.devices), "t");
    ASSERT_THAT(token, IsOk());
    const auto key = crypto::NewP256Key();
    ASSERT_THAT(key, IsOk());
    const auto csr = crypto::NewCertificateRequest(*key, "x");
    ASSERT_THAT(csr, IsOk());
    for (int i = 0; i < options_.devices; ++i) {
      // One key for all: what tests of rounds save time on.
      ASSERT_THAT(coordinator().Enroll(std::nullopt,
                                       {token->info.id, SecretOf(token->bundle),
                                        *csr, DeviceName(i)}),
                  IsOk());
    }
  }
  static Bytes SecretOf(const std::string& bundle) {
    const std::string key = "\"token_secret\":\"";
    return *FromHex(bundle.substr(bundle.find(key) + key.size(), 64));
  }

  plan::Program Program() const {
    plan::Program program;
    program.source = "def forward(self, x):\n    return self.w\n";
    program.table =
        *plan::TensorTable::Create({{"w",
                                     {options_.rounds, options_.devices},
                                     plan::DType::kFloat32,
                                     plan::Role::kShared,
                                     plan::Init::kZeros},
                                    {"steps",
                                     {2},
                                     plan::DType::kInt64,
                                     plan::Role::kBufferInt,
                                     plan::Init::kZeros}});
    program.inputs = {{"x", plan::DType::kFloat32, {3}}};
    program.metrics = {"accuracy", "loss"};
    return program;
  }
  crypto::Digest Upload(ByteSpan bytes) {
    const crypto::Digest digest = crypto::Sha256(bytes);
    const auto id = coordinator().BeginArtefact(digest, bytes.size());
    EXPECT_THAT(id, IsOk());
    if (!id->has_value()) return digest;
    EXPECT_THAT(coordinator().AppendArtefact(**id, bytes), IsOk());
    EXPECT_THAT(coordinator().FinishArtefact(**id), IsOk());
    return digest;
  }
  std::string TaskFile(const std::string& name) const {
    return "name: " + name +
           "\npopulation: demo\nprogram: model.yaml\ninitial: random\nseed: " +
           std::to_string(options_.task_seed) +
           "\ntrain: {local_epochs: 1, batch_size: 2}\nstrategy: {name: " +
           options_.strategy_name +
           ", num_rounds: " + std::to_string(options_.rounds) + ", " +
           options_.strategy + "}\nupdate: {codec: " +
           std::string(plan::CodecNameText(options_.codec)) +
           options_.update_extra + "}\nprivacy: " + options_.privacy + "\n" +
           (options_.evaluate.empty()
                ? ""
                : "evaluate: " + options_.evaluate + "\n");
  }
  Result<TaskInfo> CreateTask(const std::string& name,
                              const std::string& request_id = "") {
    return coordinator().CreateTask(
        {.task_file = TaskFile(name),
         .program_digest = Upload(AsBytes(plan::CanonicalJson(Program()))),
         .initial_digest = {},
         .request_id = request_id});
  }

  // -------------------------------------------------------- device actions
  CheckInRequest Request() const {
    CheckInRequest request;
    request.population = "demo";
    request.codecs = {plan::CodecName::kFloat32, plan::CodecName::kFloat16};
    if (options_.codec == plan::CodecName::kBFloat16) {
      request.codecs.push_back(options_.codec);
    }
    request.plan_format = 1;
    request.evaluates = options_.evaluates;
    request.contributions = options_.contributions;
    return request;
  }
  // Checks in; the answer is there after the next Poll() at the latest.
  std::shared_ptr<std::optional<Result<CheckInAnswer>>> CheckIn(
      int device, CheckInRequest request) {
    auto answer = std::make_shared<std::optional<Result<CheckInAnswer>>>();
    coordinator().CheckIn(Device(device), std::move(request),
                          [answer](Result<CheckInAnswer> result) {
                            EXPECT_FALSE(answer->has_value());
                            *answer = std::move(result);
                          });
    return answer;
  }
  auto CheckIn(int device) { return CheckIn(device, Request()); }
  // Check-in, one turn, and the assignment if there is one.
  std::optional<Assignment> Assigned(int device) {
    const auto answer = CheckIn(device);
    if (!answer->has_value()) coordinator().Poll();
    EXPECT_TRUE(answer->has_value());
    if (!answer->has_value() || !(*answer)->ok()) return std::nullopt;
    const auto* work = std::get_if<Assignment>(&(**answer)->work);
    return work == nullptr ? std::nullopt : std::optional<Assignment>(*work);
  }
  // Everybody checks in until the round is drawn; the participants' work.
  std::map<int, Assignment> DrawRound() {
    std::map<int, Assignment> assigned;
    for (int pass = 0; pass < 2; ++pass) {
      for (int i = 0; i < options_.devices; ++i) {
        if (const auto work = Assigned(i)) assigned.insert_or_assign(i, *work);
      }
    }
    return assigned;
  }

  Bytes OneHot(uint64_t round, int device, float value = 1.0f) const {
    std::vector<float> values(
        static_cast<size_t>(options_.rounds * options_.devices));
    values.at(Coordinate(round, device)) = value;
    const std::vector<size_t> counts = {values.size()};
    return *aggregation::Encode(options_.codec, counts, values);
  }
  size_t Coordinate(uint64_t round, int device) const {
    return static_cast<size_t>(
        (static_cast<int>(round) - 1) * options_.devices + device);
  }
  UploadHeader Header(const Assignment& work, const Bytes& bytes) const {
    UploadHeader header;
    header.assignment_id = work.id;
    header.token.assign(work.token.bytes.begin(), work.token.bytes.end());
    header.digest = crypto::Sha256(bytes);
    header.size_bytes = bytes.size();
    header.codec = options_.codec;
    header.weight = 1;
    header.metrics = {*aggregation::MakeMetric(1.0, 2),
                      *aggregation::MakeMetric(3.0, 2)};
    return header;
  }
  // The answer, which must come at once.
  Result<BegunUpload> Begin(int device, const UploadHeader& header) {
    std::optional<Result<BegunUpload>> begun;
    coordinator().BeginUpload(
        Device(device), header,
        [&](Result<BegunUpload> answer) { begun = std::move(answer); });
    SELVAGE_CHECK(begun.has_value());
    return *std::move(begun);
  }
  using Answer = std::shared_ptr<std::optional<Result<Receipt>>>;
  // The whole upload; the answer comes with a Poll(), or at once.
  Answer Send(int device, const UploadHeader& header, const Bytes& bytes) {
    auto answer = std::make_shared<std::optional<Result<Receipt>>>();
    const auto begun = Begin(device, header);
    if (!begun.ok()) {
      *answer = begun.status();
      return answer;
    }
    if (const auto* receipt = std::get_if<Receipt>(&*begun)) {
      *answer = *receipt;
      return answer;
    }
    const UploadTicket ticket = std::get<UploadTicket>(*begun);
    if (!bytes.empty()) {
      const Status appended = coordinator().AppendUpload(
          ticket.upload_id, ByteSpan(bytes).subspan(ticket.offset));
      EXPECT_THAT(appended, IsOk());
    }
    coordinator().FinishUpload(ticket.upload_id,
                               [answer](Result<Receipt> result) {
                                 EXPECT_FALSE(answer->has_value());
                                 *answer = std::move(result);
                               });
    return answer;
  }
  Answer SendOneHot(int device, const Assignment& work) {
    const Bytes bytes = OneHot(work.round, device);
    return Send(device, Header(work, bytes), bytes);
  }
  // Send, turn, receipt.
  Receipt Upload(int device, const Assignment& work) {
    const Answer answer = SendOneHot(device, work);
    if (!answer->has_value()) coordinator().Poll();
    EXPECT_TRUE(answer->has_value() && (*answer)->ok());
    return answer->has_value() && (*answer)->ok() ? ***answer : Receipt{};
  }

  // -------------------------------------------------------------- the oracle
  // How often the update of `device` was counted in the round that made
  // `version`, times 1/n: the model's coordinate, an exact float.
  std::vector<float> Model(std::optional<uint64_t> version = std::nullopt) {
    const auto info = coordinator().GetModelVersion("task", version);
    EXPECT_THAT(info, IsOk());
    const auto bytes = blobs().Read(info->safetensors_digest, 1 << 24);
    EXPECT_THAT(bytes, IsOk());
    const auto model = plan::ReadSafetensors(Program().table, *bytes);
    EXPECT_THAT(model, IsOk());
    return model->floats;
  }

  FakeClock clock;
  FaultFileSystem files;
  FaultVfs vfs;
  MemorySink log;

 private:
  Result<std::unique_ptr<Coordinator>> OpenCoordinator() {
    return Coordinator::Open(
        options_.options,
        {.store =
             options_.store_around ? options_.store_around(store()) : store(),
         .blobs = *blobs_,
         .clock = clock,
         .random = random_,
         .events = options_.events != nullptr ? *options_.events : log,
         .authority = authority_,
         .plan_key = plan_key_,
         .wrapping_key = wrapping_key_,
         .server_key = server_key_,
         .telemetry = options_.telemetry});
  }

  WorldOptions options_;
  PosixFileSystem real_files_;
  LockedRandom random_;
  const crypto::SecretBytes wrapping_key_;
  const crypto::SecretBytes server_key_;
  const crypto::Ed25519KeyPair plan_key_;
  const crypto::CertificateAuthority authority_;
  std::unique_ptr<FileBlobStore> blobs_;
  std::unique_ptr<SqliteStore> sqlite_;
  std::unique_ptr<MemoryStore> memory_;
  std::vector<std::unique_ptr<Coordinator>> coordinators_;
  size_t current_ = 0;
};

}  // namespace selvage::coordinator::test

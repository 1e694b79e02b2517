#include "bench/accuracy/federation.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "base/executor.h"
#include "base/file_system.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/random.h"
#include "bench/accuracy/local_transport.h"
#include "bench/accuracy/slow_transport.h"
#include "client/client.h"
#include "coordinator/coordinator.h"
#include "coordinator/store/file_blob_store.h"
#include "coordinator/store/memory_store.h"
#include "crypto/aead.h"
#include "plan/checkpoint.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/locked_random.h"
#include "tests/testing/scratch_folder.h"

namespace selvage::bench {
namespace {

using client::ExampleSet;
using client::RunResult;

constexpr char kPopulation[] = "demo";
constexpr Duration kLongTime = std::chrono::hours(24 * 365 * 20);
// How far the clock goes between two turns. Devices are told to come back
// within less, so that everybody has a turn at every step.
constexpr Duration kStep = std::chrono::seconds(1);
// What is not done after so much is never done.
constexpr uint64_t kAbandonedMax = 10;
constexpr int kIdleTurnsMax = 2000;
constexpr size_t kScoreBatch = 1000;

// Examples [begin, begin + count) of a set.
ExampleSet Slice(const ExampleSet& all, size_t begin, size_t count) {
  ExampleSet out;
  out.count = count;
  for (const Bytes& input : all.inputs) {
    const size_t size = input.size() / all.count;
    const ByteSpan part = ByteSpan(input).subspan(begin * size, count * size);
    out.inputs.emplace_back(part.begin(), part.end());
  }
  return out;
}

struct Device {
  std::string name;
  const DeviceExamples* examples = nullptr;
  std::unique_ptr<RandomSource> random;
  std::unique_ptr<client::Client> client;
  Time next{};
  std::unique_ptr<AtWork> work = std::make_unique<AtWork>();
  bool finished = false;  // has the last version
  bool honest = true;
  Status failed;
  uint64_t rejected = 0;
  std::string last_reason;
};

class Federation {
 public:
  Federation(const FederationOptions& options, const FederationData& data,
             client::Trainer& trainer, plan::TaskSpec spec)
      : options_(options),
        data_(data),
        trainer_(trainer),
        spec_(std::move(spec)),
        executor_(static_cast<size_t>(options.threads)),
        random_(DeriveSeed(spec_.seed, "coordinator", 0)),
        wrapping_key_(crypto::NewAeadKey(random_)),
        server_key_(crypto::NewAeadKey(random_)),
        plan_key_(crypto::NewEd25519KeyPair(random_)) {
    clock_.Advance(std::chrono::hours(24 * 365 * 53));  // 2022
  }

  Result<FederationResult> Run() {
    SELVAGE_RETURN_IF_ERROR(OpenCoordinator());
    SELVAGE_RETURN_IF_ERROR(CreateTask());
    SELVAGE_RETURN_IF_ERROR(LoadScorers());
    std::vector<Device> devices;
    SELVAGE_RETURN_IF_ERROR(OpenDevices("device", data_.devices, devices));
    SELVAGE_RETURN_IF_ERROR(Learn(devices));
    SELVAGE_ASSIGN_OR_RETURN(
        const coordinator::ModelVersionInfo last,
        coordinator_->GetModelVersion(spec_.name, std::nullopt));
    result_.model = last.safetensors_digest;
    for (const Device& device : devices) result_.rejected += device.rejected;
    if (options_.score_devices && result_.failure.empty()) {
      SELVAGE_RETURN_IF_ERROR(Finish(devices));
      SELVAGE_ASSIGN_OR_RETURN(result_.run.fleet, Score(devices));
      devices.clear();
      std::vector<Device> newcomers;
      SELVAGE_RETURN_IF_ERROR(
          OpenDevices("newcomer", data_.newcomers, newcomers));
      SELVAGE_RETURN_IF_ERROR(Finish(newcomers));
      SELVAGE_ASSIGN_OR_RETURN(result_.run.newcomers, Score(newcomers));
    }
    return std::move(result_);
  }

 private:
  Status OpenCoordinator() {
    SELVAGE_ASSIGN_OR_RETURN(crypto::CertificateAuthority authority,
                             crypto::CertificateAuthority::Create(
                                 "bench", clock_.Now(), kLongTime, random_));
    authority_.emplace(std::move(authority));
    SELVAGE_ASSIGN_OR_RETURN(blobs_,
                             coordinator::FileBlobStore::Open(
                                 files_, folder_.path() / "coordinator"));
    store_.emplace(clock_, random_);
    coordinator::CoordinatorOptions options;
    options.device_endpoint = "localhost:1";
    options.pace = {kStep / 4, kStep / 2};
    options.candidate_retry_min = kStep / 4;
    options.candidate_retry_max = kStep / 2;
    options.batch_age_max = Duration::zero();  // answers do not wait
    options.certificate_lifetime = kLongTime / 2;
    options.rule_threads = static_cast<size_t>(options_.threads);
    SELVAGE_ASSIGN_OR_RETURN(
        coordinator_,
        coordinator::Coordinator::Open(options, {.store = *store_,
                                                 .blobs = *blobs_,
                                                 .clock = clock_,
                                                 .random = random_,
                                                 .events = events_,
                                                 .authority = *authority_,
                                                 .plan_key = plan_key_,
                                                 .wrapping_key = wrapping_key_,
                                                 .server_key = server_key_}));
    service_.emplace(*coordinator_);
    return OkStatus();
  }

  Status CreateTask() {
    SELVAGE_RETURN_IF_ERROR(
        coordinator_->CreatePopulation(kPopulation, "population").status());
    const std::string program = plan::CanonicalJson(options_.program);
    const crypto::Digest digest = crypto::Sha256(AsBytes(program));
    SELVAGE_ASSIGN_OR_RETURN(
        const std::optional<uint64_t> upload,
        coordinator_->BeginArtefact(digest, program.size()));
    if (upload.has_value()) {
      SELVAGE_RETURN_IF_ERROR(
          coordinator_->AppendArtefact(*upload, AsBytes(program)));
      SELVAGE_RETURN_IF_ERROR(coordinator_->FinishArtefact(*upload));
    }
    created_ = clock_.Now();
    SELVAGE_RETURN_IF_ERROR(coordinator_
                                ->CreateTask({.task_file = options_.task_file,
                                              .program_digest = digest,
                                              .initial_digest = {},
                                              .request_id = "task"})
                                .status());
    SELVAGE_ASSIGN_OR_RETURN(
        const coordinator::NewToken token,
        coordinator_->CreateToken(kPopulation, std::chrono::hours(24 * 30),
                                  static_cast<uint32_t>(data_.devices.size() +
                                                        data_.newcomers.size()),
                                  "token"));
    bundle_ = token.bundle;
    return OkStatus();
  }

  Status LoadScorers() {
    if (data_.test.count == 0) return OkStatus();
    for (int i = 0; i < options_.threads; ++i) {
      SELVAGE_ASSIGN_OR_RETURN(std::unique_ptr<client::TrainableModel> model,
                               trainer_.Load(options_.program, {}));
      scorers_.push_back(std::move(model));
    }
    for (size_t at = 0; at < data_.test.count; at += kScoreBatch) {
      test_batches_.push_back(
          Slice(data_.test, at, std::min(kScoreBatch, data_.test.count - at)));
    }
    return OkStatus();
  }

  Status OpenDevices(const std::string& kind,
                     const std::vector<DeviceExamples>& examples,
                     std::vector<Device>& devices) {
    devices.resize(examples.size());
    for (size_t i = 0; i < examples.size(); ++i) {
      Device& device = devices[i];
      char name[32];
      std::snprintf(name, sizeof name, "%s-%03zu", kind.c_str(), i);
      device.name = name;
      device.examples = &examples[i];
      device.honest = kind != "device" || i >= options_.attackers;
      if (options_.takes && kind == "device") {
        device.work->takes = options_.takes(i);
      }
      device.random =
          std::make_unique<SeededRandom>(DeriveSeed(spec_.seed, name, 0));
    }
    executor_.Run(devices.size(),
                  [&](size_t i) { devices[i].failed = Open(devices[i]); });
    return FirstFailure(devices);
  }

  Status Open(Device& device) {
    client::ClientOptions options;
    options.state_dir = folder_.path() / device.name / "state";
    options.cache_dir = folder_.path() / device.name / "cache";
    options.population = kPopulation;
    options.enrolment_bundle = bundle_;
    options.device_name = device.name;
    options.device_class = "bench";
    options.app_version = "1";
    options.threads_max = 1;
    SELVAGE_ASSIGN_OR_RETURN(
        device.client,
        client::Client::Open(
            std::move(options),
            {.clock = clock_,
             .random = *device.random,
             .events = events_,
             .files = files_,
             .trainer = trainer_,
             .transport = TakingTime(
                 Attacking(service_->Transports(),
                           device.honest ? Attack::kNone : options_.attack,
                           static_cast<float>(spec_.update.max_abs_default)),
                 *device.work, clock_)}));
    const ExampleSet& train = device.examples->train;
    std::vector<client::Example> examples(train.count);
    for (const Bytes& input : train.inputs) {
      const size_t size = train.count == 0 ? 0 : input.size() / train.count;
      for (size_t i = 0; i < train.count; ++i) {
        const ByteSpan row = ByteSpan(input).subspan(i * size, size);
        examples[i].inputs.emplace_back(row.begin(), row.end());
      }
    }
    return device.client->AddExamples(spec_.data.collection, examples).status();
  }

  static Status FirstFailure(const std::vector<Device>& devices) {
    for (const Device& device : devices) {
      if (!device.failed.ok()) return device.failed.WithContext(device.name);
    }
    return OkStatus();
  }

  // One session of everybody whose turn it is, a step later.
  void Turn(std::vector<Device>& devices) {
    clock_.Advance(kStep);
    service_->Poll();
    std::vector<Device*> due;
    for (Device& device : devices) {
      if (!device.finished && device.next <= clock_.Now()) {
        due.push_back(&device);
      }
    }
    executor_.Run(due.size(), [&](size_t i) { Session(*due[i]); });
  }

  void Session(Device& device) {
    client::CancelToken session;
    device.work->session = &session;
    const Result<client::RunOutcome> outcome =
        device.client->RunOnce({}, session);
    device.work->session = nullptr;
    if (!outcome.ok()) {
      device.failed = outcome.status();
      return;
    }
    device.next = outcome->next_run;
    if (device.work->done > clock_.Now()) device.next = device.work->done;
    const std::string what =
        std::string(client::RunResultName(outcome->result)) + ": " +
        outcome->reason;
    switch (outcome->result) {
      case RunResult::kInstalled:
        device.finished = true;
        break;
      case RunResult::kNotAccepted:
        ++device.rejected;
        if (device.honest) device.last_reason = what;
        break;
      case RunResult::kDeclined:
      case RunResult::kFailed:
        device.last_reason = what;
        if (!options_.may_break) device.failed = Internal(what);
        break;
      default:
        break;
    }
  }

  Status Learn(std::vector<Device>& devices) {
    uint64_t versions = 0;
    int idle = 0;
    for (;;) {
      Turn(devices);
      SELVAGE_RETURN_IF_ERROR(FirstFailure(devices));
      SELVAGE_ASSIGN_OR_RETURN(const coordinator::TaskInfo task,
                               coordinator_->GetTask(spec_.name));
      result_.rounds = task.committed_rounds;
      result_.abandoned = task.abandoned_rounds;
      idle = task.latest_version > versions ? 0 : idle + 1;
      while (versions < task.latest_version) {
        SELVAGE_ASSIGN_OR_RETURN(const bool go_on, ScoreVersion(++versions));
        if (!go_on) return OkStatus();
      }
      if (task.state != coordinator::TaskState::kRunning) return OkStatus();
      if (task.abandoned_rounds >= kAbandonedMax || idle >= kIdleTurnsMax) {
        result_.failure =
            std::to_string(task.abandoned_rounds) + " rounds were abandoned";
        for (const Device& device : devices) {
          if (device.last_reason.empty()) continue;
          result_.failure += "; " + device.name + ": " + device.last_reason;
          break;
        }
        if (options_.may_break) return OkStatus();
        return Internal(result_.failure);
      }
    }
  }

  // Until everybody has the last version.
  Status Finish(std::vector<Device>& devices) {
    for (int turn = 0; turn < kIdleTurnsMax; ++turn) {
      Turn(devices);
      SELVAGE_RETURN_IF_ERROR(FirstFailure(devices));
      if (std::all_of(devices.begin(), devices.end(),
                      [](const Device& device) { return device.finished; })) {
        return OkStatus();
      }
    }
    return Internal("a device never installed the last version");
  }

  Result<bool> ScoreVersion(uint64_t version) {
    VersionScore score{.version = version, .elapsed = clock_.Now() - created_};
    if (data_.test.count > 0) {
      SELVAGE_RETURN_IF_ERROR(ScoreOnTest(score));
      result_.versions.push_back(score);
    }
    return !options_.on_version || options_.on_version(score);
  }

  Status ScoreOnTest(VersionScore& score) {
    SELVAGE_ASSIGN_OR_RETURN(
        const coordinator::ModelVersionInfo info,
        coordinator_->GetModelVersion(spec_.name, score.version));
    SELVAGE_ASSIGN_OR_RETURN(
        const Bytes safetensors,
        blobs_->Read(info.safetensors_digest, uint64_t{1} << 32));
    SELVAGE_ASSIGN_OR_RETURN(
        const plan::Checkpoint values,
        plan::ReadSafetensors(options_.program.table, safetensors));
    struct Sums {
      double accuracy = 0;
      double loss = 0;
      Status status;
    };
    std::vector<Sums> sums(test_batches_.size());
    Mutex mu;
    std::vector<client::TrainableModel*> idle;
    for (const auto& scorer : scorers_) {
      SELVAGE_RETURN_IF_ERROR(scorer->SetValues(values));
      idle.push_back(scorer.get());
    }
    executor_.Run(test_batches_.size(), [&](size_t batch) {
      client::TrainableModel* scorer = nullptr;
      {
        const MutexLock lock(mu);
        scorer = idle.back();
        idle.pop_back();
      }
      const Result<std::vector<float>> scores =
          scorer->Score(test_batches_[batch]);
      {
        const MutexLock lock(mu);
        idle.push_back(scorer);
      }
      Sums& sum = sums[batch];
      sum.status = scores.status();
      if (!scores.ok()) return;
      for (size_t i = 0; i + 1 < scores->size(); i += 2) {
        sum.accuracy += double{(*scores)[i]};
        sum.loss += double{(*scores)[i + 1]};
      }
    });
    const auto count = static_cast<double>(data_.test.count);
    for (const Sums& sum : sums) {
      if (sum.status.code() == StatusCode::kOutOfRange) {  // not finite
        score.accuracy = 0;
        score.loss = 0;
        return OkStatus();
      }
      SELVAGE_RETURN_IF_ERROR(sum.status);
      score.accuracy += 100 * sum.accuracy / count;
      score.loss += sum.loss / count;
    }
    return OkStatus();
  }

  // What each has on its own test examples.
  Result<std::vector<quickstart::DeviceScore>> Score(
      std::vector<Device>& devices) {
    std::vector<quickstart::DeviceScore> scores(devices.size());
    executor_.Run(devices.size(), [&](size_t i) {
      Device& device = devices[i];
      scores[i].device = device.name;
      const auto put = [&](client::Slot slot, double& accuracy) -> Status {
        SELVAGE_ASSIGN_OR_RETURN(
            const std::vector<double> means,
            device.client->Evaluate(spec_.name, slot, device.examples->test));
        accuracy = 100 * means.at(0);
        return OkStatus();
      };
      device.failed = put(client::Slot::kAlone, scores[i].alone);
      if (device.failed.ok()) {
        device.failed = put(client::Slot::kGlobal, scores[i].global);
      }
      if (device.failed.ok()) {
        device.failed = put(client::Slot::kServing, scores[i].personal);
      }
    });
    SELVAGE_RETURN_IF_ERROR(FirstFailure(devices));
    return scores;
  }

  const FederationOptions& options_;
  const FederationData& data_;
  client::Trainer& trainer_;
  const ::selvage::test::ScratchFolder folder_;
  const plan::TaskSpec spec_;
  ::selvage::test::FakeClock clock_;
  PosixFileSystem files_;
  StreamEventSink events_{std::cerr, clock_, StreamEventSink::Format::kText,
                          LogLevel::kError};
  ThreadExecutor executor_;
  ::selvage::test::LockedRandom random_;
  const crypto::SecretBytes wrapping_key_;
  const crypto::SecretBytes server_key_;
  const crypto::Ed25519KeyPair plan_key_;
  std::optional<crypto::CertificateAuthority> authority_;
  std::unique_ptr<coordinator::FileBlobStore> blobs_;
  std::optional<coordinator::MemoryStore> store_;
  std::unique_ptr<coordinator::Coordinator> coordinator_;
  std::optional<LocalService> service_;
  std::string bundle_;
  Time created_{};
  std::vector<std::unique_ptr<client::TrainableModel>> scorers_;
  std::vector<ExampleSet> test_batches_;
  FederationResult result_;
};

}  // namespace

Result<FederationResult> RunFederation(const FederationOptions& options,
                                       const FederationData& data,
                                       client::Trainer& trainer) {
  SELVAGE_ASSIGN_OR_RETURN(plan::TaskSpec spec,
                           plan::ParseTaskFile(options.task_file));
  if (spec.population != kPopulation) {
    return InvalidArgument("the task is for population " + spec.population +
                           ", not " + kPopulation);
  }
  if (options.threads < 1 || options.threads > 64) {
    return InvalidArgument("threads (" + std::to_string(options.threads) +
                           ") is not in 1..64");
  }
  if (options.program.metrics != std::vector<std::string>{"accuracy", "loss"}) {
    return InvalidArgument("the program's metrics are not accuracy and loss");
  }
  if (options.attackers > data.devices.size()) {
    return InvalidArgument(std::to_string(options.attackers) +
                           " attackers among " +
                           std::to_string(data.devices.size()) + " devices");
  }
  return Federation(options, data, trainer, std::move(spec)).Run();
}

}  // namespace selvage::bench

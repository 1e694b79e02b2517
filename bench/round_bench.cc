// B3: a whole round over the real wire: check-in, checkpoint down, update up,
// receipts, commit, new version; mutual TLS on loopback, the shipped
// coordinator in its own process, SQLite FULL on disk, devices that train in no
// time. Beside it, in turn with it, a bare gRPC+TLS stream of the same bytes in
// a process of its own.
// B4: the coordinator's peak memory meanwhile, beside what it may use.
#include <absl/synchronization/mutex.h>
#include <fcntl.h>
#include <malloc.h>
#include <selvage/v1/admin.grpc.pb.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <barrier>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include "aggregation/codec/codec.h"
#include "base/check.h"
#include "bench/bare_stream.h"
#include "bench/process.h"
#include "bench/report.h"
#include "bench/round_fleet.h"
#include "crypto/tls_policy.h"
#include "plan/program.h"
#include "tests/testing/scratch_folder.h"

extern char** environ;

namespace selvage::bench {
namespace {

namespace fs = std::filesystem;

struct Case {
  const char* name;
  int devices;
  size_t values;
  plan::CodecName codec;
};
constexpr Case kCases[] = {
    {"10x1e6 float32", 10, 1'000'000, plan::CodecName::kFloat32},
    {"50x1e6 float32", 50, 1'000'000, plan::CodecName::kFloat32},
    {"100x1e6 float32", 100, 1'000'000, plan::CodecName::kFloat32},
    {"10x1e7 float32", 10, 10'000'000, plan::CodecName::kFloat32},
    {"50x1e6 float16", 50, 1'000'000, plan::CodecName::kFloat16},
};
constexpr int kRepetitions = 7;
constexpr double kMiB = 1 << 20;
// What B4 allows beside three copies of the model in 64 bits and the uploads
// that the coordinator admits at a time (limits.upload_bytes, its default).
constexpr double kBaseMiB = 64;
constexpr double kAdmittedMiB = 256;

void KeepLargeBuffers() {
  mallopt(M_MMAP_THRESHOLD, 64 << 20);
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
  mallopt(M_TOP_PAD, 16 << 20);
}

template <typename T>
T Must(Result<T> result) {
  if (!result.ok()) {
    std::cerr << "round_bench: " << result.status() << "\n";
    std::exit(1);
  }
  return *std::move(result);
}
void Must(const Status& status) {
  if (status.ok()) return;
  std::cerr << "round_bench: " << status << "\n";
  std::exit(1);
}
void Must(const grpc::Status& status) {
  if (status.ok()) return;
  std::cerr << "round_bench: " << status.error_message() << "\n";
  std::exit(1);
}

// A child with a pipe to its standard input and from its standard output.
// Ends when it goes out of scope.
class Child {
 public:
  explicit Child(const std::vector<std::string>& arguments) {
    int in[2];
    int out[2];
    SELVAGE_CHECK(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0);
    std::vector<std::string> words = arguments;
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    SELVAGE_CHECK(posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(),
                              environ) == 0);
    posix_spawn_file_actions_destroy(&actions);
    close(in[0]);
    close(out[1]);
    in_ = in[1];
    out_ = out[0];
  }
  ~Child() {
    close(in_);
    kill(pid_, SIGTERM);
    // Its last lines, so that it does not wait for a reader.
    std::array<char, 4096> buffer{};
    while (read(out_, buffer.data(), buffer.size()) > 0) {
    }
    close(out_);
    waitpid(pid_, nullptr, 0);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // Reads lines until one contains `text`; returns it.
  std::string WaitFor(const std::string& text) {
    std::string line;
    for (char c = 0; read(out_, &c, 1) == 1;) {
      if (c != '\n') {
        line.push_back(c);
      } else if (line.find(text) != std::string::npos) {
        return line;
      } else {
        line.clear();
      }
    }
    std::cerr << "round_bench: a child process ended early\n";
    std::exit(1);
  }

  // User and system time so far, in seconds.
  double CpuSeconds() const {
    clockid_t clock = 0;
    timespec now{};
    SELVAGE_CHECK(clock_getcpuclockid(pid_, &clock) == 0 &&
                  clock_gettime(clock, &now) == 0);
    return static_cast<double>(now.tv_sec) +
           static_cast<double>(now.tv_nsec) * 1e-9;
  }
  double PeakMiB() const {
    std::ifstream in("/proc/" + std::to_string(pid_) + "/status");
    for (std::string line; std::getline(in, line);) {
      if (line.starts_with("VmHWM:")) return std::stod(line.substr(6)) / 1024;
    }
    return 0;
  }

 private:
  pid_t pid_ = -1;
  int in_ = -1;
  int out_ = -1;
};

struct Sample {
  double wall = 0;
  double cpu = 0;
  double device_cpu = 0;  // of all devices together
};
struct Samples {
  std::vector<double> wall;
  std::vector<double> cpu;
  std::vector<double> device_cpu;
  void Add(const Sample& sample) {
    wall.push_back(sample.wall);
    cpu.push_back(sample.cpu);
    device_cpu.push_back(sample.device_cpu);
  }
};

// Of this process, which is the devices.
double OwnCpuSeconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) +
         static_cast<double>(now.tv_nsec) * 1e-9;
}

// Runs `work(i)` on `count` threads that start together; the first error wins.
template <typename Work>
void Together(int count, const Work& work) {
  std::barrier<> start(count);
  std::vector<Status> results(static_cast<size_t>(count));
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) {
    threads.emplace_back([&, i] {
      start.arrive_and_wait();
      results[static_cast<size_t>(i)] = work(static_cast<size_t>(i));
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Status& status : results) Must(status);
}

// The reference: a server in its own process and one connection per device.
class BareStream {
 public:
  BareStream(const fs::path& root, int devices)
      : identity_(Must(NewBareIdentity())) {
    const fs::path directory = root / "bare";
    fs::create_directories(directory);
    Must(WriteIdentity(identity_, directory.string()));
    server_.emplace(
        std::vector<std::string>{(BinDirectory() / "round_bench").string(),
                                 "--bare-server", directory.string()});
    const int port = std::stoi(server_->WaitFor(""));
    for (int i = 0; i < devices; ++i) {
      clients_.push_back(std::make_unique<BareClient>(identity_, port));
    }
  }

  Sample Run(uint64_t bytes, bool hashed) {
    const double cpu = server_->CpuSeconds();
    const double device_cpu = OwnCpuSeconds();
    const double wall = WallSeconds();
    Together(static_cast<int>(clients_.size()),
             [&](size_t i) { return clients_[i]->Move(bytes, hashed); });
    return {WallSeconds() - wall, server_->CpuSeconds() - cpu,
            OwnCpuSeconds() - device_cpu};
  }

 private:
  const BareIdentity identity_;
  std::optional<Child> server_;
  std::vector<std::unique_ptr<BareClient>> clients_;
};

// A coordinator, its task and its devices.
class Rounds {
 public:
  Rounds(const fs::path& root, const Case& what) : case_(what) {
    const fs::path data = root / "coordinator";
    coordinator_.emplace(std::vector<std::string>{
        (BinDirectory() / "selvage-coordinator").string(), "--data-dir",
        data.string(), "--device-address", "127.0.0.1:0", "--admin-address",
        "127.0.0.1:0", "--pace-retry-min", "10ms", "--pace-retry-max", "20ms",
        "--log-format", "json", "--log-level", "info"});
    coordinator_->WaitFor("\"event\":\"serving\"");
    Connect(data);
    CreateTask();
    Enrol();
    MakeContribution();
    RunRound();  // warm-up: connections, caches, buffers
  }

  // From the devices' start to the commit of the round.
  Sample RunRound() {
    auto context = Context();
    v1::WatchTaskRequest request;
    request.set_name("bench");
    const auto watch = admin_->WatchTask(context.get(), request);
    v1::TaskSnapshot snapshot;
    SELVAGE_CHECK(watch->Read(&snapshot));
    const uint64_t before = snapshot.task().committed_rounds();

    const double cpu = coordinator_->CpuSeconds();
    const double device_cpu = OwnCpuSeconds();
    const double wall = WallSeconds();
    Together(case_.devices,
             [&](size_t i) { return devices_[i]->Contribute(contribution_); });
    while (snapshot.task().committed_rounds() == before) {
      SELVAGE_CHECK(watch->Read(&snapshot));
    }
    const Sample sample = {WallSeconds() - wall,
                           coordinator_->CpuSeconds() - cpu,
                           OwnCpuSeconds() - device_cpu};
    context->TryCancel();
    static_cast<void>(watch->Finish());
    return sample;
  }

  double PeakMiB() const { return coordinator_->PeakMiB(); }

 private:
  std::unique_ptr<grpc::ClientContext> Context() const {
    auto context = std::make_unique<grpc::ClientContext>();
    context->AddMetadata("authorization", "Bearer " + token_);
    return context;
  }

  static std::string ReadText(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  void Connect(const fs::path& data) {
    token_ = ReadText(data / "admin.token");
    token_.erase(token_.find_last_not_of('\n') + 1);
    const auto endpoints =
        nlohmann::json::parse(ReadText(data / "endpoints.json"));
    grpc::SslCredentialsOptions tls;
    tls.pem_root_certs = ReadText(data / "ca.pem");
    admin_ = v1::AdminService::NewStub(grpc::CreateChannel(
        endpoints["admin"].get<std::string>(), grpc::SslCredentials(tls)));
    v1::CreatePopulationRequest request;
    request.set_name("bench");
    v1::Population population;
    Must(admin_->CreatePopulation(Context().get(), request, &population));
  }

  void CreateTask() {
    plan::Program program;
    program.kind = plan::ProgramKind::kNative;
    program.native_name = "bench";
    plan::TensorSpec tensor;
    tensor.name = "weight";
    tensor.shape = {static_cast<int64_t>(case_.values)};
    program.table = Must(plan::TensorTable::Create({tensor}));
    program.inputs = {{"x", plan::DType::kFloat32, {1}}};
    program.metrics = {"loss"};
    const std::string json = plan::CanonicalJson(program);
    const crypto::Digest digest = crypto::Sha256(AsBytes(json));
    {
      auto context = Context();
      v1::UploadArtifactResponse response;
      const auto writer = admin_->UploadArtifact(context.get(), &response);
      v1::UploadArtifactRequest request;
      request.mutable_header()->set_digest(ToString(digest.span()));
      request.mutable_header()->set_size(json.size());
      writer->Write(request);
      request.set_chunk(json);
      writer->Write(request);
      writer->WritesDone();
      Must(writer->Finish());
    }
    const std::string cohort = std::to_string(case_.devices);
    v1::CreateTaskRequest request;
    request.set_program_digest(ToString(digest.span()));
    request.set_task_file(
        "name: bench\npopulation: bench\nprogram: native:bench\n"
        "strategy: {name: fedavg, num_rounds: 1000, cohort: " +
        cohort + ", min_updates: " + cohort +
        ", over_selection: 1.0, min_available_nodes: " + cohort +
        ", round_deadline: 30s}\nupdate: {codec: " +
        std::string(plan::CodecNameText(case_.codec)) + "}\n");
    v1::Task task;
    Must(admin_->CreateTask(Context().get(), request, &task));
  }

  void Enrol() {
    v1::CreateEnrolmentTokenRequest request;
    request.set_population("bench");
    request.set_uses_max(static_cast<uint32_t>(case_.devices));
    v1::CreateEnrolmentTokenResponse response;
    Must(admin_->CreateEnrolmentToken(Context().get(), request, &response));
    for (int i = 0; i < case_.devices; ++i) {
      devices_.push_back(Must(
          FleetDevice::Enrol(response.bundle(), static_cast<uint64_t>(i) + 1)));
    }
  }

  void MakeContribution() {
    std::vector<float> delta(case_.values);
    for (size_t i = 0; i < delta.size(); ++i) {
      delta[i] = static_cast<float>(i % 1000) * 1e-6F;
    }
    const size_t counts[] = {case_.values};
    contribution_.codec = case_.codec;
    contribution_.encoded =
        Must(aggregation::Encode(case_.codec, counts, delta));
    contribution_.digest = crypto::Sha256(contribution_.encoded);
  }

  const Case case_;
  std::optional<Child> coordinator_;
  std::string token_;
  std::unique_ptr<v1::AdminService::Stub> admin_;
  std::vector<std::unique_ptr<FleetDevice>> devices_;
  Contribution contribution_;
};

void RunCase(const Case& what, Report& report) {
  // On disk: /tmp may be memory.
  const test::ScratchFolder scratch("/var/tmp");
  const fs::path& root = scratch.path();
  Samples ours;
  Samples bare;
  Samples unhashed;
  double peak = 0;
  {
    const uint64_t bytes = what.values * sizeof(float);
    Rounds rounds(root, what);
    BareStream stream(root, what.devices);
    static_cast<void>(stream.Run(bytes, true));
    for (int i = 0; i < kRepetitions; ++i) {
      ours.Add(rounds.RunRound());
      bare.Add(stream.Run(bytes, true));
      unhashed.Add(stream.Run(bytes, false));
    }
    peak = rounds.PeakMiB();
  }

  char note[96];
  std::snprintf(note, sizeof note, "unhashed stream: %.3f s, server %.3f s",
                Median(unhashed.wall), Median(unhashed.cpu));
  const std::string name = what.name;
  Must(report.Add({"B3", name, Median(ours.wall), "s",
                   "bare gRPC+TLS stream of float32", Median(bare.wall)},
                  note));
  std::snprintf(note, sizeof note, "devices' CPU: %.3f s, bare %.3f s",
                Median(ours.device_cpu), Median(bare.device_cpu));
  Must(report.Add({"B3", name + " server CPU", Median(ours.cpu), "s",
                   "bare gRPC+TLS stream of float32", Median(bare.cpu)},
                  note));
  const double model = static_cast<double>(what.values) * 8 / kMiB;
  std::snprintf(note, sizeof note, "N x P x 4 is %.0f MiB",
                static_cast<double>(what.devices) * model / 2);
  Must(report.Add({"B4", name, peak, "MiB", "64 + 3 x P x 8 + admitted bytes",
                   kBaseMiB + 3 * model + kAdmittedMiB},
                  note));
}

int Main(int argc, char** argv) {
  KeepLargeBuffers();
  // As the coordinator does.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  Must(crypto::RequireTls13());
  if (argc == 3 && std::strcmp(argv[1], "--bare-server") == 0) {
    return RunBareServer(argv[2]);
  }
  std::vector<std::string> wanted;
  Report report = Must(Report::FromArgs(argc, argv, &wanted));
  report.PrintMachine();
  for (const Case& what : kCases) {
    const bool run =
        wanted.empty() ||
        std::any_of(wanted.begin(), wanted.end(),
                    [&what](const std::string& word) {
                      return std::string(what.name).starts_with(word);
                    });
    if (run) RunCase(what, report);
  }
  return 0;
}

}  // namespace
}  // namespace selvage::bench

int main(int argc, char** argv) { return selvage::bench::Main(argc, argv); }

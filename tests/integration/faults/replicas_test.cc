// Shipped coordinators as replicas over one PostgreSQL, with nginx before them
// as the load balancer: any device talks to any of them, and the model is the
// same to the bit as that of one process, whatever happens to the replicas.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/log.h"
#include "base/random.h"
#include "client/client.h"
#include "client/rpc/grpc_transport.h"
#include "tests/integration/faults/harness.h"
#include "tests/integration/faults/jumping_clock.h"
#include "tests/integration/faults/one_hot_trainer.h"
#include "tests/testing/postgres_server.h"

namespace selvage::test {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

// What spreads the devices' work over the replicas.
enum class Balancer { kConnections, kCalls };

constexpr char kNginx[] = "/usr/sbin/nginx";
constexpr char kStreamModule[] = "/usr/lib/nginx/modules/ngx_stream_module.so";
constexpr size_t kDevices = 6;
constexpr size_t kElements = 33;
constexpr char kTask[] = "one-hot";
constexpr int kAttemptsMax = 20'000;

std::string TaskFile(uint64_t rounds) {
  return R"(name: one-hot
population: demo
program: native:one_hot
train: {local_epochs: 1, batch_size: 1, optimizer: {name: sgd, lr: 0.1}}
strategy: {name: fedavg, cohort: 6, min_updates: 6, over_selection: 1, round_deadline: 10m, num_rounds: )" +
         std::to_string(rounds) +
         "}\nupdate: {codec: float32, weight_cap: 1}\ndata: {holdout: 0}\n";
}

// Values whose sums round.
Bytes AwkwardUpdate(size_t device, uint64_t round) {
  Bytes bytes;
  for (size_t i = 0; i < kElements; ++i) {
    AppendLe(bytes, 0.1F * static_cast<float>(device + 1) /
                        static_cast<float>(i + 2 + round));
  }
  return bytes;
}

int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  close(fd);
  return ntohs(address.sin_port);
}

void Pause() { poll(nullptr, 0, 10); }

class ReplicasTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const auto missing = PostgresServer::Missing()) {
      GTEST_SKIP() << *missing;
    }
    if (!std::filesystem::exists(kNginx) ||
        !std::filesystem::exists(kStreamModule)) {
      GTEST_SKIP() << kNginx << " or " << kStreamModule
                   << ": install nginx-light and libnginx-mod-stream";
    }
    root_ = FreshDirectory();
  }
  void TearDown() override {
    devices_.clear();
    nginx_ = nullptr;
    replicas_.clear();
    if (!root_.empty() && !HasFailure()) std::filesystem::remove_all(root_);
  }

  void StartDatabase() {
    postgres_ = Take(PostgresServer::Start(), "initdb");
    ASSERT_TRUE(postgres_->CreateDatabase("fleet", "template0").ok());
  }
  std::vector<std::string> DatabaseFlags() const {
    return {"--store-postgres",
            postgres_->Address("fleet"),
            "--store-migrate",
            "--pace-retry-min",
            "10ms",
            "--pace-retry-max",
            "50ms"};
  }
  std::vector<std::string> ReplicaFlags(const std::string& name) const {
    std::vector<std::string> flags = DatabaseFlags();
    const std::vector<std::string> more = {"--replicas-enabled",
                                           "--replicas-name",
                                           name,
                                           "--replicas-lease",
                                           "2s",
                                           "--replicas-poll",
                                           "50ms",
                                           "--blobs-dir",
                                           (root_ / "blobs").string(),
                                           "--keys-dir",
                                           (root_ / "keys").string(),
                                           "--device-endpoint",
                                           front_,
                                           "--device-proxies",
                                           "edge",
                                           "--drain-delay",
                                           "100ms"};
    flags.insert(flags.end(), more.begin(), more.end());
    return flags;
  }
  Path DataDir(const std::string& name) const { return root_ / name; }

  // Also again, at the port where the load balancer knows it.
  void StartReplica(size_t i) {
    replicas_.resize(std::max(replicas_.size(), i + 1));
    addresses_.resize(replicas_.size(), "127.0.0.1:0");
    replicas_[i] = nullptr;
    const std::string name = "r" + std::to_string(i);
    replicas_[i] = std::make_unique<CoordinatorUnderTest>(
        DataDir(name),
        CoordinatorUnderTest::Options{.binary = {},
                                      .flags = ReplicaFlags(name),
                                      .device_address = addresses_[i]});
    ASSERT_TRUE(replicas_[i]->serving()) << replicas_[i]->process().output();
    addresses_[i] = replicas_[i]->device_address();
  }

  // TLS passes through: the devices' certificates are the replicas' to check.
  void StartNginx() {
    const Path directory = root_ / "nginx";
    std::filesystem::create_directories(directory);
    std::ofstream conf(directory / "nginx.conf");
    conf << "load_module " << kStreamModule << ";\n"
         << "daemon off;\nmaster_process off;\npid nginx.pid;\n"
         << "error_log stderr info;\n"
         << "events { worker_connections 512; }\n"
         << "stream {\n  upstream replicas {\n";
    for (const std::string& address : addresses_) {
      conf << "    server " << address << " max_fails=1 fail_timeout=1s;\n";
    }
    conf << "  }\n  server {\n    listen " << front_
         << ";\n    proxy_pass replicas;\n    proxy_connect_timeout 1s;\n"
         << "    proxy_timeout 1h;\n  }\n}\n";
    conf.close();
    nginx_ = std::make_unique<ChildProcess>(std::vector<std::string>{
        kNginx, "-p", directory.string(), "-e", "stderr", "-c",
        (directory / "nginx.conf").string()});
    ASSERT_TRUE(nginx_->WaitForOutput("event method")) << nginx_->output();
  }

  // The shipped configuration of a balancer of calls, with our addresses: it
  // ends TLS and forwards the devices' certificates.
  void StartGrpcNginx() {
    const Path directory = root_ / "nginx";
    std::filesystem::create_directories(directory);
    ChildProcess issue({SELVAGE_COORDINATOR, "proxy-certificate", "edge",
                        "--host", "127.0.0.1", "--keys-dir",
                        (root_ / "keys").string(), "--out",
                        (root_ / "proxy").string()});
    ASSERT_EQ(issue.WaitForExit(), 0) << issue.output();
    std::ifstream in(Path(SELVAGE_SOURCE_DIR) / "deploy/nginx/nginx-grpc.conf");
    ASSERT_TRUE(in);
    std::string text(std::istreambuf_iterator<char>(in), {});
    const auto replace = [&text](const std::string& from,
                                 const std::string& to) {
      ASSERT_THAT(text, HasSubstr(from));
      for (size_t at = 0; (at = text.find(from, at)) != std::string::npos;
           at += to.size()) {
        text.replace(at, from.size(), to);
      }
    };
    std::string temporary;
    for (const std::string kind :
         {"client_body", "proxy", "fastcgi", "uwsgi", "scgi"}) {
      temporary +=
          "  " + kind + "_temp_path " + (directory / kind).string() + ";\n";
    }
    replace("pid /tmp/selvage-nginx-grpc.pid;", "pid nginx.pid;");
    replace("error_log stderr warn;", "error_log stderr info;");
    replace("  access_log off;",
            "  log_format calls \"called $uri at <$upstream_addr>\";\n"
            "  access_log /dev/stderr calls;\n" +
                temporary);
    replace("192.0.2.11:8443", addresses_[0]);
    replace("192.0.2.12:8443", addresses_[1]);
    replace("listen 8443 ssl", "listen " + front_ + " ssl");
    replace("/etc/selvage/proxy", (root_ / "proxy").string());
    std::ofstream(directory / "nginx.conf") << text;
    nginx_ = std::make_unique<ChildProcess>(std::vector<std::string>{
        kNginx, "-p", directory.string(), "-e", "stderr", "-g",
        "daemon off; master_process off;", "-c",
        (directory / "nginx.conf").string()});
    ASSERT_TRUE(nginx_->WaitForOutput("event method")) << nginx_->output();
  }

  void StartCluster(Balancer balancer = Balancer::kConnections) {
    StartDatabase();
    front_ = "127.0.0.1:" + std::to_string(FreePort());
    StartReplica(0);
    ASSERT_FALSE(HasFatalFailure());
    StartReplica(1);
    ASSERT_FALSE(HasFatalFailure());
    if (balancer == Balancer::kCalls) {
      StartGrpcNginx();
    } else {
      StartNginx();
    }
  }

  void SetUpTask(CoordinatorUnderTest& server, uint64_t rounds) {
    credentials_.clear();
    ASSERT_TRUE(server.CreatePopulation().ok());
    const std::string bundle = Take(server.CreateBundle(kDevices));
    for (size_t i = 0; i < kDevices; ++i) {
      credentials_.push_back(Take(
          EnrolDevice(server, bundle, "device-" + std::to_string(i)), "enrol"));
    }
    Take(server.CreateTask(TaskFile(rounds), OneHotProgram(kElements)),
         "create task");
  }
  void Connect(const CoordinatorUnderTest& server, const std::string& address) {
    devices_.clear();
    devices_.resize(credentials_.size());
    ca_certificate_ = server.ca_certificate();
    address_ = address.empty() ? server.device_address() : address;
    for (size_t i = 0; i < devices_.size(); ++i) Reconnect(i);
  }
  // A call of a new channel waits for its connection; one that was lost is
  // looked at again only when gRPC's timers say so.
  void Reconnect(size_t i) {
    devices_[i] =
        std::make_unique<RawDevice>(ca_certificate_, address_, credentials_[i]);
  }

  // Asks until the device has work of this round.
  std::optional<v1::Assignment> AwaitWork(size_t device, uint64_t round,
                                          bool for_all) {
    for (int attempt = 0; attempt < kAttemptsMax; ++attempt) {
      const auto work = devices_[device]->CheckIn();
      if (!work.ok()) Reconnect(device);
      if (work.ok() && work->has_assignment() &&
          work->assignment().round() == round) {
        return work->assignment();
      }
      // The round needs all of them: those that wait for it ask again, too.
      if (for_all) {
        for (size_t i = 0; i < devices_.size(); ++i) {
          if (!devices_[i]->CheckIn().ok()) Reconnect(i);
        }
      }
      Pause();
    }
    return std::nullopt;
  }
  // Sends until there is a receipt.
  void Contribute(std::unique_ptr<RawDevice>& device, size_t index,
                  const v1::Assignment& assignment) {
    const Bytes update = AwkwardUpdate(index, assignment.round());
    for (int attempt = 0; attempt < kAttemptsMax; ++attempt) {
      const auto answer =
          device->Upload(OneHotHeader(assignment, update), update);
      if (answer.receipt.has_value()) {
        EXPECT_EQ(answer.receipt->status(), v1::Receipt::ACCEPTED)
            << answer.receipt->ShortDebugString();
        return;
      }
      if (device == devices_[index]) Reconnect(index);
      Pause();
    }
    ADD_FAILURE() << "no receipt";
  }
  void TakePart(size_t device, uint64_t round) {
    const auto work = AwaitWork(device, round, true);
    ASSERT_TRUE(work.has_value()) << "no work for device " << device;
    Contribute(devices_[device], device, *work);
  }

  // The task's end, as a replica sees it.
  plan::Checkpoint ModelOf(CoordinatorUnderTest& server, uint64_t rounds) {
    Take(server.WatchUntilEnded(kTask), "watch");
    const auto all = Take(server.ListRounds(kTask));
    EXPECT_EQ(all.size(), rounds);
    for (const v1::Round& round : all) {
      EXPECT_EQ(round.state(), v1::Round::COMMITTED);
      EXPECT_EQ(round.funnel().accepted(), kDevices);
    }
    return Take(server.LatestModel(kTask, OneHotProgram(kElements).table));
  }
  plan::Checkpoint ModelOfOneProcess(uint64_t rounds) {
    CoordinatorUnderTest server(DataDir("single"));
    EXPECT_TRUE(server.serving());
    SetUpTask(server, rounds);
    Connect(server, "");
    for (uint64_t round = 1; round <= rounds; ++round) {
      for (size_t i = 0; i < kDevices && !HasFatalFailure(); ++i) {
        TakePart(i, round);
      }
    }
    plan::Checkpoint model = ModelOf(server, rounds);
    devices_.clear();
    return model;
  }

  // Which replica drives the task; waits until one does that is not `except`.
  size_t AwaitHolder(std::optional<size_t> except = std::nullopt) {
    for (int attempt = 0; attempt < kAttemptsMax; ++attempt) {
      const std::string holder =
          Take(postgres_->Ask("SELECT holder FROM selvage.claim", "fleet"));
      for (size_t i = 0; i < replicas_.size(); ++i) {
        if (i != except && holder.starts_with("r" + std::to_string(i) + "/")) {
          return i;
        }
      }
      Pause();
    }
    ADD_FAILURE() << "nobody drives the task";
    return 0;
  }

  // The library that ships in apps, its transport and its bundle, unchanged.
  void RunShippedClients() {
    constexpr uint64_t kRounds = 2;
    ASSERT_TRUE(replicas_[0]->CreatePopulation().ok());
    const std::string bundle = Take(replicas_[1]->CreateBundle(kDevices));
    EXPECT_THAT(bundle, HasSubstr(front_));
    Take(replicas_[1]->CreateTask(TaskFile(kRounds), OneHotProgram(kDevices)),
         "create task");
    std::vector<std::thread> apps;
    for (size_t i = 0; i < kDevices; ++i) {
      apps.emplace_back([&, i] {
        JumpingClock clock;
        OsRandom random;
        PosixFileSystem files;
        std::ofstream log_file(root_ / ("app-" + std::to_string(i) + ".log"));
        StreamEventSink events(log_file, clock, StreamEventSink::Format::kJson,
                               LogLevel::kDebug);
        OneHotTrainer trainer(i);
        client::ClientOptions options;
        options.state_dir = root_ / ("app-" + std::to_string(i)) / "state";
        options.cache_dir = root_ / ("app-" + std::to_string(i)) / "cache";
        options.population = kPopulation;
        options.enrolment_bundle = bundle;
        options.device_name = "app-" + std::to_string(i);
        const auto client =
            Take(client::Client::Open(
                     std::move(options),
                     {.clock = clock,
                      .random = random,
                      .events = events,
                      .files = files,
                      .trainer = trainer,
                      .transport = client::GrpcTransportFactory(random)}),
                 "open a client");
        EXPECT_TRUE(client->AddExample("default", {.inputs = {Bytes(4)}}).ok());
        const client::CancelToken cancel;
        uint64_t contributed = 0;
        for (int run = 0; run < kAttemptsMax && contributed < kRounds; ++run) {
          const auto outcome = Take(client->RunOnce({}, cancel), "run");
          if (outcome.result == client::RunResult::kContributed) ++contributed;
          clock.JumpTo(outcome.next_run);
        }
        EXPECT_EQ(contributed, kRounds);
      });
    }
    for (std::thread& app : apps) app.join();
    Take(replicas_[0]->WatchUntilEnded(kTask), "watch");
    const auto model =
        Take(replicas_[0]->LatestModel(kTask, OneHotProgram(kDevices).table));
    EXPECT_EQ(Take(CountedUpdates(model, kDevices)),
              std::vector<int>(kDevices, kRounds));
  }

  Path root_;
  std::string front_;  // where nginx listens
  std::unique_ptr<PostgresServer> postgres_;
  std::vector<std::unique_ptr<CoordinatorUnderTest>> replicas_;
  std::vector<std::string> addresses_;
  std::unique_ptr<ChildProcess> nginx_;
  std::vector<DeviceCredentials> credentials_;
  std::vector<std::unique_ptr<RawDevice>> devices_;
  std::string ca_certificate_;  // whom the devices trust
  std::string address_;         // what they connect to
};

TEST_F(ReplicasTest, ShippedClients_ThroughNginx_EveryUpdateCountsOnce) {
  StartCluster();
  ASSERT_FALSE(HasFatalFailure());
  RunShippedClients();
  // Both of them were talked to.
  for (const std::string& address : addresses_) {
    EXPECT_THAT(nginx_->output(), HasSubstr("connected to " + address));
  }
}

TEST_F(ReplicasTest, ShippedClients_ThroughGrpcBalancer_EveryUpdateCountsOnce) {
  StartCluster(Balancer::kCalls);
  ASSERT_FALSE(HasFatalFailure());
  RunShippedClients();
  for (const std::string& address : addresses_) {
    EXPECT_THAT(nginx_->output(),
                HasSubstr("DeviceService/Upload at <" + address + ">"));
  }
}

// One connection to the balancer; it spreads the calls.
TEST_F(ReplicasTest,
       GrpcBalancer_UploadBrokenAtOne_RetriedAtTheOther_SameModel) {
  constexpr uint64_t kRounds = 1;
  const plan::Checkpoint wanted = ModelOfOneProcess(kRounds);
  ASSERT_FALSE(HasFailure());
  StartCluster(Balancer::kCalls);
  ASSERT_FALSE(HasFatalFailure());
  SetUpTask(*replicas_[0], kRounds);
  Connect(*replicas_[0], front_);
  // Where the uploads went so far, in the order of their ends.
  const auto uploads = [&](size_t count) {
    std::vector<std::string> at;
    for (int attempt = 0; attempt < kAttemptsMax && at.size() < count;
         ++attempt) {
      at.clear();
      const std::string log = nginx_->output();
      const std::string mark = "DeviceService/Upload at <";
      for (size_t i = 0; (i = log.find(mark, i)) != std::string::npos;) {
        i += mark.size();
        const size_t end = log.find('>', i);
        if (end == std::string::npos) break;
        at.push_back(log.substr(i, end - i));
      }
      if (at.size() < count) Pause();
    }
    return at;
  };
  for (size_t i = 0; i < kDevices && !HasFatalFailure(); ++i) {
    const auto work = AwaitWork(i, 1, true);
    ASSERT_TRUE(work.has_value());
    const Bytes update = AwkwardUpdate(i, 1);
    RawDevice::UploadOptions broken;
    broken.cancel_after = 10;
    broken.chunk_size = 10;
    EXPECT_FALSE(devices_[i]
                     ->Upload(OneHotHeader(*work, update), update, broken)
                     .receipt.has_value());
    const auto first = uploads(3 * i + 1);
    ASSERT_EQ(first.size(), 3 * i + 1);
    Contribute(devices_[i], i, *work);
    // Its receipt is the same wherever it asks.
    Contribute(devices_[i], i, *work);
    const auto all = uploads(3 * i + 3);
    ASSERT_EQ(all.size(), 3 * i + 3);
    EXPECT_THAT(addresses_, Contains(all[3 * i]));
    EXPECT_NE(all[3 * i], all[3 * i + 1]);
    EXPECT_NE(all[3 * i + 1], all[3 * i + 2]);
  }
  EXPECT_EQ(ModelOf(*replicas_[1], kRounds), wanted);
}

// What a device says about itself in the proxy's header goes nowhere.
TEST_F(ReplicasTest, GrpcBalancer_ForgedHeader_IsNobody) {
  StartCluster(Balancer::kCalls);
  ASSERT_FALSE(HasFatalFailure());
  SetUpTask(*replicas_[0], 1);
  Connect(*replicas_[0], front_);
  ASSERT_TRUE(devices_[0]->CheckIn().ok());
  std::string header = credentials_[0].certificate_pem;
  for (size_t at = 0; (at = header.find('\n', at)) != std::string::npos;) {
    header.replace(at, 1, "%0A");
  }
  const auto check_in = [&](const std::string& address,
                            const DeviceCredentials& credentials) {
    RawDevice device(ca_certificate_, address, credentials);
    auto context = ShortContext();
    context->AddMetadata("client-cert", header);
    v1::CheckInRequest request;
    request.set_population(kPopulation);
    v1::CheckInResponse response;
    return device.stub().CheckIn(context.get(), request, &response);
  };
  for (const std::string& address : {front_, addresses_[0], addresses_[1]}) {
    const grpc::Status status = check_in(address, {});
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAUTHENTICATED)
        << address << " " << status.error_message();
  }
}

TEST_F(ReplicasTest, HolderKilledInTheRound_TheOtherFinishes_SameModel) {
  constexpr uint64_t kRounds = 2;
  const plan::Checkpoint wanted = ModelOfOneProcess(kRounds);
  ASSERT_FALSE(HasFailure());
  StartCluster();
  ASSERT_FALSE(HasFatalFailure());
  SetUpTask(*replicas_[0], kRounds);
  Connect(*replicas_[0], front_);
  for (size_t i = 0; i < kDevices && !HasFatalFailure(); ++i) {
    if (i == 2) {
      // The upload begins at one replica and is sent again at the other.
      const auto work = AwaitWork(i, 1, true);
      ASSERT_TRUE(work.has_value());
      const Bytes update = AwkwardUpdate(i, 1);
      auto there = std::make_unique<RawDevice>(*replicas_[0], credentials_[i]);
      auto here = std::make_unique<RawDevice>(*replicas_[1], credentials_[i]);
      RawDevice::UploadOptions broken;
      broken.cancel_after = 10;
      broken.chunk_size = 10;
      EXPECT_FALSE(there->Upload(OneHotHeader(*work, update), update, broken)
                       .receipt.has_value());
      Contribute(here, i, *work);
      // Its receipt is the same wherever it asks.
      Contribute(there, i, *work);
      continue;
    }
    if (i == 4) {
      const size_t holder = AwaitHolder();
      EXPECT_EQ(replicas_[holder]->process().Stop(SIGKILL), 128 + SIGKILL);
    }
    TakePart(i, 1);
  }
  ASSERT_FALSE(HasFailure());
  const size_t left = AwaitHolder();
  StartReplica(1 - left);
  ASSERT_FALSE(HasFatalFailure());
  for (size_t i = 0; i < kDevices && !HasFatalFailure(); ++i) TakePart(i, 2);
  EXPECT_EQ(ModelOf(*replicas_[1 - left], kRounds), wanted);
}

TEST_F(ReplicasTest, HolderStoppedBeyondItsLease_WakesAndChangesNothing) {
  constexpr uint64_t kRounds = 2;
  const plan::Checkpoint wanted = ModelOfOneProcess(kRounds);
  ASSERT_FALSE(HasFailure());
  StartCluster();
  ASSERT_FALSE(HasFatalFailure());
  SetUpTask(*replicas_[0], kRounds);
  Connect(*replicas_[0], front_);
  for (size_t i = 0; i + 1 < kDevices && !HasFatalFailure(); ++i) {
    TakePart(i, 1);
  }
  ASSERT_FALSE(HasFailure());
  const size_t stopped = AwaitHolder();
  const size_t other = 1 - stopped;
  ASSERT_EQ(kill(replicas_[stopped]->process().pid(), SIGSTOP), 0);
  EXPECT_EQ(AwaitHolder(stopped), other);
  Connect(*replicas_[other], addresses_[other]);
  TakePart(kDevices - 1, 1);
  // The other one closes the round and opens the next.
  ASSERT_TRUE(AwaitWork(0, 2, true).has_value());
  const auto history = [&] {
    return Take(postgres_->Ask(
        "SELECT string_agg(number || ':' || from_state || '>' || to_state || "
        "'@' || epoch, ' ' ORDER BY id) FROM selvage.history",
        "fleet"));
  };
  const std::string before = history();
  ASSERT_EQ(kill(replicas_[stopped]->process().pid(), SIGCONT), 0);
  // It answers again, and follows.
  Take(replicas_[stopped]->Watch(kTask,
                                 [](const v1::TaskSnapshot& snapshot) {
                                   return snapshot.round().number() == 2;
                                 }),
       "watch");
  EXPECT_EQ(history(), before);
  EXPECT_EQ(AwaitHolder(), other);
  Connect(*replicas_[stopped], addresses_[stopped]);
  for (size_t i = 0; i < kDevices && !HasFatalFailure(); ++i) TakePart(i, 2);
  EXPECT_EQ(ModelOf(*replicas_[stopped], kRounds), wanted);
}

TEST_F(ReplicasTest, RollingTermination_UnderLoad_LosesNoAcknowledgedUpload) {
  constexpr uint64_t kRounds = 8;
  const plan::Checkpoint wanted = ModelOfOneProcess(kRounds);
  ASSERT_FALSE(HasFailure());
  StartCluster();
  ASSERT_FALSE(HasFatalFailure());
  SetUpTask(*replicas_[0], kRounds);
  Connect(*replicas_[0], front_);
  std::atomic<uint64_t> acknowledged{0};
  std::vector<std::thread> devices;
  for (size_t i = 0; i < kDevices; ++i) {
    devices.emplace_back([&, i] {
      for (uint64_t round = 1; round <= kRounds; ++round) {
        const auto work = AwaitWork(i, round, false);
        EXPECT_TRUE(work.has_value()) << "device " << i << " round " << round;
        if (!work.has_value()) return;
        Contribute(devices_[i], i, *work);
        ++acknowledged;
      }
    });
  }
  for (size_t i = 0; i < 2; ++i) {
    const uint64_t until = (2 * i + 1) * kDevices + 3;
    for (int n = 0; n < kAttemptsMax && acknowledged < until; ++n) Pause();
    EXPECT_EQ(replicas_[i]->process().Stop(SIGTERM), 0)
        << replicas_[i]->process().output();
    EXPECT_THAT(replicas_[i]->process().output(),
                HasSubstr("\"drained\":\"true\""));
    StartReplica(i);
    if (HasFatalFailure()) break;
  }
  for (std::thread& device : devices) device.join();
  ASSERT_FALSE(HasFatalFailure());
  EXPECT_EQ(acknowledged, kRounds * kDevices);
  EXPECT_EQ(ModelOf(*replicas_[1], kRounds), wanted);
}

TEST_F(ReplicasTest, SecondCoordinatorOnTheDatabase_IsRefusedUnlessBothShare) {
  StartDatabase();
  front_ = "127.0.0.1:1";
  const auto refused = [&](const std::string& name,
                           const std::vector<std::string>& flags) {
    CoordinatorUnderTest server(
        DataDir(name),
        CoordinatorUnderTest::Options{.binary = {}, .flags = flags});
    EXPECT_FALSE(server.serving());
    EXPECT_EQ(server.process().WaitForExit(), 6);
    return server.process().output();
  };
  {
    CoordinatorUnderTest first(
        DataDir("first"),
        CoordinatorUnderTest::Options{.binary = {}, .flags = DatabaseFlags()});
    ASSERT_TRUE(first.serving()) << first.process().output();
    EXPECT_THAT(refused("second", DatabaseFlags()),
                HasSubstr("the database is in use by the coordinator "));
    EXPECT_THAT(refused("third", ReplicaFlags("r0")),
                HasSubstr("replicas.enabled is off there"));
    // Killed, its successor in the same place need not wait.
    first.process().Stop(SIGKILL);
    CoordinatorUnderTest again(
        DataDir("first"),
        CoordinatorUnderTest::Options{.binary = {}, .flags = DatabaseFlags()});
    ASSERT_TRUE(again.serving()) << again.process().output();
    EXPECT_EQ(again.process().Stop(SIGTERM), 0);
  }
  // It said good-bye: its place is free.
  StartReplica(0);
  ASSERT_FALSE(HasFatalFailure());
  EXPECT_THAT(refused("fourth", DatabaseFlags()),
              HasSubstr("several need replicas.enabled on each"));
  std::vector<std::string> other_blobs = ReplicaFlags("r1");
  *std::find(other_blobs.begin(), other_blobs.end(),
             (root_ / "blobs").string()) = (root_ / "blobs-2").string();
  EXPECT_THAT(refused("fifth", other_blobs),
              HasSubstr("is not the directory of the replica r0"));
  std::vector<std::string> other_keys = ReplicaFlags("r1");
  *std::find(other_keys.begin(), other_keys.end(), (root_ / "keys").string()) =
      (root_ / "keys-2").string();
  EXPECT_THAT(refused("sixth", other_keys),
              HasSubstr("not those of the replica r0"));
}

TEST_F(ReplicasTest, SingleCoordinator_StoppedAndReplaced_EndsWhenItWakes) {
  StartDatabase();
  std::vector<std::string> flags = DatabaseFlags();
  flags.insert(flags.end(), {"--replicas-lease", "1s"});
  CoordinatorUnderTest first(
      DataDir("first"),
      CoordinatorUnderTest::Options{.binary = {}, .flags = flags});
  ASSERT_TRUE(first.serving()) << first.process().output();
  ASSERT_EQ(kill(first.process().pid(), SIGSTOP), 0);
  std::unique_ptr<CoordinatorUnderTest> second;
  for (int attempt = 0; attempt < 200; ++attempt) {
    second = std::make_unique<CoordinatorUnderTest>(
        DataDir("second"),
        CoordinatorUnderTest::Options{.binary = {}, .flags = flags});
    if (second->serving()) break;
    EXPECT_EQ(second->process().WaitForExit(), 6);
    EXPECT_THAT(second->process().output(), HasSubstr("its place is free in"));
  }
  ASSERT_TRUE(second->serving());
  ASSERT_EQ(kill(first.process().pid(), SIGCONT), 0);
  EXPECT_EQ(first.process().WaitForExit(), 6);
  EXPECT_THAT(first.process().output(), HasSubstr("replica_lost"));
  EXPECT_TRUE(second->CreatePopulation().ok());
}

}  // namespace
}  // namespace selvage::test

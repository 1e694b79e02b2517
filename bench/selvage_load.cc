// Many devices that are connected at the same time, each over a mutually
// authenticated TLS connection of its own, and check in: how many check-ins a
// coordinator answers, how soon, and what a connected device costs it. Beside
// it a bare gRPC server that answers the same number of bytes with the same
// number of bytes. See --help, and docs/benchmarks.md for what it measured.
#include <selvage/v1/device.pb.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include <grpcpp/create_channel.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include "base/random.h"
#include "bench/bare_stream.h"
#include "bench/report.h"
#include "client/enrolment_bundle.h"
#include "client/rpc/grpc_transport.h"
#include "crypto/x509.h"

namespace selvage::bench {
namespace {

constexpr char kCheckIn[] = "/selvage.v1.DeviceService/CheckIn";
constexpr char kEcho[] = "/echo";

struct Options {
  std::string bundle_file;
  std::vector<std::string> addresses;
  int devices = 100;
  int in_flight = 64;
  double seconds = 10;
  double rate = 0;
  std::vector<int> pids;
  int echo_devices = 0;
  bool json = false;
};

template <typename T>
T Must(Result<T> result) {
  if (result.ok()) return *std::move(result);
  std::cerr << "selvage-load: " << result.status() << "\n";
  std::exit(1);
}

// One descriptor for each connection, and some.
void RaiseFileLimit(int connections) {
  const auto wanted = static_cast<rlim_t>(connections + 500);
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur >= wanted) return;
  limit.rlim_cur = wanted;
  limit.rlim_max = std::max(limit.rlim_max, wanted);
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
    std::cerr << "selvage-load: " << connections << " devices need " << wanted
              << " file descriptors (ulimit -n)\n";
    std::exit(1);
  }
}

// Resident, in MiB; 0: there is no such process.
double MemoryOf(int pid) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("VmRSS:")) return std::atof(line.c_str() + 6) / 1024;
  }
  return 0;
}
double MemoryOf(const std::vector<int>& pids) {
  double all = 0;
  for (const int pid : pids) all += MemoryOf(pid);
  return all;
}

struct Figures {
  uint64_t answered = 0;
  double seconds = 0;
  std::map<std::string, uint64_t> errors;  // by code
  std::vector<double> latencies;           // milliseconds, sorted
  size_t answer_bytes = 0;                 // of the last one

  double Rate() const { return static_cast<double>(answered) / seconds; }
  double Percentile(double share) const {
    if (latencies.empty()) return 0;
    const auto at =
        static_cast<size_t>(share * static_cast<double>(latencies.size() - 1));
    return latencies[at];
  }
};

// Connections that make one unary call after another.
class Fleet {
 public:
  struct Identity {
    std::string address;
    std::string ca;
    std::string key;
    std::string certificate;
  };
  Fleet(const std::vector<Identity>& identities, const std::string& method,
        std::string request)
      : method_(method), slice_(std::move(request)) {
    for (const Identity& identity : identities) {
      grpc::ChannelArguments arguments;
      arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
      arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
      channels_.push_back(grpc::CreateCustomChannel(
          identity.address,
          grpc::SslCredentials({.pem_root_certs = identity.ca,
                                .pem_private_key = identity.key,
                                .pem_cert_chain = identity.certificate}),
          arguments));
    }
  }

  // One call of every device: connects them all.
  Figures Connect(int in_flight) {
    return Run(in_flight, 0, [this](uint64_t begun, double) {
      return begun < channels_.size();
    });
  }
  // `rate`: calls per second, whatever comes back; 0: `in_flight` at a time.
  Figures Call(int in_flight, double rate, double seconds) {
    return Run(in_flight, rate, [seconds](uint64_t, double elapsed) {
      return elapsed < seconds;
    });
  }

 private:
  struct Exchange {
    explicit Exchange(const std::shared_ptr<grpc::Channel>& channel)
        : stub(channel) {}
    grpc::GenericStub stub;
    grpc::ClientContext context;
    grpc::ByteBuffer answer;
    grpc::Status status;
    double begun = 0;
    std::unique_ptr<grpc::ClientAsyncResponseReader<grpc::ByteBuffer>> reader;
  };

  void Begin() {
    auto* const exchange = new Exchange(channels_[next_++ % channels_.size()]);
    exchange->begun = WallSeconds();
    exchange->context.set_deadline(std::chrono::system_clock::now() +
                                   std::chrono::seconds(60));
    const grpc::ByteBuffer request(&slice_, 1);
    exchange->reader = exchange->stub.PrepareUnaryCall(
        &exchange->context, method_, request, &queue_);
    exchange->reader->StartCall();
    exchange->reader->Finish(&exchange->answer, &exchange->status, exchange);
  }

  template <typename GoesOn>
  Figures Run(int in_flight, double rate, GoesOn goes_on) {
    Figures figures;
    const double began = WallSeconds();
    uint64_t begun = 0;
    uint64_t ended = 0;
    const auto due = [&](double elapsed) {
      if (!goes_on(begun, elapsed)) return false;
      if (rate == 0) return begun - ended < static_cast<uint64_t>(in_flight);
      return static_cast<double>(begun) < rate * elapsed;
    };
    for (;;) {
      double elapsed = WallSeconds() - began;
      while (due(elapsed)) {
        Begin();
        ++begun;
        elapsed = WallSeconds() - began;
      }
      if (begun == ended && !goes_on(begun, elapsed)) break;
      void* tag = nullptr;
      bool ok = false;
      const auto wait = std::chrono::system_clock::now() +
                        (rate > 0 ? std::chrono::microseconds(200)
                                  : std::chrono::milliseconds(100));
      if (queue_.AsyncNext(&tag, &ok, wait) !=
          grpc::CompletionQueue::GOT_EVENT) {
        continue;
      }
      const std::unique_ptr<Exchange> exchange(static_cast<Exchange*>(tag));
      ++ended;
      if (!exchange->status.ok()) {
        ++figures.errors[std::string(StatusCodeName(
            static_cast<StatusCode>(exchange->status.error_code())))];
        continue;
      }
      ++figures.answered;
      figures.answer_bytes = exchange->answer.Length();
      figures.latencies.push_back((WallSeconds() - exchange->begun) * 1e3);
    }
    figures.seconds = WallSeconds() - began;
    std::sort(figures.latencies.begin(), figures.latencies.end());
    return figures;
  }

  const std::string method_;
  const grpc::Slice slice_;
  std::vector<std::shared_ptr<grpc::Channel>> channels_;
  grpc::CompletionQueue queue_;
  size_t next_ = 0;
};

std::string RequestOf(const std::string& population) {
  v1::CheckInRequest request;
  request.set_population(population);
  auto* const can = request.mutable_capabilities();
  can->add_engines("native:bench");
  can->add_codecs("float32");
  can->add_codecs("float16");
  can->set_plan_format(1);
  return request.SerializeAsString();
}

std::vector<Fleet::Identity> Enrol(const Options& options,
                                   const client::EnrolmentBundle& bundle) {
  std::vector<Fleet::Identity> identities(static_cast<size_t>(options.devices));
  std::atomic<size_t> next{0};
  const auto work = [&] {
    OsRandom random;
    client::Endpoint endpoint;
    endpoint.address = bundle.endpoint;
    endpoint.ca_certificate = bundle.ca_certificate;
    const auto stranger = Must(client::GrpcTransportFactory(random)(endpoint));
    for (size_t i = next++; i < identities.size(); i = next++) {
      const crypto::PrivateKeyPem key = Must(crypto::NewP256Key());
      const std::string request = Must(crypto::NewCertificateRequest(key, ""));
      const client::EnrollAnswer answer = Must(stranger->Enroll(
          {bundle.token_id, bundle.token_secret, request, ""}));
      const auto& addresses = options.addresses;
      identities[i] = {
          addresses.empty() ? bundle.endpoint : addresses[i % addresses.size()],
          bundle.ca_certificate, std::string(key.ExposeSecret()),
          answer.certificate_pem};
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
  return identities;
}

// ------------------------------------------------------------------ the rival

class EchoReactor final : public grpc::ServerGenericBidiReactor {
 public:
  explicit EchoReactor(size_t answer) : answer_(std::string(answer, 'x')) {
    StartRead(&request_);
  }
  void OnReadDone(bool ok) override {
    if (!ok) {
      Finish(grpc::Status::OK);
      return;
    }
    const grpc::ByteBuffer answer(&answer_, 1);
    response_ = answer;
    StartWriteAndFinish(&response_, grpc::WriteOptions(), grpc::Status::OK);
  }
  void OnDone() override { delete this; }

 private:
  const grpc::Slice answer_;
  grpc::ByteBuffer request_;
  grpc::ByteBuffer response_;
};

class EchoService final : public grpc::CallbackGenericService {
 public:
  explicit EchoService(size_t answer) : answer_(answer) {}

 private:
  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext*) override {
    return new EchoReactor(answer_);
  }
  const size_t answer_;
};

// Until `out` is closed by the parent's end; its port goes there.
int ServeEcho(const BareIdentity& identity, size_t answer, int out, int in) {
  grpc::SslServerCredentialsOptions tls(
      GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  tls.pem_root_certs = identity.ca;
  tls.pem_key_cert_pairs.push_back(
      {identity.server_key, identity.server_certificate});
  EchoService service(answer);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::SslServerCredentials(tls),
                           &port);
  builder.RegisterCallbackGenericService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) return 1;
  if (write(out, &port, sizeof port) != sizeof port) return 1;
  char byte = 0;
  while (read(in, &byte, 1) > 0) {
  }
  std::_Exit(0);
}

// ------------------------------------------------------------------ the report

nlohmann::ordered_json ToJson(const Figures& figures) {
  nlohmann::ordered_json out;
  out["answered"] = figures.answered;
  out["per_second"] = figures.Rate();
  out["p50_ms"] = figures.Percentile(0.5);
  out["p90_ms"] = figures.Percentile(0.9);
  out["p99_ms"] = figures.Percentile(0.99);
  out["max_ms"] = figures.Percentile(1);
  out["errors"] = figures.errors;
  return out;
}

void Print(const std::string& what, const Figures& figures) {
  std::printf("%-26s %8.0f /s   p50 %8.2f  p90 %8.2f  p99 %8.2f  max %8.2f ms",
              what.c_str(), figures.Rate(), figures.Percentile(0.5),
              figures.Percentile(0.9), figures.Percentile(0.99),
              figures.Percentile(1));
  for (const auto& [code, count] : figures.errors) {
    std::printf("   %s: %llu", code.c_str(),
                static_cast<unsigned long long>(count));
  }
  std::printf("\n");
  std::fflush(stdout);
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("Devices that check in, each over a TLS connection of its own.",
               "selvage-load");
  app.add_option("--bundle", options.bundle_file,
                 "an enrolment bundle for so many devices")
      ->required()
      ->check(CLI::ExistingFile);
  app.add_option(
      "--address", options.addresses,
      "HOST:PORT of a replica, once for each; default: the bundle's");
  app.add_option("--devices", options.devices, "how many")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  app.add_option("--in-flight", options.in_flight, "calls at a time")
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str();
  app.add_option("--seconds", options.seconds, "how long they call")
      ->check(CLI::Range(0.1, 86'400.0))
      ->capture_default_str();
  app.add_option("--rate", options.rate,
                 "calls per second, whatever comes back; 0: --in-flight")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  app.add_option("--pid", options.pids,
                 "a coordinator's, whose memory is shown, once for each");
  app.add_option("--echo", options.echo_devices,
                 "also connections of a bare gRPC server that echoes")
      ->check(CLI::Range(0, 100'000));
  app.add_flag("--json", options.json, "one JSON object on standard output");
  CLI11_PARSE(app, argc, argv);
  RaiseFileLimit(options.devices + options.echo_devices);

  // Before gRPC has threads: its size is known only afterwards, but an answer
  // without work is two windows and nothing else.
  constexpr size_t kAnswerBytes = 20;
  int to_parent[2] = {-1, -1};
  int to_child[2] = {-1, -1};
  BareIdentity bare;
  pid_t child = -1;
  if (options.echo_devices > 0) {
    bare = Must(NewBareIdentity());
    if (pipe(to_parent) != 0 || pipe(to_child) != 0) return 1;
    child = fork();
    if (child == 0) {
      close(to_child[1]);
      return ServeEcho(bare, kAnswerBytes, to_parent[1], to_child[0]);
    }
    close(to_child[0]);
  }

  std::ifstream in(options.bundle_file);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  const client::EnrolmentBundle bundle =
      Must(client::ParseEnrolmentBundle(text));
  const std::string request = RequestOf(bundle.population);

  nlohmann::ordered_json out;
  double began = WallSeconds();
  const std::vector<Fleet::Identity> identities = Enrol(options, bundle);
  const double enrolled =
      static_cast<double>(options.devices) / (WallSeconds() - began);
  if (!options.json) {
    std::printf("%-26s %8.0f /s\n", "enrolment, 8 at a time", enrolled);
  }
  const double before = MemoryOf(options.pids);
  Fleet fleet(identities, kCheckIn, request);
  const Figures connected = fleet.Connect(options.in_flight);
  const double after = MemoryOf(options.pids);
  const Figures called =
      fleet.Call(options.in_flight, options.rate, options.seconds);
  const double each = (after - before) * 1024 / options.devices;
  if (options.json) {
    out["devices"] = options.devices;
    out["enrolled_per_second"] = enrolled;
    out["connect"] = ToJson(connected);
    out["check_in"] = ToJson(called);
    out["memory_mib"] = after;
    out["memory_kib_per_device"] = each;
  } else {
    Print("connect and check in", connected);
    Print("check-in", called);
    if (!options.pids.empty()) {
      std::printf("%-26s %8.1f MiB, %.1f KiB a connected device\n",
                  "memory of the coordinators", after, each);
    }
  }
  if (child > 0) {
    int port = 0;
    if (read(to_parent[0], &port, sizeof port) != sizeof port) return 1;
    const std::vector<Fleet::Identity> bares(
        static_cast<size_t>(options.echo_devices),
        {"127.0.0.1:" + std::to_string(port), bare.ca, bare.client_key,
         bare.client_certificate});
    Fleet echoes(bares, kEcho, request);
    const Figures greeted = echoes.Connect(options.in_flight);
    const Figures echoed =
        echoes.Call(options.in_flight, options.rate, options.seconds);
    if (options.json) {
      out["echo_connect"] = ToJson(greeted);
      out["echo"] = ToJson(echoed);
    } else {
      Print("bare echo: connect", greeted);
      Print("bare echo", echoed);
      std::printf(
          "check-ins are %.2f of the echo (answers of %zu and %zu "
          "bytes)\n",
          called.Rate() / echoed.Rate(), called.answer_bytes,
          echoed.answer_bytes);
    }
    close(to_child[1]);
    waitpid(child, nullptr, 0);
  }
  if (options.json) std::cout << out.dump(2) << "\n";
  return connected.errors.empty() && called.errors.empty() ? 0 : 1;
}

}  // namespace
}  // namespace selvage::bench

int main(int argc, char** argv) { return selvage::bench::Main(argc, argv); }

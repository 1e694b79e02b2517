// Many devices that are connected at the same time, each over a mutually
// authenticated TLS connection of its own: how many check-ins and updates a
// coordinator answers, how soon, what a connected device costs it, and how soon
// it is back after a SIGKILL. Beside it a bare gRPC server that gets as many
// bytes and answers as many. See --help and scripts/load, and
// docs/benchmarks.md for what it measured.
#include <arpa/inet.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "aggregation/codec/codec.h"
#include "base/random.h"
#include "bench/load_echo.h"
#include "bench/load_figures.h"
#include "bench/load_fleet.h"
#include "bench/load_register.h"
#include "bench/process.h"
#include "bench/report.h"
#include "client/enrolment_bundle.h"
#include "client/rpc/grpc_transport.h"
#include "crypto/x509.h"

namespace selvage::bench {
namespace {

constexpr char kCheckIn[] = "/selvage.v1.DeviceService/CheckIn";
constexpr char kUpload[] = "/selvage.v1.DeviceService/Upload";

struct Options {
  std::string mode = "check-ins";
  std::string bundle_file;
  std::vector<std::string> addresses;
  int devices = 100;
  int in_flight = 64;
  double seconds = 10;
  double rate = 0;
  int rounds = 5;
  size_t values = 1000;
  std::vector<int> pids;
  std::vector<std::string> restart;  // a command line
  int echo_devices = 0;
  std::string database;
  uint64_t registered = 0;
  bool json = false;

  FleetOptions Fleet(const std::string& population) const {
    FleetOptions fleet;
    fleet.check_in_method = kCheckIn;
    fleet.upload_method = kUpload;
    fleet.population = population;
    fleet.values = values;
    fleet.in_flight = in_flight;
    return fleet;
  }
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

std::vector<FleetIdentity> Enrol(const Options& options,
                                 const client::EnrolmentBundle& bundle) {
  std::vector<FleetIdentity> identities(static_cast<size_t>(options.devices));
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

// What was measured, as text while it is measured or as JSON at the end.
class Account {
 public:
  explicit Account(bool json) : json_(json) {}
  void Add(const std::string& key, const std::string& what,
           const Figures& figures) {
    if (figures.answered == 0 && figures.errors.empty()) return;
    out_[key] = ToJson(figures);
    if (!json_) Print(what, figures);
  }
  // `text`: with one %g.
  void Add(const std::string& key, const char* text, double value) {
    out_[key] = value;
    if (json_) return;
    char line[160];
    std::snprintf(line, sizeof line, text, value);
    std::printf("%s\n", line);
    std::fflush(stdout);
  }
  void Add(const std::string& key, const std::string& what,
           const std::map<std::string, uint64_t>& counts) {
    if (counts.empty()) return;
    out_[key] = counts;
    if (json_) return;
    std::printf("%-26s", what.c_str());
    for (const auto& [name, count] : counts) {
      std::printf(" %s: %llu", name.c_str(),
                  static_cast<unsigned long long>(count));
    }
    std::printf("\n");
    std::fflush(stdout);
  }
  void Add(const std::string& prefix, const LoadFleet::Totals& totals) {
    const std::string title = prefix.empty() ? "" : "bare: ";
    Add(prefix + "check_in_assigned", title + "check-in, assigned",
        totals.assigned);
    Add(prefix + "check_in_idle", title + "check-in, no work", totals.idle);
    Add(prefix + "fetch", title + "fetch", totals.fetched);
    Add(prefix + "upload", title + "upload", totals.uploaded);
    Add(prefix + "acknowledged", title + "  from its last byte",
        totals.acknowledged);
    Add(prefix + "receipts", title + "receipts", totals.receipts);
    Add(prefix + "outcomes", title + "outcomes", totals.outcomes);
  }
  void Finish() const {
    if (json_) std::cout << out_.dump(2) << "\n";
  }

 private:
  const bool json_;
  nlohmann::ordered_json out_;
};

bool Clean(const LoadFleet::Totals& totals) {
  return totals.assigned.errors.empty() && totals.idle.errors.empty() &&
         totals.fetched.errors.empty() && totals.uploaded.errors.empty();
}

// -------------------------------------------------------------------- modes

// Every device once, then check-ins whose answers nobody heeds.
bool CheckIns(const Options& options, LoadFleet& fleet,
              const std::string& prefix, Account& account) {
  const std::string title = prefix.empty() ? "" : "bare: ";
  const double before = MemoryOf(options.pids);
  const Figures connected = fleet.Connect();
  account.Add(prefix + "connect", title + "connect and check in", connected);
  const double after = MemoryOf(options.pids);
  const Figures called = fleet.CheckIns(options.rate, options.seconds);
  account.Add(prefix + "check_in", title + "check-in", called);
  account.Add(prefix + "answer_bytes", "  answers of %g bytes",
              static_cast<double>(called.answer_bytes));
  if (prefix.empty() && !options.pids.empty()) {
    account.Add("memory_mib", "memory of the coordinators %.1f MiB", after);
    account.Add("memory_kib_per_device", "  %.1f KiB a connected device",
                (after - before) * 1024 / options.devices);
  }
  return connected.errors.empty() && called.errors.empty();
}

// Devices that do as they are told for `seconds`.
bool Rounds(const Options& options, LoadFleet& fleet, const std::string& prefix,
            Account& account) {
  account.Add(prefix + "connect",
              prefix.empty() ? "connect and check in" : "bare: connect",
              fleet.Connect());
  const auto until = [](double end) {
    return [end] { return WallSeconds() >= end; };
  };
  // Connections and caches are warm, and who is in a round is mixed.
  fleet.Run(until(WallSeconds() + options.seconds / 5));
  fleet.Take(1);
  const double seconds = fleet.Run(until(WallSeconds() + options.seconds));
  const LoadFleet::Totals totals = fleet.Take(seconds);
  account.Add(prefix, totals);
  if (prefix.empty() && !options.pids.empty()) {
    account.Add("memory_mib", "memory of the coordinators %.1f MiB",
                MemoryOf(options.pids));
  }
  return Clean(totals);
}

void Append(Figures& all, Figures more) {
  all.answered += more.answered;
  all.seconds += more.seconds;
  all.answer_bytes = more.answer_bytes;
  for (const auto& [code, count] : more.errors) all.errors[code] += count;
  all.latencies.insert(all.latencies.end(), more.latencies.begin(),
                       more.latencies.end());
}

// All devices get an assignment, as fast as they can; then all upload.
bool Phases(const Options& options, LoadFleet& fleet, const std::string& prefix,
            Account& account) {
  account.Add(prefix + "connect",
              prefix.empty() ? "connect and check in" : "bare: connect",
              fleet.Connect());
  LoadFleet::Totals all;
  const auto devices = static_cast<size_t>(options.devices);
  for (int round = 0; round <= options.rounds; ++round) {
    // The round is there when it takes one device; calls that were in flight
    // when the last one ended may have brought more of them.
    fleet.HoldUploads(true);
    fleet.Hurry();
    fleet.Run([&] { return fleet.holding() >= 1; }, 1);
    fleet.Take(1);
    fleet.Hurry();
    double seconds = fleet.Run([&] { return fleet.holding() == devices; });
    LoadFleet::Totals totals = fleet.Take(seconds);
    fleet.HoldUploads(false);
    // The bare server always has work; the coordinator's next round needs them.
    fleet.HoldCheckIns(!prefix.empty());
    seconds = fleet.Run([&] { return fleet.holding() == 0; });
    fleet.HoldCheckIns(false);
    LoadFleet::Totals uploads = fleet.Take(seconds);
    if (round == 0) continue;  // for the caches
    Append(all.assigned, std::move(totals.assigned));
    Append(all.idle, std::move(totals.idle));
    Append(all.uploaded, std::move(uploads.uploaded));
    Append(all.acknowledged, std::move(uploads.acknowledged));
    for (const auto& [name, count] : uploads.receipts) {
      all.receipts[name] += count;
    }
    for (const auto& [name, count] : totals.outcomes) {
      all.outcomes[name] += count;
    }
  }
  all.assigned.Sort();
  all.idle.Sort();
  all.uploaded.Sort();
  all.acknowledged.Sort();
  account.Add(prefix, all);
  account.Add(prefix + "answer_bytes", "  assignments of %g bytes",
              static_cast<double>(all.assigned.answer_bytes));
  return Clean(all);
}

// ------------------------------------------------------------------ recovery

bool IsAlive(int pid) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/stat");
  std::string text;
  if (!std::getline(in, text)) return false;
  const size_t name_end = text.rfind(')');
  return name_end != std::string::npos && name_end + 2 < text.size() &&
         text[name_end + 2] != 'Z';
}

void Kill(int pid, int signal) {
  kill(pid, signal);
  while (IsAlive(pid))
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  waitpid(pid, nullptr, WNOHANG);  // if it is ours
}

// When something listens at 127.0.0.1:PORT.
double WaitUntilListening(const std::string& address) {
  int port = 0;
  const size_t colon = address.rfind(':');
  std::from_chars(address.data() + colon + 1, address.data() + address.size(),
                  port);
  sockaddr_in where{};
  where.sin_family = AF_INET;
  where.sin_port = htons(static_cast<uint16_t>(port));
  where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  for (;;) {
    const int connection = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int refused = connect(
        connection, reinterpret_cast<const sockaddr*>(&where), sizeof where);
    const double now = WallSeconds();
    close(connection);
    if (refused == 0) return now;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// SIGKILL of the coordinator when half of a round's updates are acknowledged
// and more are on their way, and a new start; again in every round. At the end
// the model says whose updates it holds, and how often.
bool Recover(const Options& options, LoadFleet& fleet, Account& account) {
  fleet.Connect();
  const auto devices = static_cast<size_t>(options.devices);
  int pid = options.pids.front();
  std::vector<double> listening;
  std::vector<double> call;
  std::vector<double> update;
  std::vector<double> all;
  std::map<std::string, uint64_t> outcomes;
  std::optional<uint64_t> first_version;
  const auto settle = [&](double seconds, const std::function<bool()>& done) {
    const double end = WallSeconds() + seconds;
    fleet.Run([&] { return done() || WallSeconds() > end; });
    return done();
  };
  bool ok = true;
  for (int round = 0; round < options.rounds && ok; ++round) {
    fleet.HoldUploads(true);
    fleet.Hurry();
    ok = settle(60, [&] { return fleet.holding() == devices; });
    for (const auto& [name, count] : fleet.Take(1).outcomes) {
      outcomes[name] += count;
    }
    fleet.HoldUploads(false);
    enum class Step { kBefore, kDead, kStarted };
    Step step = Step::kBefore;
    double since = 0;  // of the step
    double first_call = 0;
    double first_update = 0;
    uint64_t acknowledged = 0;
    uint64_t answered = 0;
    std::atomic<double> listens{0};
    std::thread watch;
    const auto accepted = [&] {
      const auto& receipts = fleet.so_far().receipts;
      const auto it = receipts.find("ACCEPTED");
      return it == receipts.end() ? uint64_t{0} : it->second;
    };
    const auto answers = [&] {
      const LoadFleet::Totals& so_far = fleet.so_far();
      return so_far.assigned.answered + so_far.idle.answered +
             so_far.fetched.answered + so_far.uploaded.answered;
    };
    ok = ok && settle(60, [&] {
           const double now = WallSeconds();
           if (step == Step::kBefore && accepted() >= devices / 2) {
             if (!first_version) first_version = fleet.checkpoint_version();
             Kill(pid, SIGKILL);
             step = Step::kDead;
             since = WallSeconds();
           } else if (step == Step::kDead && now > since + 0.1) {
             // What was answered before it died has been read by now.
             acknowledged = accepted();
             answered = answers();
             step = Step::kStarted;
             since = WallSeconds();
             pid = StartProcess(options.restart);
             watch = std::thread([&] {
               listens = WaitUntilListening(options.addresses.front());
             });
           } else if (step == Step::kStarted) {
             if (first_call == 0 && answers() > answered) first_call = now;
             if (first_update == 0 && accepted() > acknowledged) {
               first_update = fleet.last_accepted();
             }
           }
           return step == Step::kStarted && fleet.holding() == 0;
         });
    if (watch.joinable()) watch.join();
    if (!ok) break;
    listening.push_back((listens - since) * 1e3);
    call.push_back((first_call - since) * 1e3);
    update.push_back((first_update - since) * 1e3);
    all.push_back((fleet.last_accepted() - since) * 1e3);
    fleet.Take(1);
  }
  // One more assignment each, so that the last round's outcomes are told, and
  // one checkpoint.
  fleet.HoldUploads(true);
  fleet.Hurry();
  ok = ok && settle(60, [&] { return fleet.holding() == devices; });
  for (const auto& [name, count] : fleet.Take(1).outcomes) {
    outcomes[name] += count;
  }
  fleet.HoldUploads(false);
  const uint64_t rounds = static_cast<uint64_t>(options.rounds);
  ok = ok && settle(60, [&] {
         return fleet.checkpoint_version() == *first_version + rounds;
       });
  Kill(pid, SIGTERM);
  if (!ok) {
    std::cerr << "selvage-load: devices did not get to the end of a round\n";
    return false;
  }
  account.Add("listening_ms", "restart to listening:       %8.0f ms (median)",
              Median(listening));
  account.Add("first_call_ms", "  to the first answer:      %8.0f ms",
              Median(call));
  account.Add("first_update_ms", "  to the first update:      %8.0f ms",
              Median(update));
  account.Add("first_update_max_ms", "    slowest:                %8.0f ms",
              *std::max_element(update.begin(), update.end()));
  account.Add("all_updates_ms", "  to the last of the round: %8.0f ms",
              Median(all));
  account.Add("outcomes", "outcomes", outcomes);
  const size_t counts[] = {options.values};
  const std::vector<float> model = Must(aggregation::Decode(
      {plan::CodecName::kFloat16}, counts, fleet.checkpoint()));
  const double each =
      static_cast<double>(rounds) / static_cast<double>(devices);
  size_t wrong = 0;
  for (size_t i = 0; i < model.size(); ++i) {
    const double wanted = i < devices ? each : 0;
    // Half of what one update too many or too few would make, at least.
    if (std::abs(static_cast<double>(model[i]) - wanted) >
        0.4 / static_cast<double>(devices)) {
      ++wrong;
    }
  }
  account.Add("lost_or_doubled", "updates lost or doubled:    %8.0f",
              static_cast<double>(wrong));
  return wrong == 0 && outcomes["COMMITTED"] == rounds * devices;
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("Devices on one thread, each over a TLS connection of its own.",
               "selvage-load");
  app.add_option("--mode", options.mode,
                 "check-ins: they check in. rounds: they take part in the "
                 "rounds of a task, and come back when they are told to. "
                 "phases: all check in at once, then all upload. recovery: "
                 "--pid is killed and started again in the middle of rounds")
      ->check(CLI::IsMember({"check-ins", "rounds", "phases", "recovery"}))
      ->capture_default_str();
  app.add_option("--bundle", options.bundle_file,
                 "an enrolment bundle for so many devices")
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
                 "check-ins per second, whatever comes back; 0: --in-flight")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  app.add_option("--rounds", options.rounds, "of phases and recovery")
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str();
  app.add_option("--values", options.values, "of the task's model")
      ->check(CLI::Range(1, 100'000'000))
      ->capture_default_str();
  app.add_option("--pid", options.pids,
                 "a coordinator's, whose memory is shown, once for each");
  app.add_option("restart", options.restart,
                 "recovery: its command line, after a --");
  app.add_option("--echo", options.echo_devices,
                 "also connections of a bare gRPC server")
      ->check(CLI::Range(0, 100'000));
  app.add_option("--register", options.registered,
                 "no load: enrol so many devices in the --database of a "
                 "coordinator that is not running, in population `load`")
      ->check(CLI::Range(1, 100'000'000));
  app.add_option("--database", options.database, "its SQLite file");
  app.add_flag("--json", options.json, "one JSON object on standard output");
  CLI11_PARSE(app, argc, argv);
  if (options.registered > 0) {
    const Status status =
        RegisterDevices(options.database, "load", options.registered);
    if (!status.ok()) std::cerr << "selvage-load: " << status << "\n";
    return status.ok() ? 0 : 1;
  }
  const bool recovery = options.mode == "recovery";
  if (options.bundle_file.empty() ||
      (recovery && (options.pids.size() != 1 || options.restart.empty() ||
                    options.addresses.size() != 1))) {
    std::cerr << "selvage-load: --bundle is required; recovery needs one "
                 "--address, --pid and command line\n";
    return 2;
  }
  RaiseFileLimit(options.devices + options.echo_devices);

  // Before gRPC has threads.
  std::unique_ptr<BareServer> bare;
  if (options.echo_devices > 0) {
    const bool fast = options.mode != "check-ins";
    bare = Must(BareServer::Start(fast ? 100 : 60'000, fast ? 200 : 120'000));
  }

  std::ifstream in(options.bundle_file);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  const client::EnrolmentBundle bundle =
      Must(client::ParseEnrolmentBundle(text));

  Account account(options.json);
  const double began = WallSeconds();
  const std::vector<FleetIdentity> identities = Enrol(options, bundle);
  account.Add("enrolled_per_second", "enrolment, 8 at a time: %.0f /s",
              options.devices / (WallSeconds() - began));
  const auto measure = [&](LoadFleet& fleet, const std::string& prefix) {
    if (recovery) return Recover(options, fleet, account);
    if (options.mode == "rounds") {
      return Rounds(options, fleet, prefix, account);
    }
    if (options.mode == "phases") {
      return Phases(options, fleet, prefix, account);
    }
    return CheckIns(options, fleet, prefix, account);
  };
  bool ok = false;
  {
    FleetOptions what = options.Fleet(bundle.population);
    what.fetch = recovery || options.mode == "rounds";
    what.one_hot = recovery;
    LoadFleet fleet(identities, what);
    ok = measure(fleet, "");
  }
  if (bare != nullptr) {
    const std::vector<FleetIdentity> strangers(
        static_cast<size_t>(options.echo_devices),
        {Must(bare->Address()), bare->identity().ca,
         bare->identity().client_key, bare->identity().client_certificate});
    FleetOptions what = options.Fleet(bundle.population);
    what.check_in_method =
        options.mode == "check-ins" ? "/bare/nothing" : "/bare/assign";
    what.upload_method = "/bare/upload/" + std::to_string(options.values * 2);
    LoadFleet fleet(strangers, what);
    options.pids.clear();
    options.devices = options.echo_devices;
    ok = measure(fleet, "bare_") && ok;
  }
  account.Finish();
  return ok ? 0 : 1;
}

}  // namespace
}  // namespace selvage::bench

int main(int argc, char** argv) { return selvage::bench::Main(argc, argv); }

// selvage-coordinator: the service side as one process.
#include <absl/synchronization/mutex.h>
#include <malloc.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

#include "base/bytes.h"
#include "base/file_system.h"
#include "base/log.h"
#include "base/notify.h"
#include "base/random.h"
#include "base/time.h"
#include "base/version.h"
#include "coordinator/postgres/postgres_store.h"
#include "coordinator/server/config.h"
#include "coordinator/server/heartbeat.h"
#include "coordinator/server/proxy_certificate.h"
#include "coordinator/server/service.h"
#include "crypto/tls_policy.h"

namespace selvage::coordinator {
namespace {

// docs/operations.md, "Exit codes".
constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;
constexpr int kExitPrecondition = 6;
constexpr int kExitUnavailable = 8;

// Signs of life for one WatchdogSec; sd_watchdog_enabled(3) asks for two.
constexpr int kBeatsPerWatchdog = 4;

// Longer than `begin-epoch` may take.
constexpr Duration kEpochLease = std::chrono::minutes(5);

constexpr char kExamples[] = R"(
Settings come from flags, then SELVAGE_* variables, then the file, then defaults.

Examples:
  selvage-coordinator --data-dir /var/lib/selvage --config /etc/selvage.yaml
  selvage-coordinator --device-address 127.0.0.1:0 --admin-address 127.0.0.1:0
  selvage-coordinator --config selvage.yaml --check-config
  SELVAGE_LOG_LEVEL=debug selvage-coordinator --print-config

The first start creates a certificate authority, keys and an admin token in the
data directory. Then, on the same machine:
  selvage --coordinator DATA_DIR token create --population demo
)";

struct Arguments {
  std::string config_file;
  bool check_config = false;
  bool print_config = false;
  std::map<std::string, std::string> flags;
};

std::optional<std::string> Variable(const std::string& name) {
  const char* const value = std::getenv(name.c_str());
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

// Large things go back to the kernel when they are done with, and small ones
// come from few arenas: what the allocator keeps for later counts against the
// machine's memory as well (B4 in docs/benchmarks.md). It does keep what comes
// and goes in every round, the chunks of streams and the stretches of sums:
// fresh memory costs more than to fill it. It gives that back once there have
// been no uploads for a while (UploadIngest). (Their buffers are a pool.)
void KeepLittle() {
  mallopt(M_MMAP_THRESHOLD, 8 << 20);
  mallopt(M_TRIM_THRESHOLD, 192 << 20);
  mallopt(M_TOP_PAD, 1 << 20);
  mallopt(M_ARENA_MAX, 2);
}

// gRPC's locks look for cycles whenever one is taken while another is held,
// where their library was built without NDEBUG, as Debian's is: some percent of
// a busy process.
void SkipLockOrderChecks() {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
}

int ExitCodeOf(const Status& status) {
  switch (status.code()) {
    case StatusCode::kInvalidArgument:
      return kExitUsage;
    case StatusCode::kFailedPrecondition:
    case StatusCode::kDataLoss:
      return kExitPrecondition;
    case StatusCode::kUnavailable:
      return kExitUnavailable;
    default:
      return kExitFailed;
  }
}

// As a service of Type=notify; elsewhere nothing happens. Whoever does not
// listen is told nothing, which is no reason to stop.
void TellSystemd(std::string_view state) {
  static_cast<void>(Notify(Variable("NOTIFY_SOCKET").value_or(""), state));
}

// Waits for `pause`, with signs of life for systemd if it wants them; true, and
// at once, if one of the signals comes.
bool SignalWithin(const sigset_t& signals, Duration pause, Duration watchdog) {
  const auto end = std::chrono::steady_clock::now() + pause;
  for (;;) {
    if (watchdog > Duration::zero()) TellSystemd("WATCHDOG=1");
    auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(
        end - std::chrono::steady_clock::now());
    if (left <= left.zero()) return false;
    if (watchdog > Duration::zero()) {
      left = std::min<std::chrono::nanoseconds>(left,
                                                watchdog / kBeatsPerWatchdog);
    }
    constexpr int64_t kNanosPerSecond = 1'000'000'000;
    const timespec timeout{.tv_sec = left.count() / kNanosPerSecond,
                           .tv_nsec = left.count() % kNanosPerSecond};
    if (sigtimedwait(&signals, nullptr, &timeout) > 0) {
      TellSystemd("STOPPING=1");
      return true;
    }
  }
}

int Serve(const Config& config, const sigset_t& signals) {
  const Duration watchdog = WatchdogPeriod(Variable("WATCHDOG_USEC"),
                                           Variable("WATCHDOG_PID"), getpid());
  SystemClock clock;
  OsRandom random;
  PosixFileSystem files;
  const bool text =
      config.log_format == LogFormat::kText ||
      (config.log_format == LogFormat::kAuto && isatty(STDOUT_FILENO) == 1);
  StreamEventSink log(
      std::cout, clock,
      text ? StreamEventSink::Format::kText : StreamEventSink::Format::kJson,
      config.log_level);
  Result<std::unique_ptr<Service>> service = Service::Start(
      config, files, clock, random, log,
      // A crash at any point is as good as an end.
      [](const Status&) { std::_Exit(kExitPrecondition); },
      [&](Duration pause) {
        TellSystemd("READY=1");
        return !SignalWithin(signals, pause, watchdog);
      });
  if (service.status().code() == StatusCode::kCancelled) return 0;
  if (!service.ok()) {
    std::cerr << "selvage-coordinator: " << service.status().message() << "\n";
    return ExitCodeOf(service.status());
  }

  TellSystemd("READY=1");
  std::optional<Heartbeat> heartbeat;
  if (watchdog > Duration::zero()) {
    heartbeat.emplace(
        watchdog / kBeatsPerWatchdog,
        [&service] { return (*service)->turns(); },
        [] { TellSystemd("WATCHDOG=1"); });
  }
  int signal = 0;
  sigwait(&signals, &signal);
  TellSystemd("STOPPING=1");
  // The second one does not wait: a crash at any point is as good as an end.
  std::thread([signals] {
    int second = 0;
    sigwait(&signals, &second);
    std::_Exit(128 + second);
  }).detach();
  (*service)->Drain();
  heartbeat.reset();
  service->reset();
  return 0;
}

// `selvage-coordinator migrate`.
int Migrate(const Config& config) {
  if (config.store_postgres.empty()) {
    std::cerr << "selvage-coordinator: store.postgres is not set; SQLite is "
                 "migrated when the coordinator starts\n";
    return kExitUsage;
  }
  SteadyClock steady;
  OsRandom random;
  PosixFileSystem files;
  const auto store =
      OpenPostgresStore(config, files, steady, random, /*migrate=*/true);
  if (!store.ok()) {
    std::cerr << "selvage-coordinator: " << store.status().message() << "\n";
    return ExitCodeOf(store.status());
  }
  std::cout << "the database has schema " << (*store)->schema_version() << "\n";
  return 0;
}

// `selvage-coordinator begin-epoch`.
int BeginEpoch(const Config& config) {
  if (config.store_postgres.empty()) {
    std::cerr << "selvage-coordinator: store.postgres is not set; with SQLite, "
                 "restore begins an epoch\n";
    return kExitUsage;
  }
  SteadyClock steady;
  OsRandom random;
  PosixFileSystem files;
  const auto begin = [&]() -> Result<std::string> {
    SELVAGE_ASSIGN_OR_RETURN(
        const auto store,
        OpenPostgresStore(config, files, steady, random, /*migrate=*/false));
    Bytes raw(8);
    random.Fill(raw);
    // Nobody is at work there, and nobody begins meanwhile.
    const ReplicaRow alone{.name = "begin-epoch",
                           .session = ToHex(raw),
                           .shared = false,
                           .keys = ""};
    SELVAGE_RETURN_IF_ERROR(
        store->KeepReplica(alone, kEpochLease, /*enter=*/true).status());
    random.Fill(raw);
    Result<std::string> id = store->BeginEpoch(ToHex(raw), store->Now());
    // If it cannot be said, it expires.
    static_cast<void>(store->RemoveReplica(alone));
    return id;
  };
  const Result<std::string> id = begin();
  if (!id.ok()) {
    std::cerr << "selvage-coordinator: " << id.status().message() << "\n";
    return ExitCodeOf(id.status());
  }
  std::cout << "open rounds are abandoned, tokens revoked, old sessions ended; "
               "the instance is "
            << *id << "\n";
  return 0;
}

// `selvage-coordinator restore`.
int RestoreFrom(const Config& config, const Path& backup) {
  SystemClock clock;
  OsRandom random;
  PosixFileSystem files;
  const auto restored = Restore(config, backup, files, clock, random);
  if (!restored.ok()) {
    std::cerr << "selvage-coordinator: " << restored.status().message() << "\n";
    return ExitCodeOf(restored.status());
  }
  std::cout << "restored " << restored->manifest.artefacts.size()
            << " artefacts and the rows of "
            << FormatTime(restored->manifest.created) << "; the instance is "
            << restored->instance_id << "\n";
  return 0;
}

// `selvage-coordinator proxy-certificate`.
int IssueProxyCertificate(const Config& config,
                          ProxyCertificateOptions options) {
  SystemClock clock;
  OsRandom random;
  PosixFileSystem files;
  options.keys_dir =
      config.keys_dir.empty() ? config.data_dir : config.keys_dir;
  const Status written = WriteProxyCertificate(options, files, clock, random);
  if (!written.ok()) {
    std::cerr << "selvage-coordinator: " << written.message() << "\n";
    return ExitCodeOf(written);
  }
  std::cout << "wrote proxy.key.pem, proxy.pem and ca.pem to "
            << options.out.string() << "; coordinators trust it with "
            << "device.proxies: " << options.name << "\n";
  return 0;
}

int Main(int argc, char** argv) {
  KeepLittle();
  SkipLockOrderChecks();
  // Whatever is created here is the owner's alone, the database included.
  umask(0077);
  // gRPC's own lines would let strangers fill the log; what matters is said by
  // ours.
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  if (const Status status = crypto::RequireTls13(); !status.ok()) {
    std::cerr << "selvage-coordinator: " << status.message() << "\n";
    return kExitFailed;
  }
  // Before any thread exists, so that all of them inherit it.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);

  Arguments arguments;
  const std::vector<Setting> settings = Settings();
  CLI::App app("The Selvage coordinator: runs rounds for devices and people.",
               "selvage-coordinator");
  app.footer(kExamples);
  app.set_version_flag("--version", "selvage-coordinator " +
                                        std::string(Version()) + " (" +
                                        std::string(Commit()) + ")");
  app.add_option("--config", arguments.config_file,
                 "a YAML file of settings [SELVAGE_CONFIG]")
      ->type_name("FILE");
  app.add_flag("--check-config", arguments.check_config,
               "say what is wrong with the settings, and stop");
  app.add_flag("--print-config", arguments.print_config,
               "print the effective settings as YAML, and stop");
  bool migrate = false;
  app.add_subcommand("migrate",
                     "bring the schema of store.postgres up to date, and stop")
      ->fallthrough()
      ->callback([&migrate] { migrate = true; });
  bool begin_epoch = false;
  app.add_subcommand("begin-epoch",
                     "after store.postgres was put back to an older state: end "
                     "old rounds and sessions, and stop")
      ->fallthrough()
      ->callback([&begin_epoch] { begin_epoch = true; });
  std::string backup;
  app.add_subcommand("restore",
                     "put a backup into an empty data directory, and stop")
      ->fallthrough()
      ->add_option("backup", backup, "the backup's folder")
      ->required()
      ->type_name("DIR");
  ProxyCertificateOptions proxy;
  int proxy_days = 90;
  std::string proxy_out = "proxy";
  CLI::App& issue_proxy =
      *app.add_subcommand("proxy-certificate",
                          "make the key and the certificate of a balancer that "
                          "ends TLS (device.proxies), and stop");
  issue_proxy.fallthrough();
  issue_proxy.add_option("name", proxy.name, "what device.proxies calls it")
      ->required()
      ->type_name("NAME");
  issue_proxy
      .add_option("--host", proxy.hosts,
                  "a DNS name or IP address that devices connect to; may be "
                  "given again")
      ->required()
      ->type_name("HOST");
  issue_proxy.add_option("--days", proxy_days, "how long it is valid")
      ->capture_default_str()
      ->check(CLI::Range(1, 397));
  issue_proxy.add_option("--out", proxy_out, "where the files go")
      ->capture_default_str()
      ->type_name("DIR");
  const Config defaults;
  for (const Setting& setting : settings) {
    const std::string key(setting.key);
    std::string help(setting.help);
    if (const std::string value = setting.get(defaults); !value.empty()) {
      help += "; default: " + value;
    }
    if (setting.value == "true|false") {
      app.add_flag_callback(
          setting.Flag(), [&arguments, key] { arguments.flags[key] = "true"; },
          help);
      continue;
    }
    app.add_option_function<std::string>(
           setting.Flag(),
           [&arguments, key](const std::string& value) {
             arguments.flags[key] = value;
           },
           help)
        ->type_name(std::string(setting.value));
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : kExitUsage;
  }
  ConfigSources sources;
  sources.variable = Variable;
  sources.flags = arguments.flags;
  if (arguments.config_file.empty()) {
    arguments.config_file = Variable("SELVAGE_CONFIG").value_or("");
  }
  if (!arguments.config_file.empty()) {
    std::ifstream in(arguments.config_file, std::ios::binary);
    if (!in) {
      std::cerr << "selvage-coordinator: cannot read " << arguments.config_file
                << "\n";
      return kExitUsage;
    }
    sources.file_name = arguments.config_file;
    sources.file = std::string(std::istreambuf_iterator<char>(in), {});
  }
  const LoadedConfig loaded = LoadConfig(sources);
  for (const std::string& mistake : loaded.mistakes) {
    std::cerr << mistake << "\n";
  }
  if (!loaded.mistakes.empty()) return kExitUsage;
  if (arguments.print_config) {
    std::cout << PrintConfig(loaded.config);
    return 0;
  }
  if (arguments.check_config) {
    std::cout << "the settings are good\n";
    return 0;
  }
  if (!backup.empty()) return RestoreFrom(loaded.config, backup);
  if (begin_epoch) return BeginEpoch(loaded.config);
  if (issue_proxy.parsed()) {
    proxy.lifetime = std::chrono::hours(24 * proxy_days);
    proxy.out = proxy_out;
    return IssueProxyCertificate(loaded.config, proxy);
  }
  return migrate ? Migrate(loaded.config) : Serve(loaded.config, signals);
}

}  // namespace
}  // namespace selvage::coordinator

int main(int argc, char** argv) {
  return selvage::coordinator::Main(argc, argv);
}

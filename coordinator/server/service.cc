#include "coordinator/server/service.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>
#include <thread>
#include <utility>

#include "base/version.h"
#include "coordinator/store/file_blob_store.h"
#include "coordinator/store/sqlite_store.h"

namespace selvage::coordinator {
namespace {

constexpr char kDatabaseFile[] = "coordinator.db";
constexpr size_t kWrappingKeySize = 32;
constexpr char kEndpointsFile[] = "endpoints.json";
constexpr uint64_t kPasswordFileSizeMax = 4096;
// Between two attempts to reach a database that is away at the start.
constexpr Duration kDatabasePauseMin = std::chrono::milliseconds(250);
constexpr Duration kDatabasePauseMax = std::chrono::seconds(15);
constexpr auto kDrainPoll = std::chrono::milliseconds(10);
// For the last answers, however long the uploads took.
constexpr Duration kAnswersGrace = std::chrono::seconds(1);
// Two descriptors per connection (ours is a duplicate), and some for the rest.
constexpr uint64_t kOtherDescriptors = 128;

bool IsWildcard(const std::string& host) {
  return host == "0.0.0.0" || host == "::";
}

std::string Join(const std::string& host, int port) {
  const bool v6 = host.find(':') != std::string::npos;
  return (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

std::string HostOf(const std::string& address) {
  const Result<HostPort> parsed = ParseHostPort(address);
  return parsed.ok() ? parsed->host : "";
}

std::string MetricsAddress(const Config& config) {
  return config.metrics_address == kMetricsAuto ? kMetricsAddress
                                                : config.metrics_address;
}

Path BlobsDir(const Config& config) {
  return config.blobs_dir.empty() ? config.data_dir / "blobs"
                                  : config.blobs_dir;
}

// Where a process on this machine reaches `address`.
std::string LocalAddress(const std::string& address, int port) {
  const std::string host = HostOf(address);
  if (host == "0.0.0.0") return Join("127.0.0.1", port);
  if (host == "::") return Join("::1", port);
  return Join(host, port);
}

// This machine's name, or "" if it could not stand in a certificate.
std::string HostName() {
  char name[256] = {};
  if (gethostname(name, sizeof name - 1) != 0) return "";
  const std::string out(name);
  const bool plain = std::all_of(out.begin(), out.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c >= '0' && c <= '9') || c == '-' || c == '.';
  });
  return plain ? out : "";
}

// As many descriptors as the system lets us have; returns how many.
uint64_t RaiseDescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  getrlimit(RLIMIT_NOFILE, &limit);
  return limit.rlim_cur;
}

}  // namespace

std::vector<std::string> ServerNames(const Config& config,
                                     const std::string& host_name) {
  std::vector<std::string> names = config.server_names;
  if (names.empty()) {
    names = {"localhost", "127.0.0.1", "::1"};
    if (!host_name.empty()) names.push_back(host_name);
  }
  for (const std::string& host :
       {HostOf(config.device_endpoint), HostOf(config.device_address),
        HostOf(config.admin_address)}) {
    if (!host.empty() && !IsWildcard(host)) names.push_back(host);
  }
  std::vector<std::string> unique;
  for (std::string& name : names) {
    if (std::find(unique.begin(), unique.end(), name) == unique.end()) {
      unique.push_back(std::move(name));
    }
  }
  return unique;
}

std::string DeviceEndpoint(const Config& config, const std::string& host_name,
                           int port) {
  if (!config.device_endpoint.empty()) return config.device_endpoint;
  const std::string host = HostOf(config.device_address);
  if (!IsWildcard(host)) return Join(host, port);
  if (!config.server_names.empty()) {
    return Join(config.server_names.front(), port);
  }
  return Join(host_name.empty() ? "localhost" : host_name, port);
}

Result<ConnectOptions> PostgresAddress(const Config& config,
                                       FileSystem& files) {
  ConnectOptions connect;
  connect.conninfo = config.store_postgres;
  if (config.store_password_file.empty()) return connect;
  auto text = ReadFile(files, config.store_password_file, kPasswordFileSizeMax);
  if (!text.ok()) return text.status().WithContext("store.password_file");
  connect.password = ToString(*text);
  connect.password.erase(std::min(connect.password.find_first_of("\r\n"),
                                  connect.password.size()));
  return connect;
}

Result<std::unique_ptr<PostgresStore>> OpenPostgresStore(const Config& config,
                                                         FileSystem& files,
                                                         Clock& steady,
                                                         RandomSource& random,
                                                         bool migrate) {
  PostgresStoreOptions options;
  SELVAGE_ASSIGN_OR_RETURN(options.connect, PostgresAddress(config, files));
  options.pool_size = config.store_pool_size;
  options.statement_timeout = config.store_statement_timeout;
  options.lock_timeout = config.store_lock_timeout;
  options.operation_timeout = config.store_operation_timeout;
  options.migrate = migrate;
  return PostgresStore::Open(options, steady, random);
}

Result<std::unique_ptr<Service>> Service::Start(
    const Config& config, FileSystem& files, Clock& clock, RandomSource& random,
    EventSink& log, std::function<void(const Status&)> on_lost,
    std::function<bool(Duration)> pause) {
  std::unique_ptr<Service> service(
      new Service(config, files, log, std::move(on_lost), std::move(pause)));
  SELVAGE_RETURN_IF_ERROR(service->Open(clock, random));
  return service;
}

Status Service::BecomeMember(RandomSource& random, const std::string& host_name,
                             const std::string& keys) {
  // The lock of the data directory: whoever had this name before is gone.
  std::error_code error;
  const Path data_dir = std::filesystem::canonical(config_.data_dir, error);
  Bytes session(8);
  random.Fill(session);
  Membership::Options options;
  options.row.name = config_.replicas_name.empty()
                         ? host_name + ":" + data_dir.string()
                         : config_.replicas_name;
  options.row.session = ToHex(session);
  options.row.shared = config_.replicas_enabled;
  options.row.keys = keys;
  options.lease = config_.replicas_lease;
  options.blobs_dir = config_.blobs_dir;
  options.on_lost = on_lost_;
  SELVAGE_ASSIGN_OR_RETURN(
      membership_,
      Membership::Join(std::move(options), files_, *postgres_, log_));
  return OkStatus();
}

Status Service::OpenMetrics() {
  if (config_.metrics_address == kMetricsOff) return OkStatus();
  telemetry_ = std::make_unique<PrometheusTelemetry>(Version(), Commit());
  SELVAGE_ASSIGN_OR_RETURN(const HostPort address,
                           ParseHostPort(MetricsAddress(config_)));
  Result<std::unique_ptr<OperatorPort>> port =
      OperatorPort::Start(address.host, address.port,
                          {.metrics = [this] { return telemetry_->Text(); },
                           .ready = [this] { return ready_.load(); }});
  if (port.ok()) {
    operator_port_ = *std::move(port);
    return OkStatus();
  }
  if (config_.metrics_address != kMetricsAuto) return port.status();
  // Nobody asked for it, so a second coordinator on a machine is no mistake.
  log_.Write(LogLevel::kWarning, "metrics_not_served",
             {{"reason", port.status().ToString()}});
  telemetry_.reset();
  return OkStatus();
}

void Service::MeterStores() {
  if (telemetry_ == nullptr) return;
  metered_store_ =
      std::make_unique<MeteredStore>(*store_, steady_, *telemetry_);
  metered_blobs_ =
      std::make_unique<MeteredBlobStore>(*blobs_, steady_, *telemetry_);
  telemetry_->AddGauge(
      "selvage_connections_open", "Connections of devices.", [this] {
        return static_cast<double>(rpc_->socket_stats().connections_open);
      });
  telemetry_->CountConnectionsRefused(
      [this] { return rpc_->socket_stats().connections_refused; });
  if (postgres_ == nullptr) return;
  telemetry_->AddGauge(
      "selvage_db_pool_in_use", "Connections to the database in use.",
      [this] { return static_cast<double>(postgres_->connections_in_use()); });
}

Status Service::OpenKeysAndStore(Clock& clock, RandomSource& random,
                                 const std::string& host_name) {
  const Path& data_dir = config_.data_dir;
  std::error_code error;
  first_start_ = !std::filesystem::exists(data_dir / kDatabaseFile, error);
  if (!config_.store_postgres.empty()) {
    SELVAGE_ASSIGN_OR_RETURN(std::unique_ptr<PostgresStore> store,
                             AwaitDatabase(clock, random, host_name));
    postgres_ = store.get();
    store_ = std::move(store);
    if (!config_.replicas_enabled) {
      SELVAGE_RETURN_IF_ERROR(BecomeMember(random, host_name, ""));
    }
    // A coordinator whose database has something has had its keys.
    SELVAGE_ASSIGN_OR_RETURN(const auto populations,
                             store_->ListPopulations("", 1));
    first_start_ = populations.empty();
  }
  if (keys_ == nullptr) {
    SELVAGE_RETURN_IF_ERROR(ReadKeys(clock, random, host_name, first_start_));
  }
  if (config_.replicas_enabled) {
    SELVAGE_ASSIGN_OR_RETURN(const std::string fingerprint,
                             SharedKeysFingerprint(*keys_));
    SELVAGE_RETURN_IF_ERROR(BecomeMember(random, host_name, fingerprint));
  }
  return OkStatus();
}

Status Service::ReadKeys(Clock& clock, RandomSource& random,
                         const std::string& host_name, bool may_create) {
  const Path& data_dir = config_.data_dir;
  const Path& keys_dir = config_.keys_dir.empty() ? data_dir : config_.keys_dir;
  SELVAGE_ASSIGN_OR_RETURN(
      CoordinatorKeys keys,
      OpenKeys(files_,
               {.data_dir = data_dir,
                .keys_dir = keys_dir,
                .wrapping_key_file = config_.wrapping_key_file.empty()
                                         ? keys_dir / "keys" / "wrapping.key"
                                         : config_.wrapping_key_file,
                .server_names = ServerNames(config_, host_name),
                .may_create = may_create},
               clock.Now(), random));
  keys_ = std::make_unique<const CoordinatorKeys>(std::move(keys));
  return OkStatus();
}

Result<std::unique_ptr<PostgresStore>> Service::AwaitDatabase(
    Clock& clock, RandomSource& random, const std::string& host_name) {
  bool told = false;
  Duration pause = kDatabasePauseMin;
  for (;;) {
    Result<std::unique_ptr<PostgresStore>> store = OpenPostgresStore(
        config_, files_, steady_, random, config_.store_migrate);
    if (pause_ == nullptr || store.ok() ||
        store.status().code() != StatusCode::kUnavailable) {
      return store;
    }
    log_.Write(LogLevel::kWarning, "database_away",
               {{"reason", store.status().message()},
                {"retry_ms", pause.count() / 1000}});
    if (!std::exchange(told, true)) {
      SELVAGE_RETURN_IF_ERROR(ServeWithoutDatabase(clock, random, host_name));
    }
    if (!pause_(pause)) return Cancelled("ended while the database was away");
    pause = std::min(2 * pause, kDatabasePauseMax);
  }
}

Status Service::ServeWithoutDatabase(Clock& clock, RandomSource& random,
                                     const std::string& host_name) {
  // Whether a missing key is a first start or a loss, the database will say.
  if (const Status read = ReadKeys(clock, random, host_name, false);
      !read.ok()) {
    log_.Write(LogLevel::kWarning, "nothing_served",
               {{"reason", read.message()}});
    return OkStatus();
  }
  SELVAGE_RETURN_IF_ERROR(Bind(clock));
  SELVAGE_RETURN_IF_ERROR(Serve(host_name));
  log_.Write(
      LogLevel::kInfo, "serving_without_database",
      {{"device", Join(HostOf(config_.device_address), rpc_->device_port())},
       {"admin", Join(HostOf(config_.admin_address), rpc_->admin_port())}});
  return OkStatus();
}

Status Service::Serve(const std::string& host_name) {
  const std::string endpoint =
      DeviceEndpoint(config_, host_name, rpc_->device_port());
  SELVAGE_RETURN_IF_ERROR(rpc_->Serve(late_, late_, endpoint));
  SELVAGE_RETURN_IF_ERROR(WriteEndpoints(endpoint));
  ready_ = true;
  return OkStatus();
}

Status Service::Bind(Clock& clock) {
  RpcServerOptions rpc;
  rpc.device_address = config_.device_address;
  rpc.admin_address = config_.admin_address;
  rpc.connections_max = config_.connections_max;
  rpc.streams_max = static_cast<int>(config_.streams_max);
  rpc.connection_idle = config_.connection_idle;
  rpc.connection_age = config_.connection_age;
  rpc.connection_age_grace = config_.connection_age_grace;
  rpc.reflection = config_.admin_reflection;
  rpc.device.call_timeout = config_.call_timeout;
  rpc.device.upload_rate_min = config_.upload_rate_min;
  const uint64_t descriptors = RaiseDescriptorLimit();
  const uint64_t affordable = descriptors > 2 * kOtherDescriptors
                                  ? (descriptors - kOtherDescriptors) / 2
                                  : kOtherDescriptors / 2;
  if (rpc.connections_max > affordable) {
    log_.Write(LogLevel::kWarning, "connections_limited",
               {{"limits.connections", config_.connections_max},
                {"open_files_max", descriptors},
                {"connections_max", affordable}});
    rpc.connections_max = affordable;
  }
  if (!config_.insecure) {
    rpc.tls = ServerTls{keys_->authority.certificate_pem(),
                        keys_->server_certificate_pem,
                        std::string(keys_->server_key.ExposeSecret())};
    rpc.proxies = config_.device_proxies;
  }
  rpc.telemetry = telemetry_.get();
  rpc.admin.telemetry = telemetry_.get();
  rpc.admin.bearer_token = keys_->admin_token;
  rpc.admin.artefact_size_max = config_.artefact_bytes_max;
  if (!config_.backup_dir.empty() && config_.store_postgres.empty()) {
    rpc.admin.backup = [this](const std::string& name,
                              const std::function<bool()>& stop) {
      return Backup(name, stop);
    };
  }
  SELVAGE_ASSIGN_OR_RETURN(rpc_, RpcServer::Bind(std::move(rpc), clock, log_));
  return OkStatus();
}

Status Service::Open(Clock& clock, RandomSource& random) {
  const Path& data_dir = config_.data_dir;
  const std::string host_name = HostName();
  Status created = files_.CreateDirectories(data_dir);
  if (!created.ok()) return created.WithContext(data_dir.string());
  SELVAGE_ASSIGN_OR_RETURN(
      lock_, FileLock::Acquire(data_dir / kLockFile, "coordinator"));
  SELVAGE_RETURN_IF_ERROR(OpenMetrics());
  SELVAGE_RETURN_IF_ERROR(OpenKeysAndStore(clock, random, host_name));

  if (rpc_ == nullptr) SELVAGE_RETURN_IF_ERROR(Bind(clock));
  const std::string device_endpoint =
      DeviceEndpoint(config_, host_name, rpc_->device_port());

  if (store_ == nullptr) {
    SELVAGE_ASSIGN_OR_RETURN(
        std::unique_ptr<SqliteStore> store,
        SqliteStore::Open(
            {.path = data_dir / kDatabaseFile, .lock_directory = false}, clock,
            random));
    sqlite_ = store.get();
    store_ = std::move(store);
  }
  SELVAGE_ASSIGN_OR_RETURN(
      blobs_,
      FileBlobStore::Open(files_, BlobsDir(config_),
                          membership_ == nullptr ? "" : membership_->writer()));
  MeterStores();
  CoordinatorOptions options;
  options.device_endpoint = device_endpoint;
  options.insecure = config_.insecure;
  options.pace = {config_.retry_min, config_.retry_max};
  options.pace_target_per_second =
      static_cast<double>(config_.check_ins_per_second);
  options.pace_window_max = config_.pace_window_max;
  options.pace_accepted_min = config_.pace_accepted_min;
  options.upload_bytes_max = config_.upload_bytes_max;
  options.staged_above = config_.staged_above;
  options.staged_bytes_max = config_.staged_bytes_max;
  options.held_bytes_max = config_.held_bytes_max;
  options.rule_threads =
      std::clamp<size_t>(std::thread::hardware_concurrency(), 1, 64);
  options.certificate_lifetime = config_.certificate_lifetime;
  options.identity_certificate_lifetime = config_.identity_certificate_lifetime;
  options.replicas.shared = config_.replicas_enabled;
  options.replicas.name =
      config_.replicas_name.empty() ? host_name : config_.replicas_name;
  options.replicas.claim_ttl = config_.replicas_lease;
  options.replicas.poll = config_.replicas_poll;
  SELVAGE_ASSIGN_OR_RETURN(
      coordinator_,
      Coordinator::Open(
          options,
          {.store = metered_store_ == nullptr ? *store_ : *metered_store_,
           .blobs = metered_blobs_ == nullptr ? *blobs_ : *metered_blobs_,
           .clock = clock,
           .random = random,
           .events = log_,
           .authority = keys_->authority,
           .plan_key = keys_->plan_key,
           .wrapping_key = keys_->wrapping_key,
           .server_key = keys_->assignment_key,
           .telemetry = telemetry_.get()}));
  coordinator_->Start();
  if (config_.replicas_enabled) {
    SELVAGE_ASSIGN_OR_RETURN(const ConnectOptions connect,
                             PostgresAddress(config_, files_));
    listener_ = std::make_unique<RoundListener>(
        connect, log_,
        [this](uint64_t task_id) { coordinator_->Hint(task_id); });
  }
  late_.Open(*coordinator_, *coordinator_);
  if (!ready_) SELVAGE_RETURN_IF_ERROR(Serve(host_name));
  log_.Write(
      LogLevel::kInfo, "serving",
      {{"version", Version()},
       {"commit", Commit()},
       {"data_dir", data_dir.string()},
       {"store", config_.store_postgres.empty() ? "sqlite" : "postgres"},
       {"device", Join(HostOf(config_.device_address), rpc_->device_port())},
       {"device_endpoint", device_endpoint},
       {"admin", Join(HostOf(config_.admin_address), rpc_->admin_port())},
       {"metrics",
        operator_port_ == nullptr
            ? kMetricsOff
            : Join(HostOf(MetricsAddress(config_)), operator_port_->port())},
       {"insecure", config_.insecure ? "true" : "false"},
       {"replicas", config_.replicas_enabled ? "true" : "false"},
       {"first_start", first_start_ ? "true" : "false"}});
  return OkStatus();
}

Result<BackupInfo> Service::Backup(const std::string& name,
                                   const std::function<bool()>& stop) {
  SELVAGE_ASSIGN_OR_RETURN(
      const BackupManifest made,
      MakeBackup(*sqlite_, *blobs_, files_, config_.backup_dir, name, stop));
  return BackupInfo{(config_.backup_dir / name).string(), made.instance_id,
                    made.artefacts.size(), made.Bytes(), made.created};
}

Result<Restored> Restore(const Config& config, const Path& backup,
                         FileSystem& files, Clock& clock,
                         RandomSource& random) {
  if (!config.store_postgres.empty()) {
    return InvalidArgument(
        "store.postgres is set: restore with PostgreSQL's own tools");
  }
  SELVAGE_ASSIGN_OR_RETURN(Restored restored,
                           RestoreBackup(files, backup,
                                         {.data_dir = config.data_dir,
                                          .blobs_dir = BlobsDir(config),
                                          .database_file = kDatabaseFile},
                                         clock, random));
  // No round of a restored state is open, so a new wrapping key is as good as
  // the one that was in use, which is in no backup.
  const Path keys_dir =
      (config.keys_dir.empty() ? config.data_dir : config.keys_dir) / "keys";
  const Path wrapping = config.wrapping_key_file.empty()
                            ? keys_dir / "wrapping.key"
                            : config.wrapping_key_file;
  std::error_code error;
  if (!std::filesystem::exists(wrapping, error)) {
    SELVAGE_RETURN_IF_ERROR(files.CreateDirectories(wrapping.parent_path()));
    crypto::SecretBytes key(kWrappingKeySize);
    random.Fill(key.writable());
    SELVAGE_RETURN_IF_ERROR(WriteFileDurably(
        files, wrapping, AsBytes(ToHex(key.ExposeSecret()) + "\n"), 0600));
  }
  return restored;
}

Status Service::WriteEndpoints(const std::string& device_endpoint) {
  nlohmann::json endpoints = {
      {"admin", LocalAddress(config_.admin_address, rpc_->admin_port())},
      {"device", LocalAddress(config_.device_address, rpc_->device_port())},
      {"device_endpoint", device_endpoint},
      {"insecure", config_.insecure},
      {"pid", getpid()},
  };
  if (operator_port_ != nullptr) {
    endpoints["metrics"] =
        LocalAddress(MetricsAddress(config_), operator_port_->port());
  }
  return WriteFileDurably(files_, config_.data_dir / kEndpointsFile,
                          AsBytes(endpoints.dump(2) + "\n"), 0600);
}

void Service::Drain() {
  if (rpc_ == nullptr || coordinator_ == nullptr) return;
  log_.Write(LogLevel::kInfo, "draining",
             {{"delay_ms", config_.drain_delay.count() / 1000},
              {"timeout_ms", config_.drain_timeout.count() / 1000}});
  ready_ = false;
  rpc_->SetHealthy(false);
  coordinator_->StopAssigning();
  std::this_thread::sleep_for(config_.drain_delay);
  coordinator_->Drain();
  const auto deadline =
      std::chrono::steady_clock::now() + config_.drain_timeout;
  while (!coordinator_->Drained() &&
         std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(kDrainPoll);
  }
  const bool drained = coordinator_->Drained();
  // Calls that are still there are answered or cancelled before the
  // coordinator's thread ends; whoever fetches a model has the same time.
  rpc_->Shutdown(std::max<Duration>(
      kAnswersGrace, std::chrono::duration_cast<Duration>(
                         deadline - std::chrono::steady_clock::now())));
  coordinator_->Stop();
  log_.Write(LogLevel::kInfo, "stopped",
             {{"drained", drained ? "true" : "false"}});
}

Service::~Service() {
  if (telemetry_ != nullptr) telemetry_->StopAsking();
  operator_port_.reset();
  // Nobody is here any more; a file left by a crash says so by its pid.
  if (rpc_ != nullptr && rpc_->admin_port() != 0) {
    static_cast<void>(files_.Remove(config_.data_dir / kEndpointsFile));
    rpc_->Shutdown(Duration::zero());
  }
  listener_.reset();
  if (coordinator_ != nullptr) coordinator_->Stop();
  rpc_.reset();  // and a backup that is being made
}

}  // namespace selvage::coordinator

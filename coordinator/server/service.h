// A coordinator process put together: data directory, keys, store, coordinator,
// ports.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "base/file_lock.h"
#include "base/file_system.h"
#include "base/log.h"
#include "base/random.h"
#include "base/status.h"
#include "base/time.h"
#include "coordinator/coordinator.h"
#include "coordinator/postgres/postgres_store.h"
#include "coordinator/postgres/round_listener.h"
#include "coordinator/postgres/steady_clock.h"
#include "coordinator/rpc/server.h"
#include "coordinator/server/config.h"
#include "coordinator/server/key_files.h"
#include "coordinator/server/late_api.h"
#include "coordinator/server/membership.h"
#include "coordinator/store/backup.h"
#include "coordinator/telemetry/metered_blob_store.h"
#include "coordinator/telemetry/metered_store.h"
#include "coordinator/telemetry/operator_port.h"
#include "coordinator/telemetry/prometheus_telemetry.h"

namespace selvage::coordinator {

class Service {
 public:
  // Locks the data directory, creates what is missing, recovers, and serves.
  // When it returns OK, endpoints.json in the data directory says where:
  // {"admin": "HOST:PORT", "device": "HOST:PORT", "device_endpoint":
  // "HOST:PORT", "insecure": false, "metrics": "HOST:PORT", "pid": N}.
  // FAILED_PRECONDITION: another process has the directory, or the database and
  // does not share it. All but `config` must outlive the service. `on_lost` is
  // called, from another thread, when another process has taken this one's
  // place in the database (Membership): the process must end at once.
  //
  // While the PostgreSQL of `config` is away this does not return: both ports
  // serve, if the keys are there, and answer UNAVAILABLE with a time to come
  // back; `pause` lets the given time pass before every other attempt.
  // CANCELLED: it returned false. Null: UNAVAILABLE at once instead.
  static Result<std::unique_ptr<Service>> Start(
      const Config& config, FileSystem& files, Clock& clock,
      RandomSource& random, EventSink& log,
      std::function<void(const Status&)> on_lost,
      std::function<bool(Duration)> pause);
  ~Service();
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  // The graceful end: health says NOT_SERVING and no more work is given out;
  // drain.delay passes; new uploads are refused, running calls finish within
  // drain.timeout, claims of rounds are given back, ports close.
  void Drain();

  // How often the coordinator's thread has come round (Coordinator::turns()).
  uint64_t turns() const { return coordinator_->turns(); }

 private:
  Service(const Config& config, FileSystem& files, EventSink& log,
          std::function<void(const Status&)> on_lost,
          std::function<bool(Duration)> pause)
      : config_(config),
        files_(files),
        log_(log),
        on_lost_(std::move(on_lost)),
        pause_(std::move(pause)) {}
  Status Open(Clock& clock, RandomSource& random);
  // The port for operators, unless it is off.
  Status OpenMetrics();
  // With metrics, the calls of the stores are measured from here on.
  void MeterStores();
  Status OpenKeysAndStore(Clock& clock, RandomSource& random,
                          const std::string& host_name);
  Status ReadKeys(Clock& clock, RandomSource& random,
                  const std::string& host_name, bool may_create);
  Result<std::unique_ptr<PostgresStore>> AwaitDatabase(
      Clock& clock, RandomSource& random, const std::string& host_name);
  Status ServeWithoutDatabase(Clock& clock, RandomSource& random,
                              const std::string& host_name);
  // The device port is known; both ports serve.
  Status Bind(Clock& clock);
  Status Serve(const std::string& host_name);
  // `keys`: their fingerprint.
  Status BecomeMember(RandomSource& random, const std::string& host_name,
                      const std::string& keys);
  // From a thread of the admin port.
  Result<BackupInfo> Backup(const std::string& name,
                            const std::function<bool()>& stop);
  Status WriteEndpoints(const std::string& device_endpoint);

  const Config config_;
  FileSystem& files_;
  EventSink& log_;
  const std::function<void(const Status&)> on_lost_;
  const std::function<bool(Duration)> pause_;
  bool first_start_ = false;
  // In the order in which they need each other.
  SteadyClock steady_;
  std::unique_ptr<PrometheusTelemetry> telemetry_;  // null: metrics are off
  std::atomic<bool> ready_{false};
  std::unique_ptr<OperatorPort> operator_port_;
  std::unique_ptr<FileLock> lock_;
  std::unique_ptr<const CoordinatorKeys> keys_;
  std::unique_ptr<Store> store_;
  PostgresStore* postgres_ = nullptr;  // store_, if it is one
  std::unique_ptr<Membership> membership_;
  SqliteStore* sqlite_ = nullptr;  // store_, if it is one
  std::unique_ptr<BlobStore> blobs_;
  // With metrics; else null.
  std::unique_ptr<MeteredStore> metered_store_;
  std::unique_ptr<MeteredBlobStore> metered_blobs_;
  std::unique_ptr<Coordinator> coordinator_;
  std::unique_ptr<RoundListener> listener_;
  LateApi late_;
  std::unique_ptr<RpcServer> rpc_;
};

// Where `store.postgres` says, with the password of its file. NOT_FOUND and
// what else may be wrong with the file.
Result<ConnectOptions> PostgresAddress(const Config& config, FileSystem& files);

// The store of `store.postgres`. Errors as of PostgresStore::Open(), and of the
// password's file. `steady` must outlive it; `migrate` is in place of
// store.migrate.
Result<std::unique_ptr<PostgresStore>> OpenPostgresStore(const Config& config,
                                                         FileSystem& files,
                                                         Clock& steady,
                                                         RandomSource& random,
                                                         bool migrate);

// `selvage-coordinator restore`: puts `backup` into the data directory of these
// settings (RestoreBackup()), with a new wrapping key if there is none.
// INVALID_ARGUMENT: the rows are in PostgreSQL.
Result<Restored> Restore(const Config& config, const Path& backup,
                         FileSystem& files, Clock& clock, RandomSource& random);

// The names for the server's certificate: those configured, or localhost,
// 127.0.0.1, ::1 and `host_name`; and the hosts devices are told to use.
std::vector<std::string> ServerNames(const Config& config,
                                     const std::string& host_name);
// What enrolment bundles say, given the port that was bound.
std::string DeviceEndpoint(const Config& config, const std::string& host_name,
                           int port);

}  // namespace selvage::coordinator

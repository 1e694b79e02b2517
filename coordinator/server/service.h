// A coordinator process put together: data directory, keys, store, coordinator,
// ports.
#pragma once

#include <memory>
#include <string>

#include "base/file_lock.h"
#include "base/file_system.h"
#include "base/log.h"
#include "base/random.h"
#include "base/status.h"
#include "base/time.h"
#include "coordinator/coordinator.h"
#include "coordinator/postgres/postgres_store.h"
#include "coordinator/postgres/steady_clock.h"
#include "coordinator/rpc/server.h"
#include "coordinator/server/config.h"
#include "coordinator/server/key_files.h"

namespace selvage::coordinator {

class Service {
 public:
  // Locks the data directory, creates what is missing, recovers, and serves.
  // When it returns OK, endpoints.json in the data directory says where:
  // {"admin": "HOST:PORT", "device": "HOST:PORT", "device_endpoint":
  // "HOST:PORT", "insecure": false, "pid": N}. FAILED_PRECONDITION: another
  // process has the directory. All but `config` must outlive the service.
  static Result<std::unique_ptr<Service>> Start(const Config& config,
                                                FileSystem& files, Clock& clock,
                                                RandomSource& random,
                                                EventSink& log);
  ~Service();
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  // The graceful end: health says NOT_SERVING, drain.delay passes, no more work
  // is given out, running uploads finish within drain.timeout, ports close.
  void Drain();

 private:
  Service(const Config& config, FileSystem& files, EventSink& log)
      : config_(config), files_(files), log_(log) {}
  Status Open(Clock& clock, RandomSource& random);
  Status WriteEndpoints(const std::string& device_endpoint);

  const Config config_;
  FileSystem& files_;
  EventSink& log_;
  // In the order in which they need each other.
  SteadyClock steady_;
  std::unique_ptr<FileLock> lock_;
  std::unique_ptr<const CoordinatorKeys> keys_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<BlobStore> blobs_;
  std::unique_ptr<Coordinator> coordinator_;
  std::unique_ptr<RpcServer> rpc_;
};

// The store of `store.postgres`. Errors as of PostgresStore::Open(), and of the
// password's file. `steady` must outlive it; `migrate` is in place of
// store.migrate.
Result<std::unique_ptr<PostgresStore>> OpenPostgresStore(const Config& config,
                                                         FileSystem& files,
                                                         Clock& steady,
                                                         RandomSource& random,
                                                         bool migrate);

// The names for the server's certificate: those configured, or localhost,
// 127.0.0.1, ::1 and `host_name`; and the hosts devices are told to use.
std::vector<std::string> ServerNames(const Config& config,
                                     const std::string& host_name);
// What enrolment bundles say, given the port that was bound.
std::string DeviceEndpoint(const Config& config, const std::string& host_name,
                           int port);

}  // namespace selvage::coordinator

// The way between devices and a coordinator that live in one process: the
// messages of selvage.v1 and both sides' conversions, without sockets, TLS and
// threads of its own. Whoever asks also lets the coordinator work, so that
// nothing ever waits for real time.
#pragma once

#include "base/mutex.h"
#include "base/status.h"
#include "client/core/transport.h"
#include "coordinator/coordinator.h"

namespace selvage::bench {

// Thread-safe. Outlives the transports that it makes.
class LocalService {
 public:
  // The coordinator has not been started, and nobody else polls it.
  explicit LocalService(coordinator::Coordinator& coordinator)
      : coordinator_(coordinator) {}

  // A device is whom its endpoint says.
  client::TransportFactory Transports();

  coordinator::Coordinator& coordinator() { return coordinator_; }
  void Poll() SELVAGE_EXCLUDES(mu_);

 private:
  coordinator::Coordinator& coordinator_;
  Mutex mu_;  // one thread at a time is the worker
};

}  // namespace selvage::bench

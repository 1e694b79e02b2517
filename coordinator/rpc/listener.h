// The device port's socket, owned by us rather than by gRPC: so that the number
// of connections is bounded, and bytes are counted where they cost money, at
// the socket (TLS and HTTP/2 framing included; TCP/IP headers not).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <unordered_set>

#include "base/log.h"
#include "base/mutex.h"
#include "base/status.h"

namespace selvage::coordinator {

struct SocketStats {
  uint64_t connections_accepted = 0;
  uint64_t connections_refused = 0;  // over the bound
  uint64_t connections_open = 0;
  uint64_t bytes_received = 0;
  uint64_t bytes_sent = 0;
};

// Accepts connections and hands each to `Handler`, which owns the descriptor
// from then on. A duplicate of it stays here until the connection ends, for
// TCP_INFO's counters: exact for open connections; for an ended one as far as
// the kernel had sent when it was shut down.
// Thread-safe.
class Listener {
 public:
  // `address` is "HOST:PORT", "[V6]:PORT"; port 0 takes a free one; [::] takes
  // IPv4 too. INVALID_ARGUMENT if it cannot be parsed, UNAVAILABLE if it cannot
  // be bound. `log` must outlive the listener.
  static Result<std::unique_ptr<Listener>> Bind(const std::string& address,
                                                uint64_t connections_max,
                                                EventSink& log);
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  int port() const { return port_; }

  // Connections wait in the kernel's queue until this is called; once.
  using Handler = std::function<void(int fd)>;
  void Start(Handler handler);
  // New connections are refused from here on; open ones are still counted.
  void StopAccepting();
  // Ends the connections that are open, as if their peers had.
  void Disconnect() SELVAGE_EXCLUDES(mu_);

  SocketStats stats() const SELVAGE_EXCLUDES(mu_);

 private:
  Listener(int listen_fd, int epoll_fd, int wake_fd, int port,
           uint64_t connections_max, EventSink& log);

  void Run() SELVAGE_EXCLUDES(mu_);
  // False if the process is out of descriptors.
  bool AcceptAll() SELVAGE_EXCLUDES(mu_);
  void EndIfClosed(int fd) SELVAGE_EXCLUDES(mu_);

  const int listen_fd_;
  const int epoll_fd_;
  const int wake_fd_;  // an eventfd
  const int port_;
  const uint64_t connections_max_;
  EventSink& log_;
  Handler handler_;
  std::thread thread_;

  mutable Mutex mu_;
  bool stop_accepting_ SELVAGE_GUARDED_BY(mu_) = false;
  bool stop_ SELVAGE_GUARDED_BY(mu_) = false;
  // Totals of connections that ended.
  SocketStats ended_ SELVAGE_GUARDED_BY(mu_);
  // Our duplicates of open connections.
  std::unordered_set<int> open_ SELVAGE_GUARDED_BY(mu_);
};

// Splits "HOST:PORT" or "[V6]:PORT". INVALID_ARGUMENT names `address`.
struct HostPort {
  std::string host;
  int port = 0;
};
Result<HostPort> ParseHostPort(const std::string& address);
// localhost, 127.0.0.0/8 or ::1.
bool IsLoopback(const std::string& host);

}  // namespace selvage::coordinator

// The port for whoever operates a coordinator, HTTP/1.1 without TLS or a
// password:
//
//   /metrics   for Prometheus
//   /healthz   200 as long as the process answers
//   /readyz    200 or 503: whether devices should be sent here
//
// GET alone; headers are not looked at. No request can hold more than its
// thread, kHeadSizeMax bytes and kRequestTimeout; further connections wait in
// the kernel's queue.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/status.h"
#include "base/time.h"

namespace selvage::coordinator {

// What the port shows. Called from its threads; must not touch the database.
struct OperatorPages {
  std::function<std::string()> metrics;
  std::function<bool()> ready;
};

// Thread-safe.
class OperatorPort {
 public:
  static constexpr size_t kHeadSizeMax = 8 << 10;
  static constexpr Duration kRequestTimeout = std::chrono::seconds(5);
  static constexpr size_t kThreads = 2;

  // `port` 0 takes a free one. UNAVAILABLE: the port is taken;
  // INVALID_ARGUMENT: there is no such host.
  static Result<std::unique_ptr<OperatorPort>> Start(
      const std::string& host, int port, OperatorPages pages,
      Duration request_timeout = kRequestTimeout);
  ~OperatorPort();  // waits for the answers that are being given
  OperatorPort(const OperatorPort&) = delete;
  OperatorPort& operator=(const OperatorPort&) = delete;

  int port() const { return port_; }

 private:
  class Router;  // cpp-httplib's

  OperatorPort(OperatorPages pages, Duration request_timeout);
  Status Listen(const std::string& host, int port);
  // One thread's life.
  void Run();
  void Answer(int connection);

  const std::unique_ptr<Router> router_;
  const Duration request_timeout_;
  int listening_ = -1;
  int stop_ = -1;  // an eventfd
  int port_ = 0;
  std::vector<std::thread> threads_;
};

}  // namespace selvage::coordinator

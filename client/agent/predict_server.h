// A Unix socket that answers lines. Every connection has a thread of its own,
// so a slow client delays nobody; their number is bounded.
#pragma once

#include <condition_variable>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "base/file_system.h"
#include "base/log.h"
#include "base/status.h"

namespace selvage::agent {

struct PredictServerOptions {
  Path path;
  size_t connections_max = 16;
  size_t line_size_max = 4 << 20;
  // From the first byte of a request to its last, and for taking an answer.
  Duration request_time_max = std::chrono::seconds(10);
  // Without a request.
  Duration idle_time_max = std::chrono::minutes(5);
};

class PredictServer {
 public:
  // Thread-safe: called for several connections at once.
  using Answer = std::function<std::string(std::string_view line)>;

  // Listens, mode 0660. A socket of a process that is gone is replaced.
  // FAILED_PRECONDITION: another process listens there, or the path is no
  // socket; INVALID_ARGUMENT: too long. `events` must outlive the server.
  static Result<std::unique_ptr<PredictServer>> Start(
      const PredictServerOptions& options, Answer answer, EventSink& events);
  // Ends all connections, without waiting for clients, and removes the socket.
  ~PredictServer();
  PredictServer(const PredictServer&) = delete;
  PredictServer& operator=(const PredictServer&) = delete;

 private:
  struct Connection {
    int fd = -1;
    bool ended = false;
    std::thread thread;
  };

  PredictServer(PredictServerOptions options, Answer answer, EventSink& events,
                int listener, int stop)
      : options_(std::move(options)),
        answer_(std::move(answer)),
        events_(events),
        listener_(listener),
        stop_(stop) {}

  void Accept();
  void Serve(Connection& connection);
  void Converse(int fd);
  // Joins those that ended.
  void Reap();
  bool WaitFor(int fd, short what, Duration limit) const;
  bool Send(int fd, std::string line) const;

  const PredictServerOptions options_;
  const Answer answer_;
  EventSink& events_;
  const int listener_;
  const int stop_;  // an eventfd: readable from when the server stops
  std::mutex mu_;
  std::list<Connection> connections_;
  std::thread acceptor_;
};

}  // namespace selvage::agent

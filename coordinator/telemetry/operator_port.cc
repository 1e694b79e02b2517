#include "coordinator/telemetry/operator_port.h"

#include <httplib.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <exception>
#include <string_view>
#include <utility>

namespace selvage::coordinator {
namespace {

constexpr int kBacklog = 32;
constexpr std::string_view kEndOfHead = "\r\n\r\n";
constexpr std::string_view kTooLarge =
    "HTTP/1.1 431 Request Header Fields Too Large\r\n"
    "Content-Length: 0\r\nConnection: close\r\n\r\n";
constexpr std::string_view kFailed =
    "HTTP/1.1 500 Internal Server Error\r\n"
    "Content-Length: 0\r\nConnection: close\r\n\r\n";
constexpr char kPlain[] = "text/plain; charset=utf-8";

using SteadyTime = std::chrono::steady_clock::time_point;

// Waits until `fd` is ready for `events`; false: it is not by `deadline`.
bool WaitFor(int fd, short events, SteadyTime deadline) {
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) return false;
    pollfd waited{fd, events, 0};
    const int ready = poll(&waited, 1, static_cast<int>(left.count()) + 1);
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

// A request's head up to its empty line. False: there is none in time, or at
// all; `head` then has what came.
bool ReadHead(int fd, SteadyTime deadline, std::string& head) {
  std::array<char, 1024> buffer{};
  while (head.size() <= OperatorPort::kHeadSizeMax) {
    if (!WaitFor(fd, POLLIN, deadline)) return false;
    const ssize_t count = recv(fd, buffer.data(), buffer.size(), 0);
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (count <= 0) return false;
    // It may end across two reads.
    const size_t from =
        head.size() < kEndOfHead.size() ? 0 : head.size() - kEndOfHead.size();
    head.append(buffer.data(), static_cast<size_t>(count));
    const size_t end = head.find(kEndOfHead, from);
    if (end == std::string::npos) continue;
    head.resize(end + kEndOfHead.size());
    return head.size() <= OperatorPort::kHeadSizeMax;
  }
  return false;
}

void SendAll(int fd, std::string_view text, SteadyTime deadline) {
  while (!text.empty()) {
    if (!WaitFor(fd, POLLOUT, deadline)) return;
    const ssize_t count = send(fd, text.data(), text.size(), MSG_NOSIGNAL);
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (count <= 0) return;
    text.remove_prefix(static_cast<size_t>(count));
  }
}

// A request that has been read, and the answer to it.
class Exchange final : public httplib::Stream {
 public:
  explicit Exchange(std::string head) : head_(std::move(head)) {}

  bool is_readable() const override { return position_ < head_.size(); }
  bool is_writable() const override { return true; }
  ssize_t read(char* out, size_t size) override {
    const size_t count = std::min(size, head_.size() - position_);
    std::memcpy(out, head_.data() + position_, count);
    position_ += count;
    return static_cast<ssize_t>(count);
  }
  ssize_t write(const char* data, size_t size) override {
    answer_.append(data, size);
    return static_cast<ssize_t>(size);
  }
  // Nothing depends on who asks.
  void get_remote_ip_and_port(std::string&, int&) const override {}
  void get_local_ip_and_port(std::string&, int&) const override {}
  socket_t socket() const override { return -1; }

  const std::string& answer() const { return answer_; }

 private:
  const std::string head_;
  size_t position_ = 0;
  std::string answer_;
};

}  // namespace

// Parses, routes and formats. cpp-httplib's own loop over sockets bounds
// neither all of a request's headers nor the time for all of them, so it gets
// requests that have been read.
class OperatorPort::Router final : public httplib::Server {
 public:
  explicit Router(OperatorPages pages) {
    set_pre_routing_handler(
        [](const httplib::Request& request, httplib::Response& response) {
          if (request.method == "GET") return HandlerResponse::Unhandled;
          response.status = 405;
          response.set_header("Allow", "GET");
          return HandlerResponse::Handled;
        });
    Get("/metrics", [metrics = std::move(pages.metrics)](
                        const httplib::Request&, httplib::Response& response) {
      response.set_content(metrics(),
                           "text/plain; version=0.0.4; charset=utf-8");
    });
    Get("/healthz", [](const httplib::Request&, httplib::Response& response) {
      response.set_content("ok\n", kPlain);
    });
    Get("/readyz", [ready = std::move(pages.ready)](
                       const httplib::Request&, httplib::Response& response) {
      const bool is_ready = ready();
      response.status = is_ready ? 200 : 503;
      response.set_content(is_ready ? "ready\n" : "not ready\n", kPlain);
    });
  }

  // Only the request line counts: no page depends on a header, and some (Range,
  // Accept-Encoding) would have a short request make much work.
  std::string Handle(const std::string& head) {
    Exchange exchange(head.substr(0, head.find("\r\n")) +
                      std::string(kEndOfHead));
    bool closed = false;
    try {
      process_request(exchange, /*close_connection=*/true, closed, nullptr);
    } catch (const std::exception&) {
      return std::string(kFailed);
    }
    return exchange.answer();
  }
};

OperatorPort::OperatorPort(OperatorPages pages, Duration request_timeout)
    : router_(std::make_unique<Router>(std::move(pages))),
      request_timeout_(request_timeout) {}

Result<std::unique_ptr<OperatorPort>> OperatorPort::Start(
    const std::string& host, int port, OperatorPages pages,
    Duration request_timeout) {
  std::unique_ptr<OperatorPort> started(
      new OperatorPort(std::move(pages), request_timeout));
  SELVAGE_RETURN_IF_ERROR(started->Listen(host, port));
  for (size_t i = 0; i < kThreads; ++i) {
    started->threads_.emplace_back([raw = started.get()] { raw->Run(); });
  }
  return started;
}

Status OperatorPort::Listen(const std::string& host, int port) {
  const std::string where = host + ":" + std::to_string(port);
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error =
      getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (error != 0) {
    return InvalidArgument("metrics.address " + where + ": " +
                           gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owned(found,
                                                                 &freeaddrinfo);
  stop_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  listening_ =
      ::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const int yes = 1;
  // Not SO_REUSEPORT: a second coordinator must notice.
  if (stop_ < 0 || listening_ < 0 ||
      setsockopt(listening_, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0 ||
      bind(listening_, found->ai_addr, found->ai_addrlen) != 0 ||
      listen(listening_, kBacklog) != 0) {
    return Unavailable("metrics.address " + where + ": " +
                       std::strerror(errno));
  }
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  if (getsockname(listening_, reinterpret_cast<sockaddr*>(&bound), &size) !=
      0) {
    return Unavailable("metrics.address " + where + ": " +
                       std::strerror(errno));
  }
  port_ = ntohs(bound.ss_family == AF_INET6
                    ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                    : reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
  return OkStatus();
}

OperatorPort::~OperatorPort() {
  if (stop_ >= 0) {
    const uint64_t one = 1;
    // Of an eventfd that nobody reads: it cannot fail.
    static_cast<void>(!write(stop_, &one, sizeof one));
  }
  for (std::thread& thread : threads_) thread.join();
  if (listening_ >= 0) close(listening_);
  if (stop_ >= 0) close(stop_);
}

void OperatorPort::Run() {
  for (;;) {
    std::array<pollfd, 2> waited = {pollfd{listening_, POLLIN, 0},
                                    pollfd{stop_, POLLIN, 0}};
    if (poll(waited.data(), waited.size(), -1) < 0 && errno != EINTR) return;
    if (waited[1].revents != 0) return;
    if (waited[0].revents == 0) continue;
    const int connection =
        accept4(listening_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (connection < 0) {
      // The other thread was faster, or the caller has gone again. Without a
      // descriptor to accept it with it would stay at the head of the queue.
      if (errno == EMFILE || errno == ENFILE) {
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
      }
      continue;
    }
    Answer(connection);
    close(connection);
  }
}

void OperatorPort::Answer(int connection) {
  const SteadyTime deadline =
      std::chrono::steady_clock::now() + request_timeout_;
  std::string head;
  if (!ReadHead(connection, deadline, head)) {
    if (head.size() > kHeadSizeMax) SendAll(connection, kTooLarge, deadline);
    return;
  }
  SendAll(connection, router_->Handle(head), deadline);
  shutdown(connection, SHUT_WR);
  // What else came (a body) would have the kernel take the answer back.
  std::array<char, 4096> ignored{};
  for (size_t left = 16; left > 0; --left) {
    if (recv(connection, ignored.data(), ignored.size(), MSG_DONTWAIT) <= 0) {
      return;
    }
  }
}

}  // namespace selvage::coordinator

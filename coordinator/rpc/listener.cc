#include "coordinator/rpc/listener.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <system_error>
#include <utility>
#include <vector>

#include "base/check.h"

namespace selvage::coordinator {
namespace {

// How long accepting pauses when the process is out of descriptors.
constexpr int kPauseMs = 100;
constexpr int kEventsPerWait = 64;

// An open file descriptor until Release().
class OwnedFd {
 public:
  explicit OwnedFd(int fd) : fd_(fd) {}
  ~OwnedFd() {
    if (fd_ >= 0) close(fd_);
  }
  OwnedFd(const OwnedFd&) = delete;
  OwnedFd& operator=(const OwnedFd&) = delete;
  int get() const { return fd_; }
  int Release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

std::string ErrnoText(int error) {
  return std::error_code(error, std::generic_category()).message();
}

// tcp_info.tcpi_state; <netinet/tcp.h> names them, but knows no byte counters
// and cannot be included beside <linux/tcp.h>.
constexpr uint8_t kEstablished = 1;
constexpr uint8_t kSynReceived = 3;
constexpr uint8_t kCloseWait = 8;

struct Traffic {
  bool open = false;  // at least our side may still send
  uint64_t received = 0;
  uint64_t sent = 0;
};

Traffic ReadTraffic(int fd) {
  tcp_info info{};
  socklen_t size = sizeof info;
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return {};
  return {
      .open = info.tcpi_state == kEstablished ||
              info.tcpi_state == kSynReceived || info.tcpi_state == kCloseWait,
      .received = info.tcpi_bytes_received,
      // Retransmissions are the network's, not ours.
      .sent = info.tcpi_bytes_sent - info.tcpi_bytes_retrans,
  };
}

Status SystemError(const std::string& what) {
  const int error = errno;
  return Unavailable(what + ": " + ErrnoText(error));
}

}  // namespace

Result<HostPort> ParseHostPort(const std::string& address) {
  const Status bad = InvalidArgument(
      "address \"" + address + "\" is not HOST:PORT (IPv6: [ADDRESS]:PORT)");
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0) return bad;
  HostPort out;
  out.host = address.substr(0, colon);
  if (out.host.front() == '[') {
    if (out.host.back() != ']' || out.host.size() < 3) return bad;
    out.host = out.host.substr(1, out.host.size() - 2);
  } else if (out.host.find(':') != std::string::npos) {
    return bad;
  }
  const char* first = address.data() + colon + 1;
  const char* last = address.data() + address.size();
  const auto [end, error] = std::from_chars(first, last, out.port);
  if (error != std::errc() || end != last || first == last || out.port < 0 ||
      out.port > 65535) {
    return bad;
  }
  return out;
}

bool IsLoopback(const std::string& host) {
  if (host == "localhost") return true;
  in_addr v4{};
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) {
    return (ntohl(v4.s_addr) >> 24) == 127;
  }
  in6_addr v6{};
  return inet_pton(AF_INET6, host.c_str(), &v6) == 1 &&
         IN6_IS_ADDR_LOOPBACK(&v6);
}

Result<std::unique_ptr<Listener>> Listener::Bind(const std::string& address,
                                                 uint64_t connections_max,
                                                 EventSink& log) {
  SELVAGE_ASSIGN_OR_RETURN(const HostPort wanted, ParseHostPort(address));
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(
      wanted.host.c_str(), std::to_string(wanted.port).c_str(), &hints, &found);
  if (error != 0) {
    return InvalidArgument("address \"" + address +
                           "\": " + gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found,
                                                                 freeaddrinfo);
  OwnedFd socket_fd(
      socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (socket_fd.get() < 0) return SystemError("socket");
  const int on = 1;
  const int off = 0;
  setsockopt(socket_fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (found->ai_family == AF_INET6) {
    setsockopt(socket_fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  }
  if (bind(socket_fd.get(), found->ai_addr, found->ai_addrlen) != 0 ||
      listen(socket_fd.get(), SOMAXCONN) != 0) {
    return SystemError("cannot listen on " + address);
  }
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  if (getsockname(socket_fd.get(), reinterpret_cast<sockaddr*>(&bound),
                  &size) != 0) {
    return SystemError("getsockname");
  }
  const int port =
      bound.ss_family == AF_INET6
          ? ntohs(reinterpret_cast<const sockaddr_in6*>(&bound)->sin6_port)
          : ntohs(reinterpret_cast<const sockaddr_in*>(&bound)->sin_port);

  OwnedFd epoll_fd(epoll_create1(EPOLL_CLOEXEC));
  OwnedFd wake_fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (epoll_fd.get() < 0 || wake_fd.get() < 0) return SystemError("epoll");
  for (const int fd : {socket_fd.get(), wake_fd.get()}) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    if (epoll_ctl(epoll_fd.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
      return SystemError("epoll_ctl");
    }
  }
  return std::unique_ptr<Listener>(
      new Listener(socket_fd.Release(), epoll_fd.Release(), wake_fd.Release(),
                   port, connections_max, log));
}

Listener::Listener(int listen_fd, int epoll_fd, int wake_fd, int port,
                   uint64_t connections_max, EventSink& log)
    : listen_fd_(listen_fd),
      epoll_fd_(epoll_fd),
      wake_fd_(wake_fd),
      port_(port),
      connections_max_(connections_max),
      log_(log) {}

Listener::~Listener() {
  {
    const MutexLock lock(mu_);
    stop_ = true;
  }
  const uint64_t one = 1;
  // An eventfd takes a write of one at any time.
  SELVAGE_CHECK(write(wake_fd_, &one, sizeof one) == sizeof one);
  if (thread_.joinable()) thread_.join();
  {
    const MutexLock lock(mu_);
    for (const int fd : open_) close(fd);
  }
  close(listen_fd_);
  close(epoll_fd_);
  close(wake_fd_);
}

void Listener::Start(Handler handler) {
  SELVAGE_CHECK(!thread_.joinable());
  handler_ = std::move(handler);
  thread_ = std::thread([this] { Run(); });
}

void Listener::StopAccepting() {
  const MutexLock lock(mu_);
  if (stop_accepting_) return;
  stop_accepting_ = true;
  epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, listen_fd_, nullptr);
  // Whoever is in the queue, or comes, is told at once.
  shutdown(listen_fd_, SHUT_RDWR);
}

void Listener::Disconnect() {
  const MutexLock lock(mu_);
  for (const int fd : open_) shutdown(fd, SHUT_RDWR);
}

SocketStats Listener::stats() const {
  const MutexLock lock(mu_);
  SocketStats stats = ended_;
  stats.connections_open = open_.size();
  for (const int fd : open_) {
    const Traffic traffic = ReadTraffic(fd);
    stats.bytes_received += traffic.received;
    stats.bytes_sent += traffic.sent;
  }
  return stats;
}

void Listener::Run() {
  bool out_of_descriptors = false;
  epoll_event events[kEventsPerWait];
  while (true) {
    const int count = epoll_wait(epoll_fd_, events, kEventsPerWait,
                                 out_of_descriptors ? kPauseMs : -1);
    {
      const MutexLock lock(mu_);
      if (stop_) return;
    }
    bool accept_now = out_of_descriptors;
    for (int i = 0; i < count; ++i) {
      const int fd = events[i].data.fd;
      if (fd == listen_fd_) {
        accept_now = true;
      } else if (fd != wake_fd_) {
        EndIfClosed(fd);
      }
    }
    if (!accept_now) continue;
    const bool was_out = out_of_descriptors;
    out_of_descriptors = !AcceptAll();
    if (out_of_descriptors != was_out) {
      // A level-triggered listener would wake us up all the time.
      epoll_event event{};
      event.events = out_of_descriptors ? 0U : uint32_t{EPOLLIN};
      event.data.fd = listen_fd_;
      epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, listen_fd_, &event);
      log_.Write(LogLevel::kError,
                 out_of_descriptors ? "out_of_descriptors" : "accepting_again",
                 {{"port", port_}});
    }
  }
}

bool Listener::AcceptAll() {
  while (true) {
    OwnedFd fd(
        accept4(listen_fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (fd.get() < 0) {
      const int error = errno;
      if (error == EINTR || error == ECONNABORTED) continue;
      return error != EMFILE && error != ENFILE && error != ENOBUFS &&
             error != ENOMEM;
    }
    const int on = 1;
    setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    OwnedFd duplicate(fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
    if (duplicate.get() < 0) return false;
    {
      const MutexLock lock(mu_);
      if (stop_accepting_ || open_.size() >= connections_max_) {
        ++ended_.connections_refused;
        continue;
      }
      ++ended_.connections_accepted;
      open_.insert(duplicate.get());
      // gRPC shuts a connection down before it closes its descriptor, and a
      // reset does it too: both wake us up here. Edge-triggered, because a peer
      // that only half-closes stays readable.
      epoll_event event{};
      event.events = EPOLLRDHUP | EPOLLET;
      event.data.fd = duplicate.get();
      epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, duplicate.get(), &event);
      static_cast<void>(duplicate.Release());
    }
    handler_(fd.Release());
  }
}

void Listener::EndIfClosed(int fd) {
  const MutexLock lock(mu_);
  const auto it = open_.find(fd);
  if (it == open_.end()) return;
  const Traffic traffic = ReadTraffic(fd);
  // A half-close by the peer is gRPC's to answer, and its answer brings us here
  // again.
  if (traffic.open) return;
  ended_.bytes_received += traffic.received;
  ended_.bytes_sent += traffic.sent;
  open_.erase(it);
  // The last descriptor of the socket as a rule; it leaves epoll with it.
  close(fd);
}

}  // namespace selvage::coordinator

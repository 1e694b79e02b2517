#include "client/agent/predict_server.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "client/agent/predict_protocol.h"

namespace selvage::agent {
namespace {

// Real time: a socket's deadlines are the kernel's business, not a
// simulation's.
using Steady = std::chrono::steady_clock;

std::string ErrnoText() { return std::strerror(errno); }

// Removes a socket that nobody listens at.
Status MakeRoom(const Path& path, const sockaddr_un& address) {
  struct stat info {};
  if (lstat(path.c_str(), &info) != 0) return OkStatus();
  if (!S_ISSOCK(info.st_mode)) {
    return FailedPrecondition(path.string() + " exists and is no socket");
  }
  const int probe =
      socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (probe < 0) return Internal("no socket: " + ErrnoText());
  const int connected = connect(
      probe, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const int error = errno;
  close(probe);
  // EAGAIN: its line is full, so somebody listens.
  if (connected == 0 || error != ECONNREFUSED) {
    return FailedPrecondition(path.string() + " is in use by another process");
  }
  if (unlink(path.c_str()) != 0 && errno != ENOENT) {
    return FailedPrecondition(path.string() +
                              " cannot be replaced: " + ErrnoText());
  }
  return OkStatus();
}

}  // namespace

Result<std::unique_ptr<PredictServer>> PredictServer::Start(
    const PredictServerOptions& options, Answer answer, EventSink& events) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = options.path.string();
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return InvalidArgument("the socket's path has " +
                           std::to_string(path.size()) + " bytes, not 1.." +
                           std::to_string(sizeof address.sun_path - 1));
  }
  path.copy(address.sun_path, path.size());
  SELVAGE_RETURN_IF_ERROR(MakeRoom(options.path, address));
  const int listener =
      socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const int stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  std::unique_ptr<PredictServer> server(
      new PredictServer(options, std::move(answer), events, listener, stop));
  // Nobody can connect between bind and listen, so nobody does before the mode
  // is right.
  if (listener < 0 || stop < 0 ||
      bind(listener, reinterpret_cast<const sockaddr*>(&address),
           sizeof address) != 0) {
    return FailedPrecondition("the socket " + path +
                              " cannot be made: " + ErrnoText());
  }
  if (chmod(path.c_str(), 0660) != 0 || listen(listener, 16) != 0) {
    return FailedPrecondition("the socket " + path +
                              " cannot be opened: " + ErrnoText());
  }
  server->acceptor_ = std::thread([raw = server.get()] { raw->Accept(); });
  return server;
}

PredictServer::~PredictServer() {
  const uint64_t one = 1;
  if (stop_ >= 0) (void)!write(stop_, &one, sizeof one);
  if (acceptor_.joinable()) {
    acceptor_.join();
    unlink(options_.path.c_str());
  }
  for (Connection& connection : connections_) connection.thread.join();
  if (listener_ >= 0) close(listener_);
  if (stop_ >= 0) close(stop_);
}

bool PredictServer::WaitFor(int fd, short what, Duration limit) const {
  const auto deadline = Steady::now() + limit;
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - Steady::now());
    if (left.count() <= 0) return false;
    pollfd fds[] = {{fd, what, 0}, {stop_, POLLIN, 0}};
    const int ready = poll(fds, 2, static_cast<int>(left.count()));
    if (ready < 0 && errno != EINTR) return false;
    if (fds[1].revents != 0) return false;
    if (ready > 0 && fds[0].revents != 0) return true;
  }
}

void PredictServer::Accept() {
  for (;;) {
    pollfd fds[] = {{listener_, POLLIN, 0}, {stop_, POLLIN, 0}};
    if (poll(fds, 2, -1) < 0 && errno != EINTR) return;
    if (fds[1].revents != 0) return;
    const int fd =
        accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
      // Out of descriptors: the one that waits would wake us at once, again and
      // again.
      if (errno == EMFILE || errno == ENFILE) {
        WaitFor(stop_, POLLIN, std::chrono::milliseconds(100));
      }
      continue;
    }
    Reap();
    ucred peer{};
    socklen_t size = sizeof peer;
    (void)getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size);
    const std::unique_lock lock(mu_);
    const bool full = connections_.size() >= options_.connections_max;
    events_.Write(full ? LogLevel::kWarning : LogLevel::kInfo,
                  full ? "predict_refused" : "predict_connected",
                  {{"pid", peer.pid},
                   {"uid", peer.uid},
                   {"gid", peer.gid},
                   {"connections", connections_.size()}});
    if (full) {
      const std::string line =
          ErrorLine(ResourceExhausted("there are " +
                                      std::to_string(options_.connections_max) +
                                      " connections already")) +
          "\n";
      (void)!send(fd, line.data(), line.size(), MSG_NOSIGNAL);
      close(fd);
      continue;
    }
    Connection& connection = connections_.emplace_back();
    connection.fd = fd;
    connection.thread = std::thread([this, &connection] { Serve(connection); });
  }
}

void PredictServer::Reap() {
  std::list<Connection> ended;
  {
    const std::unique_lock lock(mu_);
    for (auto it = connections_.begin(); it != connections_.end();) {
      const auto next = std::next(it);
      if (it->ended) ended.splice(ended.end(), connections_, it);
      it = next;
    }
  }
  for (Connection& connection : ended) connection.thread.join();
}

void PredictServer::Serve(Connection& connection) {
  Converse(connection.fd);
  close(connection.fd);
  const std::unique_lock lock(mu_);
  connection.ended = true;
}

void PredictServer::Converse(int fd) {
  std::string buffer;
  auto first_byte = Steady::now();
  for (;;) {
    const size_t end = buffer.find('\n');
    if (end != std::string::npos) {
      const std::string line = buffer.substr(0, end);
      buffer.erase(0, end + 1);
      first_byte = Steady::now();
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      if (!Send(fd, answer_(line))) return;
      continue;
    }
    if (buffer.size() > options_.line_size_max) {
      (void)Send(fd, ErrorLine(ResourceExhausted(
                         "the request is longer than " +
                         std::to_string(options_.line_size_max) + " bytes")));
      return;
    }
    const Duration limit =
        buffer.empty()
            ? options_.idle_time_max
            : options_.request_time_max - std::chrono::duration_cast<Duration>(
                                              Steady::now() - first_byte);
    if (!WaitFor(fd, POLLIN, limit)) {
      if (!buffer.empty()) {
        (void)Send(fd, ErrorLine(DeadlineExceeded(
                           "the request did not end in " +
                           std::to_string(options_.request_time_max.count()) +
                           " us")));
      }
      return;
    }
    char chunk[64 << 10];
    const ssize_t count = recv(fd, chunk, sizeof chunk, 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (count <= 0) return;
    if (buffer.empty()) first_byte = Steady::now();
    buffer.append(chunk, static_cast<size_t>(count));
  }
}

bool PredictServer::Send(int fd, std::string line) const {
  line += '\n';
  const auto deadline = Steady::now() + options_.request_time_max;
  for (size_t done = 0; done < line.size();) {
    const ssize_t count =
        send(fd, line.data() + done, line.size() - done, MSG_NOSIGNAL);
    if (count >= 0) {
      done += static_cast<size_t>(count);
    } else if (errno == EAGAIN) {
      if (!WaitFor(
              fd, POLLOUT,
              std::chrono::duration_cast<Duration>(deadline - Steady::now()))) {
        return false;
      }
    } else if (errno != EINTR) {
      return false;
    }
  }
  return true;
}

}  // namespace selvage::agent

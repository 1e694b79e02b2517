#include "tests/chaos/flaky_link.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstdlib>

#include "base/check.h"

namespace selvage::test {
namespace {

constexpr int kLookMillis = 20;  // how often a thread looks whether to end

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

bool SendAll(int fd, const char* data, size_t size) {
  while (size > 0) {
    const ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    data += sent;
    size -= static_cast<size_t>(sent);
  }
  return true;
}

}  // namespace

struct FlakyLink::Connection {
  int near = -1;
  int far = -1;
  std::atomic<bool> done{false};
  std::thread thread;
};

FlakyLink::FlakyLink() {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof address;
  auto* const raw = reinterpret_cast<sockaddr*>(&address);
  SELVAGE_CHECK(bind(listener_, raw, size) == 0);
  SELVAGE_CHECK(listen(listener_, 64) == 0);
  SELVAGE_CHECK(getsockname(listener_, raw, &size) == 0);
  port_ = ntohs(address.sin_port);
  acceptor_ = std::thread([this] { Accept(); });
}

FlakyLink::~FlakyLink() {
  stopping_ = true;
  acceptor_.join();
  close(listener_);
  Reap(true);
}

std::string FlakyLink::address() const {
  return "127.0.0.1:" + std::to_string(port_);
}

void FlakyLink::Lead(const std::string& target) {
  const std::lock_guard lock(mu_);
  target_ = target;
}

void FlakyLink::Cut() {
  cut_ = true;
  const std::lock_guard lock(mu_);
  for (const auto& connection : connections_) {
    shutdown(connection->near, SHUT_RDWR);
    shutdown(connection->far, SHUT_RDWR);
  }
}

void FlakyLink::Mend() {
  cut_ = false;
  delay_ = 0;
  frozen_ = false;
}

int FlakyLink::ConnectToTarget() {
  std::string target;
  {
    const std::lock_guard lock(mu_);
    target = target_;
  }
  int fd = -1;
  int connected = -1;
  if (target.starts_with("/")) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (target.size() >= sizeof address.sun_path) return -1;
    target.copy(address.sun_path, target.size());
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    connected = connect(fd, reinterpret_cast<const sockaddr*>(&address),
                        sizeof address);
  } else {
    const sockaddr_in address =
        Loopback(std::atoi(target.substr(target.rfind(':') + 1).c_str()));
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    connected = connect(fd, reinterpret_cast<const sockaddr*>(&address),
                        sizeof address);
  }
  if (connected == 0) return fd;
  close(fd);
  return -1;
}

void FlakyLink::Accept() {
  while (!stopping_) {
    Reap(false);
    pollfd wait{listener_, POLLIN, 0};
    if (poll(&wait, 1, kLookMillis) <= 0) continue;
    const int near = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (near < 0) continue;
    const int far = cut_ ? -1 : ConnectToTarget();
    if (far < 0) {
      close(near);
      continue;
    }
    auto connection = std::make_unique<Connection>();
    connection->near = near;
    connection->far = far;
    Connection& mine = *connection;
    const std::lock_guard lock(mu_);
    connections_.push_back(std::move(connection));
    mine.thread = std::thread([this, &mine] { Pass(mine); });
  }
}

void FlakyLink::Pass(Connection& connection) {
  std::array<char, 1 << 14> buffer;
  pollfd ends[] = {{connection.near, POLLIN, 0}, {connection.far, POLLIN, 0}};
  bool open = true;
  while (open && !stopping_) {
    if (frozen_) {
      poll(nullptr, 0, kLookMillis);
      continue;
    }
    if (poll(ends, 2, kLookMillis) <= 0) continue;
    for (size_t i = 0; i < 2; ++i) {
      if (ends[i].revents == 0) continue;
      const ssize_t count = recv(ends[i].fd, buffer.data(), buffer.size(), 0);
      if (delay_ > 0) poll(nullptr, 0, delay_);
      open = open && count > 0 &&
             SendAll(ends[1 - i].fd, buffer.data(), static_cast<size_t>(count));
    }
  }
  shutdown(connection.near, SHUT_RDWR);
  shutdown(connection.far, SHUT_RDWR);
  connection.done = true;
}

void FlakyLink::Reap(bool all) {
  const std::lock_guard lock(mu_);
  for (auto it = connections_.begin(); it != connections_.end();) {
    if (!all && !(*it)->done) {
      ++it;
      continue;
    }
    (*it)->thread.join();
    close((*it)->near);
    close((*it)->far);
    it = connections_.erase(it);
  }
}

}  // namespace selvage::test

#include "base/notify.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <string>

namespace selvage {

Status Notify(std::string_view socket_name, std::string_view state) {
  if (socket_name.empty()) return OkStatus();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_name.size() >= sizeof address.sun_path ||
      (socket_name[0] != '/' && socket_name[0] != '@')) {
    return InvalidArgument("NOTIFY_SOCKET (" + std::string(socket_name) +
                           ") is no address");
  }
  std::copy(socket_name.begin(), socket_name.end(), address.sun_path);
  if (socket_name[0] == '@') address.sun_path[0] = '\0';
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) +
                                           socket_name.size());
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return Unavailable("no socket for NOTIFY_SOCKET");
  const ssize_t sent =
      sendto(fd, state.data(), state.size(), MSG_NOSIGNAL,
             reinterpret_cast<const sockaddr*>(&address), size);
  close(fd);
  if (sent != static_cast<ssize_t>(state.size())) {
    return Unavailable("nobody listens at NOTIFY_SOCKET (" +
                       std::string(socket_name) + ")");
  }
  return OkStatus();
}

}  // namespace selvage

#include "base/notify.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <filesystem>
#include <string>

#include <gmock/gmock.h>

#include "tests/testing/status_matchers.h"

namespace selvage {
namespace {

using test::IsOk;
using test::StatusIs;

// What a service manager has.
class Listener {
 public:
  explicit Listener(const std::string& name)
      : fd_(socket(AF_UNIX, SOCK_DGRAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    name.copy(address.sun_path, sizeof address.sun_path - 1);
    if (name[0] == '@') address.sun_path[0] = '\0';
    EXPECT_EQ(bind(fd_, reinterpret_cast<const sockaddr*>(&address),
                   static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) +
                                          name.size())),
              0);
  }
  ~Listener() { close(fd_); }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  std::string Receive() {
    char buffer[256];
    const ssize_t size = recv(fd_, buffer, sizeof buffer, MSG_DONTWAIT);
    return size < 0 ? "" : std::string(buffer, static_cast<size_t>(size));
  }

 private:
  const int fd_;
};

TEST(NotifyTest, Path_TakesTheState) {
  const std::string path =
      ::testing::TempDir() + "selvage-notify-" + std::to_string(getpid());
  {
    Listener listener(path);
    EXPECT_THAT(Notify(path, "READY=1"), IsOk());
    EXPECT_EQ(listener.Receive(), "READY=1");
  }
  EXPECT_THAT(Notify(path, "READY=1"), StatusIs(StatusCode::kUnavailable));
  std::filesystem::remove(path);
}

TEST(NotifyTest, AbstractName_TakesTheState) {
  const std::string name = "@selvage-notify-" + std::to_string(getpid());
  Listener listener(name);
  EXPECT_THAT(Notify(name, "STOPPING=1"), IsOk());
  EXPECT_EQ(listener.Receive(), "STOPPING=1");
}

TEST(NotifyTest, NoSocket_IsNoService) {
  EXPECT_THAT(Notify("", "READY=1"), IsOk());
}

TEST(NotifyTest, NoAddress_IsRefused) {
  EXPECT_THAT(Notify("relative", "READY=1"),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(Notify("/" + std::string(200, 'x'), "READY=1"),
              StatusIs(StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace selvage

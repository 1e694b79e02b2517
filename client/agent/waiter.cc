#include "client/agent/waiter.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <string>

namespace selvage::agent {
namespace {

class PollWaiter final : public Waiter {
 public:
  PollWaiter(int event, int notify, Clock& clock)
      : event_(event), notify_(notify), clock_(clock) {}
  ~PollWaiter() override {
    close(event_);
    if (notify_ >= 0) close(notify_);
  }

  void WaitUntil(Time until) override {
    using std::chrono::milliseconds;
    const Duration left = until - clock_.Now();
    if (left <= Duration::zero()) return;
    const auto wait = std::min<milliseconds>(
        std::chrono::ceil<milliseconds>(left), std::chrono::seconds(10));
    pollfd fds[] = {{event_, POLLIN, 0}, {notify_, POLLIN, 0}};
    (void)poll(fds, notify_ >= 0 ? 2 : 1, static_cast<int>(wait.count()));
    char drained[4096];
    while (read(event_, drained, sizeof drained) > 0) {
    }
    while (notify_ >= 0 && read(notify_, drained, sizeof drained) > 0) {
    }
  }

  void Wake() override {
    const uint64_t one = 1;
    (void)!write(event_, &one, sizeof one);
  }

 private:
  const int event_;
  const int notify_;  // -1: none
  Clock& clock_;
};

}  // namespace

Result<std::unique_ptr<Waiter>> MakeWaiter(const Path& watched, Clock& clock) {
  const int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (event < 0) {
    return Internal("no eventfd: " + std::string(std::strerror(errno)));
  }
  int notify = -1;
  if (!watched.empty()) {
    notify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (notify >= 0 && inotify_add_watch(notify, watched.c_str(),
                                         IN_MOVED_TO | IN_CLOSE_WRITE) < 0) {
      close(notify);
      notify = -1;
    }
  }
  return std::unique_ptr<Waiter>(
      std::make_unique<PollWaiter>(event, notify, clock));
}

}  // namespace selvage::agent

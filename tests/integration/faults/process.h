// A program as a child process: what it prints, how it ends.
#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/time.h"

namespace selvage::test {

class ChildProcess {
 public:
  // Starts it with these variables beside PATH, HOME and the sanitizers'.
  // SIGXFSZ is ignored in it, so that a file size limit set from outside is an
  // error of write(2). Killed when it goes out of scope.
  explicit ChildProcess(
      std::vector<std::string> command,
      const std::map<std::string, std::string>& environment = {});
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  pid_t pid() const { return pid_; }
  // Both streams, so far.
  std::string output();
  // Blocks until the output contains `text`; false if it ended before.
  bool WaitForOutput(const std::string& text);
  // Exit code, or 128 + signal. nullopt: still there after `limit`.
  std::optional<int> WaitForExit(Duration limit = std::chrono::seconds(60));
  // Sends the signal and waits for the end.
  int Stop(int signal);

 private:
  void ReadOutput(int fd);

  pid_t pid_ = -1;
  std::mutex mu_;
  std::condition_variable changed_;
  std::string output_;
  bool ended_ = false;  // both streams are closed
  std::optional<int> exit_code_;
  std::thread reader_;
};

}  // namespace selvage::test

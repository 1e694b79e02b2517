// The shipped selvage-coordinator as a child process.
#pragma once

#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

namespace selvage::test {

struct Finished {
  int exit_code = -1;  // 128 + signal if one ended it
  std::string output;
  std::string errors;
};

// Runs it to its end with these arguments and, beside PATH, these variables.
Finished RunCoordinator(
    const std::vector<std::string>& arguments,
    const std::map<std::string, std::string>& environment = {});

// One that serves on free loopback ports, and metrics on one unless `more` says
// otherwise, from `data_dir`. Killed when it goes
// out of scope.
class CoordinatorProcess {
 public:
  explicit CoordinatorProcess(
      const std::string& data_dir, const std::vector<std::string>& more = {},
      const std::map<std::string, std::string>& environment = {},
      const std::string& until = "serving");
  ~CoordinatorProcess();
  CoordinatorProcess(const CoordinatorProcess&) = delete;
  CoordinatorProcess& operator=(const CoordinatorProcess&) = delete;

  // Reads its log until this event; false if it ended instead.
  bool Await(const std::string& event);

  // True once it said that it serves, or what else was waited for (`until`);
  // false if it ended instead.
  bool serving() const { return serving_; }
  const std::string& admin() const { return admin_; }    // HOST:PORT
  const std::string& device() const { return device_; }  // HOST:PORT
  int metrics_port() const { return metrics_port_; }     // 0: none
  pid_t pid() const { return pid_; }
  const std::string& log() const { return log_; }  // complete after Stop()

  // Sends the signal and waits for the end; the exit code as in Finished.
  int Stop(int signal);
  // Likewise, of one that ends without another one.
  int WaitForEnd();

 private:
  pid_t pid_ = -1;
  int out_ = -1;
  bool serving_ = false;
  std::string log_;
  std::string admin_;
  std::string device_;
  int metrics_port_ = 0;
};

}  // namespace selvage::test

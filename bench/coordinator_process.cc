#include "bench/coordinator_process.h"

#include <signal.h>
#include <sys/wait.h>

#include <chrono>
#include <thread>

#include "base/check.h"
#include "bench/process.h"

namespace selvage::bench {

CoordinatorProcess::CoordinatorProcess(const std::filesystem::path& home,
                                       const std::string& retry_min,
                                       const std::string& retry_max)
    : home_(home),
      pid_(
          StartProcess({BinDirectory() / "selvage-coordinator", "--data-dir",
                        home / "coordinator", "--device-address", "127.0.0.1:0",
                        "--admin-address", "127.0.0.1:0", "--pace-retry-min",
                        retry_min, "--pace-retry-max", retry_max})) {}

CoordinatorProcess::~CoordinatorProcess() {
  kill(pid_, SIGTERM);
  waitpid(pid_, nullptr, 0);
}

void CoordinatorProcess::CreateTask(const std::filesystem::path& task_file) {
  while (!std::filesystem::exists(home_ / "coordinator" / "endpoints.json")) {
    SELVAGE_CHECK(waitpid(pid_, nullptr, WNOHANG) == 0);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  Do({"population", "create", "bench"});
  Do({"token", "create", "--population", "bench", "--uses", "8", "--out",
      bundle_file()});
  Do({"run", task_file});
}

void CoordinatorProcess::Do(const std::vector<std::string>& verb) {
  std::vector<std::string> words = {BinDirectory() / "selvage", "--coordinator",
                                    home_ / "coordinator"};
  words.insert(words.end(), verb.begin(), verb.end());
  SELVAGE_CHECK(WaitForProcess(StartProcess(std::move(words))));
}

}  // namespace selvage::bench

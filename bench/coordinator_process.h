// The shipped coordinator, for benches of apps on this machine.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

namespace selvage::bench {

// Runs from its making to its end, which asks it to stop and waits.
class CoordinatorProcess {
 public:
  // Started, not yet serving. Keeps its data in `home`; devices are told to
  // come back after `retry_min` to `retry_max` ("20ms").
  CoordinatorProcess(const std::filesystem::path& home,
                     const std::string& retry_min,
                     const std::string& retry_max);
  ~CoordinatorProcess();
  CoordinatorProcess(const CoordinatorProcess&) = delete;
  CoordinatorProcess& operator=(const CoordinatorProcess&) = delete;

  // Waits until it serves, then makes the population `bench`, a bundle for
  // eight devices and the task of `task_file`.
  void CreateTask(const std::filesystem::path& task_file);
  // The command line tool with these words.
  void Do(const std::vector<std::string>& verb);

  std::filesystem::path bundle_file() const { return home_ / "bundle.json"; }
  pid_t pid() const { return pid_; }

 private:
  const std::filesystem::path home_;
  pid_t pid_ = -1;
};

}  // namespace selvage::bench

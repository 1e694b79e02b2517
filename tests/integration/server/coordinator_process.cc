#include "tests/integration/server/coordinator_process.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/check.h"

namespace selvage::test {
namespace {

struct Child {
  pid_t pid = -1;
  int out = -1;
  int err = -1;
};

Child Spawn(const std::vector<std::string>& arguments,
            const std::map<std::string, std::string>& environment) {
  std::vector<std::string> words = {SELVAGE_COORDINATOR};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);

  std::vector<std::string> variables;
  for (const char* name : {"PATH", "ASAN_OPTIONS", "LSAN_OPTIONS"}) {
    if (const char* value = std::getenv(name)) {
      variables.push_back(std::string(name) + "=" + value);
    }
  }
  for (const auto& [name, value] : environment) {
    variables.push_back(name + "=" + value);
  }
  std::vector<char*> envp;
  for (std::string& variable : variables) envp.push_back(variable.data());
  envp.push_back(nullptr);

  int out[2];
  int err[2];
  SELVAGE_CHECK(pipe2(out, O_CLOEXEC) == 0 && pipe2(err, O_CLOEXEC) == 0);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, err[1], STDERR_FILENO);
  Child child;
  const int error = posix_spawn(&child.pid, SELVAGE_COORDINATOR, &actions,
                                nullptr, argv.data(), envp.data());
  posix_spawn_file_actions_destroy(&actions);
  SELVAGE_CHECK(error == 0);
  close(out[1]);
  close(err[1]);
  child.out = out[0];
  child.err = err[0];
  return child;
}

int Wait(pid_t pid) {
  int status = 0;
  SELVAGE_CHECK(waitpid(pid, &status, 0) == pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// Appends what there is; false at the end.
bool ReadSome(int fd, std::string& text) {
  std::array<char, 4096> buffer{};
  const ssize_t count = read(fd, buffer.data(), buffer.size());
  if (count <= 0) return false;
  text.append(buffer.data(), static_cast<size_t>(count));
  return true;
}

}  // namespace

Finished RunCoordinator(const std::vector<std::string>& arguments,
                        const std::map<std::string, std::string>& environment) {
  const Child child = Spawn(arguments, environment);
  Finished finished;
  std::array<pollfd, 2> fds = {pollfd{child.out, POLLIN, 0},
                               pollfd{child.err, POLLIN, 0}};
  int open = 2;
  while (open > 0) {
    SELVAGE_CHECK(poll(fds.data(), fds.size(), -1) > 0);
    for (size_t i = 0; i < fds.size(); ++i) {
      if (fds[i].fd < 0 || fds[i].revents == 0) continue;
      if (!ReadSome(fds[i].fd, i == 0 ? finished.output : finished.errors)) {
        fds[i].fd = -1;
        --open;
      }
    }
  }
  close(child.out);
  close(child.err);
  finished.exit_code = Wait(child.pid);
  return finished;
}

CoordinatorProcess::CoordinatorProcess(
    const std::string& data_dir, const std::vector<std::string>& more,
    const std::map<std::string, std::string>& environment,
    const std::string& until) {
  std::vector<std::string> arguments = {
      "--data-dir",      data_dir,      "--device-address", "127.0.0.1:0",
      "--admin-address", "127.0.0.1:0", "--log-level",      "debug",
      "--log-format",    "json"};
  if (std::find(more.begin(), more.end(), "--metrics-address") == more.end()) {
    arguments.insert(arguments.end(), {"--metrics-address", "127.0.0.1:0"});
  }
  arguments.insert(arguments.end(), more.begin(), more.end());
  const Child child = Spawn(arguments, environment);
  pid_ = child.pid;
  out_ = child.out;
  // What it complains about is part of its log here.
  serving_ = Await(until);
  if (!serving_) {
    while (ReadSome(child.err, log_)) {
    }
  }
  close(child.err);
  std::ifstream in(data_dir + "/endpoints.json");
  const auto endpoints = nlohmann::json::parse(in, nullptr, false);
  if (endpoints.is_object()) {
    admin_ = endpoints.value("admin", "");
    device_ = endpoints.value("device", "");
    const std::string metrics = endpoints.value("metrics", "");
    metrics_port_ = std::atoi(metrics.substr(metrics.rfind(':') + 1).c_str());
  }
}

CoordinatorProcess::~CoordinatorProcess() {
  if (pid_ > 0) Stop(SIGKILL);
  close(out_);
}

bool CoordinatorProcess::Await(const std::string& event) {
  const std::string line = "\"event\":\"" + event + "\"";
  while (log_.find(line) == std::string::npos) {
    if (!ReadSome(out_, log_)) return false;
  }
  return true;
}

int CoordinatorProcess::Stop(int signal) {
  kill(pid_, signal);
  return WaitForEnd();
}

int CoordinatorProcess::WaitForEnd() {
  while (ReadSome(out_, log_)) {
  }
  return Wait(std::exchange(pid_, -1));
}

}  // namespace selvage::test

#include "tests/integration/faults/process.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>

#include "base/check.h"

namespace selvage::test {

ChildProcess::ChildProcess(
    std::vector<std::string> command,
    const std::map<std::string, std::string>& environment) {
  std::vector<char*> argv;
  for (std::string& word : command) argv.push_back(word.data());
  argv.push_back(nullptr);
  std::vector<std::string> variables;
  for (const char* name :
       {"PATH", "HOME", "ASAN_OPTIONS", "LSAN_OPTIONS", "UBSAN_OPTIONS"}) {
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
  SELVAGE_CHECK(pipe2(out, O_CLOEXEC) == 0);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, out[1], STDERR_FILENO);
  // An ignored signal stays ignored through exec(2).
  std::signal(SIGXFSZ, SIG_IGN);
  SELVAGE_CHECK(posix_spawn(&pid_, command[0].c_str(), &actions, nullptr,
                            argv.data(), envp.data()) == 0);
  posix_spawn_file_actions_destroy(&actions);
  close(out[1]);
  reader_ = std::thread([this, fd = out[0]] { ReadOutput(fd); });
}

ChildProcess::~ChildProcess() {
  if (!exit_code_.has_value()) Stop(SIGKILL);
  reader_.join();
}

void ChildProcess::ReadOutput(int fd) {
  std::array<char, 4096> buffer{};
  for (;;) {
    const ssize_t count = read(fd, buffer.data(), buffer.size());
    if (count <= 0) break;
    std::lock_guard lock(mu_);
    output_.append(buffer.data(), static_cast<size_t>(count));
    changed_.notify_all();
  }
  close(fd);
  std::lock_guard lock(mu_);
  ended_ = true;
  changed_.notify_all();
}

std::string ChildProcess::output() {
  std::lock_guard lock(mu_);
  return output_;
}

bool ChildProcess::WaitForOutput(const std::string& text) {
  std::unique_lock lock(mu_);
  changed_.wait(
      lock, [&] { return ended_ || output_.find(text) != std::string::npos; });
  return output_.find(text) != std::string::npos;
}

std::optional<int> ChildProcess::WaitForExit(Duration limit) {
  if (exit_code_.has_value()) return exit_code_;
  {
    std::unique_lock lock(mu_);
    if (!changed_.wait_for(lock, limit, [&] { return ended_; })) {
      return std::nullopt;
    }
  }
  int status = 0;
  SELVAGE_CHECK(waitpid(pid_, &status, 0) == pid_);
  exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return exit_code_;
}

int ChildProcess::Stop(int signal) {
  if (exit_code_.has_value()) return *exit_code_;
  kill(pid_, signal);
  std::optional<int> code = WaitForExit();
  if (!code.has_value()) {
    kill(pid_, SIGKILL);
    code = WaitForExit(std::chrono::hours(1));
  }
  return *code;
}

}  // namespace selvage::test

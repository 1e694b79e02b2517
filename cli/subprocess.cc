#include "cli/subprocess.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

extern char** environ;

namespace selvage::cli {
namespace {

constexpr size_t kOutputMax = 16 << 20;

class Pipe {
 public:
  Pipe() = default;
  ~Pipe() {
    CloseRead();
    CloseWrite();
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;

  Status Open() {
    std::array<int, 2> fds{};
    if (pipe2(fds.data(), O_CLOEXEC) != 0) {
      return Internal(std::string("pipe: ") + std::strerror(errno));
    }
    read_ = fds[0];
    write_ = fds[1];
    return OkStatus();
  }
  int read_end() const { return read_; }
  int write_end() const { return write_; }
  void CloseRead() { Close(read_); }
  void CloseWrite() { Close(write_); }

 private:
  static void Close(int& fd) {
    if (fd >= 0) close(fd);
    fd = -1;
  }

  int read_ = -1;
  int write_ = -1;
};

// Reads both to their ends.
void Drain(Pipe& out_pipe, Pipe& err_pipe, ProcessOutcome& outcome) {
  std::array<std::pair<Pipe*, std::string*>, 2> sinks = {
      std::pair{&out_pipe, &outcome.out}, std::pair{&err_pipe, &outcome.err}};
  std::vector<char> buffer(64 << 10);
  while (true) {
    std::array<pollfd, 2> polled{};
    bool open = false;
    for (size_t i = 0; i < sinks.size(); ++i) {
      polled[i] = {sinks[i].first->read_end(), POLLIN, 0};
      open = open || polled[i].fd >= 0;
    }
    if (!open) return;
    if (poll(polled.data(), polled.size(), -1) < 0 && errno != EINTR) return;
    for (size_t i = 0; i < sinks.size(); ++i) {
      if (polled[i].fd < 0 || polled[i].revents == 0) continue;
      const ssize_t size = read(polled[i].fd, buffer.data(), buffer.size());
      if (size < 0 && errno == EINTR) continue;
      if (size <= 0) {
        sinks[i].first->CloseRead();
        continue;
      }
      std::string& text = *sinks[i].second;
      text.append(buffer.data(), std::min(static_cast<size_t>(size),
                                          kOutputMax - text.size()));
    }
  }
}

}  // namespace

Result<ProcessOutcome> RunProcess(const std::vector<std::string>& arguments,
                                  Interrupt& interrupt) {
  Pipe out_pipe;
  Pipe err_pipe;
  SELVAGE_RETURN_IF_ERROR(out_pipe.Open());
  SELVAGE_RETURN_IF_ERROR(err_pipe.Open());

  std::vector<std::string> copies = arguments;
  std::vector<char*> argv;
  for (std::string& argument : copies) argv.push_back(argument.data());
  argv.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out_pipe.write_end(), 1);
  posix_spawn_file_actions_adddup2(&actions, err_pipe.write_end(), 2);
  // Our main() blocks the signals that a thread of it waits for.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  pid_t pid = -1;
  const int error =
      posix_spawn(&pid, argv[0], &actions, &attributes, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) {
    return NotFound("cannot run " + arguments[0] + ": " + std::strerror(error));
  }
  out_pipe.CloseWrite();
  err_pipe.CloseWrite();

  ProcessOutcome outcome;
  int state = 0;
  {
    // Ends before the wait below, which frees the process id.
    Interrupt::Registration stop(interrupt, [pid] { kill(pid, SIGTERM); });
    Drain(out_pipe, err_pipe, outcome);
  }
  while (waitpid(pid, &state, 0) < 0) {
    if (errno != EINTR) {
      return Internal(std::string("waitpid: ") + std::strerror(errno));
    }
  }
  if (interrupt.triggered()) return Cancelled("interrupted");
  outcome.exit_code =
      WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
  return outcome;
}

}  // namespace selvage::cli

// The process around RunCli(): signals, terminal, environment.
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <thread>

#include "base/file_system.h"
#include "base/random.h"
#include "base/time.h"
#include "cli/app.h"
#include "crypto/tls_policy.h"

namespace {

using selvage::cli::ExitCode;

// Waits for SIGINT and SIGTERM: the first cancels what is going on, the second
// ends the process.
void WaitForSignals(sigset_t signals, selvage::cli::Interrupt& interrupt) {
  int signal = 0;
  sigwait(&signals, &signal);
  interrupt.Trigger();
  sigwait(&signals, &signal);
  _exit(static_cast<int>(ExitCode::kInterrupted));
}

size_t TerminalWidth() {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 20) {
    return size.ws_col;
  }
  return 80;
}

std::optional<std::string> GetEnv(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

}  // namespace

int main(int argc, char** argv) {
  if (const selvage::Status tls = selvage::crypto::RequireTls13(); !tls.ok()) {
    std::cerr << "selvage: error: " << tls.message() << '\n';
    return static_cast<int>(ExitCode::kGeneric);
  }
  // gRPC's own words about a failed handshake help nobody; `doctor` does.
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  // Blocked before any thread exists, so that every thread has it so.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  // A reader that goes away (`selvage list | head`) is an error of the write,
  // not a signal.
  signal(SIGPIPE, SIG_IGN);

  selvage::cli::Interrupt interrupt;
  std::thread(WaitForSignals, signals, std::ref(interrupt)).detach();

  selvage::SystemClock clock;
  selvage::OsRandom random;
  selvage::PosixFileSystem files;
  std::error_code error;
  const std::filesystem::path self =
      std::filesystem::read_symlink("/proc/self/exe", error);
  selvage::cli::Environment environment{
      .in = std::cin,
      .out = std::cout,
      .err = std::cerr,
      .in_is_terminal = isatty(STDIN_FILENO) == 1,
      .out_is_terminal = isatty(STDOUT_FILENO) == 1,
      .width = TerminalWidth(),
      .get_env = GetEnv,
      .clock = clock,
      .random = random,
      .files = files,
      .interrupt = interrupt,
      .program_directory = self.parent_path()};
  const ExitCode code =
      selvage::cli::RunCli({argv + 1, argv + argc}, environment);
  std::cout.flush();
  // The signal thread may still use `interrupt`: leave without destructors.
  _exit(static_cast<int>(code));
}

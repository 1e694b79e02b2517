// selvage-coordinator, except that it dies at a kill point of the caller's
// choice (kill_points.h, SELVAGE_TEST_KILL_AT; with SELVAGE_TEST_KILL_ON_SIGNAL
// points count from SIGUSR1 on), and that its clock may be wrong
// (SELVAGE_TEST_CLOCK_SHIFT_S). Takes the flags of its settings; it does
// not drain.
#include <pthread.h>

#include <csignal>
#include <cstdlib>
#include <iostream>
#include <map>
#include <string>
#include <string_view>

#include "base/log.h"
#include "base/random.h"
#include "base/time.h"
#include "coordinator/server/config.h"
#include "coordinator/server/service.h"
#include "crypto/tls_policy.h"
#include "tests/integration/faults/jumping_clock.h"
#include "tests/integration/faults/kill_points.h"
#include "tests/integration/faults/postgres_kill_points.h"

namespace selvage::test {
namespace {

int Main(int argc, char** argv) {
  if (!crypto::RequireTls13().ok()) return 1;
  KillPoints points(KillPoints::TargetFromEnvironment(),
                    std::getenv("SELVAGE_TEST_KILL_ON_SIGNAL") == nullptr);
  if (!InstallKillingVfs(points).ok()) return 1;
  if (!InstallKillingLibpq(points).ok()) return 1;
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);

  coordinator::ConfigSources sources;
  for (const coordinator::Setting& setting : coordinator::Settings()) {
    for (int i = 1; i < argc; ++i) {
      if (setting.Flag() != argv[i]) continue;
      const bool bare =
          i + 1 == argc || std::string_view(argv[i + 1]).starts_with("--");
      sources.flags[std::string(setting.key)] = bare ? "true" : argv[i + 1];
    }
  }
  sources.variable = [](const std::string&) { return std::nullopt; };
  const coordinator::LoadedConfig loaded = coordinator::LoadConfig(sources);
  for (const std::string& mistake : loaded.mistakes) {
    std::cerr << mistake << "\n";
  }
  if (!loaded.mistakes.empty()) return 2;

  const char* const shift = std::getenv("SELVAGE_TEST_CLOCK_SHIFT_S");
  JumpingClock clock(
      std::chrono::seconds(shift == nullptr ? 0 : std::atoi(shift)));
  OsRandom random;
  PosixFileSystem disk;
  KillingFileSystem files(disk, points);
  StreamEventSink log(std::cout, clock, StreamEventSink::Format::kJson,
                      loaded.config.log_level);
  Result<std::unique_ptr<coordinator::Service>> service =
      coordinator::Service::Start(
          loaded.config, files, clock, random, log,
          [](const Status&) { std::_Exit(6); }, nullptr);
  if (!service.ok()) {
    std::cerr << service.status().ToString() << "\n";
    return 1;
  }
  int signal = 0;
  while (sigwait(&signals, &signal) == 0 && signal == SIGUSR1) points.Arm();
  return 0;
}

}  // namespace
}  // namespace selvage::test

int main(int argc, char** argv) { return selvage::test::Main(argc, argv); }

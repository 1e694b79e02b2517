// B9: what an app carries: the size of libselvage.so, the time from starting a
// process to an open client, and its memory at rest.
//
// The process that is measured is this one, started anew (--only=DIRECTORY):
// it is linked with libselvage.so like any app.
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "base/check.h"
#include "bench/process.h"
#include "bench/report.h"
#include "client/capi/selvage.hpp"
#include "tests/testing/scratch_folder.h"

extern char** environ;

namespace selvage::bench {
namespace {

constexpr double kMiB = 1 << 20;

double ResidentMiB() {
  long pages = 0;
  long resident = 0;
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  SELVAGE_CHECK(file != nullptr);
  SELVAGE_CHECK(std::fscanf(file, "%ld %ld", &pages, &resident) == 2);
  std::fclose(file);
  return static_cast<double>(resident) *
         static_cast<double>(sysconf(_SC_PAGESIZE)) / kMiB;
}

// Opens a client, then says when that was and what it takes.
int Only(const std::string& directory) {
  host::Options options;
  options.state_dir = directory + "/state";
  options.cache_dir = directory + "/cache";
  options.population = "bench";
  const host::Client client(options);
  const double opened = WallSeconds();
  std::printf("%.6f %.3f\n", opened, ResidentMiB());
  return 0;
}

struct Start {
  double milliseconds = 0;
  double mib = 0;
};
Start StartOnce(const std::string& directory) {
  int pipes[2];
  SELVAGE_CHECK(pipe(pipes) == 0);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, pipes[1], 1);
  std::string argument = "--only=" + directory;
  std::string name = "core_bench";
  char* argv[] = {name.data(), argument.data(), nullptr};
  pid_t child = 0;
  const double begin = WallSeconds();
  SELVAGE_CHECK(posix_spawn(&child, "/proc/self/exe", &actions, nullptr, argv,
                            environ) == 0);
  posix_spawn_file_actions_destroy(&actions);
  close(pipes[1]);
  std::FILE* out = fdopen(pipes[0], "r");
  double opened = 0;
  Start start;
  SELVAGE_CHECK(std::fscanf(out, "%lf %lf", &opened, &start.mib) == 2);
  std::fclose(out);
  int status = 0;
  SELVAGE_CHECK(waitpid(child, &status, 0) == child && status == 0);
  start.milliseconds = (opened - begin) * 1e3;
  return start;
}

// Of `file` without its symbols, as it is installed.
double StrippedMiB(const std::string& file, const std::string& directory) {
  const std::string out = directory + "/stripped.so";
  SELVAGE_CHECK(WaitForProcess(StartProcess({"strip", "-o", out, file})));
  return static_cast<double>(std::filesystem::file_size(out)) / kMiB;
}

Status Run(Report& report) {
  report.PrintMachine();
  const test::ScratchFolder scratch;
  const std::string directory = scratch.path().string();
  std::vector<double> times;
  std::vector<double> memory;
  for (int i = -2; i < 21; ++i) {
    const Start start = StartOnce(directory);
    if (i < 0) continue;  // the first one also creates the store
    times.push_back(start.milliseconds);
    memory.push_back(start.mib);
  }
  const double core = StrippedMiB(SELVAGE_LIBRARY, directory);
  const double network = StrippedMiB(SELVAGE_GRPC_LIBRARY, directory);
  SELVAGE_RETURN_IF_ERROR(report.Add(
      {.id = "B9",
       .case_name = "libselvage.so, stripped",
       .value = core,
       .unit = "MiB",
       .reference = "bound",
       .reference_value = 6},
      "no engine, no gRPC; SQLite, OpenSSL and yaml-cpp are Debian's"));
  SELVAGE_RETURN_IF_ERROR(report.Add(
      {.id = "B9",
       .case_name = "with libselvage-grpc.so, stripped",
       .value = core + network,
       .unit = "MiB",
       .reference = "bound",
       .reference_value = 6},
      "our code for the network too; gRPC and Protobuf are Debian's, dynamic"));
  SELVAGE_RETURN_IF_ERROR(report.Add({.id = "B9",
                                      .case_name = "process start to open",
                                      .value = Median(times),
                                      .unit = "ms",
                                      .reference = "bound",
                                      .reference_value = 30},
                                     "median of 21, warm file cache"));
  return report.Add({.id = "B9",
                     .case_name = "memory at rest, whole process",
                     .value = Median(memory),
                     .unit = "MiB",
                     .reference = "bound",
                     .reference_value = 12},
                    "resident, shared pages included; before any session");
}

}  // namespace
}  // namespace selvage::bench

int main(int argc, char** argv) {
  return selvage::bench::RunBench(argc, argv, selvage::bench::Run,
                                  selvage::bench::Only);
}

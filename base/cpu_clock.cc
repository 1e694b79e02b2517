#include "base/cpu_clock.h"

#include <sys/resource.h>

#include <ctime>

namespace selvage {
namespace {

Duration Read(clockid_t clock) {
  timespec now{};
  if (clock_gettime(clock, &now) != 0) return Duration::zero();
  return std::chrono::duration_cast<Duration>(
      std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec));
}

}  // namespace

Duration SystemCpuClock::ThreadTime() { return Read(CLOCK_THREAD_CPUTIME_ID); }

Duration SystemCpuClock::ProcessTime() {
  return Read(CLOCK_PROCESS_CPUTIME_ID);
}

uint64_t PeakMemoryBytes() {
  rusage usage{};
  if (getrusage(RUSAGE_SELF, &usage) != 0 || usage.ru_maxrss < 0) return 0;
  return static_cast<uint64_t>(usage.ru_maxrss) * 1024;  // Linux: KiB
}

}  // namespace selvage

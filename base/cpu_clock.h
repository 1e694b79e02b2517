// How much of the processor was used.
#pragma once

#include "base/time.h"

namespace selvage {

// Thread-safe. Tests own a FakeCpuClock (tests/testing/fake_clock.h).
class CpuClock {
 public:
  virtual ~CpuClock() = default;
  // CPU time that the calling thread used since it began.
  virtual Duration ThreadTime() = 0;
  // ... and all threads of the process together.
  virtual Duration ProcessTime() = 0;
};

// CLOCK_THREAD_CPUTIME_ID and CLOCK_PROCESS_CPUTIME_ID.
class SystemCpuClock final : public CpuClock {
 public:
  Duration ThreadTime() override;
  Duration ProcessTime() override;
};

// The most memory that the process had resident so far, in bytes; 0 if the
// system does not say.
uint64_t PeakMemoryBytes();

}  // namespace selvage

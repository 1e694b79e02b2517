// The time limit of a step, as the operator selvage::tick sees it. The
// interpreter calls operators on the thread that runs the program, so the
// deadline is that thread's.
#pragma once

#include <chrono>

#include "base/time.h"

namespace selvage::client::torch_engine {

// While one lives, CheckStepDeadline() on this thread holds the program to
// `limit`. Real time: nothing else measures an engine that does not come back.
// Not nested.
class StepDeadline {
 public:
  explicit StepDeadline(Duration limit);
  ~StepDeadline();
  StepDeadline(const StepDeadline&) = delete;
  StepDeadline& operator=(const StepDeadline&) = delete;

  bool passed() const;

 private:
  std::chrono::steady_clock::time_point deadline_;
};

// Throws std::runtime_error if this thread's deadline passed; does nothing if
// it has none.
void CheckStepDeadline();

}  // namespace selvage::client::torch_engine

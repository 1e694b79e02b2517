#include "client/training/torch/step_deadline.h"

#include <stdexcept>

#include "base/check.h"

namespace selvage::client::torch_engine {
namespace {

thread_local const StepDeadline* current = nullptr;

}  // namespace

StepDeadline::StepDeadline(Duration limit)
    : deadline_(std::chrono::steady_clock::now() + limit) {
  SELVAGE_CHECK(current == nullptr);
  current = this;
}

StepDeadline::~StepDeadline() { current = nullptr; }

bool StepDeadline::passed() const {
  return std::chrono::steady_clock::now() >= deadline_;
}

void CheckStepDeadline() {
  if (current != nullptr && current->passed()) {
    throw std::runtime_error("the step took too long");
  }
}

}  // namespace selvage::client::torch_engine

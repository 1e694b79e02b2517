#include "cli/interrupt.h"

#include <utility>

namespace selvage::cli {

void Interrupt::Trigger() {
  // Under the lock, so that a registration that is going away waits until its
  // callback is done with what it captured.
  std::lock_guard lock(mu_);
  triggered_ = true;
  for (const auto& [id, cancel] : callbacks_) cancel();
  callbacks_.clear();
  changed_.notify_all();
}

bool Interrupt::triggered() const {
  std::lock_guard lock(mu_);
  return triggered_;
}

bool Interrupt::WaitFor(Duration duration) {
  std::unique_lock lock(mu_);
  changed_.wait_for(lock, duration, [this] { return triggered_; });
  return triggered_;
}

Interrupt::Registration::Registration(Interrupt& interrupt,
                                      std::function<void()> cancel)
    : interrupt_(interrupt) {
  std::lock_guard lock(interrupt_.mu_);
  id_ = interrupt_.next_id_++;
  if (interrupt_.triggered_) {
    cancel();
  } else {
    interrupt_.callbacks_.emplace(id_, std::move(cancel));
  }
}

Interrupt::Registration::~Registration() {
  std::lock_guard lock(interrupt_.mu_);
  interrupt_.callbacks_.erase(id_);
}

}  // namespace selvage::cli

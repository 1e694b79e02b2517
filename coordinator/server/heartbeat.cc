#include "coordinator/server/heartbeat.h"

#include <charconv>
#include <system_error>
#include <utility>

namespace selvage::coordinator {
namespace {

// nullopt unless all of it is a decimal number.
std::optional<uint64_t> Number(const std::string& text) {
  uint64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end) return std::nullopt;
  return value;
}

// More than anybody waits; the type holds it.
constexpr uint64_t kPeriodMaxUs = uint64_t{365} * 24 * 3'600 * 1'000'000;

}  // namespace

Duration WatchdogPeriod(const std::optional<std::string>& usec,
                        const std::optional<std::string>& pid, pid_t self) {
  if (!usec.has_value()) return Duration::zero();
  if (pid.has_value() && Number(*pid) != static_cast<uint64_t>(self)) {
    return Duration::zero();  // meant for another process
  }
  const std::optional<uint64_t> period = Number(*usec);
  if (!period.has_value() || *period > kPeriodMaxUs) return Duration::zero();
  return std::chrono::microseconds(*period);
}

Heartbeat::Heartbeat(Duration interval, std::function<uint64_t()> turns,
                     std::function<void()> tell)
    : thread_([this, interval, turns = std::move(turns),
               tell = std::move(tell)] { Run(interval, turns, tell); }) {}

Heartbeat::~Heartbeat() {
  {
    const std::lock_guard<std::mutex> lock(mu_);
    stopped_ = true;
  }
  stop_.notify_all();
  thread_.join();
}

void Heartbeat::Run(Duration interval, const std::function<uint64_t()>& turns,
                    const std::function<void()>& tell) {
  Pulse pulse;
  std::unique_lock<std::mutex> lock(mu_);
  do {
    if (pulse.Moved(turns())) tell();
  } while (!stop_.wait_for(lock, interval, [this] { return stopped_; }));
}

}  // namespace selvage::coordinator

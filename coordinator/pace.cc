#include "coordinator/pace.h"

#include <algorithm>
#include <cmath>

namespace selvage::coordinator {
namespace {

constexpr double kTargetMax = 1e6;
constexpr Duration kWindowMaxMax = std::chrono::hours(24 * 7);
constexpr Duration kBurst = std::chrono::seconds(10);
// Of a new measurement of the fleet.
constexpr double kNewShare = 0.5;
// A fleet is small if fewer than this many times the devices that a draw waits
// for arrive within its selection window.
constexpr double kSmallFleet = 2;

double Seconds(Duration d) { return std::chrono::duration<double>(d).count(); }

// Saturates at `most`.
Duration FromSeconds(double seconds, Duration most) {
  if (!(seconds < Seconds(most))) return most;
  return std::chrono::duration_cast<Duration>(
      std::chrono::duration<double>(seconds));
}

}  // namespace

Status PaceOptions::Validate() const {
  if (floor.min <= Duration::zero() || floor.max < floor.min) {
    return InvalidArgument("pace must be 0 < min <= max");
  }
  if (!(target_per_second > 0) || target_per_second > kTargetMax) {
    return InvalidArgument("pace.target_per_second must be in (0, 1000000]");
  }
  if (window_max < floor.max || window_max > kWindowMaxMax) {
    return InvalidArgument(
        "pace.window_max must be at least pace.retry_max and at most 7 days");
  }
  if (accepted_min < Duration::zero() || accepted_min > window_max) {
    return InvalidArgument("pace.accepted_min must be in [0, pace.window_max]");
  }
  return OkStatus();
}

PaceOptions PaceOptionsOf(const CoordinatorOptions& options) {
  return {.floor = options.pace,
          .accepted_min = options.pace_accepted_min,
          .target_per_second = options.pace_target_per_second,
          .window_max = std::max(options.pace_window_max, options.pace.max)};
}

bool TokenBucket::Take(Time now) {
  if (now > last_) {
    tokens_ = std::min(burst_, tokens_ + rate_ * Seconds(now - last_));
    last_ = now;
  }
  if (tokens_ < 1) return false;
  tokens_ -= 1;
  return true;
}

// --------------------------------------------------------- one population

Pace::Pace(const PaceOptions& options, Time now)
    : options_(options),
      last_(now),
      opened_(now),
      window_(Floor()),
      told_(Floor()) {}

RetryWindow Pace::Spread(Duration middle) const {
  if (middle <= Floor()) return options_.floor;
  return {std::max(options_.floor.min, middle / 2),
          std::min(options_.window_max, middle + middle / 2)};
}

Duration Pace::window() const {
  const Duration by_now =
      FromSeconds(static_cast<double>(arrived_) / options_.target_per_second,
                  options_.window_max);
  return std::max(window_, by_now);
}

void Pace::CloseInterval(Time now) {
  const double length = Seconds(now - opened_);
  observed_ = static_cast<double>(arrived_) / length;
  const double fleet = observed_ * Seconds(told_);
  fleet_ = measured_ ? kNewShare * fleet + (1 - kNewShare) * fleet_ : fleet;
  measured_ = true;
  // What was told in a crowd's interval is where the next one starts from.
  const Duration current = window();
  const Duration wanted =
      FromSeconds(fleet_ / options_.target_per_second, options_.window_max);
  if (arrived_ > 0) {
    told_ = FromSeconds(told_sum_ / static_cast<double>(arrived_),
                        options_.window_max);
  }
  window_ = std::clamp(std::clamp(wanted, window_ / 2, 2 * current), Floor(),
                       options_.window_max);
  arrived_ = 0;
  told_sum_ = 0;
  opened_ = now;
}

RetryWindow Pace::Reject(Time now, const Gathering& gathering) {
  now = last_ = std::max(last_, now);
  // The first interval ends when those could return who came in it: before, a
  // process that knows nothing would take a part of the fleet for all of it.
  if (now - opened_ >= (measured_ ? window_ : window())) CloseInterval(now);
  ++arrived_;
  const Duration middle = window();
  told_sum_ += Seconds(middle);
  const double within =
      fleet_ * std::min(1.0, Seconds(gathering.selection_window) /
                                 Seconds(std::max(middle, Duration(1))));
  const bool small =
      measured_ && middle <= Floor() && gathering.devices_wanted > 0 &&
      within < kSmallFleet * static_cast<double>(gathering.devices_wanted);
  if (!small) return Spread(middle);
  // min <= delay < min + period, and min + period + jitter <= max.
  const Duration span = options_.floor.max - options_.floor.min;
  const Duration jitter = std::min(gathering.selection_window, span / 4);
  const Duration period = span - jitter;
  if (period <= Duration::zero()) return options_.floor;
  const Duration soonest = now.time_since_epoch() + options_.floor.min;
  const Duration wait = (period - soonest % period) % period;
  return {options_.floor.min + wait, options_.floor.min + wait + jitter};
}

RetryWindow Pace::AfterWork(bool accepted) const {
  RetryWindow window = Spread(this->window());
  if (!accepted || window.min >= options_.accepted_min) return window;
  // As wide as before, so that a round's devices do not return as one.
  const Duration width = window.max - window.min;
  return {options_.accepted_min, options_.accepted_min + width};
}

// -------------------------------------------------------- all populations

PaceSteering::Population& PaceSteering::Of(const std::string& population,
                                           Time now) {
  const auto it = populations_.find(population);
  if (it != populations_.end()) return it->second;
  const double rate = 2 * options_.target_per_second;
  return populations_
      .emplace(
          population,
          Population{
              Pace(options_, now),
              TokenBucket(rate, std::max(1.0, rate * Seconds(kBurst)), now)})
      .first->second;
}

bool PaceSteering::Admit(const std::string& population, Time now) {
  MutexLock lock(mu_);
  return Of(population, now).bucket.Take(now);
}

RetryWindow PaceSteering::Reject(const std::string& population, Time now,
                                 const Gathering& gathering) {
  MutexLock lock(mu_);
  return Of(population, now).pace.Reject(now, gathering);
}

RetryWindow PaceSteering::AfterWork(const std::string& population,
                                    bool accepted) const {
  MutexLock lock(mu_);
  const auto it = populations_.find(population);
  if (it != populations_.end()) return it->second.pace.AfterWork(accepted);
  return Pace(options_, Time{}).AfterWork(accepted);
}

PaceView PaceSteering::View(const std::string& population) const {
  PaceView view;
  view.target_per_second = options_.target_per_second;
  MutexLock lock(mu_);
  const auto it = populations_.find(population);
  if (it == populations_.end()) return view;
  view.observed_per_second = it->second.pace.observed_per_second();
  view.window = it->second.pace.window();
  return view;
}

}  // namespace selvage::coordinator

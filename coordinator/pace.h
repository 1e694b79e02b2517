// Pace steering: when the devices of a population come back.
//
// A server cannot call its devices, it can only say when to call again
// (Bonawitz et al., "Towards Federated Learning at Scale: System Design", 2019,
// section 2.3). Two pure machines; whoever owns one hands in the time.
//
// Pace keeps the arrivals of one population near a target rate r:
//
//   spreading    A device that is sent home comes back after U[0.5 W, 1.5 W].
//                Each interval of length W measures the arrivals per second a;
//                those devices had been told V on average (in the interval
//                before), so the fleet has about n = a V of them. n is smoothed
//                and W <- clamp(n / r, W/2 .. 2W), in [floor, window_max].
//                (With W in the place of V the loop would have a delay of one
//                window and oscillate.)
//   stampedes    What arrives in the open interval counts at once: the k-th
//                arrival beyond r W is told k / r. So a crowd that comes at one
//                moment (an outage is over, this process has just started and
//                knows nothing) leaves over a stretch as long as it is large:
//                the density of U[0.5 k/r, 1.5 k/r] over k is r ln 3. The
//                first interval lasts as long as what is told in it.
//   rendezvous   A fleet so small that spreading would leave rounds waiting is
//                told to meet: the next multiple of a period, and a jitter of
//                at most the selection window. Within the floor's bounds, so
//                nobody comes sooner or later than without.
//
// While W is the floor, windows are exactly the configured ones.
//
// What holds (tests/unit/coordinator/pace_test.cc): after an outage of any
// length arrivals are at most twice the target in every window, if devices draw
// from the whole of the window they were told (full jitter), also if this
// process has forgotten everything. If all come in one moment, the moment
// itself cannot be helped: PaceSteering::Admit() bounds what it may cost.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "base/mutex.h"
#include "base/status.h"
#include "base/time.h"
#include "coordinator/api.h"
#include "coordinator/options.h"

namespace selvage::coordinator {

struct PaceOptions {
  // The least: of a population that arrives below the target.
  RetryWindow floor{std::chrono::seconds(60), std::chrono::seconds(120)};
  // Devices whose work was taken stay away at least this long, however small
  // the fleet (fairness; 0: as long as the others).
  Duration accepted_min{};
  // Check-ins per second of one population with this process. (0, 1e6]
  double target_per_second = 2000;
  // No window is longer. >= floor.max, at most 7 days.
  Duration window_max = std::chrono::hours(24);

  // INVALID_ARGUMENT names field, value and bound.
  Status Validate() const;
};

PaceOptions PaceOptionsOf(const CoordinatorOptions& options);

// What a population's tasks wait for; none: devices_wanted is 0.
struct Gathering {
  uint64_t devices_wanted = 0;  // together, for a draw
  Duration selection_window{};  // that they may take to come
};

// Admission to what costs more than memory: `rate` per second on average, after
// a pause up to `burst` at once. Thread-compatible.
class TokenBucket {
 public:
  // REQUIRES: rate > 0, burst >= 1
  TokenBucket(double rate, double burst, Time now)
      : rate_(rate), burst_(burst), tokens_(burst), last_(now) {}

  // Time that goes back counts as no time.
  bool Take(Time now);

 private:
  double rate_;
  double burst_;
  double tokens_;
  Time last_;
};

// Of one population. Thread-compatible; time that goes back counts as no time.
class Pace {
 public:
  // REQUIRES: options are valid
  Pace(const PaceOptions& options, Time now);

  // One device arrived and is sent home: counts it, and says when it comes
  // back.
  RetryWindow Reject(Time now, const Gathering& gathering);
  // When a device comes back whose work is taken, or cannot be.
  RetryWindow AfterWork(bool accepted) const;

  // The middle of the windows told now.
  Duration window() const;
  // Arrivals per second in the last whole interval.
  double observed_per_second() const { return observed_; }
  // Devices in the population that are sent home and come back, as far as
  // known.
  double fleet() const { return fleet_; }

 private:
  Duration Floor() const {
    return (options_.floor.min + options_.floor.max) / 2;
  }
  RetryWindow Spread(Duration middle) const;
  void CloseInterval(Time now);

  PaceOptions options_;
  Time last_;
  Time opened_;          // the interval
  Duration window_;      // W
  Duration told_;        // V: the mean of the interval before
  double told_sum_ = 0;  // in the open interval, seconds
  uint64_t arrived_ = 0;
  double observed_ = 0;
  double fleet_ = 0;
  bool measured_ = false;  // a whole interval has been
};

// All populations of a process. Memory alone: no call waits for anything but
// the others. Thread-safe.
class PaceSteering {
 public:
  explicit PaceSteering(const PaceOptions& options) : options_(options) {}

  // False: too many ask for more than memory, this one is to be rejected. Twice
  // the target on average, bursts of ten seconds of that.
  bool Admit(const std::string& population, Time now) SELVAGE_EXCLUDES(mu_);
  RetryWindow Reject(const std::string& population, Time now,
                     const Gathering& gathering) SELVAGE_EXCLUDES(mu_);
  RetryWindow AfterWork(const std::string& population, bool accepted) const
      SELVAGE_EXCLUDES(mu_);

  // Zeros but for the target: nobody of it has come yet.
  PaceView View(const std::string& population) const SELVAGE_EXCLUDES(mu_);

 private:
  struct Population {
    Pace pace;
    TokenBucket bucket;
  };
  Population& Of(const std::string& population, Time now) SELVAGE_REQUIRES(mu_);

  const PaceOptions options_;
  mutable Mutex mu_;
  // Enrolled devices' populations only, so an operator bounds them.
  std::map<std::string, Population> populations_ SELVAGE_GUARDED_BY(mu_);
};

}  // namespace selvage::coordinator

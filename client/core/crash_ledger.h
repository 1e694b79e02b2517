// What a device remembers of its own deaths. Work that can take the process
// with it (an engine that loads a model, a training step) is written down
// before it begins and crossed out after it; what is still there when the
// library opens again was the end of a process.
//
//   three deaths under the same values      those values are put aside: what
//                                           served before them serves again
//   three deaths within 24 hours, one of    no training for 7 days, then 14,
//   them at least while values were         then 28
//   loaded or tried
//   three deaths within 24 hours, all in    no training for an hour, then a
//   training, none of which got further     day, then 7 days
//
// A training that survives after a pause starts both rows again. A process that
// was killed from outside looks the same, and phones do that to whoever works
// in the background: so what dies in training, but leaves a checkpoint that is
// further than the last one, is no sign of anything, and what leaves none is
// tried again soon.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"
#include "base/time.h"
#include "crypto/digest.h"

namespace selvage::client {

enum class RiskyWork : uint8_t {
  kServing = 1,     // loading what is to serve
  kActivation = 2,  // trying values that are to serve
  kTraining = 3,
};

inline constexpr int kDeathsMax = 3;
inline constexpr Duration kDeathWindow = std::chrono::hours(24);
// After deaths some of which were at loading, and after deaths in training
// alone: the first pause, the second, all later ones.
inline constexpr Duration kLoadPauses[] = {std::chrono::hours(24 * 7),
                                           std::chrono::hours(24 * 14),
                                           std::chrono::hours(24 * 28)};
inline constexpr Duration kTrainingPauses[] = {
    std::chrono::hours(1), std::chrono::hours(24), std::chrono::hours(24 * 7)};
inline constexpr Duration kPauseMax = std::chrono::hours(24 * 28);

// A value: the owner makes Save() durable before the work begins.
// Thread-compatible.
class CrashLedger {
 public:
  // `what` names the values: their SHA-256. Marks beyond the eighth are
  // dropped, the oldest first: a device does not begin so much at once.
  void Begin(RiskyWork work, const crypto::Digest& what);
  // It survived: crosses the mark out and, unless it was training, forgets
  // what `what` was suspected of.
  void End(RiskyWork work, const crypto::Digest& what);

  // Once, when the library opens: turns the marks that are left (and
  // `session_died`, the session's own mark) into one death at `now`. False if
  // there was none.
  bool CountDeath(bool session_died, Time now);

  // Deaths while `what` was loaded or tried, since it last survived.
  int DeathsOf(const crypto::Digest& what) const;
  bool IsPutAside(const crypto::Digest& what) const {
    return DeathsOf(what) >= kDeathsMax;
  }
  // Until when nothing is trained. A clock that was set back does not make a
  // pause longer than it can be.
  std::optional<Time> PausedUntil(Time now) const;
  // Died within the last 24 hours, or paused: what is cheap to leave out
  // otherwise is written down now.
  bool IsWary(Time now) const;
  void TrainingSurvived(Time now);
  // A checkpoint that is further than the last one is durable: the deaths in
  // training so far are forgiven.
  void TrainingProgressed();

  // Canonical: what Save() could not have written is DATA_LOSS.
  Bytes Save() const;
  static Result<CrashLedger> Restore(ByteSpan bytes);

  friend bool operator==(const CrashLedger&, const CrashLedger&) = default;

 private:
  struct Mark {
    RiskyWork work = RiskyWork::kTraining;
    crypto::Digest what;
    friend bool operator==(const Mark&, const Mark&) = default;
  };
  struct Suspect {
    crypto::Digest what;
    uint8_t deaths = 0;
    friend bool operator==(const Suspect&, const Suspect&) = default;
  };

  struct Death {
    Time at{};
    bool loading = false;
    friend bool operator==(const Death&, const Death&) = default;
  };

  static Result<CrashLedger> Read(ByteSpan bytes);

  std::vector<Mark> marks_;        // oldest first, at most 8
  std::vector<Suspect> suspects_;  // oldest first, at most 16
  std::vector<Death> deaths_;      // oldest first, fewer than three
  // Since training last survived one, at most three each.
  uint8_t load_pauses_ = 0;
  uint8_t training_pauses_ = 0;
  Time paused_until_{};  // the epoch: never paused
};

}  // namespace selvage::client

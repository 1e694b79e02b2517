// What a device used in the present UTC day. A value: no clock, no disk.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/status.h"
#include "base/time.h"

namespace selvage::client {

struct DayUsage {
  uint64_t metered_bytes = 0;
  uint64_t unmetered_bytes = 0;
  Duration cpu{};
  uint32_t uploads = 0;

  friend bool operator==(const DayUsage&, const DayUsage&) = default;
};

// Counts start again when the clock passes a midnight (UTC) that it was not
// seen to pass before. A clock that jumps back does not make a new day, and
// neither does its way forward again to the day that is being counted. One that
// was ahead and was put right counts on, and starts again at its next midnight:
// a wrong clock costs a day, not the years that it was wrong by.
//
// Thread-compatible.
class UsageLedger {
 public:
  // Call before the counts are read or added to.
  void Observe(Time now);

  const DayUsage& today() const { return usage_; }
  void AddBytes(bool unmetered, uint64_t count);
  void AddCpu(Duration used);
  // Once per assignment, however often its update is sent.
  void AddUpload(std::string_view assignment_id);
  bool HasUpload(std::string_view assignment_id) const {
    return last_upload_ == assignment_id;
  }

  // When the counts start again. REQUIRES: Observe().
  Time NextDay() const;

  Bytes Save() const;
  // DATA_LOSS unless Save() wrote it.
  static Result<UsageLedger> Restore(ByteSpan bytes);

 private:
  int64_t day_ = 0;   // that is counted; days since the epoch
  int64_t seen_ = 0;  // by the clock, last; < day_ if it jumped back
  DayUsage usage_;
  std::string last_upload_;
};

}  // namespace selvage::client

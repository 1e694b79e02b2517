#include "client/core/usage_ledger.h"

#include <algorithm>
#include <limits>

namespace selvage::client {
namespace {

constexpr uint32_t kMagic = 0x47554c53;  // "SLUG"
constexpr uint16_t kVersion = 1;
constexpr Duration kDay = std::chrono::hours(24);
constexpr size_t kIdSizeMax = 256;
// Days of the years 1970 to 10000, beyond what any clock shows.
constexpr int64_t kDayMax = 3'000'000;

int64_t DayOf(Time time) {
  return std::clamp<int64_t>(time.time_since_epoch() / kDay, 0, kDayMax);
}

void Add(uint64_t& sum, uint64_t count) {
  sum += std::min(count, std::numeric_limits<uint64_t>::max() - sum);
}

}  // namespace

void UsageLedger::Observe(Time now) {
  const int64_t today = DayOf(now);
  const bool behind = seen_ < day_;
  const bool new_day =
      today > day_ || (behind && today > seen_ && today < day_);
  if (new_day) {
    day_ = today;
    usage_ = DayUsage{};
  }
  seen_ = today;
}

void UsageLedger::AddBytes(bool unmetered, uint64_t count) {
  Add(unmetered ? usage_.unmetered_bytes : usage_.metered_bytes, count);
}

void UsageLedger::AddCpu(Duration used) {
  usage_.cpu += std::clamp(used, Duration::zero(), kDay * 1000);
  usage_.cpu = std::min(usage_.cpu, kDay * 1'000'000);
}

void UsageLedger::AddUpload(std::string_view assignment_id) {
  if (HasUpload(assignment_id)) return;
  last_upload_ = assignment_id.substr(0, kIdSizeMax);
  if (usage_.uploads < std::numeric_limits<uint32_t>::max()) ++usage_.uploads;
}

Time UsageLedger::NextDay() const { return Time((seen_ + 1) * kDay); }

Bytes UsageLedger::Save() const {
  Bytes out;
  AppendLe(out, kMagic);
  AppendLe(out, kVersion);
  AppendLe(out, day_);
  AppendLe(out, seen_);
  AppendLe(out, usage_.metered_bytes);
  AppendLe(out, usage_.unmetered_bytes);
  AppendLe(out, static_cast<int64_t>(usage_.cpu.count()));
  AppendLe(out, usage_.uploads);
  AppendLe(out, static_cast<uint32_t>(last_upload_.size()));
  AppendBytes(out, AsBytes(last_upload_));
  return out;
}

Result<UsageLedger> UsageLedger::Restore(ByteSpan bytes) {
  ByteReader in(bytes);
  UsageLedger ledger;
  SELVAGE_ASSIGN_OR_RETURN(const auto magic, in.Read<uint32_t>("magic"));
  SELVAGE_ASSIGN_OR_RETURN(const auto version, in.Read<uint16_t>("version"));
  if (magic != kMagic || version != kVersion) {
    return DataLoss("the usage ledger is not one of this version");
  }
  SELVAGE_ASSIGN_OR_RETURN(ledger.day_, in.Read<int64_t>("day"));
  SELVAGE_ASSIGN_OR_RETURN(ledger.seen_, in.Read<int64_t>("seen"));
  DayUsage& usage = ledger.usage_;
  SELVAGE_ASSIGN_OR_RETURN(usage.metered_bytes, in.Read<uint64_t>("metered"));
  SELVAGE_ASSIGN_OR_RETURN(usage.unmetered_bytes,
                           in.Read<uint64_t>("unmetered"));
  SELVAGE_ASSIGN_OR_RETURN(const auto cpu, in.Read<int64_t>("cpu"));
  usage.cpu = Duration(cpu);
  SELVAGE_ASSIGN_OR_RETURN(usage.uploads, in.Read<uint32_t>("uploads"));
  SELVAGE_ASSIGN_OR_RETURN(const auto size, in.Read<uint32_t>("size"));
  const bool possible = ledger.day_ >= 0 && ledger.day_ <= kDayMax &&
                        ledger.seen_ >= 0 && ledger.seen_ <= kDayMax &&
                        cpu >= 0 && usage.cpu <= kDay * 1'000'000 &&
                        size <= kIdSizeMax && in.remaining() == size;
  if (!possible) return DataLoss("the usage ledger holds what cannot be");
  SELVAGE_ASSIGN_OR_RETURN(const ByteSpan id, in.ReadBytes(size, "id"));
  ledger.last_upload_ = ToString(id);
  return ledger;
}

}  // namespace selvage::client

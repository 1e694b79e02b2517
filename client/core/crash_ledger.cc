#include "client/core/crash_ledger.h"

#include <algorithm>
#include <string>

namespace selvage::client {
namespace {

constexpr uint32_t kMagic = 0x434c5653;  // "SVLC"
constexpr uint16_t kVersion = 2;
constexpr size_t kMarksMax = 8;
constexpr size_t kSuspectsMax = 16;
constexpr uint8_t kPausesMax = 3;
constexpr Time kTimeMax = FromMicros(int64_t{1} << 61);

// The pause after `pauses` of them, which it counts.
Duration NextPause(const Duration (&row)[kPausesMax], uint8_t& pauses) {
  const Duration pause = row[std::min<int>(pauses, kPausesMax - 1)];
  pauses = static_cast<uint8_t>(std::min<int>(pauses + 1, kPausesMax));
  return pause;
}

Status Impossible(const std::string& what) {
  return DataLoss(what + " is impossible");
}

Result<crypto::Digest> ReadDigest(ByteReader& reader) {
  SELVAGE_ASSIGN_OR_RETURN(const ByteSpan raw,
                           reader.ReadBytes(32, "a digest"));
  return crypto::Digest::FromBytes(raw);
}

Result<Time> ReadTime(ByteReader& reader) {
  SELVAGE_ASSIGN_OR_RETURN(const auto micros, reader.Read<int64_t>("a time"));
  const Time time = FromMicros(micros);
  if (time < Time{} || time > kTimeMax) return Impossible("a time");
  return time;
}

}  // namespace

void CrashLedger::Begin(RiskyWork work, const crypto::Digest& what) {
  const Mark mark{.work = work, .what = what};
  if (std::find(marks_.begin(), marks_.end(), mark) != marks_.end()) return;
  if (marks_.size() == kMarksMax) marks_.erase(marks_.begin());
  marks_.push_back(mark);
}

void CrashLedger::End(RiskyWork work, const crypto::Digest& what) {
  std::erase(marks_, Mark{.work = work, .what = what});
  if (work == RiskyWork::kTraining) return;
  std::erase_if(suspects_, [&](const Suspect& s) { return s.what == what; });
}

bool CrashLedger::CountDeath(bool session_died, Time now) {
  if (marks_.empty() && !session_died) return false;
  std::vector<crypto::Digest> suspected;
  for (const Mark& mark : marks_) {
    if (mark.work == RiskyWork::kTraining) continue;
    if (std::find(suspected.begin(), suspected.end(), mark.what) ==
        suspected.end()) {
      suspected.push_back(mark.what);
    }
  }
  marks_.clear();
  const bool loading = !suspected.empty();
  for (const crypto::Digest& what : suspected) {
    const auto it =
        std::find_if(suspects_.begin(), suspects_.end(),
                     [&](const Suspect& s) { return s.what == what; });
    if (it != suspects_.end()) {
      it->deaths =
          static_cast<uint8_t>(std::min<int>(it->deaths + 1, kDeathsMax));
      continue;
    }
    if (suspects_.size() == kSuspectsMax) suspects_.erase(suspects_.begin());
    suspects_.push_back({.what = what, .deaths = 1});
  }
  std::erase_if(deaths_, [&](const Death& death) {
    return death.at > now || now - death.at > kDeathWindow;
  });
  deaths_.push_back(
      {.at = std::clamp(now, Time{}, kTimeMax), .loading = loading});
  if (deaths_.size() >= static_cast<size_t>(kDeathsMax)) {
    const bool any_loading =
        std::any_of(deaths_.begin(), deaths_.end(),
                    [](const Death& death) { return death.loading; });
    const Duration pause = any_loading
                               ? NextPause(kLoadPauses, load_pauses_)
                               : NextPause(kTrainingPauses, training_pauses_);
    paused_until_ = std::min(deaths_.back().at + pause, kTimeMax);
    deaths_.clear();
  }
  return true;
}

int CrashLedger::DeathsOf(const crypto::Digest& what) const {
  const auto it =
      std::find_if(suspects_.begin(), suspects_.end(),
                   [&](const Suspect& s) { return s.what == what; });
  return it == suspects_.end() ? 0 : it->deaths;
}

std::optional<Time> CrashLedger::PausedUntil(Time now) const {
  if (now >= paused_until_ || paused_until_ - now > kPauseMax) {
    return std::nullopt;
  }
  return paused_until_;
}

bool CrashLedger::IsWary(Time now) const {
  return PausedUntil(now).has_value() ||
         std::any_of(deaths_.begin(), deaths_.end(), [&](const Death& death) {
           return death.at <= now && now - death.at <= kDeathWindow;
         });
}

void CrashLedger::TrainingSurvived(Time now) {
  if (PausedUntil(now).has_value()) return;
  load_pauses_ = 0;
  training_pauses_ = 0;
}

void CrashLedger::TrainingProgressed() {
  std::erase_if(deaths_, [](const Death& death) { return !death.loading; });
}

Bytes CrashLedger::Save() const {
  Bytes out;
  AppendLe(out, kMagic);
  AppendLe(out, kVersion);
  AppendLe(out, static_cast<uint8_t>(marks_.size()));
  for (const Mark& mark : marks_) {
    AppendLe(out, static_cast<uint8_t>(mark.work));
    AppendBytes(out, mark.what.span());
  }
  AppendLe(out, static_cast<uint8_t>(suspects_.size()));
  for (const Suspect& suspect : suspects_) {
    AppendBytes(out, suspect.what.span());
    AppendLe(out, suspect.deaths);
  }
  AppendLe(out, static_cast<uint8_t>(deaths_.size()));
  for (const Death& death : deaths_) {
    AppendLe(out, ToMicros(death.at));
    AppendLe(out, static_cast<uint8_t>(death.loading));
  }
  AppendLe(out, load_pauses_);
  AppendLe(out, training_pauses_);
  AppendLe(out, ToMicros(paused_until_));
  return out;
}

Result<CrashLedger> CrashLedger::Restore(ByteSpan bytes) {
  Result<CrashLedger> ledger = Read(bytes);
  if (ledger.ok()) return ledger;
  return DataLoss("crash ledger: " + std::string(ledger.status().message()));
}

Result<CrashLedger> CrashLedger::Read(ByteSpan bytes) {
  ByteReader reader(bytes);
  CrashLedger out;
  SELVAGE_ASSIGN_OR_RETURN(const auto magic, reader.Read<uint32_t>("magic"));
  SELVAGE_ASSIGN_OR_RETURN(const auto version,
                           reader.Read<uint16_t>("version"));
  if (magic != kMagic || version != kVersion) return Impossible("the start");
  SELVAGE_ASSIGN_OR_RETURN(const auto marks, reader.Read<uint8_t>("marks"));
  if (marks > kMarksMax) return Impossible("the number of marks");
  for (int i = 0; i < marks; ++i) {
    SELVAGE_ASSIGN_OR_RETURN(const auto work, reader.Read<uint8_t>("work"));
    if (work < 1 || work > 3) return Impossible("the work of a mark");
    Mark mark{.work = static_cast<RiskyWork>(work), .what = {}};
    SELVAGE_ASSIGN_OR_RETURN(mark.what, ReadDigest(reader));
    if (std::find(out.marks_.begin(), out.marks_.end(), mark) !=
        out.marks_.end()) {
      return Impossible("a mark that is there twice");
    }
    out.marks_.push_back(mark);
  }
  SELVAGE_ASSIGN_OR_RETURN(const auto suspects,
                           reader.Read<uint8_t>("suspects"));
  if (suspects > kSuspectsMax) return Impossible("the number of suspects");
  for (int i = 0; i < suspects; ++i) {
    Suspect suspect;
    SELVAGE_ASSIGN_OR_RETURN(suspect.what, ReadDigest(reader));
    SELVAGE_ASSIGN_OR_RETURN(suspect.deaths, reader.Read<uint8_t>("deaths"));
    if (suspect.deaths < 1 || suspect.deaths > kDeathsMax ||
        out.DeathsOf(suspect.what) > 0) {
      return Impossible("a suspect");
    }
    out.suspects_.push_back(suspect);
  }
  SELVAGE_ASSIGN_OR_RETURN(const auto deaths, reader.Read<uint8_t>("deaths"));
  if (deaths >= kDeathsMax) return Impossible("the number of deaths");
  for (int i = 0; i < deaths; ++i) {
    SELVAGE_ASSIGN_OR_RETURN(const Time at, ReadTime(reader));
    SELVAGE_ASSIGN_OR_RETURN(const auto loading,
                             reader.Read<uint8_t>("what died"));
    if (loading > 1) return Impossible("what died");
    out.deaths_.push_back({.at = at, .loading = loading == 1});
  }
  for (uint8_t* pauses : {&out.load_pauses_, &out.training_pauses_}) {
    SELVAGE_ASSIGN_OR_RETURN(*pauses, reader.Read<uint8_t>("pauses"));
    if (*pauses > kPausesMax) return Impossible("the number of pauses");
  }
  SELVAGE_ASSIGN_OR_RETURN(out.paused_until_, ReadTime(reader));
  if (reader.remaining() != 0) return Impossible("what follows the end");
  return out;
}

}  // namespace selvage::client

#include "client/crash_guard.h"

#include <array>
#include <ctime>

namespace selvage::client {
namespace {

std::string FormatUtc(Time time) {
  const auto seconds = static_cast<time_t>(ToMicros(time) / 1'000'000);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  std::array<char, 32> text{};
  const size_t size =
      std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return std::string(text.data(), size);
}

}  // namespace

Result<std::unique_ptr<CrashGuard>> CrashGuard::Open(ClientStore& store,
                                                     Clock& clock,
                                                     EventSink& events) {
  std::unique_ptr<CrashGuard> guard(new CrashGuard(store, clock, events));
  SELVAGE_ASSIGN_OR_RETURN(const std::optional<Bytes> saved,
                           store.LoadCrashes());
  MutexLock lock(guard->mu_);
  if (saved.has_value()) {
    Result<CrashLedger> ledger = CrashLedger::Restore(*saved);
    if (ledger.ok()) {
      guard->ledger_ = *std::move(ledger);
      guard->saved_ = *saved;
    } else {
      events.Write(LogLevel::kWarning, "crash_ledger_reset",
                   {{"reason", ledger.status().message()}});
    }
  }
  if (guard->saved_.empty()) guard->saved_ = guard->ledger_.Save();
  return guard;
}

std::optional<CrashGuard::Death> CrashGuard::CountDeath(bool session_died) {
  MutexLock lock(mu_);
  const Time now = clock_.Now();
  const bool paused = ledger_.PausedUntil(now).has_value();
  if (!ledger_.CountDeath(session_died, now)) return std::nullopt;
  saved_ = ledger_.Save();
  Death death{.ledger = saved_, .counters = {"crashed"}};
  const std::optional<Time> until = ledger_.PausedUntil(now);
  if (until.has_value() && !paused) death.counters.push_back("training_paused");
  events_.Write(LogLevel::kWarning, "process_died",
                {{"training", until.has_value() ? "paused" : "goes on"}});
  return death;
}

Status CrashGuard::Save() {
  Bytes bytes = ledger_.Save();
  if (bytes == saved_) return OkStatus();
  SELVAGE_RETURN_IF_ERROR(store_.SaveCrashes(bytes));
  saved_ = std::move(bytes);
  return OkStatus();
}

Result<CrashGuard::Scope> CrashGuard::Begin(RiskyWork work,
                                            const crypto::Digest& what) {
  MutexLock lock(mu_);
  ledger_.Begin(work, what);
  SELVAGE_RETURN_IF_ERROR(Save());
  return Scope(this, work, what);
}

Result<CrashGuard::Scope> CrashGuard::BeginIfWary(RiskyWork work,
                                                  const crypto::Digest& what) {
  {
    MutexLock lock(mu_);
    if (!ledger_.IsWary(clock_.Now())) return Scope();
  }
  return Begin(work, what);
}

void CrashGuard::End(RiskyWork work, const crypto::Digest& what) {
  MutexLock lock(mu_);
  ledger_.End(work, what);
  // A mark that cannot be crossed out costs one death too many at worst; the
  // next write crosses it out.
  (void)Save();
}

bool CrashGuard::IsPutAside(const crypto::Digest& what) {
  MutexLock lock(mu_);
  return ledger_.IsPutAside(what);
}

std::optional<Time> CrashGuard::PausedUntil() {
  MutexLock lock(mu_);
  return ledger_.PausedUntil(clock_.Now());
}

Status CrashGuard::CheckNotPaused() {
  const std::optional<Time> until = PausedUntil();
  if (!until.has_value()) return OkStatus();
  return FailedPrecondition("training is paused until " + FormatUtc(*until) +
                            " after repeated crashes");
}

void CrashGuard::TrainingSurvived() {
  MutexLock lock(mu_);
  ledger_.TrainingSurvived(clock_.Now());
  (void)Save();
}

void CrashGuard::TrainingProgressed() {
  MutexLock lock(mu_);
  ledger_.TrainingProgressed();
  (void)Save();
}

}  // namespace selvage::client

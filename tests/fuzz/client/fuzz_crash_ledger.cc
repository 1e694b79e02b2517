// Saved crash ledgers: what restores must save to the same bytes, and stay
// restorable whatever happens next: the last byte chooses.
#include <algorithm>
#include <cstdint>

#include "base/check.h"
#include "base/random.h"
#include "client/core/crash_ledger.h"

using selvage::ByteSpan;
using selvage::Result;
using selvage::client::CrashLedger;
using selvage::client::RiskyWork;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const ByteSpan saved(data, size - 1);
  Result<CrashLedger> ledger = CrashLedger::Restore(saved);
  if (!ledger.ok()) return 0;
  const auto bytes = ledger->Save();
  SELVAGE_CHECK(
      std::equal(bytes.begin(), bytes.end(), saved.begin(), saved.end()));

  selvage::SeededRandom random(data[size - 1]);
  for (int i = 0; i < 20; ++i) {
    const auto now = selvage::FromMicros(
        static_cast<int64_t>(random.Next() % 4'000'000'000'000'000));
    const selvage::crypto::Digest what =
        selvage::crypto::Sha256(ByteSpan(data, random.Next() % size));
    const auto work = static_cast<RiskyWork>(1 + random.Next() % 3);
    switch (random.Next() % 5) {
      case 0:
        ledger->Begin(work, what);
        break;
      case 1:
        ledger->End(work, what);
        break;
      case 3:
        ledger->TrainingProgressed();
        break;
      case 2:
        ledger->CountDeath(random.Next() % 2 == 0, now);
        break;
      default:
        ledger->TrainingSurvived(now);
    }
    const Result<CrashLedger> again = CrashLedger::Restore(ledger->Save());
    SELVAGE_CHECK(again.ok() && *again == *ledger);
    if (const auto until = ledger->PausedUntil(now)) {
      SELVAGE_CHECK(*until > now);
    }
  }
  return 0;
}

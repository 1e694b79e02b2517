// Saved usage ledgers: what restores must save to the same bytes, and stay
// restorable whatever the clock does next: the last byte chooses.
#include <algorithm>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "base/random.h"
#include "client/core/usage_ledger.h"

using selvage::ByteSpan;
using selvage::Duration;
using selvage::Result;
using selvage::client::UsageLedger;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const ByteSpan saved(data, size - 1);
  Result<UsageLedger> ledger = UsageLedger::Restore(saved);
  if (!ledger.ok()) return 0;
  const auto bytes = ledger->Save();
  SELVAGE_CHECK(
      std::equal(bytes.begin(), bytes.end(), saved.begin(), saved.end()));

  selvage::SeededRandom random(data[size - 1]);
  for (int i = 0; i < 20; ++i) {
    ledger->Observe(
        selvage::FromMicros(static_cast<int64_t>(random.Next() >> 1)));
    ledger->AddBytes(random.Next() % 2 == 0, random.Next());
    ledger->AddCpu(Duration(static_cast<int64_t>(random.Next())));
    ledger->AddUpload(std::string(random.Next() % 400, 'a'));
    const Result<UsageLedger> again = UsageLedger::Restore(ledger->Save());
    SELVAGE_CHECK(again.ok() && again->today() == ledger->today());
    SELVAGE_CHECK(ledger->today().cpu >= Duration::zero());
  }
  return 0;
}

// Serialized metric sums: what parses must serialize to the same bytes (or, of
// version 1, to bytes that parse to the same) and merge without overflow (UBSan
// sees it).
#include <cstdint>

#include "aggregation/metrics.h"
#include "base/check.h"

using selvage::Bytes;
using selvage::ByteSpan;
using selvage::Result;
using selvage::aggregation::MetricSums;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteSpan bytes(data, size);
  Result<MetricSums> parsed = MetricSums::Parse(bytes);
  if (!parsed.ok()) return 0;
  const Bytes again = parsed->Serialize();
  if (data[4] == 1) {
    const Result<MetricSums> same = MetricSums::Parse(again);
    SELVAGE_CHECK(same.ok() && same->sums() == parsed->sums());
  } else {
    SELVAGE_CHECK(again == Bytes(bytes.begin(), bytes.end()));
  }
  const MetricSums other = *parsed;
  const Bytes before = parsed->Serialize();
  if (!parsed->MergeWith(other).ok()) {
    SELVAGE_CHECK(parsed->Serialize() == before);
  }
  return 0;
}

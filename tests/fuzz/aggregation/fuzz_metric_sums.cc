// Serialized metric sums: what parses must serialize to the same bytes and
// merge without overflow (UBSan sees it).
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
  SELVAGE_CHECK(parsed->Serialize() == Bytes(bytes.begin(), bytes.end()));
  const MetricSums other = *parsed;
  const Bytes before = parsed->Serialize();
  if (!parsed->MergeWith(other).ok()) {
    SELVAGE_CHECK(parsed->Serialize() == before);
  }
  return 0;
}

// Serialized sums of one layout: what parses must serialize to the same bytes,
// merge without overflow (UBSan sees it) and finish.
#include <cstdint>
#include <utility>

#include "aggregation/exact_sum.h"
#include "base/check.h"

using selvage::Bytes;
using selvage::ByteSpan;
using selvage::Result;
using selvage::aggregation::ExactSum;
using selvage::aggregation::SumLayout;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const SumLayout layout{.ranges = {{.count = 3}, {.count = 2, .max_abs = 0.5}},
                         .weight_max = 65'535,
                         .update_count_max = 65'537};
  const ByteSpan bytes(data, size);
  Result<ExactSum> parsed = ExactSum::Parse(layout, bytes);
  ExactSum merged = *ExactSum::Create(layout);
  SELVAGE_CHECK(merged.MergeSerialized(bytes).code() == parsed.status().code());
  if (!parsed.ok()) return 0;
  SELVAGE_CHECK(parsed->Serialize() == Bytes(bytes.begin(), bytes.end()));
  SELVAGE_CHECK(merged.Serialize() == parsed->Serialize());
  const bool room =
      parsed->update_count() <= layout.update_count_max - merged.update_count();
  SELVAGE_CHECK(merged.MergeWith(*std::move(parsed)).ok() == room);
  const bool empty = merged.weight_sum() == 0;
  SELVAGE_CHECK(std::move(merged).FinishMean().ok() == !empty);
  return 0;
}

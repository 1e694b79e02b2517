// Serialized sums of an evaluation round: what parses must serialize to the
// same bytes and merge without overflow (UBSan sees it).
#include <cstdint>

#include "aggregation/evaluation_sums.h"
#include "base/check.h"

using selvage::Bytes;
using selvage::ByteSpan;
using selvage::Result;
using selvage::aggregation::EvaluationSums;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteSpan bytes(data, size);
  Result<EvaluationSums> parsed = EvaluationSums::Parse(bytes);
  if (!parsed.ok()) return 0;
  const Bytes again = parsed->Serialize();
  const Result<EvaluationSums> same = EvaluationSums::Parse(again);
  SELVAGE_CHECK(same.ok() && same->Serialize() == again);
  const EvaluationSums other = *parsed;
  const Bytes before = parsed->Serialize();
  if (!parsed->MergeWith(other).ok()) {
    SELVAGE_CHECK(parsed->Serialize() == before);
  }
  // What is released can be stored and read again.
  parsed->Suppress(size % 7);
  SELVAGE_CHECK(EvaluationSums::Parse(parsed->Serialize()).ok());
  return 0;
}

// Byte 0: the codec (bit 0) and the base's size in numbers (the rest); then the
// base; then a delta.
//
// What decodes is as large as the base, and a delta of it exists. The bytes are
// also taken for a target, which must come back.
#include <cstdint>

#include "aggregation/codec/delta_codec.h"
#include "base/check.h"

using selvage::Bytes;
using selvage::ByteSpan;
using selvage::Result;
namespace plan = selvage::plan;
using namespace selvage::aggregation;  // NOLINT

namespace {

void CheckRoundTrip(plan::CodecName codec, ByteSpan base, ByteSpan target) {
  const Result<Bytes> delta =
      EncodeDelta(codec, base, target, 2 * base.size() + 64);
  SELVAGE_CHECK(delta.ok());
  const Result<Bytes> again = DecodeDelta(codec, base, *delta);
  SELVAGE_CHECK(again.ok());
  SELVAGE_CHECK(*again == Bytes(target.begin(), target.end()));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const bool half = data[0] % 2 == 1;
  const plan::CodecName codec =
      half ? plan::CodecName::kFloat16 : plan::CodecName::kFloat32;
  const size_t base_size = size_t{data[0]} / 2 * (half ? 2 : 4);
  if (size < 1 + base_size) return 0;
  const ByteSpan base(data + 1, base_size);
  const ByteSpan rest(data + 1 + base_size, size - 1 - base_size);
  const Result<Bytes> decoded = DecodeDelta(codec, base, rest);
  if (decoded.ok()) {
    SELVAGE_CHECK(decoded->size() == base.size());
    CheckRoundTrip(codec, base, *decoded);
  }
  if (rest.size() >= base_size) {
    CheckRoundTrip(codec, base, rest.first(base_size));
  }
  return 0;
}

// Encoded updates: byte 0 chooses the codec and its parameters, byte 1 the
// number of tensors (up to 7), then a byte each for their element counts, then
// the encoding.
//
// What decodes must fold into a sum as its decoded values do, and encode to the
// same bytes if the codec has one encoding of every array.
#include <cstdint>
#include <vector>

#include "aggregation/codec/codec.h"
#include "aggregation/exact_sum.h"
#include "base/check.h"

using selvage::Bytes;
using selvage::ByteSpan;
using selvage::Result;
using selvage::Status;
using selvage::aggregation::CheckEncoding;
using selvage::aggregation::CodecSpec;
using selvage::aggregation::Decode;
using selvage::aggregation::Encode;
using selvage::aggregation::EncodedUpdate;
using selvage::aggregation::ExactSum;
using selvage::aggregation::IsStochastic;
using selvage::aggregation::SumLayout;
using selvage::plan::CodecName;
using selvage::plan::kCodecNames;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  CodecSpec codec = kCodecNames[data[0] % std::size(kCodecNames)];
  const size_t parameter = data[0] / std::size(kCodecNames);
  codec.top_k = (1 + static_cast<double>(parameter)) / 128;
  codec.rotation_seed = parameter;
  const size_t tensors = data[1] % 8;
  if (size < 2 + tensors) return 0;
  const std::vector<size_t> counts(data + 2, data + 2 + tensors);
  const ByteSpan bytes(data + 2 + tensors, size - 2 - tensors);

  const Result<std::vector<float>> values = Decode(codec, counts, bytes);
  const Status check = CheckEncoding(codec, counts, bytes);
  SELVAGE_CHECK(check.code() == values.status().code());

  SumLayout layout;
  layout.update_count_max = 2;
  for (const size_t count : counts) layout.ranges.push_back({.count = count});
  ExactSum encoded_sum = *ExactSum::Create(layout);
  const EncodedUpdate update{.codec = codec, .bytes = bytes, .weight = 3};
  const bool accepted = ExactSum::CheckEncoded(layout, update).ok();
  SELVAGE_CHECK(encoded_sum.AddAllEncoded({&update, 1}).ok() == accepted);
  if (!values.ok()) {
    SELVAGE_CHECK(!accepted);
    return 0;
  }
  selvage::SeededRandom random(parameter);
  const Result<Bytes> again = Encode(codec, counts, *values, &random);
  if (codec.name == CodecName::kTopK) {
    SELVAGE_CHECK(again.ok());
    SELVAGE_CHECK(*Decode(codec, counts, *again) == *values);
  } else if (!IsStochastic(codec.name)) {
    SELVAGE_CHECK(again.ok());
    SELVAGE_CHECK(*again == Bytes(bytes.begin(), bytes.end()));
  } else if (again.ok()) {  // not if the values are 2^100 or more
    SELVAGE_CHECK(Decode(codec, counts, *again).ok());
  }
  ExactSum sum = *ExactSum::Create(layout);
  SELVAGE_CHECK(sum.Add({.values = *values, .weight = 3}).ok() == accepted);
  SELVAGE_CHECK(sum.Serialize() == encoded_sum.Serialize());
  return 0;
}

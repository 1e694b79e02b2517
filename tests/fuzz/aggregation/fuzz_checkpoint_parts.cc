// The list of a checkpoint's parts, or (byte 0 says) one of the parts.
//
// What is accepted is written the same again; what is not changes nothing.
#include <cstdint>
#include <vector>

#include "aggregation/codec/checkpoint_parts.h"
#include "base/check.h"

using selvage::Bytes;
using selvage::ByteSpan;
using selvage::Result;
using selvage::Status;
namespace plan = selvage::plan;
using namespace selvage::aggregation;  // NOLINT

namespace {

const plan::TensorTable& Table() {
  static const plan::TensorTable kTable =
      *plan::TensorTable::Create({{"a",
                                   {2, 3},
                                   plan::DType::kFloat32,
                                   plan::Role::kShared,
                                   plan::Init::kZeros},
                                  {"f",
                                   {40000},
                                   plan::DType::kFloat32,
                                   plan::Role::kFrozen,
                                   plan::Init::kZeros},
                                  {"n",
                                   {},
                                   plan::DType::kInt64,
                                   plan::Role::kBufferInt,
                                   plan::Init::kZeros},
                                  {"b",
                                   {4},
                                   plan::DType::kFloat32,
                                   plan::Role::kShared,
                                   plan::Init::kZeros}});
  return kTable;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const plan::CodecName codec =
      data[0] % 2 == 0 ? plan::CodecName::kFloat32 : plan::CodecName::kFloat16;
  const ByteSpan bytes(data + 1, size - 1);
  static const std::vector<PartLayout> kLayouts[] = {
      LayOutParts(plan::CodecName::kFloat32, Table()),
      LayOutParts(plan::CodecName::kFloat16, Table())};
  const std::vector<PartLayout>& layout = kLayouts[data[0] % 2];
  if (data[0] % 4 < 2) {
    const Result<std::vector<PartName>> parts = ParsePartList(layout, bytes);
    if (parts.ok()) {
      SELVAGE_CHECK(SerializePartList(*parts) ==
                    Bytes(bytes.begin(), bytes.end()));
    }
    return 0;
  }
  plan::Checkpoint values;
  values.floats.resize(Table().float_count());
  values.ints.resize(Table().int_count());
  const plan::Checkpoint before = values;
  const PartLayout& part = layout.back();
  const Status decoded = DecodePart(codec, Table(), part, bytes, values);
  if (!decoded.ok()) {
    SELVAGE_CHECK(values == before);
    return 0;
  }
  const Result<Bytes> again = EncodePart(codec, Table(), part, values);
  SELVAGE_CHECK(again.ok());
  SELVAGE_CHECK(*again == Bytes(bytes.begin(), bytes.end()));
  return 0;
}

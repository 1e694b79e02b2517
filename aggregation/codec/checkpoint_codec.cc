#include "aggregation/codec/checkpoint_codec.h"

#include <cstring>

namespace selvage::aggregation {
namespace {

std::vector<size_t> FloatCounts(const plan::TensorTable& table) {
  std::vector<size_t> counts;
  for (const plan::TensorTable::Entry& entry : table.entries()) {
    if (entry.spec.dtype == plan::DType::kFloat32) {
      counts.push_back(entry.count);
    }
  }
  return counts;
}

}  // namespace

uint64_t EncodedCheckpointSize(plan::CodecName codec,
                               const plan::TensorTable& table) {
  return EncodedSize(codec, FloatCounts(table)) +
         table.int_count() * sizeof(int64_t);
}

Result<Bytes> EncodeCheckpoint(plan::CodecName codec,
                               const plan::TensorTable& table,
                               const plan::Checkpoint& values) {
  SELVAGE_RETURN_IF_ERROR(plan::ValidateCheckpoint(table, values));
  SELVAGE_ASSIGN_OR_RETURN(Bytes bytes,
                           Encode(codec, FloatCounts(table), values.floats));
  AppendBytes(bytes, AsBytes(std::span<const int64_t>(values.ints)));
  return bytes;
}

Result<plan::Checkpoint> DecodeCheckpoint(plan::CodecName codec,
                                          const plan::TensorTable& table,
                                          ByteSpan bytes) {
  const uint64_t wanted = EncodedCheckpointSize(codec, table);
  if (bytes.size() != wanted) {
    return InvalidArgument(
        "the checkpoint has " + std::to_string(bytes.size()) +
        " bytes, its tensor table implies " + std::to_string(wanted));
  }
  const size_t int_bytes = table.int_count() * sizeof(int64_t);
  plan::Checkpoint values;
  SELVAGE_ASSIGN_OR_RETURN(
      values.floats,
      Decode(codec, FloatCounts(table), bytes.first(bytes.size() - int_bytes)));
  values.ints.resize(table.int_count());
  if (int_bytes > 0) {
    std::memcpy(values.ints.data(), bytes.last(int_bytes).data(), int_bytes);
  }
  return values;
}

std::vector<size_t> UpdateCounts(const plan::TensorTable& table) {
  std::vector<size_t> counts;
  for (const plan::TensorTable::AggregatedSlice& slice : table.aggregated()) {
    counts.push_back(slice.count);
  }
  return counts;
}

}  // namespace selvage::aggregation

// A round's checkpoint as devices download it: the codec's encoding of every
// f32 tensor, in table order, then the i64 tensors as they are (little-endian).
//
// "The round's checkpoint is the decoded download": deltas are taken against
// what DecodeCheckpoint returns, so every device has the same base to the bit.
#pragma once

#include "aggregation/codec/codec.h"
#include "plan/checkpoint.h"
#include "plan/tensor_table.h"

namespace selvage::aggregation {

// Exact size in bytes.
uint64_t EncodedCheckpointSize(plan::CodecName codec,
                               const plan::TensorTable& table);

// INVALID_ARGUMENT if `values` do not fit the table or are not finite.
Result<Bytes> EncodeCheckpoint(plan::CodecName codec,
                               const plan::TensorTable& table,
                               const plan::Checkpoint& values);

// INVALID_ARGUMENT as Decode(), or if the size is not the table's.
Result<plan::Checkpoint> DecodeCheckpoint(plan::CodecName codec,
                                          const plan::TensorTable& table,
                                          ByteSpan bytes);

// Element counts of the tensors an update carries, in order: what Encode() and
// Decode() want for updates.
std::vector<size_t> UpdateCounts(const plan::TensorTable& table);

}  // namespace selvage::aggregation

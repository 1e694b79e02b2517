// A checkpoint in parts: a model with a large frozen backbone is not one blob
// but several, so that what never changes is stored once and sent once
// (docs/decisions/0008-checkpoints-in-parts.md).
//
// How a checkpoint is cut is a function of the tensor table and the codec
// alone: devices and coordinator agree without saying. A checkpoint with one
// part is that part, and its digest the part's. A checkpoint with several is
// named by the digest of the list of its parts, which is fetched first:
//
//   list:  "selvage/v1 checkpoint parts\n", u32 count, then count times
//          SHA-256 of the part (32 bytes) and its size (u64); little-endian
//   part:  the codec's encoding of its f32 tensors in table order, then its i64
//          tensors as they are
//
// Every whole checkpoint of a table that is cut is larger than kPartListSizeMax
// and every list is at most that, so the bytes behind a digest are the one or
// the other by their size.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "aggregation/codec/codec.h"
#include "base/bytes.h"
#include "crypto/digest.h"
#include "plan/checkpoint.h"
#include "plan/tensor_table.h"

namespace selvage::aggregation {

// Frozen (or personal) tensors of together less than this travel with what is
// trained: another request would cost more than their bytes.
inline constexpr uint64_t kConstantBytesMin = uint64_t{64} << 10;
// Tensors that never change are grouped up to about this size; a larger tensor
// is a part of its own.
inline constexpr uint64_t kPartBytesTarget = uint64_t{8} << 20;
inline constexpr size_t kPartCountMax = 64;
inline constexpr size_t kPartListSizeMax = 4096;

struct PartLayout {
  std::vector<size_t> entries;  // indices into table.entries(), ascending
  uint64_t size = 0;            // encoded, in bytes
  bool constant = false;        // no round changes it: frozen, personal
};

// 1 to kPartCountMax parts: frozen tensors, then personal ones (which the
// server never changes either), then everything else in one part. Each entry is
// in one part.
std::vector<PartLayout> LayOutParts(plan::CodecName codec,
                                    const plan::TensorTable& table);

// INVALID_ARGUMENT if a value is not finite. `values` must have the table's
// sizes.
Result<Bytes> EncodePart(plan::CodecName codec, const plan::TensorTable& table,
                         const PartLayout& part,
                         const plan::Checkpoint& values);
// Writes the part's tensors into `values`, which must have the table's sizes.
// INVALID_ARGUMENT as Decode(), or if the size is not the part's; `values` is
// as it was then.
Status DecodePart(plan::CodecName codec, const plan::TensorTable& table,
                  const PartLayout& part, ByteSpan bytes,
                  plan::Checkpoint& values);

struct PartName {
  crypto::Digest digest;
  uint64_t size = 0;
  friend bool operator==(const PartName&, const PartName&) = default;
};

Bytes SerializePartList(std::span<const PartName> parts);
// INVALID_ARGUMENT unless it is a list of as many parts as the layout has, each
// of the layout's size.
Result<std::vector<PartName>> ParsePartList(std::span<const PartLayout> layout,
                                            ByteSpan bytes);

}  // namespace selvage::aggregation

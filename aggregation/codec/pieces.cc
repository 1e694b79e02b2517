#include "aggregation/codec/pieces.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "aggregation/codec/block.h"
#include "aggregation/codec/half.h"
#include "base/check.h"

namespace selvage::aggregation {
namespace {

using plan::CodecName;

// The kept elements of [begin, begin + size); the others are zero.
void DecodeKept(const EncodedBlock& block, size_t begin, size_t size,
                float* out) {
  std::fill_n(out, size, 0.0f);
  size_t low = 0;
  size_t high = block.kept;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (IndexAt(block.indices, middle) < begin) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  for (; low < block.kept; ++low) {
    const size_t index = IndexAt(block.indices, low);
    if (index >= begin + size) return;
    out[index - begin] = FloatAt(block.data, low);
  }
}

// Elements [begin, begin + size) of one tensor.
void DecodeStretch(const EncodedBlock& block, size_t begin, size_t size,
                   float* out) {
  if (block.codec == CodecName::kTopK) {
    DecodeKept(block, begin, size, out);
    return;
  }
  const SimdLevel level = BestSimdLevel();
  if (block.codec != CodecName::kInt8 &&
      block.codec != CodecName::kRotatedInt8) {
    DecodePiece(level, block, begin, size, out);
    return;
  }
  // What shares a scale, or a rotation, is decoded together.
  std::array<float, kRotationBlock> run;
  const size_t end = begin + size;
  for (size_t at = begin / kRotationBlock * kRotationBlock; at < end;
       at += kRotationBlock) {
    const size_t count = std::min(kRotationBlock, block.count - at);
    DecodePiece(level, block, at, count, run.data());
    const size_t from = std::max(begin, at);
    const size_t to = std::min(end, at + count);
    std::copy(run.data() + (from - at), run.data() + (to - at),
              out + (from - begin));
  }
}

}  // namespace

void DecodeSlice(const CodecSpec& codec, std::span<const size_t> counts,
                 ByteSpan bytes, size_t first, std::span<float> out) {
  SELVAGE_CHECK(bytes.size() == EncodedSize(codec, counts));
  BlockReader reader(codec, bytes.data());
  size_t before = 0;  // elements of the tensors that were passed
  const size_t last = first + out.size();
  for (const size_t count : counts) {
    if (before >= last) return;
    const EncodedBlock block = reader.Next(count);
    const size_t from = std::max(first, before);
    const size_t to = std::min(last, before + count);
    if (from < to) {
      DecodeStretch(block, from - before, to - from,
                    out.data() + (from - first));
    }
    before += count;
  }
  SELVAGE_CHECK(before >= last);
}

size_t SliceBytesPerElement(const CodecSpec& codec) {
  const bool slices =
      codec.name == CodecName::kFloat32 || codec.name == CodecName::kBFloat16;
  return slices ? ElementSize(codec.name) : 0;
}

ByteSpan EncodedSlice(const CodecSpec& codec, ByteSpan bytes, size_t first,
                      size_t count) {
  const size_t size = SliceBytesPerElement(codec);
  if (size == 0) return {};
  return bytes.subspan(first * size, count * size);
}

PieceEncoder::PieceEncoder(CodecName codec, float max_abs)
    : codec_(codec),
      exponent_(codec == CodecName::kFloat16 ? Float16Exponent(max_abs) : 0) {
  SELVAGE_CHECK(codec == CodecName::kFloat32 || codec == CodecName::kFloat16);
}

void PieceEncoder::AppendHead(Bytes& out) const {
  if (codec_ == CodecName::kFloat16) AppendLe(out, exponent_);
}

void PieceEncoder::Append(std::span<const float> values, Bytes& out) const {
  if (codec_ == CodecName::kFloat32) {
    AppendBytes(out, AsBytes(values));
    return;
  }
  const size_t at = out.size();
  out.resize(at + values.size() * 2);
  FloatsToHalves(BestSimdLevel(), values.data(), std::ldexp(1.0f, -exponent_),
                 out.data() + at, values.size());
}

}  // namespace selvage::aggregation

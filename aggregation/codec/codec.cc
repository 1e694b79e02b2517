#include "aggregation/codec/codec.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>

#include "aggregation/codec/block.h"
#include "aggregation/codec/half.h"
#include "base/check.h"

namespace selvage::aggregation {
namespace {

using plan::CodecName;

constexpr float kInt8MagnitudeMax = 0x1p100f;
constexpr uint32_t kBFloatMaxBits = 0x7f7f;

std::string ElementName(size_t tensor, size_t element) {
  return "tensor " + std::to_string(tensor) + ", element " +
         std::to_string(element);
}

Status NotFinite(size_t tensor, std::span<const float> values) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      return InvalidArgument(ElementName(tensor, i) + " is " +
                             (std::isnan(values[i]) ? "nan" : "infinite") +
                             ", not a finite number");
    }
  }
  return Internal(ElementName(tensor, values.size()) +
                  " changed while it was read");
}

float PowerOfTwo(int exponent) { return std::ldexp(1.0f, exponent); }

// Rounds half to even; what would become infinite to the largest.
uint16_t FloatToBFloat(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded =
      ((bits & 0x7fffffffu) + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return static_cast<uint16_t>((bits >> 31) << 15 |
                               std::min(rounded, kBFloatMaxBits));
}

// The bits of the scale for values up to max_abs; see codec.h.
uint16_t ScaleBitsFor(float max_abs) {
  if (max_abs == 0) return 0;
  const double wanted = std::max(double{max_abs} / 127, 0x1p-126);
  const auto near = static_cast<float>(wanted);
  auto bits = static_cast<uint16_t>(std::bit_cast<uint32_t>(near) >> 16);
  // `near` may lie above or below; its upper half never above it.
  while (double{ScaleFromBits(bits)} * 127 < double{max_abs} ||
         double{ScaleFromBits(bits)} < 0x1p-126) {
    ++bits;
  }
  return bits;
}

void EncodeBytes(std::span<const float> values, RandomSource& random,
                 uint8_t* scales, uint8_t* out) {
  std::array<uint32_t, kInt8Block> dice;
  for (size_t begin = 0; begin < values.size(); begin += kInt8Block) {
    const std::span<const float> block =
        values.subspan(begin, std::min(kInt8Block, values.size() - begin));
    float most = 0;
    for (const float value : block) most = std::max(most, std::abs(value));
    const uint16_t bits = ScaleBitsFor(most);
    std::memcpy(scales, &bits, sizeof bits);
    scales += sizeof bits;
    if (bits == 0) {
      std::fill_n(out + begin, block.size(), uint8_t{0});
      continue;
    }
    const auto scale = double{ScaleFromBits(bits)};
    random.Fill({reinterpret_cast<uint8_t*>(dice.data()), block.size() * 4});
    for (size_t i = 0; i < block.size(); ++i) {
      const double rounded = std::floor(double{block[i]} / scale +
                                        static_cast<double>(dice[i]) * 0x1p-32);
      out[begin + i] = static_cast<uint8_t>(static_cast<int8_t>(rounded));
    }
  }
}

void EncodeRotated(std::span<const float> values, uint64_t sign_seed,
                   RandomSource& random, uint8_t* scales, uint8_t* out) {
  std::array<float, kRotationBlock> run;
  for (size_t begin = 0; begin < values.size(); begin += kRotationBlock) {
    const std::span<const float> block =
        values.subspan(begin, std::min(kRotationBlock, values.size() - begin));
    std::copy(block.begin(), block.end(), run.begin());
    for (size_t i = 0; i < block.size();) {
      const int log2 = RotationLog2(values.size() - begin - i);
      Rotate(BestSimdLevel(), sign_seed, begin + i, log2, run.data() + i);
      i += size_t{1} << log2;
    }
    EncodeBytes({run.data(), block.size()}, random,
                scales + begin / kInt8Block * 2, out + begin);
  }
}

void EncodeKept(std::span<const float> values, size_t kept, uint8_t* indices,
                uint8_t* out) {
  std::vector<uint32_t> order(values.size());
  std::iota(order.begin(), order.end(), uint32_t{0});
  const auto before = [&](uint32_t a, uint32_t b) {
    const float x = std::abs(values[a]);
    const float y = std::abs(values[b]);
    return x != y ? x > y : a < b;
  };
  const auto end = order.begin() + static_cast<std::ptrdiff_t>(kept);
  if (kept < order.size())
    std::nth_element(order.begin(), end, order.end(), before);
  std::sort(order.begin(), end);
  for (size_t i = 0; i < kept; ++i) {
    std::memcpy(indices + i * 4, &order[i], 4);
    std::memcpy(out + i * 4, &values[order[i]], 4);
  }
}

// What no codec of this kind takes, by name.
Status CheckEncodable(const CodecSpec& codec, size_t tensor,
                      std::span<const float> values) {
  const uint32_t max_bits =
      MaxAbsBits(BestSimdLevel(), AsBytes(values).data(), values.size());
  if (max_bits >= kFloatInfinityBits) return NotFinite(tensor, values);
  if (IsStochastic(codec.name) &&
      max_bits >= std::bit_cast<uint32_t>(kInt8MagnitudeMax)) {
    const auto large = std::find_if(
        values.begin(), values.end(),
        [](float value) { return !(std::abs(value) < kInt8MagnitudeMax); });
    return InvalidArgument(
        ElementName(tensor, static_cast<size_t>(large - values.begin())) +
        " is too large for " + std::string(CodecNameText(codec.name)) +
        ", which takes |value| < 2^100");
  }
  if (codec.name == CodecName::kTopK &&
      values.size() > std::numeric_limits<uint32_t>::max()) {
    return InvalidArgument("tensor " + std::to_string(tensor) + " has " +
                           std::to_string(values.size()) +
                           " elements, top_k takes 2^32 - 1 at most");
  }
  return OkStatus();
}

}  // namespace

bool IsStochastic(CodecName codec) {
  return codec == CodecName::kInt8 || codec == CodecName::kRotatedInt8;
}

size_t KeptCount(double top_k, size_t count) {
  if (count == 0) return 0;
  const double wanted = std::ceil(top_k * static_cast<double>(count));
  if (!(wanted >= 1)) return 1;
  return wanted >= static_cast<double>(count) ? count
                                              : static_cast<size_t>(wanted);
}

uint64_t EncodedSize(const CodecSpec& codec, std::span<const size_t> counts) {
  uint64_t size = 0;
  for (const size_t count : counts) {
    switch (codec.name) {
      case CodecName::kFloat32:
        size += uint64_t{count} * 4;
        break;
      case CodecName::kFloat16:
        size += sizeof(int32_t) + uint64_t{count} * 2;
        break;
      case CodecName::kBFloat16:
        size += uint64_t{count} * 2;
        break;
      case CodecName::kInt8:
      case CodecName::kRotatedInt8:
        size += (uint64_t{count} + kInt8Block - 1) / kInt8Block * 2 + count;
        break;
      case CodecName::kTopK:
        size += uint64_t{KeptCount(codec.top_k, count)} * 8;
        break;
    }
  }
  return size;
}

Result<Bytes> Encode(const CodecSpec& codec, std::span<const size_t> counts,
                     std::span<const float> values, RandomSource* random) {
  SELVAGE_CHECK(random != nullptr || !IsStochastic(codec.name));
  const size_t total = std::accumulate(counts.begin(), counts.end(), size_t{0});
  if (values.size() != total) {
    return InvalidArgument("there are " + std::to_string(values.size()) +
                           " values, but the tensors have " +
                           std::to_string(total) + " elements");
  }
  Bytes out(EncodedSize(codec, counts));
  // Where the parts of each tensor lie is known to one place only.
  BlockReader places(codec, out.data());
  uint8_t* next = out.data();
  for (size_t tensor = 0; tensor < counts.size(); ++tensor) {
    const std::span<const float> block = values.first(counts[tensor]);
    values = values.subspan(counts[tensor]);
    SELVAGE_RETURN_IF_ERROR(CheckEncodable(codec, tensor, block));
    const EncodedBlock place = places.Next(block.size());
    uint8_t* const data = next + (place.data - next);
    switch (codec.name) {
      case CodecName::kFloat32:
        if (!block.empty()) {
          std::memcpy(data, block.data(), block.size() * 4);
        }
        break;
      case CodecName::kFloat16: {
        const uint32_t max_bits =
            MaxAbsBits(BestSimdLevel(), AsBytes(block).data(), block.size());
        const int32_t exponent =
            Float16Exponent(std::bit_cast<float>(max_bits));
        std::memcpy(next, &exponent, sizeof exponent);
        FloatsToHalves(BestSimdLevel(), block.data(), PowerOfTwo(-exponent),
                       data, block.size());
        break;
      }
      case CodecName::kBFloat16:
        for (size_t i = 0; i < block.size(); ++i) {
          const uint16_t bits = FloatToBFloat(block[i]);
          std::memcpy(data + i * 2, &bits, sizeof bits);
        }
        break;
      case CodecName::kInt8:
        EncodeBytes(block, *random, next, data);
        break;
      case CodecName::kRotatedInt8:
        EncodeRotated(block, place.sign_seed, *random, next, data);
        break;
      case CodecName::kTopK:
        EncodeKept(block, place.kept, next, data);
        break;
    }
    next += EncodedSize(codec, {&counts[tensor], 1});
  }
  return out;
}

Status CheckEncoding(const CodecSpec& codec, std::span<const size_t> counts,
                     ByteSpan bytes) {
  if (const uint64_t size = EncodedSize(codec, counts); bytes.size() != size) {
    return InvalidArgument("there are " + std::to_string(bytes.size()) +
                           " bytes, but the encoding of these tensors has " +
                           std::to_string(size));
  }
  BlockReader reader(codec, bytes.data());
  for (size_t tensor = 0; tensor < counts.size(); ++tensor) {
    const EncodedBlock block = reader.Next(counts[tensor]);
    if (IsSound(BestSimdLevel(), block, kFloatInfinityBits - 1)) continue;
    const Status status = CheckBlockEncoding(tensor, block);
    if (!status.ok()) return status;
    return Internal("tensor " + std::to_string(tensor) +
                    " changed while it was read");
  }
  return OkStatus();
}

bool IsFinite(const CodecSpec& codec, std::span<const size_t> counts,
              ByteSpan bytes) {
  BlockReader reader(codec, bytes.data());
  return std::all_of(counts.begin(), counts.end(), [&](size_t count) {
    return IsFinite(reader.Next(count));
  });
}

Result<std::vector<float>> Decode(const CodecSpec& codec,
                                  std::span<const size_t> counts,
                                  ByteSpan bytes) {
  SELVAGE_RETURN_IF_ERROR(CheckEncoding(codec, counts, bytes));
  std::vector<float> out(
      std::accumulate(counts.begin(), counts.end(), size_t{0}));
  BlockReader reader(codec, bytes.data());
  float* values = out.data();
  for (const size_t count : counts) {
    const EncodedBlock block = reader.Next(count);
    if (codec.name == CodecName::kTopK) {
      for (size_t i = 0; i < block.kept; ++i) {
        values[IndexAt(block.indices, i)] = FloatAt(block.data, i);
      }
    } else {
      DecodePiece(BestSimdLevel(), block, 0, count, values);
    }
    values += count;
  }
  return out;
}

}  // namespace selvage::aggregation

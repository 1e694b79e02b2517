#include "aggregation/codec/delta_codec.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace selvage::aggregation {
namespace {

constexpr std::string_view kMagic = "SvD1";
constexpr uint32_t kTop = uint32_t{1} << 24;
constexpr unsigned kProbabilityBits = 11;
constexpr unsigned kAdaptation = 5;

// The probability of a 0, learned.
struct Bit {
  uint16_t zero = 1U << (kProbabilityBits - 1);

  uint32_t Bound(uint32_t range) const {
    return (range >> kProbabilityBits) * zero;
  }
  void Learn(bool bit) {
    if (bit) {
      zero = static_cast<uint16_t>(zero - (zero >> kAdaptation));
    } else {
      zero = static_cast<uint16_t>(
          zero + (((1U << kProbabilityBits) - zero) >> kAdaptation));
    }
  }
};

class Encoder {
 public:
  explicit Encoder(Bytes& out) : out_(out) {}

  void Code(Bit& model, bool bit) {
    const uint32_t bound = model.Bound(range_);
    if (bit) {
      low_ += bound;
      range_ -= bound;
    } else {
      range_ = bound;
    }
    model.Learn(bit);
    Normalize();
  }
  void CodeRaw(bool bit) {
    range_ >>= 1;
    if (bit) low_ += range_;
    Normalize();
  }
  void Finish() {
    for (int i = 0; i < 5; ++i) ShiftLow();
  }

 private:
  void Normalize() {
    while (range_ < kTop) {
      range_ <<= 8;
      ShiftLow();
    }
  }
  // The top byte of low_ is settled once no carry can reach it.
  void ShiftLow() {
    if (low_ < 0xFF000000U || low_ > 0xFFFFFFFFU) {
      const auto carry = static_cast<uint8_t>(low_ >> 32);
      auto byte = static_cast<uint8_t>(cache_ + carry);
      for (; pending_ > 0; --pending_) {
        out_.push_back(byte);
        byte = static_cast<uint8_t>(0xFF + carry);
      }
      cache_ = static_cast<uint8_t>(low_ >> 24);
    }
    ++pending_;
    low_ = (low_ & 0x00FFFFFFU) << 8;
  }

  Bytes& out_;
  uint64_t low_ = 0;
  uint32_t range_ = std::numeric_limits<uint32_t>::max();
  uint8_t cache_ = 0;
  uint64_t pending_ = 1;
};

class Decoder {
 public:
  explicit Decoder(ByteSpan in) : in_(in) {
    for (int i = 0; i < 5; ++i) code_ = (code_ << 8) | Next();
  }

  bool Code(Bit& model) {
    const uint32_t bound = model.Bound(range_);
    const bool bit = code_ >= bound;
    if (bit) {
      code_ -= bound;
      range_ -= bound;
    } else {
      range_ = bound;
    }
    model.Learn(bit);
    Normalize();
    return bit;
  }
  bool CodeRaw() {
    range_ >>= 1;
    const bool bit = code_ >= range_;
    if (bit) code_ -= range_;
    Normalize();
    return bit;
  }
  // Every byte was read, and none that is not there.
  bool Finished() const { return at_ == in_.size(); }
  bool Overrun() const { return at_ > in_.size(); }

 private:
  void Normalize() {
    while (range_ < kTop) {
      range_ <<= 8;
      code_ = (code_ << 8) | Next();
    }
  }
  uint32_t Next() {
    const uint32_t byte = at_ < in_.size() ? in_[at_] : 0;
    ++at_;
    return byte;
  }

  const ByteSpan in_;
  size_t at_ = 0;
  uint32_t code_ = 0;
  uint32_t range_ = std::numeric_limits<uint32_t>::max();
};

// What is learned about differences of numbers of this type.
template <typename T>
class Model {
 public:
  static constexpr unsigned kBits = std::numeric_limits<T>::digits;
  static constexpr unsigned kLengthBits = kBits == 16 ? 5 : 6;  // of 0..kBits

  void Encode(Encoder& coder, T value) {
    const auto length = static_cast<unsigned>(std::bit_width(value));
    auto& tree = lengths_[previous_];
    unsigned node = 1;
    for (unsigned i = kLengthBits; i-- > 0;) {
      const bool bit = ((length >> i) & 1U) != 0;
      coder.Code(tree[node], bit);
      node = 2 * node + (bit ? 1 : 0);
    }
    unsigned learned = 1;  // the leading one bit
    unsigned depth = 0;
    for (unsigned i = length > 0 ? length - 1 : 0; i-- > 0; ++depth) {
      const bool bit = ((value >> i) & 1U) != 0;
      if (depth < 2) {
        coder.Code(next_[length][learned], bit);
        learned = 2 * learned + (bit ? 1 : 0);
      } else {
        coder.CodeRaw(bit);
      }
    }
    previous_ = length;
  }

  // A length that no number has: nullopt-like, as false.
  bool Decode(Decoder& coder, T& value) {
    auto& tree = lengths_[previous_];
    unsigned node = 1;
    for (unsigned i = 0; i < kLengthBits; ++i) {
      node = 2 * node + (coder.Code(tree[node]) ? 1 : 0);
    }
    const unsigned length = node - (1U << kLengthBits);
    if (length > kBits) return false;
    uint32_t bits = length > 0 ? 1 : 0;
    unsigned learned = 1;
    for (unsigned depth = 0; depth + 1 < length; ++depth) {
      bool bit = false;
      if (depth < 2) {
        bit = coder.Code(next_[length][learned]);
        learned = 2 * learned + (bit ? 1 : 0);
      } else {
        bit = coder.CodeRaw();
      }
      bits = (bits << 1) | (bit ? 1U : 0U);
    }
    value = static_cast<T>(bits);
    previous_ = length;
    return true;
  }

 private:
  // By the length before; a tree, its root at 1.
  std::array<std::array<Bit, size_t{1} << kLengthBits>, kBits + 1> lengths_{};
  std::array<std::array<Bit, 4>, kBits + 1> next_{};
  unsigned previous_ = 0;
};

template <typename T>
constexpr T kSign = static_cast<T>(T{1}
                                   << (std::numeric_limits<T>::digits - 1));

// Grows with the number whose sign-and-magnitude pattern it is.
template <typename T>
T ToOrder(T pattern) {
  return static_cast<T>((pattern & kSign<T>) != 0 ? ~pattern
                                                  : pattern ^ kSign<T>);
}
template <typename T>
T FromOrder(T order) {
  return static_cast<T>((order & kSign<T>) != 0 ? order ^ kSign<T> : ~order);
}
template <typename T>
T ToZigzag(T difference) {
  const T fold =
      (difference & kSign<T>) != 0 ? std::numeric_limits<T>::max() : T{0};
  return static_cast<T>(static_cast<T>(difference << 1) ^ fold);
}
template <typename T>
T FromZigzag(T value) {
  const T fold = (value & 1U) != 0 ? std::numeric_limits<T>::max() : T{0};
  return static_cast<T>(static_cast<T>(value >> 1) ^ fold);
}

template <typename T>
T LoadAt(ByteSpan bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

Status CheckWidth(ByteSpan base, size_t width) {
  if (base.size() % width == 0) return OkStatus();
  return InvalidArgument("a base of " + std::to_string(base.size()) +
                         " bytes is not made of numbers of " +
                         std::to_string(width));
}

template <typename T>
Result<Bytes> EncodeAs(ByteSpan base, ByteSpan target, uint64_t size_max) {
  SELVAGE_RETURN_IF_ERROR(CheckWidth(base, sizeof(T)));
  // What the coder still holds comes out at the end.
  constexpr size_t kCheckEvery = 4096;
  const Status too_large = ResourceExhausted(
      "the delta has more than " + std::to_string(size_max) + " bytes");
  Bytes out = ToBytes(kMagic);
  Encoder coder(out);
  Model<T> model;
  for (size_t at = 0; at < base.size(); at += sizeof(T)) {
    const T difference = static_cast<T>(ToOrder(LoadAt<T>(target, at)) -
                                        ToOrder(LoadAt<T>(base, at)));
    model.Encode(coder, ToZigzag(difference));
    if (at % kCheckEvery == 0 && out.size() > size_max) return too_large;
  }
  coder.Finish();
  if (out.size() > size_max) return too_large;
  return out;
}

template <typename T>
Status ApplyAs(std::span<uint8_t> values, ByteSpan coded) {
  SELVAGE_RETURN_IF_ERROR(CheckWidth(values, sizeof(T)));
  const Status damaged = InvalidArgument("the delta is damaged");
  Decoder coder(coded);
  Model<T> model;
  for (size_t at = 0; at < values.size(); at += sizeof(T)) {
    T value = 0;
    if (!model.Decode(coder, value) || coder.Overrun()) return damaged;
    const T pattern = FromOrder(
        static_cast<T>(ToOrder(LoadAt<T>(values, at)) + FromZigzag(value)));
    std::memcpy(values.data() + at, &pattern, sizeof pattern);
  }
  if (!coder.Finished()) return damaged;
  return OkStatus();
}

}  // namespace

Result<Bytes> EncodeDelta(plan::CodecName codec, ByteSpan base, ByteSpan target,
                          uint64_t size_max) {
  if (base.size() != target.size()) {
    return InvalidArgument("a delta from " + std::to_string(base.size()) +
                           " to " + std::to_string(target.size()) +
                           " bytes: the sizes must be the same");
  }
  return codec == plan::CodecName::kFloat32
             ? EncodeAs<uint32_t>(base, target, size_max)
             : EncodeAs<uint16_t>(base, target, size_max);
}

Result<Bytes> DecodeDelta(plan::CodecName codec, ByteSpan base,
                          ByteSpan delta) {
  Bytes values(base.begin(), base.end());
  SELVAGE_RETURN_IF_ERROR(ApplyDelta(codec, values, delta));
  return values;
}

Status ApplyDelta(plan::CodecName codec, std::span<uint8_t> values,
                  ByteSpan delta) {
  if (delta.size() < kMagic.size() ||
      AsText(delta.first(kMagic.size())) != kMagic) {
    return InvalidArgument("a delta of " + std::to_string(delta.size()) +
                           " bytes that does not begin as one");
  }
  const ByteSpan coded = delta.subspan(kMagic.size());
  return codec == plan::CodecName::kFloat32 ? ApplyAs<uint32_t>(values, coded)
                                            : ApplyAs<uint16_t>(values, coded);
}

}  // namespace selvage::aggregation

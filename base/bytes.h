// Bytes in, bytes out: hex, little-endian integers, and a bounded reader for
// decoders.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/status.h"

namespace selvage {

// Arrays of float and int64 are sent and stored as their memory.
static_assert(std::endian::native == std::endian::little,
              "Selvage stores and sends little-endian memory as it is");

using Bytes = std::vector<uint8_t>;
using ByteSpan = std::span<const uint8_t>;

inline ByteSpan AsBytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}
template <typename T>
requires std::is_trivially_copyable_v<T> ByteSpan
AsBytes(std::span<const T> values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size_bytes()};
}
inline std::string_view AsText(ByteSpan bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
inline std::string ToString(ByteSpan bytes) {
  return std::string(AsText(bytes));
}
inline Bytes ToBytes(std::string_view text) {
  return Bytes(text.begin(), text.end());
}

// Lower-case hexadecimal.
std::string ToHex(ByteSpan bytes);
// Accepts both cases. INVALID_ARGUMENT on an odd length or a foreign character.
Result<Bytes> FromHex(std::string_view hex);

// RFC 4648 base64 (with padding).
std::string ToBase64(ByteSpan bytes);
// INVALID_ARGUMENT on anything ToBase64 could not have produced, white space
// included.
Result<Bytes> FromBase64(std::string_view text);

// Appends the little-endian bytes of an integer, float or double.
template <typename T>
requires std::is_arithmetic_v<T>
void AppendLe(Bytes& out, T value) {
  const auto* p = reinterpret_cast<const uint8_t*>(&value);
  out.insert(out.end(), p, p + sizeof value);
}
inline void AppendBytes(Bytes& out, ByteSpan bytes) {
  out.insert(out.end(), bytes.begin(), bytes.end());
}

// Reads from the front of a span and never past its end. Thread-compatible.
class ByteReader {
 public:
  explicit ByteReader(ByteSpan bytes) : rest_(bytes) {}

  size_t remaining() const { return rest_.size(); }

  // OUT_OF_RANGE names `what` if fewer than sizeof(T) bytes remain.
  template <typename T>
  requires std::is_arithmetic_v<T> Result<T> Read(std::string_view what) {
    if (rest_.size() < sizeof(T)) return Truncated(what, sizeof(T));
    T value;
    std::memcpy(&value, rest_.data(), sizeof value);
    rest_ = rest_.subspan(sizeof value);
    return value;
  }
  Result<ByteSpan> ReadBytes(size_t count, std::string_view what) {
    if (rest_.size() < count) return Truncated(what, count);
    const ByteSpan out = rest_.first(count);
    rest_ = rest_.subspan(count);
    return out;
  }

 private:
  Status Truncated(std::string_view what, size_t wanted) const;

  ByteSpan rest_;
};

}  // namespace selvage

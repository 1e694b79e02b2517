// Published vectors are written in hexadecimal.
#pragma once

#include <algorithm>
#include <array>
#include <string_view>

#include "base/bytes.h"
#include "base/check.h"
#include "crypto/secret.h"

namespace selvage::crypto {

inline Bytes Hex(std::string_view hex) {
  Result<Bytes> bytes = FromHex(hex);
  SELVAGE_CHECK(bytes.ok());
  return *std::move(bytes);
}

inline SecretBytes Secret(ByteSpan bytes) {
  SecretBytes secret(bytes.size());
  std::copy(bytes.begin(), bytes.end(), secret.writable().begin());
  return secret;
}

template <size_t kSize>
std::array<uint8_t, kSize> HexArray(std::string_view hex) {
  const Bytes bytes = Hex(hex);
  SELVAGE_CHECK(bytes.size() == kSize);
  std::array<uint8_t, kSize> out{};
  std::copy(bytes.begin(), bytes.end(), out.begin());
  return out;
}

}  // namespace selvage::crypto

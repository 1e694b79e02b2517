// SHA-256 (FIPS 180-4) and the Digest that names every artefact.
#pragma once

#include <array>
#include <compare>
#include <memory>
#include <ostream>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/status.h"

namespace selvage::crypto {

// A SHA-256 value. All zeros is not the digest of anything we store and means
// "none" (empty()).
struct Digest {
  std::array<uint8_t, 32> bytes{};

  bool empty() const { return *this == Digest{}; }
  std::string ToHex() const;
  ByteSpan span() const { return bytes; }

  // INVALID_ARGUMENT unless `hex` is 64 hexadecimal digits.
  static Result<Digest> FromHex(std::string_view hex);
  // INVALID_ARGUMENT unless `raw` is 32 bytes.
  static Result<Digest> FromBytes(ByteSpan raw);

  friend auto operator<=>(const Digest&, const Digest&) = default;
};
std::ostream& operator<<(std::ostream& os, const Digest& digest);

Digest Sha256(ByteSpan bytes);

// Incremental SHA-256. Thread-compatible.
class Sha256Hasher {
 public:
  Sha256Hasher();
  ~Sha256Hasher();
  Sha256Hasher(Sha256Hasher&&) noexcept;
  Sha256Hasher& operator=(Sha256Hasher&&) noexcept;

  void Update(ByteSpan bytes);
  Digest Finish() &&;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// HMAC-SHA-256 (RFC 2104). 32 bytes.
Digest HmacSha256(ByteSpan key, ByteSpan message);

// Constant time in the contents.
bool EqualConstantTime(ByteSpan a, ByteSpan b);

}  // namespace selvage::crypto

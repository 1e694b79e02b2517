// Base64 and hexadecimal: whatever is accepted is what the encoder writes (for
// hexadecimal: in either case), and every input survives a round trip.
#include <cctype>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const selvage::ByteSpan bytes(data, size);
  const std::string_view text = selvage::AsText(bytes);

  if (const auto decoded = selvage::FromBase64(text); decoded.ok()) {
    SELVAGE_CHECK(selvage::ToBase64(*decoded) == text);
  }
  if (const auto decoded = selvage::FromHex(text); decoded.ok()) {
    std::string lower(text);
    for (char& c : lower) c = static_cast<char>(std::tolower(c));
    SELVAGE_CHECK(selvage::ToHex(*decoded) == lower);
  }

  const auto base64 = selvage::FromBase64(selvage::ToBase64(bytes));
  SELVAGE_CHECK(base64.ok() &&
                *base64 == selvage::Bytes(bytes.begin(), bytes.end()));
  const auto hex = selvage::FromHex(selvage::ToHex(bytes));
  SELVAGE_CHECK(hex.ok() && *hex == selvage::Bytes(bytes.begin(), bytes.end()));
  return 0;
}

#include "base/bytes.h"

namespace selvage {
namespace {

constexpr std::string_view kBase64 =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

std::string ToHex(ByteSpan bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const uint8_t byte : bytes) {
    out.push_back(kDigits[byte >> 4]);
    out.push_back(kDigits[byte & 15]);
  }
  return out;
}

Result<Bytes> FromHex(std::string_view hex) {
  if (hex.size() % 2 != 0) {
    return InvalidArgument("hexadecimal text has an odd length (" +
                           std::to_string(hex.size()) + ")");
  }
  Bytes out;
  out.reserve(hex.size() / 2);
  for (size_t i = 0; i < hex.size(); i += 2) {
    const int high = HexValue(hex[i]);
    const int low = HexValue(hex[i + 1]);
    if (high < 0 || low < 0) {
      return InvalidArgument("not a hexadecimal digit at position " +
                             std::to_string(high < 0 ? i : i + 1));
    }
    out.push_back(static_cast<uint8_t>(high << 4 | low));
  }
  return out;
}

std::string ToBase64(ByteSpan bytes) {
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t n = std::min<size_t>(3, bytes.size() - i);
    uint32_t group = 0;
    for (size_t k = 0; k < 3; ++k) {
      group = group << 8 | (k < n ? bytes[i + k] : 0U);
    }
    for (size_t k = 0; k < 4; ++k) {
      out.push_back(k <= n ? kBase64[group >> (18 - 6 * k) & 63] : '=');
    }
  }
  return out;
}

Result<Bytes> FromBase64(std::string_view text) {
  if (text.size() % 4 != 0) {
    return InvalidArgument("base64 text has a length (" +
                           std::to_string(text.size()) +
                           ") that is not a multiple of 4");
  }
  Bytes out;
  out.reserve(text.size() / 4 * 3);
  for (size_t i = 0; i < text.size(); i += 4) {
    const bool last = i + 4 == text.size();
    uint32_t group = 0;
    size_t padding = 0;
    for (size_t k = 0; k < 4; ++k) {
      const char c = text[i + k];
      const size_t value = kBase64.find(c);
      if (c == '=' && last && k >= 2) {
        ++padding;
        group <<= 6;
      } else if (value == std::string_view::npos || padding > 0) {
        return InvalidArgument("not a base64 character at position " +
                               std::to_string(i + k));
      } else {
        group = group << 6 | static_cast<uint32_t>(value);
      }
    }
    for (size_t k = 0; k < 3 - padding; ++k) {
      out.push_back(static_cast<uint8_t>(group >> (16 - 8 * k)));
    }
    if (padding > 0 && (group & ((1U << (8 * padding)) - 1)) != 0) {
      return InvalidArgument("base64 text ends in stray bits");
    }
  }
  return out;
}

Status ByteReader::Truncated(std::string_view what, size_t wanted) const {
  return OutOfRange(std::string(what) + " needs " + std::to_string(wanted) +
                    " bytes, " + std::to_string(rest_.size()) + " remain");
}

}  // namespace selvage

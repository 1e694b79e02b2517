// How C++ values stand in the columns of SQL stores: times are microseconds,
// digests and bytes are lower-case hexadecimal text, enums and flags integers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <type_traits>

#include "base/bytes.h"
#include "base/time.h"
#include "crypto/digest.h"

namespace selvage::coordinator {

// Reads the next column of `row` into `value`. `Row` has ReadInt(), ReadReal()
// and ReadText(), each of which takes one column, and Corrupt(), which throws
// an error that names the column taken last.
template <typename Row, typename T>
void ReadColumn(Row& row, T& value) {
  if constexpr (std::is_same_v<T, Time>) {
    value = FromMicros(row.ReadInt());
  } else if constexpr (std::is_same_v<T, double>) {
    value = row.ReadReal();
  } else if constexpr (std::is_integral_v<T> || std::is_enum_v<T>) {
    value = static_cast<T>(row.ReadInt());
  } else if constexpr (std::is_same_v<T, std::string>) {
    value = row.ReadText();
  } else {
    const Result<Bytes> bytes = FromHex(row.ReadText());
    if (!bytes.ok()) row.Corrupt();
    if constexpr (std::is_same_v<T, Bytes>) {
      value = *bytes;
    } else if constexpr (std::is_same_v<T, crypto::Digest>) {
      value = crypto::Digest();
      if (bytes->empty()) return;
      if (bytes->size() != value.bytes.size()) row.Corrupt();
      std::copy(bytes->begin(), bytes->end(), value.bytes.begin());
    } else {
      if (bytes->size() != value.size()) row.Corrupt();
      std::copy(bytes->begin(), bytes->end(), value.begin());
    }
  }
}

}  // namespace selvage::coordinator

// Structs of the C API as the host gives them: of its own version, checked.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/status.h"
#include "client/capi/selvage.h"

namespace selvage::capi {

// The size of T when it was first part of the ABI, below which struct_size
// makes no sense. A struct that grows gets a specialisation with its old size;
// new fields never go into its padding.
template <typename T>
inline constexpr size_t kFirstSize = sizeof(T);
template <>
inline constexpr size_t kFirstSize<selvage_engine> =
    offsetof(selvage_engine, training_features);
template <>
inline constexpr size_t kFirstSize<selvage_example> = offsetof(selvage_example,
                                                               key);

inline constexpr size_t kStructSizeMax = 64 << 10;

// The struct as this library knows it: what an older host does not have is
// zero. INVALID_ARGUMENT if `in` is NULL, its size makes no sense, or a newer
// host set something that this library does not have.
template <typename T>
Result<T> ReadStruct(const void* in, std::string_view name) {
  static_assert(std::is_trivially_copyable_v<T>);
  if (in == nullptr) return InvalidArgument(std::string(name) + " is NULL");
  uint32_t size = 0;
  std::memcpy(&size, in, sizeof size);
  if (size < kFirstSize<T> || size > kStructSizeMax) {
    return InvalidArgument(std::string(name) + " has struct_size " +
                           std::to_string(size) + ", not " +
                           std::to_string(sizeof(T)));
  }
  const auto* bytes = static_cast<const uint8_t*>(in);
  if (size > sizeof(T) && std::any_of(bytes + sizeof(T), bytes + size,
                                      [](uint8_t b) { return b != 0; })) {
    return InvalidArgument(std::string(name) +
                           " asks for what this version does not have");
  }
  T out{};
  std::memcpy(&out, in, std::min<size_t>(size, sizeof(T)));
  out.struct_size = sizeof(T);
  return out;
}

// `count` structs one after another, all with the struct_size of the first.
template <typename T>
Result<std::vector<T>> ReadStructs(const T* in, uint64_t count,
                                   uint64_t count_max, std::string_view name) {
  if (count > count_max) {
    return InvalidArgument(std::to_string(count) + " of " + std::string(name) +
                           ", more than " + std::to_string(count_max));
  }
  std::vector<T> out;
  if (count == 0) return out;
  if (in == nullptr) return InvalidArgument(std::string(name) + " is NULL");
  const uint32_t stride = in->struct_size;
  if (stride % alignof(T) != 0) {
    return InvalidArgument(std::string(name) + " has struct_size " +
                           std::to_string(stride) + ", which is not aligned");
  }
  const auto* bytes = reinterpret_cast<const uint8_t*>(in);
  for (uint64_t i = 0; i < count; ++i) {
    // Before anything is read by it: an element that is larger than the others
    // would reach into the next one, or out of the array.
    uint32_t size = 0;
    std::memcpy(&size, bytes + i * stride, sizeof size);
    if (size != stride) {
      return InvalidArgument(std::string(name) + " " + std::to_string(i) +
                             " has struct_size " + std::to_string(size) +
                             ", the first one " + std::to_string(stride));
    }
    // The size of the first is checked before the second is looked at.
    SELVAGE_ASSIGN_OR_RETURN(T one, ReadStruct<T>(bytes + i * stride, name));
    out.push_back(one);
  }
  return out;
}

inline std::string_view TextOf(const char* text) {
  return text == nullptr ? std::string_view() : std::string_view(text);
}

}  // namespace selvage::capi

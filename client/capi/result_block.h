// Results that the host frees with one call, whatever they point to.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace selvage::capi {

// Collects the parts of one result. Until Release() it owns them.
class ResultBlock {
 public:
  ResultBlock() = default;
  ~ResultBlock();
  ResultBlock(const ResultBlock&) = delete;
  ResultBlock& operator=(const ResultBlock&) = delete;

  // Zeroed. Throws std::bad_alloc.
  void* Allocate(size_t size);

  template <typename T>
  T* NewArray(size_t count) {
    static_assert(std::is_trivially_copyable_v<T>);
    return static_cast<T*>(Allocate(count * sizeof(T)));
  }
  // A struct with its struct_size filled in.
  template <typename T>
  T* NewStruct() {
    T* out = NewArray<T>(1);
    out->struct_size = sizeof(T);
    return out;
  }
  char* Copy(std::string_view text);
  // nullptr if there are no values.
  template <typename T>
  const T* Copy(const std::vector<T>& values) {
    if (values.empty()) return nullptr;
    T* out = NewArray<T>(values.size());
    std::copy(values.begin(), values.end(), out);
    return out;
  }
  const char* const* Copy(const std::vector<std::string>& names);

  // The first part, which now stands for all of them in FreeResult().
  void* Release();

 private:
  struct Part;
  friend void FreeResult(void* result);

  Part* first_ = nullptr;
  Part* last_ = nullptr;
};

// Frees what Release() gave; nullptr is allowed. What is no such pointer is
// left alone if that can be seen.
void FreeResult(void* result);

}  // namespace selvage::capi

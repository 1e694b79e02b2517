#include "client/capi/result_block.h"

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <new>
#include <utility>

namespace selvage::capi {
namespace {

constexpr uint64_t kMagic = 0x53454C5641474552;

}  // namespace

// In front of every part; only the first one of a result has the magic.
struct alignas(std::max_align_t) ResultBlock::Part {
  uint64_t magic = 0;
  Part* next = nullptr;
};

ResultBlock::~ResultBlock() {
  if (first_ != nullptr) FreeResult(Release());
}

void* ResultBlock::Allocate(size_t size) {
  void* memory = std::calloc(1, sizeof(Part) + std::max<size_t>(size, 1));
  if (memory == nullptr) throw std::bad_alloc();
  Part* part = new (memory) Part;
  if (first_ == nullptr) {
    part->magic = kMagic;
    first_ = part;
  } else {
    last_->next = part;
  }
  last_ = part;
  return part + 1;
}

char* ResultBlock::Copy(std::string_view text) {
  char* out = NewArray<char>(text.size() + 1);
  std::copy(text.begin(), text.end(), out);
  return out;
}

const char* const* ResultBlock::Copy(const std::vector<std::string>& names) {
  const char** out = NewArray<const char*>(names.size());
  for (size_t i = 0; i < names.size(); ++i) out[i] = Copy(names[i]);
  return out;
}

void* ResultBlock::Release() {
  last_ = nullptr;
  return std::exchange(first_, nullptr) + 1;
}

void FreeResult(void* result) {
  if (result == nullptr) return;
  auto* part = static_cast<ResultBlock::Part*>(result) - 1;
  if (part->magic != kMagic) return;
  part->magic = 0;
  while (part != nullptr) {
    ResultBlock::Part* next = part->next;
    std::free(part);
    part = next;
  }
}

}  // namespace selvage::capi

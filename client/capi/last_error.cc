#include "client/capi/last_error.h"

#include <algorithm>
#include <string_view>

namespace selvage::capi {
namespace {

// A plain array: keeping the text of an error never allocates.
thread_local char last_error[1024] = "";

}  // namespace

selvage_code Finish(const Status& status) noexcept {
  const std::string_view text = status.message();
  size_t size = std::min(text.size(), sizeof last_error - 1);
  // Never half a UTF-8 character.
  if (size < text.size()) {
    while (size > 0 &&
           (static_cast<unsigned char>(text[size]) & 0xC0) == 0x80) {
      --size;
    }
  }
  std::copy_n(text.data(), size, last_error);
  last_error[size] = '\0';
  return static_cast<selvage_code>(status.code());
}

}  // namespace selvage::capi

extern "C" const char* selvage_last_error(void) {
  return selvage::capi::last_error;
}

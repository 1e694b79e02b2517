// Any pattern is refused or runs in bounded time.
#include "base/bytes.h"
#include "plan/tensor_match.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::vector<std::string> kNames = {"body.weight", "head.0.bias",
                                                  std::string(256, 'a')};
  // Its contents do not matter, only that it comes back.
  static_cast<void>(selvage::plan::MatchNames(
      kNames, {selvage::ToString(selvage::ByteSpan(data, size))}));
  return 0;
}

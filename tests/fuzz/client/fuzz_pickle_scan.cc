// Pickles of TorchScript archives from strangers: read without building
// anything, in bounded time and memory.
#include <cstdint>
#include <optional>

#include "base/check.h"
#include "client/training/torch/pickle_scan.h"

using selvage::ByteSpan;
using selvage::StatusCode;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto sizes = [](std::string_view key) {
    return key == "0" || key == "1" ? std::optional<uint64_t>(16)
                                    : std::nullopt;
  };
  const selvage::Status scanned = selvage::client::torch_engine::ScanPickle(
      "data.pkl", ByteSpan(data, size), sizes);
  SELVAGE_CHECK(scanned.ok() || scanned.code() == StatusCode::kInvalidArgument);
  return 0;
}

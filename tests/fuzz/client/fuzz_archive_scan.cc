// Directories of TorchScript archives from strangers: whatever is accepted fits
// into the file, and only bad input is ever the reason to refuse.
#include <cstdint>

#include "base/check.h"
#include "client/training/torch/archive_scan.h"

using selvage::ByteSpan;
using selvage::StatusCode;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto records =
      selvage::client::torch_engine::ReadArchiveDirectory(ByteSpan(data, size));
  if (!records.ok()) {
    SELVAGE_CHECK(records.status().code() == StatusCode::kInvalidArgument);
    return 0;
  }
  uint64_t stored = 0;
  for (const auto& [name, record] : *records) {
    SELVAGE_CHECK(!name.empty());
    if (!record.compressed) stored += record.size_bytes;
  }
  SELVAGE_CHECK(stored <= size);
  return 0;
}

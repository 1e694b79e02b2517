// IDX files with a device's examples.
#include <cstdint>

#include "base/check.h"
#include "client/agent/idx.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto rows = selvage::agent::ParseIdx(selvage::ByteSpan(data, size));
  if (!rows.ok()) return 0;
  SELVAGE_CHECK(rows->count > 0);
  SELVAGE_CHECK(rows->rows.size() == rows->count * rows->row_bytes);
  (void)rows->Row(rows->count - 1);
  return 0;
}

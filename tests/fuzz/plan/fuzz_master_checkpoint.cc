// What ParseMaster accepts is valid and serializes to the same bytes.
#include <algorithm>

#include "base/bytes.h"
#include "base/check.h"
#include "plan/checkpoint.h"
#include "tests/fuzz/plan/fuzz_table.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace selvage::plan;
  const selvage::ByteSpan bytes(data, size);
  const auto values = ParseMaster(test::FuzzTable(), bytes);
  if (values.ok()) {
    SELVAGE_CHECK(ValidateCheckpoint(test::FuzzTable(), *values).ok());
    SELVAGE_CHECK(std::ranges::equal(SerializeMaster(*values), bytes));
  }
  return 0;
}

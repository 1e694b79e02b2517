// What ReadSafetensors accepts is a valid checkpoint of the table.
#include "base/bytes.h"
#include "base/check.h"
#include "plan/checkpoint.h"
#include "tests/fuzz/plan/fuzz_table.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace selvage::plan;
  const TensorTable& table = test::FuzzTable();
  const auto values = ReadSafetensors(table, {data, size});
  if (values.ok()) {
    SELVAGE_CHECK(ValidateCheckpoint(table, *values).ok());
    const auto again =
        ReadSafetensors(table, WriteSafetensors(table, *values, {}));
    SELVAGE_CHECK(again.ok() && *again == *values);
  }
  return 0;
}

// What ParseTask accepts is valid and canonical.
#include "base/bytes.h"
#include "base/check.h"
#include "plan/task.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view json = selvage::AsText({data, size});
  const auto parsed = selvage::plan::ParseTask(json);
  if (parsed.ok()) {
    SELVAGE_CHECK(parsed->Validate().ok());
    SELVAGE_CHECK(selvage::plan::CanonicalJson(*parsed) == json);
  }
  return 0;
}

// A task file is refused, or yields a valid task that survives a round trip.
#include "base/bytes.h"
#include "base/check.h"
#include "plan/task.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto task = selvage::plan::ParseTaskFile(selvage::AsText({data, size}));
  if (task.ok()) {
    SELVAGE_CHECK(task->Validate().ok());
    const auto again =
        selvage::plan::ParseTask(selvage::plan::CanonicalJson(*task));
    SELVAGE_CHECK(again.ok() && *again == *task);
  }
  return 0;
}

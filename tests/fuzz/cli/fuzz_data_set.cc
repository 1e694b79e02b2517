// A safetensors file of examples: what is read is examples of the program.
#include <cstdint>

#include "base/check.h"
#include "cli/torch/data_set.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace selvage;
  static const plan::Program kProgram = [] {
    plan::Program program;
    program.inputs = {
        {.name = "x", .dtype = plan::DType::kFloat32, .shape = {2, 3}},
        {.name = "pixels", .dtype = plan::DType::kUint8, .shape = {4}},
        {.name = "y", .dtype = plan::DType::kInt64, .shape = {}}};
    return program;
  }();
  const auto examples = cli::ParseSafetensorsData({data, size}, kProgram);
  if (!examples.ok()) return 0;
  SELVAGE_CHECK(examples->count > 0);
  SELVAGE_CHECK(examples->inputs.size() == kProgram.inputs.size());
  for (size_t i = 0; i < kProgram.inputs.size(); ++i) {
    SELVAGE_CHECK(examples->inputs[i].size() ==
                  examples->count * kProgram.inputs[i].SizeBytes());
  }
  return 0;
}

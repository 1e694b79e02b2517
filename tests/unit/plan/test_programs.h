// Small programs and tables that several plan tests share.
#pragma once

#include <string>
#include <vector>

#include "plan/program.h"

namespace selvage::plan::test {

// Every role, both dtypes, integers between the floats.
inline std::vector<TensorSpec> EveryRole() {
  return {
      {"body.weight",
       {4, 6},
       DType::kFloat32,
       Role::kShared,
       Init::kKaimingUniform},
      {"bn.count", {}, DType::kInt64, Role::kBufferInt, Init::kZeros},
      {"bn.mean", {4}, DType::kFloat32, Role::kBufferFloat, Init::kZeros},
      {"head.weight",
       {3, 4},
       DType::kFloat32,
       Role::kPersonal,
       Init::kXavierUniform},
      {"stem.weight",
       {2, 3, 3, 3},
       DType::kFloat32,
       Role::kFrozen,
       Init::kNormal},
      {"head.bias", {3}, DType::kFloat32, Role::kShared, Init::kOnes},
      {"bn.steps", {2}, DType::kInt64, Role::kBufferInt, Init::kZeros},
  };
}

inline Program SourceProgram() {
  Program program;
  program.source =
      "def forward(self, x):\n    return torch.linear(x, self.w, self.b)\n";
  program.table = *TensorTable::Create(
      {{"w", {2, 3}, DType::kFloat32, Role::kShared, Init::kKaimingUniform},
       {"b", {2}, DType::kFloat32, Role::kPersonal, Init::kZeros}});
  program.inputs = {{"x", DType::kFloat32, {3}}, {"y", DType::kInt64, {}}};
  program.metrics = {"accuracy", "loss"};
  return program;
}

}  // namespace selvage::plan::test

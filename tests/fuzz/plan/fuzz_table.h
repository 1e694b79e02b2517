// The table that checkpoint fuzzers decode against: both dtypes, small.
#pragma once

#include "plan/tensor_table.h"

namespace selvage::plan::test {

inline const TensorTable& FuzzTable() {
  static const TensorTable kTable = *TensorTable::Create(
      {{"a.w", {2, 3}, DType::kFloat32, Role::kShared, Init::kNormal},
       {"a.n", {}, DType::kInt64, Role::kBufferInt, Init::kZeros},
       {"b", {4}, DType::kFloat32, Role::kPersonal, Init::kOnes}});
  return kTable;
}

}  // namespace selvage::plan::test

// The tensors of a model: names, shapes, dtypes, and the role that decides what
// is averaged and what may leave a device (architecture.md, "Tensors have
// roles").
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace selvage::plan {

enum class DType { kFloat32, kInt64, kUint8 };
std::string_view DTypeName(DType dtype);  // "f32", "i64", "u8"
Result<DType> ParseDType(std::string_view name);
size_t SizeOf(DType dtype);  // bytes per element

enum class Role {
  kShared,       // weighted mean of deltas, then the server optimizer
  kBufferFloat,  // weighted mean only, e.g. BatchNorm statistics
  kBufferInt,    // not aggregated, stays as the server has it
  kPersonal,     // never aggregated, never leaves the device
  kFrozen,       // never aggregated, never leaves the device
};
std::string_view RoleName(Role role);  // "shared", "buffer_float", ...
Result<Role> ParseRole(std::string_view name);

// How a tensor starts when a task says `initial: random`.
// kaiming_uniform: U(-b, b), b = sqrt(6 / ((1 + 5) fan_in)) = 1/sqrt(fan_in),
// PyTorch's default for Linear and Conv (He et al., 2015, with a = sqrt(5));
// xavier_uniform: Glorot and Bengio, 2010; normal: N(0, 0.02^2).
enum class Init { kZeros, kOnes, kKaimingUniform, kXavierUniform, kNormal };
std::string_view InitName(Init init);
Result<Init> ParseInit(std::string_view name);

struct TensorSpec {
  // Dotted, e.g. "body.weight"; parts are [A-Za-z_][A-Za-z0-9_]* or a number
  // ("layers.0.weight").
  std::string name;
  std::vector<int64_t> shape;  // empty: a scalar
  DType dtype = DType::kFloat32;
  Role role = Role::kShared;
  Init init = Init::kZeros;

  friend bool operator==(const TensorSpec&, const TensorSpec&) = default;
};

// Bounds on what a table may be.
inline constexpr size_t kTensorCountMax = 4096;
inline constexpr size_t kTensorNameSizeMax = 256;
inline constexpr size_t kTensorRankMax = 8;
inline constexpr int64_t kElementCountMax = int64_t{1} << 31;

// Validated and immutable. A model's values live in two flat arrays
// (checkpoint.h): every f32 tensor, then every i64 tensor, each in table order.
class TensorTable {
 public:
  TensorTable() = default;  // no tensors

  // INVALID_ARGUMENT names the tensor and the rule: no tensors, a duplicate or
  // malformed name, a tensor named like the module of another, a non-positive
  // dimension, more than the bounds above (the elements of all tensors
  // together), u8 (inputs only), buffer_int that is not i64, any other role
  // that is not f32, an i64 tensor that does not start as zeros.
  static Result<TensorTable> Create(std::vector<TensorSpec> tensors);

  struct Entry {
    TensorSpec spec;
    size_t count = 0;   // elements
    size_t offset = 0;  // first element in the flat f32 (or i64) array
  };
  const std::vector<Entry>& entries() const { return entries_; }
  // nullptr if there is none.
  const Entry* Find(std::string_view name) const;
  bool Has(Role role) const;  // a tensor of this role

  size_t float_count() const { return float_count_; }
  size_t int_count() const { return int_count_; }

  // The tensors an update carries, in table order: shared and buffer_float.
  struct AggregatedSlice {
    size_t entry = 0;          // index into entries()
    size_t float_offset = 0;   // in the flat f32 array
    size_t update_offset = 0;  // in the update's flat array
    size_t count = 0;
    Role role = Role::kShared;
  };
  const std::vector<AggregatedSlice>& aggregated() const { return aggregated_; }
  size_t update_count() const {
    return update_count_;
  }  // elements of an update

  friend bool operator==(const TensorTable& a, const TensorTable& b);

 private:
  std::vector<Entry> entries_;
  std::vector<AggregatedSlice> aggregated_;
  std::vector<size_t> by_name_;  // indices into entries_, sorted by name
  size_t float_count_ = 0;
  size_t int_count_ = 0;
  size_t update_count_ = 0;
};

}  // namespace selvage::plan

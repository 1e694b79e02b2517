// A model's values in memory: two flat arrays laid out by a TensorTable.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"
#include "plan/tensor_table.h"

namespace selvage::plan {

struct Checkpoint {
  std::vector<float> floats;  // table.float_count() values
  std::vector<int64_t> ints;  // table.int_count() values

  friend bool operator==(const Checkpoint&, const Checkpoint&) = default;
};

// INVALID_ARGUMENT names the array, its size and the table's; or the first
// tensor with a NaN or infinite value.
Status ValidateCheckpoint(const TensorTable& table, const Checkpoint& values);

// Values for `initial: random`: a function of table and seed alone, the same on
// every platform (own generator, own normal deviates; see base/random.h). Each
// tensor draws from its own stream, keyed by its name. The fan of a tensor of
// rank 2 and up is PyTorch's (shape[1] and shape[0] times the receptive field);
// a vector's is its length, a scalar's 1.
Checkpoint InitializeCheckpoint(const TensorTable& table, uint64_t seed);

// The exact master copy as bytes: floats then ints, little-endian.
Bytes SerializeMaster(const Checkpoint& values);
// INVALID_ARGUMENT if the size is not the table's or a value is not finite.
Result<Checkpoint> ParseMaster(const TensorTable& table, ByteSpan bytes);

// Safetensors (github.com/huggingface/safetensors, format of 2022): 8-byte
// little-endian header size, JSON header, data. Names and shapes as in the
// table; F32 and I64 only; integers come first, so that everything is aligned.
// `metadata` (UTF-8, no key twice) becomes __metadata__.
Bytes WriteSafetensors(
    const TensorTable& table, const Checkpoint& values,
    const std::vector<std::pair<std::string, std::string>>& metadata);
// The beginning of such a file, up to where the f32 tensors begin, if they
// follow in `order` (indices into table.entries(), each f32 tensor once)
// instead of the table's: so that a file can be put together from what never
// changes and what does.
Bytes SafetensorsHead(
    const TensorTable& table, std::span<const int64_t> ints,
    std::span<const size_t> order,
    const std::vector<std::pair<std::string, std::string>>& metadata);
// INVALID_ARGUMENT names what is wrong: truncated, header over 16 MiB,
// overlapping or out-of-range offsets, holes, a value that is not finite, a
// tensor of the table missing or of another shape or dtype, a tensor that the
// table does not have.
Result<Checkpoint> ReadSafetensors(const TensorTable& table, ByteSpan bytes);

}  // namespace selvage::plan

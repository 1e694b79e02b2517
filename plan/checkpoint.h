// A model's values in memory: two flat arrays laid out by a TensorTable.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/random.h"
#include "base/status.h"
#include "crypto/digest.h"
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

// The same a piece at a time. Thread-compatible; `table` must outlive it.
class InitialValues {
 public:
  InitialValues(const TensorTable& table, uint64_t seed)
      : table_(table), seed_(seed) {}
  // Elements [begin, begin + out.size()) of the f32 tensor `entry`. REQUIRES:
  // `begin` is where the call before ended in this tensor, or 0.
  void Read(size_t entry, size_t begin, std::span<float> out);

 private:
  const TensorTable& table_;
  const uint64_t seed_;
  std::optional<SeededRandom> random_;  // of the tensor that was read last
};

// The exact master copy as bytes: floats then ints, little-endian.
Bytes SerializeMaster(const Checkpoint& values);
// The SHA-256 of that, without making it.
crypto::Digest MasterDigest(const Checkpoint& values);
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
// Where every tensor of the table begins, in bytes from the beginning of a file
// of `file_size` bytes, which begins with `head`: at least
// SafetensorsHeadSize() of them. INVALID_ARGUMENT names what is wrong:
// truncated, header over 16 MiB, overlapping or out-of-range offsets, holes, a
// tensor of the table missing or of another shape or dtype, a tensor that the
// table does not have.
Result<std::vector<uint64_t>> FindSafetensors(const TensorTable& table,
                                              ByteSpan head,
                                              uint64_t file_size);
// Bytes before the tensors, according to the first kSafetensorsPrefix.
inline constexpr size_t kSafetensorsPrefix = 8;
Result<size_t> SafetensorsHeadSize(ByteSpan prefix, uint64_t file_size);
// The whole file. INVALID_ARGUMENT as FindSafetensors(), or if a value is not
// finite.
Result<Checkpoint> ReadSafetensors(const TensorTable& table, ByteSpan bytes);

}  // namespace selvage::plan

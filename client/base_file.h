// A round's checkpoint where it lies, in the cache, for models of which a
// training leaves no room for another copy.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "aggregation/codec/checkpoint_parts.h"
#include "base/file_system.h"
#include "client/core/update_builder.h"
#include "client/store/blob_cache.h"
#include "crypto/digest.h"
#include "plan/checkpoint.h"
#include "plan/tensor_table.h"

namespace selvage::client {

// Models of this size are not kept in memory beside what needs the room.
inline constexpr uint64_t kLargeModelBytes = uint64_t{32} << 20;
inline bool IsLarge(const plan::TensorTable& table) {
  return table.float_count() * sizeof(float) >= kLargeModelBytes;
}

// Thread-compatible.
class BaseFile final : public BaseTensors {
 public:
  // The checkpoint that `digest` names. NOT_FOUND if any of it is not in the
  // cache, DATA_LOSS if it does not fit the table. `table` must outlive it.
  static Result<std::unique_ptr<BaseFile>> Open(const crypto::Digest& digest,
                                                plan::CodecName codec,
                                                const plan::TensorTable& table,
                                                BlobCache& cache);

  Status Read(size_t entry, std::vector<float>& out) override;

 private:
  struct Place {
    size_t part = 0;
    uint64_t begin = 0;
  };
  BaseFile(plan::CodecName codec, const plan::TensorTable& table)
      : codec_(codec), table_(table), places_(table.entries().size()) {}

  const plan::CodecName codec_;
  const plan::TensorTable& table_;
  std::vector<std::unique_ptr<ReadableFile>> parts_;
  std::vector<Place> places_;  // by entry; f32 tensors
};

}  // namespace selvage::client

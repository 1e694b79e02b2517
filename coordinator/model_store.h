// Models as blobs, read and written a piece at a time: no copy of a large model
// is ever in memory.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "coordinator/blob_store.h"
#include "coordinator/store.h"
#include "coordinator/task_definition.h"
#include "plan/checkpoint.h"

namespace selvage::coordinator {

// Where the values of a model come from.
class ModelSource {
 public:
  virtual ~ModelSource() = default;
  // Elements [begin, begin + out.size()) of the f32 tensor `entry` of the
  // table. `begin` is where the call before ended in this tensor, or 0. Tensors
  // that a round changes are asked for in the table's order, each element once.
  // INVALID_ARGUMENT, or another status that names the tensor, if a value is
  // not finite.
  virtual Status Read(size_t entry, size_t begin, std::span<float> out) = 0;
  // table.int_count() of them.
  virtual Result<std::vector<int64_t>> Ints() = 0;
};

// `initial: random`. The table must outlive it.
class InitialModel final : public ModelSource {
 public:
  InitialModel(const plan::TensorTable& table, uint64_t seed)
      : table_(table), values_(table, seed) {}
  Status Read(size_t entry, size_t begin, std::span<float> out) override {
    values_.Read(entry, begin, out);
    return OkStatus();
  }
  Result<std::vector<int64_t>> Ints() override {
    return std::vector<int64_t>(table_.int_count());
  }

 private:
  const plan::TensorTable& table_;
  plan::InitialValues values_;
};

// A safetensors file of the table's tensors: the master of a version, or what
// somebody uploaded. Reads any elements in any order.
class MasterReader final : public ModelSource {
 public:
  // INVALID_ARGUMENT if the file is not one of these tensors, or as
  // BlobStore::Open(). `table` must outlive the reader.
  static Result<std::unique_ptr<MasterReader>> Open(
      const plan::TensorTable& table, const crypto::Digest& digest,
      BlobStore& blobs);

  Status Read(size_t entry, size_t begin, std::span<float> out) override;
  Result<std::vector<int64_t>> Ints() override;

 private:
  MasterReader(const plan::TensorTable& table,
               std::unique_ptr<ArtefactReader> file,
               std::vector<uint64_t> begins)
      : table_(table), file_(std::move(file)), begins_(std::move(begins)) {}

  const plan::TensorTable& table_;
  const std::unique_ptr<ArtefactReader> file_;
  const std::vector<uint64_t> begins_;  // by entry
};

// Every value of `source` is finite, and there are no fewer than the table
// says.
Status CheckModel(const plan::TensorTable& table, ModelSource& source);

// The artefacts of a version, durable in `blobs`: what devices download, and
// the float32 master as safetensors. Tensors that no round changes are in parts
// of their own (aggregation/codec/checkpoint_parts.h), of both, so the versions
// of a task share them: what is written is what changed.
struct VersionArtefacts {
  crypto::Digest checkpoint_digest;  // of the checkpoint, or its list of parts
  crypto::Digest master_digest;
  crypto::Digest server_state_digest;  // empty: the strategy has none
  // Everything that must be kept for it, and what devices may fetch.
  std::vector<std::pair<crypto::Digest, uint64_t>> artefacts;  // digest, size
  std::vector<crypto::Digest> references;
};
// Reads `source` once, but for what no round changes. Leaves the server state
// to others. With `threads` > 1, what is worth it is hashed and written while
// the values behind it come into being, with the same bytes.
Result<VersionArtefacts> StoreVersion(const TaskDefinition& definition,
                                      uint64_t version, uint64_t round,
                                      ModelSource& source, BlobStore& blobs,
                                      size_t threads = 1);

// Writes a blob in pieces that are worth a write. Thread-compatible.
class BlobBuffer {
 public:
  static Result<BlobBuffer> Create(BlobStore& blobs);
  Status Append(ByteSpan bytes);
  // Digest and size; durable once this returns OK.
  Result<std::pair<crypto::Digest, uint64_t>> Finish();

 private:
  explicit BlobBuffer(std::unique_ptr<BlobWriter> writer)
      : writer_(std::move(writer)) {}
  std::unique_ptr<BlobWriter> writer_;
  Bytes buffer_;
  uint64_t size_ = 0;
};

}  // namespace selvage::coordinator

#include "coordinator/model_store.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <future>
#include <optional>

#include "aggregation/codec/checkpoint_parts.h"
#include "aggregation/codec/pieces.h"

namespace selvage::coordinator {
namespace {

using Entry = plan::TensorTable::Entry;
using Named = std::pair<crypto::Digest, uint64_t>;

// Elements that are read at a time.
constexpr size_t kPiece = size_t{256} << 10;
constexpr size_t kBufferBytes = size_t{1} << 20;
// Models of fewer values are not worth a thread.
constexpr size_t kPipedMin = size_t{256} << 10;
// Up to so many, a copy in memory is worth it, so that master and checkpoint
// can be written at the same time.
constexpr size_t kKeptMax = size_t{1} << 20;

bool IsFloat(const Entry& entry) {
  return entry.spec.dtype == plan::DType::kFloat32;
}

constexpr int32_t kInfinityBits = 0x7f800000;

// Of what has the largest magnitude, without its sign: in the order of finite
// values, and at least kInfinityBits for others.
int32_t MaxAbsBits(std::span<const float> values) {
  int32_t most = 0;
  for (const float value : values) {
    most = std::max(most, std::bit_cast<int32_t>(value) & 0x7fffffff);
  }
  return most;
}

// All elements of a tensor, piece by piece.
Status ForEachPiece(const Entry& entry, size_t index, ModelSource& source,
                    std::vector<float>& buffer,
                    const std::function<Status(std::span<const float>)>& sink) {
  for (size_t begin = 0; begin < entry.count; begin += kPiece) {
    buffer.resize(std::min(kPiece, entry.count - begin));
    SELVAGE_RETURN_IF_ERROR(source.Read(index, begin, buffer));
    SELVAGE_RETURN_IF_ERROR(sink(buffer));
  }
  return OkStatus();
}

using Emit = std::function<Status(const std::function<Status(ByteSpan)>&)>;

// A blob that is hashed, written and made durable by another thread, a buffer
// behind its caller. Thread-compatible.
class BlobPipe {
 public:
  explicit BlobPipe(std::unique_ptr<BlobWriter> writer)
      : writer_(std::move(writer)) {}
  BlobPipe(const BlobPipe&) = delete;
  BlobPipe& operator=(const BlobPipe&) = delete;

  Status Append(ByteSpan bytes) {
    size_ += bytes.size();
    while (!bytes.empty()) {
      const size_t count =
          std::min(bytes.size(), kBufferBytes - filling_.size());
      AppendBytes(filling_, bytes.first(count));
      bytes = bytes.subspan(count);
      if (filling_.size() < kBufferBytes) continue;
      SELVAGE_RETURN_IF_ERROR(Wait());
      Swap();
      running_ = std::async(std::launch::async, [this] { return Write(); });
    }
    return OkStatus();
  }
  // There is no more: the rest is done while the caller does something else.
  Status Close() {
    SELVAGE_RETURN_IF_ERROR(Wait());
    Swap();
    running_ = std::async(std::launch::async, [this]() -> Status {
      SELVAGE_RETURN_IF_ERROR(Write());
      SELVAGE_ASSIGN_OR_RETURN(digest_, writer_->Finish());
      return OkStatus();
    });
    return OkStatus();
  }
  // After Close(). Durable once this returns OK.
  Result<Named> Finish() {
    SELVAGE_RETURN_IF_ERROR(Wait());
    return Named(digest_, size_);
  }

 private:
  Status Wait() { return running_.valid() ? running_.get() : OkStatus(); }
  Status Write() { return writer_->Append(writing_); }
  void Swap() {
    filling_.swap(writing_);
    filling_.clear();
    filling_.reserve(kBufferBytes);
  }

  const std::unique_ptr<BlobWriter> writer_;
  uint64_t size_ = 0;
  crypto::Digest digest_;
  Bytes filling_;
  Bytes writing_;
  std::future<Status> running_;  // waits when it goes away, before the others
};

// Keeps the values it has read, and reads them again from memory.
class KeptSource final : public ModelSource {
 public:
  KeptSource(const plan::TensorTable& table, ModelSource& source)
      : table_(table), source_(source), values_(table.entries().size()) {}

  Status Read(size_t entry, size_t begin, std::span<float> out) override {
    std::vector<float>& kept = values_[entry];
    if (begin == kept.size()) {
      kept.reserve(table_.entries()[entry].count);
      kept.resize(begin + out.size());
      SELVAGE_RETURN_IF_ERROR(
          source_.Read(entry, begin, std::span(kept).subspan(begin)));
    }
    const auto from = kept.begin() + static_cast<std::ptrdiff_t>(begin);
    std::copy_n(from, out.size(), out.begin());
    return OkStatus();
  }
  Result<std::vector<int64_t>> Ints() override { return source_.Ints(); }

 private:
  const plan::TensorTable& table_;
  ModelSource& source_;
  std::vector<std::vector<float>> values_;  // by entry
};

size_t FloatCount(const plan::TensorTable& table) {
  size_t count = 0;
  for (const Entry& entry : table.entries()) {
    if (IsFloat(entry)) count += entry.count;
  }
  return count;
}

// Writes what a version needs and notes it.
class VersionWriter {
 public:
  VersionWriter(const plan::TensorTable& table, BlobStore& blobs,
                VersionArtefacts& artefacts, bool piped)
      : table_(table),
        blobs_(blobs),
        artefacts_(artefacts),
        piped_(piped),
        max_abs_(table.entries().size()) {}

  using Metadata = std::vector<std::pair<std::string, std::string>>;

  // A model of float32 alone that is not cut, and whose checkpoint is float32,
  // too: that is what the master has after its head.
  Status PutOnce(ModelSource& source, const Metadata& metadata) {
    const aggregation::PartLayout part =
        aggregation::LayOutParts(plan::CodecName::kFloat32, table_).front();
    const Bytes head =
        plan::SafetensorsHead(table_, {}, part.entries, metadata);
    crypto::Sha256Hasher whole;
    whole.Update(head);
    SELVAGE_ASSIGN_OR_RETURN(
        const Named floats,
        PutBytes(
            [&](const auto& sink) { return PutFloats(part, source, sink); },
            &whole));
    SELVAGE_ASSIGN_OR_RETURN(const crypto::Digest beginning, blobs_.Put(head));
    const crypto::Digest pieces[] = {beginning, floats.first};
    artefacts_.master_digest = std::move(whole).Finish();
    SELVAGE_RETURN_IF_ERROR(blobs_.PutJoined(pieces, artefacts_.master_digest));
    artefacts_.checkpoint_digest = floats.first;
    artefacts_.artefacts = {
        floats,
        {beginning, head.size()},
        {artefacts_.master_digest, head.size() + floats.second}};
    artefacts_.references = {floats.first};
    return OkStatus();
  }

  // Both at the same time, of a model that is not cut.
  Status PutBoth(plan::CodecName codec, ModelSource& source,
                 const Metadata& metadata) {
    SELVAGE_ASSIGN_OR_RETURN(ints_, source.Ints());
    const aggregation::PartLayout part =
        aggregation::LayOutParts(codec, table_).front();
    std::vector<size_t> order;
    for (const size_t index : part.entries) {
      if (IsFloat(table_.entries()[index])) order.push_back(index);
    }
    KeptSource kept(table_, source);
    SELVAGE_ASSIGN_OR_RETURN(std::unique_ptr<BlobWriter> writer,
                             blobs_.NewBlob());
    BlobPipe master(std::move(writer));
    SELVAGE_RETURN_IF_ERROR(
        master.Append(plan::SafetensorsHead(table_, ints_, order, metadata)));
    SELVAGE_RETURN_IF_ERROR(PutFloats(
        part, kept, [&](ByteSpan bytes) { return master.Append(bytes); }));
    SELVAGE_RETURN_IF_ERROR(master.Close());
    SELVAGE_ASSIGN_OR_RETURN(writer, blobs_.NewBlob());
    BlobPipe checkpoint(std::move(writer));
    SELVAGE_RETURN_IF_ERROR(PutPart(codec, part, kept, [&](ByteSpan bytes) {
      return checkpoint.Append(bytes);
    }));
    SELVAGE_RETURN_IF_ERROR(checkpoint.Close());
    SELVAGE_ASSIGN_OR_RETURN(const Named named_master, master.Finish());
    SELVAGE_ASSIGN_OR_RETURN(const Named named_checkpoint, checkpoint.Finish());
    artefacts_.master_digest = named_master.first;
    artefacts_.checkpoint_digest = named_checkpoint.first;
    artefacts_.artefacts = {named_master, named_checkpoint};
    artefacts_.references = {named_checkpoint.first};
    return OkStatus();
  }

  // The master as safetensors: its beginning, what never changes, the rest.
  Result<crypto::Digest> PutMaster(ModelSource& source,
                                   const Metadata& metadata) {
    SELVAGE_ASSIGN_OR_RETURN(ints_, source.Ints());
    const std::vector<aggregation::PartLayout> parts =
        aggregation::LayOutParts(plan::CodecName::kFloat32, table_);
    std::vector<size_t> order;
    for (const auto& part : parts) {
      for (const size_t index : part.entries) {
        if (IsFloat(table_.entries()[index])) order.push_back(index);
      }
    }
    const Bytes head = plan::SafetensorsHead(table_, ints_, order, metadata);
    const auto floats = [&](const aggregation::PartLayout& part,
                            const auto& sink) {
      return PutFloats(part, source, sink);
    };
    if (parts.size() == 1) {
      SELVAGE_ASSIGN_OR_RETURN(const Named whole,
                               Put(false, [&](const auto& sink) -> Status {
                                 SELVAGE_RETURN_IF_ERROR(sink(head));
                                 return floats(parts.front(), sink);
                               }));
      return whole.first;
    }
    std::vector<crypto::Digest> pieces;
    uint64_t size = 0;
    const auto add = [&](bool constant, const Emit& emit) -> Status {
      SELVAGE_ASSIGN_OR_RETURN(const Named piece, Put(constant, emit));
      pieces.push_back(piece.first);
      size += piece.second;
      return OkStatus();
    };
    SELVAGE_RETURN_IF_ERROR(
        add(false, [&](const auto& sink) { return sink(head); }));
    for (const auto& part : parts) {
      SELVAGE_RETURN_IF_ERROR(add(
          part.constant, [&](const auto& sink) { return floats(part, sink); }));
    }
    SELVAGE_ASSIGN_OR_RETURN(const crypto::Digest digest,
                             blobs_.PutJoined(pieces));
    artefacts_.artefacts.push_back({digest, size});
    return digest;
  }

  // The checkpoint in its parts, which devices may fetch. After PutMaster();
  // `master` is what that made.
  Result<crypto::Digest> PutCheckpoint(plan::CodecName codec,
                                       ModelSource& master) {
    std::vector<aggregation::PartName> names;
    for (const auto& part : aggregation::LayOutParts(codec, table_)) {
      SELVAGE_ASSIGN_OR_RETURN(const Named named,
                               Put(part.constant, [&](const auto& sink) {
                                 return PutPart(codec, part, master, sink);
                               }));
      artefacts_.references.push_back(named.first);
      names.push_back({named.first, named.second});
    }
    if (names.size() == 1) return names.front().digest;
    SELVAGE_ASSIGN_OR_RETURN(
        const Named list, Put(false, [&](const auto& sink) {
          return sink(aggregation::SerializePartList(names));
        }));
    artefacts_.references.push_back(list.first);
    return list.first;
  }

 private:
  Result<Named> Put(bool constant, const Emit& emit) {
    if (constant) {
      // Most likely there already, and large.
      crypto::Sha256Hasher hasher;
      uint64_t size = 0;
      SELVAGE_RETURN_IF_ERROR(emit([&](ByteSpan bytes) {
        hasher.Update(bytes);
        size += bytes.size();
        return OkStatus();
      }));
      const Named named = {std::move(hasher).Finish(), size};
      if (blobs_.Open(named.first).ok()) {
        artefacts_.artefacts.push_back(named);
        return named;
      }
    }
    SELVAGE_ASSIGN_OR_RETURN(const Named named, PutBytes(emit));
    artefacts_.artefacts.push_back(named);
    return named;
  }

  // `also`, if any, takes the same bytes.
  Result<Named> PutBytes(const Emit& emit,
                         crypto::Sha256Hasher* also = nullptr) {
    if (!piped_) {
      SELVAGE_ASSIGN_OR_RETURN(BlobBuffer blob, BlobBuffer::Create(blobs_));
      SELVAGE_RETURN_IF_ERROR(emit([&](ByteSpan bytes) {
        if (also != nullptr) also->Update(bytes);
        return blob.Append(bytes);
      }));
      return blob.Finish();
    }
    SELVAGE_ASSIGN_OR_RETURN(std::unique_ptr<BlobWriter> writer,
                             blobs_.NewBlob());
    BlobPipe pipe(std::move(writer));
    SELVAGE_RETURN_IF_ERROR(emit([&](ByteSpan bytes) {
      Status piped = pipe.Append(bytes);
      // Here, while the other thread hashes for the blob.
      if (also != nullptr) also->Update(bytes);
      return piped;
    }));
    SELVAGE_RETURN_IF_ERROR(pipe.Close());
    return pipe.Finish();
  }

  Status PutFloats(const aggregation::PartLayout& part, ModelSource& source,
                   const std::function<Status(ByteSpan)>& sink) {
    for (const size_t index : part.entries) {
      const Entry& entry = table_.entries()[index];
      if (!IsFloat(entry)) continue;
      int32_t most = 0;
      SELVAGE_RETURN_IF_ERROR(ForEachPiece(
          entry, index, source, buffer_, [&](std::span<const float> values) {
            most = std::max(most, MaxAbsBits(values));
            return sink(AsBytes(values));
          }));
      max_abs_[index] = std::bit_cast<float>(most);
    }
    return OkStatus();
  }

  Status PutPart(plan::CodecName codec, const aggregation::PartLayout& part,
                 ModelSource& master,
                 const std::function<Status(ByteSpan)>& sink) {
    Bytes encoded;
    for (const size_t index : part.entries) {
      const Entry& entry = table_.entries()[index];
      if (!IsFloat(entry)) continue;
      const aggregation::PieceEncoder encoder(codec, max_abs_[index]);
      encoded.clear();
      encoder.AppendHead(encoded);
      const Status pieces =
          ForEachPiece(entry, index, master, buffer_,
                       [&](std::span<const float> values) -> Status {
                         encoder.Append(values, encoded);
                         SELVAGE_RETURN_IF_ERROR(sink(encoded));
                         encoded.clear();
                         return OkStatus();
                       });
      SELVAGE_RETURN_IF_ERROR(pieces);
    }
    for (const size_t index : part.entries) {
      const Entry& entry = table_.entries()[index];
      if (IsFloat(entry)) continue;
      SELVAGE_RETURN_IF_ERROR(sink(AsBytes(
          std::span<const int64_t>(ints_).subspan(entry.offset, entry.count))));
    }
    return OkStatus();
  }

  const plan::TensorTable& table_;
  BlobStore& blobs_;
  VersionArtefacts& artefacts_;
  const bool piped_;  // by BlobPipe
  std::vector<int64_t> ints_;
  std::vector<float> max_abs_;  // by entry
  std::vector<float> buffer_;
};

}  // namespace

Result<BlobBuffer> BlobBuffer::Create(BlobStore& blobs) {
  SELVAGE_ASSIGN_OR_RETURN(std::unique_ptr<BlobWriter> writer, blobs.NewBlob());
  return BlobBuffer(std::move(writer));
}

Status BlobBuffer::Append(ByteSpan bytes) {
  size_ += bytes.size();
  if (buffer_.size() + bytes.size() > kBufferBytes) {
    SELVAGE_RETURN_IF_ERROR(writer_->Append(buffer_));
    buffer_.clear();
    if (bytes.size() > kBufferBytes) return writer_->Append(bytes);
  }
  AppendBytes(buffer_, bytes);
  return OkStatus();
}

Result<std::pair<crypto::Digest, uint64_t>> BlobBuffer::Finish() {
  SELVAGE_RETURN_IF_ERROR(writer_->Append(buffer_));
  SELVAGE_ASSIGN_OR_RETURN(const crypto::Digest digest, writer_->Finish());
  return std::pair(digest, size_);
}

Result<std::unique_ptr<MasterReader>> MasterReader::Open(
    const plan::TensorTable& table, const crypto::Digest& digest,
    BlobStore& blobs) {
  SELVAGE_ASSIGN_OR_RETURN(std::unique_ptr<ArtefactReader> file,
                           blobs.Open(digest));
  const std::string what = "model " + digest.ToHex();
  Bytes head(std::min<uint64_t>(plan::kSafetensorsPrefix, file->size()));
  SELVAGE_RETURN_IF_ERROR(ReadExactly(*file, 0, head, what));
  SELVAGE_ASSIGN_OR_RETURN(const size_t head_size,
                           plan::SafetensorsHeadSize(head, file->size()));
  head.resize(head_size);
  SELVAGE_RETURN_IF_ERROR(ReadExactly(*file, 0, head, what));
  SELVAGE_ASSIGN_OR_RETURN(std::vector<uint64_t> begins,
                           plan::FindSafetensors(table, head, file->size()));
  return std::unique_ptr<MasterReader>(
      new MasterReader(table, std::move(file), std::move(begins)));
}

Status MasterReader::Read(size_t entry, size_t begin, std::span<float> out) {
  const std::string& name = table_.entries()[entry].spec.name;
  SELVAGE_RETURN_IF_ERROR(
      ReadExactly(*file_, begins_[entry] + begin * sizeof(float),
                  {reinterpret_cast<uint8_t*>(out.data()), out.size_bytes()},
                  "tensor " + name));
  if (MaxAbsBits(out) < kInfinityBits) return OkStatus();
  for (size_t i = 0; i < out.size(); ++i) {
    if (std::isfinite(out[i])) continue;
    return InvalidArgument("tensor " + name + ": element " +
                           std::to_string(begin + i) + " is " +
                           std::to_string(out[i]) + "; must be finite");
  }
  return OkStatus();
}

Result<std::vector<int64_t>> MasterReader::Ints() {
  std::vector<int64_t> ints(table_.int_count());
  for (size_t i = 0; i < table_.entries().size(); ++i) {
    const Entry& entry = table_.entries()[i];
    if (IsFloat(entry)) continue;
    SELVAGE_RETURN_IF_ERROR(
        ReadExactly(*file_, begins_[i],
                    {reinterpret_cast<uint8_t*>(ints.data() + entry.offset),
                     entry.count * sizeof(int64_t)},
                    "tensor " + entry.spec.name));
  }
  return ints;
}

Status CheckModel(const plan::TensorTable& table, ModelSource& source) {
  std::vector<float> buffer;
  for (size_t i = 0; i < table.entries().size(); ++i) {
    const Entry& entry = table.entries()[i];
    if (!IsFloat(entry)) continue;
    SELVAGE_RETURN_IF_ERROR(
        ForEachPiece(entry, i, source, buffer,
                     [](std::span<const float>) { return OkStatus(); }));
  }
  return source.Ints().status();
}

Result<VersionArtefacts> StoreVersion(const TaskDefinition& definition,
                                      uint64_t version, uint64_t round,
                                      ModelSource& source, BlobStore& blobs,
                                      size_t threads) {
  const plan::TensorTable& table = definition.program.table;
  const plan::CodecName codec = plan::CheckpointCodec(definition.spec.update);
  VersionArtefacts artefacts;
  const size_t count = FloatCount(table);
  const bool piped = threads > 1 && count >= kPipedMin;
  VersionWriter writer(table, blobs, artefacts, piped);
  // No time and no host in here: equal masters have equal digests.
  const VersionWriter::Metadata metadata = {
      {"format", "pt"},
      {"selvage.task", definition.spec.name},
      {"selvage.version", std::to_string(version)},
      {"selvage.round", std::to_string(round)},
      {"selvage.program", definition.program_digest.ToHex()}};
  if (codec == plan::CodecName::kFloat32 && table.int_count() == 0 &&
      aggregation::LayOutParts(codec, table).size() == 1) {
    SELVAGE_RETURN_IF_ERROR(writer.PutOnce(source, metadata));
    return artefacts;
  }
  if (piped && count <= kKeptMax &&
      aggregation::LayOutParts(codec, table).size() == 1 &&
      aggregation::LayOutParts(plan::CodecName::kFloat32, table).size() == 1) {
    SELVAGE_RETURN_IF_ERROR(writer.PutBoth(codec, source, metadata));
    return artefacts;
  }
  SELVAGE_ASSIGN_OR_RETURN(artefacts.master_digest,
                           writer.PutMaster(source, metadata));
  // Of what was written: the source gives its values once.
  SELVAGE_ASSIGN_OR_RETURN(
      const std::unique_ptr<MasterReader> master,
      MasterReader::Open(table, artefacts.master_digest, blobs));
  SELVAGE_ASSIGN_OR_RETURN(artefacts.checkpoint_digest,
                           writer.PutCheckpoint(codec, *master));
  return artefacts;
}

}  // namespace selvage::coordinator

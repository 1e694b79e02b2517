#include "coordinator/held_updates.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "aggregation/codec/codec.h"
#include "crypto/aead.h"

namespace selvage::coordinator {
namespace {

constexpr uint32_t kMagic = 0x50554853;  // "SHUP"
constexpr uint32_t kVersion = 1;
constexpr size_t kIdSizeMax = 256;
constexpr uint64_t kHeaderSizeMax = uint64_t{64} << 20;

// What a rule reads at once, and what a batch decodes to.
constexpr uint64_t kBlockOfAllBytes = uint64_t{16} << 20;
constexpr uint64_t kBatchBytes = uint64_t{64} << 20;
constexpr uint64_t kBlockMin = 256;
constexpr uint64_t kBlockMax = 16384;

size_t ElementCount(const TaskDefinition& definition) {
  return definition.layout.element_count();
}

// A function of the plan alone, so that every part of a round agrees on it.
size_t BlockSize(const TaskDefinition& definition) {
  return static_cast<size_t>(
      std::clamp(kBlockOfAllBytes / sizeof(float) /
                     std::max<uint64_t>(1, definition.layout.update_count_max),
                 kBlockMin, kBlockMax));
}

// Of one update in a blob.
uint64_t SealedSize(size_t element_count, size_t block_size) {
  const uint64_t blocks = (element_count + block_size - 1) / block_size;
  return element_count * sizeof(float) + blocks * crypto::kAeadOverhead;
}

Bytes HeaderContext(const RoundKey& round, const std::string& id) {
  return ToBytes("selvage/v1 held updates\n" + std::to_string(round.task_id) +
                 "\n" + std::to_string(round.number) + "\n" + id);
}

Bytes BlockContext(const RoundKey& round, const std::string& id, size_t place,
                   size_t index) {
  return ToBytes("selvage/v1 held update\n" + std::to_string(round.task_id) +
                 "\n" + std::to_string(round.number) + "\n" + id + "\n" +
                 std::to_string(place) + "\n" + std::to_string(index));
}

Result<Bytes> ReadPiece(ArtefactReader& reader, uint64_t offset, uint64_t size,
                        const std::string& id) {
  if (offset > reader.size() || size > reader.size() - offset) {
    return DataLoss("held updates " + id + " end before byte " +
                    std::to_string(offset + size));
  }
  Bytes bytes(static_cast<size_t>(size));
  SELVAGE_RETURN_IF_ERROR(
      ReadExactly(reader, offset, bytes, "held updates " + id));
  return bytes;
}

}  // namespace

uint64_t HeldBytesMax(const TaskDefinition& definition) {
  if (!plan::HoldsUpdates(definition.spec.strategy.name)) return 0;
  return definition.layout.update_count_max *
         SealedSize(ElementCount(definition), BlockSize(definition));
}

Status CheckHeldBytes(const TaskDefinition& definition, uint64_t limit) {
  const uint64_t bytes = HeldBytesMax(definition);
  if (bytes <= limit) return OkStatus();
  return InvalidArgument(
      "strategy.name: " +
      std::string(plan::StrategyNameText(definition.spec.strategy.name)) +
      " keeps every update until the round ends: up to " +
      std::to_string(definition.layout.update_count_max) + " of " +
      std::to_string(ElementCount(definition)) + " values, " +
      std::to_string(bytes) + " bytes; the limit is " + std::to_string(limit) +
      " (limits.held_bytes of the coordinator)");
}

size_t HeldBatchMax(const TaskDefinition& definition) {
  const uint64_t size = std::max<uint64_t>(
      1, SealedSize(ElementCount(definition), BlockSize(definition)));
  return static_cast<size_t>(std::max<uint64_t>(1, kBatchBytes / size));
}

Result<Bytes> SealUpdates(const TaskDefinition& definition,
                          const crypto::SecretBytes& round_key,
                          const RoundKey& round, const std::string& id,
                          std::span<const UpdateToHold> updates,
                          const aggregation::MetricSums& metrics,
                          RandomSource& random) {
  const size_t element_count = ElementCount(definition);
  const size_t block_size = BlockSize(definition);
  Bytes header;
  AppendLe(header, kMagic);
  AppendLe(header, kVersion);
  AppendLe(header, uint64_t{element_count});
  AppendLe(header, uint64_t{block_size});
  AppendLe(header, uint64_t{updates.size()});
  for (const UpdateToHold& update : updates) {
    AppendLe(header, static_cast<uint32_t>(update.id.size()));
    AppendBytes(header, AsBytes(update.id));
    AppendLe(header, update.weight);
  }
  AppendBytes(header, metrics.Serialize());
  SELVAGE_ASSIGN_OR_RETURN(
      const Bytes sealed_header,
      crypto::Seal(round_key, header, HeaderContext(round, id), random));

  Bytes out;
  out.reserve(sizeof(uint64_t) + sealed_header.size() +
              updates.size() * SealedSize(element_count, block_size));
  AppendLe(out, uint64_t{sealed_header.size()});
  AppendBytes(out, sealed_header);
  for (size_t place = 0; place < updates.size(); ++place) {
    SELVAGE_ASSIGN_OR_RETURN(
        const std::vector<float> values,
        aggregation::Decode(definition.spec.update, definition.update_counts,
                            updates[place].encoded));
    for (size_t at = 0, index = 0; at < values.size();
         at += block_size, ++index) {
      const size_t count = std::min(block_size, values.size() - at);
      SELVAGE_ASSIGN_OR_RETURN(
          const Bytes block,
          crypto::Seal(
              round_key,
              ByteSpan(reinterpret_cast<const uint8_t*>(values.data() + at),
                       count * sizeof(float)),
              BlockContext(round, id, place, index), random));
      AppendBytes(out, block);
    }
  }
  return out;
}

HeldUpdates::HeldUpdates(const TaskDefinition& definition,
                         const RoundKey& round, BlobStore& blobs,
                         const crypto::SecretBytes& round_key)
    : round_(round),
      element_count_(ElementCount(definition)),
      block_size_(BlockSize(definition)),
      store_(blobs),
      round_key_(round_key),
      metrics_(definition.program.metrics.size()) {}

Result<std::unique_ptr<HeldUpdates>> HeldUpdates::Open(
    const TaskDefinition& definition, const RoundKey& round,
    std::span<const PartialRow> partials, BlobStore& blobs,
    const crypto::SecretBytes& round_key) {
  std::unique_ptr<HeldUpdates> held(
      new HeldUpdates(definition, round, blobs, round_key));
  for (const PartialRow& partial : partials) {
    const Status opened = held->OpenBlob(partial);
    if (!opened.ok()) {
      return opened.WithContext("held updates " + partial.id);
    }
  }
  std::sort(held->updates_.begin(), held->updates_.end(),
            [](const Held& a, const Held& b) { return a.id < b.id; });
  return held;
}

Status HeldUpdates::OpenBlob(const PartialRow& partial) {
  SELVAGE_ASSIGN_OR_RETURN(const std::unique_ptr<ArtefactReader> reader,
                           store_.OpenSealed(partial.id));
  SELVAGE_ASSIGN_OR_RETURN(const Bytes prefix,
                           ReadPiece(*reader, 0, sizeof(uint64_t), partial.id));
  uint64_t sealed_size = 0;
  std::memcpy(&sealed_size, prefix.data(), sizeof sealed_size);
  if (sealed_size > kHeaderSizeMax) return DataLoss("the header is too long");
  SELVAGE_ASSIGN_OR_RETURN(
      const Bytes sealed,
      ReadPiece(*reader, sizeof sealed_size, sealed_size, partial.id));
  SELVAGE_ASSIGN_OR_RETURN(
      const Bytes header,
      crypto::Open(round_key_, sealed, HeaderContext(round_, partial.id)));
  ByteReader in(header);
  SELVAGE_ASSIGN_OR_RETURN(const auto magic, in.Read<uint32_t>("magic"));
  SELVAGE_ASSIGN_OR_RETURN(const auto version, in.Read<uint32_t>("version"));
  SELVAGE_ASSIGN_OR_RETURN(const auto elements, in.Read<uint64_t>("elements"));
  SELVAGE_ASSIGN_OR_RETURN(const auto block, in.Read<uint64_t>("block size"));
  SELVAGE_ASSIGN_OR_RETURN(const auto count, in.Read<uint64_t>("count"));
  if (magic != kMagic || version != kVersion || elements != element_count_ ||
      block != block_size_) {
    return DataLoss("they are of another version or another model");
  }
  if (count != partial.update_count) {
    return DataLoss("they are " + std::to_string(count) +
                    " updates, their row says " +
                    std::to_string(partial.update_count));
  }
  const uint64_t body = sizeof sealed_size + sealed_size;
  if (reader->size() !=
      body + count * SealedSize(element_count_, block_size_)) {
    return DataLoss("their blob has " + std::to_string(reader->size()) +
                    " bytes");
  }
  for (uint64_t place = 0; place < count; ++place) {
    SELVAGE_ASSIGN_OR_RETURN(const auto size, in.Read<uint32_t>("id size"));
    if (size > kIdSizeMax) return DataLoss("an id is too long");
    SELVAGE_ASSIGN_OR_RETURN(const ByteSpan id, in.ReadBytes(size, "id"));
    SELVAGE_ASSIGN_OR_RETURN(const auto weight, in.Read<uint32_t>("weight"));
    updates_.push_back({std::string(AsText(id)), weight, blobs_.size(),
                        static_cast<size_t>(place)});
  }
  SELVAGE_ASSIGN_OR_RETURN(const ByteSpan rest,
                           in.ReadBytes(in.remaining(), "metrics"));
  SELVAGE_ASSIGN_OR_RETURN(const aggregation::MetricSums metrics,
                           aggregation::MetricSums::Parse(rest));
  SELVAGE_RETURN_IF_ERROR(metrics_.MergeWith(metrics));
  blobs_.push_back({partial.id, body});
  return OkStatus();
}

Status HeldUpdates::Read(size_t update, size_t index,
                         std::span<float> out) const {
  const Held& held = updates_[update];
  const Blob& blob = blobs_[held.blob];
  const uint64_t offset =
      blob.body + held.place * SealedSize(element_count_, block_size_) +
      index * (block_size_ * sizeof(float) + crypto::kAeadOverhead);
  // Opened for each block: a round may have more partials than a process may
  // have files.
  SELVAGE_ASSIGN_OR_RETURN(const std::unique_ptr<ArtefactReader> reader,
                           store_.OpenSealed(blob.id));
  SELVAGE_ASSIGN_OR_RETURN(
      const Bytes sealed,
      ReadPiece(*reader, offset,
                out.size() * sizeof(float) + crypto::kAeadOverhead, blob.id));
  Result<Bytes> plain = crypto::Open(
      round_key_, sealed, BlockContext(round_, blob.id, held.place, index));
  if (!plain.ok()) {
    return plain.status().WithContext("held updates " + blob.id);
  }
  std::memcpy(out.data(), plain->data(), plain->size());
  return OkStatus();
}

}  // namespace selvage::coordinator

#include "coordinator/partial.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "base/check.h"
#include "crypto/aead.h"

namespace selvage::coordinator {
namespace {

Bytes KeyContext(const RoundKey& round) {
  return ToBytes("selvage/v1 round key\n" + std::to_string(round.task_id) +
                 "\n" + std::to_string(round.number));
}

// `place`: 0 the head, then the stretches.
Bytes PartContext(const PartialName& name, size_t place, size_t stretch_count) {
  return ToBytes("selvage/v2 partial\n" + std::to_string(name.round.task_id) +
                 "\n" + std::to_string(name.round.number) + "\n" + name.id +
                 "\n" + std::to_string(place) + "\n" +
                 std::to_string(stretch_count));
}

Bytes SerializeHead(const PartialHead& head) {
  Bytes out;
  AppendLe(out, head.update_count);
  AppendLe(out, uint64_t{head.scalars.size()});
  for (const int64_t scalar : head.scalars) AppendLe(out, scalar);
  AppendBytes(out, head.metrics.Serialize());
  return out;
}

Result<PartialHead> ParseHead(ByteSpan bytes) {
  ByteReader reader(bytes);
  SELVAGE_ASSIGN_OR_RETURN(const auto update_count,
                           reader.Read<uint64_t>("update count"));
  SELVAGE_ASSIGN_OR_RETURN(const auto scalar_count,
                           reader.Read<uint64_t>("scalar count"));
  if (scalar_count > reader.remaining() / sizeof(int64_t)) {
    return DataLoss("the head of a partial announces " +
                    std::to_string(scalar_count) + " scalars");
  }
  std::vector<int64_t> scalars;
  for (uint64_t i = 0; i < scalar_count; ++i) {
    SELVAGE_ASSIGN_OR_RETURN(const auto scalar, reader.Read<int64_t>("scalar"));
    scalars.push_back(scalar);
  }
  SELVAGE_ASSIGN_OR_RETURN(const ByteSpan rest,
                           reader.ReadBytes(reader.remaining(), "metrics"));
  SELVAGE_ASSIGN_OR_RETURN(aggregation::MetricSums metrics,
                           aggregation::MetricSums::Parse(rest));
  return PartialHead{update_count, std::move(metrics), std::move(scalars)};
}

}  // namespace

Result<Bytes> WrapRoundKey(const crypto::SecretBytes& wrapping_key,
                           const crypto::SecretBytes& round_key,
                           const RoundKey& round, RandomSource& random) {
  return crypto::Seal(wrapping_key, round_key.ExposeSecret(), KeyContext(round),
                      random);
}

Result<crypto::SecretBytes> UnwrapRoundKey(
    const crypto::SecretBytes& wrapping_key, const Bytes& wrapped,
    const RoundKey& round) {
  Result<Bytes> opened = crypto::Open(wrapping_key, wrapped, KeyContext(round));
  if (!opened.ok()) {
    return opened.status().WithContext("unwrapping the round key");
  }
  crypto::SecretBytes key(opened->size());
  std::copy(opened->begin(), opened->end(), key.writable().begin());
  std::fill(opened->begin(), opened->end(), uint8_t{0});
  return key;
}

Status WritePartial(
    const PartialName& name, const PartialHead& head, size_t stretch_count,
    const std::function<Result<aggregation::ExactSum>(size_t)>& sum_of,
    BlobStore& blobs, RandomSource& random,
    const std::function<void(size_t, aggregation::ExactSum)>& keep) {
  SELVAGE_ASSIGN_OR_RETURN(const std::unique_ptr<SealedWriter> file,
                           blobs.NewSealed(name.id));
  const auto append = [&](size_t place, Bytes plain) -> Status {
    SELVAGE_ASSIGN_OR_RETURN(
        const Bytes sealed,
        crypto::Seal(name.round_key, plain,
                     PartContext(name, place, stretch_count), random));
    Bytes().swap(plain);
    Bytes size;
    AppendLe(size, uint64_t{sealed.size()});
    SELVAGE_RETURN_IF_ERROR(file->Append(size));
    return file->Append(sealed);
  };
  SELVAGE_RETURN_IF_ERROR(append(0, SerializeHead(head)));
  for (size_t i = 0; i < stretch_count; ++i) {
    Bytes plain;
    {
      SELVAGE_ASSIGN_OR_RETURN(aggregation::ExactSum sum, sum_of(i));
      plain = sum.Serialize();
      if (keep) keep(i, std::move(sum));
    }
    SELVAGE_RETURN_IF_ERROR(append(i + 1, std::move(plain)));
  }
  return file->Commit();
}

PartialReader::PartialReader(const PartialName& name, size_t stretch_count,
                             BlobStore& blobs)
    : name_(name),
      stretch_count_(stretch_count),
      blobs_(blobs),
      head_{0, aggregation::MetricSums(0)} {}

Result<PartialReader> PartialReader::Open(const PartialName& name,
                                          size_t stretch_count,
                                          BlobStore& blobs) {
  PartialReader reader(name, stretch_count, blobs);
  SELVAGE_ASSIGN_OR_RETURN(const Bytes head, reader.ReadPart(0));
  SELVAGE_ASSIGN_OR_RETURN(reader.head_, ParseHead(head));
  return reader;
}

Result<Bytes> PartialReader::ReadPart(size_t place) {
  const std::string what = "partial " + name_.id;
  const Result<std::unique_ptr<ArtefactReader>> file =
      blobs_.OpenSealed(name_.id);
  if (!file.ok()) return file.status().WithContext(what);
  ArtefactReader& reader = **file;
  uint64_t size = 0;
  Bytes prefix(sizeof size);
  SELVAGE_RETURN_IF_ERROR(ReadExactly(reader, offset_, prefix, what));
  std::memcpy(&size, prefix.data(), sizeof size);
  const uint64_t begin = offset_ + sizeof size;
  if (size > reader.size() - begin) {
    return DataLoss(what + " ends before byte " + std::to_string(begin) +
                    " + " + std::to_string(size));
  }
  if (place == stretch_count_ && begin + size != reader.size()) {
    return DataLoss(what + " has " + std::to_string(reader.size()) +
                    " bytes, it ends after " + std::to_string(begin + size));
  }
  Bytes sealed(static_cast<size_t>(size));
  SELVAGE_RETURN_IF_ERROR(ReadExactly(reader, begin, sealed, what));
  Result<Bytes> plain = crypto::Open(name_.round_key, sealed,
                                     PartContext(name_, place, stretch_count_));
  if (!plain.ok()) return plain.status().WithContext(what);
  offset_ = begin + size;
  next_ = place + 1;
  return plain;
}

Status PartialReader::MergeNext(aggregation::ExactSum& into) {
  SELVAGE_CHECK(next_ <= stretch_count_);
  SELVAGE_ASSIGN_OR_RETURN(const Bytes plain, ReadPart(next_));
  const uint64_t before = into.update_count();
  SELVAGE_RETURN_IF_ERROR(into.MergeSerialized(plain));
  if (into.update_count() - before != head_.update_count) {
    return DataLoss("partial " + name_.id + " sums " +
                    std::to_string(into.update_count() - before) +
                    " updates, its head says " +
                    std::to_string(head_.update_count));
  }
  return OkStatus();
}

}  // namespace selvage::coordinator

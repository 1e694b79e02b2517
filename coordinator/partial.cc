#include "coordinator/partial.h"

#include <algorithm>
#include <utility>

#include "crypto/aead.h"

namespace selvage::coordinator {
namespace {

Bytes KeyContext(const RoundKey& round) {
  return ToBytes("selvage/v1 round key\n" + std::to_string(round.task_id) +
                 "\n" + std::to_string(round.number));
}

Bytes PartialContext(const RoundKey& round, const std::string& id) {
  return ToBytes("selvage/v1 partial\n" + std::to_string(round.task_id) + "\n" +
                 std::to_string(round.number) + "\n" + id);
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

Result<Bytes> SealPartial(const crypto::SecretBytes& round_key,
                          const RoundKey& round, const std::string& id,
                          const RoundSums& sums, RandomSource& random) {
  const uint64_t sum_size = sums.sum.serialized_size();
  const Bytes metrics = sums.metrics.Serialize();
  Bytes plain;
  plain.reserve(static_cast<size_t>(sum_size) + metrics.size() +
                sizeof(uint64_t) * (1 + sums.scalars.size()));
  AppendLe(plain, sum_size);
  SELVAGE_RETURN_IF_ERROR(sums.sum.SerializeTo([&](ByteSpan piece) {
    AppendBytes(plain, piece);
    return OkStatus();
  }));
  for (const int64_t scalar : sums.scalars) AppendLe(plain, scalar);
  AppendBytes(plain, metrics);
  return crypto::Seal(round_key, plain, PartialContext(round, id), random);
}

Status MergePartial(const crypto::SecretBytes& round_key, const RoundKey& round,
                    const std::string& id, Bytes sealed, RoundSums& into) {
  SELVAGE_ASSIGN_OR_RETURN(
      const Bytes plain,
      crypto::Open(round_key, sealed, PartialContext(round, id)));
  Bytes().swap(sealed);
  ByteReader reader(plain);
  SELVAGE_ASSIGN_OR_RETURN(const uint64_t sum_size,
                           reader.Read<uint64_t>("size of the sum"));
  if (sum_size > reader.remaining()) {
    return DataLoss("partial " + id + " is shorter than the sum it announces");
  }
  SELVAGE_ASSIGN_OR_RETURN(
      const ByteSpan sum,
      reader.ReadBytes(static_cast<size_t>(sum_size), "sum"));
  std::vector<int64_t> scalars = into.scalars;
  for (int64_t& scalar : scalars) {
    SELVAGE_ASSIGN_OR_RETURN(const auto other, reader.Read<int64_t>("scalar"));
    if (__builtin_add_overflow(scalar, other, &scalar)) {
      return DataLoss("partial " + id + " has an impossible scalar");
    }
  }
  SELVAGE_ASSIGN_OR_RETURN(const ByteSpan metrics,
                           reader.ReadBytes(reader.remaining(), "metrics"));
  SELVAGE_ASSIGN_OR_RETURN(const aggregation::MetricSums parsed,
                           aggregation::MetricSums::Parse(metrics));
  SELVAGE_RETURN_IF_ERROR(into.sum.MergeSerialized(sum));
  SELVAGE_RETURN_IF_ERROR(into.metrics.MergeWith(parsed));
  into.scalars = std::move(scalars);
  return OkStatus();
}

}  // namespace selvage::coordinator

#include "aggregation/metrics.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

namespace selvage::aggregation {
namespace {

constexpr double kUnit = 0x1p20;
constexpr uint32_t kMagic = 0x54454d53;  // "SMET"
constexpr uint32_t kVersion = 2;
constexpr uint32_t kVersionWithoutOutside = 1;
constexpr size_t kHeaderSize = 4 + 4 + 8;
constexpr size_t kSumSize = 3 * 8 + 64 * 4 + 8;
constexpr size_t kSumSizeWithoutOutside = kSumSize - 8;

Status CheckCount(int64_t count) {
  if (count >= 0 && count <= kMetricCountMax) return OkStatus();
  return InvalidArgument("metric counts " + std::to_string(count) +
                         " examples, not 0..2^31");
}

Status CheckValue(const MetricValue& value) {
  SELVAGE_RETURN_IF_ERROR(CheckCount(value.count));
  if (value.numerator > kMetricNumeratorMax ||
      value.numerator < -kMetricNumeratorMax) {
    return InvalidArgument("metric numerator " +
                           std::to_string(value.numerator) +
                           " is not within +-2^42");
  }
  if (value.count == 0 && value.numerator != 0) {
    return InvalidArgument("metric has numerator " +
                           std::to_string(value.numerator) +
                           " without an example");
  }
  return OkStatus();
}

Status CheckRoom(int64_t held, int64_t added) {
  if (added <= kMetricDevicesMax - held) return OkStatus();
  return ResourceExhausted("metric sums hold " + std::to_string(held) +
                           " devices; " + std::to_string(added) +
                           " more exceed 2^20");
}

size_t BucketOf(const MetricValue& value) {
  if (value.numerator <= 0) return 0;
  // mean * 64 = numerator * 2^-20 / count * 2^6
  return static_cast<size_t>(
      std::min<int64_t>(63, value.numerator / (value.count << 14)));
}

bool IsOutside(const MetricValue& value) {
  return value.numerator < 0 || value.numerator > value.count << 20;
}

// Devices of the first and the last bucket, which also hold what is outside.
int64_t AtTheEnds(const MetricSums::Sum& sum) {
  return int64_t{sum.histogram.front()} + int64_t{sum.histogram.back()};
}

bool IsPossible(const MetricSums::Sum& sum) {
  if (sum.device_count < 0 || sum.device_count > kMetricDevicesMax) {
    return false;
  }
  const int64_t numerator_max = sum.device_count * kMetricNumeratorMax;
  uint64_t devices = 0;
  for (const uint32_t bucket : sum.histogram) devices += bucket;
  return sum.numerator <= numerator_max && sum.numerator >= -numerator_max &&
         sum.count >= sum.device_count &&
         sum.count <= sum.device_count * kMetricCountMax &&
         devices == static_cast<uint64_t>(sum.device_count) &&
         sum.outside_count >= 0 && sum.outside_count <= AtTheEnds(sum);
}

}  // namespace

Result<MetricValue> MakeMetric(double score_sum, int64_t count) {
  SELVAGE_RETURN_IF_ERROR(CheckCount(count));
  if (std::isnan(score_sum)) {
    return InvalidArgument("metric's sum of scores is nan");
  }
  constexpr double kMax = static_cast<double>(kMetricNumeratorMax) / kUnit;
  const double clamped = std::clamp(score_sum, -kMax, kMax);
  const MetricValue value{
      .numerator = static_cast<int64_t>(std::nearbyint(clamped * kUnit)),
      .count = count};
  SELVAGE_RETURN_IF_ERROR(CheckValue(value));
  return value;
}

double MeanOf(const MetricValue& value) {
  if (value.count == 0) return 0;
  return static_cast<double>(value.numerator) / kUnit /
         static_cast<double>(value.count);
}

crypto::Digest DigestOf(std::span<const MetricValue> values) {
  Bytes text = ToBytes("selvage/v1 metrics\n");
  for (const MetricValue& value : values) {
    AppendLe(text, value.numerator);
    AppendLe(text, value.count);
  }
  return crypto::Sha256(text);
}

Status MetricSums::Add(std::span<const MetricValue> device) {
  if (device.size() != sums_.size()) {
    return InvalidArgument("device reports " + std::to_string(device.size()) +
                           " metrics, the task has " +
                           std::to_string(sums_.size()));
  }
  for (size_t m = 0; m < sums_.size(); ++m) {
    Status status = CheckValue(device[m]);
    if (status.ok()) status = CheckRoom(sums_[m].device_count, 1);
    if (!status.ok()) {
      return status.WithContext("metric " + std::to_string(m));
    }
  }
  for (size_t m = 0; m < sums_.size(); ++m) {
    if (device[m].count == 0) continue;
    sums_[m].numerator += device[m].numerator;
    sums_[m].count += device[m].count;
    ++sums_[m].device_count;
    ++sums_[m].histogram[BucketOf(device[m])];
    if (IsOutside(device[m])) ++sums_[m].outside_count;
  }
  return OkStatus();
}

Status MetricSums::MergeWith(const MetricSums& other) {
  if (other.sums_.size() != sums_.size()) {
    return InvalidArgument("one side sums " + std::to_string(sums_.size()) +
                           " metrics, the other " +
                           std::to_string(other.sums_.size()));
  }
  for (size_t m = 0; m < sums_.size(); ++m) {
    SELVAGE_RETURN_IF_ERROR(
        CheckRoom(sums_[m].device_count, other.sums_[m].device_count)
            .WithContext("metric " + std::to_string(m)));
  }
  for (size_t m = 0; m < sums_.size(); ++m) {
    const Sum& from = other.sums_[m];
    Sum& to = sums_[m];
    to.numerator += from.numerator;
    to.count += from.count;
    to.device_count += from.device_count;
    for (size_t b = 0; b < to.histogram.size(); ++b) {
      to.histogram[b] += from.histogram[b];
    }
    to.outside_count += from.outside_count;
  }
  return OkStatus();
}

Bytes MetricSums::Serialize() const {
  Bytes out(kHeaderSize + sums_.size() * kSumSize);
  uint8_t* next = out.data();
  const auto append = [&next](const auto& value) {
    std::memcpy(next, &value, sizeof value);
    next += sizeof value;
  };
  append(kMagic);
  append(kVersion);
  append(uint64_t{sums_.size()});
  for (const Sum& sum : sums_) {
    append(sum.numerator);
    append(sum.count);
    append(sum.device_count);
    append(sum.histogram);
    append(sum.outside_count);
  }
  return out;
}

Result<MetricSums> MetricSums::Parse(ByteSpan bytes) {
  ByteReader reader(bytes);
  const auto magic = reader.Read<uint32_t>("magic");
  const auto version = reader.Read<uint32_t>("version");
  const auto metric_count = reader.Read<uint64_t>("metric count");
  if (!metric_count.ok() || *magic != kMagic) {
    return DataLoss("these bytes are not serialized metric sums");
  }
  const bool has_outside = *version == kVersion;
  if (!has_outside && *version != kVersionWithoutOutside) {
    return DataLoss("metric sums have version " + std::to_string(*version) +
                    ", this program reads 1 and " + std::to_string(kVersion));
  }
  const size_t sum_size = has_outside ? kSumSize : kSumSizeWithoutOutside;
  if (reader.remaining() % sum_size != 0 ||
      *metric_count != reader.remaining() / sum_size) {
    return DataLoss("metric sums say " + std::to_string(*metric_count) +
                    " metrics and have " + std::to_string(reader.remaining()) +
                    " bytes");
  }
  MetricSums out(*metric_count);
  for (size_t m = 0; m < out.sums_.size(); ++m) {
    Sum& sum = out.sums_[m];
    SELVAGE_ASSIGN_OR_RETURN(sum.numerator, reader.Read<int64_t>("numerator"));
    SELVAGE_ASSIGN_OR_RETURN(sum.count, reader.Read<int64_t>("count"));
    SELVAGE_ASSIGN_OR_RETURN(sum.device_count,
                             reader.Read<int64_t>("device count"));
    for (uint32_t& bucket : sum.histogram) {
      SELVAGE_ASSIGN_OR_RETURN(bucket, reader.Read<uint32_t>("histogram"));
    }
    sum.outside_count = AtTheEnds(sum);
    if (has_outside) {
      SELVAGE_ASSIGN_OR_RETURN(sum.outside_count,
                               reader.Read<int64_t>("outside count"));
    }
    if (!IsPossible(sum)) {
      return DataLoss("metric " + std::to_string(m) +
                      " of the sums contradicts its own counts");
    }
  }
  return out;
}

}  // namespace selvage::aggregation

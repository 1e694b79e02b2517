#include "aggregation/evaluation_sums.h"

#include <algorithm>
#include <utility>

namespace selvage::aggregation {
namespace {

constexpr uint32_t kMagic = 0x4c565345;  // "ESVL"
constexpr uint32_t kVersion = 1;

constexpr auto kDevicesMax = static_cast<uint64_t>(kMetricDevicesMax);

Status CheckRoom(uint64_t held, uint64_t added) {
  if (held <= kDevicesMax && added <= kDevicesMax - held) return OkStatus();
  return ResourceExhausted("evaluation sums hold " + std::to_string(held) +
                           " devices; " + std::to_string(added) +
                           " more exceed 2^20");
}

// Devices behind the metric that fewest reported.
int64_t LeastDevices(const MetricSums& sums) {
  int64_t least = kMetricDevicesMax;
  for (const MetricSums::Sum& sum : sums.sums()) {
    least = std::min(least, sum.device_count);
  }
  return least;
}

// Whether `part` can be the sum of some of the devices of `whole`.
bool FitsInto(const MetricSums& part, const MetricSums& whole) {
  if (part.sums().size() != whole.sums().size()) return false;
  for (size_t m = 0; m < part.sums().size(); ++m) {
    if (part.sums()[m].device_count > whole.sums()[m].device_count ||
        part.sums()[m].count > whole.sums()[m].count ||
        part.sums()[m].outside_count > whole.sums()[m].outside_count) {
      return false;
    }
  }
  return true;
}

void Put(Bytes& out, ByteSpan bytes) {
  AppendLe(out, static_cast<uint32_t>(bytes.size()));
  AppendBytes(out, bytes);
}

Result<ByteSpan> Take(ByteReader& reader, std::string_view what) {
  SELVAGE_ASSIGN_OR_RETURN(const uint32_t size, reader.Read<uint32_t>(what));
  return reader.ReadBytes(size, what);
}

}  // namespace

Status EvaluationSums::Add(std::string_view device_class,
                           std::span<const MetricValue> device) {
  if (device_class.size() > kDeviceClassSizeMax) {
    return InvalidArgument(
        "device class has " + std::to_string(device_class.size()) +
        " bytes, allowed are at most " + std::to_string(kDeviceClassSizeMax));
  }
  SELVAGE_RETURN_IF_ERROR(CheckRoom(device_count_, 1));
  SELVAGE_RETURN_IF_ERROR(total_.Add(device));
  // A class has no more devices than the total, which had room.
  const auto [it, is_new] =
      classes_.try_emplace(std::string(device_class), total_.sums().size());
  SELVAGE_RETURN_IF_ERROR(it->second.Add(device));
  ++device_count_;
  return OkStatus();
}

Status EvaluationSums::MergeWith(const EvaluationSums& other) {
  SELVAGE_RETURN_IF_ERROR(CheckRoom(device_count_, other.device_count_));
  SELVAGE_RETURN_IF_ERROR(total_.MergeWith(other.total_));
  // No class has more devices than its total: there is room for all.
  for (const auto& [name, sums] : other.classes_) {
    const auto [it, is_new] = classes_.try_emplace(name, total_.sums().size());
    SELVAGE_RETURN_IF_ERROR(it->second.MergeWith(sums));
  }
  device_count_ += other.device_count_;
  return OkStatus();
}

void EvaluationSums::Suppress(uint64_t min_cohort) {
  const auto least =
      static_cast<int64_t>(std::min<uint64_t>(min_cohort, kMetricDevicesMax));
  std::erase_if(classes_, [&](const auto& entry) {
    return LeastDevices(entry.second) < least;
  });
  const auto drop_smallest = [&] {
    auto smallest = classes_.begin();
    for (auto it = classes_.begin(); it != classes_.end(); ++it) {
      if (LeastDevices(it->second) <= LeastDevices(smallest->second)) {
        smallest = it;
      }
    }
    classes_.erase(smallest);
  };
  while (classes_.size() > kReleasedClassesMax) drop_smallest();
  const auto rest_tells = [&] {
    for (size_t m = 0; m < total_.sums().size(); ++m) {
      int64_t rest = total_.sums()[m].device_count;
      for (const auto& [name, sums] : classes_) {
        rest -= sums.sums()[m].device_count;
      }
      if (rest > 0 && rest < least) return true;
    }
    return false;
  };
  while (!classes_.empty() && rest_tells()) drop_smallest();
}

Bytes EvaluationSums::Serialize() const {
  Bytes out;
  AppendLe(out, kMagic);
  AppendLe(out, kVersion);
  AppendLe(out, device_count_);
  Put(out, total_.Serialize());
  AppendLe(out, static_cast<uint32_t>(classes_.size()));
  for (const auto& [name, sums] : classes_) {
    Put(out, AsBytes(name));
    Put(out, sums.Serialize());
  }
  return out;
}

Result<EvaluationSums> EvaluationSums::Parse(ByteSpan bytes) {
  const auto damaged = [](const std::string& why) {
    return DataLoss("evaluation sums: " + why);
  };
  const auto parse = [&](ByteReader& reader) -> Result<EvaluationSums> {
    SELVAGE_ASSIGN_OR_RETURN(const auto magic, reader.Read<uint32_t>("magic"));
    SELVAGE_ASSIGN_OR_RETURN(const auto version,
                             reader.Read<uint32_t>("version"));
    if (magic != kMagic || version != kVersion) {
      return damaged("magic or version is another's");
    }
    EvaluationSums out(0);
    SELVAGE_ASSIGN_OR_RETURN(out.device_count_,
                             reader.Read<uint64_t>("device count"));
    if (out.device_count_ > kDevicesMax) {
      return damaged("more devices than the sums can hold");
    }
    SELVAGE_ASSIGN_OR_RETURN(const ByteSpan total, Take(reader, "total"));
    SELVAGE_ASSIGN_OR_RETURN(out.total_, MetricSums::Parse(total));
    SELVAGE_ASSIGN_OR_RETURN(const uint32_t count,
                             reader.Read<uint32_t>("class count"));
    for (uint32_t i = 0; i < count; ++i) {
      SELVAGE_ASSIGN_OR_RETURN(const ByteSpan name, Take(reader, "class"));
      SELVAGE_ASSIGN_OR_RETURN(const ByteSpan sums, Take(reader, "sums"));
      SELVAGE_ASSIGN_OR_RETURN(MetricSums parsed, MetricSums::Parse(sums));
      if (name.size() > kDeviceClassSizeMax || !FitsInto(parsed, out.total_)) {
        return damaged("a class does not fit the total");
      }
      std::string text = ToString(name);
      if (!out.classes_.empty() && text <= out.classes_.rbegin()->first) {
        return damaged("the classes are not in order");
      }
      out.classes_.emplace_hint(out.classes_.end(), std::move(text),
                                std::move(parsed));
    }
    if (reader.remaining() != 0) return damaged("bytes follow the end");
    for (const MetricSums::Sum& sum : out.total_.sums()) {
      if (static_cast<uint64_t>(sum.device_count) > out.device_count_) {
        return damaged("a metric is of more devices than took part");
      }
    }
    return out;
  };
  ByteReader reader(bytes);
  Result<EvaluationSums> parsed = parse(reader);
  if (parsed.ok() || parsed.status().code() == StatusCode::kDataLoss) {
    return parsed;
  }
  return damaged(std::string(parsed.status().message()));
}

}  // namespace selvage::aggregation

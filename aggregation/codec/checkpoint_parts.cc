#include "aggregation/codec/checkpoint_parts.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#include "base/check.h"

namespace selvage::aggregation {
namespace {

constexpr std::string_view kListMagic = "selvage/v1 checkpoint parts\n";
constexpr size_t kListHeaderSize = kListMagic.size() + sizeof(uint32_t);
constexpr size_t kPartNameSize =
    sizeof(crypto::Digest::bytes) + sizeof(uint64_t);
static_assert(kListHeaderSize + kPartCountMax * kPartNameSize <=
              kPartListSizeMax);
static_assert(kPartListSizeMax < kConstantBytesMin);

// Groups of at most this much would be at most 2 * 24 + 2 of two classes.
constexpr uint64_t kGroupsWanted = 24;

using Entry = plan::TensorTable::Entry;

uint64_t EncodedTensorSize(plan::CodecName codec, const Entry& entry) {
  if (entry.spec.dtype == plan::DType::kInt64) {
    return entry.count * sizeof(int64_t);
  }
  const size_t count = entry.count;
  return EncodedSize(codec, std::span(&count, 1));
}

struct PartCounts {
  std::vector<size_t> floats;  // of each f32 tensor
  size_t ints = 0;
};
PartCounts CountsOf(const plan::TensorTable& table, const PartLayout& part) {
  PartCounts counts;
  for (const size_t index : part.entries) {
    const Entry& entry = table.entries()[index];
    if (entry.spec.dtype == plan::DType::kFloat32) {
      counts.floats.push_back(entry.count);
    } else {
      counts.ints += entry.count;
    }
  }
  return counts;
}

void CheckSizes(const plan::TensorTable& table,
                const plan::Checkpoint& values) {
  SELVAGE_CHECK(values.floats.size() == table.float_count());
  SELVAGE_CHECK(values.ints.size() == table.int_count());
}

}  // namespace

std::vector<PartLayout> LayOutParts(plan::CodecName codec,
                                    const plan::TensorTable& table) {
  const std::vector<Entry>& entries = table.entries();
  uint64_t frozen_bytes = 0;
  uint64_t personal_bytes = 0;
  uint64_t all_bytes = 0;
  for (const Entry& entry : entries) {
    const uint64_t size = EncodedTensorSize(codec, entry);
    all_bytes += size;
    if (entry.spec.role == plan::Role::kFrozen) frozen_bytes += size;
    if (entry.spec.role == plan::Role::kPersonal) personal_bytes += size;
  }
  const bool cut_frozen = frozen_bytes >= kConstantBytesMin;
  const bool cut_personal = personal_bytes >= kConstantBytesMin;
  const uint64_t target =
      std::max(kPartBytesTarget, all_bytes / kGroupsWanted + 1);

  std::vector<PartLayout> parts;
  const auto group = [&](plan::Role role) {
    size_t begin = parts.size();
    for (size_t i = 0; i < entries.size(); ++i) {
      if (entries[i].spec.role != role) continue;
      const uint64_t size = EncodedTensorSize(codec, entries[i]);
      if (parts.size() == begin || parts.back().size + size > target) {
        parts.push_back({.entries = {}, .size = 0, .constant = true});
      }
      parts.back().entries.push_back(i);
      parts.back().size += size;
    }
  };
  if (cut_frozen) group(plan::Role::kFrozen);
  if (cut_personal) group(plan::Role::kPersonal);
  PartLayout rest;
  for (size_t i = 0; i < entries.size(); ++i) {
    const plan::Role role = entries[i].spec.role;
    if (cut_frozen && role == plan::Role::kFrozen) continue;
    if (cut_personal && role == plan::Role::kPersonal) continue;
    rest.entries.push_back(i);
    rest.size += EncodedTensorSize(codec, entries[i]);
  }
  if (!rest.entries.empty()) parts.push_back(std::move(rest));
  SELVAGE_CHECK(parts.size() <= kPartCountMax);
  return parts;
}

Result<Bytes> EncodePart(plan::CodecName codec, const plan::TensorTable& table,
                         const PartLayout& part,
                         const plan::Checkpoint& values) {
  CheckSizes(table, values);
  const PartCounts counts = CountsOf(table, part);
  if (part.entries.size() == table.entries().size()) {  // as it lies there
    SELVAGE_ASSIGN_OR_RETURN(Bytes bytes,
                             Encode(codec, counts.floats, values.floats));
    AppendBytes(bytes, AsBytes(std::span<const int64_t>(values.ints)));
    return bytes;
  }
  std::vector<float> floats;
  std::vector<int64_t> ints;
  for (const size_t index : part.entries) {
    const Entry& entry = table.entries()[index];
    const auto begin = static_cast<std::ptrdiff_t>(entry.offset);
    const auto end = static_cast<std::ptrdiff_t>(entry.offset + entry.count);
    if (entry.spec.dtype == plan::DType::kFloat32) {
      floats.insert(floats.end(), values.floats.begin() + begin,
                    values.floats.begin() + end);
    } else {
      ints.insert(ints.end(), values.ints.begin() + begin,
                  values.ints.begin() + end);
    }
  }
  SELVAGE_ASSIGN_OR_RETURN(Bytes bytes, Encode(codec, counts.floats, floats));
  AppendBytes(bytes, AsBytes(std::span<const int64_t>(ints)));
  return bytes;
}

Status DecodePart(plan::CodecName codec, const plan::TensorTable& table,
                  const PartLayout& part, ByteSpan bytes,
                  plan::Checkpoint& values) {
  CheckSizes(table, values);
  if (bytes.size() != part.size) {
    return InvalidArgument("the part has " + std::to_string(bytes.size()) +
                           " bytes, its tensor table implies " +
                           std::to_string(part.size));
  }
  const PartCounts counts = CountsOf(table, part);
  const size_t int_bytes = counts.ints * sizeof(int64_t);
  SELVAGE_ASSIGN_OR_RETURN(
      const std::vector<float> floats,
      Decode(codec, counts.floats, bytes.first(bytes.size() - int_bytes)));
  size_t float_at = 0;
  size_t int_at = bytes.size() - int_bytes;
  for (const size_t index : part.entries) {
    const Entry& entry = table.entries()[index];
    if (entry.spec.dtype == plan::DType::kFloat32) {
      std::copy_n(
          floats.begin() + static_cast<std::ptrdiff_t>(float_at), entry.count,
          values.floats.begin() + static_cast<std::ptrdiff_t>(entry.offset));
      float_at += entry.count;
    } else {
      std::memcpy(values.ints.data() + entry.offset, bytes.data() + int_at,
                  entry.count * sizeof(int64_t));
      int_at += entry.count * sizeof(int64_t);
    }
  }
  return OkStatus();
}

Bytes SerializePartList(std::span<const PartName> parts) {
  Bytes out = ToBytes(kListMagic);
  AppendLe(out, static_cast<uint32_t>(parts.size()));
  for (const PartName& part : parts) {
    AppendBytes(out, part.digest.span());
    AppendLe(out, part.size);
  }
  return out;
}

Result<std::vector<PartName>> ParsePartList(std::span<const PartLayout> layout,
                                            ByteSpan bytes) {
  const size_t wanted = kListHeaderSize + layout.size() * kPartNameSize;
  if (bytes.size() != wanted) {
    return InvalidArgument(
        "the list of parts has " + std::to_string(bytes.size()) +
        " bytes, its tensor table implies " + std::to_string(wanted));
  }
  if (AsText(bytes.first(kListMagic.size())) != kListMagic) {
    return InvalidArgument("the list of parts does not begin as one");
  }
  ByteReader reader(bytes.subspan(kListMagic.size()));
  SELVAGE_ASSIGN_OR_RETURN(const auto count, reader.Read<uint32_t>("count"));
  if (count != layout.size()) {
    return InvalidArgument("the list names " + std::to_string(count) +
                           " parts, its tensor table implies " +
                           std::to_string(layout.size()));
  }
  std::vector<PartName> parts;
  for (const PartLayout& part : layout) {
    PartName name;
    SELVAGE_ASSIGN_OR_RETURN(
        const ByteSpan digest,
        reader.ReadBytes(name.digest.bytes.size(), "digest"));
    SELVAGE_ASSIGN_OR_RETURN(name.digest, crypto::Digest::FromBytes(digest));
    SELVAGE_ASSIGN_OR_RETURN(name.size, reader.Read<uint64_t>("size"));
    if (name.size != part.size) {
      return InvalidArgument("part " + name.digest.ToHex() +
                             " is said to have " + std::to_string(name.size) +
                             " bytes, its tensor table implies " +
                             std::to_string(part.size));
    }
    parts.push_back(name);
  }
  return parts;
}

}  // namespace selvage::aggregation

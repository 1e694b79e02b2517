#include <algorithm>
#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "plan/checkpoint.h"
#include "plan/internal/document.h"
#include "plan/internal/text.h"

namespace selvage::plan {
namespace {

using internal::Node;
using internal::Quoted;

constexpr size_t kHeaderSizeMax = 16 << 20;
constexpr size_t kAlignment = 8;
constexpr std::string_view kMetadataKey = "__metadata__";

std::string_view SafetensorsDType(DType dtype) {
  return dtype == DType::kFloat32 ? "F32" : "I64";
}

Result<uint64_t> ReadUnsigned(const Node& node, const std::string& what) {
  uint64_t value = 0;
  const char* const end = node.text.data() + node.text.size();
  const auto result = std::from_chars(node.text.data(), end, value);
  if (node.kind != Node::Kind::kNumber || result.ec != std::errc() ||
      result.ptr != end) {
    return InvalidArgument(what + " is not a whole number");
  }
  return value;
}

Result<std::vector<uint64_t>> ReadUnsignedList(const Node& node,
                                               const std::string& what) {
  if (node.kind != Node::Kind::kList) {
    return InvalidArgument(what + " is not a list");
  }
  std::vector<uint64_t> values;
  for (const Node& child : node.children) {
    SELVAGE_ASSIGN_OR_RETURN(const uint64_t value, ReadUnsigned(child, what));
    values.push_back(value);
  }
  return values;
}

std::string ShapeText(const std::vector<uint64_t>& shape) {
  std::string out = "[";
  for (const uint64_t dimension : shape) {
    if (out.size() > 1) out += ", ";
    out += std::to_string(dimension);
  }
  return out + "]";
}

struct Extent {
  const TensorTable::Entry* entry = nullptr;
  uint64_t begin = 0;
  uint64_t end = 0;
};

Result<Extent> ReadEntry(const TensorTable& table, const Node& node) {
  const TensorTable::Entry* entry = table.Find(node.key);
  const std::string who = "tensor " + Quoted(node.key);
  if (entry == nullptr) {
    return InvalidArgument(who + " is not in the model's table");
  }
  if (node.kind != Node::Kind::kMap) {
    return InvalidArgument(who + " is not described by a mapping");
  }
  for (const Node& child : node.children) {
    if (child.key != "dtype" && child.key != "shape" &&
        child.key != "data_offsets") {
      return InvalidArgument(who + ": unknown key " + Quoted(child.key));
    }
  }
  const Node* dtype = node.Find("dtype");
  const Node* shape = node.Find("shape");
  const Node* offsets = node.Find("data_offsets");
  if (dtype == nullptr || shape == nullptr || offsets == nullptr) {
    return InvalidArgument(who + " lacks dtype, shape or data_offsets");
  }
  const std::string_view want = SafetensorsDType(entry->spec.dtype);
  if (dtype->kind != Node::Kind::kString || dtype->text != want) {
    return InvalidArgument(who + " has dtype " + Quoted(dtype->text) +
                           "; the table says " + std::string(want));
  }
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<uint64_t> dimensions,
                           ReadUnsignedList(*shape, who + ": shape"));
  const std::vector<uint64_t> want_dimensions(entry->spec.shape.begin(),
                                              entry->spec.shape.end());
  if (dimensions != want_dimensions) {
    return InvalidArgument(who + " has shape " + ShapeText(dimensions) +
                           "; the table says " + ShapeText(want_dimensions));
  }
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<uint64_t> range,
                           ReadUnsignedList(*offsets, who + ": data_offsets"));
  if (range.size() != 2 || range[0] > range[1] ||
      range[1] - range[0] != entry->count * SizeOf(entry->spec.dtype)) {
    return InvalidArgument(who + " has data_offsets " + ShapeText(range) +
                           ", which is not its size");
  }
  return Extent{entry, range[0], range[1]};
}

Status CheckMetadata(const Node& node) {
  if (node.kind != Node::Kind::kMap) {
    return InvalidArgument("__metadata__ is not a mapping");
  }
  for (const Node& child : node.children) {
    if (child.kind != Node::Kind::kString) {
      return InvalidArgument("__metadata__: " + Quoted(child.key) +
                             " is not text");
    }
  }
  return OkStatus();
}

// The tensors' extents must tile the data exactly.
Status CheckTiling(std::vector<Extent> extents, uint64_t data_size) {
  std::sort(extents.begin(), extents.end(),
            [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
  uint64_t at = 0;
  for (const Extent& extent : extents) {
    if (extent.begin != at) {
      return InvalidArgument(
          "tensor " + extent.entry->spec.name + " begins at byte " +
          std::to_string(extent.begin) + " of the data; " +
          (extent.begin < at ? "it overlaps another, which ends at "
                             : "there is a hole from ") +
          std::to_string(at));
    }
    at = extent.end;
  }
  if (at != data_size) {
    return InvalidArgument("the tensors take " + std::to_string(at) +
                           " bytes; the file has " + std::to_string(data_size) +
                           " bytes of data");
  }
  return OkStatus();
}

}  // namespace

Bytes SafetensorsHead(
    const TensorTable& table, std::span<const int64_t> ints,
    std::span<const size_t> order,
    const std::vector<std::pair<std::string, std::string>>& metadata) {
  SELVAGE_CHECK(ints.size() == table.int_count());
  using nlohmann::ordered_json;
  const std::vector<TensorTable::Entry>& entries = table.entries();
  std::vector<size_t> begins(entries.size());
  for (size_t i = 0; i < entries.size(); ++i) {
    begins[i] = entries[i].offset * sizeof(int64_t);  // of an integer tensor
  }
  size_t at = ints.size_bytes();
  for (const size_t index : order) {
    begins[index] = at;
    at += entries[index].count * sizeof(float);
  }
  SELVAGE_CHECK(at == ints.size_bytes() + table.float_count() * sizeof(float));

  ordered_json header = ordered_json::object();
  if (!metadata.empty()) {
    ordered_json& map = header[std::string(kMetadataKey)];
    map = ordered_json::object();
    for (const auto& pair : metadata) map[pair.first] = pair.second;
  }
  for (size_t i = 0; i < entries.size(); ++i) {
    const TensorTable::Entry& entry = entries[i];
    ordered_json& tensor = header[entry.spec.name];
    tensor["dtype"] = std::string(SafetensorsDType(entry.spec.dtype));
    tensor["shape"] = entry.spec.shape;
    tensor["data_offsets"] = {
        begins[i], begins[i] + entry.count * SizeOf(entry.spec.dtype)};
  }
  std::string text =
      header.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
  text.append((kAlignment - text.size() % kAlignment) % kAlignment, ' ');

  Bytes out;
  out.reserve(sizeof(uint64_t) + text.size() + ints.size_bytes());
  AppendLe(out, static_cast<uint64_t>(text.size()));
  AppendBytes(out, AsBytes(text));
  AppendBytes(out, AsBytes(ints));
  return out;
}

Bytes WriteSafetensors(
    const TensorTable& table, const Checkpoint& values,
    const std::vector<std::pair<std::string, std::string>>& metadata) {
  SELVAGE_CHECK(values.floats.size() == table.float_count());
  std::vector<size_t> order;
  for (size_t i = 0; i < table.entries().size(); ++i) {
    if (table.entries()[i].spec.dtype == DType::kFloat32) order.push_back(i);
  }
  Bytes out = SafetensorsHead(table, values.ints, order, metadata);
  AppendBytes(out, AsBytes(std::span<const float>(values.floats)));
  return out;
}

Result<size_t> SafetensorsHeadSize(ByteSpan prefix, uint64_t file_size) {
  ByteReader reader(prefix);
  const Result<uint64_t> header_size =
      reader.Read<uint64_t>("safetensors header size");
  if (!header_size.ok() || file_size < kSafetensorsPrefix ||
      *header_size > file_size - kSafetensorsPrefix) {
    return InvalidArgument("truncated: " + std::to_string(file_size) +
                           " bytes do not hold a safetensors header");
  }
  if (*header_size > kHeaderSizeMax) {
    return InvalidArgument("a header of " + std::to_string(*header_size) +
                           " bytes; at most " + std::to_string(kHeaderSizeMax) +
                           " are read");
  }
  return kSafetensorsPrefix + static_cast<size_t>(*header_size);
}

Result<std::vector<uint64_t>> FindSafetensors(const TensorTable& table,
                                              ByteSpan head,
                                              uint64_t file_size) {
  SELVAGE_ASSIGN_OR_RETURN(const size_t head_size,
                           SafetensorsHeadSize(head, file_size));
  if (head.size() < head_size) {
    return InvalidArgument("truncated: the header has " +
                           std::to_string(head_size) + " bytes");
  }
  const ByteSpan header_bytes =
      head.subspan(kSafetensorsPrefix, head_size - kSafetensorsPrefix);
  const Result<Node> header =
      internal::ParseJson(AsText(header_bytes), kHeaderSizeMax);
  if (!header.ok()) {
    return header.status().WithContext("safetensors header");
  }
  if (header->kind != Node::Kind::kMap || AsText(header_bytes)[0] != '{') {
    return InvalidArgument("safetensors header: must be a JSON object");
  }
  std::vector<Extent> extents;
  for (const Node& node : header->children) {
    if (node.key == kMetadataKey) {
      SELVAGE_RETURN_IF_ERROR(CheckMetadata(node));
      continue;
    }
    SELVAGE_ASSIGN_OR_RETURN(const Extent extent, ReadEntry(table, node));
    extents.push_back(extent);
  }
  if (extents.size() != table.entries().size()) {
    for (const TensorTable::Entry& entry : table.entries()) {
      if (header->Find(entry.spec.name) == nullptr) {
        return InvalidArgument("tensor " + entry.spec.name + " is missing");
      }
    }
  }
  SELVAGE_RETURN_IF_ERROR(CheckTiling(extents, file_size - head_size));
  std::vector<uint64_t> begins(table.entries().size());
  for (const Extent& extent : extents) {
    begins[static_cast<size_t>(extent.entry - table.entries().data())] =
        head_size + extent.begin;
  }
  return begins;
}

Result<Checkpoint> ReadSafetensors(const TensorTable& table, ByteSpan bytes) {
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<uint64_t> begins,
                           FindSafetensors(table, bytes, bytes.size()));
  Checkpoint values;
  values.floats.resize(table.float_count());
  values.ints.resize(table.int_count());
  for (size_t i = 0; i < begins.size(); ++i) {
    const TensorTable::Entry& entry = table.entries()[i];
    void* const to = entry.spec.dtype == DType::kFloat32
                         ? static_cast<void*>(&values.floats[entry.offset])
                         : static_cast<void*>(&values.ints[entry.offset]);
    std::memcpy(to, bytes.data() + begins[i],
                entry.count * SizeOf(entry.spec.dtype));
  }
  SELVAGE_RETURN_IF_ERROR(ValidateCheckpoint(table, values));
  return values;
}

}  // namespace selvage::plan

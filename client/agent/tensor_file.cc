#include "client/agent/tensor_file.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "client/agent/json.h"

namespace selvage::agent {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kHeaderSizeMax = 1 << 20;
constexpr size_t kTensorsMax = 64;
constexpr size_t kRankMax = 9;
constexpr int64_t kExamplesMax = 1'000'000;
constexpr const char* kMetadata = "__metadata__";
constexpr const char* kTimestamps = "timestamp_us";

std::optional<int32_t> DTypeOfName(const std::string& name) {
  if (name == "F32") return SELVAGE_F32;
  if (name == "I64") return SELVAGE_I64;
  if (name == "U8") return SELVAGE_U8;
  return std::nullopt;
}

Result<std::vector<uint64_t>> ReadList(const Json& json, const std::string& who,
                                       const char* key) {
  const auto it = json.find(key);
  const Status bad = InvalidArgument(who + " has no " + key +
                                     " of whole numbers of 0 or more");
  if (it == json.end() || !it->is_array() || it->size() > kRankMax) return bad;
  std::vector<uint64_t> out;
  for (const Json& item : *it) {
    if (!item.is_number_unsigned()) return bad;
    out.push_back(item.get<uint64_t>());
  }
  return out;
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string out = "[";
  for (const int64_t dimension : shape) {
    if (out.size() > 1) out += ", ";
    out += std::to_string(dimension);
  }
  return out + "]";
}

class TensorFileReader final : public ExampleReader {
 public:
  TensorFileReader(std::vector<ByteSpan> tensors, ByteSpan timestamps,
                   uint64_t count, bool local_only)
      : tensors_(std::move(tensors)),
        timestamps_(timestamps),
        count_(count),
        local_only_(local_only) {}

  Result<std::optional<SpooledExample>> Next() override {
    if (next_ == count_) return std::optional<SpooledExample>();
    SpooledExample example;
    for (const ByteSpan tensor : tensors_) {
      const size_t size = tensor.size() / static_cast<size_t>(count_);
      const ByteSpan row =
          tensor.subspan(static_cast<size_t>(next_) * size, size);
      example.tensors.emplace_back(row.begin(), row.end());
    }
    example.local_only = local_only_;
    if (!timestamps_.empty()) {
      int64_t when = 0;
      std::memcpy(&when, timestamps_.data() + next_ * sizeof when, sizeof when);
      if (when <= 0) {
        return InvalidArgument(
            std::string(kTimestamps) + "[" + std::to_string(next_) + "] (" +
            std::to_string(when) + ") is not a time since 1970");
      }
      example.timestamp_us = when;
    }
    ++next_;
    return std::optional<SpooledExample>(std::move(example));
  }

 private:
  const std::vector<ByteSpan> tensors_;
  const ByteSpan timestamps_;
  const uint64_t count_;
  const bool local_only_;
  uint64_t next_ = 0;
};

Status CheckFinite(const std::string& who, ByteSpan data) {
  for (size_t i = 0; i + sizeof(float) <= data.size(); i += sizeof(float)) {
    float value = 0;
    std::memcpy(&value, data.data() + i, sizeof value);
    if (!std::isfinite(value)) {
      return InvalidArgument(who + " holds a value that is not finite, at " +
                             std::to_string(i / sizeof value));
    }
  }
  return OkStatus();
}

}  // namespace

Result<TensorFile> TensorFile::Parse(ByteSpan bytes) {
  ByteReader reader(bytes);
  const Result<uint64_t> size = reader.Read<uint64_t>("header size");
  if (!size.ok() || *size > reader.remaining()) {
    return InvalidArgument(std::to_string(bytes.size()) +
                           " bytes do not hold a safetensors header");
  }
  if (*size > kHeaderSizeMax) {
    return InvalidArgument("the header has " + std::to_string(*size) +
                           " bytes, more than " +
                           std::to_string(kHeaderSizeMax));
  }
  const auto header_size = static_cast<size_t>(*size);
  SELVAGE_ASSIGN_OR_RETURN(const ByteSpan header,
                           reader.ReadBytes(header_size, "header"));
  const ByteSpan data = bytes.subspan(sizeof(uint64_t) + header_size);
  SELVAGE_ASSIGN_OR_RETURN(const Json json,
                           ParseJson(AsText(header), "the header"));
  if (!json.is_object() || json.size() > kTensorsMax + 1) {
    return InvalidArgument("the header is no object of at most " +
                           std::to_string(kTensorsMax) + " tensors");
  }
  TensorFile file;
  std::vector<std::pair<uint64_t, uint64_t>> extents;
  for (const auto& [name, value] : json.items()) {
    const std::string who = "tensor " + Quoted(name);
    if (!value.is_object()) return InvalidArgument(who + " is no object");
    if (name == kMetadata) {
      if (const auto it = value.find("collection");
          it != value.end() && it->is_string()) {
        file.collection_ = it->get<std::string>();
      }
      if (const auto it = value.find("local_only"); it != value.end()) {
        // Never taken for consent by a mistake of spelling.
        file.local_only_ = *it != "false";
      }
      continue;
    }
    Tensor tensor;
    tensor.name = name;
    const auto dtype = value.find("dtype");
    const std::optional<int32_t> known =
        dtype != value.end() && dtype->is_string()
            ? DTypeOfName(dtype->get<std::string>())
            : std::nullopt;
    if (!known.has_value()) {
      return InvalidArgument(
          who + " has dtype " +
          (dtype == value.end() ? "none" : Quoted(dtype->dump())) +
          ", not F32, I64 or U8");
    }
    tensor.dtype = *known;
    SELVAGE_ASSIGN_OR_RETURN(const std::vector<uint64_t> shape,
                             ReadList(value, who, "shape"));
    uint64_t bytes_wanted = SizeOfDType(*known);
    for (const uint64_t dimension : shape) {
      if (dimension == 0 || dimension > data.size() / bytes_wanted) {
        return InvalidArgument(who + " has the dimension " +
                               std::to_string(dimension) + " and the file " +
                               std::to_string(data.size()) +
                               " bytes of values");
      }
      bytes_wanted *= dimension;
      tensor.shape.push_back(static_cast<int64_t>(dimension));
    }
    SELVAGE_ASSIGN_OR_RETURN(const std::vector<uint64_t> range,
                             ReadList(value, who, "data_offsets"));
    if (range.size() != 2 || range[0] > range[1] || range[1] > data.size() ||
        range[1] - range[0] != bytes_wanted) {
      return InvalidArgument(who + " has data_offsets that are not its " +
                             std::to_string(bytes_wanted) + " bytes");
    }
    extents.emplace_back(range[0], range[1]);
    tensor.data = data.subspan(static_cast<size_t>(range[0]),
                               static_cast<size_t>(bytes_wanted));
    file.tensors_.push_back(std::move(tensor));
  }
  std::sort(extents.begin(), extents.end());
  uint64_t at = 0;
  for (const auto& [begin, end] : extents) {
    if (begin != at) {
      return InvalidArgument("the values of a tensor begin at byte " +
                             std::to_string(begin) + ", those before end at " +
                             std::to_string(at));
    }
    at = end;
  }
  if (at != data.size()) {
    return InvalidArgument("the tensors take " + std::to_string(at) +
                           " bytes of values, the file has " +
                           std::to_string(data.size()));
  }
  return file;
}

const TensorFile::Tensor* TensorFile::Find(const std::string& name) const {
  const auto it =
      std::find_if(tensors_.begin(), tensors_.end(),
                   [&](const Tensor& tensor) { return tensor.name == name; });
  return it == tensors_.end() ? nullptr : &*it;
}

Result<Manifest> TensorFile::ManifestFor(
    const std::string& collection,
    const std::vector<std::string>& inputs) const {
  Manifest manifest;
  manifest.collection = collection;
  for (const std::string& name : inputs) {
    const Tensor* tensor = Find(name);
    if (tensor == nullptr) {
      return InvalidArgument("tensor " + Quoted(name) + " is missing");
    }
    if (tensor->shape.empty()) {
      return InvalidArgument("tensor " + Quoted(name) +
                             " has no first dimension to count examples");
    }
    TensorSpec spec;
    spec.name = name;
    spec.dtype = tensor->dtype;
    spec.shape.assign(tensor->shape.begin() + 1, tensor->shape.end());
    manifest.tensors.push_back(std::move(spec));
  }
  return manifest;
}

Result<std::unique_ptr<ExampleReader>> TensorFile::Read(
    const Manifest& manifest) const {
  std::vector<ByteSpan> data;
  int64_t count = -1;
  const auto take = [&](const std::string& name, int32_t dtype,
                        const std::vector<int64_t>& shape,
                        ByteSpan& out) -> Status {
    const std::string who = "tensor " + Quoted(name);
    const Tensor* tensor = Find(name);
    if (tensor == nullptr) return InvalidArgument(who + " is missing");
    if (tensor->dtype != dtype) {
      return InvalidArgument(
          who + " is " + std::string(DTypeName(tensor->dtype)) +
          ", the collection has " + std::string(DTypeName(dtype)));
    }
    if (tensor->shape.size() != shape.size() + 1 ||
        !std::equal(shape.begin(), shape.end(), tensor->shape.begin() + 1)) {
      return InvalidArgument(who + " has shape " + ShapeText(tensor->shape) +
                             ", the collection " + ShapeText(shape) +
                             " for each example");
    }
    if (count < 0) count = tensor->shape[0];
    if (tensor->shape[0] != count || count > kExamplesMax) {
      return InvalidArgument(who + " has " + std::to_string(tensor->shape[0]) +
                             " examples, not " +
                             std::to_string(std::min(count, kExamplesMax)));
    }
    if (dtype == SELVAGE_F32) {
      SELVAGE_RETURN_IF_ERROR(CheckFinite(who, tensor->data));
    }
    out = tensor->data;
    return OkStatus();
  };
  for (const TensorSpec& spec : manifest.tensors) {
    SELVAGE_RETURN_IF_ERROR(
        take(spec.name, spec.dtype, spec.shape, data.emplace_back()));
  }
  ByteSpan timestamps;
  const bool timed = Find(kTimestamps) != nullptr;
  if (timed) {
    SELVAGE_RETURN_IF_ERROR(take(kTimestamps, SELVAGE_I64, {}, timestamps));
  }
  if (tensors_.size() != manifest.tensors.size() + (timed ? 1 : 0)) {
    for (const Tensor& tensor : tensors_) {
      const bool wanted =
          tensor.name == kTimestamps ||
          std::any_of(
              manifest.tensors.begin(), manifest.tensors.end(),
              [&](const TensorSpec& spec) { return spec.name == tensor.name; });
      if (!wanted) {
        return InvalidArgument("tensor " + Quoted(tensor.name) +
                               " is not in the collection");
      }
    }
  }
  return std::unique_ptr<ExampleReader>(std::make_unique<TensorFileReader>(
      std::move(data), timestamps, static_cast<uint64_t>(count),
      local_only_ || manifest.local_only));
}

}  // namespace selvage::agent

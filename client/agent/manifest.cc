#include "client/agent/manifest.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "client/agent/json.h"

namespace selvage::agent {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kTensorsMax = 16;
constexpr size_t kColumnsMax = 65'536;
constexpr size_t kClassesMax = 65'536;
constexpr size_t kRankMax = 8;
constexpr size_t kNameSizeMax = 256;
constexpr int64_t kImageSideMax = 8192;
constexpr int64_t kTtlHoursMax = 24 * 365 * 100;

// Reads the keys of one object; Done() refuses those that nobody asked for.
class Fields {
 public:
  Fields(const Json& json, std::string where)
      : json_(json), where_(std::move(where)) {}

  std::string Where(const std::string& key) const { return where_ + key; }

  const Json* Find(const std::string& key) {
    known_.insert(key);
    const auto it = json_.find(key);
    return it == json_.end() ? nullptr : &*it;
  }
  Status Text(const std::string& key, std::string& out, size_t min = 1) {
    const Json* found = Find(key);
    if (found == nullptr) return OkStatus();
    if (!found->is_string()) return Not(key, "text");
    out = found->get<std::string>();
    if (out.size() < min || out.size() > kNameSizeMax ||
        out.find('\0') != std::string::npos) {
      return Not(key, "text of 1.." + std::to_string(kNameSizeMax) + " bytes");
    }
    return OkStatus();
  }
  Status Texts(const std::string& key, std::vector<std::string>& out,
               size_t max) {
    const Json* found = Find(key);
    if (found == nullptr) return OkStatus();
    if (!found->is_array() || found->empty() || found->size() > max) {
      return Not(key, "a list of 1.." + std::to_string(max) + " texts");
    }
    for (const Json& item : *found) {
      if (!item.is_string() || item.get_ref<const std::string&>().empty() ||
          item.get_ref<const std::string&>().size() > kNameSizeMax) {
        return Not(key, "a list of texts of 1.." +
                            std::to_string(kNameSizeMax) + " bytes");
      }
      out.push_back(item.get<std::string>());
    }
    return OkStatus();
  }
  Status Whole(const std::string& key, int64_t& out, int64_t min, int64_t max) {
    const Json* found = Find(key);
    if (found == nullptr) return OkStatus();
    // An unsigned number over int64's range is one that no bound allows.
    const bool fits =
        found->is_number_integer() &&
        (!found->is_number_unsigned() ||
         found->get<uint64_t>() <=
             static_cast<uint64_t>(std::numeric_limits<int64_t>::max()));
    if (!fits || found->get<int64_t>() < min || found->get<int64_t>() > max) {
      return Not(key, "a whole number in " + std::to_string(min) + ".." +
                          std::to_string(max));
    }
    out = found->get<int64_t>();
    return OkStatus();
  }
  Status Flag(const std::string& key, bool& out) {
    const Json* found = Find(key);
    if (found == nullptr) return OkStatus();
    if (!found->is_boolean()) return Not(key, "true or false");
    out = found->get<bool>();
    return OkStatus();
  }
  // A number, or a list of them.
  Status Numbers(const std::string& key, std::vector<double>& out) {
    const Json* found = Find(key);
    if (found == nullptr) return OkStatus();
    out.clear();
    if (found->is_number()) {
      out.push_back(found->get<double>());
    } else if (found->is_array() && !found->empty() &&
               found->size() <= kColumnsMax) {
      for (const Json& item : *found) {
        if (!item.is_number()) return Not(key, "a list of numbers");
        out.push_back(item.get<double>());
      }
    } else {
      return Not(key, "a number or a list of numbers");
    }
    if (!std::all_of(out.begin(), out.end(),
                     [](double v) { return std::isfinite(v); })) {
      return Not(key, "finite");
    }
    return OkStatus();
  }
  Status Done() const {
    for (const auto& [key, unused] : json_.items()) {
      if (!known_.contains(key)) {
        return InvalidArgument(where_ + "unknown key " + Quoted(key));
      }
    }
    return OkStatus();
  }
  Status Not(const std::string& key, const std::string& what) const {
    return InvalidArgument(Where(key) + " (" +
                           Quoted(json_.at(key).dump(
                               -1, ' ', true, Json::error_handler_t::replace)) +
                           ") is not " + what);
  }

 private:
  const Json& json_;
  const std::string where_;
  std::set<std::string> known_;
};

Status ReadShape(Fields& fields, const Json& json, TensorSpec& tensor) {
  if (!json.is_array() || json.size() > kRankMax) {
    return fields.Not("shape", "a list of at most " + std::to_string(kRankMax) +
                                   " dimensions");
  }
  uint64_t size = SizeOfDType(tensor.dtype);
  for (const Json& item : json) {
    const bool fits = item.is_number_unsigned() && item.get<uint64_t>() >= 1 &&
                      item.get<uint64_t>() <= kExampleSizeMax / size;
    if (!fits) {
      return fields.Not("shape", "of dimensions of 1 or more and at most " +
                                     std::to_string(kExampleSizeMax) +
                                     " bytes");
    }
    size *= item.get<uint64_t>();
    tensor.shape.push_back(item.get<int64_t>());
  }
  return OkStatus();
}

Status ReadImage(Fields& fields, TensorSpec& tensor) {
  std::string column;
  SELVAGE_RETURN_IF_ERROR(fields.Text("image", column));
  tensor.columns = {column};
  ImageSpec image;
  SELVAGE_RETURN_IF_ERROR(fields.Whole("width", image.width, 1, kImageSideMax));
  SELVAGE_RETURN_IF_ERROR(
      fields.Whole("height", image.height, 1, kImageSideMax));
  SELVAGE_RETURN_IF_ERROR(fields.Whole("channels", image.channels, 1, 3));
  std::string layout = "chw";
  SELVAGE_RETURN_IF_ERROR(fields.Text("layout", layout));
  if (layout != "chw" && layout != "hwc") {
    return fields.Not("layout", "chw or hwc");
  }
  image.channels_first = layout == "chw";
  if (image.width == 0 || image.height == 0 || image.channels == 2) {
    return InvalidArgument(fields.Where("image") +
                           " needs width and height, and 1 or 3 channels");
  }
  if (tensor.dtype == SELVAGE_I64) {
    return fields.Not("dtype", "float32 or uint8, which an image is");
  }
  tensor.image = image;
  return OkStatus();
}

Status CheckCount(const std::string& where, const std::string& key,
                  const std::vector<double>& values, uint64_t count) {
  if (values.size() == 1 || values.size() == count) return OkStatus();
  return InvalidArgument(where + key + " has " + std::to_string(values.size()) +
                         " numbers, not 1 or " + std::to_string(count));
}

Result<TensorSpec> ReadTensor(const Json& json, const std::string& where) {
  if (!json.is_object()) return InvalidArgument(where + "is no object");
  Fields fields(json, where);
  TensorSpec tensor;
  SELVAGE_RETURN_IF_ERROR(fields.Text("name", tensor.name));
  if (tensor.name.empty()) return InvalidArgument(where + "name is missing");
  std::string dtype = "float32";
  SELVAGE_RETURN_IF_ERROR(fields.Text("dtype", dtype));
  const std::optional<int32_t> known = DTypeOf(dtype);
  if (!known.has_value()) {
    return fields.Not("dtype", "float32, int64 or uint8");
  }
  tensor.dtype = *known;
  const bool image = fields.Find("image") != nullptr;
  const bool columns = fields.Find("columns") != nullptr;
  if (image && columns) {
    return InvalidArgument(where + "columns and image exclude each other");
  }
  if (image) {
    SELVAGE_RETURN_IF_ERROR(ReadImage(fields, tensor));
  } else if (columns) {
    SELVAGE_RETURN_IF_ERROR(
        fields.Texts("columns", tensor.columns, kColumnsMax));
  }
  const Json* shape = fields.Find("shape");
  if (shape != nullptr) {
    SELVAGE_RETURN_IF_ERROR(ReadShape(fields, *shape, tensor));
  } else if (image) {
    const ImageSpec& is = *tensor.image;
    tensor.shape = is.channels_first
                       ? std::vector<int64_t>{is.channels, is.height, is.width}
                       : std::vector<int64_t>{is.height, is.width, is.channels};
  } else if (tensor.columns.size() > 1) {
    tensor.shape = {static_cast<int64_t>(tensor.columns.size())};
  }
  const bool has_range =
      std::any_of(tensor.columns.begin(), tensor.columns.end(),
                  [](const std::string& name) {
                    return name.find("..") != std::string::npos;
                  });
  if (has_range && shape == nullptr && !image) {
    return InvalidArgument(where +
                           "shape is missing, which columns from .. to "
                           "need");
  }
  const uint64_t count = tensor.Count();
  const uint64_t elements =
      image ? static_cast<uint64_t>(tensor.image->width * tensor.image->height *
                                    tensor.image->channels)
            : tensor.columns.size();
  if (!tensor.columns.empty() && !has_range && elements != count) {
    return InvalidArgument(where + "shape has " + std::to_string(count) +
                           " elements, its " + (image ? "image " : "columns ") +
                           std::to_string(elements));
  }
  if (count * SizeOfDType(tensor.dtype) > kExampleSizeMax) {
    return InvalidArgument(
        where + "has " + std::to_string(count * SizeOfDType(tensor.dtype)) +
        " bytes, more than " + std::to_string(kExampleSizeMax));
  }
  const bool scaled = fields.Find("scale") != nullptr ||
                      fields.Find("mean") != nullptr ||
                      fields.Find("std") != nullptr;
  if (scaled && tensor.dtype != SELVAGE_F32) {
    return InvalidArgument(where + "scale, mean and std are for float32");
  }
  std::vector<double> scale = {1};
  SELVAGE_RETURN_IF_ERROR(fields.Numbers("scale", scale));
  if (scale.size() != 1) return fields.Not("scale", "one number");
  tensor.scale = scale.front();
  SELVAGE_RETURN_IF_ERROR(fields.Numbers("mean", tensor.mean));
  SELVAGE_RETURN_IF_ERROR(fields.Numbers("std", tensor.std));
  const uint64_t each =
      image ? static_cast<uint64_t>(tensor.image->channels) : count;
  SELVAGE_RETURN_IF_ERROR(CheckCount(where, "mean", tensor.mean, each));
  SELVAGE_RETURN_IF_ERROR(CheckCount(where, "std", tensor.std, each));
  for (const double value : tensor.std) {
    if (value == 0) return InvalidArgument(where + "std is 0");
  }
  SELVAGE_RETURN_IF_ERROR(fields.Texts("classes", tensor.classes, kClassesMax));
  if (!tensor.classes.empty() &&
      (image || tensor.columns.size() != 1 || tensor.dtype != SELVAGE_I64)) {
    return InvalidArgument(where + "classes are for one column of int64");
  }
  SELVAGE_RETURN_IF_ERROR(fields.Done());
  return tensor;
}

Status ReadTimestamp(const Json& json, Manifest& manifest) {
  if (!json.is_object()) {
    return InvalidArgument("timestamp is no object with column and unit");
  }
  Fields fields(json, "timestamp.");
  SELVAGE_RETURN_IF_ERROR(fields.Text("column", manifest.timestamp_column));
  std::string unit = "s";
  SELVAGE_RETURN_IF_ERROR(fields.Text("unit", unit));
  if (unit == "s") {
    manifest.timestamp_unit_us = 1'000'000;
  } else if (unit == "ms") {
    manifest.timestamp_unit_us = 1000;
  } else if (unit == "us") {
    manifest.timestamp_unit_us = 1;
  } else {
    return fields.Not("unit", "s, ms or us");
  }
  if (manifest.timestamp_column.empty()) {
    return InvalidArgument("timestamp.column is missing");
  }
  return fields.Done();
}

}  // namespace

size_t SizeOfDType(int32_t dtype) {
  return dtype == SELVAGE_I64 ? 8 : dtype == SELVAGE_F32 ? 4 : 1;
}

std::string_view DTypeName(int32_t dtype) {
  return dtype == SELVAGE_I64   ? "int64"
         : dtype == SELVAGE_F32 ? "float32"
                                : "uint8";
}

std::optional<int32_t> DTypeOf(std::string_view name) {
  for (const int32_t dtype : {SELVAGE_F32, SELVAGE_I64, SELVAGE_U8}) {
    if (DTypeName(dtype) == name) return dtype;
  }
  return std::nullopt;
}

uint64_t TensorSpec::Count() const {
  uint64_t count = 1;
  for (const int64_t dimension : shape) {
    count *= static_cast<uint64_t>(dimension);
  }
  return count;
}

uint64_t TensorSpec::Size() const { return Count() * SizeOfDType(dtype); }

host::Collection Manifest::Declaration() const {
  host::Collection out;
  for (const TensorSpec& tensor : tensors) {
    out.tensors.push_back({tensor.name, tensor.dtype, tensor.shape});
  }
  out.ttl = std::chrono::milliseconds(ttl_ms);
  out.count_max = count_max;
  out.bytes_max = bytes_max;
  return out;
}

Result<Manifest> ParseManifest(std::string_view text) {
  SELVAGE_ASSIGN_OR_RETURN(const Json json, ParseJson(text, "the manifest"));
  if (!json.is_object()) return InvalidArgument("the manifest is no object");
  Fields fields(json, "");
  Manifest manifest;
  SELVAGE_RETURN_IF_ERROR(fields.Text("collection", manifest.collection));
  if (manifest.collection.empty()) {
    return InvalidArgument("collection is missing");
  }
  const Json* tensors = fields.Find("tensors");
  if (tensors == nullptr || !tensors->is_array() || tensors->empty() ||
      tensors->size() > kTensorsMax) {
    return InvalidArgument("tensors is not a list of 1.." +
                           std::to_string(kTensorsMax) + " objects");
  }
  uint64_t size = 0;
  std::set<std::string> names;
  for (size_t i = 0; i < tensors->size(); ++i) {
    SELVAGE_ASSIGN_OR_RETURN(
        TensorSpec tensor,
        ReadTensor((*tensors)[i], "tensors[" + std::to_string(i) + "]."));
    size += tensor.Size();
    if (!names.insert(tensor.name).second) {
      return InvalidArgument("two tensors are named " + Quoted(tensor.name));
    }
    manifest.tensors.push_back(std::move(tensor));
  }
  if (size > kExampleSizeMax) {
    return InvalidArgument("an example has " + std::to_string(size) +
                           " bytes, more than " +
                           std::to_string(kExampleSizeMax));
  }
  SELVAGE_RETURN_IF_ERROR(fields.Text("table", manifest.table));
  std::string delimiter = ",";
  SELVAGE_RETURN_IF_ERROR(fields.Text("delimiter", delimiter));
  if (delimiter != "," && delimiter != ";" && delimiter != "\t" &&
      delimiter != " ") {
    return fields.Not("delimiter", "a comma, semicolon, tab or space");
  }
  manifest.delimiter = delimiter[0];
  if (const Json* timestamp = fields.Find("timestamp"); timestamp != nullptr) {
    SELVAGE_RETURN_IF_ERROR(ReadTimestamp(*timestamp, manifest));
  }
  SELVAGE_RETURN_IF_ERROR(fields.Flag("local_only", manifest.local_only));
  int64_t hours = 0;
  SELVAGE_RETURN_IF_ERROR(fields.Whole("ttl_hours", hours, 0, kTtlHoursMax));
  manifest.ttl_ms = hours * 3'600'000;
  int64_t count_max = 0;
  int64_t bytes_max = 0;
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  SELVAGE_RETURN_IF_ERROR(fields.Whole("count_max", count_max, 0, kMost));
  SELVAGE_RETURN_IF_ERROR(fields.Whole("bytes_max", bytes_max, 0, kMost));
  manifest.count_max = static_cast<uint64_t>(count_max);
  manifest.bytes_max = static_cast<uint64_t>(bytes_max);
  SELVAGE_RETURN_IF_ERROR(fields.Done());
  return manifest;
}

}  // namespace selvage::agent

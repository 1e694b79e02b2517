#include "cli/torch/data_set.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "client/agent/idx.h"

namespace selvage::cli {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kHeaderSizeMax = 1 << 20;

std::string_view TypeName(plan::DType dtype) {
  switch (dtype) {
    case plan::DType::kFloat32:
      return "F32";
    case plan::DType::kInt64:
      return "I64";
    case plan::DType::kUint8:
      return "U8";
  }
  return "";
}

// Counts, which nothing else may be converted to.
Result<std::vector<uint64_t>> CountsOf(const Json& list) {
  std::vector<uint64_t> out;
  for (const Json& count : list) {
    if (!count.is_number_unsigned()) {
      return InvalidArgument("a shape or an offset is not a count");
    }
    out.push_back(count.get<uint64_t>());
  }
  return out;
}

// One input of the header; `data` is what follows it.
Result<client::ExampleSet> ReadTensors(const Json& header, ByteSpan data,
                                       const plan::Program& program) {
  client::ExampleSet out;
  for (size_t i = 0; i < program.inputs.size(); ++i) {
    const plan::InputSpec& input = program.inputs[i];
    const auto refused = [&](const std::string& why) {
      return InvalidArgument("input " + input.name + ": " + why);
    };
    if (!header.contains(input.name)) {
      return refused("there is no tensor of that name");
    }
    const Json& tensor = header.at(input.name);
    SELVAGE_ASSIGN_OR_RETURN(const std::vector<uint64_t> shape,
                             CountsOf(tensor.at("shape")));
    SELVAGE_ASSIGN_OR_RETURN(const std::vector<uint64_t> range,
                             CountsOf(tensor.at("data_offsets")));
    const std::string dtype = tensor.at("dtype").get<std::string>();
    if (dtype != TypeName(input.dtype)) {
      return refused("its dtype is " + dtype + ", the program says " +
                     std::string(TypeName(input.dtype)));
    }
    const bool fits =
        shape.size() == input.shape.size() + 1 &&
        std::equal(input.shape.begin(), input.shape.end(), shape.begin() + 1,
                   [](int64_t ours, uint64_t theirs) {
                     return static_cast<uint64_t>(ours) == theirs;
                   });
    if (!fits) return refused("its shape is not [examples] and the program's");
    const uint64_t each = input.SizeBytes();
    const uint64_t count = shape[0];
    if (range.size() != 2 || range[0] > range[1] || range[1] > data.size() ||
        count > kDataFileSizeMax || count * each != range[1] - range[0]) {
      return refused("its data_offsets do not fit its shape and the file");
    }
    if (i > 0 && count != out.count) {
      return refused("it has " + std::to_string(count) +
                     " examples, the input before it " +
                     std::to_string(out.count));
    }
    out.count = static_cast<size_t>(count);
    const ByteSpan bytes =
        data.subspan(static_cast<size_t>(range[0]),
                     static_cast<size_t>(range[1] - range[0]));
    out.inputs.emplace_back(bytes.begin(), bytes.end());
  }
  if (out.count == 0) return InvalidArgument("there is no example in it");
  return out;
}

Result<client::ExampleSet> ReadIdx(const std::vector<Bytes>& files,
                                   const std::vector<Path>& paths,
                                   const plan::Program& program) {
  if (files.size() != program.inputs.size()) {
    return InvalidArgument("there are " + std::to_string(files.size()) +
                           " data files, the program has " +
                           std::to_string(program.inputs.size()) + " inputs");
  }
  client::ExampleSet out;
  for (size_t i = 0; i < files.size(); ++i) {
    const auto refused = [&](const std::string& why) {
      return InvalidArgument(paths[i].string() + ": " + why);
    };
    Result<agent::IdxRows> rows = agent::ParseIdx(files[i]);
    if (!rows.ok()) return rows.status().WithContext(paths[i].string());
    const plan::InputSpec& input = program.inputs[i];
    if (rows->row_bytes != input.SizeBytes()) {
      return refused("an example has " + std::to_string(rows->row_bytes) +
                     " bytes, input " + input.name + " has " +
                     std::to_string(input.SizeBytes()));
    }
    if (i > 0 && rows->count != out.count) {
      return refused("it has " + std::to_string(rows->count) +
                     " examples, the file before it " +
                     std::to_string(out.count));
    }
    out.count = rows->count;
    out.inputs.push_back(std::move(rows->rows));
  }
  if (out.count == 0) return InvalidArgument("there is no example in the data");
  return out;
}

}  // namespace

Result<client::ExampleSet> ParseSafetensorsData(ByteSpan bytes,
                                                const plan::Program& program) {
  ByteReader reader(bytes);
  const Result<uint64_t> size = reader.Read<uint64_t>("header size");
  if (!size.ok() || *size > kHeaderSizeMax || *size > reader.remaining()) {
    return InvalidArgument("it is no safetensors file");
  }
  SELVAGE_ASSIGN_OR_RETURN(
      const ByteSpan text,
      reader.ReadBytes(static_cast<size_t>(*size), "header"));
  SELVAGE_ASSIGN_OR_RETURN(const ByteSpan data,
                           reader.ReadBytes(reader.remaining(), "data"));
  try {
    const Json header = Json::parse(AsText(text));
    if (!header.is_object()) return InvalidArgument("its header is no object");
    return ReadTensors(header, data, program);
  } catch (const Json::exception& e) {
    return InvalidArgument("its header is not understood: " +
                           std::string(e.what()));
  }
}

Result<DataSet> ReadDataSet(FileSystem& files, const std::vector<Path>& paths,
                            const plan::Program& program) {
  DataSet out;
  std::vector<Bytes> contents;
  Bytes digests;
  for (const Path& path : paths) {
    auto bytes = ReadFile(files, path, kDataFileSizeMax);
    if (!bytes.ok()) {
      return InvalidArgument(std::string(bytes.status().message()));
    }
    AppendBytes(digests, crypto::Sha256(*bytes).span());
    contents.push_back(*std::move(bytes));
  }
  out.digest = crypto::Sha256(digests);
  if (paths.size() == 1 && paths[0].extension() == ".safetensors") {
    auto parsed = ParseSafetensorsData(contents[0], program);
    if (!parsed.ok()) return parsed.status().WithContext(paths[0].string());
    out.examples = *std::move(parsed);
  } else {
    SELVAGE_ASSIGN_OR_RETURN(out.examples, ReadIdx(contents, paths, program));
  }
  SELVAGE_RETURN_IF_ERROR(client::ValidateExamples(program, out.examples));
  return out;
}

}  // namespace selvage::cli

#include "client/agent/device.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "client/agent/idx.h"

namespace selvage::agent {
namespace {

constexpr uint64_t kFileSizeMax = (uint64_t{1} << 30) + 4096;

// The files PREFIX-NAME.idx of every input; all with the same count.
Result<std::vector<IdxRows>> ReadInputs(FileSystem& files,
                                        const DeviceData& data,
                                        const std::string& prefix) {
  std::vector<IdxRows> inputs;
  for (const std::string& input : data.inputs) {
    const Path path = data.folder / (prefix + "-" + input + ".idx");
    SELVAGE_ASSIGN_OR_RETURN(const Bytes bytes,
                             ReadFile(files, path, kFileSizeMax));
    Result<IdxRows> rows = ParseIdx(bytes);
    if (!rows.ok()) return rows.status().WithContext(path.string());
    if (!inputs.empty() && rows->count != inputs.front().count) {
      return InvalidArgument(path.string() + " has " +
                             std::to_string(rows->count) + " examples, " +
                             data.inputs.front() + " has " +
                             std::to_string(inputs.front().count));
    }
    inputs.push_back(*std::move(rows));
  }
  if (inputs.empty()) return InvalidArgument("no inputs are named");
  return inputs;
}

}  // namespace

Status StatusOf(const host::Error& error) {
  return {static_cast<StatusCode>(error.code()), error.message()};
}

Status ImportExamples(FileSystem& files, const DeviceData& data,
                      host::Client& client) try {
  if (data.folder.empty()) return OkStatus();
  const uint64_t present = client.CountExamples(data.collection);
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<IdxRows> inputs,
                           ReadInputs(files, data, "train"));
  // In batches: a sync of the disk each, and little memory.
  constexpr size_t kBatch = 256;
  const size_t count = inputs.front().count;
  for (auto i = static_cast<size_t>(present); i < count;) {
    std::vector<host::Example> batch;
    for (; i < count && batch.size() < kBatch; ++i) {
      std::vector<host::Tensor> tensors;
      for (const IdxRows& input : inputs) {
        const ByteSpan row = input.Row(i);
        tensors.push_back(host::Tensor::Raw(row.data(), row.size()));
      }
      batch.emplace_back(std::move(tensors));
    }
    client.AddExamples(data.collection, batch);
  }
  return OkStatus();
} catch (const host::Error& error) {
  return StatusOf(error);
}

Result<ExampleSet> ReadTestExamples(FileSystem& files, const DeviceData& data) {
  SELVAGE_ASSIGN_OR_RETURN(std::vector<IdxRows> inputs,
                           ReadInputs(files, data, "test"));
  ExampleSet examples;
  examples.count = inputs.front().count;
  for (IdxRows& input : inputs) {
    examples.inputs.push_back(std::move(input.rows));
  }
  return examples;
}

Result<std::string> EvaluateDevice(FileSystem& files, const DeviceData& data,
                                   const std::string& name,
                                   const std::string& task,
                                   host::Client& client) try {
  constexpr std::pair<const char*, int32_t> kSlots[] = {
      {"alone", SELVAGE_SLOT_ALONE},
      {"global", SELVAGE_SLOT_GLOBAL},
      {"personal", SELVAGE_SLOT_PERSONAL},
      {"serving", SELVAGE_SLOT_SERVING},
  };
  const host::Model model = client.GetModel(task);
  SELVAGE_ASSIGN_OR_RETURN(const ExampleSet test,
                           ReadTestExamples(files, data));
  std::vector<host::Tensor> inputs;
  for (const Bytes& input : test.inputs) {
    inputs.push_back(host::Tensor::Raw(input.data(), input.size()));
  }
  nlohmann::json out = {{"device", name},
                        {"task", task},
                        {"version", model.version},
                        {"examples", test.count},
                        {"holdout", model.holdout_count},
                        {"personal_serving", model.personal_serving}};
  for (const auto& [label, slot] : kSlots) {
    const std::optional<std::vector<double>> scores =
        client.Evaluate(task, slot, inputs, test.count);
    if (!scores.has_value()) continue;
    nlohmann::json& entry = out[label];
    for (size_t i = 0; i < scores->size() && i < model.metrics.size(); ++i) {
      entry[model.metrics[i]] = (*scores)[i];
    }
  }
  // What the gate saw.
  const std::pair<const char*, const std::vector<double>*> holdouts[] = {
      {"holdout_global", &model.global_scores},
      {"holdout_personal", &model.personal_scores},
  };
  for (const auto& [label, scores] : holdouts) {
    for (size_t i = 0; i < scores->size() && i < model.metrics.size(); ++i) {
      out[label][model.metrics[i]] = (*scores)[i];
    }
  }
  return out.dump();
} catch (const host::Error& error) {
  return StatusOf(error);
}

}  // namespace selvage::agent

#include "client/agent/device.h"

#include <nlohmann/json.hpp>

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

Status ImportExamples(FileSystem& files, const DeviceData& data,
                      client::Client& client) {
  if (data.folder.empty()) return OkStatus();
  SELVAGE_ASSIGN_OR_RETURN(const uint64_t present,
                           client.CountExamples(data.collection));
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<IdxRows> inputs,
                           ReadInputs(files, data, "train"));
  // In batches: a sync of the disk each, and little memory.
  constexpr size_t kBatch = 256;
  const size_t count = inputs.front().count;
  for (auto i = static_cast<size_t>(present); i < count;) {
    std::vector<client::Example> batch;
    for (; i < count && batch.size() < kBatch; ++i) {
      client::Example& example = batch.emplace_back();
      for (const IdxRows& input : inputs) {
        const ByteSpan row = input.Row(i);
        example.inputs.emplace_back(row.begin(), row.end());
      }
    }
    SELVAGE_RETURN_IF_ERROR(
        client.AddExamples(data.collection, batch).status());
  }
  return OkStatus();
}

Result<client::ExampleSet> ReadTestExamples(FileSystem& files,
                                            const DeviceData& data) {
  SELVAGE_ASSIGN_OR_RETURN(std::vector<IdxRows> inputs,
                           ReadInputs(files, data, "test"));
  client::ExampleSet examples;
  examples.count = inputs.front().count;
  for (IdxRows& input : inputs) {
    examples.inputs.push_back(std::move(input.rows));
  }
  return examples;
}

Result<std::string> EvaluateDevice(FileSystem& files, const DeviceData& data,
                                   const std::string& name,
                                   const std::string& task,
                                   client::Client& client) {
  SELVAGE_ASSIGN_OR_RETURN(const client::ModelInfo info, client.Info(task));
  SELVAGE_ASSIGN_OR_RETURN(const client::ExampleSet test,
                           ReadTestExamples(files, data));
  nlohmann::json out = {{"device", name},
                        {"task", task},
                        {"version", info.version},
                        {"examples", test.count},
                        {"holdout", info.holdout_count},
                        {"personal_serving", info.personal_serving}};
  for (const client::Slot slot :
       {client::Slot::kAlone, client::Slot::kGlobal, client::Slot::kPersonal,
        client::Slot::kServing}) {
    const Result<std::vector<double>> scores =
        client.Evaluate(task, slot, test);
    if (scores.status().code() == StatusCode::kNotFound) continue;
    if (!scores.ok()) return scores.status();
    nlohmann::json& entry = out[std::string(client::SlotName(slot))];
    for (size_t i = 0; i < scores->size() && i < info.metrics.size(); ++i) {
      entry[info.metrics[i]] = (*scores)[i];
    }
  }
  return out.dump();
}

}  // namespace selvage::agent

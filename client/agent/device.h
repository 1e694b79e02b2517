// One device hosted by this process: its own client (identity, certificate,
// store, connection) and the folder its examples come from.
#pragma once

#include <string>
#include <vector>

#include "base/file_system.h"
#include "base/status.h"
#include "client/capi/selvage.hpp"

namespace selvage::agent {

struct DeviceData {
  Path folder;             // train-NAME.idx, test-NAME.idx; empty: no import
  std::string collection;  // where train-* goes
  std::vector<std::string> inputs;  // the program's inputs, in order
};

// The failure of a call on a client.
Status StatusOf(const host::Error& error);

// Adds the examples of FOLDER/train-*.idx to the client's store, unless its
// collection already has some: an import that was interrupted is completed.
// INVALID_ARGUMENT names the file.
Status ImportExamples(FileSystem& files, const DeviceData& data,
                      host::Client& client);

// Examples as the program's inputs: inputs[i] holds `count` examples of one
// input, one after another.
struct ExampleSet {
  size_t count = 0;
  std::vector<Bytes> inputs;
};

// FOLDER/test-*.idx as a set. Only for the table at the very end: nothing that
// trains or chooses calls this.
Result<ExampleSet> ReadTestExamples(FileSystem& files, const DeviceData& data);

// Scores of the slots of `task` that exist on the test examples, as JSON:
// {"device", "task", "version", "examples", "holdout", "personal_serving",
//  "alone" | "global" | "personal" | "serving": {METRIC: mean}}.
Result<std::string> EvaluateDevice(FileSystem& files, const DeviceData& data,
                                   const std::string& name,
                                   const std::string& task,
                                   host::Client& client);

}  // namespace selvage::agent

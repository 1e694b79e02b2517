// The owner's examples as a program wants them, split into what is trained on
// and what is held out.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "client/core/trainer.h"
#include "client/store/client_store.h"
#include "plan/plan.h"
#include "plan/program.h"

namespace selvage::client {

struct LocalData {
  size_t count = 0;  // both together
  ExampleSet train;  // in the order of ids
  ExampleSet holdout;
};

enum class DataUse {
  kUpload,  // something computed from them leaves: only those with consent
  kLocal,   // nothing leaves
};

// The examples of plan.data.collection that fit the program's inputs; others
// are passed over. From the host's source if the store has one, bounded by the
// store's options, in the order of ids whatever order they came in; otherwise
// those that are stored. CANCELLED if the source says so.
Result<LocalData> LoadLocalData(ClientStore& store, uint64_t holdout_salt,
                                const plan::Plan& plan,
                                const plan::Program& program, DataUse use);

// All of them, hold-out included, in the order of ids: for the local-only
// baseline, which is judged on other data. Nothing of it leaves the device.
Result<ExampleSet> LoadAllExamples(ClientStore& store, const plan::Plan& plan,
                                   const plan::Program& program);

// `scores` as [count, metrics]: one column.
std::vector<float> ScoreColumn(const std::vector<float>& scores, size_t metrics,
                               size_t column);
// Mean of every column; empty if there are no rows.
std::vector<double> ScoreMeans(const std::vector<float>& scores,
                               size_t metrics);

}  // namespace selvage::client

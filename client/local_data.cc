#include "client/local_data.h"

#include "client/core/holdout.h"

namespace selvage::client {
namespace {

std::vector<size_t> InputSizes(const plan::Program& program) {
  std::vector<size_t> sizes;
  for (const plan::InputSpec& input : program.inputs) {
    sizes.push_back(input.SizeBytes());
  }
  return sizes;
}

}  // namespace

Result<LocalData> LoadLocalData(ClientStore& store, uint64_t holdout_salt,
                                const plan::Plan& plan,
                                const plan::Program& program) {
  const std::vector<size_t> sizes = InputSizes(program);
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<int64_t> ids,
                           store.ExampleIds(plan.data.collection, sizes));
  const HoldoutSplit split = SplitHoldout(holdout_salt, ids, plan.data.holdout);
  LocalData data;
  data.count = ids.size();
  SELVAGE_ASSIGN_OR_RETURN(data.train, store.LoadExamples(split.train, sizes));
  SELVAGE_ASSIGN_OR_RETURN(data.holdout,
                           store.LoadExamples(split.holdout, sizes));
  return data;
}

Result<ExampleSet> LoadAllExamples(ClientStore& store, const plan::Plan& plan,
                                   const plan::Program& program) {
  const std::vector<size_t> sizes = InputSizes(program);
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<int64_t> ids,
                           store.ExampleIds(plan.data.collection, sizes));
  return store.LoadExamples(ids, sizes);
}

std::vector<float> ScoreColumn(const std::vector<float>& scores, size_t metrics,
                               size_t column) {
  std::vector<float> out;
  for (size_t i = column; i < scores.size(); i += metrics) {
    out.push_back(scores[i]);
  }
  return out;
}

std::vector<double> ScoreMeans(const std::vector<float>& scores,
                               size_t metrics) {
  if (scores.empty()) return {};
  std::vector<double> means(metrics, 0.0);
  for (size_t i = 0; i < scores.size(); ++i) {
    means[i % metrics] += static_cast<double>(scores[i]);
  }
  for (double& mean : means) {
    mean /= static_cast<double>(scores.size() / metrics);
  }
  return means;
}

}  // namespace selvage::client

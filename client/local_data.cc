#include "client/local_data.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>

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

// By id: what fits of the host's source.
Result<std::vector<SourcedExample>> ReadSource(const ExampleSource& source,
                                               const std::string& collection,
                                               const std::vector<size_t>& sizes,
                                               DataUse use) {
  const std::string what = "the host's examples of " + collection;
  Result<std::unique_ptr<ExampleIterator>> iterator =
      source.host->Open(collection);
  if (!iterator.ok()) return iterator.status().WithContext(what);
  if (*iterator == nullptr) return InvalidArgument(what + ": no iterator");
  std::vector<SourcedExample> out;
  uint64_t bytes = 0;
  // Every example counts, also one that is passed over: a source may be
  // endless.
  for (uint64_t read = 0; read < source.count_max; ++read) {
    Result<std::optional<SourcedExample>> next = (*iterator)->Next();
    if (!next.ok()) {
      if (next.status().code() == StatusCode::kOutOfRange) break;
      return next.status().WithContext(what);
    }
    if (!next->has_value()) break;
    const Example& example = (*next)->example;
    if (use == DataUse::kUpload && !example.consent) continue;
    bool fits = example.inputs.size() == sizes.size();
    for (size_t i = 0; fits && i < sizes.size(); ++i) {
      fits = example.inputs[i].size() == sizes[i];
      bytes += sizes[i];
    }
    if (bytes > source.bytes_max) break;
    if (fits) out.push_back(**std::move(next));
  }
  std::stable_sort(out.begin(), out.end(),
                   [](const SourcedExample& a, const SourcedExample& b) {
                     return a.id < b.id;
                   });
  for (size_t i = 1; i < out.size(); ++i) {
    if (out[i - 1].id != out[i].id) continue;
    return InvalidArgument(what + ": two have the id " +
                           std::to_string(out[i].id));
  }
  return out;
}

void Append(ExampleSet& set, const Example& example) {
  set.inputs.resize(example.inputs.size());
  for (size_t i = 0; i < example.inputs.size(); ++i) {
    AppendBytes(set.inputs[i], example.inputs[i]);
  }
  ++set.count;
}

}  // namespace

Result<LocalData> LoadLocalData(ClientStore& store, uint64_t holdout_salt,
                                const plan::Plan& plan,
                                const plan::Program& program, DataUse use) {
  const std::vector<size_t> sizes = InputSizes(program);
  LocalData data;
  if (store.source().host != nullptr) {
    SELVAGE_ASSIGN_OR_RETURN(
        const std::vector<SourcedExample> sourced,
        ReadSource(store.source(), plan.data.collection, sizes, use));
    data.train.inputs.resize(sizes.size());
    data.holdout.inputs.resize(sizes.size());
    for (const SourcedExample& item : sourced) {
      const bool held_out = IsHeldOut(
          holdout_salt, static_cast<int64_t>(item.id), plan.data.holdout);
      Append(held_out ? data.holdout : data.train, item.example);
    }
  } else {
    SELVAGE_ASSIGN_OR_RETURN(
        const std::vector<int64_t> ids,
        store.ExampleIds(plan.data.collection, sizes, use == DataUse::kUpload));
    const HoldoutSplit split =
        SplitHoldout(holdout_salt, ids, plan.data.holdout);
    SELVAGE_ASSIGN_OR_RETURN(data.train,
                             store.LoadExamples(split.train, sizes));
    SELVAGE_ASSIGN_OR_RETURN(data.holdout,
                             store.LoadExamples(split.holdout, sizes));
  }
  data.count = data.train.count + data.holdout.count;
  return data;
}

Result<ExampleSet> LoadAllExamples(ClientStore& store, const plan::Plan& plan,
                                   const plan::Program& program) {
  const std::vector<size_t> sizes = InputSizes(program);
  if (store.source().host != nullptr) {
    SELVAGE_ASSIGN_OR_RETURN(const std::vector<SourcedExample> sourced,
                             ReadSource(store.source(), plan.data.collection,
                                        sizes, DataUse::kLocal));
    ExampleSet set;
    set.inputs.resize(sizes.size());
    for (const SourcedExample& item : sourced) {
      Append(set, item.example);
    }
    return set;
  }
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

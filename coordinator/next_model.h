// The model after a round: its base, moved by the mean of the round's updates
// as the strategy says. Values are made when they are asked for, and only once.
#pragma once

#include <cmath>
#include <functional>
#include <future>
#include <memory>
#include <span>
#include <vector>

#include "aggregation/server_optimizer.h"
#include "coordinator/model_store.h"

namespace selvage::coordinator {

// Shared tensors are stepped by the task's strategy, buffer_float tensors moved
// by the means they are; the others stay. Thread-compatible.
class NextModel final : public ModelSource {
 public:
  // The next values of the mean, at least one, in the order of an update's
  // elements.
  using Mean = std::function<Result<std::vector<double>>()>;

  // `base` says what the strategy remembers. NOT_FOUND, DATA_LOSS if that
  // cannot be read or is another strategy's or model's. Everything must outlive
  // the model. With `threads` > 1 the values of the mean that come next are
  // made by another thread, one call at a time, while the last ones are used.
  static Result<std::unique_ptr<NextModel>> Create(
      const TaskDefinition& definition, const VersionRow& base, Mean mean,
      BlobStore& blobs, size_t threads = 1);
  ~NextModel() override;

  // OUT_OF_RANGE names the tensor if a value would not be finite.
  Status Read(size_t entry, size_t begin, std::span<float> out) override;
  Result<std::vector<int64_t>> Ints() override { return base_->Ints(); }

  // After the last value was read: stores what the strategy remembers now and
  // adds it to the version. Of scaffold that is the control variate, moved by
  // what is left of the mean; devices may fetch it.
  Status StoreState(VersionArtefacts& artefacts);
  // After that: the L2 norm of the mean of the `shared` parameters' updates, as
  // it came, before the server's step.
  double update_norm() const { return std::sqrt(squares_); }

 private:
  class State;
  Status MoveControl();
  Status TakeMean();  // if none is left
  NextModel(const TaskDefinition& definition,
            std::unique_ptr<MasterReader> base, Mean mean,
            std::unique_ptr<State> state, bool ahead);
  Status Step(const plan::TensorTable::AggregatedSlice& slice,
              std::span<const double> delta, std::span<float> values);

  const TaskDefinition& definition_;
  const std::unique_ptr<MasterReader> base_;
  const Mean mean_;
  const std::unique_ptr<State> state_;  // nullptr: the strategy has none
  const bool ahead_;
  // By entry: its slice, nullptr if no round changes it.
  std::vector<const plan::TensorTable::AggregatedSlice*> slices_;
  std::vector<double> deltas_;  // of the mean, taken and not used yet
  size_t used_ = 0;             // of them
  size_t taken_ = 0;            // in all
  double squares_ = 0;          // of shared parameters' deltas that were used
  // Those after them; waits when it goes away.
  std::future<Result<std::vector<double>>> next_;
};

}  // namespace selvage::coordinator

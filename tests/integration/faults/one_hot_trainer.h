// An engine of the client library that "learns" its own basis vector
// (one_hot.h).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "client/core/trainer.h"
#include "tests/integration/faults/one_hot.h"

namespace selvage::test {

class OneHotModel final : public client::TrainableModel {
 public:
  OneHotModel(size_t elements, size_t index) : index_(index) {
    values_.floats.resize(elements);
  }

  Status SetValues(const plan::Checkpoint& values) override {
    values_ = values;
    return OkStatus();
  }
  Result<plan::Checkpoint> Values() override { return values_; }
  Result<client::TrainingReport> Train(
      const client::ExampleSet&,
      const client::LocalTraining& options) override {
    if (options.keep_going && !options.keep_going()) return Cancelled("");
    values_.floats[index_] += kOneHotValue;
    return client::TrainingReport{.steps = 1};
  }
  Result<std::vector<float>> Score(
      const client::ExampleSet& examples) override {
    return std::vector<float>(examples.count, 0.0F);
  }
  Result<Prediction> Predict(size_t count, ByteSpan) override {
    return Prediction{.shape = {static_cast<int64_t>(count)},
                      .values = std::vector<float>(count, 0.0F)};
  }

 private:
  const size_t index_;
  plan::Checkpoint values_;
};

class OneHotTrainer final : public client::Trainer {
 public:
  explicit OneHotTrainer(size_t index) : index_(index) {}
  std::vector<std::string> engines() const override {
    return {"native:one_hot"};
  }
  Result<std::unique_ptr<client::TrainableModel>> Load(
      const plan::Program& program, ByteSpan) override {
    return std::unique_ptr<client::TrainableModel>(
        new OneHotModel(program.table.float_count(), index_));
  }

 private:
  const size_t index_;
};

}  // namespace selvage::test

// A Trainer without an engine: a model that predicts one number, learns it by
// gradient steps, and marks its personal tensors with a value that must never
// be seen on a wire.
#pragma once

#include <atomic>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/random.h"
#include "client/core/trainer.h"

namespace selvage::test {

// Four bytes that no honest float of these tests has.
inline constexpr float kPersonalCanary = 12345.678F;

struct FakeTrainerState {
  // Called before every load, training, step, scoring and prediction; an error
  // ends it.
  std::function<Status(const std::string& call)> before = [](const auto&) {
    return OkStatus();
  };
  std::atomic<int> loads{0};
  std::atomic<int> trainings{0};
  // Added to every trained value, to leave the plan's bounds or the finite.
  float blow_up = 0;
  // Fine-tuning (not federated training) goes the wrong way.
  bool personal_harms = false;
  // What a model of this first float predicts; and its scores, [count, 2].
  std::function<float(float value)> output = [](float value) { return value; };
  std::function<std::vector<float>(float value, size_t count)> scores;
  // Steps that were really taken; whether the engine makes checkpoints.
  int steps = 0;
  bool can_checkpoint = false;
  int checkpoints = 0;
  int threads = 0;        // of the last training
  uint64_t features = 0;  // of the engine; it heeds none of them
  std::vector<client::LocalTraining> asked;  // what each training was
  // What each training's optimizer began with. The fake's state is how many
  // steps it took in all, and this much more.
  std::vector<std::optional<Bytes>> optimizers;
  size_t optimizer_padding = 0;
  bool refuses_optimizer = false;
  // How many examples each training had.
  std::vector<size_t> trained_on;
};

// Inputs: anything, then an i64 label. The first float of the table predicts
// the label of every example: metrics are accuracy (within 0.5) and squared
// error.
class FakeModel final : public client::TrainableModel {
 public:
  FakeModel(FakeTrainerState& state, plan::Program program)
      : state_(state), program_(std::move(program)) {
    values_.floats.resize(program_.table.float_count());
    values_.ints.resize(program_.table.int_count());
  }

  Status SetValues(const plan::Checkpoint& values) override {
    SELVAGE_RETURN_IF_ERROR(plan::ValidateCheckpoint(program_.table, values));
    values_ = values;
    return OkStatus();
  }
  Result<plan::Checkpoint> Values() override { return values_; }

  uint64_t features() const override { return state_.features; }

  Result<client::TrainingReport> Train(
      const client::ExampleSet& examples,
      const client::LocalTraining& options) override {
    SELVAGE_RETURN_IF_ERROR(client::ValidateExamples(program_, examples));
    SELVAGE_RETURN_IF_ERROR(state_.before("train"));
    ++state_.trainings;
    state_.trained_on.push_back(examples.count);
    const float start = values_.floats[0];
    SeededRandom random(options.seed);
    client::TrainingReport report;
    state_.threads = options.threads;
    state_.asked.push_back(options);
    std::optional<Bytes> optimizer;
    if (options.optimizer_state != nullptr) {
      optimizer = *options.optimizer_state;
    }
    state_.optimizers.push_back(optimizer);
    int first = 0;
    if (options.resume == nullptr && optimizer.has_value() &&
        state_.refuses_optimizer) {
      return FailedPrecondition("no state of this optimizer");
    }
    if (options.resume != nullptr) {
      SELVAGE_RETURN_IF_ERROR(Resume(*options.resume));
      first = static_cast<int>(options.resume->steps);
      report.steps = options.resume->steps;
      for (int epoch = 0; epoch < first; ++epoch) Skip(options, random);
    }
    for (int epoch = first; epoch < options.epochs; ++epoch) {
      SELVAGE_RETURN_IF_ERROR(state_.before("step"));
      const bool can_save =
          state_.can_checkpoint && options.save_checkpoint && epoch > 0;
      if (can_save && options.checkpoint_due && options.checkpoint_due()) {
        Save(epoch, options);
      }
      if (options.keep_going && !options.keep_going()) {
        if (can_save) Save(epoch, options);
        return Cancelled("stopped");
      }
      ++report.steps;
      ++state_.steps;
      for (const size_t i : options.trainable) {
        TrainEntry(program_.table.entries()[i], examples, options, random);
        if (program_.table.entries()[i].offset == 0) {
          values_.floats[0] -=
              static_cast<float>(options.optimizer.lr * options.proximal_mu) *
              (values_.floats[0] - start);
        }
      }
    }
    if (options.save_optimizer) {
      uint64_t steps = report.steps;
      if (optimizer.has_value()) {
        uint64_t before = 0;
        std::memcpy(&before, optimizer->data(), sizeof before);
        steps += before;
      }
      Bytes state;
      AppendLe(state, steps);
      state.resize(state.size() + state_.optimizer_padding);
      options.save_optimizer(std::move(state));
    }
    return report;
  }

  Result<std::vector<float>> Score(
      const client::ExampleSet& examples) override {
    SELVAGE_RETURN_IF_ERROR(state_.before("score"));
    SELVAGE_RETURN_IF_ERROR(client::ValidateExamples(program_, examples));
    if (state_.scores) return state_.scores(values_.floats[0], examples.count);
    std::vector<float> scores;
    for (size_t i = 0; i < examples.count; ++i) {
      const float error = values_.floats[0] - Label(examples, i);
      scores.push_back(std::fabs(error) < 0.5F ? 1.0F : 0.0F);
      scores.push_back(error * error);
    }
    return scores;
  }

  Result<Prediction> Predict(size_t count, ByteSpan) override {
    SELVAGE_RETURN_IF_ERROR(state_.before("predict"));
    return Prediction{
        .shape = {static_cast<int64_t>(count)},
        .values = std::vector<float>(count, state_.output(values_.floats[0]))};
  }

 private:
  static float Label(const client::ExampleSet& examples, size_t i) {
    int64_t label = 0;
    std::memcpy(&label, examples.inputs.back().data() + i * sizeof label,
                sizeof label);
    return static_cast<float>(label);
  }

  void Save(int epoch, const client::LocalTraining& options) {
    ++state_.checkpoints;
    options.save_checkpoint({.steps = static_cast<uint64_t>(epoch),
                             .state = plan::SerializeMaster(values_)});
  }
  Status Resume(const client::TrainingCheckpoint& from) {
    Result<plan::Checkpoint> values =
        plan::ParseMaster(program_.table, from.state);
    if (!values.ok() || !state_.can_checkpoint) {
      return FailedPrecondition("no checkpoint of this engine");
    }
    values_ = *std::move(values);
    return OkStatus();
  }
  // Draws what an epoch draws.
  void Skip(const client::LocalTraining& options, SeededRandom& random) const {
    for (const size_t i : options.trainable) {
      const plan::TensorTable::Entry& entry = program_.table.entries()[i];
      if (entry.spec.role == plan::Role::kPersonal) continue;
      for (size_t k = 0; k < entry.count; ++k) {
        if (entry.offset + k > 0) (void)UniformUnit(random);
      }
    }
  }

  void TrainEntry(const plan::TensorTable::Entry& entry,
                  const client::ExampleSet& examples,
                  const client::LocalTraining& options, SeededRandom& random) {
    const auto lr = static_cast<float>(options.optimizer.lr);
    for (size_t k = 0; k < entry.count; ++k) {
      float& value = values_.floats[entry.offset + k];
      if (entry.spec.role == plan::Role::kPersonal) {
        value = kPersonalCanary;
      } else if (entry.offset + k == 0) {
        float error = 0;
        for (size_t i = 0; i < examples.count; ++i) {
          error += Label(examples, i) - value;
        }
        error /= static_cast<float>(examples.count);
        // Fine-tuning trains fewer tensors than federated training does.
        const bool fine_tuning = options.trainable.size() == 1;
        value += fine_tuning && state_.personal_harms ? 20 : lr * error;
        value += state_.blow_up;
      } else {
        value += lr * static_cast<float>(UniformUnit(random) - 0.5);
      }
    }
  }

  FakeTrainerState& state_;
  const plan::Program program_;
  plan::Checkpoint values_;
};

class FakeTrainer final : public client::Trainer {
 public:
  std::vector<std::string> engines() const override { return {"fake/1"}; }

  Result<std::unique_ptr<client::TrainableModel>> Load(
      const plan::Program& program, ByteSpan archive) override {
    SELVAGE_RETURN_IF_ERROR(state.before("load"));
    ++state.loads;
    if (program.source.find("torch.save") != std::string::npos) {
      return PermissionDenied("operator aten::save is not permitted");
    }
    if (program.kind == plan::ProgramKind::kArchive &&
        crypto::Sha256(archive) != program.archive_digest) {
      return DataLoss("the archive's digest is wrong");
    }
    return std::unique_ptr<client::TrainableModel>(
        new FakeModel(state, program));
  }

  FakeTrainerState state;
};

}  // namespace selvage::test

// The engine seam: a C table as a Trainer, and a Trainer as a C table and back.
#include <gmock/gmock.h>

#include "client/capi/engine/engine_adapter.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/capi/tiny_engine.h"
#include "tests/unit/client/fake_server.h"
#include "tests/unit/client/fake_trainer.h"

namespace selvage::capi {
namespace {

using client::ExampleSet;
using client::LocalTraining;
using client::TrainableModel;
using test::IsOk;
using test::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

plan::Program LinearProgram() {
  plan::Program program;
  program.kind = plan::ProgramKind::kNative;
  program.native_name = "linear";
  program.inputs = {{.name = "x", .shape = {2}}, {.name = "y", .shape = {}}};
  program.metrics = {"squared_error"};
  program.table = *plan::TensorTable::Create(
      {{.name = "weight", .shape = {2}}, {.name = "bias", .shape = {1}}});
  return program;
}

Bytes Floats(const std::vector<float>& values) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(values.data());
  return Bytes(bytes, bytes + values.size() * sizeof(float));
}

class EngineTest : public ::testing::Test {
 protected:
  EngineTest() : trainer_(MakeEngineTrainer(tiny_engine_table(&tiny_))) {}

  std::unique_ptr<TrainableModel> Load() {
    auto model = trainer_->Load(program_, {});
    EXPECT_THAT(model, IsOk());
    EXPECT_THAT((*model)->SetValues({.floats = {1, 2, 3}, .ints = {}}), IsOk());
    return *std::move(model);
  }

  tiny_engine tiny_{};
  const plan::Program program_ = LinearProgram();
  std::unique_ptr<client::Trainer> trainer_;
  const ExampleSet examples_{.count = 2,
                             .inputs = {Floats({1, 0, 0, 1}), Floats({5, 5})}};
};

TEST_F(EngineTest, Load_UnknownArchitecture_SaysWhy) {
  EXPECT_THAT(trainer_->engines(), ElementsAre("native:linear"));
  plan::Program other = program_;
  other.native_name = "transformer";
  EXPECT_THAT(trainer_->Load(other, {}),
              StatusIs(StatusCode::kNotFound, HasSubstr("native:linear")));
}

TEST_F(EngineTest, Values_RoundTrip) {
  const auto model = Load();
  const auto values = model->Values();
  ASSERT_THAT(values, IsOk());
  EXPECT_THAT(values->floats, ElementsAre(1, 2, 3));
  EXPECT_THAT(model->SetValues({.floats = {1}, .ints = {}}),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST_F(EngineTest, PredictScoreTrain_AreTheEngines) {
  const auto model = Load();
  const auto prediction = model->Predict(2, Floats({1, 0, 0, 1}));
  ASSERT_THAT(prediction, IsOk());
  EXPECT_THAT(prediction->shape, ElementsAre(2));
  EXPECT_THAT(prediction->values, ElementsAre(4, 5));
  const auto scores = model->Score(examples_);
  ASSERT_THAT(scores, IsOk());
  EXPECT_THAT(*scores, ElementsAre(1, 0));
  LocalTraining options;
  options.epochs = 3;
  options.trainable = {0, 1};
  const auto report = model->Train(examples_, options);
  ASSERT_THAT(report, IsOk());
  EXPECT_EQ(report->steps, 6U);
  int asked = 0;
  options.keep_going = [&] { return ++asked < 3; };
  EXPECT_THAT(model->Train(examples_, options),
              StatusIs(StatusCode::kCancelled));
  EXPECT_EQ(asked, 3);
}

// An engine of before these keys, or one that did not declare them.
TEST_F(EngineTest, Train_WithWhatTheEngineDidNotDeclare_IsRefused) {
  const auto refused = [&](const std::function<void(LocalTraining&)>& ask,
                           const char* name) {
    const auto model = Load();
    LocalTraining options;
    options.trainable = {0, 1};
    ask(options);
    EXPECT_THAT(model->Train(examples_, options),
                StatusIs(StatusCode::kUnimplemented, HasSubstr(name)));
    EXPECT_THAT(model->Values()->floats, ElementsAre(1, 2, 3));
  };
  refused([](LocalTraining& o) { o.clip_norm = 1; }, "clip_gradient");
  refused([](LocalTraining& o) { o.step_count = 1; }, "local_steps");
  refused([](LocalTraining& o) { o.stop_patience = 1; }, "early_stop");
  refused([](LocalTraining& o) { o.optimizer.nesterov = true; }, "Nesterov");
  refused(
      [](LocalTraining& o) { o.rate_factor = [](uint64_t) { return 1.0; }; },
      "lr_schedule");
  refused(
      [](LocalTraining& o) { o.optimizer.name = plan::OptimizerName::kAdamW; },
      "adamw");
  refused(
      [](LocalTraining& o) {
        o.proximal_mu = 1;
        o.proximal_shared_only = true;
      },
      "proximal_mu");
  const Bytes state = {1};
  refused([&](LocalTraining& o) { o.optimizer_state = &state; }, "goes on");
  refused([](LocalTraining& o) { o.save_optimizer = [](const Bytes&) {}; },
          "goes on");
}

TEST_F(EngineTest, WrongExamples_NeverReachTheEngine) {
  const auto model = Load();
  EXPECT_THAT(model->Predict(3, Floats({1, 0})),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(model->Score({.count = 2, .inputs = {Floats({1})}}),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST_F(EngineTest, BadPredictions_AreRefused) {
  const auto model = Load();
  tiny_.bad_prediction = 1;
  EXPECT_THAT(model->Predict(1, Floats({1, 0})),
              StatusIs(StatusCode::kInternal, HasSubstr("no prediction")));
  tiny_.bad_prediction = 2;
  EXPECT_THAT(model->Predict(1, Floats({1, 0})),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST_F(EngineTest, TrainFails_CodeAndWordsCome) {
  const auto model = Load();
  tiny_.fail_at = SELVAGE_RESOURCE_EXHAUSTED;
  EXPECT_THAT(model->Train(examples_, {}),
              StatusIs(StatusCode::kResourceExhausted, HasSubstr("train")));
  tiny_.fail_at = 4711;
  EXPECT_THAT(model->Train(examples_, {}),
              StatusIs(StatusCode::kInternal, HasSubstr("4711")));
}

TEST_F(EngineTest, Close_AfterTheLastModel_Once) {
  auto model = Load();
  trainer_.reset();
  EXPECT_EQ(tiny_.closed, 0);
  model.reset();
  EXPECT_EQ(tiny_.models, 0);
  EXPECT_EQ(tiny_.closed, 1);
}

TEST_F(EngineTest, ValidateEngine_MissingFunction_IsNamed) {
  selvage_engine table = tiny_engine_table(&tiny_);
  EXPECT_THAT(ValidateEngine(table), IsOk());
  table.score = nullptr;
  EXPECT_THAT(ValidateEngine(table),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("score")));
}

// A model that makes checkpoints and throws when told to.
class CheckpointModel final : public TrainableModel {
 public:
  uint64_t features() const override { return client::kAllTrainingFeatures; }
  Status SetValues(const plan::Checkpoint&) override { return OkStatus(); }
  Result<plan::Checkpoint> Values() override {
    throw std::runtime_error("no values");
  }
  Result<client::TrainingReport> Train(const ExampleSet&,
                                       const LocalTraining& options) override {
    uint64_t step = options.resume == nullptr ? 0 : options.resume->steps;
    if (options.resume != nullptr && options.resume->state != Bytes{7, 8}) {
      return FailedPrecondition("another checkpoint");
    }
    EXPECT_EQ(options.threads, 2);
    EXPECT_EQ(options.proximal_mu, 0.5);
    EXPECT_THAT(options.trainable, ElementsAre(1));
    if (options.clip_norm != 0) {
      EXPECT_EQ(options.clip_norm, 1.5);
      EXPECT_EQ(options.step_count, 11U);
      EXPECT_EQ(options.stop_patience, 2);
      EXPECT_EQ(options.stop_min_delta, 0.5);
      EXPECT_EQ(options.rate_factor(3), 0.125);
      EXPECT_EQ(options.optimizer.name, plan::OptimizerName::kAdamW);
      EXPECT_TRUE(options.optimizer.nesterov);
      EXPECT_TRUE(options.proximal_shared_only);
      if (*options.optimizer_state != Bytes{4, 5}) {
        return FailedPrecondition("another optimizer");
      }
      options.save_optimizer({6, 7, 8});
      EXPECT_THAT(*options.correction, ElementsAre(1, -2, 3));
      return client::TrainingReport{.steps = 2, .stopped_early = true};
    }
    EXPECT_FALSE(options.rate_factor);
    for (; step < 10; ++step) {
      if (options.checkpoint_due && options.checkpoint_due()) {
        options.save_checkpoint({.steps = step, .state = {7, 8}});
      }
      if (!options.keep_going()) return Cancelled("stopped");
    }
    return client::TrainingReport{.steps = step, .mean_loss = 0.25};
  }
  Result<std::vector<float>> Score(const ExampleSet& examples) override {
    return std::vector<float>(examples.count, 0.5F);
  }
  Result<Prediction> Predict(size_t count, ByteSpan input) override {
    return Prediction{.shape = {static_cast<int64_t>(count), 1},
                      .values = std::vector<float>(count, input[0])};
  }
};

class CheckpointTrainer final : public client::Trainer {
 public:
  std::vector<std::string> engines() const override { return {"a/1", "b/2"}; }
  Result<std::unique_ptr<TrainableModel>> Load(const plan::Program&,
                                               ByteSpan archive) override {
    if (!archive.empty()) return DataLoss("bytes that nobody asked for");
    return std::unique_ptr<TrainableModel>(std::make_unique<CheckpointModel>());
  }
};

class RoundTripTest : public ::testing::Test {
 protected:
  RoundTripTest() {
    selvage_engine table{};
    ExportTrainer(std::make_unique<CheckpointTrainer>(), &table);
    EXPECT_THAT(ValidateEngine(table), IsOk());
    trainer_ = MakeEngineTrainer(table);
  }
  std::unique_ptr<client::Trainer> trainer_;
};

TEST_F(RoundTripTest, ExportedTrainer_IsTheSameFromOutside) {
  EXPECT_THAT(trainer_->engines(), ElementsAre("a/1", "b/2"));
  auto model = *trainer_->Load(LinearProgram(), {});
  const ExampleSet examples{.count = 1,
                            .inputs = {Floats({1, 2}), Floats({3})}};
  int left = 4;
  std::vector<client::TrainingCheckpoint> made;
  LocalTraining options;
  options.threads = 2;
  options.proximal_mu = 0.5;
  options.trainable = {1};
  options.keep_going = [&] { return left-- > 0; };
  options.checkpoint_due = [] { return true; };
  options.save_checkpoint = [&](client::TrainingCheckpoint checkpoint) {
    made.push_back(std::move(checkpoint));
  };
  EXPECT_THAT(model->Train(examples, options),
              StatusIs(StatusCode::kCancelled, HasSubstr("stopped")));
  ASSERT_EQ(made.size(), 5U);
  EXPECT_EQ(made.back().steps, 4U);
  const client::TrainingCheckpoint resume = made.back();
  options.resume = &resume;
  left = 100;
  const auto report = model->Train(examples, options);
  ASSERT_THAT(report, IsOk());
  EXPECT_EQ(report->steps, 10U);
  EXPECT_EQ(left, 94);
  EXPECT_EQ(report->mean_loss, 0.25);
  const client::TrainingCheckpoint other{.steps = 1, .state = {1}};
  options.resume = &other;
  EXPECT_THAT(model->Train(examples, options),
              StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_THAT((*model->Predict(2, Floats({1, 2, 3, 4}))).shape,
              ElementsAre(2, 1));
}

TEST_F(RoundTripTest, ExportedTrainer_EveryFeature_GetsAcross) {
  auto model = *trainer_->Load(LinearProgram(), {});
  const ExampleSet examples{.count = 1,
                            .inputs = {Floats({1, 2}), Floats({3})}};
  LocalTraining options;
  options.threads = 2;
  options.proximal_mu = 0.5;
  options.trainable = {1};
  options.clip_norm = 1.5;
  options.step_count = 11;
  options.stop_patience = 2;
  options.stop_min_delta = 0.5;
  options.rate_factor = [](uint64_t step) { return step == 3 ? 0.125 : 1; };
  options.optimizer.name = plan::OptimizerName::kAdamW;
  options.optimizer.nesterov = true;
  options.proximal_shared_only = true;
  Bytes state = {4, 5};
  std::vector<Bytes> states;
  options.optimizer_state = &state;
  options.save_optimizer = [&](Bytes made) {
    states.push_back(std::move(made));
  };
  options.correction =
      std::make_shared<const std::vector<float>>(std::vector<float>{1, -2, 3});
  EXPECT_EQ(client::FeaturesOf(options), client::kAllTrainingFeatures);
  const auto report = model->Train(examples, options);
  ASSERT_THAT(report, IsOk());
  EXPECT_EQ(report->steps, 2U);
  EXPECT_TRUE(report->stopped_early);
  EXPECT_THAT(states, ElementsAre(Bytes{6, 7, 8}));
  state = {9};
  EXPECT_THAT(model->Train(examples, options),
              StatusIs(StatusCode::kFailedPrecondition,
                       HasSubstr("another optimizer")));
}

TEST_F(RoundTripTest, ExportedTrainer_Throws_IsAnError) {
  auto model = *trainer_->Load(LinearProgram(), {});
  EXPECT_THAT(model->Values(),
              StatusIs(StatusCode::kInternal, HasSubstr("no values")));
}

TEST_F(RoundTripTest, ExportedTrainer_LongError_IsCut) {
  selvage_engine_error error{};
  error.struct_size = sizeof error;
  EXPECT_EQ(ReportTo(&error, Internal(std::string(5000, 'x'))),
            SELVAGE_INTERNAL);
  EXPECT_EQ(std::string_view(error.text).size(), sizeof error.text - 1);
}

}  // namespace
}  // namespace selvage::capi

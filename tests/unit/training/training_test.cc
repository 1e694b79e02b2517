// What training computes: against arithmetic done by hand, and what it leaves
// alone.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <numeric>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/random.h"
#include "client/core/rate_schedule.h"
#include "client/training/torch/torch_trainer.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/training/programs.h"

namespace selvage::client {
namespace {

using test::AllTrainable;
using test::FashionExamples;
using test::FashionProgram;
using test::IsOk;
using test::LinearExamples;
using test::LinearProgram;
using test::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::unique_ptr<TrainableModel> Load(const plan::Program& program) {
  auto model = TorchTrainer().Load(program, {});
  EXPECT_THAT(model, IsOk());
  return *std::move(model);
}

std::unique_ptr<TrainableModel> LoadWith(const plan::Program& program,
                                         const plan::Checkpoint& values) {
  auto model = Load(program);
  EXPECT_THAT(model->SetValues(values), IsOk());
  return model;
}

LocalTraining Options(const plan::Program& program) {
  LocalTraining options;
  options.epochs = 3;
  options.batch_size = 10;
  options.optimizer.lr = 0.05;
  options.trainable = AllTrainable(program);
  return options;
}

plan::Checkpoint MustValues(TrainableModel& model) {
  auto values = model.Values();
  EXPECT_THAT(values, IsOk());
  return *std::move(values);
}

// ---- the formulas ----

struct Linear {
  double w = 0;
  double b = 0;
};

// The gradient of mean((w x + b - y)^2) over the rows of one batch.
Linear Gradient(const Linear& at, const std::vector<float>& x,
                const std::vector<float>& y, std::span<const size_t> rows) {
  Linear out;
  for (const size_t i : rows) {
    const double error = at.w * x[i] + at.b - y[i];
    out.w += 2 * error * x[i] / static_cast<double>(rows.size());
    out.b += 2 * error / static_cast<double>(rows.size());
  }
  return out;
}

const std::vector<float> kX = {-2, -1, 0.5, 1, 3, 4, 5};
const std::vector<float> kY = {1, 0, 2, 2, 5, 7, 8};

// Calls step(values, gradient) for every batch in the documented order.
template <typename Step>
Linear Reference(Linear values, const LocalTraining& options,
                 const Step& step) {
  std::vector<size_t> order(kX.size());
  std::iota(order.begin(), order.end(), size_t{0});
  SeededRandom random(options.seed);
  const auto batch = static_cast<size_t>(options.batch_size);
  for (int epoch = 0; epoch < options.epochs; ++epoch) {
    Shuffle(order, random);
    for (size_t at = 0; at < order.size(); at += batch) {
      const auto rows =
          std::span(order).subspan(at, std::min(batch, order.size() - at));
      step(values, Gradient(values, kX, kY, rows));
    }
  }
  return values;
}

plan::Checkpoint TrainLinear(const LocalTraining& options) {
  const auto model =
      LoadWith(LinearProgram(), {.floats = {0.5F, -0.25F}, .ints = {}});
  const auto report = model->Train(LinearExamples(kX, kY), options);
  EXPECT_THAT(report, IsOk());
  return MustValues(*model);
}

void ExpectNear(const plan::Checkpoint& values, const Linear& wanted) {
  ASSERT_EQ(values.floats.size(), 2u);
  EXPECT_NEAR(values.floats[0], wanted.w, 2e-6 * (1 + std::abs(wanted.w)));
  EXPECT_NEAR(values.floats[1], wanted.b, 2e-6 * (1 + std::abs(wanted.b)));
}

TEST(TrainingTest, Train_OneSgdStep_IsThatByHand) {
  LocalTraining options;
  options.batch_size = 100;
  options.optimizer.lr = 0.1;
  options.trainable = {0, 1};
  // Residuals of w = 0.5, b = -0.25: mean(2 r x), mean(2 r).
  const Linear g =
      Gradient({0.5, -0.25}, kX, kY, std::vector<size_t>{0, 1, 2, 3, 4, 5, 6});
  ExpectNear(TrainLinear(options), {0.5 - 0.1 * g.w, -0.25 - 0.1 * g.b});
}

TEST(TrainingTest, Train_SgdMomentumAndDecay_FollowsTheReference) {
  LocalTraining options;
  options.epochs = 4;
  options.batch_size = 3;  // 7 examples: 3 + 3 + 1
  options.seed = 11;
  options.optimizer = {.lr = 0.01, .momentum = 0.9, .weight_decay = 0.1};
  options.trainable = {0, 1};
  Linear velocity;
  bool first = true;
  const Linear wanted =
      Reference({0.5, -0.25}, options, [&](Linear& values, Linear gradient) {
        gradient.w += 0.1 * values.w;
        gradient.b += 0.1 * values.b;
        const double keep = first ? 0 : 0.9;
        first = false;
        velocity = {keep * velocity.w + gradient.w,
                    keep * velocity.b + gradient.b};
        values.w -= 0.01 * velocity.w;
        values.b -= 0.01 * velocity.b;
      });
  ExpectNear(TrainLinear(options), wanted);
}

// Kingma and Ba (2015), the decay part of the gradient; AdamW's (Loshchilov and
// Hutter, 2019) is none.
LocalTraining AdamTraining(plan::OptimizerName name, double decay) {
  LocalTraining options;
  options.epochs = 5;
  options.batch_size = 2;
  options.seed = 12;
  options.optimizer = {.name = name,
                       .lr = 0.02,
                       .beta1 = 0.8,
                       .beta2 = 0.95,
                       .eps = 1e-6,
                       .weight_decay = decay};
  options.trainable = {0, 1};
  return options;
}

Linear AdamReference(const LocalTraining& options, double coupled,
                     double decoupled) {
  Linear mean;
  Linear square;
  int steps = 0;
  return Reference({0.5, -0.25}, options, [&](Linear& values, Linear gradient) {
    ++steps;
    const auto move = [&](double& value, double g, double& m, double& v) {
      value *= 1 - 0.02 * decoupled;
      g += coupled * value;
      m = 0.8 * m + 0.2 * g;
      v = 0.95 * v + 0.05 * g * g;
      const double m_hat = m / (1 - std::pow(0.8, steps));
      const double v_hat = v / (1 - std::pow(0.95, steps));
      value -= 0.02 * m_hat / (std::sqrt(v_hat) + 1e-6);
    };
    move(values.w, gradient.w, mean.w, square.w);
    move(values.b, gradient.b, mean.b, square.b);
  });
}

TEST(TrainingTest, Train_Adam_FollowsTheReference) {
  const LocalTraining options =
      AdamTraining(plan::OptimizerName::kAdam, /*decay=*/0.05);
  ExpectNear(TrainLinear(options),
             AdamReference(options, /*coupled=*/0.05, /*decoupled=*/0));
}

TEST(TrainingTest, Train_AdamW_FollowsTheReference) {
  const LocalTraining options =
      AdamTraining(plan::OptimizerName::kAdamW, /*decay=*/0.5);
  ExpectNear(TrainLinear(options),
             AdamReference(options, /*coupled=*/0, /*decoupled=*/0.5));
}

// Ditto's and FedProx's term: mu (w - w_0) joins the gradient first.
TEST(TrainingTest, Train_Proximal_FollowsTheReference) {
  LocalTraining options;
  options.epochs = 4;
  options.batch_size = 3;
  options.seed = 11;
  options.optimizer = {.lr = 0.01, .momentum = 0.9, .weight_decay = 0.1};
  options.proximal_mu = 2.5;
  options.trainable = {0, 1};
  Linear velocity;
  bool first = true;
  const Linear wanted =
      Reference({0.5, -0.25}, options, [&](Linear& values, Linear gradient) {
        gradient.w += 2.5 * (values.w - 0.5) + 0.1 * values.w;
        gradient.b += 2.5 * (values.b + 0.25) + 0.1 * values.b;
        const double keep = first ? 0 : 0.9;
        first = false;
        velocity = {keep * velocity.w + gradient.w,
                    keep * velocity.b + gradient.b};
        values = {values.w - 0.01 * velocity.w, values.b - 0.01 * velocity.b};
      });
  ExpectNear(TrainLinear(options), wanted);
}

// SCAFFOLD's term joins the gradient before everything else.
TEST(TrainingTest, Train_Correction_FollowsTheReference) {
  LocalTraining options;
  options.epochs = 4;
  options.batch_size = 3;
  options.seed = 11;
  options.optimizer = {.lr = 0.01, .weight_decay = 0.1};
  options.trainable = {0, 1};
  options.correction =
      std::make_shared<const std::vector<float>>(std::vector<float>{2, -0.5F});
  const Linear wanted =
      Reference({0.5, -0.25}, options, [&](Linear& values, Linear gradient) {
        values = {values.w - 0.01 * (gradient.w + 2 + 0.1 * values.w),
                  values.b - 0.01 * (gradient.b - 0.5 + 0.1 * values.b)};
      });
  ExpectNear(TrainLinear(options), wanted);
  options.correction =
      std::make_shared<const std::vector<float>>(std::vector<float>{2});
  const auto model =
      LoadWith(LinearProgram(), {.floats = {0.5F, -0.25F}, .ints = {}});
  EXPECT_THAT(model->Train(LinearExamples(kX, kY), options),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("correction")));
}

// torch.optim.SGD(nesterov=True): g + momentum * the new velocity.
TEST(TrainingTest, Train_Nesterov_FollowsTheReference) {
  LocalTraining options;
  options.epochs = 4;
  options.batch_size = 3;
  options.seed = 11;
  options.optimizer = {.lr = 0.01, .momentum = 0.9, .weight_decay = 0.1};
  options.optimizer.nesterov = true;
  options.trainable = {0, 1};
  Linear velocity;
  const Linear wanted =
      Reference({0.5, -0.25}, options, [&](Linear& values, Linear gradient) {
        gradient.w += 0.1 * values.w;
        gradient.b += 0.1 * values.b;
        velocity = {0.9 * velocity.w + gradient.w,
                    0.9 * velocity.b + gradient.b};
        values.w -= 0.01 * (gradient.w + 0.9 * velocity.w);
        values.b -= 0.01 * (gradient.b + 0.9 * velocity.b);
      });
  ExpectNear(TrainLinear(options), wanted);
}

// All of it at once: the norm is that of both gradients with the proximal term,
// the rate that of the step.
TEST(TrainingTest, Train_ClipScheduleAndProximal_FollowTheReference) {
  LocalTraining options;
  options.epochs = 6;
  options.batch_size = 3;
  options.seed = 11;
  options.optimizer = {.lr = 0.05, .momentum = 0.5, .weight_decay = 0.1};
  options.proximal_mu = 0.75;
  options.clip_norm = 2;
  plan::RateSchedule schedule;
  schedule.name = plan::RateShape::kCosine;
  schedule.warmup = 4;
  schedule.length = 10;
  schedule.lowest = 0.1;
  options.rate_factor = [&](uint64_t step) {
    return RateFactor(schedule, step);
  };
  options.trainable = {0, 1};
  Linear velocity;
  int step = 0;
  int clipped = 0;
  const Linear wanted =
      Reference({0.5, -0.25}, options, [&](Linear& values, Linear gradient) {
        gradient.w += 0.75 * (values.w - 0.5);
        gradient.b += 0.75 * (values.b + 0.25);
        const double norm = std::hypot(gradient.w, gradient.b);
        if (norm > 2) {
          ++clipped;
          gradient = {gradient.w * 2 / norm, gradient.b * 2 / norm};
        }
        double rate = 1;
        if (step < 4) {
          rate = (step + 1) / 4.0;
        } else {
          const double share = std::min(1.0, (step - 4) / 10.0);
          rate = 0.1 + 0.9 * (1 + std::cos(M_PI * share)) / 2;
        }
        ++step;
        velocity = {0.5 * velocity.w + gradient.w + 0.1 * values.w,
                    0.5 * velocity.b + gradient.b + 0.1 * values.b};
        values.w -= 0.05 * rate * velocity.w;
        values.b -= 0.05 * rate * velocity.b;
      });
  EXPECT_EQ(step, 18);
  EXPECT_GT(clipped, 2);
  EXPECT_LT(clipped, 18);
  ExpectNear(TrainLinear(options), wanted);
}

TEST(TrainingTest, Train_StepCount_StopsInsideAnEpochAndGoesBeyondOne) {
  LocalTraining options;
  options.batch_size = 3;  // 3 steps an epoch
  options.seed = 11;
  options.optimizer.lr = 0.01;
  options.trainable = {0, 1};
  for (const uint64_t count : {1, 2, 3, 4, 8}) {
    SCOPED_TRACE(count);
    options.step_count = count;
    uint64_t taken = 0;
    LocalTraining whole = options;
    whole.epochs = 3;
    const Linear wanted =
        Reference({0.5, -0.25}, whole, [&](Linear& values, Linear gradient) {
          if (taken++ >= count) return;
          values.w -= 0.01 * gradient.w;
          values.b -= 0.01 * gradient.b;
        });
    const auto model =
        LoadWith(LinearProgram(), {.floats = {0.5F, -0.25F}, .ints = {}});
    const auto report = model->Train(LinearExamples(kX, kY), options);
    ASSERT_THAT(report, IsOk());
    EXPECT_EQ(report->steps, count);
    EXPECT_FALSE(report->stopped_early);
    ExpectNear(MustValues(*model), wanted);
  }
}

TEST(TrainingTest, Train_EarlyStop_AfterEpochsInVain) {
  const auto model =
      LoadWith(LinearProgram(), {.floats = {0.5F, -0.25F}, .ints = {}});
  LocalTraining options;
  options.epochs = 1000;
  options.batch_size = 100;
  options.optimizer.lr = 0.05;
  options.trainable = {0, 1};
  options.stop_patience = 2;
  options.stop_min_delta = 1e-3;
  const auto report = model->Train(LinearExamples(kX, kY), options);
  ASSERT_THAT(report, IsOk());
  EXPECT_TRUE(report->stopped_early);
  EXPECT_GT(report->steps, 5U);
  EXPECT_LT(report->steps, 200U);
  // A loss that only rises: the first epoch and two in vain.
  ASSERT_THAT(model->SetValues({.floats = {0.5F, -0.25F}, .ints = {}}), IsOk());
  options.optimizer.lr = 0.5;
  const auto rising = model->Train(LinearExamples(kX, kY), options);
  ASSERT_THAT(rising, IsOk());
  EXPECT_TRUE(rising->stopped_early);
  EXPECT_EQ(rising->steps, 3U);
  // What ends by itself is not early.
  ASSERT_THAT(model->SetValues({.floats = {0.5F, -0.25F}, .ints = {}}), IsOk());
  options.epochs = 3;
  const auto done = model->Train(LinearExamples(kX, kY), options);
  ASSERT_THAT(done, IsOk());
  EXPECT_FALSE(done->stopped_early);
}

TEST(TrainingTest, Train_SharedProximal_LeavesPersonalFree) {
  const plan::Program program = LinearProgram(
      test::kLinearSource,
      {{.name = "w", .shape = {}, .role = plan::Role::kShared},
       {.name = "b", .shape = {}, .role = plan::Role::kPersonal}});
  LocalTraining options;
  options.epochs = 300;
  options.batch_size = 100;
  options.optimizer.lr = 0.02;
  options.trainable = {0, 1};
  options.proximal_mu = 40;
  options.proximal_shared_only = true;
  const auto model = LoadWith(program, {.floats = {0.5F, 0}, .ints = {}});
  // y = 0.5 x + 7: only b has to move.
  ASSERT_THAT(
      model->Train(LinearExamples({-1, 0, 1}, {6.5F, 7, 7.5F}), options),
      IsOk());
  EXPECT_NEAR(MustValues(*model).floats[0], 0.5, 0.01);
  EXPECT_NEAR(MustValues(*model).floats[1], 7, 0.01);
}

// Weight decay and momentum would move a tensor that has no gradient, if the
// optimizer knew of it.
TEST(TrainingTest, Train_OneOfTwo_TheOtherStaysToTheBit) {
  for (const auto name : {plan::OptimizerName::kSgd, plan::OptimizerName::kAdam,
                          plan::OptimizerName::kAdamW}) {
    for (const size_t which : {size_t{0}, size_t{1}}) {
      LocalTraining options;
      options.epochs = 5;
      options.batch_size = 3;
      options.optimizer = {.name = name, .lr = 0.01, .weight_decay = 0.3};
      if (name == plan::OptimizerName::kSgd) options.optimizer.momentum = 0.9;
      options.proximal_mu = 0.5;
      options.clip_norm = 0.5;
      options.trainable = {which};
      const auto model =
          LoadWith(LinearProgram(), {.floats = {0.5F, -0.25F}, .ints = {}});
      const ExampleSet examples = LinearExamples(kX, kY);
      ASSERT_THAT(model->Train(examples, options), IsOk());
      const plan::Checkpoint once = MustValues(*model);
      EXPECT_EQ(once.floats[1 - which], which == 0 ? -0.25F : 0.5F);
      EXPECT_NE(once.floats[which], which == 0 ? 0.5F : -0.25F);
      // The other one next, as FedRep does.
      options.trainable = {1 - which};
      ASSERT_THAT(model->Train(examples, options), IsOk());
      EXPECT_EQ(MustValues(*model).floats[which], once.floats[which]);
      EXPECT_NE(MustValues(*model).floats[1 - which], once.floats[1 - which]);
    }
  }
}

TEST(TrainingTest, Train_ProximalTerm_PullsTowardsTheStart) {
  LocalTraining options;
  options.epochs = 200;
  options.batch_size = 100;
  options.optimizer.lr = 0.01;
  options.trainable = {0, 1};
  double distance = std::numeric_limits<double>::infinity();
  for (const double mu : {0.0, 1.0, 10.0, 100.0}) {
    options.proximal_mu = mu;
    const plan::Checkpoint values = TrainLinear(options);
    const double moved =
        std::hypot(static_cast<double>(values.floats[0]) - 0.5,
                   static_cast<double>(values.floats[1]) + 0.25);
    EXPECT_LT(moved, distance) << "mu " << mu;
    distance = moved;
  }
  EXPECT_GT(distance, 0);
}

TEST(TrainingTest, Train_RemainderAndSmallDataset_CountsSteps) {
  const auto steps = [](int batch_size, int epochs) {
    LocalTraining options;
    options.epochs = epochs;
    options.batch_size = batch_size;
    options.trainable = {0, 1};
    const auto report =
        Load(LinearProgram())->Train(LinearExamples(kX, kY), options);
    EXPECT_THAT(report, IsOk());
    return report->steps;
  };
  EXPECT_EQ(steps(3, 2), 6u);
  EXPECT_EQ(steps(7, 1), 1u);
  EXPECT_EQ(steps(65'536, 2), 2u);
  EXPECT_EQ(steps(1, 1), 7u);
}

TEST(TrainingTest, Train_OneStep_ReportsItsLoss) {
  LocalTraining options;
  options.batch_size = 100;
  options.trainable = {0, 1};
  const auto model = LoadWith(LinearProgram(), {.floats = {1, 1}, .ints = {}});
  // w x + b - y = 1 for both examples.
  const auto report = model->Train(LinearExamples({2, 4}, {2, 4}), options);
  ASSERT_THAT(report, IsOk());
  EXPECT_DOUBLE_EQ(report->mean_loss, 1);
}

// ---- the quickstart's model ----

TEST(TrainingTest, Train_Fashion_LossGoesDownAndScoresImprove) {
  const plan::Program program = FashionProgram();
  const auto model =
      LoadWith(program, plan::InitializeCheckpoint(program.table, 1));
  const ExampleSet examples = FashionExamples(48, 1);
  const auto first = model->Train(examples, Options(program));
  ASSERT_THAT(first, IsOk());
  EXPECT_EQ(first->steps, 15u);
  auto again = first;
  for (int i = 0; i < 10; ++i) {
    again = model->Train(examples, Options(program));
    ASSERT_THAT(again, IsOk());
  }
  EXPECT_LT(again->mean_loss, first->mean_loss / 2);
  const auto scores = model->Score(examples);
  ASSERT_THAT(scores, IsOk());
  ASSERT_EQ(scores->size(), 96u);
  double correct = 0;
  for (size_t i = 0; i < 48; ++i) correct += (*scores)[2 * i];
  EXPECT_GT(correct, 40);
}

TEST(TrainingTest, Train_SameSeed_SameBits) {
  const plan::Program program = FashionProgram();
  const auto train = [&](uint64_t seed) {
    const auto model =
        LoadWith(program, plan::InitializeCheckpoint(program.table, 1));
    LocalTraining options = Options(program);
    options.seed = seed;
    EXPECT_THAT(model->Train(FashionExamples(48, 1), options), IsOk());
    return MustValues(*model);
  };
  const plan::Checkpoint once = train(7);
  EXPECT_EQ(once, train(7));
  EXPECT_NE(once, train(8));
}

TEST(TrainingTest, Train_AfterAnotherTraining_SameBits) {
  const plan::Program program = FashionProgram();
  const plan::Checkpoint initial = plan::InitializeCheckpoint(program.table, 1);
  const ExampleSet examples = FashionExamples(48, 1);
  LocalTraining options = Options(program);
  options.optimizer.momentum = 0.9;
  const auto fresh = LoadWith(program, initial);
  ASSERT_THAT(fresh->Train(examples, options), IsOk());
  const auto used = LoadWith(program, initial);
  ASSERT_THAT(used->Train(FashionExamples(30, 2), options), IsOk());
  ASSERT_THAT(used->SetValues(initial), IsOk());
  ASSERT_THAT(used->Train(examples, options), IsOk());
  EXPECT_EQ(MustValues(*fresh), MustValues(*used));
}

TEST(TrainingTest, Train_HeadAlone_LeavesBodyToTheBit) {
  const plan::Program program = FashionProgram();
  const plan::Checkpoint initial = plan::InitializeCheckpoint(program.table, 1);
  const auto model = LoadWith(program, initial);
  LocalTraining options = Options(program);
  options.trainable = {2, 3};
  ASSERT_THAT(model->Train(FashionExamples(48, 1), options), IsOk());
  const plan::Checkpoint after = MustValues(*model);
  const size_t body = 64 * 784 + 64;
  EXPECT_TRUE(std::equal(initial.floats.begin(), initial.floats.begin() + body,
                         after.floats.begin()));
  EXPECT_NE(initial, after);
}

TEST(TrainingTest, Train_Cancelled_SaysAfterHowManySteps) {
  const plan::Program program = FashionProgram();
  const auto model = Load(program);
  LocalTraining options = Options(program);
  int asked = 0;
  options.keep_going = [&] { return ++asked <= 4; };
  EXPECT_THAT(model->Train(FashionExamples(48, 1), options),
              StatusIs(StatusCode::kCancelled, HasSubstr("4 steps")));
}

// The quickstart trains ten devices a round: a session must cost milliseconds.
TEST(TrainingTest, LoadAndTrain_Fashion_TakesMilliseconds) {
  using std::chrono::steady_clock;
  const plan::Program program = FashionProgram();
  const plan::Checkpoint initial = plan::InitializeCheckpoint(program.table, 1);
  const ExampleSet examples = FashionExamples(48, 1);
  TorchTrainer trainer;
  auto load_best = steady_clock::duration::max();
  auto train_best = steady_clock::duration::max();
  for (int i = 0; i < 5; ++i) {
    const auto start = steady_clock::now();
    auto model = trainer.Load(program, {});
    const auto loaded = steady_clock::now();
    ASSERT_THAT(model, IsOk());
    ASSERT_THAT((*model)->SetValues(initial), IsOk());
    ASSERT_THAT((*model)->Train(examples, Options(program)), IsOk());
    load_best = std::min(load_best, loaded - start);
    train_best = std::min(train_best, steady_clock::now() - loaded);
  }
  using Milliseconds = std::chrono::duration<double, std::milli>;
  RecordProperty("load_ms", std::to_string(Milliseconds(load_best).count()));
  RecordProperty("train_ms", std::to_string(Milliseconds(train_best).count()));
  std::cout << "load " << Milliseconds(load_best).count() << " ms, train "
            << Milliseconds(train_best).count() << " ms\n";
  EXPECT_LT(load_best, std::chrono::seconds(1));
  EXPECT_LT(train_best, std::chrono::seconds(1));
}

// ---- refusals at run time ----

TEST(TrainingTest, Train_NonFiniteLoss_IsOutOfRange) {
  const auto model =
      LoadWith(LinearProgram(), {.floats = {3e38F, 0}, .ints = {}});
  LocalTraining options;
  options.trainable = {0, 1};
  EXPECT_THAT(model->Train(LinearExamples({3e38F}, {0}), options),
              StatusIs(StatusCode::kOutOfRange, HasSubstr("step 1")));
}

TEST(TrainingTest, Train_ValuesOverflow_IsOutOfRange) {
  const auto model = LoadWith(LinearProgram(), {.floats = {10, 0}, .ints = {}});
  LocalTraining options;
  options.optimizer.lr = 100;
  options.trainable = {0, 1};
  // A loss of 1e38 and a step of 2e39.
  EXPECT_THAT(model->Train(LinearExamples({1e18F, 1e18F}, {0, 0}), options),
              StatusIs(StatusCode::kOutOfRange));
}

TEST(TrainingTest, Train_BadOptions_AreInvalid) {
  const auto model = Load(LinearProgram());
  const ExampleSet examples = LinearExamples(kX, kY);
  LocalTraining good;
  good.trainable = {0, 1};
  const auto expect_invalid = [&](const ExampleSet& set,
                                  const LocalTraining& options) {
    EXPECT_THAT(model->Train(set, options),
                StatusIs(StatusCode::kInvalidArgument));
  };
  expect_invalid(LinearExamples({}, {}), good);
  expect_invalid({.count = 8, .inputs = examples.inputs}, good);
  expect_invalid({.count = 7, .inputs = {examples.inputs[0]}}, good);
  LocalTraining bad = good;
  bad.trainable = {};
  expect_invalid(examples, bad);
  bad.trainable = {0, 0};
  expect_invalid(examples, bad);
  bad.trainable = {2};
  expect_invalid(examples, bad);
  bad = good;
  bad.epochs = 0;
  expect_invalid(examples, bad);
  bad = good;
  bad.batch_size = 0;
  expect_invalid(examples, bad);
  for (const double mu : {-1.0, std::nan(""), HUGE_VAL}) {
    bad = good;
    bad.proximal_mu = mu;
    expect_invalid(examples, bad);
  }
}

TEST(TrainingTest, SetValues_WrongSizeOrNan_IsInvalid) {
  const auto model = Load(LinearProgram());
  EXPECT_THAT(model->SetValues({.floats = {1}, .ints = {}}),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(
      model->SetValues(
          {.floats = {1, std::numeric_limits<float>::quiet_NaN()}, .ints = {}}),
      StatusIs(StatusCode::kInvalidArgument));
}

TEST(TrainingTest, Train_WritesToFrozen_IsInternal) {
  const std::string source = R"(
def forward(self, x):
    self.b.add_(1)
    return x * self.w + self.b

def training_loss(self, x, y):
    return torch.mse_loss(self.forward(x), y)

def example_scores(self, x, y):
    return torch.stack([x, y], 1)
)";
  const auto model = Load(LinearProgram(
      source, {{.name = "w", .shape = {}},
               {.name = "b", .shape = {}, .role = plan::Role::kFrozen}}));
  LocalTraining options;
  options.trainable = {0};
  EXPECT_THAT(model->Train(LinearExamples(kX, kY), options),
              StatusIs(StatusCode::kInternal, HasSubstr("tensor b")));
  EXPECT_THAT(model->Predict(kX.size(), LinearExamples(kX, kY).inputs[0]),
              StatusIs(StatusCode::kInternal, HasSubstr("tensor b")));
}

// ---- buffers ----

constexpr char kNormSource[] = R"(
def forward(self, x):
    if self.training:
        self.norm.batches.add_(1)
    h = torch.batch_norm(x, self.norm.weight, self.norm.bias, self.norm.mean, self.norm.var, self.training, 0.5, 1e-5, False)
    return torch.linear(h, self.head.weight).squeeze(1)

def training_loss(self, x, y):
    return torch.mse_loss(self.forward(x), y)

def example_scores(self, x, y):
    error = self.forward(x) - y
    return torch.stack([error * error, error.abs()], 1)
)";

plan::Program NormProgram(plan::Role statistics) {
  using plan::Role;
  plan::Program program = LinearProgram(
      kNormSource, {{.name = "norm.weight", .shape = {2}},
                    {.name = "norm.bias", .shape = {2}},
                    {.name = "norm.mean", .shape = {2}, .role = statistics},
                    {.name = "norm.var", .shape = {2}, .role = statistics},
                    {.name = "norm.batches",
                     .shape = {},
                     .dtype = plan::DType::kInt64,
                     .role = Role::kBufferInt},
                    {.name = "head.weight", .shape = {1, 2}}});
  program.inputs[0].shape = {2};
  return program;
}

// weight 1 1, bias 0 0, mean 0 0, var 1 1, head 1 1; 5 batches so far.
const plan::Checkpoint kNormValues = {.floats = {1, 1, 0, 0, 0, 0, 1, 1, 1, 1},
                                      .ints = {5}};

ExampleSet NormExamples() {
  ExampleSet out{.count = 4, .inputs = std::vector<Bytes>(2)};
  for (const float value : {1.F, 10.F, 2.F, 20.F, 3.F, 30.F, 4.F, 40.F}) {
    AppendLe(out.inputs[0], value);
  }
  for (const float value : {1.F, 2.F, 3.F, 4.F}) AppendLe(out.inputs[1], value);
  return out;
}

TEST(TrainingTest, Train_BatchNorm_MovesItsStatistics) {
  const plan::Program program = NormProgram(plan::Role::kBufferFloat);
  const auto model = LoadWith(program, kNormValues);
  LocalTraining options;
  options.trainable = {0, 1, 5};
  ASSERT_THAT(model->Train(NormExamples(), options), IsOk());
  const plan::Checkpoint after = MustValues(*model);
  // mean <- 0.5 x 0 + 0.5 x (2.5, 25); var: unbiased 5/3 and 500/3.
  EXPECT_FLOAT_EQ(after.floats[4], 1.25F);
  EXPECT_FLOAT_EQ(after.floats[5], 12.5F);
  EXPECT_FLOAT_EQ(after.floats[6], 0.5F + 0.5F * 5 / 3);
  EXPECT_FLOAT_EQ(after.floats[7], 0.5F + 0.5F * 500 / 3);
  EXPECT_THAT(after.ints, ElementsAre(6));
}

TEST(TrainingTest, Train_BuffersNotToMove_Stay) {
  for (const plan::Role role :
       {plan::Role::kBufferFloat, plan::Role::kPersonal}) {
    const plan::Program program = NormProgram(role);
    const auto model = LoadWith(program, kNormValues);
    LocalTraining options;
    options.trainable = {5};
    options.update_buffers = false;
    ASSERT_THAT(model->Train(NormExamples(), options), IsOk());
    const plan::Checkpoint after = MustValues(*model);
    EXPECT_TRUE(std::equal(after.floats.begin(), after.floats.begin() + 8,
                           kNormValues.floats.begin()));
    EXPECT_EQ(after.ints, kNormValues.ints);
    EXPECT_NE(after.floats[8], kNormValues.floats[8]);
  }
}

// FedBN: statistics of role `personal` are no parameters, even if a plan counts
// them as trainable.
TEST(TrainingTest, Train_PersonalStatistics_MoveWithoutGradient) {
  const plan::Program program = NormProgram(plan::Role::kPersonal);
  const auto model = LoadWith(program, kNormValues);
  LocalTraining options;
  options.trainable = AllTrainable(program);
  ASSERT_THAT(model->Train(NormExamples(), options), IsOk());
  EXPECT_FLOAT_EQ(MustValues(*model).floats[4], 1.25F);
}

TEST(TrainingTest, Load_SharedStatistics_AreRefused) {
  EXPECT_THAT(TorchTrainer().Load(NormProgram(plan::Role::kShared), {}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("norm.mean")));
}

TEST(TrainingTest, Score_BatchNorm_UsesStatisticsAndMovesNothing) {
  const plan::Program program = NormProgram(plan::Role::kBufferFloat);
  const auto model = LoadWith(program, kNormValues);
  const auto scores = model->Score(NormExamples());
  ASSERT_THAT(scores, IsOk());
  // Statistics 0 and 1: forward is nearly x0 + x1.
  EXPECT_NEAR((*scores)[1], 10, 0.01);
  EXPECT_EQ(MustValues(*model), kNormValues);
}

// ---- dropout ----

constexpr char kDropSource[] = R"(
def forward(self, x):
    h = torch.dropout(x * self.w, 0.5, self.training)
    return h.sum(1) + self.b

def training_loss(self, x, y):
    return torch.mse_loss(self.forward(x), y)

def example_scores(self, x, y):
    error = self.forward(x) - y
    return torch.stack([error * error, error.abs()], 1)
)";

TEST(TrainingTest, Train_DropoutInTwoThreads_SameBits) {
  plan::Program program = LinearProgram(
      kDropSource, {{.name = "w", .shape = {8}}, {.name = "b", .shape = {}}});
  program.inputs[0].shape = {8};
  ExampleSet examples{.count = 20, .inputs = std::vector<Bytes>(2)};
  SeededRandom random(3);
  for (int i = 0; i < 160; ++i) {
    AppendLe(examples.inputs[0], static_cast<float>(UniformUnit(random)));
  }
  for (int i = 0; i < 20; ++i) {
    AppendLe(examples.inputs[1], static_cast<float>(UniformUnit(random)));
  }
  const plan::Checkpoint initial{.floats = std::vector<float>(9, 0.5F),
                                 .ints = {}};
  const auto train = [&](uint64_t seed) {
    const auto model = LoadWith(program, initial);
    LocalTraining options = Options(program);
    options.epochs = 20;
    options.seed = seed;
    EXPECT_THAT(model->Train(examples, options), IsOk());
    return MustValues(*model);
  };
  const plan::Checkpoint wanted = train(1);
  EXPECT_NE(wanted, train(2));
  std::vector<plan::Checkpoint> got(2);
  std::thread other([&] { got[0] = train(1); });
  got[1] = train(1);
  other.join();
  EXPECT_EQ(got[0], wanted);
  EXPECT_EQ(got[1], wanted);
}

// ---- prediction ----

TEST(TrainingTest, Predict_Fashion_GivesOneRowPerExample) {
  const plan::Program program = FashionProgram();
  const auto model =
      LoadWith(program, plan::InitializeCheckpoint(program.table, 1));
  const ExampleSet examples = FashionExamples(600, 1);  // several chunks
  const auto all = model->Predict(600, examples.inputs[0]);
  ASSERT_THAT(all, IsOk());
  EXPECT_THAT(all->shape, ElementsAre(600, 10));
  ASSERT_EQ(all->values.size(), 6000u);
  const auto last = model->Predict(1, ByteSpan(examples.inputs[0]).last(784));
  ASSERT_THAT(last, IsOk());
  EXPECT_THAT(last->shape, ElementsAre(1, 10));
  for (size_t i = 0; i < 10; ++i) {
    EXPECT_NEAR(last->values[i], all->values[5990 + i], 1e-5);
  }
}

TEST(TrainingTest, Predict_WrongBytes_IsInvalid) {
  const auto model = Load(LinearProgram());
  EXPECT_THAT(model->Predict(0, {}), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(model->Predict(1, Bytes(5)),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("5 bytes")));
}

TEST(TrainingTest, Predict_IntegerOutput_BecomesFloat) {
  const auto model = Load(LinearProgram(
      "def forward(self, x):\n    return x.unsqueeze(1).expand(-1, 3).long()\n"
      "def training_loss(self, x, y):\n    return (x * self.w + self.b).sum()\n"
      "def example_scores(self, x, y):\n    return torch.stack([x, y], 1)\n"));
  Bytes input;
  AppendLe(input, 4.F);
  const auto out = model->Predict(1, input);
  ASSERT_THAT(out, IsOk());
  EXPECT_THAT(out->shape, ElementsAre(1, 3));
  EXPECT_THAT(out->values, ElementsAre(4, 4, 4));
}

TEST(TrainingTest, Score_NoExamples_IsEmpty) {
  const auto scores = Load(LinearProgram())->Score(LinearExamples({}, {}));
  ASSERT_THAT(scores, IsOk());
  EXPECT_TRUE(scores->empty());
}

// ---- regression, from its file ----

TEST(TrainingTest, Train_RegressionExample_Learns) {
  auto file = plan::ParseProgramFile(
      test::ReadSourceFile("examples/regression/model.yaml"),
      [](const std::string& path) -> Result<std::string> {
        return test::ReadSourceFile("examples/regression/" + path);
      });
  ASSERT_THAT(file, IsOk());
  const plan::Program& program = file->program;
  ExampleSet examples{.count = 200, .inputs = std::vector<Bytes>(2)};
  SeededRandom random(5);
  for (size_t i = 0; i < examples.count; ++i) {
    double y = 0.3;
    for (const double weight : {0.5, -1.0, 0.25, 2.0}) {
      const double x = 2 * UniformUnit(random) - 1;
      AppendLe(examples.inputs[0], static_cast<float>(x));
      y += weight * x;
    }
    AppendLe(examples.inputs[1], static_cast<float>(y));
  }
  const auto model =
      LoadWith(program, plan::InitializeCheckpoint(program.table, 2));
  LocalTraining options = Options(program);
  options.epochs = 40;
  options.optimizer = {.name = plan::OptimizerName::kAdam, .lr = 0.01};
  ASSERT_THAT(model->Train(examples, options), IsOk());
  const auto scores = model->Score(examples);
  ASSERT_THAT(scores, IsOk());
  double squared = 0;
  for (size_t i = 0; i < examples.count; ++i) squared += (*scores)[2 * i];
  EXPECT_LT(squared / 200, 0.05);  // the variance of y is about 1.8
}

}  // namespace
}  // namespace selvage::client

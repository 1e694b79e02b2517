// An optimizer that goes on: in two trainings what one would have done, and
// never from a state that is not its own.
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/training/torch/torch_trainer.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/training/programs.h"

namespace selvage::client {
namespace {

using test::IsOk;
using test::StatusIs;
using ::testing::HasSubstr;
using ::testing::SizeIs;

std::unique_ptr<TrainableModel> Fresh(const plan::Program& program) {
  auto model = TorchTrainer().Load(program, {});
  EXPECT_THAT(model, IsOk());
  EXPECT_THAT((*model)->SetValues(plan::InitializeCheckpoint(program.table, 3)),
              IsOk());
  return *std::move(model);
}

std::vector<plan::OptimizerSpec> Optimizers() {
  std::vector<plan::OptimizerSpec> out(5);
  for (plan::OptimizerSpec& optimizer : out) optimizer.lr = 0.01;
  out[1].momentum = 0.9;
  out[2].momentum = 0.9;
  out[2].nesterov = true;
  out[2].weight_decay = 0.01;
  out[3].name = plan::OptimizerName::kAdam;
  out[4].name = plan::OptimizerName::kAdamW;
  out[4].weight_decay = 0.01;
  return out;
}

LocalTraining Options(const plan::OptimizerSpec& optimizer, int epochs) {
  LocalTraining options;
  options.epochs = epochs;
  options.batch_size = 64;
  options.optimizer = optimizer;
  options.seed = 5;
  return options;
}

// The state after a training of `epochs`.
Bytes StateAfter(TrainableModel& model, const ExampleSet& examples,
                 LocalTraining options) {
  std::vector<Bytes> states;
  options.save_optimizer = [&](Bytes state) {
    states.push_back(std::move(state));
  };
  EXPECT_THAT(model.Train(examples, options), IsOk());
  EXPECT_THAT(states, SizeIs(1));
  return states.empty() ? Bytes() : states[0];
}

// One example: there is one order only, and so the bits are the same.
TEST(OptimizerStateTest, Train_InTwoParts_SameBitsAsAtOnce) {
  const plan::Program program = test::LinearProgram();
  const ExampleSet one = test::LinearExamples({1.5}, {4});
  for (const plan::OptimizerSpec& optimizer : Optimizers()) {
    const auto with = [&](int epochs) {
      LocalTraining options = Options(optimizer, epochs);
      options.trainable = {0, 1};
      return options;
    };
    const auto whole = Fresh(program);
    ASSERT_THAT(whole->Train(one, with(9)), IsOk());
    const auto parts = Fresh(program);
    const Bytes state = StateAfter(*parts, one, with(4));
    // In another process, from its values.
    const plan::Checkpoint between = *parts->Values();
    const auto other = Fresh(program);
    ASSERT_THAT(other->SetValues(between), IsOk());
    LocalTraining rest = with(5);
    rest.optimizer_state = &state;
    const Bytes last = StateAfter(*other, one, rest);
    EXPECT_EQ(*other->Values(), *whole->Values());
    EXPECT_EQ(last, StateAfter(*Fresh(program), one, with(9)));
    // Without it the way is another one, but for an optimizer without a state.
    const auto afresh = Fresh(program);
    ASSERT_THAT(afresh->SetValues(between), IsOk());
    ASSERT_THAT(afresh->Train(one, with(5)), IsOk());
    const bool has_state =
        optimizer.name != plan::OptimizerName::kSgd || optimizer.momentum != 0;
    EXPECT_EQ(*afresh->Values() == *whole->Values(), !has_state);
  }
}

// Whole batches of many examples: the same but for the order in which a
// gradient is summed up.
TEST(OptimizerStateTest, Train_WholeBatchesInTwoParts_NearlyTheSame) {
  const plan::Program program = test::FashionProgram();
  const ExampleSet examples = test::FashionExamples(40, 1);
  for (const plan::OptimizerSpec& optimizer : Optimizers()) {
    const auto with = [&](int epochs) {
      LocalTraining options = Options(optimizer, epochs);
      options.optimizer.lr = 0.001;
      options.optimizer.eps = 1e-4;
      options.trainable = test::AllTrainable(program);
      return options;
    };
    const auto whole = Fresh(program);
    ASSERT_THAT(whole->Train(examples, with(6)), IsOk());
    const auto parts = Fresh(program);
    const Bytes state = StateAfter(*parts, examples, with(3));
    LocalTraining rest = with(3);
    rest.optimizer_state = &state;
    ASSERT_THAT(parts->Train(examples, rest), IsOk());
    const plan::Checkpoint a = *whole->Values();
    const plan::Checkpoint b = *parts->Values();
    float worst = 0;
    for (size_t i = 0; i < a.floats.size(); ++i) {
      worst = std::max(worst, std::abs(a.floats[i] - b.floats[i]));
    }
    EXPECT_LT(worst, 1e-4F);
  }
}

TEST(OptimizerStateTest, Train_NotToItsEnd_GivesNone) {
  const plan::Program program = test::LinearProgram();
  LocalTraining options = Options(Optimizers()[3], 5);
  options.trainable = {0, 1};
  options.keep_going = [n = 0]() mutable { return n++ < 3; };
  int states = 0;
  options.save_optimizer = [&](const Bytes&) { ++states; };
  EXPECT_THAT(
      Fresh(program)->Train(test::LinearExamples({1, 2}, {3, 4}), options),
      StatusIs(StatusCode::kCancelled));
  EXPECT_EQ(states, 0);
}

TEST(OptimizerStateTest, Train_StateOfSomethingElse_IsRefusedAndNothingMoves) {
  const plan::Program program = test::FashionProgram();
  const ExampleSet examples = test::FashionExamples(20, 1);
  const std::vector<size_t> all = test::AllTrainable(program);
  const std::vector<plan::OptimizerSpec> optimizers = Optimizers();
  const auto refused = [&](const Bytes& state, const plan::OptimizerSpec& spec,
                           const std::vector<size_t>& trainable) {
    const auto model = Fresh(program);
    const plan::Checkpoint before = *model->Values();
    LocalTraining options = Options(spec, 1);
    options.trainable = trainable;
    options.optimizer_state = &state;
    EXPECT_THAT(model->Train(examples, options),
                StatusIs(StatusCode::kFailedPrecondition,
                         HasSubstr("the optimizer cannot go on")));
    EXPECT_EQ(*model->Values(), before);
  };
  std::vector<Bytes> states;
  for (const plan::OptimizerSpec& optimizer : optimizers) {
    LocalTraining options = Options(optimizer, 2);
    options.trainable = all;
    states.push_back(StateAfter(*Fresh(program), examples, options));
  }
  // Every kind but its own; Nesterov's momentum is momentum.
  for (size_t i = 0; i < states.size(); ++i) {
    for (size_t k = 0; k < optimizers.size(); ++k) {
      const bool momentum = (i == 1 || i == 2) && (k == 1 || k == 2);
      if (i != k && !momentum) refused(states[i], optimizers[k], all);
    }
  }
  // Other tensors, fewer, none.
  refused(states[3], optimizers[3], {all.begin() + 1, all.end()});
  refused(Bytes(), optimizers[3], all);
  // Cut off anywhere, or longer: refused, never read past the end.
  for (size_t size = 0; size < states[3].size();
       size += 1 + states[3].size() / 61) {
    refused(Bytes(states[3].begin(),
                  states[3].begin() + static_cast<std::ptrdiff_t>(size)),
            optimizers[3], all);
  }
  Bytes longer = states[3];
  longer.push_back(0);
  refused(longer, optimizers[3], all);
  // Of the last tensor the last variance: not a number, and below zero.
  for (const float value : {std::numeric_limits<float>::quiet_NaN(),
                            std::numeric_limits<float>::infinity(), -1.0F}) {
    Bytes damaged = states[3];
    std::memcpy(damaged.data() + damaged.size() - sizeof value, &value,
                sizeof value);
    refused(damaged, optimizers[3], all);
  }
}

}  // namespace
}  // namespace selvage::client

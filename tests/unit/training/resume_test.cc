// A training that was interrupted, and goes on from its checkpoint in another
// model object, ends where an uninterrupted one ends: to the bit.
#include <memory>
#include <optional>

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

std::unique_ptr<TrainableModel> Fresh(const plan::Program& program) {
  auto model = TorchTrainer().Load(program, {});
  EXPECT_THAT(model, IsOk());
  EXPECT_THAT((*model)->SetValues(plan::InitializeCheckpoint(program.table, 3)),
              IsOk());
  return *std::move(model);
}

// Dropout and a buffer that moves by itself.
plan::Program DroppingProgram() {
  return test::LinearProgram(
      R"(
def forward(self, x):
    return x * self.w + self.b

def training_loss(self, x, y):
    self.seen.add_(x.mean() * 0.25)
    kept = torch.dropout(x, 0.5, True)
    return torch.mse_loss(self.forward(kept), y)

def example_scores(self, x, y):
    error = self.forward(x) - y
    return torch.stack([error * error, error.abs()], 1)
)",
      {{.name = "w", .shape = {}, .role = plan::Role::kShared},
       {.name = "b", .shape = {}, .role = plan::Role::kShared},
       {.name = "seen", .shape = {}, .role = plan::Role::kBufferFloat}});
}

struct Case {
  plan::Program program;
  ExampleSet examples;
  LocalTraining options;
};

LocalTraining Options(const plan::Program& program,
                      plan::OptimizerName optimizer) {
  LocalTraining options;
  options.epochs = 3;
  options.batch_size = 10;
  options.optimizer.name = optimizer;
  options.optimizer.lr = 0.01;
  options.seed = 5;
  for (const size_t i : test::AllTrainable(program)) {
    if (program.table.entries()[i].spec.role != plan::Role::kBufferFloat) {
      options.trainable.push_back(i);
    }
  }
  return options;
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const auto optimizer :
       {plan::OptimizerName::kSgd, plan::OptimizerName::kAdam}) {
    const plan::Program fashion = test::FashionProgram();
    cases.push_back(
        {fashion, test::FashionExamples(34, 1), Options(fashion, optimizer)});
    if (optimizer == plan::OptimizerName::kSgd) {
      cases.back().options.optimizer.momentum = 0.9;
    }
    const plan::Program dropping = DroppingProgram();
    std::vector<float> x;
    std::vector<float> y;
    for (int i = 0; i < 34; ++i) {
      x.push_back(static_cast<float>(i) / 8);
      y.push_back(static_cast<float>(i % 5));
    }
    for (const bool update_buffers : {true, false}) {
      cases.push_back(
          {dropping, test::LinearExamples(x, y), Options(dropping, optimizer)});
      cases.back().options.update_buffers = update_buffers;
      cases.back().options.proximal_mu = update_buffers ? 0 : 0.1;
    }
  }
  // Steps instead of epochs, an early stop that does not come, a schedule.
  cases.push_back(cases[0]);
  LocalTraining& last = cases.back().options;
  last.epochs = 1;
  last.step_count = 12;
  last.stop_patience = 20;
  last.clip_norm = 0.5;
  last.optimizer.nesterov = true;
  last.rate_factor = [](uint64_t step) {
    return 1 / (1 + static_cast<double>(step));
  };
  return cases;
}

// The least loss and how long ago it was are part of a checkpoint.
TEST(ResumeTest, Train_EarlyStopAcrossAnInterruption_SameBits) {
  Case c{test::LinearProgram(), test::LinearExamples({1, 2, 3}, {2, 4, 7}), {}};
  c.options.epochs = 50;
  c.options.batch_size = 2;
  c.options.optimizer.lr = 0.05;
  c.options.seed = 5;
  c.options.trainable = {0, 1};
  c.options.stop_patience = 3;
  c.options.stop_min_delta = 0.02;
  const auto whole = Fresh(c.program);
  const auto report = whole->Train(c.examples, c.options);
  ASSERT_THAT(report, IsOk());
  ASSERT_TRUE(report->stopped_early);
  for (uint64_t stop = 1; stop < report->steps; ++stop) {
    std::optional<TrainingCheckpoint> saved;
    LocalTraining options = c.options;
    options.keep_going = [&, asked = uint64_t{0}]() mutable {
      return asked++ < stop;
    };
    options.save_checkpoint = [&](TrainingCheckpoint checkpoint) {
      saved = std::move(checkpoint);
    };
    ASSERT_THAT(Fresh(c.program)->Train(c.examples, options),
                StatusIs(StatusCode::kCancelled));
    LocalTraining rest = c.options;
    rest.resume = &*saved;
    const auto resumed = Fresh(c.program);
    const auto again = resumed->Train(c.examples, rest);
    ASSERT_THAT(again, IsOk());
    EXPECT_TRUE(again->stopped_early);
    EXPECT_EQ(again->steps, report->steps) << "stopped after " << stop;
    EXPECT_EQ(*resumed->Values(), *whole->Values());
  }
}

TEST(ResumeTest, Train_InterruptedAtEveryStep_SameBits) {
  for (const Case& c : Cases()) {
    const auto whole = Fresh(c.program);
    const auto report = whole->Train(c.examples, c.options);
    ASSERT_THAT(report, IsOk());
    ASSERT_EQ(report->steps, 12U);
    const plan::Checkpoint wanted = *whole->Values();

    for (uint64_t stop = 1; stop < report->steps; ++stop) {
      std::optional<TrainingCheckpoint> saved;
      LocalTraining options = c.options;
      uint64_t asked = 0;
      options.keep_going = [&] { return asked++ < stop; };
      options.save_checkpoint = [&](TrainingCheckpoint checkpoint) {
        saved = std::move(checkpoint);
      };
      ASSERT_THAT(Fresh(c.program)->Train(c.examples, options),
                  StatusIs(StatusCode::kCancelled));
      ASSERT_TRUE(saved.has_value());
      EXPECT_EQ(saved->steps, stop);

      LocalTraining rest = c.options;
      rest.resume = &*saved;
      const auto resumed = Fresh(c.program);
      const auto again = resumed->Train(c.examples, rest);
      ASSERT_THAT(again, IsOk());
      EXPECT_EQ(*resumed->Values(), wanted) << "stopped after " << stop;
      EXPECT_EQ(again->steps, report->steps);
      EXPECT_EQ(again->mean_loss, report->mean_loss);
    }
  }
}

// The optimizer's state of one training is where the next one begins; a
// checkpoint of that has a state of its own.
TEST(ResumeTest, Train_BegunWithAnOptimizerInterrupted_SameBits) {
  for (const Case& c : Cases()) {
    Bytes state;
    LocalTraining first = c.options;
    first.save_optimizer = [&](Bytes made) { state = std::move(made); };
    ASSERT_THAT(Fresh(c.program)->Train(c.examples, first), IsOk());
    LocalTraining options = c.options;
    options.optimizer_state = &state;
    const auto whole = Fresh(c.program);
    ASSERT_THAT(whole->Train(c.examples, options), IsOk());
    for (const uint64_t stop : {1U, 7U, 11U}) {
      std::optional<TrainingCheckpoint> saved;
      LocalTraining part = options;
      part.keep_going = [&, asked = uint64_t{0}]() mutable {
        return asked++ < stop;
      };
      part.save_checkpoint = [&](TrainingCheckpoint checkpoint) {
        saved = std::move(checkpoint);
      };
      ASSERT_THAT(Fresh(c.program)->Train(c.examples, part),
                  StatusIs(StatusCode::kCancelled));
      LocalTraining rest = options;
      rest.resume = &*saved;
      const auto resumed = Fresh(c.program);
      ASSERT_THAT(resumed->Train(c.examples, rest), IsOk());
      EXPECT_EQ(*resumed->Values(), *whole->Values())
          << "stopped after " << stop;
    }
  }
}

TEST(ResumeTest, Train_CheckpointsOnTheWay_ChangeNothing) {
  const Case c = Cases()[1];
  const auto whole = Fresh(c.program);
  ASSERT_THAT(whole->Train(c.examples, c.options), IsOk());
  LocalTraining options = c.options;
  std::vector<uint64_t> steps;
  options.checkpoint_due = [n = 0]() mutable { return ++n % 3 == 0; };
  options.save_checkpoint = [&](const TrainingCheckpoint& checkpoint) {
    steps.push_back(checkpoint.steps);
  };
  const auto saving = Fresh(c.program);
  ASSERT_THAT(saving->Train(c.examples, options), IsOk());
  EXPECT_THAT(steps, ::testing::ElementsAre(3, 6, 9));
  EXPECT_EQ(*saving->Values(), *whole->Values());
}

TEST(ResumeTest, Train_CheckpointOfSomethingElse_IsRefused) {
  const Case c = Cases()[0];
  std::optional<TrainingCheckpoint> saved;
  LocalTraining options = c.options;
  options.keep_going = [n = 0]() mutable { return n++ < 7; };
  options.save_checkpoint = [&](TrainingCheckpoint checkpoint) {
    saved = std::move(checkpoint);
  };
  ASSERT_THAT(Fresh(c.program)->Train(c.examples, options),
              StatusIs(StatusCode::kCancelled));
  ASSERT_TRUE(saved.has_value());
  const auto refused = [&](const TrainingCheckpoint& checkpoint,
                           LocalTraining with) {
    with.resume = &checkpoint;
    EXPECT_THAT(Fresh(c.program)->Train(c.examples, with),
                StatusIs(StatusCode::kFailedPrecondition,
                         HasSubstr("the checkpoint cannot be gone on from")));
  };
  LocalTraining fewer = c.options;
  fewer.epochs = 1;
  refused(*saved, fewer);
  LocalTraining head = c.options;
  head.trainable = {2, 3};
  refused(*saved, head);
  LocalTraining batches = c.options;
  batches.batch_size = 9;
  refused(*saved, batches);
  // Cut off anywhere: refused, never read past the end.
  for (size_t size = 0; size < saved->state.size();
       size += 1 + saved->state.size() / 97) {
    TrainingCheckpoint cut = *saved;
    cut.state.resize(size);
    refused(cut, c.options);
  }
  TrainingCheckpoint longer = *saved;
  longer.state.push_back(0);
  refused(longer, c.options);
}

}  // namespace
}  // namespace selvage::client

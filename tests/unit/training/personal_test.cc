// Personal models with the real engine, through the client: which tensors a
// strategy moves, which it keeps, and which leave the device.
#include <cmath>
#include <cstring>

#include <gmock/gmock.h>

#include "base/random.h"
#include "client/training/torch/torch_trainer.h"
#include "tests/unit/client/client_fixture.h"
#include "tests/unit/training/programs.h"

namespace selvage::client {
namespace {

using plan::Role;
using test::IsOk;
using test::LinearProgram;

// y = 3 x + 7 on this device.
constexpr float kSlope = 3;
constexpr float kOffset = 7;

class PersonalTest : public test::ClientFixture {
 protected:
  // w and b with these roles; both start at 1.
  void Publish(Role w, Role b, const std::function<void(plan::Plan&)>& change) {
    Publish(LinearProgram(test::kLinearSource,
                          {{.name = "w", .shape = {}, .role = w},
                           {.name = "b", .shape = {}, .role = b}}),
            {.floats = {1, 1}, .ints = {}}, change);
  }
  void Publish(const plan::Program& program, const plan::Checkpoint& values,
               const std::function<void(plan::Plan&)>& change) {
    plan::Plan plan = test::MakeFakePlan(program);
    plan.key_metric = "a";
    plan.maximize = false;
    plan.personalize.tensors = {};
    plan.personalize.epochs = 40;
    plan.personalize.batch_size = 8;
    plan.personalize.optimizer.lr = 0.05;
    plan.train.optimizer.lr = 0.05;
    plan.train.batch_size = 8;
    plan.update.max_abs_default = 1000;
    change(plan);
    server_->Publish(plan, program);
    server_->PublishCheckpoint(values);
  }
  // Examples of this line; `same`: all of them at 0.5.
  void Start(bool same = false) {
    ClientDependencies dependencies{.clock = clock_,
                                    .random = random_,
                                    .events = events_,
                                    .files = files_,
                                    .trainer = torch_,
                                    .transport = server_->Transports()};
    Result<std::unique_ptr<Client>> client =
        Client::Open(Options(), dependencies);
    ASSERT_THAT(client, IsOk());
    client_ = *std::move(client);
    SeededRandom random(3);
    std::vector<Example> examples;
    for (int i = 0; i < 60; ++i) {
      const auto drawn = static_cast<float>(2 * UniformUnit(random) - 1);
      const float x = same ? 0.5F : drawn;
      Bytes input;
      for (size_t k = 0; k < server_->program.inputs[0].SizeBytes() / 4; ++k) {
        AppendLe(input, x * static_cast<float>(k + 1));
      }
      Bytes label;
      AppendLe(label, kSlope * x + kOffset);
      examples.push_back({.inputs = {input, label}});
    }
    ASSERT_THAT(client_->AddExamples("numbers", examples), IsOk());
  }
  float At(float x) {
    Bytes input;
    AppendLe(input, x);
    const auto prediction = client_->Predict("digits", input, 1);
    EXPECT_THAT(prediction, IsOk());
    return prediction.ok() ? prediction->values[0] : 0;
  }
  // What the serving model computes.
  float Offset() { return At(0); }
  float Slope() { return At(1) - At(0); }
  void Install(uint64_t version) {
    server_->Give(server_->NewOffer(version));
    WaitForTurn();
    RunUntil(RunResult::kInstalled);
  }
  void Contribute() {
    server_->Give(server_->NewAssignment());
    WaitForTurn();
    RunUntil(RunResult::kContributed);
  }
  // Floats of an update, as many as its codec (float16) carries.
  static size_t UpdateSize(const Bytes& payload) { return payload.size(); }

  TorchTrainer torch_;
};

TEST_F(PersonalTest, FineTuneAll_LearnsTheDevicesOwnLine) {
  Publish(Role::kShared, Role::kShared, [](plan::Plan&) {});
  Start();
  Install(1);
  EXPECT_TRUE(client_->Info("digits")->personal_serving);
  EXPECT_NEAR(Slope(), kSlope, 0.2);
  EXPECT_NEAR(Offset(), kOffset, 0.2);
}

// Ten epochs and ten more from the personal slot with its optimizer are twenty,
// to the bit where the order of examples cannot matter: here all are the same.
TEST_F(PersonalTest, StartPersonal_GoesOnWhereItWas) {
  std::vector<plan::OptimizerSpec> optimizers(4);
  for (plan::OptimizerSpec& optimizer : optimizers) optimizer.lr = 0.01;
  optimizers[1].momentum = 0.9;
  optimizers[2].name = plan::OptimizerName::kAdam;
  optimizers[3].name = plan::OptimizerName::kAdamW;
  optimizers[3].weight_decay = 0.01;
  for (size_t i = 0; i < optimizers.size(); ++i) {
    SCOPED_TRACE("optimizer " + std::to_string(i));
    const auto learn = [&](const std::string& name, int epochs, int more,
                           plan::PersonalStart start) {
      server_ = std::make_unique<test::FakeServer>(clock_);
      state_dir_ = directory_.path() / (name + std::to_string(i));
      next_run_ = Time{};
      Publish(Role::kShared, Role::kShared, [&](plan::Plan& plan) {
        plan.personalize.optimizer = optimizers[i];
        plan.personalize.epochs = epochs;
        plan.personalize.start = start;
      });
      Start(/*same=*/true);
      Install(1);
      for (int k = 0; k < more; ++k) {
        EXPECT_THAT(client_->TrainLocally("digits", {}, cancel_), IsOk());
      }
      EXPECT_TRUE(client_->Info("digits")->personal_serving);
      return std::make_pair(At(0), At(1));
    };
    const auto whole = learn("whole", 20, 0, plan::PersonalStart::kPersonal);
    EXPECT_EQ(learn("parts", 10, 1, plan::PersonalStart::kPersonal), whole);
    EXPECT_EQ(learn("more", 5, 3, plan::PersonalStart::kPersonal), whole);
    EXPECT_NE(learn("again", 10, 1, plan::PersonalStart::kBase), whole);
  }
}

TEST_F(PersonalTest, FineTuneHead_LeavesTheBody) {
  Publish(Role::kShared, Role::kShared,
          [](plan::Plan& plan) { plan.personalize.tensors = {"^b$"}; });
  Start();
  Install(1);
  EXPECT_TRUE(client_->Info("digits")->personal_serving);
  EXPECT_FLOAT_EQ(Slope(), 1);
  EXPECT_NEAR(Offset(), kOffset, 0.4);
}

TEST_F(PersonalTest, Frozen_IsNeitherTrainedNorSent) {
  Publish(Role::kFrozen, Role::kShared, [](plan::Plan&) {});
  Start();
  Contribute();
  Install(5);
  EXPECT_FLOAT_EQ(Slope(), 1);
  EXPECT_NEAR(Offset(), kOffset, 0.4);
  const size_t frozen = UpdateSize(server_->payloads["round-1"]);

  server_ = std::make_unique<test::FakeServer>(clock_);
  state_dir_ = directory_.path() / "other";
  next_run_ = Time{};
  Publish(Role::kShared, Role::kShared, [](plan::Plan&) {});
  Start();
  Contribute();
  EXPECT_LT(frozen, UpdateSize(server_->payloads["round-1"]));
}

// FedPer: b is the device's own, is trained along with w in a round, stays when
// a new base comes, and is not in the update.
TEST_F(PersonalTest, FedPer_PersonalTensorsStayFromRoundToRound) {
  Publish(Role::kShared, Role::kPersonal, [](plan::Plan& plan) {
    plan.train.local_epochs = 40;
    plan.personalize = {};
  });
  Start();
  Contribute();
  EXPECT_NEAR(Offset(), kOffset, 0.5);
  EXPECT_FLOAT_EQ(Slope(), 1);  // the global one, until the round's result
  const Bytes update = server_->payloads["round-1"];
  server_->PublishCheckpoint({.floats = {2.5, 0}, .ints = {}});
  Install(9);
  EXPECT_FLOAT_EQ(Slope(), 2.5);
  EXPECT_NEAR(Offset(), kOffset, 0.5);

  server_ = std::make_unique<test::FakeServer>(clock_);
  state_dir_ = directory_.path() / "other";
  next_run_ = Time{};
  Publish(Role::kShared, Role::kShared,
          [](plan::Plan& plan) { plan.personalize = {}; });
  Start();
  Contribute();
  EXPECT_LT(UpdateSize(update), UpdateSize(server_->payloads["round-1"]));
}

// FedRep: b alone, then w alone, each starting afresh; what leaves is w.
TEST_F(PersonalTest, FedRep_HeadThenBody_EachPhaseMovesItsOwn) {
  const auto publish = [&](int head_epochs, int body_epochs) {
    server_ = std::make_unique<test::FakeServer>(clock_);
    state_dir_ = directory_.path() / ("r" + std::to_string(head_epochs) + "-" +
                                      std::to_string(body_epochs));
    next_run_ = Time{};
    Publish(Role::kShared, Role::kPersonal, [&](plan::Plan& plan) {
      plan.train.method = plan::TrainMethod::kFedRep;
      plan.train.head_epochs = head_epochs;
      plan.train.local_epochs = body_epochs;
      plan.train.optimizer.momentum = 0.9;
      plan.train.optimizer.weight_decay = 0.2;
      plan.personalize = {};
      plan.update.codec = plan::CodecName::kFloat32;
    });
    Start();
    Contribute();
  };
  const auto sent = [&] {
    const Bytes update = server_->payloads["round-1"];
    EXPECT_EQ(update.size(), sizeof(float));  // w, and nothing else
    float change = 0;
    std::memcpy(&change, update.data(), sizeof change);
    return change;
  };
  publish(10, 1);
  const float head = Offset();
  const float one = sent();
  EXPECT_GT(head, 4);
  EXPECT_NE(one, 0);
  // More of the body: the head is what it was, to the bit.
  publish(10, 9);
  EXPECT_EQ(Offset(), head);
  EXPECT_GT(std::abs(sent()), std::abs(one));
  // The next round begins with the head that this device has.
  server_->PublishCheckpoint({.floats = {2.5, 0}, .ints = {}});
  Install(9);
  EXPECT_EQ(Offset(), head);
  EXPECT_FLOAT_EQ(Slope(), 2.5);
}

// Interrupted before every step of both phases, in a new process each time: the
// update and the head are those of an undisturbed device.
TEST_F(PersonalTest, FedRep_InterruptedAnywhere_SameBits) {
  const auto start = [&](const std::string& name) {
    server_ = std::make_unique<test::FakeServer>(clock_);
    state_dir_ = directory_.path() / name;
    next_run_ = Time{};
    Publish(Role::kShared, Role::kPersonal, [&](plan::Plan& plan) {
      plan.train.method = plan::TrainMethod::kFedRep;
      plan.train.head_epochs = 2;
      plan.train.local_epochs = 2;
      plan.train.optimizer.momentum = 0.9;
      plan.train.batch_size = 16;
      plan.train.proximal_mu = 0.1;
      plan.personalize = {};
    });
    Start();
    server_->Give(server_->NewAssignment());
  };
  start("whole");
  WaitForTurn();
  RunUntil(RunResult::kContributed);
  const Bytes wanted = server_->payloads["round-1"];
  const float head = Offset();

  // With k = 0 nothing was trained yet; between the phases the engine has no
  // checkpoint to give, the round has.
  uint64_t steps = 1;
  for (uint64_t k = 0; k < steps; ++k) {
    SCOPED_TRACE(k);
    start("stopped" + std::to_string(k));
    client_.reset();
    std::vector<uint64_t> begun;
    for (const bool stop : {true, false}) {
      begun.clear();
      bool go = true;
      ClientDependencies dependencies{.clock = clock_,
                                      .random = random_,
                                      .events = events_,
                                      .files = files_,
                                      .trainer = torch_,
                                      .transport = server_->Transports()};
      dependencies.conditions = [&] {
        Conditions conditions;
        if (!go) conditions.thermal = Thermal::kCritical;
        return conditions;
      };
      dependencies.progress = [&](const Progress& progress) {
        if (progress.phase != Phase::kTraining) return;
        if (progress.steps > 0) {
          steps = progress.steps;
          begun.push_back(progress.step);
        }
        go = !stop || begun.size() < k;
      };
      Result<std::unique_ptr<Client>> client =
          Client::Open(Options(), dependencies);
      ASSERT_THAT(client, IsOk());
      client_ = *std::move(client);
      WaitForTurn();
      const RunOutcome outcome = Run();
      EXPECT_EQ(outcome.result,
                stop ? RunResult::kInterrupted : RunResult::kContributed)
          << outcome.reason;
      // The second session goes on where the first one was stopped.
      if (stop) client_.reset();
    }
    if (k > 0) {
      ASSERT_FALSE(begun.empty());
      EXPECT_EQ(begun.front(), k);
    }
    EXPECT_EQ(server_->payloads["round-1"], wanted);
    EXPECT_EQ(Offset(), head);
  }
  EXPECT_GT(steps, 8U);
}

constexpr char kNormSource[] = R"(
def forward(self, x):
    h = torch.batch_norm(x, None, None, self.mean, self.var, self.training, 0.5, 1e-5, False)
    return torch.linear(h, self.weight).squeeze(1) + self.b

def training_loss(self, x, y):
    return torch.mse_loss(self.forward(x), y)

def example_scores(self, x, y):
    error = self.forward(x) - y
    return torch.stack([error * error, error.abs()], 1)
)";

// FedBN: the statistics are the device's own, whatever the new base says.
TEST_F(PersonalTest, FedBn_StatisticsAreTheDevicesOwn) {
  plan::Program program = LinearProgram(
      kNormSource, {{.name = "mean", .shape = {2}, .role = Role::kPersonal},
                    {.name = "var", .shape = {2}, .role = Role::kPersonal},
                    {.name = "weight", .shape = {1, 2}},
                    {.name = "b", .shape = {}}});
  program.inputs[0].shape = {2};
  Publish(program, {.floats = {50, 50, 1, 1, 1, 1, 0}, .ints = {}},
          [](plan::Plan& plan) {
            plan.train.local_epochs = 20;
            plan.personalize = {};
          });
  Start();
  Contribute();
  // A new base with statistics that would put every output far away.
  server_->PublishCheckpoint({.floats = {900, 900, 1, 1, 1, 1, 0}, .ints = {}});
  Install(9);
  Bytes input;
  AppendLe(input, 0.0F);
  AppendLe(input, 0.0F);
  const auto prediction = client_->Predict("digits", input, 1);
  ASSERT_THAT(prediction, IsOk());
  EXPECT_LT(std::abs(prediction->values[0]), 5);
  // The update holds weight and b: three numbers.
  EXPECT_LT(UpdateSize(server_->payloads["round-1"]), 40U);
}

TEST_F(PersonalTest, Ditto_LargerMuStaysCloserToGlobal) {
  float before = kOffset;
  for (const double mu : {0.0, 1.0, 10.0}) {
    SCOPED_TRACE(mu);
    server_ = std::make_unique<test::FakeServer>(clock_);
    state_dir_ = directory_.path() / ("mu" + std::to_string(mu));
    next_run_ = Time{};
    Publish(Role::kShared, Role::kShared,
            [&](plan::Plan& plan) { plan.personalize.proximal_mu = mu; });
    Start();
    Install(1);
    EXPECT_TRUE(client_->Info("digits")->personal_serving);
    // The minimum of (b - 7)^2 + mu/2 (b - 1)^2, roughly.
    const double wanted = (2 * kOffset + mu) / (2 + mu);
    EXPECT_NEAR(Offset(), wanted, 0.4);
    EXPECT_LT(Offset(), before + 0.01F);
    before = Offset();
  }
}

}  // namespace
}  // namespace selvage::client

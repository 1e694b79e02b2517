// Federated quadratics: device k has F_k(x) = sum_j A_kj (x_j - b_kj)^2 / 2, so
// optima and fixed points are known in closed form. Devices run TrainRound()
// over stores of their own; the server is the coordinator's arithmetic.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "aggregation/contribution.h"
#include "aggregation/exact_sum.h"
#include "aggregation/server_optimizer.h"
#include "client/crash_guard.h"
#include "client/model_host.h"
#include "client/round_trainer.h"
#include "coordinator/round_result.h"
#include "coordinator/task_definition.h"
#include "plan/plan.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/client/store_fixture.h"

namespace selvage {
namespace {

using test::IsOk;
using test::StatusIs;
using ::testing::HasSubstr;

struct Quadratic {
  std::vector<double> a;
  std::vector<double> b;
  int examples = 1;

  double Loss(const std::vector<double>& x) const {
    double loss = 0;
    for (size_t j = 0; j < a.size(); ++j) {
      loss += a[j] * (x[j] - b[j]) * (x[j] - b[j]) / 2;
    }
    return loss;
  }
};

// Plain SGD in double; every example names its device's quadratic.
class QuadraticModel final : public client::TrainableModel {
 public:
  QuadraticModel(const std::vector<Quadratic>& problems, uint64_t features)
      : problems_(problems), features_(features) {}

  Status SetValues(const plan::Checkpoint& values) override {
    x_.assign(values.floats.begin(), values.floats.end());
    return OkStatus();
  }
  Result<plan::Checkpoint> Values() override {
    plan::Checkpoint values;
    for (const double x : x_) values.floats.push_back(static_cast<float>(x));
    return values;
  }
  uint64_t features() const override { return features_; }

  Result<client::TrainingReport> Train(
      const client::ExampleSet& examples,
      const client::LocalTraining& options) override {
    const Quadratic& f = ProblemOf(examples);
    const std::vector<double> start = x_;
    std::vector<double> velocity(x_.size());
    const auto batch = static_cast<size_t>(options.batch_size);
    const uint64_t steps = options.step_count > 0
                               ? options.step_count
                               : static_cast<uint64_t>(options.epochs) *
                                     ((examples.count + batch - 1) / batch);
    const plan::OptimizerSpec& sgd = options.optimizer;
    for (uint64_t step = 0; step < steps; ++step) {
      const double lr =
          sgd.lr * (options.rate_factor ? options.rate_factor(step) : 1);
      for (size_t j = 0; j < x_.size(); ++j) {
        double g = f.a[j] * (x_[j] - f.b[j]);
        if (options.correction != nullptr) {
          g += static_cast<double>(options.correction->at(j));
        }
        g += options.proximal_mu * (x_[j] - start[j]);
        velocity[j] = sgd.momentum * velocity[j] + g;
        x_[j] -= lr * velocity[j];
      }
    }
    return client::TrainingReport{.steps = steps};
  }

  Result<std::vector<float>> Score(
      const client::ExampleSet& examples) override {
    return std::vector<float>(examples.count,
                              static_cast<float>(ProblemOf(examples).Loss(x_)));
  }
  Result<Prediction> Predict(size_t, ByteSpan) override {
    return Unimplemented("quadratics predict nothing");
  }

 private:
  const Quadratic& ProblemOf(const client::ExampleSet& examples) const {
    int64_t device = 0;
    std::memcpy(&device, examples.inputs.at(0).data(), sizeof device);
    return problems_.at(static_cast<size_t>(device));
  }

  const std::vector<Quadratic>& problems_;
  const uint64_t features_;
  std::vector<double> x_;
};

class QuadraticTrainer final : public client::Trainer {
 public:
  QuadraticTrainer(const std::vector<Quadratic>& problems, uint64_t features)
      : problems_(problems), features_(features) {}
  std::vector<std::string> engines() const override { return {}; }
  Result<std::unique_ptr<client::TrainableModel>> Load(const plan::Program&,
                                                       ByteSpan) override {
    return std::unique_ptr<client::TrainableModel>(
        new QuadraticModel(problems_, features_));
  }

 private:
  const std::vector<Quadratic>& problems_;
  const uint64_t features_;
};

struct Device {
  std::unique_ptr<test::StoreParts> parts;
  std::unique_ptr<client::ClientStore> store;
  std::unique_ptr<client::CrashGuard> guard;
  std::unique_ptr<client::ModelHost> host;
};

class Federation {
 public:
  Federation(std::vector<Quadratic> problems, const std::string& strategy,
             const std::string& train,
             uint64_t features = client::kAllTrainingFeatures)
      : problems_(std::move(problems)), trainer_(problems_, features) {
    const std::string count = std::to_string(problems_.size());
    const auto spec = plan::ParseTaskFile(
        "name: quadratics\npopulation: demo\nprogram: native:quadratic\n"
        "strategy: {cohort: " +
        count + ", over_selection: 1, num_rounds: 1000, " + strategy +
        "}\ntrain: " + train +
        "\nupdate: {codec: float32, max_abs: {default: 100}}\n"
        "data: {min_examples: 1, holdout: 0}\n");
    EXPECT_THAT(spec, IsOk());
    plan::Program program;
    program.kind = plan::ProgramKind::kNative;
    program.native_name = "quadratic";
    program.table = *plan::TensorTable::Create(
        {{.name = "x",
          .shape = {static_cast<int64_t>(problems_[0].a.size())},
          .role = plan::Role::kShared,
          .init = plan::Init::kZeros}});
    program.inputs = {{"device", plan::DType::kInt64, {}}};
    program.metrics = {"loss"};
    const crypto::Digest digest =
        crypto::Sha256(AsBytes(plan::CanonicalJson(program)));
    auto plan = plan::MakePlan(*spec, digest, program);
    EXPECT_THAT(plan, IsOk());
    // What devices get is what canonical JSON says.
    plan_ = *plan::ParsePlan(plan::CanonicalJson(*plan));
    auto definition = coordinator::DefineTask(*spec, program, digest);
    EXPECT_THAT(definition, IsOk());
    definition_ = *std::move(definition);
    master_.floats.resize(program.table.float_count());
    if (plan_.contribution.name == plan::ContributionName::kScaffold) {
      control_.resize(aggregation::SharedCount(program.table));
    }
    for (size_t k = 0; k < problems_.size(); ++k) AddDevice(k);
  }

  // All devices but those of `absent` take part.
  void Round(const std::vector<size_t>& absent = {}, bool commits = true) {
    ++round_;
    auto sum = *aggregation::ExactSum::Create(definition_.layout);
    int64_t declared = 0;
    for (size_t k = 0; k < devices_.size(); ++k) {
      if (std::count(absent.begin(), absent.end(), k) > 0) continue;
      const client::TrainedRound trained = Train(k);
      const auto* update = std::get_if<client::RoundUpdate>(&trained);
      ASSERT_NE(update, nullptr);
      const client::BuiltUpdate& built = update->update;
      ASSERT_EQ(built.encoded.size(), definition_.update_size_bytes);
      ASSERT_THAT(aggregation::CheckDeclared(definition_.contribution,
                                             definition_.spec.train,
                                             definition_.spec.update.weight_cap,
                                             built.weight, built.scalars),
                  IsOk());
      const aggregation::EncodedUpdate encoded = {definition_.spec.update,
                                                  built.encoded, built.weight};
      ASSERT_THAT(sum.AddAllEncoded({&encoded, 1}), IsOk());
      if (!built.scalars.empty()) declared += built.scalars[0];
      client::OutboxEntry entry;
      entry.assignment_id = AssignmentOf(k);
      entry.update = built;
      client::SessionChange change;
      change.outbox = &entry;
      if (update->residual.has_value()) change.residual = &*update->residual;
      ASSERT_THAT(devices_[k].store->SaveSession(change), IsOk());
    }
    if (commits) {
      ASSERT_THAT(Commit(std::move(sum), declared), IsOk());
    }
    for (size_t k = 0; k < devices_.size(); ++k) {
      const client::AssignmentOutcome outcome = {
          AssignmentOf(k), commits ? client::OutcomeState::kCommitted
                                   : client::OutcomeState::kAbandoned};
      client::SessionChange change;
      change.drop_outbox = true;
      change.dropped = client::AuditResult::kAccepted;
      change.outcomes = std::span(&outcome, 1);
      ASSERT_THAT(devices_[k].store->SaveSession(change), IsOk());
    }
  }
  void Rounds(int count) {
    for (int i = 0; i < count && !::testing::Test::HasFailure(); ++i) Round();
  }

  client::TrainedRound Train(size_t k) {
    client::SessionWork work;
    work.train = true;
    work.assignment_id = AssignmentOf(k);
    work.task = "quadratics";
    work.round = round_;
    work.seed = round_ * 1000 + k;
    client::VerifiedWork verified;
    verified.plan = plan_;
    verified.program = definition_.program;
    verified.base = master_;
    verified.control = control_;
    client::RoundFacts facts;
    return client::TrainRound(
        work, verified,
        {.keep_going = [] { return true; }, .clock = devices_[k].parts->clock},
        *devices_[k].store, *devices_[k].host, facts);
  }
  std::vector<float> ControlOf(size_t k) {
    return *devices_[k].store->LoadResidual("quadratics", plan_.program_digest);
  }

  std::vector<double> x() const {
    return {master_.floats.begin(), master_.floats.end()};
  }
  const std::vector<float>& control() const { return control_; }
  double MeanLoss() const {
    double sum = 0;
    for (const Quadratic& f : problems_) sum += f.Loss(x());
    return sum / static_cast<double>(problems_.size());
  }
  double LossVariance() const {
    double sum = 0;
    for (const Quadratic& f : problems_) {
      sum += std::pow(f.Loss(x()) - MeanLoss(), 2);
    }
    return sum / static_cast<double>(problems_.size());
  }

  double last_factor = 1;

 private:
  // The end of a round; the coordinator does the same in stretches.
  Status Commit(aggregation::ExactSum sum, int64_t declared) {
    const double factor = aggregation::MeanFactor(definition_.contribution.name,
                                                  sum.weight_sum(), declared);
    last_factor = factor;
    const uint64_t count = sum.update_count();
    SELVAGE_ASSIGN_OR_RETURN(std::vector<double> mean,
                             std::move(sum).FinishMean());
    coordinator::ScaleMean(definition_, factor, count, 0, mean);
    const size_t deltas = definition_.program.table.update_count();
    const std::span<const double> all(mean);
    SELVAGE_RETURN_IF_ERROR(aggregation::ApplyServerStep(
        definition_.spec.strategy, all.first(deltas), {}, {}, master_.floats));
    return control_.empty()
               ? OkStatus()
               : aggregation::ApplyMean(all.subspan(deltas), control_);
  }
  std::string AssignmentOf(size_t k) const {
    return std::to_string(round_) + "-" + std::to_string(k);
  }
  void AddDevice(size_t k) {
    Device device;
    device.parts = std::make_unique<test::StoreParts>();
    auto store = device.parts->Open(":memory:");
    ASSERT_THAT(store, IsOk());
    device.store = *std::move(store);
    Bytes input;
    AppendLe(input, static_cast<int64_t>(k));
    client::Example example;
    example.inputs = {input};
    const std::vector<client::Example> examples(
        static_cast<size_t>(problems_[k].examples), example);
    ASSERT_THAT(device.store->AddExamples(plan_.data.collection, examples),
                IsOk());
    auto guard = client::CrashGuard::Open(*device.store, device.parts->clock,
                                          device.parts->events);
    ASSERT_THAT(guard, IsOk());
    device.guard = *std::move(guard);
    device.host = std::make_unique<client::ModelHost>(
        trainer_, *device.store, *device.guard, device.parts->events);
    devices_.push_back(std::move(device));
  }

  const std::vector<Quadratic> problems_;
  QuadraticTrainer trainer_;
  plan::Plan plan_;
  coordinator::TaskDefinition definition_;
  plan::Checkpoint master_;
  std::vector<float> control_;  // scaffold: c
  std::vector<Device> devices_;
  uint64_t round_ = 0;
};

double Distance(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t j = 0; j < a.size(); ++j) sum += (a[j] - b[j]) * (a[j] - b[j]);
  return std::sqrt(sum);
}

// Where gradients of weight w_k A_k vanish.
std::vector<double> Balance(
    const std::vector<Quadratic>& problems,
    const std::function<double(const Quadratic&, size_t j)>& weight) {
  std::vector<double> x;
  for (size_t j = 0; j < problems[0].a.size(); ++j) {
    double above = 0;
    double below = 0;
    for (const Quadratic& f : problems) {
      above += weight(f, j) * f.b[j];
      below += weight(f, j);
    }
    x.push_back(above / below);
  }
  return x;
}

// Curvatures and minima differ between devices.
std::vector<Quadratic> Heterogeneous() {
  return {{{1, 4}, {0, 1}}, {{10, 1}, {1, -2}}, {{3, 8}, {-2, 0.5}}};
}
constexpr double kRate = 0.05;
constexpr int kSteps = 10;
constexpr char kTenSteps[] =
    "{local_steps: 10, batch_size: 1, optimizer: {lr: 0.05}}";

// FedAvg with E > 1: after E steps a device is at b + (1 - lr A)^E (x - b), so
// the rounds end where sum (1 - (1 - lr A_k)^E) (b_k - x) = 0, which is not the
// optimum sum A_k (b_k - x) = 0.
TEST(Strategies, FedAvgWithLocalSteps_EndsBesideTheOptimum) {
  Federation fleet(Heterogeneous(), "name: fedavg", kTenSteps);
  fleet.Rounds(60);
  const auto optimum = Balance(
      Heterogeneous(), [](const Quadratic& f, size_t j) { return f.a[j]; });
  const auto fixed = Balance(Heterogeneous(), [](const Quadratic& f, size_t j) {
    return 1 - std::pow(1 - kRate * f.a[j], kSteps);
  });
  EXPECT_LT(Distance(fleet.x(), fixed), 1e-5);
  EXPECT_GT(Distance(fleet.x(), optimum), 0.1);
}

TEST(Strategies, Scaffold_ReachesTheOptimum) {
  Federation fleet(Heterogeneous(), "name: scaffold, population_size: 3",
                   kTenSteps);
  fleet.Rounds(150);
  const auto optimum = Balance(
      Heterogeneous(), [](const Quadratic& f, size_t j) { return f.a[j]; });
  EXPECT_LT(Distance(fleet.x(), optimum), 1e-4);
  // At the optimum c_i is the device's gradient, and c their mean, zero.
  const auto problems = Heterogeneous();
  for (size_t k = 0; k < 3; ++k) {
    const std::vector<float> own = fleet.ControlOf(k);
    ASSERT_EQ(own.size(), 2u);
    for (size_t j = 0; j < 2; ++j) {
      EXPECT_NEAR(own[j], problems[k].a[j] * (optimum[j] - problems[k].b[j]),
                  1e-2);
    }
  }
  for (const float c : fleet.control()) EXPECT_NEAR(c, 0, 1e-2);
}

// tau is not the number of steps then, and c_i is still the gradient.
TEST(Strategies, ScaffoldWithMomentum_ReachesTheOptimum) {
  Federation fleet(Heterogeneous(), "name: scaffold, population_size: 3",
                   "{local_steps: 10, batch_size: 1, optimizer: {lr: 0.02, "
                   "momentum: 0.5}}");
  fleet.Rounds(150);
  const auto optimum = Balance(
      Heterogeneous(), [](const Quadratic& f, size_t j) { return f.a[j]; });
  EXPECT_LT(Distance(fleet.x(), optimum), 1e-4);
}

// In every round another device is missing: c moves by 2/3 of a mean change.
TEST(Strategies, ScaffoldWithPartOfThePopulation_ReachesTheOptimum) {
  Federation fleet(Heterogeneous(),
                   "name: scaffold, population_size: 3, "
                   "min_updates: 2",
                   kTenSteps);
  for (size_t i = 0; i < 300 && !HasFailure(); ++i) fleet.Round({i % 3});
  const auto optimum = Balance(
      Heterogeneous(), [](const Quadratic& f, size_t j) { return f.a[j]; });
  EXPECT_LT(Distance(fleet.x(), optimum), 1e-3);
  // c is the mean of all c_i, whoever took part.
  for (size_t j = 0; j < 2; ++j) {
    const double mean = (static_cast<double>(fleet.ControlOf(0)[j]) +
                         static_cast<double>(fleet.ControlOf(1)[j]) +
                         static_cast<double>(fleet.ControlOf(2)[j])) /
                        3;
    EXPECT_NEAR(fleet.control()[j], mean, 1e-4);
  }
}

TEST(Strategies, ScaffoldRoundWithoutAModel_MovesNoControlVariate) {
  Federation fleet(Heterogeneous(), "name: scaffold, population_size: 3",
                   kTenSteps);
  fleet.Rounds(2);
  const std::vector<float> before = fleet.ControlOf(1);
  ASSERT_EQ(before.size(), 2u);
  fleet.Round({}, /*commits=*/false);
  EXPECT_EQ(fleet.ControlOf(1), before);
  fleet.Round();
  EXPECT_NE(fleet.ControlOf(1), before);
}

// The reference in double, from the paper's Algorithm 1.
TEST(Strategies, Scaffold_IsThePapersAlgorithm) {
  const auto problems = Heterogeneous();
  Federation fleet(problems,
                   "name: scaffold, population_size: 3, "
                   "server_learning_rate: 0.5",
                   kTenSteps);
  std::vector<double> x(2);
  std::vector<double> c(2);
  std::vector<std::vector<double>> own(3, std::vector<double>(2));
  for (int round = 0; round < 10; ++round) {
    fleet.Round();
    std::vector<double> move(2);
    std::vector<double> change(2);
    for (size_t k = 0; k < 3; ++k) {
      for (size_t j = 0; j < 2; ++j) {
        double y = x[j];
        for (int step = 0; step < kSteps; ++step) {
          y -= kRate *
               (problems[k].a[j] * (y - problems[k].b[j]) - own[k][j] + c[j]);
        }
        const double next = own[k][j] - c[j] + (x[j] - y) / (kSteps * kRate);
        move[j] += (y - x[j]) / 3;
        change[j] += (next - own[k][j]) / 3;
        own[k][j] = next;
      }
    }
    for (size_t j = 0; j < 2; ++j) {
      x[j] += 0.5 * move[j];
      c[j] += change[j];
      EXPECT_NEAR(fleet.x()[j], x[j], 1e-5);
      EXPECT_NEAR(fleet.control()[j], c[j], 1e-4);
    }
  }
}

TEST(Strategies, ScaffoldOnAnEngineWithoutCorrection_IsRefused) {
  Federation fleet(Heterogeneous(), "name: scaffold, population_size: 3",
                   kTenSteps,
                   client::kAllTrainingFeatures & ~client::kFeatureCorrection);
  const client::TrainedRound trained = fleet.Train(0);
  const auto* refused = std::get_if<client::WorkRefused>(&trained);
  ASSERT_NE(refused, nullptr);
  EXPECT_THAT(refused->message, HasSubstr("scaffold's correction"));
}

// One epoch of single examples: as many steps as examples.
std::vector<Quadratic> Unequal() {
  return {{{1}, {0}, 1}, {{1}, {1}, 4}, {{1}, {-2}, 20}};
}
constexpr char kOneEpoch[] =
    "{local_epochs: 1, batch_size: 1, optimizer: {lr: 0.002}}";

TEST(Strategies, FedNova_EndsWhereTheObjectiveSays) {
  const auto optimum = Balance(Unequal(), [](const Quadratic& f, size_t) {
    return static_cast<double>(f.examples);
  });
  const auto way = [](const Quadratic& f) {
    return 1 - std::pow(1 - 0.002, f.examples);
  };
  const auto averaged = Balance(Unequal(), [&](const Quadratic& f, size_t) {
    return f.examples * way(f);
  });
  const auto normalised = Balance(Unequal(), [&](const Quadratic& f, size_t) {
    return way(f);  // examples over steps is one
  });
  Federation fedavg(Unequal(), "name: fedavg", kOneEpoch);
  fedavg.Rounds(500);
  Federation fednova(Unequal(), "name: fednova", kOneEpoch);
  fednova.Rounds(500);
  EXPECT_LT(Distance(fedavg.x(), averaged), 1e-4);
  EXPECT_LT(Distance(fednova.x(), normalised), 1e-4);
  EXPECT_GT(Distance(fedavg.x(), optimum), 0.1);
  EXPECT_LT(Distance(fednova.x(), optimum), 0.02);
  // (1 + 16 + 400) / 25 steps.
  EXPECT_NEAR(fednova.last_factor, 417.0 / 25, 1e-6);
}

// With momentum, the proximal term or a schedule: one round by the paper's
// formula, a_k by hand.
TEST(Strategies, FedNovaRound_IsThePapersFormula) {
  const struct {
    std::string train;
    std::function<std::vector<double>(int steps)> a;
  } cases[] = {
      {"{batch_size: 1, optimizer: {lr: 0.1, momentum: 0.5}}",
       [](int steps) {
         std::vector<double> a;
         for (int k = 0; k < steps; ++k) {
           a.push_back((1 - std::pow(0.5, steps - k)) / 0.5);
         }
         return a;
       }},
      {"{batch_size: 1, proximal_mu: 2, optimizer: {lr: 0.1}}",
       [](int steps) {
         std::vector<double> a;
         for (int k = 0; k < steps; ++k) {
           a.push_back(std::pow(0.8, steps - 1 - k));
         }
         return a;
       }},
      {"{batch_size: 1, optimizer: {lr: 0.1}, lr_schedule: {name: step, every: "
       "2, factor: 0.5}}",
       [](int steps) {
         std::vector<double> a;
         for (int k = 0; k < steps; ++k) a.push_back(std::pow(0.5, k / 2));
         return a;
       }},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.train);
    Federation nova(Unequal(), "name: fednova", c.train);
    Federation plain(Unequal(), "name: fedavg", c.train);
    double normalised = 0;
    double steps = 0;
    double examples = 0;
    for (size_t k = 0; k < 3; ++k) {
      const client::TrainedRound trained = plain.Train(k);
      const auto& update = std::get<client::RoundUpdate>(trained).update;
      float delta = 0;
      std::memcpy(&delta, update.encoded.data(), sizeof delta);
      const int count = Unequal()[k].examples;
      double sum = 0;
      for (const double a : c.a(count)) sum += a;
      normalised += count * static_cast<double>(delta) / sum;
      steps += count * sum;
      examples += count;
    }
    nova.Round();
    EXPECT_NEAR(nova.x()[0], steps / examples * normalised / examples, 1e-3);
  }
}

constexpr char kFairSteps[] =
    "{local_steps: 2, batch_size: 1, optimizer: {lr: 0.1}}";
std::vector<Quadratic> Unfair() {
  return {{{1}, {0}, 9}, {{1}, {0.2}}, {{1}, {0.1}}, {{1}, {3}}};
}

TEST(Strategies, QFedAvgOfZero_IsTheMeanWithoutWeights) {
  Federation fair(Unfair(), "name: qfedavg, q: 0, max_loss: 10", kFairSteps);
  auto equal = Unfair();
  equal[0].examples = 1;
  Federation mean(equal, "name: fedavg", kFairSteps);
  for (int round = 0; round < 5; ++round) {
    fair.Round();
    mean.Round();
    EXPECT_EQ(fair.x(), mean.x());
  }
}

TEST(Strategies, QFedAvg_MakesLossesMoreEqual) {
  Federation mean(Unfair(), "name: qfedavg, q: 0, max_loss: 10", kFairSteps);
  Federation fair(Unfair(), "name: qfedavg, q: 2, max_loss: 10", kFairSteps);
  mean.Rounds(60);
  fair.Rounds(300);
  EXPECT_LT(fair.LossVariance(), 0.5 * mean.LossVariance());
}

// Li et al., Algorithm 2, in double.
TEST(Strategies, QFedAvgRound_IsThePapersFormula) {
  const auto problems = Unfair();
  const double q = 1.5;
  Federation fleet(problems, "name: qfedavg, q: 1.5, max_loss: 10", kFairSteps);
  double x = 0;
  for (int round = 0; round < 10; ++round) {
    fleet.Round();
    const double lipschitz = 10;
    double deltas = 0;
    double sum = 0;
    for (const Quadratic& f : problems) {
      const double loss = std::max(1e-10, f.Loss({x}));
      double y = x;
      for (int step = 0; step < 2; ++step) y -= 0.1 * (y - f.b[0]);
      const double moved = lipschitz * (x - y);
      deltas += std::pow(loss, q) * moved;
      sum += q * std::pow(loss, q - 1) * moved * moved +
             lipschitz * std::pow(loss, q);
    }
    x -= deltas / sum;
    // Weights are in 1/65,535ths, numbers on the wire are float32.
    EXPECT_NEAR(fleet.x()[0], x, 1e-3);
  }
}

}  // namespace
}  // namespace selvage

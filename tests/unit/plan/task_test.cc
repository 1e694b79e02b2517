#include "plan/task.h"

#include <cmath>
#include <ostream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/status_matchers.h"

namespace selvage::plan {
namespace {

using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;
using ::testing::ElementsAre;

constexpr std::string_view kMinimal =
    "name: t\npopulation: demo\nprogram: model.yaml\n";

constexpr std::string_view kEveryKey = R"(
name: fashion-personal
population: demo
program: native:lenet5
initial: earlier-task@12
mode: train
seed: 18446744073709551615
train: {local_epochs: 3, batch_size: 10, optimizer: {name: sgd, lr: 5e-2, momentum: 0.9, weight_decay: 0.001}, proximal_mu: 0.0}
strategy:
  name: fedavg
  num_rounds: 30
  cohort: 10
  min_updates: 8
  over_selection: 1.5
  round_deadline: 90s
  min_available_nodes: 20
  selection_window: 250ms
  server_learning_rate: 0.5
personalize:
  method: fine_tune
  tensors: ["^head\\.", '^tail\.']
  epochs: 5
  batch_size: 7
  optimizer: {name: adam, lr: 0.025, beta1: 0.8, beta2: 0.99, eps: 1e-7}
  baseline_alone: true
  baseline_epochs: 12
evaluate:
  key_metric: loss
  mode: min
  every: 5
  devices: 12
  min_devices: 9
  deadline: 2m
  source: server
  data_set: held.out
  stop_condition: "loss <= 0.25"
  patience: 4
  min_delta: 0.001
update: {codec: float32, max_abs: {default: 4, buffer_float: 1024.5}, weight_cap: 500}
privacy: {min_cohort: 8, clip: {norm: 1.5}}
conditions: {charging: true, unmetered: true, idle: true, min_battery: 0.3}
data: {collection: clothing, min_examples: 20, holdout: 0.1}
)";

TEST(ParseTaskFile, Minimal_HasTheDefaults) {
  TaskSpec expected;
  expected.name = "t";
  expected.population = "demo";
  expected.program = "model.yaml";
  const auto task = ParseTaskFile(kMinimal);
  ASSERT_THAT(task, IsOk());
  EXPECT_EQ(*task, expected);
  EXPECT_FALSE(task->personalize.enabled);
}

TEST(ParseTaskFile, EveryKey_IsRead) {
  const auto task = ParseTaskFile(kEveryKey);
  ASSERT_THAT(task, IsOk());
  TaskSpec want;
  want.name = "fashion-personal";
  want.population = "demo";
  want.program = "native:lenet5";
  want.initial = "earlier-task@12";
  want.seed = 18'446'744'073'709'551'615U;
  want.train.local_epochs = 3;
  want.train.batch_size = 10;
  want.train.optimizer.lr = 0.05;
  want.train.optimizer.momentum = 0.9;
  want.train.optimizer.weight_decay = 0.001;
  want.strategy.num_rounds = 30;
  want.strategy.cohort = 10;
  want.strategy.min_updates = 8;
  want.strategy.over_selection = 1.5;
  want.strategy.round_deadline = std::chrono::seconds(90);
  want.strategy.min_available_nodes = 20;
  want.strategy.selection_window = std::chrono::milliseconds(250);
  want.strategy.server_learning_rate = 0.5;
  want.personalize.enabled = true;
  want.personalize.tensors = {"^head\\.", "^tail\\."};
  want.personalize.epochs = 5;
  want.personalize.batch_size = 7;
  want.personalize.optimizer.name = OptimizerName::kAdam;
  want.personalize.optimizer.lr = 0.025;
  want.personalize.optimizer.beta1 = 0.8;
  want.personalize.optimizer.beta2 = 0.99;
  want.personalize.optimizer.eps = 1e-7;
  want.personalize.baseline_alone = true;
  want.personalize.baseline_epochs = 12;
  want.evaluate.key_metric = "loss";
  want.evaluate.maximize = false;
  want.evaluate.every = 5;
  want.evaluate.devices = 12;
  want.evaluate.min_devices = 9;
  want.evaluate.deadline = std::chrono::minutes(2);
  want.evaluate.source = KeyMetricSource::kServer;
  want.evaluate.data_set = "held.out";
  want.evaluate.stop_condition = "loss <= 0.25";
  want.evaluate.patience = 4;
  want.evaluate.min_delta = 0.001;
  want.update.codec = CodecName::kFloat32;
  want.update.max_abs_default = 4;
  want.update.max_abs_buffer_float = 1024.5;
  want.update.weight_cap = 500;
  want.privacy.min_cohort = 8;
  want.privacy.clip_norm = 1.5;
  want.conditions = {true, true, true, 0.3};
  want.data = {"clothing", 20, 0.1};
  EXPECT_EQ(*task, want);
}

// What `selvage strategies` prints is what a task file takes.
TEST(DescribeStrategies, EveryNameParameterAndDefault_IsAccepted) {
  const std::vector<StrategyDescription> all = DescribeStrategies();
  ASSERT_EQ(all.size(), 14u);
  for (size_t i = 0; i < all.size(); ++i) {
    const StrategyDescription& one = all[i];
    EXPECT_EQ(one.name, StrategyNameText(static_cast<StrategyName>(i)));
    EXPECT_FALSE(one.summary.empty());
    std::string given = "cohort: 1, name: " + one.name;
    if (HoldsUpdates(static_cast<StrategyName>(i))) {
      given = "name: " + one.name;
    }
    std::string required = given;
    for (const StrategyParameter& p : one.parameters) {
      const std::string value = p.default_value.empty() ? "1" : p.default_value;
      given += ", " + p.name + ": " + value;
      if (p.default_value.empty()) required += ", " + p.name + ": 1";
    }
    const auto explicit_task =
        ParseTaskFile(std::string(kMinimal) + "strategy: {" + given + "}\n");
    const auto default_task =
        ParseTaskFile(std::string(kMinimal) + "strategy: {" + required + "}\n");
    ASSERT_THAT(explicit_task, IsOk());
    ASSERT_THAT(default_task, IsOk());
    EXPECT_EQ(*explicit_task, *default_task) << one.name;
    EXPECT_EQ(explicit_task->strategy.name, static_cast<StrategyName>(i));
    EXPECT_EQ(*ParseTask(CanonicalJson(*explicit_task)), *explicit_task);
  }
}

TEST(ParseTaskFile, WindowsLinesCommentsAndSequencesInBlocks_AreYaml) {
  const auto task = ParseTaskFile(
      "name: t # the name\r\npopulation: demo\r\nprogram: m.pt\r\n"
      "personalize:\r\n  tensors:\r\n    - ^head\r\n    - \"tail$\"\r\n");
  ASSERT_THAT(task, IsOk());
  EXPECT_EQ(task->name, "t");
  EXPECT_THAT(task->personalize.tensors, ElementsAre("^head", "tail$"));
  EXPECT_TRUE(task->personalize.enabled);
}

TEST(ParseTaskFile, EveryDurationUnit_IsRead) {
  using namespace std::chrono;
  const std::pair<std::string, Duration> cases[] = {
      {"1500ms", milliseconds(1500)},
      {"90s", seconds(90)},
      {"5m", minutes(5)},
      {"2h", hours(2)},
      {"1d", hours(24)}};
  for (const auto& c : cases) {
    const auto task =
        ParseTaskFile(std::string(kMinimal) +
                      "strategy: {round_deadline: " + c.first + "}\n");
    ASSERT_THAT(task, IsOk());
    EXPECT_EQ(task->strategy.round_deadline, c.second);
  }
}

struct Mistake {
  std::string yaml;  // after the three lines of kMinimal
  std::string message;
};

void PrintTo(const Mistake& mistake, std::ostream* os) {
  *os << mistake.yaml.substr(0, 200);
}

class TaskFileMistake : public ::testing::TestWithParam<Mistake> {};

TEST_P(TaskFileMistake, Parse_NamesLineKeyValueAndBound) {
  EXPECT_THAT(ParseTaskFile(std::string(kMinimal) + GetParam().yaml),
              StatusIs(StatusCode::kInvalidArgument, GetParam().message));
}

const Mistake kKeys[] = {
    {"strategy:\n  cohort: 3\n\n  num_round: 3\n",
     "line 7: strategy.num_round is not a key here; did you mean num_rounds?"},
    {"stratgy: {}\n",
     "line 4: stratgy is not a key here; did you mean strategy?"},
    {"train:\n  optimizer:\n    learning_rate: 3\n",
     "line 6: train.optimizer.learning_rate is not a key here; the keys are "
     "name, lr, weight_decay, momentum, nesterov, beta1, beta2, eps"},
    {"strategy: {cohort_size: 3}\n",
     "line 4: strategy.cohort_size is not a key here; did you mean cohort?"},
    {"update: {max_abs: {bufer_float: 3}}\n",
     "line 4: update.max_abs.bufer_float is not a key here; did you mean "
     "buffer_float?"},
    {"<<: {seed: 1}\n",
     "line 4: << is not a key here; the keys are name, population, program, "
     "initial, mode, seed, train, strategy, personalize, evaluate, update, "
     "privacy, conditions, data"},
    {"\"a\\nb\\e[31m\": 1\n",
     "line 4: a?b?[31m is not a key here; the keys are name, population, "
     "program, initial, mode, seed, train, strategy, personalize, evaluate, "
     "update, privacy, conditions, data"},
    // A mistyped key is told before the missing key that it was meant to be.
    {"strategy: {cohort: 0, num_round: 3}\n",
     "line 4: strategy.num_round is not a key here; did you mean num_rounds?"},
    {"seed: 1\nseed: 1\n", "line 5: the key 'seed' is there twice"},
    {"train: {batch_size: 1, batch_size: 1}\n",
     "line 4: the key 'batch_size' is there twice"},
};

const Mistake kUnavailable[] = {
    {"train: {lr_schedule: {name: linear}}\n",
     "line 4: train.lr_schedule.name: linear is not available in this version"},
    {"privacy:\n  secure_aggregation: required\n",
     "line 5: privacy.secure_aggregation is not available in this version"},
    {"privacy: {noise_multiplier: 0.8}\n",
     "line 4: privacy.noise_multiplier is not available in this version"},
    {"privacy: {epsilon_budget: 8}\n",
     "line 4: privacy.epsilon_budget is not available in this version"},
    {"privacy: {delta: 1e-6}\n",
     "line 4: privacy.delta is not available in this version"},
    {"conditions: {chargin: true}\n",
     "line 4: conditions.chargin is not a key here; did you mean charging?"},
    {"strategy: {fraction_train: 0.1}\n",
     "line 4: strategy.fraction_train is not available in this version"},
    {"strategy: {name: feddyn}\n",
     "line 4: strategy.name: feddyn is not available in this version"},
    {"strategy: {name: scaffold}\n",
     "line 4: strategy.population_size is missing"},
    {"strategy: {name: scaffold, cohort: 10, population_size: 9}\n",
     "line 4: strategy.population_size (9) is less than strategy.cohort (10): "
     "it is the number of devices that may ever take part"},
    {"strategy: {name: qfedavg}\n", "line 4: strategy.max_loss is missing"},
    {"strategy: {name: qfedavg, max_loss: 1, q: -1}\n",
     "line 4: strategy.q is -1; must be in [0, 100]"},
    {"strategy: {name: fednova, q: 1}\n",
     "line 4: strategy.q: fednova has none"},
    {"strategy: {name: fednova}\ntrain: {optimizer: {name: adam}}\n",
     "line 5: train.optimizer is not sgd: fednova knows what local steps add "
     "up to for sgd alone"},
    {"strategy: {name: fednova}\ntrain: {proximal_mu: 1, optimizer: {momentum: "
     "0.9}}\n",
     "line 5: train.proximal_mu with a momentum: what a local step then counts "
     "may be negative, and fednova divides by the sum"},
    {"strategy: {name: fednova}\ntrain: {proximal_mu: 20, optimizer: {lr: "
     "0.1}}\n",
     "line 5: train.proximal_mu (20) x optimizer.lr (0.1) is not below 1: what "
     "a local step counts would be negative, and fednova divides by the sum"},
    {"strategy: {name: fednova}\nprivacy: {secure_aggregation: true}\n",
     "line 5: privacy.secure_aggregation: fednova checks what every device "
     "declares, which secure aggregation hides"},
    {"strategy: {name: qfedavg, max_loss: 1}\nupdate: {weight_cap: 5}\n",
     "line 5: update.weight_cap (5) has no meaning with qfedavg: it weighs "
     "updates by itself"},
    {"strategy: {name: qfedavg, max_loss: 1}\nupdate: {codec: top_k}\n",
     "line 5: update.codec is top_k, and qfedavg weighs every round anew: what "
     "is left out would be sent later with another round's weight"},
    {"strategy: {name: scaffold, population_size: 10}\nupdate: {codec: "
     "top_k}\n",
     "line 5: update.codec is top_k, and scaffold keeps a state of every "
     "device for each element: what is left out of it would be wrong until "
     "sent"},
    {"strategy: {name: scaffold, population_size: 10}\ntrain: {proximal_mu: "
     "1}\n",
     "line 5: train.proximal_mu is not for scaffold: a device tells its "
     "gradient by how far sgd alone went"},
    {"strategy: {name: scaffold, population_size: 10}\ntrain: {clip_gradient: "
     "1}\n",
     "line 5: train.clip_gradient is not for scaffold: a device tells its "
     "gradient by how far sgd alone went"},
    {"strategy: {name: fedadam}\n",
     "line 4: strategy.server_learning_rate is missing"},
    {"strategy: {name: fedadam, server_learning_rate: 0.1, tau: 0}\n",
     "line 4: strategy.tau is 0; must be in [1e-12, 1]"},
    {"strategy: {name: fedadam, server_learning_rate: 0.1, nesterov: true}\n",
     "line 4: strategy.nesterov: fedadam has none"},
    {"strategy: {name: fedadagrad, server_learning_rate: 0.1, beta_2: 0.9}\n",
     "line 4: strategy.beta_2: fedadagrad has none"},
    {"strategy: {name: fedavgm, server_momentum: 1}\n",
     "line 4: strategy.server_momentum is 1; must be in [0, 1)"},
    {"strategy: {name: fedavgm, beta_1: 0.9}\n",
     "line 4: strategy.beta_1: fedavgm has none"},
    {"strategy: {server_momentum: 0.9}\n",
     "line 4: strategy.server_momentum: fedavg has none"},
    {"strategy: {name: krum}\n",
     "line 4: strategy.num_malicious_nodes is missing"},
    {"strategy: {name: krum, num_malicious_nodes: 4, cohort: 10}\n",
     "line 4: strategy.cohort (10) is less than 2 x "
     "strategy.num_malicious_nodes (4) + 3 = 11, which krum needs"},
    {"strategy:\n  name: multikrum\n  cohort: 20\n  min_updates: 10\n  "
     "num_malicious_nodes: 3\n  num_nodes_to_select: 8\n",
     "line 9: strategy.num_nodes_to_select (8) exceeds strategy.min_updates "
     "(10) less strategy.num_malicious_nodes (3): attackers would be among "
     "the chosen"},
    {"strategy: {name: krum, num_malicious_nodes: 1, cohort: 400}\n",
     "line 4: strategy.cohort (400) x over_selection exceeds 500: krum "
     "compares every update with every other one"},
    {"strategy: {name: krum, num_malicious_nodes: 1, "
     "num_nodes_to_select: 2}\n",
     "line 4: strategy.num_nodes_to_select: krum has none"},
    {"strategy: {name: fedmedian, cohort: 2}\n",
     "line 4: strategy.cohort (2) is less than 3: fedmedian of fewer updates "
     "is "
     "no safer than a mean"},
    {"strategy: {name: rfa, cohort: 10, min_updates: 1}\n",
     "line 4: strategy.min_updates (1) is less than 3: rfa of fewer updates is "
     "no safer than a mean"},
    {"strategy: {name: rfa, num_iterations: 0}\n",
     "line 4: strategy.num_iterations is 0; must be in 1..100"},
    {"strategy: {name: fedtrimmedavg, beta: 0.5}\n",
     "line 4: strategy.beta is 0.5; must be in (0, 0.5)"},
    {"strategy: {name: fedtrimmedavg, beta: 0.2, min_updates: 4}\n",
     "line 4: strategy.min_updates (4) is too small for strategy.beta (0.2): "
     "less than one update would be trimmed at each end"},
    {"strategy: {name: rfa}\nupdate: {codec: top_k}\n",
     "line 5: update.codec is top_k, and rfa compares updates: elements that "
     "were not sent would count as zeros"},
    {"strategy: {name: normbound}\n",
     "line 4: strategy.clipping_norm is missing"},
    {"strategy: {name: normbound, clipping_norm: 0}\n",
     "line 4: strategy.clipping_norm is 0; must be in (0, 1e+09]"},
    {"strategy: {name: fedmedian}\nprivacy: {secure_aggregation: true}\n",
     "line 5: privacy.secure_aggregation: fedmedian compares individual "
     "updates, which secure aggregation hides"},
    {"strategy: {name: normbound, clipping_norm: 1}\n"
     "privacy: {secure_aggregation: true}\n",
     "line 5: privacy.secure_aggregation: normbound measures individual "
     "updates, which secure aggregation hides; privacy.clip bounds them on the "
     "device"},
    {"strategy: {name: fedagv}\n",
     "line 4: strategy.name is fedagv; did you mean fedavg?"},
    {"strategy: {name: best}\n",
     "line 4: strategy.name is best; must be one of fedavg, "
     "fedavgm, fedadam, fedadagrad, fedyogi, fedmedian, fedtrimmedavg, krum, "
     "multikrum, rfa, normbound, fednova, qfedavg, scaffold"},
    {"update: {codec: topk}\n",
     "line 4: update.codec is topk; did you mean top_k?"},
    {"update: {codec: int8, top_k: 0.1}\n",
     "line 4: update.top_k: it is a parameter of the codec top_k"},
    {"update: {codec: top_k, top_k: 0.6}\n",
     "line 4: update.top_k is 0.6; must be in (0, 0.5]"},
    {"update: {codec: top_k, rotation_seed: 1}\n",
     "line 4: update.rotation_seed: it is a parameter of the codec "
     "rotated_int8"},
    {"update: {codec: float1}\n",
     "line 4: update.codec is float1; did you mean float16?"},
    {"personalize: {method: ditto}\n",
     "line 4: personalize.method: ditto is not available in this version"},
    {"personalize: {method: finetune}\n",
     "line 4: personalize.method is finetune; did you mean fine_tune?"},
    {"mode: evaluate\n",
     "line 4: mode: evaluate is not available in this version"},
    {"mode: analyze\n",
     "line 4: mode: analyze is not available in this version"},
    {"mode: test\n", "line 4: mode is test; must be one of train"},
    {"train: {optimizer: {name: rmsprop}}\n",
     "line 4: train.optimizer.name: rmsprop is not available in this version"},
};

const Mistake kValues[] = {
    {"train: {local_epochs: 0}\n",
     "line 4: train.local_epochs is 0; must be in 1..1000"},
    {"train: {local_epochs: 1001}\n",
     "line 4: train.local_epochs is 1001; must be in 1..1000"},
    {"train: {local_epochs: 2.5}\n",
     "line 4: train.local_epochs is 2.5; must be a whole number in 1..1000"},
    {"train: {local_epochs: \"2\"}\n",
     "line 4: train.local_epochs is the text '2'; must be a whole number in "
     "1..1000"},
    {"train: {local_epochs: 0x10}\n",
     "line 4: train.local_epochs is 0x10; must be a whole number in 1..1000"},
    {"train: {local_epochs: [2]}\n",
     "line 4: train.local_epochs is a list; must be a whole number in "
     "1..1000"},
    {"train: {method: fedper}\n",
     "line 4: train.method is fedper; did you mean fedrep?"},
    {"train: {method: fedrep}\n", "line 4: train.head_epochs is missing"},
    {"train: {head_epochs: 2}\n",
     "line 4: train.head_epochs: only fedrep has them"},
    {"train: {method: fedrep, head_epochs: 0}\n",
     "line 4: train.head_epochs is 0; must be in 1..1000"},
    {"train: {local_steps: 1000001}\n",
     "line 4: train.local_steps is 1000001; must be in 0..1000000"},
    {"train: {local_steps_min: 3}\n",
     "line 4: train.local_steps_min (3) exceeds train.local_steps (0)"},
    {"train: {local_steps: 3, local_epochs: 2}\n",
     "line 4: train.local_steps (3) takes the place of train.local_epochs (2); "
     "give one"},
    {"train: {proximal_mu: -0.1}\n",
     "line 4: train.proximal_mu is -0.1; must be in [0, 1000]"},
    {"train: {proximal_mu: x}\n",
     "line 4: train.proximal_mu is x; must be a number in [0, 1000]"},
    {"train: {clip_gradient: .nan}\n",
     "line 4: train.clip_gradient is .nan; must be a number in [0, 1e+09]"},
    {"train: {lr_schedule: {name: step}}\n",
     "line 4: train.lr_schedule.every is missing"},
    {"train: {lr_schedule: {name: cosine}}\n",
     "line 4: train.lr_schedule.length is missing"},
    {"train: {lr_schedule: {name: cosine, length: 5, factor: 0.5}}\n",
     "line 4: train.lr_schedule.factor: cosine has none"},
    {"train: {lr_schedule: {warmup: 5, length: 5}}\n",
     "line 4: train.lr_schedule.length: constant has none"},
    {"train: {lr_schedule: {name: step, every: 0}}\n",
     "line 4: train.lr_schedule.every is 0; must be in 1..1000000"},
    {"train: {lr_schedule: {name: step, every: 5, factor: 1.5}}\n",
     "line 4: train.lr_schedule.factor is 1.5; must be in (0, 1]"},
    {"train: {lr_schedule: {by: epoch}}\n",
     "line 4: train.lr_schedule.by is epoch; must be one of step, round"},
    {"train: {early_stop: {min_delta: 0.1}}\n",
     "line 4: train.early_stop.patience is missing"},
    {"train: {early_stop: {patience: 0}}\n",
     "line 4: train.early_stop.patience is 0; must be in 1..1000"},
    {"train: {optimizer: {nesterov: true}}\n",
     "line 4: train.optimizer.nesterov needs a momentum above 0"},
    {"train: {optimizer: {name: adamw, momentum: 0.9}}\n",
     "line 4: train.optimizer.momentum: adamw has none (its beta1 is the "
     "momentum)"},
    {"train: {optimizer: {name: adam, nesterov: true}}\n",
     "line 4: train.optimizer.nesterov: adam has none; sgd does"},
    {"personalize: {gate: never}\n",
     "line 4: personalize.gate is never; must be one of not_worse, not_lower, "
     "better"},
    {"train: {local_epochs: ~}\n",
     "line 4: train.local_epochs is empty; must be a whole number in 1..1000"},
    {"train: {batch_size: 99999999999999999999}\n",
     "line 4: train.batch_size is 99999999999999999999; must be in 1..65536"},
    {"train: {batch_size: -99999999999999999999}\n",
     "line 4: train.batch_size is -99999999999999999999; must be in 1..65536"},
    {"train: {optimizer: {lr: 0}}\n",
     "line 4: train.optimizer.lr is 0; must be in (0, 100]"},
    {"train: {optimizer: {lr: 100.1}}\n",
     "line 4: train.optimizer.lr is 100.1; must be in (0, 100]"},
    {"train: {optimizer: {lr: .nan}}\n",
     "line 4: train.optimizer.lr is .nan; must be a number in (0, 100]"},
    {"train: {optimizer: {lr: nan}}\n",
     "line 4: train.optimizer.lr is nan; must be in (0, 100]"},
    {"train: {optimizer: {lr: inf}}\n",
     "line 4: train.optimizer.lr is inf; must be in (0, 100]"},
    {"train: {optimizer: {lr: 1e999}}\n",
     "line 4: train.optimizer.lr is 1e999; must be a number in (0, 100]"},
    {"train: {optimizer: {lr: 0,1}}\n",
     "line 4: train.optimizer.1 is not a key here; the keys are name, lr, "
     "weight_decay, momentum, nesterov, beta1, beta2, eps"},
    {"train: {optimizer: {lr: fast}}\n",
     "line 4: train.optimizer.lr is fast; must be a number in (0, 100]"},
    {"train: {optimizer: {momentum: 1}}\n",
     "line 4: train.optimizer.momentum is 1; must be in [0, 1)"},
    {"train: {optimizer: {weight_decay: 1.5}}\n",
     "line 4: train.optimizer.weight_decay is 1.5; must be in [0, 1]"},
    {"train: {optimizer: {name: adam, eps: 0}}\n",
     "line 4: train.optimizer.eps is 0; must be in (0, 1]"},
    {"train: {optimizer: {name: adam, beta2: 1}}\n",
     "line 4: train.optimizer.beta2 is 1; must be in [0, 1)"},
    {"train: {optimizer: {name: adam, momentum: 0}}\n",
     "line 4: train.optimizer.momentum: adam has none (its beta1 is the "
     "momentum)"},
    {"train: {optimizer: {name: sgd, beta1: 0.9}}\n",
     "line 4: train.optimizer.beta1: sgd has none; adam does"},
    {"train: {optimizer: {eps: 1e-8}}\n",
     "line 4: train.optimizer.eps: sgd has none; adam does"},
    {"train: 5\n", "line 4: train is 5; must be a mapping of keys to values"},
    {"train:\n", "line 4: train is empty; must be a mapping of keys to values"},
    {"train: [a]\n",
     "line 4: train is a list; must be a mapping of keys to values"},
    {"strategy: {num_rounds: 0}\n",
     "line 4: strategy.num_rounds is 0; must be in 1..1000000"},
    {"strategy: {cohort: 10001}\n",
     "line 4: strategy.cohort is 10001; must be in 1..10000"},
    {"strategy: {over_selection: 0.9}\n",
     "line 4: strategy.over_selection is 0.9; must be in [1, 4]"},
    {"strategy: {server_learning_rate: 0}\n",
     "line 4: strategy.server_learning_rate is 0; must be in (0, 10]"},
    {"strategy: {round_deadline: 10d}\n",
     "line 4: strategy.round_deadline is 10d; must be in 1s..7d"},
    {"strategy: {round_deadline: 999ms}\n",
     "line 4: strategy.round_deadline is 999ms; must be in 1s..7d"},
    {"strategy: {round_deadline: 300}\n",
     "line 4: strategy.round_deadline is 300; must be a duration such as "
     "250ms, 90s, 5m, 2h or 1d"},
    {"strategy: {round_deadline: 5 minutes}\n",
     "line 4: strategy.round_deadline is 5 minutes; must be a duration such "
     "as 250ms, 90s, 5m, 2h or 1d"},
    {"strategy: {round_deadline: -5m}\n",
     "line 4: strategy.round_deadline is -5m; must be a duration such as "
     "250ms, 90s, 5m, 2h or 1d"},
    {"strategy: {round_deadline: 1.5h}\n",
     "line 4: strategy.round_deadline is 1.5h; must be a duration such as "
     "250ms, 90s, 5m, 2h or 1d"},
    {"strategy: {round_deadline: 9223372036854775807d}\n",
     "line 4: strategy.round_deadline is 9223372036854775807d; must be a "
     "duration such as 250ms, 90s, 5m, 2h or 1d"},
    {"strategy: {selection_window: 8d}\n",
     "line 4: strategy.selection_window is 8d; must be in 0s..7d"},
    {"personalize: {tensors: \"^head\"}\n",
     "line 4: personalize.tensors is the text '^head'; must be a list"},
    {"personalize: {tensors: [\"(\"]}\n",
     "line 4: personalize.tensors[0] is '('; must be an ECMAScript regular "
     "expression (unbalanced brackets, a stray operator or an unknown "
     "escape)"},
    {"personalize:\n  tensors:\n    - a\n    - [b]\n",
     "line 7: personalize.tensors[1] is a list; must be text"},
    {"personalize: {on_new_base: keep}\n",
     "line 4: personalize.on_new_base is keep; did you mean "
     "keep_if_better?"},
    {"personalize: {start: person}\n",
     "line 4: personalize.start is person; did you mean personal?"},
    {"personalize: {start: personal, proximal_mu: 0.1}\n",
     "line 4: personalize.proximal_mu pulls to the global model, which start: "
     "personal does not begin with"},
    {"personalize: {proximal_mu: -0.1}\n",
     "line 4: personalize.proximal_mu is -0.1; must be in [0, 1000]"},
    {"personalize: {baseline_alone: yes}\n",
     "line 4: personalize.baseline_alone is yes; must be true or false"},
    {"personalize: {baseline_alone: 'true'}\n",
     "line 4: personalize.baseline_alone is the text 'true'; must be true or "
     "false"},
    {"personalize:\n",
     "line 4: personalize is empty; must be a mapping of keys to values"},
    {"evaluate: {mode: maximum}\n",
     "line 4: evaluate.mode is maximum; did you mean max?"},
    {"evaluate: {every: -1}\n",
     "line 4: evaluate.every is -1; must be in 0..1000000"},
    {"evaluate: {devices: 10001}\n",
     "line 4: evaluate.devices is 10001; must be in 0..10000"},
    {"evaluate: {deadline: 8d}\n",
     "line 4: evaluate.deadline is 8d; must be in 0s..7d"},
    {"evaluate: {source: both}\n",
     "line 4: evaluate.source is both; must be one of devices, server"},
    {"evaluate: {data_set: Held}\n",
     "line 4: evaluate.data_set is 'Held'; must be 1..64 of a-z, 0-9, _, - "
     "and ."},
    {"evaluate: {stop_condition: accuracy is 1}\n",
     "line 4: evaluate.stop_condition is 'accuracy is 1'; must be METRIC >= "
     "NUMBER (or >, <=, <)"},
    {"evaluate: {patience: 1000001}\n",
     "line 4: evaluate.patience is 1000001; must be in 0..1000000"},
    {"evaluate: {min_delta: -1}\n",
     "line 4: evaluate.min_delta is -1; must be in [0, 1e+09]"},
    {"strategy: {asynchronous: {}}\n",
     "line 4: strategy.asynchronous.concurrency is missing"},
    {"strategy: {asynchronous: {concurrency: 0}}\n",
     "line 4: strategy.asynchronous.concurrency is 0; must be in 1..10000"},
    {"strategy: {asynchronous: {concurrency: 5, max_staleness: -1}}\n",
     "line 4: strategy.asynchronous.max_staleness is -1; must be in 0..10000"},
    {"strategy: {over_selection: 1.5, asynchronous: {concurrency: 5}}\n",
     "line 4: strategy.over_selection: an asynchronous task draws no cohort; "
     "asynchronous.concurrency says how many devices work at a time"},
    {"strategy: {measure_drop_out: 1}\n",
     "line 4: strategy.measure_drop_out is 1; must be true or false"},
    {"strategy: {asynchronous: {concurrency: 5}, selection_window: 5s}\n",
     "line 4: strategy.selection_window: an asynchronous task draws no cohort; "
     "asynchronous.concurrency says how many devices work at a time"},
    {"evaluate: {devices: 5}\n",
     "line 4: evaluate.devices is for evaluation rounds, and evaluate.every "
     "is 0"},
    {"evaluate: {every: 1, deadline: 10ms}\n",
     "line 4: evaluate.deadline (10ms) is below 1s"},
    {"evaluate: {every: 1}\ndata: {holdout: 0}\n",
     "line 4: evaluate.every is 1 and data.holdout is 0: there is nothing to "
     "evaluate on"},
    {"evaluate: {every: 1, devices: 4, min_devices: 5}\n",
     "line 4: evaluate.min_devices (5) exceeds evaluate.devices (4)"},
    {"evaluate: {every: 1, devices: 4}\nprivacy: {min_cohort: 5}\n",
     "line 5: privacy.min_cohort (5) exceeds evaluate.min_devices (4)"},
    {"evaluate: {stop_condition: accuracy >= 1, mode: min}\n",
     "line 4: evaluate.stop_condition (accuracy >= 1) does not go with mode "
     "min"},
    {"evaluate: {stop_condition: accuracy >= 1, key_metric: f1}\n",
     "line 4: evaluate.stop_condition is about accuracy, evaluate.key_metric "
     "is f1"},
    {"evaluate: {key_metric: F1}\n",
     "line 4: evaluate.key_metric is 'F1'; must be 1..64 of a-z, 0-9 and _"},
    {"update: {max_abs: {default: 0}}\n",
     "line 4: update.max_abs.default is 0; must be in (0, 16777216]"},
    {"update: {max_abs: {buffer_float: 16777217}}\n",
     "line 4: update.max_abs.buffer_float is 16777217; must be in (0, "
     "16777216]"},
    {"update: {max_abs: 8}\n",
     "line 4: update.max_abs is 8; must be a mapping of keys to values"},
    {"update: {weight_cap: 65536}\n",
     "line 4: update.weight_cap is 65536; must be in 1..65535"},
    {"privacy: {clip: {}}\n", "line 4: privacy.clip.norm is missing"},
    {"privacy: {clip: 1.0}\n",
     "line 4: privacy.clip is 1.0; must be a mapping of keys to values"},
    {"privacy: {clip: {norm: 0}}\n",
     "line 4: privacy.clip.norm is 0; must be in (0, 1e+09]"},
    {"privacy: {clip: {norm: -1}}\n",
     "line 4: privacy.clip.norm is -1; must be in (0, 1e+09]"},
    {"privacy: {clip: {norm: 1, per_layer: true}}\n",
     "line 4: privacy.clip.per_layer is not a key here; the keys are norm"},
    {"conditions: {min_battery: 1.5}\n",
     "line 4: conditions.min_battery is 1.5; must be in [0, 1]"},
    {"conditions: {charging: 1}\n",
     "line 4: conditions.charging is 1; must be true or false"},
    {"privacy: {min_cohort: 0}\n",
     "line 4: privacy.min_cohort is 0; must be in 1..10000"},
    {"data: {collection: My Photos}\n",
     "line 4: data.collection is 'My Photos'; must be 1..64 of a-z, 0-9, _ "
     "and -"},
    {"data: {min_examples: 0}\n",
     "line 4: data.min_examples is 0; must be in 1..1000000000"},
    {"data: {holdout: 0.95}\n",
     "line 4: data.holdout is 0.95; must be in [0, 0.9]"},
    {"seed: -1\n",
     "line 4: seed is -1; must be a whole number in 0..18446744073709551615"},
    {"seed: 18446744073709551616\n",
     "line 4: seed is 18446744073709551616; must be a whole number in "
     "0..18446744073709551615"},
    {"initial: weights.bin\n",
     "line 4: initial is 'weights.bin'; must be random, a .safetensors file "
     "or TASK@VERSION"},
    {"initial: task@\n",
     "line 4: initial is 'task@'; must be random, a .safetensors file or "
     "TASK@VERSION"},
    {"initial: .safetensors\n",
     "line 4: initial is '.safetensors'; must be random, a .safetensors file "
     "or TASK@VERSION"},
    {"initial: \"a\\n.safetensors\"\n",
     "line 4: initial is 'a?.safetensors'; must be random, a .safetensors "
     "file or TASK@VERSION"},
};

const Mistake kAcrossFields[] = {
    {"strategy:\n  cohort: 3\n  min_updates: 4\n",
     "line 6: strategy.min_updates (4) exceeds strategy.cohort (3)"},
    {"privacy: {min_cohort: 11}\n",
     "line 4: privacy.min_cohort (11) exceeds strategy.min_updates (10)"},
    {"strategy: {min_updates: 5}\nprivacy:\n  min_cohort: 6\n",
     "line 6: privacy.min_cohort (6) exceeds strategy.min_updates (5)"},
    {"strategy: {round_deadline: 90s, selection_window: 2m}\n",
     "line 4: strategy.selection_window (2m) exceeds strategy.round_deadline "
     "(90s)"},
    {"personalize: {baseline_epochs: 3}\n",
     "line 4: personalize.baseline_epochs needs baseline_alone: true"},
    {"strategy: {name: fedmedian, asynchronous: {concurrency: 20}}\n",
     "line 4: strategy.asynchronous does not go with fedmedian: its protection "
     "compares or bounds updates of one base version"},
    {"strategy: {name: normbound, clipping_norm: 1, asynchronous: "
     "{concurrency: 20}}\n",
     "line 4: strategy.asynchronous does not go with normbound: its protection "
     "compares or bounds updates of one base version"},
    {"strategy: {name: scaffold, population_size: 50, asynchronous: "
     "{concurrency: 20}}\n",
     "line 4: strategy.asynchronous does not go with scaffold: what its "
     "devices declare is about the version they trained from"},
    {"strategy: {name: fednova, asynchronous: {concurrency: 20}}\n",
     "line 4: strategy.asynchronous does not go with fednova: what its devices "
     "declare is about the version they trained from"},
    {"strategy: {asynchronous: {concurrency: 20}}\nevaluate: {every: 5}\n",
     "line 5: evaluate.every is 5, and an evaluation round would hold up what "
     "asynchronous devices send; every version is measured by the hold-outs of "
     "its updates, and evaluate.source: server measures it with `selvage "
     "evaluate`"},
};

const Mistake kSyntax[] = {
    {"train: &a {local_epochs: 2}\n",
     "line 4: anchors and aliases are not allowed here"},
    {"train: *a\n", "line 4: the referenced anchor is not defined"},
    {"seed: &s 5\n", "line 4: anchors and aliases are not allowed here"},
    {"a: [&x 1, *x]\n", "line 4: anchors and aliases are not allowed here"},
    {"seed: !!int 5\n",
     "line 4: the tag 'tag:yaml.org,2002:int' is not allowed here"},
    {"train: !foo {}\n", "line 4: the tag '!foo' is not allowed here"},
    {"? [a]\n: b\n", "line 4: a key must be a word"},
    {"~: b\n", "line 4: an empty key"},
    {"---\nname: u\n", "line 4: there is a second document"},
    {"seed: \x01\n", "line 4: a control character (byte 1)"},
    {"seed: \xff\n", "not valid UTF-8"},
    {"train: {optimizer: {lr: 1}\n", "line 5: end of map flow not found"},
    {"a: " + std::string(20, '[') + std::string(20, ']') + "\n",
     "line 4: nested more than 16 levels deep"},
    {"a: " + std::string(15'000, '[') + std::string(15'000, ']') + "\n",
     "line 4: nested more than 16 levels deep"},
    {"a: " + std::string(30'000, '[') + "\n", "line 4: a key must be a word"},
    {std::string(kTaskFileSizeMax, '#'), "65581 bytes; at most 65536 are read"},
};

INSTANTIATE_TEST_SUITE_P(Keys, TaskFileMistake, ::testing::ValuesIn(kKeys));
INSTANTIATE_TEST_SUITE_P(Unavailable, TaskFileMistake,
                         ::testing::ValuesIn(kUnavailable));
INSTANTIATE_TEST_SUITE_P(Values, TaskFileMistake, ::testing::ValuesIn(kValues));
INSTANTIATE_TEST_SUITE_P(AcrossFields, TaskFileMistake,
                         ::testing::ValuesIn(kAcrossFields));
INSTANTIATE_TEST_SUITE_P(Syntax, TaskFileMistake, ::testing::ValuesIn(kSyntax));

TEST(ParseTaskFile, MissingOrBadName_IsNamed) {
  const Mistake cases[] = {
      {"", "the file is empty"},
      {"\n# nothing\n", "the file is empty"},
      {"just words\n",
       "line 1: the task file is just words; must be a mapping of keys to "
       "values"},
      {"population: demo\nprogram: m.pt\n", "line 1: name is missing"},
      {"name: t\nprogram: m.pt\n", "line 1: population is missing"},
      {"name: t\npopulation: demo\n", "line 1: program is missing"},
      {"name: 1t\npopulation: demo\nprogram: m.pt\n",
       "line 1: name is '1t'; must be 1..64 of a-z, 0-9 and -, starting with "
       "a letter"},
      {"name: t\npopulation: Demo\nprogram: m.pt\n",
       "line 2: population is 'Demo'; must be 1..64 of a-z, 0-9 and -, "
       "starting with a letter"},
      {"name: t\npopulation: demo\nprogram: model.onnx\n",
       "line 3: program is 'model.onnx'; must be a .yaml file, a .pt archive "
       "or native:NAME"},
      {"name: t\npopulation: demo\nprogram: native:LeNet\n",
       "line 3: program is 'native:LeNet'; the name after native: must be "
       "1..64 of a-z, 0-9 and _"},
      {"name: t\npopulation: demo\nprogram: .pt\n",
       "line 3: program is '.pt'; must be a .yaml file, a .pt archive or "
       "native:NAME"},
  };
  for (const Mistake& c : cases) {
    EXPECT_THAT(ParseTaskFile(c.yaml),
                StatusIs(StatusCode::kInvalidArgument, c.message));
  }
}

TaskSpec Valid() { return *ParseTaskFile(kEveryKey); }

TEST(TaskSpec, Validate_RangesAndCrossFields_AreNamed) {
  EXPECT_THAT(Valid().Validate(), IsOk());
  const auto message = [](auto change) {
    TaskSpec spec = Valid();
    change(spec);
    const Status status = spec.Validate();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_EQ(message([](TaskSpec& s) { s.name = ""; }),
            "name is ''; must be 1..64 of a-z, 0-9 and -, starting with a "
            "letter");
  EXPECT_EQ(message([](TaskSpec& s) { s.strategy.cohort = -1; }),
            "strategy.cohort is -1; must be in 1..10000");
  EXPECT_EQ(message([](TaskSpec& s) { s.train.optimizer.lr = NAN; }),
            "train.optimizer.lr is nan; must be in (0, 100]");
  EXPECT_EQ(
      message([](TaskSpec& s) { s.strategy.round_deadline = Duration(7); }),
      "strategy.round_deadline is 7us; must be in 1s..7d");
  EXPECT_EQ(message([](TaskSpec& s) { s.strategy.min_updates = 11; }),
            "strategy.min_updates (11) exceeds strategy.cohort (10)");
  EXPECT_EQ(message([](TaskSpec& s) { s.privacy.min_cohort = 9; }),
            "privacy.min_cohort (9) exceeds strategy.min_updates (8)");
  EXPECT_EQ(message([](TaskSpec& s) { s.train.optimizer.beta1 = 0.5; }),
            "train.optimizer.beta1: sgd has none; adam does");
  EXPECT_EQ(message([](TaskSpec& s) { s.personalize.enabled = false; }),
            "personalize is off but has settings");
  EXPECT_EQ(message([](TaskSpec& s) { s.personalize.tensors.assign(65, "a"); }),
            "personalize.tensors has 65 entries; must have 0..64");
  EXPECT_EQ(
      message([](TaskSpec& s) { s.update.codec = static_cast<CodecName>(6); }),
      "update.codec is 6; is no value of this setting");
  EXPECT_EQ(message([](TaskSpec& s) {
              s.train.optimizer.name = static_cast<OptimizerName>(9);
            }),
            "train.optimizer.name is 9; is no value of this setting");
}

TEST(TaskSpec, SlotCount_IsTheCeilingOfTheDecimalProduct) {
  const struct {
    int cohort;
    double over_selection;
    int slots;
  } cases[] = {{10, 1.3, 13},      {10, 1.0, 10}, {3, 1.3, 4},
               {70, 1.1, 77},      {1, 1.01, 2},  {100, 1.15, 115},
               {10'000, 4, 40'000}};
  for (const auto& c : cases) {
    TaskSpec spec;
    spec.strategy.cohort = c.cohort;
    spec.strategy.over_selection = c.over_selection;
    EXPECT_EQ(spec.SlotCount(), c.slots);
  }
}

TEST(TaskSpec, Asynchronous_IsRead_AndRoundTrips) {
  const auto task = ParseTaskFile(
      "name: u\npopulation: demo\nprogram: m.yaml\n"
      "strategy: {cohort: 10, asynchronous: {concurrency: 30, "
      "max_staleness: 4}}\n");
  ASSERT_THAT(task, IsOk());
  EXPECT_TRUE(task->strategy.asynchronous.enabled);
  EXPECT_EQ(task->strategy.asynchronous.concurrency, 30);
  EXPECT_EQ(task->strategy.asynchronous.max_staleness, 4);
  EXPECT_EQ(task->SlotCount(), 40);
  EXPECT_EQ(task->WeightMax(), kWeightCapMax);
  const auto again = ParseTask(CanonicalJson(*task));
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(*again, *task);
  EXPECT_FALSE(ParseTaskFile(kMinimal)->strategy.asynchronous.enabled);
}

TEST(TaskSpec, MeasureDropOut_HasRoomForTheMostThatCouldBeAskedFor) {
  const auto task = ParseTaskFile(
      "name: u\npopulation: demo\nprogram: m.yaml\n"
      "strategy: {cohort: 10, measure_drop_out: true}\n");
  ASSERT_THAT(task, IsOk());
  EXPECT_TRUE(task->strategy.measure_drop_out);
  EXPECT_EQ(task->SlotCount(), 40);
  EXPECT_EQ(*ParseTask(CanonicalJson(*task)), *task);
}

// By hand: 65535 x w / cap / sqrt(1 + s), rounded.
TEST(TaskSpec, StaleWeight_IsTheFormula_AndNeverZero) {
  TaskSpec spec;
  spec.strategy.asynchronous.enabled = true;
  spec.update.weight_cap = 100;
  EXPECT_EQ(spec.StaleWeight(100, 0), 65'535u);
  EXPECT_EQ(spec.StaleWeight(100, 1), 46'340u);
  EXPECT_EQ(spec.StaleWeight(100, 3), 32'768u);
  EXPECT_EQ(spec.StaleWeight(50, 3), 16'384u);
  EXPECT_EQ(spec.StaleWeight(1, 0), 655u);
  EXPECT_EQ(spec.StaleWeight(101, 0), 65'535u);
  spec.update.weight_cap = 65'535;
  EXPECT_EQ(spec.StaleWeight(1, 10'000), 1u);
}

TEST(TaskSpec, MinUpdates_DefaultsToCohort) {
  TaskSpec spec;
  EXPECT_EQ(spec.MinUpdates(), spec.strategy.cohort);
  spec.strategy.min_updates = 3;
  EXPECT_EQ(spec.MinUpdates(), 3);
}

TEST(StopCondition, Text_IsMetricOperatorNumber) {
  const auto stop = ParseStopCondition("accuracy >= 0.88");
  ASSERT_THAT(stop, IsOk());
  EXPECT_EQ(stop->metric, "accuracy");
  EXPECT_TRUE(stop->IsMet(0.88));
  EXPECT_FALSE(stop->IsMet(0.8799));
  EXPECT_TRUE(ParseStopCondition("loss<1e-3")->IsMet(0.0009));
  EXPECT_FALSE(ParseStopCondition("loss<1e-3")->IsMet(0.001));
  EXPECT_TRUE(ParseStopCondition("loss <= -2")->IsMet(-2));
  EXPECT_FALSE(ParseStopCondition("f1 > 0")->IsMet(0));
  for (const char* text :
       {"", ">= 1", "a 1", "a >=", "a >= b", "a >= 1 2", "a >= 0x1", "a >= nan",
        "a >= inf", "a >= 1e999", "A >= 1", "a => 1", "a >= +1", "a >== 1"}) {
    EXPECT_THAT(ParseStopCondition(text),
                StatusIs(StatusCode::kInvalidArgument))
        << text;
  }
}

TEST(TaskSpec, EvaluationRounds_TakeTheStrategysNumbersUnlessGiven) {
  TaskSpec spec = *ParseTaskFile(kMinimal);
  spec.evaluate.every = 1;
  EXPECT_EQ(spec.EvaluationCohort(), 10);
  EXPECT_EQ(spec.MinEvaluations(), 10);
  EXPECT_EQ(spec.EvaluationSlotCount(), 13);
  EXPECT_EQ(spec.EvaluationDeadline(), std::chrono::minutes(5));
  spec.evaluate.devices = 20;
  spec.evaluate.min_devices = 3;
  spec.evaluate.deadline = std::chrono::seconds(9);
  EXPECT_EQ(spec.EvaluationSlotCount(), 26);
  EXPECT_EQ(spec.MinEvaluations(), 3);
  EXPECT_EQ(spec.EvaluationDeadline(), std::chrono::seconds(9));
}

TEST(TaskJson, CanonicalJson_RoundTrips) {
  for (const TaskSpec& spec : {Valid(), *ParseTaskFile(kMinimal)}) {
    const auto parsed = ParseTask(CanonicalJson(spec));
    ASSERT_THAT(parsed, IsOk());
    EXPECT_EQ(*parsed, spec);
  }
}

constexpr std::string_view kOnTheDevice = R"(
name: t
population: demo
program: model.yaml
train:
  method: fedrep
  head_epochs: 2
  local_steps: 40
  local_steps_min: 10
  optimizer: {name: sgd, momentum: 0.9, nesterov: true}
  proximal_mu: 0.1
  clip_gradient: 5
  lr_schedule: {name: cosine, by: round, warmup: 3, length: 100, lowest: 0.01}
  early_stop: {patience: 3, min_delta: 1e-4}
personalize: {gate: not_lower, optimizer: {name: adamw, weight_decay: 0.01}}
)";

TEST(TaskJson, OnTheDevice_EveryKey_IsReadAndRoundTrips) {
  const auto task = ParseTaskFile(kOnTheDevice);
  ASSERT_THAT(task, IsOk());
  EXPECT_EQ(task->train.method, TrainMethod::kFedRep);
  EXPECT_EQ(task->train.head_epochs, 2);
  EXPECT_EQ(task->train.local_steps, 40);
  EXPECT_EQ(task->train.local_steps_min, 10);
  EXPECT_TRUE(task->train.optimizer.nesterov);
  EXPECT_EQ(task->train.proximal_mu, 0.1);
  EXPECT_EQ(task->train.clip_gradient, 5);
  RateSchedule schedule;
  schedule.name = RateShape::kCosine;
  schedule.by_round = true;
  schedule.warmup = 3;
  schedule.length = 100;
  schedule.lowest = 0.01;
  EXPECT_EQ(task->train.lr_schedule, schedule);
  EXPECT_EQ(task->train.early_stop.patience, 3);
  EXPECT_EQ(task->train.early_stop.min_delta, 1e-4);
  EXPECT_EQ(task->personalize.gate, GateRule::kNotLower);
  EXPECT_EQ(task->personalize.optimizer.name, OptimizerName::kAdamW);
  const auto again = ParseTask(CanonicalJson(*task));
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(*again, *task);
}

TEST(TaskJson, CanonicalJson_Minimal_GoldenBytes) {
  EXPECT_EQ(
      CanonicalJson(*ParseTaskFile(kMinimal)),
      R"({"data":{"collection":"default","holdout":0.2,"min_examples":1},)"
      R"("evaluate":{"key_metric":"","mode":"max"},"initial":"random",)"
      R"("mode":"train","name":"t","population":"demo",)"
      R"("privacy":{"min_cohort":1},"program":"model.yaml","seed":0,)"
      R"("strategy":{"cohort":10,"min_available_nodes":0,"min_updates":0,)"
      R"("name":"fedavg","num_rounds":1,"over_selection":1.3,)"
      R"("round_deadline":300000000,"selection_window":0,)"
      R"("server_learning_rate":1.0},"train":{"batch_size":32,)"
      R"("local_epochs":1,"optimizer":{"lr":0.01,"momentum":0.0,)"
      R"("name":"sgd","weight_decay":0.0}},"update":{"codec":"float16",)"
      R"("max_abs":{"buffer_float":65536.0,"default":8.0},)"
      R"("weight_cap":10000}})");
}

TEST(TaskJson, ParseTask_NotCanonical_Refused) {
  const std::string json = CanonicalJson(Valid());
  EXPECT_THAT(ParseTask(json + " "), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(ParseTask(kMinimal), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(ParseTask("{\"name\":\"t\",\"population\":\"demo\","
                        "\"program\":\"m.pt\"}"),
              StatusIs(StatusCode::kInvalidArgument,
                       ::testing::HasSubstr("is not canonical JSON")));
}

}  // namespace
}  // namespace selvage::plan

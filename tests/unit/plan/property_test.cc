// Round trips of random documents: whatever is valid is written, read back
// equal, and has one canonical form.

#include <cmath>

#include <gtest/gtest.h>
// After gtest.h, whose names it uses.
#include <rapidcheck/gtest.h>

#include "plan/checkpoint.h"
#include "plan/plan.h"
#include "plan/program.h"
#include "plan/task.h"

namespace selvage::plan {
namespace {

int Int(int min, int max) { return *rc::gen::inRange(min, max + 1); }

// Uniform over (min, max], or a round number, or a value of few bits.
double Real(double min, double max) {
  const auto bits = *rc::gen::arbitrary<uint32_t>();
  const double unit = (static_cast<double>(bits) + 1) / 4294967296.0;
  double value = min + unit * (max - min);
  if (*rc::gen::arbitrary<bool>()) {
    value = std::round(value * 1000) / 1000;
  }
  return std::min(std::max(value, std::nextafter(min, max)),
                  std::nextafter(max, min));
}

std::string Word(const char* first, const char* rest, int size_max) {
  const auto pick = [](std::string_view from) {
    return from[static_cast<size_t>(Int(0, static_cast<int>(from.size()) - 1))];
  };
  std::string out(1, pick(first));
  for (int i = Int(0, size_max - 1); i > 0; --i) out += pick(rest);
  return out;
}

std::string Name() { return Word("abcxyz", "abcxyz0189-", 64); }

OptimizerSpec Optimizer() {
  OptimizerSpec s;
  s.lr = Real(0, 100);
  s.weight_decay = Real(0, 1);
  if (*rc::gen::arbitrary<bool>()) {
    s.momentum = Real(0, 1);
    s.nesterov = s.momentum > 0 && *rc::gen::arbitrary<bool>();
  } else {
    s.name = *rc::gen::element(OptimizerName::kAdam, OptimizerName::kAdamW);
    s.beta1 = Real(0, 1);
    s.beta2 = Real(0, 1);
    s.eps = Real(0, 1e-3);
  }
  return s;
}

TrainSpec Train() {
  TrainSpec s = {Int(1, 1000), Int(1, 65536), Optimizer()};
  if (*rc::gen::arbitrary<bool>()) {
    s.method = TrainMethod::kFedRep;
    s.head_epochs = Int(1, 1000);
  }
  if (*rc::gen::arbitrary<bool>()) {
    s.local_epochs = 1;
    s.local_steps = Int(1, 1'000'000);
    s.local_steps_min = Int(0, s.local_steps);
  }
  s.proximal_mu = *rc::gen::element(0.0, 0.25, 1000.0);
  s.clip_gradient = *rc::gen::element(0.0, 1.5, 1e9);
  RateSchedule& r = s.lr_schedule;
  r.by_round = *rc::gen::arbitrary<bool>();
  r.warmup = Int(0, 1'000'000);
  r.name = *rc::gen::element(RateShape::kConstant, RateShape::kStep,
                             RateShape::kCosine);
  if (r.name == RateShape::kStep) {
    r.every = Int(1, 1'000'000);
    r.factor = Real(0, 1);
  }
  if (r.name == RateShape::kCosine) {
    r.length = Int(1, 1'000'000);
    r.lowest = Real(0, 1);
  }
  if (*rc::gen::arbitrary<bool>()) s.early_stop = {Int(1, 1000), Real(0, 10)};
  return s;
}

TaskSpec Task() {
  TaskSpec s;
  s.name = Name();
  s.population = Name();
  s.program =
      *rc::gen::element<std::string>("model.yaml", "a/b.pt", "native:lenet5");
  s.initial =
      *rc::gen::element<std::string>("random", "x.safetensors", "other@17");
  s.seed = *rc::gen::arbitrary<uint64_t>();
  s.train = Train();
  s.strategy.num_rounds = Int(1, 1'000'000);
  s.strategy.cohort = Int(1, 10'000);
  s.strategy.min_updates = Int(0, s.strategy.cohort);
  s.strategy.over_selection = Real(1, 4);
  s.strategy.round_deadline =
      Duration(*rc::gen::inRange<int64_t>(1'000'000, 604'800'000'001));
  s.strategy.selection_window = Duration(
      *rc::gen::inRange<int64_t>(0, s.strategy.round_deadline.count() + 1));
  s.strategy.min_available_nodes = Int(0, 1'000'000);
  s.strategy.server_learning_rate = Real(0, 10);
  s.strategy.name = *rc::gen::element(
      StrategyName::kFedAvg, StrategyName::kFedAvgM, StrategyName::kFedAdam,
      StrategyName::kFedAdagrad, StrategyName::kFedYogi);
  if (s.strategy.name == StrategyName::kFedAvgM) {
    s.strategy.server_momentum = Real(0, 0.999);
    s.strategy.nesterov = *rc::gen::arbitrary<bool>();
  } else if (s.strategy.name != StrategyName::kFedAvg) {
    s.strategy.beta_1 = Real(0, 0.999);
    s.strategy.tau = Real(1e-9, 1);
    if (s.strategy.name != StrategyName::kFedAdagrad) {
      s.strategy.beta_2 = Real(0, 0.999);
    }
  }
  s.personalize.enabled = *rc::gen::arbitrary<bool>();
  if (s.personalize.enabled) {
    s.personalize.tensors =
        *rc::gen::element(std::vector<std::string>{},
                          std::vector<std::string>{"^w", "\"\\.", "[a-z]+$"});
    s.personalize.epochs = Int(1, 1000);
    s.personalize.batch_size = Int(0, 65536);
    s.personalize.optimizer = Optimizer();
    s.personalize.baseline_alone = *rc::gen::arbitrary<bool>();
    s.personalize.on_new_base = *rc::gen::element(
        OnNewBase::kRetrain, OnNewBase::kDiscard, OnNewBase::kKeepIfBetter);
    s.personalize.proximal_mu = *rc::gen::element(0.0, 0.25, 1000.0);
    s.personalize.gate = *rc::gen::element(
        GateRule::kNotWorse, GateRule::kNotLower, GateRule::kBetter);
    if (s.personalize.proximal_mu == 0) {
      s.personalize.start =
          *rc::gen::element(PersonalStart::kBase, PersonalStart::kPersonal);
    }
    if (s.personalize.baseline_alone) {
      s.personalize.baseline_epochs = Int(0, 1000);
    }
  }
  s.evaluate.key_metric = *rc::gen::element<std::string>("", "loss", "f1_10");
  s.evaluate.maximize = *rc::gen::arbitrary<bool>();
  s.evaluate.source =
      *rc::gen::element(KeyMetricSource::kDevices, KeyMetricSource::kServer);
  s.evaluate.data_set = *rc::gen::element<std::string>("default", "a-1_.b");
  s.evaluate.patience = Int(0, 1'000'000);
  s.evaluate.min_delta = *rc::gen::element(0.0, 1e-3, 1e9);
  if (s.evaluate.key_metric == "loss" && !s.evaluate.maximize) {
    s.evaluate.stop_condition = *rc::gen::element<std::string>("", "loss < 1");
  }
  s.update.codec = *rc::gen::element(CodecName::kFloat32, CodecName::kFloat16);
  s.update.max_abs_default = Real(0, 16'777'216);
  s.update.max_abs_buffer_float = Real(0, 16'777'216);
  s.update.weight_cap = Int(1, 65'535);
  s.privacy.min_cohort = Int(1, s.MinUpdates());
  s.privacy.clip_norm = *rc::gen::element(0.0, 1e-3, 1.0, 1e9);
  s.conditions = {*rc::gen::arbitrary<bool>(), *rc::gen::arbitrary<bool>(),
                  *rc::gen::arbitrary<bool>(),
                  *rc::gen::element(0.0, 0.3, 1.0)};
  s.data = {Word("az09_-", "az09_-", 64), Int(1, 1'000'000'000), Real(0, 0.9)};
  return s;
}

TensorTable Table() {
  std::vector<TensorSpec> specs;
  const int count = Int(1, 12);
  for (int i = 0; i < count; ++i) {
    TensorSpec spec;
    spec.name = "m" + std::to_string(i) + "." + Word("aZ_", "aZ_09", 20);
    for (int rank = Int(0, 4); rank > 0; --rank)
      spec.shape.push_back(Int(1, 5));
    spec.role =
        *rc::gen::element(Role::kShared, Role::kBufferFloat, Role::kBufferInt,
                          Role::kPersonal, Role::kFrozen);
    if (spec.role == Role::kBufferInt) {
      spec.dtype = DType::kInt64;
    } else {
      spec.init =
          *rc::gen::element(Init::kZeros, Init::kOnes, Init::kKaimingUniform,
                            Init::kXavierUniform, Init::kNormal);
    }
    specs.push_back(std::move(spec));
  }
  return *TensorTable::Create(std::move(specs));
}

Program AnyProgram() {
  Program p;
  p.kind = *rc::gen::element(ProgramKind::kSource, ProgramKind::kArchive,
                             ProgramKind::kNative);
  switch (p.kind) {
    case ProgramKind::kSource:
      p.source = "x" + *rc::gen::container<std::string>(
                           rc::gen::inRange<char>(1, 127));
      break;
    case ProgramKind::kArchive:
      p.archive_digest.bytes[static_cast<size_t>(Int(0, 31))] = 0xF0;
      p.archive_size_bytes = *rc::gen::inRange<uint64_t>(1, kArchiveSizeMax);
      break;
    case ProgramKind::kNative:
      p.native_name = Word("az_", "az_09", 64);
      break;
  }
  p.table = Table();
  for (int i = Int(1, 16); i > 0; --i) {
    InputSpec input;
    input.name = "in" + std::to_string(i);
    input.dtype =
        *rc::gen::element(DType::kFloat32, DType::kInt64, DType::kUint8);
    for (int rank = Int(0, 4); rank > 0; --rank)
      input.shape.push_back(Int(1, 9));
    p.inputs.push_back(std::move(input));
    p.metrics.push_back("metric_" + std::to_string(i));
  }
  return p;
}

RC_GTEST_PROP(TaskProperty, Json_RandomTask_RoundTrips, ()) {
  const TaskSpec task = Task();
  RC_ASSERT(task.Validate().ok());
  const std::string json = CanonicalJson(task);
  const auto parsed = ParseTask(json);
  RC_ASSERT(parsed.ok());
  RC_ASSERT(*parsed == task);
  RC_ASSERT(CanonicalJson(*parsed) == json);
}

// JSON is YAML, but for durations, which a task file writes with their unit.
RC_GTEST_PROP(TaskProperty, File_RandomTaskAsYaml_RoundTrips, ()) {
  TaskSpec task = Task();
  task.strategy.round_deadline = std::chrono::seconds(Int(1, 604'800));
  task.strategy.selection_window = std::chrono::seconds(1);
  std::string yaml = CanonicalJson(task);
  const auto with_unit = [&yaml](std::string_view key) {
    const size_t at = yaml.find(key) + key.size();
    const size_t end = yaml.find_first_not_of("0123456789", at);
    yaml.replace(end - 6, 6, "s");
  };
  with_unit("\"round_deadline\":");
  with_unit("\"selection_window\":");
  const auto parsed = ParseTaskFile(yaml);
  RC_ASSERT(parsed.ok());
  RC_ASSERT(*parsed == task);
}

RC_GTEST_PROP(PlanProperty, Json_RandomPlan_RoundTrips, ()) {
  const TaskSpec task = Task();
  Plan plan;
  plan.task = task.name;
  plan.population = task.population;
  plan.program_digest.bytes[7] = static_cast<uint8_t>(Int(1, 255));
  plan.train = task.train;
  plan.personalize = task.personalize;
  plan.update = task.update;
  plan.privacy = task.privacy;
  plan.conditions = task.conditions;
  plan.data = task.data;
  plan.key_metric = "loss";
  plan.maximize = task.evaluate.maximize;
  plan.seed = task.seed;
  RC_ASSERT(plan.Validate().ok());
  const std::string json = CanonicalJson(plan);
  const auto parsed = ParsePlan(json);
  RC_ASSERT(parsed.ok());
  RC_ASSERT(*parsed == plan);
  RC_ASSERT(CanonicalJson(*parsed) == json);
}

RC_GTEST_PROP(ProgramProperty, Json_RandomProgram_RoundTrips, ()) {
  const Program program = AnyProgram();
  RC_ASSERT(program.Validate().ok());
  const std::string json = CanonicalJson(program);
  const auto parsed = ParseProgram(json);
  RC_ASSERT(parsed.ok());
  RC_ASSERT(CanonicalJson(*parsed) == json);
  RC_ASSERT(parsed->table == program.table);
  RC_ASSERT(parsed->source == program.source);
  RC_ASSERT(parsed->inputs == program.inputs);
}

RC_GTEST_PROP(CheckpointProperty, RandomTable_BothFormatsRoundTrip, ()) {
  const TensorTable table = Table();
  Checkpoint values =
      InitializeCheckpoint(table, *rc::gen::arbitrary<uint64_t>());
  for (int64_t& value : values.ints) value = *rc::gen::arbitrary<int64_t>();
  const auto master = ParseMaster(table, SerializeMaster(values));
  RC_ASSERT(master.ok());
  RC_ASSERT(*master == values);
  const Bytes file = WriteSafetensors(table, values, {{"k", "v"}});
  const auto read = ReadSafetensors(table, file);
  RC_ASSERT(read.ok());
  RC_ASSERT(*read == values);
}

}  // namespace
}  // namespace selvage::plan

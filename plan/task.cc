#include "plan/task.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "plan/internal/document.h"
#include "plan/internal/fields.h"
#include "plan/internal/sections.h"
#include "plan/internal/text.h"

namespace selvage::plan {
namespace {

using internal::Choice;
using internal::Fields;
using internal::Node;

constexpr Duration kRoundDeadlineMin = std::chrono::seconds(1);
constexpr Duration kRoundDeadlineMax = std::chrono::hours(7 * 24);
constexpr size_t kTaskJsonSizeMax = 256 << 10;

const std::vector<Choice>& Strategies() {
  // In the order of StrategyName, then those that are known but not built.
  static const std::vector<Choice> kChoices = {
      {"fedavg"},        {"fedavgm"},   {"fedadam"},        {"fedadagrad"},
      {"fedyogi"},       {"fedmedian"}, {"fedtrimmedavg"},  {"krum"},
      {"multikrum"},     {"rfa"},       {"normbound"},      {"fednova"},
      {"qfedavg"},       {"scaffold"},  {"fedprox", false}, {"feddyn", false},
      {"fedbuff", false}};
  return kChoices;
}

bool EndsWithOneOf(std::string_view text,
                   std::initializer_list<std::string_view> endings) {
  return std::any_of(
      endings.begin(), endings.end(), [text](std::string_view ending) {
        return text.size() > ending.size() && text.ends_with(ending);
      });
}

std::string ProgramProblem(std::string_view text) {
  constexpr std::string_view kNative = "native:";
  if (text.starts_with(kNative)) {
    const std::string problem =
        internal::WordProblem(text.substr(kNative.size()));
    return problem.empty() ? "" : "the name after native: " + problem;
  }
  if (internal::FilePathProblem(text).empty() &&
      EndsWithOneOf(text, {".yaml", ".yml", ".pt"})) {
    return "";
  }
  return "must be a .yaml file, a .pt archive or native:NAME";
}

std::string InitialProblem(std::string_view text) {
  if (text == "random") return "";
  if (internal::FilePathProblem(text).empty() &&
      EndsWithOneOf(text, {".safetensors"})) {
    return "";
  }
  const size_t at = text.find('@');
  if (at != std::string_view::npos) {
    const std::string_view version = text.substr(at + 1);
    if (internal::NameProblem(text.substr(0, at)).empty() && !version.empty() &&
        version.size() <= 18 &&
        version.find_first_not_of("0123456789") == std::string_view::npos) {
      return "";
    }
  }
  return "must be random, a .safetensors file or TASK@VERSION";
}

std::string KeyMetricProblem(std::string_view text) {
  return text.empty() ? "" : internal::WordProblem(text);
}

constexpr internal::RealBound kServerRate = {0, 10, true, false};
constexpr internal::RealBound kDecay = {0, 1, false, true};
constexpr internal::RealBound kTau = {1e-12, 1};
constexpr internal::RealBound kBeta = {0, 0.5, true, true};
constexpr internal::RealBound kNorm = {0, 1e9, true, false};
constexpr internal::RealBound kFairness = {0, 100};
constexpr internal::RealBound kMaxLoss = {0, 1e6, true, false};
constexpr internal::RealBound kControlMax = {0, 16'777'216, true, false};
constexpr internal::IntBound kPopulation = {1, 1'000'000'000};
constexpr internal::IntBound kIterations = {1, 100};
// An update is compared with every other one: at most (4 x 500)^2 distances.
constexpr int kKrumSlotsMax = 500;

// A key of `strategy:` that only some strategies have.
struct Parameter {
  std::string_view key;
  std::string_view bounds;
  std::string_view default_value;  // "": must be given
  void (*visit)(Fields&, std::string_view key, StrategySpec&);
  bool (*equal)(const StrategySpec&, const StrategySpec&);
};

template <double StrategySpec::*kField, const internal::RealBound& kBound>
constexpr Parameter Real(std::string_view key, std::string_view bounds,
                         std::string_view default_value) {
  return {key, bounds, default_value,
          [](Fields& f, std::string_view k, StrategySpec& s) {
            f.Real(k, kBound, s.*kField);
          },
          [](const StrategySpec& a, const StrategySpec& b) {
            return a.*kField == b.*kField;
          }};
}

template <int StrategySpec::*kField, const internal::IntBound& kBound>
constexpr Parameter Integer(std::string_view key, std::string_view bounds,
                            std::string_view default_value) {
  return {key, bounds, default_value,
          [](Fields& f, std::string_view k, StrategySpec& s) {
            f.Integer(k, kBound, s.*kField);
          },
          [](const StrategySpec& a, const StrategySpec& b) {
            return a.*kField == b.*kField;
          }};
}

constexpr internal::IntBound kNodes = {0, kCohortMax};

constexpr Parameter kMomentum = Real<&StrategySpec::server_momentum, kDecay>(
    "server_momentum", "[0, 1)", "0.9");
constexpr Parameter kNesterov = {
    "nesterov", "true or false", "false",
    [](Fields& f, std::string_view key, StrategySpec& s) {
      f.Bool(key, s.nesterov);
    },
    [](const StrategySpec& a, const StrategySpec& b) {
      return a.nesterov == b.nesterov;
    }};
constexpr Parameter kBeta1 =
    Real<&StrategySpec::beta_1, kDecay>("beta_1", "[0, 1)", "0.9");
constexpr Parameter kBeta2 =
    Real<&StrategySpec::beta_2, kDecay>("beta_2", "[0, 1)", "0.99");
constexpr Parameter kTauParameter =
    Real<&StrategySpec::tau, kTau>("tau", "[1e-12, 1]", "0.001");
constexpr Parameter kTrim =
    Real<&StrategySpec::beta, kBeta>("beta", "(0, 0.5)", "0.2");
constexpr Parameter kMalicious =
    Integer<&StrategySpec::num_malicious_nodes, kNodes>("num_malicious_nodes",
                                                        "0..10000", "");
constexpr Parameter kSelect =
    Integer<&StrategySpec::num_nodes_to_select, kNodes>("num_nodes_to_select",
                                                        "0..10000", "0");
constexpr Parameter kIterationsParameter =
    Integer<&StrategySpec::num_iterations, kIterations>("num_iterations",
                                                        "1..100", "3");
constexpr Parameter kNu =
    Real<&StrategySpec::nu, kTau>("nu", "[1e-12, 1]", "1e-06");
constexpr Parameter kClippingNorm =
    Real<&StrategySpec::clipping_norm, kNorm>("clipping_norm", "(0, 1e9]", "");

constexpr Parameter kQ =
    Real<&StrategySpec::q, kFairness>("q", "[0, 100]", "0.2");
constexpr Parameter kMaxLossParameter =
    Real<&StrategySpec::max_loss, kMaxLoss>("max_loss", "(0, 1e6]", "");
constexpr Parameter kPopulationSize =
    Integer<&StrategySpec::population_size, kPopulation>(
        "population_size", "cohort..1000000000", "");
constexpr Parameter kMaxAbsControl =
    Real<&StrategySpec::max_abs_control, kControlMax>("max_abs_control",
                                                      "(0, 16777216]", "64");

// In the order of their keys' appearance in documents.
constexpr const Parameter* kParameters[] = {
    &kMomentum,
    &kNesterov,
    &kBeta1,
    &kTauParameter,
    &kBeta2,
    &kTrim,
    &kMalicious,
    &kSelect,
    &kNu,
    &kClippingNorm,
    &kIterationsParameter,
    &kQ,
    &kMaxLossParameter,
    &kPopulationSize,
    &kMaxAbsControl,
};

// What there is to know of a strategy besides its formulas.
struct StrategyTraits {
  std::string_view summary;
  std::vector<const Parameter*> parameters;
  // Steps that do not scale with the deltas: no learning rate fits by default.
  bool rate_must_be_given = false;
  bool holds_updates = false;
};

// The one list of all strategies.
StrategyTraits TraitsOf(StrategyName name) {
  switch (name) {
    case StrategyName::kFedAvg:
      return {"weighted mean of the updates (McMahan et al., 2017)", {}};
    case StrategyName::kFedAvgM:
      return {"the mean with server momentum (Hsu et al., 2019)",
              {&kMomentum, &kNesterov}};
    case StrategyName::kFedAdam:
      return {"Adam on the mean (Reddi et al., 2021)",
              {&kBeta1, &kBeta2, &kTauParameter},
              true};
    case StrategyName::kFedAdagrad:
      return {"Adagrad on the mean (Reddi et al., 2021)",
              {&kBeta1, &kTauParameter},
              true};
    case StrategyName::kFedYogi:
      return {"Yogi on the mean (Reddi et al., 2021)",
              {&kBeta1, &kBeta2, &kTauParameter},
              true};
    case StrategyName::kFedMedian:
      return {"median of every coordinate (Yin et al., 2018)", {}, false, true};
    case StrategyName::kFedTrimmedAvg:
      return {"mean of every coordinate without its ends (Yin et al., 2018)",
              {&kTrim},
              false,
              true};
    case StrategyName::kKrum:
      return {"the update nearest to its neighbours (Blanchard et al., 2017)",
              {&kMalicious},
              false,
              true};
    case StrategyName::kMultiKrum:
      return {"mean of the best by Krum's score (Blanchard et al., 2017)",
              {&kMalicious, &kSelect},
              false,
              true};
    case StrategyName::kRfa:
      return {"weighted geometric median (Pillutla et al., 2022)",
              {&kIterationsParameter, &kNu},
              false,
              true};
    case StrategyName::kNormBound:
      return {"weighted mean of updates bounded in norm (Sun et al., 2019)",
              {&kClippingNorm}};
    case StrategyName::kFedNova:
      return {"mean of the updates per local step (Wang et al., 2020)", {}};
    case StrategyName::kQFedAvg:
      return {"mean by the devices' losses, for fairness (Li et al., 2020)",
              {&kQ, &kMaxLossParameter}};
    case StrategyName::kScaffold:
      return {"mean with control variates (Karimireddy et al., 2020)",
              {&kPopulationSize, &kMaxAbsControl}};
  }
  return {};
}

// The keys that only some strategies have.
void VisitParameters(Fields& f, StrategySpec& s) {
  static const StrategySpec kDefault;
  const StrategyTraits traits = TraitsOf(s.name);
  const std::string why = std::string(StrategyNameText(s.name)) + " has none";
  for (const Parameter* parameter : kParameters) {
    if (std::find(traits.parameters.begin(), traits.parameters.end(),
                  parameter) == traits.parameters.end()) {
      f.Inapplicable(parameter->key, why, parameter->equal(s, kDefault));
      continue;
    }
    if (parameter->default_value.empty()) f.Require(parameter->key);
    parameter->visit(f, parameter->key, s);
  }
  if (traits.rate_must_be_given) f.Require("server_learning_rate");
}

void VisitStrategy(Fields& f, StrategySpec& s) {
  static const StrategySpec kDefault;
  int name = static_cast<int>(s.name);
  f.Choose("name", Strategies(), name);
  s.name = static_cast<StrategyName>(name);
  f.OptionalSection("asynchronous", s.asynchronous.enabled, [&](Fields& c) {
    c.Require("concurrency");
    c.Integer("concurrency", {1, kCohortMax}, s.asynchronous.concurrency);
    c.Integer("max_staleness", {0, kCohortMax}, s.asynchronous.max_staleness);
  });
  f.Integer("num_rounds", {1, 1'000'000}, s.num_rounds);
  f.Integer("cohort", {1, kCohortMax}, s.cohort);
  f.Integer("min_updates", {0, kCohortMax}, s.min_updates);
  f.Span("round_deadline", kRoundDeadlineMin, kRoundDeadlineMax,
         s.round_deadline);
  if (s.asynchronous.enabled) {
    constexpr std::string_view kNoDraw =
        "an asynchronous task draws no cohort; asynchronous.concurrency says "
        "how many devices work at a time";
    f.Inapplicable("over_selection", kNoDraw,
                   s.over_selection == kDefault.over_selection);
    f.Inapplicable("measure_drop_out", kNoDraw, !s.measure_drop_out);
    f.Inapplicable("min_available_nodes", kNoDraw, s.min_available_nodes == 0);
    f.Inapplicable("selection_window", kNoDraw,
                   s.selection_window == Duration{});
  } else {
    f.Real("over_selection", {1, kOverSelectionMax}, s.over_selection);
    if (f.Wants(!s.measure_drop_out)) {
      f.Bool("measure_drop_out", s.measure_drop_out);
    }
    f.Integer("min_available_nodes", {0, 1'000'000}, s.min_available_nodes);
    f.Span("selection_window", Duration{}, kRoundDeadlineMax,
           s.selection_window);
  }
  f.Real("server_learning_rate", kServerRate, s.server_learning_rate);
  VisitParameters(f, s);
  f.Unavailable("fraction_train");  // a pull fleet has no fraction to take
}

std::string StopConditionProblem(std::string_view text) {
  return text.empty() || ParseStopCondition(text).ok()
             ? ""
             : "must be METRIC >= NUMBER (or >, <=, <)";
}

std::string DataSetProblem(std::string_view text) {
  const bool fits = !text.empty() && text.size() <= 64 &&
                    std::all_of(text.begin(), text.end(), [](char c) {
                      return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                             c == '_' || c == '-' || c == '.';
                    });
  return fits ? "" : "must be 1..64 of a-z, 0-9, _, - and .";
}

void VisitEvaluate(Fields& f, EvaluateSpec& s) {
  static const std::vector<Choice> kSources = {{"devices"}, {"server"}};
  static const EvaluateSpec kDefault;
  constexpr internal::IntBound kRounds = {0, 1'000'000};
  f.Text("key_metric", KeyMetricProblem, s.key_metric);
  internal::VisitMode(f, s.maximize);
  if (f.Wants(s.every == 0)) f.Integer("every", kRounds, s.every);
  if (f.Wants(s.devices == 0)) {
    f.Integer("devices", {0, kCohortMax}, s.devices);
  }
  if (f.Wants(s.min_devices == 0)) {
    f.Integer("min_devices", {0, kCohortMax}, s.min_devices);
  }
  if (f.Wants(s.deadline == Duration{})) {
    f.Span("deadline", Duration{}, kRoundDeadlineMax, s.deadline);
  }
  if (f.Wants(s.source == kDefault.source)) {
    int source = static_cast<int>(s.source);
    f.Choose("source", kSources, source);
    s.source = static_cast<KeyMetricSource>(source);
  }
  if (f.Wants(s.data_set == kDefault.data_set)) {
    f.Text("data_set", DataSetProblem, s.data_set);
  }
  if (f.Wants(s.stop_condition.empty())) {
    f.Text("stop_condition", StopConditionProblem, s.stop_condition);
  }
  if (f.Wants(s.patience == 0)) f.Integer("patience", kRounds, s.patience);
  if (f.Wants(s.min_delta == 0)) {
    f.Real("min_delta", {0, 1e9}, s.min_delta);
  }
}

// Why the server cannot do with a sum that it cannot look into; "": it can.
std::string SecureSumProblem(const TaskSpec& s) {
  const std::string name(StrategyNameText(s.strategy.name));
  if (s.strategy.asynchronous.enabled) {
    return "strategy.asynchronous weighs an update by its staleness when it "
           "arrives, which secure aggregation hides";
  }
  if (HoldsUpdates(s.strategy.name)) {
    return name +
           " compares individual updates, which secure aggregation hides";
  }
  if (s.strategy.name == StrategyName::kNormBound) {
    return name +
           " measures individual updates, which secure aggregation hides; "
           "privacy.clip bounds them on the device";
  }
  if (s.Contribution().name != ContributionName::kPlain) {
    return name +
           " checks what every device declares, which secure aggregation hides";
  }
  return "";
}

void VisitTask(Fields& f, TaskSpec& s) {
  static const std::vector<Choice> kModes = {
      {"train"}, {"evaluate", false}, {"analyze", false}};
  f.Require("name");
  f.Require("population");
  f.Require("program");
  f.Text("name", internal::NameProblem, s.name);
  f.Text("population", internal::NameProblem, s.population);
  f.Text("program", ProgramProblem, s.program);
  f.Text("initial", InitialProblem, s.initial);
  int mode = 0;
  f.Choose("mode", kModes, mode);
  f.Unsigned("seed", std::numeric_limits<uint64_t>::max(), s.seed);
  f.Section("train", [&](Fields& c) { internal::VisitTrain(c, s.train); });
  f.Section("strategy", [&](Fields& c) { VisitStrategy(c, s.strategy); });
  f.OptionalSection("personalize", s.personalize.enabled, [&](Fields& c) {
    internal::VisitPersonalize(c, s.personalize);
  });
  f.Section("evaluate", [&](Fields& c) { VisitEvaluate(c, s.evaluate); });
  f.Section("update", [&](Fields& c) { internal::VisitUpdate(c, s.update); });
  f.Section("privacy", [&](Fields& c) {
    internal::VisitPrivacy(c, s.privacy, SecureSumProblem(s));
  });
  internal::VisitConditions(f, s.conditions);
  f.Section("data", [&](Fields& c) { internal::VisitData(c, s.data); });
}

std::string Setting(std::string_view key, int value) {
  return std::string(key) + " (" + std::to_string(value) + ")";
}

Status CheckEvaluate(const TaskSpec& s) {
  const EvaluateSpec& e = s.evaluate;
  if (!e.stop_condition.empty()) {
    SELVAGE_ASSIGN_OR_RETURN(const StopCondition stop,
                             ParseStopCondition(e.stop_condition));
    if (!e.key_metric.empty() && stop.metric != e.key_metric) {
      return InvalidArgument("evaluate.stop_condition is about " + stop.metric +
                             ", evaluate.key_metric is " + e.key_metric);
    }
    if (stop.at_least != e.maximize) {
      return InvalidArgument("evaluate.stop_condition (" + e.stop_condition +
                             ") does not go with mode " +
                             (e.maximize ? "max" : "min"));
    }
  }
  if (e.every == 0) {
    const std::string_view key = e.devices != 0             ? "devices"
                                 : e.min_devices != 0       ? "min_devices"
                                 : e.deadline != Duration{} ? "deadline"
                                                            : "";
    if (!key.empty()) {
      return InvalidArgument("evaluate." + std::string(key) +
                             " is for evaluation rounds, and evaluate.every "
                             "is 0");
    }
    return OkStatus();
  }
  if (e.deadline != Duration{} && e.deadline < kRoundDeadlineMin) {
    return InvalidArgument("evaluate.deadline (" +
                           internal::DurationText(e.deadline) + ") is below " +
                           internal::DurationText(kRoundDeadlineMin));
  }
  if (s.data.holdout == 0) {
    return InvalidArgument(
        "evaluate.every is " + std::to_string(e.every) +
        " and data.holdout is 0: there is nothing to evaluate on");
  }
  if (s.MinEvaluations() > s.EvaluationCohort()) {
    return InvalidArgument(Setting("evaluate.min_devices", e.min_devices) +
                           " exceeds " +
                           Setting("evaluate.devices", s.EvaluationCohort()));
  }
  if (s.privacy.min_cohort > s.MinEvaluations()) {
    return InvalidArgument(Setting("privacy.min_cohort", s.privacy.min_cohort) +
                           " exceeds " +
                           Setting("evaluate.min_devices", s.MinEvaluations()));
  }
  return OkStatus();
}

// What does not go together with versions that are made of updates of
// different ages.
Status CheckAsynchronous(const TaskSpec& s) {
  if (!s.strategy.asynchronous.enabled) return OkStatus();
  const std::string name(StrategyNameText(s.strategy.name));
  if (HoldsUpdates(s.strategy.name) ||
      s.strategy.name == StrategyName::kNormBound) {
    return InvalidArgument(
        "strategy.asynchronous does not go with " + name +
        ": its protection compares or bounds updates of one base version");
  }
  if (s.Contribution().name != ContributionName::kPlain) {
    return InvalidArgument(
        "strategy.asynchronous does not go with " + name +
        ": what its devices declare is about the version they trained from");
  }
  if (s.evaluate.every > 0) {
    return InvalidArgument(
        "evaluate.every is " + std::to_string(s.evaluate.every) +
        ", and an evaluation round would hold up what asynchronous devices "
        "send; every version is measured by the hold-outs of its updates, and "
        "evaluate.source: server measures it with `selvage evaluate`");
  }
  return OkStatus();
}

// What a strategy needs of the number of updates it will get at least.
Status CheckStrategy(const TaskSpec& s) {
  const StrategySpec& strategy = s.strategy;
  const std::string name(StrategyNameText(strategy.name));
  const int updates = s.MinUpdates();
  const std::string have = strategy.min_updates == 0
                               ? Setting("strategy.cohort", updates)
                               : Setting("strategy.min_updates", updates);
  const int f = strategy.num_malicious_nodes;
  if (HoldsUpdates(strategy.name) && s.update.codec == CodecName::kTopK) {
    return InvalidArgument(
        "update.codec is top_k, and " + name +
        " compares updates: elements that were not sent would count as zeros");
  }
  switch (strategy.name) {
    case StrategyName::kFedMedian:
    case StrategyName::kRfa:
      if (updates >= 3) return OkStatus();
      return InvalidArgument(have + " is less than 3: " + name +
                             " of fewer updates is no safer than a mean");
    case StrategyName::kFedTrimmedAvg:
      if (strategy.beta * updates >= 1 - 1e-9) return OkStatus();
      return InvalidArgument(
          have + " is too small for strategy.beta (" +
          internal::NumberText(strategy.beta) +
          "): less than one update would be trimmed at each end");
    case StrategyName::kKrum:
    case StrategyName::kMultiKrum:
      if (updates < 2 * f + 3) {
        return InvalidArgument(have + " is less than 2 x " +
                               Setting("strategy.num_malicious_nodes", f) +
                               " + 3 = " + std::to_string(2 * f + 3) +
                               ", which " + name + " needs");
      }
      if (strategy.num_nodes_to_select > updates - f) {
        return InvalidArgument(Setting("strategy.num_nodes_to_select",
                                       strategy.num_nodes_to_select) +
                               " exceeds " + have + " less " +
                               Setting("strategy.num_malicious_nodes", f) +
                               ": attackers would be among the chosen");
      }
      if (s.SlotCount() > kKrumSlotsMax) {
        return InvalidArgument(Setting("strategy.cohort", strategy.cohort) +
                               " x over_selection exceeds " +
                               std::to_string(kKrumSlotsMax) + ": " + name +
                               " compares every update with every other one");
      }
      return OkStatus();
    case StrategyName::kFedAvg:
    case StrategyName::kFedAvgM:
    case StrategyName::kFedAdam:
    case StrategyName::kFedAdagrad:
    case StrategyName::kFedYogi:
    case StrategyName::kNormBound:
    case StrategyName::kFedNova:
    case StrategyName::kQFedAvg:
      return OkStatus();
    case StrategyName::kScaffold:
      if (strategy.population_size >= strategy.cohort) return OkStatus();
      return InvalidArgument(
          Setting("strategy.population_size", strategy.population_size) +
          " is less than " + Setting("strategy.cohort", strategy.cohort) +
          ": it is the number of devices that may ever "
          "take part");
  }
  return OkStatus();
}

Status CheckAcrossFields(const TaskSpec& s) {
  if (s.strategy.min_updates > s.strategy.cohort) {
    return InvalidArgument(
        Setting("strategy.min_updates", s.strategy.min_updates) + " exceeds " +
        Setting("strategy.cohort", s.strategy.cohort));
  }
  if (s.privacy.min_cohort > s.MinUpdates()) {
    return InvalidArgument(Setting("privacy.min_cohort", s.privacy.min_cohort) +
                           " exceeds " +
                           Setting("strategy.min_updates", s.MinUpdates()));
  }
  if (s.strategy.selection_window > s.strategy.round_deadline) {
    return InvalidArgument("strategy.selection_window (" +
                           internal::DurationText(s.strategy.selection_window) +
                           ") exceeds strategy.round_deadline (" +
                           internal::DurationText(s.strategy.round_deadline) +
                           ")");
  }
  SELVAGE_RETURN_IF_ERROR(CheckEvaluate(s));
  SELVAGE_RETURN_IF_ERROR(internal::CheckTrain(s.train));
  SELVAGE_RETURN_IF_ERROR(CheckStrategy(s));
  SELVAGE_RETURN_IF_ERROR(CheckAsynchronous(s));
  SELVAGE_RETURN_IF_ERROR(
      internal::CheckContribution(s.Contribution(), s.train, s.update));
  return internal::CheckPersonalize(s.personalize);
}

// The line of the setting that a message begins with.
int LineOf(const Node& root, std::string_view message) {
  std::string_view path = message.substr(0, message.find(' '));
  const Node* node = &root;
  while (node != nullptr && !path.empty()) {
    const size_t dot = std::min(path.find('.'), path.size());
    node = node->Find(path.substr(0, dot));
    path.remove_prefix(std::min(dot + 1, path.size()));
  }
  return node == nullptr ? 0 : node->key_line;
}

int SlotsFor(int cohort, double over_selection) {
  // 70 x 1.1 is 77.00000000000001 in binary; 77 is meant.
  constexpr double kRounding = 1e-9;
  return static_cast<int>(std::ceil(cohort * over_selection - kRounding));
}

}  // namespace

bool StopCondition::IsMet(double measured) const {
  if (or_equal && measured == value) return true;
  return at_least ? measured > value : measured < value;
}

Result<StopCondition> ParseStopCondition(std::string_view text) {
  const auto refused = [&] {
    return InvalidArgument("stop condition " + internal::Quoted(text) +
                           " is not METRIC >= NUMBER (or >, <=, <)");
  };
  if (text.size() > 128) return refused();
  const size_t op = text.find_first_of("<>");
  if (op == std::string_view::npos || op == 0) return refused();
  StopCondition out;
  out.at_least = text[op] == '>';
  out.or_equal = op + 1 < text.size() && text[op + 1] == '=';
  const auto trim = [](std::string_view part) {
    while (part.starts_with(' ')) part.remove_prefix(1);
    while (part.ends_with(' ')) part.remove_suffix(1);
    return part;
  };
  out.metric = trim(text.substr(0, op));
  if (!internal::WordProblem(out.metric).empty()) return refused();
  // Plain decimal notation, whatever the locale.
  const std::string_view number =
      trim(text.substr(op + (out.or_equal ? 2 : 1)));
  const auto [end, error] =
      std::from_chars(number.data(), number.data() + number.size(), out.value);
  if (error != std::errc() || end != number.data() + number.size() ||
      !std::isfinite(out.value)) {
    return refused();
  }
  return out;
}

std::string_view StrategyNameText(StrategyName name) {
  return Strategies()[static_cast<size_t>(name)].name;
}

bool HoldsUpdates(StrategyName name) { return TraitsOf(name).holds_updates; }

bool IsAdaptive(StrategyName name) {
  // They are the ones whose steps do not scale with the deltas.
  return TraitsOf(name).rate_must_be_given;
}

std::vector<StrategyDescription> DescribeStrategies() {
  std::vector<StrategyDescription> all;
  for (const Choice& choice : Strategies()) {
    if (!choice.available) continue;
    const StrategyTraits traits =
        TraitsOf(static_cast<StrategyName>(all.size()));
    StrategyDescription one{std::string(choice.name),
                            std::string(traits.summary),
                            {{"server_learning_rate", "(0, 10]",
                              traits.rate_must_be_given ? "" : "1"}}};
    for (const Parameter* parameter : traits.parameters) {
      one.parameters.push_back({std::string(parameter->key),
                                std::string(parameter->bounds),
                                std::string(parameter->default_value)});
    }
    all.push_back(std::move(one));
  }
  return all;
}

std::string_view CodecNameText(CodecName codec) {
  switch (codec) {
    case CodecName::kFloat32:
      return "float32";
    case CodecName::kFloat16:
      return "float16";
    case CodecName::kBFloat16:
      return "bfloat16";
    case CodecName::kInt8:
      return "int8";
    case CodecName::kTopK:
      return "top_k";
    case CodecName::kRotatedInt8:
      return "rotated_int8";
  }
  return "";
}

std::string_view ContributionNameText(ContributionName name) {
  switch (name) {
    case ContributionName::kPlain:
      return "plain";
    case ContributionName::kFedNova:
      return "fednova";
    case ContributionName::kQFedAvg:
      return "qfedavg";
    case ContributionName::kScaffold:
      return "scaffold";
  }
  return "";
}

ContributionSpec TaskSpec::Contribution() const {
  switch (strategy.name) {
    case StrategyName::kFedNova:
      return {.name = ContributionName::kFedNova};
    case StrategyName::kQFedAvg:
      return {.name = ContributionName::kQFedAvg,
              .q = strategy.q,
              .max_loss = strategy.max_loss};
    case StrategyName::kScaffold:
      return {.name = ContributionName::kScaffold,
              .max_abs_control = strategy.max_abs_control};
    case StrategyName::kFedAvg:
    case StrategyName::kFedAvgM:
    case StrategyName::kFedAdam:
    case StrategyName::kFedAdagrad:
    case StrategyName::kFedYogi:
    case StrategyName::kFedMedian:
    case StrategyName::kFedTrimmedAvg:
    case StrategyName::kKrum:
    case StrategyName::kMultiKrum:
    case StrategyName::kRfa:
    case StrategyName::kNormBound:
      break;
  }
  return {};
}

int TaskSpec::WeightMax() const {
  if (strategy.asynchronous.enabled) return kWeightCapMax;
  switch (Contribution().name) {
    case ContributionName::kQFedAvg:
      return kWeightCapMax;
    case ContributionName::kScaffold:
      return 1;
    case ContributionName::kPlain:
    case ContributionName::kFedNova:
      break;
  }
  return update.weight_cap;
}

Status TaskSpec::Validate() const {
  TaskSpec copy = *this;
  SELVAGE_RETURN_IF_ERROR(
      internal::CheckFields([&](Fields& f) { VisitTask(f, copy); }));
  return CheckAcrossFields(*this);
}

uint32_t TaskSpec::StaleWeight(uint32_t weight, uint64_t staleness) const {
  // Division and square root are exact to the last bit on every machine.
  const double fraction =
      static_cast<double>(weight) / static_cast<double>(update.weight_cap);
  const double scaled = kWeightCapMax * std::min(1.0, fraction) /
                        std::sqrt(1.0 + static_cast<double>(staleness));
  return std::max(1u, static_cast<uint32_t>(std::lround(scaled)));
}

int TaskSpec::SlotCount() const {
  if (strategy.asynchronous.enabled) {
    return strategy.asynchronous.concurrency + strategy.cohort;
  }
  return SlotsFor(strategy.cohort, strategy.measure_drop_out
                                       ? kOverSelectionMax
                                       : strategy.over_selection);
}

int TaskSpec::EvaluationCohort() const {
  return evaluate.devices == 0 ? strategy.cohort : evaluate.devices;
}

int TaskSpec::EvaluationSlotCount() const {
  return SlotsFor(EvaluationCohort(), strategy.over_selection);
}

int TaskSpec::MinEvaluations() const {
  return evaluate.min_devices == 0 ? EvaluationCohort() : evaluate.min_devices;
}

Duration TaskSpec::EvaluationDeadline() const {
  return evaluate.deadline == Duration{} ? strategy.round_deadline
                                         : evaluate.deadline;
}

int TaskSpec::MinUpdates() const {
  return strategy.min_updates == 0 ? strategy.cohort : strategy.min_updates;
}

Result<TaskSpec> ParseTaskFile(std::string_view yaml) {
  SELVAGE_ASSIGN_OR_RETURN(const Node root,
                           internal::ParseYaml(yaml, kTaskFileSizeMax));
  TaskSpec spec;
  SELVAGE_RETURN_IF_ERROR(internal::ReadFields(
      root, "the task file", [&](Fields& f) { VisitTask(f, spec); }));
  const Status status = CheckAcrossFields(spec);
  if (!status.ok()) {
    return internal::ErrorAt(LineOf(root, status.message()),
                             std::string(status.message()));
  }
  return spec;
}

std::string CanonicalJson(const TaskSpec& spec) {
  TaskSpec copy = spec;
  return internal::WriteFields([&](Fields& f) { VisitTask(f, copy); });
}

Result<TaskSpec> ParseTask(std::string_view json) {
  SELVAGE_ASSIGN_OR_RETURN(const Node root,
                           internal::ParseJson(json, kTaskJsonSizeMax));
  TaskSpec spec;
  SELVAGE_RETURN_IF_ERROR(internal::ReadFields(
      root, "the task", [&](Fields& f) { VisitTask(f, spec); }));
  SELVAGE_RETURN_IF_ERROR(CheckAcrossFields(spec));
  SELVAGE_RETURN_IF_ERROR(
      internal::RequireCanonical(json, CanonicalJson(spec), "the task"));
  return spec;
}

}  // namespace selvage::plan

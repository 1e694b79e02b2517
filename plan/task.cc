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
  static const std::vector<Choice> kChoices = {{"fedavg"},
                                               {"fedavgm"},
                                               {"fedadam"},
                                               {"fedadagrad"},
                                               {"fedyogi"},
                                               {"fedprox", false},
                                               {"fednova", false},
                                               {"scaffold", false},
                                               {"feddyn", false},
                                               {"qfedavg", false},
                                               {"fedbuff", false},
                                               {"fedmedian", false},
                                               {"fedtrimmedavg", false},
                                               {"krum", false},
                                               {"multikrum", false}};
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

bool IsAdaptive(StrategyName name) {
  switch (name) {
    case StrategyName::kFedAvg:
    case StrategyName::kFedAvgM:
      return false;
    case StrategyName::kFedAdam:
    case StrategyName::kFedAdagrad:
    case StrategyName::kFedYogi:
      return true;
  }
  return false;
}

// The keys that only some strategies have.
void VisitServerOptimizer(Fields& f, StrategySpec& s) {
  static const StrategySpec kDefault;
  const std::string why = std::string(StrategyNameText(s.name)) + " has none";
  if (s.name == StrategyName::kFedAvgM) {
    f.Real("server_momentum", kDecay, s.server_momentum);
    f.Bool("nesterov", s.nesterov);
  } else {
    f.Inapplicable("server_momentum", why,
                   s.server_momentum == kDefault.server_momentum);
    f.Inapplicable("nesterov", why, s.nesterov == kDefault.nesterov);
  }
  if (IsAdaptive(s.name)) {
    f.Require("server_learning_rate");
    f.Real("beta_1", kDecay, s.beta_1);
    f.Real("tau", kTau, s.tau);
  } else {
    f.Inapplicable("beta_1", why, s.beta_1 == kDefault.beta_1);
    f.Inapplicable("tau", why, s.tau == kDefault.tau);
  }
  if (IsAdaptive(s.name) && s.name != StrategyName::kFedAdagrad) {
    f.Real("beta_2", kDecay, s.beta_2);
  } else {
    f.Inapplicable("beta_2", why, s.beta_2 == kDefault.beta_2);
  }
}

void VisitStrategy(Fields& f, StrategySpec& s) {
  int name = static_cast<int>(s.name);
  f.Choose("name", Strategies(), name);
  s.name = static_cast<StrategyName>(name);
  f.Integer("num_rounds", {1, 1'000'000}, s.num_rounds);
  f.Integer("cohort", {1, kCohortMax}, s.cohort);
  f.Integer("min_updates", {0, kCohortMax}, s.min_updates);
  f.Real("over_selection", {1, kOverSelectionMax}, s.over_selection);
  f.Span("round_deadline", kRoundDeadlineMin, kRoundDeadlineMax,
         s.round_deadline);
  f.Integer("min_available_nodes", {0, 1'000'000}, s.min_available_nodes);
  f.Span("selection_window", Duration{}, kRoundDeadlineMax, s.selection_window);
  f.Real("server_learning_rate", kServerRate, s.server_learning_rate);
  VisitServerOptimizer(f, s);
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
  f.Section("privacy",
            [&](Fields& c) { internal::VisitPrivacy(c, s.privacy); });
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

std::vector<StrategyDescription> DescribeStrategies() {
  const StrategyParameter rate = {"server_learning_rate", "(0, 10]", "1"};
  const StrategyParameter given_rate = {"server_learning_rate", "(0, 10]", ""};
  const StrategyParameter beta_1 = {"beta_1", "[0, 1)", "0.9"};
  const StrategyParameter beta_2 = {"beta_2", "[0, 1)", "0.99"};
  const StrategyParameter tau = {"tau", "[1e-12, 1]", "0.001"};
  std::vector<StrategyDescription> all;
  for (const Choice& choice : Strategies()) {
    if (!choice.available) continue;
    StrategyDescription one{std::string(choice.name), "", {}};
    switch (static_cast<StrategyName>(all.size())) {
      case StrategyName::kFedAvg:
        one.summary = "weighted mean of the updates (McMahan et al., 2017)";
        one.parameters = {rate};
        break;
      case StrategyName::kFedAvgM:
        one.summary = "the mean with server momentum (Hsu et al., 2019)";
        one.parameters = {rate,
                          {"server_momentum", "[0, 1)", "0.9"},
                          {"nesterov", "true or false", "false"}};
        break;
      case StrategyName::kFedAdam:
        one.summary = "Adam on the mean (Reddi et al., 2021)";
        one.parameters = {given_rate, beta_1, beta_2, tau};
        break;
      case StrategyName::kFedAdagrad:
        one.summary = "Adagrad on the mean (Reddi et al., 2021)";
        one.parameters = {given_rate, beta_1, tau};
        break;
      case StrategyName::kFedYogi:
        one.summary = "Yogi on the mean (Reddi et al., 2021)";
        one.parameters = {given_rate, beta_1, beta_2, tau};
        break;
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

Status TaskSpec::Validate() const {
  TaskSpec copy = *this;
  SELVAGE_RETURN_IF_ERROR(
      internal::CheckFields([&](Fields& f) { VisitTask(f, copy); }));
  return CheckAcrossFields(*this);
}

int TaskSpec::SlotCount() const {
  return SlotsFor(strategy.cohort, strategy.over_selection);
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

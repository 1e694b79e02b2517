#include "plan/task.h"

#include <algorithm>
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

void VisitEvaluate(Fields& f, EvaluateSpec& s) {
  f.Text("key_metric", KeyMetricProblem, s.key_metric);
  internal::VisitMode(f, s.maximize);
  f.Unavailable("stop_condition");
  f.Unavailable("patience");
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

}  // namespace

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
  return codec == CodecName::kFloat32 ? "float32" : "float16";
}

Status TaskSpec::Validate() const {
  TaskSpec copy = *this;
  SELVAGE_RETURN_IF_ERROR(
      internal::CheckFields([&](Fields& f) { VisitTask(f, copy); }));
  return CheckAcrossFields(*this);
}

int TaskSpec::SlotCount() const {
  // 70 x 1.1 is 77.00000000000001 in binary; 77 is meant.
  constexpr double kRounding = 1e-9;
  return static_cast<int>(
      std::ceil(strategy.cohort * strategy.over_selection - kRounding));
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

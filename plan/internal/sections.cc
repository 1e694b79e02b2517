#include "plan/internal/sections.h"

#include <algorithm>
#include <limits>

#include "plan/internal/text.h"
#include "plan/tensor_match.h"

namespace selvage::plan::internal {
namespace {

constexpr IntBound kEpochs{1, 1000};
constexpr IntBound kBatchSize{1, 65536};
constexpr IntBound kBatchSizeOrInherit{0, 65536};
constexpr IntBound kEpochsOrDefault{0, 1000};
constexpr IntBound kStepCount{1, 1'000'000};
constexpr IntBound kStepCountOrNone{0, 1'000'000};
constexpr RealBound kRateFactor{0, 1, true, false};
constexpr RealBound kLowestRate{0, 1};
constexpr RealBound kMinDelta{0, 1e6};
constexpr RealBound kClipGradient{0, 1e9};
constexpr RealBound kLearningRate{0, 100, true, false};
constexpr RealBound kDecayRate{0, 1, false, true};
constexpr RealBound kEpsilon{0, 1, true, false};
constexpr RealBound kWeightDecay{0, 1};
constexpr RealBound kProximalMu{0, 1000};
constexpr RealBound kMaxAbs{0, 16'777'216, true, false};
constexpr RealBound kTopK{0, 0.5, true, false};
constexpr RealBound kHoldout{0, 0.9};
constexpr RealBound kClipNorm{0, 1e9, true, false};
constexpr RealBound kBattery{0, 1};
constexpr IntBound kExamples{1, 1'000'000'000};
constexpr RealBound kFairness{0, 100};
constexpr RealBound kMaxLoss{0, 1e6, true, false};

const std::vector<Choice>& Optimizers() {  // in the order of OptimizerName
  static const std::vector<Choice> kChoices = {
      {"sgd"}, {"adam"}, {"adamw"}, {"adagrad", false}, {"rmsprop", false}};
  return kChoices;
}

const std::vector<Choice>& Codecs() {  // in the order of CodecName
  static const std::vector<Choice> kChoices = {{"float32"},  {"float16"},
                                               {"bfloat16"}, {"int8"},
                                               {"top_k"},    {"rotated_int8"}};
  return kChoices;
}

const std::vector<Choice>& Methods() {
  static const std::vector<Choice> kChoices = {
      {"fine_tune"},         {"ditto", false}, {"lora", false},
      {"per_fedavg", false}, {"apfl", false},  {"fedrep", false},
      {"knn", false}};
  return kChoices;
}

const std::vector<Choice>& NewBaseRules() {  // in the order of OnNewBase
  static const std::vector<Choice> kChoices = {
      {"retrain"}, {"discard"}, {"keep_if_better"}};
  return kChoices;
}

const std::vector<Choice>& GateRules() {  // in the order of GateRule
  static const std::vector<Choice> kChoices = {
      {"not_worse"}, {"not_lower"}, {"better"}};
  return kChoices;
}

const std::vector<Choice>& Starts() {  // in the order of PersonalStart
  static const std::vector<Choice> kChoices = {{"base"}, {"personal"}};
  return kChoices;
}

void VisitOptimizer(Fields& f, OptimizerSpec& s) {
  static const OptimizerSpec kDefault;
  int name = static_cast<int>(s.name);
  f.Choose("name", Optimizers(), name);
  s.name = static_cast<OptimizerName>(name);
  f.Real("lr", kLearningRate, s.lr);
  f.Real("weight_decay", kWeightDecay, s.weight_decay);
  if (s.name == OptimizerName::kSgd) {
    constexpr std::string_view kWhy = "sgd has none; adam does";
    f.Real("momentum", kDecayRate, s.momentum);
    if (f.Wants(!s.nesterov)) f.Bool("nesterov", s.nesterov);
    f.Inapplicable("beta1", kWhy, s.beta1 == kDefault.beta1);
    f.Inapplicable("beta2", kWhy, s.beta2 == kDefault.beta2);
    f.Inapplicable("eps", kWhy, s.eps == kDefault.eps);
  } else {
    f.Real("beta1", kDecayRate, s.beta1);
    f.Real("beta2", kDecayRate, s.beta2);
    f.Real("eps", kEpsilon, s.eps);
    const std::string name_text =
        s.name == OptimizerName::kAdamW ? "adamw" : "adam";
    f.Inapplicable("momentum",
                   name_text + " has none (its beta1 is the momentum)",
                   s.momentum == kDefault.momentum);
    f.Inapplicable("nesterov", name_text + " has none; sgd does", !s.nesterov);
  }
}

const std::vector<Choice>& TrainMethods() {  // in the order of TrainMethod
  static const std::vector<Choice> kChoices = {{"joint"}, {"fedrep"}};
  return kChoices;
}

const std::vector<Choice>& RateShapes() {  // in the order of RateShape
  static const std::vector<Choice> kChoices = {
      {"constant"}, {"step"}, {"cosine"}, {"linear", false}};
  return kChoices;
}

void VisitRateSchedule(Fields& f, RateSchedule& s) {
  static const std::vector<Choice> kUnits = {{"step"}, {"round"}};
  static const RateSchedule kDefault;
  int name = static_cast<int>(s.name);
  f.Choose("name", RateShapes(), name);
  s.name = static_cast<RateShape>(name);
  int by = s.by_round ? 1 : 0;
  f.Choose("by", kUnits, by);
  s.by_round = by == 1;
  f.Integer("warmup", kStepCountOrNone, s.warmup);
  std::string why = "this shape has none";
  if (s.name == RateShape::kConstant) why = "constant has none";
  if (s.name == RateShape::kStep) why = "step has none";
  if (s.name == RateShape::kCosine) why = "cosine has none";
  if (s.name == RateShape::kStep) {
    f.Require("every");
    f.Integer("every", kStepCount, s.every);
    f.Real("factor", kRateFactor, s.factor);
  } else {
    f.Inapplicable("every", why, s.every == kDefault.every);
    f.Inapplicable("factor", why, s.factor == kDefault.factor);
  }
  if (s.name == RateShape::kCosine) {
    f.Require("length");
    f.Integer("length", kStepCount, s.length);
    f.Real("lowest", kLowestRate, s.lowest);
  } else {
    f.Inapplicable("length", why, s.length == kDefault.length);
    f.Inapplicable("lowest", why, s.lowest == kDefault.lowest);
  }
}

Status CheckNesterov(std::string_view section, const OptimizerSpec& s) {
  if (!s.nesterov || s.momentum > 0) return OkStatus();
  return InvalidArgument(std::string(section) +
                         ".optimizer.nesterov needs a momentum above 0");
}

std::string PatternProblem(std::string_view text) {
  const Status status = CheckPattern(text);
  return status.ok() ? "" : std::string(status.message());
}

}  // namespace

void VisitTrain(Fields& f, TrainSpec& s) {
  f.Integer("local_epochs", kEpochs, s.local_epochs);
  f.Integer("batch_size", kBatchSize, s.batch_size);
  f.Section("optimizer", [&](Fields& o) { VisitOptimizer(o, s.optimizer); });
  // What came later is written only where it is used: older plans keep their
  // bytes.
  if (f.Wants(s.method == TrainMethod::kJoint)) {
    int method = static_cast<int>(s.method);
    f.Choose("method", TrainMethods(), method);
    s.method = static_cast<TrainMethod>(method);
  }
  if (s.method == TrainMethod::kFedRep) {
    f.Require("head_epochs");
    f.Integer("head_epochs", kEpochs, s.head_epochs);
  } else {
    f.Inapplicable("head_epochs", "only fedrep has them", s.head_epochs == 0);
  }
  if (f.Wants(s.local_steps == 0)) {
    f.Integer("local_steps", kStepCountOrNone, s.local_steps);
  }
  if (f.Wants(s.local_steps_min == 0)) {
    f.Integer("local_steps_min", kStepCountOrNone, s.local_steps_min);
  }
  if (f.Wants(s.proximal_mu == 0)) {
    f.Real("proximal_mu", kProximalMu, s.proximal_mu);
  }
  if (f.Wants(s.clip_gradient == 0)) {
    f.Real("clip_gradient", kClipGradient, s.clip_gradient);
  }
  bool scheduled = s.lr_schedule != RateSchedule{};
  f.OptionalSection("lr_schedule", scheduled,
                    [&](Fields& c) { VisitRateSchedule(c, s.lr_schedule); });
  bool stops = s.early_stop != EarlyStop{};
  f.OptionalSection("early_stop", stops, [&](Fields& c) {
    c.Require("patience");
    c.Integer("patience", kEpochs, s.early_stop.patience);
    c.Real("min_delta", kMinDelta, s.early_stop.min_delta);
  });
}

Status CheckTrain(const TrainSpec& s) {
  if (s.local_steps_min > s.local_steps) {
    return InvalidArgument(
        "train.local_steps_min (" + std::to_string(s.local_steps_min) +
        ") exceeds train.local_steps (" + std::to_string(s.local_steps) + ")");
  }
  if (s.local_steps > 0 && s.local_epochs != 1) {
    return InvalidArgument("train.local_steps (" +
                           std::to_string(s.local_steps) +
                           ") takes the place of train.local_epochs (" +
                           std::to_string(s.local_epochs) + "); give one");
  }
  return CheckNesterov("train", s.optimizer);
}

void VisitPersonalize(Fields& f, PersonalizeSpec& s) {
  int method = 0;
  f.Choose("method", Methods(), method);
  f.TextList("tensors", {0, static_cast<int64_t>(kPatternCountMax)},
             PatternProblem, s.tensors);
  f.Integer("epochs", kEpochs, s.epochs);
  f.Integer("batch_size", kBatchSizeOrInherit, s.batch_size);
  f.Section("optimizer", [&](Fields& o) { VisitOptimizer(o, s.optimizer); });
  f.Bool("baseline_alone", s.baseline_alone);
  f.Integer("baseline_epochs", kEpochsOrDefault, s.baseline_epochs);
  if (f.Wants(s.on_new_base == OnNewBase::kRetrain)) {
    int rule = static_cast<int>(s.on_new_base);
    f.Choose("on_new_base", NewBaseRules(), rule);
    s.on_new_base = static_cast<OnNewBase>(rule);
  }
  if (f.Wants(s.proximal_mu == 0)) {
    f.Real("proximal_mu", kProximalMu, s.proximal_mu);
  }
  if (f.Wants(s.gate == GateRule::kNotWorse)) {
    int gate = static_cast<int>(s.gate);
    f.Choose("gate", GateRules(), gate);
    s.gate = static_cast<GateRule>(gate);
  }
  if (f.Wants(s.start == PersonalStart::kBase)) {
    int start = static_cast<int>(s.start);
    f.Choose("start", Starts(), start);
    s.start = static_cast<PersonalStart>(start);
  }
}

Status CheckPersonalize(const PersonalizeSpec& s) {
  if (!s.enabled) {
    if (s != PersonalizeSpec{}) {
      return InvalidArgument("personalize is off but has settings");
    }
    return OkStatus();
  }
  if (s.baseline_epochs != 0 && !s.baseline_alone) {
    return InvalidArgument(
        "personalize.baseline_epochs needs baseline_alone: true");
  }
  if (s.start == PersonalStart::kPersonal && s.proximal_mu != 0) {
    // The term pulls to where training begins, and that would be no longer the
    // global model.
    return InvalidArgument(
        "personalize.proximal_mu pulls to the global model, which start: "
        "personal does not begin with");
  }
  return CheckNesterov("personalize", s.optimizer);
}

void VisitUpdate(Fields& f, UpdateSpec& s) {
  int codec = static_cast<int>(s.codec);
  f.Choose("codec", Codecs(), codec);
  s.codec = static_cast<CodecName>(codec);
  static const UpdateSpec kDefault;
  if (s.codec == CodecName::kTopK) {
    f.Real("top_k", kTopK, s.top_k);
  } else {
    f.Inapplicable("top_k", "it is a parameter of the codec top_k",
                   s.top_k == kDefault.top_k);
  }
  if (s.codec == CodecName::kRotatedInt8) {
    f.Unsigned("rotation_seed", std::numeric_limits<uint64_t>::max(),
               s.rotation_seed);
  } else {
    f.Inapplicable("rotation_seed",
                   "it is a parameter of the codec rotated_int8",
                   s.rotation_seed == kDefault.rotation_seed);
  }
  f.Section("max_abs", [&](Fields& m) {
    m.Real("default", kMaxAbs, s.max_abs_default);
    m.Real("buffer_float", kMaxAbs, s.max_abs_buffer_float);
  });
  f.Integer("weight_cap", {1, kWeightCapMax}, s.weight_cap);
}

void VisitPrivacy(Fields& f, PrivacySpec& s, const std::string& no_secure_sum) {
  f.Integer("min_cohort", {1, kCohortMax}, s.min_cohort);
  if (no_secure_sum.empty()) {
    f.Unavailable("secure_aggregation");
  } else {
    f.Inapplicable("secure_aggregation", no_secure_sum, true);
  }
  // Absent while it is off, so that plans without it keep their bytes.
  bool clips = s.clip_norm != 0;
  f.OptionalSection("clip", clips, [&](Fields& c) {
    c.Require("norm");
    c.Real("norm", kClipNorm, s.clip_norm);
  });
  f.Unavailable("noise_multiplier");
  f.Unavailable("epsilon_budget");
  f.Unavailable("delta");
}

void VisitConditions(Fields& f, ConditionsSpec& s) {
  bool wanted = s != ConditionsSpec{};
  f.OptionalSection("conditions", wanted, [&](Fields& c) {
    c.Bool("charging", s.charging);
    c.Bool("unmetered", s.unmetered);
    c.Bool("idle", s.idle);
    c.Real("min_battery", kBattery, s.min_battery);
  });
}

void VisitData(Fields& f, DataSpec& s) {
  f.Text(
      "collection",
      [](std::string_view text) -> std::string {
        const bool fits =
            !text.empty() && text.size() <= 64 &&
            text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_-") ==
                std::string_view::npos;
        return fits ? "" : "must be 1..64 of a-z, 0-9, _ and -";
      },
      s.collection);
  f.Integer("min_examples", kExamples, s.min_examples);
  f.Real("holdout", kHoldout, s.holdout);
}

void VisitContribution(Fields& f, ContributionSpec& s) {
  static const std::vector<Choice> kChoices = {// as in ContributionName
                                               {"plain"},
                                               {"fednova"},
                                               {"qfedavg"},
                                               {"scaffold"}};
  static const ContributionSpec kDefault;
  bool special = s.name != ContributionName::kPlain;
  f.OptionalSection("contribution", special, [&](Fields& c) {
    c.Require("name");
    int name = static_cast<int>(s.name);
    c.Choose("name", kChoices, name);
    s.name = static_cast<ContributionName>(name);
    const std::string why(ContributionNameText(s.name));
    if (s.name == ContributionName::kQFedAvg) {
      c.Require("q");
      c.Require("max_loss");
      c.Real("q", kFairness, s.q);
      c.Real("max_loss", kMaxLoss, s.max_loss);
    } else {
      c.Inapplicable("q", why + " has none", s.q == kDefault.q);
      c.Inapplicable("max_loss", why + " has none",
                     s.max_loss == kDefault.max_loss);
    }
    if (s.name == ContributionName::kScaffold) {
      c.Require("max_abs_control");
      c.Real("max_abs_control", kMaxAbs, s.max_abs_control);
    } else {
      c.Inapplicable("max_abs_control", why + " has none",
                     s.max_abs_control == kDefault.max_abs_control);
    }
  });
}

Status CheckContribution(const ContributionSpec& contribution,
                         const TrainSpec& train, const UpdateSpec& update) {
  if (contribution.name == ContributionName::kPlain) return OkStatus();
  const std::string name(ContributionNameText(contribution.name));
  if (train.optimizer.name != OptimizerName::kSgd) {
    return InvalidArgument("train.optimizer is not sgd: " + name +
                           " knows what local steps add up to for sgd alone");
  }
  if (contribution.name == ContributionName::kFedNova) {
    if (train.proximal_mu > 0 && train.optimizer.momentum > 0) {
      return InvalidArgument(
          "train.proximal_mu with a momentum: what a local step then counts "
          "may be negative, and fednova divides by the sum");
    }
    if (train.proximal_mu * train.optimizer.lr >= 1) {
      return InvalidArgument(
          "train.proximal_mu (" + NumberText(train.proximal_mu) +
          ") x optimizer.lr (" + NumberText(train.optimizer.lr) +
          ") is not below 1: what a local step counts would be negative, and "
          "fednova divides by the sum");
    }
    return OkStatus();
  }
  static const UpdateSpec kDefault;
  if (update.weight_cap != kDefault.weight_cap) {
    return InvalidArgument(
        "update.weight_cap (" + std::to_string(update.weight_cap) +
        ") has no meaning with " + name + ": it weighs updates by itself");
  }
  if (contribution.name == ContributionName::kQFedAvg) {
    if (update.codec != CodecName::kTopK) return OkStatus();
    return InvalidArgument(
        "update.codec is top_k, and qfedavg weighs every round anew: what is "
        "left out would be sent later with another round's weight");
  }
  if (update.codec == CodecName::kTopK) {
    return InvalidArgument(
        "update.codec is top_k, and scaffold keeps a state of every device "
        "for each element: what is left out of it would be wrong until sent");
  }
  const std::string extra = train.proximal_mu > 0     ? "train.proximal_mu"
                            : train.clip_gradient > 0 ? "train.clip_gradient"
                                                      : "";
  if (extra.empty()) return OkStatus();
  return InvalidArgument(extra +
                         " is not for scaffold: a device tells its gradient "
                         "by how far sgd alone went");
}

void VisitMode(Fields& f, bool& maximize) {
  static const std::vector<Choice> kModes = {{"max"}, {"min"}};
  int mode = maximize ? 0 : 1;
  f.Choose("mode", kModes, mode);
  maximize = mode == 0;
}

std::string NameProblem(std::string_view text) {
  const bool fits =
      !text.empty() && text.size() <= 64 && text[0] >= 'a' && text[0] <= 'z' &&
      text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") ==
          std::string_view::npos;
  return fits ? "" : "must be 1..64 of a-z, 0-9 and -, starting with a letter";
}

std::string WordProblem(std::string_view text) {
  const bool fits =
      !text.empty() && text.size() <= 64 &&
      text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") ==
          std::string_view::npos;
  return fits ? "" : "must be 1..64 of a-z, 0-9 and _";
}

std::string DigestProblem(std::string_view text) {
  const bool fits =
      text.size() == 64 &&
      text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
  return fits ? "" : "must be a SHA-256 as 64 lower-case hexadecimal digits";
}

std::string FilePathProblem(std::string_view text) {
  const bool fits = !text.empty() && text.size() <= 1024 && IsPrintable(text);
  return fits ? "" : "must be 1..1024 printable characters";
}

Status RequireCanonical(std::string_view json, const std::string& canonical,
                        std::string_view what) {
  if (json == canonical) return OkStatus();
  const auto [at, unused] = std::mismatch(json.begin(), json.end(),
                                          canonical.begin(), canonical.end());
  return InvalidArgument(std::string(what) + " is not canonical JSON: byte " +
                         std::to_string(at - json.begin()) +
                         " is not what it would be written as");
}

}  // namespace selvage::plan::internal

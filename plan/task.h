// The task file: what an ML engineer writes. Strict: an unknown key is an error
// that names the nearest one; a key whose feature is not built is refused,
// never ignored (docs/protocol.md).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/time.h"

namespace selvage::plan {

inline constexpr size_t kTaskFileSizeMax = 64 << 10;

inline constexpr int kCohortMax = 10'000;
inline constexpr int kOverSelectionMax = 4;
inline constexpr int kWeightCapMax = 65'535;
// The exact sum (aggregation/exact_sum.h) adds |q| <= 2^31 times a weight, once
// for each update a round can accept: within these bounds it cannot overflow.
static_assert(int64_t{kWeightCapMax} * kCohortMax * kOverSelectionMax <=
              INT64_MAX >> 31);

enum class OptimizerName { kSgd, kAdam, kAdamW };
struct OptimizerSpec {
  OptimizerName name = OptimizerName::kSgd;
  double lr = 0.01;         // (0, 100]
  double momentum = 0;      // sgd; [0, 1)
  double beta1 = 0.9;       // adam, adamw
  double beta2 = 0.999;     // adam, adamw
  double eps = 1e-8;        // adam, adamw
  double weight_decay = 0;  // [0, 1]; adamw's is decoupled
  bool nesterov = false;    // sgd, with momentum above 0
  friend bool operator==(const OptimizerSpec&, const OptimizerSpec&) = default;
};

enum class TrainMethod {
  kJoint,  // everything at once; with personal tensors that is FedPer
  // The personal tensors with the others fixed, then the others with those
  // fixed (Collins et al., "Exploiting Shared Representations for Personalized
  // Federated Learning", 2021).
  kFedRep,
};

// The learning rate is optimizer.lr times a factor of t, which counts local
// steps from 0 in every training, or rounds from 0
// (client/core/rate_schedule.h has the formulas).
enum class RateShape { kConstant, kStep, kCosine };
struct RateSchedule {
  RateShape name = RateShape::kConstant;
  bool by_round = false;  // by: step | round
  int warmup = 0;         // rises linearly over so many; 0..1,000,000
  int every = 0;          // step: 1..1,000,000
  double factor = 0.1;    // step; (0, 1]
  int length = 0;         // cosine: 1..1,000,000
  double lowest = 0;      // cosine; [0, 1]
  friend bool operator==(const RateSchedule&, const RateSchedule&) = default;
};

// Local training ends when `patience` epochs in a row did not lower the least
// mean training loss of an epoch by more than `min_delta`.
struct EarlyStop {
  int patience = 0;      // 1..1000; 0: off
  double min_delta = 0;  // [0, 1e6]
  friend bool operator==(const EarlyStop&, const EarlyStop&) = default;
};

struct TrainSpec {
  int local_epochs = 1;  // 1..1000; fedrep: of the shared tensors
  int batch_size = 32;   // 1..65536
  OptimizerSpec optimizer;
  TrainMethod method = TrainMethod::kJoint;
  int head_epochs = 0;  // fedrep: of the personal tensors; 1..1000
  // So many steps instead of epochs, over as many passes as it takes. With
  // local_steps_min each device draws a number in [local_steps_min,
  // local_steps] for each round. 0..1,000,000; 0: epochs.
  int local_steps = 0;
  int local_steps_min = 0;
  // FedProx (Li et al., 2020): adds mu/2 ||w - w_round||^2 over the shared
  // tensors to the loss. [0, 1000]
  double proximal_mu = 0;
  // The gradient of a step, all tensors together and the proximal term
  // included, is scaled to at most this L2 norm; 0: not. [0, 1e9]
  double clip_gradient = 0;
  RateSchedule lr_schedule = {};
  EarlyStop early_stop = {};
  friend bool operator==(const TrainSpec&, const TrainSpec&) = default;
};

// What the server does with the mean of a round (aggregation/
// server_optimizer.h has the formulas). Documents and stored states hold these
// numbers: append only.
enum class StrategyName {
  kFedAvg,
  kFedAvgM,
  kFedAdam,
  kFedAdagrad,
  kFedYogi,
  kFedMedian,
  kFedTrimmedAvg,
  kKrum,
  kMultiKrum,
  kRfa,
  kNormBound,
  kFedNova,
  kQFedAvg,
  kScaffold,
};
std::string_view StrategyNameText(StrategyName name);  // "fedavg", ...
// Whether the server must see every update by itself (aggregation/robust): they
// are kept, sealed, until the round ends. For the others a sum is enough.
bool HoldsUpdates(StrategyName name);
// Whether it keeps second moments (Reddi et al., 2021).
bool IsAdaptive(StrategyName name);

// Buffered asynchronous aggregation (FedBuff; Nguyen et al., "Federated
// Learning with Buffered Asynchronous Aggregation", 2022): devices train all
// the time, each from the version that was the latest when it began, and every
// `cohort` updates make a version. There is no draw and no round to be in time
// for; what was trained from an older version counts for less.
struct AsynchronousSpec {
  bool enabled = false;
  int concurrency = 0;  // devices at work at a time; 1..10,000; no default
  // Versions that were made since the one an update was trained from, at most;
  // more: it is LATE. 0..10,000
  int max_staleness = 10;
  friend bool operator==(const AsynchronousSpec&,
                         const AsynchronousSpec&) = default;
};

struct StrategySpec {
  StrategyName name = StrategyName::kFedAvg;
  int num_rounds = 1;  // committed rounds; asynchronous: versions; 1..1,000,000
  int cohort = 10;     // the goal: updates per round, or version; 1..10,000
  int min_updates = 0;          // below it the round is ABANDONED; 0: = cohort
  double over_selection = 1.3;  // [1, 4]: assignments per wanted update
  // From the second round on, as many as the drop-out of the last rounds asks
  // for (coordinator/selection.h), at most 4 per wanted update.
  bool measure_drop_out = false;
  Duration round_deadline = std::chrono::minutes(5);  // 1 s .. 7 days
  // SELECTING waits until this many devices checked in (Flower's
  // min_available_nodes); 0: as many as will be assigned.
  int min_available_nodes = 0;
  // ... but no longer than this once min_updates devices did. 0: half of
  // round_deadline.
  Duration selection_window{};
  // (0, 10]. The adaptive strategies have no default: their steps do not scale
  // with the deltas.
  double server_learning_rate = 1.0;
  double server_momentum = 0.9;  // fedavgm; [0, 1)
  bool nesterov = false;         // fedavgm
  double beta_1 = 0.9;           // fedadam, fedadagrad, fedyogi; [0, 1)
  double beta_2 = 0.99;          // fedadam, fedyogi; [0, 1)
  double tau = 1e-3;             // fedadam, fedadagrad, fedyogi; [1e-12, 1]
  double beta = 0.2;             // fedtrimmedavg; (0, 0.5)
  int num_malicious_nodes = 0;   // krum, multikrum: f; no default
  int num_nodes_to_select = 0;   // multikrum: m; 0: all but f
  int num_iterations = 3;        // rfa; 1..100
  double nu = 1e-6;              // rfa; [1e-12, 1]
  double clipping_norm = 0;      // normbound; (0, 1e9]; no default
  double q = 0.2;                // qfedavg; [0, 100]
  double max_loss = 0;           // qfedavg; (0, 1e6]; no default
  int population_size = 0;  // scaffold: N; cohort..1,000,000,000; no default
  double max_abs_control = 64;  // scaffold; (0, 2^24]
  AsynchronousSpec asynchronous;
  friend bool operator==(const StrategySpec&, const StrategySpec&) = default;
};

// What becomes of a personal model when a newer global one arrives.
enum class OnNewBase {
  kRetrain,       // fine-tune the new one
  kDiscard,       // the new global one serves until the next fine-tuning
  kKeepIfBetter,  // fine-tune the new one; unless that is worse than the old
                  // personal tensors on the new base (docs/embedding.md)
};
// When a personal model may serve (client/core/personal_gate.h).
enum class GateRule {
  kNotWorse,  // unless the hold-out proves it worse than the global one
  kNotLower,  // ... and if its mean on the hold-out is not lower
  kBetter,    // only if the hold-out proves it better
};
// What fine-tuning begins with.
enum class PersonalStart {
  kBase,      // the global values
  kPersonal,  // the personal slot and its optimizer, if they are of the same
              // base version; else the global values
};
struct PersonalizeSpec {  // method: fine_tune
  bool enabled = false;
  std::vector<std::string> tensors;  // regexes (search, ECMAScript); empty: all
  int epochs = 1;
  int batch_size = 0;  // 0: that of train
  OptimizerSpec optimizer;
  bool baseline_alone = false;  // also train a local-only model, for reports
  int baseline_epochs = 0;      // 0: 30
  OnNewBase on_new_base = OnNewBase::kRetrain;
  // Adds mu/2 ||w - start||^2 to the loss, which keeps a personal model close
  // to the global one that it starts from (as in Ditto; Li et al., 2021). [0,
  // 1000]
  double proximal_mu = 0;
  GateRule gate = GateRule::kNotWorse;
  PersonalStart start = PersonalStart::kBase;
  friend bool operator==(const PersonalizeSpec&,
                         const PersonalizeSpec&) = default;
};

// Who measures the key metric that decides the best version and the end.
enum class KeyMetricSource {
  kDevices,  // evaluation rounds; without them, the training rounds' hold-outs
  kServer,   // `selvage evaluate`, on a data set of the server's
};
struct EvaluateSpec {
  std::string key_metric;  // one of the program's metrics; "": the first
  bool maximize = true;    // mode: max | min
  // An evaluation round after so many committed training rounds, and after the
  // last; 0: none. Its devices score a version and send metrics alone.
  int every = 0;        // 0..1,000,000
  int devices = 0;      // evaluations wanted; 0: strategy.cohort
  int min_devices = 0;  // below it the round is ABANDONED; 0: = devices
  Duration deadline{};  // 1 s .. 7 days; 0: strategy.round_deadline
  KeyMetricSource source = KeyMetricSource::kDevices;
  std::string data_set = "default";  // that counts with kServer
  // The task ends before its rounds are done: when a measured version meets
  // this, "accuracy >= 0.88" (StopCondition), or when `patience` versions in a
  // row were not better than the best before them by more than `min_delta`.
  std::string stop_condition;  // "": never
  int patience = 0;            // 0..1,000,000; 0: never
  double min_delta = 0;        // [0, 1e9]
  friend bool operator==(const EvaluateSpec&, const EvaluateSpec&) = default;
};

// "METRIC >= NUMBER", or with >, <=, <.
struct StopCondition {
  std::string metric;
  bool at_least = true;  // >= or >
  bool or_equal = true;  // >= or <=
  double value = 0;      // finite

  bool IsMet(double measured) const;
};
// INVALID_ARGUMENT for any other text.
Result<StopCondition> ParseStopCondition(std::string_view text);

// aggregation/codec/codec.h has what they do. Stored and on the wire by number:
// append only.
enum class CodecName {
  kFloat32,
  kFloat16,
  kBFloat16,
  kInt8,
  kTopK,
  kRotatedInt8,
};
inline constexpr CodecName kCodecNames[] = {
    CodecName::kFloat32, CodecName::kFloat16, CodecName::kBFloat16,
    CodecName::kInt8,    CodecName::kTopK,    CodecName::kRotatedInt8};
std::string_view CodecNameText(CodecName codec);  // "float32", "float16", ...
struct UpdateSpec {
  CodecName codec = CodecName::kFloat16;
  double top_k = 0.01;         // top_k: the part of a tensor; (0, 0.5]
  uint64_t rotation_seed = 0;  // rotated_int8
  // Exclusive bounds on |delta| per element and role; (0, 2^24].
  double max_abs_default = 8;
  double max_abs_buffer_float = 65536;
  int weight_cap = 10'000;  // an update weighs min(examples, cap); 1..65,535
  friend bool operator==(const UpdateSpec&, const UpdateSpec&) = default;
};
// What a round's checkpoint is encoded with: float32 where updates are, float16
// otherwise. (Of 16 bits: a base with fewer would cost accuracy every round.)
inline CodecName CheckpointCodec(const UpdateSpec& update) {
  return update.codec == CodecName::kFloat32 ? CodecName::kFloat32
                                             : CodecName::kFloat16;
}

// What a device makes of its delta before it sends it, and what it declares
// beside it (aggregation/contribution.h has the formulas). On the wire by name.
enum class ContributionName {
  kPlain,    // the delta, weighing min(examples, weight_cap)
  kFedNova,  // per local step, with the number of steps
  kQFedAvg,  // weighing by the loss of the model that was received
  // The change of the device's control variate as well, and trained with it.
  kScaffold,
};
inline constexpr ContributionName kContributionNames[] = {
    ContributionName::kPlain, ContributionName::kFedNova,
    ContributionName::kQFedAvg, ContributionName::kScaffold};
std::string_view ContributionNameText(ContributionName name);  // "fednova", ...
struct ContributionSpec {
  ContributionName name = ContributionName::kPlain;
  double q = 0;         // qfedavg
  double max_loss = 0;  // qfedavg
  // scaffold: exclusive bound on |change of a control variate| per element.
  double max_abs_control = 0;
  friend bool operator==(const ContributionSpec&,
                         const ContributionSpec&) = default;
};

struct PrivacySpec {
  int min_cohort = 1;  // <= min_updates
  // clip: {norm: X}: the L2 norm of an update is at most this; 0: not clipped.
  double clip_norm = 0;  // (0, 1e9]
  friend bool operator==(const PrivacySpec&, const PrivacySpec&) = default;
};

// What must hold on a device for as long as it works for the task.
struct ConditionsSpec {
  bool charging = false;
  bool unmetered = false;
  bool idle = false;
  double min_battery = 0;  // [0, 1]
  friend bool operator==(const ConditionsSpec&,
                         const ConditionsSpec&) = default;
};

struct DataSpec {
  std::string collection = "default";  // [a-z0-9_-]{1,64}
  int min_examples = 1;                // devices with fewer decline
  double holdout = 0.2;                // [0, 0.9]
  friend bool operator==(const DataSpec&, const DataSpec&) = default;
};

struct TaskSpec {
  std::string name;        // [a-z0-9-]{1,64}, starts with a letter
  std::string population;  // likewise
  std::string program;     // as written: model.yaml, model.pt, native:NAME
  std::string initial = "random";  // random | FILE.safetensors | TASK@VERSION
  uint64_t seed = 0;
  TrainSpec train;
  StrategySpec strategy;
  PersonalizeSpec personalize;
  EvaluateSpec evaluate;
  UpdateSpec update;
  PrivacySpec privacy;
  ConditionsSpec conditions;
  DataSpec data;

  // Every range above, and what only holds across fields: min_updates <=
  // cohort, privacy.min_cohort <= min_updates, selection_window <=
  // round_deadline, local_steps_min <= local_steps, local_steps instead of
  // local_epochs, nesterov only with momentum, and what the strategy needs of
  // min_updates (docs/strategies.md); likewise for evaluation rounds, which
  // also need a hold-out. INVALID_ARGUMENT names key, value and bound.
  Status Validate() const;

  // Most updates one round can accept: ceil(cohort x over_selection). A slot
  // that is offered again after its device vanished is still one slot. With
  // measure_drop_out: 4 x cohort. Of an asynchronous task: those at work and
  // those of one version.
  int SlotCount() const;
  int MinUpdates() const;  // min_updates, or cohort if that is 0
  // What the strategy wants of devices, and the largest weight they may send:
  // update.weight_cap, but for qfedavg kWeightCapMax and for scaffold 1; in an
  // asynchronous task kWeightCapMax stands for all of it (StaleWeight()).
  ContributionSpec Contribution() const;
  int WeightMax() const;
  // What an update of `weight` (1..update.weight_cap) weighs in a version that
  // was made `staleness` versions after the one it was trained from:
  // max(1, round(65535 x weight / weight_cap / sqrt(1 + staleness))).
  // REQUIRES: strategy.asynchronous.enabled.
  uint32_t StaleWeight(uint32_t weight, uint64_t staleness) const;
  // The same for evaluation rounds.
  int EvaluationCohort() const;
  int EvaluationSlotCount() const;
  int MinEvaluations() const;
  Duration EvaluationDeadline() const;

  friend bool operator==(const TaskSpec&, const TaskSpec&) = default;
};

// A strategy that tasks can name, and the keys of `strategy:` that are its own.
struct StrategyParameter {
  std::string name;
  std::string bounds;         // "[0, 1)"
  std::string default_value;  // "": must be given
};
struct StrategyDescription {
  std::string name;
  std::string summary;  // one line, with the paper
  std::vector<StrategyParameter> parameters;
};
std::vector<StrategyDescription> DescribeStrategies();

// INVALID_ARGUMENT: `line 7: strategy.num_round is not a key here; did you mean
// num_rounds?`; `privacy.delta is not available in this version`. Durations are
// written 90s, 5m, 2h, 1d, 250ms.
Result<TaskSpec> ParseTaskFile(std::string_view yaml);

// The task as one line of canonical JSON, for storage: sorted keys, no white
// space, durations in microseconds. REQUIRES: spec.Validate().ok().
std::string CanonicalJson(const TaskSpec& spec);
// INVALID_ARGUMENT for anything that CanonicalJson does not write.
Result<TaskSpec> ParseTask(std::string_view json);

}  // namespace selvage::plan

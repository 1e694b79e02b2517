#include "client/personalizer.h"

#include <algorithm>
#include <cmath>

#include "base/random.h"
#include "client/base_file.h"
#include "client/core/memory_estimate.h"
#include "client/fine_tuning.h"
#include "client/local_data.h"
#include "client/round_trainer.h"
#include "plan/tensor_match.h"

namespace selvage::client {
namespace {

constexpr int kBaselineEpochs = 30;  // where a plan asks for 0
constexpr size_t kProbesMax = 64;    // examples that values are tried on

// Values that may become the personal slot, and what the gate knows of them.
struct Contender {
  plan::Checkpoint values;
  std::vector<float> scores;  // on the hold-out; empty if there is none
  uint64_t version = 0;       // of the base that they were made for
  bool kept = false;          // from before, not newly fine-tuned
  // Of the fine-tuning that made them, if it is kept.
  std::optional<Bytes> optimizer = {};
};

class Installation {
 public:
  Installation(const VerifiedWork& work, const PersonalizeOptions& options,
               ClientStore& store, TrainableModel& model, CrashGuard& guard,
               const Transport::KeepGoing& keep_going)
      : work_(work),
        plan_(work.plan),
        program_(work.program),
        options_(options),
        store_(store),
        model_(model),
        guard_(guard),
        keep_going_(keep_going),
        tuning_{.plan = work.plan,
                .program = work.program,
                .model = model,
                .store = store,
                .clock = options.clock,
                .events = options.events,
                .progressed = options.progressed} {}

  // Everything but the installation itself.
  Status Prepare(PersonalizeOutcome& out) {
    SELVAGE_ASSIGN_OR_RETURN(
        data_, LoadLocalData(store_, options_.holdout_salt, plan_, program_,
                             DataUse::kLocal));
    SELVAGE_ASSIGN_OR_RETURN(before_, store_.LoadModel(plan_.task));
    StoredModel& stored = out.model;
    stored.task = plan_.task;
    stored.version = options_.version;
    stored.plan_json = work_.plan_json;
    stored.program_digest = plan_.program_digest;
    stored.archive_digest = program_.archive_digest;
    global_digest_ = plan::MasterDigest(work_.base);
    stored.holdout_count = data_.holdout.count;

    if (Status status = Try(work_.base, global_digest_); !status.ok()) {
      if (store_failed_) return status;
      refused_ = WorkRefused{
          .reason = AbandonReason::kProgramRefused,
          .message =
              status.WithContext("version " + std::to_string(options_.version))
                  .ToString()};
      return OkStatus();
    }
    // What the engine cannot do is no reason to have no model.
    if (Status status = Personalize(out); !status.ok()) {
      if (status.code() == StatusCode::kCancelled || store_failed_) {
        return status;
      }
      stored.personal_values.reset();
      stored.personal_optimizer.reset();
      stored.personal_serving = false;
      stored.personal_scores.clear();
      out.personal = false;
      out.training = status;
    }
    if (WantsAlone()) {
      if (Status status = TrainAlone(out); !status.ok()) {
        if (status.code() == StatusCode::kCancelled || store_failed_) {
          return status;
        }
        out.training = status;
      }
    } else if (!options_.with_alone && before_.has_value() &&
               before_->program_digest == plan_.program_digest) {
      // A baseline of the same program outlives a new personalisation.
      stored.alone_values = before_->alone_values;
      stored.alone_scores = before_->alone_scores;
    }
    return OkStatus();
  }

  const std::optional<WorkRefused>& refused() const { return refused_; }

  // What serves until now, to be kept beside the new model; nullopt if it is
  // what serves from now on, or cannot be trusted.
  std::optional<GoodModel> KnownGood(const StoredModel& next) const {
    if (!before_.has_value()) return std::nullopt;
    const Bytes& values = ServingValues(*before_);
    const crypto::Digest wanted = before_->personal_serving
                                      ? before_->personal_digest
                                      : before_->global_digest;
    const crypto::Digest found = crypto::Sha256(values);
    if (values == ServingValues(next) || (!wanted.empty() && wanted != found) ||
        guard_.IsPutAside(found)) {
      return std::nullopt;
    }
    return GoodModel{.task = before_->task,
                     .version = before_->version,
                     .plan_json = before_->plan_json,
                     .program_digest = before_->program_digest,
                     .archive_digest = before_->archive_digest,
                     .values = values,
                     .personal = before_->personal_serving};
  }

 private:
  static const Bytes& ServingValues(const StoredModel& model) {
    return model.personal_serving ? *model.personal_values
                                  : model.global_values;
  }

  // The store answers, or the whole installation fails.
  template <typename T>
  Result<T> FromStore(Result<T> result) {
    store_failed_ = !result.ok();
    return result;
  }

  Result<std::vector<float>> Score(const plan::Checkpoint& values) {
    if (data_.holdout.count == 0) return std::vector<float>();
    SELVAGE_RETURN_IF_ERROR(model_.SetValues(values));
    return model_.Score(data_.holdout);
  }

  // Loads `values` and requires finite outputs.
  Status Try(const plan::Checkpoint& values, const crypto::Digest& digest) {
    if (guard_.IsPutAside(digest)) {
      return FailedPrecondition(
          "these values were put aside: the process died " +
          std::to_string(kDeathsMax) + " times while they were loaded");
    }
    Result<CrashGuard::Scope> scope =
        FromStore(guard_.BeginIfWary(RiskyWork::kActivation, digest));
    if (!scope.ok()) return scope.status();
    SELVAGE_RETURN_IF_ERROR(model_.SetValues(values));
    const ExampleSet& from =
        data_.holdout.count > 0 ? data_.holdout : data_.train;
    const size_t size = program_.inputs.front().SizeBytes();
    const size_t count = std::clamp(from.count, size_t{1}, kProbesMax);
    const Bytes zeros(from.count == 0 ? size : 0);
    const ByteSpan input =
        from.count == 0 ? ByteSpan(zeros)
                        : ByteSpan(from.inputs.front()).first(count * size);
    SELVAGE_ASSIGN_OR_RETURN(const TrainableModel::Prediction outputs,
                             model_.Predict(count, input));
    if (!std::all_of(outputs.values.begin(), outputs.values.end(),
                     [](float v) { return std::isfinite(v); })) {
      return OutOfRange("an output is not finite");
    }
    return OkStatus();
  }

  LocalTraining Training(std::string_view purpose) const {
    LocalTraining training;
    training.seed = DeriveSeed(
        plan_.seed,
        "selvage/v1 " + std::string(purpose) + " " + options_.device_id,
        options_.version);
    training.keep_going = keep_going_;
    training.threads = options_.threads;
    return training;
  }

  bool WantsAlone() const {
    return options_.with_alone && plan_.personalize.baseline_alone;
  }

  // The personal slot goes on being adapted, with its optimizer.
  bool GoesOn() const {
    return plan_.personalize.start == plan::PersonalStart::kPersonal;
  }

  // There was a model, and it was made for other global values.
  bool IsNewBase() const {
    return before_.has_value() &&
           (before_->version != options_.version ||
            before_->program_digest != plan_.program_digest ||
            crypto::Sha256(before_->global_values) != global_digest_);
  }

  // RESOURCE_EXHAUSTED if `training` is estimated to take more than it may.
  Status CheckMemory(size_t examples, const LocalTraining& training,
                     bool keeps_optimizer) const {
    const uint64_t estimate =
        EstimateMemory(program_, {.work = LocalWork::kPersonalize,
                                  .examples = examples + data_.holdout.count,
                                  .holdout = data_.holdout.count,
                                  .archive_size = work_.archive.size(),
                                  .batch_size = training.batch_size,
                                  .optimizer = training.optimizer.name,
                                  .momentum = training.optimizer.momentum != 0,
                                  .proximal = training.proximal_mu != 0,
                                  .keeps_optimizer = keeps_optimizer});
    if (options_.memory_bytes_max == 0 ||
        estimate <= options_.memory_bytes_max) {
      return OkStatus();
    }
    return ResourceExhausted(
        "fine-tuning would take about " + std::to_string(estimate) +
        " bytes of memory, more than the " +
        std::to_string(options_.memory_bytes_max) + " it may");
  }

  // The personal slot, if fine-tuning is to begin with it: of the same base,
  // and nothing that the process died under.
  Result<std::optional<plan::Checkpoint>> SlotToGoOnFrom() {
    std::optional<plan::Checkpoint> none;
    if (!GoesOn() || !before_.has_value() || IsNewBase() ||
        before_->personal_version != options_.version) {
      return none;
    }
    SELVAGE_ASSIGN_OR_RETURN(const std::optional<plan::Checkpoint> slot,
                             Before(/*personal=*/true));
    if (!slot.has_value() ||
        guard_.IsPutAside(crypto::Sha256(*before_->personal_values))) {
      return none;
    }
    SELVAGE_ASSIGN_OR_RETURN(plan::Checkpoint values, OnBase(*slot));
    return std::optional<plan::Checkpoint>(std::move(values));
  }

  // Newly fine-tuned values; nullopt if the plan wants none.
  Result<std::optional<Tuned>> FineTune(PersonalizeOutcome& out) {
    std::optional<Tuned> none;
    if (options_.global_only) return none;
    const bool discard = IsNewBase() && plan_.personalize.on_new_base ==
                                            plan::OnNewBase::kDiscard;
    const bool trains =
        plan_.personalize.enabled && data_.train.count > 0 && !discard;
    const bool may_have_own = program_.table.Has(plan::Role::kPersonal);
    if (!trains && !may_have_own) return none;  // before the base is copied
    bool has_own = false;
    Result<plan::Checkpoint> start =
        FromStore(WithPersonalTensors(store_, plan_.task, plan_.program_digest,
                                      program_.table, work_.base, &has_own));
    if (!start.ok()) return start.status();
    if (!trains) {
      if (has_own) none = Tuned{.values = *std::move(start)};
      return none;
    }
    TuningJob job{.part = TuningPart::kPersonal,
                  .training = Training("personalize"),
                  .keep_optimizer = GoesOn(),
                  .more_to_come = WantsAlone()};
    SELVAGE_ASSIGN_OR_RETURN(std::optional<plan::Checkpoint> slot,
                             SlotToGoOnFrom());
    if (slot.has_value()) {
      // The order of examples is another one each time that it goes on.
      job.training =
          Training("personalize " +
                   crypto::Sha256(*before_->personal_values).ToHex() + " for");
      Result<std::optional<Bytes>> optimizer =
          FromStore(store_.LoadOptimizer(plan_.task));
      if (!optimizer.ok()) return optimizer.status();
      job.optimizer = *std::move(optimizer);
      start = *std::move(slot);
    }
    SELVAGE_ASSIGN_OR_RETURN(
        std::vector<size_t> tensors,
        plan::MatchTensors(program_.table, plan_.personalize.tensors));
    LocalTraining& training = job.training;
    training.epochs = plan_.personalize.epochs;
    training.batch_size = plan_.personalize.batch_size > 0
                              ? plan_.personalize.batch_size
                              : plan_.train.batch_size;
    training.optimizer = plan_.personalize.optimizer;
    training.proximal_mu = plan_.personalize.proximal_mu;
    // Statistics move with the body: only if the whole model is fine-tuned, or
    // a pattern asks for them.
    training.update_buffers =
        plan_.personalize.tensors.empty() ||
        std::any_of(tensors.begin(), tensors.end(), [&](size_t i) {
          const plan::Role role = program_.table.entries()[i].spec.role;
          return role == plan::Role::kBufferFloat ||
                 role == plan::Role::kBufferInt;
        });
    training.trainable = std::move(tensors);
    SELVAGE_RETURN_IF_ERROR(
        CheckMemory(data_.train.count, training, job.keep_optimizer));
    SELVAGE_ASSIGN_OR_RETURN(Tuned tuned,
                             RunTuning(tuning_, job, *start, data_.train));
    out.steps = tuned.steps;
    return std::optional<Tuned>(std::move(tuned));
  }

  // `tensors` (none: all) and those of role `personal` from `from`, the others
  // from the base.
  Result<plan::Checkpoint> OnBase(const plan::Checkpoint& from) const {
    SELVAGE_ASSIGN_OR_RETURN(
        std::vector<size_t> tensors,
        plan::MatchTensors(program_.table, plan_.personalize.tensors));
    const auto& entries = program_.table.entries();
    for (size_t i = 0; i < entries.size(); ++i) {
      // Fine-tuning everything moved the statistics, too.
      const plan::Role role = entries[i].spec.role;
      if (role == plan::Role::kPersonal ||
          (plan_.personalize.tensors.empty() && role != plan::Role::kFrozen)) {
        tensors.push_back(i);
      }
    }
    plan::Checkpoint out = work_.base;
    for (const size_t i : tensors) {
      const auto offset = static_cast<std::ptrdiff_t>(entries[i].offset);
      if (entries[i].spec.dtype == plan::DType::kFloat32) {
        std::copy_n(from.floats.begin() + offset, entries[i].count,
                    out.floats.begin() + offset);
      } else {
        std::copy_n(from.ints.begin() + offset, entries[i].count,
                    out.ints.begin() + offset);
      }
    }
    return out;
  }

  // A slot of the model before, if this program can hold it.
  Result<std::optional<plan::Checkpoint>> Before(bool personal) const {
    std::optional<plan::Checkpoint> none;
    if (!before_.has_value() ||
        before_->program_digest != plan_.program_digest ||
        (personal && !before_->personal_values.has_value())) {
      return none;
    }
    const Bytes& bytes =
        personal ? *before_->personal_values : before_->global_values;
    const crypto::Digest& digest =
        personal ? before_->personal_digest : before_->global_digest;
    if (!digest.empty() && crypto::Sha256(bytes) != digest) return none;
    SELVAGE_ASSIGN_OR_RETURN(plan::Checkpoint values,
                             plan::ParseMaster(program_.table, bytes));
    return std::optional<plan::Checkpoint>(std::move(values));
  }

  // The tried and scored contender.
  Result<Contender> Compete(plan::Checkpoint values, uint64_t version,
                            bool kept) {
    SELVAGE_RETURN_IF_ERROR(Try(values, plan::MasterDigest(values)));
    SELVAGE_ASSIGN_OR_RETURN(std::vector<float> scores, Score(values));
    return Contender{.values = std::move(values),
                     .scores = std::move(scores),
                     .version = version,
                     .kept = kept};
  }

  // The gate with `challenger` in the place of the personal model. Between two
  // personal models it is not_worse, whatever the plan's rule: a newer one must
  // not have to prove itself against one of an older base.
  Result<GateVerdict> Judge(
      const std::vector<float>& challenger, const std::vector<float>& incumbent,
      plan::GateRule rule = plan::GateRule::kNotWorse) const {
    const size_t metrics = program_.metrics.size();
    const auto key = static_cast<size_t>(std::find(program_.metrics.begin(),
                                                   program_.metrics.end(),
                                                   plan_.key_metric) -
                                         program_.metrics.begin());
    if (key >= metrics) {
      return InvalidArgument("key_metric " + plan_.key_metric +
                             " is no metric of the program");
    }
    return JudgePersonal(ScoreColumn(challenger, metrics, key),
                         ScoreColumn(incumbent, metrics, key), plan_.maximize,
                         rule);
  }

  // The best values there are for the personal slot; nullopt: there are none.
  Result<std::optional<Contender>> ChoosePersonal(PersonalizeOutcome& out) {
    std::optional<Contender> chosen;
    Status failed;
    {
      Result<std::optional<Tuned>> tuned = FineTune(out);
      if (tuned.ok() && tuned->has_value()) {
        Result<Contender> contender = Compete(std::move((*tuned)->values),
                                              options_.version, /*kept=*/false);
        if (contender.ok()) {
          chosen = *std::move(contender);
          chosen->optimizer = std::move((*tuned)->optimizer);
        }
        failed = contender.status();
      } else {
        failed = tuned.status();
      }
      if (failed.code() == StatusCode::kCancelled || store_failed_) {
        return failed;
      }
    }
    SELVAGE_ASSIGN_OR_RETURN(const std::optional<plan::Checkpoint> old,
                             Before(/*personal=*/true));
    if (old.has_value() && IsNewBase() &&
        plan_.personalize.on_new_base == plan::OnNewBase::kKeepIfBetter) {
      SELVAGE_ASSIGN_OR_RETURN(plan::Checkpoint moved, OnBase(*old));
      Result<Contender> contender =
          Compete(std::move(moved), options_.version, /*kept=*/true);
      if (store_failed_) return contender.status();
      if (contender.ok()) {
        bool keep = !chosen.has_value();
        if (chosen.has_value()) {
          SELVAGE_ASSIGN_OR_RETURN(const GateVerdict verdict,
                                   Judge(chosen->scores, contender->scores));
          keep = !verdict.personal_serves;
        }
        if (keep) chosen = *std::move(contender);
      }
    }
    out.training = failed;
    const bool same_base = before_.has_value() && !IsNewBase();
    if (!chosen.has_value() && !(old.has_value() && same_base)) return chosen;
    // Never for the worse: against what serves the owner now. Without anything
    // new on the same base, what was there stays.
    if (old.has_value() && (before_->personal_serving || same_base)) {
      Result<Contender> serving =
          Compete(*old, before_->personal_version, /*kept=*/true);
      if (store_failed_) return serving.status();
      if (serving.ok() && GoesOn()) {
        Result<std::optional<Bytes>> optimizer =
            FromStore(store_.LoadOptimizer(plan_.task));
        if (!optimizer.ok()) return optimizer.status();
        serving->optimizer = *std::move(optimizer);
      }
      if (serving.ok() && !chosen.has_value()) {
        chosen = *std::move(serving);
      } else if (serving.ok() && before_->personal_serving) {
        SELVAGE_ASSIGN_OR_RETURN(const GateVerdict verdict,
                                 Judge(chosen->scores, serving->scores));
        if (!verdict.personal_serves) chosen = *std::move(serving);
      }
    }
    return chosen;
  }

  Status Personalize(PersonalizeOutcome& out) {
    const size_t metrics = program_.metrics.size();
    StoredModel& stored = out.model;
    SELVAGE_ASSIGN_OR_RETURN(const std::vector<float> global,
                             Score(work_.base));
    stored.global_scores = ScoreMeans(global, metrics);
    SELVAGE_ASSIGN_OR_RETURN(const std::optional<Contender> personal,
                             ChoosePersonal(out));
    if (!personal.has_value()) return OkStatus();
    SELVAGE_ASSIGN_OR_RETURN(
        out.verdict, Judge(personal->scores, global, plan_.personalize.gate));
    bool serves = out.verdict.personal_serves;
    if (serves && !personal->kept && before_.has_value() &&
        !before_->personal_serving) {
      // The global values that serve now, if they are others than the new ones.
      SELVAGE_ASSIGN_OR_RETURN(const std::optional<plan::Checkpoint> serving,
                               Before(/*personal=*/false));
      if (serving.has_value() && !(*serving == work_.base)) {
        SELVAGE_ASSIGN_OR_RETURN(const std::vector<float> scores,
                                 Score(*serving));
        SELVAGE_ASSIGN_OR_RETURN(
            const GateVerdict verdict,
            Judge(personal->scores, scores, plan_.personalize.gate));
        serves = verdict.personal_serves;
      }
    }
    stored.personal_values = plan::SerializeMaster(personal->values);
    stored.personal_optimizer = personal->optimizer;
    stored.personal_version = personal->version;
    stored.personal_scores = ScoreMeans(personal->scores, metrics);
    stored.personal_serving = serves;
    out.personal = true;
    out.kept = personal->kept;
    return OkStatus();
  }

  Result<plan::Checkpoint> LocalOnly(const ExampleSet& examples,
                                     const plan::Checkpoint& start,
                                     TuningPart part, bool more_to_come) {
    TuningJob job{.part = part,
                  .training = Training("alone"),
                  .more_to_come = more_to_come};
    LocalTraining& training = job.training;
    training.epochs = plan_.personalize.baseline_epochs > 0
                          ? plan_.personalize.baseline_epochs
                          : kBaselineEpochs;
    training.batch_size = plan_.train.batch_size;
    training.optimizer = plan_.train.optimizer;
    SELVAGE_ASSIGN_OR_RETURN(training.trainable,
                             plan::MatchTensors(program_.table, {}));
    SELVAGE_RETURN_IF_ERROR(
        CheckMemory(examples.count, training, /*keeps_optimizer=*/false));
    SELVAGE_ASSIGN_OR_RETURN(Tuned tuned,
                             RunTuning(tuning_, job, start, examples));
    return std::move(tuned.values);
  }

  Status TrainAlone(PersonalizeOutcome& out) {
    Result<ExampleSet> all =
        FromStore(LoadAllExamples(store_, plan_, program_));
    if (!all.ok()) return all.status();
    if (all->count == 0) return OkStatus();
    plan::Checkpoint start =
        plan::InitializeCheckpoint(program_.table, plan_.seed);
    // A frozen backbone came with the model; it is not learned by anybody.
    for (const plan::TensorTable::Entry& entry : program_.table.entries()) {
      if (entry.spec.role != plan::Role::kFrozen) continue;
      const auto offset = static_cast<std::ptrdiff_t>(entry.offset);
      std::copy_n(work_.base.floats.begin() + offset, entry.count,
                  start.floats.begin() + offset);
    }
    const bool scored = data_.holdout.count > 0 && data_.train.count > 0;
    SELVAGE_ASSIGN_OR_RETURN(
        const plan::Checkpoint values,
        LocalOnly(*all, start, TuningPart::kAlone, /*more_to_come=*/scored));
    out.model.alone_values = plan::SerializeMaster(values);
    if (!scored) return OkStatus();
    // That one saw the hold-out; its scores there would be too good.
    SELVAGE_ASSIGN_OR_RETURN(
        const plan::Checkpoint without,
        LocalOnly(data_.train, start, TuningPart::kAloneHoldout,
                  /*more_to_come=*/false));
    SELVAGE_ASSIGN_OR_RETURN(const std::vector<float> scores, Score(without));
    out.model.alone_scores = ScoreMeans(scores, program_.metrics.size());
    return OkStatus();
  }

  const VerifiedWork& work_;
  const plan::Plan& plan_;
  const plan::Program& program_;
  const PersonalizeOptions& options_;
  ClientStore& store_;
  TrainableModel& model_;
  CrashGuard& guard_;
  const Transport::KeepGoing& keep_going_;
  const TuningParts tuning_;
  LocalData data_;
  crypto::Digest global_digest_;  // of the new values
  std::optional<StoredModel> before_;
  std::optional<WorkRefused> refused_;
  bool store_failed_ = false;
};

}  // namespace

Personalized InstallPersonalized(const VerifiedWork& verified,
                                 const PersonalizeOptions& options,
                                 ClientStore& store, ModelHost& host,
                                 CrashGuard& guard,
                                 const Transport::KeepGoing& keep_going) {
  Result<TrainableModel*> model = host.Training(
      verified.plan.program_digest, verified.program, verified.archive);
  if (!model.ok()) {
    return WorkRefused{.reason = AbandonReason::kProgramRefused,
                       .message = model.status().ToString()};
  }
  PersonalizeOutcome out;
  Installation installation(verified, options, store, **model, guard,
                            keep_going);
  if (Status status = installation.Prepare(out); !status.ok()) return status;
  if (installation.refused().has_value()) return *installation.refused();
  if (options.release_base) host.ReleaseTraining();
  out.model.global_values = plan::SerializeMaster(verified.base);
  if (options.release_base) options.release_base();
  const std::optional<GoodModel> good = installation.KnownGood(out.model);
  if (Status status =
          store.InstallModel(out.model, AsBytes(verified.program_json),
                             verified.archive, good ? &*good : nullptr);
      !status.ok()) {
    return status;
  }
  if (out.steps > 0) guard.TrainingSurvived();
  if (Status status = host.Refresh(verified.plan.task); !status.ok()) {
    out.training = status;
  }
  return out;
}

}  // namespace selvage::client

#include "client/personalizer.h"

#include <algorithm>

#include "base/random.h"
#include "client/local_data.h"
#include "client/round_trainer.h"
#include "plan/tensor_match.h"

namespace selvage::client {
namespace {

constexpr int kBaselineEpochs = 30;  // where a plan asks for 0

class Installation {
 public:
  Installation(const VerifiedWork& work, const PersonalizeOptions& options,
               ClientStore& store, TrainableModel& model,
               const Transport::KeepGoing& keep_going)
      : work_(work),
        plan_(work.plan),
        program_(work.program),
        options_(options),
        store_(store),
        model_(model),
        keep_going_(keep_going) {}

  // Everything but the installation itself.
  Status Prepare(PersonalizeOutcome& out) {
    SELVAGE_ASSIGN_OR_RETURN(
        data_, LoadLocalData(store_, options_.holdout_salt, plan_, program_));
    StoredModel& stored = out.model;
    stored.task = plan_.task;
    stored.version = options_.version;
    stored.plan_json = work_.plan_json;
    stored.program_digest = plan_.program_digest;
    stored.archive_digest = program_.archive_digest;
    stored.global_values = plan::SerializeMaster(work_.base);
    stored.holdout_count = data_.holdout.count;

    // What the engine cannot do is no reason to have no model.
    if (Status status = Personalize(out); !status.ok()) {
      if (status.code() == StatusCode::kCancelled || store_failed_) {
        return status;
      }
      stored.personal_values.reset();
      stored.personal_serving = false;
      stored.personal_scores.clear();
      out.personal = false;
      out.training = status;
    }
    if (options_.with_alone && plan_.personalize.baseline_alone) {
      if (Status status = TrainAlone(out); !status.ok()) {
        if (status.code() == StatusCode::kCancelled || store_failed_) {
          return status;
        }
        out.training = status;
      }
    }
    return OkStatus();
  }

 private:
  Result<std::vector<float>> Score(const plan::Checkpoint& values) {
    if (data_.holdout.count == 0) return std::vector<float>();
    SELVAGE_RETURN_IF_ERROR(model_.SetValues(values));
    return model_.Score(data_.holdout);
  }

  LocalTraining Training(std::string_view purpose) const {
    LocalTraining training;
    training.seed = DeriveSeed(
        plan_.seed,
        "selvage/v1 " + std::string(purpose) + " " + options_.device_id,
        options_.version);
    training.keep_going = keep_going_;
    return training;
  }

  // The personal slot's values; nullopt if the plan wants none.
  Result<std::optional<plan::Checkpoint>> FineTune(PersonalizeOutcome& out) {
    std::optional<plan::Checkpoint> none;
    if (options_.global_only) return none;
    bool has_own = false;
    Result<plan::Checkpoint> start =
        WithPersonalTensors(store_, plan_.task, plan_.program_digest,
                            program_.table, work_.base, &has_own);
    store_failed_ = !start.ok();
    if (!start.ok()) return start.status();
    const bool tune = plan_.personalize.enabled && data_.train.count > 0;
    if (!tune) {
      return has_own ? std::optional<plan::Checkpoint>(*std::move(start))
                     : none;
    }
    SELVAGE_ASSIGN_OR_RETURN(
        std::vector<size_t> tensors,
        plan::MatchTensors(program_.table, plan_.personalize.tensors));
    LocalTraining training = Training("personalize");
    training.epochs = plan_.personalize.epochs;
    training.batch_size = plan_.personalize.batch_size > 0
                              ? plan_.personalize.batch_size
                              : plan_.train.batch_size;
    training.optimizer = plan_.personalize.optimizer;
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
    SELVAGE_RETURN_IF_ERROR(model_.SetValues(*start));
    SELVAGE_ASSIGN_OR_RETURN(const TrainingReport report,
                             model_.Train(data_.train, training));
    out.steps = report.steps;
    SELVAGE_ASSIGN_OR_RETURN(plan::Checkpoint values, model_.Values());
    SELVAGE_RETURN_IF_ERROR(plan::ValidateCheckpoint(program_.table, values));
    return std::optional<plan::Checkpoint>(std::move(values));
  }

  Status Personalize(PersonalizeOutcome& out) {
    const size_t metrics = program_.metrics.size();
    StoredModel& stored = out.model;
    SELVAGE_ASSIGN_OR_RETURN(const std::vector<float> global,
                             Score(work_.base));
    stored.global_scores = ScoreMeans(global, metrics);
    SELVAGE_ASSIGN_OR_RETURN(const std::optional<plan::Checkpoint> personal,
                             FineTune(out));
    if (!personal.has_value()) return OkStatus();
    SELVAGE_ASSIGN_OR_RETURN(const std::vector<float> own, Score(*personal));
    const auto key = static_cast<size_t>(std::find(program_.metrics.begin(),
                                                   program_.metrics.end(),
                                                   plan_.key_metric) -
                                         program_.metrics.begin());
    if (key >= metrics) {
      return InvalidArgument("key_metric " + plan_.key_metric +
                             " is no metric of the program");
    }
    SELVAGE_ASSIGN_OR_RETURN(
        out.verdict,
        JudgePersonal(ScoreColumn(own, metrics, key),
                      ScoreColumn(global, metrics, key), plan_.maximize));
    stored.personal_values = plan::SerializeMaster(*personal);
    stored.personal_scores = ScoreMeans(own, metrics);
    stored.personal_serving = out.verdict.personal_serves;
    out.personal = true;
    return OkStatus();
  }

  Status TrainAlone(PersonalizeOutcome& out) {
    Result<ExampleSet> all = LoadAllExamples(store_, plan_, program_);
    store_failed_ = !all.ok();
    if (!all.ok()) return all.status();
    if (all->count == 0) return OkStatus();
    LocalTraining training = Training("alone");
    training.epochs = plan_.personalize.baseline_epochs > 0
                          ? plan_.personalize.baseline_epochs
                          : kBaselineEpochs;
    training.batch_size = plan_.train.batch_size;
    training.optimizer = plan_.train.optimizer;
    SELVAGE_ASSIGN_OR_RETURN(training.trainable,
                             plan::MatchTensors(program_.table, {}));
    plan::Checkpoint start =
        plan::InitializeCheckpoint(program_.table, plan_.seed);
    // A frozen backbone came with the model; it is not learned by anybody.
    for (const plan::TensorTable::Entry& entry : program_.table.entries()) {
      if (entry.spec.role != plan::Role::kFrozen) continue;
      const auto offset = static_cast<std::ptrdiff_t>(entry.offset);
      std::copy_n(work_.base.floats.begin() + offset, entry.count,
                  start.floats.begin() + offset);
    }
    SELVAGE_RETURN_IF_ERROR(model_.SetValues(start));
    SELVAGE_RETURN_IF_ERROR(model_.Train(*all, training).status());
    SELVAGE_ASSIGN_OR_RETURN(const plan::Checkpoint values, model_.Values());
    SELVAGE_RETURN_IF_ERROR(plan::ValidateCheckpoint(program_.table, values));
    out.model.alone_values = plan::SerializeMaster(values);
    return OkStatus();
  }

  const VerifiedWork& work_;
  const plan::Plan& plan_;
  const plan::Program& program_;
  const PersonalizeOptions& options_;
  ClientStore& store_;
  TrainableModel& model_;
  const Transport::KeepGoing& keep_going_;
  LocalData data_;
  bool store_failed_ = false;
};

}  // namespace

Personalized InstallPersonalized(const VerifiedWork& verified,
                                 const PersonalizeOptions& options,
                                 ClientStore& store, ModelHost& host,
                                 const Transport::KeepGoing& keep_going) {
  Result<TrainableModel*> model = host.Training(
      verified.plan.program_digest, verified.program, verified.archive);
  if (!model.ok()) {
    return WorkRefused{.reason = AbandonReason::kProgramRefused,
                       .message = model.status().ToString()};
  }
  PersonalizeOutcome out;
  Installation installation(verified, options, store, **model, keep_going);
  if (Status status = installation.Prepare(out); !status.ok()) return status;
  if (!options.with_alone) {
    // A baseline of the same version outlives a new personalisation.
    Result<std::optional<StoredModel>> before =
        store.LoadModel(verified.plan.task);
    if (!before.ok()) return before.status();
    if (before->has_value() &&
        (*before)->program_digest == out.model.program_digest) {
      out.model.alone_values = std::move((*before)->alone_values);
    }
  }
  if (Status status = store.InstallModel(
          out.model, AsBytes(verified.program_json), verified.archive);
      !status.ok()) {
    return status;
  }
  if (Status status = host.Refresh(verified.plan.task); !status.ok()) {
    out.training = status;
  }
  return out;
}

}  // namespace selvage::client

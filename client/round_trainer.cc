#include "client/round_trainer.h"

#include <algorithm>

#include "client/local_data.h"
#include "plan/tensor_match.h"

namespace selvage::client {
namespace {

bool HasPersonal(const plan::TensorTable& table) {
  return std::any_of(table.entries().begin(), table.entries().end(),
                     [](const plan::TensorTable::Entry& entry) {
                       return entry.spec.role == plan::Role::kPersonal;
                     });
}

// Training errors end the assignment; a cancel does not.
TrainedRound Failed(const Status& status) {
  if (status.code() == StatusCode::kCancelled) return status;
  return WorkRefused{.reason = AbandonReason::kTrainingFailed,
                     .message = status.ToString()};
}

}  // namespace

Result<plan::Checkpoint> WithPersonalTensors(
    ClientStore& store, const std::string& task, const crypto::Digest& program,
    const plan::TensorTable& table, plan::Checkpoint base, bool* found) {
  *found = false;
  if (!HasPersonal(table)) return base;
  SELVAGE_ASSIGN_OR_RETURN(const std::optional<PersonalTensors> kept,
                           store.LoadTensors(task));
  if (!kept.has_value() || kept->program_digest != program) return base;
  SELVAGE_ASSIGN_OR_RETURN(const plan::Checkpoint own,
                           plan::ParseMaster(table, kept->master_values));
  for (const plan::TensorTable::Entry& entry : table.entries()) {
    if (entry.spec.role != plan::Role::kPersonal) continue;
    const auto offset = static_cast<std::ptrdiff_t>(entry.offset);
    std::copy_n(own.floats.begin() + offset, entry.count,
                base.floats.begin() + offset);
  }
  *found = true;
  return base;
}

TrainedRound TrainRound(const SessionWork& work, const VerifiedWork& verified,
                        uint64_t holdout_salt, ClientStore& store,
                        ModelHost& host,
                        const Transport::KeepGoing& keep_going) {
  const plan::Plan& plan = verified.plan;
  const plan::Program& program = verified.program;

  Result<LocalData> data = LoadLocalData(store, holdout_salt, plan, program,
                                         DataUse::kUpload);
  if (!data.ok()) return data.status();
  const auto wanted = static_cast<size_t>(std::max(1, plan.data.min_examples));
  if (data->count < wanted || data->train.count == 0) {
    return WorkRefused{.reason = AbandonReason::kTooFewExamples,
                       .message = "there are " + std::to_string(data->count) +
                                  " examples, the plan wants " +
                                  std::to_string(wanted)};
  }
  Result<TrainableModel*> loaded =
      host.Training(plan.program_digest, program, verified.archive);
  if (!loaded.ok()) {
    return WorkRefused{.reason = AbandonReason::kProgramRefused,
                       .message = loaded.status().ToString()};
  }
  TrainableModel& model = **loaded;

  bool has_own = false;
  Result<plan::Checkpoint> start =
      WithPersonalTensors(store, work.task, plan.program_digest, program.table,
                          verified.base, &has_own);
  if (!start.ok()) return start.status();
  if (Status status = model.SetValues(*start); !status.ok()) {
    return Failed(status);
  }
  std::vector<float> scores;
  if (data->holdout.count > 0) {
    Result<std::vector<float>> scored = model.Score(data->holdout);
    if (!scored.ok()) return Failed(scored.status());
    scores = *std::move(scored);
  }

  Result<std::vector<size_t>> trainable = plan::MatchTensors(program.table, {});
  if (!trainable.ok()) return Failed(trainable.status());
  LocalTraining options;
  options.epochs = plan.train.local_epochs;
  options.batch_size = plan.train.batch_size;
  options.optimizer = plan.train.optimizer;
  options.seed = work.seed;
  options.trainable = *std::move(trainable);
  options.keep_going = keep_going;
  const Result<TrainingReport> report = model.Train(data->train, options);
  if (!report.ok()) return Failed(report.status());
  Result<plan::Checkpoint> trained = model.Values();
  if (!trained.ok()) return Failed(trained.status());

  Result<BuiltUpdate> update =
      BuildUpdate(program, plan,
                  {.base = verified.base,
                   .trained = *trained,
                   .example_count = data->train.count,
                   .holdout_scores = scores,
                   .holdout_count = data->holdout.count});
  if (!update.ok()) {
    if (update.status().code() == StatusCode::kOutOfRange) {
      return WorkRefused{.reason = AbandonReason::kUpdateOutOfRange,
                         .message = std::string(update.status().message())};
    }
    return Failed(update.status());
  }
  RoundUpdate out;
  out.update = *std::move(update);
  if (HasPersonal(program.table) &&
      plan::ValidateCheckpoint(program.table, *trained).ok()) {
    out.tensors =
        PersonalTensors{.task = work.task,
                        .program_digest = plan.program_digest,
                        .master_values = plan::SerializeMaster(*trained)};
  }
  return out;
}

}  // namespace selvage::client

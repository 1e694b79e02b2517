#include "client/round_trainer.h"

#include <algorithm>

#include "client/core/memory_estimate.h"
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

WorkRefused OverMemory(std::string_view what, uint64_t estimate,
                       const RoundOptions& options) {
  return WorkRefused{
      .reason = AbandonReason::kOverBudget,
      .message = std::string(what) + " would take about " +
                 std::to_string(estimate) + " bytes of memory, more than the " +
                 std::to_string(options.memory_bytes_max) + " it may"};
}

// Everything that the result of a training depends on.
crypto::Digest Fingerprint(const SessionWork& work, const plan::Plan& plan,
                           const plan::Checkpoint& start,
                           const ExampleSet& examples, int threads) {
  Bytes text = ToBytes("selvage/v1 training\n");
  const auto add = [&text](ByteSpan bytes) {
    AppendLe(text, static_cast<uint64_t>(bytes.size()));
    AppendBytes(text, bytes);
  };
  add(AsBytes(work.assignment_id));
  add(AsBytes(plan::CanonicalJson(plan)));
  AppendLe(text, work.seed);
  AppendLe(text, static_cast<int64_t>(threads));
  add(crypto::Sha256(plan::SerializeMaster(start)).span());
  AppendLe(text, static_cast<uint64_t>(examples.count));
  for (const Bytes& input : examples.inputs) add(crypto::Sha256(input).span());
  return crypto::Sha256(text);
}

uint64_t StepsOf(const LocalTraining& training, size_t examples) {
  const auto batch = static_cast<uint64_t>(training.batch_size);
  return static_cast<uint64_t>(training.epochs) *
         ((examples + batch - 1) / batch);
}

// model.Train() from the checkpoint that the store has of this training, if it
// has one; `start` are the values that the model has now.
Result<TrainingReport> TrainOrResume(TrainableModel& model,
                                     const plan::Checkpoint& start,
                                     const ExampleSet& examples,
                                     LocalTraining training,
                                     const crypto::Digest& fingerprint,
                                     const RoundOptions& options,
                                     ClientStore& store, RoundFacts& facts) {
  SELVAGE_ASSIGN_OR_RETURN(std::optional<StoredTraining> kept,
                           store.LoadTraining());
  if (kept.has_value() && kept->fingerprint != fingerprint) kept.reset();
  uint64_t had = kept.has_value() ? kept->steps : 0;
  Time saved_at = options.clock.Now();
  training.checkpoint_due = [&] {
    return options.clock.Now() - saved_at >= options.checkpoint_every;
  };
  training.save_checkpoint = [&](TrainingCheckpoint checkpoint) {
    saved_at = options.clock.Now();
    if (checkpoint.steps <= had) return;
    // One that cannot be kept costs its steps, no more.
    const Status saved =
        store.SaveTraining({.fingerprint = fingerprint,
                            .steps = checkpoint.steps,
                            .state = std::move(checkpoint.state)});
    facts.saved = facts.saved || saved.ok();
  };
  const uint64_t steps = StepsOf(training, examples.count);
  uint64_t step = had;
  training.keep_going = [&] {
    if (!options.keep_going()) return false;
    if (options.progress) options.progress(step, steps);
    ++step;
    return true;
  };
  if (!kept.has_value()) return model.Train(examples, training);
  const TrainingCheckpoint from = {.steps = kept->steps,
                                   .state = std::move(kept->state)};
  training.resume = &from;
  Result<TrainingReport> report = model.Train(examples, training);
  if (report.ok() ||
      report.status().code() != StatusCode::kFailedPrecondition) {
    return report;
  }
  // Another engine's, or another version's.
  training.resume = nullptr;
  step = 0;
  had = 0;
  SELVAGE_RETURN_IF_ERROR(model.SetValues(start));
  return model.Train(examples, training);
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
                        const RoundOptions& round, ClientStore& store,
                        ModelHost& host, RoundFacts& facts) {
  const plan::Plan& plan = verified.plan;
  const plan::Program& program = verified.program;

  Result<LocalData> data =
      LoadLocalData(store, round.holdout_salt, plan, program, DataUse::kUpload);
  if (!data.ok()) return data.status();
  const auto wanted = static_cast<size_t>(std::max(1, plan.data.min_examples));
  if (data->count < wanted || data->train.count == 0) {
    return WorkRefused{.reason = AbandonReason::kTooFewExamples,
                       .message = "there are " + std::to_string(data->count) +
                                  " examples, the plan wants " +
                                  std::to_string(wanted)};
  }
  facts.memory_estimate = EstimateTrainingMemory(
      program, {.examples = data->train.count + data->holdout.count,
                .archive_size = verified.archive.size(),
                .batch_size = plan.train.batch_size,
                .optimizer = plan.train.optimizer.name,
                .momentum = plan.train.optimizer.momentum != 0});
  if (round.memory_bytes_max > 0 &&
      facts.memory_estimate > round.memory_bytes_max) {
    return OverMemory("training", facts.memory_estimate, round);
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
  options.threads = round.threads;
  const Result<TrainingReport> report =
      TrainOrResume(model, *start, data->train, std::move(options),
                    Fingerprint(work, plan, *start, data->train, round.threads),
                    round, store, facts);
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

TrainedRound EvaluateRound(const SessionWork& work,
                           const VerifiedWork& verified,
                           const RoundOptions& round, ClientStore& store,
                           ModelHost& host, RoundFacts& facts) {
  const plan::Plan& plan = verified.plan;
  const plan::Program& program = verified.program;
  Result<LocalData> data =
      LoadLocalData(store, round.holdout_salt, plan, program, DataUse::kUpload);
  if (!data.ok()) return data.status();
  const auto wanted = static_cast<size_t>(std::max(1, plan.data.min_examples));
  if (data->count < wanted || data->holdout.count == 0) {
    return WorkRefused{.reason = AbandonReason::kTooFewExamples,
                       .message = "there are " + std::to_string(data->count) +
                                  " examples, " +
                                  std::to_string(data->holdout.count) +
                                  " of them held out; the plan wants " +
                                  std::to_string(wanted)};
  }
  facts.memory_estimate = EstimateTrainingMemory(
      program, {.examples = data->train.count + data->holdout.count,
                .archive_size = verified.archive.size(),
                .batch_size = plan.train.batch_size,
                .optimizer = plan.train.optimizer.name,
                .momentum = plan.train.optimizer.momentum != 0});
  if (round.memory_bytes_max > 0 &&
      facts.memory_estimate > round.memory_bytes_max) {
    return OverMemory("evaluating", facts.memory_estimate, round);
  }
  data->train = ExampleSet{};
  Result<TrainableModel*> loaded =
      host.Training(plan.program_digest, program, verified.archive);
  if (!loaded.ok()) {
    return WorkRefused{.reason = AbandonReason::kProgramRefused,
                       .message = loaded.status().ToString()};
  }
  bool has_own = false;
  const Result<plan::Checkpoint> values =
      WithPersonalTensors(store, work.task, plan.program_digest, program.table,
                          verified.base, &has_own);
  if (!values.ok()) return values.status();
  if (const Status status = (*loaded)->SetValues(*values); !status.ok()) {
    return Failed(status);
  }
  if (!round.keep_going()) return Cancelled("evaluation was stopped");
  const Result<std::vector<float>> scores = (*loaded)->Score(data->holdout);
  if (!scores.ok()) return Failed(scores.status());
  Result<std::vector<aggregation::MetricValue>> metrics =
      MetricsOf(*scores, data->holdout.count, program.metrics.size());
  if (!metrics.ok()) return Failed(metrics.status());
  RoundUpdate out;
  out.update.codec = plan.update.codec;
  out.update.weight = 1;
  out.update.digest = aggregation::DigestOf(*metrics);
  out.update.metrics = *std::move(metrics);
  return out;
}

}  // namespace selvage::client

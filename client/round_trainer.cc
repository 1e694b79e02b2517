#include "client/round_trainer.h"

#include <algorithm>
#include <utility>

#include "aggregation/contribution.h"
#include "base/random.h"
#include "client/base_file.h"
#include "client/core/memory_estimate.h"
#include "client/core/rate_schedule.h"
#include "client/local_data.h"
#include "client/store/outbox_payload.h"
#include "plan/tensor_match.h"

namespace selvage::client {
namespace {

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

// A checkpoint in memory, as if it were on disk.
class BaseInMemory final : public BaseTensors {
 public:
  // Both must outlive it.
  BaseInMemory(const plan::TensorTable& table, const plan::Checkpoint& values)
      : table_(table), values_(values) {}

  Status Read(size_t entry, std::vector<float>& out) override {
    const plan::TensorTable::Entry& place = table_.entries()[entry];
    const auto begin =
        values_.floats.begin() + static_cast<std::ptrdiff_t>(place.offset);
    out.assign(begin, begin + static_cast<std::ptrdiff_t>(place.count));
    return OkStatus();
  }

 private:
  const plan::TensorTable& table_;
  const plan::Checkpoint& values_;
};

TrainingSize SizeOf(LocalWork work, const VerifiedWork& verified,
                    const LocalData& data) {
  const plan::TrainSpec& train = verified.plan.train;
  return {.work = work,
          .examples = data.train.count + data.holdout.count,
          .holdout = data.holdout.count,
          .archive_size = verified.archive.size(),
          .batch_size = train.batch_size,
          .optimizer = train.optimizer.name,
          .momentum = train.optimizer.momentum != 0,
          .proximal = train.proximal_mu != 0,
          .clips = train.clip_gradient != 0,
          .controlled = !verified.control.empty()};
}

using Correction = std::shared_ptr<const std::vector<float>>;

// Everything that the result of a training depends on.
crypto::Digest Fingerprint(const SessionWork& work, const plan::Plan& plan,
                           const plan::Checkpoint& start,
                           const ExampleSet& examples,
                           const Correction& correction, int threads) {
  Bytes text = ToBytes("selvage/v1 training\n");
  const auto add = [&text](ByteSpan bytes) {
    AppendLe(text, static_cast<uint64_t>(bytes.size()));
    AppendBytes(text, bytes);
  };
  add(AsBytes(work.assignment_id));
  add(AsBytes(plan::CanonicalJson(plan)));
  AppendLe(text, work.seed);
  AppendLe(text, static_cast<int64_t>(threads));
  add(plan::MasterDigest(start).span());
  AppendLe(text, static_cast<uint64_t>(examples.count));
  for (const Bytes& input : examples.inputs) add(crypto::Sha256(input).span());
  if (correction != nullptr) {
    add(crypto::Sha256(AsBytes(std::span<const float>(*correction))).span());
  }
  return crypto::Sha256(text);
}

uint64_t StepsOf(const LocalTraining& training, size_t examples) {
  if (training.step_count > 0) return training.step_count;
  const auto batch = static_cast<uint64_t>(training.batch_size);
  return static_cast<uint64_t>(training.epochs) *
         ((examples + batch - 1) / batch);
}

// The trainings of a round, one after the other: FedRep's has two.
std::vector<LocalTraining> PhasesOf(const SessionWork& work,
                                    const plan::TrainSpec& train,
                                    const plan::TensorTable& table,
                                    std::vector<size_t> trainable,
                                    Correction correction, int threads) {
  LocalTraining all;
  all.epochs = train.local_epochs;
  all.batch_size = train.batch_size;
  all.optimizer = train.optimizer;
  all.seed = work.seed;
  all.threads = threads;
  all.clip_norm = train.clip_gradient;
  all.stop_patience = train.early_stop.patience;
  all.stop_min_delta = train.early_stop.min_delta;
  if (train.lr_schedule.by_round) {
    const uint64_t t = work.round > 0 ? work.round - 1 : 0;
    all.optimizer.lr *= RateFactor(train.lr_schedule, t);
  } else if (train.lr_schedule != plan::RateSchedule{}) {
    all.rate_factor = [schedule = train.lr_schedule](uint64_t step) {
      return RateFactor(schedule, step);
    };
  }
  LocalTraining last = all;
  if (train.local_steps > 0) {
    const auto most = static_cast<uint64_t>(train.local_steps);
    const auto least = static_cast<uint64_t>(
        train.local_steps_min > 0 ? train.local_steps_min : train.local_steps);
    SeededRandom random(DeriveSeed(work.seed, "selvage/v1 local steps", 0));
    last.step_count = least + UniformBelow(random, most - least + 1);
  }
  last.proximal_mu = train.proximal_mu;
  last.correction = std::move(correction);
  const auto is_personal = [&table](size_t i) {
    return table.entries()[i].spec.role == plan::Role::kPersonal;
  };
  std::vector<size_t> personal;
  std::vector<size_t> shared;
  for (const size_t i : trainable) {
    (is_personal(i) ? personal : shared).push_back(i);
  }
  if (train.method == plan::TrainMethod::kJoint) {
    last.proximal_shared_only = !personal.empty();
    last.trainable = std::move(trainable);
    return {std::move(last)};
  }
  LocalTraining head = std::move(all);
  head.epochs = train.head_epochs;
  head.trainable = std::move(personal);
  // The body's statistics are part of what is fixed.
  head.update_buffers = false;
  last.trainable = std::move(shared);
  last.seed = DeriveSeed(work.seed, "selvage/v1 fedrep body", 0);
  return {std::move(head), std::move(last)};
}

// Where a round with several phases was interrupted.
struct PhasePosition {
  size_t phase = 0;
  uint64_t steps_before = 0;  // of the phases that are done
  // Floats of role personal when it began; none of the first phase.
  std::vector<float> personal;
  Bytes engine;  // the engine's own; empty: at its beginning
};

constexpr uint32_t kPhaseMagic = 0x50484c53;  // "SLHP"

Bytes Encode(const PhasePosition& position) {
  Bytes out;
  AppendLe(out, kPhaseMagic);
  AppendLe(out, static_cast<uint32_t>(position.phase));
  AppendLe(out, position.steps_before);
  AppendLe(out, static_cast<uint64_t>(position.personal.size()));
  for (const float value : position.personal) AppendLe(out, value);
  AppendBytes(out, position.engine);
  return out;
}

Result<PhasePosition> DecodePosition(ByteSpan bytes, size_t phase_count,
                                     size_t personal_count) {
  ByteReader in(bytes);
  PhasePosition position;
  SELVAGE_ASSIGN_OR_RETURN(const auto magic, in.Read<uint32_t>("magic"));
  SELVAGE_ASSIGN_OR_RETURN(const auto phase, in.Read<uint32_t>("phase"));
  SELVAGE_ASSIGN_OR_RETURN(position.steps_before,
                           in.Read<uint64_t>("steps before"));
  SELVAGE_ASSIGN_OR_RETURN(const auto count, in.Read<uint64_t>("count"));
  if (magic != kPhaseMagic || phase >= phase_count ||
      count != (phase == 0 ? 0 : personal_count)) {
    return DataLoss("it is of another training");
  }
  position.phase = phase;
  for (uint64_t i = 0; i < count; ++i) {
    SELVAGE_ASSIGN_OR_RETURN(const auto value, in.Read<float>("value"));
    position.personal.push_back(value);
  }
  SELVAGE_ASSIGN_OR_RETURN(const ByteSpan engine,
                           in.ReadBytes(in.remaining(), "engine state"));
  position.engine.assign(engine.begin(), engine.end());
  return position;
}

// The personal-role floats of `values`, in the table's order; or back.
std::vector<float> PersonalOf(const plan::TensorTable& table,
                              const plan::Checkpoint& values) {
  std::vector<float> out;
  for (const plan::TensorTable::Entry& entry : table.entries()) {
    if (entry.spec.role != plan::Role::kPersonal ||
        entry.spec.dtype != plan::DType::kFloat32) {
      continue;
    }
    const auto begin =
        values.floats.begin() + static_cast<std::ptrdiff_t>(entry.offset);
    out.insert(out.end(), begin,
               begin + static_cast<std::ptrdiff_t>(entry.count));
  }
  return out;
}

plan::Checkpoint WithPersonal(const plan::TensorTable& table,
                              plan::Checkpoint values,
                              const std::vector<float>& personal) {
  auto from = personal.begin();
  for (const plan::TensorTable::Entry& entry : table.entries()) {
    if (entry.spec.role != plan::Role::kPersonal ||
        entry.spec.dtype != plan::DType::kFloat32) {
      continue;
    }
    const auto count = static_cast<std::ptrdiff_t>(entry.count);
    std::copy_n(
        from, count,
        values.floats.begin() + static_cast<std::ptrdiff_t>(entry.offset));
    from += count;
  }
  return values;
}

// scaffold: c - c_i by float of the table; else nullptr. A control variate of
// another program, or of none, is all zeros.
Result<Correction> CorrectionOf(ClientStore& store, const SessionWork& work,
                                const VerifiedWork& verified) {
  if (verified.plan.contribution.name != plan::ContributionName::kScaffold) {
    return Correction();
  }
  const plan::TensorTable& table = verified.program.table;
  SELVAGE_ASSIGN_OR_RETURN(
      const std::vector<float> own,
      store.LoadResidual(work.task, verified.plan.program_digest));
  const bool fits = own.size() == verified.control.size();
  auto correction = std::make_shared<std::vector<float>>(table.float_count());
  size_t at = 0;
  for (const auto& slice : table.aggregated()) {
    if (slice.role != plan::Role::kShared) continue;
    for (size_t i = 0; i < slice.count; ++i, ++at) {
      (*correction)[slice.float_offset + i] =
          verified.control.at(at) - (fits ? own[at] : 0.0F);
    }
  }
  return Correction(std::move(correction));
}

// How the shared elements changed, in the table's order.
std::vector<float> SharedDelta(const plan::TensorTable& table,
                               const plan::Checkpoint& base,
                               const plan::Checkpoint& trained) {
  std::vector<float> delta;
  for (const auto& slice : table.aggregated()) {
    if (slice.role != plan::Role::kShared) continue;
    for (size_t i = 0; i < slice.count; ++i) {
      delta.push_back(trained.floats.at(slice.float_offset + i) -
                      base.floats.at(slice.float_offset + i));
    }
  }
  return delta;
}

// Of the model as it is, on `examples`. INVALID_ARGUMENT if the program does
// not say what its loss is.
Result<double> MeanLoss(TrainableModel& model, const plan::Program& program,
                        const ExampleSet& examples) {
  const auto found = std::find(program.metrics.begin(), program.metrics.end(),
                               plan::kLossMetric);
  if (found == program.metrics.end()) {
    return InvalidArgument("no metric of the program is named loss");
  }
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<float> scores,
                           model.Score(examples));
  if (scores.size() != examples.count * program.metrics.size()) {
    return Internal("there are " + std::to_string(scores.size()) +
                    " scores for " + std::to_string(examples.count) +
                    " examples");
  }
  double sum = 0;
  for (auto at = static_cast<size_t>(found - program.metrics.begin());
       at < scores.size(); at += program.metrics.size()) {
    sum += static_cast<double>(scores[at]);
  }
  return sum / static_cast<double>(examples.count);
}

// One round's training, interruptible in every phase.
class RoundTraining {
 public:
  RoundTraining(TrainableModel& model, const plan::TensorTable& table,
                const plan::Checkpoint& start, const ExampleSet& examples,
                std::vector<LocalTraining> phases,
                const crypto::Digest& fingerprint, const RoundOptions& options,
                ClientStore& store, RoundFacts& facts)
      : model_(model),
        table_(table),
        start_(start),
        examples_(examples),
        phases_(std::move(phases)),
        fingerprint_(fingerprint),
        options_(options),
        store_(store),
        facts_(facts) {
    for (const LocalTraining& phase : phases_) {
      steps_of_all_ += StepsOf(phase, examples_.count);
    }
  }

  // After Run(): the last phase, in which the shared tensors moved, and the
  // steps that it took.
  const LocalTraining& last_phase() const { return phases_.back(); }
  uint64_t last_phase_steps() const { return phase_steps_; }

  // From the checkpoint that the store has of this training, if it has one.
  // `start` are the values that the model has now.
  Result<TrainingReport> Run() {
    for (const LocalTraining& phase : phases_) {
      SELVAGE_RETURN_IF_ERROR(RequireFeatures(model_.features(), phase));
    }
    SELVAGE_ASSIGN_OR_RETURN(std::optional<StoredTraining> kept,
                             store_.LoadTraining());
    PhasePosition at;
    std::optional<TrainingCheckpoint> from;
    if (kept.has_value() && kept->fingerprint == fingerprint_) {
      Result<PhasePosition> position = Read(std::move(kept->state));
      if (position.ok() && position->steps_before <= kept->steps) {
        had_ = kept->steps;
        at = *std::move(position);
        if (!at.engine.empty()) {
          from = TrainingCheckpoint{.steps = had_ - at.steps_before,
                                    .state = std::move(at.engine)};
        }
      }
    }
    if (at.phase > 0) {
      SELVAGE_RETURN_IF_ERROR(
          model_.SetValues(WithPersonal(table_, start_, at.personal)));
    }
    saved_at_ = options_.clock.Now();
    Result<TrainingReport> report = From(at, from ? &*from : nullptr);
    if (report.ok() || !from.has_value() ||
        report.status().code() != StatusCode::kFailedPrecondition) {
      return report;
    }
    // Another engine's, or another version's.
    had_ = 0;
    SELVAGE_RETURN_IF_ERROR(model_.SetValues(start_));
    return From(PhasePosition{}, nullptr);
  }

 private:
  // With one phase what is stored is what the engine made, as it always was.
  Result<PhasePosition> Read(Bytes state) const {
    if (phases_.size() > 1) {
      return DecodePosition(state, phases_.size(),
                            PersonalOf(table_, start_).size());
    }
    PhasePosition position;
    position.engine = std::move(state);
    return position;
  }

  void Save(const PhasePosition& position, uint64_t steps) {
    saved_at_ = options_.clock.Now();
    if (steps <= had_) return;
    // One that cannot be kept costs its steps, no more.
    const Status saved = store_.SaveTraining(
        {.fingerprint = fingerprint_,
         .steps = steps,
         .state = phases_.size() > 1 ? Encode(position) : position.engine});
    facts_.saved = facts_.saved || saved.ok();
    if (saved.ok() && options_.progressed) options_.progressed();
  }

  Result<TrainingReport> From(PhasePosition at,
                              const TrainingCheckpoint* resume) {
    TrainingReport report;
    for (;;) {
      LocalTraining training = phases_[at.phase];
      training.resume = resume;
      uint64_t step = resume == nullptr ? 0 : resume->steps;
      training.checkpoint_due = [&] {
        return options_.clock.Now() - saved_at_ >= options_.checkpoint_every;
      };
      training.save_checkpoint = [&](TrainingCheckpoint made) {
        at.engine = std::move(made.state);
        Save(at, at.steps_before + made.steps);
      };
      training.keep_going = [&] {
        if (!options_.keep_going()) {
          // Between two phases the engine has nothing to save yet.
          if (at.phase > 0 && step == 0) Save(at, at.steps_before);
          return false;
        }
        if (options_.progress) {
          options_.progress(at.steps_before + step, steps_of_all_);
        }
        ++step;
        return true;
      };
      SELVAGE_ASSIGN_OR_RETURN(const TrainingReport done,
                               model_.Train(examples_, training));
      report.steps = at.steps_before + done.steps;
      report.mean_loss = done.mean_loss;
      report.stopped_early = report.stopped_early || done.stopped_early;
      phase_steps_ = done.steps;
      if (at.phase + 1 == phases_.size()) return report;
      SELVAGE_ASSIGN_OR_RETURN(const plan::Checkpoint values, model_.Values());
      SELVAGE_RETURN_IF_ERROR(plan::ValidateCheckpoint(table_, values));
      at = PhasePosition{.phase = at.phase + 1,
                         .steps_before = report.steps,
                         .personal = PersonalOf(table_, values),
                         .engine = {}};
      // What a device that is resumed here starts from: nothing else moved.
      SELVAGE_RETURN_IF_ERROR(
          model_.SetValues(WithPersonal(table_, start_, at.personal)));
      resume = nullptr;
    }
  }

  TrainableModel& model_;
  const plan::TensorTable& table_;
  const plan::Checkpoint& start_;
  const ExampleSet& examples_;
  const std::vector<LocalTraining> phases_;
  const crypto::Digest fingerprint_;
  const RoundOptions& options_;
  ClientStore& store_;
  RoundFacts& facts_;
  uint64_t steps_of_all_ = 0;
  uint64_t phase_steps_ = 0;
  uint64_t had_ = 0;  // steps of the checkpoint that the store has
  Time saved_at_{};
};

// Whether training can do without the values that it began with: no phase, no
// personal tensor and no interrupted training goes back to them, and the update
// is built against the file.
bool LeavesBase(const plan::Plan& plan, const plan::TensorTable& table,
                ClientStore& store) {
  if (!IsLarge(table) || table.Has(plan::Role::kPersonal) ||
      !BuildsByTensor(plan) || plan.train.method != plan::TrainMethod::kJoint) {
    return false;
  }
  const Result<std::optional<StoredTraining>> kept = store.LoadTraining();
  return kept.ok() && !kept->has_value();
}

}  // namespace

Result<plan::Checkpoint> WithPersonalTensors(
    ClientStore& store, const std::string& task, const crypto::Digest& program,
    const plan::TensorTable& table, plan::Checkpoint base, bool* found) {
  *found = false;
  if (!table.Has(plan::Role::kPersonal)) return base;
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

TrainedRound TrainRound(const SessionWork& work, VerifiedWork& verified,
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
  // Built and stored a tensor at a time.
  const bool by_tensor = IsLarge(program.table) && BuildsByTensor(plan);
  std::unique_ptr<BaseTensors> on_disk;
  if (round.open_base && LeavesBase(plan, program.table, store)) {
    // What the cache lost since is kept in memory.
    Result<std::unique_ptr<BaseTensors>> opened = round.open_base();
    if (opened.ok()) on_disk = *std::move(opened);
  }
  TrainingSize size = SizeOf(LocalWork::kTrainRound, verified, *data);
  size.base_on_disk = on_disk != nullptr;
  size.by_tensor = by_tensor;
  facts.memory_estimate = EstimateMemory(program, size);
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
      on_disk != nullptr
          ? Result<plan::Checkpoint>(std::move(verified.base))
          : WithPersonalTensors(store, work.task, plan.program_digest,
                                program.table, verified.base, &has_own);
  if (!start.ok()) return start.status();
  if (on_disk != nullptr) verified.base = plan::Checkpoint();
  if (Status status = model.SetValues(*start); !status.ok()) {
    return Failed(status);
  }
  const Result<Correction> correction = CorrectionOf(store, work, verified);
  if (!correction.ok()) return correction.status();
  const crypto::Digest fingerprint =
      Fingerprint(work, plan, *start, data->train, *correction, round.threads);
  if (on_disk != nullptr) *start = plan::Checkpoint();
  std::vector<float> scores;
  if (data->holdout.count > 0) {
    Result<std::vector<float>> scored = model.Score(data->holdout);
    if (!scored.ok()) return Failed(scored.status());
    scores = *std::move(scored);
  }

  double loss = 0;
  if (plan.contribution.name == plan::ContributionName::kQFedAvg) {
    if (!round.keep_going()) return Cancelled("training was stopped");
    Result<double> mean = MeanLoss(model, program, data->train);
    if (!mean.ok()) return Failed(mean.status());
    loss = *mean;
  }

  Result<std::vector<size_t>> trainable = plan::MatchTensors(program.table, {});
  if (!trainable.ok()) return Failed(trainable.status());
  RoundTraining training(
      model, program.table, *start, data->train,
      PhasesOf(work, plan.train, program.table, *std::move(trainable),
               *correction, round.threads),
      fingerprint, round, store, facts);
  const Result<TrainingReport> report = training.Run();
  if (!report.ok()) return Failed(report.status());
  const double steps = aggregation::NormalisedSteps(
      plan.train.optimizer, plan.train.proximal_mu, training.last_phase_steps(),
      training.last_phase().rate_factor);
  facts.steps = report->steps;
  facts.mean_loss = report->mean_loss;
  facts.stopped_early = report->stopped_early;
  Result<plan::Checkpoint> trained = model.Values();
  if (!trained.ok()) return Failed(trained.status());
  if (on_disk != nullptr) host.ReleaseTraining();

  std::vector<float> control_change;
  if (*correction != nullptr) {
    control_change = aggregation::ControlChange(
        verified.control, SharedDelta(program.table, verified.base, *trained),
        steps * training.last_phase().optimizer.lr);
  }

  std::vector<float> residual;
  if (plan.update.codec == plan::CodecName::kTopK) {
    Result<std::vector<float>> kept =
        store.LoadResidual(work.task, plan.program_digest);
    if (!kept.ok()) return kept.status();
    if (kept->size() == program.table.update_count()) {
      residual = *std::move(kept);
    }
  }
  BaseInMemory in_memory(program.table, verified.base);
  BaseTensors* base_tensors = on_disk.get();
  if (by_tensor && base_tensors == nullptr) base_tensors = &in_memory;
  OutboxWriter outbox(store, work.assignment_id);
  const auto build = [&](std::span<const float> left_out) {
    // From the assignment's seed: what is trained again is the same bytes.
    SeededRandom random(DeriveSeed(work.seed, "codec", 0));
    return BuildUpdate(program, plan,
                       {.base = verified.base,
                        .trained = *trained,
                        .example_count = data->train.count,
                        .holdout_scores = scores,
                        .holdout_count = data->holdout.count,
                        .residual = left_out,
                        .steps = steps,
                        .loss = loss,
                        .control_change = control_change,
                        .random = &random,
                        .base_tensors = base_tensors,
                        .sink = by_tensor ? &outbox : nullptr});
  };
  Result<BuiltUpdate> update = build(residual);
  if (!residual.empty() && update.status().code() == StatusCode::kOutOfRange) {
    // A residual must not keep a device out of every round: it goes.
    update = build({});
    for (size_t i = 0; update.ok() && i < residual.size(); ++i) {
      update->residual_change[i] -= residual[i];
    }
  }
  if (by_tensor && update.ok()) (void)outbox.Finish();
  if (!outbox.status().ok()) return outbox.status();
  if (!update.ok()) {
    if (update.status().code() == StatusCode::kOutOfRange) {
      return WorkRefused{.reason = AbandonReason::kUpdateOutOfRange,
                         .message = std::string(update.status().message())};
    }
    return Failed(update.status());
  }
  RoundUpdate out;
  out.update = *std::move(update);
  if (!out.update.residual_change.empty()) {
    out.residual =
        ResidualChange{.task = work.task,
                       .program_digest = plan.program_digest,
                       .values = std::move(out.update.residual_change)};
    out.update.residual_change.clear();
  }
  if (program.table.Has(plan::Role::kPersonal) &&
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
  facts.memory_estimate =
      EstimateMemory(program, SizeOf(LocalWork::kEvaluate, verified, *data));
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

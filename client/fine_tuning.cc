#include "client/fine_tuning.h"

#include <utility>

#include "plan/checkpoint.h"

namespace selvage::client {
namespace {

// Everything that the result depends on.
crypto::Digest Fingerprint(const TuningParts& parts, const TuningJob& job,
                           const crypto::Digest& start,
                           const ExampleSet& examples) {
  Bytes text = ToBytes("selvage/v1 fine-tuning\n");
  const auto add = [&text](ByteSpan bytes) {
    AppendLe(text, static_cast<uint64_t>(bytes.size()));
    AppendBytes(text, bytes);
  };
  add(AsBytes(plan::CanonicalJson(parts.plan)));
  AppendLe(text, static_cast<uint8_t>(job.part));
  AppendLe(text, job.training.seed);
  AppendLe(text, static_cast<int64_t>(job.training.threads));
  add(start.span());
  add(job.optimizer.has_value() ? crypto::Sha256(*job.optimizer).span()
                                : ByteSpan());
  AppendLe(text, static_cast<uint8_t>(job.keep_optimizer ? 1 : 0));
  AppendLe(text, static_cast<uint64_t>(examples.count));
  for (const Bytes& input : examples.inputs) add(crypto::Sha256(input).span());
  return crypto::Sha256(text);
}

ExampleSet FirstOf(const plan::Program& program, const ExampleSet& examples,
                   size_t count) {
  ExampleSet out;
  out.count = count;
  for (size_t i = 0; i < examples.inputs.size(); ++i) {
    const Bytes& input = examples.inputs[i];
    out.inputs.emplace_back(
        input.begin(),
        input.begin() +
            static_cast<std::ptrdiff_t>(count * program.inputs[i].SizeBytes()));
  }
  return out;
}

class Tuning {
 public:
  Tuning(const TuningParts& parts, const TuningJob& job,
         const plan::Checkpoint& start, const ExampleSet& examples)
      : parts_(parts),
        job_(job),
        start_(start),
        start_digest_(plan::MasterDigest(start)),
        examples_(&examples),
        keeps_states_((parts.model.features() & kFeatureOptimizerState) != 0) {}

  Result<Tuned> Run() {
    SELVAGE_RETURN_IF_ERROR(
        RequireFeatures(parts_.model.features(), job_.training));
    std::optional<StoredTuning> kept = Kept();
    if (kept.has_value() && kept->done) {
      Result<Tuned> done = ResultOf(*std::move(kept));
      if (done.ok()) return done;
      kept.reset();
    }
    if (kept.has_value()) {
      const TrainingCheckpoint from{.steps = kept->steps,
                                    .state = std::move(kept->state)};
      had_ = from.steps;
      Result<Tuned> tuned = Train(&from, /*with_state=*/true);
      if (tuned.status().code() != StatusCode::kFailedPrecondition) {
        return tuned;
      }
      // Another engine's, or another version's.
      Restart();
    }
    const bool with_state = keeps_states_ && job_.optimizer.has_value();
    Result<Tuned> tuned = Train(nullptr, with_state);
    if (!with_state ||
        tuned.status().code() != StatusCode::kFailedPrecondition) {
      return tuned;
    }
    parts_.events.Write(
        LogLevel::kWarning, "optimizer_reset",
        {{"task", parts_.plan.task}, {"reason", tuned.status().message()}});
    return Train(nullptr, /*with_state=*/false);
  }

 private:
  // What the store has of this very training. Leaves examples_ and fingerprint_
  // as it was begun with.
  std::optional<StoredTuning> Kept() {
    const ExampleSet& all = *examples_;
    // One that cannot be read costs its steps, no more.
    Result<std::optional<StoredTuning>> loaded =
        parts_.store.LoadTuning(parts_.plan.task, job_.part);
    std::optional<StoredTuning> kept;
    if (loaded.ok()) kept = *std::move(loaded);
    if (kept.has_value() && kept->examples > 0 && kept->examples < all.count &&
        all.count - kept->examples <= kept->examples) {
      first_ = FirstOf(parts_.program, all, kept->examples);
      fingerprint_ = Fingerprint(parts_, job_, start_digest_, *first_);
      if (fingerprint_ == kept->fingerprint) {
        all_ = examples_;
        examples_ = &*first_;
        return kept;
      }
      first_.reset();
    }
    fingerprint_ = Fingerprint(parts_, job_, start_digest_, all);
    if (kept.has_value() && fingerprint_ == kept->fingerprint) return kept;
    return std::nullopt;
  }

  // With all examples.
  void Restart() {
    had_ = 0;
    if (all_ == nullptr) return;
    examples_ = std::exchange(all_, nullptr);
    first_.reset();
    fingerprint_ = Fingerprint(parts_, job_, start_digest_, *examples_);
  }

  Result<Tuned> ResultOf(StoredTuning kept) const {
    SELVAGE_ASSIGN_OR_RETURN(
        plan::Checkpoint values,
        plan::ParseMaster(parts_.program.table, kept.state));
    SELVAGE_RETURN_IF_ERROR(
        plan::ValidateCheckpoint(parts_.program.table, values));
    Tuned tuned{.values = std::move(values), .steps = kept.steps};
    if (job_.keep_optimizer && !kept.optimizer.empty()) {
      tuned.optimizer = std::move(kept.optimizer);
    }
    return tuned;
  }

  void Save(StoredTuning made) {
    saved_at_ = parts_.clock.Now();
    if (!made.done && made.steps <= had_) return;
    made.fingerprint = fingerprint_;
    made.examples = examples_->count;
    const Status saved =
        parts_.store.SaveTuning(parts_.plan.task, job_.part, made);
    if (saved.ok() && parts_.progressed) parts_.progressed();
  }

  Result<Tuned> Train(const TrainingCheckpoint* resume, bool with_state) {
    LocalTraining training = job_.training;
    Tuned tuned;
    training.resume = resume;
    saved_at_ = parts_.clock.Now();
    training.checkpoint_due = [this] {
      return parts_.clock.Now() - saved_at_ >= parts_.checkpoint_every;
    };
    training.save_checkpoint = [this](TrainingCheckpoint made) {
      Save({.fingerprint = {},
            .steps = made.steps,
            .state = std::move(made.state),
            .optimizer = {}});
    };
    if (with_state && keeps_states_ && job_.optimizer.has_value()) {
      training.optimizer_state = &*job_.optimizer;
    }
    if (keeps_states_ && job_.keep_optimizer) {
      training.save_optimizer = [&tuned](Bytes state) {
        tuned.optimizer = std::move(state);
      };
    }
    SELVAGE_RETURN_IF_ERROR(parts_.model.SetValues(start_));
    SELVAGE_ASSIGN_OR_RETURN(const TrainingReport report,
                             parts_.model.Train(*examples_, training));
    tuned.steps = report.steps;
    SELVAGE_ASSIGN_OR_RETURN(tuned.values, parts_.model.Values());
    SELVAGE_RETURN_IF_ERROR(
        plan::ValidateCheckpoint(parts_.program.table, tuned.values));
    if (tuned.optimizer.has_value() && tuned.optimizer->empty()) {
      tuned.optimizer.reset();
    }
    const uint64_t size_max = OptimizerBytesMax(parts_.program);
    if (tuned.optimizer.has_value() && tuned.optimizer->size() > size_max) {
      parts_.events.Write(LogLevel::kWarning, "optimizer_not_kept",
                          {{"task", parts_.plan.task},
                           {"bytes", tuned.optimizer->size()},
                           {"bytes_max", size_max}});
      tuned.optimizer.reset();
    }
    if (job_.more_to_come) {
      Save({.fingerprint = {},
            .steps = tuned.steps,
            .done = true,
            .state = plan::SerializeMaster(tuned.values),
            .optimizer = tuned.optimizer.value_or(Bytes())});
    }
    return tuned;
  }

  const TuningParts& parts_;
  const TuningJob& job_;
  const plan::Checkpoint& start_;
  const crypto::Digest start_digest_;
  const ExampleSet* examples_;       // what it trains on
  const ExampleSet* all_ = nullptr;  // if that is only the first of them
  std::optional<ExampleSet> first_;
  const bool keeps_states_;
  crypto::Digest fingerprint_;
  uint64_t had_ = 0;  // steps of the checkpoint that the store has
  Time saved_at_{};
};

}  // namespace

uint64_t OptimizerBytesMax(const plan::Program& program) {
  constexpr uint64_t kSmall = 64 << 10;
  const uint64_t values = program.table.float_count() * sizeof(float) +
                          program.table.int_count() * sizeof(int64_t);
  return 3 * values + kSmall;
}

Result<Tuned> RunTuning(const TuningParts& parts, const TuningJob& job,
                        const plan::Checkpoint& start,
                        const ExampleSet& examples) {
  return Tuning(parts, job, start, examples).Run();
}

}  // namespace selvage::client

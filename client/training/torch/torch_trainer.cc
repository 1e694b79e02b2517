#include "client/training/torch/torch_trainer.h"

#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <set>
#include <utility>

#include <torch/torch.h>

#include "base/mutex.h"
#include "base/random.h"
#include "client/training/torch/computation.h"
#include "client/training/torch/native.h"
#include "client/training/torch/optimizer.h"
#include "client/training/torch/program_checks.h"
#include "client/training/torch/step_deadline.h"

namespace selvage::client {
namespace {

namespace engine = torch_engine;

constexpr size_t kScoreChunk = 256;

// LibTorch's generator is one per process; so is the right to seed it.
Mutex generator_mutex;

class GeneratorScope {
 public:
  explicit GeneratorScope(uint64_t seed)
      : lock_(generator_mutex),
        generator_(at::detail::getDefaultCPUGenerator()),
        saved_(generator_.get_state()) {
    generator_.set_current_seed(seed);
  }
  ~GeneratorScope() { generator_.set_state(saved_); }

  Bytes Save() const {
    const at::Tensor state = generator_.get_state().contiguous();
    const auto* const begin = state.data_ptr<uint8_t>();
    return Bytes(begin, begin + state.numel());
  }
  // Throws what LibTorch throws if it is no state of a generator.
  void Restore(ByteSpan bytes) {
    at::Tensor state =
        torch::empty({static_cast<int64_t>(bytes.size())}, torch::kUInt8);
    std::memcpy(state.data_ptr<uint8_t>(), bytes.data(), bytes.size());
    generator_.set_state(state);
  }

 private:
  const MutexLock lock_;
  at::Generator generator_;
  const at::Tensor saved_;
};

bool AllFinite(const float* values, size_t count) {
  uint32_t worst = 0;
  for (size_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, values + i, sizeof bits);
    worst = std::max(worst, bits & 0x7f800000U);
  }
  return worst != 0x7f800000U;
}

// Rows gathered into memory of its own, as the tensors a method takes. The
// tensors of one batch are valid until the next.
class Batch {
 public:
  Batch(const std::vector<plan::InputSpec>& inputs, size_t rows_max)
      : inputs_(inputs), buffers_(inputs.size()) {
    for (size_t i = 0; i < inputs_.size(); ++i) {
      buffers_[i].resize(inputs_[i].SizeBytes() * rows_max);
    }
  }

  // `input` holds whole examples of input `i`.
  at::Tensor Gather(size_t i, ByteSpan input, std::span<const size_t> rows) {
    const size_t row_size = inputs_[i].SizeBytes();
    for (size_t k = 0; k < rows.size(); ++k) {
      std::memcpy(buffers_[i].data() + k * row_size,
                  input.data() + rows[k] * row_size, row_size);
    }
    std::vector<int64_t> shape = {static_cast<int64_t>(rows.size())};
    shape.insert(shape.end(), inputs_[i].shape.begin(), inputs_[i].shape.end());
    return torch::from_blob(buffers_[i].data(), shape, Type(inputs_[i].dtype));
  }
  std::vector<at::Tensor> Gather(const ExampleSet& examples,
                                 std::span<const size_t> rows) {
    std::vector<at::Tensor> out;
    for (size_t i = 0; i < inputs_.size(); ++i) {
      out.push_back(Gather(i, examples.inputs[i], rows));
    }
    return out;
  }

 private:
  static at::ScalarType Type(plan::DType dtype) {
    switch (dtype) {
      case plan::DType::kFloat32:
        return torch::kFloat32;
      case plan::DType::kInt64:
        return torch::kInt64;
      case plan::DType::kUint8:
        return torch::kUInt8;
    }
    return torch::kFloat32;
  }

  const std::vector<plan::InputSpec>& inputs_;
  std::vector<Bytes> buffers_;
};

// LibTorch's threads are the process's: what they were comes back.
class ThreadsScope {
 public:
  explicit ThreadsScope(int threads) : saved_(at::get_num_threads()) {
    if (threads > 0 && threads != saved_) at::set_num_threads(threads);
  }
  ~ThreadsScope() {
    if (at::get_num_threads() != saved_) at::set_num_threads(saved_);
  }
  ThreadsScope(const ThreadsScope&) = delete;
  ThreadsScope& operator=(const ThreadsScope&) = delete;

 private:
  const int saved_;
};

// What a TrainingCheckpoint of this engine holds.
struct SavedTraining {
  int threads = 0;  // bits depend on it
  int epoch = 0;
  uint64_t at = 0;  // examples of the epoch that were used
  uint64_t epoch_steps = 0;
  double loss_sum = 0;
  double least_loss = 0;   // of an epoch; for an early stop
  int epochs_in_vain = 0;  // since then
  Bytes generator = {};    // empty: the program draws nothing
  Bytes values = {};       // plan::SerializeMaster
  Bytes optimizer = {};
};

constexpr uint32_t kCheckpointMagic = 0x43544c53;  // "SLTC"
constexpr uint16_t kCheckpointVersion = 2;

void PutBytes(Bytes& out, ByteSpan bytes) {
  AppendLe(out, static_cast<uint64_t>(bytes.size()));
  AppendBytes(out, bytes);
}

Result<Bytes> GetBytes(ByteReader& in, std::string_view what) {
  SELVAGE_ASSIGN_OR_RETURN(const auto size, in.Read<uint64_t>(what));
  if (size > in.remaining()) return DataLoss(std::string(what) + " is cut off");
  SELVAGE_ASSIGN_OR_RETURN(const ByteSpan bytes, in.ReadBytes(size, what));
  return Bytes(bytes.begin(), bytes.end());
}

Bytes Encode(const SavedTraining& saved) {
  Bytes out;
  AppendLe(out, kCheckpointMagic);
  AppendLe(out, kCheckpointVersion);
  AppendLe(out, static_cast<int32_t>(saved.threads));
  AppendLe(out, static_cast<int32_t>(saved.epoch));
  AppendLe(out, saved.at);
  AppendLe(out, saved.epoch_steps);
  uint64_t bits;
  std::memcpy(&bits, &saved.loss_sum, sizeof bits);
  AppendLe(out, bits);
  std::memcpy(&bits, &saved.least_loss, sizeof bits);
  AppendLe(out, bits);
  AppendLe(out, static_cast<int32_t>(saved.epochs_in_vain));
  PutBytes(out, saved.generator);
  PutBytes(out, saved.values);
  PutBytes(out, saved.optimizer);
  return out;
}

Result<SavedTraining> DecodeTraining(ByteSpan bytes) {
  ByteReader in(bytes);
  SELVAGE_ASSIGN_OR_RETURN(const auto magic, in.Read<uint32_t>("magic"));
  SELVAGE_ASSIGN_OR_RETURN(const auto version, in.Read<uint16_t>("version"));
  if (magic != kCheckpointMagic || version != kCheckpointVersion) {
    return DataLoss("it is of another engine");
  }
  SavedTraining saved;
  SELVAGE_ASSIGN_OR_RETURN(saved.threads, in.Read<int32_t>("threads"));
  SELVAGE_ASSIGN_OR_RETURN(saved.epoch, in.Read<int32_t>("epoch"));
  SELVAGE_ASSIGN_OR_RETURN(saved.at, in.Read<uint64_t>("position"));
  SELVAGE_ASSIGN_OR_RETURN(saved.epoch_steps, in.Read<uint64_t>("steps"));
  SELVAGE_ASSIGN_OR_RETURN(const auto bits, in.Read<uint64_t>("loss"));
  std::memcpy(&saved.loss_sum, &bits, sizeof bits);
  SELVAGE_ASSIGN_OR_RETURN(const auto least, in.Read<uint64_t>("least loss"));
  std::memcpy(&saved.least_loss, &least, sizeof least);
  SELVAGE_ASSIGN_OR_RETURN(saved.epochs_in_vain,
                           in.Read<int32_t>("epochs in vain"));
  SELVAGE_ASSIGN_OR_RETURN(saved.generator, GetBytes(in, "generator"));
  SELVAGE_ASSIGN_OR_RETURN(saved.values, GetBytes(in, "values"));
  SELVAGE_ASSIGN_OR_RETURN(saved.optimizer, GetBytes(in, "optimizer"));
  if (in.remaining() != 0) return DataLoss("it is too long");
  return saved;
}

// 0, 1, ... count - 1
std::vector<size_t> Rows(size_t count) {
  std::vector<size_t> rows(count);
  std::iota(rows.begin(), rows.end(), size_t{0});
  return rows;
}

class TorchModel final : public TrainableModel {
 public:
  TorchModel(plan::Program program,
             std::unique_ptr<engine::Computation> computation,
             std::vector<engine::NamedTensor> tensors, Duration score_time_max)
      : program_(std::move(program)),
        computation_(std::move(computation)),
        named_(std::move(tensors)),
        score_time_max_(score_time_max) {
    for (const auto& named : named_) tensors_.push_back(named.tensor);
  }

  Status SetValues(const plan::Checkpoint& values) override {
    SELVAGE_RETURN_IF_ERROR(plan::ValidateCheckpoint(program_.table, values));
    SELVAGE_RETURN_IF_ERROR(CheckLayout());
    engine::CopyIn(program_.table, values, named_);
    return OkStatus();
  }

  Status SetArrays(std::span<const float> floats,
                   std::span<const int64_t> ints) override {
    if (floats.size() != program_.table.float_count() ||
        ints.size() != program_.table.int_count() ||
        !AllFinite(floats.data(), floats.size())) {
      // Which says what is wrong.
      return TrainableModel::SetArrays(floats, ints);
    }
    SELVAGE_RETURN_IF_ERROR(CheckLayout());
    engine::CopyIn(program_.table, floats, ints, named_);
    return OkStatus();
  }

  Status CopyArrays(std::span<float> floats, std::span<int64_t> ints) override {
    SELVAGE_RETURN_IF_ERROR(CheckLayout());
    engine::CopyOut(program_.table, named_, floats, ints);
    return OkStatus();
  }

  Result<plan::Checkpoint> Values() override {
    SELVAGE_RETURN_IF_ERROR(CheckLayout());
    return engine::CopyOut(program_.table, named_);
  }

  uint64_t features() const override { return kAllTrainingFeatures; }

  Result<TrainingReport> Train(const ExampleSet& examples,
                               const LocalTraining& options) override {
    SELVAGE_RETURN_IF_ERROR(ValidateExamples(program_, examples));
    SELVAGE_RETURN_IF_ERROR(ValidateOptions(examples, options));
    try {
      std::unique_ptr<GeneratorScope> generator;
      if (computation_->uses_randomness()) {
        generator = std::make_unique<GeneratorScope>(options.seed);
      }
      const ThreadsScope threads(options.threads);
      Result<TrainingReport> report =
          TrainChecked(examples, options, generator.get());
      Detach();
      return report;
    } catch (...) {
      const Status status =
          engine::StatusFromException(StatusCode::kInternal, "training");
      Detach();
      return status;
    }
  }

  Result<std::vector<float>> Score(const ExampleSet& examples) override {
    SELVAGE_RETURN_IF_ERROR(ValidateExamples(program_, examples));
    const auto metrics = static_cast<int64_t>(program_.metrics.size());
    std::vector<float> out;
    out.reserve(examples.count * program_.metrics.size());
    SELVAGE_RETURN_IF_ERROR(Evaluate(
        examples.count, "example_scores",
        [&](Batch& batch, std::span<const size_t> rows) -> Status {
          const at::Tensor scores =
              computation_->ExampleScores(batch.Gather(examples, rows));
          const auto count = static_cast<int64_t>(rows.size());
          if (scores.dim() != 2 || scores.size(0) != count ||
              scores.size(1) != metrics ||
              scores.scalar_type() != torch::kFloat32) {
            return Internal("example_scores must return float32 [examples, " +
                            std::to_string(metrics) + "]");
          }
          const at::Tensor dense = scores.contiguous();
          const float* const values = dense.data_ptr<float>();
          const auto size = static_cast<size_t>(dense.numel());
          if (!AllFinite(values, size)) {
            return OutOfRange("a score is not finite");
          }
          out.insert(out.end(), values, values + size);
          return OkStatus();
        }));
    return out;
  }

  Result<Prediction> Predict(size_t count, ByteSpan input) override {
    const size_t wanted = count * program_.inputs[0].SizeBytes();
    if (count == 0 || input.size() != wanted) {
      return InvalidArgument("input " + program_.inputs[0].name + " has " +
                             std::to_string(input.size()) + " bytes for " +
                             std::to_string(count) + " examples, not " +
                             std::to_string(wanted));
    }
    Prediction out;
    SELVAGE_RETURN_IF_ERROR(Evaluate(
        count, "forward",
        [&](Batch& batch, std::span<const size_t> rows) -> Status {
          at::Tensor result =
              computation_->Forward(batch.Gather(0, input, rows));
          if (result.dim() == 0 ||
              result.size(0) != static_cast<int64_t>(rows.size())) {
            return Internal("forward must return one row per example");
          }
          std::vector<int64_t> shape = result.sizes().vec();
          shape[0] = static_cast<int64_t>(count);
          if (!out.shape.empty() && out.shape != shape) {
            return Internal("forward returned rows of different shapes");
          }
          out.shape = std::move(shape);
          result = result.to(torch::kFloat32).contiguous();
          const float* const values = result.data_ptr<float>();
          out.values.insert(out.values.end(), values, values + result.numel());
          return OkStatus();
        }));
    return out;
  }

 private:
  const plan::TensorSpec& Spec(size_t i) const {
    return program_.table.entries()[i].spec;
  }

  // In-place operators of a program can move a tensor to another layout.
  Status CheckLayout() const {
    for (size_t i = 0; i < tensors_.size(); ++i) {
      if (!tensors_[i].is_contiguous() ||
          tensors_[i].sizes() != c10::IntArrayRef(Spec(i).shape)) {
        return Internal("the program changed the layout of " + Spec(i).name);
      }
    }
    return OkStatus();
  }

  Status ValidateOptions(const ExampleSet& examples,
                         const LocalTraining& options) const {
    if (examples.count == 0) return InvalidArgument("no examples to train on");
    if (options.epochs < 1 || options.batch_size < 1) {
      return InvalidArgument(
          "epochs is " + std::to_string(options.epochs) + " and batch_size " +
          std::to_string(options.batch_size) + "; both must be positive");
    }
    if (!(options.proximal_mu >= 0) || !std::isfinite(options.proximal_mu)) {
      return InvalidArgument("proximal_mu is " +
                             std::to_string(options.proximal_mu) +
                             "; it must not be negative");
    }
    if (!(options.clip_norm >= 0) || !std::isfinite(options.clip_norm)) {
      return InvalidArgument("clip_norm is " +
                             std::to_string(options.clip_norm) +
                             "; it must not be negative");
    }
    if (options.correction != nullptr &&
        options.correction->size() != program_.table.float_count()) {
      return InvalidArgument(
          "correction has " + std::to_string(options.correction->size()) +
          " values, the table " + std::to_string(program_.table.float_count()));
    }
    if (options.stop_patience < 0 || !(options.stop_min_delta >= 0)) {
      return InvalidArgument(
          "stop_patience is " + std::to_string(options.stop_patience) +
          " and stop_min_delta " + std::to_string(options.stop_min_delta) +
          "; neither may be negative");
    }
    std::set<size_t> seen;
    for (const size_t i : options.trainable) {
      if (i >= tensors_.size() || !seen.insert(i).second) {
        return InvalidArgument("trainable names tensor " + std::to_string(i) +
                               " twice or beyond the " +
                               std::to_string(tensors_.size()) +
                               " of the table");
      }
      if (Spec(i).dtype != plan::DType::kFloat32 ||
          Spec(i).role == plan::Role::kBufferFloat) {
        return InvalidArgument("tensor " + Spec(i).name + " is a " +
                               std::string(plan::RoleName(Spec(i).role)) +
                               " and cannot be trained");
      }
    }
    return OkStatus();
  }

  // No gradients and no graph survive a call.
  void Detach() {
    for (at::Tensor& tensor : tensors_) {
      tensor.mutable_grad().reset();
      tensor.set_requires_grad(false);
    }
  }

  // Statistics that forward() moves by itself: buffers, and tensors of role
  // `personal` that nobody trains (FedBN).
  bool MayMove(size_t i) const {
    return Spec(i).role != plan::Role::kShared &&
           Spec(i).role != plan::Role::kFrozen;
  }

  // What a program must not write to, as it was before.
  class Guard {
   public:
    Guard(const TorchModel& model, const std::set<size_t>& may_move)
        : model_(model) {
      for (size_t i = 0; i < model.tensors_.size(); ++i) {
        if (!may_move.contains(i)) {
          versions_.emplace_back(i, model.tensors_[i]._version());
        }
      }
    }
    Status Check() const {
      for (const auto& [i, version] : versions_) {
        if (model_.tensors_[i]._version() != version) {
          return Internal("the program wrote to tensor " + model_.Spec(i).name +
                          ", which it was not asked to train");
        }
      }
      return OkStatus();
    }

   private:
    const TorchModel& model_;
    std::vector<std::pair<size_t, uint32_t>> versions_;
  };

  // After the optimizer took what it keeps of the values at the start.
  Status Resume(const TrainingCheckpoint& from, const LocalTraining& options,
                size_t example_count, size_t batch_size,
                GeneratorScope* generator, engine::Optimizer& optimizer,
                SavedTraining& saved) {
    const auto load = [&]() -> Status {
      SELVAGE_ASSIGN_OR_RETURN(saved, DecodeTraining(from.state));
      const bool possible =
          saved.threads == at::get_num_threads() && saved.epoch >= 0 &&
          saved.epoch < EpochsOf(options) &&
          (options.step_count == 0 || from.steps < options.step_count) &&
          saved.at < example_count &&
          saved.at == saved.epoch_steps * batch_size &&
          std::isfinite(saved.loss_sum) && saved.epochs_in_vain >= 0 &&
          saved.generator.empty() == (generator == nullptr);
      if (!possible) return DataLoss("it is of another training");
      SELVAGE_ASSIGN_OR_RETURN(const plan::Checkpoint values,
                               plan::ParseMaster(program_.table, saved.values));
      SELVAGE_RETURN_IF_ERROR(optimizer.Restore(saved.optimizer));
      if (generator != nullptr) generator->Restore(saved.generator);
      const torch::NoGradGuard no_grad;
      engine::CopyIn(program_.table, values, named_);
      return OkStatus();
    };
    Status status;
    try {
      status = load();
    } catch (...) {
      status = engine::StatusFromException(StatusCode::kInternal, "checkpoint");
    }
    if (status.ok()) return status;
    return FailedPrecondition("the checkpoint cannot be gone on from: " +
                              std::string(status.message()));
  }

  static int EpochsOf(const LocalTraining& options) {
    return options.step_count > 0 ? std::numeric_limits<int>::max()
                                  : options.epochs;
  }

  TrainingCheckpoint Checkpoint(SavedTraining saved, uint64_t steps,
                                const GeneratorScope* generator,
                                const engine::Optimizer& optimizer) const {
    const torch::NoGradGuard no_grad;
    saved.threads = at::get_num_threads();
    if (generator != nullptr) saved.generator = generator->Save();
    saved.values =
        plan::SerializeMaster(engine::CopyOut(program_.table, named_));
    saved.optimizer = optimizer.Save();
    return {.steps = steps, .state = Encode(saved)};
  }

  Result<TrainingReport> TrainChecked(const ExampleSet& examples,
                                      const LocalTraining& options,
                                      GeneratorScope* generator) {
    // A `personal` buffer that the caller counts as trainable has no gradient;
    // it moves by itself like any other.
    std::set<size_t> trained;
    for (const size_t i : options.trainable) {
      if (!named_[i].is_buffer) trained.insert(i);
    }
    if (trained.empty()) return InvalidArgument("no tensor to train");
    std::set<size_t> may_move = trained;
    std::vector<std::pair<size_t, at::Tensor>> to_restore;
    for (size_t i = 0; i < tensors_.size(); ++i) {
      if (!MayMove(i) || trained.contains(i)) continue;
      may_move.insert(i);
      if (!options.update_buffers) {
        to_restore.emplace_back(i, tensors_[i].clone());
      }
    }
    computation_->SetTraining(true);
    const std::vector<size_t> kept_as(trained.begin(), trained.end());
    std::vector<at::Tensor> parameters;
    engine::Proximal proximal{.mu = options.proximal_mu, .on = {}};
    for (const size_t i : trained) {
      tensors_[i].set_requires_grad(true);
      parameters.push_back(tensors_[i]);
      proximal.on.push_back(!options.proximal_shared_only ||
                            Spec(i).role == plan::Role::kShared);
    }
    std::vector<at::Tensor> correction;
    if (options.correction != nullptr) {
      for (const size_t i : trained) {
        const auto& entry = program_.table.entries()[i];
        const at::Tensor part = torch::from_blob(
            const_cast<float*>(options.correction->data() + entry.offset),
            {static_cast<int64_t>(entry.count)}, torch::kFloat32);
        correction.push_back(part.view(tensors_[i].sizes()).clone());
      }
    }
    engine::Optimizer optimizer(options.optimizer, parameters, proximal,
                                options.clip_norm, std::move(correction));
    const size_t batch_size =
        std::min(static_cast<size_t>(options.batch_size), examples.count);
    SavedTraining begun;
    TrainingReport report;
    if (options.resume != nullptr) {
      SELVAGE_RETURN_IF_ERROR(Resume(*options.resume, options, examples.count,
                                     batch_size, generator, optimizer, begun));
      report.steps = options.resume->steps;
    } else if (options.optimizer_state != nullptr) {
      if (const Status status =
              optimizer.Import(kept_as, *options.optimizer_state);
          !status.ok()) {
        return FailedPrecondition("the optimizer cannot go on: " +
                                  std::string(status.message()));
      }
    }
    const Guard guard(*this, may_move);

    Batch batch(program_.inputs, batch_size);
    std::vector<size_t> order = Rows(examples.count);
    SeededRandom random(options.seed);
    for (int epoch = 0; epoch < begun.epoch; ++epoch) Shuffle(order, random);
    double least_loss = begun.least_loss;
    int epochs_in_vain = begun.epochs_in_vain;
    const auto enough = [&] {
      return report.stopped_early ||
             (options.step_count > 0 && report.steps >= options.step_count);
    };
    for (int epoch = begun.epoch; epoch < EpochsOf(options) && !enough();
         ++epoch) {
      Shuffle(order, random);
      const bool first = epoch == begun.epoch;
      double loss_sum = first ? begun.loss_sum : 0;
      uint64_t steps = first ? begun.epoch_steps : 0;
      size_t at = first ? begun.at : 0;
      for (; at < order.size() && !enough(); at += batch_size) {
        const auto save = [&] {
          options.save_checkpoint(Checkpoint({.epoch = epoch,
                                              .at = at,
                                              .epoch_steps = steps,
                                              .loss_sum = loss_sum,
                                              .least_loss = least_loss,
                                              .epochs_in_vain = epochs_in_vain},
                                             report.steps, generator,
                                             optimizer));
        };
        const bool can_save = options.save_checkpoint && report.steps > 0;
        if (can_save && options.checkpoint_due && options.checkpoint_due()) {
          save();
        }
        if (options.keep_going && !options.keep_going()) {
          if (can_save) save();
          return Cancelled("training was stopped after " +
                           std::to_string(report.steps) + " steps");
        }
        const size_t rows = std::min(batch_size, order.size() - at);
        SELVAGE_ASSIGN_OR_RETURN(
            const double loss,
            Step(batch.Gather(examples, std::span(order).subspan(at, rows)),
                 options, optimizer, report.steps));
        loss_sum += loss;
        ++steps;
        ++report.steps;
      }
      report.mean_loss = loss_sum / static_cast<double>(steps);
      // Only whole epochs say how the loss goes.
      if (options.stop_patience == 0 || at < order.size()) continue;
      if (epoch == 0 ||
          report.mean_loss < least_loss - options.stop_min_delta) {
        least_loss = report.mean_loss;
        epochs_in_vain = 0;
      } else {
        ++epochs_in_vain;
      }
      report.stopped_early = epochs_in_vain >= options.stop_patience &&
                             epoch + 1 < EpochsOf(options) && !enough();
    }

    SELVAGE_RETURN_IF_ERROR(guard.Check());
    const torch::NoGradGuard no_grad;
    for (const auto& [i, before] : to_restore) tensors_[i].copy_(before);
    SELVAGE_RETURN_IF_ERROR(CheckLayout());
    for (size_t i = 0; i < tensors_.size(); ++i) {
      if (tensors_[i].scalar_type() == torch::kFloat32 &&
          !AllFinite(tensors_[i].data_ptr<float>(),
                     static_cast<size_t>(tensors_[i].numel()))) {
        return OutOfRange("tensor " + Spec(i).name +
                          " is not finite after training");
      }
    }
    if (options.save_optimizer) {
      options.save_optimizer(optimizer.Export(kept_as));
    }
    return report;
  }

  // `step` counts from 0.
  Result<double> Step(const std::vector<at::Tensor>& inputs,
                      const LocalTraining& options,
                      engine::Optimizer& optimizer, uint64_t step) {
    const Duration limit = options.step_time_max;
    const uint64_t number = step + 1;
    const engine::StepDeadline deadline(limit);
    const auto too_long = [&] {
      return DeadlineExceeded(
          "step " + std::to_string(number) + " took longer than " +
          std::to_string(std::chrono::duration<double>(limit).count()) + " s");
    };
    try {
      const at::Tensor loss = computation_->TrainingLoss(inputs);
      if (loss.numel() != 1 || !loss.is_floating_point()) {
        return Internal("training_loss must return one floating-point number");
      }
      const double value = loss.item<double>();
      if (!std::isfinite(value)) {
        return OutOfRange("the loss of step " + std::to_string(number) +
                          " is not finite");
      }
      if (!loss.requires_grad()) {
        return Internal("training_loss does not depend on any tensor to train");
      }
      if (deadline.passed()) return too_long();
      loss.backward();
      optimizer.Step(options.rate_factor ? options.rate_factor(step) : 1.0);
      if (deadline.passed()) return too_long();
      return value;
    } catch (...) {
      const Status status =
          engine::StatusFromException(StatusCode::kInternal, "training_loss");
      if (deadline.passed()) return too_long();
      return status;
    }
  }

  // Calls `run` with the rows of each chunk, in evaluation mode.
  template <typename RunChunk>
  Status Evaluate(size_t count, std::string_view method, const RunChunk& run) {
    try {
      std::unique_ptr<GeneratorScope> generator;
      if (computation_->uses_randomness()) {
        generator = std::make_unique<GeneratorScope>(0);
      }
      const torch::NoGradGuard no_grad;
      computation_->SetTraining(false);
      const Guard guard(*this, {});
      const std::vector<size_t> rows = Rows(count);
      Batch batch(program_.inputs, std::min(kScoreChunk, count));
      for (size_t at = 0; at < count; at += kScoreChunk) {
        const engine::StepDeadline deadline(score_time_max_);
        Status status;
        try {
          status = run(batch, std::span(rows).subspan(
                                  at, std::min(kScoreChunk, count - at)));
        } catch (...) {
          status = engine::StatusFromException(StatusCode::kInternal, method);
        }
        if (deadline.passed()) {
          return DeadlineExceeded(std::string(method) +
                                  " took longer than the limit");
        }
        SELVAGE_RETURN_IF_ERROR(status);
      }
      return guard.Check();
    } catch (...) {
      return engine::StatusFromException(StatusCode::kInternal, method);
    }
  }

  const plan::Program program_;
  const std::unique_ptr<engine::Computation> computation_;
  const std::vector<engine::NamedTensor> named_;  // in the table's order
  std::vector<at::Tensor> tensors_;               // the same tensors
  const Duration score_time_max_;
};

Result<std::unique_ptr<engine::Computation>> MakeNative(
    const std::map<std::string, NativeFactory>& known,
    const std::string& name) {
  const auto found = known.find(name);
  if (found == known.end()) {
    return NotFound("no native architecture " + name + " is registered");
  }
  try {
    std::shared_ptr<NativeArchitecture> architecture = found->second();
    if (architecture == nullptr) {
      return Internal("the factory of native:" + name + " made nothing");
    }
    return engine::WrapNative(std::move(architecture));
  } catch (...) {
    return engine::StatusFromException(StatusCode::kInternal, "native:" + name);
  }
}

}  // namespace

TorchTrainer::TorchTrainer(TorchTrainerOptions options)
    : options_(std::move(options)) {
  at::set_num_threads(options_.threads);
  using SetThreads = void (*)(int);
  if (const auto set_blas_threads = reinterpret_cast<SetThreads>(
          dlsym(RTLD_DEFAULT, "openblas_set_num_threads"));
      set_blas_threads != nullptr) {
    set_blas_threads(options_.threads);
  }
}

std::vector<std::string> TorchTrainer::engines() const {
  std::vector<std::string> out = {"libtorch/1.13"};
  for (const auto& [name, factory] : options_.native) {
    out.push_back("native:" + name);
  }
  return out;
}

Result<std::unique_ptr<TrainableModel>> TorchTrainer::Load(
    const plan::Program& program, ByteSpan archive) {
  SELVAGE_RETURN_IF_ERROR(program.Validate());
  SELVAGE_ASSIGN_OR_RETURN(
      std::unique_ptr<engine::Computation> computation,
      program.kind == plan::ProgramKind::kNative
          ? MakeNative(options_.native, program.native_name)
          : engine::LoadTorchScript(program, archive));
  try {
    SELVAGE_ASSIGN_OR_RETURN(
        std::vector<engine::NamedTensor> tensors,
        engine::BindTensors(program.table, computation->Tensors()));
    for (auto& named : tensors) {
      named.tensor.set_requires_grad(false);
      named.tensor.zero_();
    }
    return std::unique_ptr<TrainableModel>(std::make_unique<TorchModel>(
        program, std::move(computation), std::move(tensors),
        options_.score_time_max));
  } catch (...) {
    return engine::StatusFromException(StatusCode::kInternal,
                                       "loading the program");
  }
}

Result<plan::TensorTable> TorchTrainer::NativeTable(
    const std::string& name) const {
  SELVAGE_ASSIGN_OR_RETURN(
      const std::unique_ptr<engine::Computation> computation,
      MakeNative(options_.native, name));
  return engine::TableOf(computation->Tensors());
}

}  // namespace selvage::client

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "client/capi/engine/engine_adapter.h"

namespace selvage::capi {
namespace {

constexpr size_t kEngineCountMax = 16;
constexpr size_t kEngineNameSizeMax = 64;

int32_t DTypeOf(plan::DType dtype) {
  switch (dtype) {
    case plan::DType::kFloat32:
      return SELVAGE_F32;
    case plan::DType::kInt64:
      return SELVAGE_I64;
    case plan::DType::kUint8:
      return SELVAGE_U8;
  }
  return SELVAGE_DTYPE_ANY;
}

int32_t RoleOf(plan::Role role) {
  switch (role) {
    case plan::Role::kShared:
      return SELVAGE_ROLE_SHARED;
    case plan::Role::kBufferFloat:
      return SELVAGE_ROLE_BUFFER_FLOAT;
    case plan::Role::kBufferInt:
      return SELVAGE_ROLE_BUFFER_INT;
    case plan::Role::kPersonal:
      return SELVAGE_ROLE_PERSONAL;
    case plan::Role::kFrozen:
      return SELVAGE_ROLE_FROZEN;
  }
  return 0;
}

int32_t OptimizerOf(plan::OptimizerName name) {
  switch (name) {
    case plan::OptimizerName::kSgd:
      return SELVAGE_SGD;
    case plan::OptimizerName::kAdam:
      return SELVAGE_ADAM;
    case plan::OptimizerName::kAdamW:
      return SELVAGE_ADAMW;
  }
  return 0;
}

static_assert(int{client::kFeatureNesterov} == SELVAGE_TRAINS_NESTEROV &&
              int{client::kFeatureAdamW} == SELVAGE_TRAINS_ADAMW &&
              int{client::kFeatureClip} == SELVAGE_TRAINS_CLIP &&
              int{client::kFeatureRateFactor} == SELVAGE_TRAINS_RATE_FACTOR &&
              int{client::kFeatureStepCount} == SELVAGE_TRAINS_STEP_COUNT &&
              int{client::kFeatureEarlyStop} == SELVAGE_TRAINS_EARLY_STOP &&
              int{client::kFeatureSharedProximal} ==
                  SELVAGE_TRAINS_SHARED_PROXIMAL &&
              int{client::kFeatureOptimizerState} ==
                  SELVAGE_TRAINS_OPTIMIZER_STATE &&
              int{client::kFeatureCorrection} == SELVAGE_TRAINS_CORRECTION);

int32_t KindOf(plan::ProgramKind kind) {
  switch (kind) {
    case plan::ProgramKind::kSource:
      return SELVAGE_PROGRAM_SOURCE;
    case plan::ProgramKind::kArchive:
      return SELVAGE_PROGRAM_ARCHIVE;
    case plan::ProgramKind::kNative:
      return SELVAGE_PROGRAM_NATIVE;
  }
  return 0;
}

// A program as the C struct; `program` and `archive` must outlive it.
class ProgramView {
 public:
  ProgramView(const plan::Program& program, ByteSpan archive)
      : json_(plan::CanonicalJson(program)) {
    for (const plan::TensorTable::Entry& entry : program.table.entries()) {
      selvage_tensor_spec spec{};
      spec.struct_size = sizeof spec;
      spec.dtype = DTypeOf(entry.spec.dtype);
      spec.role = RoleOf(entry.spec.role);
      spec.rank = static_cast<uint32_t>(entry.spec.shape.size());
      spec.shape = entry.spec.shape.data();
      spec.name = entry.spec.name.c_str();
      spec.count = entry.count;
      spec.offset = entry.offset;
      tensors_.push_back(spec);
    }
    for (const plan::InputSpec& input : program.inputs) {
      selvage_input_spec spec{};
      spec.struct_size = sizeof spec;
      spec.dtype = DTypeOf(input.dtype);
      spec.name = input.name.c_str();
      spec.shape = input.shape.data();
      spec.rank = static_cast<uint32_t>(input.shape.size());
      spec.size = input.SizeBytes();
      inputs_.push_back(spec);
    }
    for (const std::string& metric : program.metrics) {
      metrics_.push_back(metric.c_str());
    }
    view_.struct_size = sizeof view_;
    view_.kind = KindOf(program.kind);
    view_.source = program.source.c_str();
    view_.native_name = program.native_name.c_str();
    view_.archive = archive.data();
    view_.archive_size = archive.size();
    view_.json = json_.c_str();
    view_.json_size = json_.size();
    view_.tensors = tensors_.data();
    view_.tensor_count = tensors_.size();
    view_.float_count = program.table.float_count();
    view_.int_count = program.table.int_count();
    view_.inputs = inputs_.data();
    view_.input_count = static_cast<uint32_t>(inputs_.size());
    view_.metrics = metrics_.data();
    view_.metric_count = static_cast<uint32_t>(metrics_.size());
  }

  const selvage_program* get() const { return &view_; }

 private:
  const std::string json_;
  std::vector<selvage_tensor_spec> tensors_;
  std::vector<selvage_input_spec> inputs_;
  std::vector<const char*> metrics_;
  selvage_program view_{};
};

// Examples as the C struct; must not outlive them.
class ExampleView {
 public:
  explicit ExampleView(const client::ExampleSet& examples) {
    for (const Bytes& input : examples.inputs) {
      inputs_.push_back(input.data());
      sizes_.push_back(input.size());
    }
    view_.struct_size = sizeof view_;
    view_.input_count = static_cast<uint32_t>(inputs_.size());
    view_.count = examples.count;
    view_.inputs = inputs_.data();
    view_.input_sizes = sizes_.data();
  }
  const selvage_example_set* get() const { return &view_; }

 private:
  std::vector<const void*> inputs_;
  std::vector<uint64_t> sizes_;
  selvage_example_set view_{};
};

// What a call of the engine came to.
class EngineCall {
 public:
  explicit EngineCall(const char* name) : name_(name) {
    error_.struct_size = sizeof error_;
  }
  selvage_engine_error* error() { return &error_; }

  Status Check(selvage_code status) {
    if (status == SELVAGE_OK) return OkStatus();
    const size_t length = strnlen(error_.text, sizeof error_.text);
    std::string text(error_.text, length);
    if (text.empty()) text = std::string("the engine failed to ") + name_;
    if (status < SELVAGE_CANCELLED || status > SELVAGE_UNAUTHENTICATED) {
      return Internal(text + " (status " + std::to_string(status) + ")");
    }
    return {static_cast<StatusCode>(status), std::move(text)};
  }

 private:
  const char* const name_;
  selvage_engine_error error_{};
};

const client::LocalTraining& OptionsOf(void* user) {
  return *static_cast<const client::LocalTraining*>(user);
}

int32_t KeepGoing(void* user) {
  const auto& options = OptionsOf(user);
  return !options.keep_going || options.keep_going() ? 1 : 0;
}

int32_t CheckpointDue(void* user) {
  const auto& options = OptionsOf(user);
  return options.checkpoint_due && options.checkpoint_due() ? 1 : 0;
}

double RateFactorOf(void* user, uint64_t step) {
  return OptionsOf(user).rate_factor(step);
}

void SaveCheckpoint(void* user, const selvage_training_checkpoint* checkpoint) {
  if (checkpoint == nullptr ||
      (checkpoint->state == nullptr && checkpoint->state_size > 0)) {
    return;
  }
  const auto* state = static_cast<const uint8_t*>(checkpoint->state);
  OptionsOf(user).save_checkpoint(
      {.steps = checkpoint->steps,
       .state = Bytes(state, state + checkpoint->state_size)});
}

void SaveOptimizer(void* user, const void* state, uint64_t size) {
  if (state == nullptr && size > 0) return;
  const auto* bytes = static_cast<const uint8_t*>(state);
  OptionsOf(user).save_optimizer(Bytes(bytes, bytes + size));
}

// The first prediction that comes, checked.
struct PredictionTaker {
  uint64_t count = 0;
  bool taken = false;
  client::TrainableModel::Prediction prediction;
};

selvage_code TakePrediction(void* user, const int64_t* shape, uint32_t rank,
                            const float* values) {
  auto& taker = *static_cast<PredictionTaker*>(user);
  constexpr uint64_t kCountMax = uint64_t{1} << 28;
  if (taker.taken || shape == nullptr || rank == 0 ||
      rank > plan::kTensorRankMax || shape[0] < 0 ||
      static_cast<uint64_t>(shape[0]) != taker.count) {
    return SELVAGE_INVALID_ARGUMENT;
  }
  uint64_t size = 1;
  for (uint32_t i = 0; i < rank; ++i) {
    const auto dimension = static_cast<uint64_t>(shape[i]);
    if (shape[i] <= 0 || dimension > kCountMax / size) {
      return SELVAGE_INVALID_ARGUMENT;
    }
    size *= dimension;
  }
  if (values == nullptr) return SELVAGE_INVALID_ARGUMENT;
  taker.prediction.shape.assign(shape, shape + rank);
  taker.prediction.values.assign(values, values + size);
  taker.taken = true;
  return SELVAGE_OK;
}

// The engine itself: closed when its trainer and every model are gone.
class Engine {
 public:
  explicit Engine(const selvage_engine& table) : table_(table) {}
  ~Engine() {
    if (table_.close != nullptr) table_.close(table_.user);
  }
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  const selvage_engine* operator->() const { return &table_; }

 private:
  const selvage_engine table_;
};

class EngineModel final : public client::TrainableModel {
 public:
  EngineModel(std::shared_ptr<const Engine> engine, plan::Program program,
              void* model)
      : engine_(std::move(engine)),
        program_(std::move(program)),
        model_(model) {}
  ~EngineModel() override { (*engine_)->unload(model_); }

  Status SetValues(const plan::Checkpoint& values) override {
    SELVAGE_RETURN_IF_ERROR(plan::ValidateCheckpoint(program_.table, values));
    EngineCall call("take the values");
    return call.Check((*engine_)->set_values(model_, values.floats.data(),
                                             values.ints.data(), call.error()));
  }

  Result<plan::Checkpoint> Values() override {
    plan::Checkpoint values;
    values.floats.resize(program_.table.float_count());
    values.ints.resize(program_.table.int_count());
    EngineCall call("give the values");
    SELVAGE_RETURN_IF_ERROR(call.Check((*engine_)->get_values(
        model_, values.floats.data(), values.ints.data(), call.error())));
    return values;
  }

  uint64_t features() const override { return (*engine_)->training_features; }

  Result<client::TrainingReport> Train(
      const client::ExampleSet& examples,
      const client::LocalTraining& options) override {
    SELVAGE_RETURN_IF_ERROR(client::ValidateExamples(program_, examples));
    SELVAGE_RETURN_IF_ERROR(client::RequireFeatures(features(), options));
    const std::vector<uint64_t> trainable(options.trainable.begin(),
                                          options.trainable.end());
    selvage_training training{};
    training.struct_size = sizeof training;
    training.epochs = options.epochs;
    training.batch_size = options.batch_size;
    training.optimizer = OptimizerOf(options.optimizer.name);
    training.learning_rate = options.optimizer.lr;
    training.momentum = options.optimizer.momentum;
    training.beta1 = options.optimizer.beta1;
    training.beta2 = options.optimizer.beta2;
    training.epsilon = options.optimizer.eps;
    training.weight_decay = options.optimizer.weight_decay;
    training.seed = options.seed;
    training.trainable = trainable.data();
    training.trainable_count = trainable.size();
    training.update_buffers = options.update_buffers ? 1 : 0;
    training.proximal_mu = options.proximal_mu;
    training.step_time_max_us = options.step_time_max.count();
    training.threads = options.threads;
    training.user = const_cast<client::LocalTraining*>(&options);
    training.keep_going = KeepGoing;
    selvage_training_checkpoint resume{};
    if (options.resume != nullptr) {
      resume.struct_size = sizeof resume;
      resume.steps = options.resume->steps;
      resume.state = options.resume->state.data();
      resume.state_size = options.resume->state.size();
      training.resume = &resume;
    }
    if (options.save_checkpoint) {
      training.checkpoint_due = CheckpointDue;
      training.save_checkpoint = SaveCheckpoint;
    }
    if (options.rate_factor) training.rate_factor = RateFactorOf;
    training.clip_norm = options.clip_norm;
    training.step_count = options.step_count;
    training.stop_min_delta = options.stop_min_delta;
    training.stop_patience = options.stop_patience;
    training.nesterov = options.optimizer.nesterov ? 1 : 0;
    training.proximal_shared_only = options.proximal_shared_only ? 1 : 0;
    if (options.optimizer_state != nullptr) {
      training.optimizer_state = options.optimizer_state->data();
      training.optimizer_state_size = options.optimizer_state->size();
    }
    if (options.save_optimizer) training.save_optimizer = SaveOptimizer;
    if (options.correction != nullptr) {
      training.correction = options.correction->data();
      training.correction_count = options.correction->size();
    }
    selvage_training_report report{};
    report.struct_size = sizeof report;
    EngineCall call("train");
    SELVAGE_RETURN_IF_ERROR(
        call.Check((*engine_)->train(model_, ExampleView(examples).get(),
                                     &training, &report, call.error())));
    if (!std::isfinite(report.mean_loss)) {
      return OutOfRange("the loss is not finite");
    }
    return client::TrainingReport{.steps = report.steps,
                                  .mean_loss = report.mean_loss,
                                  .stopped_early = report.stopped_early != 0};
  }

  Result<std::vector<float>> Score(
      const client::ExampleSet& examples) override {
    SELVAGE_RETURN_IF_ERROR(client::ValidateExamples(program_, examples));
    std::vector<float> scores(examples.count * program_.metrics.size(),
                              std::numeric_limits<float>::quiet_NaN());
    EngineCall call("score");
    SELVAGE_RETURN_IF_ERROR(call.Check((*engine_)->score(
        model_, ExampleView(examples).get(), scores.data(), call.error())));
    for (const float score : scores) {
      if (!std::isfinite(score)) return OutOfRange("a score is not finite");
    }
    return scores;
  }

  Result<Prediction> Predict(size_t count, ByteSpan input) override {
    const size_t wanted = count * program_.inputs.front().SizeBytes();
    if (count == 0 || input.size() != wanted) {
      return InvalidArgument("the input has " + std::to_string(input.size()) +
                             " bytes for " + std::to_string(count) +
                             " examples, not " + std::to_string(wanted));
    }
    PredictionTaker taker;
    taker.count = count;
    EngineCall call("predict");
    SELVAGE_RETURN_IF_ERROR(call.Check(
        (*engine_)->predict(model_, count, input.data(), input.size(),
                            TakePrediction, &taker, call.error())));
    if (!taker.taken) {
      return Internal("the engine gave no prediction of " +
                      std::to_string(count) + " examples");
    }
    return std::move(taker.prediction);
  }

 private:
  const std::shared_ptr<const Engine> engine_;
  const plan::Program program_;
  void* const model_;
};

void AddName(void* list, const char* name) {
  auto& names = *static_cast<std::vector<std::string>*>(list);
  if (name == nullptr || names.size() >= kEngineCountMax) return;
  names.emplace_back(name, strnlen(name, kEngineNameSizeMax));
}

class EngineTrainer final : public client::Trainer {
 public:
  explicit EngineTrainer(const selvage_engine& table)
      : engine_(std::make_shared<const Engine>(table)) {}

  std::vector<std::string> engines() const override {
    std::vector<std::string> names;
    (*engine_)->engines((*engine_)->user, AddName, &names);
    return names;
  }

  Result<std::unique_ptr<client::TrainableModel>> Load(
      const plan::Program& program, ByteSpan archive) override {
    SELVAGE_RETURN_IF_ERROR(program.Validate());
    const ProgramView view(program, archive);
    void* model = nullptr;
    EngineCall call("load the program");
    SELVAGE_RETURN_IF_ERROR(call.Check(
        (*engine_)->load((*engine_)->user, view.get(), &model, call.error())));
    if (model == nullptr) return Internal("the engine gave no model");
    return std::unique_ptr<client::TrainableModel>(
        std::make_unique<EngineModel>(engine_, program, model));
  }

 private:
  const std::shared_ptr<const Engine> engine_;
};

}  // namespace

Status ValidateEngine(const selvage_engine& engine) {
  const std::pair<bool, const char*> functions[] = {
      {engine.engines != nullptr, "engines"},
      {engine.load != nullptr, "load"},
      {engine.unload != nullptr, "unload"},
      {engine.set_values != nullptr, "set_values"},
      {engine.get_values != nullptr, "get_values"},
      {engine.train != nullptr, "train"},
      {engine.score != nullptr, "score"},
      {engine.predict != nullptr, "predict"},
  };
  for (const auto& [given, name] : functions) {
    if (!given) {
      return InvalidArgument(std::string("the engine has no function ") + name);
    }
  }
  return OkStatus();
}

std::unique_ptr<client::Trainer> MakeEngineTrainer(
    const selvage_engine& engine) {
  return std::make_unique<EngineTrainer>(engine);
}

}  // namespace selvage::capi

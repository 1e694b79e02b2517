#include <algorithm>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <utility>

#include "client/capi/engine/engine_adapter.h"

namespace selvage::capi {
namespace {

struct ExportedModel {
  plan::Program program;
  std::unique_ptr<client::TrainableModel> model;
};

// Runs `body`, which returns a Status, and reports it in C.
template <typename Body>
selvage_code Guarded(selvage_engine_error* error, const Body& body) {
  try {
    return ReportTo(error, body());
  } catch (const std::bad_alloc&) {
    return ReportTo(error, ResourceExhausted("out of memory"));
  } catch (const std::exception& exception) {
    return ReportTo(error, Internal(exception.what()));
  } catch (...) {
    return ReportTo(error, Internal("the engine threw"));
  }
}

client::Trainer& TrainerOf(void* user) {
  return *static_cast<client::Trainer*>(user);
}
ExportedModel& ModelOf(void* model) {
  return *static_cast<ExportedModel*>(model);
}

client::ExampleSet CopyExamples(const selvage_example_set& from) {
  client::ExampleSet examples;
  examples.count = static_cast<size_t>(from.count);
  for (uint32_t i = 0; i < from.input_count; ++i) {
    const auto* bytes = static_cast<const uint8_t*>(from.inputs[i]);
    examples.inputs.emplace_back(bytes, bytes + from.input_sizes[i]);
  }
  return examples;
}

void Engines(void* user, void (*add)(void* list, const char* name),
             void* list) {
  try {
    for (const std::string& name : TrainerOf(user).engines()) {
      add(list, name.c_str());
    }
  } catch (const std::exception&) {
    return;  // an engine that cannot name itself has no tasks
  }
}

selvage_code Load(void* user, const selvage_program* program, void** model,
                  selvage_engine_error* error) {
  return Guarded(error, [&]() -> Status {
    auto exported = std::make_unique<ExportedModel>();
    SELVAGE_ASSIGN_OR_RETURN(exported->program,
                             plan::ParseProgram(std::string_view(
                                 program->json, program->json_size)));
    SELVAGE_ASSIGN_OR_RETURN(
        exported->model,
        TrainerOf(user).Load(
            exported->program,
            ByteSpan(static_cast<const uint8_t*>(program->archive),
                     static_cast<size_t>(program->archive_size))));
    *model = exported.release();
    return OkStatus();
  });
}

void Unload(void* model) { delete static_cast<ExportedModel*>(model); }

selvage_code SetValues(void* model, const float* floats, const int64_t* ints,
                       selvage_engine_error* error) {
  return Guarded(error, [&] {
    const plan::TensorTable& table = ModelOf(model).program.table;
    return ModelOf(model).model->SetArrays({floats, table.float_count()},
                                           {ints, table.int_count()});
  });
}

selvage_code GetValues(void* model, float* floats, int64_t* ints,
                       selvage_engine_error* error) {
  return Guarded(error, [&] {
    const plan::TensorTable& table = ModelOf(model).program.table;
    return ModelOf(model).model->CopyArrays({floats, table.float_count()},
                                            {ints, table.int_count()});
  });
}

Result<plan::OptimizerName> OptimizerOf(int32_t optimizer) {
  switch (optimizer) {
    case SELVAGE_SGD:
      return plan::OptimizerName::kSgd;
    case SELVAGE_ADAM:
      return plan::OptimizerName::kAdam;
    case SELVAGE_ADAMW:
      return plan::OptimizerName::kAdamW;
    default:
      return Unimplemented("there is no optimizer " +
                           std::to_string(optimizer));
  }
}

selvage_code Train(void* model, const selvage_example_set* examples,
                   const selvage_training* given,
                   selvage_training_report* report,
                   selvage_engine_error* error) {
  return Guarded(error, [&]() -> Status {
    // An older library's struct is shorter.
    selvage_training known{};
    std::memcpy(&known, given,
                std::min<size_t>(given->struct_size, sizeof known));
    const selvage_training* const training = &known;
    client::LocalTraining options;
    options.epochs = training->epochs;
    options.batch_size = training->batch_size;
    SELVAGE_ASSIGN_OR_RETURN(options.optimizer.name,
                             OptimizerOf(training->optimizer));
    options.optimizer.nesterov = training->nesterov != 0;
    options.optimizer.lr = training->learning_rate;
    options.optimizer.momentum = training->momentum;
    options.optimizer.beta1 = training->beta1;
    options.optimizer.beta2 = training->beta2;
    options.optimizer.eps = training->epsilon;
    options.optimizer.weight_decay = training->weight_decay;
    options.seed = training->seed;
    options.trainable.assign(training->trainable,
                             training->trainable + training->trainable_count);
    options.update_buffers = training->update_buffers != 0;
    options.proximal_mu = training->proximal_mu;
    options.step_time_max = Duration(training->step_time_max_us);
    options.threads = training->threads;
    if (training->keep_going != nullptr) {
      options.keep_going = [training] {
        return training->keep_going(training->user) != 0;
      };
    }
    client::TrainingCheckpoint resume;
    if (training->resume != nullptr) {
      const auto* state = static_cast<const uint8_t*>(training->resume->state);
      resume.steps = training->resume->steps;
      resume.state.assign(state, state + training->resume->state_size);
      options.resume = &resume;
    }
    if (training->checkpoint_due != nullptr &&
        training->save_checkpoint != nullptr) {
      options.checkpoint_due = [training] {
        return training->checkpoint_due(training->user) != 0;
      };
      options.save_checkpoint = [training](client::TrainingCheckpoint made) {
        selvage_training_checkpoint out{};
        out.struct_size = sizeof out;
        out.steps = made.steps;
        out.state = made.state.data();
        out.state_size = made.state.size();
        training->save_checkpoint(training->user, &out);
      };
    }
    if (training->rate_factor != nullptr) {
      options.rate_factor = [training](uint64_t step) {
        return training->rate_factor(training->user, step);
      };
    }
    options.clip_norm = training->clip_norm;
    options.step_count = training->step_count;
    options.stop_patience = training->stop_patience;
    options.stop_min_delta = training->stop_min_delta;
    options.proximal_shared_only = training->proximal_shared_only != 0;
    Bytes optimizer;
    if (training->optimizer_state != nullptr) {
      const auto* state =
          static_cast<const uint8_t*>(training->optimizer_state);
      optimizer.assign(state, state + training->optimizer_state_size);
      options.optimizer_state = &optimizer;
    }
    if (training->save_optimizer != nullptr) {
      options.save_optimizer = [training](const Bytes& state) {
        training->save_optimizer(training->user, state.data(), state.size());
      };
    }
    if (training->correction != nullptr) {
      options.correction = std::make_shared<const std::vector<float>>(
          training->correction,
          training->correction + training->correction_count);
    }
    client::TrainableModel& trained = *ModelOf(model).model;
    SELVAGE_RETURN_IF_ERROR(
        client::RequireFeatures(trained.features(), options));
    SELVAGE_ASSIGN_OR_RETURN(const client::TrainingReport done,
                             trained.Train(CopyExamples(*examples), options));
    report->steps = done.steps;
    report->mean_loss = done.mean_loss;
    if (report->struct_size >= sizeof *report) {
      report->stopped_early = done.stopped_early ? 1 : 0;
    }
    return OkStatus();
  });
}

selvage_code Score(void* model, const selvage_example_set* examples,
                   float* scores, selvage_engine_error* error) {
  return Guarded(error, [&]() -> Status {
    SELVAGE_ASSIGN_OR_RETURN(
        const std::vector<float> values,
        ModelOf(model).model->Score(CopyExamples(*examples)));
    std::copy(values.begin(), values.end(), scores);
    return OkStatus();
  });
}

selvage_code Predict(void* model, uint64_t count, const void* input,
                     uint64_t size, selvage_prediction_sink sink,
                     void* sink_user, selvage_engine_error* error) {
  return Guarded(error, [&]() -> Status {
    SELVAGE_ASSIGN_OR_RETURN(
        const client::TrainableModel::Prediction prediction,
        ModelOf(model).model->Predict(
            static_cast<size_t>(count),
            ByteSpan(static_cast<const uint8_t*>(input),
                     static_cast<size_t>(size))));
    const selvage_code taken =
        sink(sink_user, prediction.shape.data(),
             static_cast<uint32_t>(prediction.shape.size()),
             prediction.values.data());
    return taken == SELVAGE_OK ? OkStatus()
                               : Internal("the prediction was not taken");
  });
}

void Close(void* user) { delete static_cast<client::Trainer*>(user); }

}  // namespace

void ExportTrainer(std::unique_ptr<client::Trainer> trainer,
                   selvage_engine* engine) {
  *engine = {};
  engine->struct_size = sizeof *engine;
  engine->user = trainer.release();
  engine->engines = Engines;
  engine->load = Load;
  engine->unload = Unload;
  engine->set_values = SetValues;
  engine->get_values = GetValues;
  engine->train = Train;
  engine->score = Score;
  engine->predict = Predict;
  engine->close = Close;
  // Whether a model can is asked again when it is trained.
  engine->training_features = client::kAllTrainingFeatures;
}

selvage_code ReportTo(selvage_engine_error* error, const Status& status) {
  if (!status.ok() && error != nullptr) {
    const std::string_view text = status.message();
    const size_t size = std::min(text.size(), sizeof error->text - 1);
    std::copy_n(text.data(), size, error->text);
    error->text[size] = '\0';
  }
  return static_cast<selvage_code>(status.code());
}

}  // namespace selvage::capi

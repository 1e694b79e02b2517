#include "client/model_host.h"

#include <algorithm>

#include "plan/checkpoint.h"

namespace selvage::client {
namespace {

// Devices rarely take part in more tasks than this at once.
constexpr size_t kLoadedMax = 2;

}  // namespace

Result<TrainableModel*> ModelHost::Training(
    const crypto::Digest& program_digest, const plan::Program& program,
    ByteSpan archive) {
  const auto it = std::find_if(
      loaded_.begin(), loaded_.end(),
      [&](const Loaded& l) { return l.program_digest == program_digest; });
  if (it != loaded_.end()) {
    loaded_.splice(loaded_.begin(), loaded_, it);
    return loaded_.front().model.get();
  }
  // Make room first: two large models at once may not fit.
  while (loaded_.size() >= kLoadedMax) loaded_.pop_back();
  SELVAGE_ASSIGN_OR_RETURN(std::unique_ptr<TrainableModel> model,
                           trainer_.Load(program, archive));
  loaded_.push_front(
      {.program_digest = program_digest, .model = std::move(model)});
  return loaded_.front().model.get();
}

Result<std::shared_ptr<ModelHost::Serving>> ModelHost::BuildFrom(
    const crypto::Digest& program_digest, const crypto::Digest& archive_digest,
    const Bytes& values, const crypto::Digest& digest, Occasion occasion) {
  const crypto::Digest found = crypto::Sha256(values);
  if (!digest.empty() && digest != found) {
    return DataLoss("the values are not those that were installed");
  }
  if (guard_.IsPutAside(found)) {
    return FailedPrecondition("the values were put aside: the process died " +
                              std::to_string(kDeathsMax) +
                              " times while they were loaded");
  }
  SELVAGE_ASSIGN_OR_RETURN(const Bytes json,
                           store_.LoadArtefact(program_digest));
  SELVAGE_ASSIGN_OR_RETURN(const plan::Program program,
                           plan::ParseProgram(AsText(json)));
  Bytes archive;
  if (!archive_digest.empty()) {
    SELVAGE_ASSIGN_OR_RETURN(archive, store_.LoadArtefact(archive_digest));
  }
  SELVAGE_ASSIGN_OR_RETURN(const plan::Checkpoint checkpoint,
                           plan::ParseMaster(program.table, values));
  // An installation left a mark of its own. A disk that takes no mark is no
  // reason not to serve.
  const Result<CrashGuard::Scope> scope =
      occasion == Occasion::kFirstUse
          ? guard_.Begin(RiskyWork::kServing, found)
          : guard_.BeginIfWary(RiskyWork::kServing, found);
  auto serving = std::make_shared<Serving>();
  serving->input_size = program.inputs.front().SizeBytes();
  MutexLock lock(serving->mu);
  SELVAGE_ASSIGN_OR_RETURN(serving->model, trainer_.Load(program, archive));
  SELVAGE_RETURN_IF_ERROR(serving->model->SetValues(checkpoint));
  // Only for what it does to the process: an engine that dies of this model
  // does so under the mark.
  (void)serving->model->Predict(1, Bytes(serving->input_size));
  return serving;
}

Result<std::shared_ptr<ModelHost::Serving>> ModelHost::Build(
    const std::string& task, Occasion occasion) {
  SELVAGE_ASSIGN_OR_RETURN(const std::optional<StoredModel> stored,
                           store_.LoadModel(task));
  if (!stored.has_value()) {
    return NotFound("no model of task " + task + " is installed");
  }
  Status first;  // what is wrong with the slot that should serve
  const auto passed_over = [&](std::string_view slot, const Status& status) {
    events_.Write(
        LogLevel::kError, "slot_passed_over",
        {{"task", task}, {"slot", slot}, {"reason", status.ToString()}});
    if (first.ok()) first = status;
  };
  if (stored->personal_serving) {
    Result<std::shared_ptr<Serving>> personal =
        BuildFrom(stored->program_digest, stored->archive_digest,
                  *stored->personal_values, stored->personal_digest, occasion);
    if (personal.ok()) {
      (*personal)->version = stored->version;
      (*personal)->personal = true;
      return personal;
    }
    passed_over("personal", personal.status());
  }
  Result<std::shared_ptr<Serving>> global =
      BuildFrom(stored->program_digest, stored->archive_digest,
                stored->global_values, stored->global_digest, occasion);
  if (global.ok()) {
    (*global)->version = stored->version;
    return global;
  }
  passed_over("global", global.status());
  if (global.status().code() == StatusCode::kDataLoss) {
    MutexLock lock(mu_);
    damaged_.insert(task);
  }
  SELVAGE_ASSIGN_OR_RETURN(const std::optional<GoodModel> known_good,
                           store_.LoadGoodModel(task));
  if (!known_good.has_value()) return first;
  Result<std::shared_ptr<Serving>> good =
      BuildFrom(known_good->program_digest, known_good->archive_digest,
                known_good->values, crypto::Digest{}, occasion);
  if (good.ok()) {
    (*good)->version = known_good->version;
    (*good)->personal = known_good->personal;
    return good;
  }
  passed_over("known_good", good.status());
  return first;
}

Result<ServedPrediction> ModelHost::Predict(std::string_view task,
                                            ByteSpan input, size_t count) {
  std::shared_ptr<Serving> serving;
  while (serving == nullptr) {
    uint64_t generation = 0;
    {
      MutexLock lock(mu_);
      const auto it = serving_.find(task);
      if (it != serving_.end()) serving = it->second;
      generation = generation_;
    }
    if (serving != nullptr) break;
    SELVAGE_ASSIGN_OR_RETURN(std::shared_ptr<Serving> built,
                             Build(std::string(task), Occasion::kFirstUse));
    MutexLock lock(mu_);
    // Something was installed meanwhile: what was built may be old.
    if (generation != generation_) continue;
    serving_[std::string(task)] = built;
    serving = std::move(built);
  }
  if (count == 0 || input.size() != count * serving->input_size) {
    return InvalidArgument("the input has " + std::to_string(input.size()) +
                           " bytes, " + std::to_string(count) +
                           " examples take " +
                           std::to_string(count * serving->input_size));
  }
  MutexLock lock(serving->mu);
  SELVAGE_ASSIGN_OR_RETURN(TrainableModel::Prediction prediction,
                           serving->model->Predict(count, input));
  ServedPrediction served;
  served.shape = std::move(prediction.shape);
  served.values = std::move(prediction.values);
  served.version = serving->version;
  served.personal = serving->personal;
  return served;
}

void ModelHost::Forget() {
  loaded_.clear();
  MutexLock lock(mu_);
  ++generation_;
  serving_.clear();
}

bool ModelHost::IsDamaged(std::string_view task) {
  MutexLock lock(mu_);
  return damaged_.contains(task);
}

Status ModelHost::Refresh(std::string_view task) {
  bool serving = false;
  {
    MutexLock lock(mu_);
    ++generation_;
    if (const auto it = damaged_.find(task); it != damaged_.end()) {
      damaged_.erase(it);
    }
    serving = serving_.contains(task);
  }
  if (!serving) return OkStatus();  // loaded when somebody asks
  SELVAGE_ASSIGN_OR_RETURN(std::shared_ptr<Serving> built,
                           Build(std::string(task), Occasion::kInstalled));
  MutexLock lock(mu_);
  serving_[std::string(task)] = std::move(built);
  return OkStatus();
}

}  // namespace selvage::client

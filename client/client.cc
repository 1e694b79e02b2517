#include "client/client.h"

#include <algorithm>
#include <limits>

#include "base/file_lock.h"
#include "client/crash_guard.h"
#include "client/device_identity.h"
#include "client/local_data.h"
#include "client/model_host.h"
#include "client/personalizer.h"
#include "client/run_policy.h"
#include "client/session_driver.h"
#include "client/store/blob_cache.h"
#include "client/store/client_store.h"
#include "client/store/quarantine.h"

namespace selvage::client {
namespace {

constexpr size_t kExampleSizeMax = 16 << 20;
constexpr size_t kExampleKeySizeMax = 256;

bool IsIdentifier(std::string_view text, std::string_view extra) {
  return !text.empty() && text.size() <= 64 &&
         std::all_of(text.begin(), text.end(), [&](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                  extra.find(c) != std::string_view::npos;
         });
}

Status CheckOptions(const ClientOptions& options) {
  if (options.state_dir.empty() || options.cache_dir.empty()) {
    return InvalidArgument("state_dir and cache_dir must be given");
  }
  if (options.state_dir == options.cache_dir) {
    return InvalidArgument(
        "state_dir and cache_dir must differ: the cache may be deleted");
  }
  if (!IsIdentifier(options.population, "-")) {
    return InvalidArgument("population (" + options.population +
                           ") is not 1..64 of [a-z0-9-]");
  }
  if (!options.device_name.empty() && !IsIdentifier(options.device_name, "-")) {
    return InvalidArgument("device_name (" + options.device_name +
                           ") is not 1..64 of [a-z0-9-]");
  }
  if (options.device_class.size() > 64 || options.app_version.size() > 64) {
    return InvalidArgument(
        "device_class and app_version have at most 64 bytes");
  }
  SELVAGE_RETURN_IF_ERROR(CheckFloor(options.floor));
  if (options.threads_max < 0) {
    return InvalidArgument("threads_max (" +
                           std::to_string(options.threads_max) +
                           ") is negative");
  }
  if (options.daily.cpu < Duration::zero()) {
    return InvalidArgument("daily.cpu is negative");
  }
  return OkStatus();
}

Status CheckCollection(std::string_view collection) {
  if (IsIdentifier(collection, "_-")) return OkStatus();
  return InvalidArgument("collection (" + std::string(collection) +
                         ") is not 1..64 of [a-z0-9_-]");
}

Status CheckExample(const Example& example) {
  if (example.inputs.empty() || example.inputs.size() > plan::kInputCountMax) {
    return InvalidArgument(
        "an example has " + std::to_string(example.inputs.size()) +
        " inputs, not 1.." + std::to_string(plan::kInputCountMax));
  }
  size_t size = 0;
  for (const Bytes& input : example.inputs) size += input.size();
  if (size > kExampleSizeMax) {
    return InvalidArgument("an example has " + std::to_string(size) +
                           " bytes, more than " +
                           std::to_string(kExampleSizeMax));
  }
  if (example.key.size() > kExampleKeySizeMax) {
    return InvalidArgument(
        "the key of an example has " + std::to_string(example.key.size()) +
        " bytes, more than " + std::to_string(kExampleKeySizeMax));
  }
  return OkStatus();
}

ModelInfo InfoOf(const StoredModel& model, const plan::Program& program) {
  ModelInfo info;
  info.task = model.task;
  info.version = model.version;
  info.personal_serving = model.personal_serving;
  info.metrics = program.metrics;
  info.global_scores = model.global_scores;
  info.personal_scores = model.personal_scores;
  info.alone_scores = model.alone_scores;
  info.holdout_count = model.holdout_count;
  return info;
}

}  // namespace

std::string_view SlotName(Slot slot) {
  switch (slot) {
    case Slot::kServing:
      return "serving";
    case Slot::kGlobal:
      return "global";
    case Slot::kPersonal:
      return "personal";
    case Slot::kAlone:
      return "alone";
  }
  return "unknown";
}

std::string_view PhaseName(Phase phase) {
  switch (phase) {
    case Phase::kEnrolling:
      return "enrolling";
    case Phase::kCheckingIn:
      return "checking_in";
    case Phase::kFetching:
      return "fetching";
    case Phase::kTraining:
      return "training";
    case Phase::kUploading:
      return "uploading";
    case Phase::kPersonalizing:
      return "personalizing";
  }
  return "unknown";
}

class Client::Impl {
 public:
  Impl(ClientOptions options, ClientDependencies deps)
      : options_(std::move(options)), deps_(std::move(deps)) {}

  Status Open() {
    SELVAGE_RETURN_IF_ERROR(CheckOptions(options_));
    SELVAGE_RETURN_IF_ERROR(deps_.files.CreateDirectories(options_.state_dir));
    SELVAGE_ASSIGN_OR_RETURN(
        lock_, FileLock::Acquire(options_.state_dir / "lock", "client"));
    StorageKeys keys(deps_.files, options_.state_dir / "storage.key",
                     deps_.storage_key);
    SELVAGE_RETURN_IF_ERROR(OpenStore(keys));
    SELVAGE_RETURN_IF_ERROR(ClaimStore());
    IdentityOptions identity{
        .key_file = options_.state_dir /
                    (deps_.identity_key == nullptr ? "device.key" : "tls.key"),
        .population = options_.population,
        .bundle_json = options_.enrolment_bundle,
        .device_name = options_.device_name,
        .allow_insecure_loopback = options_.allow_insecure_loopback,
        .identity_key = deps_.identity_key};
    // A key file beside the sealed one would protect nothing.
    if (keys.from_host()) {
      SELVAGE_ASSIGN_OR_RETURN(crypto::SecretBytes seal,
                               keys.Derive("selvage/v1 device key file"));
      identity.key_seal.emplace(std::move(seal));
    }
    SELVAGE_ASSIGN_OR_RETURN(
        identity_,
        DeviceIdentity::Open(std::move(identity), deps_.files, *store_));
    cache_.emplace(deps_.files, options_.cache_dir, options_.cache_bytes_max);
    SELVAGE_ASSIGN_OR_RETURN(
        guard_, CrashGuard::Open(*store_, deps_.clock, deps_.events));
    host_ = std::make_unique<ModelHost>(deps_.trainer, *store_, *guard_,
                                        deps_.events);
    SELVAGE_ASSIGN_OR_RETURN(
        driver_, SessionDriver::Create({.options = options_,
                                        .deps = deps_,
                                        .store = *store_,
                                        .cache = *cache_,
                                        .identity = *identity_,
                                        .host = *host_,
                                        .guard = *guard_,
                                        .holdout_salt = holdout_salt_}));
    return OkStatus();
  }

  Status InstallModel(std::string_view plan_json, std::string_view program_json,
                      ByteSpan archive, ByteSpan safetensors) {
    VerifiedWork work;
    work.plan_json = plan_json;
    SELVAGE_ASSIGN_OR_RETURN(work.plan, plan::ParsePlan(plan_json));
    if (work.plan.population != options_.population) {
      return InvalidArgument("the plan is for population " +
                             work.plan.population + ", not " +
                             options_.population);
    }
    work.program_json = program_json;
    if (crypto::Sha256(AsBytes(program_json)) != work.plan.program_digest) {
      return DataLoss("the program is not the one that the plan names");
    }
    SELVAGE_ASSIGN_OR_RETURN(work.program, plan::ParseProgram(program_json));
    work.archive = Bytes(archive.begin(), archive.end());
    if (!work.program.archive_digest.empty() &&
        crypto::Sha256(archive) != work.program.archive_digest) {
      return DataLoss("the archive is not the one that the program names");
    }
    SELVAGE_ASSIGN_OR_RETURN(
        work.base, plan::ReadSafetensors(work.program.table, safetensors));
    SELVAGE_ASSIGN_OR_RETURN(const std::optional<StoredModel> before,
                             store_->LoadModel(work.plan.task));
    // Never back to what was shipped: the newest version wins.
    if (before.has_value() && before->version > 0) return OkStatus();
    // An app gives its model at every start: what was learned since stays.
    if (before.has_value() && before->plan_json == work.plan_json &&
        before->global_values == plan::SerializeMaster(work.base)) {
      return OkStatus();
    }
    PersonalizeOptions options{.clock = deps_.clock, .events = deps_.events};
    options.global_only = true;
    options.holdout_salt = holdout_salt_;
    options.device_id = SeedName();
    return StatusOf(InstallPersonalized(work, options, *store_, *host_, *guard_,
                                        [] { return true; }));
  }

  Result<std::vector<int64_t>> AddExamples(
      std::string_view collection, const std::vector<Example>& examples) {
    SELVAGE_RETURN_IF_ERROR(CheckCollection(collection));
    for (const Example& example : examples) {
      SELVAGE_RETURN_IF_ERROR(CheckExample(example));
    }
    return store_->AddExamples(collection, examples);
  }

  Status DeclareCollection(std::string_view name,
                           const CollectionOptions& options) {
    SELVAGE_RETURN_IF_ERROR(CheckCollection(name));
    return store_->DeclareCollection(std::string(name), options);
  }

  Status ForgetMe(const ForgetOptions& options) {
    const Status status = driver_->Withdraw(options);
    // Not even a failed one leaves personal values in memory.
    host_->Forget();
    SELVAGE_RETURN_IF_ERROR(status);
    return RemoveSetAside(deps_.files, DatabasePath());
  }

  Result<uint64_t> CountExamples(std::string_view collection) {
    SELVAGE_RETURN_IF_ERROR(CheckCollection(collection));
    return store_->CountExamples(collection);
  }

  Result<LocalOutcome> TrainLocally(std::string_view task,
                                    const RunBudget& budget,
                                    const CancelToken& cancel) {
    SELVAGE_ASSIGN_OR_RETURN(Installed installed, Load(task));
    VerifiedWork& work = installed.work;
    if (!work.plan.personalize.enabled) {
      return FailedPrecondition("the plan of task " + std::string(task) +
                                " does not personalise");
    }
    if (!installed.model.global_digest.empty() &&
        crypto::Sha256(installed.model.global_values) !=
            installed.model.global_digest) {
      return DataLoss("the global values of task " + std::string(task) +
                      " are not those that were installed");
    }
    SELVAGE_RETURN_IF_ERROR(guard_->CheckNotPaused());
    SELVAGE_ASSIGN_OR_RETURN(
        const CrashGuard::Scope scope,
        guard_->Begin(RiskyWork::kTraining, installed.model.program_digest));
    // The host asks for it, so the plan's conditions do not count; its budget,
    // its limits of the day and a device that is too hot do.
    RunPolicy policy(options_, deps_, *store_);
    SELVAGE_RETURN_IF_ERROR(policy.Begin(budget, cancel));
    if (deps_.progress) {
      deps_.progress(
          {.phase = Phase::kPersonalizing, .task = std::string(task)});
    }
    PersonalizeOptions options{.clock = deps_.clock, .events = deps_.events};
    options.version = installed.model.version;
    options.holdout_salt = holdout_salt_;
    options.device_id = SeedName();
    options.threads = options_.threads_max;
    options.memory_bytes_max = options_.memory_bytes_max;
    options.progressed = [this] { guard_->TrainingProgressed(); };
    policy.CountProcess(options_.threads_max != 1);
    Personalized done =
        InstallPersonalized(work, options, *store_, *host_, *guard_,
                            [&policy] { return !policy.Stopped(); });
    const std::optional<std::string> stopped = policy.Stop();
    RunUsage usage;
    policy.End(usage);
    const Status status = StatusOf(done);
    if (status.code() == StatusCode::kCancelled && stopped.has_value()) {
      return Cancelled(*stopped);
    }
    SELVAGE_RETURN_IF_ERROR(status);
    const auto& outcome = std::get<PersonalizeOutcome>(done);
    SELVAGE_RETURN_IF_ERROR(outcome.training);
    return LocalOutcome{.model = InfoWithPause(outcome.model, work.program),
                        .steps = outcome.steps};
  }

  Result<std::vector<double>> Evaluate(std::string_view task, Slot slot,
                                       const ExampleSet& examples) {
    SELVAGE_ASSIGN_OR_RETURN(Installed installed, Load(task));
    const StoredModel& model = installed.model;
    const VerifiedWork& work = installed.work;
    SELVAGE_RETURN_IF_ERROR(ValidateExamples(work.program, examples));
    if (examples.count == 0) {
      return InvalidArgument("there are no examples to evaluate on");
    }
    const Bytes* values = &model.global_values;
    if (slot == Slot::kPersonal ||
        (slot == Slot::kServing && model.personal_serving)) {
      values =
          model.personal_values.has_value() ? &*model.personal_values : nullptr;
    } else if (slot == Slot::kAlone) {
      values = model.alone_values.has_value() ? &*model.alone_values : nullptr;
    }
    if (values == nullptr) {
      return NotFound("task " + std::string(task) + " has no " +
                      std::string(SlotName(slot)) + " slot");
    }
    SELVAGE_ASSIGN_OR_RETURN(const plan::Checkpoint checkpoint,
                             plan::ParseMaster(work.program.table, *values));
    SELVAGE_ASSIGN_OR_RETURN(
        TrainableModel * trainable,
        host_->Training(model.program_digest, work.program, work.archive));
    SELVAGE_RETURN_IF_ERROR(trainable->SetValues(checkpoint));
    SELVAGE_ASSIGN_OR_RETURN(const std::vector<float> scores,
                             trainable->Score(examples));
    return ScoreMeans(scores, work.program.metrics.size());
  }

  Result<ModelInfo> Info(std::string_view task) {
    SELVAGE_ASSIGN_OR_RETURN(const Installed installed, Load(task));
    return InfoWithPause(installed.model, installed.work.program);
  }

  Result<std::vector<std::string>> Tasks() {
    SELVAGE_ASSIGN_OR_RETURN(const std::vector<ModelVersion> models,
                             store_->ListModels());
    std::vector<std::string> tasks;
    for (const ModelVersion& model : models) tasks.push_back(model.task);
    return tasks;
  }

  // Predict() may still run on another thread: the store refuses from now on,
  // and everything else lives until the client is destroyed.
  void Close() {
    if (store_ != nullptr) store_->Close();
    lock_.reset();
    closed_.store(true);
  }
  Status CheckOpen() const {
    return closed_.load() ? FailedPrecondition("the client is closed")
                          : OkStatus();
  }

  ClientStore& store() { return *store_; }
  ModelHost& host() { return *host_; }
  SessionDriver& driver() { return *driver_; }
  const DeviceIdentity& identity() const { return *identity_; }

 private:
  struct Installed {
    StoredModel model;
    VerifiedWork work;
  };

  static Status StatusOf(const Personalized& done) {
    if (const auto* refused = std::get_if<WorkRefused>(&done)) {
      return FailedPrecondition(refused->message);
    }
    if (const auto* status = std::get_if<Status>(&done)) return *status;
    return OkStatus();
  }

  // What separates this device's random choices from others' before it has an
  // id.
  std::string SeedName() const {
    return identity_->device_id().empty() ? options_.device_name
                                          : identity_->device_id();
  }

  ModelInfo InfoWithPause(const StoredModel& model,
                          const plan::Program& program) {
    ModelInfo info = InfoOf(model, program);
    const std::optional<Time> until = guard_->PausedUntil();
    info.training_paused = until.has_value();
    info.paused_until = until.value_or(Time{});
    return info;
  }

  Path DatabasePath() const { return options_.state_dir / "client.db"; }

  Status OpenStore(StorageKeys& keys) {
    const ClientStoreOptions options{
        .path = DatabasePath(),
        .vfs = options_.sqlite_vfs,
        .keys = keys,
        .clock = deps_.clock,
        .events = deps_.events,
        .bytes_max = options_.store_bytes_max,
        .source = {.host = deps_.data_source,
                   .count_max = options_.source_count_max,
                   .bytes_max = options_.source_bytes_max}};
    SELVAGE_RETURN_IF_ERROR(RemoveOrphanedLog(deps_.files, options.path));
    Result<std::unique_ptr<ClientStore>> store = ClientStore::Open(options);
    if (!store.ok() && store.status().code() == StatusCode::kDataLoss) {
      const std::string reason(store.status().message());
      const Result<Path> kept = SetAside(deps_.files, options.path);
      if (!kept.ok()) {
        return kept.status().WithContext("setting aside a damaged store (" +
                                         reason + ")");
      }
      deps_.events.Write(
          LogLevel::kError, "store_quarantined",
          {{"reason", reason}, {"kept_as", kept->filename().string()}});
      store = ClientStore::Open(options);
      if (store.ok()) {
        SELVAGE_RETURN_IF_ERROR((*store)->Count("store_quarantined"));
      }
    }
    SELVAGE_RETURN_IF_ERROR(store.status());
    store_ = *std::move(store);
    return OkStatus();
  }

  Status ClaimStore() {
    SELVAGE_ASSIGN_OR_RETURN(std::optional<StoreOwner> owner, store_->Owner());
    if (!owner.has_value()) {
      // From the name if there is one, so that a seeded fleet repeats itself.
      const uint64_t salt =
          options_.device_name.empty()
              ? RandomU64(deps_.random)
              : DeriveSeed(0, options_.population + "/" + options_.device_name,
                           0);
      owner =
          StoreOwner{.population = options_.population, .holdout_salt = salt};
      SELVAGE_RETURN_IF_ERROR(store_->SetOwner(*owner));
    }
    if (owner->population != options_.population) {
      return FailedPrecondition("state directory " +
                                options_.state_dir.string() +
                                " belongs to population " + owner->population);
    }
    holdout_salt_ = owner->holdout_salt;
    return OkStatus();
  }

  Result<Installed> Load(std::string_view task) {
    Installed out;
    SELVAGE_ASSIGN_OR_RETURN(std::optional<StoredModel> model,
                             store_->LoadModel(task));
    if (!model.has_value()) {
      return FailedPrecondition("no model of task " + std::string(task) +
                                " is installed");
    }
    out.model = *std::move(model);
    VerifiedWork& work = out.work;
    work.plan_json = out.model.plan_json;
    SELVAGE_ASSIGN_OR_RETURN(work.plan, plan::ParsePlan(work.plan_json));
    SELVAGE_ASSIGN_OR_RETURN(const Bytes json,
                             store_->LoadArtefact(out.model.program_digest));
    work.program_json = ToString(json);
    SELVAGE_ASSIGN_OR_RETURN(work.program,
                             plan::ParseProgram(work.program_json));
    if (!out.model.archive_digest.empty()) {
      SELVAGE_ASSIGN_OR_RETURN(work.archive,
                               store_->LoadArtefact(out.model.archive_digest));
    }
    SELVAGE_ASSIGN_OR_RETURN(
        work.base,
        plan::ParseMaster(work.program.table, out.model.global_values));
    return out;
  }

  const ClientOptions options_;
  const ClientDependencies deps_;
  std::unique_ptr<FileLock> lock_;
  std::unique_ptr<ClientStore> store_;
  uint64_t holdout_salt_ = 0;
  std::unique_ptr<DeviceIdentity> identity_;
  std::optional<BlobCache> cache_;
  std::unique_ptr<CrashGuard> guard_;
  std::unique_ptr<ModelHost> host_;
  std::unique_ptr<SessionDriver> driver_;
  std::atomic<bool> closed_{false};
};

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::~Client() { Close(); }

Result<std::unique_ptr<Client>> Client::Open(ClientOptions options,
                                             ClientDependencies dependencies) {
  auto impl =
      std::make_unique<Impl>(std::move(options), std::move(dependencies));
  SELVAGE_RETURN_IF_ERROR(impl->Open());
  return std::unique_ptr<Client>(new Client(std::move(impl)));
}

Status Client::InstallModel(std::string_view plan_json,
                            std::string_view program_json, ByteSpan archive,
                            ByteSpan safetensors) {
  SELVAGE_RETURN_IF_ERROR(impl_->CheckOpen());
  return impl_->InstallModel(plan_json, program_json, archive, safetensors);
}

Result<int64_t> Client::AddExample(std::string_view collection,
                                   const Example& example) {
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<int64_t> ids,
                           impl_->AddExamples(collection, {example}));
  return ids.front();
}

Result<std::vector<int64_t>> Client::AddExamples(
    std::string_view collection, const std::vector<Example>& examples) {
  return impl_->AddExamples(collection, examples);
}

Status Client::DeclareCollection(std::string_view name,
                                 const CollectionOptions& options) {
  return impl_->DeclareCollection(name, options);
}

Status Client::DeleteExample(int64_t id) {
  return impl_->store().DeleteExample(id);
}

Result<uint64_t> Client::CountExamples(std::string_view collection) {
  return impl_->CountExamples(collection);
}

Result<RunOutcome> Client::RunOnce(const RunBudget& budget,
                                   const CancelToken& cancel) {
  SELVAGE_RETURN_IF_ERROR(impl_->CheckOpen());
  if (budget.time <= Duration::zero()) {
    return InvalidArgument("the budget has no time");
  }
  return impl_->driver().Run(budget, cancel);
}

Result<LocalOutcome> Client::TrainLocally(std::string_view task,
                                          const RunBudget& budget,
                                          const CancelToken& cancel) {
  SELVAGE_RETURN_IF_ERROR(impl_->CheckOpen());
  return impl_->TrainLocally(task, budget, cancel);
}

Result<ServedPrediction> Client::Predict(std::string_view task, ByteSpan input,
                                         size_t count) {
  SELVAGE_RETURN_IF_ERROR(impl_->CheckOpen());
  return impl_->host().Predict(task, input, count);
}

Result<std::vector<double>> Client::Evaluate(std::string_view task, Slot slot,
                                             const ExampleSet& examples) {
  return impl_->Evaluate(task, slot, examples);
}

Result<ModelInfo> Client::Info(std::string_view task) {
  return impl_->Info(task);
}

Result<std::vector<std::string>> Client::Tasks() { return impl_->Tasks(); }

Result<std::vector<OutboxItem>> Client::InspectOutbox() {
  return impl_->store().InspectOutbox();
}

Result<std::vector<AuditEntry>> Client::Audit(size_t count_max) {
  return impl_->store().Audit(count_max);
}

Status Client::ForgetMe(const ForgetOptions& options) {
  SELVAGE_RETURN_IF_ERROR(impl_->CheckOpen());
  return impl_->ForgetMe(options);
}

std::string Client::device_id() const { return impl_->identity().device_id(); }

void Client::Close() {
  if (impl_ != nullptr) impl_->Close();
}

}  // namespace selvage::client

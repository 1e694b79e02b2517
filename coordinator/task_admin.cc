#include "coordinator/task_admin.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <utility>

#include "coordinator/held_updates.h"
#include "coordinator/model_store.h"
#include "coordinator/requests.h"
#include "coordinator/stopping.h"
#include "plan/plan.h"

namespace selvage::coordinator {
namespace {

// NOT_FOUND from the blob store speaks of a file; people uploaded an artefact.
Status Missing(const Status& status, std::string_view what,
               const crypto::Digest& digest) {
  if (status.code() != StatusCode::kNotFound) return status.WithContext(what);
  return NotFound(std::string(what) + " " + digest.ToHex() +
                  " was not uploaded");
}

constexpr int kAttemptsMax = 8;

Status CheckEvaluation(const EvaluationInfo& evaluation) {
  const std::string& name = evaluation.data_set;
  const bool named =
      !name.empty() && name.size() <= 64 &&
      name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_-.") ==
          std::string::npos;
  if (!named) {
    return InvalidArgument("data_set must be 1..64 of a-z, 0-9, _, - and .");
  }
  if (evaluation.data_digest.empty()) {
    return InvalidArgument("data_digest is empty");
  }
  if (evaluation.example_count == 0) {
    return InvalidArgument("example_count is 0");
  }
  if (evaluation.metrics.empty()) return InvalidArgument("metrics is empty");
  return OkStatus();
}

Status CheckMetricNames(const EvaluationInfo& evaluation,
                        const std::vector<std::string>& metrics) {
  std::set<std::string> seen;
  for (const auto& [name, value] : evaluation.metrics) {
    if (std::find(metrics.begin(), metrics.end(), name) == metrics.end()) {
      return InvalidArgument("metrics names " + name + ", which task " +
                             evaluation.task + " does not have");
    }
    if (!seen.insert(name).second) {
      return InvalidArgument("metrics names " + name + " twice");
    }
    if (!std::isfinite(value)) {
      return InvalidArgument("metric " + name + " is not finite");
    }
  }
  return OkStatus();
}

}  // namespace

Result<plan::Program> TaskAdmin::ReadProgram(const crypto::Digest& digest) {
  if (digest.empty()) return InvalidArgument("program_digest is empty");
  SELVAGE_ASSIGN_OR_RETURN(const bool known, deps_.store.HasArtefact(digest));
  if (!known) return Missing(NotFound(""), "program", digest);
  Result<plan::Program> program = LoadProgram(digest, deps_.blobs);
  if (!program.ok()) return Missing(program.status(), "program", digest);
  if (program->kind != plan::ProgramKind::kArchive) return program;
  const Result<std::unique_ptr<ArtefactReader>> archive =
      deps_.blobs.Open(program->archive_digest);
  if (!archive.ok()) {
    return Missing(archive.status(), "archive", program->archive_digest);
  }
  if ((*archive)->size() != program->archive_size_bytes) {
    return InvalidArgument("archive " + program->archive_digest.ToHex() +
                           " has " + std::to_string((*archive)->size()) +
                           " bytes, the program says " +
                           std::to_string(program->archive_size_bytes));
  }
  return program;
}

Result<crypto::Digest> TaskAdmin::WarmStart(const TaskDefinition& definition,
                                            const std::string& task,
                                            const std::string& version) {
  Result<TaskRow> source = deps_.store.GetTask(task);
  if (!source.ok() || source->population != definition.spec.population) {
    return NotFound("initial: no task " + task + " in population " +
                    definition.spec.population);
  }
  uint64_t number = source->latest_version;
  if (version != "latest") {
    SELVAGE_ASSIGN_OR_RETURN(number, PageStart({0, version}));
  }
  Result<VersionRow> row = deps_.store.GetVersion(source->id, number);
  if (!row.ok()) {
    return NotFound("initial: task " + task + " has no version " + version);
  }
  SELVAGE_ASSIGN_OR_RETURN(const plan::Program program,
                           LoadProgram(source->program_digest, deps_.blobs));
  if (!(program.table == definition.program.table)) {
    return FailedPrecondition("initial: the tensors of task " + task +
                              " are not those of this program");
  }
  return row->master_digest;
}

Result<std::unique_ptr<ModelSource>> TaskAdmin::OpenInitial(
    const TaskDefinition& definition, const crypto::Digest& initial_digest) {
  using Source = std::unique_ptr<ModelSource>;
  const std::string& initial = definition.spec.initial;
  const plan::TensorTable& table = definition.program.table;
  const size_t at = initial.find('@');
  const bool is_file = initial != "random" && at == std::string::npos;
  if (is_file == initial_digest.empty()) {
    return InvalidArgument(
        is_file ? "initial is " + initial + " but initial_digest is empty"
                : "initial is " + initial + ", which takes no initial_digest");
  }
  if (initial == "random") {
    return Source(std::make_unique<InitialModel>(table, definition.spec.seed));
  }
  if (!is_file) {
    SELVAGE_ASSIGN_OR_RETURN(
        const crypto::Digest master,
        WarmStart(definition, initial.substr(0, at), initial.substr(at + 1)));
    SELVAGE_ASSIGN_OR_RETURN(std::unique_ptr<MasterReader> model,
                             MasterReader::Open(table, master, deps_.blobs));
    return Source(std::move(model));
  }
  if (const auto blob = deps_.blobs.Open(initial_digest); !blob.ok()) {
    return Missing(blob.status(), "initial", initial_digest);
  }
  Result<std::unique_ptr<MasterReader>> model =
      MasterReader::Open(table, initial_digest, deps_.blobs);
  if (!model.ok()) return model.status().WithContext("initial");
  // Before anything is written.
  if (const Status checked = CheckModel(table, **model); !checked.ok()) {
    return checked.WithContext("initial");
  }
  return Source(*std::move(model));
}

Result<TaskAdmin::Created> TaskAdmin::CreateTask(
    const CreateTaskRequest& request) {
  Store& store = deps_.store;
  const Time now = store.Now();
  SELVAGE_ASSIGN_OR_RETURN(
      RequestRow id,
      MakeRequest(request.request_id, "create_task",
                  {request.task_file, request.program_digest.ToHex(),
                   request.initial_digest.ToHex()},
                  now));
  SELVAGE_ASSIGN_OR_RETURN(const std::optional<std::string> answered,
                           FindAnswered(store, id));
  if (answered.has_value()) {
    SELVAGE_ASSIGN_OR_RETURN(TaskInfo info, GetTask(*answered));
    return Created{std::move(info), {}, nullptr};
  }

  SELVAGE_ASSIGN_OR_RETURN(plan::TaskSpec spec,
                           plan::ParseTaskFile(request.task_file));
  SELVAGE_RETURN_IF_ERROR(store.GetPopulation(spec.population).status());
  if (store.GetTask(spec.name).ok()) {
    return AlreadyExists("task " + spec.name + " exists");
  }
  SELVAGE_ASSIGN_OR_RETURN(plan::Program program,
                           ReadProgram(request.program_digest));
  SELVAGE_ASSIGN_OR_RETURN(
      TaskDefinition defined,
      DefineTask(std::move(spec), std::move(program), request.program_digest));
  SELVAGE_RETURN_IF_ERROR(CheckHeldBytes(defined, held_bytes_max_));
  const auto definition =
      std::make_shared<const TaskDefinition>(std::move(defined));
  SELVAGE_ASSIGN_OR_RETURN(const std::unique_ptr<ModelSource> initial,
                           OpenInitial(*definition, request.initial_digest));
  SELVAGE_ASSIGN_OR_RETURN(
      const plan::Plan plan,
      plan::MakePlan(definition->spec, request.program_digest,
                     definition->program));
  const std::string json = plan::CanonicalJson(plan);

  Store::NewTask task;
  TaskRow& row = task.task;
  row.name = definition->spec.name;
  row.population = definition->spec.population;
  row.task_file = request.task_file;
  row.program_digest = request.program_digest;
  row.plan_digest = crypto::Sha256(AsBytes(json));
  row.initial_digest = request.initial_digest;
  row.created = now;
  SELVAGE_ASSIGN_OR_RETURN(row.plan_signature,
                           crypto::SignEd25519(deps_.plan_key.private_key,
                                               plan::PlanSigningInput(json)));
  if (request.validate_only) {
    TaskInfo info;
    info.name = row.name;
    info.population = row.population;
    info.task_file = row.task_file;
    info.program_digest = row.program_digest;
    info.plan_digest = row.plan_digest;
    info.initial_digest = row.initial_digest;
    info.num_rounds =
        static_cast<uint64_t>(definition->spec.strategy.num_rounds);
    info.key_metric = definition->key_metric;
    info.metrics = definition->program.metrics;
    return Created{std::move(info), {}, nullptr};
  }

  SELVAGE_RETURN_IF_ERROR(deps_.blobs.Put(AsBytes(json)).status());
  SELVAGE_ASSIGN_OR_RETURN(
      VersionArtefacts version,
      StoreVersion(*definition, 0, 0, *initial, deps_.blobs));
  task.initial.checkpoint_digest = version.checkpoint_digest;
  task.initial.checkpoint_codec =
      plan::CheckpointCodec(definition->spec.update);
  task.initial.master_digest = version.master_digest;
  task.initial.created = now;
  task.artefacts = std::move(version.artefacts);
  task.artefacts.push_back({row.plan_digest, json.size()});
  task.references = std::move(version.references);
  task.references.push_back(row.plan_digest);
  task.references.push_back(row.program_digest);
  if (definition->program.kind == plan::ProgramKind::kArchive) {
    task.references.push_back(definition->program.archive_digest);
  }
  id.resource = row.name;
  SELVAGE_ASSIGN_OR_RETURN(TaskRow stored, store.CreateTask(task, id));
  SELVAGE_ASSIGN_OR_RETURN(TaskInfo info, describer_.Describe(stored));
  return Created{std::move(info), std::move(stored), definition};
}

Result<TaskInfo> TaskAdmin::GetTask(const std::string& name) {
  SELVAGE_ASSIGN_OR_RETURN(const TaskRow row, deps_.store.GetTask(name));
  return describer_.Describe(row);
}

Result<Page<TaskInfo>> TaskAdmin::ListTasks(const std::string& population,
                                            const PageRequest& page) {
  const uint32_t limit = PageLimit(page);
  SELVAGE_ASSIGN_OR_RETURN(const uint64_t after, PageStart(page));
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<TaskRow> rows,
                           deps_.store.ListTasks(population, after, limit));
  Page<TaskInfo> result;
  for (const TaskRow& row : rows) {
    SELVAGE_ASSIGN_OR_RETURN(TaskInfo info, describer_.Describe(row));
    result.items.push_back(std::move(info));
  }
  if (rows.size() == limit) {
    result.next_page_token = std::to_string(rows.back().id);
  }
  return result;
}

Result<TaskAdmin::Stopped> TaskAdmin::StopTask(const std::string& name,
                                               const std::string& request_id,
                                               const std::string& etag) {
  Store& store = deps_.store;
  const Time now = store.Now();
  SELVAGE_ASSIGN_OR_RETURN(
      RequestRow id, MakeRequest(request_id, "stop_task", {name, etag}, now));
  SELVAGE_ASSIGN_OR_RETURN(const std::optional<std::string> answered,
                           FindAnswered(store, id));
  SELVAGE_ASSIGN_OR_RETURN(TaskRow row, store.GetTask(name));
  if (!answered.has_value()) {
    if (!etag.empty() && etag != EtagOf(row)) {
      return Aborted("etag of task " + name + " is " + EtagOf(row) + ", not " +
                     etag);
    }
    id.resource = name;
    const std::optional<uint64_t> revision =
        etag.empty() ? std::nullopt : std::optional<uint64_t>(row.revision);
    SELVAGE_ASSIGN_OR_RETURN(row, store.StopTask(name, revision, now, id));
  }
  SELVAGE_ASSIGN_OR_RETURN(TaskInfo info, describer_.Describe(row));
  return Stopped{std::move(info), row.id};
}

Result<RoundInfo> TaskAdmin::GetRound(const std::string& task,
                                      uint64_t number) {
  SELVAGE_ASSIGN_OR_RETURN(const TaskRow row, deps_.store.GetTask(task));
  const RoundKey key{row.id, number};
  const Result<RoundRow> round = deps_.store.GetRound(key);
  if (round.status().code() == StatusCode::kNotFound) {
    return NotFound("task " + task + " has no round " + std::to_string(number));
  }
  if (!round.ok()) return round.status();
  return describer_.Describe(row, *round, check_in_count_(key));
}

Result<Page<RoundInfo>> TaskAdmin::ListRounds(const std::string& task,
                                              const PageRequest& page) {
  const uint32_t limit = PageLimit(page);
  SELVAGE_ASSIGN_OR_RETURN(const uint64_t after, PageStart(page));
  SELVAGE_ASSIGN_OR_RETURN(const TaskRow row, deps_.store.GetTask(task));
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<RoundRow> rounds,
                           deps_.store.ListRounds(row.id, after + 1, limit));
  Page<RoundInfo> result;
  for (const RoundRow& round : rounds) {
    SELVAGE_ASSIGN_OR_RETURN(
        RoundInfo info,
        describer_.Describe(row, round, check_in_count_(round.key)));
    result.items.push_back(std::move(info));
  }
  if (rounds.size() == limit) {
    result.next_page_token = std::to_string(rounds.back().key.number);
  }
  return result;
}

Result<ModelVersionInfo> TaskAdmin::GetModelVersion(
    const std::string& task, std::optional<uint64_t> version) {
  SELVAGE_ASSIGN_OR_RETURN(const TaskRow row, deps_.store.GetTask(task));
  const uint64_t number = version.value_or(row.latest_version);
  const Result<VersionRow> found = deps_.store.GetVersion(row.id, number);
  if (found.status().code() == StatusCode::kNotFound) {
    return NotFound("task " + task + " has no version " +
                    std::to_string(number) + ", the latest is " +
                    std::to_string(row.latest_version));
  }
  if (!found.ok()) return found.status();
  return describer_.Describe(row, *found);
}

Result<Page<ModelVersionInfo>> TaskAdmin::ListModelVersions(
    const std::string& task, const PageRequest& page) {
  const uint32_t limit = PageLimit(page);
  SELVAGE_ASSIGN_OR_RETURN(const uint64_t first, PageStart(page));
  SELVAGE_ASSIGN_OR_RETURN(const TaskRow row, deps_.store.GetTask(task));
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<VersionRow> rows,
                           deps_.store.ListVersions(row.id, first, limit));
  Page<ModelVersionInfo> result;
  for (const VersionRow& version : rows) {
    SELVAGE_ASSIGN_OR_RETURN(ModelVersionInfo info,
                             describer_.Describe(row, version));
    result.items.push_back(std::move(info));
  }
  if (rows.size() == limit) {
    result.next_page_token = std::to_string(rows.back().version + 1);
  }
  return result;
}

Result<ModelVersionInfo> TaskAdmin::GetBestModelVersion(
    const std::string& task) {
  SELVAGE_ASSIGN_OR_RETURN(const TaskRow row, deps_.store.GetTask(task));
  if (row.progress.measured == 0) {
    return FailedPrecondition("no version of task " + task +
                              " was measured yet: there is no best one");
  }
  return GetModelVersion(task, row.progress.best_version);
}

Result<TaskAdmin::Evaluated> TaskAdmin::AddEvaluation(
    const EvaluationInfo& evaluation) {
  Store& store = deps_.store;
  SELVAGE_RETURN_IF_ERROR(CheckEvaluation(evaluation));
  const std::string what = "version " + std::to_string(evaluation.version) +
                           " of task " + evaluation.task;
  for (int attempt = 1;; ++attempt) {
    SELVAGE_ASSIGN_OR_RETURN(const TaskRow task,
                             store.GetTask(evaluation.task));
    const Result<VersionRow> version =
        store.GetVersion(task.id, evaluation.version);
    if (version.status().code() == StatusCode::kNotFound) {
      return NotFound("there is no " + what);
    }
    if (!version.ok()) return version.status();
    if (version->master_digest != evaluation.model_digest) {
      return FailedPrecondition("model_digest is " +
                                evaluation.model_digest.ToHex() + ", " + what +
                                " has " + version->master_digest.ToHex());
    }
    SELVAGE_ASSIGN_OR_RETURN(const TaskDefinition definition,
                             LoadDefinition(task, deps_.blobs));
    SELVAGE_RETURN_IF_ERROR(
        CheckMetricNames(evaluation, definition.program.metrics));
    SELVAGE_ASSIGN_OR_RETURN(
        const std::vector<EvaluationRow> known,
        store.ListEvaluations(task.id, evaluation.version));
    EvaluationRow row;
    row.task_id = task.id;
    row.version = evaluation.version;
    row.data_set = evaluation.data_set;
    row.data_digest = evaluation.data_digest;
    row.example_count = evaluation.example_count;
    row.metrics = evaluation.metrics;
    std::sort(row.metrics.begin(), row.metrics.end());
    row.created = store.Now();
    for (const EvaluationRow& one : known) {
      if (one.data_set != row.data_set) continue;
      if (one.data_digest == row.data_digest && one.metrics == row.metrics &&
          one.example_count == row.example_count) {
        return Evaluated{Describer::Describe(task, one, *version), 0};
      }
      return AlreadyExists(what + " has another evaluation on data set " +
                           row.data_set);
    }
    if (known.size() >= kEvaluationsMax) {
      return ResourceExhausted(what + " has " + std::to_string(known.size()) +
                               " evaluations, the limit is " +
                               std::to_string(kEvaluationsMax));
    }
    const plan::EvaluateSpec& spec = definition.spec.evaluate;
    std::optional<TaskProgress> progress;
    if (spec.source == plan::KeyMetricSource::kServer &&
        spec.data_set == row.data_set) {
      for (const auto& [name, value] : row.metrics) {
        if (name != definition.key_metric) continue;
        progress = Observe(spec, row.version, value, task.progress);
      }
    }
    const Status added = store.AddEvaluation(row, progress, task.revision);
    // A round ended, or another evaluation came: look again.
    const bool raced = added.code() == StatusCode::kAborted ||
                       added.code() == StatusCode::kAlreadyExists;
    if (raced && attempt < kAttemptsMax) continue;
    SELVAGE_RETURN_IF_ERROR(added);

    Evaluated done{Describer::Describe(task, row, *version), 0};
    const std::optional<std::string> end =
        progress.has_value() ? EarlyEnd(definition, *progress) : std::nullopt;
    if (end.has_value() && task.state == TaskState::kRunning) {
      const Status finished =
          store.FinishTask(task.id, store.Now(), *end).status();
      // If the task ended meanwhile, it ended for another reason.
      if (finished.ok()) {
        done.finished_task = task.id;
      } else if (finished.code() != StatusCode::kFailedPrecondition) {
        return finished;
      }
    }
    return done;
  }
}

}  // namespace selvage::coordinator

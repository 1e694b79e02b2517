#include "coordinator/coordinator_parts.h"

#include <algorithm>
#include <utility>

#include "plan/plan.h"

namespace selvage::coordinator {
namespace {

constexpr Duration kPruneInterval = std::chrono::hours(1);
// Receipts are kept this long beyond the assignment's expiry.
constexpr Duration kReceiptsKept = std::chrono::hours(24 * 7);
constexpr uint32_t kTasksPerRead = 256;

// Whether the device can execute the task's plan.
bool CanRun(const TaskDefinition& definition, const CheckInRequest& request) {
  if (request.plan_format < static_cast<uint32_t>(plan::kPlanFormat)) {
    return false;
  }
  const auto& codecs = request.codecs;
  if (std::find(codecs.begin(), codecs.end(), definition.spec.update.codec) ==
      codecs.end()) {
    return false;
  }
  const plan::ContributionName wanted = definition.contribution.name;
  const auto& known = request.contributions;
  if (wanted != plan::ContributionName::kPlain &&
      std::find(known.begin(), known.end(), wanted) == known.end()) {
    return false;
  }
  if (definition.program.kind != plan::ProgramKind::kNative) return true;
  const std::string engine = "native:" + definition.program.native_name;
  return std::find(request.engines.begin(), request.engines.end(), engine) !=
         request.engines.end();
}

// Of this process alone: a claim of the one before it is not its own.
std::string NewReplicaName(const std::string& name, RandomSource& random) {
  Bytes raw(8);
  random.Fill(raw);
  return (name.empty() ? "" : name + "/") + ToHex(raw);
}

}  // namespace

Coordinator::Parts::Parts(const CoordinatorOptions& o,
                          const CoordinatorDependencies& d)
    : options(o),
      deps(d),
      telemetry(deps.telemetry == nullptr ? no_telemetry : *deps.telemetry),
      pace(PaceOptionsOf(options)),
      replica(options.replicas.shared
                  ? NewReplicaName(options.replicas.name, deps.random)
                  : ""),
      claims(deps.store, options.replicas.claim_ttl, options.replicas.turn_max),
      tickets(deps.server_key, EpochOf(deps.store.instance_id())),
      enrolment(options, deps, tickets),
      describer(deps.store, deps.blobs),
      admin(deps, describer, options.held_bytes_max,
            [this](const RoundKey& round) { return CheckInCount(round); }),
      watchers(deps.store, describer,
               [this](const RoundKey& round) { return CheckInCount(round); }),
      artefacts(deps.store, deps.blobs),
      deltas(options.deltas, deps.blobs),
      ingest({.bytes_max = options.upload_bytes_max,
              .staged_above = options.staged_above,
              .staged_bytes_max = options.staged_bytes_max,
              .staging_ttl = options.staging_ttl},
             {deps.store, deps.blobs, deps.random, tickets, *this}),
      uploads(telemetry, tickets),
      orphans(deps.store, deps.blobs) {}

// ------------------------------------------------------------------- start

Status Coordinator::Parts::Recover() {
  SELVAGE_RETURN_IF_ERROR(FindTasks());
  // Of several, one after the other starts; the first turn shows who drives.
  if (!replica.empty()) return OkStatus();
  const auto collected = orphans.CollectAlone();
  SELVAGE_RETURN_IF_ERROR(collected.status());
  Collected(collected);
  const Time now = deps.store.Now();
  for (const auto& driver : catalog.Running()) {
    const Status recovered = driver->Recover(now);
    if (recovered.code() == StatusCode::kDataLoss) {
      return FailedPrecondition(
          "an open round cannot be continued: " + recovered.ToString() +
          "; is this the wrapping key the data was written with?");
    }
    SELVAGE_RETURN_IF_ERROR(recovered);
  }
  return OkStatus();
}

Status Coordinator::Parts::FindTasks() {
  for (;;) {
    SELVAGE_ASSIGN_OR_RETURN(
        const std::vector<TaskRow> tasks,
        deps.store.ListTasks("", last_task, kTasksPerRead));
    for (const TaskRow& row : tasks) {
      if (row.state == TaskState::kFinished) {
        SELVAGE_RETURN_IF_ERROR(OfferModel(row));
      }
      if (row.state == TaskState::kRunning && catalog.Find(row.id) == nullptr) {
        SELVAGE_ASSIGN_OR_RETURN(TaskDefinition definition,
                                 LoadDefinition(row, deps.blobs));
        AddTask(row,
                std::make_shared<const TaskDefinition>(std::move(definition)));
      }
      last_task = row.id;
    }
    if (tasks.size() < kTasksPerRead) return OkStatus();
  }
}

void Coordinator::Parts::Collected(
    const Result<OrphanCollector::Counts>& counts) {
  if (!counts.ok()) {
    deps.events.Write(LogLevel::kWarning, "orphans_not_removed",
                      {{"reason", counts.status().ToString()}});
    return;
  }
  if (counts->removed() + counts->set_aside + counts->put_back == 0) return;
  deps.events.Write(LogLevel::kInfo, "orphans_removed",
                    {{"count", counts->removed()},
                     {"artefacts", counts->artefacts},
                     {"partials", counts->sealed},
                     {"set_aside", counts->set_aside},
                     {"put_back", counts->put_back}});
}

Status Coordinator::Parts::OfferModel(const TaskRow& row) {
  SELVAGE_ASSIGN_OR_RETURN(const VersionRow version,
                           deps.store.GetVersion(row.id, row.latest_version));
  ModelOffer offer;
  offer.task = row.name;
  offer.version = version.version;
  offer.plan_digest = row.plan_digest;
  offer.plan_signature = row.plan_signature;
  offer.checkpoint_digest = version.checkpoint_digest;
  offer.checkpoint_codec = version.checkpoint_codec;
  catalog.AddOffer(row.population, std::move(offer));
  return OkStatus();
}

void Coordinator::Parts::AddTask(
    const TaskRow& row, std::shared_ptr<const TaskDefinition> definition) {
  const TaskDriver::Context context{
      options,
      deps,
      tickets,
      outcomes,
      [this](uint64_t task_id) { return ingest.ActiveStreams(task_id); },
      sums_room,
      pace,
      replica,
      &claims};
  uploads.AddTask(row.id, {row.population, row.name});
  catalog.AddRunning(row.population, std::make_shared<TaskDriver>(
                                         context, row, std::move(definition)));
}

// -------------------------------------------------------------- RPC threads

void Coordinator::Parts::CheckIn(const DeviceIdentity& device,
                                 const CheckInRequest& request,
                                 CheckInCallback done) {
  const bool its_own = request.population == device.population;
  if (its_own && !enrolment.Knows(device) &&
      !pace.Admit(device.population, deps.clock.Now())) {
    // It may well be enrolled; who asks the database for it has to be let in,
    // too.
    telemetry.RateLimited(RateLimit::kCheckIns);
    CheckInAnswer later;
    SendHome(device.population, {}, later);
    done(std::move(later));
    return;
  }
  if (Status enrolled = its_own
                            ? enrolment.CheckEnrolled(device)
                            : PermissionDenied("device " + device.device_id +
                                               " is not enrolled in "
                                               "population " +
                                               request.population);
      !enrolled.ok()) {
    done(std::move(enrolled));
    return;
  }
  CheckInAnswer answer;
  for (const std::string& id : request.unsettled_assignments) {
    answer.outcomes.push_back({id, OutcomeOf(id, device)});
  }
  if (!assigning) {
    SendHome(device.population, {}, answer);
    done(std::move(answer));
    return;
  }
  const DeviceTraits traits{request.device_class, request.evaluates};
  Gathering gathering;  // of the last task that it could work for
  const std::shared_ptr<const TaskCatalog::View> view =
      catalog.Of(device.population);
  for (const std::shared_ptr<TaskDriver>& driver : view->running) {
    if (!CanRun(*driver->definition(), request)) continue;
    if (!driver->Wants(device.device_id, traits)) {
      gathering = driver->gathering();
      continue;
    }
    // Who holds an assignment is not turned away: its work would be lost.
    if (!driver->Holds(device.device_id) &&
        !pace.Admit(device.population, deps.clock.Now())) {
      telemetry.RateLimited(RateLimit::kCheckIns);
      continue;
    }
    Enqueue(CheckInWork{driver, device, traits, std::move(answer),
                        std::move(done)});
    return;
  }
  for (const ModelOffer& offer : view->offers) {
    const bool has_it = std::any_of(
        request.installed.begin(), request.installed.end(),
        [&](const InstalledModel& model) {
          return model.task == offer.task && model.version >= offer.version;
        });
    if (has_it) continue;
    answer.work = offer;
    break;
  }
  SendHome(device.population, gathering, answer);
  done(std::move(answer));
}

void Coordinator::Parts::SendHome(const std::string& population,
                                  const Gathering& gathering,
                                  CheckInAnswer& answer) {
  answer.retry = pace.Reject(population, deps.clock.Now(), gathering);
  answer.retry_if_accepted = pace.AfterWork(population, true);
  telemetry.PaceIs(population, pace.View(population));
}

OutcomeState Coordinator::Parts::OutcomeOf(const std::string& assignment_id,
                                           const DeviceIdentity& device) {
  const std::optional<RoundKey> round = tickets.RoundOf(assignment_id, device);
  if (!round.has_value()) return OutcomeState::kUnknown;
  if (const auto cached = outcomes.Find(*round)) return *cached;
  const std::shared_ptr<TaskDriver> driver = catalog.Find(round->task_id);
  const bool asynchronous =
      driver != nullptr &&
      driver->definition()->spec.strategy.asynchronous.enabled;
  const Door door = driver == nullptr || asynchronous
                        ? Door::kClosed
                        : driver->DoorOf(round->number);
  if (door == Door::kOpen || door == Door::kEvaluates) {
    return OutcomeState::kPending;
  }
  if (!pace.Admit(device.population, deps.clock.Now())) {
    return OutcomeState::kPending;  // it will ask again
  }
  // An asynchronous task's update may count in a later round.
  RoundKey counted = *round;
  if (driver == nullptr || asynchronous) {
    const auto record = deps.store.FindAssignment(assignment_id);
    if (!record.ok()) return OutcomeState::kPending;
    if (record->has_value()) counted = (*record)->assignment.round;
  }
  const Result<RoundRow> row = deps.store.GetRound(counted);
  if (row.status().code() == StatusCode::kNotFound) {
    return OutcomeState::kUnknown;
  }
  if (!row.ok()) return OutcomeState::kPending;  // it will ask again
  if (row->state == RoundState::kCommitted) return OutcomeState::kCommitted;
  if (row->state == RoundState::kAbandoned) return OutcomeState::kAbandoned;
  return OutcomeState::kPending;
}

Result<RetryWindow> Coordinator::Parts::Abandon(
    const DeviceIdentity& device, const std::string& assignment_id,
    ByteSpan token, AbandonReason reason, const std::string& message) {
  const std::optional<RoundKey> round = tickets.RoundOf(assignment_id, device);
  if (!round.has_value() ||
      !crypto::EqualConstantTime(tickets.AssignmentToken(assignment_id).span(),
                                 token)) {
    telemetry.AuthFailed(AuthFailure::kAssignmentToken);
    return Unauthenticated(
        "the token does not open this assignment for this device");
  }
  deps.events.Write(LogLevel::kDebug, "assignment_abandoned",
                    {{"task_id", round->task_id},
                     {"round", round->number},
                     {"device", device.device_id},
                     {"reason", AbandonReasonName(reason)},
                     {"message", message}});
  Enqueue(GaveUpWork{*round, device.device_id, assignment_id, reason});
  return pace.AfterWork(device.population, false);
}

uint64_t Coordinator::Parts::CheckInCount(const RoundKey& round) const {
  const std::shared_ptr<TaskDriver> driver = catalog.Find(round.task_id);
  return driver == nullptr ? 0 : driver->CheckInCount(round.number);
}

UploadSink::Door Coordinator::Parts::DoorOf(const RoundKey& round) {
  const std::shared_ptr<TaskDriver> driver = catalog.Find(round.task_id);
  if (driver == nullptr) {
    // Another coordinator knows the task already.
    return !replica.empty() && round.task_id > last_task ? Door::kUnavailable
                                                         : Door::kClosed;
  }
  return driver->DoorOf(round.number);
}

std::shared_ptr<const TaskDefinition> Coordinator::Parts::DefinitionOf(
    uint64_t task_id) {
  const std::shared_ptr<TaskDriver> driver = catalog.Find(task_id);
  return driver == nullptr ? nullptr : driver->definition();
}

RetryWindow Coordinator::Parts::PaceOf(uint64_t task_id) {
  const auto definition = DefinitionOf(task_id);
  if (definition == nullptr) return options.pace;
  return pace.AfterWork(definition->spec.population, false);
}

void Coordinator::Parts::Post(const RoundKey& round, RoundEvent event) {
  Enqueue(EventWork{round, std::move(event)});
}

void Coordinator::Parts::Wake() { Enqueue(WakeWork{}); }

void Coordinator::Parts::Post(VerifiedUpload upload) {
  Enqueue(std::move(upload));
}

// ------------------------------------------------------------------- worker

void Coordinator::Parts::Handle(Work& work) {
  if (auto* check_in = std::get_if<CheckInWork>(&work)) {
    check_in->driver->OnCheckIn(check_in->device, std::move(check_in->traits),
                                std::move(check_in->answer),
                                std::move(check_in->done));
    if (check_in->driver->ended()) {
      check_in->driver->Advance(deps.store.Now(), false);
    }
  } else if (auto* event = std::get_if<EventWork>(&work)) {
    if (const auto driver = catalog.Find(event->round.task_id)) {
      driver->OnEvent(event->round.number, event->event);
    }
  } else if (auto* gave_up = std::get_if<GaveUpWork>(&work)) {
    if (const auto driver = catalog.Find(gave_up->round.task_id)) {
      driver->OnGaveUp(gave_up->round.number, gave_up->device,
                       gave_up->assignment_id, gave_up->reason);
    }
  } else if (auto* upload = std::get_if<VerifiedUpload>(&work)) {
    if (const auto driver = catalog.Find(upload->round.task_id)) {
      driver->OnUpload(std::move(*upload));
    } else {
      UploadBatch late({});
      late.Add(std::move(*upload), Time{});
      for (PendingAnswer& pending : late.CloseOut(deps.store, options.pace)) {
        pending.done(std::move(pending.answer));
      }
    }
  } else if (auto* task = std::get_if<NewTaskWork>(&work)) {
    if (catalog.Find(task->row.id) == nullptr) {
      AddTask(task->row, std::move(task->definition));
    }
  } else if (auto* stopped = std::get_if<StoppedTaskWork>(&work)) {
    if (const auto driver = catalog.Find(stopped->task_id)) {
      driver->OnStopped();
    }
  } else if (auto* hint = std::get_if<HintWork>(&work)) {
    if (const auto driver = catalog.Find(hint->task_id)) {
      driver->OnHint();
    } else {
      next_find = Time{};
    }
  }
}

void Coordinator::Parts::Poll() {
  busy = true;
  if (!replica.empty()) claims.BeginTurn();
  for (Work& work : queue.Take()) Handle(work);
  const Time now = deps.store.Now();
  if (!replica.empty() && now >= next_find) {
    next_find = now + options.replicas.poll;
    if (const Status found = FindTasks(); !found.ok()) {
      deps.events.Write(LogLevel::kWarning, "tasks_not_found",
                        {{"reason", found.ToString()}});
    }
  }
  for (const std::shared_ptr<TaskDriver>& driver : catalog.Running()) {
    driver->Advance(now, draining);
    if (driver->TakeChanged()) changed.insert(driver->task_id());
    if (driver->ended()) Retire(driver);
  }
  if (draining)
    ingest.RefuseWaiting(Unavailable("the coordinator is draining"));
  ingest.Advance(now);
  PruneIfDue(now);
  watchers.Notify(std::exchange(changed, {}));
  if (!replica.empty()) claims.EndTurn();
  busy = false;
}

void Coordinator::Parts::Retire(const std::shared_ptr<TaskDriver>& driver) {
  const Result<TaskRow> row = deps.store.GetTaskById(driver->task_id());
  if (!row.ok()) return;  // again in the next turn
  if (row->state == TaskState::kFinished && !OfferModel(*row).ok()) return;
  catalog.RemoveRunning(row->population, row->id);
  deps.events.Write(
      LogLevel::kInfo, "task_ended",
      {{"task", row->name},
       {"state", row->state == TaskState::kFinished ? "FINISHED" : "STOPPED"},
       {"version", row->latest_version}});
}

void Coordinator::Parts::PruneIfDue(Time now) {
  if (now < next_prune) return;
  next_prune = now + kPruneInterval;
  const Status pruned = deps.store.Prune(now - kReceiptsKept);
  if (!pruned.ok()) {
    deps.events.Write(LogLevel::kWarning, "prune_failed",
                      {{"reason", pruned.ToString()}});
  }
  Collected(orphans.Collect(now));
}

Time Coordinator::Parts::NextDeadline() {
  if (!queue.empty()) return Time{};
  Time next = std::min(next_prune, ingest.NextDeadline());
  if (!replica.empty()) next = std::min(next, next_find);
  for (const std::shared_ptr<TaskDriver>& driver : catalog.Running()) {
    next = std::min(next, driver->NextDeadline());
  }
  return next;
}

void Coordinator::Parts::AnswerUnavailable(Work& work) {
  const Status status = Unavailable("the coordinator is shutting down");
  if (auto* check_in = std::get_if<CheckInWork>(&work)) {
    check_in->done(status);
  } else if (auto* upload = std::get_if<VerifiedUpload>(&work)) {
    upload->done(status);
  }
}

void Coordinator::Parts::Enqueue(Work work) {
  if (!queue.Post(work)) AnswerUnavailable(work);
}

void Coordinator::Parts::AnswerEverythingUnavailable() {
  ingest.RefuseWaiting(Unavailable("the coordinator is shutting down"));
  for (Work& work : queue.Take()) AnswerUnavailable(work);
  for (const auto& driver : catalog.Running()) driver->Shutdown();
}

}  // namespace selvage::coordinator

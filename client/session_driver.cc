#include "client/session_driver.h"

#include <algorithm>

#include "client/base_file.h"
#include "client/personalizer.h"
#include "client/store/outbox_payload.h"

namespace selvage::client {
namespace {

constexpr Duration kReportEvery = std::chrono::hours(24);
constexpr Duration kReportFirst = std::chrono::hours(1);
// How often a device that trains nothing asks for a new model.
constexpr Duration kPausedCheckIn = std::chrono::hours(24);
// When the state could not be made durable (a full disk, mostly).
constexpr RetryWindow kStoreRetry = {.min = std::chrono::minutes(12),
                                     .max = std::chrono::minutes(18)};

// What goes onto the wire when an assignment is given back: texts about plans
// and programs are the coordinator's own; the others would speak of examples.
std::string WireMessage(const SessionAction& action) {
  const bool own = action.abandon_reason == AbandonReason::kPlanRefused ||
                   action.abandon_reason == AbandonReason::kPlanBelowFloor ||
                   action.abandon_reason == AbandonReason::kProgramRefused;
  if (!own) return "";
  std::string text = action.reason.substr(0, 512);
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return text;
}

}  // namespace

Result<std::unique_ptr<SessionDriver>> SessionDriver::Create(
    SessionParts parts) {
  std::unique_ptr<SessionDriver> driver(new SessionDriver(parts));
  SELVAGE_ASSIGN_OR_RETURN(const std::optional<Bytes> saved,
                           parts.store.LoadSession());
  Result<Session> session = Session();
  if (saved.has_value()) session = Session::Restore(*saved);
  if (session.ok()) {
    driver->session_ = *std::move(session);
    if (saved.has_value()) driver->saved_ = *saved;
    // One death, told to the session and to the crash ledger as one.
    const std::optional<CrashGuard::Death> death =
        parts.guard.CountDeath(driver->session_.ClaimDeath());
    if (!death.has_value()) return driver;
    SELVAGE_RETURN_IF_ERROR(
        parts.store.SaveSession({.session = driver->session_.Save(),
                                 .counters = death->counters,
                                 .crashes = &death->ledger}));
    driver->saved_ = driver->session_.Save();
    return driver;
  }
  parts.deps.events.Write(LogLevel::kWarning, "session_reset",
                          {{"reason", session.status().message()}});
  SELVAGE_RETURN_IF_ERROR(
      parts.store.SaveSession({.session = driver->session_.Save(),
                               .drop_outbox = true,
                               .counters = {"session_reset"}}));
  driver->saved_ = driver->session_.Save();
  return driver;
}

Transport::KeepGoing SessionDriver::KeepGoingUntil(Time deadline) {
  return [this, deadline] { return !Stopped() && Now() < deadline; };
}

SessionEvent SessionDriver::Interrupted(bool progressed) {
  return SessionInterrupted{.reason = policy_.Stop().value_or(""),
                            .progressed = progressed};
}

void SessionDriver::Tell(Phase phase, uint64_t step, uint64_t steps) {
  if (!parts_.deps.progress) return;
  parts_.deps.progress({.phase = phase,
                        .task = session_.work().task,
                        .step = step,
                        .steps = steps});
}

RunOutcome SessionDriver::Run(const RunBudget& budget,
                              const CancelToken& cancel) {
  const Time started = Now();
  answered_ = false;
  plan_checked_ = false;
  over_uploads_ = false;
  memory_estimate_ = 0;
  pause_.clear();

  RunOutcome outcome;
  if (Status status = policy_.Begin(budget, cancel); !status.ok()) {
    outcome.result = RunResult::kFailed;
    outcome.reason = status.WithContext("reading the usage").ToString();
    outcome.next_run = started + DrawRetry(kStoreRetry, parts_.deps.random);
    outcome.enrolled = parts_.identity.IsEnrolled(started);
    return outcome;
  }
  SessionEvent event =
      SessionStarted{.enrolled = parts_.identity.IsEnrolled(started)};
  while (true) {
    Session next = session_;
    const SessionAction action = next.Step(event, Now(), parts_.deps.random);
    if (Status status = Save(next, action); !status.ok()) {
      // Nothing runs ahead of what is durable: the session is as it was.
      outcome.result = RunResult::kFailed;
      outcome.reason = status.WithContext("saving the session").ToString();
      outcome.next_run = Now() + DrawRetry(kStoreRetry, parts_.deps.random);
      break;
    }
    session_ = std::move(next);
    if (!session_.work().task.empty()) {
      outcome.task = session_.work().task;
      outcome.round = session_.work().round;
    }
    if (action.kind == SessionActionKind::kFinish) {
      outcome.result = action.result;
      outcome.reason = action.reason;
      outcome.next_run = session_.next_run();
      break;
    }
    event = Stopped() ? Interrupted() : Perform(action);
  }
  if (session_.work().task.empty()) loaded_.reset();
  TellPause(outcome);
  if (over_uploads_ && session_.state() == SessionState::kIdle) {
    // Slots that are given back cost others time.
    Session next = session_;
    next.Postpone(*policy_.not_before());
    if (Save(next, SessionAction{}).ok()) session_ = std::move(next);
    outcome.next_run = session_.next_run();
  } else if (policy_.not_before().has_value()) {
    outcome.next_run = std::max(outcome.next_run, *policy_.not_before());
  }
  outcome.enrolled = parts_.identity.IsEnrolled(Now());
  if (answered_ && !Stopped()) ReportIfDue();
  policy_.End(outcome.usage);
  outcome.usage.memory_estimate_bytes = memory_estimate_;
  parts_.deps.events.Write(outcome.result == RunResult::kFailed
                               ? LogLevel::kWarning
                               : LogLevel::kInfo,
                           "session",
                           {{"result", RunResultName(outcome.result)},
                            {"task", outcome.task},
                            {"round", outcome.round},
                            {"state", SessionStateName(session_.state())}});
  return outcome;
}

void SessionDriver::TellPause(RunOutcome& outcome) {
  const bool refused = !pause_.empty();
  if (refused) {
    if (outcome.result == RunResult::kDeclined) {
      outcome.result = RunResult::kNothingToDo;
    }
  } else if (outcome.result == RunResult::kNothingToDo && answered_) {
    pause_ = std::string(parts_.guard.CheckNotPaused().message());
  }
  if (pause_.empty() || outcome.result != RunResult::kNothingToDo) return;
  outcome.reason = pause_;
  const std::optional<Time> until = parts_.guard.PausedUntil();
  if (!refused || !until.has_value() ||
      session_.state() != SessionState::kIdle) {
    return;
  }
  // Slots that are given back cost others time.
  Session next = session_;
  next.Postpone(std::min(*until, Now() + kPausedCheckIn));
  if (Save(next, SessionAction{}).ok()) session_ = std::move(next);
  outcome.next_run = session_.next_run();
}

std::optional<WorkRefused> SessionDriver::RefusedByPause() {
  const Status status = parts_.guard.CheckNotPaused();
  if (status.ok()) return std::nullopt;
  pause_ = std::string(status.message());
  return WorkRefused{.reason = AbandonReason::kTrainingFailed,
                     .message = pause_};
}

Status SessionDriver::Withdraw(const ForgetOptions& options) {
  Session next = session_;
  next.Withdraw();
  Bytes bytes = next.Save();
  const Status status = parts_.store.Forget(bytes, options);
  // Whether or not it became durable, it is gone from memory.
  outbox_.reset();
  tensors_.reset();
  residual_.reset();
  loaded_.reset();
  session_ = std::move(next);
  // If it failed, what is durable is anybody's guess: the next step says again.
  saved_ = status.ok() ? std::move(bytes) : Bytes();
  return status;
}

Status SessionDriver::Save(const Session& next, const SessionAction& action) {
  Bytes bytes = next.Save();
  // An update is recorded by the very step that enters UPLOADING.
  const bool recorded = next.state() == SessionState::kUploading &&
                        session_.state() == SessionState::kTraining;
  if (bytes == saved_ && !action.drop_outbox && action.counters.empty() &&
      outcomes_.empty()) {
    return OkStatus();
  }
  SessionChange change;
  change.session = bytes;
  change.drop_outbox = action.drop_outbox;
  change.dropped = action.update_result;
  change.counters = action.counters;
  change.outcomes = outcomes_;
  if (recorded) {
    change.outbox = &*outbox_;
    if (tensors_.has_value()) change.tensors = &*tensors_;
    if (residual_.has_value()) change.residual = &*residual_;
  }
  SELVAGE_RETURN_IF_ERROR(parts_.store.SaveSession(change));
  saved_ = std::move(bytes);
  outcomes_.clear();
  if (recorded) {
    tensors_.reset();
    residual_.reset();
  }
  if (has_training_ && next.state() != SessionState::kFetching &&
      next.state() != SessionState::kTraining) {
    // No use to anybody any more. What cannot be removed now is next time.
    has_training_ = !parts_.store.DropTraining().ok();
  }
  if (action.drop_outbox) outbox_.reset();
  return OkStatus();
}

SessionEvent SessionDriver::Perform(const SessionAction& action) {
  switch (action.kind) {
    case SessionActionKind::kEnroll:
      Tell(Phase::kEnrolling);
      return Enroll();
    case SessionActionKind::kCheckIn:
      Tell(Phase::kCheckingIn);
      return CheckIn();
    case SessionActionKind::kFetch:
      Tell(Phase::kFetching);
      return Fetch();
    case SessionActionKind::kTrain:
      Tell(Phase::kTraining);
      return Train();
    case SessionActionKind::kUpload:
      Tell(Phase::kUploading);
      return Upload();
    case SessionActionKind::kAbandon:
      return Abandon(action);
    case SessionActionKind::kPersonalize:
      Tell(Phase::kPersonalizing);
      return Personalize(action);
    case SessionActionKind::kFinish:
      break;
  }
  return Interrupted();
}

SessionEvent SessionDriver::FailedOrInterrupted(Status status) {
  if (status.code() == StatusCode::kCancelled && Stopped()) {
    return Interrupted();
  }
  return ActionFailed{.status = std::move(status)};
}

Result<Transport*> SessionDriver::Connect(bool as_device) {
  if (as_device && parts_.identity.NeedsCertificate(Now())) {
    SELVAGE_RETURN_IF_ERROR(Renew());
  }
  if (transport_ != nullptr && transport_is_device_ == as_device) {
    return transport_.get();
  }
  transport_.reset();
  SELVAGE_ASSIGN_OR_RETURN(const Endpoint endpoint,
                           parts_.identity.MakeEndpoint(as_device));
  SELVAGE_ASSIGN_OR_RETURN(std::unique_ptr<Transport> transport,
                           parts_.deps.transport(endpoint));
  transport_ = MeteredTransport(std::move(transport), policy_);
  transport_is_device_ = as_device;
  return transport_.get();
}

SessionEvent SessionDriver::Enroll() {
  Result<Transport*> transport = Connect(/*as_device=*/false);
  if (!transport.ok()) return ActionFailed{transport.status()};
  const Status status =
      parts_.identity.Enroll(**transport, /*renewal=*/false, parts_.deps.clock);
  transport_.reset();  // it has no certificate
  if (!status.ok()) return ActionFailed{status};
  parts_.deps.events.Write(LogLevel::kInfo, "enrolled", {});
  return DeviceEnrolled{};
}

Status SessionDriver::Renew() {
  Result<Transport*> transport = Connect(parts_.identity.RenewsAsDevice());
  const Status status =
      transport.ok() ? parts_.identity.Enroll(**transport, /*renewal=*/true,
                                              parts_.deps.clock)
                     : transport.status();
  if (status.ok()) transport_.reset();  // connect with the new one
  parts_.deps.events.Write(status.ok() ? LogLevel::kInfo : LogLevel::kWarning,
                           "certificate_renewal",
                           {{"result", status.ToString()}});
  return status;
}

void SessionDriver::RenewIfNeeded() {
  // If it fails, the old one is still good, or Connect() says why it is not.
  const Time now = Now();
  if (parts_.identity.WantsRenewal(now) &&
      !parts_.identity.NeedsCertificate(now)) {
    (void)Renew();
  }
}

SessionEvent SessionDriver::CheckIn() {
  RenewIfNeeded();
  Result<Transport*> transport = Connect(/*as_device=*/true);
  if (!transport.ok()) return ActionFailed{transport.status()};
  CheckInRequest request;
  request.population = parts_.options.population;
  request.device_class = parts_.options.device_class;
  request.app_version = parts_.options.app_version;
  request.engines = parts_.deps.trainer.engines();
  request.unsettled_assignments = session_.unsettled();
  Result<std::vector<ModelVersion>> models = parts_.store.ListModels();
  if (!models.ok()) return ActionFailed{models.status()};
  for (ModelVersion& model : *models) {
    if (request.installed.size() == 16) break;  // the wire's bound
    if (parts_.host.IsDamaged(model.task)) continue;
    request.installed.push_back(
        {.task = std::move(model.task), .version = model.version});
  }
  Result<CheckInAnswer> answer = (*transport)->CheckIn(request);
  if (!answer.ok()) {
    if (answer.status().code() == StatusCode::kCancelled && Stopped()) {
      return Interrupted();
    }
    return ActionFailed{answer.status(), (*transport)->asked_to_wait()};
  }
  answered_ = true;
  outcomes_ = answer->outcomes;
  loaded_.reset();
  plan_checked_ = false;
  policy_.Want({});
  return CheckedIn{.answer = *std::move(answer)};
}

std::vector<crypto::Ed25519PublicKey> SessionDriver::PlanKeys() const {
  std::vector<crypto::Ed25519PublicKey> keys = parts_.identity.plan_keys();
  const std::vector<crypto::Ed25519PublicKey>& allowed =
      parts_.options.floor.plan_keys;
  if (allowed.empty()) return keys;
  std::erase_if(keys, [&](const crypto::Ed25519PublicKey& key) {
    return std::find(allowed.begin(), allowed.end(), key) == allowed.end();
  });
  return keys;
}

bool SessionDriver::Consents(const plan::Plan& plan, bool upload) {
  return !parts_.deps.consent ||
         parts_.deps.consent({.task = plan.task,
                              .collection = plan.data.collection,
                              .upload = upload});
}

std::optional<WorkRefused> SessionDriver::CheckPlan(const plan::Plan& plan) {
  if (plan_checked_) return std::nullopt;
  if (std::optional<std::string> below =
          BelowFloor(parts_.options.floor, plan)) {
    return WorkRefused{.reason = AbandonReason::kPlanBelowFloor,
                       .message = *std::move(below)};
  }
  const SessionWork& work = session_.work();
  if (work.train) {
    if (std::optional<std::string> used =
            policy_.UploadsUsedUp(work.assignment_id)) {
      over_uploads_ = true;
      return WorkRefused{.reason = AbandonReason::kOverBudget,
                         .message = *std::move(used)};
    }
    if (!Consents(plan, /*upload=*/true)) {
      // On the wire it is an interruption: what an owner said is nobody's
      // business.
      return WorkRefused{.reason = AbandonReason::kInterrupted,
                         .message = "no consent to use the collection " +
                                    plan.data.collection + " for task " +
                                    plan.task};
    }
  }
  plan_checked_ = true;
  policy_.Want(plan.conditions);
  return std::nullopt;
}

std::optional<SessionEvent> SessionDriver::EnsurePlanChecked() {
  if (plan_checked_) return std::nullopt;
  if (loaded_.has_value()) {
    if (std::optional<WorkRefused> refused = CheckPlan(loaded_->plan)) {
      return *std::move(refused);
    }
  } else {
    Result<Transport*> transport = Connect(/*as_device=*/true);
    if (!transport.ok()) return ActionFailed{transport.status()};
    auto plan = loader_.LoadPlan(
        session_.work(), PlanKeys(),
        [this](const plan::Plan& p) { return CheckPlan(p); }, **transport,
        KeepGoingUntil(kNever));
    if (auto* refused = std::get_if<WorkRefused>(&plan)) {
      return std::move(*refused);
    }
    if (auto* status = std::get_if<Status>(&plan)) {
      return FailedOrInterrupted(std::move(*status));
    }
  }
  if (Stopped()) return Interrupted();
  return std::nullopt;
}

std::optional<SessionEvent> SessionDriver::EnsureLoaded() {
  if (loaded_.has_value()) return EnsurePlanChecked();
  Result<Transport*> transport = Connect(/*as_device=*/true);
  if (!transport.ok()) return ActionFailed{transport.status()};
  const SessionWork& work = session_.work();
  LoadedWork loaded = loader_.Load(
      work, PlanKeys(),
      [this](const plan::Plan& plan) { return CheckPlan(plan); }, **transport,
      KeepGoingUntil(work.compute_deadline));
  if (auto* refused = std::get_if<WorkRefused>(&loaded)) {
    return std::move(*refused);
  }
  if (auto* status = std::get_if<Status>(&loaded)) {
    return FailedOrInterrupted(std::move(*status));
  }
  loaded_ = std::get<VerifiedWork>(std::move(loaded));
  return std::nullopt;
}

SessionEvent SessionDriver::Fetch() {
  if (session_.work().train) {
    if (std::optional<WorkRefused> refused = RefusedByPause()) return *refused;
  }
  if (std::optional<SessionEvent> ended = EnsureLoaded()) return *ended;
  return ArtefactsFetched{};
}

void SessionDriver::TrainingProgressed() {
  parts_.guard.TrainingProgressed();
  Session next = session_;
  if (next.ForgiveDeaths() && Save(next, SessionAction{}).ok()) {
    session_ = std::move(next);
  }
}

SessionEvent SessionDriver::Train() {
  if (std::optional<WorkRefused> refused = RefusedByPause()) return *refused;
  if (std::optional<SessionEvent> ended = EnsureLoaded()) return *ended;
  const SessionWork& work = session_.work();
  const RoundOptions options{
      .holdout_salt = parts_.holdout_salt,
      .keep_going = KeepGoingUntil(work.compute_deadline),
      .threads = parts_.options.threads_max,
      .memory_bytes_max = parts_.options.memory_bytes_max,
      .clock = parts_.deps.clock,
      .progress = [this](
                      uint64_t step,
                      uint64_t steps) { Tell(Phase::kTraining, step, steps); },
      .progressed = [this] { TrainingProgressed(); },
      .open_base =
          [this] {
            return loader_.OpenBase(session_.work(), loaded_->program.table);
          }};
  RoundFacts facts;
  has_training_ = true;
  policy_.CountProcess(parts_.options.threads_max != 1);
  TrainedRound trained = work.evaluate
                             ? EvaluateRound(work, *loaded_, options,
                                             parts_.store, parts_.host, facts)
                             : TrainRound(work, *loaded_, options, parts_.store,
                                          parts_.host, facts);
  policy_.CountProcess(false);
  memory_estimate_ = facts.memory_estimate;
  // The model that is left: loaded again, from the cache, if it is needed.
  if (loaded_->base.floats.empty()) loaded_.reset();
  if (auto* refused = std::get_if<WorkRefused>(&trained)) {
    return std::move(*refused);
  }
  if (auto* status = std::get_if<Status>(&trained)) {
    if (status->code() == StatusCode::kCancelled && !Stopped()) {
      // The slot is offered to another device by now.
      return WorkRefused{.reason = AbandonReason::kInterrupted,
                         .message = "the compute deadline passed"};
    }
    if (status->code() == StatusCode::kCancelled) {
      return Interrupted(facts.saved);
    }
    return ActionFailed{.status = std::move(*status)};
  }
  parts_.guard.TrainingSurvived();
  parts_.deps.events.Write(
      LogLevel::kInfo, "trained",
      {{"task", work.task},
       {"round", work.round},
       {"steps", facts.steps},
       {"loss", std::to_string(facts.mean_loss)},
       {"stopped_early", facts.stopped_early ? "yes" : "no"}});
  if (facts.stopped_early) {
    // A counter that cannot be kept costs the coordinator a number.
    (void)parts_.store.Count("stopped_early");
  }
  auto& update = std::get<RoundUpdate>(trained);
  outbox_ = OutboxEntry{.assignment_id = work.assignment_id,
                        .task = work.task,
                        .round = work.round,
                        .version = work.version,
                        .expires = work.upload_deadline,
                        .update = std::move(update.update)};
  tensors_ = std::move(update.tensors);
  residual_ = std::move(update.residual);
  return UpdateRecorded{};
}

SessionEvent SessionDriver::Upload() {
  const SessionWork& work = session_.work();
  if (!outbox_.has_value()) {
    Result<std::optional<OutboxEntry>> kept = parts_.store.LoadOutbox();
    if (!kept.ok()) return ActionFailed{kept.status()};
    outbox_ = *std::move(kept);
  }
  if (!outbox_.has_value() || outbox_->assignment_id != work.assignment_id) {
    return ActionFailed{DataLoss("the outbox does not hold the update")};
  }
  Result<Transport*> transport = Connect(/*as_device=*/true);
  if (!transport.ok()) return ActionFailed{transport.status()};
  // The host's word counts until the last byte is sent.
  if (std::optional<SessionEvent> ended = EnsurePlanChecked()) return *ended;
  const BuiltUpdate& update = outbox_->update;
  policy_.Reserve(update.size_bytes());
  if (Stopped()) return Interrupted();
  if (Status status = policy_.CountUpload(work.assignment_id); !status.ok()) {
    return ActionFailed{status};
  }
  UploadHeader header;
  header.assignment_id = work.assignment_id;
  header.token = work.token;
  header.digest = update.digest;
  header.size_bytes = update.size_bytes();
  header.codec = update.codec;
  header.weight = update.weight;
  header.scalars = update.scalars;
  header.metrics = update.metrics;
  Result<Receipt> receipt =
      (*transport)
          ->Upload(header, BytesOf(parts_.store, *outbox_),
                   KeepGoingUntil(work.upload_deadline));
  if (!receipt.ok()) return FailedOrInterrupted(receipt.status());
  answered_ = true;
  return ReceiptReceived{.receipt = *std::move(receipt)};
}

SessionEvent SessionDriver::Abandon(const SessionAction& action) {
  Result<Transport*> transport = Connect(/*as_device=*/true);
  if (!transport.ok()) return ActionFailed{transport.status()};
  const SessionWork& work = session_.work();
  Result<RetryWindow> retry =
      (*transport)
          ->Abandon(work.assignment_id, work.token, action.abandon_reason,
                    WireMessage(action));
  if (!retry.ok()) return FailedOrInterrupted(retry.status());
  answered_ = true;
  return AssignmentAbandoned{.retry = *retry};
}

SessionEvent SessionDriver::Personalize(const SessionAction& action) {
  const SessionWork& work = session_.work();
  if (work.train) {
    // A round's checkpoint is a model version too; adopt it if it is newer than
    // what is there.
    Result<std::optional<StoredModel>> model =
        parts_.store.LoadModel(work.task);
    if (!model.ok()) return ActionFailed{model.status()};
    if (model->has_value() && (*model)->version >= work.version) {
      return ModelPersonalized{};
    }
  }
  if (std::optional<SessionEvent> ended = EnsureLoaded()) return *ended;
  PersonalizeOptions options{.clock = parts_.deps.clock,
                             .events = parts_.deps.events};
  options.version = work.version;
  options.holdout_salt = parts_.holdout_salt;
  options.device_id = parts_.identity.device_id();
  options.global_only = action.global_only ||
                        parts_.guard.PausedUntil().has_value() ||
                        (loaded_->plan.personalize.enabled &&
                         !Consents(loaded_->plan, /*upload=*/false));
  options.threads = parts_.options.threads_max;
  options.memory_bytes_max = parts_.options.memory_bytes_max;
  options.with_alone = !work.train && !options.global_only;
  bool progressed = false;
  options.progressed = [this, &progressed] {
    progressed = true;
    TrainingProgressed();
  };
  if (IsLarge(loaded_->program.table)) {
    options.release_base = [this] { loaded_->base = plan::Checkpoint(); };
  }
  Personalized done =
      InstallPersonalized(*loaded_, options, parts_.store, parts_.host,
                          parts_.guard, KeepGoingUntil(kNever));
  if (loaded_->base.floats.empty()) loaded_.reset();
  if (auto* refused = std::get_if<WorkRefused>(&done)) {
    return std::move(*refused);
  }
  if (auto* status = std::get_if<Status>(&done)) {
    if (status->code() == StatusCode::kCancelled && Stopped()) {
      return Interrupted(progressed);
    }
    return ActionFailed{.status = std::move(*status)};
  }
  const auto& outcome = std::get<PersonalizeOutcome>(done);
  parts_.deps.events.Write(
      outcome.training.ok() ? LogLevel::kInfo : LogLevel::kWarning,
      "model_installed",
      {{"task", work.task},
       {"version", work.version},
       {"personal", outcome.personal ? "yes" : "no"},
       {"serving", outcome.model.personal_serving ? "personal" : "global"},
       {"training", StatusCodeName(outcome.training.code())}});
  return ModelPersonalized{};
}

void SessionDriver::ReportIfDue() {
  const Time now = Now();
  Result<Time> due = parts_.store.NextReport();
  if (!due.ok()) return;
  if (*due == Time{} || *due > now + kReportEvery) {
    (void)parts_.store.SetNextReport(now + kReportFirst);
    return;
  }
  if (now < *due) return;
  Bytes id(16);
  parts_.deps.random.Fill(id);
  Result<std::optional<PendingReport>> report =
      parts_.store.TakeReport(ToHex(id));
  Result<Transport*> transport = Connect(/*as_device=*/true);
  if (!report.ok() || !transport.ok()) return;
  Status sent;
  if (report->has_value()) {
    sent = (*transport)
               ->Report((*report)->report_id, (*report)->counters)
               .status();
    if (sent.ok()) (void)parts_.store.ForgetReport((*report)->report_id);
  }
  // Telemetry is never worth a session: next time.
  (void)parts_.store.SetNextReport(now +
                                   (sent.ok() ? kReportEvery : kReportFirst));
}

}  // namespace selvage::client

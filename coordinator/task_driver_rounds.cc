// How a driver opens, restores, finishes and ends its rounds.
#include <cmath>
#include <map>
#include <utility>

#include "base/check.h"
#include "coordinator/evaluation_partial.h"
#include "coordinator/model_store.h"
#include "coordinator/next_model.h"
#include "coordinator/round_result.h"
#include "coordinator/selection.h"
#include "coordinator/stopping.h"
#include "coordinator/task_driver.h"
#include "crypto/aead.h"

namespace selvage::coordinator {
namespace {

// Trying again cannot help: the round ends without a model. Everything else
// (a full disk, a busy database) is tried again from the same durable state.
bool IsFinal(const Status& status) {
  switch (status.code()) {
    case StatusCode::kDataLoss:
    case StatusCode::kNotFound:
    case StatusCode::kOutOfRange:
    case StatusCode::kInvalidArgument:
    case StatusCode::kFailedPrecondition:
      return true;
    default:
      return false;
  }
}

Round::MemberState MemberStateOf(AssignmentState state) {
  switch (state) {
    case AssignmentState::kLeased:
      return Round::MemberState::kLeased;
    case AssignmentState::kExpired:
      return Round::MemberState::kExpired;
    case AssignmentState::kAccepted:
      return Round::MemberState::kAccepted;
    case AssignmentState::kRejected:
    case AssignmentState::kLate:
    case AssignmentState::kAbandoned:
      return Round::MemberState::kDone;
  }
  return Round::MemberState::kDone;
}

}  // namespace

Status TaskDriver::Recover(Time now) {
  Store& store = context_.deps.store;
  content_.reset();
  actions_.clear();
  SELVAGE_ASSIGN_OR_RETURN(row_, store.GetTaskById(task_id_));
  changed_ = true;
  if (row_.state != TaskState::kRunning) {
    End();
    return OkStatus();
  }
  SELVAGE_ASSIGN_OR_RETURN(const std::optional<RoundRow> latest,
                           store.LatestRound(task_id_));
  if (!latest.has_value()) return OpenNext(1, false, now);
  if (latest->state == RoundState::kCommitted ||
      latest->state == RoundState::kAbandoned) {
    {
      MutexLock lock(mu_);
      last_ended_ = latest->key.number;
    }
    RememberOutcome(latest->key, latest->state);
    // Of an asynchronous task's assignments some have not ended with it: not
    // before the next one has taken them over.
    if (!asynchronous()) TellEnd();
    return OpenNext(latest->key.number + 1,
                    latest->mode == RoundMode::kTrain &&
                        latest->state == RoundState::kCommitted,
                    now);
  }
  return RestoreRound(*latest);
}

Status TaskDriver::OpenNext(uint64_t number, bool after_training, Time now) {
  const plan::TaskSpec& spec = definition_->spec;
  if (const auto reason = EarlyEnd(*definition_, row_.progress)) {
    return FinishTask(*reason, now);
  }
  if (after_training && EvaluationIsDue(spec, row_.committed_rounds)) {
    return OpenRound(number, RoundMode::kEvaluate, now);
  }
  if (const auto reason = RoundsAreDone(spec, row_.committed_rounds)) {
    return FinishTask(*reason, now);
  }
  return OpenRound(number, RoundMode::kTrain, now);
}

Status TaskDriver::FinishTask(const std::string& reason, Time now) {
  SELVAGE_ASSIGN_OR_RETURN(
      row_, context_.deps.store.FinishTask(task_id_, now, reason));
  End();
  return OkStatus();
}

Status TaskDriver::OpenRound(uint64_t number, RoundMode mode, Time now) {
  const CoordinatorDependencies& deps = context_.deps;
  SELVAGE_ASSIGN_OR_RETURN(
      base_, deps.store.GetVersion(task_id_, row_.latest_version));
  RoundRow row;
  row.key = {task_id_, number};
  row.mode = mode;
  row.base_version = base_.version;
  row.opened = now;
  row.claim = claim_.token;
  round_key_ = crypto::NewAeadKey(deps.random);
  SELVAGE_ASSIGN_OR_RETURN(
      row.wrapped_key,
      WrapRoundKey(deps.wrapping_key, round_key_, row.key, deps.random));
  std::map<std::string, Round::Member> members;
  if (asynchronous()) {
    SELVAGE_ASSIGN_OR_RETURN(members, CarryOver(row, now));
  }
  const uint64_t carried = members.size();
  SELVAGE_ASSIGN_OR_RETURN(const RoundConfig config, ConfigOf(number, mode));
  SELVAGE_ASSIGN_OR_RETURN(
      Round round, Round::Restore(config, now, row.state, std::move(members)));
  SELVAGE_RETURN_IF_ERROR(deps.store.OpenRound(row));
  TellEnd();
  lease_ = {row.key, row.epoch};
  uploading_.clear();
  WatchRound(carried);
  durable_state_ = row.state;
  partials_.clear();
  sums_.Reset();
  classes_.clear();
  pulse_.clear();
  candidates_read_ = 0;
  SetRound(std::move(round));
  deps.events.Write(LogLevel::kInfo, "round_state",
                    {{"task", row_.name},
                     {"round", number},
                     {"mode", RoundModeName(mode)},
                     {"state", RoundStateName(row.state)},
                     {"base_version", base_.version},
                     {"carried", carried}});
  return OkStatus();
}

Result<RoundConfig> TaskDriver::ConfigOf(uint64_t number, RoundMode mode) {
  const plan::StrategySpec& strategy = definition_->spec.strategy;
  if (!strategy.measure_drop_out || mode != RoundMode::kTrain) {
    return definition_->ConfigOf(number, mode);
  }
  std::vector<DropOut> rounds;
  for (uint64_t before = number - 1;
       before > 0 && rounds.size() < kDropOutRounds; --before) {
    // An evaluation round's devices are asked for less.
    SELVAGE_ASSIGN_OR_RETURN(const RoundRow row,
                             context_.deps.store.GetRound({task_id_, before}));
    if (row.mode != RoundMode::kTrain) continue;
    SELVAGE_ASSIGN_OR_RETURN(const std::vector<FunnelCount> counts,
                             context_.deps.store.CountAssignments(row.key));
    rounds.push_back(DropOutOf(counts));
  }
  return definition_->ConfigOf(number, mode,
                               SlotsFor(static_cast<uint32_t>(strategy.cohort),
                                        strategy.over_selection, rounds));
}

Result<std::map<std::string, Round::Member>> TaskDriver::CarryOver(
    RoundRow& row, Time now) {
  std::map<std::string, Round::Member> members;
  if (row.key.number == 1) return members;
  const plan::AsynchronousSpec& spec = definition_->spec.strategy.asynchronous;
  const auto most = static_cast<uint64_t>(spec.max_staleness);
  SELVAGE_ASSIGN_OR_RETURN(
      const std::vector<AssignmentRecord> records,
      context_.deps.store.ListAssignments({task_id_, row.key.number - 1}));
  uint64_t oldest = row.key.number;
  for (const AssignmentRecord& record : records) {
    const AssignmentRow& assignment = record.assignment;
    if (assignment.state != AssignmentState::kLeased ||
        assignment.expires <= now) {
      continue;
    }
    const uint64_t origin = OriginOf(assignment);
    SELVAGE_ASSIGN_OR_RETURN(const uint64_t base, BaseOf(origin));
    if (base + most < row.base_version) continue;  // too stale from now on
    oldest = std::min(oldest, origin);
    const bool uploading = uploading_.contains(assignment.device_id);
    members[assignment.device_id] = {uploading ? Round::MemberState::kUploading
                                               : Round::MemberState::kLeased,
                                     assignment.lease_deadline, origin};
    row.carried.push_back(assignment.id);
  }
  // What no assignment is of any more.
  bases_.erase(bases_.begin(), bases_.lower_bound(oldest));
  return members;
}

Result<uint64_t> TaskDriver::BaseOf(uint64_t round) {
  if (const auto it = bases_.find(round); it != bases_.end()) {
    return it->second;
  }
  SELVAGE_ASSIGN_OR_RETURN(const RoundRow row,
                           context_.deps.store.GetRound({task_id_, round}));
  bases_.emplace(round, row.base_version);
  return row.base_version;
}

void TaskDriver::RememberOutcome(const RoundKey& key, RoundState state) {
  // An asynchronous update's is that of the round it came to count in.
  if (asynchronous()) return;
  context_.outcomes.Put(key, state == RoundState::kCommitted
                                 ? OutcomeState::kCommitted
                                 : OutcomeState::kAbandoned);
}

Status TaskDriver::RestoreRound(const RoundRow& row) {
  const CoordinatorDependencies& deps = context_.deps;
  SELVAGE_ASSIGN_OR_RETURN(
      round_key_, UnwrapRoundKey(deps.wrapping_key, row.wrapped_key, row.key));
  if (!shared()) {
    // A write, so what an interrupted one before it may have left in the log is
    // settled from here on.
    SELVAGE_RETURN_IF_ERROR(deps.store.TakeRound(row.key).status());
  }
  SELVAGE_ASSIGN_OR_RETURN(const RoundRow current,
                           deps.store.GetRound(row.key));
  lease_ = {row.key, current.epoch};
  if (shared() && drives_) {
    SELVAGE_RETURN_IF_ERROR(ConfirmClaim());
    pulse_.clear();  // this machine has not heard of anything yet
    candidates_read_ = 0;
    if (current.state != RoundState::kSelecting) {
      // Who came for the draw, or long ago for a free slot, may be gone.
      SELVAGE_ASSIGN_OR_RETURN(const Candidates queue,
                               deps.store.ListCandidates(row.key, 0));
      candidates_read_ = queue.last;
    }
  }
  SELVAGE_ASSIGN_OR_RETURN(base_,
                           deps.store.GetVersion(task_id_, row.base_version));
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<AssignmentRecord> assignments,
                           deps.store.ListAssignments(row.key));
  std::map<std::string, Round::Member> members;
  classes_.clear();
  for (const AssignmentRecord& record : assignments) {
    const AssignmentRow& assignment = record.assignment;
    members[assignment.device_id] = {MemberStateOf(assignment.state),
                                     assignment.lease_deadline,
                                     OriginOf(assignment)};
    if (!assignment.device_class.empty()) {
      classes_[assignment.device_id] = assignment.device_class;
    }
  }
  WatchRound(members.size());
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<PartialRow> partials,
                           deps.store.ListPartials(row.key));
  partials_.clear();
  sums_.Reset();
  for (const PartialRow& partial : partials) partials_.push_back(partial.id);
  SELVAGE_ASSIGN_OR_RETURN(const RoundConfig config,
                           ConfigOf(row.key.number, row.mode));
  SELVAGE_ASSIGN_OR_RETURN(
      Round round,
      Round::Restore(config, row.opened, current.state, std::move(members)));
  durable_state_ = current.state;
  deps.events.Write(LogLevel::kInfo, "round_restored",
                    {{"task", row_.name},
                     {"round", row.key.number},
                     {"state", RoundStateName(current.state)},
                     {"accepted", round.accepted()},
                     {"epoch", lease_.epoch}});
  SetRound(std::move(round));
  return OkStatus();
}

Status TaskDriver::Finish(Time now) {
  const auto advance = [&]() -> Status {
    if (round()->config().mode == RoundMode::kEvaluate) {
      return FinishEvaluation(now);
    }
    if (round()->state() == RoundState::kClosing ||
        (round()->state() == RoundState::kApplying && !content_.has_value())) {
      SELVAGE_ASSIGN_OR_RETURN(
          content_,
          RoundContent::Gather(*definition_, lease_.key, context_.deps.store,
                               context_.deps.blobs, round_key_, &sums_));
      if (round()->accepted() != content_->update_count()) {
        return DataLoss("the partials hold " +
                        std::to_string(content_->update_count()) +
                        " updates, acknowledged were " +
                        std::to_string(round()->accepted()));
      }
      Step(SumsMerged{}, now);
      SELVAGE_RETURN_IF_ERROR(Persist(now));
    }
    if (round()->state() == RoundState::kApplying) return Commit(now);
    return OkStatus();
  };
  if (round()->state() == RoundState::kClosing ||
      round()->state() == RoundState::kApplying) {
    const Time begun = context_.deps.store.Now();
    const Status status = advance();
    content_.reset();
    if (context_.deps.telemetry != nullptr && status.ok()) {
      context_.deps.telemetry->Aggregated(context_.deps.store.Now() - begun);
    }
    if (!status.ok()) {
      if (!IsFinal(status)) return status;
      context_.deps.events.Write(LogLevel::kError, "round_failed",
                                 {{"task", row_.name},
                                  {"round", lease_.key.number},
                                  {"reason", status.ToString()}});
      Step(Failed{status.ToString()}, now);
      SELVAGE_RETURN_IF_ERROR(Persist(now));
    }
  }
  return round()->finished() ? EndRound(now) : OkStatus();
}

Status TaskDriver::Commit(Time now) {
  const CoordinatorDependencies& deps = context_.deps;
  CommittedRound result;
  result.metrics = ReleasableMetrics(
      content_->metrics(),
      static_cast<uint64_t>(definition_->spec.privacy.min_cohort));
  // Evaluation rounds, where there are any, are the ones that count.
  if (definition_->spec.evaluate.every == 0 && !result.metrics.empty()) {
    result.progress = ProgressAfter(content_->metrics());
  }
  SELVAGE_ASSIGN_OR_RETURN(
      const std::unique_ptr<NextModel> next,
      NextModel::Create(
          *definition_, base_,
          [this] { return content_->NextMean(context_.options.rule_threads); },
          deps.blobs, context_.options.rule_threads));
  const uint64_t version = base_.version + 1;
  SELVAGE_ASSIGN_OR_RETURN(
      VersionArtefacts artefacts,
      StoreVersion(*definition_, version, lease_.key.number, *next, deps.blobs,
                   context_.options.rule_threads));
  SELVAGE_RETURN_IF_ERROR(next->StoreState(artefacts));
  std::map<std::string, double> figures = content_->Figures();
  // A sum that overflows is no figure.
  if (std::isfinite(next->update_norm())) {
    figures[kUpdateNormFigure] = next->update_norm();
  }
  result.figures = FiguresText(figures);
  content_.reset();
  result.version.task_id = task_id_;
  result.version.version = version;
  result.version.round = lease_.key.number;
  result.version.checkpoint_digest = artefacts.checkpoint_digest;
  result.version.checkpoint_codec =
      plan::CheckpointCodec(definition_->spec.update);
  result.version.master_digest = artefacts.master_digest;
  result.version.created = now;
  result.version.server_state_digest = artefacts.server_state_digest;
  result.artefacts = std::move(artefacts.artefacts);
  result.references = std::move(artefacts.references);
  const uint64_t committed_rounds = row_.committed_rounds + 1;
  std::optional<std::string> end =
      EarlyEnd(*definition_, result.progress.value_or(row_.progress));
  if (!end.has_value() &&
      !EvaluationIsDue(definition_->spec, committed_rounds)) {
    end = RoundsAreDone(definition_->spec, committed_rounds);
  }
  result.finish_task = end.has_value();
  result.end_reason = end.value_or("");
  const Status committed = deps.store.CommitRound(lease_, result, now);
  if (!committed.ok()) {
    // The store knows where the round stands: nothing here is final.
    return IsFinal(committed) ? Aborted(committed.ToString()) : committed;
  }
  Step(VersionCommitted{}, now);
  return Persist(now);
}

std::optional<TaskProgress> TaskDriver::ProgressAfter(
    const aggregation::MetricSums& metrics) const {
  const plan::TaskSpec& spec = definition_->spec;
  if (spec.evaluate.source != plan::KeyMetricSource::kDevices) {
    return std::nullopt;
  }
  const std::optional<double> value = KeyMetricOf(
      *definition_, metrics, static_cast<uint64_t>(spec.privacy.min_cohort));
  if (!value.has_value()) return std::nullopt;
  return Observe(spec.evaluate, base_.version, *value, row_.progress);
}

Status TaskDriver::FinishEvaluation(Time now) {
  Store& store = context_.deps.store;
  const auto min_cohort =
      static_cast<uint64_t>(definition_->spec.privacy.min_cohort);
  SELVAGE_ASSIGN_OR_RETURN(aggregation::EvaluationSums sums,
                           MergeEvaluations(*definition_, lease_.key, store,
                                            context_.deps.blobs, round_key_));
  if (round()->accepted() != sums.device_count()) {
    return DataLoss("the sum holds " + std::to_string(sums.device_count()) +
                    " evaluations, acknowledged were " +
                    std::to_string(round()->accepted()));
  }
  if (round()->state() == RoundState::kClosing) {
    Step(SumsMerged{}, now);
    SELVAGE_RETURN_IF_ERROR(Persist(now));
  }
  EvaluatedRound result;
  result.metrics = ReleasableMetrics(sums.total(), min_cohort);
  if (!result.metrics.empty()) {
    result.progress = ProgressAfter(sums.total());
    sums.Suppress(min_cohort);
    result.class_metrics = sums.Serialize();
  }
  std::optional<std::string> end =
      EarlyEnd(*definition_, result.progress.value_or(row_.progress));
  if (!end.has_value()) {
    end = RoundsAreDone(definition_->spec, row_.committed_rounds);
  }
  result.finish_task = end.has_value();
  result.end_reason = end.value_or("");
  const Status committed = store.CommitEvaluation(lease_, result, now);
  if (!committed.ok()) {
    // The store knows where the round stands: nothing here is final.
    return IsFinal(committed) ? Aborted(committed.ToString()) : committed;
  }
  Step(VersionCommitted{}, now);
  return Persist(now);
}

Status TaskDriver::EndRound(Time now) {
  RememberOutcome(lease_.key, round()->state());
  if (asynchronous()) {
    for (const auto& [device, member] : round()->members()) {
      if (member.state == Round::MemberState::kUploading) {
        uploading_.insert(device);
      }
    }
  }
  const std::vector<std::string> partials = std::exchange(partials_, {});
  sums_.Reset();
  round_key_ = crypto::SecretBytes(0);
  {
    MutexLock lock(mu_);
    last_ended_ = lease_.key.number;
    round_.reset();
  }
  const Status next = Recover(now);  // the next round, or the end of the task
  for (const std::string& id : partials) {
    // Unreadable without its key, which is gone; what is not removed now is an
    // orphan for the next start. It takes a while, so not before the round is
    // open that devices wait for.
    (void)context_.deps.blobs.RemoveSealed(id);
  }
  return next;
}

}  // namespace selvage::coordinator

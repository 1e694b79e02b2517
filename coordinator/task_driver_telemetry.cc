// What a driver tells of its rounds. Everything is told from what is durable,
// so a store that failed in between changes no count.
#include <utility>

#include "coordinator/round_result.h"
#include "coordinator/task_driver.h"

namespace selvage::coordinator {
namespace {

AssignmentEnd EndOf(AssignmentState state) {
  switch (state) {
    case AssignmentState::kLeased:
      return AssignmentEnd::kUnfinished;
    case AssignmentState::kExpired:
      return AssignmentEnd::kExpired;
    case AssignmentState::kAccepted:
      return AssignmentEnd::kAccepted;
    case AssignmentState::kRejected:
      return AssignmentEnd::kRejected;
    case AssignmentState::kLate:
      return AssignmentEnd::kLate;
    case AssignmentState::kAbandoned:
      return AssignmentEnd::kAbandoned;
  }
  return AssignmentEnd::kUnfinished;
}

}  // namespace

void TaskDriver::WatchRound(uint64_t assigned) {
  if (context_.deps.telemetry == nullptr || !drives_) return;
  const bool went_on = watched_.has_value() &&
                       watched_->lease.key == lease_.key &&
                       watched_->claim == claim_.token;
  watched_ = Watched{lease_, claim_.token};
  if (!went_on) issued_ = assigned;
}

void TaskDriver::TellRound() {
  Telemetry* const telemetry = context_.deps.telemetry;
  if (telemetry == nullptr) return;
  RoundView view;
  if (!drives_ || ended_) {
    watched_.reset();
  } else if (round().has_value()) {
    view = {static_cast<uint64_t>(round()->state()), round()->assigned(),
            round()->accepted()};
    if (view.assignments > issued_) {
      telemetry->AssignmentsIssued({row_.population, row_.name},
                                   view.assignments - issued_);
      issued_ = view.assignments;
    }
  } else {
    return;  // it is being read again: what was told stands
  }
  if (view == told_) return;
  told_ = view;
  telemetry->RoundIs({row_.population, row_.name}, view);
}

void TaskDriver::TellEnd() {
  Telemetry* const telemetry = context_.deps.telemetry;
  if (telemetry == nullptr || !watched_.has_value()) return;
  const RoundLease lease = watched_->lease;
  const Result<RoundRow> row = context_.deps.store.GetRound(lease.key);
  if (!row.ok() || (row->state != RoundState::kCommitted &&
                    row->state != RoundState::kAbandoned)) {
    return;
  }
  // Another replica took the round over, and tells.
  if (shared() && row->epoch != lease.epoch) {
    watched_.reset();
    return;
  }
  const Result<std::vector<FunnelCount>> counts =
      context_.deps.store.CountAssignments(lease.key);
  if (!counts.ok()) return;
  watched_.reset();
  RoundEnd end;
  end.state = row->state;
  end.mode = row->mode;
  end.ended = row->ended;
  end.duration = row->ended - row->opened;
  if (const auto figures = ParseFigures(row->figures); figures.ok()) {
    const auto norm = figures->find(kUpdateNormFigure);
    if (norm != figures->end()) end.update_norm = norm->second;
  }
  uint64_t assigned = 0;
  for (const FunnelCount& count : *counts) {
    end.assignments[static_cast<size_t>(EndOf(count.state))] += count.count;
    assigned += count.count;
  }
  const TaskLabel label{row_.population, row_.name};
  if (assigned > issued_) {
    telemetry->AssignmentsIssued(label, assigned - issued_);
  }
  issued_ = 0;
  told_ = {};
  telemetry->RoundIs(label, told_);
  telemetry->RoundEnded(label, end);
}

}  // namespace selvage::coordinator

#include "coordinator/watchers.h"

#include <utility>

namespace selvage::coordinator {
namespace {

constexpr uint32_t kRoundsPerRead = 256;

}  // namespace

uint64_t Watchers::Add(uint64_t task_id, OnChange on_change) {
  MutexLock lock(mu_);
  watches_.emplace(next_id_, Watch{task_id, std::move(on_change), true});
  return next_id_++;
}

void Watchers::Remove(uint64_t watch_id) {
  MutexLock lock(mu_);
  watches_.erase(watch_id);
}

Status Watchers::Extend(const TaskRow& task, const std::string& key_metric,
                        History& history) {
  for (;;) {
    SELVAGE_ASSIGN_OR_RETURN(
        const std::vector<RoundRow> rounds,
        store_.ListRounds(task.id, history.next_round, kRoundsPerRead));
    for (const RoundRow& round : rounds) {
      if (round.state != RoundState::kCommitted &&
          round.state != RoundState::kAbandoned) {
        return OkStatus();
      }
      history.next_round = round.key.number + 1;
      // One curve of one kind: evaluation rounds, where there are any.
      if (round.mode != RoundMode::kEvaluate && task.evaluated_rounds > 0) {
        continue;
      }
      if (round.mode == RoundMode::kEvaluate && !history.evaluated) {
        history.evaluated = true;
        history.key_metric.clear();
        history.loss.clear();
      }
      SELVAGE_ASSIGN_OR_RETURN(const std::vector<MetricSummary> summaries,
                               describer_.Summaries(task, round));
      for (const MetricSummary& summary : summaries) {
        if (summary.name == key_metric) {
          history.key_metric.push_back(summary.mean);
        }
        if (summary.name == "loss") history.loss.push_back(summary.mean);
      }
    }
    if (rounds.size() < kRoundsPerRead) return OkStatus();
  }
}

Result<TaskSnapshot> Watchers::MakeSnapshot(uint64_t task_id) {
  SELVAGE_ASSIGN_OR_RETURN(const TaskRow task, store_.GetTaskById(task_id));
  TaskSnapshot snapshot;
  SELVAGE_ASSIGN_OR_RETURN(snapshot.task, describer_.Describe(task));
  SELVAGE_ASSIGN_OR_RETURN(const std::optional<RoundRow> round,
                           store_.LatestRound(task_id));
  if (round.has_value()) {
    SELVAGE_ASSIGN_OR_RETURN(
        snapshot.round,
        describer_.Describe(task, *round, check_in_count_(round->key)));
  }
  History& history = histories_[task_id];
  SELVAGE_RETURN_IF_ERROR(Extend(task, snapshot.task.key_metric, history));
  snapshot.key_metric_history = history.key_metric;
  snapshot.loss_history = history.loss;
  return snapshot;
}

void Watchers::Notify(const std::set<uint64_t>& changed) {
  std::set<uint64_t> due;
  std::set<uint64_t> watched;
  {
    MutexLock lock(mu_);
    for (const auto& [id, watch] : watches_) {
      watched.insert(watch.task_id);
      if (watch.is_new || changed.contains(watch.task_id)) {
        due.insert(watch.task_id);
      }
    }
  }
  std::erase_if(histories_, [&](const auto& entry) {
    return !watched.contains(entry.first);
  });
  for (const uint64_t task_id : due) {
    const Result<TaskSnapshot> snapshot = MakeSnapshot(task_id);
    // A store that cannot be read now is read again with the next change; who
    // is new, with the next turn.
    if (!snapshot.ok()) continue;
    const bool is_last = snapshot->task.state != TaskState::kRunning;
    MutexLock lock(mu_);
    for (auto it = watches_.begin(); it != watches_.end();) {
      if (it->second.task_id != task_id) {
        ++it;
        continue;
      }
      it->second.is_new = false;
      it->second.on_change(*snapshot);
      it = is_last ? watches_.erase(it) : std::next(it);
    }
  }
}

}  // namespace selvage::coordinator

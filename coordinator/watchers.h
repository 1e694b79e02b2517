// Who wants to hear of changes. Snapshots are made on the worker, once per
// changed task and turn, however many watch it.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "coordinator/describe.h"
#include "coordinator/task_admin.h"

namespace selvage::coordinator {

class Watchers {
 public:
  using OnChange = std::function<void(const TaskSnapshot&)>;

  Watchers(Store& store, Describer& describer,
           TaskAdmin::CheckInCount check_in_count)
      : store_(store),
        describer_(describer),
        check_in_count_(std::move(check_in_count)) {}

  // Any thread. `on_change` must not call Remove(): it would wait for itself.
  uint64_t Add(uint64_t task_id, OnChange on_change) SELVAGE_EXCLUDES(mu_);
  // Any thread. `on_change` is not running and will not be called any more.
  void Remove(uint64_t watch_id) SELVAGE_EXCLUDES(mu_);

  // Worker: something about these tasks changed. Calls who watches them, and
  // who is new.
  void Notify(const std::set<uint64_t>& changed) SELVAGE_EXCLUDES(mu_);

 private:
  struct Watch {
    uint64_t task_id = 0;
    OnChange on_change;
    bool is_new = true;
  };
  // Metrics of committed rounds so far; grows with the task.
  struct History {
    uint64_t next_round = 1;
    std::vector<double> key_metric;
    std::vector<double> loss;
    bool evaluated = false;  // they are of evaluation rounds
  };

  Result<TaskSnapshot> MakeSnapshot(uint64_t task_id);
  Status Extend(const TaskRow& task, const std::string& key_metric,
                History& history);

  Store& store_;
  Describer& describer_;
  const TaskAdmin::CheckInCount check_in_count_;
  std::map<uint64_t, History> histories_;  // worker only

  Mutex mu_;  // held while callbacks run
  std::map<uint64_t, Watch> watches_ SELVAGE_GUARDED_BY(mu_);
  uint64_t next_id_ SELVAGE_GUARDED_BY(mu_) = 1;
};

}  // namespace selvage::coordinator

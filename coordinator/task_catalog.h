// Which tasks there are for which devices. RPC threads read immutable views;
// the worker replaces them.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "coordinator/task_driver.h"

namespace selvage::coordinator {

// Thread-safe.
class TaskCatalog {
 public:
  // Newest first; a device reports at most 16 installed models, so more offers
  // than that could go round in circles.
  static constexpr size_t kOffersMax = 16;

  struct View {
    std::vector<std::shared_ptr<TaskDriver>> running;  // oldest first
    std::vector<ModelOffer> offers;                    // newest first
  };

  std::shared_ptr<const View> Of(const std::string& population) const {
    MutexLock lock(mu_);
    const auto it = views_.find(population);
    return it == views_.end() ? std::make_shared<const View>() : it->second;
  }
  // nullptr unless the task runs.
  std::shared_ptr<TaskDriver> Find(uint64_t task_id) const {
    MutexLock lock(mu_);
    const auto it = running_.find(task_id);
    return it == running_.end() ? nullptr : it->second;
  }
  std::vector<std::shared_ptr<TaskDriver>> Running() const {
    MutexLock lock(mu_);
    std::vector<std::shared_ptr<TaskDriver>> all;
    for (const auto& [id, driver] : running_) all.push_back(driver);
    return all;
  }

  void AddRunning(const std::string& population,
                  std::shared_ptr<TaskDriver> driver) {
    MutexLock lock(mu_);
    View view = Copy(population);
    view.running.push_back(driver);
    views_[population] = std::make_shared<const View>(std::move(view));
    running_[driver->task_id()] = std::move(driver);
  }
  void RemoveRunning(const std::string& population, uint64_t task_id) {
    MutexLock lock(mu_);
    running_.erase(task_id);
    View view = Copy(population);
    std::erase_if(view.running, [&](const auto& driver) {
      return driver->task_id() == task_id;
    });
    views_[population] = std::make_shared<const View>(std::move(view));
  }
  void AddOffer(const std::string& population, ModelOffer offer) {
    MutexLock lock(mu_);
    View view = Copy(population);
    view.offers.insert(view.offers.begin(), std::move(offer));
    if (view.offers.size() > kOffersMax) view.offers.pop_back();
    views_[population] = std::make_shared<const View>(std::move(view));
  }

 private:
  View Copy(const std::string& population) const SELVAGE_REQUIRES(mu_) {
    const auto it = views_.find(population);
    return it == views_.end() ? View() : *it->second;
  }

  mutable Mutex mu_;
  std::map<std::string, std::shared_ptr<const View>> views_
      SELVAGE_GUARDED_BY(mu_);
  std::map<uint64_t, std::shared_ptr<TaskDriver>> running_
      SELVAGE_GUARDED_BY(mu_);
};

}  // namespace selvage::coordinator

// Loaded programs: one for training, kept across sessions because compiling
// costs tens of milliseconds, and one per task for the app's predictions, which
// go on undisturbed while the other one trains.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>

#include "base/log.h"
#include "base/mutex.h"
#include "base/status.h"
#include "client/core/trainer.h"
#include "client/crash_guard.h"
#include "client/store/client_store.h"
#include "plan/program.h"

namespace selvage::client {

// Training() is thread-compatible. Predict() and Refresh() are thread-safe:
// they hand out an immutable snapshot by shared pointer (read, copy, update)
// whose model has a small mutex of its own. A prediction never waits for
// training or for an installation; the first one of a task loads its program.
class ModelHost {
 public:
  // All must outlive the host.
  ModelHost(Trainer& trainer, ClientStore& store, CrashGuard& guard,
            EventSink& events)
      : trainer_(trainer), store_(store), guard_(guard), events_(events) {}

  // A loaded model of the program, values unspecified; valid until the next
  // call. Errors as Trainer::Load.
  Result<TrainableModel*> Training(const crypto::Digest& program_digest,
                                   const plan::Program& program,
                                   ByteSpan archive);

  // Drops what Training() gave: for models that are too large to be kept beside
  // what comes next. Thread-compatible.
  void ReleaseTraining() { loaded_.clear(); }

  // What serves: the active slot; if that does not load, is not what was
  // installed, or was put aside because the process died under it, then the
  // global slot; then the last known good model. NOT_FOUND if no model of
  // `task` is installed.
  Result<ServedPrediction> Predict(std::string_view task, ByteSpan input,
                                   size_t count) SELVAGE_EXCLUDES(mu_);

  // Drops every loaded model, with whatever values it holds: whoever predicts
  // from now on gets what the store has. Not while Training()'s is in use.
  void Forget() SELVAGE_EXCLUDES(mu_);

  // The global slot of `task` was found not to be what was installed: it is to
  // be installed again.
  bool IsDamaged(std::string_view task) SELVAGE_EXCLUDES(mu_);

  // After a model was installed: whoever predicts from now on gets it. What was
  // serving goes on if the new one cannot be loaded.
  Status Refresh(std::string_view task) SELVAGE_EXCLUDES(mu_);

 private:
  struct Serving {
    size_t input_size = 0;
    uint64_t version = 0;
    bool personal = false;
    Mutex mu;
    std::unique_ptr<TrainableModel> model SELVAGE_GUARDED_BY(mu);
  };
  struct Loaded {
    crypto::Digest program_digest;
    std::unique_ptr<TrainableModel> model;
  };

  enum class Occasion { kFirstUse, kInstalled };
  Result<std::shared_ptr<Serving>> Build(const std::string& task,
                                         Occasion occasion);
  // `digest`: what `values` must have; empty: not known.
  Result<std::shared_ptr<Serving>> BuildFrom(
      const crypto::Digest& program_digest,
      const crypto::Digest& archive_digest, const Bytes& values,
      const crypto::Digest& digest, Occasion occasion);

  Trainer& trainer_;
  ClientStore& store_;
  CrashGuard& guard_;
  EventSink& events_;
  std::list<Loaded> loaded_;  // most recently used first

  Mutex mu_;
  std::map<std::string, std::shared_ptr<Serving>, std::less<>> serving_
      SELVAGE_GUARDED_BY(mu_);
  std::set<std::string, std::less<>> damaged_ SELVAGE_GUARDED_BY(mu_);
  uint64_t generation_ SELVAGE_GUARDED_BY(mu_) = 0;  // installations so far
};

}  // namespace selvage::client

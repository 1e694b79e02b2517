// Tells the telemetry of uploads: of each that it began and, exactly once, how
// it ended. It stands between DeviceApi and UploadIngest and changes nothing.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "base/mutex.h"
#include "coordinator/api.h"
#include "coordinator/telemetry.h"
#include "coordinator/tickets.h"
#include "coordinator/upload_batch.h"

namespace selvage::coordinator {

// Thread-safe. Outlives the callbacks that it returns, as does what it is
// given.
class UploadCounter {
 public:
  UploadCounter(Telemetry& telemetry, const Tickets& tickets)
      : telemetry_(telemetry), tickets_(tickets) {}

  // What the task of this id is called.
  void AddTask(uint64_t task_id, const TaskLabel& label) SELVAGE_EXCLUDES(mu_);
  // "unknown" for a task that is not known.
  TaskLabel LabelOf(const DeviceIdentity& device,
                    const std::string& assignment_id) SELVAGE_EXCLUDES(mu_);

  // To be called instead of `done`.
  BeginUploadCallback Begin(const DeviceIdentity& device,
                            const UploadHeader& header,
                            BeginUploadCallback done) SELVAGE_EXCLUDES(mu_);
  ReceiptCallback Finish(uint64_t upload_id, ReceiptCallback done)
      SELVAGE_EXCLUDES(mu_);
  void Drop(uint64_t upload_id) SELVAGE_EXCLUDES(mu_);

 private:
  struct Stream {
    TaskLabel label;
    uint64_t bytes = 0;
  };
  void Tell(const Stream& stream, const Result<Receipt>& answer);

  Telemetry& telemetry_;
  const Tickets& tickets_;
  Mutex mu_;
  std::map<uint64_t, TaskLabel> tasks_ SELVAGE_GUARDED_BY(mu_);
  std::map<uint64_t, Stream> streams_ SELVAGE_GUARDED_BY(mu_);  // by upload id
};

}  // namespace selvage::coordinator

// What a host allows a session: its conditions, its budgets, and the limits of
// a day. One of these lives as long as the session driver does.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/cpu_clock.h"
#include "base/status.h"
#include "base/time.h"
#include "client/client.h"
#include "client/core/conditions.h"
#include "client/core/transport.h"
#include "client/core/usage_ledger.h"
#include "client/store/client_store.h"

namespace selvage::client {

// Thread-compatible. The ledger is kept in the store if any limit of a day is
// set; then a death of the process loses at most 1 MiB and 10 s of it.
class RunPolicy {
 public:
  // All must outlive it.
  RunPolicy(const ClientOptions& options, const ClientDependencies& deps,
            ClientStore& store)
      : options_(options), deps_(deps), store_(store) {}

  // A session begins. `cancel` must outlive it. Errors: the store's; a ledger
  // that is damaged is begun anew, with an event.
  Status Begin(const RunBudget& budget, const CancelToken& cancel);
  // What the plan of the work at hand wants, until the next Begin() or Want().
  void Want(const plan::ConditionsSpec& conditions) { wanted_ = conditions; }

  // Why the session must stop, for people; nullopt: go on. Asked before every
  // step and between chunks. Once it said so it does not change its mind before
  // the next Begin(): what stops, stops in good order.
  std::optional<std::string> Stop();
  bool Stopped() { return Stop().has_value(); }
  // When calling again makes sense: set where a limit of the day was what
  // stopped the session, or refused its work.
  std::optional<Time> not_before() const { return not_before_; }

  // From now on the CPU time of the whole process counts: the engine's threads
  // work for this one.
  void CountProcess(bool on);
  void CountBytes(uint64_t sent, uint64_t received);
  // Stops the session if so many more bytes are over a limit.
  void Reserve(uint64_t bytes);

  // Why no more updates may be sent today; nullopt if this one may.
  std::optional<std::string> UploadsUsedUp(const std::string& assignment_id);
  // Durable when it returns, if uploads are limited. Errors: the store's.
  Status CountUpload(const std::string& assignment_id);

  // The session ended; `usage` without what only others know.
  void End(RunUsage& usage);

 private:
  std::optional<std::string> FindStop();
  std::optional<std::string> OverLimit(uint64_t more);
  void CountCpu();
  bool limited() const {
    return options_.daily.metered_bytes > 0 ||
           options_.daily.unmetered_bytes > 0 ||
           options_.daily.cpu > Duration::zero() ||
           options_.floor.uploads_per_day_max > 0;
  }
  Conditions Now() const {
    return deps_.conditions ? deps_.conditions() : Conditions{};
  }
  CpuClock& cpu() { return deps_.cpu != nullptr ? *deps_.cpu : system_cpu_; }
  Status Keep();
  void KeepIfMuch();

  const ClientOptions& options_;
  const ClientDependencies& deps_;
  ClientStore& store_;
  SystemCpuClock system_cpu_;

  UsageLedger ledger_;
  Bytes kept_;  // what the store has
  uint64_t bytes_since_ = 0;
  Duration cpu_since_{};

  // Of this session.
  const CancelToken* cancel_ = nullptr;
  RunBudget budget_;
  Time end_ = kNever;
  plan::ConditionsSpec wanted_;
  std::optional<std::string> stop_;
  std::optional<Time> not_before_;
  bool process_ = false;
  Duration thread_seen_{};
  Duration process_seen_{};
  uint64_t sent_ = 0;
  uint64_t received_ = 0;
  Duration cpu_used_{};
};

// Counts what passes. `policy` must outlive it.
std::unique_ptr<Transport> MeteredTransport(
    std::unique_ptr<Transport> transport, RunPolicy& policy);

}  // namespace selvage::client

// The inside of a Coordinator: its parts, wired.
#pragma once

#include <atomic>
#include <memory>
#include <set>
#include <string>

#include "coordinator/artefact_uploads.h"
#include "coordinator/claim_keeper.h"
#include "coordinator/coordinator.h"
#include "coordinator/delta_cache.h"
#include "coordinator/describe.h"
#include "coordinator/enrolment.h"
#include "coordinator/orphans.h"
#include "coordinator/outcome_cache.h"
#include "coordinator/pace.h"
#include "coordinator/task_admin.h"
#include "coordinator/task_catalog.h"
#include "coordinator/telemetry.h"
#include "coordinator/tickets.h"
#include "coordinator/upload_counter.h"
#include "coordinator/upload_ingest.h"
#include "coordinator/watchers.h"
#include "coordinator/work_queue.h"

namespace selvage::coordinator {

struct Coordinator::Parts final : public UploadSink {
  Parts(const CoordinatorOptions& o, const CoordinatorDependencies& d);

  // ----------------------------------------------------------- start, turn
  // Loads tasks, removes orphans, recovers open rounds.
  Status Recover();
  void Poll();
  Time NextDeadline();
  void AnswerEverythingUnavailable();

  // -------------------------------------------------------- any RPC thread
  // To the worker; UNAVAILABLE to whoever waits for it once that has stopped.
  void Enqueue(Work work);
  static void AnswerUnavailable(Work& work);
  void CheckIn(const DeviceIdentity& device, const CheckInRequest& request,
               CheckInCallback done);
  // When a device comes back that got no work.
  void SendHome(const std::string& population, const Gathering& gathering,
                CheckInAnswer& answer);
  OutcomeState OutcomeOf(const std::string& assignment_id,
                         const DeviceIdentity& device);
  Result<RetryWindow> Abandon(const DeviceIdentity& device,
                              const std::string& assignment_id, ByteSpan token,
                              AbandonReason reason, const std::string& message);
  uint64_t CheckInCount(const RoundKey& round) const;

  // UploadSink.
  Door DoorOf(const RoundKey& round) override;
  std::shared_ptr<const TaskDefinition> DefinitionOf(uint64_t task_id) override;
  RetryWindow PaceOf(uint64_t task_id) override;
  void Post(const RoundKey& round, RoundEvent event) override;
  void Post(VerifiedUpload upload) override;
  void Wake() override;

  // ---------------------------------------------------------------- worker
  void Handle(Work& work);
  void AddTask(const TaskRow& row,
               std::shared_ptr<const TaskDefinition> definition);
  Status OfferModel(const TaskRow& row);
  // A task that does not run any more: no driver, perhaps an offer.
  void Retire(const std::shared_ptr<TaskDriver>& driver);
  void Collected(const Result<OrphanCollector::Counts>& counts);
  // Tasks that are new since the last call: at the start all, later those that
  // another coordinator made.
  Status FindTasks();
  void PruneIfDue(Time now);

  const CoordinatorOptions options;
  const CoordinatorDependencies deps;
  Telemetry no_telemetry;
  Telemetry& telemetry;  // deps.telemetry, or none
  PaceSteering pace;
  const std::string replica;  // empty: the only one over the store
  ClaimKeeper claims;
  const Tickets tickets;
  Enrolment enrolment;
  Describer describer;
  ByteBudget sums_room{RunningSums::kBytesMax};
  TaskCatalog catalog;
  OutcomeCache outcomes;
  TaskAdmin admin;
  Watchers watchers;
  ArtefactUploads artefacts;
  DeltaCache deltas;
  UploadIngest ingest;
  UploadCounter uploads;
  WorkQueue queue;
  std::atomic<bool> assigning{true};  // false for ever once it is
  std::atomic<bool> draining{false};
  std::atomic<bool> busy{false};  // the worker holds work it took
  std::set<uint64_t> changed;     // tasks; worker only
  Time next_prune{};              // worker only
  OrphanCollector orphans;        // worker only
  // Of several coordinators; worker only.
  Time next_find{};
  std::atomic<uint64_t> last_task{0};  // ids up to here have been seen
};

}  // namespace selvage::coordinator

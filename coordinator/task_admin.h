// Tasks, rounds and model versions, for people. CreateTask and StopTask change
// the store; the drivers are told by whoever calls them.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "coordinator/api.h"
#include "coordinator/describe.h"
#include "coordinator/model_store.h"
#include "coordinator/options.h"
#include "coordinator/task_definition.h"

namespace selvage::coordinator {

// Thread-safe. The methods are those of AdminApi.
class TaskAdmin {
 public:
  // How many devices an open round has seen so far.
  using CheckInCount = std::function<uint64_t(const RoundKey&)>;

  TaskAdmin(const CoordinatorDependencies& deps, Describer& describer,
            uint64_t held_bytes_max, CheckInCount check_in_count)
      : deps_(deps),
        describer_(describer),
        held_bytes_max_(held_bytes_max),
        check_in_count_(std::move(check_in_count)) {}

  struct Created {
    TaskInfo info;
    TaskRow row;
    // nullptr if nothing new runs: a repeated request, or validate_only.
    std::shared_ptr<const TaskDefinition> definition;
  };
  Result<Created> CreateTask(const CreateTaskRequest& request);
  Result<TaskInfo> GetTask(const std::string& name);
  Result<Page<TaskInfo>> ListTasks(const std::string& population,
                                   const PageRequest& page);
  struct Stopped {
    TaskInfo info;
    uint64_t task_id = 0;
  };
  Result<Stopped> StopTask(const std::string& name,
                           const std::string& request_id,
                           const std::string& etag);

  Result<RoundInfo> GetRound(const std::string& task, uint64_t number);
  Result<Page<RoundInfo>> ListRounds(const std::string& task,
                                     const PageRequest& page);
  Result<ModelVersionInfo> GetModelVersion(const std::string& task,
                                           std::optional<uint64_t> version);
  Result<Page<ModelVersionInfo>> ListModelVersions(const std::string& task,
                                                   const PageRequest& page);

  Result<ModelVersionInfo> GetBestModelVersion(const std::string& task);
  struct Evaluated {
    EvaluationInfo info;
    uint64_t finished_task = 0;  // its id, if this ended it
  };
  Result<Evaluated> AddEvaluation(const EvaluationInfo& evaluation);

 private:
  // The program and, for an archive, its code, as uploaded.
  Result<plan::Program> ReadProgram(const crypto::Digest& digest);
  // Version 0, as the task file's `initial` says.
  Result<std::unique_ptr<ModelSource>> OpenInitial(
      const TaskDefinition& definition, const crypto::Digest& initial_digest);
  // The digest of another task's master.
  Result<crypto::Digest> WarmStart(const TaskDefinition& definition,
                                   const std::string& task,
                                   const std::string& version);

  const CoordinatorDependencies& deps_;
  Describer& describer_;
  const uint64_t held_bytes_max_;
  const CheckInCount check_in_count_;
};

}  // namespace selvage::coordinator

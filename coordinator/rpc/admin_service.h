// selvage.v1.AdminService over gRPC's callback API: translation and the bearer
// token. What is true or allowed is AdminApi's to say.
#pragma once

#include <selvage/v1/admin.grpc.pb.h>

#include <functional>
#include <string>
#include <thread>

#include "base/log.h"
#include "base/mutex.h"
#include "base/time.h"
#include "coordinator/api.h"
#include "coordinator/telemetry.h"

namespace selvage::coordinator {

struct BackupInfo {
  std::string path;
  std::string instance_id;
  uint64_t artefacts = 0;
  uint64_t size = 0;
  Time created{};
};

struct AdminServiceOptions {
  // Every method wants "authorization: Bearer TOKEN". Not empty.
  std::string bearer_token;
  // A stream on which nothing moves for this long is cancelled (WatchTask, on
  // which nothing may happen for hours, is not).
  Duration chunk_timeout = std::chrono::seconds(30);
  int chunk_timeouts_max = 120;
  size_t download_chunk_size = size_t{512} << 10;
  uint64_t artefact_size_max = uint64_t{4} << 30;
  // Makes a backup of that name, on a thread of its own, until `stop` says so.
  // Empty: FAILED_PRECONDITION.
  std::function<Result<BackupInfo>(const std::string& name,
                                   const std::function<bool()>& stop)>
      backup{};
  Telemetry* telemetry = nullptr;  // null: nobody watches
};

// What GetServerInfo says beyond AdminApi::Info().
struct TransportInfo {
  uint64_t tls_connections = 0;
  uint64_t socket_bytes_received = 0;
  uint64_t socket_bytes_sent = 0;
  uint64_t uptime_seconds = 0;
  std::string device_endpoint;
};

// Every method answers UNAUTHENTICATED without the token. Thread-safe.
class AdminService final : public v1::AdminService::CallbackService {
 public:
  // `api` and `log` must outlive the service, and the service every call.
  // `transport` must be thread-safe.
  AdminService(AdminApi& api, std::function<TransportInfo()> transport,
               EventSink& log, AdminServiceOptions options);
  ~AdminService() override;

  using Context = grpc::CallbackServerContext;
  using Unary = grpc::ServerUnaryReactor;

  Unary* GetServerInfo(Context* context, const v1::GetServerInfoRequest*,
                       v1::ServerInfo* response) override;

  Unary* CreatePopulation(Context* context,
                          const v1::CreatePopulationRequest* request,
                          v1::Population* response) override;
  Unary* GetPopulation(Context* context,
                       const v1::GetPopulationRequest* request,
                       v1::Population* response) override;
  Unary* ListPopulations(Context* context,
                         const v1::ListPopulationsRequest* request,
                         v1::ListPopulationsResponse* response) override;

  grpc::ServerReadReactor<v1::UploadArtifactRequest>* UploadArtifact(
      Context* context, v1::UploadArtifactResponse* response) override;
  grpc::ServerWriteReactor<v1::ArtifactChunk>* DownloadArtifact(
      Context* context, const v1::DownloadArtifactRequest* request) override;

  Unary* CreateTask(Context* context, const v1::CreateTaskRequest* request,
                    v1::Task* response) override;
  Unary* GetTask(Context* context, const v1::GetTaskRequest* request,
                 v1::Task* response) override;
  Unary* ListTasks(Context* context, const v1::ListTasksRequest* request,
                   v1::ListTasksResponse* response) override;
  Unary* StopTask(Context* context, const v1::StopTaskRequest* request,
                  v1::Task* response) override;
  // Snapshots are coalesced: a slow reader gets the newest one, not all.
  grpc::ServerWriteReactor<v1::TaskSnapshot>* WatchTask(
      Context* context, const v1::WatchTaskRequest* request) override;

  Unary* GetRound(Context* context, const v1::GetRoundRequest* request,
                  v1::Round* response) override;
  Unary* ListRounds(Context* context, const v1::ListRoundsRequest* request,
                    v1::ListRoundsResponse* response) override;

  Unary* GetModelVersion(Context* context,
                         const v1::GetModelVersionRequest* request,
                         v1::ModelVersion* response) override;
  Unary* ListModelVersions(Context* context,
                           const v1::ListModelVersionsRequest* request,
                           v1::ListModelVersionsResponse* response) override;
  Unary* AddEvaluation(Context* context, const v1::Evaluation* request,
                       v1::Evaluation* response) override;

  Unary* CreateEnrolmentToken(
      Context* context, const v1::CreateEnrolmentTokenRequest* request,
      v1::CreateEnrolmentTokenResponse* response) override;
  Unary* ListEnrolmentTokens(
      Context* context, const v1::ListEnrolmentTokensRequest* request,
      v1::ListEnrolmentTokensResponse* response) override;
  Unary* RevokeEnrolmentToken(Context* context,
                              const v1::RevokeEnrolmentTokenRequest* request,
                              v1::EnrolmentToken* response) override;

  Unary* CreateBackup(Context* context, const v1::CreateBackupRequest* request,
                      v1::Backup* response) override;

 private:
  // UNAUTHENTICATED unless the call carries the token; in constant time.
  Status Authorize(const Context& context);
  // Authorises, runs `body`, finishes with its status.
  Unary* Run(Context* context, const std::function<Status()>& body);

  AdminApi& api_;
  const std::function<TransportInfo()> transport_;
  EventSink& log_;
  const AdminServiceOptions options_;
  Mutex mu_;
  bool backing_up_ SELVAGE_GUARDED_BY(mu_) = false;
  std::thread backup_ SELVAGE_GUARDED_BY(mu_);
};

}  // namespace selvage::coordinator

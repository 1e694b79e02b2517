// An AdminService in this process, over real TLS on a free port: answers from
// maps, remembers what it was asked, and fails on demand.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "base/random.h"
#include "crypto/x509.h"
#include "selvage/v1/admin.grpc.pb.h"

namespace selvage::test {

inline constexpr const char* kFakeToken = "s3cret-token";

class FakeAdmin final : public v1::AdminService::Service {
 public:
  // Starts listening and writes endpoints.json, ca.pem and admin.token into
  // `directory` as a coordinator does.
  explicit FakeAdmin(const std::filesystem::path& directory);
  ~FakeAdmin() override;

  const std::string& address() const { return address_; }

  // Set up before the call under test.
  std::map<std::string, v1::Task> tasks;
  std::map<std::string, std::vector<v1::Round>> rounds;
  std::map<std::string, std::vector<v1::ModelVersion>> versions;
  std::map<std::string, std::string> artefacts;  // by raw digest
  std::vector<v1::TaskSnapshot> snapshots;       // what WatchTask sends
  // WatchTask breaks off with this after `snapshots`, once.
  grpc::Status watch_error_once;
  bool watch_forever = false;  // after `snapshots`, until the caller cancels
  std::optional<uint64_t> best_version;
  size_t page_size = 2;
  size_t download_break_at = 0;  // breaks the first download there
  v1::ServerInfo info;

  // Seen.
  std::vector<v1::CreateTaskRequest> created;
  std::vector<v1::StopTaskRequest> stopped;
  std::vector<v1::CreateEnrolmentTokenRequest> tokens_created;
  std::vector<std::string> request_ids;
  std::vector<std::string> revoked;
  std::vector<v1::Evaluation> evaluations;
  int chunks_received = 0;
  int watches = 0;

  std::string AddArtefact(const std::string& bytes);  // returns its digest

 private:
  using Context = grpc::ServerContext;
  grpc::Status Authorise(const Context& context) const;

  grpc::Status GetServerInfo(Context*, const v1::GetServerInfoRequest*,
                             v1::ServerInfo*) override;
  grpc::Status CreatePopulation(Context*, const v1::CreatePopulationRequest*,
                                v1::Population*) override;
  grpc::Status GetPopulation(Context*, const v1::GetPopulationRequest*,
                             v1::Population*) override;
  grpc::Status ListPopulations(Context*, const v1::ListPopulationsRequest*,
                               v1::ListPopulationsResponse*) override;
  grpc::Status UploadArtifact(Context*,
                              grpc::ServerReader<v1::UploadArtifactRequest>*,
                              v1::UploadArtifactResponse*) override;
  grpc::Status DownloadArtifact(
      Context*, const v1::DownloadArtifactRequest*,
      grpc::ServerWriter<v1::ArtifactChunk>*) override;
  grpc::Status CreateTask(Context*, const v1::CreateTaskRequest*,
                          v1::Task*) override;
  grpc::Status GetTask(Context*, const v1::GetTaskRequest*, v1::Task*) override;
  grpc::Status ListTasks(Context*, const v1::ListTasksRequest*,
                         v1::ListTasksResponse*) override;
  grpc::Status StopTask(Context*, const v1::StopTaskRequest*,
                        v1::Task*) override;
  grpc::Status WatchTask(Context*, const v1::WatchTaskRequest*,
                         grpc::ServerWriter<v1::TaskSnapshot>*) override;
  grpc::Status GetRound(Context*, const v1::GetRoundRequest*,
                        v1::Round*) override;
  grpc::Status ListRounds(Context*, const v1::ListRoundsRequest*,
                          v1::ListRoundsResponse*) override;
  grpc::Status GetModelVersion(Context*, const v1::GetModelVersionRequest*,
                               v1::ModelVersion*) override;
  grpc::Status ListModelVersions(Context*, const v1::ListModelVersionsRequest*,
                                 v1::ListModelVersionsResponse*) override;
  grpc::Status AddEvaluation(Context*, const v1::Evaluation*,
                             v1::Evaluation*) override;
  grpc::Status CreateEnrolmentToken(Context*,
                                    const v1::CreateEnrolmentTokenRequest*,
                                    v1::CreateEnrolmentTokenResponse*) override;
  grpc::Status ListEnrolmentTokens(Context*,
                                   const v1::ListEnrolmentTokensRequest*,
                                   v1::ListEnrolmentTokensResponse*) override;
  grpc::Status RevokeEnrolmentToken(Context*,
                                    const v1::RevokeEnrolmentTokenRequest*,
                                    v1::EnrolmentToken*) override;

  std::mutex mu_;  // calls come one at a time, but on gRPC's threads
  std::string address_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace selvage::test

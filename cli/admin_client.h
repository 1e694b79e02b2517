// The admin service as calls that return Results: deadlines, the bearer token,
// paging and cancellation in one place.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/file_system.h"
#include "base/status.h"
#include "cli/connection.h"
#include "cli/interrupt.h"
#include "crypto/digest.h"
#include "selvage/v1/admin.pb.h"

namespace selvage::cli {

// Thread-compatible. Calls return what the server answered; CANCELLED after
// an interrupt; UNAVAILABLE names the address if nobody answers there.
class AdminClient {
 public:
  // Opens no connection yet. `interrupt` must outlive the client.
  AdminClient(Connection connection, Interrupt& interrupt);
  ~AdminClient();
  AdminClient(const AdminClient&) = delete;
  AdminClient& operator=(const AdminClient&) = delete;

  const Connection& connection() const { return connection_; }

  Result<v1::ServerInfo> GetServerInfo();

  Result<v1::Population> CreatePopulation(const std::string& name,
                                          const std::string& request_id);
  Result<v1::Population> GetPopulation(const std::string& name);
  Result<std::vector<v1::Population>> ListPopulations();

  Result<v1::Task> CreateTask(const v1::CreateTaskRequest& request);
  Result<v1::Task> GetTask(const std::string& name);
  Result<std::vector<v1::Task>> ListTasks(const std::string& population);
  Result<v1::Task> StopTask(const v1::StopTaskRequest& request);

  // Calls `on_snapshot` with the state now and after every change until the
  // task ended (then OK) or `on_snapshot` returns false (CANCELLED). A lost
  // connection is tried again for up to `patience` from the last message.
  // DEADLINE_EXCEEDED when `timeout` is over.
  struct WatchOptions {
    std::optional<Duration> timeout;
    Duration patience = std::chrono::seconds(60);
  };
  Status WatchTask(
      const std::string& name, const WatchOptions& options,
      const std::function<bool(const v1::TaskSnapshot&)>& on_snapshot);

  Result<v1::Round> GetRound(const std::string& task, uint64_t number);
  Result<std::vector<v1::Round>> ListRounds(const std::string& task);

  // nullopt: the latest.
  Result<v1::ModelVersion> GetModelVersion(const std::string& task,
                                           std::optional<uint64_t> version);
  // The one with the best key metric.
  Result<v1::ModelVersion> GetBestModelVersion(const std::string& task);
  Result<std::vector<v1::ModelVersion>> ListModelVersions(
      const std::string& task);
  Result<v1::Evaluation> AddEvaluation(const v1::Evaluation& evaluation);

  Result<v1::CreateEnrolmentTokenResponse> CreateToken(
      const v1::CreateEnrolmentTokenRequest& request);
  // population empty: those of all.
  Result<std::vector<v1::EnrolmentToken>> ListTokens(
      const std::string& population);
  Result<v1::EnrolmentToken> RevokeToken(const std::string& id);

  // Waits for as long as it takes, or an interrupt.
  Result<v1::Backup> CreateBackup(const std::string& name);

  // Sends nothing but the digest if the coordinator has it already. Returns
  // whether it had.
  Result<bool> UploadArtifact(ByteSpan contents);
  Result<bool> UploadArtifact(FileSystem& files, const Path& path);
  // Writes to `path` durably; DATA_LOSS if the bytes are not `digest`'s. A lost
  // connection resumes where it was.
  Status DownloadArtifact(const crypto::Digest& digest, FileSystem& files,
                          const Path& path);

 private:
  struct Rpc;
  template <typename Request, typename Response, typename Method>
  Result<Response> Call(Method method, const Request& request,
                        Duration deadline = std::chrono::seconds(30));
  template <typename Item, typename Request, typename Fetch, typename Items>
  Result<std::vector<Item>> All(Request request, Fetch fetch, Items items);
  Status Receive(const crypto::Digest& digest, crypto::Sha256Hasher& hasher,
                 WritableFile& file, uint64_t& offset);
  using ReadChunk = std::function<Result<Bytes>(uint64_t offset)>;
  Result<bool> Send(const crypto::Digest& digest, uint64_t size,
                    const ReadChunk& read);

  const Connection connection_;
  Interrupt& interrupt_;
  std::unique_ptr<Rpc> rpc_;
};

}  // namespace selvage::cli

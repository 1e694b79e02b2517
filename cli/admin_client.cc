#include "cli/admin_client.h"

#include <algorithm>
#include <utility>

#include <grpcpp/grpcpp.h>

#include "selvage/v1/admin.grpc.pb.h"

namespace selvage::cli {
namespace {

constexpr std::chrono::hours kBackupDeadline{24};
// Between two messages of an upload or download, and for the answer.
constexpr std::chrono::minutes kTransferDeadline{30};
constexpr size_t kChunkSize = 256 << 10;
constexpr Duration kReconnectPause = std::chrono::milliseconds(500);
constexpr int kDownloadAttempts = 5;

using Stub = v1::AdminService::Stub;

}  // namespace

struct AdminClient::Rpc {
  std::unique_ptr<Stub> stub;

  // Adds the token; the context is cancelled by an interrupt.
  static void Prepare(grpc::ClientContext& context, const Connection& to,
                      std::chrono::system_clock::duration deadline) {
    context.AddMetadata("authorization", "Bearer " + to.token);
    context.set_deadline(std::chrono::system_clock::now() + deadline);
  }

  static Status Convert(const grpc::Status& status, const Connection& to,
                        const Interrupt& interrupt) {
    if (status.ok()) return OkStatus();
    if (interrupt.triggered()) return Cancelled("interrupted");
    const auto code = static_cast<StatusCode>(status.error_code());
    const std::string& message = status.error_message();
    switch (code) {
      case StatusCode::kUnavailable:
        return Unavailable("cannot reach the coordinator at " + to.Address() +
                           (message.empty() ? "" : ": " + message));
      case StatusCode::kDeadlineExceeded:
        return Unavailable("the coordinator at " + to.Address() +
                           " did not answer in time");
      case StatusCode::kUnauthenticated:
        return Status(code, "the coordinator at " + to.Address() +
                                " refused the token from " + to.token_source +
                                (message.empty() ? "" : ": " + message));
      default:
        return Status(code, message.empty() ? std::string(StatusCodeName(code))
                                            : message);
    }
  }
};

AdminClient::AdminClient(Connection connection, Interrupt& interrupt)
    : connection_(std::move(connection)),
      interrupt_(interrupt),
      rpc_(std::make_unique<Rpc>()) {
  grpc::SslCredentialsOptions tls;
  tls.pem_root_certs = connection_.ca_pem;
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(16 << 20);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  // A proxy in the environment is for the web, not for a coordinator.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  rpc_->stub = v1::AdminService::NewStub(grpc::CreateCustomChannel(
      connection_.Address(),
      connection_.insecure ? grpc::InsecureChannelCredentials()
                           : grpc::SslCredentials(tls),
      arguments));
}

AdminClient::~AdminClient() = default;

template <typename Request, typename Response, typename Method>
Result<Response> AdminClient::Call(Method method, const Request& request,
                                   Duration deadline) {
  grpc::ClientContext context;
  Rpc::Prepare(context, connection_, deadline);
  Interrupt::Registration cancel(interrupt_, [&] { context.TryCancel(); });
  Response response;
  const grpc::Status status =
      ((*rpc_->stub).*method)(&context, request, &response);
  SELVAGE_RETURN_IF_ERROR(Rpc::Convert(status, connection_, interrupt_));
  return response;
}

template <typename Item, typename Request, typename Fetch, typename Items>
Result<std::vector<Item>> AdminClient::All(Request request, Fetch fetch,
                                           Items items) {
  std::vector<Item> out;
  request.set_page_size(1000);
  while (true) {
    auto page = fetch(request);
    if (!page.ok()) return page.status();
    for (const Item& item : items(*page)) out.push_back(item);
    if (page->next_page_token().empty()) return out;
    if (page->next_page_token() == request.page_token()) {
      return DataLoss("the coordinator repeats a page");
    }
    request.set_page_token(page->next_page_token());
  }
}

Result<v1::ServerInfo> AdminClient::GetServerInfo() {
  return Call<v1::GetServerInfoRequest, v1::ServerInfo>(&Stub::GetServerInfo,
                                                        {});
}

Result<v1::Backup> AdminClient::CreateBackup(const std::string& name) {
  v1::CreateBackupRequest request;
  request.set_name(name);
  return Call<v1::CreateBackupRequest, v1::Backup>(&Stub::CreateBackup, request,
                                                   kBackupDeadline);
}

Result<v1::Population> AdminClient::CreatePopulation(
    const std::string& name, const std::string& request_id) {
  v1::CreatePopulationRequest request;
  request.set_name(name);
  request.set_request_id(request_id);
  return Call<v1::CreatePopulationRequest, v1::Population>(
      &Stub::CreatePopulation, request);
}

Result<v1::Population> AdminClient::GetPopulation(const std::string& name) {
  v1::GetPopulationRequest request;
  request.set_name(name);
  return Call<v1::GetPopulationRequest, v1::Population>(&Stub::GetPopulation,
                                                        request);
}

Result<std::vector<v1::Population>> AdminClient::ListPopulations() {
  return All<v1::Population>(
      v1::ListPopulationsRequest(),
      [&](const v1::ListPopulationsRequest& request) {
        return Call<v1::ListPopulationsRequest, v1::ListPopulationsResponse>(
            &Stub::ListPopulations, request);
      },
      [](const auto& page) { return page.populations(); });
}

Result<v1::Task> AdminClient::CreateTask(const v1::CreateTaskRequest& request) {
  return Call<v1::CreateTaskRequest, v1::Task>(&Stub::CreateTask, request);
}

Result<v1::Task> AdminClient::GetTask(const std::string& name) {
  v1::GetTaskRequest request;
  request.set_name(name);
  return Call<v1::GetTaskRequest, v1::Task>(&Stub::GetTask, request);
}

Result<std::vector<v1::Task>> AdminClient::ListTasks(
    const std::string& population) {
  v1::ListTasksRequest first;
  first.set_population(population);
  return All<v1::Task>(
      first,
      [&](const v1::ListTasksRequest& request) {
        return Call<v1::ListTasksRequest, v1::ListTasksResponse>(
            &Stub::ListTasks, request);
      },
      [](const auto& page) { return page.tasks(); });
}

Result<v1::Task> AdminClient::StopTask(const v1::StopTaskRequest& request) {
  return Call<v1::StopTaskRequest, v1::Task>(&Stub::StopTask, request);
}

Status AdminClient::WatchTask(
    const std::string& name, const WatchOptions& options,
    const std::function<bool(const v1::TaskSnapshot&)>& on_snapshot) {
  using SteadyClock = std::chrono::steady_clock;
  const auto start = SteadyClock::now();
  auto last_message = start;
  v1::WatchTaskRequest request;
  request.set_name(name);
  bool any = false;
  while (true) {
    grpc::ClientContext context;
    const auto elapsed = SteadyClock::now() - start;
    Rpc::Prepare(context, connection_,
                 options.timeout ? *options.timeout - elapsed
                                 : std::chrono::hours(24 * 365));
    Interrupt::Registration cancel(interrupt_, [&] { context.TryCancel(); });
    const auto stream = rpc_->stub->WatchTask(&context, request);
    v1::TaskSnapshot snapshot;
    bool ended = false;
    bool wanted = true;
    while (wanted && stream->Read(&snapshot)) {
      any = true;
      last_message = SteadyClock::now();
      ended = snapshot.task().state() != v1::Task::RUNNING;
      wanted = on_snapshot(snapshot);
    }
    if (!wanted) context.TryCancel();
    const grpc::Status status = stream->Finish();
    if (interrupt_.triggered()) return Cancelled("interrupted");
    if (ended) return OkStatus();
    if (!wanted) return Cancelled("the watcher stopped");
    const auto now = SteadyClock::now();
    if (options.timeout && now - start >= *options.timeout) {
      return DeadlineExceeded(
          "task " + name + " did not end within " +
          std::to_string(options.timeout->count() / 1'000'000) + " s");
    }
    const bool may_come_back =
        status.ok() || status.error_code() == grpc::StatusCode::UNAVAILABLE;
    if (!may_come_back || !any || now - last_message > options.patience) {
      if (status.ok()) {
        return Unavailable("the coordinator at " + connection_.Address() +
                           " stopped telling about task " + name);
      }
      return Rpc::Convert(status, connection_, interrupt_);
    }
    if (interrupt_.WaitFor(kReconnectPause)) return Cancelled("interrupted");
  }
}

Result<v1::Round> AdminClient::GetRound(const std::string& task,
                                        uint64_t number) {
  v1::GetRoundRequest request;
  request.set_task(task);
  request.set_number(number);
  return Call<v1::GetRoundRequest, v1::Round>(&Stub::GetRound, request);
}

Result<std::vector<v1::Round>> AdminClient::ListRounds(
    const std::string& task) {
  v1::ListRoundsRequest first;
  first.set_task(task);
  return All<v1::Round>(
      first,
      [&](const v1::ListRoundsRequest& request) {
        return Call<v1::ListRoundsRequest, v1::ListRoundsResponse>(
            &Stub::ListRounds, request);
      },
      [](const auto& page) { return page.rounds(); });
}

Result<v1::ModelVersion> AdminClient::GetModelVersion(
    const std::string& task, std::optional<uint64_t> version) {
  v1::GetModelVersionRequest request;
  request.set_task(task);
  request.set_latest(!version.has_value());
  request.set_version(version.value_or(0));
  return Call<v1::GetModelVersionRequest, v1::ModelVersion>(
      &Stub::GetModelVersion, request);
}

Result<v1::ModelVersion> AdminClient::GetBestModelVersion(
    const std::string& task) {
  v1::GetModelVersionRequest request;
  request.set_task(task);
  request.set_best(true);
  return Call<v1::GetModelVersionRequest, v1::ModelVersion>(
      &Stub::GetModelVersion, request);
}

Result<v1::Evaluation> AdminClient::AddEvaluation(
    const v1::Evaluation& evaluation) {
  return Call<v1::Evaluation, v1::Evaluation>(&Stub::AddEvaluation, evaluation);
}

Result<std::vector<v1::ModelVersion>> AdminClient::ListModelVersions(
    const std::string& task) {
  v1::ListModelVersionsRequest first;
  first.set_task(task);
  return All<v1::ModelVersion>(
      first,
      [&](const v1::ListModelVersionsRequest& request) {
        return Call<v1::ListModelVersionsRequest,
                    v1::ListModelVersionsResponse>(&Stub::ListModelVersions,
                                                   request);
      },
      [](const auto& page) { return page.versions(); });
}

Result<v1::CreateEnrolmentTokenResponse> AdminClient::CreateToken(
    const v1::CreateEnrolmentTokenRequest& request) {
  return Call<v1::CreateEnrolmentTokenRequest,
              v1::CreateEnrolmentTokenResponse>(&Stub::CreateEnrolmentToken,
                                                request);
}

Result<std::vector<v1::EnrolmentToken>> AdminClient::ListTokens(
    const std::string& population) {
  if (population.empty()) {
    // The service lists one population's at a time.
    SELVAGE_ASSIGN_OR_RETURN(const std::vector<v1::Population> populations,
                             ListPopulations());
    std::vector<v1::EnrolmentToken> out;
    for (const v1::Population& each : populations) {
      SELVAGE_ASSIGN_OR_RETURN(const std::vector<v1::EnrolmentToken> tokens,
                               ListTokens(each.name()));
      out.insert(out.end(), tokens.begin(), tokens.end());
    }
    return out;
  }
  v1::ListEnrolmentTokensRequest first;
  first.set_population(population);
  return All<v1::EnrolmentToken>(
      first,
      [&](const v1::ListEnrolmentTokensRequest& request) {
        return Call<v1::ListEnrolmentTokensRequest,
                    v1::ListEnrolmentTokensResponse>(&Stub::ListEnrolmentTokens,
                                                     request);
      },
      [](const auto& page) { return page.tokens(); });
}

Result<v1::EnrolmentToken> AdminClient::RevokeToken(const std::string& id) {
  v1::RevokeEnrolmentTokenRequest request;
  request.set_id(id);
  return Call<v1::RevokeEnrolmentTokenRequest, v1::EnrolmentToken>(
      &Stub::RevokeEnrolmentToken, request);
}

Result<bool> AdminClient::Send(const crypto::Digest& digest, uint64_t size,
                               const ReadChunk& read) {
  grpc::ClientContext context;
  Rpc::Prepare(context, connection_, kTransferDeadline);
  Interrupt::Registration cancel(interrupt_, [&] { context.TryCancel(); });
  v1::UploadArtifactResponse response;
  const auto stream = rpc_->stub->UploadArtifact(&context, &response);
  v1::UploadArtifactRequest message;
  message.mutable_header()->set_digest(ToString(digest.span()));
  message.mutable_header()->set_size(size);
  // A failed write means that the answer is there already: the coordinator has
  // these bytes, or does not want them.
  bool open = stream->Write(message);
  for (uint64_t offset = 0; open && offset < size;) {
    auto chunk = read(offset);
    if (!chunk.ok()) {
      context.TryCancel();
      stream->Finish();
      return chunk.status();
    }
    message.set_chunk(ToString(*chunk));
    open = stream->Write(message);
    offset += chunk->size();
  }
  stream->WritesDone();
  SELVAGE_RETURN_IF_ERROR(
      Rpc::Convert(stream->Finish(), connection_, interrupt_));
  return response.existed();
}

Result<bool> AdminClient::UploadArtifact(ByteSpan contents) {
  return Send(crypto::Sha256(contents), contents.size(),
              [&](uint64_t offset) -> Result<Bytes> {
                const ByteSpan part = contents.subspan(
                    offset, std::min(kChunkSize, contents.size() - offset));
                return Bytes(part.begin(), part.end());
              });
}

Result<bool> AdminClient::UploadArtifact(FileSystem& files, const Path& path) {
  SELVAGE_ASSIGN_OR_RETURN(const std::unique_ptr<ReadableFile> file,
                           files.Open(path));
  const ReadChunk read = [&](uint64_t offset) -> Result<Bytes> {
    Bytes chunk(kChunkSize);
    SELVAGE_ASSIGN_OR_RETURN(const size_t size, file->ReadAt(offset, chunk));
    if (size == 0) return Aborted(path.string() + " became shorter");
    chunk.resize(size);
    return chunk;
  };
  crypto::Sha256Hasher hasher;
  for (uint64_t offset = 0; offset < file->size();) {
    SELVAGE_ASSIGN_OR_RETURN(const Bytes chunk, read(offset));
    hasher.Update(chunk);
    offset += chunk.size();
  }
  return Send(std::move(hasher).Finish(), file->size(), read);
}

Status AdminClient::Receive(const crypto::Digest& digest,
                            crypto::Sha256Hasher& hasher, WritableFile& file,
                            uint64_t& offset) {
  grpc::ClientContext context;
  Rpc::Prepare(context, connection_, kTransferDeadline);
  Interrupt::Registration cancel(interrupt_, [&] { context.TryCancel(); });
  v1::DownloadArtifactRequest request;
  request.set_digest(ToString(digest.span()));
  request.set_offset(offset);
  const auto stream = rpc_->stub->DownloadArtifact(&context, request);
  v1::ArtifactChunk chunk;
  while (stream->Read(&chunk)) {
    const ByteSpan bytes = AsBytes(chunk.data());
    hasher.Update(bytes);
    if (Status written = file.Append(bytes); !written.ok()) {
      context.TryCancel();
      stream->Finish();
      return written;
    }
    offset += bytes.size();
  }
  return Rpc::Convert(stream->Finish(), connection_, interrupt_);
}

Status AdminClient::DownloadArtifact(const crypto::Digest& digest,
                                     FileSystem& files, const Path& path) {
  Path temporary = path;
  temporary += ".tmp";
  SELVAGE_ASSIGN_OR_RETURN(const std::unique_ptr<WritableFile> file,
                           files.Create(temporary, 0644));
  crypto::Sha256Hasher hasher;
  uint64_t offset = 0;
  Status status;
  for (int attempt = 0; attempt < kDownloadAttempts; ++attempt) {
    status = Receive(digest, hasher, *file, offset);
    if (status.code() != StatusCode::kUnavailable) break;
    if (interrupt_.WaitFor(kReconnectPause)) break;
  }
  if (status.ok() && std::move(hasher).Finish() != digest) {
    status = DataLoss("the coordinator sent other bytes than " +
                      digest.ToHex() + "'s");
  }
  if (status.ok()) status = file->Sync();
  if (status.ok()) status = file->Close();
  if (status.ok()) status = files.Rename(temporary, path);
  if (!status.ok()) {
    // The error that matters is the first one.
    static_cast<void>(files.Remove(temporary));
    return status;
  }
  const Path parent = path.parent_path();
  return files.SyncDirectory(parent.empty() ? Path(".") : parent);
}

}  // namespace selvage::cli

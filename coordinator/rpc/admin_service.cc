#include "coordinator/rpc/admin_service.h"

#include <memory>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/version.h"
#include "coordinator/rpc/artefact_stream.h"
#include "coordinator/rpc/convert.h"
#include "coordinator/rpc/status_convert.h"
#include "coordinator/rpc/watchdog.h"
#include "crypto/digest.h"

namespace selvage::coordinator {
namespace {

constexpr char kAuthorizationKey[] = "authorization";
constexpr std::string_view kBearer = "Bearer ";

// An artefact coming up: header, chunks, half-close. Reads come one after
// another, so nothing needs a lock.
class ArtefactUpload final
    : public grpc::ServerReadReactor<v1::UploadArtifactRequest> {
 public:
  ArtefactUpload(grpc::CallbackServerContext* context, AdminApi& api,
                 const Status& authorized, v1::UploadArtifactResponse* response,
                 const AdminServiceOptions& options)
      : api_(api), size_max_(options.artefact_size_max), response_(response) {
    if (!authorized.ok()) {
      Finish(ToGrpc(authorized));
      return;
    }
    watchdog_.emplace(context, options.chunk_timeout,
                      options.chunk_timeouts_max);
    StartRead(&request_);
  }

  void OnReadDone(bool ok) override {
    watchdog_->Progress();
    if (!ok) {
      Finish(ToGrpc(OnStreamEnded()));
      return;
    }
    const Status status = header_.has_value() ? OnChunk() : OnHeader();
    if (!status.ok()) {
      Drop();
      Finish(ToGrpc(status));
    } else if (response_->existed()) {
      Finish(grpc::Status::OK);
    } else {
      StartRead(&request_);
    }
  }

  void OnDone() override { delete this; }

 private:
  Status OnHeader() {
    if (!request_.has_header()) {
      return InvalidArgument("the first message of an upload is its header");
    }
    SELVAGE_ASSIGN_OR_RETURN(header_, FromProto(request_.header()));
    if (header_->size > size_max_) {
      return InvalidArgument("size is " + std::to_string(header_->size) +
                             ", limits.artefact_bytes is " +
                             std::to_string(size_max_));
    }
    SELVAGE_ASSIGN_OR_RETURN(
        id_, api_.BeginArtefact(header_->digest, header_->size));
    response_->set_digest(ToString(header_->digest.span()));
    response_->set_existed(!id_.has_value());
    return OkStatus();
  }

  Status OnChunk() {
    if (request_.has_header()) {
      return InvalidArgument("an upload has one header");
    }
    const std::string& chunk = request_.chunk();
    if (chunk.empty() || chunk.size() > kChunkSizeMax) {
      return InvalidArgument("chunk has " + std::to_string(chunk.size()) +
                             " bytes, allowed are 1.." +
                             std::to_string(kChunkSizeMax));
    }
    if (chunk.size() > header_->size - received_) {
      return OutOfRange("the artefact is longer than the announced " +
                        std::to_string(header_->size) + " bytes");
    }
    SELVAGE_RETURN_IF_ERROR(api_.AppendArtefact(*id_, AsBytes(chunk)));
    received_ += chunk.size();
    return OkStatus();
  }

  Status OnStreamEnded() {
    if (!header_.has_value()) {
      return InvalidArgument("the stream ended before the upload's header");
    }
    if (received_ != header_->size) {
      Drop();
      return InvalidArgument("the stream ended after " +
                             std::to_string(received_) + " of " +
                             std::to_string(header_->size) + " bytes");
    }
    return api_.FinishArtefact(*std::exchange(id_, std::nullopt));
  }

  void Drop() {
    if (id_.has_value()) api_.DropArtefact(*std::exchange(id_, std::nullopt));
  }

  AdminApi& api_;
  const uint64_t size_max_;
  v1::UploadArtifactResponse* const response_;
  std::optional<Watchdog> watchdog_;
  v1::UploadArtifactRequest request_;
  std::optional<ArtefactHeader> header_;
  std::optional<uint64_t> id_;
  uint64_t received_ = 0;
};

// Snapshots come from the coordinator's threads, write completions and the
// cancellation from gRPC's. Next() decides under the lock who acts; gRPC and
// AdminApi are called without it.
class WatchReactor final : public grpc::ServerWriteReactor<v1::TaskSnapshot> {
 public:
  WatchReactor(AdminApi& api, const std::string& task) : api_(api) {
    Result<uint64_t> watch = api_.WatchTask(
        task, [this](const TaskSnapshot& snapshot) { OnChange(snapshot); });
    {
      const MutexLock lock(mu_);
      if (watch.ok()) {
        watch_id_ = *watch;
      } else {
        end_ = watch.status();
      }
      constructed_ = true;
    }
    Next();
  }

  void OnWriteDone(bool ok) override {
    {
      const MutexLock lock(mu_);
      writing_ = false;
      if (!ok && !end_.has_value()) end_ = Cancelled("the connection ended");
    }
    Next();
  }

  void OnCancel() override {
    {
      const MutexLock lock(mu_);
      if (!end_.has_value()) end_ = Cancelled("the call was cancelled");
    }
    Next();
  }

  void OnDone() override {
    std::optional<uint64_t> watch_id;
    {
      const MutexLock lock(mu_);
      watch_id = watch_id_;
    }
    // After this no snapshot comes, and none is under way.
    if (watch_id.has_value()) api_.Unwatch(*watch_id);
    delete this;
  }

 private:
  void OnChange(const TaskSnapshot& snapshot) {
    v1::TaskSnapshot proto = ToProto(snapshot);
    {
      const MutexLock lock(mu_);
      pending_ = std::move(proto);
      last_ = snapshot.task.state != TaskState::kRunning;
    }
    Next();
  }

  // Starts the next write or ends the call, if it is time for either. One write
  // at a time, and nothing after the end.
  void Next() {
    std::optional<Status> end;
    {
      const MutexLock lock(mu_);
      if (!constructed_ || writing_ || finished_) return;
      if (!end_.has_value() && pending_.has_value()) {
        current_ = *std::exchange(pending_, std::nullopt);
        writing_ = true;
      } else if (end_.has_value() || last_) {
        finished_ = true;
        end = end_.value_or(OkStatus());
      } else {
        return;
      }
    }
    if (end.has_value()) {
      Finish(ToGrpc(*end));
    } else {
      StartWrite(&current_);
    }
  }

  AdminApi& api_;
  v1::TaskSnapshot current_;  // being written
  Mutex mu_;
  bool constructed_ SELVAGE_GUARDED_BY(mu_) = false;
  bool writing_ SELVAGE_GUARDED_BY(mu_) = false;
  bool finished_ SELVAGE_GUARDED_BY(mu_) = false;
  bool last_ SELVAGE_GUARDED_BY(mu_) = false;
  std::optional<uint64_t> watch_id_ SELVAGE_GUARDED_BY(mu_);
  std::optional<v1::TaskSnapshot> pending_ SELVAGE_GUARDED_BY(mu_);
  // Why the call ends early.
  std::optional<Status> end_ SELVAGE_GUARDED_BY(mu_);
};

// Fills a list response: its items by ToProto, and the next page's token.
template <typename Item, typename Proto>
void FillPage(const Page<Item>& page,
              google::protobuf::RepeatedPtrField<Proto>* items,
              std::string* next_page_token) {
  for (const Item& item : page.items) *items->Add() = ToProto(item);
  *next_page_token = page.next_page_token;
}

}  // namespace

AdminService::AdminService(AdminApi& api,
                           std::function<TransportInfo()> transport,
                           EventSink& log, AdminServiceOptions options)
    : api_(api),
      transport_(std::move(transport)),
      log_(log),
      options_(std::move(options)) {
  SELVAGE_CHECK(!options_.bearer_token.empty());
}

Status AdminService::Authorize(const Context& context) {
  const auto& metadata = context.client_metadata();
  const auto [first, last] = metadata.equal_range(kAuthorizationKey);
  if (first != last && std::next(first) == last) {
    const std::string_view value(first->second.data(), first->second.size());
    if (value.starts_with(kBearer) &&
        crypto::EqualConstantTime(AsBytes(value.substr(kBearer.size())),
                                  AsBytes(options_.bearer_token))) {
      return OkStatus();
    }
  }
  log_.Write(LogLevel::kWarning, "admin_refused",
             {{"reason", first == last ? "no token" : "wrong token"}});
  if (options_.telemetry != nullptr) {
    options_.telemetry->AuthFailed(AuthFailure::kAdminToken);
  }
  return Unauthenticated(
      "this needs the coordinator's admin token (the file admin.token in its "
      "data directory)");
}

AdminService::Unary* AdminService::Run(Context* context,
                                       const std::function<Status()>& body) {
  Unary* const reactor = context->DefaultReactor();
  Status status = Authorize(*context);
  if (status.ok()) status = body();
  reactor->Finish(ToGrpc(status));
  return reactor;
}

AdminService::~AdminService() {
  const MutexLock lock(mu_);
  if (backup_.joinable()) backup_.join();
}

AdminService::Unary* AdminService::CreateBackup(
    Context* context, const v1::CreateBackupRequest* request,
    v1::Backup* response) {
  Unary* const reactor = context->DefaultReactor();
  const auto start = [&]() -> Status {
    SELVAGE_RETURN_IF_ERROR(Authorize(*context));
    if (options_.backup == nullptr) {
      return FailedPrecondition(
          "backup_dir is not set, or the rows are in PostgreSQL: see "
          "docs/operations.md, \"Backup and restore\"");
    }
    const MutexLock lock(mu_);
    if (backing_up_) return FailedPrecondition("a backup is being made");
    if (backup_.joinable()) backup_.join();  // it has answered
    backing_up_ = true;
    backup_ = std::thread([this, context, reactor, request, response] {
      const Result<BackupInfo> made = options_.backup(
          request->name(), [context] { return context->IsCancelled(); });
      if (made.ok()) {
        response->set_name(request->name());
        response->set_path(made->path);
        response->set_artefacts(made->artefacts);
        response->set_size_bytes(made->size);
        response->set_created_micros(ToMicros(made->created));
        response->set_instance_id(made->instance_id);
      }
      log_.Write(made.ok() ? LogLevel::kInfo : LogLevel::kWarning,
                 made.ok() ? "backup_made" : "backup_failed",
                 {{"name", request->name()},
                  {"bytes", made.ok() ? made->size : 0},
                  {"reason", made.ok() ? "" : made.status().ToString()}});
      {
        const MutexLock done(mu_);
        backing_up_ = false;
      }
      reactor->Finish(ToGrpc(made.status()));
    });
    return OkStatus();
  };
  const Status started = start();
  if (!started.ok()) reactor->Finish(ToGrpc(started));
  return reactor;
}

AdminService::Unary* AdminService::GetServerInfo(
    Context* context, const v1::GetServerInfoRequest*,
    v1::ServerInfo* response) {
  return Run(context, [&]() -> Status {
    SELVAGE_ASSIGN_OR_RETURN(const ServiceInfo info, api_.Info());
    const TransportInfo transport = transport_();
    response->set_version(std::string(Version()));
    response->set_commit(std::string(Commit()));
    response->set_schema_version(info.schema_version);
    response->set_now_micros(ToMicros(info.now));
    response->set_free_bytes(info.free_bytes);
    response->set_certificates_issued(info.certificates_issued);
    response->set_tls_connections(transport.tls_connections);
    response->set_socket_bytes_received(transport.socket_bytes_received);
    response->set_socket_bytes_sent(transport.socket_bytes_sent);
    response->set_uptime_seconds(transport.uptime_seconds);
    response->set_device_endpoint(transport.device_endpoint);
    response->set_instance_id(info.instance_id);
    return OkStatus();
  });
}

AdminService::Unary* AdminService::CreatePopulation(
    Context* context, const v1::CreatePopulationRequest* request,
    v1::Population* response) {
  return Run(context, [&]() -> Status {
    SELVAGE_RETURN_IF_ERROR(CheckWireName("name", request->name()));
    SELVAGE_RETURN_IF_ERROR(CheckRequestId(request->request_id()));
    SELVAGE_ASSIGN_OR_RETURN(
        const PopulationInfo population,
        api_.CreatePopulation(request->name(), request->request_id()));
    *response = ToProto(population);
    return OkStatus();
  });
}

AdminService::Unary* AdminService::GetPopulation(
    Context* context, const v1::GetPopulationRequest* request,
    v1::Population* response) {
  return Run(context, [&]() -> Status {
    SELVAGE_RETURN_IF_ERROR(CheckWireName("name", request->name()));
    SELVAGE_ASSIGN_OR_RETURN(const PopulationInfo population,
                             api_.GetPopulation(request->name()));
    *response = ToProto(population);
    return OkStatus();
  });
}

AdminService::Unary* AdminService::ListPopulations(
    Context* context, const v1::ListPopulationsRequest* request,
    v1::ListPopulationsResponse* response) {
  return Run(context, [&]() -> Status {
    SELVAGE_ASSIGN_OR_RETURN(
        const PageRequest page,
        PageFrom(request->page_size(), request->page_token()));
    SELVAGE_ASSIGN_OR_RETURN(const Page<PopulationInfo> populations,
                             api_.ListPopulations(page));
    FillPage(populations, response->mutable_populations(),
             response->mutable_next_page_token());
    return OkStatus();
  });
}

grpc::ServerReadReactor<v1::UploadArtifactRequest>*
AdminService::UploadArtifact(Context* context,
                             v1::UploadArtifactResponse* response) {
  return new ArtefactUpload(context, api_, Authorize(*context), response,
                            options_);
}

grpc::ServerWriteReactor<v1::ArtifactChunk>* AdminService::DownloadArtifact(
    Context* context, const v1::DownloadArtifactRequest* request) {
  using Failed = FailedStream<v1::ArtifactChunk>;
  const Status authorized = Authorize(*context);
  if (!authorized.ok()) return new Failed(ToGrpc(authorized));
  const Result<FetchRequest> parsed = FromProto(*request);
  if (!parsed.ok()) return new Failed(ToGrpc(parsed.status()));
  Result<std::unique_ptr<ArtefactReader>> reader =
      api_.OpenArtefactAsAdmin(parsed->digest);
  if (!reader.ok()) return new Failed(ToGrpc(reader.status()));
  return new ArtefactStream<v1::ArtifactChunk>(
      context, *std::move(reader), parsed->offset, options_.download_chunk_size,
      options_.chunk_timeout, options_.chunk_timeouts_max);
}

AdminService::Unary* AdminService::CreateTask(
    Context* context, const v1::CreateTaskRequest* request,
    v1::Task* response) {
  return Run(context, [&]() -> Status {
    SELVAGE_ASSIGN_OR_RETURN(const CreateTaskRequest parsed,
                             FromProto(*request));
    SELVAGE_ASSIGN_OR_RETURN(const TaskInfo task, api_.CreateTask(parsed));
    *response = ToProto(task);
    return OkStatus();
  });
}

AdminService::Unary* AdminService::GetTask(Context* context,
                                           const v1::GetTaskRequest* request,
                                           v1::Task* response) {
  return Run(context, [&]() -> Status {
    SELVAGE_RETURN_IF_ERROR(CheckWireName("name", request->name()));
    SELVAGE_ASSIGN_OR_RETURN(const TaskInfo task,
                             api_.GetTask(request->name()));
    *response = ToProto(task);
    return OkStatus();
  });
}

AdminService::Unary* AdminService::ListTasks(
    Context* context, const v1::ListTasksRequest* request,
    v1::ListTasksResponse* response) {
  return Run(context, [&]() -> Status {
    if (!request->population().empty()) {
      SELVAGE_RETURN_IF_ERROR(
          CheckWireName("population", request->population()));
    }
    SELVAGE_ASSIGN_OR_RETURN(
        const PageRequest page,
        PageFrom(request->page_size(), request->page_token()));
    SELVAGE_ASSIGN_OR_RETURN(const Page<TaskInfo> tasks,
                             api_.ListTasks(request->population(), page));
    FillPage(tasks, response->mutable_tasks(),
             response->mutable_next_page_token());
    return OkStatus();
  });
}

AdminService::Unary* AdminService::StopTask(Context* context,
                                            const v1::StopTaskRequest* request,
                                            v1::Task* response) {
  return Run(context, [&]() -> Status {
    SELVAGE_RETURN_IF_ERROR(CheckWireName("name", request->name()));
    SELVAGE_RETURN_IF_ERROR(CheckRequestId(request->request_id()));
    if (request->etag().size() > kEtagSizeMax) {
      return InvalidArgument(
          "etag has " + std::to_string(request->etag().size()) +
          " bytes, allowed are at most " + std::to_string(kEtagSizeMax));
    }
    SELVAGE_ASSIGN_OR_RETURN(
        const TaskInfo task,
        api_.StopTask(request->name(), request->request_id(), request->etag()));
    *response = ToProto(task);
    return OkStatus();
  });
}

grpc::ServerWriteReactor<v1::TaskSnapshot>* AdminService::WatchTask(
    Context* context, const v1::WatchTaskRequest* request) {
  using Failed = FailedStream<v1::TaskSnapshot>;
  const Status authorized = Authorize(*context);
  if (!authorized.ok()) return new Failed(ToGrpc(authorized));
  const Status named = CheckWireName("name", request->name());
  if (!named.ok()) return new Failed(ToGrpc(named));
  return new WatchReactor(api_, request->name());
}

AdminService::Unary* AdminService::GetRound(Context* context,
                                            const v1::GetRoundRequest* request,
                                            v1::Round* response) {
  return Run(context, [&]() -> Status {
    SELVAGE_RETURN_IF_ERROR(CheckWireName("task", request->task()));
    SELVAGE_ASSIGN_OR_RETURN(const RoundInfo round,
                             api_.GetRound(request->task(), request->number()));
    *response = ToProto(round);
    return OkStatus();
  });
}

AdminService::Unary* AdminService::ListRounds(
    Context* context, const v1::ListRoundsRequest* request,
    v1::ListRoundsResponse* response) {
  return Run(context, [&]() -> Status {
    SELVAGE_RETURN_IF_ERROR(CheckWireName("task", request->task()));
    SELVAGE_ASSIGN_OR_RETURN(
        const PageRequest page,
        PageFrom(request->page_size(), request->page_token()));
    SELVAGE_ASSIGN_OR_RETURN(const Page<RoundInfo> rounds,
                             api_.ListRounds(request->task(), page));
    FillPage(rounds, response->mutable_rounds(),
             response->mutable_next_page_token());
    return OkStatus();
  });
}

AdminService::Unary* AdminService::GetModelVersion(
    Context* context, const v1::GetModelVersionRequest* request,
    v1::ModelVersion* response) {
  return Run(context, [&]() -> Status {
    SELVAGE_RETURN_IF_ERROR(CheckWireName("task", request->task()));
    SELVAGE_ASSIGN_OR_RETURN(
        const ModelVersionInfo version,
        request->best()
            ? api_.GetBestModelVersion(request->task())
            : api_.GetModelVersion(request->task(),
                                   request->latest()
                                       ? std::nullopt
                                       : std::optional(request->version())));
    *response = ToProto(version);
    return OkStatus();
  });
}

AdminService::Unary* AdminService::ListModelVersions(
    Context* context, const v1::ListModelVersionsRequest* request,
    v1::ListModelVersionsResponse* response) {
  return Run(context, [&]() -> Status {
    SELVAGE_RETURN_IF_ERROR(CheckWireName("task", request->task()));
    SELVAGE_ASSIGN_OR_RETURN(
        const PageRequest page,
        PageFrom(request->page_size(), request->page_token()));
    SELVAGE_ASSIGN_OR_RETURN(const Page<ModelVersionInfo> versions,
                             api_.ListModelVersions(request->task(), page));
    FillPage(versions, response->mutable_versions(),
             response->mutable_next_page_token());
    return OkStatus();
  });
}

AdminService::Unary* AdminService::AddEvaluation(Context* context,
                                                 const v1::Evaluation* request,
                                                 v1::Evaluation* response) {
  return Run(context, [&]() -> Status {
    SELVAGE_ASSIGN_OR_RETURN(const EvaluationInfo parsed, FromProto(*request));
    SELVAGE_ASSIGN_OR_RETURN(const EvaluationInfo stored,
                             api_.AddEvaluation(parsed));
    *response = ToProto(stored);
    return OkStatus();
  });
}

AdminService::Unary* AdminService::CreateEnrolmentToken(
    Context* context, const v1::CreateEnrolmentTokenRequest* request,
    v1::CreateEnrolmentTokenResponse* response) {
  return Run(context, [&]() -> Status {
    SELVAGE_ASSIGN_OR_RETURN(const CreateTokenRequest parsed,
                             FromProto(*request));
    SELVAGE_ASSIGN_OR_RETURN(
        const NewToken token,
        api_.CreateToken(parsed.population, parsed.ttl, parsed.uses_max,
                         parsed.request_id));
    *response = ToProto(token);
    return OkStatus();
  });
}

AdminService::Unary* AdminService::ListEnrolmentTokens(
    Context* context, const v1::ListEnrolmentTokensRequest* request,
    v1::ListEnrolmentTokensResponse* response) {
  return Run(context, [&]() -> Status {
    SELVAGE_RETURN_IF_ERROR(CheckWireName("population", request->population()));
    SELVAGE_ASSIGN_OR_RETURN(
        const PageRequest page,
        PageFrom(request->page_size(), request->page_token()));
    SELVAGE_ASSIGN_OR_RETURN(const Page<TokenInfo> tokens,
                             api_.ListTokens(request->population(), page));
    FillPage(tokens, response->mutable_tokens(),
             response->mutable_next_page_token());
    return OkStatus();
  });
}

AdminService::Unary* AdminService::RevokeEnrolmentToken(
    Context* context, const v1::RevokeEnrolmentTokenRequest* request,
    v1::EnrolmentToken* response) {
  return Run(context, [&]() -> Status {
    SELVAGE_RETURN_IF_ERROR(CheckWireName("id", request->id()));
    SELVAGE_ASSIGN_OR_RETURN(const TokenInfo token,
                             api_.RevokeToken(request->id()));
    *response = ToProto(token);
    return OkStatus();
  });
}

}  // namespace selvage::coordinator

#include "tests/integration/cli/fake_admin.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <thread>

#include "base/check.h"
#include "crypto/digest.h"
#include "crypto/tls_policy.h"

namespace selvage::test {
namespace {

using grpc::Status;

void Write(const std::filesystem::path& path, std::string_view text) {
  std::ofstream(path, std::ios::binary) << text;
}

Status Missing(const std::string& what) {
  return {grpc::StatusCode::NOT_FOUND, what + " does not exist"};
}

// One page of `items` from the index in `token`.
template <typename Request, typename Items, typename Add, typename SetNext>
void Page(const Request& request, const Items& items, size_t size, Add add,
          SetNext set_next) {
  const size_t begin =
      request.page_token().empty() ? 0 : std::stoul(request.page_token());
  const size_t end = std::min(begin + size, items.size());
  for (size_t i = begin; i < end; ++i) add(items[i]);
  if (end < items.size()) set_next(std::to_string(end));
}

}  // namespace

FakeAdmin::FakeAdmin(const std::filesystem::path& directory) {
  SELVAGE_CHECK(crypto::RequireTls13().ok());
  SystemClock clock;
  SeededRandom random(1);
  const auto now = clock.Now();
  const auto ca = crypto::CertificateAuthority::Create(
      "fake", now, std::chrono::hours(24 * 365), random);
  const auto key = crypto::NewP256Key();
  SELVAGE_CHECK(ca.ok() && key.ok());
  const auto certificate =
      ca->IssueServer(*key, {"127.0.0.1", "localhost"}, now,
                      std::chrono::hours(24 * 90), random);
  SELVAGE_CHECK(certificate.ok());

  grpc::SslServerCredentialsOptions tls(
      GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE);
  tls.pem_key_cert_pairs.push_back(
      {std::string(key->ExposeSecret()), *certificate});
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::SslServerCredentials(tls),
                           &port);
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
  SELVAGE_CHECK(server_ != nullptr);
  address_ = "127.0.0.1:" + std::to_string(port);

  std::filesystem::create_directories(directory);
  Write(directory / "endpoints.json", R"({"admin":")" + address_ + R"("})");
  Write(directory / "ca.pem", ca->certificate_pem());
  Write(directory / "admin.token", std::string(kFakeToken) + "\n");
  info.set_version("0.1.0");
  info.set_schema_version(1);
  info.set_free_bytes(uint64_t{10} << 30);
}

FakeAdmin::~FakeAdmin() {
  server_->Shutdown(std::chrono::system_clock::now());
  server_->Wait();
}

std::string FakeAdmin::AddArtefact(const std::string& bytes) {
  const crypto::Digest digest = crypto::Sha256(AsBytes(bytes));
  const std::string raw = ToString(digest.span());
  artefacts[raw] = bytes;
  return raw;
}

Status FakeAdmin::Authorise(const Context& context) const {
  const auto& metadata = context.client_metadata();
  const auto found = metadata.find("authorization");
  const std::string expected = std::string("Bearer ") + kFakeToken;
  if (found == metadata.end() ||
      std::string(found->second.data(), found->second.size()) != expected) {
    return {grpc::StatusCode::UNAUTHENTICATED, "wrong token"};
  }
  return Status::OK;
}

// Every method begins the same way.
#define FAKE_ADMIN_ENTER(context)                              \
  const std::lock_guard lock(mu_);                             \
  if (Status allowed = Authorise(*(context)); !allowed.ok()) { \
    return allowed;                                            \
  }

Status FakeAdmin::GetServerInfo(Context* context,
                                const v1::GetServerInfoRequest*,
                                v1::ServerInfo* out) {
  FAKE_ADMIN_ENTER(context)
  *out = info;
  if (out->now_micros() == 0) {
    SystemClock clock;
    out->set_now_micros(ToMicros(clock.Now()));
  }
  return Status::OK;
}

Status FakeAdmin::CreatePopulation(Context* context,
                                   const v1::CreatePopulationRequest* request,
                                   v1::Population* out) {
  FAKE_ADMIN_ENTER(context)
  request_ids.push_back(request->request_id());
  if (request->name() == "taken") {
    return {grpc::StatusCode::ALREADY_EXISTS, "population taken exists"};
  }
  out->set_name(request->name());
  return Status::OK;
}

Status FakeAdmin::GetPopulation(Context* context,
                                const v1::GetPopulationRequest* request,
                                v1::Population* out) {
  FAKE_ADMIN_ENTER(context)
  if (request->name() != "demo") return Missing("population");
  out->set_name("demo");
  out->set_device_count(30);
  return Status::OK;
}

Status FakeAdmin::ListPopulations(Context* context,
                                  const v1::ListPopulationsRequest* request,
                                  v1::ListPopulationsResponse* out) {
  FAKE_ADMIN_ENTER(context)
  const std::vector<std::string> names = {"a", "b", "c", "d", "e"};
  Page(
      *request, names, page_size,
      [&](const std::string& name) { out->add_populations()->set_name(name); },
      [&](const std::string& next) { out->set_next_page_token(next); });
  return Status::OK;
}

Status FakeAdmin::UploadArtifact(
    Context* context, grpc::ServerReader<v1::UploadArtifactRequest>* reader,
    v1::UploadArtifactResponse* out) {
  FAKE_ADMIN_ENTER(context)
  v1::UploadArtifactRequest message;
  if (!reader->Read(&message) || !message.has_header()) {
    return {grpc::StatusCode::INVALID_ARGUMENT, "no header"};
  }
  const std::string digest = message.header().digest();
  const uint64_t size = message.header().size();
  out->set_digest(digest);
  if (artefacts.contains(digest)) {
    out->set_existed(true);
    return Status::OK;
  }
  std::string bytes;
  while (reader->Read(&message)) {
    ++chunks_received;
    bytes += message.chunk();
  }
  if (bytes.size() != size || AddArtefact(bytes) != digest) {
    return {grpc::StatusCode::DATA_LOSS, "size or digest is wrong"};
  }
  return Status::OK;
}

Status FakeAdmin::DownloadArtifact(
    Context* context, const v1::DownloadArtifactRequest* request,
    grpc::ServerWriter<v1::ArtifactChunk>* writer) {
  FAKE_ADMIN_ENTER(context)
  const auto found = artefacts.find(request->digest());
  if (found == artefacts.end()) return Missing("artefact");
  const std::string& bytes = found->second;
  size_t offset = request->offset();
  size_t end = bytes.size();
  const bool broken = download_break_at > 0;
  if (broken) end = std::min(end, std::exchange(download_break_at, 0));
  while (offset < end) {
    v1::ArtifactChunk chunk;
    chunk.set_total_size(bytes.size());
    chunk.set_data(bytes.substr(offset, std::min<size_t>(1000, end - offset)));
    offset += chunk.data().size();
    writer->Write(chunk);
  }
  return broken ? Status(grpc::StatusCode::UNAVAILABLE, "going away")
                : Status::OK;
}

Status FakeAdmin::CreateTask(Context* context,
                             const v1::CreateTaskRequest* request,
                             v1::Task* out) {
  FAKE_ADMIN_ENTER(context)
  created.push_back(*request);
  if (!artefacts.contains(request->program_digest())) {
    return {grpc::StatusCode::FAILED_PRECONDITION, "the program is missing"};
  }
  out->set_name("fashion");
  out->set_population("demo");
  out->set_state(v1::Task::RUNNING);
  out->set_task_file(request->task_file());
  out->set_program_digest(request->program_digest());
  return Status::OK;
}

Status FakeAdmin::GetTask(Context* context, const v1::GetTaskRequest* request,
                          v1::Task* out) {
  FAKE_ADMIN_ENTER(context)
  const auto found = tasks.find(request->name());
  if (found == tasks.end()) return Missing("task " + request->name());
  *out = found->second;
  return Status::OK;
}

Status FakeAdmin::ListTasks(Context* context,
                            const v1::ListTasksRequest* request,
                            v1::ListTasksResponse* out) {
  FAKE_ADMIN_ENTER(context)
  std::vector<v1::Task> wanted;
  for (const auto& [name, task] : tasks) {
    if (request->population().empty() ||
        request->population() == task.population()) {
      wanted.push_back(task);
    }
  }
  Page(
      *request, wanted, page_size,
      [&](const v1::Task& task) { *out->add_tasks() = task; },
      [&](const std::string& next) { out->set_next_page_token(next); });
  return Status::OK;
}

Status FakeAdmin::StopTask(Context* context, const v1::StopTaskRequest* request,
                           v1::Task* out) {
  FAKE_ADMIN_ENTER(context)
  stopped.push_back(*request);
  const auto found = tasks.find(request->name());
  if (found == tasks.end()) return Missing("task " + request->name());
  if (!request->etag().empty() && request->etag() != found->second.etag()) {
    return {grpc::StatusCode::ABORTED, "the etag is another one"};
  }
  found->second.set_state(v1::Task::STOPPED);
  *out = found->second;
  return Status::OK;
}

Status FakeAdmin::WatchTask(Context* context,
                            const v1::WatchTaskRequest* request,
                            grpc::ServerWriter<v1::TaskSnapshot>* writer) {
  std::vector<v1::TaskSnapshot> send;
  Status error;
  bool forever = false;
  {
    FAKE_ADMIN_ENTER(context)
    ++watches;
    if (!tasks.contains(request->name())) {
      return Missing("task " + request->name());
    }
    send = snapshots;
    error = std::exchange(watch_error_once, Status::OK);
    if (!error.ok() && !send.empty()) send.resize(1);
    forever = watch_forever;
  }
  for (const v1::TaskSnapshot& snapshot : send) writer->Write(snapshot);
  while (forever && !context->IsCancelled()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return error;
}

Status FakeAdmin::GetRound(Context* context, const v1::GetRoundRequest* request,
                           v1::Round* out) {
  FAKE_ADMIN_ENTER(context)
  for (const v1::Round& round : rounds[request->task()]) {
    if (round.number() == request->number()) {
      *out = round;
      return Status::OK;
    }
  }
  return Missing("round " + std::to_string(request->number()));
}

Status FakeAdmin::ListRounds(Context* context,
                             const v1::ListRoundsRequest* request,
                             v1::ListRoundsResponse* out) {
  FAKE_ADMIN_ENTER(context)
  Page(
      *request, rounds[request->task()], page_size,
      [&](const v1::Round& round) { *out->add_rounds() = round; },
      [&](const std::string& next) { out->set_next_page_token(next); });
  return Status::OK;
}

Status FakeAdmin::GetModelVersion(Context* context,
                                  const v1::GetModelVersionRequest* request,
                                  v1::ModelVersion* out) {
  FAKE_ADMIN_ENTER(context)
  const auto& all = versions[request->task()];
  if (all.empty()) return Missing("task " + request->task());
  if (request->best() && !best_version.has_value()) {
    return {grpc::StatusCode::FAILED_PRECONDITION, "none was measured yet"};
  }
  const uint64_t wanted = request->best() ? *best_version : request->version();
  if (request->latest()) {
    *out = all.back();
    return Status::OK;
  }
  for (const v1::ModelVersion& version : all) {
    if (version.version() == wanted) {
      *out = version;
      return Status::OK;
    }
  }
  return Missing("version " + std::to_string(request->version()));
}

Status FakeAdmin::ListModelVersions(Context* context,
                                    const v1::ListModelVersionsRequest* request,
                                    v1::ListModelVersionsResponse* out) {
  FAKE_ADMIN_ENTER(context)
  Page(
      *request, versions[request->task()], page_size,
      [&](const v1::ModelVersion& v) { *out->add_versions() = v; },
      [&](const std::string& next) { out->set_next_page_token(next); });
  return Status::OK;
}

Status FakeAdmin::AddEvaluation(Context* context, const v1::Evaluation* request,
                                v1::Evaluation* out) {
  FAKE_ADMIN_ENTER(context)
  evaluations.push_back(*request);
  for (v1::ModelVersion& version : versions[request->task()]) {
    if (version.version() == request->version()) {
      *version.add_evaluations() = *request;
    }
  }
  *out = *request;
  out->set_created_micros(1'700'000'000'000'000);
  return Status::OK;
}

Status FakeAdmin::CreateEnrolmentToken(
    Context* context, const v1::CreateEnrolmentTokenRequest* request,
    v1::CreateEnrolmentTokenResponse* out) {
  FAKE_ADMIN_ENTER(context)
  tokens_created.push_back(*request);
  out->mutable_token()->set_id("t1");
  out->mutable_token()->set_population(request->population());
  out->mutable_token()->set_uses_max(request->uses_max());
  out->set_bundle(R"({"token_id":"t1","token_secret":"hush"})");
  return Status::OK;
}

Status FakeAdmin::ListEnrolmentTokens(
    Context* context, const v1::ListEnrolmentTokensRequest* request,
    v1::ListEnrolmentTokensResponse* out) {
  FAKE_ADMIN_ENTER(context)
  if (request->population().empty()) {
    return {grpc::StatusCode::INVALID_ARGUMENT, "population is empty"};
  }
  v1::EnrolmentToken& token = *out->add_tokens();
  token.set_id("t1");
  token.set_population(request->population());
  return Status::OK;
}

Status FakeAdmin::RevokeEnrolmentToken(
    Context* context, const v1::RevokeEnrolmentTokenRequest* request,
    v1::EnrolmentToken* out) {
  FAKE_ADMIN_ENTER(context)
  revoked.push_back(request->id());
  out->set_id(request->id());
  out->set_revoked(true);
  return Status::OK;
}

}  // namespace selvage::test

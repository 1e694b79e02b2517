#include "tests/integration/faults/harness.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include "crypto/tls_policy.h"
#include "crypto/x509.h"

namespace selvage::test {
namespace {

constexpr size_t kArtefactChunk = 256 << 10;

std::string BinaryDigest(const crypto::Digest& digest) {
  return ToString(digest.span());
}

}  // namespace

Path FreshDirectory() {
  const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
  const Path path =
      Path(::testing::TempDir()) /
      ("selvage_" + std::string(info->test_suite_name()) + "_" + info->name());
  std::filesystem::remove_all(path);
  std::filesystem::create_directories(path);
  return path;
}

std::string ReadText(const Path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return OkStatus();
  return Status(static_cast<StatusCode>(status.error_code()),
                status.error_message());
}

std::unique_ptr<grpc::ClientContext> ShortContext() {
  auto context = std::make_unique<grpc::ClientContext>();
  context->set_deadline(std::chrono::system_clock::now() +
                        std::chrono::seconds(30));
  return context;
}

// ------------------------------------------------------------- coordinator

CoordinatorUnderTest::CoordinatorUnderTest(const Path& data_dir,
                                           const Options& options)
    : data_dir_(data_dir) {
  if (const Status tls = crypto::RequireTls13(); !tls.ok()) return;
  std::vector<std::string> command = {
      options.binary.empty() ? SELVAGE_COORDINATOR : options.binary,
      "--data-dir",
      data_dir.string(),
      "--device-address",
      options.device_address,
      "--metrics-address",
      "off",
      "--admin-address",
      "127.0.0.1:0",
      "--log-level",
      "debug",
      "--log-format",
      "json"};
  command.insert(command.end(), options.flags.begin(), options.flags.end());
  process_ = std::make_unique<ChildProcess>(command, options.environment);
  serving_ = process_->WaitForOutput("\"event\":\"serving\"");
  if (!serving_) return;
  const auto endpoints = nlohmann::json::parse(
      ReadText(data_dir / "endpoints.json"), nullptr, false);
  if (!endpoints.is_object()) {
    serving_ = false;
    return;
  }
  admin_address_ = endpoints.value("admin", "");
  device_address_ = endpoints.value("device", "");
  ca_certificate_ = ReadText(data_dir / "ca.pem");
  admin_token_ = ReadText(data_dir / "admin.token");
  admin_token_ = admin_token_.substr(0, admin_token_.find('\n'));
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  admin_ = v1::AdminService::NewStub(grpc::CreateCustomChannel(
      admin_address_,
      grpc::SslCredentials({.pem_root_certs = ca_certificate_,
                            .pem_private_key = "",
                            .pem_cert_chain = ""}),
      arguments));
}

std::unique_ptr<grpc::ClientContext> CoordinatorUnderTest::AdminContext()
    const {
  auto context = ShortContext();
  context->AddMetadata("authorization", "Bearer " + admin_token_);
  return context;
}

Status CoordinatorUnderTest::CreatePopulation(const std::string& name) {
  v1::CreatePopulationRequest request;
  request.set_name(name);
  v1::Population answer;
  return FromGrpc(
      admin_->CreatePopulation(AdminContext().get(), request, &answer));
}

Result<std::string> CoordinatorUnderTest::CreateBundle(
    uint32_t uses, const std::string& population) {
  v1::CreateEnrolmentTokenRequest request;
  request.set_population(population);
  request.set_uses_max(uses);
  v1::CreateEnrolmentTokenResponse answer;
  SELVAGE_RETURN_IF_ERROR(FromGrpc(
      admin_->CreateEnrolmentToken(AdminContext().get(), request, &answer)));
  return answer.bundle();
}

Result<crypto::Digest> CoordinatorUnderTest::UploadArtefact(ByteSpan bytes) {
  const crypto::Digest digest = crypto::Sha256(bytes);
  v1::UploadArtifactResponse answer;
  const auto context = AdminContext();
  const auto stream = admin_->UploadArtifact(context.get(), &answer);
  v1::UploadArtifactRequest message;
  message.mutable_header()->set_digest(BinaryDigest(digest));
  message.mutable_header()->set_size(bytes.size());
  bool open = stream->Write(message);
  for (size_t at = 0; open && at < bytes.size(); at += kArtefactChunk) {
    const ByteSpan chunk =
        bytes.subspan(at, std::min(kArtefactChunk, bytes.size() - at));
    message.set_chunk(ToString(chunk));
    open = stream->Write(message);
  }
  stream->WritesDone();
  SELVAGE_RETURN_IF_ERROR(FromGrpc(stream->Finish()));
  return digest;
}

Result<v1::Task> CoordinatorUnderTest::CreateTask(
    const std::string& task_file, const plan::Program& program,
    const crypto::Digest& initial) {
  SELVAGE_ASSIGN_OR_RETURN(
      const crypto::Digest digest,
      UploadArtefact(AsBytes(plan::CanonicalJson(program))));
  v1::CreateTaskRequest request;
  request.set_task_file(task_file);
  request.set_program_digest(BinaryDigest(digest));
  if (!initial.empty()) request.set_initial_digest(BinaryDigest(initial));
  request.set_request_id(
      crypto::Sha256(AsBytes(task_file)).ToHex().substr(0, 32));
  v1::Task task;
  SELVAGE_RETURN_IF_ERROR(
      FromGrpc(admin_->CreateTask(AdminContext().get(), request, &task)));
  return task;
}

Result<v1::Round> CoordinatorUnderTest::GetRound(const std::string& task,
                                                 uint64_t number) {
  v1::GetRoundRequest request;
  request.set_task(task);
  request.set_number(number);
  v1::Round round;
  SELVAGE_RETURN_IF_ERROR(
      FromGrpc(admin_->GetRound(AdminContext().get(), request, &round)));
  return round;
}

Result<std::vector<v1::Round>> CoordinatorUnderTest::ListRounds(
    const std::string& task) {
  v1::ListRoundsRequest request;
  request.set_task(task);
  request.set_page_size(1000);
  v1::ListRoundsResponse answer;
  SELVAGE_RETURN_IF_ERROR(
      FromGrpc(admin_->ListRounds(AdminContext().get(), request, &answer)));
  return std::vector<v1::Round>(answer.rounds().begin(), answer.rounds().end());
}

Result<v1::ServerInfo> CoordinatorUnderTest::Info() {
  v1::ServerInfo info;
  SELVAGE_RETURN_IF_ERROR(FromGrpc(admin_->GetServerInfo(
      AdminContext().get(), v1::GetServerInfoRequest(), &info)));
  return info;
}

Result<Bytes> CoordinatorUnderTest::Download(const std::string& digest) {
  v1::DownloadArtifactRequest request;
  request.set_digest(digest);
  const auto context = AdminContext();
  const auto stream = admin_->DownloadArtifact(context.get(), request);
  Bytes bytes;
  v1::ArtifactChunk chunk;
  while (stream->Read(&chunk)) AppendBytes(bytes, AsBytes(chunk.data()));
  SELVAGE_RETURN_IF_ERROR(FromGrpc(stream->Finish()));
  return bytes;
}

Result<plan::Checkpoint> CoordinatorUnderTest::LatestModel(
    const std::string& task, const plan::TensorTable& table) {
  v1::GetModelVersionRequest request;
  request.set_task(task);
  request.set_latest(true);
  v1::ModelVersion version;
  SELVAGE_RETURN_IF_ERROR(FromGrpc(
      admin_->GetModelVersion(AdminContext().get(), request, &version)));
  SELVAGE_ASSIGN_OR_RETURN(const Bytes bytes,
                           Download(version.safetensors_digest()));
  return plan::ReadSafetensors(table, bytes);
}

Result<v1::TaskSnapshot> CoordinatorUnderTest::Watch(
    const std::string& task,
    const std::function<bool(const v1::TaskSnapshot&)>& enough) {
  v1::WatchTaskRequest request;
  request.set_name(task);
  const auto context = AdminContext();
  context->set_deadline(std::chrono::system_clock::now() +
                        std::chrono::seconds(100));
  const auto stream = admin_->WatchTask(context.get(), request);
  v1::TaskSnapshot snapshot;
  while (stream->Read(&snapshot)) {
    if (!enough(snapshot)) continue;
    context->TryCancel();
    (void)stream->Finish();
    return snapshot;
  }
  const Status status = FromGrpc(stream->Finish());
  return status.ok()
             ? Internal("the task ended at " + snapshot.ShortDebugString())
             : status;
}

Result<v1::TaskSnapshot> CoordinatorUnderTest::WatchUntilEnded(
    const std::string& task) {
  return Watch(task, [](const v1::TaskSnapshot& snapshot) {
    return snapshot.task().state() != v1::Task::RUNNING;
  });
}

// ----------------------------------------------------------------- devices

std::shared_ptr<grpc::Channel> DeviceChannel(const CoordinatorUnderTest& server,
                                             const std::string& private_key_pem,
                                             const std::string& certificate) {
  return DeviceChannel(server.ca_certificate(), server.device_address(),
                       private_key_pem, certificate);
}

std::shared_ptr<grpc::Channel> DeviceChannel(const std::string& ca_certificate,
                                             const std::string& address,
                                             const std::string& private_key_pem,
                                             const std::string& certificate) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  return grpc::CreateCustomChannel(
      address,
      grpc::SslCredentials({.pem_root_certs = ca_certificate,
                            .pem_private_key = private_key_pem,
                            .pem_cert_chain = certificate}),
      arguments);
}

Result<DeviceCredentials> EnrolDevice(const CoordinatorUnderTest& server,
                                      const std::string& bundle,
                                      const std::string& name) {
  const auto json = nlohmann::json::parse(bundle, nullptr, false);
  if (!json.is_object()) return InvalidArgument("the bundle is no JSON");
  SELVAGE_ASSIGN_OR_RETURN(const crypto::PrivateKeyPem key,
                           crypto::NewP256Key());
  v1::EnrollRequest request;
  request.set_token_id(json.value("token_id", ""));
  SELVAGE_ASSIGN_OR_RETURN(const Bytes secret,
                           FromHex(json.value("token_secret", "")));
  request.set_token_secret(ToString(secret));
  SELVAGE_ASSIGN_OR_RETURN(const std::string csr,
                           crypto::NewCertificateRequest(key, name));
  request.set_csr_pem(csr);
  request.set_device_name(name);
  v1::EnrollResponse answer;
  const auto stub = v1::DeviceService::NewStub(DeviceChannel(server, "", ""));
  SELVAGE_RETURN_IF_ERROR(
      FromGrpc(stub->Enroll(ShortContext().get(), request, &answer)));
  return DeviceCredentials{answer.device_id(), std::string(key.ExposeSecret()),
                           answer.certificate_pem()};
}

RawDevice::RawDevice(const CoordinatorUnderTest& server,
                     const DeviceCredentials& credentials,
                     std::string population)
    : RawDevice(server.ca_certificate(), server.device_address(), credentials,
                std::move(population)) {}

RawDevice::RawDevice(const std::string& ca_certificate,
                     const std::string& address,
                     const DeviceCredentials& credentials,
                     std::string population)
    : population_(std::move(population)),
      channel_(DeviceChannel(ca_certificate, address,
                             credentials.private_key_pem,
                             credentials.certificate_pem)),
      stub_(v1::DeviceService::NewStub(channel_)) {}

Result<v1::CheckInResponse> RawDevice::CheckIn() {
  v1::CheckInRequest request;
  request.set_population(population_);
  request.mutable_capabilities()->add_engines("native:one_hot");
  request.mutable_capabilities()->add_codecs("float32");
  request.mutable_capabilities()->add_codecs("float16");
  request.mutable_capabilities()->set_plan_format(1);
  v1::CheckInResponse answer;
  SELVAGE_RETURN_IF_ERROR(
      FromGrpc(stub_->CheckIn(ShortContext().get(), request, &answer)));
  return answer;
}

std::string RawDevice::UploadAnswer::Name() const {
  if (!receipt.has_value()) return std::string(StatusCodeName(status.code()));
  if (receipt->status() == v1::Receipt::REJECTED) {
    return v1::Receipt::Reason_Name(receipt->reason());
  }
  return v1::Receipt::Status_Name(receipt->status());
}

RawDevice::UploadAnswer RawDevice::Upload(const v1::UploadHeader& header,
                                          ByteSpan bytes,
                                          const UploadOptions& options) {
  UploadAnswer answer;
  const auto context = ShortContext();
  const auto stream = stub_->Upload(context.get());
  v1::UploadRequest message;
  *message.mutable_header() = header;
  stream->Write(message);
  v1::UploadResponse response;
  bool open = stream->Read(&response);
  if (open && response.has_resume()) {
    answer.resumed_at = response.resume().offset();
    size_t at = response.resume().offset();
    bool writable = true;
    while (writable && at < bytes.size()) {
      if (options.cancel_after.has_value() && at >= *options.cancel_after) {
        break;
      }
      const size_t count = std::min(options.chunk_size, bytes.size() - at);
      message.set_chunk(ToString(bytes.subspan(at, count)));
      writable = stream->Write(message);
      at += count;
    }
    if (options.cancel_after.has_value()) context->TryCancel();
    stream->WritesDone();
    open = stream->Read(&response);
  } else {
    stream->WritesDone();
  }
  if (open && response.has_receipt()) answer.receipt = response.receipt();
  while (open) open = stream->Read(&response);
  answer.status = FromGrpc(stream->Finish());
  return answer;
}

// ------------------------------------------------------------------ oracle

plan::Program OneHotProgram(int64_t elements) {
  plan::Program program;
  program.kind = plan::ProgramKind::kNative;
  program.native_name = "one_hot";
  program.table = Take(plan::TensorTable::Create(
      {plan::TensorSpec{.name = "counts",
                        .shape = {elements},
                        .dtype = plan::DType::kFloat32,
                        .role = plan::Role::kShared,
                        .init = plan::Init::kZeros}}));
  program.inputs = {{"x", plan::DType::kFloat32, {1}}};
  program.metrics = {"loss"};
  return program;
}

Bytes OneHotUpdate(size_t elements, size_t index, float value) {
  std::vector<float> values(elements, 0.0F);
  values[index] = value;
  const ByteSpan bytes = AsBytes(std::span<const float>(values));
  return Bytes(bytes.begin(), bytes.end());
}

v1::UploadHeader OneHotHeader(const v1::Assignment& assignment,
                              ByteSpan update) {
  v1::UploadHeader header;
  header.set_assignment_id(assignment.id());
  header.set_token(assignment.token());
  header.set_digest(BinaryDigest(crypto::Sha256(update)));
  header.set_size(update.size());
  header.set_codec(v1::FLOAT32);
  header.set_weight(1);
  return header;
}

Result<std::vector<int>> CountedUpdates(const plan::Checkpoint& model,
                                        uint64_t updates) {
  std::vector<int> counted;
  for (const float value : model.floats) {
    const double count = static_cast<double>(value) *
                         static_cast<double>(updates) /
                         static_cast<double>(kOneHotValue);
    // The mean was rounded once, to float32.
    if (std::abs(count - std::round(count)) > 1e-5) {
      return Internal("element " + std::to_string(counted.size()) +
                      " holds a share of " + std::to_string(count));
    }
    counted.push_back(static_cast<int>(std::lround(count)));
  }
  return counted;
}

}  // namespace selvage::test

#include "coordinator/rpc/admin_service.h"

#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include "coordinator/rpc/convert.h"
#include "tests/unit/coordinator_rpc/harness.h"

namespace selvage::coordinator::test {
namespace {

using grpc::StatusCode;
using ::testing::HasSubstr;

class AdminServiceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    harness.Start();
    stub = harness.AdminStub();
  }

  std::unique_ptr<grpc::ClientContext> Context(
      const std::string& token = kAdminToken) {
    auto context = std::make_unique<grpc::ClientContext>();
    context->set_deadline(std::chrono::system_clock::now() +
                          std::chrono::seconds(20));
    if (!token.empty()) {
      context->AddMetadata("authorization", "Bearer " + token);
    }
    return context;
  }

  Harness harness;
  std::unique_ptr<v1::AdminService::Stub> stub;
};

TEST_F(AdminServiceTest, EveryMethod_RefusesWithoutToken) {
  const auto channel =
      harness.Channel(harness.server->admin_port(), std::nullopt);
  const google::protobuf::ServiceDescriptor* service =
      v1::Task::descriptor()->file()->FindServiceByName("AdminService");
  ASSERT_NE(service, nullptr);
  ASSERT_GE(service->method_count(), 18);
  for (int i = 0; i < service->method_count(); ++i) {
    for (const bool wrong : {false, true}) {
      grpc::GenericStub generic(channel);
      grpc::CompletionQueue queue;
      auto context = Context(wrong ? "wrong" : "");
      const std::string method =
          "/" + service->full_name() + "/" + service->method(i)->name();
      auto call = generic.PrepareCall(context.get(), method, &queue);
      const auto wait = [&queue] {
        void* tag = nullptr;
        bool ok = false;
        EXPECT_TRUE(queue.Next(&tag, &ok));
        return ok;
      };
      call->StartCall(nullptr);
      if (wait()) {
        call->WriteLast(EmptyMessage(), grpc::WriteOptions(), nullptr);
        wait();
      }
      grpc::Status status;
      call->Finish(&status, nullptr);
      wait();
      EXPECT_EQ(status.error_code(), StatusCode::UNAUTHENTICATED)
          << method << ": " << status.error_message();
    }
  }
}

TEST_F(AdminServiceTest, TwoTokensOrAnotherScheme_AreRefused) {
  v1::ServerInfo info;
  auto context = Context();
  context->AddMetadata("authorization", "Bearer wrong");
  EXPECT_EQ(
      stub->GetServerInfo(context.get(), v1::GetServerInfoRequest(), &info)
          .error_code(),
      StatusCode::UNAUTHENTICATED);
  context = Context("");
  context->AddMetadata("authorization", kAdminToken);
  EXPECT_EQ(
      stub->GetServerInfo(context.get(), v1::GetServerInfoRequest(), &info)
          .error_code(),
      StatusCode::UNAUTHENTICATED);
}

TEST_F(AdminServiceTest, HealthCheck_NeedsNoToken) {
  const auto channel =
      harness.Channel(harness.server->admin_port(), std::nullopt);
  grpc::GenericStub generic(channel);
  grpc::CompletionQueue queue;
  auto context = Context("");
  const grpc::ByteBuffer empty = EmptyMessage();
  auto call = generic.PrepareUnaryCall(
      context.get(), "/grpc.health.v1.Health/Check", empty, &queue);
  call->StartCall();
  grpc::ByteBuffer answer;
  grpc::Status status;
  call->Finish(&answer, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  ASSERT_TRUE(queue.Next(&tag, &ok));
  ASSERT_TRUE(status.ok()) << status.error_message();
  std::vector<grpc::Slice> slices;
  ASSERT_TRUE(answer.Dump(&slices).ok());
  ASSERT_EQ(slices.size(), 1U);
  // HealthCheckResponse{status: SERVING = 1}
  EXPECT_EQ(std::string(slices[0].begin(), slices[0].end()), "\x08\x01");
}

TEST_F(AdminServiceTest, GetServerInfo_CountsDevicesAndBytesAtTheSocket) {
  auto device = harness.DeviceStub(harness.Device("phone-1"));
  auto stranger = harness.DeviceStub(std::nullopt);
  for (auto* who : {device.get(), stranger.get()}) {
    grpc::ClientContext context;
    v1::CheckInRequest request;
    request.set_population("demo");
    v1::CheckInResponse response;
    static_cast<void>(who->CheckIn(&context, request, &response));
  }
  v1::ServerInfo info;
  ASSERT_TRUE(
      stub->GetServerInfo(Context().get(), v1::GetServerInfoRequest(), &info)
          .ok());
  EXPECT_EQ(info.schema_version(), 7U);
  EXPECT_EQ(info.instance_id(), "instance-1");
  EXPECT_EQ(info.device_endpoint(), "localhost:1");
  EXPECT_EQ(info.tls_connections(), 1U);
  // Two handshakes: certificates alone are over a kilobyte.
  EXPECT_GT(info.socket_bytes_received(), 1000U);
  EXPECT_LT(info.socket_bytes_received(), 20'000U);
  EXPECT_GT(info.socket_bytes_sent(), 1000U);
}

TEST_F(AdminServiceTest, Populations_EveryFieldArrives) {
  v1::CreatePopulationRequest create;
  create.set_name("demo");
  create.set_request_id("r-1");
  v1::Population population;
  ASSERT_TRUE(
      stub->CreatePopulation(Context().get(), create, &population).ok());
  EXPECT_EQ(harness.people.last, "CreatePopulation demo r-1");
  EXPECT_EQ(population.device_count(), 9U);

  v1::ListPopulationsRequest list;
  list.set_page_token("after-a");
  v1::ListPopulationsResponse page;
  ASSERT_TRUE(stub->ListPopulations(Context().get(), list, &page).ok());
  EXPECT_EQ(harness.people.last, "ListPopulations 100 after-a");
  EXPECT_EQ(page.populations_size(), 2);
  EXPECT_EQ(page.next_page_token(), "next");

  v1::GetPopulationRequest get;
  get.set_name("nobody");
  const grpc::Status status =
      stub->GetPopulation(Context().get(), get, &population);
  EXPECT_EQ(status.error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(status.error_message(), "no population nobody");
  get.set_name("no body");
  EXPECT_EQ(stub->GetPopulation(Context().get(), get, &population).error_code(),
            StatusCode::INVALID_ARGUMENT);
}

TEST_F(AdminServiceTest, Tasks_ErrorsAndFieldsArrive) {
  v1::CreateTaskRequest create;
  create.set_task_file("name: t");
  create.set_program_digest(std::string(32, 'p'));
  v1::Task task;
  ASSERT_TRUE(stub->CreateTask(Context().get(), create, &task).ok());
  EXPECT_EQ(task.state(), v1::Task::RUNNING);
  EXPECT_EQ(task.program_digest(), std::string(32, 'p'));

  v1::StopTaskRequest stop;
  stop.set_name("t");
  stop.set_etag("v0");
  EXPECT_EQ(stub->StopTask(Context().get(), stop, &task).error_code(),
            StatusCode::ABORTED);
  stop.set_etag("v1");
  ASSERT_TRUE(stub->StopTask(Context().get(), stop, &task).ok());
  EXPECT_EQ(task.state(), v1::Task::STOPPED);

  v1::GetRoundRequest get_round;
  get_round.set_task("t");
  get_round.set_number(3);
  v1::Round round;
  ASSERT_TRUE(stub->GetRound(Context().get(), get_round, &round).ok());
  EXPECT_EQ(round.state(), v1::Round::ABANDONED);
  EXPECT_EQ(round.funnel().reasons().at("OUT_OF_RANGE"), 4U);
  EXPECT_EQ(round.metrics(0).p90(), 0.3);
  EXPECT_EQ(round.metrics(1).mean(), 2.5);
  EXPECT_FALSE(round.metrics(1).has_p10());
  EXPECT_FALSE(round.metrics(1).has_p50());
  EXPECT_FALSE(round.metrics(1).has_p90());
  EXPECT_EQ(round.figures().size(), 1U);
  EXPECT_EQ(round.figures().at("clip_fraction"), 0.25);

  v1::GetModelVersionRequest get_version;
  get_version.set_task("t");
  get_version.set_latest(true);
  v1::ModelVersion version;
  ASSERT_TRUE(
      stub->GetModelVersion(Context().get(), get_version, &version).ok());
  EXPECT_EQ(version.version(), 99U);
  get_version.set_latest(false);
  ASSERT_TRUE(
      stub->GetModelVersion(Context().get(), get_version, &version).ok());
  EXPECT_EQ(version.version(), 0U);
  get_version.set_best(true);
  ASSERT_TRUE(
      stub->GetModelVersion(Context().get(), get_version, &version).ok());
  EXPECT_EQ(version.version(), 7U);

  v1::Evaluation evaluation;
  v1::Evaluation stored;
  EXPECT_EQ(
      stub->AddEvaluation(Context().get(), evaluation, &stored).error_code(),
      StatusCode::INVALID_ARGUMENT);
  evaluation.set_task("t");
  evaluation.set_data_set("t10k");
  evaluation.set_data_digest(std::string(32, 'd'));
  evaluation.set_model_digest(std::string(32, 'm'));
  ASSERT_TRUE(stub->AddEvaluation(Context().get(), evaluation, &stored).ok());
  EXPECT_EQ(stored.data_set(), "t10k");
  EXPECT_EQ(stored.created_micros(), 77);
}

TEST_F(AdminServiceTest, Tokens_DefaultsAreFilledIn) {
  v1::CreateEnrolmentTokenRequest create;
  create.set_population("demo");
  v1::CreateEnrolmentTokenResponse created;
  ASSERT_TRUE(
      stub->CreateEnrolmentToken(Context().get(), create, &created).ok());
  EXPECT_EQ(created.token().uses_max(), 1U);
  EXPECT_EQ(created.token().expires_micros(), int64_t{24} * 3600 * 1'000'000);
  EXPECT_EQ(created.bundle(), "{}");
  v1::RevokeEnrolmentTokenRequest revoke;
  revoke.set_id("tok-1");
  v1::EnrolmentToken token;
  ASSERT_TRUE(stub->RevokeEnrolmentToken(Context().get(), revoke, &token).ok());
  EXPECT_TRUE(token.revoked());
}

TEST_F(AdminServiceTest, Artefact_UpAndDownAgain) {
  Bytes artefact(3'000'000);
  for (size_t i = 0; i < artefact.size(); ++i) {
    artefact[i] = static_cast<uint8_t>(i * 31);
  }
  const std::string digest = ToString(crypto::Sha256(artefact).span());
  for (const bool again : {false, true}) {
    auto context = Context();
    v1::UploadArtifactResponse response;
    auto writer = stub->UploadArtifact(context.get(), &response);
    v1::UploadArtifactRequest request;
    request.mutable_header()->set_digest(digest);
    request.mutable_header()->set_size(artefact.size());
    writer->Write(request);
    for (size_t at = 0; at < artefact.size() && !again; at += 1'000'000) {
      request.set_chunk(artefact.data() + at, 1'000'000);
      writer->Write(request);
    }
    writer->WritesDone();
    const grpc::Status status = writer->Finish();
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(response.existed(), again);
    EXPECT_EQ(response.digest(), digest);
  }

  auto context = Context();
  v1::DownloadArtifactRequest request;
  request.set_digest(digest);
  request.set_offset(1);
  auto reader = stub->DownloadArtifact(context.get(), request);
  Bytes got;
  for (v1::ArtifactChunk chunk; reader->Read(&chunk);) {
    EXPECT_EQ(chunk.total_size(), artefact.size());
    AppendBytes(got, AsBytes(chunk.data()));
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(got, Bytes(artefact.begin() + 1, artefact.end()));
}

TEST_F(AdminServiceTest, Artefact_BadStreams_AreRefusedAndDropped) {
  const auto upload = [this](uint64_t size, const std::string& bytes) {
    auto context = Context();
    v1::UploadArtifactResponse response;
    auto writer = stub->UploadArtifact(context.get(), &response);
    v1::UploadArtifactRequest request;
    request.mutable_header()->set_digest(std::string(32, 'd'));
    request.mutable_header()->set_size(size);
    writer->Write(request);
    request.set_chunk(bytes);
    writer->Write(request);
    writer->WritesDone();
    return writer->Finish().error_code();
  };
  EXPECT_EQ(upload(3, "abcd"), StatusCode::OUT_OF_RANGE);
  EXPECT_EQ(upload(5, "abcd"), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(harness.people.dropped, 2);
  EXPECT_EQ(upload(4, "abcd"), StatusCode::DATA_LOSS);
}

TEST_F(AdminServiceTest, WatchTask_NewestSnapshotThenTheEnd) {
  auto context = Context();
  v1::WatchTaskRequest request;
  request.set_name("t");
  auto reader = stub->WatchTask(context.get(), request);
  v1::TaskSnapshot snapshot;
  ASSERT_TRUE(reader->Read(&snapshot));
  EXPECT_EQ(snapshot.task().state(), v1::Task::RUNNING);
  TaskSnapshot sent;
  sent.task.name = "t";
  for (uint64_t version = 1; version <= 200; ++version) {
    sent.task.latest_version = version;
    if (version == 200) sent.task.state = TaskState::kFinished;
    harness.people.Send(sent);
  }
  uint64_t seen = 0;
  while (reader->Read(&snapshot)) {
    EXPECT_GT(snapshot.task().latest_version(), seen);
    seen = snapshot.task().latest_version();
  }
  EXPECT_EQ(seen, 200U);
  EXPECT_TRUE(reader->Finish().ok());
  harness.server->Shutdown(std::chrono::seconds(10));
  EXPECT_EQ(harness.people.unwatched, 11U);
}

TEST_F(AdminServiceTest, WatchTask_CancelledOrUnknown_EndsTheWatch) {
  {
    auto context = Context();
    v1::WatchTaskRequest request;
    request.set_name("other");
    auto reader = stub->WatchTask(context.get(), request);
    v1::TaskSnapshot snapshot;
    EXPECT_FALSE(reader->Read(&snapshot));
    EXPECT_EQ(reader->Finish().error_code(), StatusCode::NOT_FOUND);
  }
  auto context = Context();
  v1::WatchTaskRequest request;
  request.set_name("t");
  auto reader = stub->WatchTask(context.get(), request);
  v1::TaskSnapshot snapshot;
  ASSERT_TRUE(reader->Read(&snapshot));
  context->TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), StatusCode::CANCELLED);
  harness.server->Shutdown(std::chrono::seconds(10));
  EXPECT_EQ(harness.people.unwatched, 11U);
}

}  // namespace
}  // namespace selvage::coordinator::test

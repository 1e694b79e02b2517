#include "coordinator/rpc/convert.h"

#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/rpc/status_convert.h"
#include "tests/testing/status_matchers.h"

namespace selvage::coordinator {
namespace {

using selvage::test::IsOk;
using selvage::test::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr auto kInvalid = StatusCode::kInvalidArgument;

v1::EnrollRequest GoodEnroll() {
  v1::EnrollRequest proto;
  proto.set_token_id("tok-1");
  proto.set_token_secret(std::string(32, 's'));
  proto.set_csr_pem("PEM");
  proto.set_device_name("phone-1");
  return proto;
}

TEST(EnrollFromProtoTest, Good_EveryFieldArrives) {
  const Result<EnrollRequest> request = FromProto(GoodEnroll());
  ASSERT_THAT(request, IsOk());
  EXPECT_EQ(request->token_id, "tok-1");
  EXPECT_EQ(request->token_secret, ToBytes(std::string(32, 's')));
  EXPECT_EQ(request->csr_pem, "PEM");
  EXPECT_EQ(request->device_name, "phone-1");
}

TEST(EnrollFromProtoTest, RenewalWithoutToken_IsOk) {
  v1::EnrollRequest proto = GoodEnroll();
  proto.clear_token_id();
  proto.clear_token_secret();
  EXPECT_THAT(FromProto(proto), IsOk());
}

TEST(EnrollFromProtoTest, OutOfBounds_NamesTheField) {
  v1::EnrollRequest proto = GoodEnroll();
  proto.set_token_id(std::string(65, 'x'));
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("token_id")));
  proto = GoodEnroll();
  proto.set_token_id("a\nb");
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("token_id")));
  proto = GoodEnroll();
  proto.set_token_secret(std::string(31, 's'));
  EXPECT_THAT(FromProto(proto),
              StatusIs(kInvalid, HasSubstr("token_secret has 31")));
  proto = GoodEnroll();
  proto.clear_token_id();
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("token_secret")));
  proto = GoodEnroll();
  proto.clear_csr_pem();
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("csr_pem")));
  proto.set_csr_pem(std::string(kRequestPemSizeMax + 1, 'x'));
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("csr_pem")));
  proto = GoodEnroll();
  proto.set_device_name("../etc");
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("device_name")));
  proto.set_device_name(std::string(65, 'd'));
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("device_name")));
}

// A device with an identity key that asks for a nonce.
v1::EnrollRequest GoodQuestion() {
  v1::EnrollRequest proto;
  proto.set_device_name("phone-1");
  proto.set_population("demo");
  proto.set_identity_public_key(std::string(91, 'k'));
  return proto;
}

TEST(EnrollFromProtoTest, IdentityKey_EveryFieldArrives) {
  v1::EnrollRequest proto = GoodQuestion();
  Result<EnrollRequest> request = FromProto(proto);
  ASSERT_THAT(request, IsOk());
  EXPECT_EQ(request->identity_public_key, Bytes(91, 'k'));
  EXPECT_TRUE(request->identity_signature.empty());
  EXPECT_EQ(request->population, "demo");

  proto.set_csr_pem("PEM");
  proto.set_identity_signature(std::string(64, 's'));
  proto.set_identity_nonce(std::string(40, 'n'));
  request = FromProto(proto);
  ASSERT_THAT(request, IsOk());
  EXPECT_EQ(request->identity_signature, Bytes(64, 's'));
  EXPECT_EQ(request->identity_nonce, Bytes(40, 'n'));
  EXPECT_EQ(request->csr_pem, "PEM");

  EXPECT_EQ(ToProto(EnrollAnswer{.certificate_pem = "",
                                 .device_id = "",
                                 .population = "",
                                 .plan_public_keys = {},
                                 .nonce = Bytes(40, 'n')})
                .nonce(),
            std::string(40, 'n'));
}

TEST(EnrollFromProtoTest, IdentityKeyOutOfBounds_NamesTheField) {
  for (const size_t size : {1u, 65u, 90u, 92u, 4096u}) {
    v1::EnrollRequest proto = GoodQuestion();
    proto.set_identity_public_key(std::string(size, 'k'));
    EXPECT_THAT(FromProto(proto),
                StatusIs(kInvalid, HasSubstr("identity_public_key has")));
  }
  v1::EnrollRequest proto = GoodQuestion();
  proto.set_csr_pem("PEM");
  proto.set_identity_signature(std::string(63, 's'));
  proto.set_identity_nonce(std::string(40, 'n'));
  EXPECT_THAT(FromProto(proto),
              StatusIs(kInvalid, HasSubstr("identity_signature has 63")));
  proto.set_identity_signature(std::string(64, 's'));
  proto.set_identity_nonce(std::string(41, 'n'));
  EXPECT_THAT(FromProto(proto),
              StatusIs(kInvalid, HasSubstr("identity_nonce has 41")));
  proto.clear_identity_nonce();
  EXPECT_THAT(FromProto(proto),
              StatusIs(kInvalid, HasSubstr("belong together")));
  proto.set_identity_nonce(std::string(40, 'n'));
  proto.clear_csr_pem();
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("csr_pem")));
  proto.set_csr_pem("PEM");
  proto.set_population("a/b");
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("population")));
  proto.clear_population();
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("population")));
  proto = GoodEnroll();
  proto.set_identity_signature(std::string(64, 's'));
  EXPECT_THAT(FromProto(proto),
              StatusIs(kInvalid, HasSubstr("without identity_public_key")));
}

v1::CheckInRequest GoodCheckIn() {
  v1::CheckInRequest proto;
  proto.set_population("demo");
  proto.mutable_attributes()->set_device_class("phone-mid");
  proto.mutable_capabilities()->add_engines("libtorch/1.13");
  proto.mutable_capabilities()->add_codecs("float16");
  proto.mutable_capabilities()->add_codecs("a-codec-of-tomorrow");
  proto.mutable_capabilities()->set_plan_format(1);
  proto.add_unsettled_assignments("as-1");
  v1::InstalledModel& installed = *proto.add_installed();
  installed.set_task("t");
  installed.set_version(3);
  return proto;
}

TEST(CheckInFromProtoTest, Good_UnknownCodecsAreLeftOut) {
  const Result<CheckInRequest> request = FromProto(GoodCheckIn());
  ASSERT_THAT(request, IsOk());
  EXPECT_EQ(request->population, "demo");
  EXPECT_THAT(request->engines, ElementsAre("libtorch/1.13"));
  EXPECT_THAT(request->codecs, ElementsAre(plan::CodecName::kFloat16));
  EXPECT_THAT(request->unsettled_assignments, ElementsAre("as-1"));
  ASSERT_THAT(request->installed, SizeIs(1));
  EXPECT_EQ(request->installed[0].version, 3U);
}

TEST(CheckInFromProtoTest, OutOfBounds_NamesTheField) {
  v1::CheckInRequest proto = GoodCheckIn();
  proto.clear_population();
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("population")));
  proto = GoodCheckIn();
  proto.mutable_attributes()->set_app_version(std::string(65, 'v'));
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("app_version")));
  proto = GoodCheckIn();
  proto.mutable_attributes()->set_library_version(std::string(65, 'v'));
  EXPECT_THAT(FromProto(proto),
              StatusIs(kInvalid, HasSubstr("library_version")));
  proto = GoodCheckIn();
  proto.mutable_attributes()->set_device_class("two\nlines");
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("device_class")));
  proto = GoodCheckIn();
  for (int i = 0; i < 16; ++i) proto.mutable_capabilities()->add_engines("e");
  EXPECT_THAT(FromProto(proto),
              StatusIs(kInvalid, HasSubstr("engines has 17")));
  proto = GoodCheckIn();
  for (int i = 0; i < 15; ++i) proto.mutable_capabilities()->add_codecs("c");
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("codecs has 17")));
  proto = GoodCheckIn();
  for (int i = 0; i < 16; ++i) proto.add_unsettled_assignments("a");
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("unsettled")));
  proto = GoodCheckIn();
  proto.set_unsettled_assignments(0, std::string(129, 'a'));
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("unsettled")));
  proto = GoodCheckIn();
  for (int i = 0; i < 16; ++i) proto.add_installed()->set_task("t");
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("installed")));
  proto = GoodCheckIn();
  proto.mutable_installed(0)->set_task("");
  EXPECT_THAT(FromProto(proto),
              StatusIs(kInvalid, HasSubstr("installed.task")));
}

v1::UploadHeader GoodHeader() {
  v1::UploadHeader proto;
  proto.set_assignment_id("as-1");
  proto.set_token(std::string(32, 't'));
  proto.set_digest(std::string(32, 'd'));
  proto.set_size(10);
  proto.set_codec(v1::FLOAT32);
  proto.set_weight(5);
  proto.add_scalars(-7);
  v1::MetricValue& metric = *proto.add_metrics();
  metric.set_numerator(1 << 20);
  metric.set_count(2);
  return proto;
}

TEST(UploadHeaderFromProtoTest, Good_EveryFieldArrives) {
  const Result<UploadHeader> header = FromProto(GoodHeader());
  ASSERT_THAT(header, IsOk());
  EXPECT_EQ(header->assignment_id, "as-1");
  EXPECT_EQ(header->size_bytes, 10U);
  EXPECT_EQ(header->codec, plan::CodecName::kFloat32);
  EXPECT_EQ(header->weight, 5U);
  EXPECT_THAT(header->scalars, ElementsAre(-7));
  EXPECT_THAT(header->metrics,
              ElementsAre(aggregation::MetricValue{1 << 20, 2}));
}

TEST(UploadHeaderFromProtoTest, OutOfBounds_NamesTheField) {
  v1::UploadHeader proto = GoodHeader();
  proto.clear_assignment_id();
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("assignment_id")));
  proto = GoodHeader();
  proto.set_token(std::string(65, 't'));
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("token")));
  proto = GoodHeader();
  proto.set_digest(std::string(31, 'd'));
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("digest has 31")));
  proto = GoodHeader();
  proto.set_size(0);
  EXPECT_THAT(FromProto(proto), IsOk());  // an evaluation
  proto.clear_metrics();
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("size is 0")));
  proto.set_size(std::numeric_limits<uint64_t>::max());
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("size is")));
  proto = GoodHeader();
  proto.set_codec(v1::CODEC_UNSPECIFIED);
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("codec 0")));
  proto.set_codec(static_cast<v1::Codec>(77));
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("codec 77")));
  proto = GoodHeader();
  for (int i = 0; i < 16; ++i) proto.add_scalars(1);
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("scalars")));
  proto = GoodHeader();
  for (int i = 0; i < 32; ++i) proto.add_metrics();
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("metrics")));
}

TEST(FetchFromProtoTest, DigestOfAnotherSize_IsRefused) {
  v1::FetchRequest proto;
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("digest has 0")));
  proto.set_digest(std::string(33, 'd'));
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("digest has 33")));
  proto.set_digest(std::string(32, 'd'));
  EXPECT_THAT(FromProto(proto), IsOk());
}

TEST(AbandonFromProtoTest, ReasonOutsideTheEnum_IsRefused) {
  v1::AbandonRequest proto;
  proto.set_assignment_id("as-1");
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("reason 0")));
  proto.set_reason(static_cast<v1::AbandonRequest::Reason>(9));
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("reason 9")));
  proto.set_reason(v1::AbandonRequest::TRAINING_FAILED);
  ASSERT_THAT(FromProto(proto), IsOk());
  EXPECT_EQ(FromProto(proto)->reason, AbandonReason::kTrainingFailed);
  proto.set_reason(v1::AbandonRequest::PLAN_BELOW_FLOOR);
  EXPECT_EQ(FromProto(proto)->reason, AbandonReason::kPlanBelowFloor);
  proto.set_message(std::string(513, 'm'));
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("message")));
}

TEST(ReportFromProtoTest, OutOfBounds_NamesTheField) {
  v1::ReportRequest proto;
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("report_id")));
  proto.set_report_id("r");
  proto.add_counters()->set_name("ok.count_1");
  EXPECT_THAT(FromProto(proto), IsOk());
  proto.add_counters()->set_name("ok.count_1");
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("twice")));
  proto.mutable_counters(1)->set_name("Upper");
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("counters.name")));
  proto.mutable_counters(1)->set_name(std::string(65, 'a'));
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("counters.name")));
  proto.clear_counters();
  for (int i = 0; i < 65; ++i) {
    proto.add_counters()->set_name("c" + std::to_string(i));
  }
  EXPECT_THAT(FromProto(proto),
              StatusIs(kInvalid, HasSubstr("counters has 65")));
}

TEST(CheckInToProtoTest, Assignment_EveryFieldArrives) {
  Assignment assignment;
  assignment.id = "as-1";
  assignment.task = "t";
  assignment.round = 4;
  assignment.plan_digest.bytes.fill(1);
  assignment.checkpoint_digest.bytes.fill(2);
  assignment.checkpoint_codec = plan::CodecName::kFloat16;
  assignment.base_version = 3;
  assignment.compute_deadline = std::chrono::milliseconds(1500);
  assignment.upload_deadline = std::chrono::seconds(-3);
  assignment.seed = 99;
  CheckInAnswer answer;
  answer.work = assignment;
  answer.retry = {std::chrono::seconds(9), std::chrono::seconds(5)};
  answer.outcomes.push_back({"as-0", OutcomeState::kCommitted});

  const v1::CheckInResponse proto = ToProto(answer);
  ASSERT_TRUE(proto.has_assignment());
  EXPECT_EQ(proto.assignment().mode(), v1::Assignment::TRAIN);
  std::get<Assignment>(answer.work).mode = RoundMode::kEvaluate;
  EXPECT_EQ(ToProto(answer).assignment().mode(), v1::Assignment::EVALUATE);
  EXPECT_EQ(proto.assignment().plan_digest(), std::string(32, '\1'));
  EXPECT_EQ(proto.assignment().plan_signature().size(), 64U);
  EXPECT_EQ(proto.assignment().checkpoint_codec(), v1::FLOAT16);
  EXPECT_EQ(proto.assignment().token().size(), 32U);
  EXPECT_EQ(proto.assignment().compute_deadline_ms(), 1500U);
  EXPECT_EQ(proto.assignment().upload_deadline_ms(), 0U);
  EXPECT_EQ(proto.assignment().seed(), 99U);
  EXPECT_EQ(proto.retry().min_ms(), 9000U);
  EXPECT_EQ(proto.retry().max_ms(), 9000U);  // never below min
  ASSERT_EQ(proto.outcomes_size(), 1);
  EXPECT_EQ(proto.outcomes(0).state(), v1::AssignmentOutcome::COMMITTED);
}

TEST(CheckInToProtoTest, OfferAndNothing_AreToldApart) {
  CheckInAnswer answer;
  EXPECT_EQ(ToProto(answer).work_case(), v1::CheckInResponse::WORK_NOT_SET);
  ModelOffer offer;
  offer.version = 7;
  answer.work = offer;
  EXPECT_EQ(ToProto(answer).model().version(), 7U);
}

TEST(ReceiptToProtoTest, EveryReason_HasTheSameName) {
  for (int reason = 1; reason <= 12; ++reason) {
    const v1::Receipt proto = ToProto(Receipt{ReceiptStatus::kRejected,
                                              static_cast<RejectReason>(reason),
                                              "why",
                                              {}});
    EXPECT_EQ(v1::Receipt::Reason_Name(proto.reason()),
              RejectReasonName(static_cast<RejectReason>(reason)));
    EXPECT_EQ(proto.status(), v1::Receipt::REJECTED);
  }
}

TEST(AdminFromProtoTest, OutOfBounds_NamesTheField) {
  EXPECT_THAT(PageFrom(1001, ""), StatusIs(kInvalid, HasSubstr("page_size")));
  EXPECT_THAT(PageFrom(1, std::string(257, 'x')),
              StatusIs(kInvalid, HasSubstr("page_token")));
  ASSERT_THAT(PageFrom(0, ""), IsOk());
  EXPECT_EQ(PageFrom(0, "")->size, 100U);

  v1::CreateTaskRequest task;
  EXPECT_THAT(FromProto(task), StatusIs(kInvalid, HasSubstr("task_file")));
  task.set_task_file(std::string(plan::kTaskFileSizeMax + 1, 'x'));
  EXPECT_THAT(FromProto(task), StatusIs(kInvalid, HasSubstr("task_file")));
  task.set_task_file("name: t");
  EXPECT_THAT(FromProto(task), StatusIs(kInvalid, HasSubstr("program_digest")));
  task.set_program_digest(std::string(32, 'p'));
  ASSERT_THAT(FromProto(task), IsOk());
  EXPECT_TRUE(FromProto(task)->initial_digest.empty());
  task.set_initial_digest("short");
  EXPECT_THAT(FromProto(task), StatusIs(kInvalid, HasSubstr("initial_digest")));
  task.clear_initial_digest();
  task.set_request_id(std::string(65, 'r'));
  EXPECT_THAT(FromProto(task), StatusIs(kInvalid, HasSubstr("request_id")));

  v1::CreateEnrolmentTokenRequest token;
  token.set_population("demo");
  ASSERT_THAT(FromProto(token), IsOk());
  EXPECT_EQ(FromProto(token)->ttl, std::chrono::hours(24));
  EXPECT_EQ(FromProto(token)->uses_max, 1U);
  token.set_ttl_seconds(kTokenTtlSecondsMax + 1);
  EXPECT_THAT(FromProto(token), StatusIs(kInvalid, HasSubstr("ttl_seconds")));
  token.set_ttl_seconds(1);
  token.set_uses_max(kTokenUsesMax + 1);
  EXPECT_THAT(FromProto(token), StatusIs(kInvalid, HasSubstr("uses_max")));

  v1::ArtifactHeader header;
  header.set_digest(std::string(32, 'd'));
  EXPECT_THAT(FromProto(header), StatusIs(kInvalid, HasSubstr("size is 0")));
  header.set_size(kArtefactSizeMax + 1);
  EXPECT_THAT(FromProto(header), StatusIs(kInvalid, HasSubstr("size is")));

  EXPECT_THAT(CheckWireName("name", "a b"), StatusIs(kInvalid));
  EXPECT_THAT(CheckWireName("name", "-dash.and_dot9"), IsOk());
}

v1::Evaluation GoodEvaluation() {
  v1::Evaluation proto;
  proto.set_task("t");
  proto.set_version(3);
  proto.set_data_set("t10k");
  proto.set_data_digest(std::string(32, 'd'));
  proto.set_model_digest(std::string(32, 'm'));
  proto.set_example_count(10);
  v1::Evaluation::NamedValue& metric = *proto.add_metrics();
  metric.set_name("accuracy");
  metric.set_value(0.5);
  return proto;
}

TEST(EvaluationTest, ThereAndBack_EveryFieldArrives) {
  const Result<EvaluationInfo> info = FromProto(GoodEvaluation());
  ASSERT_THAT(info, IsOk());
  EXPECT_EQ(info->example_count, 10U);
  EXPECT_EQ(ToProto(*info).SerializeAsString(),
            GoodEvaluation().SerializeAsString());
}

TEST(EvaluationTest, OutOfBounds_NamesTheField) {
  v1::Evaluation proto = GoodEvaluation();
  proto.set_task("a b");
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("task")));
  proto = GoodEvaluation();
  proto.set_data_set(std::string(65, 'x'));
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("data_set")));
  proto = GoodEvaluation();
  proto.set_data_digest("d");
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("data_digest")));
  proto = GoodEvaluation();
  proto.clear_model_digest();
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("model_digest")));
  proto = GoodEvaluation();
  proto.add_metrics()->set_name("a\n");
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("metrics.name")));
  proto = GoodEvaluation();
  for (int i = 0; i < 32; ++i) proto.add_metrics()->set_name("m");
  EXPECT_THAT(FromProto(proto), StatusIs(kInvalid, HasSubstr("metrics has")));
}

TEST(TaskToProtoTest, EveryFieldArrives) {
  TaskInfo task;
  task.name = "t";
  task.state = TaskState::kFinished;
  task.metrics = {"accuracy", "loss"};
  task.etag = "e";
  const v1::Task proto = ToProto(task);
  EXPECT_EQ(proto.state(), v1::Task::FINISHED);
  EXPECT_THAT(proto.metrics(), ElementsAre("accuracy", "loss"));
  EXPECT_THAT(proto.initial_digest(), IsEmpty());
  EXPECT_FALSE(proto.has_best_version());
  task.best = TaskInfo::Best{0, -0.5};
  task.stale = 3;
  task.end_reason = "why";
  task.evaluated_rounds = 2;
  EXPECT_TRUE(ToProto(task).has_best_version());
  EXPECT_EQ(ToProto(task).best_value(), -0.5);
  EXPECT_EQ(ToProto(task).stale_versions(), 3U);
  EXPECT_EQ(ToProto(task).end_reason(), "why");
  EXPECT_EQ(ToProto(task).evaluated_rounds(), 2U);
  TaskSnapshot snapshot;
  snapshot.task = task;
  snapshot.key_metric_history = {0.5, 0.75};
  EXPECT_FALSE(ToProto(snapshot).has_round());
  EXPECT_THAT(ToProto(snapshot).key_metric_history(), ElementsAre(0.5, 0.75));
}

TEST(StatusToGrpcTest, CodeAndTextSurvive) {
  const grpc::Status status = ToGrpc(NotFound("round 3"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(status.error_message(), "round 3");
  EXPECT_TRUE(ToGrpc(OkStatus()).ok());
}

}  // namespace
}  // namespace selvage::coordinator

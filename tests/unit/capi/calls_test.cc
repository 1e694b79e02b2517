// What the calls of selvage.h say about a client: outcomes, outbox, audit,
// models, and the rule of one call at a time.
#include <thread>

#include <gmock/gmock.h>

#include "client/capi/handles.h"
#include "client/capi/selvage.h"
#include "client/capi/selvage.hpp"
#include "tests/testing/fake_keystore.h"
#include "tests/unit/client/client_fixture.h"

namespace selvage::capi {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class CallsTest : public test::ClientFixture {
 protected:
  CallsTest() {
    Open();
    AddExamples(24);
    app_.emplace(Adopt(std::move(client_)));
  }

  host::RunResult RunUntilOutcome(int32_t wanted) {
    host::RunResult result;
    for (int i = 0; i < 10; ++i) {
      result = app_->RunOnce();
      if (result.outcome == wanted) return result;
      const Time next = FromMicros(result.next_run_us);
      if (next > clock_.Now()) clock_.Advance(next - clock_.Now());
    }
    ADD_FAILURE() << "no session ended as " << selvage_outcome_name(wanted)
                  << ": " << result.reason;
    return result;
  }

  std::optional<host::Client> app_;
};

TEST_F(CallsTest, RunOnce_Assignment_Contributes) {
  server_->Give(server_->NewAssignment());
  const host::RunResult result = RunUntilOutcome(SELVAGE_CONTRIBUTED);
  EXPECT_EQ(result.task, "digits");
  EXPECT_TRUE(result.enrolled);
  EXPECT_GT(result.next_run_us, ToMicros(clock_.Now()));
  EXPECT_GT(result.bytes_sent, 0U);
  EXPECT_THAT(app_->DeviceId(), HasSubstr("dev-7"));
  EXPECT_THAT(app_->InspectOutbox(), IsEmpty());
  const std::vector<host::AuditEntry> audit = app_->Audit();
  ASSERT_THAT(audit, SizeIs(2));
  EXPECT_EQ(audit[0].result, SELVAGE_AUDIT_ACCEPTED);
  EXPECT_EQ(audit[1].result, SELVAGE_AUDIT_RECORDED);
  EXPECT_EQ(audit[0].task, "digits");
  EXPECT_GT(audit[0].size, 0U);
  EXPECT_GT(audit[0].norm, 0);
}

TEST_F(CallsTest, InspectOutbox_UploadFails_ShowsTheUpdate) {
  server_->Give(server_->NewAssignment());
  server_->hook = [](const std::string& call) {
    return call == "upload" ? Unavailable("no network") : OkStatus();
  };
  RunUntilOutcome(SELVAGE_FAILED);
  const std::vector<host::OutboxItem> outbox = app_->InspectOutbox();
  ASSERT_THAT(outbox, SizeIs(1));
  EXPECT_EQ(outbox[0].task, "digits");
  EXPECT_GT(outbox[0].size, 0U);
  EXPECT_GT(outbox[0].weight, 0U);
  app_->ForgetMe();
  EXPECT_THAT(app_->InspectOutbox(), IsEmpty());
  EXPECT_EQ(app_->CountExamples("numbers"), 0U);
  EXPECT_EQ(app_->Audit().front().result, SELVAGE_AUDIT_WITHDRAWN);
  app_->ForgetMe(/*audit_too=*/true);
  EXPECT_THAT(app_->Audit(), IsEmpty());
}

TEST_F(CallsTest, GetModel_AfterAnOffer_HasItsScores) {
  server_->Give(server_->NewOffer(4));
  RunUntilOutcome(SELVAGE_INSTALLED);
  EXPECT_THAT(app_->Tasks(), ElementsAre("digits"));
  const host::Model model = app_->GetModel("digits");
  EXPECT_EQ(model.version, 4U);
  EXPECT_TRUE(model.personal_serving);
  EXPECT_THAT(model.metrics, ElementsAre("accuracy", "loss"));
  EXPECT_THAT(model.global_scores, SizeIs(2));
  EXPECT_THAT(model.personal_scores, SizeIs(2));
  EXPECT_GT(model.holdout_count, 0U);
  EXPECT_FALSE(model.training_paused);
  const std::vector<uint8_t> input(32, 6);
  const host::Prediction prediction = app_->Predict("digits", input, 2);
  EXPECT_EQ(prediction.shape[0], 2);
  EXPECT_EQ(prediction.version, 4U);
  EXPECT_TRUE(prediction.personal);
  const std::vector<int64_t> labels = {6, 6};
  const auto scores =
      app_->Evaluate("digits", SELVAGE_SLOT_PERSONAL,
                     {host::Tensor::Of(input), host::Tensor::Of(labels)}, 2);
  ASSERT_TRUE(scores.has_value());
  EXPECT_EQ((*scores)[0], 1.0);
  EXPECT_EQ(
      app_->Evaluate("digits", SELVAGE_SLOT_ALONE,
                     {host::Tensor::Of(input), host::Tensor::Of(labels)}, 2),
      std::nullopt);
  EXPECT_GT(app_->TrainLocally("digits"), 0U);
}

// An app that adapts its model bit by bit, and is interrupted.
TEST_F(CallsTest, TrainLocally_StartPersonal_GoesOnAlsoFromACancel) {
  trainer_.state.features = client::kAllTrainingFeatures;
  trainer_.state.can_checkpoint = true;
  server_->plan.personalize.start = plan::PersonalStart::kPersonal;
  server_->Publish(server_->plan, server_->program);
  server_->Give(server_->NewOffer(4));
  RunUntilOutcome(SELVAGE_INSTALLED);
  trainer_.state.optimizers.clear();
  trainer_.state.steps = 0;
  {
    host::Cancel cancel;
    trainer_.state.before = [&, n = 0](const std::string& call) mutable {
      if (call == "step" && ++n == 4) cancel.Now();
      return OkStatus();
    };
    try {
      app_->TrainLocally("digits", {}, &cancel);
      ADD_FAILURE() << "not cancelled";
    } catch (const host::Error& error) {
      EXPECT_EQ(error.code(), SELVAGE_CANCELLED);
    }
    trainer_.state.before = [](const std::string&) { return OkStatus(); };
  }
  EXPECT_EQ(app_->TrainLocally("digits"), 8U);
  EXPECT_EQ(trainer_.state.steps, 8);
  EXPECT_EQ(app_->TrainLocally("digits"), 8U);
  // What the optimizer began with: eight steps, the same again, sixteen.
  std::vector<uint8_t> steps;
  for (const std::optional<Bytes>& state : trainer_.state.optimizers) {
    steps.push_back(state.has_value() ? state->front() : 0);
  }
  EXPECT_THAT(steps, ElementsAre(8, 8, 16));
  EXPECT_TRUE(app_->GetModel("digits").personal_serving);
}

TEST_F(CallsTest, AddExamples_SameKey_IsCountedOnce) {
  const std::vector<uint8_t> input(16, 6);
  const std::int64_t label = 6;
  host::Example example({host::Tensor::Of(input), host::Tensor::Of(label)});
  example.key = "a.csv/1";
  const std::int64_t id = app_->AddExample("numbers", example);
  EXPECT_EQ(app_->AddExample("numbers", example), id);
  EXPECT_EQ(app_->CountExamples("numbers"), 25U);
  example.key.assign(257, 'k');
  EXPECT_THROW(app_->AddExample("numbers", example), host::Error);
}

// An app of version 0.1: its examples end before the key.
TEST_F(CallsTest, AddExample_StructOfTheFirstVersion_HasNoKey) {
  const std::vector<uint8_t> input(16, 6);
  const std::int64_t label = 6;
  const host::Tensor inputs[] = {host::Tensor::Of(input),
                                 host::Tensor::Of(label)};
  const selvage_tensor tensors[] = {inputs[0].View(), inputs[1].View()};
  selvage_example example{};
  example.struct_size = offsetof(selvage_example, key);
  example.input_count = 2;
  example.inputs = tensors;
  example.key = "not part of it";
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(selvage_add_example(app_->handle(), "numbers", &example, nullptr),
              SELVAGE_OK);
  }
  EXPECT_EQ(app_->CountExamples("numbers"), 26U);
}

TEST_F(CallsTest, RunOnce_BesideAnotherCall_IsRefused) {
  server_->Give(server_->NewOffer(4));
  RunUntilOutcome(SELVAGE_INSTALLED);
  selvage_client* handle = app_->handle();
  // From within the session, as a callback that blocks would.
  selvage_code second = SELVAGE_OK;
  selvage_code predicted = SELVAGE_UNKNOWN;
  std::string text;
  server_->hook = [&](const std::string&) {
    std::thread([&] {
      uint64_t count = 0;
      second = selvage_count_examples(handle, "numbers", &count);
      text = selvage_last_error();
      const uint8_t input[16] = {6};
      selvage_prediction* out = nullptr;
      predicted =
          selvage_predict(handle, "digits", input, sizeof input, 1, &out);
      selvage_free(out);
    }).join();
    return OkStatus();
  };
  clock_.Advance(std::chrono::hours(24));
  (void)app_->RunOnce();
  EXPECT_EQ(second, SELVAGE_FAILED_PRECONDITION);
  EXPECT_EQ(text, "another call of this client is under way");
  EXPECT_EQ(predicted, SELVAGE_OK);
}

// A client whose callbacks come from the C structs.
class HostTest : public test::ClientFixture {
 protected:
  void OpenHost() {
    callbacks_.struct_size = sizeof callbacks_;
    if (callbacks_.user == nullptr) callbacks_.user = &said_;
    selvage_options options{};
    options.struct_size = sizeof options;
    options.callbacks = &callbacks_;
    auto host = Host::Create(options);
    ASSERT_THAT(host, test::IsOk());
    host_ = *std::move(host);
    client::ClientDependencies dependencies = Dependencies();
    const client::ClientDependencies hosts = host_->Dependencies();
    dependencies.consent = hosts.consent;
    dependencies.conditions = hosts.conditions;
    dependencies.progress = hosts.progress;
    dependencies.identity_key = hosts.identity_key;
    auto client = client::Client::Open(Options(), std::move(dependencies));
    ASSERT_THAT(client, test::IsOk());
    client_ = *std::move(client);
    AddExamples(24);
  }

  selvage_callbacks callbacks_{};
  std::vector<std::string> said_;
  std::unique_ptr<Host> host_;
};

TEST_F(HostTest, Consent_Refused_Declines) {
  callbacks_.consent = [](void* user, const selvage_consent_request* request) {
    static_cast<std::vector<std::string>*>(user)->push_back(
        std::string(request->task) + "/" + request->collection +
        (request->upload != 0 ? "/upload" : ""));
    return int32_t{0};
  };
  OpenHost();
  server_->Give(server_->NewAssignment());
  RunUntil(client::RunResult::kDeclined);
  EXPECT_THAT(said_, ElementsAre("digits/numbers/upload"));
  EXPECT_EQ(trainer_.state.trainings, 0);
}

TEST_F(HostTest, Consent_Blocks_PredictGoesOn) {
  struct Asked {
    selvage_client* client = nullptr;
    selvage_code predicted = SELVAGE_UNKNOWN;
    selvage_code counted = SELVAGE_OK;
  } asked;
  callbacks_.user = &asked;
  callbacks_.consent = [](void* user, const selvage_consent_request*) {
    auto* seen = static_cast<Asked*>(user);
    if (seen->client == nullptr) return int32_t{1};
    // Somebody thinks about it; meanwhile another thread is at work.
    std::thread([seen] {
      const uint8_t input[16] = {6};
      selvage_prediction* out = nullptr;
      seen->predicted =
          selvage_predict(seen->client, "digits", input, sizeof input, 1, &out);
      selvage_free(out);
      uint64_t count = 0;
      seen->counted = selvage_count_examples(seen->client, "numbers", &count);
    }).join();
    return int32_t{1};
  };
  OpenHost();
  server_->Give(server_->NewOffer(4));
  RunUntil(client::RunResult::kInstalled);
  host::Client app(Adopt(std::move(client_)));
  asked.client = app.handle();
  server_->Give(server_->NewAssignment());
  clock_.Advance(std::chrono::hours(24));
  (void)app.RunOnce();
  EXPECT_EQ(asked.predicted, SELVAGE_OK);
  EXPECT_EQ(asked.counted, SELVAGE_FAILED_PRECONDITION);
}

TEST_F(HostTest, Conditions_Failing_StopTheSession) {
  callbacks_.conditions = [](void*, selvage_conditions*) {
    return selvage_code{SELVAGE_UNAVAILABLE};
  };
  OpenHost();
  server_->Give(server_->NewAssignment());
  const client::RunOutcome outcome = Run();
  EXPECT_NE(outcome.result, client::RunResult::kContributed);
  EXPECT_EQ(trainer_.state.trainings, 0);
}

TEST_F(HostTest, Progress_Phases_ComeInOrder) {
  callbacks_.progress = [](void* user, const selvage_progress* progress) {
    auto& said = *static_cast<std::vector<std::string>*>(user);
    const std::string phase = std::to_string(progress->phase);
    if (said.empty() || said.back() != phase) said.push_back(phase);
  };
  OpenHost();
  server_->Give(server_->NewAssignment());
  RunUntil(client::RunResult::kContributed);
  EXPECT_THAT(said_, ::testing::IsSupersetOf(
                         {std::to_string(SELVAGE_PHASE_CHECKING_IN),
                          std::to_string(SELVAGE_PHASE_TRAINING),
                          std::to_string(SELVAGE_PHASE_UPLOADING)}));
}

// user: a keystore.
selvage_code SignInKeystore(void* user, const uint8_t digest[32],
                            uint8_t signature[64]) {
  const Bytes made = static_cast<test::FakeKeystore*>(user)->Sign(
      *crypto::Digest::FromBytes(ByteSpan(digest, 32)));
  std::copy(made.begin(), made.end(), signature);
  return SELVAGE_OK;
}

TEST_F(HostTest, Sign_Keystore_Enrols) {
  test::FakeKeystore keystore;
  for (const bool as_point : {false, true}) {
    client_.reset();
    host_.reset();
    state_dir_ = directory_.path() / (as_point ? "point" : "info");
    server_->identities.clear();
    // Copied: it may go when the client is open.
    Bytes key = keystore.PublicKey();
    if (as_point) key.erase(key.begin(), key.begin() + 26);
    callbacks_.sign = SignInKeystore;
    callbacks_.identity_public_key = key.data();
    callbacks_.identity_public_key_size = key.size();
    callbacks_.user = &keystore;
    OpenHost();
    std::fill(key.begin(), key.end(), uint8_t{0});
    const client::RunOutcome outcome = Run();
    EXPECT_TRUE(outcome.enrolled) << outcome.reason;
    EXPECT_EQ(server_->identities.at("dev-7"),
              crypto::Sha256(keystore.PublicKey()));
  }
}

TEST_F(HostTest, Sign_Failing_IsTheSessionsReason) {
  test::FakeKeystore keystore;
  const Bytes key = keystore.PublicKey();
  callbacks_.sign = [](void*, const uint8_t*, uint8_t*) {
    return selvage_code{SELVAGE_UNAVAILABLE};
  };
  callbacks_.identity_public_key = key.data();
  callbacks_.identity_public_key_size = key.size();
  OpenHost();
  client::RunOutcome outcome = Run();
  EXPECT_EQ(outcome.result, client::RunResult::kFailed);
  EXPECT_THAT(outcome.reason, HasSubstr("UNAVAILABLE"));
  EXPECT_THAT(outcome.reason, HasSubstr("keystore failed (status 14)"));
  EXPECT_FALSE(outcome.enrolled);
}

TEST_F(CallsTest, RunOnce_Cancelled_Interrupts) {
  server_->Give(server_->NewAssignment());
  host::Cancel cancel;
  trainer_.state.before = [&](const std::string& call) {
    if (call == "step") cancel.Now();
    return OkStatus();
  };
  const host::RunResult result = app_->RunOnce({}, &cancel);
  EXPECT_EQ(result.outcome, SELVAGE_INTERRUPTED) << result.reason;
}

}  // namespace
}  // namespace selvage::capi

#include "client/client.h"

#include <sys/stat.h>

#include <fstream>
#include <thread>

#include <gmock/gmock.h>

#include "tests/unit/client/client_fixture.h"

namespace selvage::client {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;
using test::FakeServer;
using test::IsOk;
using test::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ClientTest : public test::ClientFixture {};

TEST_F(ClientTest, RunOnce_FirstRound_EnrollsTrainsAndContributes) {
  Open();
  AddExamples(24);
  server_->Give(server_->NewAssignment());

  const RunOutcome outcome = Run();

  EXPECT_EQ(outcome.result, RunResult::kContributed) << outcome.reason;
  EXPECT_TRUE(outcome.enrolled);
  EXPECT_EQ(outcome.task, "digits");
  EXPECT_EQ(outcome.round, 1U);
  EXPECT_EQ(client_->device_id(), "dev-7");
  EXPECT_EQ(server_->updates.size(), 1U);
  EXPECT_EQ(server_->enrolments, 1);
  EXPECT_GE(outcome.next_run - clock_.Now(), seconds(20));
  // The base version was personalised as well.
  const Result<ModelInfo> info = client_->Info("digits");
  ASSERT_THAT(info, IsOk());
  EXPECT_EQ(info->version, 0U);
  EXPECT_TRUE(info->personal_serving);
}

TEST_F(ClientTest, RunOnce_SameSeed_SameUpdateBytes) {
  Bytes first;
  for (int i = 0; i < 2; ++i) {
    SCOPED_TRACE(i);
    state_dir_ = directory_.path() / ("state" + std::to_string(i));
    server_ = std::make_unique<FakeServer>(clock_);
    Open();
    AddExamples(24);
    server_->Give(server_->NewAssignment());
    EXPECT_EQ(Run().result, RunResult::kContributed);
    if (i == 0) first = server_->payloads["round-1"];
  }
  EXPECT_EQ(server_->payloads["round-1"], first);
  EXPECT_FALSE(first.empty());
}

TEST_F(ClientTest, RunOnce_Update_IsWeighedByTrainingExamplesOnly) {
  Open();
  AddExamples(24);
  server_->Give(server_->NewAssignment());
  Run();
  const uint64_t holdout = client_->Info("digits")->holdout_count;
  EXPECT_GT(holdout, 0U);
  EXPECT_EQ(server_->weights["round-1"], 24 - holdout);
}

TEST_F(ClientTest, RunOnce_Evaluation_SendsMetricsOfTheHoldOut_AndNothingElse) {
  Open();
  AddExamples(60);
  Assignment evaluation = server_->NewAssignment();
  evaluation.evaluate = true;
  server_->Give(evaluation);

  EXPECT_EQ(Run().result, RunResult::kContributed);

  EXPECT_TRUE(server_->payloads.at("round-1").empty());
  EXPECT_EQ(server_->weights.at("round-1"), 1u);
  const auto metrics = server_->metrics.at("round-1");
  ASSERT_EQ(metrics.size(), 2u);
  // Far fewer than all 60: what is held out.
  EXPECT_GT(metrics[0].count, 0);
  EXPECT_LT(metrics[0].count, 30);
  EXPECT_EQ(trainer_.state.trainings, 0);
  const auto audit = client_->Audit(10);
  ASSERT_THAT(audit, IsOk());
  ASSERT_EQ(audit->size(), 2u);
  for (const AuditEntry& entry : *audit) {
    EXPECT_TRUE(entry.metrics_only());
    EXPECT_EQ(entry.norm, 0);
  }
  EXPECT_EQ(audit->front().result, AuditResult::kAccepted);
  // No model was installed: nothing was personalised.
  EXPECT_THAT(client_->Info("digits"),
              StatusIs(StatusCode::kFailedPrecondition));
}

TEST_F(ClientTest, RunOnce_EvaluationNotSent_IsSentAfterARestart_Once) {
  Open();
  AddExamples(60);
  Assignment evaluation = server_->NewAssignment();
  evaluation.evaluate = true;
  server_->Give(evaluation);
  server_->hook = [](const std::string& call) {
    return call == "upload" ? Unavailable("no network") : OkStatus();
  };
  EXPECT_EQ(Run().result, RunResult::kFailed);
  const auto waiting = client_->InspectOutbox();
  ASSERT_THAT(waiting, IsOk());
  ASSERT_EQ(waiting->size(), 1u);
  EXPECT_EQ(waiting->front().size_bytes, 0u);
  server_->hook = [](const auto&) { return OkStatus(); };
  AddExamples(20);  // changes nothing about what is in the outbox
  Open();
  WaitForTurn();

  EXPECT_EQ(Run().result, RunResult::kContributed);

  EXPECT_EQ(server_->conflicts, 0);
  EXPECT_LT(server_->metrics.at("round-1")[0].count, 30);
  EXPECT_TRUE(client_->InspectOutbox()->empty());
}

TEST_F(ClientTest, RunOnce_Evaluation_IsRefusedLikeTraining) {
  Open();
  Assignment evaluation = server_->NewAssignment();
  evaluation.evaluate = true;
  server_->Give(evaluation);
  EXPECT_EQ(Run().result, RunResult::kDeclined);
  ASSERT_EQ(server_->abandoned.size(), 1u);
  EXPECT_EQ(server_->abandoned[0], AbandonReason::kTooFewExamples);

  AddExamples(60);
  server_->plan.data.holdout = 0;
  server_->Publish(server_->plan, server_->program);
  evaluation = server_->NewAssignment();
  evaluation.evaluate = true;
  server_->Give(evaluation);
  WaitForTurn();
  EXPECT_EQ(Run().result, RunResult::kDeclined);
  ASSERT_EQ(server_->abandoned.size(), 2u);
  EXPECT_EQ(server_->abandoned[1], AbandonReason::kTooFewExamples);
  EXPECT_TRUE(server_->updates.empty());
}

TEST_F(ClientTest, RunOnce_NotDue_DoesNotCallTheCoordinator) {
  Open();
  const RunOutcome first = Run();
  EXPECT_EQ(first.result, RunResult::kNothingToDo);
  const size_t check_ins = server_->check_ins.size();
  const RunOutcome again = Run();
  EXPECT_EQ(again.result, RunResult::kNothingToDo);
  EXPECT_EQ(again.next_run, first.next_run);
  Open();  // the time is kept across restarts
  EXPECT_EQ(Run().next_run, first.next_run);
  EXPECT_EQ(server_->check_ins.size(), check_ins);
}

TEST_F(ClientTest, RunOnce_ModelOffer_InstallsPersonalizesAndPredicts) {
  Open();
  AddExamples(24);
  server_->plan.personalize.baseline_alone = true;
  server_->plan.personalize.baseline_epochs = 30;
  server_->Publish(server_->plan, server_->program);
  server_->Give(server_->NewOffer(30));

  EXPECT_EQ(Run().result, RunResult::kInstalled);

  const Result<ModelInfo> info = client_->Info("digits");
  ASSERT_THAT(info, IsOk());
  EXPECT_EQ(info->version, 30U);
  EXPECT_THAT(info->metrics, ElementsAre("accuracy", "loss"));
  EXPECT_GT(info->personal_scores[0], info->global_scores[0]);
  EXPECT_TRUE(info->personal_serving);
  const Bytes pixels(32, 0);
  const auto prediction = client_->Predict("digits", pixels, 2);
  ASSERT_THAT(prediction, IsOk());
  EXPECT_THAT(prediction->shape, ElementsAre(2));
  EXPECT_NEAR(prediction->values[0], 5.5, 0.6);

  ExampleSet examples;
  examples.count = 1;
  Bytes y;
  AppendLe(y, int64_t{6});
  examples.inputs = {Bytes(16, 0), y};
  for (const Slot slot :
       {Slot::kServing, Slot::kGlobal, Slot::kPersonal, Slot::kAlone}) {
    EXPECT_THAT(client_->Evaluate("digits", slot, examples), IsOk())
        << SlotName(slot);
  }
  EXPECT_THAT(client_->Tasks().status(), IsOk());
}

TEST_F(ClientTest, RunOnce_PersonalModelIsWorse_GlobalServes) {
  Open();
  AddExamples(60);
  trainer_.state.personal_harms = true;
  server_->checkpoint.floats[0] = 6;
  server_->PublishCheckpoint(server_->checkpoint);
  server_->Give(server_->NewOffer(3));

  EXPECT_EQ(Run().result, RunResult::kInstalled);

  EXPECT_FALSE(client_->Info("digits")->personal_serving);
  EXPECT_FLOAT_EQ(client_->Predict("digits", Bytes(16, 0), 1)->values[0], 6);
}

TEST_F(ClientTest, RunOnce_NoExamples_InstallsAndServesTheGlobalModel) {
  Open();
  server_->Give(server_->NewOffer(3));
  EXPECT_EQ(Run().result, RunResult::kInstalled);
  const Result<ModelInfo> info = client_->Info("digits");
  EXPECT_FALSE(info->personal_serving);
  EXPECT_TRUE(info->global_scores.empty());
  EXPECT_THAT(client_->Predict("digits", Bytes(16, 0), 1), IsOk());
}

TEST_F(ClientTest, RunOnce_Artefacts_AreFetchedOnce) {
  Open();
  AddExamples(24);
  for (int i = 0; i < 3; ++i) {
    server_->Give(server_->NewAssignment());
    RunUntil(RunResult::kContributed);
    WaitForTurn();
  }
  for (const auto& [digest, bytes] : server_->fetched) {
    const auto& artefact = server_->artefacts[*crypto::Digest::FromHex(digest)];
    EXPECT_EQ(bytes, artefact.size());
  }
  EXPECT_EQ(server_->updates.size(), 3U);
  // One connection to enrol, one for everything else; one loaded program.
  EXPECT_EQ(server_->connections, 2);
  EXPECT_EQ(trainer_.state.loads, 1);
}

TEST_F(ClientTest, RunOnce_CacheDeletedAtAnyTime_FetchesAgain) {
  Open();
  AddExamples(24);
  server_->Give(server_->NewOffer(3));
  Run();
  std::filesystem::remove_all(directory_.path() / "cache");
  Open();
  EXPECT_THAT(client_->Predict("digits", Bytes(16, 0), 1), IsOk());
  WaitForTurn();
  server_->Give(server_->NewAssignment());
  EXPECT_EQ(RunUntil(RunResult::kContributed).result, RunResult::kContributed);
}

TEST_F(ClientTest, RunOnce_DamagedCache_FetchesAgain) {
  Open();
  AddExamples(24);
  server_->Give(server_->NewAssignment());
  Run();
  for (const auto& entry :
       std::filesystem::directory_iterator(directory_.path() / "cache")) {
    std::ofstream(entry.path(), std::ios::binary) << "garbage";
  }
  Open();
  WaitForTurn();
  server_->Give(server_->NewAssignment());
  EXPECT_EQ(RunUntil(RunResult::kContributed).result, RunResult::kContributed);
}

TEST_F(ClientTest, RunOnce_FetchBrokenInTheMiddle_GoesOnFromThere) {
  Open();
  AddExamples(24);
  server_->Give(server_->NewAssignment());
  int chunks = 0;
  server_->hook = [&](const std::string& call) {
    return call == "fetch chunk" && ++chunks == 4 ? Unavailable("broken")
                                                  : OkStatus();
  };
  EXPECT_EQ(Run().result, RunResult::kFailed);
  Open();
  WaitForTurn();
  EXPECT_EQ(RunUntil(RunResult::kContributed).result, RunResult::kContributed);
  for (const auto& [digest, bytes] : server_->fetched) {
    EXPECT_EQ(bytes,
              server_->artefacts[*crypto::Digest::FromHex(digest)].size());
  }
}

// ---- refusals

TEST_F(ClientTest, RunOnce_BadSignature_RefusesThePlan) {
  Open();
  AddExamples(24);
  server_->plan_signature[10] ^= 1;
  server_->Give(server_->NewAssignment());

  const RunOutcome outcome = Run();

  EXPECT_EQ(outcome.result, RunResult::kDeclined);
  EXPECT_THAT(outcome.reason, HasSubstr("not signed"));
  EXPECT_THAT(server_->abandoned, ElementsAre(AbandonReason::kPlanRefused));
  EXPECT_EQ(trainer_.state.loads, 0);
}

TEST_F(ClientTest, RunOnce_UnknownPlanKey_RefusesThePlan) {
  Open();
  AddExamples(24);
  std::string json = plan::CanonicalJson(server_->plan);
  json.insert(1, R"("clip_quietly":true,)");
  server_->PublishPlan(json);
  server_->Give(server_->NewAssignment());

  const RunOutcome outcome = Run();

  EXPECT_EQ(outcome.result, RunResult::kDeclined);
  EXPECT_THAT(server_->abandoned, ElementsAre(AbandonReason::kPlanRefused));
  EXPECT_THAT(server_->abandon_messages,
              ElementsAre(HasSubstr("clip_quietly")));
  EXPECT_EQ(trainer_.state.loads, 0);
}

TEST_F(ClientTest, RunOnce_PlanOfAnotherTaskOrPopulation_IsRefused) {
  Open();
  AddExamples(24);
  const plan::Plan good = server_->plan;
  for (int i = 0; i < 2; ++i) {
    plan::Plan bad = good;
    (i == 0 ? bad.task : bad.population) = "other";
    server_->Publish(bad, server_->program);
    Assignment assignment = server_->NewAssignment();
    assignment.task = "digits";
    server_->Give(assignment);
    EXPECT_EQ(RunUntil(RunResult::kDeclined).result, RunResult::kDeclined);
    WaitForTurn();
  }
  EXPECT_THAT(server_->abandoned, ElementsAre(AbandonReason::kPlanRefused,
                                              AbandonReason::kPlanRefused));
}

TEST_F(ClientTest, RunOnce_ForbiddenOperator_RefusesTheProgramByName) {
  Open();
  AddExamples(24);
  plan::Program program = server_->program;
  program.source = "def forward(self, x): torch.save(x, '/tmp/x')\n";
  server_->Publish(server_->plan, program);
  server_->Give(server_->NewAssignment());

  const RunOutcome outcome = Run();

  EXPECT_EQ(outcome.result, RunResult::kDeclined);
  EXPECT_THAT(outcome.reason, HasSubstr("aten::save"));
  EXPECT_THAT(server_->abandoned, ElementsAre(AbandonReason::kProgramRefused));
  EXPECT_THAT(server_->abandon_messages, ElementsAre(HasSubstr("aten::save")));
}

TEST_F(ClientTest, RunOnce_WrongDigest_DropsTheWork) {
  Open();
  AddExamples(24);
  server_->artefacts[server_->checkpoint_digest][3] ^= 1;
  server_->Give(server_->NewAssignment());
  const RunOutcome outcome = Run();
  EXPECT_EQ(outcome.result, RunResult::kFailed);
  EXPECT_THAT(outcome.reason, HasSubstr("does not have its digest"));
  EXPECT_EQ(trainer_.state.trainings, 0);
}

TEST_F(ClientTest, RunOnce_OversizedArtefact_IsCutOff) {
  Open();
  AddExamples(24);
  Bytes& checkpoint = server_->artefacts[server_->checkpoint_digest];
  checkpoint.resize(checkpoint.size() + 1000);
  server_->Give(server_->NewAssignment());
  EXPECT_EQ(Run().result, RunResult::kFailed);
  EXPECT_LE(server_->fetched[server_->checkpoint_digest.ToHex()], 64U);
}

TEST_F(ClientTest, RunOnce_TooFewExamples_AbandonsAndDoesNotSayHowMany) {
  Open();
  AddExamples(4);
  server_->Give(server_->NewAssignment());
  const RunOutcome outcome = Run();
  EXPECT_EQ(outcome.result, RunResult::kDeclined);
  EXPECT_THAT(outcome.reason, HasSubstr("4 examples"));
  EXPECT_THAT(server_->abandoned, ElementsAre(AbandonReason::kTooFewExamples));
  EXPECT_THAT(server_->abandon_messages, ElementsAre(""));
}

TEST_F(ClientTest, RunOnce_UpdateOutOfRange_AbandonsInsteadOfClipping) {
  Open();
  AddExamples(24);
  trainer_.state.blow_up = 100;
  server_->Give(server_->NewAssignment());
  const RunOutcome outcome = Run();
  EXPECT_EQ(outcome.result, RunResult::kDeclined);
  EXPECT_THAT(outcome.reason, HasSubstr("head[0]"));
  EXPECT_THAT(server_->abandoned,
              ElementsAre(AbandonReason::kUpdateOutOfRange));
  EXPECT_TRUE(server_->updates.empty());
}

TEST_F(ClientTest, RunOnce_TrainingFails_Abandons) {
  Open();
  AddExamples(24);
  trainer_.state.before = [](const std::string& call) {
    return call == "step" ? OutOfRange("the loss is not finite") : OkStatus();
  };
  server_->Give(server_->NewAssignment());
  EXPECT_EQ(Run().result, RunResult::kDeclined);
  EXPECT_THAT(server_->abandoned, ElementsAre(AbandonReason::kTrainingFailed));
  EXPECT_THAT(server_->abandon_messages, ElementsAre(""));
}

TEST_F(ClientTest, RunOnce_ExpiredAssignment_IsDropped) {
  Open();
  AddExamples(24);
  server_->Give(server_->NewAssignment());
  trainer_.state.before = [&](const std::string& call) {
    if (call == "step") cancel_.Cancel();
    return OkStatus();
  };
  EXPECT_EQ(Run().result, RunResult::kInterrupted);
  trainer_.state.before = [](const std::string&) { return OkStatus(); };
  clock_.Advance(minutes(3));

  CancelToken fresh;
  const Result<RunOutcome> outcome = client_->RunOnce({}, fresh);

  ASSERT_THAT(outcome, IsOk());
  EXPECT_TRUE(server_->updates.empty());
  EXPECT_EQ(server_->check_ins.size(), 2U);
}

TEST_F(ClientTest, RunOnce_ComputeDeadlineWhileTraining_GivesTheSlotBack) {
  Open();
  AddExamples(24);
  server_->Give(server_->NewAssignment());
  trainer_.state.before = [&](const std::string& call) {
    if (call == "step") clock_.Advance(minutes(2));
    return OkStatus();
  };
  EXPECT_EQ(Run().result, RunResult::kDeclined);
  EXPECT_THAT(server_->abandoned, ElementsAre(AbandonReason::kInterrupted));
}

TEST_F(ClientTest, RunOnce_Late_IsNotAccepted) {
  Open();
  AddExamples(24);
  server_->receipt_status = ReceiptStatus::kLate;
  server_->Give(server_->NewAssignment());
  EXPECT_EQ(Run().result, RunResult::kNotAccepted);
}

// ---- interruption

TEST_F(ClientTest, RunOnce_BudgetOver_StopsAndGoesOnNextTime) {
  Open();
  AddExamples(24);
  server_->Give(server_->NewAssignment());
  bool slow = true;
  trainer_.state.before = [&](const std::string& call) {
    if (call == "step" && slow) clock_.Advance(seconds(20));
    return OkStatus();
  };
  const Result<RunOutcome> stopped =
      client_->RunOnce({.time = seconds(30)}, cancel_);
  ASSERT_THAT(stopped, IsOk());
  EXPECT_EQ(stopped->result, RunResult::kInterrupted);
  EXPECT_LE(stopped->next_run, clock_.Now());
  slow = false;
  EXPECT_EQ(Run().result, RunResult::kContributed);
}

TEST_F(ClientTest, RunOnce_AlreadyCancelled_DoesNothing) {
  Open();
  cancel_.Cancel();
  EXPECT_EQ(Run().result, RunResult::kInterrupted);
  EXPECT_EQ(server_->connections, 0);
}

TEST_F(ClientTest, RunOnce_NoTime_IsMisuse) {
  Open();
  EXPECT_THAT(client_->RunOnce({.time = Duration::zero()}, cancel_),
              StatusIs(StatusCode::kInvalidArgument));
}

// ---- identity

TEST_F(ClientTest, RunOnce_EnrolmentAnswerLost_SameCertificateNextTime) {
  Open();
  bool lost = false;
  server_->hook = [&](const std::string& call) {
    if (call == "enroll done" && !lost) {
      lost = true;
      return Unavailable("lost");
    }
    return OkStatus();
  };
  EXPECT_EQ(Run().result, RunResult::kFailed);
  Open();
  WaitForTurn();
  RunUntil(RunResult::kNothingToDo);
  EXPECT_EQ(server_->enrolments, 1);
  EXPECT_EQ(client_->device_id(), "dev-7");
}

TEST_F(ClientTest, RunOnce_CertificateOld_IsRenewedWithoutTheToken) {
  Open();
  Run();
  clock_.Advance(hours(24 * 70));  // of 90 days
  Run();
  EXPECT_EQ(server_->enrolments, 2);
  clock_.Advance(hours(24 * 40));  // the first one is over by now
  EXPECT_EQ(Run().result, RunResult::kNothingToDo);
  EXPECT_EQ(server_->check_ins.size(), 3U);
}

TEST_F(ClientTest, RunOnce_SilentTooLong_AsksForANewToken) {
  Open();
  Run();
  clock_.Advance(hours(24 * 100));  // the certificate had 90 days
  const RunOutcome outcome = Run();
  EXPECT_EQ(outcome.result, RunResult::kFailed);
  EXPECT_FALSE(outcome.enrolled);
  EXPECT_THAT(outcome.reason, HasSubstr("new token"));
}

TEST_F(ClientTest, Open_KeyFile_IsPrivate) {
  Open();
  for (const char* name : {"device.key", "storage.key", "client.db"}) {
    struct stat info {};
    ASSERT_EQ(::stat((state_dir_ / name).c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777U, 0600U) << name;
  }
}

TEST_F(ClientTest, Open_BundleKept_IsNotNeededAgain) {
  Open();
  bundle_ = "";
  Open();
  EXPECT_EQ(Run().result, RunResult::kNothingToDo);
}

TEST_F(ClientTest, RunOnce_NoBundle_FailsWithTheReason) {
  bundle_ = "";
  Open();
  const RunOutcome outcome = Run();
  EXPECT_EQ(outcome.result, RunResult::kFailed);
  EXPECT_THAT(outcome.reason, HasSubstr("bundle"));
}

TEST_F(ClientTest, Open_BadBundle_IsRefused) {
  const auto open = [&] {
    return Client::Open(Options(), Dependencies()).status();
  };
  bundle_ = "not json";
  EXPECT_THAT(open(), StatusIs(StatusCode::kInvalidArgument));
  bundle_ = R"({"endpoint": "x:1"})";
  EXPECT_THAT(open(), StatusIs(StatusCode::kInvalidArgument,
                               HasSubstr("ca_certificate")));
  std::string other = server_->Bundle();
  other.replace(other.find("demo"), 4, "else");
  bundle_ = other;
  EXPECT_THAT(open(), StatusIs(StatusCode::kInvalidArgument,
                               HasSubstr("population else")));
  bundle_ = R"({"endpoint": "localhost:1", "ca_certificate": "",
      "token_id": "t", "population": "demo", "token_secret": ")" +
            std::string(64, 'a') + "\"}";
  EXPECT_THAT(open(), StatusIs(StatusCode::kInvalidArgument,
                               HasSubstr("allow_insecure_loopback")));
}

// ---- the facade

TEST_F(ClientTest, Open_Twice_IsRefused) {
  Open();
  EXPECT_THAT(Client::Open(Options(), Dependencies()).status(),
              StatusIs(StatusCode::kFailedPrecondition));
  client_->Close();
  EXPECT_THAT(Client::Open(Options(), Dependencies()).status(), IsOk());
}

TEST_F(ClientTest, Open_AnotherPopulation_IsRefused) {
  Open();
  client_.reset();
  ClientOptions options = Options();
  options.population = "other";
  options.enrolment_bundle.clear();
  EXPECT_THAT(Client::Open(options, Dependencies()).status(),
              StatusIs(StatusCode::kFailedPrecondition,
                       HasSubstr("belongs to population demo")));
}

TEST_F(ClientTest, Open_BadOptions_AreRefused) {
  ClientOptions options = Options();
  options.population = "Not Good";
  EXPECT_THAT(Client::Open(options, Dependencies()).status(),
              StatusIs(StatusCode::kInvalidArgument));
  options = Options();
  options.cache_dir = options.state_dir;
  EXPECT_THAT(Client::Open(options, Dependencies()).status(),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST_F(ClientTest, Close_EveryCall_IsRefusedAfterwards) {
  Open();
  client_->Close();
  client_->Close();
  EXPECT_THAT(client_->RunOnce({}, cancel_),
              StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_THAT(client_->AddExample("numbers", {{Bytes(1, 1)}}),
              StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_THAT(client_->Predict("digits", Bytes(16, 0), 1),
              StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_THAT(client_->Info("digits"),
              StatusIs(StatusCode::kFailedPrecondition));
}

TEST_F(ClientTest, AddExample_BadInput_IsRefused) {
  Open();
  EXPECT_THAT(client_->AddExample("No", {{Bytes(1, 1)}}),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(client_->AddExample("numbers", {}),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(
      client_->AddExample("numbers", {std::vector<Bytes>(17, Bytes(1, 1))}),
      StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(client_->AddExample("numbers", {{Bytes((16 << 20) + 1, 1)}}),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(client_->DeleteExample(77), StatusIs(StatusCode::kNotFound));
}

TEST_F(ClientTest, AddExamples_OneIsBad_NoneIsAdded) {
  Open();
  const std::vector<Example> examples = {{{Bytes(1, 1)}}, {{}}};
  EXPECT_THAT(client_->AddExamples("numbers", examples),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_EQ(*client_->CountExamples("numbers"), 0U);
}

TEST_F(ClientTest, AddExample_OtherShapes_ArePassedOver) {
  Open();
  AddExamples(24);
  ASSERT_THAT(client_->AddExample("numbers", {{Bytes(3, 1), Bytes(8, 0)}}),
              IsOk());
  EXPECT_EQ(*client_->CountExamples("numbers"), 25U);
  server_->Give(server_->NewAssignment());
  EXPECT_EQ(Run().result, RunResult::kContributed);
}

TEST_F(ClientTest, InstallModel_BeforeFirstContact_PredictsAndTrainsLocally) {
  bundle_ = "";
  Open();
  AddExamples(24);
  const std::string plan = plan::CanonicalJson(server_->plan);
  const std::string program = plan::CanonicalJson(server_->program);
  const Bytes values =
      plan::WriteSafetensors(server_->program.table, server_->checkpoint, {});

  ASSERT_THAT(client_->InstallModel(plan, program, {}, values), IsOk());

  const auto before = client_->Predict("digits", Bytes(16, 0), 1);
  ASSERT_THAT(before, IsOk());
  const Result<LocalOutcome> trained =
      client_->TrainLocally("digits", {}, cancel_);
  ASSERT_THAT(trained, IsOk());
  EXPECT_GT(trained->steps, 0U);
  EXPECT_TRUE(trained->model.personal_serving);
  // The snapshot that was serving has been replaced.
  EXPECT_NE(client_->Predict("digits", Bytes(16, 0), 1)->values[0],
            before->values[0]);
  EXPECT_EQ(server_->connections, 0);
}

TEST_F(ClientTest, InstallModel_NewerInstalled_StaysAsItIs) {
  Open();
  server_->Give(server_->NewOffer(3));
  Run();
  const Bytes values =
      plan::WriteSafetensors(server_->program.table, server_->checkpoint, {});
  EXPECT_THAT(
      client_->InstallModel(plan::CanonicalJson(server_->plan),
                            plan::CanonicalJson(server_->program), {}, values),
      IsOk());
  EXPECT_EQ(client_->Info("digits")->version, 3U);
}

TEST_F(ClientTest, InstallModel_WrongProgram_IsRefused) {
  Open();
  plan::Program other = server_->program;
  other.source += "# changed\n";
  EXPECT_THAT(client_->InstallModel(plan::CanonicalJson(server_->plan),
                                    plan::CanonicalJson(other), {}, {}),
              StatusIs(StatusCode::kDataLoss));
}

TEST_F(ClientTest, TrainLocally_NothingInstalled_IsRefused) {
  Open();
  EXPECT_THAT(client_->TrainLocally("digits", {}, cancel_),
              StatusIs(StatusCode::kFailedPrecondition));
}

TEST_F(ClientTest, Predict_WrongSize_IsRefused) {
  Open();
  server_->Give(server_->NewOffer(3));
  Run();
  EXPECT_THAT(client_->Predict("digits", Bytes(15, 0), 1),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(client_->Predict("nobody", Bytes(16, 0), 1),
              StatusIs(StatusCode::kNotFound));
}

TEST_F(ClientTest, Predict_OtherThreadsWhileInstalling_AlwaysAnswers) {
  Open();
  AddExamples(24);
  server_->Give(server_->NewOffer(1));
  Run();
  std::atomic<bool> stop{false};
  std::atomic<int> answers{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      while (!stop.load()) {
        const auto answer = client_->Predict("digits", Bytes(16, 0), 1);
        EXPECT_THAT(answer, IsOk());
        ++answers;
      }
    });
  }
  for (uint64_t version = 2; version < 12; ++version) {
    WaitForTurn();
    server_->checkpoint.floats[0] = static_cast<float>(version);
    server_->PublishCheckpoint(server_->checkpoint);
    server_->Give(server_->NewOffer(version));
    EXPECT_EQ(RunUntil(RunResult::kInstalled).result, RunResult::kInstalled);
  }
  stop.store(true);
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(answers.load(), 0);
}

TEST_F(ClientTest, RunOnce_Telemetry_IsReportedOnceADay) {
  Open();
  AddExamples(24);
  server_->Give(server_->NewAssignment());
  Run();
  EXPECT_TRUE(server_->counters.empty());
  clock_.Advance(hours(2));
  Run();
  EXPECT_THAT(
      server_->counters,
      ::testing::Contains(std::pair<std::string, uint64_t>("accepted", 1)));
  server_->counters.clear();
  clock_.Advance(hours(2));
  Run();
  EXPECT_TRUE(server_->counters.empty());
}

// ---- privacy

bool Contains(ByteSpan haystack, ByteSpan needle) {
  return std::search(haystack.begin(), haystack.end(), needle.begin(),
                     needle.end()) != haystack.end();
}

// FedPer: personal tensors train with the rounds and stay; pixels stay anyway.
TEST_F(ClientTest, RunOnce_Canaries_AreInNoMessageAndNoLog) {
  server_->Publish(server_->plan, test::MakeFakeProgram(true));
  server_->PublishCheckpoint(
      plan::InitializeCheckpoint(server_->program.table, 1));
  Open();
  AddExamples(24);
  for (int i = 0; i < 2; ++i) {
    server_->Give(server_->NewAssignment());
    EXPECT_EQ(RunUntil(RunResult::kContributed).result,
              RunResult::kContributed);
    WaitForTurn();
  }
  server_->Give(server_->NewOffer(9));
  EXPECT_EQ(RunUntil(RunResult::kInstalled).result, RunResult::kInstalled);
  WaitForTurn();
  trainer_.state.blow_up = 1000;  // a refusal has words of its own
  server_->Give(server_->NewAssignment());
  EXPECT_EQ(RunUntil(RunResult::kDeclined).result, RunResult::kDeclined);
  clock_.Advance(hours(3));
  Run();

  Bytes canary;
  AppendLe(canary, test::kPersonalCanary);
  const ByteSpan pixels = AsBytes(std::string_view(test::kPixelCanary, 16));
  EXPECT_GT(server_->wire.size(), 500U);
  EXPECT_FALSE(Contains(server_->wire, pixels));
  EXPECT_FALSE(Contains(server_->wire, canary));
  const std::string log = log_.str();
  EXPECT_GT(log.size(), 100U);
  EXPECT_FALSE(Contains(AsBytes(log), pixels));
  EXPECT_THAT(log, ::testing::Not(HasSubstr("12345")));
  for (const auto& entry :
       std::filesystem::directory_iterator(directory_.path() / "cache")) {
    std::ifstream in(entry.path(), std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(in), {}};
    EXPECT_FALSE(Contains(AsBytes(bytes), pixels));
    EXPECT_FALSE(Contains(AsBytes(bytes), canary));
  }
  // They are where they belong: the personal slot serves the canary.
  EXPECT_TRUE(client_->Info("digits")->personal_serving);
}

// A deleted example is gone from the files, not only from the tables.
TEST_F(ClientTest, DeleteExample_Bytes_AreOverwritten) {
  Open();
  const std::string secret = "DELETE-ME-PLEASE-0123456789";
  const Result<int64_t> id =
      client_->AddExample("numbers", {{ToBytes(secret)}});
  ASSERT_THAT(id, IsOk());
  ASSERT_THAT(client_->DeleteExample(*id), IsOk());
  for (const auto& entry : std::filesystem::directory_iterator(state_dir_)) {
    if (!entry.is_regular_file()) continue;
    std::ifstream in(entry.path(), std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(in), {}};
    EXPECT_EQ(bytes.find(secret), std::string::npos) << entry.path();
  }
}

}  // namespace
}  // namespace selvage::client

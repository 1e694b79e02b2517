// Whole rounds through the two APIs, on virtual time.
#include <gmock/gmock.h>

#include "aggregation/codec/delta_codec.h"
#include "plan/plan.h"
#include "tests/unit/coordinator/world.h"

namespace selvage::coordinator::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kAllFour[] =
    "cohort: 4, min_updates: 4, over_selection: 1.0, round_deadline: 5m";
constexpr char kTwoOfFour[] =
    "cohort: 2, min_updates: 1, over_selection: 1.0, round_deadline: 10m, "
    "min_available_nodes: 4";

class CoordinatorRoundTest : public ::testing::TestWithParam<bool> {
 protected:
  World& Start(const std::string& strategy, int rounds = 3) {
    WorldOptions options;
    options.sqlite = GetParam();
    options.strategy = strategy;
    options.rounds = rounds;
    return Start(std::move(options));
  }
  World& Start(WorldOptions options) {
    options.sqlite = GetParam();
    world_ = std::make_unique<World>(std::move(options));
    world_->SetUpTask();
    world_->Turn();
    return *world_;
  }
  std::unique_ptr<World> world_;
};
INSTANTIATE_TEST_SUITE_P(Stores, CoordinatorRoundTest, ::testing::Bool(),
                         [](const auto& param) {
                           return param.param ? "Sqlite" : "Memory";
                         });

TEST_P(CoordinatorRoundTest, OneRound_EveryUpdate_IsCountedOnceAsExactNumbers) {
  World& world = Start(kAllFour);
  std::map<int, Assignment> assigned = world.DrawRound();
  ASSERT_EQ(assigned.size(), 4u);

  std::vector<World::Answer> answers;
  for (const auto& [device, work] : assigned) {
    answers.push_back(world.SendOneHot(device, work));
  }
  world.coordinator().Poll();

  for (const World::Answer& answer : answers) {
    ASSERT_TRUE(answer->has_value());
    ASSERT_THAT(**answer, IsOk());
    EXPECT_EQ((**answer)->status, ReceiptStatus::kAccepted);
  }
  const auto round = world.coordinator().GetRound("task", 1);
  ASSERT_THAT(round, IsOk());
  EXPECT_EQ(round->state, RoundState::kCommitted);
  EXPECT_EQ(round->result_version, 1u);
  EXPECT_EQ(round->funnel.accepted, 4u);
  EXPECT_EQ(round->funnel.assigned, 4u);
  EXPECT_EQ(round->funnel.checked_in, 4u);
  EXPECT_EQ(round->bytes_up, 4u * 4 * 12);
  const std::vector<float> model = world.Model();
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(model[world.Coordinate(1, i)], 0.25f);
    EXPECT_EQ(model[world.Coordinate(2, i)], 0.0f);
  }
  EXPECT_EQ(world.coordinator().GetRound("task", 2)->state,
            RoundState::kSelecting);
}

TEST_P(CoordinatorRoundTest, Metrics_AreSumsOverDevices) {
  World& world = Start(kAllFour);
  for (const auto& [device, work] : world.DrawRound()) {
    world.Upload(device, work);
  }

  const auto round = world.coordinator().GetRound("task", 1);
  ASSERT_EQ(round->metrics.size(), 2u);
  EXPECT_EQ(round->metrics[0].name, "accuracy");
  EXPECT_DOUBLE_EQ(round->metrics[0].mean, 0.5);
  EXPECT_EQ(round->metrics[0].device_count, 4u);
  EXPECT_EQ(round->metrics[0].example_count, 8u);
  ASSERT_TRUE(round->metrics[0].percentiles.has_value());
  EXPECT_NEAR(round->metrics[0].percentiles->p50, 0.5, 1.0 / 64);
  EXPECT_DOUBLE_EQ(round->metrics[1].mean, 1.5);  // off the histogram
  EXPECT_FALSE(round->metrics[1].percentiles.has_value());
  const auto measured = world.coordinator().GetModelVersion("task", 0);
  ASSERT_EQ(measured->metrics.size(), 2u);
  EXPECT_TRUE(world.coordinator().GetModelVersion("task", 1)->metrics.empty());
}

TEST_P(CoordinatorRoundTest, Metrics_BelowMinCohort_AreNeverShown) {
  WorldOptions options;
  options.strategy = kAllFour;
  options.privacy = "{min_cohort: 4}";
  World& world = Start(std::move(options));
  for (const auto& [device, work] : world.DrawRound()) {
    const Bytes bytes = world.OneHot(1, device);
    UploadHeader header = world.Header(work, bytes);
    if (device == 2) header.metrics.clear();  // three devices report
    const World::Answer answer = world.Send(device, header, bytes);
    world.coordinator().Poll();
    ASSERT_THAT(**answer, IsOk());
  }

  const auto round = world.coordinator().GetRound("task", 1);
  EXPECT_EQ(round->state, RoundState::kCommitted);
  EXPECT_TRUE(round->metrics.empty());
  EXPECT_TRUE(world.store().GetRound({1, 1})->metrics.empty());
}

TEST_P(CoordinatorRoundTest, AllRounds_Done_FinishesAndOffersTheModel) {
  World& world = Start(kAllFour, 2);
  for (int round = 1; round <= 2; ++round) {
    for (const auto& [device, work] : world.DrawRound()) {
      EXPECT_EQ(work.round, static_cast<uint64_t>(round));
      EXPECT_EQ(work.base_version, static_cast<uint64_t>(round - 1));
      world.Upload(device, work);
    }
  }

  const auto task = world.coordinator().GetTask("task");
  EXPECT_EQ(task->state, TaskState::kFinished);
  EXPECT_EQ(task->latest_version, 2u);
  EXPECT_EQ(task->committed_rounds, 2u);
  const auto offered = world.CheckIn(0);
  ASSERT_TRUE(offered->has_value());  // no turn was needed
  const auto* offer = std::get_if<ModelOffer>(&(**offered)->work);
  ASSERT_NE(offer, nullptr);
  EXPECT_EQ(offer->task, "task");
  EXPECT_EQ(offer->version, 2u);
  EXPECT_THAT(
      world.coordinator().OpenArtefact(world.Device(0), offer->plan_digest),
      IsOk());
  EXPECT_THAT(world.coordinator().OpenArtefact(world.Device(0),
                                               offer->checkpoint_digest),
              IsOk());
  CheckInRequest request = world.Request();
  request.installed = {{"task", 2}};
  const auto installed = world.CheckIn(0, request);
  EXPECT_TRUE(std::holds_alternative<std::monostate>((**installed)->work));
  request.installed = {{"task", 1}};
  EXPECT_TRUE(
      std::holds_alternative<ModelOffer>((**world.CheckIn(0, request))->work));
  ASSERT_THAT(world.Reopen(), IsOk());
  EXPECT_TRUE(std::holds_alternative<ModelOffer>((**world.CheckIn(1))->work));
}

TEST_P(CoordinatorRoundTest, Assignment_IsWhatTheDeviceNeeds) {
  World& world = Start(kAllFour);
  const std::map<int, Assignment> assigned = world.DrawRound();

  const Assignment& work = assigned.at(0);
  EXPECT_EQ(work.task, "task");
  EXPECT_EQ(work.compute_deadline, seconds(150));
  EXPECT_LE(work.upload_deadline, minutes(5));
  EXPECT_GT(work.upload_deadline, minutes(4));
  EXPECT_NE(work.seed, assigned.at(1).seed);
  EXPECT_LE(work.id.size(), 64u);
  const auto again = world.Assigned(0);
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(again->id, work.id);
  EXPECT_EQ(again->token, work.token);
  const auto reader =
      world.coordinator().OpenArtefact(world.Device(0), work.plan_digest);
  ASSERT_THAT(reader, IsOk());
  Bytes json((*reader)->size());
  ASSERT_THAT((*reader)->ReadAt(0, json), IsOk());
  EXPECT_THAT(crypto::VerifyEd25519(world.plan_key().public_key,
                                    plan::PlanSigningInput(AsText(json)),
                                    work.plan_signature),
              IsOk());
}

TEST_P(CoordinatorRoundTest, OpenDelta_FromTheVersionBefore_MakesTheNext) {
  World& world = Start(kAllFour, 200);  // 800 values
  for (const auto& [device, work] : world.DrawRound()) {
    world.Upload(device, work);
  }
  Coordinator& coordinator = world.coordinator();
  const auto before = coordinator.GetModelVersion("task", 0);
  const auto after = coordinator.GetModelVersion("task", 1);
  ASSERT_THAT(after, IsOk());
  const auto open = [&](const DeviceIdentity& device,
                        const crypto::Digest& digest,
                        const crypto::Digest& base) {
    return coordinator.OpenDelta(device, digest, base, after->checkpoint_codec);
  };

  const auto reader = open(world.Device(0), after->checkpoint_digest,
                           before->checkpoint_digest);

  ASSERT_THAT(reader, IsOk());
  Bytes delta(static_cast<size_t>((*reader)->size()));
  ASSERT_THAT((*reader)->ReadAt(0, delta), IsOk());
  EXPECT_LT(delta.size(), 200u);
  const Bytes base = *world.blobs().Read(before->checkpoint_digest, 1 << 20);
  const auto rebuilt =
      aggregation::DecodeDelta(after->checkpoint_codec, base, delta);
  ASSERT_THAT(rebuilt, IsOk());
  EXPECT_EQ(crypto::Sha256(*rebuilt), after->checkpoint_digest);

  // Only between what the device may fetch: a delta from a guessed base would
  // tell what is in the other.
  for (const auto& [digest, from] :
       std::vector<std::pair<crypto::Digest, crypto::Digest>>{
           {after->checkpoint_digest, before->safetensors_digest},
           {after->safetensors_digest, before->safetensors_digest},
           {after->safetensors_digest, before->checkpoint_digest}}) {
    EXPECT_THAT(open(world.Device(0), digest, from),
                StatusIs(StatusCode::kNotFound));
  }
  EXPECT_THAT(open({"other", World::DeviceName(0)}, after->checkpoint_digest,
                   before->checkpoint_digest),
              StatusIs(StatusCode::kPermissionDenied));
}

TEST_P(CoordinatorRoundTest, OpenArtefact_UnreferencedOrForeign_IsNotFound) {
  World& world = Start(kAllFour);
  const auto version = world.coordinator().GetModelVersion("task", 0);

  EXPECT_THAT(world.coordinator().OpenArtefact(world.Device(0),
                                               version->safetensors_digest),
              StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(world.coordinator().OpenArtefact({"other", World::DeviceName(0)},
                                               version->checkpoint_digest),
              StatusIs(StatusCode::kPermissionDenied));
  EXPECT_THAT(
      world.coordinator().OpenArtefactAsAdmin(version->safetensors_digest),
      IsOk());
}

TEST_P(CoordinatorRoundTest, CheckIn_NotEnrolledOrWrongPopulation_IsDenied) {
  World& world = Start(kAllFour);
  CheckInRequest request = world.Request();
  request.population = "other";

  EXPECT_THAT(**world.CheckIn(0, request),
              StatusIs(StatusCode::kPermissionDenied));
  EXPECT_THAT(**world.CheckIn(77), StatusIs(StatusCode::kPermissionDenied));
}

TEST_P(CoordinatorRoundTest, CheckIn_NothingToDo_TouchesNoDatabase) {
  World& world = Start(kTwoOfFour);
  const std::map<int, Assignment> assigned = world.DrawRound();
  ASSERT_EQ(assigned.size(), 2u);
  int idle = 0;
  while (assigned.contains(idle)) ++idle;
  const uint64_t before = world.vfs.operations();

  const auto answer = world.CheckIn(idle);

  ASSERT_TRUE(answer->has_value());  // at once, without the worker
  EXPECT_TRUE(std::holds_alternative<std::monostate>((**answer)->work));
  EXPECT_EQ((**answer)->retry.min, milliseconds(100));
  EXPECT_EQ((**answer)->retry.max, milliseconds(200));
  EXPECT_EQ(world.vfs.operations(), before);
}

TEST_P(CoordinatorRoundTest, CheckIn_CannotRunThePlan_GetsNothing) {
  World& world = Start(kAllFour);
  CheckInRequest request = world.Request();
  request.codecs = {plan::CodecName::kFloat16};
  EXPECT_TRUE(world.CheckIn(0, request)->has_value());
  request = world.Request();
  request.plan_format = 0;
  EXPECT_TRUE(world.CheckIn(0, request)->has_value());
}

TEST_P(CoordinatorRoundTest, Upload_Repeated_GetsItsFirstReceiptAlsoLater) {
  World& world = Start(kAllFour);
  std::map<int, Assignment> assigned = world.DrawRound();
  EXPECT_EQ(world.Upload(0, assigned.at(0)).status, ReceiptStatus::kAccepted);
  EXPECT_EQ(world.Upload(0, assigned.at(0)).status, ReceiptStatus::kAccepted);
  for (int i = 1; i < 4; ++i) world.Upload(i, assigned.at(i));

  // The round is over; then the process starts again.
  EXPECT_EQ(world.Upload(0, assigned.at(0)).status, ReceiptStatus::kAccepted);
  ASSERT_THAT(world.Reopen(), IsOk());
  EXPECT_EQ(world.Upload(0, assigned.at(0)).status, ReceiptStatus::kAccepted);
  EXPECT_EQ(world.Model()[world.Coordinate(1, 0)], 0.25f);
}

TEST_P(CoordinatorRoundTest,
       Upload_OtherContentForTheSameAssignment_IsConflict) {
  World& world = Start(kAllFour);
  std::map<int, Assignment> assigned = world.DrawRound();
  world.Upload(0, assigned.at(0));

  const Bytes other = world.OneHot(1, 0, 5.0f);
  const World::Answer answer =
      world.Send(0, world.Header(assigned.at(0), other), other);

  ASSERT_TRUE(answer->has_value());
  EXPECT_EQ((**answer)->status, ReceiptStatus::kRejected);
  EXPECT_EQ((**answer)->reason, RejectReason::kConflict);
  for (int i = 1; i < 4; ++i) world.Upload(i, assigned.at(i));
  EXPECT_EQ(world.Model()[world.Coordinate(1, 0)], 0.25f);
}

TEST_P(CoordinatorRoundTest, Upload_TwoContentsInOneBatch_OneIsCounted) {
  World& world = Start(kAllFour);
  std::map<int, Assignment> assigned = world.DrawRound();
  const Bytes other = world.OneHot(1, 0, 5.0f);

  const World::Answer first = world.SendOneHot(0, assigned.at(0));
  const World::Answer second =
      world.Send(0, world.Header(assigned.at(0), other), other);
  const World::Answer again = world.SendOneHot(0, assigned.at(0));
  world.coordinator().Poll();

  EXPECT_EQ((**first)->status, ReceiptStatus::kAccepted);
  EXPECT_EQ((**second)->reason, RejectReason::kConflict);
  EXPECT_EQ((**again)->status, ReceiptStatus::kAccepted);
  EXPECT_EQ(world.coordinator().GetRound("task", 1)->funnel.accepted, 1u);
  for (int i = 1; i < 4; ++i) world.Upload(i, assigned.at(i));
  EXPECT_EQ(world.Model()[world.Coordinate(1, 0)], 0.25f);
}

TEST_P(CoordinatorRoundTest, Upload_WrongTokenOrForeignAssignment_IsBadToken) {
  World& world = Start(kAllFour);
  std::map<int, Assignment> assigned = world.DrawRound();
  const Bytes bytes = world.OneHot(1, 0);
  UploadHeader header = world.Header(assigned.at(0), bytes);

  const World::Answer foreign = world.Send(1, header, bytes);
  header.token[3] ^= 1;
  const World::Answer forged = world.Send(0, header, bytes);
  header = world.Header(assigned.at(0), bytes);
  header.assignment_id = "1.1.0011223344556677889900";
  const World::Answer invented = world.Send(0, header, bytes);

  for (const World::Answer& answer : {foreign, forged, invented}) {
    EXPECT_EQ((**answer)->status, ReceiptStatus::kRejected);
    EXPECT_EQ((**answer)->reason, RejectReason::kBadToken);
  }
  EXPECT_EQ(world.coordinator().GetRound("task", 1)->funnel.outstanding, 4u);
}

TEST_P(CoordinatorRoundTest, Upload_BadHeader_IsRefusedForGoodAndFreesTheSlot) {
  struct Case {
    RejectReason reason;
    std::function<void(UploadHeader&)> damage;
  };
  const std::vector<Case> cases = {
      {RejectReason::kBadSize, [](UploadHeader& h) { ++h.size_bytes; }},
      {RejectReason::kBadEncoding,
       [](UploadHeader& h) { h.codec = plan::CodecName::kFloat16; }},
      {RejectReason::kBadWeight, [](UploadHeader& h) { h.weight = 0; }},
      {RejectReason::kBadWeight, [](UploadHeader& h) { h.weight = 101; }},
      {RejectReason::kBadScalars, [](UploadHeader& h) { h.scalars = {1}; }},
      {RejectReason::kBadMetrics,
       [](UploadHeader& h) { h.metrics.pop_back(); }},
      {RejectReason::kBadMetrics,
       [](UploadHeader& h) { h.metrics[0].count = -1; }},
  };
  for (const Case& c : cases) {
    World& world = Start(kAllFour);
    std::map<int, Assignment> assigned = world.DrawRound();
    const Bytes bytes = world.OneHot(1, 0);
    UploadHeader header = world.Header(assigned.at(0), bytes);
    c.damage(header);

    const World::Answer answer = world.Send(0, header, bytes);
    ASSERT_TRUE(answer->has_value());
    EXPECT_EQ((**answer)->reason, c.reason);
    EXPECT_FALSE((**answer)->message.empty());
    const World::Answer repeated = world.Send(0, header, bytes);
    EXPECT_EQ((**repeated)->reason, c.reason);
    EXPECT_EQ((**repeated)->message, (**answer)->message);
    world.coordinator().Poll();
    const auto round = world.coordinator().GetRound("task", 1);
    EXPECT_EQ(round->funnel.rejected, 1u);
    EXPECT_EQ(round->funnel.reasons.at(std::string(RejectReasonName(c.reason))),
              1u);
    EXPECT_FALSE(world.Assigned(0).has_value());
  }
}

TEST_P(CoordinatorRoundTest, Upload_BadValues_AreRefusedWithAReason) {
  World& world = Start(kAllFour);
  std::map<int, Assignment> assigned = world.DrawRound();
  const auto send = [&](int device, float value) {
    // Encode() refuses what a hostile device would write by hand.
    Bytes bytes = world.OneHot(1, device);
    const size_t at = world.Coordinate(1, device) * sizeof value;
    std::memcpy(bytes.data() + at, &value, sizeof value);
    return world.Send(device, world.Header(assigned.at(device), bytes), bytes);
  };

  const World::Answer too_large = send(0, 8.0f);
  const World::Answer nan = send(1, std::nanf(""));
  const World::Answer infinite = send(2, -INFINITY);

  EXPECT_EQ((**too_large)->reason, RejectReason::kOutOfRange);
  EXPECT_THAT((**too_large)->message, HasSubstr("8"));
  EXPECT_EQ((**nan)->reason, RejectReason::kNotFinite);
  EXPECT_EQ((**infinite)->reason, RejectReason::kNotFinite);
  // A good update after a refused one is another content.
  EXPECT_EQ(world.Upload(0, assigned.at(0)).reason, RejectReason::kConflict);
  world.coordinator().Poll();
  EXPECT_EQ(world.coordinator().GetRound("task", 1)->funnel.rejected, 3u);
}

TEST_P(CoordinatorRoundTest, Upload_DamagedTransfer_MayBeSentAgain) {
  World& world = Start(kAllFour);
  std::map<int, Assignment> assigned = world.DrawRound();
  const Bytes bytes = world.OneHot(1, 0);
  const UploadHeader header = world.Header(assigned.at(0), bytes);
  Bytes damaged = bytes;
  damaged[5] ^= 1;

  const World::Answer answer = world.Send(0, header, damaged);

  EXPECT_EQ((**answer)->reason, RejectReason::kBadDigest);
  EXPECT_EQ(world.Upload(0, assigned.at(0)).status, ReceiptStatus::kAccepted);
}

TEST_P(CoordinatorRoundTest, Upload_BrokenStream_ResumesWhereItStopped) {
  World& world = Start(kAllFour);
  std::map<int, Assignment> assigned = world.DrawRound();
  const Bytes bytes = world.OneHot(1, 0);
  const UploadHeader header = world.Header(assigned.at(0), bytes);
  Coordinator& coordinator = world.coordinator();
  const auto first = std::get<UploadTicket>(*world.Begin(0, header));
  ASSERT_THAT(
      coordinator.AppendUpload(first.upload_id, ByteSpan(bytes).first(10)),
      IsOk());
  coordinator.DropUpload(first.upload_id);
  world.Turn(seconds(59));

  const auto second = std::get<UploadTicket>(*world.Begin(0, header));

  EXPECT_EQ(second.offset, 10u);
  EXPECT_THAT(coordinator.AppendUpload(first.upload_id, bytes),
              StatusIs(StatusCode::kAborted));
  EXPECT_THAT(coordinator.AppendUpload(999, bytes),
              StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(coordinator.AppendUpload(second.upload_id, bytes),
              StatusIs(StatusCode::kOutOfRange));
  coordinator.DropUpload(second.upload_id);
  world.Turn(seconds(61));
  const auto third = std::get<UploadTicket>(*world.Begin(0, header));
  EXPECT_EQ(third.offset, 0u);  // the staging expired
}

TEST_P(CoordinatorRoundTest, Upload_AfterTheRound_IsLateAndInTheFunnel) {
  World& world = Start(kTwoOfFour);
  std::map<int, Assignment> assigned = world.DrawRound();
  const auto [fast, fast_work] = *assigned.begin();
  const auto [slow, slow_work] = *assigned.rbegin();
  world.Upload(fast, fast_work);
  world.clock.Advance(minutes(10));
  world.coordinator().Poll();
  ASSERT_EQ(world.coordinator().GetRound("task", 1)->state,
            RoundState::kCommitted);

  EXPECT_EQ(world.Upload(slow, slow_work).status, ReceiptStatus::kLate);
  EXPECT_EQ(world.Upload(slow, slow_work).status, ReceiptStatus::kLate);

  const auto round = world.coordinator().GetRound("task", 1);
  EXPECT_EQ(round->funnel.late, 1u);
  EXPECT_EQ(round->funnel.accepted, 1u);
  EXPECT_EQ(world.Model()[world.Coordinate(1, fast)], 1.0f);
  EXPECT_EQ(world.Model()[world.Coordinate(1, slow)], 0.0f);
}

TEST_P(CoordinatorRoundTest,
       Batch_WaitsForStreams_ButNotLongerThanHalfASecond) {
  World& world = Start(kAllFour);
  std::map<int, Assignment> assigned = world.DrawRound();
  const Bytes slow = world.OneHot(1, 3);
  ASSERT_THAT(world.Begin(3, world.Header(assigned.at(3), slow)), IsOk());

  const World::Answer answer = world.SendOneHot(0, assigned.at(0));
  world.Turn(milliseconds(499));
  EXPECT_FALSE(answer->has_value());
  world.Turn(milliseconds(1));
  EXPECT_FALSE(answer->has_value());  // added in the first turn
  world.Turn(milliseconds(499));

  ASSERT_TRUE(answer->has_value());
  EXPECT_EQ((**answer)->status, ReceiptStatus::kAccepted);
}

TEST_P(CoordinatorRoundTest, VanishedDevice_ItsSlotGoesToTheNextThatChecksIn) {
  World& world = Start(kTwoOfFour);
  std::map<int, Assignment> assigned = world.DrawRound();
  const auto [stays, stays_work] = *assigned.begin();
  const auto [gone, gone_work] = *assigned.rbegin();
  int other = 0;
  while (assigned.contains(other)) ++other;
  EXPECT_FALSE(world.Assigned(other).has_value());

  world.clock.Advance(minutes(5));  // the compute deadline
  world.coordinator().Poll();
  const auto refill = world.Assigned(other);

  ASSERT_TRUE(refill.has_value());
  EXPECT_EQ(refill->round, 1u);
  EXPECT_EQ(world.coordinator().GetRound("task", 1)->funnel.expired, 2u);
  // The one that vanished is back: its assignment still counts.
  EXPECT_EQ(world.Upload(gone, gone_work).status, ReceiptStatus::kAccepted);
  EXPECT_EQ(world.Upload(other, *refill).status, ReceiptStatus::kAccepted);
  EXPECT_EQ(world.coordinator().GetRound("task", 1)->state,
            RoundState::kCommitted);
  EXPECT_EQ(world.Upload(stays, stays_work).status, ReceiptStatus::kLate);
}

TEST_P(CoordinatorRoundTest, Abandon_FreesTheSlotAtOnce) {
  World& world = Start(kTwoOfFour);
  std::map<int, Assignment> assigned = world.DrawRound();
  const auto [quits, work] = *assigned.begin();
  int other = 0;
  while (assigned.contains(other)) ++other;
  EXPECT_THAT(world.coordinator().Abandon(world.Device(other), work.id,
                                          work.token.span(),
                                          AbandonReason::kInterrupted, ""),
              StatusIs(StatusCode::kUnauthenticated));

  EXPECT_THAT(world.coordinator().Abandon(world.Device(quits), work.id,
                                          work.token.span(),
                                          AbandonReason::kTooFewExamples, "3"),
              IsOk());
  world.coordinator().Poll();

  EXPECT_TRUE(world.Assigned(other).has_value());
  EXPECT_FALSE(world.Assigned(quits).has_value());
  EXPECT_EQ(world.Upload(quits, work).reason, RejectReason::kWithdrawn);
  const auto round = world.coordinator().GetRound("task", 1);
  EXPECT_EQ(round->funnel.abandoned, 1u);
  EXPECT_EQ(round->funnel.reasons.at("TOO_FEW_EXAMPLES"), 1u);
}

TEST_P(CoordinatorRoundTest, Abandon_PlanBelowADevicesFloor_IsCounted) {
  World& world = Start(kTwoOfFour);
  const std::map<int, Assignment> assigned = world.DrawRound();
  const auto& [device, work] = *assigned.begin();
  EXPECT_THAT(world.coordinator().Abandon(
                  world.Device(device), work.id, work.token.span(),
                  AbandonReason::kPlanBelowFloor, "privacy.clip is off"),
              IsOk());
  world.coordinator().Poll();
  const auto round = world.coordinator().GetRound("task", 1);
  EXPECT_EQ(round->funnel.abandoned, 1u);
  EXPECT_EQ(round->funnel.reasons.at("PLAN_BELOW_FLOOR"), 1u);
}

TEST_P(CoordinatorRoundTest, Outcomes_FollowTheRound) {
  World& world = Start(kAllFour);
  std::map<int, Assignment> assigned = world.DrawRound();
  CheckInRequest request = world.Request();
  request.unsettled_assignments = {assigned.at(0).id, assigned.at(1).id,
                                   "nonsense"};
  const auto states = [&] {
    const auto answer = world.CheckIn(0, request);
    if (!answer->has_value()) world.coordinator().Poll();
    std::vector<OutcomeState> all;
    for (const auto& outcome : (**answer)->outcomes) {
      all.push_back(outcome.state);
    }
    return all;
  };
  using enum OutcomeState;

  // The second one is another device's.
  EXPECT_EQ(states(), (std::vector{kPending, kUnknown, kUnknown}));
  for (const auto& [device, work] : assigned) world.Upload(device, work);
  EXPECT_EQ(states(), (std::vector{kCommitted, kUnknown, kUnknown}));
  ASSERT_THAT(world.Reopen(), IsOk());
  EXPECT_EQ(states(), (std::vector{kCommitted, kUnknown, kUnknown}));
}

TEST_P(CoordinatorRoundTest, BelowTheMinimum_IsAbandonedAndTheNextRoundOpens) {
  World& world = Start(kAllFour);
  std::map<int, Assignment> assigned = world.DrawRound();
  world.Upload(0, assigned.at(0));
  world.clock.Advance(minutes(5));
  world.coordinator().Poll();

  const auto round = world.coordinator().GetRound("task", 1);
  EXPECT_EQ(round->state, RoundState::kAbandoned);
  EXPECT_THAT(round->reason, HasSubstr("only 1 updates arrived"));
  EXPECT_EQ(world.coordinator().GetTask("task")->latest_version, 0u);
  EXPECT_EQ(world.coordinator().GetRound("task", 2)->state,
            RoundState::kSelecting);
  EXPECT_TRUE(world.blobs().ListSealed()->empty());
  CheckInRequest request = world.Request();
  request.unsettled_assignments = {assigned.at(0).id};
  const auto answer = world.CheckIn(0, request);
  world.coordinator().Poll();
  EXPECT_EQ((**answer)->outcomes[0].state, OutcomeState::kAbandoned);
}

TEST_P(CoordinatorRoundTest, StopTask_EndsTheRoundAndAnswersLate) {
  World& world = Start(kAllFour);
  std::map<int, Assignment> assigned = world.DrawRound();
  world.Upload(0, assigned.at(0));
  const World::Answer in_flight = world.SendOneHot(1, assigned.at(1));

  const auto stopped = world.coordinator().StopTask("task", "s1", "");
  ASSERT_THAT(stopped, IsOk());
  EXPECT_EQ(stopped->state, TaskState::kStopped);
  world.coordinator().Poll();

  ASSERT_TRUE(in_flight->has_value());
  EXPECT_EQ((**in_flight)->status, ReceiptStatus::kLate);
  EXPECT_EQ(world.Upload(2, assigned.at(2)).status, ReceiptStatus::kLate);
  EXPECT_EQ(world.Upload(0, assigned.at(0)).status, ReceiptStatus::kAccepted);
  EXPECT_EQ(world.coordinator().GetRound("task", 1)->state,
            RoundState::kAbandoned);
  EXPECT_TRUE(world.blobs().ListSealed()->empty());
  EXPECT_FALSE(world.Assigned(0).has_value());
  EXPECT_THAT(world.coordinator().StopTask("task", "s1", ""), IsOk());
  EXPECT_THAT(world.coordinator().StopTask("task", "s2", ""),
              StatusIs(StatusCode::kFailedPrecondition));
}

TEST_P(CoordinatorRoundTest, SameSeedTwice_SameParticipantsSameDigests) {
  std::vector<std::string> digests;
  std::vector<std::vector<int>> participants;
  for (int run = 0; run < 2; ++run) {
    WorldOptions options;
    options.strategy = kTwoOfFour;
    options.random_seed = 100 + static_cast<uint64_t>(run);  // keys, ids
    World& world = Start(std::move(options));
    std::vector<int> took_part;
    for (int round = 1; round <= 3; ++round) {
      std::map<int, Assignment> assigned = world.DrawRound();
      if (run == 1) {  // the other order of arrival
        for (auto it = assigned.rbegin(); it != assigned.rend(); ++it) {
          world.Upload(it->first, it->second);
        }
      } else {
        for (const auto& [device, work] : assigned) world.Upload(device, work);
      }
      for (const auto& [device, work] : assigned) took_part.push_back(device);
    }
    participants.push_back(took_part);
    const auto version = world.coordinator().GetModelVersion("task", 3);
    ASSERT_THAT(version, IsOk());
    digests.push_back(version->safetensors_digest.ToHex() +
                      version->checkpoint_digest.ToHex());
  }
  EXPECT_EQ(participants[0], participants[1]);
  EXPECT_EQ(digests[0], digests[1]);
}

TEST_P(CoordinatorRoundTest, Restart_SameRoundSameParticipantsSameSums) {
  World& world = Start(kAllFour);
  std::map<int, Assignment> assigned = world.DrawRound();
  world.Upload(0, assigned.at(0));
  world.Upload(1, assigned.at(1));

  ASSERT_THAT(world.Reopen(), IsOk());

  EXPECT_EQ(world.coordinator().GetRound("task", 1)->funnel.accepted, 2u);
  EXPECT_EQ(world.Assigned(2)->id, assigned.at(2).id);
  EXPECT_EQ(world.Assigned(2)->token, assigned.at(2).token);
  world.Upload(2, assigned.at(2));
  world.Upload(3, assigned.at(3));
  EXPECT_EQ(world.coordinator().GetRound("task", 1)->state,
            RoundState::kCommitted);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(world.Model()[world.Coordinate(1, i)], 0.25f);
  }
}

// A process knows the sums of the partials it has written itself; another one
// has to read them.
TEST_P(CoordinatorRoundTest, DamagedPartial_OnceItIsRead_AbandonsTheRound) {
  for (const bool restart : {false, true}) {
    World& world = Start(kAllFour);
    std::map<int, Assignment> assigned = world.DrawRound();
    world.Upload(0, assigned.at(0));
    world.Upload(1, assigned.at(1));
    const std::string id = world.blobs().ListSealed()->front();
    Bytes sealed = *world.blobs().ReadSealed(id);
    sealed.back() ^= 1;
    ASSERT_THAT(world.blobs().PutSealed(id, sealed), IsOk());
    if (restart) {
      ASSERT_THAT(world.Reopen(), IsOk());
    }

    world.Upload(2, assigned.at(2));
    world.Upload(3, assigned.at(3));

    EXPECT_EQ(world.coordinator().GetRound("task", 1)->state,
              restart ? RoundState::kAbandoned : RoundState::kCommitted);
    EXPECT_THAT(*world.blobs().ListSealed(), IsEmpty());
    if (restart) continue;
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(world.Model()[world.Coordinate(1, i)], 0.25f);
    }
  }
}

// Server momentum 0.5: a coordinate that only round r moved by 0.25 goes on by
// half of the last step in every later round, through a restart in between.
TEST_P(CoordinatorRoundTest, StrategyWithState_GoesOnAfterARestart) {
  WorldOptions options;
  options.strategy_name = "fedavgm";
  options.strategy = std::string(kAllFour) + ", server_momentum: 0.5";
  World& world = Start(std::move(options));
  const float moved[] = {0.25f, 0.375f, 0.4375f};
  for (uint64_t round = 1; round <= 3; ++round) {
    for (const auto& [device, work] : world.DrawRound()) {
      EXPECT_EQ(world.Upload(device, work).status, ReceiptStatus::kAccepted);
    }
    EXPECT_EQ(world.Model()[world.Coordinate(1, 0)], moved[round - 1]);
    ASSERT_THAT(world.Reopen(), IsOk());
  }
  EXPECT_EQ(world.Model()[world.Coordinate(2, 3)], 0.375f);
  EXPECT_EQ(world.Model()[world.Coordinate(3, 3)], 0.25f);
}

TEST_P(CoordinatorRoundTest, ClockJumpsBack_LeasesKeepTheirLength) {
  World& world = Start(kTwoOfFour);
  std::map<int, Assignment> assigned = world.DrawRound();
  ASSERT_EQ(assigned.size(), 2u);
  world.clock.Advance(-std::chrono::hours(1));
  world.coordinator().Poll();
  ASSERT_THAT(world.Reopen(), IsOk());

  EXPECT_EQ(world.coordinator().GetRound("task", 1)->funnel.outstanding, 2u);
  world.clock.Advance(minutes(5));
  world.coordinator().Poll();
  EXPECT_EQ(world.coordinator().GetRound("task", 1)->funnel.expired, 2u);
  world.clock.Advance(minutes(5));
  world.coordinator().Poll();
  EXPECT_EQ(world.coordinator().GetRound("task", 1)->state,
            RoundState::kAbandoned);
}

TEST_P(CoordinatorRoundTest, Drain_FinishesWhatRunsAndTakesNothingNew) {
  World& world = Start(kAllFour);
  std::map<int, Assignment> assigned = world.DrawRound();
  const Bytes bytes = world.OneHot(1, 0);
  Coordinator& coordinator = world.coordinator();
  const auto ticket = std::get<UploadTicket>(
      *world.Begin(0, world.Header(assigned.at(0), bytes)));

  coordinator.Drain();

  EXPECT_THAT(world.Begin(1, world.Header(assigned.at(1), bytes)),
              StatusIs(StatusCode::kUnavailable));
  EXPECT_TRUE(
      std::holds_alternative<std::monostate>((**world.CheckIn(1))->work));
  coordinator.Poll();
  EXPECT_FALSE(coordinator.Drained());
  ASSERT_THAT(coordinator.AppendUpload(ticket.upload_id, bytes), IsOk());
  std::optional<Result<Receipt>> receipt;
  coordinator.FinishUpload(ticket.upload_id,
                           [&](Result<Receipt> r) { receipt = std::move(r); });
  EXPECT_FALSE(coordinator.Drained());
  coordinator.Poll();
  ASSERT_TRUE(receipt.has_value());
  EXPECT_EQ((*receipt)->status, ReceiptStatus::kAccepted);
  EXPECT_TRUE(coordinator.Drained());
}

TEST_P(CoordinatorRoundTest, StopAssigning_LetsWhoHasWorkFinishIt) {
  World& world = Start(kAllFour);
  Coordinator& coordinator = world.coordinator();
  std::map<int, Assignment> assigned = world.DrawRound();

  coordinator.StopAssigning();

  const auto refused = world.CheckIn(1);
  // At once, and not in the next turn.
  ASSERT_TRUE(refused->has_value());
  ASSERT_THAT(**refused, IsOk());
  EXPECT_TRUE(std::holds_alternative<std::monostate>((**refused)->work));
  EXPECT_GT((**refused)->retry.max, Duration::zero());
  EXPECT_FALSE(coordinator.Drained());
  for (const auto& [device, work] : assigned) {
    EXPECT_EQ(world.Upload(device, work).status, ReceiptStatus::kAccepted);
  }
  EXPECT_EQ(coordinator.GetRound("task", 1)->state, RoundState::kCommitted);
  // The next round finds nobody.
  EXPECT_TRUE(world.DrawRound().empty());
}

TEST_P(CoordinatorRoundTest, Stop_AnswersWhatWaits_Unavailable) {
  World& world = Start(kAllFour);
  std::map<int, Assignment> assigned = world.DrawRound();
  const World::Answer upload = world.SendOneHot(0, assigned.at(0));
  const auto check_in = world.CheckIn(0);

  world.coordinator().Stop();

  EXPECT_THAT(**upload, StatusIs(StatusCode::kUnavailable));
  EXPECT_THAT(**check_in, StatusIs(StatusCode::kUnavailable));
}

TEST_P(CoordinatorRoundTest, WatchTask_SeesEveryChangeUntilTheEnd) {
  World& world = Start(kAllFour, 1);
  std::vector<TaskSnapshot> seen;
  const auto id = world.coordinator().WatchTask(
      "task", [&](const TaskSnapshot& snapshot) { seen.push_back(snapshot); });
  ASSERT_THAT(id, IsOk());
  world.coordinator().Poll();
  ASSERT_EQ(seen.size(), 1u);
  EXPECT_EQ(seen[0].round->state, RoundState::kSelecting);
  world.coordinator().Poll();
  EXPECT_EQ(seen.size(), 1u);  // nothing happened

  for (const auto& [device, work] : world.DrawRound()) {
    world.Upload(device, work);
  }

  EXPECT_EQ(seen.back().task.state, TaskState::kFinished);
  EXPECT_EQ(seen.back().round->state, RoundState::kCommitted);
  EXPECT_THAT(seen.back().key_metric_history, ::testing::ElementsAre(0.5));
  EXPECT_THAT(seen.back().loss_history, ::testing::ElementsAre(1.5));
  const size_t last = seen.size();
  world.Turn();
  EXPECT_EQ(seen.size(), last);
  world.coordinator().Unwatch(*id);
  EXPECT_THAT(world.coordinator().WatchTask("none", [](const auto&) {}),
              StatusIs(StatusCode::kNotFound));
}

TEST_P(CoordinatorRoundTest, Float16_SameOracle) {
  WorldOptions options;
  options.strategy = kAllFour;
  options.codec = plan::CodecName::kFloat16;
  World& world = Start(std::move(options));
  for (const auto& [device, work] : world.DrawRound()) {
    EXPECT_EQ(world.Upload(device, work).status, ReceiptStatus::kAccepted);
  }
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(world.Model()[world.Coordinate(1, i)], 0.25f);
  }
}

TEST_P(CoordinatorRoundTest, Logs_NameNoDeviceAndNoUpdate) {
  World& world = Start(kAllFour);
  for (const auto& [device, work] : world.DrawRound()) {
    world.Upload(device, work);
  }
  EXPECT_THAT(world.log.text(), ::testing::Not(HasSubstr("device-0")));
  EXPECT_THAT(world.log.text(), HasSubstr("state=COMMITTED"));
}

}  // namespace
}  // namespace selvage::coordinator::test

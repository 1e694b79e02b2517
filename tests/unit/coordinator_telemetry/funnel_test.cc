// The sums of docs/operations.md, "Metrics", over rounds with devices of every
// kind, read from the text that Prometheus gets.
#include <cmath>
#include <map>
#include <sstream>

#include <gmock/gmock.h>

#include "coordinator/telemetry/prometheus_telemetry.h"
#include "tests/unit/coordinator/world.h"

namespace selvage::coordinator::test {
namespace {

using std::chrono::minutes;

constexpr char kTwoOfSix[] =
    "cohort: 3, min_updates: 1, over_selection: 2.0, round_deadline: 10m, "
    "min_available_nodes: 6";

class FunnelTest : public ::testing::TestWithParam<bool> {
 protected:
  World& Start(const std::string& strategy) {
    world_.reset();
    telemetry_ = std::make_unique<PrometheusTelemetry>("1", "x");
    WorldOptions options;
    options.sqlite = GetParam();
    options.strategy = strategy;
    options.devices = 8;
    options.rounds = 4;
    options.telemetry = telemetry_.get();
    world_ = std::make_unique<World>(std::move(options));
    world_->SetUpTask();
    world_->Turn();
    return *world_;
  }

  // The sum of the metric `name` over everything that has these labels.
  double Sum(const std::string& name,
             const std::vector<std::string>& labels = {}) {
    std::istringstream lines(telemetry_->Text());
    double sum = 0;
    for (std::string line; std::getline(lines, line);) {
      if (!line.starts_with(name + "{") && !line.starts_with(name + " ")) {
        continue;
      }
      bool all = true;
      for (const std::string& label : labels) {
        all = all && line.find(label) != std::string::npos;
      }
      if (all) sum += std::stod(line.substr(line.rfind(' ') + 1));
    }
    return sum;
  }
  double Assignments(const std::string& outcome) {
    return Sum("selvage_assignments_total", {"outcome=\"" + outcome + "\""});
  }
  double Updates(const std::string& result) {
    return Sum("selvage_updates_total", {"result=\"" + result + "\""});
  }

  void ExpectThatItAddsUp(const std::string& when) {
    SCOPED_TRACE(when);
    // Every assignment is open, or has come to one end.
    EXPECT_EQ(
        Sum("selvage_assignments_issued_total"),
        Sum("selvage_assignments_total") + Sum("selvage_assignments_open"));
    // Every upload is open, or has come to one end.
    EXPECT_EQ(Sum("selvage_uploads_begun_total"),
              Sum("selvage_updates_total") + Sum("selvage_uploads_open"));
    // Every accepted update is in one round: the open one, or one that ended.
    EXPECT_EQ(Updates("accepted"), Sum("selvage_round_updates_total") +
                                       Sum("selvage_round_updates_open"));
    EXPECT_EQ(Sum("selvage_round_updates_total"), Assignments("accepted"));
    EXPECT_EQ(Sum("selvage_update_bytes_count"), Updates("accepted"));
    // Rounds, as the admin API has them.
    const auto task = world_->coordinator().GetTask("task");
    ASSERT_THAT(task, IsOk());
    EXPECT_EQ(Sum("selvage_rounds_total", {"state=\"committed\""}),
              static_cast<double>(task->committed_rounds));
    EXPECT_EQ(Sum("selvage_rounds_total", {"state=\"abandoned\""}),
              static_cast<double>(task->abandoned_rounds));
    // And the rounds' own funnels.
    double assigned = 0;
    double accepted = 0;
    double rejected = 0;
    double abandoned = 0;
    const auto rounds = world_->coordinator().ListRounds("task", {});
    ASSERT_THAT(rounds, IsOk());
    for (const RoundInfo& round : rounds->items) {
      assigned += static_cast<double>(round.funnel.assigned);
      if (round.state != RoundState::kCommitted &&
          round.state != RoundState::kAbandoned) {
        continue;
      }
      accepted += static_cast<double>(round.funnel.accepted);
      rejected += static_cast<double>(round.funnel.rejected);
      abandoned += static_cast<double>(round.funnel.abandoned);
    }
    EXPECT_EQ(Sum("selvage_assignments_issued_total"), assigned);
    EXPECT_EQ(Assignments("accepted"), accepted);
    EXPECT_EQ(Assignments("rejected"), rejected);
    EXPECT_EQ(Assignments("abandoned"), abandoned);
  }

  std::unique_ptr<PrometheusTelemetry> telemetry_;
  std::unique_ptr<World> world_;
};
INSTANTIATE_TEST_SUITE_P(Stores, FunnelTest, ::testing::Bool(),
                         [](const auto& param) {
                           return param.param ? "Sqlite" : "Memory";
                         });

TEST_P(FunnelTest, EveryKindOfDevice_AddsUpInEveryMoment) {
  World& world = Start(kTwoOfSix);
  ExpectThatItAddsUp("before anything");
  EXPECT_EQ(Sum("selvage_round_phase"), 1);

  // Six of eight get work.
  std::map<int, Assignment> assigned = world.DrawRound();
  ASSERT_EQ(assigned.size(), 6u);
  ExpectThatItAddsUp("after the draw");
  EXPECT_EQ(Sum("selvage_assignments_open"), 6);
  EXPECT_EQ(Sum("selvage_round_phase"), 2);
  std::vector<int> devices;
  for (const auto& [device, work] : assigned) devices.push_back(device);

  // One is accepted, and says it again.
  const int good = devices[0];
  EXPECT_EQ(world.Upload(good, assigned.at(good)).status,
            ReceiptStatus::kAccepted);
  ExpectThatItAddsUp("one accepted");
  EXPECT_EQ(world.Upload(good, assigned.at(good)).status,
            ReceiptStatus::kAccepted);
  EXPECT_EQ(Updates("duplicate"), 1);
  EXPECT_EQ(Updates("accepted"), 1);
  // Another content for the same assignment.
  const Bytes other = world.OneHot(1, good, 2.0f);
  EXPECT_EQ((**world.Send(good, world.Header(assigned.at(good), other), other))
                ->reason,
            RejectReason::kConflict);
  ExpectThatItAddsUp("a repeat and a conflict");

  // One is refused by its header, for good; one with a wrong token, which
  // settles nothing.
  const int bad = devices[1];
  const Bytes bytes = world.OneHot(1, bad);
  UploadHeader header = world.Header(assigned.at(bad), bytes);
  header.weight = 0;
  EXPECT_EQ((**world.Send(bad, header, bytes))->reason,
            RejectReason::kBadWeight);
  world.Turn();
  EXPECT_EQ((**world.Send(bad, header, bytes))->reason,
            RejectReason::kBadWeight);
  EXPECT_EQ(Updates("duplicate"), 2);
  header.token.front() ^= 1;
  EXPECT_EQ((**world.Send(bad, header, bytes))->reason,
            RejectReason::kBadToken);
  EXPECT_EQ(Sum("selvage_updates_total", {"reason=\"BAD_WEIGHT\""}), 1);
  EXPECT_EQ(Sum("selvage_updates_total", {"reason=\"BAD_TOKEN\""}), 1);
  EXPECT_EQ(Sum("selvage_auth_failures_total", {"reason=\"assignment_token\""}),
            1);
  ExpectThatItAddsUp("refusals");

  // One gives up.
  const int quits = devices[2];
  EXPECT_THAT(
      world.coordinator().Abandon(world.Device(quits), assigned.at(quits).id,
                                  assigned.at(quits).token.span(),
                                  AbandonReason::kTooFewExamples, ""),
      IsOk());
  world.Turn();
  ExpectThatItAddsUp("one gave up");

  // One breaks in the middle, and never comes back; one breaks and resumes.
  const int broken = devices[3];
  const Bytes half = world.OneHot(1, broken);
  auto begun = world.Begin(broken, world.Header(assigned.at(broken), half));
  ASSERT_THAT(begun, IsOk());
  EXPECT_EQ(Sum("selvage_uploads_open"), 1);
  world.Turn();
  ExpectThatItAddsUp("a stream is open");
  world.coordinator().DropUpload(std::get<UploadTicket>(*begun).upload_id);
  world.coordinator().DropUpload(std::get<UploadTicket>(*begun).upload_id);
  world.Turn();
  EXPECT_EQ(Sum("selvage_uploads_open"), 0);
  EXPECT_EQ(Updates("interrupted"), 1);
  ExpectThatItAddsUp("a stream broke");
  const int resumes = devices[4];
  const Bytes whole = world.OneHot(1, resumes);
  begun = world.Begin(resumes, world.Header(assigned.at(resumes), whole));
  ASSERT_THAT(begun, IsOk());
  const uint64_t first = std::get<UploadTicket>(*begun).upload_id;
  ASSERT_THAT(world.coordinator().AppendUpload(first, ByteSpan(whole).first(8)),
              IsOk());
  // The second stream takes over while the first is still there.
  EXPECT_EQ(world.Upload(resumes, assigned.at(resumes)).status,
            ReceiptStatus::kAccepted);
  EXPECT_EQ(Sum("selvage_uploads_open"), 1);
  world.coordinator().DropUpload(first);
  EXPECT_EQ(Updates("interrupted"), 2);
  ExpectThatItAddsUp("a stream was taken over");

  // The leases of the others run out; the round ends at its deadline.
  world.Turn(minutes(6));
  ExpectThatItAddsUp("leases expired");
  world.Turn(minutes(5));
  EXPECT_EQ(world.coordinator().GetRound("task", 1)->state,
            RoundState::kCommitted);
  ExpectThatItAddsUp("the round is over");
  EXPECT_EQ(Assignments("accepted"), 2);
  EXPECT_EQ(Assignments("rejected"), 1);
  EXPECT_EQ(Assignments("abandoned"), 1);
  EXPECT_EQ(Assignments("expired") + Assignments("unfinished"), 2);
  EXPECT_EQ(Sum("selvage_round_updates_total", {"state=\"committed\""}), 2);
  EXPECT_EQ(Sum("selvage_round_duration_seconds_count"), 1);
  EXPECT_EQ(Sum("selvage_aggregate_seconds_count"), 1);
  EXPECT_EQ(Sum("selvage_update_norm_count"), 1);
  // Two one-hot updates: halves.
  EXPECT_NEAR(Sum("selvage_update_norm_sum"), std::sqrt(0.5), 1e-6);
  EXPECT_GT(Sum("selvage_last_commit_timestamp_seconds"), 0);
  // Whoever comes now is late.
  const int late = devices[5];
  EXPECT_EQ(world.Upload(late, assigned.at(late)).status, ReceiptStatus::kLate);
  EXPECT_EQ(Updates("late"), 1);
  ExpectThatItAddsUp("one is late");

  // The second round has one update and is stopped with its task.
  assigned = world.DrawRound();
  ASSERT_FALSE(assigned.empty());
  const auto& [device, work] = *assigned.begin();
  EXPECT_EQ(world.Upload(device, work).status, ReceiptStatus::kAccepted);
  ExpectThatItAddsUp("the second round");
  EXPECT_THAT(world.coordinator().StopTask("task", "s", ""), IsOk());
  world.Turn();
  ExpectThatItAddsUp("the task was stopped");
  EXPECT_EQ(Sum("selvage_assignments_open"), 0);
  EXPECT_EQ(Sum("selvage_round_phase"), 0);
  EXPECT_EQ(Sum("selvage_round_updates_total", {"state=\"abandoned\""}), 1);
  // Some asked again for what they had.
  EXPECT_GE(Sum("selvage_checkins_total", {"outcome=\"assigned\""}),
            Sum("selvage_assignments_issued_total"));
}

TEST_P(FunnelTest, StrangersAndTheirNames_AreCountedTogether) {
  World& world = Start(kTwoOfSix);
  EXPECT_THAT(**world.CheckIn(77), StatusIs(StatusCode::kPermissionDenied));
  EXPECT_EQ(Sum("selvage_checkins_total",
                {"population=\"unknown\"", "outcome=\"denied\""}),
            1);
  EXPECT_EQ(Sum("selvage_auth_failures_total", {"reason=\"not_enrolled\""}), 1);
  EXPECT_THAT(world.coordinator().Enroll(std::nullopt, {"no", {}, "x", "y"}),
              StatusIs(StatusCode::kUnauthenticated));
  EXPECT_EQ(Sum("selvage_auth_failures_total", {"reason=\"enrolment_token\""}),
            1);
}

// A database that fails while assignments are made, whose outcome nobody may
// know then, changes no count.
TEST_P(FunnelTest, StoreThatFailsDuringTheDraw_StillAddsUp) {
  if (!GetParam()) GTEST_SKIP() << "only SQLite's disk can fail";
  for (uint64_t k = 0; k < 40; k += 2) {
    SCOPED_TRACE("k=" + std::to_string(k));
    World& world = Start(kTwoOfSix);
    for (int i = 0; i < 6; ++i) static_cast<void>(world.CheckIn(i));
    world.vfs.FailAfter(k, 1);
    world.coordinator().Poll();
    world.vfs.ClearFaults();
    world.Turn(std::chrono::seconds(2));
    for (const auto& [device, work] : world.DrawRound()) {
      static_cast<void>(world.Upload(device, work));
    }
    world.Turn(minutes(10));
    ExpectThatItAddsUp("after a failure");
    EXPECT_GT(Assignments("accepted"), 0);
  }
}

// Several coordinators that tell one and the same: what Prometheus has when it
// sums over them.
class ReplicasFunnelTest : public FunnelTest {
 protected:
  static constexpr int kDevices = 6;

  World& StartReplicas() {
    telemetry_ = std::make_unique<PrometheusTelemetry>("1", "x");
    WorldOptions options;
    options.devices = kDevices;
    options.strategy =
        "cohort: 6, over_selection: 1.0, min_updates: 6, round_deadline: 2h";
    options.telemetry = telemetry_.get();
    options.options.replicas.shared = true;
    world_ = std::make_unique<World>(std::move(options));
    for (int i = 1; i < 3; ++i) EXPECT_THAT(world_->AddReplica(), IsOk());
    world_->SetUpTask();
    return *world_;
  }
  // Everybody works, with whichever coordinator is next and not `away`.
  void Work(size_t away, int turns) {
    World& world = *world_;
    for (int turn = 0; turn < turns; ++turn) {
      for (int device = 0; device < kDevices; ++device) {
        Phone& phone = phones_[device];
        const size_t replica = static_cast<size_t>(turn + device) % 3;
        if (replica == away) continue;
        world.Use(replica);
        if (phone.check_in != nullptr && phone.check_in->has_value()) {
          const auto& answer = **phone.check_in;
          if (answer.ok() && std::holds_alternative<Assignment>(answer->work)) {
            phone.upload =
                world.SendOneHot(device, std::get<Assignment>(answer->work));
          }
          phone.check_in.reset();
        } else if (phone.upload != nullptr) {
          if (phone.upload->has_value()) phone.upload.reset();
        } else if (phone.check_in == nullptr) {
          phone.check_in = world.CheckIn(device);
        }
      }
      world.clock.Advance(std::chrono::milliseconds(100));
      for (size_t r = 0; r < 3; ++r) {
        if (r == away) continue;
        world.Use(r);
        world.coordinator().Poll();
      }
    }
  }

  struct Phone {
    std::shared_ptr<std::optional<Result<CheckInAnswer>>> check_in;
    World::Answer upload;
  };
  std::map<int, Phone> phones_;
};
INSTANTIATE_TEST_SUITE_P(Stores, ReplicasFunnelTest, ::testing::Values(false));

TEST_P(ReplicasFunnelTest, UploadsAnywhere_AddUpOverAll) {
  World& world = StartReplicas();
  Work(/*away=*/3, 400);
  ASSERT_EQ(world.store().GetTask("task")->state, TaskState::kFinished);
  ExpectThatItAddsUp("after all rounds");
  EXPECT_EQ(Sum("selvage_assignments_issued_total"), 18);
  EXPECT_EQ(Updates("accepted"), 18);
  EXPECT_EQ(Sum("selvage_rounds_total", {"state=\"committed\""}), 3);
  EXPECT_EQ(Sum("selvage_lease_acquired_total"), 1);
  EXPECT_EQ(Sum("selvage_lease_lost_total"), 0);
}

TEST_P(ReplicasFunnelTest, DriverThatSleepsTooLong_LosesItsLeaseOnce) {
  World& world = StartReplicas();
  world.Use(0);
  world.Turn();  // the first one drives
  EXPECT_EQ(Sum("selvage_lease_acquired_total"), 1);
  Work(/*away=*/0, 400);
  EXPECT_EQ(Sum("selvage_lease_acquired_total"), 2);
  Work(/*away=*/3, 400);
  ASSERT_EQ(world.store().GetTask("task")->state, TaskState::kFinished);
  ExpectThatItAddsUp("after all rounds");
  EXPECT_EQ(Updates("accepted"), 18);
  EXPECT_LE(Sum("selvage_lease_lost_total"), 1);
}

}  // namespace
}  // namespace selvage::coordinator::test

// What every Store must do. A backend instantiates the suite with a factory;
// behaviour that is not tested here is not promised by coordinator/store.h.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/random.h"
#include "coordinator/store.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/status_matchers.h"

namespace selvage::coordinator {

// A store and what it stands on. `Reopen` closes and opens it again (nothing
// for a store that does not outlive its process).
class StoreUnderTest {
 public:
  virtual ~StoreUnderTest() = default;
  virtual Store& store() = 0;
  virtual void Reopen() = 0;
  test::FakeClock clock;
  SeededRandom random{1};
};
using MakeStore = std::function<std::unique_ptr<StoreUnderTest>()>;

inline crypto::Digest DigestOf(const std::string& text) {
  return crypto::Sha256(AsBytes(text));
}

class StoreContract : public ::testing::TestWithParam<MakeStore> {
 protected:
  void SetUp() override {
    under_test_ = GetParam()();
    if (under_test_ == nullptr) GTEST_SKIP() << "backend not available here";
    under_test_->clock.Advance(std::chrono::hours(1));
    ASSERT_THAT(store().CreatePopulation({"demo", At(1)}, {}), test::IsOk());
  }
  Store& store() { return under_test_->store(); }
  static Time At(int64_t seconds) {
    return Time(std::chrono::seconds(seconds));
  }

  Store::NewTask SomeTask(const std::string& name) {
    Store::NewTask task;
    task.task.name = name;
    task.task.population = "demo";
    task.task.task_file = "name: " + name;
    task.task.program_digest = DigestOf("program");
    task.task.plan_digest = DigestOf("plan " + name);
    task.task.plan_signature[5] = 7;
    task.task.created = At(2);
    task.initial.checkpoint_digest = DigestOf("checkpoint 0");
    task.initial.master_digest = DigestOf("master 0");
    task.initial.created = At(2);
    task.artefacts = {{task.initial.checkpoint_digest, 10},
                      {task.initial.master_digest, 20}};
    task.references = {task.initial.checkpoint_digest};
    return task;
  }
  // A running task with one open round.
  RoundLease SomeRound(const std::string& name = "task") {
    const Result<TaskRow> task = store().CreateTask(SomeTask(name), {});
    EXPECT_THAT(task, test::IsOk());
    RoundRow row;
    row.key = {task->id, 1};
    row.opened = At(3);
    row.wrapped_key = Bytes(60, 0xAB);
    EXPECT_THAT(store().OpenRound(row), test::IsOk());
    return {row.key, 1};
  }
  static AssignmentRow SomeAssignment(const RoundKey& round,
                                      const std::string& device) {
    AssignmentRow row;
    row.id = "a-" + std::to_string(round.number) + "-" + device;
    row.round = round;
    row.device_id = device;
    row.lease_deadline = At(10);
    row.expires = At(20);
    return row;
  }
  RoundLease RoundWith(const std::vector<std::string>& devices) {
    const RoundLease lease = SomeRound();
    std::vector<AssignmentRow> rows;
    for (const std::string& device : devices) {
      rows.push_back(SomeAssignment(lease.key, device));
    }
    EXPECT_THAT(store().PutAssignments(lease, rows), test::IsOk());
    EXPECT_THAT(store().Transition(lease, RoundState::kSelecting,
                                   RoundState::kCollecting, At(4), 9),
                test::IsOk());
    return lease;
  }
  static ReceiptRow Accepted(const std::string& assignment,
                             const std::string& partial) {
    ReceiptRow row;
    row.assignment_id = assignment;
    row.digest = DigestOf("update of " + assignment);
    row.partial_id = partial;
    row.created = At(6);
    return row;
  }
  static PartialRow SomePartial(const RoundLease& lease,
                                const std::string& id) {
    return {id, lease.key, 1, 100};
  }
  CommittedRound SomeResult(const RoundLease& lease, uint64_t version) {
    CommittedRound result;
    result.version.task_id = lease.key.task_id;
    result.version.version = version;
    result.version.round = lease.key.number;
    const std::string n = std::to_string(version);
    result.version.checkpoint_digest = DigestOf("checkpoint " + n);
    result.version.master_digest = DigestOf("master " + n);
    result.version.created = At(9);
    result.metrics = {1, 2, 3};
    result.figures = "clip_fraction=0.5\n";
    result.artefacts = {{result.version.checkpoint_digest, 10},
                        {result.version.master_digest, 20}};
    result.references = {result.version.checkpoint_digest};
    return result;
  }
  void MoveToApplying(const RoundLease& lease) {
    ASSERT_THAT(store().Transition(lease, RoundState::kCollecting,
                                   RoundState::kClosing, At(7), 0),
                test::IsOk());
    ASSERT_THAT(store().Transition(lease, RoundState::kClosing,
                                   RoundState::kApplying, At(8), 0),
                test::IsOk());
  }

  std::unique_ptr<StoreUnderTest> under_test_;
};

// -------------------------------------------------------------------- time

TEST_P(StoreContract, Now_ClockJumpsBack_KeepsGoingForward) {
  const Time before = store().Now();
  under_test_->clock.Advance(-std::chrono::minutes(10));

  const Time after = store().Now();
  under_test_->clock.Advance(std::chrono::seconds(5));

  EXPECT_GE(after, before);
  EXPECT_EQ(store().Now(), after + std::chrono::seconds(5));
}

TEST_P(StoreContract, Now_ClockJumpsBackOverRestart_IsNotBeforeWhatWasStored) {
  const Time before = store().Now();
  ASSERT_THAT(store().CreatePopulation({"later", before}, {}), test::IsOk());
  under_test_->clock.Advance(-std::chrono::minutes(30));

  under_test_->Reopen();

  EXPECT_GE(store().Now(), before);
}

// ---------------------------------------------------------------- requests

TEST_P(StoreContract, Request_TakenId_IsRefusedAndChangesNothing) {
  const RequestRow request{"r1", "create_population", DigestOf("x"), "one",
                           At(5)};
  ASSERT_THAT(store().CreatePopulation({"one", At(5)}, request), test::IsOk());

  EXPECT_THAT(store().CreatePopulation({"two", At(6)}, request),
              test::StatusIs(StatusCode::kAlreadyExists));

  EXPECT_THAT(store().GetPopulation("two"),
              test::StatusIs(StatusCode::kNotFound));
  const auto found = store().FindRequest("r1");
  ASSERT_THAT(found, test::IsOk());
  ASSERT_TRUE(found->has_value());
  EXPECT_EQ((*found)->resource, "one");
  EXPECT_EQ((*found)->fingerprint, DigestOf("x"));
  EXPECT_FALSE(store().FindRequest("r2")->has_value());
}

TEST_P(StoreContract, Request_FailedCall_DoesNotUseTheId) {
  const RequestRow request{"r1", "create_population", DigestOf("x"), "demo",
                           At(5)};

  EXPECT_THAT(store().CreatePopulation({"demo", At(6)}, request),
              test::StatusIs(StatusCode::kAlreadyExists));

  EXPECT_FALSE(store().FindRequest("r1")->has_value());
}

// --------------------------------------------------------------- identities

TEST_P(StoreContract, ListPopulations_Pages_InOrderOfNames) {
  ASSERT_THAT(store().CreatePopulation({"b", At(1)}, {}), test::IsOk());
  ASSERT_THAT(store().CreatePopulation({"a", At(1)}, {}), test::IsOk());

  const auto first = store().ListPopulations("", 2);
  const auto rest = store().ListPopulations("b", 2);

  ASSERT_EQ(first->size(), 2u);
  EXPECT_EQ((*first)[0].name, "a");
  EXPECT_EQ((*first)[1].name, "b");
  ASSERT_EQ(rest->size(), 1u);
  EXPECT_EQ((*rest)[0].name, "demo");
}

TEST_P(StoreContract, EnrollDevice_TokenRules_AreOneTransaction) {
  TokenRow token{"t", "demo", DigestOf("secret"), At(1), At(100), 2};
  ASSERT_THAT(store().InsertToken(token, {}), test::IsOk());
  const auto device = [](const std::string& id, const std::string& key) {
    return DeviceRow{"demo",      id,      DigestOf(key), "t",
                     "pem " + id, At(500), At(5)};
  };

  ASSERT_THAT(store().EnrollDevice(device("d1", "k1"), At(5)), test::IsOk());
  DeviceRow again = device("d1", "k1");
  again.certificate_pem = "another";
  const auto repeated = store().EnrollDevice(again, At(6));
  ASSERT_THAT(repeated, test::IsOk());
  EXPECT_EQ(repeated->certificate_pem, "pem d1");
  EXPECT_EQ(store().GetToken("t")->uses, 1u);
  EXPECT_THAT(store().EnrollDevice(device("d1", "k2"), At(6)),
              test::StatusIs(StatusCode::kAlreadyExists));
  EXPECT_THAT(store().EnrollDevice(device("d2", "k2"), At(100)),
              test::StatusIs(StatusCode::kFailedPrecondition));  // expired
  ASSERT_THAT(store().EnrollDevice(device("d2", "k2"), At(99)), test::IsOk());
  EXPECT_THAT(store().EnrollDevice(device("d3", "k3"), At(99)),
              test::StatusIs(StatusCode::kFailedPrecondition));  // used up

  EXPECT_EQ(store().GetPopulation("demo")->device_count, 2u);
  EXPECT_EQ(*store().CertificatesIssued(), 2u);
  EXPECT_EQ(*store().ListDevices(),
            (std::vector<DeviceIdentity>{{"demo", "d1"}, {"demo", "d2"}}));
}

TEST_P(StoreContract, EnrollDevice_RevokedToken_IsRefused) {
  TokenRow token{"t", "demo", DigestOf("secret"), At(1), At(100), 2};
  ASSERT_THAT(store().InsertToken(token, {}), test::IsOk());
  ASSERT_THAT(store().RevokeToken("t"), test::IsOk());
  EXPECT_THAT(store().RevokeToken("u"), test::StatusIs(StatusCode::kNotFound));

  const DeviceRow row{"demo", "d", DigestOf("k"), "t", "pem", At(9), At(5)};
  EXPECT_THAT(store().EnrollDevice(row, At(5)),
              test::StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_EQ(store().ListTokens("demo", "", 9)->size(), 1u);
  EXPECT_TRUE(store().ListTokens("demo", "", 9)->front().revoked);
}

TEST_P(StoreContract, RenewDevice_AnotherKey_IsRefused) {
  TokenRow token{"t", "demo", DigestOf("secret"), At(1), At(100), 2};
  ASSERT_THAT(store().InsertToken(token, {}), test::IsOk());
  DeviceRow row{"demo", "d", DigestOf("k"), "t", "pem", At(9), At(5)};
  EXPECT_THAT(store().RenewDevice(row), test::StatusIs(StatusCode::kNotFound));
  ASSERT_THAT(store().EnrollDevice(row, At(5)), test::IsOk());

  row.certificate_pem = "newer";
  EXPECT_THAT(store().RenewDevice(row), test::IsOk());
  EXPECT_EQ(store().GetDevice("demo", "d")->certificate_pem, "newer");
  row.key_digest = DigestOf("other");
  EXPECT_THAT(store().RenewDevice(row),
              test::StatusIs(StatusCode::kAlreadyExists));
}

TEST_P(StoreContract, RenewDevice_IdentityKey_ANonceIsGoodForOne) {
  TokenRow token{"t", "demo", DigestOf("secret"), At(1), At(100), 2};
  ASSERT_THAT(store().InsertToken(token, {}), test::IsOk());
  DeviceRow row{"demo", "d", DigestOf("k"), "t", "pem", At(9), At(5), At(20)};
  ASSERT_THAT(store().EnrollDevice(row, At(5)), test::IsOk());
  under_test_->Reopen();
  EXPECT_EQ(store().GetDevice("demo", "d")->nonce_made, At(20));

  row.certificate_pem = "newer";
  EXPECT_THAT(store().RenewDevice(row), test::StatusIs(StatusCode::kAborted));
  row.nonce_made = At(19);
  EXPECT_THAT(store().RenewDevice(row), test::StatusIs(StatusCode::kAborted));
  EXPECT_EQ(store().GetDevice("demo", "d")->certificate_pem, "pem");
  row.nonce_made = At(21);
  EXPECT_THAT(store().RenewDevice(row), test::IsOk());
  EXPECT_EQ(store().GetDevice("demo", "d")->nonce_made, At(21));
  EXPECT_EQ(*store().CertificatesIssued(), 2u);
}

TEST_P(StoreContract, Device_KindOfKey_NeverChanges) {
  TokenRow token{"t", "demo", DigestOf("secret"), At(1), At(100), 9};
  ASSERT_THAT(store().InsertToken(token, {}), test::IsOk());
  DeviceRow with{"demo", "with", DigestOf("k"), "t",
                 "pem",  At(9),  At(5),         At(20)};
  DeviceRow without{"demo", "without", DigestOf("k"), "t", "pem", At(9), At(5)};
  ASSERT_THAT(store().EnrollDevice(with, At(5)), test::IsOk());
  ASSERT_THAT(store().EnrollDevice(without, At(5)), test::IsOk());

  with.nonce_made = Time{};
  without.nonce_made = At(30);
  for (const DeviceRow& row : {with, without}) {
    EXPECT_THAT(store().RenewDevice(row),
                test::StatusIs(StatusCode::kAlreadyExists));
    EXPECT_THAT(store().EnrollDevice(row, At(6)),
                test::StatusIs(StatusCode::kAlreadyExists));
  }
  EXPECT_EQ(store().GetToken("t")->uses, 2u);
}

// -------------------------------------------------------------------- tasks

TEST_P(StoreContract, CreateTask_Everything_IsReadBack) {
  const auto made = store().CreateTask(SomeTask("one"), {});
  ASSERT_THAT(made, test::IsOk());
  under_test_->Reopen();

  const auto task = store().GetTask("one");
  ASSERT_THAT(task, test::IsOk());
  EXPECT_EQ(task->id, made->id);
  EXPECT_EQ(task->state, TaskState::kRunning);
  EXPECT_EQ(task->task_file, "name: one");
  EXPECT_EQ(task->program_digest, DigestOf("program"));
  EXPECT_TRUE(task->initial_digest.empty());
  EXPECT_EQ(task->plan_signature[5], 7);
  EXPECT_EQ(task->created, At(2));
  EXPECT_EQ(store().GetTaskById(made->id)->name, "one");
  const auto version = store().GetVersion(made->id, 0);
  ASSERT_THAT(version, test::IsOk());
  EXPECT_EQ(version->master_digest, DigestOf("master 0"));
  EXPECT_TRUE(*store().HasArtefact(DigestOf("master 0")));
  EXPECT_TRUE(*store().IsReferenced("demo", DigestOf("checkpoint 0")));
  EXPECT_FALSE(*store().IsReferenced("demo", DigestOf("master 0")));
  EXPECT_FALSE(*store().IsReferenced("other", DigestOf("checkpoint 0")));
}

TEST_P(StoreContract, CreateTask_NameOrPopulation_AreChecked) {
  ASSERT_THAT(store().CreateTask(SomeTask("one"), {}), test::IsOk());

  EXPECT_THAT(store().CreateTask(SomeTask("one"), {}),
              test::StatusIs(StatusCode::kAlreadyExists));
  Store::NewTask foreign = SomeTask("two");
  foreign.task.population = "nowhere";
  EXPECT_THAT(store().CreateTask(foreign, {}),
              test::StatusIs(StatusCode::kNotFound));
  EXPECT_EQ(store().ListTasks("", 0, 9)->size(), 1u);
  EXPECT_TRUE(store().ListTasks("nowhere", 0, 9)->empty());
}

TEST_P(StoreContract, StopTask_OpenRound_EndsWithItAndLosesItsKey) {
  const RoundLease lease = SomeRound();
  EXPECT_THAT(store().StopTask("task", 99, At(5), {}),
              test::StatusIs(StatusCode::kAborted));

  const auto stopped = store().StopTask("task", 1, At(6), {});

  ASSERT_THAT(stopped, test::IsOk());
  EXPECT_EQ(stopped->state, TaskState::kStopped);
  EXPECT_EQ(stopped->abandoned_rounds, 1u);
  EXPECT_EQ(stopped->ended, At(6));
  const auto round = store().GetRound(lease.key);
  EXPECT_EQ(round->state, RoundState::kAbandoned);
  EXPECT_EQ(round->wrapped_key, Bytes(60, 0));
  EXPECT_THAT(store().StopTask("task", std::nullopt, At(7), {}),
              test::StatusIs(StatusCode::kFailedPrecondition));
  RoundRow next;
  next.key = {lease.key.task_id, 2};
  EXPECT_THAT(store().OpenRound(next),
              test::StatusIs(StatusCode::kFailedPrecondition));
}

// ------------------------------------------------------------------- rounds

TEST_P(StoreContract, Transition_WrongStateOrEpoch_IsAbortedAndChangesNothing) {
  const RoundLease lease = SomeRound();
  const RoundLease stale = lease;
  const auto current = store().TakeRound(lease.key);
  ASSERT_THAT(current, test::IsOk());
  EXPECT_EQ(current->epoch, 2u);

  EXPECT_THAT(store().Transition(stale, RoundState::kSelecting,
                                 RoundState::kCollecting, At(4), 1),
              test::StatusIs(StatusCode::kAborted));
  EXPECT_THAT(store().Transition(*current, RoundState::kCollecting,
                                 RoundState::kClosing, At(4), 1),
              test::StatusIs(StatusCode::kAborted));
  EXPECT_EQ(store().GetRound(lease.key)->state, RoundState::kSelecting);
  EXPECT_EQ(store().History(lease.key)->size(), 1u);
}

TEST_P(StoreContract, EveryWriteOfAStaleLease_IsFenced) {
  const RoundLease stale = RoundWith({"d"});
  ASSERT_THAT(store().TakeRound(stale.key), test::IsOk());
  const std::vector<AssignmentRow> rows = {SomeAssignment(stale.key, "e")};
  const std::vector<ReceiptRow> receipts = {Accepted("a-1-d", "p")};

  EXPECT_THAT(store().PutAssignments(stale, rows),
              test::StatusIs(StatusCode::kAborted));
  EXPECT_THAT(store().CommitPartial(stale, SomePartial(stale, "p"), receipts),
              test::StatusIs(StatusCode::kAborted));
  EXPECT_THAT(store().AbandonRound(stale, RoundState::kCollecting, At(5), "no"),
              test::StatusIs(StatusCode::kAborted));
  EXPECT_THAT(store().CommitRound(stale, SomeResult(stale, 1), At(5)),
              test::StatusIs(StatusCode::kAborted));
  EXPECT_FALSE(store().FindAssignment("a-1-e")->has_value());
  EXPECT_TRUE(store().ListPartials(stale.key)->empty());
}

TEST_P(StoreContract, CommitRound_OneTransaction_VersionTaskKeyHistory) {
  const RoundLease lease = RoundWith({"d"});
  MoveToApplying(lease);
  CommittedRound result = SomeResult(lease, 1);
  result.finish_task = true;

  ASSERT_THAT(store().CommitRound(lease, result, At(9)), test::IsOk());
  under_test_->Reopen();

  const auto round = store().GetRound(lease.key);
  EXPECT_EQ(round->state, RoundState::kCommitted);
  EXPECT_EQ(round->result_version, 1u);
  EXPECT_EQ(round->ended, At(9));
  EXPECT_EQ(round->wrapped_key, Bytes(60, 0));
  EXPECT_EQ(round->metrics, (Bytes{1, 2, 3}));
  EXPECT_EQ(round->figures, "clip_fraction=0.5\n");
  EXPECT_EQ(round->checked_in, 9u);
  const auto task = store().GetTask("task");
  EXPECT_EQ(task->state, TaskState::kFinished);
  EXPECT_EQ(task->latest_version, 1u);
  EXPECT_EQ(task->committed_rounds, 1u);
  EXPECT_EQ(store().GetVersion(task->id, 1)->round, 1u);
  EXPECT_EQ(store().ListVersions(task->id, 0, 9)->size(), 2u);
  EXPECT_TRUE(*store().IsReferenced("demo", DigestOf("checkpoint 1")));
  EXPECT_EQ((*store().RoundMeasuring(task->id, 0))->key, lease.key);
  EXPECT_FALSE(store().RoundMeasuring(task->id, 1)->has_value());
  const auto history = store().History(lease.key);
  ASSERT_EQ(history->size(), 5u);
  EXPECT_FALSE((*history)[0].from.has_value());
  for (size_t i = 1; i < history->size(); ++i) {
    EXPECT_EQ((*history)[i].from, (*history)[i - 1].to);
  }
  EXPECT_EQ(history->back().to, RoundState::kCommitted);
}

TEST_P(StoreContract, CommitRound_Twice_OrOutOfOrder_IsAborted) {
  const RoundLease lease = RoundWith({"d"});
  MoveToApplying(lease);

  EXPECT_THAT(store().CommitRound(lease, SomeResult(lease, 2), At(9)),
              test::StatusIs(StatusCode::kAborted));
  ASSERT_THAT(store().CommitRound(lease, SomeResult(lease, 1), At(9)),
              test::IsOk());
  EXPECT_THAT(store().CommitRound(lease, SomeResult(lease, 2), At(9)),
              test::StatusIs(StatusCode::kAborted));
  EXPECT_THAT(store().AbandonRound(lease, RoundState::kApplying, At(9), "late"),
              test::StatusIs(StatusCode::kAborted));
}

TEST_P(StoreContract, AbandonRound_KeepsTheReason) {
  const RoundLease lease = SomeRound();

  ASSERT_THAT(store().AbandonRound(lease, RoundState::kSelecting, At(5), "why"),
              test::IsOk());

  const auto round = store().LatestRound(lease.key.task_id);
  ASSERT_TRUE(round->has_value());
  EXPECT_EQ((*round)->state, RoundState::kAbandoned);
  EXPECT_EQ((*round)->reason, "why");
  EXPECT_EQ(store().GetTask("task")->abandoned_rounds, 1u);
  EXPECT_EQ(store().ListRounds(lease.key.task_id, 1, 5)->size(), 1u);
  EXPECT_TRUE(store().ListRounds(lease.key.task_id, 2, 5)->empty());
}

TEST_P(StoreContract, OpenRound_Twice_IsRefused) {
  const RoundLease lease = SomeRound();
  RoundRow row;
  row.key = lease.key;

  EXPECT_THAT(store().OpenRound(row),
              test::StatusIs(StatusCode::kAlreadyExists));
  EXPECT_EQ(store().GetRound(lease.key)->wrapped_key, Bytes(60, 0xAB));
}

TEST_P(StoreContract, OpenRound_Carried_LeasedOnesBelongToIt) {
  const RoundLease before = RoundWith({"d", "e", "f", "g"});
  const std::vector<ReceiptRow> receipts = {Accepted("a-1-d", "p1")};
  ASSERT_THAT(
      store().CommitPartial(before, SomePartial(before, "p1"), receipts),
      test::IsOk());
  const std::vector<Store::AssignmentChange> expire = {
      {"a-1-e", AssignmentState::kExpired, ""}};
  ASSERT_THAT(store().ChangeAssignments(expire), test::IsOk());
  MoveToApplying(before);
  ASSERT_THAT(store().AbandonRound(before, RoundState::kApplying, At(8), "x"),
              test::IsOk());
  RoundRow row;
  row.key = {before.key.task_id, 2};
  row.opened = At(9);
  row.wrapped_key = Bytes(60, 1);
  row.carried = {"a-1-d", "a-1-e", "a-1-f", "nobody's"};
  ASSERT_THAT(store().OpenRound(row), test::IsOk());
  under_test_->Reopen();

  // One was counted, one expired, one was not named.
  const auto there = store().ListAssignments(row.key);
  ASSERT_EQ(there->size(), 1u);
  EXPECT_EQ(there->front().assignment.id, "a-1-f");
  EXPECT_EQ(there->front().assignment.round, row.key);
  EXPECT_EQ(store().ListAssignments(before.key)->size(), 3u);
  EXPECT_TRUE(store().GetRound(row.key)->carried.empty());
  // From now on it counts there, and only there.
  const RoundLease lease{row.key, 1};
  ASSERT_THAT(store().Transition(lease, RoundState::kSelecting,
                                 RoundState::kCollecting, At(10), 1),
              test::IsOk());
  const std::vector<ReceiptRow> late = {Accepted("a-1-g", "p2")};
  EXPECT_THAT(store().CommitPartial(lease, SomePartial(lease, "p2"), late),
              test::StatusIs(StatusCode::kNotFound));
  const std::vector<ReceiptRow> carried = {Accepted("a-1-f", "p2")};
  const auto conflicts =
      store().CommitPartial(lease, SomePartial(lease, "p2"), carried);
  ASSERT_THAT(conflicts, test::IsOk());
  EXPECT_TRUE(conflicts->empty());
  EXPECT_EQ((*store().FindAssignment("a-1-f"))->receipt->partial_id, "p2");
}

TEST_P(StoreContract, OpenRound_CarriedButRefused_StayWhereTheyWere) {
  const RoundLease before = RoundWith({"d"});
  RoundRow row;
  row.key = before.key;
  row.carried = {"a-1-d"};
  EXPECT_THAT(store().OpenRound(row),
              test::StatusIs(StatusCode::kAlreadyExists));
  EXPECT_EQ(store().ListAssignments(before.key)->size(), 1u);
}

// ----------------------------------------------------- assignments, receipts

TEST_P(StoreContract, PutAssignments_ClosedRound_IsAborted) {
  const RoundLease lease = RoundWith({"d"});
  MoveToApplying(lease);
  const std::vector<AssignmentRow> rows = {SomeAssignment(lease.key, "e")};

  EXPECT_THAT(store().PutAssignments(lease, rows),
              test::StatusIs(StatusCode::kAborted));
  EXPECT_EQ(store().ListAssignments(lease.key)->size(), 1u);
}

TEST_P(StoreContract, PutAssignments_ExpiredOne_GetsANewLease) {
  const RoundLease lease = RoundWith({"d"});
  const std::vector<Store::AssignmentChange> expire = {
      {"a-1-d", AssignmentState::kExpired, ""}};
  ASSERT_THAT(store().ChangeAssignments(expire), test::IsOk());
  std::vector<AssignmentRow> rows = {SomeAssignment(lease.key, "d")};
  rows[0].lease_deadline = At(15);

  ASSERT_THAT(store().PutAssignments(lease, rows), test::IsOk());

  const auto found = store().FindAssignment("a-1-d");
  ASSERT_TRUE(found->has_value());
  EXPECT_EQ((*found)->assignment.state, AssignmentState::kLeased);
  EXPECT_EQ((*found)->assignment.lease_deadline, At(15));
}

TEST_P(StoreContract, CommitPartial_Accepted_IsDurableWithItsReceipts) {
  const RoundLease lease = RoundWith({"d", "e"});
  const std::vector<ReceiptRow> receipts = {Accepted("a-1-d", "p1"),
                                            Accepted("a-1-e", "p1")};

  const auto conflicts =
      store().CommitPartial(lease, SomePartial(lease, "p1"), receipts);
  ASSERT_THAT(conflicts, test::IsOk());
  EXPECT_TRUE(conflicts->empty());
  under_test_->Reopen();

  const auto found = store().FindAssignment("a-1-d");
  ASSERT_TRUE(found->has_value());
  EXPECT_EQ((*found)->assignment.state, AssignmentState::kAccepted);
  ASSERT_TRUE((*found)->receipt.has_value());
  EXPECT_EQ((*found)->receipt->digest, DigestOf("update of a-1-d"));
  EXPECT_EQ((*found)->receipt->status, ReceiptStatus::kAccepted);
  EXPECT_EQ(store().ListPartials(lease.key)->size(), 1u);
  EXPECT_EQ(*store().LivePartials(), std::vector<std::string>{"p1"});
  EXPECT_EQ(store().GetRound(lease.key)->bytes_up, 100u);
}

TEST_P(StoreContract, CommitPartial_OneConflict_ChangesNothing) {
  const RoundLease lease = RoundWith({"d", "e", "f"});
  const std::vector<ReceiptRow> first = {Accepted("a-1-d", "p1")};
  ASSERT_TRUE(
      store().CommitPartial(lease, SomePartial(lease, "p1"), first)->empty());
  const std::vector<Store::AssignmentChange> gave_up = {
      {"a-1-f", AssignmentState::kAbandoned, "INTERRUPTED"}};
  ASSERT_THAT(store().ChangeAssignments(gave_up), test::IsOk());
  const std::vector<ReceiptRow> second = {Accepted("a-1-d", "p2"),
                                          Accepted("a-1-e", "p2"),
                                          Accepted("a-1-f", "p2")};

  const auto conflicts =
      store().CommitPartial(lease, SomePartial(lease, "p2"), second);

  ASSERT_THAT(conflicts, test::IsOk());
  EXPECT_EQ(*conflicts, (std::vector<std::string>{"a-1-d", "a-1-f"}));
  EXPECT_EQ(store().ListPartials(lease.key)->size(), 1u);
  EXPECT_FALSE((*store().FindAssignment("a-1-e"))->receipt.has_value());
  EXPECT_EQ((*store().FindAssignment("a-1-d"))->receipt->partial_id, "p1");
}

TEST_P(StoreContract, CommitPartial_UnknownAssignment_ChangesNothing) {
  const RoundLease lease = RoundWith({"d"});
  const std::vector<ReceiptRow> receipts = {Accepted("a-1-d", "p"),
                                            Accepted("nobody", "p")};

  EXPECT_THAT(store().CommitPartial(lease, SomePartial(lease, "p"), receipts),
              test::StatusIs(StatusCode::kNotFound));
  EXPECT_TRUE(store().ListPartials(lease.key)->empty());
}

TEST_P(StoreContract, CommitPartial_AfterClosing_IsRefused) {
  const RoundLease lease = RoundWith({"d"});
  ASSERT_THAT(store().Transition(lease, RoundState::kCollecting,
                                 RoundState::kClosing, At(7), 0),
              test::IsOk());
  const std::vector<ReceiptRow> receipts = {Accepted("a-1-d", "p")};

  EXPECT_THAT(store().CommitPartial(lease, SomePartial(lease, "p"), receipts),
              test::StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_FALSE((*store().FindAssignment("a-1-d"))->receipt.has_value());
}

// The interleaving of docs/protocol.md, "Uploads in a replica", 4: partials
// race with the close. Whatever was committed before the close is in the list
// read after it, and nothing is committed after it.
TEST_P(StoreContract, CloseVersusCommit_Concurrent_NoAcknowledgedPartialLost) {
  for (int attempt = 0; attempt < 20; ++attempt) {
    const RoundLease lease = SomeRound("race-" + std::to_string(attempt));
    constexpr int kDevices = 8;
    std::vector<AssignmentRow> rows;
    for (int i = 0; i < kDevices; ++i) {
      rows.push_back(SomeAssignment(lease.key, "d" + std::to_string(i)));
      rows.back().id += "-" + std::to_string(attempt);
    }
    ASSERT_THAT(store().PutAssignments(lease, rows), test::IsOk());
    ASSERT_THAT(store().Transition(lease, RoundState::kSelecting,
                                   RoundState::kCollecting, At(4), 0),
                test::IsOk());
    std::vector<std::string> acknowledged;

    std::thread committer([&] {
      for (const AssignmentRow& row : rows) {
        const std::string partial = "p-" + row.id;
        const std::vector<ReceiptRow> receipts = {Accepted(row.id, partial)};
        const auto conflicts =
            store().CommitPartial(lease, SomePartial(lease, partial), receipts);
        if (conflicts.ok() && conflicts->empty()) {
          acknowledged.push_back(partial);
        }
      }
    });
    const Status closed = store().Transition(lease, RoundState::kCollecting,
                                             RoundState::kClosing, At(7), 0);
    const auto listed = store().ListPartials(lease.key);
    committer.join();

    ASSERT_THAT(closed, test::IsOk());
    ASSERT_THAT(listed, test::IsOk());
    std::vector<std::string> ids;
    for (const PartialRow& row : *listed) ids.push_back(row.id);
    EXPECT_EQ(ids, acknowledged) << "attempt " << attempt;
  }
}

// A device offers its update to two replicas at once: one of them counts it,
// the other one is told whose receipt to answer with.
TEST_P(StoreContract, CommitPartial_OneAssignmentTwice_Concurrent_CountsOnce) {
  std::vector<std::string> devices;
  for (int i = 0; i < 10; ++i) devices.push_back("d" + std::to_string(i));
  const RoundLease lease = RoundWith(devices);
  uint64_t sent = 0;
  for (const std::string& device : devices) {
    // Two batches share this device only; the other member of each is alone.
    const std::string id = "a-1-" + device;
    std::vector<Result<std::vector<std::string>>> answers(
        2, Result<std::vector<std::string>>(Status(StatusCode::kUnknown, "")));
    std::vector<std::thread> replicas;
    for (size_t i = 0; i < answers.size(); ++i) {
      replicas.emplace_back([&, i] {
        const std::string partial = "p-" + device + "-" + std::to_string(i);
        const std::vector<ReceiptRow> receipts = {Accepted(id, partial)};
        answers[i] =
            store().CommitPartial(lease, SomePartial(lease, partial), receipts);
      });
    }
    for (std::thread& replica : replicas) replica.join();

    size_t counted = 0;
    size_t winner = 0;
    for (size_t i = 0; i < answers.size(); ++i) {
      ASSERT_THAT(answers[i], test::IsOk());
      if (answers[i]->empty()) {
        ++counted;
        winner = i;
      } else {
        EXPECT_EQ(*answers[i], std::vector<std::string>{id});
      }
    }
    EXPECT_EQ(counted, 1u) << device;
    const auto record = *store().FindAssignment(id);
    EXPECT_EQ(record->receipt->partial_id,
              "p-" + device + "-" + std::to_string(winner));
    sent += 100;
  }
  EXPECT_EQ(store().ListPartials(lease.key)->size(), devices.size());
  EXPECT_EQ(store().GetRound(lease.key)->bytes_up, sent);
}

// Two batches that share members, in opposite orders: no deadlock, and whoever
// comes second changes nothing.
TEST_P(StoreContract, CommitPartial_OverlappingBatches_Concurrent_OneWins) {
  const RoundLease lease = RoundWith({"d", "e", "f", "g"});
  const std::vector<std::vector<ReceiptRow>> batches = {
      {Accepted("a-1-d", "p0"), Accepted("a-1-e", "p0"),
       Accepted("a-1-f", "p0")},
      {Accepted("a-1-f", "p1"), Accepted("a-1-e", "p1"),
       Accepted("a-1-g", "p1")}};
  std::vector<Result<std::vector<std::string>>> answers(
      2, Result<std::vector<std::string>>(Status(StatusCode::kUnknown, "")));
  std::vector<std::thread> replicas;
  for (size_t i = 0; i < 2; ++i) {
    replicas.emplace_back([&, i] {
      answers[i] = store().CommitPartial(
          lease, SomePartial(lease, "p" + std::to_string(i)), batches[i]);
    });
  }
  for (std::thread& replica : replicas) replica.join();

  ASSERT_THAT(answers[0], test::IsOk());
  ASSERT_THAT(answers[1], test::IsOk());
  ASSERT_NE(answers[0]->empty(), answers[1]->empty());
  const size_t loser = answers[0]->empty() ? 1 : 0;
  EXPECT_EQ(answers[loser]->size(), 2u);
  const std::string alone = loser == 0 ? "a-1-d" : "a-1-g";
  EXPECT_FALSE((*store().FindAssignment(alone))->receipt.has_value());
  EXPECT_EQ(store().ListPartials(lease.key)->size(), 1u);
}

// The acknowledgement was lost, and the device asks again after the round has
// ended, perhaps elsewhere: the receipt is still there, for an assignment that
// was handed out again, too.
TEST_P(StoreContract, Receipt_AfterTheRoundEnded_IsStillThere) {
  const RoundLease lease = RoundWith({"d"});
  const std::vector<ReceiptRow> receipts = {Accepted("a-1-d", "p")};
  ASSERT_TRUE(
      store().CommitPartial(lease, SomePartial(lease, "p"), receipts)->empty());
  const std::vector<AssignmentRow> again = {SomeAssignment(lease.key, "d")};
  ASSERT_THAT(store().PutAssignments(lease, again), test::IsOk());
  EXPECT_EQ((*store().FindAssignment("a-1-d"))->assignment.state,
            AssignmentState::kAccepted);
  const std::vector<ReceiptRow> elsewhere = {Accepted("a-1-d", "q")};
  EXPECT_EQ(*store().CommitPartial(lease, SomePartial(lease, "q"), elsewhere),
            std::vector<std::string>{"a-1-d"});
  MoveToApplying(lease);
  ASSERT_THAT(store().CommitRound(lease, SomeResult(lease, 1), At(9)),
              test::IsOk());
  under_test_->Reopen();

  EXPECT_THAT(store().CommitPartial(lease, SomePartial(lease, "q"), elsewhere),
              test::StatusIs(StatusCode::kFailedPrecondition));
  ReceiptRow refusal;
  refusal.assignment_id = "a-1-d";
  refusal.status = ReceiptStatus::kLate;
  const auto recorded = store().RecordRefusal(refusal);

  ASSERT_THAT(recorded, test::IsOk());
  EXPECT_EQ(recorded->status, ReceiptStatus::kAccepted);
  EXPECT_EQ(recorded->partial_id, "p");
  EXPECT_EQ(recorded->digest, DigestOf("update of a-1-d"));
}

// ----------------------------------------- several coordinators, one store

TEST_P(StoreContract, ClaimTask_Held_NamesTheHolderUntilItExpires) {
  using std::chrono::seconds;
  const RoundLease lease = SomeRound();
  const uint64_t task = lease.key.task_id;
  EXPECT_THAT(store().ClaimTask(task + 1, "a", seconds(10)),
              test::StatusIs(StatusCode::kNotFound));
  const auto first = store().ClaimTask(task, "a", seconds(10));
  ASSERT_THAT(first, test::IsOk());
  EXPECT_EQ(first->holder, "a");
  EXPECT_EQ(first->token, 1U);
  EXPECT_EQ(first->task_id, task);
  under_test_->clock.Advance(seconds(9));
  auto other = store().ClaimTask(task, "b", seconds(10));
  ASSERT_THAT(other, test::IsOk());
  EXPECT_EQ(other->holder, "a");
  EXPECT_EQ(other->expires, first->expires);
  // A renewal keeps the token.
  const auto renewed = store().ClaimTask(task, "a", seconds(10));
  ASSERT_THAT(renewed, test::IsOk());
  EXPECT_EQ(renewed->token, 1U);
  EXPECT_GT(renewed->expires, first->expires);
  under_test_->clock.Advance(seconds(9));
  EXPECT_EQ(store().ClaimTask(task, "b", seconds(10))->holder, "a");
  under_test_->clock.Advance(seconds(2));
  const auto taken = store().ClaimTask(task, "b", seconds(10));
  ASSERT_THAT(taken, test::IsOk());
  EXPECT_EQ(taken->holder, "b");
  EXPECT_EQ(taken->token, 2U);
  // The first one's renewal is refused: it learns who holds the task now.
  const auto refused = store().ClaimTask(task, "a", seconds(10));
  ASSERT_THAT(refused, test::IsOk());
  EXPECT_EQ(refused->holder, "b");
  EXPECT_EQ(refused->token, 2U);
}

TEST_P(StoreContract, ClaimTask_ExpiredUncontested_KeepsItsToken) {
  using std::chrono::seconds;
  const uint64_t task = SomeRound().key.task_id;
  ASSERT_THAT(store().ClaimTask(task, "a", seconds(1)), test::IsOk());
  under_test_->clock.Advance(seconds(5));
  const auto renewed = store().ClaimTask(task, "a", seconds(1));
  ASSERT_THAT(renewed, test::IsOk());
  EXPECT_EQ(renewed->token, 1U);
}

TEST_P(StoreContract, ClaimTask_Takeover_FencesTheOneBefore) {
  using std::chrono::seconds;
  const RoundLease before = RoundWith({"x"});
  const uint64_t task = before.key.task_id;
  const auto first = store().ClaimTask(task, "a", seconds(1));
  ASSERT_THAT(first, test::IsOk());
  const RoundLease lease{before.key, store().GetRound(before.key)->epoch};
  EXPECT_GT(lease.epoch, before.epoch);
  // A renewal does not fence its own holder.
  ASSERT_THAT(store().ClaimTask(task, "a", seconds(1)), test::IsOk());
  EXPECT_EQ(store().GetRound(lease.key)->epoch, lease.epoch);
  under_test_->clock.Advance(seconds(2));
  ASSERT_THAT(store().ClaimTask(task, "b", seconds(9)), test::IsOk());
  const std::vector<AssignmentRow> more = {SomeAssignment(lease.key, "y")};
  EXPECT_THAT(store().PutAssignments(lease, more),
              test::StatusIs(StatusCode::kAborted));
  EXPECT_THAT(store().Transition(lease, RoundState::kCollecting,
                                 RoundState::kClosing, At(5), 1),
              test::StatusIs(StatusCode::kAborted));
  EXPECT_THAT(store().AbandonRound(lease, RoundState::kCollecting, At(5), ""),
              test::StatusIs(StatusCode::kAborted));
  const std::vector<ReceiptRow> receipts = {Accepted("a-1-x", "p1")};
  EXPECT_THAT(store().CommitPartial(lease, SomePartial(lease, "p1"), receipts),
              test::StatusIs(StatusCode::kAborted));
  RoundRow next;
  next.key = {task, 2};
  next.claim = first->token;
  EXPECT_THAT(store().OpenRound(next), test::StatusIs(StatusCode::kAborted));
  EXPECT_EQ(store().LatestRound(task)->value().key.number, 1U);
  next.claim = first->token + 1;
  EXPECT_THAT(store().OpenRound(next), test::IsOk());
}

TEST_P(StoreContract, ClaimTask_EndedRound_KeepsItsEpoch) {
  const RoundLease lease = RoundWith({"x"});
  ASSERT_THAT(store().AbandonRound(lease, RoundState::kCollecting, At(5), "r"),
              test::IsOk());
  ASSERT_THAT(
      store().ClaimTask(lease.key.task_id, "a", std::chrono::seconds(1)),
      test::IsOk());
  EXPECT_EQ(store().GetRound(lease.key)->epoch, lease.epoch);
}

TEST_P(StoreContract, ReleaseTask_IsFreeAtOnce_UnlessItWasTaken) {
  using std::chrono::seconds;
  const uint64_t task = SomeRound().key.task_id;
  const auto first = store().ClaimTask(task, "a", seconds(100));
  ASSERT_THAT(first, test::IsOk());
  ASSERT_THAT(store().ReleaseTask(*first), test::IsOk());
  const auto second = store().ClaimTask(task, "b", seconds(100));
  ASSERT_THAT(second, test::IsOk());
  EXPECT_EQ(second->holder, "b");
  EXPECT_EQ(second->token, 2U);
  // Too late: it is another's.
  ASSERT_THAT(store().ReleaseTask(*first), test::IsOk());
  EXPECT_EQ(store().ClaimTask(task, "c", seconds(1))->holder, "b");
}

TEST_P(StoreContract, ClaimTask_AtOnce_GoesToOne) {
  const uint64_t task = SomeRound().key.task_id;
  constexpr int kThreads = 4;
  std::vector<TaskClaim> claims(kThreads);
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      const auto claim = store().ClaimTask(task, "r" + std::to_string(i),
                                           std::chrono::seconds(60));
      EXPECT_THAT(claim, test::IsOk());
      if (claim.ok()) claims[static_cast<size_t>(i)] = *claim;
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const TaskClaim& claim : claims) {
    EXPECT_EQ(claim.holder, claims[0].holder);
    EXPECT_EQ(claim.token, 1U);
  }
}

TEST_P(StoreContract, Candidates_ComeInOrder_AndGoWithTheRound) {
  const RoundLease lease = SomeRound();
  const RoundKey& key = lease.key;
  EXPECT_THAT(store().ListCandidates(key, 0)->rows, ::testing::IsEmpty());
  const std::vector<CandidateRow> first = {{"x", "phone"}, {"y", ""}};
  ASSERT_THAT(store().PutCandidates(key, first), test::IsOk());
  const auto read = store().ListCandidates(key, 0);
  ASSERT_THAT(read, test::IsOk());
  ASSERT_EQ(read->rows.size(), 2U);
  EXPECT_EQ(read->rows[0].device_id, "x");
  EXPECT_EQ(read->rows[0].device_class, "phone");
  EXPECT_EQ(read->rows[1].device_id, "y");
  const auto none = store().ListCandidates(key, read->last);
  ASSERT_THAT(none, test::IsOk());
  EXPECT_THAT(none->rows, ::testing::IsEmpty());
  EXPECT_EQ(none->last, read->last);
  // Again: at the end of the queue, and once.
  const std::vector<CandidateRow> again = {{"x", "tablet"}};
  ASSERT_THAT(store().PutCandidates(key, again), test::IsOk());
  const auto more = store().ListCandidates(key, read->last);
  ASSERT_THAT(more, test::IsOk());
  ASSERT_EQ(more->rows.size(), 1U);
  EXPECT_EQ(more->rows[0].device_class, "tablet");
  EXPECT_EQ(store().ListCandidates(key, 0)->rows.size(), 2U);
  // An ended round has none and takes none.
  ASSERT_THAT(store().AbandonRound(lease, RoundState::kSelecting, At(5), "r"),
              test::IsOk());
  ASSERT_THAT(store().PutCandidates(key, first), test::IsOk());
  EXPECT_THAT(store().ListCandidates(key, 0)->rows, ::testing::IsEmpty());
}

TEST_P(StoreContract, RoundPulse_DiffersAfterEveryChange) {
  const RoundLease lease = SomeRound();
  const RoundKey& key = lease.key;
  EXPECT_THAT(store().RoundPulse({key.task_id, 9}),
              test::StatusIs(StatusCode::kNotFound));
  std::set<std::string> seen;
  const auto differs = [&](const char* after) {
    const auto pulse = store().RoundPulse(key);
    ASSERT_THAT(pulse, test::IsOk());
    EXPECT_EQ(*store().RoundPulse(key), *pulse);
    EXPECT_TRUE(seen.insert(*pulse).second) << after;
  };
  differs("nothing");
  const std::vector<CandidateRow> candidate = {{"x", ""}};
  ASSERT_THAT(store().PutCandidates(key, candidate), test::IsOk());
  differs("a candidate");
  ASSERT_THAT(store().PutCandidates(key, candidate), test::IsOk());
  differs("it again");
  std::vector<AssignmentRow> rows = {SomeAssignment(key, "x"),
                                     SomeAssignment(key, "y")};
  ASSERT_THAT(store().PutAssignments(lease, rows), test::IsOk());
  differs("the draw");
  const std::vector<Store::AssignmentChange> expired = {
      {rows[0].id, AssignmentState::kExpired, ""}};
  ASSERT_THAT(store().ChangeAssignments(expired), test::IsOk());
  differs("an expiry");
  rows[0].lease_deadline = At(15);
  ASSERT_THAT(store().PutAssignments(lease, rows), test::IsOk());
  differs("a new lease");
  const std::vector<ReceiptRow> receipts = {Accepted(rows[0].id, "p1")};
  ASSERT_THAT(store().CommitPartial(lease, SomePartial(lease, "p1"), receipts),
              test::IsOk());
  differs("a partial");
  ASSERT_THAT(store().TakeRound(key), test::IsOk());
  differs("a new epoch");
  ASSERT_THAT(store().AbandonRound({key, lease.epoch + 1},
                                   RoundState::kSelecting, At(5), "r"),
              test::IsOk());
  differs("the end");
}

TEST_P(StoreContract, RecordRefusal_Repeated_KeepsTheFirst) {
  const RoundLease lease = RoundWith({"d", "e"});
  ReceiptRow refusal;
  refusal.assignment_id = "a-1-d";
  refusal.digest = DigestOf("bad");
  refusal.status = ReceiptStatus::kRejected;
  refusal.reason = RejectReason::kOutOfRange;
  refusal.message = "element 3 is 9.5, the bound is 8";
  refusal.created = At(5);
  ASSERT_THAT(store().RecordRefusal(refusal), test::IsOk());

  refusal.digest = DigestOf("worse");
  const auto second = store().RecordRefusal(refusal);

  ASSERT_THAT(second, test::IsOk());
  EXPECT_EQ(second->digest, DigestOf("bad"));
  const auto record = *store().FindAssignment("a-1-d");
  EXPECT_EQ(record->assignment.state, AssignmentState::kRejected);
  EXPECT_EQ(record->assignment.reason, "OUT_OF_RANGE");
  EXPECT_EQ(record->receipt->message, "element 3 is 9.5, the bound is 8");
  const std::vector<ReceiptRow> receipts = {Accepted("a-1-d", "p")};
  EXPECT_EQ(
      store().CommitPartial(lease, SomePartial(lease, "p"), receipts)->size(),
      1u);
  refusal.assignment_id = "nobody";
  EXPECT_THAT(store().RecordRefusal(refusal),
              test::StatusIs(StatusCode::kNotFound));
}

TEST_P(StoreContract, ChangeAssignments_NeverTouchesACountedUpdate) {
  const RoundLease lease = RoundWith({"d"});
  const std::vector<ReceiptRow> receipts = {Accepted("a-1-d", "p")};
  ASSERT_TRUE(
      store().CommitPartial(lease, SomePartial(lease, "p"), receipts)->empty());

  const std::vector<Store::AssignmentChange> changes = {
      {"a-1-d", AssignmentState::kAbandoned, "INTERRUPTED"},
      {"nobody", AssignmentState::kExpired, ""}};
  EXPECT_THAT(store().ChangeAssignments(changes), test::IsOk());

  EXPECT_EQ((*store().FindAssignment("a-1-d"))->assignment.state,
            AssignmentState::kAccepted);
}

TEST_P(StoreContract, Prune_EndedRounds_KeepTheirCounts) {
  const RoundLease lease = RoundWith({"d", "e"});
  const std::vector<ReceiptRow> receipts = {Accepted("a-1-d", "p")};
  ASSERT_TRUE(
      store().CommitPartial(lease, SomePartial(lease, "p"), receipts)->empty());
  ASSERT_THAT(store().Prune(At(1000)), test::IsOk());
  EXPECT_EQ(store().ListAssignments(lease.key)->size(), 2u);  // still open
  MoveToApplying(lease);
  ASSERT_THAT(store().CommitRound(lease, SomeResult(lease, 1), At(9)),
              test::IsOk());

  ASSERT_THAT(store().Prune(At(20)), test::IsOk());  // expires at 20
  EXPECT_EQ(store().ListAssignments(lease.key)->size(), 2u);
  ASSERT_THAT(store().Prune(At(21)), test::IsOk());

  EXPECT_TRUE(store().ListAssignments(lease.key)->empty());
  EXPECT_FALSE(store().FindAssignment("a-1-d")->has_value());
  const auto counts = store().CountAssignments(lease.key);
  ASSERT_EQ(counts->size(), 2u);
  EXPECT_EQ((*counts)[0].state, AssignmentState::kLeased);
  EXPECT_EQ((*counts)[1].state, AssignmentState::kAccepted);
  EXPECT_EQ((*counts)[1].count, 1u);
  EXPECT_TRUE(store().LivePartials()->empty());
}

TEST_P(StoreContract, AddReport_SameId_CountsOnce) {
  const DeviceIdentity device{"demo", "d"};
  ASSERT_THAT(store().AddReport(device, "r1", At(5), {{"trained", 2}}),
              test::IsOk());
  ASSERT_THAT(store().AddReport(device, "r1", At(6), {{"trained", 2}}),
              test::IsOk());
  ASSERT_THAT(store().AddReport({"demo", "e"}, "r1", At(6), {{"trained", 5}}),
              test::IsOk());

  EXPECT_EQ(*store().ReportTotals("demo"),
            (std::map<std::string, uint64_t>{{"trained", 7}}));
  EXPECT_TRUE(store().ReportTotals("other")->empty());
}

// --------------------------------------------------------------- evaluation

TEST_P(StoreContract, CommitEvaluation_MakesNoVersion_AndCountsApart) {
  const Result<TaskRow> task = store().CreateTask(SomeTask("task"), {});
  ASSERT_THAT(task, test::IsOk());
  RoundRow row;
  row.key = {task->id, 1};
  row.mode = RoundMode::kEvaluate;
  row.wrapped_key = Bytes(60, 0xAB);
  ASSERT_THAT(store().OpenRound(row), test::IsOk());
  const RoundLease lease{row.key, 1};
  AssignmentRow assignment = SomeAssignment(row.key, "d");
  assignment.device_class = "phone-mid";
  const std::vector<AssignmentRow> rows = {assignment};
  ASSERT_THAT(store().PutAssignments(lease, rows), test::IsOk());
  ASSERT_THAT(store().Transition(lease, RoundState::kSelecting,
                                 RoundState::kCollecting, At(4), 9),
              test::IsOk());
  EvaluatedRound result;
  result.metrics = {1, 2, 3};
  result.class_metrics = {4, 5};
  result.progress = TaskProgress{1, 0, 0, 0.1, -0.25, 3};

  EXPECT_THAT(store().CommitEvaluation(lease, result, At(9)),
              test::StatusIs(StatusCode::kAborted));
  MoveToApplying(lease);
  EXPECT_THAT(store().CommitEvaluation({row.key, 7}, result, At(9)),
              test::StatusIs(StatusCode::kAborted));
  ASSERT_THAT(store().CommitEvaluation(lease, result, At(9)), test::IsOk());
  EXPECT_THAT(store().CommitEvaluation(lease, result, At(9)),
              test::StatusIs(StatusCode::kAborted));
  under_test_->Reopen();

  const auto round = store().GetRound(row.key);
  EXPECT_EQ(round->mode, RoundMode::kEvaluate);
  EXPECT_EQ(round->state, RoundState::kCommitted);
  EXPECT_EQ(round->metrics, result.metrics);
  EXPECT_EQ(round->class_metrics, result.class_metrics);
  EXPECT_EQ(round->wrapped_key, Bytes(60, 0));
  EXPECT_EQ(store().ListAssignments(row.key)->at(0).assignment.device_class,
            "phone-mid");
  const auto stored = store().GetTask("task");
  EXPECT_EQ(stored->state, TaskState::kRunning);
  EXPECT_EQ(stored->evaluated_rounds, 1u);
  EXPECT_EQ(stored->committed_rounds, 0u);
  EXPECT_EQ(stored->latest_version, 0u);
  EXPECT_EQ(stored->progress, *result.progress);
  EXPECT_EQ(stored->revision, task->revision + 1);
  EXPECT_EQ(store().ListVersions(task->id, 0, 9)->size(), 1u);
}

TEST_P(StoreContract, CommitEvaluation_FinishTask_KeepsTheReason) {
  const RoundLease lease = RoundWith({"d"});
  MoveToApplying(lease);
  EvaluatedRound result;
  result.finish_task = true;
  result.end_reason = "target reached";

  ASSERT_THAT(store().CommitEvaluation(lease, result, At(9)), test::IsOk());

  const auto task = store().GetTask("task");
  EXPECT_EQ(task->state, TaskState::kFinished);
  EXPECT_EQ(task->ended, At(9));
  EXPECT_EQ(task->end_reason, "target reached");
  EXPECT_EQ(task->progress, TaskProgress{});
}

TEST_P(StoreContract, AbandonRound_OfEvaluation_IsNotAnAbandonedRound) {
  const Result<TaskRow> task = store().CreateTask(SomeTask("task"), {});
  RoundRow row;
  row.key = {task->id, 1};
  row.mode = RoundMode::kEvaluate;
  ASSERT_THAT(store().OpenRound(row), test::IsOk());

  ASSERT_THAT(
      store().AbandonRound({row.key, 1}, RoundState::kSelecting, At(5), "few"),
      test::IsOk());
  EXPECT_EQ(store().GetTask("task")->abandoned_rounds, 0u);
  row.key.number = 2;
  ASSERT_THAT(store().OpenRound(row), test::IsOk());
  ASSERT_THAT(store().StopTask("task", std::nullopt, At(6), {}), test::IsOk());
  EXPECT_EQ(store().GetTask("task")->abandoned_rounds, 0u);
  EXPECT_EQ(store().GetRound(row.key)->state, RoundState::kAbandoned);
}

TEST_P(StoreContract, FinishTask_AbandonsTheOpenRound_Once) {
  const RoundLease lease = RoundWith({"d"});

  const auto task =
      store().FinishTask(lease.key.task_id, At(12), "patience is over");
  ASSERT_THAT(task, test::IsOk());
  under_test_->Reopen();

  EXPECT_EQ(task->state, TaskState::kFinished);
  EXPECT_EQ(task->abandoned_rounds, 1u);
  EXPECT_EQ(store().GetTask("task")->end_reason, "patience is over");
  EXPECT_EQ(store().GetTask("task")->ended, At(12));
  const auto round = store().GetRound(lease.key);
  EXPECT_EQ(round->state, RoundState::kAbandoned);
  EXPECT_EQ(round->reason, "patience is over");
  EXPECT_EQ(round->wrapped_key, Bytes(60, 0));
  EXPECT_THAT(store().FinishTask(lease.key.task_id, At(13), "again"),
              test::StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_THAT(store().FinishTask(99, At(13), "x"),
              test::StatusIs(StatusCode::kNotFound));
}

TEST_P(StoreContract, RoundMeasuring_AnEvaluationRound_ComesFirst) {
  const RoundLease trained = RoundWith({"d"});
  MoveToApplying(trained);
  ASSERT_THAT(store().CommitRound(trained, SomeResult(trained, 1), At(9)),
              test::IsOk());
  RoundRow row;
  row.key = {trained.key.task_id, 2};
  row.mode = RoundMode::kEvaluate;  // of version 0, later
  ASSERT_THAT(store().OpenRound(row), test::IsOk());
  EXPECT_EQ((*store().RoundMeasuring(row.key.task_id, 0))->key, trained.key);
  const RoundLease lease{row.key, 1};
  ASSERT_THAT(store().Transition(lease, RoundState::kSelecting,
                                 RoundState::kCollecting, At(4), 9),
              test::IsOk());
  MoveToApplying(lease);
  ASSERT_THAT(store().CommitEvaluation(lease, {}, At(9)), test::IsOk());

  EXPECT_EQ((*store().RoundMeasuring(row.key.task_id, 0))->key, row.key);
}

TEST_P(StoreContract, AddEvaluation_OncePerDataSet_WithTheProgress) {
  const auto task = store().CreateTask(SomeTask("task"), {});
  EvaluationRow row;
  row.task_id = task->id;
  row.data_set = "b";
  row.data_digest = DigestOf("data");
  row.example_count = 10;
  row.metrics = {{"accuracy", 0.1}, {"loss", -2.5e-7}};
  row.created = At(5);
  const TaskProgress progress{1, 0, 0, 0.1, 0.1, 0};

  EXPECT_THAT(store().AddEvaluation(row, progress, task->revision + 1),
              test::StatusIs(StatusCode::kAborted));
  EXPECT_TRUE(store().ListEvaluations(task->id, 0)->empty());
  ASSERT_THAT(store().AddEvaluation(row, progress, task->revision),
              test::IsOk());
  EXPECT_THAT(store().AddEvaluation(row, {}, task->revision + 1),
              test::StatusIs(StatusCode::kAlreadyExists));
  row.data_set = "a";
  ASSERT_THAT(store().AddEvaluation(row, {}, task->revision + 1), test::IsOk());
  row.version = 1;
  EXPECT_THAT(store().AddEvaluation(row, {}, task->revision + 2),
              test::StatusIs(StatusCode::kNotFound));
  row.task_id = 99;
  EXPECT_THAT(store().AddEvaluation(row, {}, 1),
              test::StatusIs(StatusCode::kNotFound));
  under_test_->Reopen();

  const auto rows = store().ListEvaluations(task->id, 0);
  ASSERT_EQ(rows->size(), 2u);
  EXPECT_EQ((*rows)[0].data_set, "a");
  EXPECT_EQ((*rows)[1].data_set, "b");
  EXPECT_EQ((*rows)[1].data_digest, DigestOf("data"));
  EXPECT_EQ((*rows)[1].example_count, 10u);
  EXPECT_EQ((*rows)[1].metrics, row.metrics);
  EXPECT_EQ((*rows)[1].created, At(5));
  EXPECT_EQ(store().GetTask("task")->progress, progress);
  EXPECT_EQ(store().GetTask("task")->revision, task->revision + 2);
}

}  // namespace selvage::coordinator

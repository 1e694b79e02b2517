#include "coordinator/store/backup.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include <gmock/gmock.h>

#include "coordinator/tickets.h"
#include "tests/testing/scratch_folder.h"
#include "tests/unit/coordinator/world.h"

namespace selvage::coordinator {
namespace {

using test::FakeClock;
using test::IsOk;
using test::LockedRandom;
using test::StatusIs;
using test::World;
using test::WorldOptions;
using ::testing::HasSubstr;

bool Never() { return false; }

BackupManifest SomeManifest() {
  BackupManifest manifest;
  manifest.instance_id = "0123456789abcdef.77";
  manifest.schema = 6;
  manifest.created = Time(std::chrono::hours(3));
  manifest.database = {crypto::Sha256(AsBytes("db")), 4096};
  manifest.artefacts = {{crypto::Sha256(AsBytes("a")), 1},
                        {crypto::Sha256(AsBytes("b")), 0}};
  std::sort(manifest.artefacts.begin(), manifest.artefacts.end(),
            [](const BackupFile& a, const BackupFile& b) {
              return a.digest < b.digest;
            });
  return manifest;
}

TEST(BackupManifestTest, Text_ThereAndBack) {
  const BackupManifest manifest = SomeManifest();
  const auto parsed = ParseManifest(ManifestText(manifest));
  ASSERT_THAT(parsed, IsOk());
  EXPECT_EQ(*parsed, manifest);
  EXPECT_EQ(manifest.Bytes(), 4097u);
}

TEST(BackupManifestTest, EveryFlippedBitAndEveryTruncation_IsDataLoss) {
  const std::string text = ManifestText(SomeManifest());
  for (size_t i = 0; i < text.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = text;
      bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
      ASSERT_THAT(ParseManifest(bad), StatusIs(StatusCode::kDataLoss))
          << i << " " << bit;
    }
    ASSERT_THAT(ParseManifest(text.substr(0, i)),
                StatusIs(StatusCode::kDataLoss));
  }
  EXPECT_THAT(ParseManifest(text + "\n"), StatusIs(StatusCode::kDataLoss));
}

TEST(BackupNameTest, IsBackupName_NoPaths) {
  EXPECT_TRUE(IsBackupName("2026-11-23.one"));
  for (const char* name : {"", "..", ".", "-x", "a/b", "A", "a b"}) {
    EXPECT_FALSE(IsBackupName(name)) << name;
  }
  EXPECT_FALSE(IsBackupName(std::string(65, 'a')));
}

TEST(TicketsEpochTest, WhatOneEpochMade_IsNothingInAnother) {
  FakeClock clock;
  LockedRandom random(1);
  const crypto::SecretBytes key = crypto::NewAeadKey(random);
  const Tickets first(key);
  const Tickets second(key, "77");
  const DeviceIdentity device{"demo", "d"};
  const std::string id = first.AssignmentId({1, 2}, device);
  EXPECT_TRUE(first.RoundOf(id, device).has_value());
  EXPECT_FALSE(second.RoundOf(id, device).has_value());
  EXPECT_NE(first.AssignmentToken(id), second.AssignmentToken(id));
  const Bytes nonce = first.IdentityNonce(crypto::Sha256({}), Time{});
  EXPECT_FALSE(second.NonceMade(nonce, crypto::Sha256({})).has_value());
  EXPECT_EQ(first.EnrolmentSecret("t"), second.EnrolmentSecret("t"));
  EXPECT_EQ(EpochOf("0123"), "");
  EXPECT_EQ(EpochOf("0123.77"), "77");
}

// A coordinator over real files.
class BackupTest : public ::testing::Test {
 protected:
  BackupTest()
      : world_([&] {
          WorldOptions options;
          options.sqlite = true;
          options.folder = folder_.path() / "data";
          options.devices = 2;
          options.strategy =
              "cohort: 2, over_selection: 1.0, min_updates: 2, "
              "round_deadline: 2h";
          return options;
        }()) {}

  Path backups() const { return folder_.path() / "backups"; }
  RestoreTarget Target(const std::string& name) const {
    const Path to = folder_.path() / name;
    return {to, to / "blobs", "store.db"};
  }
  Result<BackupManifest> Make(const std::string& name) {
    return MakeBackup(world_.sqlite(), world_.blobs(), files_, backups(), name,
                      Never);
  }
  Result<Restored> Restore(const std::string& name, const std::string& to) {
    return RestoreBackup(files_, backups() / name, Target(to), world_.clock,
                         random_);
  }
  // The coordinator ends, and another one starts from `to`.
  void StartFrom(const std::string& to) {
    world_.Close();
    world_.MoveTo(folder_.path() / to);
    ASSERT_THAT(world_.Reopen(), IsOk());
    world_.Turn();
  }
  // Sends what could have been a contribution to the task's first round.
  World::Answer Send(int device, const Assignment& work) {
    const Bytes bytes = world_.OneHot(1, device);
    return world_.Send(device, world_.Header(work, bytes), bytes);
  }
  // One round with both devices, to its commit.
  std::map<int, Assignment> CommitRound() {
    std::map<int, Assignment> drawn = world_.DrawRound();
    EXPECT_EQ(drawn.size(), 2u);
    for (const auto& entry : drawn) Send(entry.first, entry.second);
    for (int i = 0; i < 20; ++i) world_.Turn();
    return drawn;
  }
  static std::string ReadText(const Path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  ::selvage::test::ScratchFolder folder_;
  PosixFileSystem files_;
  LockedRandom random_{99};
  World world_;
};

TEST_F(BackupTest, RestoreOfAnOlderState_ResurrectsNothingAndAdmitsNobody) {
  world_.SetUpTask();
  world_.Turn();
  const std::map<int, Assignment> first = world_.DrawRound();
  ASSERT_EQ(first.size(), 2u);
  // One update is acknowledged when the backup is made, the other is not.
  const auto acknowledged = Send(0, first.at(0));
  for (int i = 0; i < 20; ++i) world_.Turn();
  ASSERT_TRUE(acknowledged->has_value() && (*acknowledged)->ok());
  const uint64_t task = world_.store().GetTask("task")->id;
  const RoundRow open = *world_.store().GetRound({task, 1});
  ASSERT_EQ(open.state, RoundState::kCollecting);
  const auto token =
      world_.coordinator().CreateToken("demo", std::chrono::hours(9), 5, "t2");
  ASSERT_THAT(token, IsOk());
  const auto made = Make("one");
  ASSERT_THAT(made, IsOk());
  EXPECT_THAT(Make("one"), StatusIs(StatusCode::kAlreadyExists));
  // Neither the round's key, wrapped as it is, nor a partial sum.
  EXPECT_THAT(ReadText(backups() / "one" / "coordinator.db"),
              ::testing::Not(HasSubstr(ToHex(open.wrapped_key))));
  EXPECT_FALSE(std::filesystem::exists(backups() / "one" / "sealed"));

  // The coordinator goes on: the round commits, another one begins.
  Send(1, first.at(1));
  for (int i = 0; i < 20; ++i) world_.Turn();
  ASSERT_EQ(world_.store().GetRound({task, 1})->state, RoundState::kCommitted);
  const std::map<int, Assignment> second = world_.DrawRound();
  ASSERT_EQ(second.size(), 2u);
  const std::vector<float> initial = world_.Model(0);

  const auto restored = Restore("one", "again");
  ASSERT_THAT(restored, IsOk());
  StartFrom("again");
  EXPECT_EQ(world_.store().instance_id(), restored->instance_id);
  EXPECT_NE(EpochOf(restored->instance_id), "");
  // The open round is over, the committed one never was.
  const auto round = world_.store().GetRound({task, 1});
  ASSERT_THAT(round, IsOk());
  EXPECT_EQ(round->state, RoundState::kAbandoned);
  EXPECT_EQ(round->reason, "an older state was restored");
  EXPECT_THAT(world_.store().GetVersion(task, 1),
              StatusIs(StatusCode::kNotFound));
  EXPECT_TRUE(world_.store().LivePartials()->empty());
  // Numbers that nobody has seen, beginning with the old model.
  const TaskRow row = *world_.store().GetTask("task");
  EXPECT_GT(row.latest_version, 1000u);
  EXPECT_EQ(world_.Model(row.latest_version), initial);

  // Old sessions: of the acknowledged update, of the other one, of the round
  // that the restored state does not know.
  for (const auto& [device, work] :
       {std::pair(0, first.at(0)), std::pair(1, first.at(1)),
        std::pair(0, second.at(0)), std::pair(1, second.at(1))}) {
    const auto answer = Send(device, work);
    world_.Turn();
    ASSERT_TRUE(answer->has_value());
    ASSERT_THAT(**answer, IsOk());
    EXPECT_EQ((**answer)->status, ReceiptStatus::kRejected);
    EXPECT_EQ((**answer)->reason, RejectReason::kBadToken);
    EXPECT_THAT(world_.coordinator().Abandon(world_.Device(device), work.id,
                                             work.token.span(),
                                             AbandonReason::kInterrupted, ""),
                StatusIs(StatusCode::kUnauthenticated));
  }
  CheckInRequest asks = world_.Request();
  asks.unsettled_assignments = {first.at(0).id};
  const auto check_in = world_.CheckIn(0, asks);
  world_.Turn();
  ASSERT_TRUE(check_in->has_value() && (*check_in)->ok());
  ASSERT_EQ((**check_in)->outcomes.size(), 1u);
  EXPECT_EQ((**check_in)->outcomes[0].state, OutcomeState::kUnknown);
  // Nor may somebody enrol with a token that might have been used up since.
  const auto key = crypto::NewP256Key();
  const auto csr = crypto::NewCertificateRequest(*key, "x");
  EXPECT_THAT(world_.coordinator().Enroll(
                  std::nullopt, {token->info.id, World::SecretOf(token->bundle),
                                 *csr, "new"}),
              ::testing::Not(IsOk()));

  // Work goes on.
  const std::map<int, Assignment> next = CommitRound();
  ASSERT_EQ(next.size(), 2u);
  EXPECT_GT(next.at(0).round, 1000u);
  const TaskRow after = *world_.store().GetTask("task");
  EXPECT_EQ(after.latest_version, row.latest_version + 1);
  EXPECT_EQ(after.committed_rounds, 1u);
}

TEST_F(BackupTest, RestoreTwice_NeverTheSameNumbersOrEpoch) {
  world_.SetUpTask();
  world_.Turn();
  CommitRound();
  ASSERT_THAT(Make("one"), IsOk());
  ASSERT_THAT(Restore("one", "b"), IsOk());
  StartFrom("b");
  const uint64_t first = world_.store().GetTask("task")->latest_version;
  const std::string instance = world_.store().instance_id();
  CommitRound();
  EXPECT_EQ(world_.store().GetTask("task")->latest_version, first + 1);
  ASSERT_THAT(Restore("one", "c"), IsOk());
  StartFrom("c");
  EXPECT_GT(world_.store().GetTask("task")->latest_version, first + 1);
  EXPECT_NE(world_.store().instance_id(), instance);
}

TEST_F(BackupTest, DamagedBackup_IsRefusedBeforeAnythingChanges) {
  world_.SetUpTask();
  world_.Turn();
  ASSERT_THAT(Make("one"), IsOk());
  std::vector<Path> parts;
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(backups() / "one")) {
    if (entry.is_regular_file()) parts.push_back(entry.path());
  }
  ASSERT_GT(parts.size(), 3u);
  for (const Path& part : parts) {
    SCOPED_TRACE(part);
    const std::string good = ReadText(part);
    std::string flipped = good;
    flipped[good.size() / 2] = static_cast<char>(flipped[good.size() / 2] ^ 1);
    for (const std::string& bad :
         {flipped, good.substr(0, good.size() - 1), good + "x"}) {
      std::ofstream(part, std::ios::binary) << bad;
      EXPECT_THAT(Restore("one", "new"), StatusIs(StatusCode::kDataLoss));
    }
    std::filesystem::remove(part);
    EXPECT_THAT(Restore("one", "new"), StatusIs(StatusCode::kDataLoss));
    std::ofstream(part, std::ios::binary) << good;
  }
  EXPECT_FALSE(std::filesystem::exists(folder_.path() / "new"));
  EXPECT_THAT(Restore("one", "new"), IsOk());
}

TEST_F(BackupTest, RestoreWhereSomethingIs_IsRefused) {
  world_.SetUpTask();
  world_.Turn();
  ASSERT_THAT(Make("one"), IsOk());
  EXPECT_THAT(Restore("one", "data"),
              StatusIs(StatusCode::kFailedPrecondition));
  // Keys may be there, and nothing else.
  const Path next = folder_.path() / "next";
  std::filesystem::create_directories(next / "keys");
  std::ofstream(next / "ca.pem") << "x";
  std::ofstream(next / "notes") << "x";
  EXPECT_THAT(Restore("one", "next"),
              StatusIs(StatusCode::kFailedPrecondition));
  std::filesystem::remove(next / "notes");
  EXPECT_THAT(Restore("one", "next"), IsOk());
  EXPECT_THAT(Restore("one", "next"),
              StatusIs(StatusCode::kFailedPrecondition));
}

TEST_F(BackupTest, Make_InterruptedOrMisnamed_LeavesNothing) {
  world_.SetUpTask();
  world_.Turn();
  int asked = 0;
  EXPECT_THAT(MakeBackup(world_.sqlite(), world_.blobs(), files_, backups(),
                         "one", [&] { return ++asked > 3; }),
              StatusIs(StatusCode::kCancelled));
  EXPECT_TRUE(files_.List(backups())->empty());
  EXPECT_THAT(Make("../one"), StatusIs(StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace selvage::coordinator

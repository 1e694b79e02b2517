// The device dies: at every call it makes, before and after the call took
// effect. What is on disk at that moment is copied and started again; the old
// process's later doings are never seen.
#include <gmock/gmock.h>

#include "tests/testing/fault_vfs.h"
#include "tests/unit/client/client_fixture.h"

namespace selvage::client {
namespace {

using test::IsOk;

class ClientKillTest : public test::ClientFixture {
 protected:
  // Runs `story` with a death at the `point`-th call. False if it ended first.
  bool Die(int point, RunResult goal, bool offer) {
    int calls = 0;
    bool dead = false;
    const Path copy = directory_.path() / ("copy" + std::to_string(point));
    const auto step = [&](const std::string&) -> Status {
      if (dead) return Unavailable("dead");
      if (++calls < point) return OkStatus();
      dead = true;
      std::filesystem::copy(state_dir_, copy);
      return Unavailable("dead");
    };
    server_->hook = step;
    trainer_.state.before = step;
    Open();
    if (offer) {
      server_->Give(server_->NewOffer(7));
    } else {
      server_->Give(server_->NewAssignment());
    }
    AddExamples(16);
    for (int i = 0; i < 6 && !dead; ++i) {
      const RunOutcome outcome = Run();
      if (dead) break;
      if (outcome.result == goal) return false;
      WaitForTurn();
    }
    EXPECT_TRUE(dead);

    server_->hook = [](const std::string&) { return OkStatus(); };
    trainer_.state.before = [](const std::string&) { return OkStatus(); };
    client_.reset();
    state_dir_ = copy;
    next_run_ = Time{};
    Open();
    return true;
  }

  void StartAfresh(int point) {
    client_.reset();
    trainer_.state.trainings = 0;
    state_dir_ = directory_.path() / ("state" + std::to_string(point));
    std::filesystem::remove_all(directory_.path() / "cache");
    server_ = std::make_unique<test::FakeServer>(clock_);
  }
};

TEST_F(ClientKillTest,
       RunOnce_KilledAtEveryCallOfARound_OneUpdateOfOneContent) {
  Bytes reference;
  int died = 0;
  for (int point = 1;; ++point) {
    SCOPED_TRACE("killed at call " + std::to_string(point));
    StartAfresh(point);
    const bool killed = Die(point, RunResult::kContributed, /*offer=*/false);
    if (!killed) {
      reference = server_->payloads["round-1"];
      break;
    }
    ++died;
    EXPECT_EQ(*client_->CountExamples("numbers"), 16U);
    // Whatever was under way is finished, or the round went on without us.
    for (int i = 0; i < 6 && server_->updates.empty(); ++i) {
      Run();
      WaitForTurn();
    }
    Run();
    EXPECT_EQ(server_->conflicts, 0);
    ASSERT_EQ(server_->updates.size(), 1U);
    if (reference.empty()) reference = server_->payloads["round-1"];
    EXPECT_EQ(server_->payloads["round-1"], reference);
  }
  EXPECT_GT(died, 15);
  EXPECT_FALSE(reference.empty());
}

TEST_F(ClientKillTest,
       RunOnce_KilledAtEveryCallOfAnInstallation_OldOrNewModel) {
  int died = 0;
  for (int point = 1;; ++point) {
    SCOPED_TRACE("killed at call " + std::to_string(point));
    StartAfresh(point);
    const bool killed = Die(point, RunResult::kInstalled, /*offer=*/true);
    if (!killed) break;
    ++died;
    // The slot is either whole or not there.
    const Result<ModelInfo> info = client_->Info("digits");
    if (info.ok()) {
      EXPECT_EQ(info->version, 7U);
      EXPECT_THAT(client_->Predict("digits", Bytes(16, 0), 1), IsOk());
    }
    server_->Give(server_->NewOffer(7));  // offered again until installed
    for (int i = 0; i < 6 && !client_->Info("digits").ok(); ++i) {
      Run();
      WaitForTurn();
    }
    ASSERT_THAT(client_->Info("digits"), IsOk());
    EXPECT_TRUE(client_->Info("digits")->personal_serving);
  }
  EXPECT_GT(died, 10);
}

// The power fails at every call: SQLite loses whatever it had not synced.
TEST_F(ClientKillTest, RunOnce_PowerCutAtEveryCall_OneUpdateOfOneContent) {
  int died = 0;
  for (int point = 1;; ++point) {
    SCOPED_TRACE("power cut at call " + std::to_string(point));
    test::FaultVfs vfs;
    vfs_ = vfs.name();
    StartAfresh(point);
    int calls = 0;
    bool dead = false;
    SeededRandom chance(static_cast<uint64_t>(point));
    const auto step = [&](const std::string&) -> Status {
      if (dead) return Unavailable("dead");
      if (++calls < point) return OkStatus();
      dead = true;
      vfs.CrashTorn(chance);
      return Unavailable("dead");
    };
    Open();
    AddExamples(16);
    server_->Give(server_->NewAssignment());
    server_->hook = step;
    trainer_.state.before = step;
    Run();
    server_->hook = [](const std::string&) { return OkStatus(); };
    trainer_.state.before = [](const std::string&) { return OkStatus(); };
    if (dead) {
      ++died;
      Open();
      next_run_ = Time{};
      for (int i = 0; i < 6 && server_->updates.empty(); ++i) {
        Run();
        WaitForTurn();
      }
      EXPECT_EQ(*client_->CountExamples("numbers"), 16U);
    }
    EXPECT_EQ(server_->updates.size(), 1U);
    EXPECT_EQ(server_->conflicts, 0);
    client_.reset();  // before the disk it is on
    if (!dead) break;
  }
  EXPECT_GT(died, 15);
}

// A lost answer is not an outcome: the same update is offered again and gets
// its first receipt.
TEST_F(ClientKillTest, RunOnce_ReceiptLost_UploadsTheSameBytesAgain) {
  Open();
  AddExamples(16);
  server_->Give(server_->NewAssignment());
  int uploads = 0;
  server_->hook = [&](const std::string& call) {
    if (call == "upload done" && ++uploads < 3) return Unavailable("lost");
    return OkStatus();
  };
  for (int i = 0; i < 5; ++i) {
    if (Run().result == RunResult::kContributed) break;
    Open();
    WaitForTurn();
  }
  EXPECT_EQ(uploads, 3);
  EXPECT_EQ(trainer_.state.trainings, 2);  // the round's and the personal one
  EXPECT_EQ(server_->conflicts, 0);
  EXPECT_EQ(server_->updates.size(), 1U);
}

}  // namespace
}  // namespace selvage::client

// A device with real state on disk, a fake coordinator, a fake engine and a
// clock of its own.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <memory>
#include <sstream>
#include <string>

#include <gtest/gtest.h>

#include "base/check.h"
#include "base/file_system.h"
#include "base/log.h"
#include "client/client.h"
#include "tests/testing/scratch_folder.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/client/fake_server.h"
#include "tests/unit/client/fake_trainer.h"

namespace selvage::client {

inline void PrintTo(RunResult result, std::ostream* out) {
  *out << RunResultName(result);
}

}  // namespace selvage::client

namespace selvage::test {

inline constexpr char kPixelCanary[] = "CANARY-PIXELS-00";  // 16 bytes and a 0

class ClientFixture : public ::testing::Test {
 protected:
  ClientFixture() : state_dir_(directory_.path() / "state") {
    clock_.Advance(std::chrono::hours(24 * 365 * 53));  // 2022
    server_ = std::make_unique<FakeServer>(clock_);
  }

  client::ClientOptions Options() const {
    client::ClientOptions options;
    options.state_dir = state_dir_;
    options.cache_dir = directory_.path() / "cache";
    options.population = "demo";
    options.enrolment_bundle = bundle_.value_or(server_->Bundle());
    options.device_name = "dev-7";
    options.device_class = "test";
    options.app_version = "1";
    options.sqlite_vfs = vfs_;
    return options;
  }
  client::ClientDependencies Dependencies() {
    return {.clock = clock_,
            .random = random_,
            .events = events_,
            .files = files_,
            .trainer = trainer_,
            .transport = server_->Transports()};
  }
  void Open() {
    client_.reset();
    Result<std::unique_ptr<client::Client>> client =
        client::Client::Open(Options(), Dependencies());
    ASSERT_THAT(client, IsOk());
    client_ = *std::move(client);
  }
  // `count` examples with the label 6 (every sixteenth: 1) and canary pixels.
  void AddExamples(int count) {
    std::vector<client::Example> examples;
    for (int i = 0; i < count; ++i) {
      const int64_t label = i % 16 == 15 ? 1 : 6;
      Bytes pixels(kPixelCanary, kPixelCanary + 16);
      Bytes y;
      AppendLe(y, label);
      examples.push_back({{pixels, y}});
    }
    const auto ids = client_->AddExamples("numbers", examples);
    ASSERT_THAT(ids, IsOk());
    EXPECT_EQ(ids->size(), examples.size());
  }
  // Waits for its turn on the fake clock.
  client::RunOutcome Run() {
    const Result<client::RunOutcome> outcome = client_->RunOnce({}, cancel_);
    EXPECT_THAT(outcome, IsOk());
    next_run_ = outcome->next_run;
    return *outcome;
  }
  void WaitForTurn() {
    if (next_run_ > clock_.Now()) clock_.Advance(next_run_ - clock_.Now());
  }
  // Sessions until one ends like this, at most `sessions` of them.
  client::RunOutcome RunUntil(client::RunResult wanted, int sessions = 10) {
    client::RunOutcome outcome;
    for (int i = 0; i < sessions; ++i) {
      outcome = Run();
      if (outcome.result == wanted) return outcome;
      WaitForTurn();
    }
    ADD_FAILURE() << "no session ended as " << client::RunResultName(wanted)
                  << "; the last one: " << client::RunResultName(outcome.result)
                  << " " << outcome.reason;
    return outcome;
  }

  // `run` in a process of its own, where the client is opened anew, that is
  // killed at its training step number `step`, each of 25 seconds.
  template <typename Work>
  void RunUntilKilledAt(int step, const Work& run) {
    client_.reset();  // nothing is open when the process forks
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      trainer_.state.before = [&, at = 0](const std::string& call) mutable {
        if (call == "step") {
          clock_.Advance(std::chrono::seconds(25));
          if (++at == step) raise(SIGKILL);
        }
        return OkStatus();
      };
      Open();
      if (client_ != nullptr) run();
      _exit(1);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << status;
    EXPECT_EQ(WTERMSIG(status), SIGKILL);
  }
  // `run` as background work that is killed at its fourth training step, each
  // of 40 seconds: from then on nothing works, and what is open afterwards has
  // what was on the disk. False if `run` did not come so far.
  template <typename Work>
  bool LiveForFourSteps(int life, const Work& run) {
    const Path copy = directory_.path() / ("background" + std::to_string(life));
    bool dead = false;
    trainer_.state.before = [&, step = 0](const std::string& call) mutable {
      if (dead) return Unavailable("dead");
      if (call != "step") return OkStatus();
      clock_.Advance(std::chrono::seconds(40));
      if (++step < 4) return OkStatus();
      dead = true;
      server_->hook = [](const std::string&) { return Unavailable("dead"); };
      std::filesystem::copy(state_dir_, copy,
                            std::filesystem::copy_options::recursive);
      return Unavailable("dead");
    };
    run();
    trainer_.state.before = [](const std::string&) { return OkStatus(); };
    server_->hook = [](const std::string&) { return OkStatus(); };
    if (!dead) return false;
    client_.reset();
    state_dir_ = copy;
    next_run_ = Time{};
    Open();
    return true;
  }

  ScratchFolder directory_;
  Path state_dir_;
  std::optional<std::string> bundle_;
  std::string vfs_;  // empty: the real disk
  FakeClock clock_;
  SeededRandom random_{11};
  std::ostringstream log_;
  StreamEventSink events_{log_, clock_, StreamEventSink::Format::kText,
                          LogLevel::kDebug};
  PosixFileSystem files_;
  FakeTrainer trainer_;
  std::unique_ptr<FakeServer> server_;
  client::CancelToken cancel_;
  Time next_run_{};
  std::unique_ptr<client::Client> client_;
};

}  // namespace selvage::test

// The binary itself: exit codes and signals reach the caller.
#include <signal.h>
#include <sys/wait.h>

#include <array>
#include <cstdlib>

#include <gmock/gmock.h>

#include "cli/subprocess.h"
#include "tests/integration/cli/fake_admin.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/cli/cli_fixture.h"

namespace selvage::cli {
namespace {

using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;
using ::testing::HasSubstr;

class ProcessTest : public test::CliFixture {};

TEST_F(ProcessTest, Binary_Version_IsPlain) {
  const auto outcome = RunProcess({SELVAGE_BINARY, "--version"}, interrupt_);
  ASSERT_THAT(outcome, IsOk());
  EXPECT_EQ(outcome->exit_code, 0);
  EXPECT_THAT(outcome->out, HasSubstr("selvage "));
}

TEST_F(ProcessTest, Binary_Usage_Is2) {
  const auto outcome = RunProcess({SELVAGE_BINARY, "frobnicate"}, interrupt_);
  ASSERT_THAT(outcome, IsOk());
  EXPECT_EQ(outcome->exit_code, 2);
  EXPECT_THAT(outcome->err, HasSubstr("is not a verb"));
}

TEST_F(ProcessTest, Binary_Sigint_Is130) {
  test::FakeAdmin admin(directory_ / "coordinator");
  v1::TaskSnapshot snapshot;
  snapshot.mutable_task()->set_name("x");
  snapshot.mutable_task()->set_state(v1::Task::RUNNING);
  admin.tasks["x"] = snapshot.task();
  admin.snapshots.push_back(snapshot);
  admin.watch_forever = true;
  // Its first line says that it is watching; then it gets its signal.
  const std::string script =
      std::string(SELVAGE_BINARY) + " --coordinator " +
      (directory_ / "coordinator").string() + " watch x -o json > " +
      (directory_ / "lines").string() + " & pid=$!; until [ -s " +
      (directory_ / "lines").string() +
      " ]; do :; done; kill -TERM $pid; wait $pid";
  const auto outcome = RunProcess({"/bin/sh", "-c", script}, interrupt_);
  ASSERT_THAT(outcome, IsOk());
  EXPECT_EQ(outcome->exit_code, 130);
  EXPECT_THAT(outcome->err, HasSubstr("interrupted"));
}

TEST_F(ProcessTest, RunProcess_Streams_AreSeparate) {
  const auto outcome = RunProcess(
      {"/bin/sh", "-c", "echo out; echo err >&2; exit 3"}, interrupt_);
  ASSERT_THAT(outcome, IsOk());
  EXPECT_EQ(outcome->out, "out\n");
  EXPECT_EQ(outcome->err, "err\n");
  EXPECT_EQ(outcome->exit_code, 3);
}

TEST_F(ProcessTest, RunProcess_Killed_Is128AndTheSignal) {
  const auto outcome =
      RunProcess({"/bin/sh", "-c", "kill -KILL $$"}, interrupt_);
  ASSERT_THAT(outcome, IsOk());
  EXPECT_EQ(outcome->exit_code, 128 + SIGKILL);
}

TEST_F(ProcessTest, RunProcess_NoProgram_IsNotFound) {
  EXPECT_THAT(RunProcess({"/none/such"}, interrupt_),
              StatusIs(StatusCode::kNotFound, HasSubstr("/none/such")));
}

TEST_F(ProcessTest, RunProcess_Interrupt_EndsIt) {
  interrupt_.Trigger();
  EXPECT_THAT(RunProcess({"/bin/sh", "-c", "exec cat /dev/zero"}, interrupt_),
              StatusIs(StatusCode::kCancelled));
}

}  // namespace
}  // namespace selvage::cli

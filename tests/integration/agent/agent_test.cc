// The agent from outside: a model that came with the device, examples from
// other programs, predictions for them, and no network.
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include <gmock/gmock.h>

#include "client/capi/selvage.hpp"
#include "tests/integration/faults/process.h"
#include "tests/testing/scratch_folder.h"

namespace selvage::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;

constexpr const char* kManifest = R"({
  "collection": "motion",
  "tensors": [
    {"name": "reading", "columns": ["r0..r3"], "shape": [4]},
    {"name": "activity", "dtype": "int64", "columns": ["what"],
     "classes": ["rest", "walk", "run"]}]
})";

class AgentTest : public ::testing::Test {
 protected:
  AgentTest() {
    fs::create_directories(home_ / "spool");
    std::ofstream(home_ / "manifest.json") << kManifest;
  }

  std::vector<std::string> Command() const {
    return {SELVAGE_DEVICE,
            "--state",
            home_ / "device",
            "--population",
            "wearables",
            "--name",
            "kiosk",
            "--model",
            SELVAGE_TEST_MODEL,
            "--spool",
            home_ / "spool",
            "--manifest",
            home_ / "manifest.json",
            "--predict-socket",
            home_ / "predict.sock",
            "--offline",
            "--every",
            "100d",
            "--log-level",
            "debug"};
  }
  // Three activities, in turn.
  void Spool(const std::string& name, int rows) {
    {
      std::ofstream out(home_ / "spool" / ("." + name));
      out << "r0,r1,r2,r3,what\n";
      const char* const names[] = {"rest", "walk", "run"};
      for (int i = 0; i < rows; ++i) {
        const int w = i % 3;
        const double r = (i % 10) / 20.0;
        out << w - 1 + r << "," << r << "," << -r << "," << r - w << ","
            << names[w] << "\n";
      }
    }
    fs::rename(home_ / "spool" / ("." + name), home_ / "spool" / name);
  }
  // What the device has, when the agent does not run.
  uint64_t Count() const {
    host::Options options;
    options.state_dir = home_ / "device" / "state";
    options.cache_dir = home_ / "device" / "cache";
    options.population = "wearables";
    return host::Client(options).CountExamples("motion");
  }
  json Ask(const std::string& line) const {
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    (home_ / "predict.sock")
        .string()
        .copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(
        connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    const std::string request = line + "\n";
    EXPECT_EQ(send(fd, request.data(), request.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(request.size()));
    std::string answer;
    char c = 0;
    while (recv(fd, &c, 1, 0) == 1 && c != '\n') answer += c;
    close(fd);
    return json::parse(answer, nullptr, /*allow_exceptions=*/false);
  }

  const ScratchFolder scratch_;
  const fs::path& home_ = scratch_.path();
};

TEST_F(AgentTest, Spool_Examples_AdaptWhatTheSocketAnswers) {
  ChildProcess agent(Command());
  ASSERT_TRUE(agent.WaitForOutput("event=agent_ready")) << agent.output();
  const std::string running = R"({"inputs": [1.2, 0.2, -0.2, -1.8]})";
  json answer = Ask(running);
  EXPECT_EQ(answer["model"]["personal"], false) << answer;
  EXPECT_EQ(answer["model"]["task"], "activity");
  Spool("a.csv", 90);
  ASSERT_TRUE(
      agent.WaitForOutput("event=spool_imported unit=a.csv examples=90"))
      << agent.output();
  EXPECT_FALSE(fs::exists(home_ / "spool" / "a.csv"));
  ASSERT_EQ(kill(agent.pid(), SIGHUP), 0);
  ASSERT_TRUE(agent.WaitForOutput("INSTALLED activity")) << agent.output();
  answer = Ask(running);
  EXPECT_EQ(answer["model"]["personal"], true) << answer;
  EXPECT_GT(answer["outputs"][0][2], 0.8) << answer;
  EXPECT_EQ(Ask("{}")["error"]["code"], "INVALID_ARGUMENT");
  EXPECT_EQ(agent.Stop(SIGTERM), 0);
  EXPECT_FALSE(fs::exists(home_ / "predict.sock"));
  EXPECT_EQ(Count(), 90U);
}

TEST_F(AgentTest, Spool_BadFile_IsSetAsideWithItsReason) {
  ChildProcess agent(Command());
  ASSERT_TRUE(agent.WaitForOutput("event=agent_ready")) << agent.output();
  std::ofstream(home_ / "spool" / ".bad") << "r0,r1,r2,r3,what\n1,2,3,4,fly\n";
  fs::rename(home_ / "spool" / ".bad", home_ / "spool" / "bad.csv");
  ASSERT_TRUE(agent.WaitForOutput("event=spool_failed")) << agent.output();
  EXPECT_EQ(agent.Stop(SIGTERM), 0);
  std::ifstream in(home_ / "spool" / "failed" / "bad.csv.error");
  const std::string reason{std::istreambuf_iterator<char>(in), {}};
  EXPECT_THAT(reason, HasSubstr("line 2, column \"what\": \"fly\""));
}

TEST_F(AgentTest, Kill_InTheMiddleOfAnImport_LosesAndDoublesNothing) {
  constexpr int kRows = 20'000;
  Spool("big.csv", kRows);
  // Each one is killed further on than the one before.
  for (const char* progress : {"examples=256 ", "examples=2560 "}) {
    ChildProcess agent(Command());
    ASSERT_TRUE(agent.WaitForOutput(progress)) << agent.output();
    EXPECT_EQ(agent.Stop(SIGKILL), 128 + SIGKILL);
    ASSERT_TRUE(fs::exists(home_ / "spool" / "big.csv"));
    const uint64_t count = Count();
    EXPECT_GT(count, 0U);
    EXPECT_LT(count, static_cast<uint64_t>(kRows));
  }
  // Not even its socket, which nobody took away, is in the way.
  EXPECT_TRUE(fs::exists(home_ / "predict.sock"));
  ChildProcess agent(Command());
  ASSERT_TRUE(agent.WaitForOutput("event=spool_imported unit=big.csv"))
      << agent.output();
  EXPECT_EQ(agent.Stop(SIGTERM), 0);
  EXPECT_EQ(Count(), static_cast<uint64_t>(kRows));
}

TEST_F(AgentTest, Start_SocketOfALiveAgent_IsRefused) {
  ChildProcess agent(Command());
  ASSERT_TRUE(agent.WaitForOutput("event=agent_ready")) << agent.output();
  std::vector<std::string> other = Command();
  other[2] = home_ / "other";
  ChildProcess second(other);
  EXPECT_EQ(second.WaitForExit(), 1);
  EXPECT_THAT(second.output(), HasSubstr("in use by another process"));
  EXPECT_EQ(agent.Stop(SIGTERM), 0);
}

}  // namespace
}  // namespace selvage::test

// Predictions over a Unix socket: what is asked and answered, and who may.
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <fstream>
#include <mutex>
#include <sstream>

#include <gmock/gmock.h>

#include "client/agent/predict_protocol.h"
#include "client/agent/predict_server.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/scratch_folder.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/client/client_fixture.h"

namespace selvage::agent {
namespace {

using test::IsOk;
using test::StatusIs;
using ::testing::HasSubstr;

// Two outputs an example: the number of bytes, and 0.5.
Result<host::Prediction> Predict(const std::string& task, ByteSpan input,
                                 size_t count) {
  if (task != "digits") return NotFound("no model of task " + task);
  host::Prediction out{{static_cast<int64_t>(count), 2}, {}, 7, true};
  for (size_t i = 0; i < count; ++i) {
    out.values.push_back(static_cast<float>(input.size() / count));
    out.values.push_back(0.5F);
  }
  return out;
}

std::string Ask(const std::string& line) {
  return AnswerRequest(line, {"digits"}, Predict);
}

TEST(PredictProtocolTest, AnswerRequest_Examples_AreCounted) {
  EXPECT_EQ(Ask(R"({"inputs": [1, 2, 3]})"),
            R"({"outputs":[[12.0,0.5]],"model":{"task":"digits","version":7,)"
            R"("personal":true}})");
  EXPECT_THAT(Ask(R"({"id": 3, "inputs": [[1, 2], [3, 4]]})"),
              HasSubstr(R"({"id":3,"outputs":[[8.0,0.5],[8.0,0.5]])"));
  EXPECT_THAT(Ask(R"({"inputs": [1,2,3,4], "shape": [2,2],
                      "dtype": "uint8", "task": "digits"})"),
              HasSubstr(R"("outputs":[[2.0,0.5],[2.0,0.5]])"));
  EXPECT_THAT(Ask(R"({"inputs": [[[1],[2]]], "dtype": "int64"})"),
              HasSubstr("[[16.0,0.5]]"));
}

TEST(PredictProtocolTest, AnswerRequest_Bad_SaysWhy) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "not JSON"},
      {"[1]", "no object"},
      {"{}", "no inputs"},
      {R"({"inputs": []})", "no inputs"},
      {R"({"inputs": ["a"]})", "no float32"},
      {R"({"inputs": [1e300]})", "no float32"},
      {R"({"inputs": [256], "dtype": "uint8"})", "no uint8"},
      {R"({"inputs": [1.5], "dtype": "int64"})", "no int64"},
      {R"({"inputs": [1], "dtype": "half"})", "dtype"},
      {R"({"inputs": [1,2,3], "shape": [2,2]})", "shape"},
      {R"({"inputs": [1,2,3], "shape": []})", "shape"},
      {R"({"inputs": [1,2], "shape": [4294967296,4294967296,2]})", "shape"},
      {R"({"inputs": [1], "task": "other"})", "NOT_FOUND"},
      {R"({"inputs": [1], "input": 2})", "\\\"input\\\" is unknown"},
      {R"({"inputs": [1], "id": [1]})", "id is neither"}};
  for (const auto& [line, wanted] : cases) {
    EXPECT_THAT(Ask(line), HasSubstr(R"("error":{"code":)")) << line;
    EXPECT_THAT(Ask(line), HasSubstr(wanted)) << line;
  }
  EXPECT_THAT(AnswerRequest(R"({"id":"q","inputs":[1]})", {}, Predict),
              HasSubstr("no model is installed"));
  EXPECT_THAT(AnswerRequest(R"({"inputs":[1]})", {"a", "b"}, Predict),
              HasSubstr("names no task"));
}

class PredictServerTest : public ::testing::Test {
 protected:
  std::unique_ptr<PredictServer> Start(PredictServerOptions options = {}) {
    options.path = path_;
    Result<std::unique_ptr<PredictServer>> server = PredictServer::Start(
        options, [this](std::string_view line) { return Answer(line); },
        events_);
    EXPECT_THAT(server, IsOk());
    return server.ok() ? *std::move(server) : nullptr;
  }
  std::string Answer(std::string_view line) {
    if (line == "block") {
      std::unique_lock lock(mu_);
      ++blocked_;
      changed_.notify_all();
      changed_.wait(lock, [&] { return released_; });
    }
    return "to " + std::string(line);
  }
  int Connect() {
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.string().copy(address.sun_path, sizeof address.sun_path - 1);
    if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) !=
        0) {
      close(fd);
      return -1;
    }
    return fd;
  }
  static void Send(int fd, const std::string& text) {
    ASSERT_EQ(send(fd, text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
  }
  // One line, or what came before the end.
  static std::string Receive(int fd) {
    std::string line;
    char c = 0;
    while (recv(fd, &c, 1, 0) == 1 && c != '\n') line += c;
    return line;
  }

  test::ScratchFolder directory_;
  Path path_ = directory_.path() / "predict.sock";
  test::FakeClock clock_;
  std::ostringstream log_;
  StreamEventSink events_{log_, clock_, StreamEventSink::Format::kText,
                          LogLevel::kDebug};
  std::mutex mu_;
  std::condition_variable changed_;
  int blocked_ = 0;
  bool released_ = false;
};

TEST_F(PredictServerTest, Lines_AreAnsweredInOrder) {
  auto server = Start();
  struct stat info {};
  ASSERT_EQ(stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0660U);
  const int fd = Connect();
  Send(fd, "a\nb\n\nc");
  EXPECT_EQ(Receive(fd), "to a");
  EXPECT_EQ(Receive(fd), "to b");
  Send(fd, "d\n");
  EXPECT_EQ(Receive(fd), "to cd");
  close(fd);
  server.reset();
  EXPECT_FALSE(std::filesystem::exists(path_));
  EXPECT_THAT(log_.str(), HasSubstr("pid=" + std::to_string(getpid())));
  EXPECT_THAT(log_.str(), HasSubstr("uid=" + std::to_string(getuid())));
}

TEST_F(PredictServerTest, SlowClient_DelaysNobody) {
  auto server = Start();
  const int slow = Connect();
  Send(slow, "block\n");
  const int half = Connect();
  Send(half, "never ends");
  {
    std::unique_lock lock(mu_);
    changed_.wait(lock, [&] { return blocked_ == 1; });
  }
  const int quick = Connect();
  Send(quick, "x\n");
  EXPECT_EQ(Receive(quick), "to x");
  {
    const std::unique_lock lock(mu_);
    released_ = true;
    changed_.notify_all();
  }
  EXPECT_EQ(Receive(slow), "to block");
  // And a server that stops does not wait for them.
  server.reset();
  for (const int fd : {slow, half, quick}) close(fd);
}

TEST_F(PredictServerTest, TooMuch_IsRefused) {
  auto server = Start({.path = {},
                       .connections_max = 1,
                       .line_size_max = 100,
                       .request_time_max = std::chrono::milliseconds(20)});
  const int first = Connect();
  Send(first, "a\n");
  EXPECT_EQ(Receive(first), "to a");
  const int second = Connect();
  EXPECT_THAT(Receive(second), HasSubstr("there are 1 connections already"));
  close(second);
  Send(first, std::string(200, 'x'));
  EXPECT_THAT(Receive(first), HasSubstr("longer than 100 bytes"));
  EXPECT_EQ(Receive(first), "");  // closed
  close(first);
}

TEST_F(PredictServerTest, RequestThatDoesNotEnd_IsGivenUp) {
  auto server =
      Start({.path = {}, .request_time_max = std::chrono::milliseconds(20)});
  const int fd = Connect();
  Send(fd, "begun");
  EXPECT_THAT(Receive(fd), HasSubstr("DEADLINE_EXCEEDED"));
  EXPECT_EQ(Receive(fd), "");
  close(fd);
}

TEST_F(PredictServerTest, Start_PathInUse_IsRefused) {
  auto server = Start();
  EXPECT_THAT(PredictServer::Start({.path = path_}, {}, events_),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("in use")));
  const int fd = Connect();
  Send(fd, "still\n");
  EXPECT_EQ(Receive(fd), "to still");
  close(fd);
}

TEST_F(PredictServerTest, Start_StaleSocket_IsReplaced) {
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path_.string().copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  close(fd);
  EXPECT_NE(Start(), nullptr);
}

TEST_F(PredictServerTest, Start_NoSocketThere_IsLeftAlone) {
  std::ofstream(path_) << "precious";
  EXPECT_THAT(
      PredictServer::Start({.path = path_}, {}, events_),
      StatusIs(StatusCode::kFailedPrecondition, HasSubstr("no socket")));
  EXPECT_TRUE(std::filesystem::exists(path_));
  EXPECT_THAT(
      PredictServer::Start({.path = Path(std::string(200, 'x'))}, {}, events_),
      StatusIs(StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace selvage::agent

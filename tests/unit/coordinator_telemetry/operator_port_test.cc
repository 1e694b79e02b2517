#include "coordinator/telemetry/operator_port.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/random.h"
#include "tests/testing/http_get.h"
#include "tests/testing/status_matchers.h"

namespace selvage::coordinator {
namespace {

using ::selvage::test::HttpExchange;
using ::selvage::test::HttpGet;
using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;
using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

class OperatorPortTest : public ::testing::Test {
 protected:
  void Start(Duration timeout = OperatorPort::kRequestTimeout) {
    auto port = OperatorPort::Start(
        "127.0.0.1", 0,
        {.metrics = [] { return std::string("a_total 1\n"); },
         .ready = [this] { return ready_.load(); }},
        timeout);
    ASSERT_THAT(port, IsOk());
    port_ = *std::move(port);
  }
  std::string Get(const std::string& path) {
    return HttpGet(port_->port(), path);
  }

  std::atomic<bool> ready_{false};
  std::unique_ptr<OperatorPort> port_;
};

TEST_F(OperatorPortTest, Pages_AreServed) {
  Start();
  EXPECT_THAT(Get("/metrics"),
              AllOf(StartsWith("HTTP/1.1 200"),
                    HasSubstr("text/plain; version=0.0.4; charset=utf-8"),
                    EndsWith("\r\n\r\na_total 1\n")));
  EXPECT_THAT(Get("/healthz"),
              AllOf(StartsWith("HTTP/1.1 200"), EndsWith("ok\n")));
}

TEST_F(OperatorPortTest, Ready_FollowsTheService) {
  Start();
  EXPECT_THAT(Get("/readyz"), StartsWith("HTTP/1.1 503"));
  ready_ = true;
  EXPECT_THAT(Get("/readyz"), StartsWith("HTTP/1.1 200"));
  ready_ = false;
  EXPECT_THAT(Get("/readyz"), StartsWith("HTTP/1.1 503"));
  EXPECT_THAT(Get("/healthz"), StartsWith("HTTP/1.1 200"));
}

TEST_F(OperatorPortTest, EverythingElse_IsRefused) {
  Start();
  const int port = port_->port();
  EXPECT_THAT(Get("/"), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(Get("/metrics/x"), StartsWith("HTTP/1.1 404"));
  for (const std::string method :
       {"POST", "PUT", "DELETE", "HEAD", "OPTIONS"}) {
    EXPECT_THAT(HttpExchange(port, method + " /metrics HTTP/1.1\r\nHost: x\r\n"
                                            "Content-Length: 5\r\n\r\nhello"),
                AllOf(StartsWith("HTTP/1.1 405"), HasSubstr("Allow: GET")))
        << method;
  }
  EXPECT_THAT(HttpExchange(port, "nonsense\r\n\r\n"),
              StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(HttpExchange(port, "\r\n\r\n"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(HttpExchange(port, std::string("GET /\0 HTTP/1.1\r\n\r\n", 20)),
              StartsWith("HTTP/1.1 4"));
  EXPECT_THAT(Get("/healthz"), StartsWith("HTTP/1.1 200"));
}

TEST_F(OperatorPortTest, LongHead_IsRefusedWhateverItIsMadeOf) {
  Start();
  std::string head = "GET /healthz HTTP/1.1\r\n";
  while (head.size() < OperatorPort::kHeadSizeMax) head += "X-Y: z\r\n";
  // The end never comes: the bound is on what was sent.
  EXPECT_THAT(HttpExchange(port_->port(), head), StartsWith("HTTP/1.1 431"));
  EXPECT_THAT(Get("/" + std::string(OperatorPort::kHeadSizeMax, 'a')),
              StartsWith("HTTP/1.1 431"));
  EXPECT_THAT(Get("/healthz"), StartsWith("HTTP/1.1 200"));
}

TEST_F(OperatorPortTest, Headers_ChangeNothing) {
  Start();
  std::string ranges = "0-";
  while (ranges.size() < 7000) ranges += ",0-";
  for (const std::string& header :
       {"Range: bytes=" + ranges, std::string("Range: bytes=9-1"),
        std::string("Accept-Encoding: gzip, br"),
        std::string("Expect: 100-continue"),
        std::string("Transfer-Encoding: chunked"), std::string("nonsense"),
        std::string("Connection: keep-alive")}) {
    EXPECT_THAT(HttpExchange(port_->port(),
                             "GET /metrics HTTP/1.1\r\n" + header + "\r\n\r\n"),
                AllOf(StartsWith("HTTP/1.1 200"), Not(HasSubstr("ncoding")),
                      EndsWith("\r\n\r\na_total 1\n")))
        << header;
  }
}

TEST_F(OperatorPortTest, AnyBytes_AreAnsweredOrDropped) {
  Start();
  SeededRandom random(1);
  const std::string alphabet = "GET /metrics?%#&=2F HTP/1.\r\n\t\0\xff:";
  for (int i = 0; i < 500; ++i) {
    std::string request = i % 2 == 0 ? "GET /" : "";
    const uint64_t size = random.Next() % (i % 10 == 0 ? 8000 : 60);
    for (uint64_t k = 0; k < size; ++k) {
      request += alphabet[random.Next() % alphabet.size()];
    }
    const std::string answer =
        HttpExchange(port_->port(), request + " HTTP/1.1\r\n\r\n");
    EXPECT_TRUE(answer.empty() || answer.starts_with("HTTP/1.1 ")) << answer;
  }
  EXPECT_THAT(Get("/healthz"), StartsWith("HTTP/1.1 200"));
}

TEST_F(OperatorPortTest, SilentCallers_GoAfterTheTimeout) {
  Start(std::chrono::milliseconds(50));
  // More of them than there are threads, each half a request.
  for (size_t i = 0; i < 2 * OperatorPort::kThreads; ++i) {
    EXPECT_THAT(HttpExchange(port_->port(), "GET /healthz HTTP/1.1\r\n"),
                IsEmpty());
  }
  EXPECT_THAT(Get("/healthz"), StartsWith("HTTP/1.1 200"));
}

TEST_F(OperatorPortTest, TakenPort_IsNamed) {
  Start();
  const auto second = OperatorPort::Start("127.0.0.1", port_->port(), {});
  EXPECT_THAT(second, StatusIs(StatusCode::kUnavailable,
                               HasSubstr(std::to_string(port_->port()))));
  EXPECT_THAT(OperatorPort::Start("256.0.0.1", 0, {}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("256.0.0.1")));
}

}  // namespace
}  // namespace selvage::coordinator

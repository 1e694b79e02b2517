// The port for operators, of the shipped program.
#include <selvage/v1/admin.grpc.pb.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include "tests/integration/server/coordinator_process.h"
#include "tests/testing/http_get.h"
#include "tests/testing/postgres_server.h"

namespace selvage::test {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr int kUnavailable = 8;  // exit code

class MetricsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* const info =
        ::testing::UnitTest::GetInstance()->current_test_info();
    root = fs::path(::testing::TempDir()) /
           ("selvage_metrics_" + std::string(info->name()));
    fs::remove_all(root);
    fs::create_directories(root);
    data_dir = (root / "data").string();
  }
  void TearDown() override { fs::remove_all(root); }

  std::string Read(const std::string& file) const {
    std::ifstream in(data_dir + "/" + file, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  grpc::Status CreatePopulation(const CoordinatorProcess& process,
                                const std::string& token) const {
    grpc::SslCredentialsOptions tls;
    tls.pem_root_certs = Read("ca.pem");
    const auto stub = v1::AdminService::NewStub(
        grpc::CreateChannel(process.admin(), grpc::SslCredentials(tls)));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::seconds(30));
    context.AddMetadata("authorization", "Bearer " + token);
    v1::CreatePopulationRequest request;
    request.set_name("demo");
    v1::Population answer;
    return stub->CreatePopulation(&context, request, &answer);
  }

  fs::path root;
  std::string data_dir;
};

TEST_F(MetricsTest, Port_TellsOfTheProcessAndItsDrain) {
  CoordinatorProcess process(data_dir, {"--drain-delay", "30m"});
  ASSERT_TRUE(process.serving()) << process.log();
  const int port = process.metrics_port();
  ASSERT_GT(port, 0);
  EXPECT_THAT(
      process.log(),
      HasSubstr("\"metrics\":\"127.0.0.1:" + std::to_string(port) + "\""));
  EXPECT_THAT(HttpGet(port, "/healthz"), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(HttpGet(port, "/readyz"), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(HttpGet(port, "/debug"), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(HttpExchange(port, "POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n"),
              StartsWith("HTTP/1.1 405"));

  const std::string token = Read("admin.token");
  EXPECT_TRUE(
      CreatePopulation(process, token.substr(0, token.find('\n'))).ok());
  EXPECT_FALSE(CreatePopulation(process, "wrong").ok());
  const std::string metrics = HttpGet(port, "/metrics");
  EXPECT_THAT(metrics, StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(metrics, HasSubstr("\nselvage_build_info{commit=\""));
  EXPECT_THAT(
      metrics,
      HasSubstr("\nselvage_auth_failures_total{reason=\"admin_token\"} 1\n"));
  EXPECT_THAT(metrics,
              HasSubstr("\nselvage_db_query_duration_seconds_count{query="
                        "\"create_population\"} 1\n"));
  EXPECT_THAT(metrics, HasSubstr("\nselvage_connections_open 0\n"));

  kill(process.pid(), SIGTERM);
  std::string ready = HttpGet(port, "/readyz");
  for (int i = 0; i < 100'000 && ready.starts_with("HTTP/1.1 200"); ++i) {
    ready = HttpGet(port, "/readyz");
  }
  EXPECT_THAT(ready, StartsWith("HTTP/1.1 503"));
  // It is alive, and what it does is of interest until its end.
  EXPECT_THAT(HttpGet(port, "/healthz"), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(HttpGet(port, "/metrics"), StartsWith("HTTP/1.1 200"));
  EXPECT_EQ(process.Stop(SIGTERM), 128 + SIGTERM);
}

TEST_F(MetricsTest, Drain_EndsCleanlyWithThePortInUse) {
  CoordinatorProcess process(data_dir);
  ASSERT_TRUE(process.serving()) << process.log();
  EXPECT_THAT(HttpGet(process.metrics_port(), "/metrics"),
              StartsWith("HTTP/1.1 200"));
  EXPECT_EQ(process.Stop(SIGTERM), 0);
}

// Devices are told to come back then, so they should still come here.
TEST_F(MetricsTest, DatabaseAway_StaysReady) {
  if (const auto missing = PostgresServer::Missing()) GTEST_SKIP() << *missing;
  auto postgres = PostgresServer::Start();
  ASSERT_TRUE(postgres.ok()) << postgres.status().ToString();
  ASSERT_TRUE((*postgres)->CreateDatabase("fleet", "template0").ok());
  CoordinatorProcess process(
      data_dir, {"--store-postgres", (*postgres)->Address("fleet"),
                 "--store-migrate", "--store-operation-timeout", "1s"});
  ASSERT_TRUE(process.serving()) << process.log();
  const int port = process.metrics_port();
  const std::string token = Read("admin.token");
  const std::string bearer = token.substr(0, token.find('\n'));
  ASSERT_TRUE(CreatePopulation(process, bearer).ok());
  const std::string metrics = HttpGet(port, "/metrics");
  EXPECT_THAT(metrics, HasSubstr("\nselvage_db_pool_in_use "));
  EXPECT_THAT(metrics,
              HasSubstr("\nselvage_db_query_duration_seconds_count{query="
                        "\"create_population\"} 1\n"));

  postgres->reset();
  EXPECT_EQ(CreatePopulation(process, bearer).error_code(),
            grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(HttpGet(port, "/healthz"), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(HttpGet(port, "/readyz"), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(HttpGet(port, "/metrics"), StartsWith("HTTP/1.1 200"));
}

TEST_F(MetricsTest, Off_OpensNoPort) {
  CoordinatorProcess process(data_dir, {"--metrics-address", "off"});
  ASSERT_TRUE(process.serving()) << process.log();
  EXPECT_EQ(process.metrics_port(), 0);
  EXPECT_THAT(process.log(), HasSubstr("\"metrics\":\"off\""));
  EXPECT_EQ(process.Stop(SIGTERM), 0);
}

TEST_F(MetricsTest, TakenPort_IsAnErrorIfItWasAskedFor) {
  CoordinatorProcess first(data_dir);
  ASSERT_TRUE(first.serving()) << first.log();
  const std::string address =
      "127.0.0.1:" + std::to_string(first.metrics_port());
  const Finished second =
      RunCoordinator({"--data-dir", (root / "second").string(),
                      "--device-address", "127.0.0.1:0", "--admin-address",
                      "127.0.0.1:0", "--metrics-address", address});
  EXPECT_EQ(second.exit_code, kUnavailable);
  EXPECT_THAT(second.errors, HasSubstr(address));
}

}  // namespace
}  // namespace selvage::test

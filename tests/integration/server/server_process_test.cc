#include <selvage/v1/admin.grpc.pb.h>
#include <selvage/v1/device.grpc.pb.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include "crypto/x509.h"
#include "tests/integration/server/coordinator_process.h"
#include "tests/testing/http_get.h"
#include "tests/testing/postgres_server.h"

namespace selvage::test {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

std::string ReadText(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::string Shell(const std::string& command) {
  std::string output;
  FILE* const pipe = popen((command + " 2>&1").c_str(), "r");
  std::array<char, 4096> buffer{};
  while (const size_t count = fread(buffer.data(), 1, buffer.size(), pipe)) {
    output.append(buffer.data(), count);
  }
  pclose(pipe);
  return output;
}

// What a service manager has; messages are waited for.
class NotifySocket {
 public:
  explicit NotifySocket(const std::string& path)
      : fd_(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(
        bind(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address),
        0);
    const timeval patience{.tv_sec = 30, .tv_usec = 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  }
  ~NotifySocket() { close(fd_); }
  NotifySocket(const NotifySocket&) = delete;
  NotifySocket& operator=(const NotifySocket&) = delete;

  std::string Receive() {
    std::array<char, 256> buffer{};
    const ssize_t size = recv(fd_, buffer.data(), buffer.size(), 0);
    return size < 0 ? ""
                    : std::string(buffer.data(), static_cast<size_t>(size));
  }

 private:
  const int fd_;
};

// grpc.health.v1 by hand: its messages have one field each.
constexpr char kServing[] = "\x08\x01";
constexpr char kNotServing[] = "\x08\x02";

grpc::ByteBuffer HealthRequest(const std::string& service) {
  std::string bytes;
  if (!service.empty()) {
    bytes =
        "\x0a" + std::string(1, static_cast<char>(service.size())) + service;
  }
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

std::string Text(const grpc::ByteBuffer& buffer) {
  grpc::Slice slice;
  if (!buffer.DumpToSingleSlice(&slice).ok()) return "no message";
  return {reinterpret_cast<const char*>(slice.begin()), slice.size()};
}

// One call of any method of any server, streaming or not.
class RawCall {
 public:
  RawCall(const std::shared_ptr<grpc::Channel>& channel,
          const std::string& method, const grpc::ByteBuffer& request)
      : stub_(channel) {
    context_.set_deadline(std::chrono::system_clock::now() +
                          std::chrono::seconds(60));
    call_ = stub_.PrepareCall(&context_, method, &queue_);
    call_->StartCall(nullptr);
    if (Next()) {
      call_->WriteLast(request, grpc::WriteOptions(), nullptr);
      Next();
    }
  }
  ~RawCall() {
    if (!finished_) {
      context_.TryCancel();
      static_cast<void>(Finish());
    }
    queue_.Shutdown();
    while (Next()) {
    }
  }
  RawCall(const RawCall&) = delete;
  RawCall& operator=(const RawCall&) = delete;

  // The next message, or "end".
  std::string Read() {
    grpc::ByteBuffer message;
    call_->Read(&message, nullptr);
    return Next() ? Text(message) : "end";
  }
  grpc::StatusCode Finish() {
    grpc::Status status;
    call_->Finish(&status, nullptr);
    Next();
    finished_ = true;
    return status.error_code();
  }

 private:
  bool Next() {
    void* tag = nullptr;
    bool ok = false;
    return queue_.Next(&tag, &ok) && ok;
  }

  grpc::CompletionQueue queue_;
  grpc::GenericStub stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
  bool finished_ = false;
};

class ServerProcessTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    root = fs::path(::testing::TempDir()) /
           ("selvage_server_" + std::string(info->name()));
    fs::remove_all(root);
    fs::create_directories(root);
    data_dir = (root / "data").string();
  }
  void TearDown() override { fs::remove_all(root); }

  std::unique_ptr<v1::AdminService::Stub> Admin(
      const CoordinatorProcess& process) const {
    grpc::SslCredentialsOptions tls;
    tls.pem_root_certs = ReadText(data_dir + "/ca.pem");
    return v1::AdminService::NewStub(
        grpc::CreateChannel(process.admin(), grpc::SslCredentials(tls)));
  }
  std::unique_ptr<v1::DeviceService::Stub> Device(
      const CoordinatorProcess& process, const std::string& key,
      const std::string& certificate) const {
    grpc::SslCredentialsOptions tls;
    tls.pem_root_certs = ReadText(data_dir + "/ca.pem");
    tls.pem_private_key = key;
    tls.pem_cert_chain = certificate;
    return v1::DeviceService::NewStub(
        grpc::CreateChannel(process.device(), grpc::SslCredentials(tls)));
  }
  std::string Token() const {
    const std::string text = ReadText(data_dir + "/admin.token");
    return text.substr(0, text.find('\n'));
  }
  static std::unique_ptr<grpc::ClientContext> As(const std::string& token) {
    auto context = std::make_unique<grpc::ClientContext>();
    context->set_deadline(std::chrono::system_clock::now() +
                          std::chrono::seconds(30));
    context->AddMetadata("authorization", "Bearer " + token);
    return context;
  }

  // A population `demo` and a device's request to be enrolled in it.
  void PrepareEnrolment(const CoordinatorProcess& process, std::string& pem,
                        v1::EnrollRequest& enroll) const {
    const auto admin = Admin(process);
    v1::CreatePopulationRequest create_population;
    create_population.set_name("demo");
    v1::Population population;
    ASSERT_TRUE(admin
                    ->CreatePopulation(As(Token()).get(), create_population,
                                       &population)
                    .ok());
    v1::CreateEnrolmentTokenRequest create_token;
    create_token.set_population("demo");
    v1::CreateEnrolmentTokenResponse token;
    ASSERT_TRUE(
        admin->CreateEnrolmentToken(As(Token()).get(), create_token, &token)
            .ok());
    // {"endpoint", "ca_certificate", "token_id", "token_secret", ...}
    EXPECT_THAT(token.bundle(), HasSubstr(process.device()));

    const auto key = crypto::NewP256Key();
    ASSERT_TRUE(key.ok());
    pem = key->ExposeSecret();
    enroll.set_token_id(token.token().id());
    enroll.set_csr_pem(*crypto::NewCertificateRequest(*key, ""));
    const std::string marker = "\"token_secret\"";
    size_t at = token.bundle().find(marker);
    ASSERT_NE(at, std::string::npos);
    at = token.bundle().find('"', at + marker.size()) + 1;
    const std::string text =
        token.bundle().substr(at, token.bundle().find('"', at) - at);
    const auto secret = text.size() == 64 ? FromHex(text) : FromBase64(text);
    ASSERT_TRUE(secret.ok()) << text;
    enroll.set_token_secret(ToString(*secret));
  }

  fs::path root;
  std::string data_dir;
};

TEST_F(ServerProcessTest, FirstStart_ServesAndKeepsItsFilesPrivate) {
  CoordinatorProcess process(data_dir);
  ASSERT_TRUE(process.serving()) << process.log();
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    struct stat info {};
    ASSERT_EQ(stat(entry.path().c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0077, 0U) << entry.path();
  }
  v1::ServerInfo info;
  const auto stub = Admin(process);
  const grpc::Status status =
      stub->GetServerInfo(As(Token()).get(), v1::GetServerInfoRequest(), &info);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(info.device_endpoint(), process.device());
  EXPECT_GT(info.free_bytes(), 0U);
  EXPECT_EQ(stub->GetServerInfo(As(std::string(64, '0')).get(),
                                v1::GetServerInfoRequest(), &info)
                .error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(process.Stop(SIGTERM), 0) << process.log();
  EXPECT_FALSE(fs::exists(data_dir + "/endpoints.json"));
  EXPECT_THAT(process.log(), Not(HasSubstr(Token())));
}

TEST_F(ServerProcessTest, Drain_IsToldBeforeItHappens) {
  const std::string socket_path = (root / "notify").string();
  NotifySocket manager(socket_path);
  CoordinatorProcess process(data_dir, {"--drain-delay", "30m"},
                             {{"NOTIFY_SOCKET", socket_path}});
  ASSERT_TRUE(process.serving()) << process.log();
  EXPECT_EQ(manager.Receive(), "READY=1");

  grpc::SslCredentialsOptions tls;
  tls.pem_root_certs = ReadText(data_dir + "/ca.pem");
  const auto channel =
      grpc::CreateChannel(process.admin(), grpc::SslCredentials(tls));
  const auto check = [&](const std::string& service) {
    RawCall call(channel, "/grpc.health.v1.Health/Check",
                 HealthRequest(service));
    const std::string answer = call.Read();
    return std::pair(answer, call.Finish());
  };
  const std::vector<std::string> services = {"", "selvage.v1.AdminService",
                                             "selvage.v1.DeviceService"};
  for (const std::string& service : services) {
    EXPECT_EQ(check(service),
              std::pair(std::string(kServing), grpc::StatusCode::OK))
        << service;
  }
  EXPECT_EQ(check("selvage.v1.Nobody").second, grpc::StatusCode::NOT_FOUND);
  RawCall watch(channel, "/grpc.health.v1.Health/Watch",
                HealthRequest("selvage.v1.DeviceService"));
  EXPECT_EQ(watch.Read(), kServing);

  kill(process.pid(), SIGTERM);
  EXPECT_EQ(manager.Receive(), "STOPPING=1");
  EXPECT_EQ(watch.Read(), kNotServing);
  // Others hear of it at the same time, or nearly.
  RawCall late(channel, "/grpc.health.v1.Health/Watch", HealthRequest(""));
  EXPECT_EQ(late.Read(), kNotServing);
  // Load balancers need time to notice: until then everything is answered.
  v1::ServerInfo info;
  EXPECT_TRUE(
      Admin(process)
          ->GetServerInfo(As(Token()).get(), v1::GetServerInfoRequest(), &info)
          .ok());

  // The second signal waits for nothing.
  EXPECT_EQ(process.Stop(SIGTERM), 128 + SIGTERM);
}

TEST_F(ServerProcessTest, Watchdog_HearsOfTheThreadThatMoves) {
  const std::string socket_path = (root / "notify").string();
  NotifySocket manager(socket_path);
  CoordinatorProcess process(
      data_dir, {},
      {{"NOTIFY_SOCKET", socket_path}, {"WATCHDOG_USEC", "4000000"}});
  ASSERT_TRUE(process.serving()) << process.log();
  EXPECT_EQ(manager.Receive(), "READY=1");
  for (int i = 0; i < 3; ++i) EXPECT_EQ(manager.Receive(), "WATCHDOG=1");
  EXPECT_EQ(process.Stop(SIGTERM), 0);
}

TEST_F(ServerProcessTest, DevicePort_HasNeitherHealthNorReflection) {
  CoordinatorProcess process(data_dir);
  ASSERT_TRUE(process.serving()) << process.log();
  grpc::SslCredentialsOptions tls;
  tls.pem_root_certs = ReadText(data_dir + "/ca.pem");
  const auto channel =
      grpc::CreateChannel(process.device(), grpc::SslCredentials(tls));
  for (const std::string method :
       {"/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"}) {
    RawCall call(channel, method, HealthRequest(""));
    EXPECT_EQ(call.Read(), "end");
    EXPECT_EQ(call.Finish(), grpc::StatusCode::UNIMPLEMENTED) << method;
  }
}

TEST_F(ServerProcessTest, Device_EnrolsChecksInAndIsToldOfADrain) {
  CoordinatorProcess process(data_dir, {"--drain-delay", "2s"});
  ASSERT_TRUE(process.serving()) << process.log();
  std::string pem;
  v1::EnrollRequest enroll;
  ASSERT_NO_FATAL_FAILURE(PrepareEnrolment(process, pem, enroll));
  const auto admin = Admin(process);
  v1::EnrollResponse enrolled;
  {
    // The secret in the bundle is another one.
    v1::EnrollRequest wrong = enroll;
    wrong.set_token_secret(std::string(32, 'x'));
    grpc::ClientContext context;
    EXPECT_EQ(Device(process, "", "")
                  ->Enroll(&context, wrong, &enrolled)
                  .error_code(),
              grpc::StatusCode::UNAUTHENTICATED);
  }
  {
    grpc::ClientContext context;
    const grpc::Status status =
        Device(process, "", "")->Enroll(&context, enroll, &enrolled);
    ASSERT_TRUE(status.ok()) << status.error_message();
  }
  const auto device = Device(process, pem, enrolled.certificate_pem());
  grpc::ClientContext context;
  v1::CheckInRequest check_in;
  check_in.set_population("demo");
  check_in.mutable_capabilities()->set_plan_format(1);
  v1::CheckInResponse answer;
  const grpc::Status status = device->CheckIn(&context, check_in, &answer);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_GT(answer.retry().max_ms(), 0U);

  v1::ServerInfo info;
  ASSERT_TRUE(
      admin->GetServerInfo(As(Token()).get(), v1::GetServerInfoRequest(), &info)
          .ok());
  EXPECT_EQ(info.tls_connections(), 1U);
  EXPECT_EQ(info.certificates_issued(), 1U);
  EXPECT_GT(info.socket_bytes_received(), 2000U);

  // A device that comes while load balancers have not noticed yet is told when
  // to come back; whoever holds a connection does not hold up the end.
  kill(process.pid(), SIGTERM);
  grpc::ClientContext late;
  v1::CheckInResponse refused;
  EXPECT_TRUE(device->CheckIn(&late, check_in, &refused).ok());
  EXPECT_FALSE(refused.has_assignment());
  EXPECT_GT(refused.retry().max_ms(), 0U);
  EXPECT_EQ(process.WaitForEnd(), 0) << process.log();
  EXPECT_THAT(process.log(), HasSubstr("\"drained\":\"true\""));
}

TEST_F(ServerProcessTest, Reflection_IsTheAdminPortsAndASetting) {
  const auto finish = [&](const CoordinatorProcess& process) {
    grpc::SslCredentialsOptions tls;
    tls.pem_root_certs = ReadText(data_dir + "/ca.pem");
    // ServerReflectionRequest{list_services: ""}
    const std::string request("\x3a\x00", 2);
    const grpc::Slice slice(request);
    RawCall call(
        grpc::CreateChannel(process.admin(), grpc::SslCredentials(tls)),
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        grpc::ByteBuffer(&slice, 1));
    const std::string answer = call.Read();
    return std::pair(answer, call.Finish());
  };
  {
    CoordinatorProcess process(data_dir);
    ASSERT_TRUE(process.serving()) << process.log();
    const auto [answer, code] = finish(process);
    EXPECT_THAT(answer, HasSubstr("selvage.v1.AdminService"));
    EXPECT_EQ(code, grpc::StatusCode::OK);
    EXPECT_EQ(process.Stop(SIGTERM), 0);
  }
  // As a flag it can only be turned on.
  CoordinatorProcess process(data_dir, {},
                             {{"SELVAGE_ADMIN_REFLECTION", "false"}});
  ASSERT_TRUE(process.serving()) << process.log();
  EXPECT_EQ(finish(process).second, grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(ServerProcessTest, DatabaseAway_StartsStaysAndGoesOn) {
  if (const auto missing = PostgresServer::Missing()) GTEST_SKIP() << *missing;
  auto postgres = PostgresServer::Start();
  ASSERT_TRUE(postgres.ok()) << postgres.status().ToString();
  ASSERT_TRUE((*postgres)->CreateDatabase("fleet", "template0").ok());
  std::vector<std::string> arguments = {
      "--store-postgres", (*postgres)->Address("fleet"),
      "--store-operation-timeout", "1s", "--store-migrate"};
  std::string pem;
  v1::EnrollResponse enrolled;
  {
    CoordinatorProcess first(data_dir, arguments);
    ASSERT_TRUE(first.serving()) << first.log();
    v1::EnrollRequest enroll;
    ASSERT_NO_FATAL_FAILURE(PrepareEnrolment(first, pem, enroll));
    grpc::ClientContext context;
    ASSERT_TRUE(
        Device(first, "", "")->Enroll(&context, enroll, &enrolled).ok());
    ASSERT_EQ(first.Stop(SIGTERM), 0);
  }
  arguments.pop_back();
  ASSERT_TRUE((*postgres)->Kill().ok());

  CoordinatorProcess process(data_dir, arguments, {},
                             "serving_without_database");
  ASSERT_TRUE(process.serving()) << process.log();
  const auto device = Device(process, pem, enrolled.certificate_pem());
  v1::CheckInRequest check_in;
  check_in.set_population("demo");
  check_in.mutable_capabilities()->set_plan_format(1);
  {
    grpc::ClientContext context;
    v1::CheckInResponse answer;
    EXPECT_EQ(device->CheckIn(&context, check_in, &answer).error_code(),
              grpc::StatusCode::UNAVAILABLE);
    EXPECT_EQ(context.GetServerTrailingMetadata().count("selvage-retry-max-ms"),
              1U);
  }
  const auto admin = Admin(process);
  const auto list = [&] {
    v1::ListPopulationsResponse answer;
    return admin
        ->ListPopulations(As(Token()).get(), v1::ListPopulationsRequest(),
                          &answer)
        .error_code();
  };
  EXPECT_EQ(list(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(HttpGet(process.metrics_port(), "/readyz"),
              StartsWith("HTTP/1.1 200"));

  ASSERT_TRUE((*postgres)->StartAgain().ok());
  ASSERT_TRUE(process.Await("serving")) << process.log();
  const auto checks_in = [&] {
    // The same connection as before.
    grpc::ClientContext context;
    v1::CheckInResponse answer;
    return device->CheckIn(&context, check_in, &answer).error_code();
  };
  EXPECT_EQ(checks_in(), grpc::StatusCode::OK);
  EXPECT_EQ(list(), grpc::StatusCode::OK);

  // Away again, and back: it stays.
  ASSERT_TRUE((*postgres)->Kill().ok());
  EXPECT_EQ(list(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(HttpGet(process.metrics_port(), "/readyz"),
              StartsWith("HTTP/1.1 200"));
  ASSERT_TRUE((*postgres)->StartAgain().ok());
  auto again = list();
  for (int i = 0; i < 10 && again != grpc::StatusCode::OK; ++i) again = list();
  EXPECT_EQ(again, grpc::StatusCode::OK);
  EXPECT_EQ(checks_in(), grpc::StatusCode::OK);
  EXPECT_EQ(process.Stop(SIGTERM), 0) << process.log();

  // Another schema does not come right by waiting.
  ASSERT_TRUE(
      (*postgres)
          ->Execute("UPDATE selvage.schema_version SET version = 999", "fleet")
          .ok());
  std::vector<std::string> words = {
      "--data-dir",      data_dir,      "--device-address",  "127.0.0.1:0",
      "--admin-address", "127.0.0.1:0", "--metrics-address", "off"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  const Finished refused = RunCoordinator(words);
  EXPECT_EQ(refused.exit_code, 6) << refused.errors;
  EXPECT_THAT(refused.errors, HasSubstr("999"));
}

TEST_F(ServerProcessTest, DatabaseAway_OnTheFirstStart_EndsCleanly) {
  CoordinatorProcess process(
      data_dir, {"--store-postgres", "host=" + root.string() + " dbname=none"},
      {}, "nothing_served");
  ASSERT_TRUE(process.serving()) << process.log();
  EXPECT_EQ(process.Stop(SIGTERM), 0) << process.log();
}

TEST_F(ServerProcessTest, SecondInstance_IsRefused) {
  CoordinatorProcess process(data_dir);
  ASSERT_TRUE(process.serving()) << process.log();
  const Finished second =
      RunCoordinator({"--data-dir", data_dir, "--device-address", "127.0.0.1:0",
                      "--admin-address", "127.0.0.1:0"});
  EXPECT_EQ(second.exit_code, 6);
  EXPECT_THAT(second.errors, HasSubstr("is in use by another coordinator"));
  EXPECT_TRUE(fs::exists(data_dir + "/endpoints.json"));
}

TEST_F(ServerProcessTest, TakenPort_IsNamed) {
  CoordinatorProcess process(data_dir);
  ASSERT_TRUE(process.serving()) << process.log();
  const Finished second = RunCoordinator(
      {"--data-dir", (root / "other").string(), "--device-address",
       process.device(), "--admin-address", "127.0.0.1:0"});
  EXPECT_EQ(second.exit_code, 8);
  EXPECT_THAT(second.errors, HasSubstr(process.device()));
}

TEST_F(ServerProcessTest, Restart_KeepsEveryKey) {
  const std::vector<std::string> names = {"ca.pem",
                                          "admin.token",
                                          "keys/ca.key.pem",
                                          "keys/server.pem",
                                          "keys/server.key.pem",
                                          "keys/plan.key",
                                          "keys/assignment.key",
                                          "keys/wrapping.key"};
  std::vector<std::string> before;
  {
    CoordinatorProcess process(data_dir);
    ASSERT_TRUE(process.serving()) << process.log();
    for (const std::string& name : names) {
      before.push_back(ReadText(data_dir + "/" + name));
      EXPECT_FALSE(before.back().empty()) << name;
    }
    EXPECT_EQ(process.Stop(SIGKILL), 128 + SIGKILL);
  }
  CoordinatorProcess process(data_dir);
  ASSERT_TRUE(process.serving()) << process.log();
  for (size_t i = 0; i < names.size(); ++i) {
    EXPECT_EQ(ReadText(data_dir + "/" + names[i]), before[i]) << names[i];
  }
  EXPECT_EQ(process.Stop(SIGINT), 0);
}

TEST_F(ServerProcessTest, LostKey_IsNotReplaced) {
  {
    CoordinatorProcess process(data_dir);
    ASSERT_TRUE(process.serving()) << process.log();
    EXPECT_EQ(process.Stop(SIGTERM), 0);
  }
  fs::remove(data_dir + "/keys/wrapping.key");
  const Finished finished = RunCoordinator({"--data-dir", data_dir});
  EXPECT_EQ(finished.exit_code, 6);
  EXPECT_THAT(finished.errors, HasSubstr("wrapping.key is missing"));
}

TEST_F(ServerProcessTest, Tls12_IsRefused) {
  if (std::system("openssl version >/dev/null 2>&1") != 0) {
    GTEST_SKIP() << "the openssl program is not installed";
  }
  CoordinatorProcess process(data_dir);
  ASSERT_TRUE(process.serving()) << process.log();
  for (const std::string& address : {process.device(), process.admin()}) {
    const std::string client = "openssl s_client -alpn h2 -CAfile " + data_dir +
                               "/ca.pem -connect " + address + " </dev/null ";
    EXPECT_THAT(Shell(client + "-tls1_2"), HasSubstr("Cipher is (NONE)"));
    EXPECT_THAT(Shell(client + "-tls1_3"), HasSubstr("Verification: OK"));
  }
}

TEST_F(ServerProcessTest, Binary_LinksNoTorch) {
  const std::string libraries =
      Shell(std::string("ldd ") + SELVAGE_COORDINATOR);
  EXPECT_THAT(libraries, HasSubstr("libgrpc"));
  EXPECT_THAT(libraries, Not(HasSubstr("torch")));
  EXPECT_THAT(libraries, Not(HasSubstr("libc10")));
}

TEST_F(ServerProcessTest, Insecure_OnLoopbackOnly) {
  const Finished refused = RunCoordinator(
      {"--data-dir", data_dir, "--insecure", "--device-address", "0.0.0.0:0"});
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.errors, HasSubstr("loopback"));
  EXPECT_FALSE(fs::exists(data_dir));

  CoordinatorProcess process(data_dir, {"--insecure"});
  ASSERT_TRUE(process.serving()) << process.log();
  const auto stub = v1::AdminService::NewStub(
      grpc::CreateChannel(process.admin(), grpc::InsecureChannelCredentials()));
  v1::ServerInfo info;
  EXPECT_TRUE(
      stub->GetServerInfo(As(Token()).get(), v1::GetServerInfoRequest(), &info)
          .ok());
}

TEST_F(ServerProcessTest, CheckConfig_TableOfMistakes) {
  const struct {
    std::string file;
    std::vector<std::string> arguments;
    std::map<std::string, std::string> environment;
    std::string expected;
  } kTable[] = {
      {"device: {adress: 'x:1'}", {}, {}, "did you mean device.address?"},
      {"pace: {retry_min: soon}", {}, {}, "\"soon\" is not a value like 90s"},
      {"}", {}, {}, "selvage.yaml:1: "},
      {"", {"--device-address", "nowhere"}, {}, "--device-address: "},
      {"", {}, {{"SELVAGE_LOG_LEVEL", "loud"}}, "SELVAGE_LOG_LEVEL: "},
  };
  const std::string file = (root / "selvage.yaml").string();
  for (const auto& row : kTable) {
    std::ofstream(file) << row.file;
    std::vector<std::string> arguments = {"--config", file, "--check-config"};
    arguments.insert(arguments.end(), row.arguments.begin(),
                     row.arguments.end());
    const Finished finished = RunCoordinator(arguments, row.environment);
    EXPECT_EQ(finished.exit_code, 2) << row.expected;
    EXPECT_THAT(finished.errors, HasSubstr(row.expected));
  }
  std::ofstream(file) << "log: {level: debug}\n";
  Finished finished =
      RunCoordinator({"--check-config"}, {{"SELVAGE_CONFIG", file}});
  EXPECT_EQ(finished.exit_code, 0) << finished.errors;
  finished = RunCoordinator({"--print-config", "--log-level", "error"},
                            {{"SELVAGE_CONFIG", file}});
  EXPECT_EQ(finished.exit_code, 0);
  EXPECT_THAT(finished.output, HasSubstr("level: error"));
  finished = RunCoordinator({"--check-config", "--config", "/none.yaml"});
  EXPECT_EQ(finished.exit_code, 2);
  EXPECT_THAT(finished.errors, HasSubstr("/none.yaml"));
  finished = RunCoordinator({"--no-such-flag"});
  EXPECT_EQ(finished.exit_code, 2);
}

TEST_F(ServerProcessTest, HelpAndVersion_AreHelpful) {
  const Finished help = RunCoordinator({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_THAT(help.output, HasSubstr("Examples:"));
  EXPECT_THAT(help.output, HasSubstr("--limits-upload-bytes"));
  const Finished version = RunCoordinator({"--version"});
  EXPECT_EQ(version.exit_code, 0);
  EXPECT_THAT(version.output, StartsWith("selvage-coordinator 0."));
}

}  // namespace
}  // namespace selvage::test

#include "bench/load_echo.h"

#include <selvage/v1/device.pb.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <utility>
#include <vector>

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>

#include "crypto/digest.h"

namespace selvage::bench {
namespace {

constexpr std::string_view kNothing = "/bare/nothing";
constexpr std::string_view kAssign = "/bare/assign";
constexpr std::string_view kUpload = "/bare/upload/";

// The sizes are those of the coordinator's answers.
struct Answers {
  grpc::Slice nothing;
  grpc::Slice assignment;
  grpc::Slice resume;
  grpc::Slice receipt;
};

Answers MakeAnswers(const v1::RetryWindow& window) {
  v1::CheckInResponse check_in;
  *check_in.mutable_retry_if_accepted() = window;
  *check_in.mutable_retry() = window;
  Answers answers;
  answers.nothing = grpc::Slice(check_in.SerializeAsString());
  v1::Assignment& work = *check_in.mutable_assignment();
  work.set_id(std::string(26, 'a'));
  work.set_task("load");
  work.set_round(1);
  work.set_mode(v1::Assignment::TRAIN);
  work.set_plan_digest(std::string(32, 'p'));
  work.set_plan_signature(std::string(64, 's'));
  work.set_checkpoint_digest(std::string(32, 'c'));
  work.set_checkpoint_codec(v1::FLOAT16);
  work.set_base_version(1);
  work.set_token(std::string(32, 't'));
  work.set_compute_deadline_ms(30'000);
  work.set_upload_deadline_ms(60'000);
  work.set_seed(0x7FFF'FFFF'FFFF'FFFF);
  answers.assignment = grpc::Slice(check_in.SerializeAsString());
  v1::UploadResponse response;
  response.mutable_resume()->set_offset(0);
  answers.resume = grpc::Slice(response.SerializeAsString());
  response.mutable_receipt()->set_status(v1::Receipt::ACCEPTED);
  *response.mutable_receipt()->mutable_retry() = window;
  answers.receipt = grpc::Slice(response.SerializeAsString());
  return answers;
}

class UnaryReactor final : public grpc::ServerGenericBidiReactor {
 public:
  explicit UnaryReactor(const grpc::Slice& answer) : answer_(&answer, 1) {
    StartRead(&request_);
  }
  void OnReadDone(bool ok) override {
    if (!ok) {
      Finish(grpc::Status::OK);
      return;
    }
    StartWriteAndFinish(&answer_, grpc::WriteOptions(), grpc::Status::OK);
  }
  void OnDone() override { delete this; }

 private:
  grpc::ByteBuffer answer_;
  grpc::ByteBuffer request_;
};

// Header, "go on", bytes, receipt: the messages of an upload.
class UploadReactor final : public grpc::ServerGenericBidiReactor {
 public:
  UploadReactor(const Answers& answers, uint64_t size)
      : resume_(&answers.resume, 1),
        receipt_(&answers.receipt, 1),
        left_(size) {
    StartRead(&request_);
  }
  void OnReadDone(bool ok) override {
    if (!ok) {
      Finish(grpc::Status::CANCELLED);
      return;
    }
    if (!resumed_) {
      resumed_ = true;
      StartWrite(&resume_);
      return;
    }
    std::vector<grpc::Slice> slices;
    (void)request_.Dump(&slices);
    uint64_t size = 0;
    for (const grpc::Slice& slice : slices) {
      hasher_.Update(ByteSpan(slice.begin(), slice.size()));
      size += slice.size();
    }
    left_ -= std::min(left_, size);
    if (left_ > 0) {
      StartRead(&request_);
      return;
    }
    (void)std::move(hasher_).Finish();
    StartWriteAndFinish(&receipt_, grpc::WriteOptions(), grpc::Status::OK);
  }
  void OnWriteDone(bool ok) override {
    if (ok) {
      StartRead(&request_);
    } else {
      Finish(grpc::Status::CANCELLED);
    }
  }
  void OnDone() override { delete this; }

 private:
  grpc::ByteBuffer resume_;
  grpc::ByteBuffer receipt_;
  grpc::ByteBuffer request_;
  crypto::Sha256Hasher hasher_;
  uint64_t left_;
  bool resumed_ = false;
};

class Service final : public grpc::CallbackGenericService {
 public:
  explicit Service(const v1::RetryWindow& window)
      : answers_(MakeAnswers(window)) {}

 private:
  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* context) override {
    const std::string& method = context->method();
    if (method == kAssign) return new UnaryReactor(answers_.assignment);
    if (method.starts_with(kUpload)) {
      return new UploadReactor(
          answers_,
          std::strtoull(method.c_str() + kUpload.size(), nullptr, 10));
    }
    return new UnaryReactor(answers_.nothing);
  }
  const Answers answers_;
};

// Until `in` ends; the port goes to `out`.
[[noreturn]] void Serve(const BareIdentity& identity,
                        const v1::RetryWindow& window, int out, int in) {
  grpc::SslServerCredentialsOptions tls(
      GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  tls.pem_root_certs = identity.ca;
  tls.pem_key_cert_pairs.push_back(
      {identity.server_key, identity.server_certificate});
  Service service(window);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::SslServerCredentials(tls),
                           &port);
  builder.RegisterCallbackGenericService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || write(out, &port, sizeof port) != sizeof port) {
    std::_Exit(1);
  }
  char byte = 0;
  while (read(in, &byte, 1) > 0) {
  }
  std::_Exit(0);
}

}  // namespace

Result<std::unique_ptr<BareServer>> BareServer::Start(uint64_t retry_min_ms,
                                                      uint64_t retry_max_ms) {
  std::unique_ptr<BareServer> server(new BareServer());
  SELVAGE_ASSIGN_OR_RETURN(server->identity_, NewBareIdentity());
  int to_parent[2] = {-1, -1};
  int to_child[2] = {-1, -1};
  if (pipe(to_parent) != 0 || pipe(to_child) != 0) {
    return Internal("no pipe to the bare server");
  }
  server->child_ = fork();
  if (server->child_ == 0) {
    close(to_child[1]);
    close(to_parent[0]);
    v1::RetryWindow window;
    window.set_min_ms(retry_min_ms);
    window.set_max_ms(retry_max_ms);
    Serve(server->identity_, window, to_parent[1], to_child[0]);
  }
  close(to_child[0]);
  close(to_parent[1]);
  server->from_child_ = to_parent[0];
  server->to_child_ = to_child[1];
  if (server->child_ < 0) return Internal("no process for the bare server");
  return server;
}

BareServer::~BareServer() {
  if (to_child_ >= 0) close(to_child_);
  if (from_child_ >= 0) close(from_child_);
  if (child_ > 0) waitpid(child_, nullptr, 0);
}

Result<std::string> BareServer::Address() {
  if (port_ == 0 &&
      read(from_child_, &port_, sizeof port_) != ssize_t{sizeof port_}) {
    return Internal("the bare server did not start");
  }
  return "127.0.0.1:" + std::to_string(port_);
}

}  // namespace selvage::bench

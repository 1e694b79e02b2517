#include "bench/bare_stream.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <iostream>
#include <map>
#include <mutex>
#include <vector>

#include <grpcpp/create_channel.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include "base/file_system.h"
#include "base/random.h"
#include "base/time.h"
#include "crypto/digest.h"
#include "crypto/x509.h"

namespace selvage::bench {
namespace {

constexpr size_t kChunkSize = 256 << 10;  // as the round's, both ways
constexpr std::string_view kDown = "/down/";
constexpr std::string_view kUp = "/up/";
constexpr std::string_view kHashed = "hashed/";

void HashInto(crypto::Sha256Hasher& hasher, grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  if (!buffer.Dump(&slices).ok()) return;
  for (const grpc::Slice& slice : slices) {
    hasher.Update({slice.begin(), slice.size()});
  }
}

// What is sent: as many bytes as there are to send, in one buffer that all who
// send share, as the round's update and checkpoint are. Chunks are parts of it,
// not copies.
class Payload {
 public:
  explicit Payload(uint64_t size) : bytes_(static_cast<size_t>(size), 'x') {}

  uint64_t size() const { return bytes_.size(); }
  grpc::ByteBuffer ChunkAt(uint64_t offset) const {
    const auto size = static_cast<size_t>(
        std::min<uint64_t>(bytes_.size() - offset, kChunkSize));
    const grpc::Slice slice(bytes_.data() + offset, size,
                            grpc::Slice::STATIC_SLICE);
    return grpc::ByteBuffer(&slice, 1);
  }

 private:
  const std::string bytes_;
};

// Payloads that were asked for, kept for as long as the process lives. Thread-
// safe.
const Payload& PayloadOf(uint64_t size) {
  static std::mutex mu;
  static std::map<uint64_t, Payload> payloads;
  const std::lock_guard lock(mu);
  return payloads.try_emplace(size, size).first->second;
}

// "/down/hashed/4000000" sends that many bytes; "/up/hashed/..." takes what
// comes.
class BareReactor final : public grpc::ServerGenericBidiReactor {
 public:
  explicit BareReactor(const std::string& method) {
    const bool down = method.starts_with(kDown);
    std::string rest = method.substr(down ? kDown.size() : kUp.size());
    hashed_ = rest.starts_with(kHashed);
    if (hashed_) rest = rest.substr(kHashed.size());
    if (down) {
      payload_ = &PayloadOf(std::stoull(rest));
      WriteNext();
    } else {
      StartRead(&buffer_);
    }
  }
  void OnReadDone(bool ok) override {
    if (!ok) {
      if (hashed_) static_cast<void>(std::move(hasher_).Finish());
      Finish(grpc::Status::OK);
      return;
    }
    if (hashed_) HashInto(hasher_, buffer_);
    StartRead(&buffer_);
  }
  void OnWriteDone(bool ok) override {
    if (!ok || sent_ == payload_->size()) {
      Finish(grpc::Status::OK);
    } else {
      WriteNext();
    }
  }
  void OnDone() override { delete this; }

 private:
  void WriteNext() {
    buffer_ = payload_->ChunkAt(sent_);
    sent_ += buffer_.Length();
    StartWrite(&buffer_);
  }

  bool hashed_ = false;
  const Payload* payload_ = nullptr;  // to send
  uint64_t sent_ = 0;
  grpc::ByteBuffer buffer_;
  crypto::Sha256Hasher hasher_;
};

class BareService final : public grpc::CallbackGenericService {
  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* context) override {
    return new BareReactor(context->method());
  }
};

}  // namespace

Result<BareIdentity> NewBareIdentity() {
  using std::chrono::hours;
  OsRandom random;
  const Time now = SystemClock().Now();
  SELVAGE_ASSIGN_OR_RETURN(
      const crypto::CertificateAuthority ca,
      crypto::CertificateAuthority::Create("bench", now, hours(48), random));
  SELVAGE_ASSIGN_OR_RETURN(const crypto::PrivateKeyPem server,
                           crypto::NewP256Key());
  SELVAGE_ASSIGN_OR_RETURN(const crypto::PrivateKeyPem client,
                           crypto::NewP256Key());
  BareIdentity identity;
  identity.ca = ca.certificate_pem();
  identity.server_key = server.ExposeSecret();
  identity.client_key = client.ExposeSecret();
  SELVAGE_ASSIGN_OR_RETURN(
      identity.server_certificate,
      ca.IssueServer(server, {"127.0.0.1"}, now, hours(24), random));
  SELVAGE_ASSIGN_OR_RETURN(const std::string request,
                           crypto::NewCertificateRequest(client, ""));
  SELVAGE_ASSIGN_OR_RETURN(
      identity.client_certificate,
      ca.IssueDevice(request, "bench", "bare", now, hours(24), random));
  return identity;
}

Status WriteIdentity(const BareIdentity& identity,
                     const std::string& directory) {
  PosixFileSystem files;
  const Path path(directory);
  const std::pair<const char*, const std::string&> kParts[] = {
      {"ca", identity.ca},
      {"server_key", identity.server_key},
      {"server_certificate", identity.server_certificate},
      {"client_key", identity.client_key},
      {"client_certificate", identity.client_certificate}};
  for (const auto& [name, text] : kParts) {
    SELVAGE_RETURN_IF_ERROR(
        WriteFileDurably(files, path / name, AsBytes(text)));
  }
  return OkStatus();
}

Result<BareIdentity> ReadIdentity(const std::string& directory) {
  PosixFileSystem files;
  BareIdentity identity;
  const std::pair<const char*, std::string*> kParts[] = {
      {"ca", &identity.ca},
      {"server_key", &identity.server_key},
      {"server_certificate", &identity.server_certificate},
      {"client_key", &identity.client_key},
      {"client_certificate", &identity.client_certificate}};
  for (const auto& [name, text] : kParts) {
    SELVAGE_ASSIGN_OR_RETURN(const Bytes bytes,
                             ReadFile(files, Path(directory) / name, 1 << 16));
    *text = ToString(bytes);
  }
  return identity;
}

int RunBareServer(const std::string& identity_directory) {
  const Result<BareIdentity> identity = ReadIdentity(identity_directory);
  if (!identity.ok()) {
    std::cerr << identity.status() << "\n";
    return 1;
  }
  grpc::SslServerCredentialsOptions tls(
      GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  tls.pem_root_certs = identity->ca;
  tls.pem_key_cert_pairs.push_back(
      {identity->server_key, identity->server_certificate});
  BareService service;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::SslServerCredentials(tls),
                           &port);
  builder.RegisterCallbackGenericService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) return 1;
  std::cout << port << std::endl;
  for (char c = 0; std::cin.get(c);) {
  }
  server->Shutdown(std::chrono::system_clock::now());
  return 0;
}

struct BareClient::State {
  explicit State(const std::shared_ptr<grpc::Channel>& channel)
      : stub(channel) {}

  bool Wait() {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  }
  Status Call(const std::string& method, uint64_t up, bool hashed) {
    grpc::ClientContext context;
    auto call = stub.PrepareCall(&context, method, &queue);
    call->StartCall(nullptr);
    bool alive = Wait();
    for (uint64_t sent = 0; alive && sent < up;) {
      const grpc::ByteBuffer chunk = PayloadOf(up).ChunkAt(sent);
      call->Write(chunk, nullptr);
      alive = Wait();
      sent += chunk.Length();
    }
    if (alive) {
      call->WritesDone(nullptr);
      Wait();
    }
    crypto::Sha256Hasher hasher;
    while (alive) {
      grpc::ByteBuffer buffer;
      call->Read(&buffer, nullptr);
      alive = Wait();
      if (alive && hashed) HashInto(hasher, buffer);
    }
    grpc::Status status;
    call->Finish(&status, nullptr);
    Wait();
    if (status.ok()) return OkStatus();
    return Unavailable(status.error_message());
  }

  grpc::GenericStub stub;
  grpc::CompletionQueue queue;
};

BareClient::BareClient(const BareIdentity& identity, int port) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  state_ = std::make_unique<State>(grpc::CreateCustomChannel(
      "127.0.0.1:" + std::to_string(port),
      grpc::SslCredentials({.pem_root_certs = identity.ca,
                            .pem_private_key = identity.client_key,
                            .pem_cert_chain = identity.client_certificate}),
      arguments));
}

BareClient::~BareClient() = default;

Status BareClient::Move(uint64_t bytes, bool hashed) {
  const std::string suffix =
      std::string(hashed ? kHashed : "") + std::to_string(bytes);
  SELVAGE_RETURN_IF_ERROR(state_->Call(std::string(kDown) + suffix, 0, hashed));
  return state_->Call(std::string(kUp) + suffix, bytes, false);
}

}  // namespace selvage::bench

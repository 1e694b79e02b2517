#include "tests/unit/client/fake_server.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "crypto/identity_key.h"

namespace selvage::test {

using namespace std::chrono_literals;  // NOLINT

using client::Assignment;
using client::CheckInAnswer;
using client::CheckInRequest;
using client::EnrollAnswer;
using client::EnrollRequest;
using client::ModelOffer;
using client::Receipt;
using client::ReceiptStatus;
using client::RetryWindow;
using client::UploadHeader;

plan::Program MakeFakeProgram(bool with_personal) {
  plan::Program program;
  program.source = "def forward(self, x): return x\n";
  program.inputs = {{.name = "x", .dtype = plan::DType::kUint8, .shape = {16}},
                    {.name = "y", .dtype = plan::DType::kInt64, .shape = {}}};
  program.metrics = {"accuracy", "loss"};
  std::vector<plan::TensorSpec> tensors = {
      {.name = "head", .shape = {1}, .role = plan::Role::kShared},
      {.name = "body", .shape = {40}, .role = plan::Role::kShared}};
  if (with_personal) {
    tensors.push_back(
        {.name = "secret", .shape = {5}, .role = plan::Role::kPersonal});
  }
  program.table = *plan::TensorTable::Create(tensors);
  return program;
}

plan::Plan MakeFakePlan(const plan::Program& program) {
  plan::Plan plan;
  plan.task = "digits";
  plan.population = "demo";
  plan.program_digest = crypto::Sha256(AsBytes(plan::CanonicalJson(program)));
  plan.train.local_epochs = 3;
  plan.train.batch_size = 4;
  plan.train.optimizer.lr = 0.1;
  plan.personalize.enabled = true;
  plan.personalize.tensors = {"^head$"};
  plan.personalize.epochs = 8;
  plan.personalize.batch_size = 4;
  plan.personalize.optimizer.lr = 0.5;
  plan.data.collection = "numbers";
  plan.data.min_examples = 5;
  plan.data.holdout = 0.25;
  plan.key_metric = "accuracy";
  plan.seed = 5;
  return plan;
}

FakeServer::FakeServer(FakeClock& clock) : clock_(clock) {
  authority_ = std::make_unique<crypto::CertificateAuthority>(
      *crypto::CertificateAuthority::Create("test", clock.Now(), 24h * 3650,
                                            random_));
  plan_key_ = std::make_unique<crypto::Ed25519KeyPair>(
      crypto::NewEd25519KeyPair(random_));
  program = MakeFakeProgram(/*with_personal=*/false);
  Publish(MakeFakePlan(program), program);
  PublishCheckpoint(plan::InitializeCheckpoint(program.table, 1));
}

void FakeServer::PublishPlan(const std::string& json) {
  plan_digest = crypto::Sha256(AsBytes(json));
  artefacts[plan_digest] = ToBytes(json);
  const auto signature = *crypto::SignEd25519(plan_key_->private_key,
                                              plan::PlanSigningInput(json));
  plan_signature = Bytes(signature.begin(), signature.end());
}

void FakeServer::Publish(const plan::Plan& new_plan,
                         const plan::Program& new_program) {
  program = new_program;
  const std::string json = plan::CanonicalJson(program);
  artefacts[crypto::Sha256(AsBytes(json))] = ToBytes(json);
  plan = new_plan;
  plan.program_digest = crypto::Sha256(AsBytes(json));
  PublishPlan(plan::CanonicalJson(plan));
}

void FakeServer::PublishCheckpoint(const plan::Checkpoint& values) {
  Bytes bytes = *aggregation::EncodeCheckpoint(plan::CodecName::kFloat32,
                                               program.table, values);
  checkpoint = values;
  checkpoint_digest = crypto::Sha256(bytes);
  artefacts[checkpoint_digest] = std::move(bytes);
}

std::string FakeServer::Bundle() const {
  std::string pem;
  for (const char c : authority_->certificate_pem()) {
    pem += c == '\n' ? std::string("\\n") : std::string(1, c);
  }
  return R"({"endpoint": "localhost:1", "ca_certificate": ")" + pem +
         R"(", "token_id": "t1", "token_secret": ")" + std::string(64, 'a') +
         R"(", "population": "demo", "expires": "2030-01-01T00:00:00Z"})";
}

Result<Bytes> FakeServer::MakeDelta(const crypto::Digest& digest,
                                    const crypto::Digest& base,
                                    plan::CodecName codec) const {
  const auto from = artefacts.find(base);
  const auto to = artefacts.find(digest);
  if (from == artefacts.end() || to == artefacts.end()) {
    return NotFound("no delta");
  }
  return aggregation::EncodeDelta(codec, from->second, to->second,
                                  to->second.size());
}

Assignment FakeServer::NewAssignment() {
  Assignment assignment;
  assignment.id = "round-" + std::to_string(++rounds_);
  assignment.task = plan.task;
  assignment.round = rounds_;
  assignment.plan_digest = plan_digest;
  assignment.plan_signature = plan_signature;
  assignment.checkpoint_digest = checkpoint_digest;
  assignment.checkpoint_codec = plan::CodecName::kFloat32;
  assignment.base_version = rounds_ - 1;
  assignment.token = Bytes(32, 7);
  assignment.compute_deadline = 150s;
  assignment.upload_deadline = 300s;
  assignment.seed = 1000 + rounds_;
  return assignment;
}

ModelOffer FakeServer::NewOffer(uint64_t version) {
  ModelOffer offer;
  offer.task = plan.task;
  offer.version = version;
  offer.plan_digest = plan_digest;
  offer.plan_signature = plan_signature;
  offer.checkpoint_digest = checkpoint_digest;
  offer.checkpoint_codec = plan::CodecName::kFloat32;
  return offer;
}

class FakeServer::Connection final : public client::Transport {
 public:
  Connection(FakeServer& server, client::Endpoint endpoint)
      : server_(server), endpoint_(std::move(endpoint)) {
    ++server_.connections;
  }

  Result<EnrollAnswer> Enroll(const EnrollRequest& request) override {
    SELVAGE_RETURN_IF_ERROR(server_.hook("enroll"));
    Hear(request.token_id);
    Hear(request.csr_pem);
    Hear(request.device_name);
    server_.wire.insert(server_.wire.end(), request.token_secret.begin(),
                        request.token_secret.end());
    if (!request.identity_public_key.empty()) return EnrollIdentity(request);
    SELVAGE_ASSIGN_OR_RETURN(const crypto::CertificateRequest csr,
                             crypto::ParseCertificateRequest(request.csr_pem));
    const bool renewal = request.token_id.empty();
    std::string& certificate =
        server_.certificates_[csr.public_key_digest.ToHex()];
    if (renewal && endpoint_.certificate_pem.empty()) {
      return Unauthenticated("no token and no certificate");
    }
    const std::string id =
        request.device_name.empty() ? "dev-1" : request.device_name;
    if (certificate.empty() || renewal) {
      SELVAGE_ASSIGN_OR_RETURN(
          certificate, server_.authority_->IssueDevice(
                           request.csr_pem, "demo", id, server_.clock_.Now(),
                           24h * 90, server_.random_));
      ++server_.enrolments;
    }
    EnrollAnswer answer;
    answer.certificate_pem = certificate;
    answer.device_id = id;
    answer.population = "demo";
    answer.plan_public_keys = {server_.plan_key_->public_key};
    SELVAGE_RETURN_IF_ERROR(server_.hook("enroll done"));
    return answer;
  }

  // As coordinator/enrolment.cc does it, as far as a device can tell.
  Result<EnrollAnswer> EnrollIdentity(const EnrollRequest& request) {
    EXPECT_TRUE(endpoint_.certificate_pem.empty());
    EXPECT_EQ(request.population, "demo");
    for (const Bytes& field :
         {request.identity_public_key, request.identity_signature,
          request.identity_nonce}) {
      Hear(ToString(field));
    }
    EnrollAnswer answer;
    if (request.identity_signature.empty() || server_.stale_nonces > 0) {
      if (!request.identity_signature.empty()) --server_.stale_nonces;
      server_.nonce_.assign(40, static_cast<uint8_t>(++server_.nonces));
      answer.nonce = server_.nonce_;
      return answer;
    }
    EXPECT_EQ(request.identity_nonce, server_.nonce_);
    SELVAGE_ASSIGN_OR_RETURN(const crypto::CertificateRequest csr,
                             crypto::ParseCertificateRequest(request.csr_pem));
    SELVAGE_ASSIGN_OR_RETURN(
        const crypto::P256PublicKey key,
        crypto::P256PublicKey::Parse(request.identity_public_key));
    EXPECT_TRUE(crypto::VerifyP256(
                    key,
                    crypto::TlsKeyDigest("demo", request.device_name,
                                         request.identity_nonce, csr.der),
                    request.identity_signature)
                    .ok());
    if (!request.token_id.empty()) ++server_.tokens_shown;
    const std::string id =
        request.device_name.empty() ? "dev-1" : request.device_name;
    const auto known = server_.identities.find(id);
    if (known == server_.identities.end() && request.token_id.empty()) {
      return PermissionDenied("no device " + id);
    }
    if (known != server_.identities.end() && known->second != key.digest()) {
      return AlreadyExists("device " + id + " is enrolled with another key");
    }
    server_.identities.insert_or_assign(id, key.digest());
    server_.tls_keys.push_back(csr.public_key_digest);
    SELVAGE_ASSIGN_OR_RETURN(answer.certificate_pem,
                             server_.authority_->IssueDevice(
                                 request.csr_pem, "demo", id,
                                 server_.clock_.Now(), 24h, server_.random_));
    ++server_.enrolments;
    answer.device_id = id;
    answer.population = "demo";
    answer.plan_public_keys = {server_.plan_key_->public_key};
    SELVAGE_RETURN_IF_ERROR(server_.hook("enroll done"));
    return answer;
  }

  Result<CheckInAnswer> CheckIn(const CheckInRequest& request) override {
    SELVAGE_RETURN_IF_ERROR(server_.hook("check-in"));
    SELVAGE_RETURN_IF_ERROR(CheckIdentity());
    Hear(request.population);
    Hear(request.device_class);
    Hear(request.app_version);
    for (const auto& engine : request.engines) Hear(engine);
    for (const auto& id : request.unsettled_assignments) Hear(id);
    for (const auto& model : request.installed) Hear(model.task);
    server_.check_ins.push_back(request);
    CheckInAnswer answer;
    answer.retry = {.min = 5s, .max = 10s};
    answer.retry_if_accepted = {.min = 20s, .max = 30s};
    if (!server_.open_.has_value() && !server_.work_.empty()) {
      if (auto* a = std::get_if<Assignment>(&server_.work_.front())) {
        server_.open_ = *a;
      } else {
        answer.work = std::get<ModelOffer>(server_.work_.front());
      }
      server_.work_.pop_front();
    }
    if (server_.open_.has_value()) answer.work = *server_.open_;
    SELVAGE_RETURN_IF_ERROR(server_.hook("check-in done"));
    return answer;
  }

  Status Fetch(const crypto::Digest& digest, uint64_t offset, const Sink& sink,
               const KeepGoing& keep_going) override {
    SELVAGE_RETURN_IF_ERROR(server_.hook("fetch"));
    SELVAGE_RETURN_IF_ERROR(CheckIdentity());
    const auto it = server_.artefacts.find(digest);
    if (it == server_.artefacts.end()) return NotFound("no such artefact");
    const ByteSpan all = it->second;
    for (size_t at = offset; at < all.size(); at += server_.chunk_size) {
      if (!keep_going()) return Cancelled("stopped");
      const size_t size = std::min(server_.chunk_size, all.size() - at);
      server_.fetched[digest.ToHex()] += size;
      SELVAGE_RETURN_IF_ERROR(sink(all.subspan(at, size), all.size()));
      SELVAGE_RETURN_IF_ERROR(server_.hook("fetch chunk"));
    }
    return server_.hook("fetch done");
  }

  Status FetchDelta(const crypto::Digest& digest, const crypto::Digest& base,
                    plan::CodecName codec, const Sink& sink,
                    const KeepGoing& keep_going) override {
    SELVAGE_RETURN_IF_ERROR(server_.hook("fetch delta"));
    SELVAGE_RETURN_IF_ERROR(CheckIdentity());
    const Result<Bytes> delta = server_.deltas(digest, base, codec);
    if (!delta.ok()) return delta.status();
    const ByteSpan all = *delta;
    for (size_t at = 0; at < all.size(); at += server_.chunk_size) {
      if (!keep_going()) return Cancelled("stopped");
      const size_t size = std::min(server_.chunk_size, all.size() - at);
      server_.fetched_deltas += size;
      SELVAGE_RETURN_IF_ERROR(sink(all.subspan(at, size), all.size()));
    }
    return server_.hook("fetch delta done");
  }

  Result<Receipt> Upload(const UploadHeader& header,
                         const client::UpdateBytes& update,
                         const KeepGoing&) override {
    SELVAGE_RETURN_IF_ERROR(server_.hook("upload"));
    SELVAGE_RETURN_IF_ERROR(CheckIdentity());
    Hear(header.assignment_id);
    AppendBytes(server_.wire, header.token);
    SELVAGE_ASSIGN_OR_RETURN(Bytes sent, update.ReadAll());
    AppendBytes(server_.wire, sent);
    for (const auto& metric : header.metrics) {
      AppendLe(server_.wire, metric.numerator);
      AppendLe(server_.wire, metric.count);
    }
    Receipt receipt;
    receipt.retry = {.min = 20s, .max = 30s};
    receipt.status = server_.receipt_status;
    // An evaluation has no bytes but its metrics.
    const crypto::Digest digest = header.size_bytes == 0
                                      ? aggregation::DigestOf(header.metrics)
                                      : crypto::Sha256(sent);
    if (digest != header.digest || header.size_bytes != update.size()) {
      receipt.status = ReceiptStatus::kRejected;
      receipt.reason = "BAD_DIGEST";
      return receipt;
    }
    const auto [it, is_new] =
        server_.updates.emplace(header.assignment_id, header.digest);
    if (it->second != header.digest) {
      ++server_.conflicts;
      receipt.status = ReceiptStatus::kRejected;
      receipt.reason = "CONFLICT";
    } else {
      server_.payloads[header.assignment_id] = std::move(sent);
      server_.weights[header.assignment_id] = header.weight;
      server_.metrics[header.assignment_id] = header.metrics;
    }
    if (server_.open_ && server_.open_->id == header.assignment_id) {
      server_.open_.reset();
    }
    SELVAGE_RETURN_IF_ERROR(server_.hook("upload done"));
    return receipt;
  }

  Result<RetryWindow> Abandon(const std::string& assignment_id, ByteSpan token,
                              client::AbandonReason reason,
                              const std::string& message) override {
    SELVAGE_RETURN_IF_ERROR(server_.hook("abandon"));
    Hear(assignment_id);
    Hear(message);
    AppendBytes(server_.wire, token);
    server_.abandoned.push_back(reason);
    server_.abandon_messages.push_back(message);
    server_.open_.reset();
    SELVAGE_RETURN_IF_ERROR(server_.hook("abandon done"));
    return RetryWindow{.min = 5s, .max = 10s};
  }

  Result<RetryWindow> Report(
      const std::string& report_id,
      const std::vector<std::pair<std::string, uint64_t>>& said) override {
    SELVAGE_RETURN_IF_ERROR(server_.hook("report"));
    Hear(report_id);
    for (const auto& counter : said) Hear(counter.first);
    server_.counters = said;
    return RetryWindow{.min = 5s, .max = 10s};
  }

 private:
  void Hear(const std::string& text) {
    AppendBytes(server_.wire, AsBytes(text));
  }
  Status CheckIdentity() const {
    return server_.authority_->VerifyDevice(endpoint_.certificate_pem,
                                            server_.clock_.Now());
  }

  FakeServer& server_;
  const client::Endpoint endpoint_;
};

client::TransportFactory FakeServer::Transports() {
  return [this](const client::Endpoint& endpoint)
             -> Result<std::unique_ptr<client::Transport>> {
    return std::unique_ptr<client::Transport>(new Connection(*this, endpoint));
  };
}

}  // namespace selvage::test

// A coordinator in one object: enrols with a real CA, signs real plans, serves
// artefacts, takes updates, and writes down everything a device says.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "aggregation/codec/checkpoint_codec.h"
#include "aggregation/codec/delta_codec.h"
#include "base/random.h"
#include "client/core/transport.h"
#include "crypto/x509.h"
#include "plan/plan.h"
#include "tests/testing/fake_clock.h"

namespace selvage::test {

plan::Program MakeFakeProgram(bool with_personal);
plan::Plan MakeFakePlan(const plan::Program& program);

class FakeServer {
 public:
  explicit FakeServer(FakeClock& clock);

  // Signs and publishes; `json` as given, so that a test can spoil it.
  void PublishPlan(const std::string& json);
  void Publish(const plan::Plan& plan, const plan::Program& program);
  void PublishCheckpoint(const plan::Checkpoint& values);
  std::string Bundle() const;

  // The next check-in gets this work.
  client::Assignment NewAssignment();
  client::ModelOffer NewOffer(uint64_t version);
  void Give(client::Assignment assignment) { work_.push_back(assignment); }
  void Give(client::ModelOffer offer) { work_.push_back(offer); }

  // The open assignment expired.
  void Forget() { open_.reset(); }

  client::TransportFactory Transports();

  // Called before and after every call takes effect, e.g. "upload", "upload
  // done"; an error is what the device sees.
  std::function<Status(const std::string& call)> hook = [](const auto&) {
    return OkStatus();
  };
  // What FetchDelta answers.
  std::function<Result<Bytes>(const crypto::Digest& digest,
                              const crypto::Digest& base,
                              plan::CodecName codec)>
      deltas = [this](const auto& digest, const auto& base, auto codec) {
        return MakeDelta(digest, base, codec);
      };
  Result<Bytes> MakeDelta(const crypto::Digest& digest,
                          const crypto::Digest& base,
                          plan::CodecName codec) const;
  client::ReceiptStatus receipt_status = client::ReceiptStatus::kAccepted;
  size_t chunk_size = 64;

  plan::Plan plan;
  plan::Program program;
  plan::Checkpoint checkpoint;
  std::map<crypto::Digest, Bytes> artefacts;
  Bytes plan_signature;
  crypto::Digest plan_digest;
  crypto::Digest checkpoint_digest;

  // What devices did.
  Bytes wire;  // every byte of every field of every request
  std::map<std::string, crypto::Digest> updates;  // by assignment
  std::map<std::string, Bytes> payloads;
  std::map<std::string, uint32_t> weights;
  std::map<std::string, std::vector<aggregation::MetricValue>> metrics;
  std::vector<client::CheckInRequest> check_ins;
  std::vector<client::AbandonReason> abandoned;
  std::vector<std::string> abandon_messages;
  std::map<std::string, uint64_t> fetched;  // bytes, by digest
  uint64_t fetched_deltas = 0;              // bytes
  std::vector<std::pair<std::string, uint64_t>> counters;
  int connections = 0;
  int enrolments = 0;
  int conflicts = 0;
  // Of devices with identity keys.
  std::map<std::string, crypto::Digest> identities;  // by device id
  std::vector<crypto::Digest> tls_keys;  // that certificates were made for
  int nonces = 0;
  int tokens_shown = 0;
  int stale_nonces = 0;  // so many signed requests come too late

 private:
  class Connection;

  FakeClock& clock_;
  SeededRandom random_{99};
  std::unique_ptr<crypto::CertificateAuthority> authority_;
  std::unique_ptr<crypto::Ed25519KeyPair> plan_key_;
  std::map<std::string, std::string> certificates_;  // by CSR key
  Bytes nonce_;
  std::deque<std::variant<client::Assignment, client::ModelOffer>> work_;
  std::optional<client::Assignment> open_;  // repeated until it is answered
  uint64_t rounds_ = 0;
};

}  // namespace selvage::test

#include "bench/accuracy/attack.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <utility>

namespace selvage::bench {
namespace {

constexpr float kBackwards = -5;
constexpr float kManyTimes = 1e6f;

float Changed(float value, Attack attack, float bound) {
  switch (attack) {
    case Attack::kNone:
      return value;
    case Attack::kSignFlip:
      return std::clamp(kBackwards * value, -bound, bound);
    case Attack::kScaled:
      return kManyTimes * value;
    case Attack::kScaledInRange:
      return std::clamp(kManyTimes * value, -bound, bound);
  }
  return value;
}

class AttackingTransport final : public client::Transport {
 public:
  // `bound`: the largest value that the coordinator accepts.
  AttackingTransport(std::unique_ptr<client::Transport> honest, Attack attack,
                     float bound)
      : honest_(std::move(honest)), attack_(attack), bound_(bound) {}

  Result<client::Receipt> Upload(const client::UploadHeader& header,
                                 const client::UpdateBytes& update,
                                 const KeepGoing& keep_going) override {
    if (update.size() == 0) return honest_->Upload(header, update, keep_going);
    if (header.codec != plan::CodecName::kFloat32) {
      return InvalidArgument("attackers change float32 updates alone, not " +
                             std::string(plan::CodecNameText(header.codec)));
    }
    SELVAGE_ASSIGN_OR_RETURN(Bytes lie, update.ReadAll());
    for (size_t at = 0; at + sizeof(float) <= lie.size(); at += sizeof(float)) {
      float value = 0;
      std::memcpy(&value, lie.data() + at, sizeof value);
      value = Changed(value, attack_, bound_);
      std::memcpy(lie.data() + at, &value, sizeof value);
    }
    client::UploadHeader changed = header;
    changed.digest = crypto::Sha256(lie);
    return honest_->Upload(changed, lie, keep_going);
  }

  Result<client::EnrollAnswer> Enroll(
      const client::EnrollRequest& request) override {
    return honest_->Enroll(request);
  }
  Result<client::CheckInAnswer> CheckIn(
      const client::CheckInRequest& request) override {
    return honest_->CheckIn(request);
  }
  Status Fetch(const crypto::Digest& digest, uint64_t offset, const Sink& sink,
               const KeepGoing& keep_going) override {
    return honest_->Fetch(digest, offset, sink, keep_going);
  }
  Status FetchDelta(const crypto::Digest& digest, const crypto::Digest& base,
                    plan::CodecName codec, const Sink& sink,
                    const KeepGoing& keep_going) override {
    return honest_->FetchDelta(digest, base, codec, sink, keep_going);
  }
  Result<client::RetryWindow> Abandon(const std::string& assignment_id,
                                      ByteSpan token,
                                      client::AbandonReason reason,
                                      const std::string& message) override {
    return honest_->Abandon(assignment_id, token, reason, message);
  }
  Result<client::RetryWindow> Report(
      const std::string& report_id,
      const std::vector<std::pair<std::string, uint64_t>>& counters) override {
    return honest_->Report(report_id, counters);
  }

 private:
  const std::unique_ptr<client::Transport> honest_;
  const Attack attack_;
  const float bound_;
};

}  // namespace

std::string_view AttackName(Attack attack) {
  switch (attack) {
    case Attack::kNone:
      return "none";
    case Attack::kSignFlip:
      return "sign-flip";
    case Attack::kScaled:
      return "scaled";
    case Attack::kScaledInRange:
      return "scaled-in-range";
  }
  return "unknown";
}

client::TransportFactory Attacking(client::TransportFactory honest,
                                   Attack attack, float max_abs) {
  if (attack == Attack::kNone) return honest;
  const float bound = std::nextafter(max_abs, 0.0f);
  return [honest = std::move(honest), attack,
          bound](const client::Endpoint& endpoint)
             -> Result<std::unique_ptr<client::Transport>> {
    SELVAGE_ASSIGN_OR_RETURN(std::unique_ptr<client::Transport> transport,
                             honest(endpoint));
    return std::unique_ptr<client::Transport>(
        std::make_unique<AttackingTransport>(std::move(transport), attack,
                                             bound));
  };
}

}  // namespace selvage::bench

#include "bench/accuracy/slow_transport.h"

#include <string>
#include <utility>

namespace selvage::bench {
namespace {

class SlowTransport final : public client::Transport {
 public:
  SlowTransport(std::unique_ptr<client::Transport> base, AtWork& work,
                Clock& clock)
      : base_(std::move(base)), work_(work), clock_(clock) {}

  Result<client::CheckInAnswer> CheckIn(
      const client::CheckInRequest& request) override {
    SELVAGE_ASSIGN_OR_RETURN(client::CheckInAnswer answer,
                             base_->CheckIn(request));
    if (const auto* given = std::get_if<client::Assignment>(&answer.work);
        given != nullptr && given->id != assignment_) {
      assignment_ = given->id;
      work_.done = clock_.Now() + work_.takes;
    }
    return answer;
  }
  Result<client::Receipt> Upload(const client::UploadHeader& header,
                                 const client::UpdateBytes& update,
                                 const KeepGoing& keep_going) override {
    if (clock_.Now() < work_.done) {
      work_.session->Cancel();
      return Cancelled("it would still be training");
    }
    return base_->Upload(header, update, keep_going);
  }

  Result<client::EnrollAnswer> Enroll(
      const client::EnrollRequest& request) override {
    return base_->Enroll(request);
  }
  Status Fetch(const crypto::Digest& digest, uint64_t offset, const Sink& sink,
               const KeepGoing& keep_going) override {
    return base_->Fetch(digest, offset, sink, keep_going);
  }
  Status FetchDelta(const crypto::Digest& digest, const crypto::Digest& base,
                    plan::CodecName codec, const Sink& sink,
                    const KeepGoing& keep_going) override {
    return base_->FetchDelta(digest, base, codec, sink, keep_going);
  }
  Result<client::RetryWindow> Abandon(const std::string& assignment_id,
                                      ByteSpan token,
                                      client::AbandonReason reason,
                                      const std::string& message) override {
    return base_->Abandon(assignment_id, token, reason, message);
  }
  Result<client::RetryWindow> Report(
      const std::string& report_id,
      const std::vector<std::pair<std::string, uint64_t>>& counters) override {
    return base_->Report(report_id, counters);
  }

 private:
  const std::unique_ptr<client::Transport> base_;
  AtWork& work_;
  Clock& clock_;
  std::string assignment_;
};

}  // namespace

client::TransportFactory TakingTime(client::TransportFactory transports,
                                    AtWork& work, Clock& clock) {
  return [transports = std::move(transports), &work,
          &clock](const client::Endpoint& endpoint)
             -> Result<std::unique_ptr<client::Transport>> {
    SELVAGE_ASSIGN_OR_RETURN(std::unique_ptr<client::Transport> base,
                             transports(endpoint));
    return std::unique_ptr<client::Transport>(
        std::make_unique<SlowTransport>(std::move(base), work, clock));
  };
}

}  // namespace selvage::bench

#include "bench/accuracy/local_transport.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "client/rpc/convert.h"
#include "coordinator/rpc/convert.h"

namespace selvage::bench {
namespace {

namespace server = ::selvage::coordinator;

constexpr size_t kChunkSize = size_t{1} << 18;

// The answer to a call, from whichever thread it comes.
template <typename T>
class Answer {
 public:
  std::function<void(Result<T>)> Taker() {
    return [state = state_](Result<T> result) {
      const MutexLock lock(state->mu);
      state->result = std::move(result);
    };
  }
  std::optional<Result<T>> Take() {
    const MutexLock lock(state_->mu);
    return std::exchange(state_->result, std::nullopt);
  }

 private:
  struct State {
    Mutex mu;
    std::optional<Result<T>> result SELVAGE_GUARDED_BY(mu);
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

// After one turn of the coordinator every answer is there that does not wait
// for time or for others; those are asked for again.
template <typename T>
Result<T> Await(LocalService& service, Answer<T>& answer) {
  std::optional<Result<T>> result = answer.Take();
  if (!result.has_value()) {
    service.Poll();
    result = answer.Take();
  }
  if (!result.has_value()) return Unavailable("there is no answer yet");
  return *std::move(result);
}

// "selvage://POPULATION/device/ID"; nullopt for anything else.
std::optional<server::DeviceIdentity> IdentityOf(const std::string& uri) {
  constexpr std::string_view kScheme = "selvage://";
  constexpr std::string_view kDevice = "/device/";
  const size_t device = uri.find(kDevice);
  if (!uri.starts_with(kScheme) || device == std::string::npos) {
    return std::nullopt;
  }
  return server::DeviceIdentity{
      uri.substr(kScheme.size(), device - kScheme.size()),
      uri.substr(device + kDevice.size())};
}

class LocalTransport final : public client::Transport {
 public:
  LocalTransport(LocalService& service, const client::Endpoint& endpoint)
      : service_(service), device_(IdentityOf(endpoint.device_uri)) {}

  Result<client::EnrollAnswer> Enroll(
      const client::EnrollRequest& request) override {
    SELVAGE_ASSIGN_OR_RETURN(const server::EnrollRequest parsed,
                             server::FromProto(client::ToProto(request)));
    SELVAGE_ASSIGN_OR_RETURN(const server::EnrollAnswer answer,
                             api().Enroll(device_, parsed));
    return client::FromProto(server::ToProto(answer));
  }

  Result<client::CheckInAnswer> CheckIn(
      const client::CheckInRequest& request) override {
    SELVAGE_RETURN_IF_ERROR(CheckEnrolled());
    SELVAGE_ASSIGN_OR_RETURN(server::CheckInRequest parsed,
                             server::FromProto(client::ToProto(request)));
    Answer<server::CheckInAnswer> answer;
    api().CheckIn(*device_, std::move(parsed), answer.Taker());
    SELVAGE_ASSIGN_OR_RETURN(const server::CheckInAnswer answered,
                             Await(service_, answer));
    return client::FromProto(server::ToProto(answered));
  }

  Status Fetch(const crypto::Digest& digest, uint64_t offset, const Sink& sink,
               const KeepGoing& keep_going) override {
    SELVAGE_RETURN_IF_ERROR(CheckEnrolled());
    SELVAGE_ASSIGN_OR_RETURN(
        const std::unique_ptr<server::ArtefactReader> reader,
        api().OpenArtefact(*device_, digest));
    return Pour(*reader, offset, sink, keep_going);
  }

  Status FetchDelta(const crypto::Digest& digest, const crypto::Digest& base,
                    plan::CodecName codec, const Sink& sink,
                    const KeepGoing& keep_going) override {
    SELVAGE_RETURN_IF_ERROR(CheckEnrolled());
    SELVAGE_ASSIGN_OR_RETURN(
        const std::unique_ptr<server::ArtefactReader> reader,
        api().OpenDelta(*device_, digest, base, codec));
    return Pour(*reader, 0, sink, keep_going);
  }

  Result<client::Receipt> Upload(const client::UploadHeader& header,
                                 const client::UpdateBytes& update,
                                 const KeepGoing& keep_going) override {
    SELVAGE_RETURN_IF_ERROR(CheckEnrolled());
    SELVAGE_ASSIGN_OR_RETURN(const server::UploadHeader parsed,
                             server::FromProto(client::ToProto(header)));
    Answer<server::BegunUpload> begun;
    api().BeginUpload(*device_, parsed, begun.Taker());
    SELVAGE_ASSIGN_OR_RETURN(const server::BegunUpload begin,
                             Await(service_, begun));
    if (const auto* receipt = std::get_if<server::Receipt>(&begin)) {
      return client::FromProto(server::ToProto(*receipt));
    }
    const auto& ticket = std::get<server::UploadTicket>(begin);
    Bytes chunk;
    for (uint64_t offset = ticket.offset; offset < update.size();) {
      if (keep_going && !keep_going()) {
        api().DropUpload(ticket.upload_id);
        return Cancelled("the host stopped the transfer");
      }
      chunk.resize(static_cast<size_t>(
          std::min<uint64_t>(kChunkSize, update.size() - offset)));
      SELVAGE_RETURN_IF_ERROR(update.Read(offset, chunk));
      SELVAGE_RETURN_IF_ERROR(api().AppendUpload(ticket.upload_id, chunk));
      offset += chunk.size();
    }
    Answer<server::Receipt> receipt;
    api().FinishUpload(ticket.upload_id, receipt.Taker());
    SELVAGE_ASSIGN_OR_RETURN(const server::Receipt received,
                             Await(service_, receipt));
    return client::FromProto(server::ToProto(received));
  }

  Result<client::RetryWindow> Abandon(const std::string& assignment_id,
                                      ByteSpan token,
                                      client::AbandonReason reason,
                                      const std::string& message) override {
    SELVAGE_RETURN_IF_ERROR(CheckEnrolled());
    SELVAGE_ASSIGN_OR_RETURN(
        const server::RetryWindow window,
        api().Abandon(*device_, assignment_id, token,
                      static_cast<server::AbandonReason>(reason), message));
    return client::FromProto(server::ToProto(window));
  }

  Result<client::RetryWindow> Report(
      const std::string& report_id,
      const std::vector<std::pair<std::string, uint64_t>>& counters) override {
    SELVAGE_RETURN_IF_ERROR(CheckEnrolled());
    SELVAGE_ASSIGN_OR_RETURN(
        const server::RetryWindow window,
        api().Report(*device_, report_id, {counters.begin(), counters.end()}));
    return client::FromProto(server::ToProto(window));
  }

 private:
  server::DeviceApi& api() { return service_.coordinator(); }

  Status CheckEnrolled() const {
    if (device_.has_value()) return OkStatus();
    return Unauthenticated("a device that is not enrolled");
  }

  static Status Pour(server::ArtefactReader& reader, uint64_t offset,
                     const Sink& sink, const KeepGoing& keep_going) {
    Bytes chunk(kChunkSize);
    while (offset < reader.size()) {
      if (keep_going && !keep_going()) {
        return Cancelled("the host stopped the transfer");
      }
      SELVAGE_ASSIGN_OR_RETURN(const size_t size, reader.ReadAt(offset, chunk));
      if (size == 0) return DataLoss("an artefact became shorter");
      SELVAGE_RETURN_IF_ERROR(sink(ByteSpan(chunk).first(size), reader.size()));
      offset += size;
    }
    return OkStatus();
  }

  LocalService& service_;
  const std::optional<server::DeviceIdentity> device_;
};

}  // namespace

void LocalService::Poll() {
  const MutexLock lock(mu_);
  coordinator_.Poll();
}

client::TransportFactory LocalService::Transports() {
  return [this](const client::Endpoint& endpoint)
             -> Result<std::unique_ptr<client::Transport>> {
    return std::unique_ptr<client::Transport>(
        std::make_unique<LocalTransport>(*this, endpoint));
  };
}

}  // namespace selvage::bench

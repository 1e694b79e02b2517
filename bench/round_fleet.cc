#include "bench/round_fleet.h"

#include <chrono>
#include <thread>
#include <utility>

#include "base/time.h"
#include "client/enrolment_bundle.h"
#include "client/rpc/grpc_transport.h"
#include "crypto/x509.h"

namespace selvage::bench {

using client::SessionAction;
using client::SessionActionKind;
using client::SessionEvent;

Result<std::unique_ptr<FleetDevice>> FleetDevice::Enrol(
    const std::string& bundle_json, uint64_t seed) {
  SELVAGE_ASSIGN_OR_RETURN(const client::EnrolmentBundle bundle,
                           client::ParseEnrolmentBundle(bundle_json));
  std::unique_ptr<FleetDevice> device(new FleetDevice(seed));
  device->population_ = bundle.population;
  SELVAGE_ASSIGN_OR_RETURN(const crypto::PrivateKeyPem key,
                           crypto::NewP256Key());
  SELVAGE_ASSIGN_OR_RETURN(const std::string request,
                           crypto::NewCertificateRequest(key, ""));
  const client::TransportFactory factory =
      client::GrpcTransportFactory(device->random_);
  client::Endpoint endpoint;
  endpoint.address = bundle.endpoint;
  endpoint.ca_certificate = bundle.ca_certificate;
  SELVAGE_ASSIGN_OR_RETURN(const std::unique_ptr<client::Transport> stranger,
                           factory(endpoint));
  SELVAGE_ASSIGN_OR_RETURN(
      const client::EnrollAnswer answer,
      stranger->Enroll({bundle.token_id, bundle.token_secret, request, ""}));
  endpoint.certificate_pem = answer.certificate_pem;
  endpoint.private_key_pem = key.ExposeSecret();
  SELVAGE_ASSIGN_OR_RETURN(device->transport_, factory(endpoint));
  return device;
}

Status FleetDevice::Contribute(const Contribution& contribution) {
  SystemClock clock;
  while (true) {
    SessionAction action =
        session_.Step(client::SessionStarted{true}, clock.Now(), random_);
    while (action.kind != SessionActionKind::kFinish) {
      const SessionEvent event = Perform(action, contribution);
      if (const auto* failed = std::get_if<client::ActionFailed>(&event)) {
        if (!client::IsTransient(failed->status.code())) return failed->status;
      }
      action = session_.Step(event, clock.Now(), random_);
    }
    if (action.result == client::RunResult::kContributed) return OkStatus();
    if (action.result != client::RunResult::kNothingToDo &&
        action.result != client::RunResult::kInstalled &&
        action.result != client::RunResult::kFailed) {
      return Internal("a device ended with " +
                      std::string(RunResultName(action.result)) + ": " +
                      action.reason);
    }
    const Duration wait = session_.next_run() - clock.Now();
    if (wait > Duration::zero()) std::this_thread::sleep_for(wait);
  }
}

Status FleetDevice::FetchOne(const crypto::Digest& digest) {
  if (cached_.contains(digest)) return OkStatus();
  // As the bare stream does with what it receives: hashed as it comes, and not
  // kept.
  crypto::Sha256Hasher hasher;
  size_t size = 0;
  SELVAGE_RETURN_IF_ERROR(transport_->Fetch(
      digest, 0,
      [&](ByteSpan bytes, uint64_t) {
        hasher.Update(bytes);
        size += bytes.size();
        return OkStatus();
      },
      [] { return true; }));
  if (std::move(hasher).Finish() != digest) {
    return DataLoss("an artefact has another digest");
  }
  bytes_down_ += size;
  cached_[digest] = size;
  return OkStatus();
}

SessionEvent FleetDevice::Perform(const SessionAction& action,
                                  const Contribution& contribution) {
  const client::SessionWork& work = session_.work();
  switch (action.kind) {
    case SessionActionKind::kCheckIn: {
      client::CheckInRequest request;
      request.population = population_;
      request.engines = {"native:bench"};
      request.unsettled_assignments = session_.unsettled();
      for (const auto& [task, version] : installed_) {
        request.installed.push_back({task, version});
      }
      Result<client::CheckInAnswer> answer = transport_->CheckIn(request);
      if (!answer.ok()) return client::ActionFailed{answer.status()};
      return client::CheckedIn{*std::move(answer)};
    }
    case SessionActionKind::kFetch: {
      Status status = FetchOne(work.plan_digest);
      if (status.ok()) status = FetchOne(work.checkpoint_digest);
      if (!status.ok()) return client::ActionFailed{status};
      return client::ArtefactsFetched{};
    }
    case SessionActionKind::kTrain:
      return client::UpdateRecorded{};
    case SessionActionKind::kUpload: {
      client::UploadHeader header;
      header.assignment_id = work.assignment_id;
      header.token = work.token;
      header.digest = contribution.digest;
      header.size_bytes = contribution.encoded.size();
      header.codec = contribution.codec;
      header.weight = 1;
      Result<client::Receipt> receipt =
          transport_->Upload(header, contribution.encoded, [] { return true; });
      if (!receipt.ok()) return client::ActionFailed{receipt.status()};
      // The version that this round makes is the next one.
      installed_[work.task] = work.version + 1;
      return client::ReceiptReceived{*std::move(receipt)};
    }
    case SessionActionKind::kPersonalize:
      if (!work.train) installed_[work.task] = work.version;
      return client::ModelPersonalized{};
    default:
      return client::ActionFailed{
          Internal("the bench does not " +
                   std::string(SessionActionKindName(action.kind)))};
  }
}

}  // namespace selvage::bench

// Many devices on one thread: each has a TLS connection of its own, checks in,
// fetches, uploads and comes back when it is told to. No call blocks.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include "base/random.h"
#include "base/status.h"
#include "bench/load_figures.h"
#include "crypto/digest.h"

namespace selvage::bench {

struct FleetIdentity {
  std::string address;
  std::string ca;
  std::string key;
  std::string certificate;
};

struct FleetOptions {
  std::string check_in_method;
  std::string upload_method;
  std::string population;
  // What an update has, as float16.
  size_t values = 1;
  // Device i sends 1 at index i and 0 elsewhere; otherwise all send the same.
  bool one_hot = false;
  // Plan and checkpoint are fetched and hashed before an upload.
  bool fetch = false;
  int in_flight = 64;
};

// Thread-compatible.
class LoadFleet {
 public:
  struct Totals {
    Figures assigned;      // check-ins that were given an assignment
    Figures idle;          // the others
    Figures fetched;       // artefacts
    Figures uploaded;      // from the header to the receipt
    Figures acknowledged;  // the same uploads, from their last byte
    std::map<std::string, uint64_t> receipts;  // by status or reason
    std::map<std::string, uint64_t> outcomes;  // of assignments
  };

  LoadFleet(const std::vector<FleetIdentity>& identities,
            const FleetOptions& options);
  ~LoadFleet();
  LoadFleet(const LoadFleet&) = delete;
  LoadFleet& operator=(const LoadFleet&) = delete;

  // One check-in of every device, whatever comes back: connects them all.
  Figures Connect();
  // Check-ins without looking at the answers, for `seconds`. `rate`: per
  // second, whatever comes back; 0: as many at a time as may be in flight.
  Figures CheckIns(double rate, double seconds);

  // Devices do what they are told until `done`, which is asked all the time;
  // then calls in flight end. Only the first `devices` take part (0: all).
  // Returns seconds.
  double Run(const std::function<bool()>& done, size_t devices = 0);
  // Devices with an assignment wait with it.
  void HoldUploads(bool hold) { hold_ = hold; }
  // Devices without one wait, too.
  void HoldCheckIns(bool hold) { hold_check_ins_ = hold; }
  // Whoever waits comes at once.
  void Hurry();
  // How many have an assignment that they have no receipt for.
  size_t holding() const { return holding_; }

  // What happened since the last call, over `seconds`.
  Totals Take(double seconds);
  const Totals& so_far() const { return totals_; }

  // When a receipt said ACCEPTED last; steady seconds as WallSeconds().
  double last_accepted() const { return last_accepted_; }
  // The newest checkpoint that was fetched, and its version.
  uint64_t checkpoint_version() const { return checkpoint_version_; }
  const Bytes& checkpoint() const { return checkpoint_; }

 private:
  struct Device;
  class Call;
  class UnaryCall;
  class FetchCall;
  class UploadCall;

  void Begin(size_t device);
  void Later(size_t device, double seconds);
  double Within(uint64_t min_ms, uint64_t max_ms);
  // What comes of a call that has ended.
  void CheckedIn(size_t device, UnaryCall& call);
  void Fetched(size_t device, FetchCall& call);
  void Uploaded(size_t device, UploadCall& call);
  bool Failed(size_t device, const grpc::Status& status, Figures& figures);
  Figures Ask(double rate,
              const std::function<bool(uint64_t, double)>& goes_on);
  grpc::ByteBuffer CheckInRequestOf(const Device& device) const;
  // What a device uploads.
  struct Update {
    std::vector<grpc::ByteBuffer> chunks;  // messages
    crypto::Digest digest;
    uint64_t size = 0;
  };
  Update MakeUpdate(size_t device) const;

  const FleetOptions options_;
  const std::string request_base_;  // a check-in of a device without history
  OsRandom random_;
  std::vector<Device> devices_;
  Update update_;  // that all send, unless each has its own
  grpc::CompletionQueue queue_;
  // (when, who): who has nothing in flight.
  using Due = std::pair<double, size_t>;
  std::priority_queue<Due, std::vector<Due>, std::greater<>> due_;
  std::vector<size_t> parked_;  // by HoldUploads() or HoldCheckIns()
  bool hold_ = false;
  bool hold_check_ins_ = false;
  size_t holding_ = 0;
  size_t flying_ = 0;
  size_t next_ = 0;  // of Ask()
  Totals totals_;
  double last_accepted_ = 0;
  uint64_t checkpoint_version_ = 0;
  Bytes checkpoint_;
};

}  // namespace selvage::bench

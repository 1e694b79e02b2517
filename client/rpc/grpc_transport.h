// Transport over gRPC: mutually authenticated TLS 1.3, one connection per
// client, trusting one CA (the enrolment bundle's) and no other.
#pragma once

#include <functional>
#include <memory>

#include "base/random.h"
#include "base/status.h"
#include "base/time.h"
#include "client/core/transport.h"

namespace selvage::client {

struct GrpcTransportOptions {
  Duration check_in_deadline = std::chrono::seconds(5);
  Duration chunk_deadline = std::chrono::seconds(30);
  // A transfer that got nowhere for this long is given up (the session goes on
  // with it next time).
  Duration stalled_max = std::chrono::minutes(2);
  // Of an update, in a message, at most (chunk_sizer.h).
  size_t chunk_size_bytes = 256 << 10;
  // How to wait between attempts; tests return at once.
  std::function<void(Duration)> sleep = {};
};

// Call crypto::RequireTls13() first thing in main(): gRPC has no setter for the
// TLS version. `random` draws the backoff; it must outlive the transports.
//
// The returned factory's errors: INVALID_ARGUMENT for an address or PEM that
// cannot be used, PERMISSION_DENIED for a plaintext address off this machine,
// FAILED_PRECONDITION in a child that was forked while there were transports.
// It does not connect: that happens with the first call.
TransportFactory GrpcTransportFactory(RandomSource& random,
                                      GrpcTransportOptions options = {});

}  // namespace selvage::client

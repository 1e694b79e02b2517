// A device that takes its time, on virtual time: an update is trained at once,
// and leaves when the device would have been done.
#pragma once

#include <memory>

#include "base/time.h"
#include "client/client.h"
#include "client/core/transport.h"

namespace selvage::bench {

// What a device is at. Its sessions, one at a time, share it with its
// transport.
struct AtWork {
  Duration takes{};  // one assignment
  Time done{};       // when the one it has is; in the past: none
  // Of the session that runs: an upload before `done` ends it, and the client
  // library goes on with it in a later one.
  client::CancelToken* session = nullptr;
};

// `work` and `clock` outlive the transports.
client::TransportFactory TakingTime(client::TransportFactory transports,
                                    AtWork& work, Clock& clock);

}  // namespace selvage::bench

// What the opaque types of selvage.h are. For the C API itself, and for tests
// that drive it with a client of their own making.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "client/capi/call_gate.h"
#include "client/capi/host.h"
#include "client/capi/selvage.h"
#include "client/client.h"

// The first word tells one kind of handle from another.
struct selvage_cancel {
  static constexpr uint64_t kMagic = 0x53454C5643414E43;
  std::atomic<uint64_t> magic{kMagic};
  selvage::client::CancelToken token;
};

struct selvage_client {
  static constexpr uint64_t kMagic = 0x53454C56434C4E54;
  std::atomic<uint64_t> magic{kMagic};
  selvage::capi::CallGate gate;
  std::unique_ptr<selvage::capi::Host> host;
  std::unique_ptr<selvage::client::Client> client;  // goes before its host
};

namespace selvage::capi {

// A handle for selvage_close on `client`, whose dependencies must outlive it.
selvage_client* Adopt(std::unique_ptr<client::Client> client);

}  // namespace selvage::capi

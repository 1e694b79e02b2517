// The bundle that `selvage token create` prints: where the coordinator is, the
// one CA to trust, and the token that gets this device its certificate.
#pragma once

#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/status.h"

namespace selvage::client {

inline constexpr size_t kBundleSizeMax = 64 << 10;

struct EnrolmentBundle {
  std::string endpoint;        // HOST:PORT
  std::string ca_certificate;  // PEM; empty: an insecure coordinator
  std::string token_id;
  Bytes token_secret;  // 32 bytes
  std::string population;
};

// JSON {"endpoint", "ca_certificate", "token_id", "token_secret" (hex),
// "population", "expires"}. Keys it does not know are ignored: a newer
// coordinator may say more. "expires" is for people: the coordinator's clock
// decides. INVALID_ARGUMENT names the field, never its value.
Result<EnrolmentBundle> ParseEnrolmentBundle(std::string_view json);

}  // namespace selvage::client

// TLS 1.3 and nothing older, for every TLS connection of the process.
#pragma once

#include "base/status.h"

namespace selvage::crypto {

// Call it first thing in main(), before anything makes a TLS context: gRPC has
// no setter for the protocol version, so the choice goes into OpenSSL's
// process-wide configuration, which every context made afterwards inherits.
// Calling it again changes nothing. INTERNAL if OpenSSL refuses the setting.
Status RequireTls13();

}  // namespace selvage::crypto

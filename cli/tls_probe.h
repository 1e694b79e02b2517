// One TLS handshake, looked at closely: what gRPC would not tell.
#pragma once

#include <string>

#include "base/status.h"
#include "base/time.h"

namespace selvage::cli {

enum class TlsVersion { kTls12, kTls13 };

struct TlsPeer {
  std::string protocol;  // "TLSv1.3"
  std::string cipher;
  std::string subject;
  Time not_after{};
};

// UNAVAILABLE if nothing listens (the message says what happened);
// DEADLINE_EXCEEDED after `timeout`.
Status ProbePort(const std::string& host, const std::string& port,
                 Duration timeout);

// Handshakes offering exactly `version` and trusting `ca_pem` alone, with the
// certificate checked for `host`. UNAVAILABLE as above; FAILED_PRECONDITION if
// the peer refused the handshake, PERMISSION_DENIED if its certificate was not
// accepted (the message says why), INVALID_ARGUMENT if `ca_pem` is none.
Result<TlsPeer> ProbeTls(const std::string& host, const std::string& port,
                         const std::string& ca_pem, TlsVersion version,
                         Duration timeout);

}  // namespace selvage::cli

// What a balancer needs to end TLS in front of coordinators.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "base/random.h"
#include "base/status.h"
#include "base/time.h"

namespace selvage::coordinator {

struct ProxyCertificateOptions {
  Path keys_dir;                   // of the coordinator: its CA
  std::string name;                // for device.proxies
  std::vector<std::string> hosts;  // what devices connect to
  Duration lifetime = std::chrono::hours(24 * 90);
  Path out;  // a directory, created
};

// Writes OUT/proxy.key.pem, a new key, OUT/proxy.pem, its certificate for
// `hosts` and for device.proxies, and OUT/ca.pem, whom both sides trust; all
// the owner's alone. Reads the CA and changes nothing of it, so it may run
// beside a coordinator. ALREADY_EXISTS: there is a key in `out`. Other errors
// as of ReadAuthority and CertificateAuthority::IssueProxy.
Status WriteProxyCertificate(const ProxyCertificateOptions& options,
                             FileSystem& files, Clock& clock,
                             RandomSource& random);

}  // namespace selvage::coordinator

#include "crypto/tls_policy.h"

#include <string_view>

#include <openssl/conf.h>
#include <openssl/crypto.h>

#include "crypto/openssl_ptr.h"

namespace selvage::crypto {
namespace {

// MinProtocol would not do: gRPC sets the minimum of its contexts itself.
// Protocol turns into options (no TLS 1.2, ...), which gRPC leaves alone.
constexpr std::string_view kConfig =
    "openssl_conf = selvage_init\n"
    "[selvage_init]\n"
    "ssl_conf = selvage_ssl\n"
    "[selvage_ssl]\n"
    "system_default = selvage_tls\n"
    "[selvage_tls]\n"
    "Protocol = -ALL, TLSv1.3\n";

using ConfPtr = OpenSslPtr<CONF, NCONF_free>;

Status Configure() {
  const ErrorScope errors;
  // The machine's own configuration first: OpenSSL reads it once, and reading
  // it later would replace ours.
  if (OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG, nullptr) != 1) {
    return Internal("OpenSSL does not read its configuration");
  }
  const ConfPtr config(NCONF_new(nullptr));
  const BioPtr text(
      BIO_new_mem_buf(kConfig.data(), static_cast<int>(kConfig.size())));
  if (config == nullptr || text == nullptr) return Internal("out of memory");
  long error_line = 0;
  if (NCONF_load_bio(config.get(), text.get(), &error_line) != 1 ||
      CONF_modules_load(config.get(), nullptr, 0) != 1) {
    return Internal("OpenSSL refuses to be limited to TLS 1.3");
  }
  return OkStatus();
}

}  // namespace

Status RequireTls13() {
  // Once: OpenSSL replaces its table of settings while others may read it.
  static const Status status = Configure();
  return status;
}

}  // namespace selvage::crypto

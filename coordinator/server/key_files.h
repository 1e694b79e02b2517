// The coordinator's own secrets: created on first start, loaded ever after.
//
//   KEYS_DIR/ca.pem               what devices and people trust
//   KEYS_DIR/admin.token          what people show
//   KEYS_DIR/keys/ca.key.pem      signs device and server certificates
//   KEYS_DIR/keys/plan.key        signs plans (Ed25519 seed, hexadecimal)
//   KEYS_DIR/keys/assignment.key  HMAC key of assignment tokens, hexadecimal
//   KEYS_DIR/keys/wrapping.key    wraps round keys, or wherever
//                                 wrapping_key_file says
//   DATA_DIR/keys/server.key.pem  DATA_DIR/keys/server.pem
//
// KEYS_DIR is DATA_DIR unless replicas share one; then the data directory has a
// copy of ca.pem and admin.token for whoever connects from this machine.
//
// Files 0600, directories 0700. A secret file that others may read is refused.
#pragma once

#include <string>
#include <vector>

#include "base/file_system.h"
#include "base/random.h"
#include "base/status.h"
#include "base/time.h"
#include "crypto/secret.h"
#include "crypto/signature.h"
#include "crypto/x509.h"

namespace selvage::coordinator {

struct KeyFileOptions {
  Path data_dir;
  Path keys_dir;  // empty: data_dir
  Path wrapping_key_file;
  std::vector<std::string> server_names;
  // With a database there, a missing key is a loss and not a first start: a new
  // one would orphan every device or make stored sums unreadable.
  bool may_create = false;
};

struct CoordinatorKeys {
  crypto::CertificateAuthority authority;
  std::string server_certificate_pem;
  crypto::PrivateKeyPem server_key;
  crypto::Ed25519KeyPair plan_key;
  crypto::SecretBytes assignment_key;
  crypto::SecretBytes wrapping_key;
  std::string admin_token;
};

// Loads, and creates what may be created. The server's certificate is issued
// anew when its names changed or less than 30 days of it are left; a lost
// admin token is replaced, since nothing depends on the old one. DATA_LOSS: a
// key is missing or malformed. FAILED_PRECONDITION: a secret file is readable
// by others. Callers hold the data directory's lock.
// Of a shared keys directory, one process at a time creates; the others wait
// for it a while, and then FAILED_PRECONDITION.
Result<CoordinatorKeys> OpenKeys(FileSystem& files,
                                 const KeyFileOptions& options, Time now,
                                 RandomSource& random);

// The certificate authority of a keys directory, as it is there. Errors as of
// OpenKeys.
Result<crypto::CertificateAuthority> ReadAuthority(FileSystem& files,
                                                   const Path& keys_dir);

// Equal for two processes exactly if they have the same shared keys (all but
// the server's); says nothing of what they are.
Result<std::string> SharedKeysFingerprint(const CoordinatorKeys& keys);

}  // namespace selvage::coordinator

#include "coordinator/server/proxy_certificate.h"

#include <filesystem>
#include <system_error>

#include "base/bytes.h"
#include "coordinator/server/key_files.h"
#include "crypto/x509.h"

namespace selvage::coordinator {

Status WriteProxyCertificate(const ProxyCertificateOptions& options,
                             FileSystem& files, Clock& clock,
                             RandomSource& random) {
  SELVAGE_ASSIGN_OR_RETURN(const crypto::CertificateAuthority authority,
                           ReadAuthority(files, options.keys_dir));
  SELVAGE_ASSIGN_OR_RETURN(const crypto::PrivateKeyPem key,
                           crypto::NewP256Key());
  SELVAGE_ASSIGN_OR_RETURN(
      const std::string certificate,
      authority.IssueProxy(key, options.name, options.hosts, clock.Now(),
                           options.lifetime, random));
  SELVAGE_RETURN_IF_ERROR(files.CreateDirectories(options.out));
  const Path key_path = options.out / "proxy.key.pem";
  // A balancer may be using it.
  std::error_code error;
  if (std::filesystem::exists(key_path, error) || error) {
    return AlreadyExists(key_path.string() + " exists");
  }
  const auto write = [&](const Path& path, std::string_view text) {
    return WriteFileDurably(files, path, AsBytes(text), 0600);
  };
  SELVAGE_RETURN_IF_ERROR(
      write(options.out / "ca.pem", authority.certificate_pem()));
  SELVAGE_RETURN_IF_ERROR(write(options.out / "proxy.pem", certificate));
  return write(key_path, key.ExposeSecret());
}

}  // namespace selvage::coordinator

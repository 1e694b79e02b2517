#include "coordinator/server/key_files.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <system_error>
#include <thread>
#include <utility>

#include "base/bytes.h"
#include "base/file_lock.h"
#include "crypto/digest.h"

namespace selvage::coordinator {
namespace {

constexpr uint64_t kFileSizeMax = 64 << 10;
constexpr size_t kKeySize = 32;
constexpr Duration kAuthorityLifetime = std::chrono::hours(24 * 3650);
constexpr Duration kServerLifetime = std::chrono::hours(24 * 397);
constexpr Duration kRenewBefore = std::chrono::hours(24 * 30);
// Until another process has created the keys: 10 s in all.
constexpr int kLockAttempts = 200;
constexpr auto kLockPause = std::chrono::milliseconds(50);

// The contents, or nullopt if there is no such file.
Result<std::optional<std::string>> ReadIfThere(FileSystem& files,
                                               const Path& path) {
  Result<Bytes> bytes = ReadFile(files, path, kFileSizeMax);
  if (bytes.ok()) return std::optional(ToString(*bytes));
  if (bytes.status().code() == StatusCode::kNotFound) {
    return std::optional<std::string>();
  }
  return bytes.status();
}

Status CheckPrivate(const Path& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (error || status.type() == std::filesystem::file_type::not_found) {
    return OkStatus();
  }
  const auto others =
      std::filesystem::perms::group_all | std::filesystem::perms::others_all;
  if ((status.permissions() & others) != std::filesystem::perms::none) {
    return FailedPrecondition(path.string() +
                              " can be read by others; chmod 600 it, and "
                              "replace the secret if someone may have");
  }
  return OkStatus();
}

// A secret of the files' owner alone: loads it, or creates and stores it.
class SecretFiles {
 public:
  SecretFiles(FileSystem& files, bool may_create, RandomSource& random)
      : files_(files), may_create_(may_create), random_(random) {}

  // Hexadecimal, `kKeySize` bytes.
  Result<crypto::SecretBytes> Key(const Path& path) {
    SELVAGE_ASSIGN_OR_RETURN(const std::optional<std::string> text, Read(path));
    crypto::SecretBytes key(kKeySize);
    if (!text.has_value()) {
      random_.Fill(key.writable());
      SELVAGE_RETURN_IF_ERROR(Write(path, ToHex(key.ExposeSecret()) + "\n"));
      return key;
    }
    const Result<Bytes> bytes =
        FromHex(std::string_view(*text).substr(0, text->find('\n')));
    if (!bytes.ok() || bytes->size() != kKeySize) {
      return DataLoss(path.string() + " does not hold a key of 32 bytes");
    }
    std::copy(bytes->begin(), bytes->end(), key.writable().begin());
    return key;
  }

  Result<crypto::PrivateKeyPem> P256(const Path& path) {
    SELVAGE_ASSIGN_OR_RETURN(const std::optional<std::string> text, Read(path));
    if (!text.has_value()) {
      SELVAGE_ASSIGN_OR_RETURN(crypto::PrivateKeyPem key, crypto::NewP256Key());
      SELVAGE_RETURN_IF_ERROR(Write(path, key.ExposeSecret()));
      return key;
    }
    Result<crypto::PrivateKeyPem> key = crypto::ParseP256Key(*text);
    if (!key.ok()) {
      return DataLoss(path.string() + ": " +
                      std::string(key.status().message()));
    }
    return key;
  }

  Status Write(const Path& path, std::string_view text) {
    return WriteFileDurably(files_, path, AsBytes(text), 0600);
  }

 private:
  // nullopt: create it.
  Result<std::optional<std::string>> Read(const Path& path) {
    SELVAGE_RETURN_IF_ERROR(CheckPrivate(path));
    SELVAGE_ASSIGN_OR_RETURN(std::optional<std::string> text,
                             ReadIfThere(files_, path));
    if (!text.has_value() && !may_create_) {
      return DataLoss(path.string() +
                      " is missing, but the database exists: restore the file "
                      "from where you keep keys");
    }
    return text;
  }

  FileSystem& files_;
  const bool may_create_;
  RandomSource& random_;
};

Path AuthorityPath(const Path& keys_dir) { return keys_dir / "ca.pem"; }
Path AuthorityKeyPath(const Path& keys_dir) {
  return keys_dir / "keys" / "ca.key.pem";
}

Result<crypto::CertificateAuthority> OpenAuthority(
    FileSystem& files, SecretFiles& secrets, const KeyFileOptions& options,
    Time now, RandomSource& random) {
  const Path certificate_path = AuthorityPath(options.keys_dir);
  const Path key_path = AuthorityKeyPath(options.keys_dir);
  SELVAGE_ASSIGN_OR_RETURN(const std::optional<std::string> certificate,
                           ReadIfThere(files, certificate_path));
  if (!certificate.has_value()) {
    if (!options.may_create) {
      return DataLoss(certificate_path.string() +
                      " is missing, but the database exists");
    }
    // A key without a certificate is the trace of a first start cut short.
    SELVAGE_ASSIGN_OR_RETURN(
        crypto::CertificateAuthority authority,
        crypto::CertificateAuthority::Create("Selvage coordinator CA", now,
                                             kAuthorityLifetime, random));
    SELVAGE_RETURN_IF_ERROR(
        secrets.Write(key_path, authority.key().ExposeSecret()));
    SELVAGE_RETURN_IF_ERROR(
        secrets.Write(certificate_path, authority.certificate_pem()));
    return authority;
  }
  return ReadAuthority(files, options.keys_dir);
}

// True if `pem` names exactly `names`, belongs to `key` and has time left.
bool StillGood(const std::string& pem, const crypto::PrivateKeyPem& key,
               const std::vector<std::string>& names, Time now) {
  const Result<crypto::Certificate> certificate = crypto::ParseCertificate(pem);
  const Result<crypto::Digest> key_digest = crypto::PublicKeyDigest(key);
  return certificate.ok() && key_digest.ok() &&
         certificate->public_key_digest == *key_digest &&
         std::set(certificate->names.begin(), certificate->names.end()) ==
             std::set(names.begin(), names.end()) &&
         certificate->not_before <= now &&
         certificate->not_after > now + kRenewBefore;
}

Result<std::string> OpenServerCertificate(
    FileSystem& files, SecretFiles& secrets, const KeyFileOptions& options,
    const crypto::CertificateAuthority& authority,
    const crypto::PrivateKeyPem& key, Time now, RandomSource& random) {
  const Path path = options.data_dir / "keys" / "server.pem";
  SELVAGE_ASSIGN_OR_RETURN(const std::optional<std::string> stored,
                           ReadIfThere(files, path));
  if (stored.has_value() &&
      StillGood(*stored, key, options.server_names, now)) {
    return *stored;
  }
  SELVAGE_ASSIGN_OR_RETURN(const std::string issued,
                           authority.IssueServer(key, options.server_names, now,
                                                 kServerLifetime, random));
  SELVAGE_RETURN_IF_ERROR(secrets.Write(path, issued));
  return issued;
}

Result<std::string> OpenAdminToken(FileSystem& files, SecretFiles& secrets,
                                   const Path& path, RandomSource& random) {
  SELVAGE_RETURN_IF_ERROR(CheckPrivate(path));
  SELVAGE_ASSIGN_OR_RETURN(const std::optional<std::string> stored,
                           ReadIfThere(files, path));
  if (stored.has_value()) {
    std::string token = stored->substr(0, stored->find_first_of(" \t\r\n"));
    // Short ones are a person's choice, and guessable.
    if (token.size() < kKeySize) {
      return DataLoss(path.string() + " holds a token of " +
                      std::to_string(token.size()) +
                      " characters, expected are at least 32; delete the file "
                      "for a new one");
    }
    return token;
  }
  crypto::SecretBytes bytes(kKeySize);
  random.Fill(bytes.writable());
  std::string token = ToHex(bytes.ExposeSecret());
  SELVAGE_RETURN_IF_ERROR(secrets.Write(path, token + "\n"));
  return token;
}

// Nothing of what is shared will have to be created.
bool SharedFilesThere(const KeyFileOptions& options) {
  for (const Path& path :
       {options.keys_dir / "ca.pem", options.keys_dir / "keys" / "ca.key.pem",
        options.keys_dir / "keys" / "plan.key",
        options.keys_dir / "keys" / "assignment.key", options.wrapping_key_file,
        options.keys_dir / "admin.token"}) {
    std::error_code error;
    if (!std::filesystem::exists(path, error)) return false;
  }
  return true;
}

Result<std::unique_ptr<FileLock>> LockKeys(const Path& keys_dir) {
  for (int attempt = 0;; ++attempt) {
    Result<std::unique_ptr<FileLock>> lock =
        FileLock::Acquire(keys_dir / "keys.lock", "coordinator");
    if (lock.ok() || attempt == kLockAttempts) return lock;
    if (lock.status().code() != StatusCode::kFailedPrecondition) return lock;
    std::this_thread::sleep_for(kLockPause);
  }
}

// A file of the shared keys for those who look into the data directory.
Status CopyInto(FileSystem& files, const Path& path, std::string_view text) {
  SELVAGE_ASSIGN_OR_RETURN(const std::optional<std::string> there,
                           ReadIfThere(files, path));
  if (there == text) return OkStatus();
  return WriteFileDurably(files, path, AsBytes(text), 0600);
}

}  // namespace

Result<crypto::CertificateAuthority> ReadAuthority(FileSystem& files,
                                                   const Path& keys_dir) {
  const Path certificate_path = AuthorityPath(keys_dir);
  const Path key_path = AuthorityKeyPath(keys_dir);
  SELVAGE_ASSIGN_OR_RETURN(const std::optional<std::string> certificate,
                           ReadIfThere(files, certificate_path));
  if (!certificate.has_value()) {
    return DataLoss(certificate_path.string() + " is missing");
  }
  SELVAGE_RETURN_IF_ERROR(CheckPrivate(key_path));
  SELVAGE_ASSIGN_OR_RETURN(const std::optional<std::string> key_text,
                           ReadIfThere(files, key_path));
  if (!key_text.has_value()) {
    return DataLoss(key_path.string() + " is missing, but " +
                    certificate_path.string() + " exists");
  }
  Result<crypto::PrivateKeyPem> key = crypto::ParseP256Key(*key_text);
  if (!key.ok()) {
    return DataLoss(key_path.string() + ": " +
                    std::string(key.status().message()));
  }
  Result<crypto::CertificateAuthority> authority =
      crypto::CertificateAuthority::Load(*certificate, *std::move(key));
  if (!authority.ok()) {
    return DataLoss(certificate_path.string() + ": " +
                    std::string(authority.status().message()));
  }
  return authority;
}

Result<CoordinatorKeys> OpenKeys(FileSystem& files, const KeyFileOptions& given,
                                 Time now, RandomSource& random) {
  KeyFileOptions options = given;
  if (options.keys_dir.empty()) options.keys_dir = options.data_dir;
  const bool apart = options.keys_dir != options.data_dir;
  const Path keys = options.keys_dir / "keys";
  const Path own = options.data_dir / "keys";
  SELVAGE_RETURN_IF_ERROR(files.CreateDirectories(own));
  std::unique_ptr<FileLock> lock;
  if (!apart || !SharedFilesThere(options)) {
    SELVAGE_RETURN_IF_ERROR(files.CreateDirectories(keys));
    if (options.wrapping_key_file.has_parent_path()) {
      SELVAGE_RETURN_IF_ERROR(
          files.CreateDirectories(options.wrapping_key_file.parent_path()));
    }
    if (apart) {
      SELVAGE_ASSIGN_OR_RETURN(lock, LockKeys(options.keys_dir));
    }
  }
  SecretFiles secrets(files, options.may_create, random);
  // What belongs to one replica may be made at its first start.
  SecretFiles own_secrets(files, options.may_create || apart, random);
  SELVAGE_ASSIGN_OR_RETURN(crypto::CertificateAuthority authority,
                           OpenAuthority(files, secrets, options, now, random));
  SELVAGE_ASSIGN_OR_RETURN(crypto::PrivateKeyPem server_key,
                           own_secrets.P256(own / "server.key.pem"));
  SELVAGE_ASSIGN_OR_RETURN(
      std::string server_certificate,
      OpenServerCertificate(files, own_secrets, options, authority, server_key,
                            now, random));
  SELVAGE_ASSIGN_OR_RETURN(crypto::SecretBytes plan_seed,
                           secrets.Key(keys / "plan.key"));
  SELVAGE_ASSIGN_OR_RETURN(const crypto::Ed25519PublicKey plan_public,
                           crypto::Ed25519PublicKeyOf(plan_seed));
  SELVAGE_ASSIGN_OR_RETURN(crypto::SecretBytes assignment_key,
                           secrets.Key(keys / "assignment.key"));
  SELVAGE_ASSIGN_OR_RETURN(crypto::SecretBytes wrapping_key,
                           secrets.Key(options.wrapping_key_file));
  SELVAGE_ASSIGN_OR_RETURN(
      std::string admin_token,
      OpenAdminToken(files, secrets, options.keys_dir / "admin.token", random));
  if (apart) {
    SELVAGE_RETURN_IF_ERROR(CopyInto(files, options.data_dir / "ca.pem",
                                     authority.certificate_pem()));
    SELVAGE_RETURN_IF_ERROR(
        CopyInto(files, options.data_dir / "admin.token", admin_token + "\n"));
  }
  return CoordinatorKeys{
      std::move(authority),
      std::move(server_certificate),
      std::move(server_key),
      crypto::Ed25519KeyPair{std::move(plan_seed), plan_public},
      std::move(assignment_key),
      std::move(wrapping_key),
      std::move(admin_token)};
}

Result<std::string> SharedKeysFingerprint(const CoordinatorKeys& keys) {
  SELVAGE_ASSIGN_OR_RETURN(const crypto::Digest authority,
                           crypto::PublicKeyDigest(keys.authority.key()));
  crypto::Sha256Hasher hasher;
  hasher.Update(AsBytes(std::string_view("selvage shared keys 1\n")));
  hasher.Update(authority.span());
  hasher.Update(keys.plan_key.public_key);
  hasher.Update(keys.assignment_key.ExposeSecret());
  hasher.Update(keys.wrapping_key.ExposeSecret());
  hasher.Update(AsBytes(keys.admin_token));
  return std::move(hasher).Finish().ToHex();
}

}  // namespace selvage::coordinator

#include "crypto/x509.h"

#include <arpa/inet.h>

#include <algorithm>
#include <climits>
#include <ctime>
#include <memory>
#include <optional>

#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/objects.h>
#include <openssl/pem.h>

#include "crypto/identity_key.h"
#include "crypto/openssl_ptr.h"

namespace selvage::crypto {
namespace {

constexpr size_t kRequestSizeMax = 8 * 1024;
constexpr size_t kCertificateSizeMax = 16 * 1024;
constexpr size_t kKeySizeMax = 8 * 1024;
constexpr size_t kNameSizeMax = 64;      // ub-common-name (RFC 5280, A.1)
constexpr size_t kDnsNameSizeMax = 253;  // RFC 1035, 2.3.4, as text
constexpr size_t kServerNamesMax = 64;
constexpr size_t kSerialSize = 16;

constexpr std::string_view kRequestLabel = "CERTIFICATE REQUEST";
constexpr std::string_view kCertificateLabel = "CERTIFICATE";
constexpr std::string_view kKeyLabel = "PRIVATE KEY";
constexpr std::string_view kOldKeyLabel = "EC PRIVATE KEY";  // SEC 1

constexpr Duration kBackdating = std::chrono::hours(1);
// The last second X.509 can express: 9999-12-31T23:59:59Z.
constexpr Time kLatest = FromMicros(253'402'300'799'000'000);

constexpr std::string_view kUriScheme = "selvage://";
constexpr std::string_view kUriDevice = "/device/";
constexpr std::string_view kProxyUriScheme = "selvage://proxy/";

bool IsControl(char c) {
  return static_cast<unsigned char>(c) < 0x20 || c == 0x7F;
}
bool IsAlphanumeric(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         (c >= '0' && c <= '9');
}

// Populations and device ids: they become parts of URIs and file names.
Status CheckIdentifier(std::string_view what, std::string_view name) {
  if (name.empty() || name.size() > kNameSizeMax) {
    return InvalidArgument(
        std::string(what) + " has " + std::to_string(name.size()) +
        " characters, allowed are 1.." + std::to_string(kNameSizeMax));
  }
  const bool fits = std::all_of(name.begin(), name.end(), [](char c) {
    return IsAlphanumeric(c) || c == '.' || c == '_' || c == '-';
  });
  if (!fits || !IsAlphanumeric(name.front())) {
    return InvalidArgument(std::string(what) +
                           " must be letters, digits, '.', '_' and '-', and "
                           "begin with a letter or digit");
  }
  return OkStatus();
}

Status CheckCommonName(std::string_view name) {
  if (name.size() > kNameSizeMax) {
    return InvalidArgument("common name has " + std::to_string(name.size()) +
                           " bytes, the limit is " +
                           std::to_string(kNameSizeMax));
  }
  if (std::any_of(name.begin(), name.end(), IsControl)) {
    return InvalidArgument("common name contains a control character");
  }
  return OkStatus();
}

// ---- PEM and DER -----------------------------------------------------------

// The DER bytes of the one PEM block in `pem`, wiped when they go away. Never
// decrypts, so it never asks for a passphrase.
Result<SecretBytes> DecodePem(std::string_view pem, size_t size_max,
                              std::string_view label,
                              std::string_view other_label = "") {
  if (pem.size() > size_max) {
    return InvalidArgument("PEM of " + std::to_string(pem.size()) +
                           " bytes, the limit is " + std::to_string(size_max));
  }
  const Status malformed =
      InvalidArgument("not one PEM block labelled " + std::string(label));
  if (!pem.starts_with("-----BEGIN ")) return malformed;
  const BioPtr in(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  if (in == nullptr) return Internal("BIO_new_mem_buf");
  char* name = nullptr;
  char* header = nullptr;
  unsigned char* data = nullptr;
  long size = 0;
  if (PEM_read_bio(in.get(), &name, &header, &data, &size) != 1) {
    return malformed;
  }
  SecretBytes der(static_cast<size_t>(size));
  std::copy_n(data, size, der.writable().begin());
  const bool fits = (name == label || name == other_label) && *header == '\0';
  OPENSSL_free(name);
  OPENSSL_free(header);
  OPENSSL_clear_free(data, static_cast<size_t>(size));
  const std::string_view rest =
      pem.substr(pem.size() - static_cast<size_t>(BIO_pending(in.get())));
  if (!fits || rest.find_first_not_of(" \t\r\n") != std::string_view::npos) {
    return malformed;
  }
  return der;
}

std::string BioText(BIO* bio) {
  const char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return std::string(data, static_cast<size_t>(size));
}

// DER of an OpenSSL object through its i2d function.
template <typename T>
Bytes ToDer(T* object, int (*i2d)(const T*, unsigned char**)) {
  const int size = i2d(object, nullptr);
  if (size <= 0) return {};
  Bytes der(static_cast<size_t>(size));
  unsigned char* out = der.data();
  i2d(object, &out);
  return der;
}

Result<X509ReqPtr> DecodeRequest(std::string_view pem) {
  SELVAGE_ASSIGN_OR_RETURN(const SecretBytes der,
                           DecodePem(pem, kRequestSizeMax, kRequestLabel));
  const ByteSpan bytes = der.ExposeSecret();
  const unsigned char* in = bytes.data();
  X509ReqPtr request(
      d2i_X509_REQ(nullptr, &in, static_cast<long>(bytes.size())));
  if (request == nullptr || in != bytes.data() + bytes.size()) {
    return InvalidArgument("malformed certificate request");
  }
  return request;
}

Result<X509Ptr> DecodeCertificate(std::string_view pem) {
  SELVAGE_ASSIGN_OR_RETURN(
      const SecretBytes der,
      DecodePem(pem, kCertificateSizeMax, kCertificateLabel));
  const ByteSpan bytes = der.ExposeSecret();
  const unsigned char* in = bytes.data();
  X509Ptr certificate(d2i_X509(nullptr, &in, static_cast<long>(bytes.size())));
  if (certificate == nullptr || in != bytes.data() + bytes.size()) {
    return InvalidArgument("malformed certificate");
  }
  // Parses the extensions that OpenSSL knows and caches what they say.
  if ((X509_get_extension_flags(certificate.get()) & EXFLAG_INVALID) != 0) {
    return InvalidArgument("certificate has malformed extensions");
  }
  return certificate;
}

Result<std::string> EncodeCertificate(X509* certificate) {
  const BioPtr out(BIO_new(BIO_s_mem()));
  if (out == nullptr || PEM_write_bio_X509(out.get(), certificate) != 1) {
    return Internal("PEM_write_bio_X509");
  }
  return BioText(out.get());
}

// ---- Keys ------------------------------------------------------------------

Result<PrivateKeyPem> EncodeKey(EVP_PKEY* key) {
  const BioPtr out(BIO_new(BIO_s_secmem()));  // wiped when freed
  if (out == nullptr ||
      PEM_write_bio_PKCS8PrivateKey(out.get(), key, nullptr, nullptr, 0,
                                    nullptr, nullptr) != 1) {
    return Internal("PEM_write_bio_PKCS8PrivateKey");
  }
  const uint8_t* data = nullptr;
  const long size = BIO_get_mem_data(out.get(), &data);
  PrivateKeyPem pem{SecretBytes(static_cast<size_t>(size))};
  std::copy_n(data, size, pem.pem.writable().begin());
  return pem;
}

Result<PkeyPtr> DecodeKey(std::string_view pem) {
  SELVAGE_ASSIGN_OR_RETURN(
      const SecretBytes der,
      DecodePem(pem, kKeySizeMax, kKeyLabel, kOldKeyLabel));
  const ByteSpan bytes = der.ExposeSecret();
  const unsigned char* in = bytes.data();
  PkeyPtr key(
      d2i_AutoPrivateKey(nullptr, &in, static_cast<long>(bytes.size())));
  if (key == nullptr || in != bytes.data() + bytes.size()) {
    return InvalidArgument("malformed private key");
  }
  if (!IsP256PublicKeyInfo(ToDer(key.get(), i2d_PUBKEY))) {
    return InvalidArgument("the private key is not for P-256");
  }
  // A P-256 key file may carry any public point; ours must be the key's own.
  const PkeyCtxPtr check(
      EVP_PKEY_CTX_new_from_pkey(nullptr, key.get(), nullptr));
  if (check == nullptr || EVP_PKEY_pairwise_check(check.get()) != 1) {
    return InvalidArgument("the private key does not fit its public key");
  }
  return key;
}

// ---- Names -----------------------------------------------------------------

// UTF-8, without control characters; nullopt if it cannot be read as that.
std::optional<std::string> Utf8(const ASN1_STRING* text) {
  unsigned char* data = nullptr;
  const int size = ASN1_STRING_to_UTF8(&data, text);
  if (size < 0) return std::nullopt;
  std::string out(reinterpret_cast<char*>(data), static_cast<size_t>(size));
  OPENSSL_free(data);
  if (std::any_of(out.begin(), out.end(), IsControl)) return std::nullopt;
  return out;
}

// Empty if there is none.
Result<std::string> CommonName(const X509_NAME* name) {
  const int first = X509_NAME_get_index_by_NID(name, NID_commonName, -1);
  if (first < 0) return std::string();
  if (X509_NAME_get_index_by_NID(name, NID_commonName, first) >= 0) {
    return InvalidArgument("subject has several common names");
  }
  const std::optional<std::string> text =
      Utf8(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, first)));
  if (!text.has_value()) {
    return InvalidArgument("subject has an unreadable common name");
  }
  return *text;
}

Status SetCommonName(X509_NAME* name, std::string_view common_name) {
  if (X509_NAME_add_entry_by_NID(
          name, NID_commonName, MBSTRING_UTF8,
          reinterpret_cast<const unsigned char*>(common_name.data()),
          static_cast<int>(common_name.size()), -1, 0) != 1) {
    return InvalidArgument("common name is not UTF-8");
  }
  return OkStatus();
}

Status ReadAlternativeNames(const X509* certificate, Certificate& out) {
  int critical = 0;
  const GeneralNamesPtr names(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate, NID_subject_alt_name, &critical, nullptr)));
  if (names == nullptr) {
    if (critical == -1) return OkStatus();  // absent
    return InvalidArgument("certificate has malformed alternative names");
  }
  for (int i = 0; i < sk_GENERAL_NAME_num(names.get()); ++i) {
    int type = 0;
    const void* value =
        GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names.get(), i), &type);
    if (type != GEN_URI && type != GEN_DNS && type != GEN_IPADD) continue;
    const auto* text = static_cast<const ASN1_STRING*>(value);
    const unsigned char* data = ASN1_STRING_get0_data(text);
    const int size = ASN1_STRING_length(text);
    if (type == GEN_IPADD) {
      if (size != 4 && size != 16) {
        return InvalidArgument("certificate has a malformed IP address");
      }
      char address[INET6_ADDRSTRLEN];
      inet_ntop(size == 4 ? AF_INET : AF_INET6, data, address, sizeof address);
      out.names.emplace_back(address);
      continue;
    }
    std::string name(reinterpret_cast<const char*>(data),
                     static_cast<size_t>(size));
    if (std::any_of(name.begin(), name.end(), [](char c) {
          return IsControl(c) || static_cast<unsigned char>(c) > 0x7F;
        })) {
      return InvalidArgument("certificate has an unreadable alternative name");
    }
    (type == GEN_URI ? out.uris : out.names).push_back(std::move(name));
  }
  return OkStatus();
}

// A subjectAltName entry. `value` has been checked by the caller.
GeneralNamePtr TextName(int type, std::string_view value) {
  GeneralNamePtr name(GENERAL_NAME_new());
  ASN1_STRING* text = ASN1_STRING_type_new(V_ASN1_IA5STRING);
  if (name == nullptr || text == nullptr ||
      ASN1_STRING_set(text, value.data(), static_cast<int>(value.size())) !=
          1) {
    ASN1_STRING_free(text);
    return nullptr;
  }
  GENERAL_NAME_set0_value(name.get(), type, text);
  return name;
}

GeneralNamePtr AddressName(ASN1_OCTET_STRING* address) {
  GeneralNamePtr name(GENERAL_NAME_new());
  if (name == nullptr) {
    ASN1_OCTET_STRING_free(address);
    return nullptr;
  }
  GENERAL_NAME_set0_value(name.get(), GEN_IPADD, address);
  return name;
}

Status CheckDnsName(std::string_view name) {
  const Status refusal =
      InvalidArgument("server name is neither a DNS name nor an IP address");
  if (name.empty() || name.size() > kDnsNameSizeMax) return refusal;
  char previous = '.';
  for (const char c : name) {
    if (c == '.' ? previous == '.' : !IsAlphanumeric(c) && c != '-') {
      return refusal;
    }
    previous = c;
  }
  return previous == '.' ? refusal : OkStatus();
}

Result<GeneralNamePtr> ServerName(const std::string& name) {
  // What C would read of a name with a zero byte is not the name.
  if (name.find('\0') == std::string::npos) {
    if (ASN1_OCTET_STRING* address = a2i_IPADDRESS(name.c_str())) {
      return AddressName(address);
    }
  }
  SELVAGE_RETURN_IF_ERROR(CheckDnsName(name));
  return TextName(GEN_DNS, name);
}

// ---- Time ------------------------------------------------------------------

// Rounds towards the past.
std::time_t UnixSeconds(Time t) {
  return static_cast<std::time_t>(
      std::chrono::floor<std::chrono::seconds>(t.time_since_epoch()).count());
}

Result<Time> FromAsn1(const ASN1_TIME* time) {
  std::tm utc{};
  if (ASN1_TIME_to_tm(time, &utc) != 1) {
    return InvalidArgument("certificate has a malformed time");
  }
  return FromMicros(static_cast<int64_t>(timegm(&utc)) * 1'000'000);
}

struct Validity {
  Time not_before{};
  Time not_after{};
};

// [now - 1 hour, now + lifetime] within what X.509 can express. The hour is for
// devices whose clock is behind.
Result<Validity> ValidityFrom(Time now, Duration lifetime) {
  if (now < Time{} || now > kLatest) {
    return InvalidArgument("cannot issue a certificate at " +
                           std::to_string(ToMicros(now)) +
                           " us since 1970, outside 1970..9999");
  }
  if (lifetime < std::chrono::seconds(1)) {
    return InvalidArgument("certificate lifetime of " +
                           std::to_string(lifetime.count()) +
                           " us is below one second");
  }
  return Validity{
      .not_before = std::max(Time{}, now - kBackdating),
      .not_after = lifetime > kLatest - now ? kLatest : now + lifetime};
}

// ---- Issuing ---------------------------------------------------------------

Status AddExtension(X509* certificate, X509* issuer, int nid,
                    const char* value) {
  X509V3_CTX ctx;
  X509V3_set_ctx(&ctx, issuer, certificate, nullptr, nullptr, 0);
  const X509ExtensionPtr extension(
      X509V3_EXT_nconf_nid(nullptr, &ctx, nid, value));
  if (extension == nullptr ||
      X509_add_ext(certificate, extension.get(), -1) != 1) {
    return Internal(std::string("cannot add the extension ") + OBJ_nid2sn(nid));
  }
  return OkStatus();
}

Status SetSerial(X509* certificate, RandomSource& random) {
  uint8_t bytes[kSerialSize];
  random.Fill(bytes);
  // Positive and of full length, whatever was drawn.
  bytes[0] = static_cast<uint8_t>((bytes[0] & 0x3F) | 0x40);
  const BignumPtr number(BN_bin2bn(bytes, sizeof bytes, nullptr));
  if (number == nullptr ||
      BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate)) ==
          nullptr) {
    return Internal("BN_to_ASN1_INTEGER");
  }
  return OkStatus();
}

struct Extension {
  int nid;
  const char* value;
};

constexpr Extension kCaExtensions[] = {
    {NID_basic_constraints, "critical,CA:TRUE,pathlen:0"},
    {NID_key_usage, "critical,keyCertSign,cRLSign"},
};
constexpr Extension kDeviceExtensions[] = {
    {NID_basic_constraints, "critical,CA:FALSE"},
    {NID_key_usage, "critical,digitalSignature"},
    {NID_ext_key_usage, "clientAuth"},
};
constexpr Extension kServerExtensions[] = {
    {NID_basic_constraints, "critical,CA:FALSE"},
    {NID_key_usage, "critical,digitalSignature"},
    {NID_ext_key_usage, "serverAuth"},
};
constexpr Extension kProxyExtensions[] = {
    {NID_basic_constraints, "critical,CA:FALSE"},
    {NID_key_usage, "critical,digitalSignature"},
    {NID_ext_key_usage, "serverAuth,clientAuth"},
};

struct Template {
  std::string_view common_name;
  EVP_PKEY* public_key = nullptr;
  Validity validity;
  std::span<const Extension> extensions;
  GENERAL_NAMES* alternative_names = nullptr;  // null: none
};

// Issuer null: self-signed.
Result<std::string> Issue(const Template& what, X509* issuer,
                          EVP_PKEY* issuer_key, RandomSource& random) {
  const X509Ptr certificate(X509_new());
  if (certificate == nullptr) return Internal("X509_new");
  X509* const x = certificate.get();
  X509* const parent = issuer == nullptr ? x : issuer;
  const Asn1TimePtr not_before(
      ASN1_TIME_set(nullptr, UnixSeconds(what.validity.not_before)));
  const Asn1TimePtr not_after(
      ASN1_TIME_set(nullptr, UnixSeconds(what.validity.not_after)));
  if (not_before == nullptr || not_after == nullptr ||
      X509_set_version(x, X509_VERSION_3) != 1 ||
      X509_set1_notBefore(x, not_before.get()) != 1 ||
      X509_set1_notAfter(x, not_after.get()) != 1 ||
      X509_set_pubkey(x, what.public_key) != 1) {
    return Internal("cannot fill in the certificate");
  }
  SELVAGE_RETURN_IF_ERROR(SetSerial(x, random));
  SELVAGE_RETURN_IF_ERROR(
      SetCommonName(X509_get_subject_name(x), what.common_name));
  if (X509_set_issuer_name(x, X509_get_subject_name(parent)) != 1) {
    return Internal("X509_set_issuer_name");
  }
  for (const Extension& extension : what.extensions) {
    SELVAGE_RETURN_IF_ERROR(
        AddExtension(x, parent, extension.nid, extension.value));
  }
  SELVAGE_RETURN_IF_ERROR(
      AddExtension(x, parent, NID_subject_key_identifier, "hash"));
  SELVAGE_RETURN_IF_ERROR(
      AddExtension(x, parent, NID_authority_key_identifier, "keyid:always"));
  if (what.alternative_names != nullptr &&
      X509_add1_ext_i2d(x, NID_subject_alt_name, what.alternative_names, 0,
                        X509V3_ADD_DEFAULT) != 1) {
    return Internal("X509_add1_ext_i2d(subjectAltName)");
  }
  if (X509_sign(x, issuer_key, EVP_sha256()) == 0) return Internal("X509_sign");
  return EncodeCertificate(x);
}

// The CA's certificate and key, ready to sign, and the validity of a leaf
// issued now: it never outlives the CA.
struct Signer {
  X509Ptr certificate;
  PkeyPtr key;
  Validity validity;
};

Result<Signer> PrepareSigner(const CertificateAuthority& ca, Time now,
                             Duration lifetime) {
  SELVAGE_ASSIGN_OR_RETURN(Validity validity, ValidityFrom(now, lifetime));
  SELVAGE_ASSIGN_OR_RETURN(X509Ptr certificate,
                           DecodeCertificate(ca.certificate_pem()));
  SELVAGE_ASSIGN_OR_RETURN(PkeyPtr key, DecodeKey(ca.key().ExposeSecret()));
  SELVAGE_ASSIGN_OR_RETURN(const Time ca_from,
                           FromAsn1(X509_get0_notBefore(certificate.get())));
  SELVAGE_ASSIGN_OR_RETURN(const Time ca_to,
                           FromAsn1(X509_get0_notAfter(certificate.get())));
  if (now < ca_from || now >= ca_to) {
    return FailedPrecondition("the certificate authority is not valid now");
  }
  validity.not_before = std::max(validity.not_before, ca_from);
  validity.not_after = std::min(validity.not_after, ca_to);
  return Signer{std::move(certificate), std::move(key), validity};
}

Result<GeneralNamesPtr> NewGeneralNames() {
  GeneralNamesPtr names(GENERAL_NAMES_new());
  if (names == nullptr) return Internal("GENERAL_NAMES_new");
  return names;
}

Status Append(GENERAL_NAMES* names, GeneralNamePtr name) {
  if (name == nullptr || sk_GENERAL_NAME_push(names, name.get()) == 0) {
    return Internal("cannot build the alternative names");
  }
  (void)name.release();  // `names` owns it now
  return OkStatus();
}

// What a certificate for a server says.
struct ServerIdentity {
  std::string common_name;
  std::string uri;  // empty: none
  const std::vector<std::string>& names;
  std::span<const Extension> extensions;
};

Result<std::string> IssueNamed(const CertificateAuthority& ca,
                               const PrivateKeyPem& key,
                               const ServerIdentity& identity, Time now,
                               Duration lifetime, RandomSource& random) {
  const ErrorScope errors;
  if (identity.names.empty() || identity.names.size() > kServerNamesMax) {
    return InvalidArgument(
        "server certificate for " + std::to_string(identity.names.size()) +
        " names, allowed are 1.." + std::to_string(kServerNamesMax));
  }
  SELVAGE_ASSIGN_OR_RETURN(const PkeyPtr decoded,
                           DecodeKey(key.ExposeSecret()));
  SELVAGE_ASSIGN_OR_RETURN(const GeneralNamesPtr names, NewGeneralNames());
  if (!identity.uri.empty()) {
    SELVAGE_RETURN_IF_ERROR(
        Append(names.get(), TextName(GEN_URI, identity.uri)));
  }
  for (const std::string& name : identity.names) {
    SELVAGE_ASSIGN_OR_RETURN(GeneralNamePtr general_name, ServerName(name));
    SELVAGE_RETURN_IF_ERROR(Append(names.get(), std::move(general_name)));
  }
  SELVAGE_ASSIGN_OR_RETURN(const Signer signer,
                           PrepareSigner(ca, now, lifetime));
  return Issue({.common_name = identity.common_name,
                .public_key = decoded.get(),
                .validity = signer.validity,
                .extensions = identity.extensions,
                .alternative_names = names.get()},
               signer.certificate.get(), signer.key.get(), random);
}

// A decoded request whose signature and key have been checked.
struct CheckedRequest {
  X509ReqPtr request;
  EVP_PKEY* key = nullptr;  // owned by `request`
  Bytes public_key_info;
};

Result<CheckedRequest> CheckRequest(std::string_view pem) {
  SELVAGE_ASSIGN_OR_RETURN(X509ReqPtr request, DecodeRequest(pem));
  Bytes info = ToDer(X509_REQ_get_X509_PUBKEY(request.get()), i2d_X509_PUBKEY);
  if (!IsP256PublicKeyInfo(info)) {
    return InvalidArgument(
        "the request's key is not an uncompressed P-256 key");
  }
  EVP_PKEY* const key = X509_REQ_get0_pubkey(request.get());
  if (key == nullptr) {
    return InvalidArgument("the request's key is not a point of P-256");
  }
  if (X509_REQ_get_signature_nid(request.get()) != NID_ecdsa_with_SHA256) {
    return InvalidArgument("the request is not signed with ECDSA-SHA-256");
  }
  if (X509_REQ_verify(request.get(), key) != 1) {
    return InvalidArgument("the request's signature does not fit its key");
  }
  return CheckedRequest{std::move(request), key, std::move(info)};
}

}  // namespace

Result<PrivateKeyPem> NewP256Key() {
  const ErrorScope errors;
  const PkeyPtr key(EVP_EC_gen("P-256"));
  if (key == nullptr) return Internal("EVP_EC_gen(P-256)");
  return EncodeKey(key.get());
}

Result<PrivateKeyPem> ParseP256Key(std::string_view pem) {
  const ErrorScope errors;
  SELVAGE_ASSIGN_OR_RETURN(const PkeyPtr key, DecodeKey(pem));
  return EncodeKey(key.get());
}

Result<Digest> PublicKeyDigest(const PrivateKeyPem& key) {
  const ErrorScope errors;
  SELVAGE_ASSIGN_OR_RETURN(const PkeyPtr decoded,
                           DecodeKey(key.ExposeSecret()));
  return Sha256(ToDer(decoded.get(), i2d_PUBKEY));
}

Result<std::string> NewCertificateRequest(const PrivateKeyPem& key,
                                          std::string_view common_name) {
  const ErrorScope errors;
  SELVAGE_RETURN_IF_ERROR(CheckCommonName(common_name));
  SELVAGE_ASSIGN_OR_RETURN(const PkeyPtr decoded,
                           DecodeKey(key.ExposeSecret()));
  const X509ReqPtr request(X509_REQ_new());
  if (request == nullptr ||
      X509_REQ_set_version(request.get(), X509_REQ_VERSION_1) != 1 ||
      X509_REQ_set_pubkey(request.get(), decoded.get()) != 1) {
    return Internal("cannot fill in the certificate request");
  }
  if (!common_name.empty()) {
    SELVAGE_RETURN_IF_ERROR(
        SetCommonName(X509_REQ_get_subject_name(request.get()), common_name));
  }
  if (X509_REQ_sign(request.get(), decoded.get(), EVP_sha256()) == 0) {
    return Internal("X509_REQ_sign");
  }
  const BioPtr out(BIO_new(BIO_s_mem()));
  if (out == nullptr || PEM_write_bio_X509_REQ(out.get(), request.get()) != 1) {
    return Internal("PEM_write_bio_X509_REQ");
  }
  return BioText(out.get());
}

Result<CertificateRequest> ParseCertificateRequest(std::string_view pem) {
  const ErrorScope errors;
  SELVAGE_ASSIGN_OR_RETURN(const CheckedRequest checked, CheckRequest(pem));
  CertificateRequest out;
  SELVAGE_ASSIGN_OR_RETURN(
      out.common_name,
      CommonName(X509_REQ_get_subject_name(checked.request.get())));
  out.public_key_digest = Sha256(checked.public_key_info);
  out.der = ToDer(checked.request.get(), i2d_X509_REQ);
  return out;
}

Result<Certificate> ParseCertificate(std::string_view pem) {
  const ErrorScope errors;
  SELVAGE_ASSIGN_OR_RETURN(const X509Ptr decoded, DecodeCertificate(pem));
  X509* const x = decoded.get();
  Certificate out;
  SELVAGE_ASSIGN_OR_RETURN(out.common_name,
                           CommonName(X509_get_subject_name(x)));
  SELVAGE_RETURN_IF_ERROR(ReadAlternativeNames(x, out));
  const ASN1_INTEGER* serial = X509_get0_serialNumber(x);
  if (ASN1_STRING_type(serial) == V_ASN1_NEG_INTEGER) {
    return InvalidArgument("certificate has a negative serial number");
  }
  out.serial_hex =
      ToHex(ByteSpan(ASN1_STRING_get0_data(serial),
                     static_cast<size_t>(ASN1_STRING_length(serial))));
  out.public_key_digest =
      Sha256(ToDer(X509_get_X509_PUBKEY(x), i2d_X509_PUBKEY));
  SELVAGE_ASSIGN_OR_RETURN(out.not_before, FromAsn1(X509_get0_notBefore(x)));
  SELVAGE_ASSIGN_OR_RETURN(out.not_after, FromAsn1(X509_get0_notAfter(x)));
  out.is_ca = (X509_get_extension_flags(x) & EXFLAG_CA) != 0;
  return out;
}

Result<std::string> ParseForwardedCertificate(std::string_view header) {
  // Three bytes of a header for one of the certificate, at worst.
  if (header.size() > 3 * kCertificateSizeMax) {
    return InvalidArgument(
        "forwarded certificate of " + std::to_string(header.size()) +
        " bytes, the limit is " + std::to_string(3 * kCertificateSizeMax));
  }
  if (header.starts_with(':')) {
    if (header.size() < 2 || !header.ends_with(':')) {
      return InvalidArgument("forwarded certificate without its end \":\"");
    }
    SELVAGE_ASSIGN_OR_RETURN(const Bytes der,
                             FromBase64(header.substr(1, header.size() - 2)));
    const unsigned char* in = der.data();
    const ErrorScope errors;
    const X509Ptr certificate(
        d2i_X509(nullptr, &in, static_cast<long>(der.size())));
    if (certificate == nullptr || in != der.data() + der.size()) {
      return InvalidArgument("malformed certificate");
    }
    return EncodeCertificate(certificate.get());
  }
  std::string pem;
  for (size_t i = 0; i < header.size(); ++i) {
    if (header[i] != '%') {
      pem += header[i];
      continue;
    }
    const std::string_view digits = header.substr(i + 1, 2);
    const Result<Bytes> byte = FromHex(digits);
    if (!byte.ok() || byte->size() != 1) {
      return InvalidArgument("forwarded certificate with \"%\" before \"" +
                             std::string(digits) +
                             "\", expected are two hexadecimal digits");
    }
    pem += static_cast<char>(byte->front());
    i += 2;
  }
  SELVAGE_RETURN_IF_ERROR(
      DecodePem(pem, kCertificateSizeMax, kCertificateLabel).status());
  return pem;
}

Result<CertificateAuthority> CertificateAuthority::Create(
    std::string_view common_name, Time now, Duration lifetime,
    RandomSource& random) {
  const ErrorScope errors;
  if (common_name.empty()) {
    return InvalidArgument("a certificate authority needs a common name");
  }
  SELVAGE_RETURN_IF_ERROR(CheckCommonName(common_name));
  SELVAGE_ASSIGN_OR_RETURN(const Validity validity,
                           ValidityFrom(now, lifetime));
  SELVAGE_ASSIGN_OR_RETURN(PrivateKeyPem key, NewP256Key());
  SELVAGE_ASSIGN_OR_RETURN(const PkeyPtr decoded,
                           DecodeKey(key.ExposeSecret()));
  SELVAGE_ASSIGN_OR_RETURN(std::string certificate,
                           Issue({.common_name = common_name,
                                  .public_key = decoded.get(),
                                  .validity = validity,
                                  .extensions = kCaExtensions},
                                 nullptr, decoded.get(), random));
  return CertificateAuthority(std::move(certificate), std::move(key));
}

Result<CertificateAuthority> CertificateAuthority::Load(
    std::string_view certificate_pem, PrivateKeyPem key) {
  const ErrorScope errors;
  SELVAGE_ASSIGN_OR_RETURN(const X509Ptr certificate,
                           DecodeCertificate(certificate_pem));
  SELVAGE_ASSIGN_OR_RETURN(const PkeyPtr decoded,
                           DecodeKey(key.ExposeSecret()));
  if (X509_check_private_key(certificate.get(), decoded.get()) != 1) {
    return InvalidArgument(
        "the certificate authority's key does not fit its certificate");
  }
  if ((X509_get_extension_flags(certificate.get()) & EXFLAG_CA) == 0 ||
      (X509_get_key_usage(certificate.get()) & KU_KEY_CERT_SIGN) == 0) {
    return InvalidArgument("the certificate is not a certificate authority's");
  }
  if (X509_self_signed(certificate.get(), 1) != 1) {
    return InvalidArgument(
        "the certificate authority's certificate is not self-signed");
  }
  return CertificateAuthority(std::string(certificate_pem), std::move(key));
}

Result<std::string> CertificateAuthority::IssueDevice(
    std::string_view request_pem, std::string_view population,
    std::string_view device_id, Time now, Duration lifetime,
    RandomSource& random) const {
  const ErrorScope errors;
  SELVAGE_RETURN_IF_ERROR(CheckIdentifier("population", population));
  SELVAGE_RETURN_IF_ERROR(CheckIdentifier("device id", device_id));
  SELVAGE_ASSIGN_OR_RETURN(const CheckedRequest request,
                           CheckRequest(request_pem));
  SELVAGE_ASSIGN_OR_RETURN(const Signer signer,
                           PrepareSigner(*this, now, lifetime));
  std::string uri(kUriScheme);
  uri.append(population).append(kUriDevice).append(device_id);
  SELVAGE_ASSIGN_OR_RETURN(const GeneralNamesPtr names, NewGeneralNames());
  SELVAGE_RETURN_IF_ERROR(Append(names.get(), TextName(GEN_URI, uri)));
  return Issue({.common_name = device_id,
                .public_key = request.key,
                .validity = signer.validity,
                .extensions = kDeviceExtensions,
                .alternative_names = names.get()},
               signer.certificate.get(), signer.key.get(), random);
}

Result<std::string> CertificateAuthority::IssueServer(
    const PrivateKeyPem& key, const std::vector<std::string>& server_names,
    Time now, Duration lifetime, RandomSource& random) const {
  // The names that count are the alternative ones; a long DNS name does not
  // fit into a common name.
  const bool fits =
      !server_names.empty() && server_names.front().size() <= kNameSizeMax;
  return IssueNamed(*this, key,
                    {.common_name = fits ? server_names.front()
                                         : std::string("selvage-server"),
                     .uri = "",
                     .names = server_names,
                     .extensions = kServerExtensions},
                    now, lifetime, random);
}

Result<std::string> CertificateAuthority::IssueProxy(
    const PrivateKeyPem& key, std::string_view proxy_name,
    const std::vector<std::string>& names, Time now, Duration lifetime,
    RandomSource& random) const {
  SELVAGE_ASSIGN_OR_RETURN(const std::string uri, ProxyUri(proxy_name));
  return IssueNamed(*this, key,
                    {.common_name = std::string(proxy_name),
                     .uri = uri,
                     .names = names,
                     .extensions = kProxyExtensions},
                    now, lifetime, random);
}

Status CertificateAuthority::VerifyDevice(std::string_view leaf_pem,
                                          Time now) const {
  return VerifyDeviceCertificate(certificate_pem_, leaf_pem, now);
}

Status VerifyDeviceCertificate(std::string_view ca_pem,
                               std::string_view leaf_pem, Time now) {
  const ErrorScope errors;
  const Result<X509Ptr> leaf = DecodeCertificate(leaf_pem);
  if (!leaf.ok()) {
    return PermissionDenied(std::string(leaf.status().message()));
  }
  SELVAGE_ASSIGN_OR_RETURN(const X509Ptr root, DecodeCertificate(ca_pem));
  const X509StorePtr store(X509_STORE_new());
  const X509StoreCtxPtr ctx(X509_STORE_CTX_new());
  if (store == nullptr || ctx == nullptr ||
      X509_STORE_add_cert(store.get(), root.get()) != 1 ||
      X509_STORE_CTX_init(ctx.get(), store.get(), leaf->get(), nullptr) != 1) {
    return Internal("cannot prepare the certificate's verification");
  }
  X509_VERIFY_PARAM* const param = X509_STORE_CTX_get0_param(ctx.get());
  X509_VERIFY_PARAM_set_time(param, UnixSeconds(now));
  X509_VERIFY_PARAM_set_depth(param, 0);  // no intermediate authorities
  if (X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_X509_STRICT) != 1 ||
      X509_VERIFY_PARAM_set_purpose(param, X509_PURPOSE_SSL_CLIENT) != 1) {
    return Internal("cannot prepare the certificate's verification");
  }
  if (X509_verify_cert(ctx.get()) != 1) {
    return PermissionDenied(
        std::string("device certificate refused: ") +
        X509_verify_cert_error_string(X509_STORE_CTX_get_error(ctx.get())));
  }
  // The purpose alone lets a certificate without extendedKeyUsage pass.
  if ((X509_get_extension_flags(leaf->get()) & EXFLAG_XKUSAGE) == 0 ||
      (X509_get_extended_key_usage(leaf->get()) & XKU_SSL_CLIENT) == 0) {
    return PermissionDenied(
        "device certificate refused: it is not for client authentication");
  }
  return OkStatus();
}

Result<DeviceName> ParseDeviceUri(std::string_view uri) {
  if (!uri.starts_with(kUriScheme)) {
    return InvalidArgument("not a device URI: it does not begin with " +
                           std::string(kUriScheme));
  }
  uri.remove_prefix(kUriScheme.size());
  const size_t slash = uri.find('/');
  if (slash == std::string_view::npos ||
      !uri.substr(slash).starts_with(kUriDevice)) {
    return InvalidArgument("not a device URI: it has no " +
                           std::string(kUriDevice));
  }
  DeviceName name{std::string(uri.substr(0, slash)),
                  std::string(uri.substr(slash + kUriDevice.size()))};
  SELVAGE_RETURN_IF_ERROR(CheckIdentifier("population", name.population));
  SELVAGE_RETURN_IF_ERROR(CheckIdentifier("device id", name.device_id));
  return name;
}

Result<std::string> ParseProxyUri(std::string_view uri) {
  if (!uri.starts_with(kProxyUriScheme)) {
    return InvalidArgument("not a proxy's URI: it does not begin with " +
                           std::string(kProxyUriScheme));
  }
  uri.remove_prefix(kProxyUriScheme.size());
  SELVAGE_RETURN_IF_ERROR(CheckIdentifier("proxy name", uri));
  return std::string(uri);
}

Result<std::string> ProxyUri(std::string_view name) {
  SELVAGE_RETURN_IF_ERROR(CheckIdentifier("proxy name", name));
  return std::string(kProxyUriScheme).append(name);
}

}  // namespace selvage::crypto

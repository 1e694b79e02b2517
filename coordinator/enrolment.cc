#include "coordinator/enrolment.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "coordinator/device_keys.h"
#include "coordinator/requests.h"
#include "crypto/identity_key.h"

namespace selvage::coordinator {
namespace {

constexpr uint32_t kTokenUsesMax = 1'000'000;
constexpr Duration kTokenLifetimeMax = std::chrono::hours(24 * 365);
constexpr Duration kNonceLifetime = std::chrono::minutes(10);
// Between two certificates of one identity key.
constexpr Duration kRenewalInterval = std::chrono::minutes(1);

// One message for every reason: a guesser learns nothing.
Status BadToken() {
  return Unauthenticated(
      "the enrolment token is unknown, expired, revoked or used up");
}

// Device names, unlike the others, may start with a digit.
Status CheckDeviceName(std::string_view name) {
  const auto is_allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  };
  if (name.empty() || name.size() > 64 ||
      !std::all_of(name.begin(), name.end(), is_allowed)) {
    return InvalidArgument("device_name must be 1 to 64 of a-z, 0-9 and -");
  }
  return OkStatus();
}

std::string NameOf(const EnrollRequest& request, const crypto::Digest& key) {
  return request.device_name.empty() ? "d-" + key.ToHex().substr(0, 16)
                                     : request.device_name;
}

PopulationInfo InfoOf(const PopulationRow& row) {
  return {row.name, row.created, row.device_count};
}

TokenInfo InfoOf(const TokenRow& row) {
  return {row.id,       row.population, row.expires,
          row.uses_max, row.uses,       row.revoked};
}

}  // namespace

bool Enrolment::Knows(const DeviceIdentity& device) const {
  MutexLock lock(mu_);
  return known_.Contains(device);
}

Result<bool> Enrolment::IsEnrolled(const DeviceIdentity& device) {
  if (Knows(device)) return true;
  const Status found =
      deps_.store.GetDevice(device.population, device.device_id).status();
  if (found.code() == StatusCode::kNotFound) return false;
  SELVAGE_RETURN_IF_ERROR(found);
  MutexLock lock(mu_);
  known_.Add(device);
  return true;
}

Status Enrolment::CheckEnrolled(const DeviceIdentity& device) {
  SELVAGE_ASSIGN_OR_RETURN(const bool enrolled, IsEnrolled(device));
  if (enrolled) return OkStatus();
  return PermissionDenied("device " + device.device_id +
                          " is not enrolled in population " +
                          device.population);
}

// ----------------------------------------------------------------- devices

EnrollAnswer Enrolment::AnswerOf(const DeviceRow& row) const {
  EnrollAnswer answer;
  answer.certificate_pem = row.certificate_pem;
  answer.device_id = row.device_id;
  answer.population = row.population;
  answer.plan_public_keys = {deps_.plan_key.public_key};
  return answer;
}

Result<EnrollAnswer> Enrolment::Enroll(
    const std::optional<DeviceIdentity>& current,
    const EnrollRequest& request) {
  if (!request.identity_public_key.empty()) return EnrollByIdentity(request);
  if (request.token_id.empty() && current.has_value()) {
    return Renew(*current, request);
  }
  return EnrollByToken(request);
}

Status Enrolment::Issue(const EnrollRequest& request, DeviceRow& row) const {
  const Duration lifetime = row.nonce_made == Time{}
                                ? options_.certificate_lifetime
                                : options_.identity_certificate_lifetime;
  // Certificates are judged by the world's clocks, not by the store's.
  const Time now = deps_.clock.Now();
  SELVAGE_ASSIGN_OR_RETURN(
      row.certificate_pem,
      deps_.authority.IssueDevice(request.csr_pem, row.population,
                                  row.device_id, now, lifetime, deps_.random));
  row.certificate_expires = now + lifetime;
  return OkStatus();
}

Result<EnrollAnswer> Enrolment::Renew(const DeviceIdentity& current,
                                      const EnrollRequest& request) {
  SELVAGE_ASSIGN_OR_RETURN(const crypto::CertificateRequest csr,
                           crypto::ParseCertificateRequest(request.csr_pem));
  Result<DeviceRow> row =
      deps_.store.GetDevice(current.population, current.device_id);
  if (row.status().code() == StatusCode::kNotFound) {
    return PermissionDenied("device " + current.device_id +
                            " is not enrolled here");
  }
  if (!row.ok()) return row.status();
  if (row->nonce_made != Time{}) {
    // Whoever has its short-lived key must not live longer by it.
    return PermissionDenied("device " + current.device_id +
                            " renews with its identity key only");
  }
  if (row->key_digest != csr.public_key_digest) {
    return AlreadyExists("device " + current.device_id +
                         " is enrolled with another key");
  }
  SELVAGE_RETURN_IF_ERROR(Issue(request, *row));
  SELVAGE_RETURN_IF_ERROR(deps_.store.RenewDevice(*row));
  return AnswerOf(*row);
}

Result<TokenRow> Enrolment::CheckToken(const EnrollRequest& request, Time now) {
  Result<TokenRow> token = deps_.store.GetToken(request.token_id);
  if (!token.ok() && token.status().code() != StatusCode::kNotFound) {
    return token.status();
  }
  const crypto::Digest secret_digest = crypto::Sha256(request.token_secret);
  if (!token.ok() ||
      !crypto::EqualConstantTime(secret_digest.span(),
                                 token->secret_digest.span()) ||
      token->revoked || token->expires <= now) {
    return BadToken();
  }
  return token;
}

Result<EnrollAnswer> Enrolment::EnrollByToken(const EnrollRequest& request) {
  const Time now = deps_.store.Now();
  SELVAGE_ASSIGN_OR_RETURN(const TokenRow token, CheckToken(request, now));
  SELVAGE_ASSIGN_OR_RETURN(const crypto::CertificateRequest csr,
                           crypto::ParseCertificateRequest(request.csr_pem));
  DeviceRow row;
  row.population = token.population;
  row.device_id = NameOf(request, csr.public_key_digest);
  SELVAGE_RETURN_IF_ERROR(CheckDeviceName(row.device_id));
  row.key_digest = csr.public_key_digest;
  row.token_id = token.id;
  row.enrolled = now;

  const Result<DeviceRow> existing =
      deps_.store.GetDevice(row.population, row.device_id);
  const bool repeated = existing.ok() &&
                        existing->key_digest == row.key_digest &&
                        existing->token_id == row.token_id;
  if (repeated) {
    row.certificate_pem = existing->certificate_pem;
  } else {
    SELVAGE_RETURN_IF_ERROR(Issue(request, row));
  }
  return Store(row, now);
}

Result<EnrollAnswer> Enrolment::Store(const DeviceRow& row, Time now) {
  const Result<DeviceRow> stored = deps_.store.EnrollDevice(row, now);
  if (stored.status().code() == StatusCode::kFailedPrecondition) {
    return BadToken();
  }
  if (!stored.ok()) return stored.status();
  {
    MutexLock lock(mu_);
    known_.Add({stored->population, stored->device_id});
  }
  return AnswerOf(*stored);
}

// In the order of what it costs: no row is read before the signature fits.
Result<EnrollAnswer> Enrolment::EnrollByIdentity(const EnrollRequest& request) {
  SELVAGE_ASSIGN_OR_RETURN(
      const crypto::P256PublicKey key,
      crypto::P256PublicKey::Parse(request.identity_public_key));
  const crypto::Digest digest = key.digest();
  const Time now = deps_.store.Now();
  const std::optional<Time> made =
      tickets_.NonceMade(request.identity_nonce, digest);
  if (request.identity_signature.empty() || !made.has_value() || *made > now ||
      now - *made > kNonceLifetime) {
    EnrollAnswer question;
    question.nonce = tickets_.IdentityNonce(digest, now);
    return question;
  }
  SELVAGE_RETURN_IF_ERROR(CheckName("population", request.population));
  if (!request.device_name.empty()) {
    SELVAGE_RETURN_IF_ERROR(CheckDeviceName(request.device_name));
  }
  SELVAGE_ASSIGN_OR_RETURN(const crypto::CertificateRequest csr,
                           crypto::ParseCertificateRequest(request.csr_pem));
  if (!crypto::VerifyP256(
           key,
           crypto::TlsKeyDigest(request.population, request.device_name,
                                request.identity_nonce, csr.der),
           request.identity_signature)
           .ok()) {
    return Unauthenticated("the signature does not fit the identity key");
  }

  DeviceRow row;
  row.population = request.population;
  row.device_id = NameOf(request, digest);
  row.key_digest = digest;
  row.nonce_made = *made;
  SELVAGE_ASSIGN_OR_RETURN(const bool enrolled,
                           IsEnrolled({row.population, row.device_id}));
  if (enrolled) {
    SELVAGE_ASSIGN_OR_RETURN(
        const DeviceRow existing,
        deps_.store.GetDevice(row.population, row.device_id));
    if (CheckSameKey(existing, row).ok()) {
      return RenewByIdentity(request, csr, existing, row);
    }
  }
  if (request.token_id.empty()) {
    // One message: who has no token does not learn which names are taken.
    return PermissionDenied("no device " + row.device_id +
                            " is enrolled with this identity key");
  }
  SELVAGE_ASSIGN_OR_RETURN(const TokenRow token, CheckToken(request, now));
  if (token.population != row.population) {
    return PermissionDenied("the enrolment token is for population " +
                            token.population + ", not " + row.population);
  }
  row.token_id = token.id;
  row.enrolled = now;
  SELVAGE_RETURN_IF_ERROR(Issue(request, row));
  SELVAGE_ASSIGN_OR_RETURN(EnrollAnswer answer, Store(row, now));
  if (answer.certificate_pem != row.certificate_pem) {
    return Aborted("device " + row.device_id +
                   " is being enrolled by another request");
  }
  return answer;
}

Result<EnrollAnswer> Enrolment::RenewByIdentity(
    const EnrollRequest& request, const crypto::CertificateRequest& csr,
    const DeviceRow& existing, DeviceRow row) {
  if (row.nonce_made == existing.nonce_made) {
    // An answer that was lost; whoever else repeats the call gets nothing new.
    const Result<crypto::Certificate> last =
        crypto::ParseCertificate(existing.certificate_pem);
    if (last.ok() && last->public_key_digest == csr.public_key_digest) {
      return AnswerOf(existing);
    }
  }
  SELVAGE_RETURN_IF_ERROR(CheckNewNonce(existing, row));
  if (row.nonce_made - existing.nonce_made < kRenewalInterval) {
    return ResourceExhausted("device " + row.device_id +
                             " got a certificate within the last minute");
  }
  SELVAGE_RETURN_IF_ERROR(Issue(request, row));
  SELVAGE_RETURN_IF_ERROR(deps_.store.RenewDevice(row));
  return AnswerOf(row);
}

// ------------------------------------------------------------- populations

Result<PopulationInfo> Enrolment::CreatePopulation(
    const std::string& name, const std::string& request_id) {
  SELVAGE_RETURN_IF_ERROR(CheckName("population name", name));
  const Time now = deps_.store.Now();
  SELVAGE_ASSIGN_OR_RETURN(
      RequestRow request,
      MakeRequest(request_id, "create_population", {name}, now));
  SELVAGE_ASSIGN_OR_RETURN(const std::optional<std::string> answered,
                           FindAnswered(deps_.store, request));
  if (!answered.has_value()) {
    request.resource = name;
    SELVAGE_RETURN_IF_ERROR(deps_.store.CreatePopulation({name, now}, request));
  }
  return GetPopulation(name);
}

Result<PopulationInfo> Enrolment::GetPopulation(const std::string& name) {
  SELVAGE_ASSIGN_OR_RETURN(const PopulationRow row,
                           deps_.store.GetPopulation(name));
  return InfoOf(row);
}

Result<Page<PopulationInfo>> Enrolment::ListPopulations(
    const PageRequest& page) {
  const uint32_t limit = PageLimit(page);
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<PopulationRow> rows,
                           deps_.store.ListPopulations(page.token, limit));
  Page<PopulationInfo> result;
  for (const PopulationRow& row : rows) result.items.push_back(InfoOf(row));
  if (rows.size() == limit) result.next_page_token = rows.back().name;
  return result;
}

// ------------------------------------------------------------------ tokens

Result<NewToken> Enrolment::BundleOf(const TokenRow& row) const {
  const crypto::Digest secret = tickets_.EnrolmentSecret(row.id);
  const nlohmann::json bundle = {
      {"ca_certificate",
       options_.insecure ? std::string() : deps_.authority.certificate_pem()},
      {"endpoint", options_.device_endpoint},
      {"expires", FormatTime(row.expires)},
      {"population", row.population},
      {"token_id", row.id},
      {"token_secret", secret.ToHex()},
  };
  return NewToken{InfoOf(row), bundle.dump()};
}

Result<NewToken> Enrolment::CreateToken(const std::string& population,
                                        Duration ttl, uint32_t uses_max,
                                        const std::string& request_id) {
  if (uses_max == 0 || uses_max > kTokenUsesMax) {
    return InvalidArgument("uses_max is " + std::to_string(uses_max) +
                           ", the bounds are 1 and " +
                           std::to_string(kTokenUsesMax));
  }
  if (ttl <= Duration::zero() || ttl > kTokenLifetimeMax) {
    return InvalidArgument("a token lives longer than 0 and at most 365 days");
  }
  const Time now = deps_.store.Now();
  SELVAGE_ASSIGN_OR_RETURN(RequestRow request,
                           MakeRequest(request_id, "create_token",
                                       {population, std::to_string(ttl.count()),
                                        std::to_string(uses_max)},
                                       now));
  SELVAGE_ASSIGN_OR_RETURN(const std::optional<std::string> answered,
                           FindAnswered(deps_.store, request));
  if (answered.has_value()) {
    SELVAGE_ASSIGN_OR_RETURN(const TokenRow row,
                             deps_.store.GetToken(*answered));
    return BundleOf(row);
  }
  Bytes raw(8);
  deps_.random.Fill(raw);
  TokenRow row;
  row.id = ToHex(raw);
  row.population = population;
  row.secret_digest = crypto::Sha256(tickets_.EnrolmentSecret(row.id).span());
  row.created = now;
  row.expires = now + ttl;
  row.uses_max = uses_max;
  request.resource = row.id;
  SELVAGE_RETURN_IF_ERROR(deps_.store.InsertToken(row, request));
  return BundleOf(row);
}

Result<Page<TokenInfo>> Enrolment::ListTokens(const std::string& population,
                                              const PageRequest& page) {
  SELVAGE_RETURN_IF_ERROR(deps_.store.GetPopulation(population).status());
  const uint32_t limit = PageLimit(page);
  SELVAGE_ASSIGN_OR_RETURN(
      const std::vector<TokenRow> rows,
      deps_.store.ListTokens(population, page.token, limit));
  Page<TokenInfo> result;
  for (const TokenRow& row : rows) result.items.push_back(InfoOf(row));
  if (rows.size() == limit) result.next_page_token = rows.back().id;
  return result;
}

Result<TokenInfo> Enrolment::RevokeToken(const std::string& id) {
  SELVAGE_ASSIGN_OR_RETURN(const TokenRow row, deps_.store.RevokeToken(id));
  return InfoOf(row);
}

}  // namespace selvage::coordinator

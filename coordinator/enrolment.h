// Who may take part: populations, enrolment tokens, device certificates.
#pragma once

#include <optional>
#include <string>

#include "base/mutex.h"
#include "coordinator/api.h"
#include "coordinator/known_devices.h"
#include "coordinator/options.h"
#include "coordinator/tickets.h"
#include "crypto/x509.h"

namespace selvage::coordinator {

// Thread-safe. The methods are those of DeviceApi and AdminApi.
class Enrolment {
 public:
  Enrolment(const CoordinatorOptions& options,
            const CoordinatorDependencies& deps, const Tickets& tickets)
      : options_(options), deps_(deps), tickets_(tickets) {}

  // From memory. False also of a device that IsEnrolled() has not been asked
  // about for long, or not since this process started.
  bool Knows(const DeviceIdentity& device) const SELVAGE_EXCLUDES(mu_);
  // From memory, if it is known there; otherwise the database says it. An error
  // of that is the answer.
  Result<bool> IsEnrolled(const DeviceIdentity& device) SELVAGE_EXCLUDES(mu_);
  // PERMISSION_DENIED unless it is.
  Status CheckEnrolled(const DeviceIdentity& device) SELVAGE_EXCLUDES(mu_);

  Result<EnrollAnswer> Enroll(const std::optional<DeviceIdentity>& current,
                              const EnrollRequest& request);

  Result<PopulationInfo> CreatePopulation(const std::string& name,
                                          const std::string& request_id);
  Result<PopulationInfo> GetPopulation(const std::string& name);
  Result<Page<PopulationInfo>> ListPopulations(const PageRequest& page);

  Result<NewToken> CreateToken(const std::string& population, Duration ttl,
                               uint32_t uses_max,
                               const std::string& request_id);
  Result<Page<TokenInfo>> ListTokens(const std::string& population,
                                     const PageRequest& page);
  Result<TokenInfo> RevokeToken(const std::string& id);

 private:
  Result<EnrollAnswer> Renew(const DeviceIdentity& current,
                             const EnrollRequest& request);
  Result<EnrollAnswer> EnrollByToken(const EnrollRequest& request);
  // Of a device with an identity key, for the first time or again.
  Result<EnrollAnswer> EnrollByIdentity(const EnrollRequest& request);
  // The next certificate of an enrolled device; `row` as the request says it.
  Result<EnrollAnswer> RenewByIdentity(const EnrollRequest& request,
                                       const crypto::CertificateRequest& csr,
                                       const DeviceRow& existing,
                                       DeviceRow row);
  // Fills in the row's certificate.
  Status Issue(const EnrollRequest& request, DeviceRow& row) const;
  // UNAUTHENTICATED unless the request's token and secret fit and it may still
  // be used at `now`.
  Result<TokenRow> CheckToken(const EnrollRequest& request, Time now);
  Result<EnrollAnswer> Store(const DeviceRow& row, Time now);
  Result<NewToken> BundleOf(const TokenRow& row) const;
  EnrollAnswer AnswerOf(const DeviceRow& row) const;

  const CoordinatorOptions& options_;
  const CoordinatorDependencies& deps_;
  const Tickets& tickets_;

  mutable Mutex mu_;
  KnownDevices known_ SELVAGE_GUARDED_BY(mu_);
};

}  // namespace selvage::coordinator

#include "bench/load_register.h"

#include <memory>

#include "base/random.h"
#include "base/time.h"
#include "bench/bare_stream.h"
#include "coordinator/store/sqlite_store.h"
#include "crypto/digest.h"

namespace selvage::bench {

Status RegisterDevices(const std::string& database,
                       const std::string& population, uint64_t count) {
  SystemClock clock;
  OsRandom random;
  SELVAGE_ASSIGN_OR_RETURN(
      const std::unique_ptr<coordinator::SqliteStore> store,
      coordinator::SqliteStore::Open({.path = database}, clock, random));
  // Any certificate: it is as long as a device's.
  SELVAGE_ASSIGN_OR_RETURN(const BareIdentity identity, NewBareIdentity());
  const Time now = clock.Now();
  Bytes tag(8);
  random.Fill(tag);
  const std::string name = crypto::Sha256(tag).ToHex().substr(0, 12);

  coordinator::TokenRow token;
  token.id = "register-" + name;
  token.population = population;
  token.created = now;
  token.expires = now + std::chrono::hours(24);
  token.uses_max = static_cast<uint32_t>(count);
  coordinator::RequestRow request;
  request.id = token.id;
  request.kind = "create_token";
  request.resource = token.id;
  request.created = now;
  SELVAGE_RETURN_IF_ERROR(store->InsertToken(token, request));

  coordinator::DeviceRow device;
  device.population = population;
  device.token_id = token.id;
  device.certificate_pem = identity.client_certificate;
  device.certificate_expires = now + std::chrono::hours(24 * 90);
  device.enrolled = now;
  for (uint64_t i = 0; i < count; ++i) {
    device.key_digest = crypto::Sha256(AsBytes(name + std::to_string(i)));
    // As a coordinator names devices.
    device.device_id = "d-" + device.key_digest.ToHex().substr(0, 16);
    SELVAGE_RETURN_IF_ERROR(store->EnrollDevice(device, now).status());
  }
  return OkStatus();
}

}  // namespace selvage::bench

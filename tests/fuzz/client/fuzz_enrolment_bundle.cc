// Enrolment bundles, as a person may paste them.
#include <cstdint>

#include "base/check.h"
#include "client/enrolment_bundle.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bundle = selvage::client::ParseEnrolmentBundle(
      selvage::AsText(selvage::ByteSpan(data, size)));
  if (!bundle.ok()) return 0;
  SELVAGE_CHECK(!bundle->endpoint.empty());
  SELVAGE_CHECK(bundle->token_secret.size() == 32);
  return 0;
}

#include "client/enrolment_bundle.h"

#include <nlohmann/json.hpp>

#include "crypto/x509.h"

namespace selvage::client {
namespace {

using nlohmann::json;

Result<std::string> Field(const json& object, const char* key,
                          size_t size_max) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_string()) {
    return InvalidArgument(std::string("the bundle has no text named ") + key);
  }
  const auto& value = it->get_ref<const std::string&>();
  if (value.size() > size_max) {
    return InvalidArgument(std::string("the bundle's ") + key +
                           " is longer than " + std::to_string(size_max) +
                           " bytes");
  }
  return value;
}

}  // namespace

Result<EnrolmentBundle> ParseEnrolmentBundle(std::string_view text) {
  if (text.size() > kBundleSizeMax) {
    return InvalidArgument("the bundle is larger than " +
                           std::to_string(kBundleSizeMax) + " bytes");
  }
  const json object = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) {
    return InvalidArgument("the bundle is not a JSON object");
  }
  EnrolmentBundle bundle;
  SELVAGE_ASSIGN_OR_RETURN(bundle.endpoint, Field(object, "endpoint", 512));
  SELVAGE_ASSIGN_OR_RETURN(bundle.ca_certificate,
                           Field(object, "ca_certificate", 16 << 10));
  SELVAGE_ASSIGN_OR_RETURN(bundle.token_id, Field(object, "token_id", 64));
  SELVAGE_ASSIGN_OR_RETURN(const std::string secret,
                           Field(object, "token_secret", 64));
  SELVAGE_ASSIGN_OR_RETURN(bundle.population, Field(object, "population", 64));
  if (bundle.endpoint.empty()) {
    return InvalidArgument("the bundle's endpoint is empty");
  }
  const Result<Bytes> raw = FromHex(secret);
  if (!raw.ok() || raw->size() != 32) {
    return InvalidArgument(
        "the bundle's token_secret is not 64 hexadecimal digits");
  }
  bundle.token_secret = *raw;
  if (!bundle.ca_certificate.empty()) {
    const Result<crypto::Certificate> ca =
        crypto::ParseCertificate(bundle.ca_certificate);
    if (!ca.ok()) {
      return ca.status().WithContext("the bundle's ca_certificate");
    }
    if (!ca->is_ca) {
      return InvalidArgument("the bundle's ca_certificate is no CA's");
    }
  }
  return bundle;
}

}  // namespace selvage::client

// Certificates, requests and device URIs from strangers. The first byte selects
// the parser, the rest is its input: PEM text ('r', 'c'), DER that is put into
// PEM here so that mutations reach the ASN.1 ('R', 'C'), a URI ('u'), or a
// proxy's header ('f').
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/check.h"
#include "crypto/x509.h"

namespace {

using selvage::StatusCode;

std::string Pem(const std::string& label, selvage::ByteSpan der) {
  const std::string base64 = selvage::ToBase64(der);
  std::string pem = "-----BEGIN " + label + "-----\n";
  for (size_t i = 0; i < base64.size(); i += 64) {
    pem += base64.substr(i, 64) + "\n";
  }
  return pem + "-----END " + label + "-----\n";
}

void Request(std::string_view pem) {
  const auto request = selvage::crypto::ParseCertificateRequest(pem);
  SELVAGE_CHECK(request.ok() ||
                request.status().code() == StatusCode::kInvalidArgument);
}

void Uri(std::string_view uri) {
  const auto name = selvage::crypto::ParseDeviceUri(uri);
  const auto proxy = selvage::crypto::ParseProxyUri(uri);
  SELVAGE_CHECK(!(name.ok() && proxy.ok()));
  if (proxy.ok()) SELVAGE_CHECK(*selvage::crypto::ProxyUri(*proxy) == uri);
  if (!name.ok()) return;
  // One text per name.
  SELVAGE_CHECK(uri ==
                "selvage://" + name->population + "/device/" + name->device_id);
}

void Certificate(std::string_view pem) {
  const auto certificate = selvage::crypto::ParseCertificate(pem);
  if (!certificate.ok()) {
    SELVAGE_CHECK(certificate.status().code() == StatusCode::kInvalidArgument);
    return;
  }
  for (const std::string& uri : certificate->uris) Uri(uri);
}

void Header(std::string_view header) {
  const auto pem = selvage::crypto::ParseForwardedCertificate(header);
  if (pem.ok()) {
    Certificate(*pem);
  } else {
    SELVAGE_CHECK(pem.status().code() == StatusCode::kInvalidArgument);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const selvage::ByteSpan rest(data + 1, size - 1);
  switch (data[0]) {
    case 'r':
      Request(selvage::AsText(rest));
      break;
    case 'R':
      Request(Pem("CERTIFICATE REQUEST", rest));
      break;
    case 'c':
      Certificate(selvage::AsText(rest));
      break;
    case 'C':
      Certificate(Pem("CERTIFICATE", rest));
      break;
    case 'u':
      Uri(selvage::AsText(rest));
      break;
    case 'f':
      Header(selvage::AsText(rest));
      break;
    default:
      break;
  }
  return 0;
}

// Owning pointers for OpenSSL 3 objects. The only header besides the .cc files
// of this directory that may name an OpenSSL type.
#pragma once

#include <memory>

#include <openssl/evp.h>
#include <openssl/kdf.h>

namespace selvage::crypto {

template <auto Free>
struct OpenSslDeleter {
  template <typename T>
  void operator()(T* ptr) const {
    Free(ptr);
  }
};

using PkeyPtr = std::unique_ptr<EVP_PKEY, OpenSslDeleter<EVP_PKEY_free>>;
using PkeyCtxPtr =
    std::unique_ptr<EVP_PKEY_CTX, OpenSslDeleter<EVP_PKEY_CTX_free>>;
using KdfPtr = std::unique_ptr<EVP_KDF, OpenSslDeleter<EVP_KDF_free>>;
using KdfCtxPtr =
    std::unique_ptr<EVP_KDF_CTX, OpenSslDeleter<EVP_KDF_CTX_free>>;

}  // namespace selvage::crypto

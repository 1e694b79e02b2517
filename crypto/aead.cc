#include "crypto/aead.h"

#include <algorithm>

#include <openssl/crypto.h>

#include "base/check.h"
#include "crypto/openssl_ptr.h"

namespace selvage::crypto {
namespace {

constexpr size_t kNonceSize = 12;
constexpr size_t kTagSize = 16;
static_assert(kNonceSize + kTagSize == kAeadOverhead);

// EVP counts in int, so long messages go through in pieces.
constexpr size_t kPieceMax = size_t{1} << 30;

enum class Direction : int { kOpen = 0, kSeal = 1 };

// Puts `input` through the cipher. `output` is null for associated data, which
// is authenticated only.
bool Feed(EVP_CIPHER_CTX* ctx, ByteSpan input, uint8_t* output) {
  while (!input.empty()) {
    const size_t piece = std::min(input.size(), kPieceMax);
    int written = 0;
    if (EVP_CipherUpdate(ctx, output, &written, input.data(),
                         static_cast<int>(piece)) != 1) {
      return false;
    }
    if (output != nullptr) output += piece;
    input = input.subspan(piece);
  }
  return true;
}

// GCM over `input` into the equally long `output`. Writes the tag when sealing
// and checks it when opening.
bool Gcm(Direction direction, const SecretBytes& key, const uint8_t* nonce,
         ByteSpan associated_data, ByteSpan input, uint8_t* output,
         uint8_t* tag) {
  const ErrorScope errors;
  const CipherCtxPtr ctx(EVP_CIPHER_CTX_new());
  if (ctx == nullptr) return false;
  if (EVP_CipherInit_ex2(ctx.get(), EVP_aes_256_gcm(),
                         key.ExposeSecret().data(), nonce,
                         static_cast<int>(direction), nullptr) != 1) {
    return false;
  }
  if (!Feed(ctx.get(), associated_data, nullptr) ||
      !Feed(ctx.get(), input, output)) {
    return false;
  }
  if (direction == Direction::kOpen &&
      EVP_CIPHER_CTX_ctrl(ctx.get(), EVP_CTRL_AEAD_SET_TAG, kTagSize, tag) !=
          1) {
    return false;
  }
  uint8_t unused[EVP_MAX_BLOCK_LENGTH];  // GCM has no final block
  int written = 0;
  if (EVP_CipherFinal_ex(ctx.get(), unused, &written) != 1) return false;
  return direction == Direction::kOpen ||
         EVP_CIPHER_CTX_ctrl(ctx.get(), EVP_CTRL_AEAD_GET_TAG, kTagSize, tag) ==
             1;
}

}  // namespace

Result<Bytes> Seal(const SecretBytes& key, ByteSpan plaintext,
                   ByteSpan associated_data, RandomSource& random) {
  if (key.size() != kAeadKeySize) {
    return InvalidArgument("an AES-256-GCM key is 32 bytes, not " +
                           std::to_string(key.size()));
  }
  Bytes sealed(kAeadOverhead + plaintext.size());
  random.Fill(std::span(sealed).first(kNonceSize));
  SELVAGE_CHECK(Gcm(Direction::kSeal, key, sealed.data(), associated_data,
                    plaintext, sealed.data() + kNonceSize,
                    sealed.data() + kNonceSize + plaintext.size()));
  return sealed;
}

Result<Bytes> Open(const SecretBytes& key, ByteSpan sealed,
                   ByteSpan associated_data) {
  const Status refusal = DataLoss("the sealed bytes do not open");
  if (key.size() != kAeadKeySize || sealed.size() < kAeadOverhead) {
    return refusal;
  }
  const ByteSpan ciphertext =
      sealed.subspan(kNonceSize, sealed.size() - kAeadOverhead);
  uint8_t tag[kTagSize];
  std::copy_n(sealed.end() - kTagSize, kTagSize, tag);
  Bytes plaintext(ciphertext.size());
  if (!Gcm(Direction::kOpen, key, sealed.data(), associated_data, ciphertext,
           plaintext.data(), tag)) {
    // Nobody may see what a wrong tag decrypts to.
    OPENSSL_cleanse(plaintext.data(), plaintext.size());
    return refusal;
  }
  return plaintext;
}

SecretBytes NewAeadKey(RandomSource& random) {
  SecretBytes key(kAeadKeySize);
  random.Fill(key.writable());
  return key;
}

}  // namespace selvage::crypto

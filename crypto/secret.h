// SecretBytes: key material that is wiped when it goes away, never printed,
// and compared in constant time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace selvage::crypto {

class SecretBytes {
 public:
  explicit SecretBytes(size_t size) : bytes_(size) {}
  ~SecretBytes() { Wipe(); }

  // Move-only: a copy of a key is a second thing to wipe.
  SecretBytes(SecretBytes&& other) noexcept = default;
  SecretBytes& operator=(SecretBytes&& other) noexcept {
    if (this != &other) {
      Wipe();
      bytes_ = std::move(other.bytes_);
    }
    return *this;
  }
  SecretBytes(const SecretBytes&) = delete;
  SecretBytes& operator=(const SecretBytes&) = delete;

  size_t size() const { return bytes_.size(); }
  std::span<uint8_t> writable() { return bytes_; }

  // Named so that every place a key leaves its wrapper can be grepped for.
  std::span<const uint8_t> ExposeSecret() const { return bytes_; }

  // Constant time in the contents (not in the sizes, which are public).
  friend bool operator==(const SecretBytes& a, const SecretBytes& b);

 private:
  void Wipe();

  std::vector<uint8_t> bytes_;
};

}  // namespace selvage::crypto

// Large buffers that are used again. Fresh memory is expensive: the kernel
// clears it page by page at the first touch, which for an update costs as much
// as a fifth of receiving it.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <utility>

#include "base/bytes.h"
#include "base/mutex.h"

namespace selvage::coordinator {

// Thread-safe.
class BufferPool {
  struct Kept;

 public:
  // Bytes that go back to their pool, if they have one. Move-only. May outlive
  // the pool.
  class Buffer {
   public:
    Buffer() = default;
    explicit Buffer(Bytes bytes) : bytes_(std::move(bytes)) {}
    Buffer(Buffer&& other) noexcept = default;
    Buffer& operator=(Buffer&& other) noexcept {
      if (this != &other) {
        GiveBack();
        bytes_ = std::move(other.bytes_);
        kept_ = std::move(other.kept_);
        charged_ = other.charged_;
      }
      return *this;
    }
    ~Buffer() { GiveBack(); }

    Bytes& operator*() { return bytes_; }
    Bytes* operator->() { return &bytes_; }
    size_t size() const { return bytes_.size(); }
    operator ByteSpan() const { return bytes_; }  // NOLINT: it is bytes

   private:
    friend class BufferPool;
    Buffer(Bytes bytes, std::shared_ptr<Kept> kept)
        : bytes_(std::move(bytes)),
          kept_(std::move(kept)),
          charged_(bytes_.capacity()) {}
    void GiveBack();

    Bytes bytes_;
    std::shared_ptr<Kept> kept_;
    uint64_t charged_ = 0;  // what the pool counts as out
  };

  // It keeps so little that this and what is out are at most `bytes_max`.
  explicit BufferPool(uint64_t bytes_max) : kept_(NewKept(bytes_max)) {}

  // Empty, with room for exactly `size` bytes or a little more.
  Buffer Take(size_t size);
  // Gives the memory back that nobody uses.
  void Clear();

  uint64_t kept_bytes() const;

 private:
  struct Kept {
    explicit Kept(uint64_t max) : bytes_max(max) {}
    const uint64_t bytes_max;
    Mutex mu;
    std::list<Bytes> buffers
        SELVAGE_GUARDED_BY(mu);                 // the longest unused first
    uint64_t bytes SELVAGE_GUARDED_BY(mu) = 0;  // of them
    uint64_t out SELVAGE_GUARDED_BY(mu) = 0;
  };
  static std::shared_ptr<Kept> NewKept(uint64_t bytes_max) {
    return std::make_shared<Kept>(bytes_max);
  }
  // Moves buffers to `freed` until `more` bytes would fit; they are freed once
  // the lock is gone.
  static void MakeRoom(Kept& kept, uint64_t more, std::list<Bytes>& freed)
      SELVAGE_REQUIRES(kept.mu);

  const std::shared_ptr<Kept> kept_;
};

}  // namespace selvage::coordinator

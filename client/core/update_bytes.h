// The encoded bytes of an update, where nobody needs all of them at once.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>

#include "base/bytes.h"
#include "base/status.h"

namespace selvage::client {

// Takes them as they are made, from first to last.
class UpdateSink {
 public:
  virtual ~UpdateSink() = default;
  virtual Status Append(ByteSpan bytes) = 0;
};

// Gives them from memory, or from wherever they lie. Thread-compatible; what it
// was made from must outlive it.
class UpdateBytes {
 public:
  // Fills `out` with what is at `offset`.
  using ReadAt = std::function<Status(uint64_t offset, std::span<uint8_t> out)>;

  // NOLINTNEXTLINE(google-explicit-constructor): bytes in memory are an update
  UpdateBytes(ByteSpan bytes)
      : size_(bytes.size()),
        read_([bytes](uint64_t offset, std::span<uint8_t> out) {
          const ByteSpan piece =
              bytes.subspan(static_cast<size_t>(offset), out.size());
          std::copy(piece.begin(), piece.end(), out.begin());
          return OkStatus();
        }) {}
  // NOLINTNEXTLINE(google-explicit-constructor)
  UpdateBytes(const Bytes& bytes) : UpdateBytes(ByteSpan(bytes)) {}
  UpdateBytes(uint64_t size, ReadAt read)
      : size_(size), read_(std::move(read)) {}

  uint64_t size() const { return size_; }
  // REQUIRES: offset + out.size() <= size().
  Status Read(uint64_t offset, std::span<uint8_t> out) const {
    return read_(offset, out);
  }
  // For those that do need all of them.
  Result<Bytes> ReadAll() const {
    Bytes all(static_cast<size_t>(size_));
    SELVAGE_RETURN_IF_ERROR(read_(0, all));
    return all;
  }

 private:
  uint64_t size_;
  ReadAt read_;
};

}  // namespace selvage::client

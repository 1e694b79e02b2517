// Lets LibTorch read an archive from memory without copying it.
#pragma once

#include <caffe2/serialize/read_adapter_interface.h>

#include <algorithm>
#include <cstring>

#include "base/bytes.h"

namespace selvage::client::torch_engine {

// The bytes must outlive it.
class SpanAdapter final : public caffe2::serialize::ReadAdapterInterface {
 public:
  explicit SpanAdapter(ByteSpan bytes) : bytes_(bytes) {}
  size_t size() const override { return bytes_.size(); }
  size_t read(uint64_t pos, void* buf, size_t n, const char*) const override {
    if (pos >= bytes_.size()) return 0;
    n = std::min(n, bytes_.size() - static_cast<size_t>(pos));
    std::memcpy(buf, bytes_.data() + pos, n);
    return n;
  }

 private:
  ByteSpan bytes_;
};

}  // namespace selvage::client::torch_engine

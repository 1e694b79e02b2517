#include "coordinator/delta_cache.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "aggregation/codec/delta_codec.h"

namespace selvage::coordinator {
namespace {

// What an entry costs besides its bytes, roughly.
constexpr uint64_t kEntryBytes = 256;

class SharedBytesReader final : public ArtefactReader {
 public:
  explicit SharedBytesReader(std::shared_ptr<const Bytes> bytes)
      : bytes_(std::move(bytes)) {}
  uint64_t size() const override { return bytes_->size(); }
  Result<size_t> ReadAt(uint64_t offset, std::span<uint8_t> out) override {
    if (offset >= bytes_->size() || out.empty()) return size_t{0};
    const size_t size =
        std::min(out.size(), bytes_->size() - static_cast<size_t>(offset));
    std::memcpy(out.data(), bytes_->data() + offset, size);
    return size;
  }

 private:
  const std::shared_ptr<const Bytes> bytes_;
};

// Counts callers for as long as they wait.
class Waiting {
 public:
  explicit Waiting(std::atomic<int>& count) : count_(count), order_(++count) {}
  ~Waiting() { --count_; }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;
  int order() const { return order_; }  // from 1

 private:
  std::atomic<int>& count_;
  const int order_;
};

}  // namespace

uint64_t DeltaCache::CostOf(const Delta& delta) {
  return kEntryBytes + (delta == nullptr ? 0 : delta->size());
}

uint64_t DeltaCache::bytes() const {
  MutexLock lock(mu_);
  return bytes_;
}

bool DeltaCache::Find(const Name& name, Delta& delta) {
  MutexLock lock(mu_);
  const auto it = entries_.find(name);
  if (it == entries_.end()) return false;
  used_.splice(used_.end(), used_, it->second.used);
  delta = it->second.delta;
  return true;
}

void DeltaCache::Keep(const Name& name, const Delta& delta) {
  MutexLock lock(mu_);
  used_.push_back(name);
  entries_[name] = {delta, std::prev(used_.end())};
  bytes_ += CostOf(delta);
  while (bytes_ > limits_.bytes_max) {
    const auto oldest = entries_.find(used_.front());
    bytes_ -= CostOf(oldest->second.delta);
    entries_.erase(oldest);
    used_.pop_front();
  }
}

Result<DeltaCache::Delta> DeltaCache::Make(const Name& name) {
  SELVAGE_ASSIGN_OR_RETURN(const std::unique_ptr<ArtefactReader> base,
                           blobs_.Open(name.base));
  SELVAGE_ASSIGN_OR_RETURN(const std::unique_ptr<ArtefactReader> target,
                           blobs_.Open(name.target));
  const uint64_t size = target->size();
  if (base->size() != size || size > limits_.artefact_bytes_max) {
    return Delta();
  }
  SELVAGE_ASSIGN_OR_RETURN(const Bytes from, blobs_.Read(name.base, size));
  SELVAGE_ASSIGN_OR_RETURN(const Bytes to, blobs_.Read(name.target, size));
  // Less than a sixteenth saved is not worth a device's time.
  Result<Bytes> delta =
      aggregation::EncodeDelta(name.codec, from, to, size - size / 16);
  if (!delta.ok()) return Delta();
  delta->shrink_to_fit();
  return Delta(std::make_shared<const Bytes>(*std::move(delta)));
}

Result<std::unique_ptr<ArtefactReader>> DeltaCache::Open(const Name& name) {
  const Status none = NotFound("no delta from " + name.base.ToHex() + " to " +
                               name.target.ToHex());
  Delta delta;
  if (!Find(name, delta)) {
    const Waiting waiting(waiting_);
    if (waiting.order() > limits_.waiting_max) return none;
    MutexLock making(making_);
    if (!Find(name, delta)) {  // nobody made it meanwhile
      SELVAGE_ASSIGN_OR_RETURN(delta, Make(name));
      Keep(name, delta);
    }
  }
  if (delta == nullptr) return none;
  return std::unique_ptr<ArtefactReader>(
      std::make_unique<SharedBytesReader>(std::move(delta)));
}

}  // namespace selvage::coordinator

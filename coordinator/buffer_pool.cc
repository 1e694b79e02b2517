#include "coordinator/buffer_pool.h"

namespace selvage::coordinator {

void BufferPool::MakeRoom(Kept& kept, uint64_t more, std::list<Bytes>& freed) {
  while (!kept.buffers.empty() &&
         kept.bytes + kept.out + more > kept.bytes_max) {
    kept.bytes -= kept.buffers.front().capacity();
    freed.splice(freed.end(), kept.buffers, kept.buffers.begin());
  }
}

BufferPool::Buffer BufferPool::Take(size_t size) {
  std::list<Bytes> freed;
  Bytes bytes;
  {
    MutexLock lock(kept_->mu);
    // The updates of a task have one size, so exact hits are the rule.
    const size_t most = size + size / 8;
    for (auto it = kept_->buffers.begin(); it != kept_->buffers.end(); ++it) {
      if (it->capacity() < size || it->capacity() > most) continue;
      bytes = std::move(*it);
      kept_->bytes -= bytes.capacity();
      kept_->buffers.erase(it);
      break;
    }
    if (bytes.capacity() == 0) MakeRoom(*kept_, size, freed);
  }
  freed.clear();  // first, so that the allocator may use the memory again
  bytes.reserve(size);
  Buffer buffer(std::move(bytes), kept_);
  MutexLock lock(kept_->mu);
  kept_->out += buffer.charged_;
  return buffer;
}

void BufferPool::Buffer::GiveBack() {
  if (kept_ == nullptr) return;
  const std::shared_ptr<Kept> kept = std::move(kept_);
  Bytes bytes = std::move(bytes_);
  bytes.clear();
  std::list<Bytes> freed;
  MutexLock lock(kept->mu);
  kept->out -= charged_;
  if (bytes.capacity() == 0) return;
  MakeRoom(*kept, bytes.capacity(), freed);
  if (kept->bytes + kept->out + bytes.capacity() > kept->bytes_max) return;
  kept->bytes += bytes.capacity();
  kept->buffers.push_back(std::move(bytes));
}

void BufferPool::Clear() {
  std::list<Bytes> freed;
  MutexLock lock(kept_->mu);
  freed.swap(kept_->buffers);
  kept_->bytes = 0;
}

uint64_t BufferPool::kept_bytes() const {
  MutexLock lock(kept_->mu);
  return kept_->bytes;
}

}  // namespace selvage::coordinator

#include "coordinator/rpc/shared_chunks.h"

#include <iterator>

namespace selvage::coordinator {

std::unique_ptr<SharedChunks::Stream> SharedChunks::Open(
    const crypto::Digest& digest) {
  const MutexLock lock(mu_);
  ++artefacts_[digest].streams;
  return std::unique_ptr<Stream>(new Stream(*this, digest));
}

SharedChunks::Stream::~Stream() {
  const MutexLock lock(chunks_.mu_);
  const auto artefact = chunks_.artefacts_.find(digest_);
  if (--artefact->second.streams > 0) return;
  while (!artefact->second.chunks.empty()) {
    chunks_.Forget(artefact->second.chunks.begin()->second);
  }
  chunks_.artefacts_.erase(artefact);
}

Result<grpc::Slice> SharedChunks::Stream::Get(
    uint64_t offset, uint64_t size,
    const std::function<Result<grpc::Slice>()>& make) {
  const Place place = {offset, size};
  {
    const MutexLock lock(chunks_.mu_);
    const Artefact& artefact = chunks_.artefacts_.at(digest_);
    if (const auto it = artefact.chunks.find(place);
        it != artefact.chunks.end()) {
      chunks_.chunks_.splice(chunks_.chunks_.end(), chunks_.chunks_,
                             it->second);
      return it->second->slice;
    }
  }
  // Without the lock: two streams may both make it.
  SELVAGE_ASSIGN_OR_RETURN(const grpc::Slice slice, make());
  if (slice.size() > chunks_.bytes_max_) return slice;
  const MutexLock lock(chunks_.mu_);
  Artefact& artefact = chunks_.artefacts_.at(digest_);
  if (artefact.chunks.contains(place)) return slice;
  while (chunks_.bytes_ + slice.size() > chunks_.bytes_max_) {
    chunks_.Forget(chunks_.chunks_.begin());
  }
  chunks_.chunks_.push_back({digest_, place, slice});
  artefact.chunks[place] = std::prev(chunks_.chunks_.end());
  chunks_.bytes_ += slice.size();
  return slice;
}

void SharedChunks::Forget(std::list<Chunk>::iterator chunk) {
  bytes_ -= chunk->slice.size();
  artefacts_.at(chunk->digest).chunks.erase(chunk->place);
  chunks_.erase(chunk);
}

uint64_t SharedChunks::kept_bytes() const {
  const MutexLock lock(mu_);
  return bytes_;
}

}  // namespace selvage::coordinator

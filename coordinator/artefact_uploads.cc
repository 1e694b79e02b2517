#include "coordinator/artefact_uploads.h"

#include <string>
#include <utility>

namespace selvage::coordinator {

Result<std::optional<uint64_t>> ArtefactUploads::Begin(
    const crypto::Digest& digest, uint64_t size_bytes) {
  if (digest.empty()) return InvalidArgument("the digest is empty");
  if (size_bytes > kArtefactSizeMax) {
    return InvalidArgument("the artefact has " + std::to_string(size_bytes) +
                           " bytes, the limit is " +
                           std::to_string(kArtefactSizeMax));
  }
  SELVAGE_ASSIGN_OR_RETURN(const bool exists, store_.HasArtefact(digest));
  if (exists) return std::optional<uint64_t>();
  auto upload = std::make_shared<Upload>();
  upload->digest = digest;
  upload->size_bytes = size_bytes;
  SELVAGE_ASSIGN_OR_RETURN(std::unique_ptr<BlobWriter> writer,
                           blobs_.NewBlob());
  {
    MutexLock lock(upload->mu);
    upload->writer = std::move(writer);
  }
  MutexLock lock(mu_);
  if (uploads_.size() >= kArtefactUploadsMax) {
    return ResourceExhausted(std::to_string(kArtefactUploadsMax) +
                             " artefacts are being uploaded already");
  }
  uploads_.emplace(next_id_, std::move(upload));
  return std::optional<uint64_t>(next_id_++);
}

std::shared_ptr<ArtefactUploads::Upload> ArtefactUploads::Find(uint64_t id) {
  MutexLock lock(mu_);
  const auto it = uploads_.find(id);
  return it == uploads_.end() ? nullptr : it->second;
}

std::shared_ptr<ArtefactUploads::Upload> ArtefactUploads::Take(uint64_t id) {
  MutexLock lock(mu_);
  const auto it = uploads_.find(id);
  if (it == uploads_.end()) return nullptr;
  std::shared_ptr<Upload> upload = std::move(it->second);
  uploads_.erase(it);
  return upload;
}

Status ArtefactUploads::Append(uint64_t id, ByteSpan chunk) {
  const std::shared_ptr<Upload> upload = Find(id);
  if (upload == nullptr) {
    return NotFound("no artefact upload " + std::to_string(id));
  }
  MutexLock lock(upload->mu);
  if (chunk.size() > upload->size_bytes - upload->received) {
    return OutOfRange("more than the announced " +
                      std::to_string(upload->size_bytes) + " bytes");
  }
  upload->received += chunk.size();
  return upload->writer->Append(chunk);
}

Status ArtefactUploads::Finish(uint64_t id) {
  const std::shared_ptr<Upload> upload = Take(id);
  if (upload == nullptr) {
    return NotFound("no artefact upload " + std::to_string(id));
  }
  MutexLock lock(upload->mu);
  if (upload->received != upload->size_bytes) {
    return DataLoss(std::to_string(upload->received) +
                    " bytes arrived, announced were " +
                    std::to_string(upload->size_bytes));
  }
  SELVAGE_RETURN_IF_ERROR(upload->writer->Commit(upload->digest));
  return store_.PutArtefact(upload->digest, upload->size_bytes);
}

void ArtefactUploads::Drop(uint64_t id) { (void)Take(id); }

}  // namespace selvage::coordinator

// A BlobStore that tells how long the calls of another one take, by the
// method's name. What is read or written through the objects that it hands out
// is not counted, only getting them.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/time.h"
#include "coordinator/blob_store.h"
#include "coordinator/telemetry.h"

namespace selvage::coordinator {

// Thread-safe. `inner`, `steady` and `telemetry` must outlive it; of `steady`
// only differences matter.
class MeteredBlobStore final : public BlobStore {
 public:
  MeteredBlobStore(BlobStore& inner, Clock& steady, Telemetry& telemetry)
      : inner_(inner), steady_(steady), telemetry_(telemetry) {}

  Result<crypto::Digest> Put(ByteSpan bytes) override;
  Result<std::unique_ptr<BlobWriter>> NewBlob() override;
  Result<crypto::Digest> PutJoined(
      std::span<const crypto::Digest> pieces) override;
  Status PutJoined(std::span<const crypto::Digest> pieces,
                   const crypto::Digest& digest) override;
  Result<std::unique_ptr<ArtefactReader>> Open(
      const crypto::Digest& digest) override;
  Result<Bytes> Read(const crypto::Digest& digest, uint64_t size_max) override;
  Status Remove(const crypto::Digest& digest) override;
  Result<std::vector<crypto::Digest>> List() override;
  Status SetAside(const crypto::Digest& digest) override;
  Result<std::vector<Aside>> ListSetAside() override;
  Status PutBack(const Aside& aside) override;
  Status RemoveSetAside(const Aside& aside) override;
  Status PutSealed(const std::string& name, ByteSpan bytes) override;
  Result<std::unique_ptr<SealedWriter>> NewSealed(
      const std::string& name) override;
  Result<Bytes> ReadSealed(const std::string& name) override;
  Result<std::unique_ptr<ArtefactReader>> OpenSealed(
      const std::string& name) override;
  Status RemoveSealed(const std::string& name) override;
  Result<std::vector<std::string>> ListSealed() override;
  Result<std::unique_ptr<ScratchBlob>> NewScratch() override;
  Result<uint64_t> FreeBytes() override;

 private:
  BlobStore& inner_;
  Clock& steady_;
  Telemetry& telemetry_;
};

}  // namespace selvage::coordinator

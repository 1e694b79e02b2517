#include "coordinator/telemetry/metered_blob_store.h"

#include <string_view>

namespace selvage::coordinator {
namespace {

// Tells how long it lived.
class Meter {
 public:
  Meter(Telemetry& telemetry, Clock& steady, std::string_view name)
      : telemetry_(telemetry),
        steady_(steady),
        name_(name),
        begun_(steady.Now()) {}
  ~Meter() { telemetry_.BlobsCalled(name_, steady_.Now() - begun_); }
  Meter(const Meter&) = delete;
  Meter& operator=(const Meter&) = delete;

 private:
  Telemetry& telemetry_;
  Clock& steady_;
  const std::string_view name_;
  const Time begun_;
};

}  // namespace

Result<crypto::Digest> MeteredBlobStore::Put(ByteSpan bytes) {
  const Meter meter(telemetry_, steady_, "put");
  return inner_.Put(bytes);
}

Result<std::unique_ptr<BlobWriter>> MeteredBlobStore::NewBlob() {
  return inner_.NewBlob();
}

Result<crypto::Digest> MeteredBlobStore::PutJoined(
    std::span<const crypto::Digest> pieces) {
  const Meter meter(telemetry_, steady_, "put_joined");
  return inner_.PutJoined(pieces);
}

Status MeteredBlobStore::PutJoined(std::span<const crypto::Digest> pieces,
                                   const crypto::Digest& digest) {
  const Meter meter(telemetry_, steady_, "put_joined");
  return inner_.PutJoined(pieces, digest);
}

Result<std::unique_ptr<ArtefactReader>> MeteredBlobStore::Open(
    const crypto::Digest& digest) {
  const Meter meter(telemetry_, steady_, "open");
  return inner_.Open(digest);
}

Result<Bytes> MeteredBlobStore::Read(const crypto::Digest& digest,
                                     uint64_t size_max) {
  const Meter meter(telemetry_, steady_, "read");
  return inner_.Read(digest, size_max);
}

Status MeteredBlobStore::Remove(const crypto::Digest& digest) {
  const Meter meter(telemetry_, steady_, "remove");
  return inner_.Remove(digest);
}

Result<std::vector<crypto::Digest>> MeteredBlobStore::List() {
  const Meter meter(telemetry_, steady_, "list");
  return inner_.List();
}

Status MeteredBlobStore::SetAside(const crypto::Digest& digest) {
  const Meter meter(telemetry_, steady_, "set_aside");
  return inner_.SetAside(digest);
}

Result<std::vector<BlobStore::Aside>> MeteredBlobStore::ListSetAside() {
  const Meter meter(telemetry_, steady_, "list_set_aside");
  return inner_.ListSetAside();
}

Status MeteredBlobStore::PutBack(const Aside& aside) {
  const Meter meter(telemetry_, steady_, "put_back");
  return inner_.PutBack(aside);
}

Status MeteredBlobStore::RemoveSetAside(const Aside& aside) {
  const Meter meter(telemetry_, steady_, "remove_set_aside");
  return inner_.RemoveSetAside(aside);
}

Status MeteredBlobStore::PutSealed(const std::string& name, ByteSpan bytes) {
  const Meter meter(telemetry_, steady_, "put_sealed");
  return inner_.PutSealed(name, bytes);
}

Result<std::unique_ptr<SealedWriter>> MeteredBlobStore::NewSealed(
    const std::string& name) {
  return inner_.NewSealed(name);
}

Result<Bytes> MeteredBlobStore::ReadSealed(const std::string& name) {
  const Meter meter(telemetry_, steady_, "read_sealed");
  return inner_.ReadSealed(name);
}

Result<std::unique_ptr<ArtefactReader>> MeteredBlobStore::OpenSealed(
    const std::string& name) {
  const Meter meter(telemetry_, steady_, "open_sealed");
  return inner_.OpenSealed(name);
}

Status MeteredBlobStore::RemoveSealed(const std::string& name) {
  const Meter meter(telemetry_, steady_, "remove_sealed");
  return inner_.RemoveSealed(name);
}

Result<std::vector<std::string>> MeteredBlobStore::ListSealed() {
  const Meter meter(telemetry_, steady_, "list_sealed");
  return inner_.ListSealed();
}

Result<std::unique_ptr<ScratchBlob>> MeteredBlobStore::NewScratch() {
  return inner_.NewScratch();
}

Result<uint64_t> MeteredBlobStore::FreeBytes() { return inner_.FreeBytes(); }

}  // namespace selvage::coordinator

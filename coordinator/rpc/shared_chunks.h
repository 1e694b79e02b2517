// Chunks of artefacts as they go over the wire, shared by the streams that send
// one artefact at about the same time: the devices of a round all fetch the
// same checkpoint, and what the first one reads the others need not. While
// nobody fetches an artefact nothing of it is kept.
//
// Thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <utility>

#include <grpcpp/support/slice.h>

#include "base/mutex.h"
#include "base/status.h"
#include "crypto/digest.h"

namespace selvage::coordinator {

class SharedChunks {
 public:
  // At most so many bytes are kept; those longest unused go first.
  explicit SharedChunks(uint64_t bytes_max) : bytes_max_(bytes_max) {}

  // One stream's access to the chunks of one artefact.
  class Stream {
   public:
    ~Stream();
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

    // The chunk of this place: what another stream made of it, or what `make`
    // makes now. Chunks of one artefact and place must be equal. Errors are
    // make's.
    Result<grpc::Slice> Get(uint64_t offset, uint64_t size,
                            const std::function<Result<grpc::Slice>()>& make);

   private:
    friend class SharedChunks;
    Stream(SharedChunks& chunks, const crypto::Digest& digest)
        : chunks_(chunks), digest_(digest) {}
    SharedChunks& chunks_;
    const crypto::Digest digest_;
  };
  // This must outlive the stream.
  std::unique_ptr<Stream> Open(const crypto::Digest& digest);

  uint64_t kept_bytes() const;

 private:
  using Place = std::pair<uint64_t, uint64_t>;  // offset, size
  struct Chunk {
    crypto::Digest digest;
    Place place;
    grpc::Slice slice;
  };
  struct Artefact {
    uint64_t streams = 0;
    std::map<Place, std::list<Chunk>::iterator> chunks;
  };
  void Forget(std::list<Chunk>::iterator chunk) SELVAGE_REQUIRES(mu_);

  const uint64_t bytes_max_;
  mutable Mutex mu_;
  std::map<crypto::Digest, Artefact> artefacts_ SELVAGE_GUARDED_BY(mu_);
  // The one longest unused first.
  std::list<Chunk> chunks_ SELVAGE_GUARDED_BY(mu_);
  uint64_t bytes_ SELVAGE_GUARDED_BY(mu_) = 0;  // of them
};

}  // namespace selvage::coordinator

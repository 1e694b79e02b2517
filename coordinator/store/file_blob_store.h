// Blobs as files: DIRECTORY/artefacts/DIGEST and DIRECTORY/sealed/NAME; those
// that are other blobs in a row, as their digests, a line each:
// DIRECTORY/joined/DIGEST. Every
// file is written under a temporary name in DIRECTORY/incoming, synced, renamed
// and its directory synced, so a name that exists holds the whole file. What is
// set aside is in DIRECTORY/aside: DIGEST.N, DIGEST.N.joined.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "base/mutex.h"
#include "coordinator/blob_store.h"

namespace selvage::coordinator {

class FileBlobStore final : public BlobStore {
 public:
  // Creates the directories and removes what an earlier process left in
  // incoming. `files` must outlive the store; one store per directory.
  //
  // Unless there is a `writer`: then several processes, each with a name of its
  // own without a '.', may share the directory (on a mount with the semantics
  // of POSIX), and incoming is for the caller to tidy.
  static Result<std::unique_ptr<FileBlobStore>> Open(
      FileSystem& files, const Path& directory, const std::string& writer = "");

  // What is in incoming; names begin with their writer's and '.'.
  static Result<std::vector<std::string>> Incoming(FileSystem& files,
                                                   const Path& directory);
  // Not there any more: OK.
  static Status RemoveIncoming(FileSystem& files, const Path& directory,
                               const std::string& name);

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
  friend class FileBlobWriter;
  friend class FileSealedWriter;

  FileBlobStore(FileSystem& files, const Path& directory,
                const std::string& writer)
      : files_(files),
        directory_(directory),
        writer_(writer),
        artefacts_(directory / "artefacts"),
        joined_(directory / "joined"),
        sealed_(directory / "sealed"),
        incoming_(directory / "incoming"),
        aside_(directory / "aside") {}

  Path PathOf(const crypto::Digest& digest) const {
    return artefacts_ / digest.ToHex();
  }
  Path JoinedPathOf(const crypto::Digest& digest) const {
    return joined_ / digest.ToHex();
  }
  // Opens the blob's file, or the list of its pieces, wherever it is.
  Result<std::unique_ptr<ReadableFile>> OpenFile(const crypto::Digest& digest,
                                                 bool joined);
  // Renames what is there; OK if nothing is.
  Status Move(const Path& from, const Path& to);
  std::string NextName();
  Path NextIncoming() { return incoming_ / NextName(); }
  // Writes `bytes` durably to `path` by way of incoming.
  Status WriteThrough(const Path& path, ByteSpan bytes);
  // Moves a synced file into place.
  Status Install(const Path& from, const Path& to);
  // DATA_LOSS unless the file has this digest; remembers the answer.
  Status Verify(const crypto::Digest& digest, ArtefactReader& blob);
  Result<std::unique_ptr<ArtefactReader>> OpenPieces(
      std::span<const crypto::Digest> pieces);
  Result<std::vector<crypto::Digest>> ReadPieces(const crypto::Digest& digest);
  Status WritePieces(std::span<const crypto::Digest> pieces,
                     const crypto::Digest& digest);
  bool IsVerified(const crypto::Digest& digest);
  // Known to be here, durable, whole and not set aside: it need not be written
  // again.
  bool IsInstalled(const crypto::Digest& digest);
  void MarkVerified(const crypto::Digest& digest);

  FileSystem& files_;
  const Path directory_;
  const std::string writer_;  // empty: the only one
  const Path artefacts_;
  const Path joined_;
  const Path sealed_;
  const Path incoming_;
  const Path aside_;

  Mutex mu_;
  uint64_t next_name_ SELVAGE_GUARDED_BY(mu_) = 0;
  std::set<crypto::Digest> verified_ SELVAGE_GUARDED_BY(mu_);
};

}  // namespace selvage::coordinator

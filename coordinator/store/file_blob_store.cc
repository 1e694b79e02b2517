#include "coordinator/store/file_blob_store.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/check.h"

namespace selvage::coordinator {
namespace {

// Best effort on the way out: the error that led here matters more.
void Discard(FileSystem& files, const Path& path) { (void)files.Remove(path); }

Status RemoveIfThere(FileSystem& files, const Path& path) {
  Status status = files.Remove(path);
  return status.code() == StatusCode::kNotFound ? OkStatus() : status;
}

class FileReader final : public ArtefactReader {
 public:
  explicit FileReader(std::unique_ptr<ReadableFile> file)
      : file_(std::move(file)) {}
  uint64_t size() const override { return file_->size(); }
  Result<size_t> ReadAt(uint64_t offset, std::span<uint8_t> out) override {
    return file_->ReadAt(offset, out);
  }

 private:
  const std::unique_ptr<ReadableFile> file_;
};

// Blobs one after another.
class JoinedReader final : public ArtefactReader {
 public:
  explicit JoinedReader(std::vector<std::unique_ptr<ArtefactReader>> pieces)
      : pieces_(std::move(pieces)) {
    for (const auto& piece : pieces_) size_ += piece->size();
  }
  uint64_t size() const override { return size_; }
  Result<size_t> ReadAt(uint64_t offset, std::span<uint8_t> out) override {
    size_t done = 0;
    for (const auto& piece : pieces_) {
      if (done == out.size()) break;
      if (offset >= piece->size()) {
        offset -= piece->size();
        continue;
      }
      const auto wanted = static_cast<size_t>(
          std::min<uint64_t>(out.size() - done, piece->size() - offset));
      SELVAGE_ASSIGN_OR_RETURN(
          const size_t read, piece->ReadAt(offset, out.subspan(done, wanted)));
      done += read;
      if (read < wanted) break;
      offset = 0;
    }
    return done;
  }

 private:
  const std::vector<std::unique_ptr<ArtefactReader>> pieces_;
  uint64_t size_ = 0;
};

Result<crypto::Digest> HashOf(ArtefactReader& blob) {
  crypto::Sha256Hasher hasher;
  Bytes buffer(256 << 10);
  for (uint64_t offset = 0; offset < blob.size();) {
    SELVAGE_ASSIGN_OR_RETURN(const size_t read, blob.ReadAt(offset, buffer));
    if (read == 0) break;
    hasher.Update(ByteSpan(buffer).first(read));
    offset += read;
  }
  return std::move(hasher).Finish();
}

class FileScratchBlob final : public ScratchBlob {
 public:
  FileScratchBlob(FileSystem& files, Path path,
                  std::unique_ptr<WritableFile> out,
                  std::unique_ptr<ReadableFile> in)
      : files_(files),
        path_(std::move(path)),
        out_(std::move(out)),
        in_(std::move(in)) {}
  ~FileScratchBlob() override { Discard(files_, path_); }

  Status Append(ByteSpan chunk) override { return out_->Append(chunk); }
  Result<size_t> ReadAt(uint64_t offset, std::span<uint8_t> out) override {
    return in_->ReadAt(offset, out);
  }

 private:
  FileSystem& files_;
  const Path path_;
  const std::unique_ptr<WritableFile> out_;
  const std::unique_ptr<ReadableFile> in_;
};

constexpr char kIncoming[] = "incoming";
constexpr size_t kPieceLineSize = 65;  // a digest in hexadecimal and '\n'
constexpr std::string_view kJoinedSuffix = ".joined";

Status CheckPieceCount(size_t count) {
  if (count > 0 && count <= BlobStore::kPiecesMax) return OkStatus();
  return InvalidArgument("a blob of " + std::to_string(count) +
                         " pieces; 1 to " +
                         std::to_string(BlobStore::kPiecesMax));
}

bool IsJoinedName(std::string_view name) {
  return name.size() >= kJoinedSuffix.size() &&
         name.substr(name.size() - kJoinedSuffix.size()) == kJoinedSuffix;
}

}  // namespace

class FileBlobWriter final : public BlobWriter {
 public:
  FileBlobWriter(FileBlobStore& store, Path path,
                 std::unique_ptr<WritableFile> file)
      : store_(store), path_(std::move(path)), file_(std::move(file)) {}
  ~FileBlobWriter() override {
    if (!installed_) Discard(store_.files_, path_);
  }

  Status Append(ByteSpan chunk) override {
    hasher_.Update(chunk);
    return file_->Append(chunk);
  }

  Status Commit(const crypto::Digest& digest) override {
    const crypto::Digest actual = std::move(hasher_).Finish();
    if (actual != digest) {
      return DataLoss("the bytes have digest " + actual.ToHex() +
                      ", announced was " + digest.ToHex());
    }
    return Install(actual);
  }

  Result<crypto::Digest> Finish() override {
    const crypto::Digest digest = std::move(hasher_).Finish();
    if (store_.IsInstalled(digest)) return digest;
    SELVAGE_RETURN_IF_ERROR(Install(digest));
    return digest;
  }

 private:
  Status Install(const crypto::Digest& digest) {
    SELVAGE_RETURN_IF_ERROR(file_->Sync());
    SELVAGE_RETURN_IF_ERROR(file_->Close());
    SELVAGE_RETURN_IF_ERROR(store_.Install(path_, store_.PathOf(digest)));
    installed_ = true;
    store_.MarkVerified(digest);
    return OkStatus();
  }

  FileBlobStore& store_;
  const Path path_;
  const std::unique_ptr<WritableFile> file_;
  crypto::Sha256Hasher hasher_;
  bool installed_ = false;
};

class FileSealedWriter final : public SealedWriter {
 public:
  FileSealedWriter(FileBlobStore& store, Path path, Path name,
                   std::unique_ptr<WritableFile> file)
      : store_(store),
        path_(std::move(path)),
        name_(std::move(name)),
        file_(std::move(file)) {}
  ~FileSealedWriter() override {
    if (!installed_) Discard(store_.files_, path_);
  }

  Status Append(ByteSpan chunk) override { return file_->Append(chunk); }

  Status Commit() override {
    SELVAGE_RETURN_IF_ERROR(file_->Sync());
    SELVAGE_RETURN_IF_ERROR(file_->Close());
    SELVAGE_RETURN_IF_ERROR(store_.Install(path_, name_));
    installed_ = true;
    return OkStatus();
  }

 private:
  FileBlobStore& store_;
  const Path path_;
  const Path name_;
  const std::unique_ptr<WritableFile> file_;
  bool installed_ = false;
};

Result<std::unique_ptr<FileBlobStore>> FileBlobStore::Open(
    FileSystem& files, const Path& directory, const std::string& writer) {
  SELVAGE_CHECK(writer.find('.') == std::string::npos);
  std::unique_ptr<FileBlobStore> store(
      new FileBlobStore(files, directory, writer));
  for (const Path& path : {store->artefacts_, store->joined_, store->sealed_,
                           store->incoming_, store->aside_}) {
    SELVAGE_RETURN_IF_ERROR(files.CreateDirectories(path));
  }
  SELVAGE_RETURN_IF_ERROR(files.SyncDirectory(directory));
  if (!writer.empty()) return store;
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<std::string> leftovers,
                           Incoming(files, directory));
  for (const std::string& name : leftovers) {
    SELVAGE_RETURN_IF_ERROR(RemoveIncoming(files, directory, name));
  }
  return store;
}

Result<std::vector<std::string>> FileBlobStore::Incoming(
    FileSystem& files, const Path& directory) {
  return files.List(directory / kIncoming);
}

Status FileBlobStore::RemoveIncoming(FileSystem& files, const Path& directory,
                                     const std::string& name) {
  return RemoveIfThere(files, directory / kIncoming / name);
}

std::string FileBlobStore::NextName() {
  MutexLock lock(mu_);
  return (writer_.empty() ? "" : writer_ + ".") + std::to_string(next_name_++);
}

Status FileBlobStore::Install(const Path& from, const Path& to) {
  SELVAGE_RETURN_IF_ERROR(files_.Rename(from, to));
  return files_.SyncDirectory(to.parent_path());
}

Status FileBlobStore::WriteThrough(const Path& path, ByteSpan bytes) {
  const Path temporary = NextIncoming();
  const auto write = [&]() -> Status {
    SELVAGE_ASSIGN_OR_RETURN(const std::unique_ptr<WritableFile> file,
                             files_.Create(temporary, 0600));
    SELVAGE_RETURN_IF_ERROR(file->Append(bytes));
    SELVAGE_RETURN_IF_ERROR(file->Sync());
    SELVAGE_RETURN_IF_ERROR(file->Close());
    return Install(temporary, path);
  };
  Status status = write();
  if (!status.ok()) Discard(files_, temporary);
  return status;
}

Result<crypto::Digest> FileBlobStore::Put(ByteSpan bytes) {
  const crypto::Digest digest = crypto::Sha256(bytes);
  if (IsInstalled(digest)) return digest;
  SELVAGE_RETURN_IF_ERROR(WriteThrough(PathOf(digest), bytes));
  MarkVerified(digest);
  return digest;
}

Result<std::unique_ptr<BlobWriter>> FileBlobStore::NewBlob() {
  Path path = NextIncoming();
  SELVAGE_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file,
                           files_.Create(path, 0600));
  return std::unique_ptr<BlobWriter>(
      new FileBlobWriter(*this, std::move(path), std::move(file)));
}

Result<std::unique_ptr<ReadableFile>> FileBlobStore::OpenFile(
    const crypto::Digest& digest, bool joined) {
  const Path path = joined ? JoinedPathOf(digest) : PathOf(digest);
  Result<std::unique_ptr<ReadableFile>> file = files_.Open(path);
  if (file.status().code() != StatusCode::kNotFound) return file;
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<Aside> aside, ListSetAside());
  for (const Aside& other : aside) {
    if (other.digest != digest || IsJoinedName(other.name) != joined) continue;
    Result<std::unique_ptr<ReadableFile>> found =
        files_.Open(aside_ / other.name);
    if (found.status().code() != StatusCode::kNotFound) return found;
  }
  return files_.Open(path);  // it may have come back meanwhile
}

bool FileBlobStore::IsVerified(const crypto::Digest& digest) {
  MutexLock lock(mu_);
  return verified_.contains(digest);
}

// Only a blob whose installation this process has seen through (or verified at
// an open) is known to be durable and whole; another process may have removed
// it since.
bool FileBlobStore::IsInstalled(const crypto::Digest& digest) {
  if (!IsVerified(digest)) return false;
  return files_.Open(PathOf(digest)).ok() ||
         files_.Open(JoinedPathOf(digest)).ok();
}

void FileBlobStore::MarkVerified(const crypto::Digest& digest) {
  MutexLock lock(mu_);
  verified_.insert(digest);
}

Status FileBlobStore::Verify(const crypto::Digest& digest,
                             ArtefactReader& blob) {
  if (IsVerified(digest)) return OkStatus();
  SELVAGE_ASSIGN_OR_RETURN(const crypto::Digest actual, HashOf(blob));
  if (actual != digest) {
    return DataLoss("artefact " + digest.ToHex() + " is damaged on disk");
  }
  MarkVerified(digest);
  return OkStatus();
}

Result<std::unique_ptr<ArtefactReader>> FileBlobStore::OpenPieces(
    std::span<const crypto::Digest> pieces) {
  std::vector<std::unique_ptr<ArtefactReader>> readers;
  for (const crypto::Digest& piece : pieces) {
    SELVAGE_ASSIGN_OR_RETURN(std::unique_ptr<ReadableFile> file,
                             OpenFile(piece, /*joined=*/false));
    readers.push_back(std::make_unique<FileReader>(std::move(file)));
  }
  return std::unique_ptr<ArtefactReader>(new JoinedReader(std::move(readers)));
}

Result<std::vector<crypto::Digest>> FileBlobStore::ReadPieces(
    const crypto::Digest& digest) {
  SELVAGE_ASSIGN_OR_RETURN(const std::unique_ptr<ReadableFile> file,
                           OpenFile(digest, /*joined=*/true));
  if (file->size() > kPiecesMax * kPieceLineSize) {
    return DataLoss("artefact " + digest.ToHex() + " is damaged on disk");
  }
  Bytes lines(static_cast<size_t>(file->size()));
  SELVAGE_ASSIGN_OR_RETURN(const size_t read, file->ReadAt(0, lines));
  lines.resize(read);
  std::vector<crypto::Digest> pieces;
  for (size_t at = 0; at < lines.size(); at += kPieceLineSize) {
    const std::string_view rest = AsText(lines).substr(at);
    const Result<crypto::Digest> piece =
        crypto::Digest::FromHex(rest.substr(0, kPieceLineSize - 1));
    if (!piece.ok() || rest.size() < kPieceLineSize) {
      return DataLoss("artefact " + digest.ToHex() + " is damaged on disk");
    }
    pieces.push_back(*piece);
  }
  return pieces;
}

Result<crypto::Digest> FileBlobStore::PutJoined(
    std::span<const crypto::Digest> pieces) {
  SELVAGE_RETURN_IF_ERROR(CheckPieceCount(pieces.size()));
  SELVAGE_ASSIGN_OR_RETURN(const std::unique_ptr<ArtefactReader> whole,
                           OpenPieces(pieces));
  SELVAGE_ASSIGN_OR_RETURN(const crypto::Digest digest, HashOf(*whole));
  SELVAGE_RETURN_IF_ERROR(WritePieces(pieces, digest));
  return digest;
}

Status FileBlobStore::PutJoined(std::span<const crypto::Digest> pieces,
                                const crypto::Digest& digest) {
  SELVAGE_RETURN_IF_ERROR(CheckPieceCount(pieces.size()));
  SELVAGE_RETURN_IF_ERROR(OpenPieces(pieces).status());
  return WritePieces(pieces, digest);
}

Status FileBlobStore::WritePieces(std::span<const crypto::Digest> pieces,
                                  const crypto::Digest& digest) {
  std::string lines;
  for (const crypto::Digest& piece : pieces) lines += piece.ToHex() + "\n";
  SELVAGE_RETURN_IF_ERROR(WriteThrough(JoinedPathOf(digest), AsBytes(lines)));
  MarkVerified(digest);
  return OkStatus();
}

Result<std::unique_ptr<ArtefactReader>> FileBlobStore::Open(
    const crypto::Digest& digest) {
  std::unique_ptr<ArtefactReader> blob;
  Result<std::unique_ptr<ReadableFile>> file =
      OpenFile(digest, /*joined=*/false);
  if (file.ok()) {
    blob = std::make_unique<FileReader>(*std::move(file));
  } else {
    if (file.status().code() != StatusCode::kNotFound) return file.status();
    const Result<std::vector<crypto::Digest>> pieces = ReadPieces(digest);
    // Neither: the artefact is what is not there.
    if (pieces.status().code() == StatusCode::kNotFound) return file.status();
    if (!pieces.ok()) return pieces.status();
    Result<std::unique_ptr<ArtefactReader>> joined = OpenPieces(*pieces);
    if (joined.status().code() == StatusCode::kNotFound) {
      return DataLoss("artefact " + digest.ToHex() + " lacks a piece: " +
                      std::string(joined.status().message()));
    }
    if (!joined.ok()) return joined.status();
    blob = *std::move(joined);
  }
  SELVAGE_RETURN_IF_ERROR(Verify(digest, *blob));
  return blob;
}

Result<Bytes> FileBlobStore::Read(const crypto::Digest& digest,
                                  uint64_t size_max) {
  Result<Bytes> bytes = ReadFile(files_, PathOf(digest), size_max);
  if (bytes.status().code() == StatusCode::kNotFound) {
    SELVAGE_ASSIGN_OR_RETURN(const std::unique_ptr<ArtefactReader> blob,
                             Open(digest));
    if (blob->size() > size_max) {
      return ResourceExhausted("artefact " + digest.ToHex() + " has " +
                               std::to_string(blob->size()) +
                               " bytes, the limit is " +
                               std::to_string(size_max));
    }
    bytes = Bytes(static_cast<size_t>(blob->size()));
    SELVAGE_ASSIGN_OR_RETURN(const size_t read, blob->ReadAt(0, *bytes));
    bytes->resize(read);
  }
  if (!bytes.ok()) return bytes;
  if (crypto::Sha256(*bytes) != digest) {
    return DataLoss("artefact " + digest.ToHex() + " is damaged on disk");
  }
  return bytes;
}

Status FileBlobStore::Remove(const crypto::Digest& digest) {
  {
    MutexLock lock(mu_);
    verified_.erase(digest);
  }
  SELVAGE_RETURN_IF_ERROR(RemoveIfThere(files_, JoinedPathOf(digest)));
  SELVAGE_RETURN_IF_ERROR(RemoveIfThere(files_, PathOf(digest)));
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<Aside> aside, ListSetAside());
  for (const Aside& other : aside) {
    if (other.digest != digest) continue;
    SELVAGE_RETURN_IF_ERROR(RemoveSetAside(other));
  }
  return OkStatus();
}

Status FileBlobStore::Move(const Path& from, const Path& to) {
  const Status moved = Install(from, to);
  if (moved.code() == StatusCode::kNotFound) return OkStatus();
  SELVAGE_RETURN_IF_ERROR(moved);
  return files_.SyncDirectory(from.parent_path());
}

Status FileBlobStore::SetAside(const crypto::Digest& digest) {
  const std::string name = digest.ToHex() + "." + NextName();
  SELVAGE_RETURN_IF_ERROR(
      Move(JoinedPathOf(digest), aside_ / (name + std::string(kJoinedSuffix))));
  return Move(PathOf(digest), aside_ / name);
}

Status FileBlobStore::PutBack(const Aside& aside) {
  return Move(aside_ / aside.name, IsJoinedName(aside.name)
                                       ? JoinedPathOf(aside.digest)
                                       : PathOf(aside.digest));
}

Status FileBlobStore::RemoveSetAside(const Aside& aside) {
  return RemoveIfThere(files_, aside_ / aside.name);
}

Result<std::vector<BlobStore::Aside>> FileBlobStore::ListSetAside() {
  std::vector<Aside> out;
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                           files_.List(aside_));
  for (const std::string& name : names) {
    const Result<crypto::Digest> digest = crypto::Digest::FromHex(
        std::string_view(name).substr(0, name.find('.')));
    if (digest.ok()) out.push_back({name, *digest});
  }
  return out;
}

Result<std::vector<crypto::Digest>> FileBlobStore::List() {
  std::set<crypto::Digest> digests;
  for (const Path& directory : {artefacts_, joined_}) {
    SELVAGE_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                             files_.List(directory));
    for (const std::string& name : names) {
      Result<crypto::Digest> digest = crypto::Digest::FromHex(name);
      if (digest.ok()) digests.insert(*digest);
    }
  }
  return std::vector<crypto::Digest>(digests.begin(), digests.end());
}

Status FileBlobStore::PutSealed(const std::string& name, ByteSpan bytes) {
  return WriteThrough(sealed_ / name, bytes);
}

Result<std::unique_ptr<SealedWriter>> FileBlobStore::NewSealed(
    const std::string& name) {
  Path path = NextIncoming();
  SELVAGE_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file,
                           files_.Create(path, 0600));
  return std::unique_ptr<SealedWriter>(new FileSealedWriter(
      *this, std::move(path), sealed_ / name, std::move(file)));
}

Result<Bytes> FileBlobStore::ReadSealed(const std::string& name) {
  return ReadFile(files_, sealed_ / name, std::numeric_limits<uint64_t>::max());
}

Result<std::unique_ptr<ArtefactReader>> FileBlobStore::OpenSealed(
    const std::string& name) {
  SELVAGE_ASSIGN_OR_RETURN(std::unique_ptr<ReadableFile> file,
                           files_.Open(sealed_ / name));
  return std::unique_ptr<ArtefactReader>(new FileReader(std::move(file)));
}

Status FileBlobStore::RemoveSealed(const std::string& name) {
  return RemoveIfThere(files_, sealed_ / name);
}

Result<std::vector<std::string>> FileBlobStore::ListSealed() {
  return files_.List(sealed_);
}

Result<std::unique_ptr<ScratchBlob>> FileBlobStore::NewScratch() {
  Path path = NextIncoming();
  SELVAGE_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> out,
                           files_.Create(path, 0600));
  Result<std::unique_ptr<ReadableFile>> in = files_.Open(path);
  if (!in.ok()) {
    Discard(files_, path);
    return in.status();
  }
  return std::unique_ptr<ScratchBlob>(new FileScratchBlob(
      files_, std::move(path), std::move(out), *std::move(in)));
}

Result<uint64_t> FileBlobStore::FreeBytes() {
  return files_.FreeBytes(directory_);
}

}  // namespace selvage::coordinator

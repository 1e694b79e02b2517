#include "coordinator/store/backup.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "base/file_lock.h"
#include "coordinator/store/file_blob_store.h"
#include "coordinator/store/sqlite_schema.h"

namespace selvage::coordinator {
namespace {

constexpr char kManifestFile[] = "MANIFEST";
constexpr char kDatabaseFile[] = "coordinator.db";
constexpr char kBlobsFolder[] = "blobs";
constexpr std::string_view kFirstLine = "selvage-backup 1";
constexpr uint64_t kManifestSizeMax = uint64_t{256} << 20;
constexpr size_t kChunkSize = 1 << 20;

bool IsPlain(std::string_view text, std::string_view more) {
  return std::all_of(text.begin(), text.end(), [more](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
           more.find(c) != std::string_view::npos;
  });
}

std::string FileLine(std::string_view kind, const BackupFile& file) {
  return std::string(kind) + " " + std::to_string(file.size) + " " +
         file.digest.ToHex() + "\n";
}

// Takes lines apart; every method is DATA_LOSS on anything unexpected.
class ManifestReader {
 public:
  explicit ManifestReader(std::string_view text) : rest_(text) {}

  // The next line, "KIND VALUE".
  Result<std::string_view> Value(std::string_view kind) {
    const std::optional<std::string_view> line = Line();
    if (!line.has_value() || line->substr(0, kind.size()) != kind ||
        line->size() < kind.size() + 2 || (*line)[kind.size()] != ' ') {
      return Bad(kind);
    }
    return line->substr(kind.size() + 1);
  }
  Result<uint64_t> Number(std::string_view kind) {
    SELVAGE_ASSIGN_OR_RETURN(const std::string_view value, Value(kind));
    return ToNumber(kind, value);
  }
  Result<BackupFile> File(std::string_view kind) {
    SELVAGE_ASSIGN_OR_RETURN(const std::string_view value, Value(kind));
    const size_t space = value.find(' ');
    if (space == std::string_view::npos) return Bad(kind);
    BackupFile file;
    SELVAGE_ASSIGN_OR_RETURN(file.size, ToNumber(kind, value.substr(0, space)));
    const Result<crypto::Digest> digest =
        crypto::Digest::FromHex(value.substr(space + 1));
    if (!digest.ok() || digest->ToHex() != value.substr(space + 1)) {
      return Bad(kind);
    }
    file.digest = *digest;
    return file;
  }
  std::optional<std::string_view> Line() {
    const size_t end = rest_.find('\n');
    if (end == std::string_view::npos) return std::nullopt;
    const std::string_view line = rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    return line;
  }
  bool AtEnd() const { return rest_.empty(); }

 private:
  static Status Bad(std::string_view kind) {
    return DataLoss("the backup's manifest is damaged at its line \"" +
                    std::string(kind) + "\"");
  }
  static Result<uint64_t> ToNumber(std::string_view kind,
                                   std::string_view text) {
    uint64_t number = 0;
    const char* const end = text.data() + text.size();
    const auto read = std::from_chars(text.data(), end, number);
    if (read.ec != std::errc() || read.ptr != end ||
        std::to_string(number) != text) {
      return Bad(kind);
    }
    return number;
  }

  std::string_view rest_;
};

// Calls `take` with the bytes from `blob`, in order. CANCELLED by `stop`.
Status Stream(ArtefactReader& blob, const std::function<bool()>& stop,
              const std::function<Status(ByteSpan)>& take) {
  Bytes buffer(kChunkSize);
  for (uint64_t offset = 0; offset < blob.size();) {
    if (stop()) return Cancelled("the backup was interrupted");
    SELVAGE_ASSIGN_OR_RETURN(const size_t read, blob.ReadAt(offset, buffer));
    if (read == 0) return DataLoss("a blob ends early");
    SELVAGE_RETURN_IF_ERROR(take(ByteSpan(buffer).first(read)));
    offset += read;
  }
  return OkStatus();
}

class FileAsBlob final : public ArtefactReader {
 public:
  explicit FileAsBlob(std::unique_ptr<ReadableFile> file)
      : file_(std::move(file)) {}
  uint64_t size() const override { return file_->size(); }
  Result<size_t> ReadAt(uint64_t offset, std::span<uint8_t> out) override {
    return file_->ReadAt(offset, out);
  }

 private:
  const std::unique_ptr<ReadableFile> file_;
};

bool Never() { return false; }

Result<BackupFile> Measure(FileSystem& files, const Path& path) {
  SELVAGE_ASSIGN_OR_RETURN(std::unique_ptr<ReadableFile> file,
                           files.Open(path));
  FileAsBlob blob(std::move(file));
  crypto::Sha256Hasher hasher;
  SELVAGE_RETURN_IF_ERROR(Stream(blob, Never, [&](ByteSpan chunk) {
    hasher.Update(chunk);
    return OkStatus();
  }));
  return BackupFile{std::move(hasher).Finish(), blob.size()};
}

// DATA_LOSS unless the file at `path` is the one of the manifest.
Status Check(FileSystem& files, const Path& path, const BackupFile& expected) {
  const Result<BackupFile> found = Measure(files, path);
  if (found.status().code() == StatusCode::kNotFound) {
    return DataLoss("the backup lacks " + path.filename().string());
  }
  SELVAGE_RETURN_IF_ERROR(found.status());
  if (*found != expected) {
    return DataLoss("the backup's " + path.filename().string() +
                    " is damaged: it has " + std::to_string(found->size) +
                    " bytes of digest " + found->digest.ToHex() +
                    ", the manifest says " + std::to_string(expected.size) +
                    " of " + expected.digest.ToHex());
  }
  return OkStatus();
}

Result<BackupFile> CopyArtefact(BlobStore& blobs, FileSystem& files,
                                const crypto::Digest& digest, const Path& to,
                                const std::function<bool()>& stop) {
  Result<std::unique_ptr<ArtefactReader>> blob = blobs.Open(digest);
  if (blob.status().code() == StatusCode::kNotFound) {
    return DataLoss("artefact " + digest.ToHex() + " is gone");
  }
  SELVAGE_RETURN_IF_ERROR(blob.status());
  SELVAGE_ASSIGN_OR_RETURN(const std::unique_ptr<WritableFile> out,
                           files.Create(to, 0600));
  crypto::Sha256Hasher hasher;
  SELVAGE_RETURN_IF_ERROR(Stream(**blob, stop, [&](ByteSpan chunk) -> Status {
    hasher.Update(chunk);
    return out->Append(chunk);
  }));
  SELVAGE_RETURN_IF_ERROR(out->Sync());
  SELVAGE_RETURN_IF_ERROR(out->Close());
  if (std::move(hasher).Finish() != digest) {
    return DataLoss("artefact " + digest.ToHex() + " is damaged on disk");
  }
  return BackupFile{digest, (*blob)->size()};
}

// FAILED_PRECONDITION, naming what is there, unless `folder` is missing or has
// nothing but `allowed`.
Status RequireEmpty(FileSystem& files, const Path& folder,
                    const std::set<std::string>& allowed) {
  const Result<std::vector<std::string>> names = files.List(folder);
  if (names.status().code() == StatusCode::kNotFound) return OkStatus();
  SELVAGE_RETURN_IF_ERROR(names.status());
  for (const std::string& name : *names) {
    if (allowed.count(name) > 0) continue;
    return FailedPrecondition(folder.string() + " is not empty: it has " +
                              name + "; restore into a new folder");
  }
  return OkStatus();
}

void RemoveTree(const Path& path) {
  std::error_code ignored;
  std::filesystem::remove_all(path, ignored);
}

}  // namespace

uint64_t BackupManifest::Bytes() const {
  uint64_t bytes = database.size;
  for (const BackupFile& file : artefacts) bytes += file.size;
  return bytes;
}

std::string ManifestText(const BackupManifest& manifest) {
  std::string text = std::string(kFirstLine) + "\n";
  text += "instance " + manifest.instance_id + "\n";
  text += "schema " + std::to_string(manifest.schema) + "\n";
  text += "created " + std::to_string(ToMicros(manifest.created)) + "\n";
  text += FileLine("database", manifest.database);
  text += "artefacts " + std::to_string(manifest.artefacts.size()) + "\n";
  for (const BackupFile& file : manifest.artefacts) {
    text += FileLine("artefact", file);
  }
  return text + "end " + crypto::Sha256(AsBytes(text)).ToHex() + "\n";
}

Result<BackupManifest> ParseManifest(std::string_view text) {
  ManifestReader reader(text);
  if (reader.Line() != kFirstLine) {
    return DataLoss("this is no manifest of a backup that this program knows");
  }
  BackupManifest manifest;
  SELVAGE_ASSIGN_OR_RETURN(const std::string_view instance,
                           reader.Value("instance"));
  if (!IsPlain(instance, ".") || instance.size() > 64) {
    return DataLoss("the backup's manifest has no instance id");
  }
  manifest.instance_id = std::string(instance);
  SELVAGE_ASSIGN_OR_RETURN(const uint64_t schema, reader.Number("schema"));
  manifest.schema = static_cast<uint32_t>(std::min<uint64_t>(schema, 1 << 30));
  SELVAGE_ASSIGN_OR_RETURN(const uint64_t created, reader.Number("created"));
  manifest.created = FromMicros(static_cast<int64_t>(created));
  SELVAGE_ASSIGN_OR_RETURN(manifest.database, reader.File("database"));
  SELVAGE_ASSIGN_OR_RETURN(const uint64_t count, reader.Number("artefacts"));
  for (uint64_t i = 0; i < count; ++i) {
    SELVAGE_ASSIGN_OR_RETURN(BackupFile file, reader.File("artefact"));
    if (!manifest.artefacts.empty() &&
        !(manifest.artefacts.back().digest < file.digest)) {
      return DataLoss("the backup's manifest is not in order");
    }
    manifest.artefacts.push_back(std::move(file));
  }
  SELVAGE_RETURN_IF_ERROR(reader.Value("end").status());
  // The whole of it, digest included, or another text.
  if (!reader.AtEnd() || ManifestText(manifest) != text) {
    return DataLoss("the backup's manifest does not have its own digest");
  }
  return manifest;
}

bool IsBackupName(std::string_view name) {
  return !name.empty() && name.size() <= 64 && IsPlain(name, ".-") &&
         name.front() != '.' && name.front() != '-';
}

Result<BackupManifest> MakeBackup(SqliteStore& store, BlobStore& blobs,
                                  FileSystem& files, const Path& directory,
                                  const std::string& name,
                                  const std::function<bool()>& stop) {
  if (!IsBackupName(name)) {
    return InvalidArgument("the backup's name \"" + name +
                           "\" is not [a-z0-9][a-z0-9.-]{0,63}");
  }
  const Path target = directory / name;
  const Path partial = directory / (name + ".partial");
  SELVAGE_RETURN_IF_ERROR(files.CreateDirectories(directory));
  if (files.List(target).ok()) {
    return AlreadyExists("backup " + target.string() + " exists");
  }
  RemoveTree(partial);  // of one that did not finish
  const auto make = [&]() -> Result<BackupManifest> {
    SELVAGE_RETURN_IF_ERROR(files.CreateDirectories(partial / kBlobsFolder));
    BackupManifest manifest;
    manifest.instance_id = store.instance_id();
    manifest.schema = store.schema_version();
    manifest.created = store.Now();
    const Path database = partial / kDatabaseFile;
    // Rows first: what they name was there before them and stays.
    SELVAGE_ASSIGN_OR_RETURN(std::vector<crypto::Digest> artefacts,
                             store.Snapshot(database, stop));
    SELVAGE_ASSIGN_OR_RETURN(manifest.database, Measure(files, database));
    std::sort(artefacts.begin(), artefacts.end());
    for (const crypto::Digest& digest : artefacts) {
      SELVAGE_ASSIGN_OR_RETURN(
          BackupFile file,
          CopyArtefact(blobs, files, digest,
                       partial / kBlobsFolder / digest.ToHex(), stop));
      manifest.artefacts.push_back(std::move(file));
    }
    SELVAGE_RETURN_IF_ERROR(files.SyncDirectory(partial / kBlobsFolder));
    SELVAGE_RETURN_IF_ERROR(WriteFileDurably(files, partial / kManifestFile,
                                             AsBytes(ManifestText(manifest))));
    SELVAGE_RETURN_IF_ERROR(files.SyncDirectory(partial));
    SELVAGE_RETURN_IF_ERROR(files.Rename(partial, target));
    SELVAGE_RETURN_IF_ERROR(files.SyncDirectory(directory));
    return manifest;
  };
  Result<BackupManifest> made = make();
  if (!made.ok()) RemoveTree(partial);
  return made;
}

Result<Restored> RestoreBackup(FileSystem& files, const Path& backup,
                               const RestoreTarget& target, Clock& clock,
                               RandomSource& random) {
  const Result<Bytes> text =
      ReadFile(files, backup / kManifestFile, kManifestSizeMax);
  if (text.status().code() == StatusCode::kNotFound) {
    return DataLoss(backup.string() + " is no whole backup: it has no " +
                    kManifestFile);
  }
  SELVAGE_RETURN_IF_ERROR(text.status());
  Restored out;
  SELVAGE_ASSIGN_OR_RETURN(out.manifest, ParseManifest(AsText(*text)));
  if (out.manifest.schema > Migrations().back().version) {
    return FailedPrecondition("the backup has schema " +
                              std::to_string(out.manifest.schema) +
                              ", this program knows schemas up to " +
                              std::to_string(Migrations().back().version) +
                              ": use a newer selvage-coordinator");
  }
  SELVAGE_RETURN_IF_ERROR(
      Check(files, backup / kDatabaseFile, out.manifest.database));
  for (const BackupFile& file : out.manifest.artefacts) {
    SELVAGE_RETURN_IF_ERROR(
        Check(files, backup / kBlobsFolder / file.digest.ToHex(), file));
  }
  SELVAGE_RETURN_IF_ERROR(RequireEmpty(
      files, target.data_dir, {"ca.pem", "admin.token", "keys", kLockFile}));
  SELVAGE_RETURN_IF_ERROR(RequireEmpty(files, target.blobs_dir, {}));

  // From here on something changes.
  SELVAGE_RETURN_IF_ERROR(files.CreateDirectories(target.data_dir));
  SELVAGE_ASSIGN_OR_RETURN(
      const std::unique_ptr<FileLock> lock,
      FileLock::Acquire(target.data_dir / kLockFile, "coordinator"));
  SELVAGE_RETURN_IF_ERROR(files.CreateDirectories(target.blobs_dir));
  SELVAGE_ASSIGN_OR_RETURN(const std::unique_ptr<FileBlobStore> blobs,
                           FileBlobStore::Open(files, target.blobs_dir));
  for (const BackupFile& file : out.manifest.artefacts) {
    SELVAGE_ASSIGN_OR_RETURN(
        std::unique_ptr<ReadableFile> in,
        files.Open(backup / kBlobsFolder / file.digest.ToHex()));
    FileAsBlob blob(std::move(in));
    SELVAGE_ASSIGN_OR_RETURN(const std::unique_ptr<BlobWriter> writer,
                             blobs->NewBlob());
    SELVAGE_RETURN_IF_ERROR(Stream(
        blob, Never, [&](ByteSpan chunk) { return writer->Append(chunk); }));
    SELVAGE_RETURN_IF_ERROR(writer->Commit(file.digest));
  }
  const Path database = target.data_dir / target.database_file;
  const Path restoring =
      target.data_dir / (target.database_file + ".restoring");
  {
    SELVAGE_ASSIGN_OR_RETURN(std::unique_ptr<ReadableFile> in,
                             files.Open(backup / kDatabaseFile));
    FileAsBlob blob(std::move(in));
    SELVAGE_ASSIGN_OR_RETURN(const std::unique_ptr<WritableFile> file,
                             files.Create(restoring, 0600));
    SELVAGE_RETURN_IF_ERROR(Stream(
        blob, Never, [&](ByteSpan chunk) { return file->Append(chunk); }));
    SELVAGE_RETURN_IF_ERROR(file->Sync());
    SELVAGE_RETURN_IF_ERROR(file->Close());
  }
  {
    // Its log is folded into the file when it is closed.
    SELVAGE_ASSIGN_OR_RETURN(
        const std::unique_ptr<SqliteStore> store,
        SqliteStore::Open({.path = restoring, .lock_directory = false}, clock,
                          random));
    Bytes raw(8);
    random.Fill(raw);
    SELVAGE_ASSIGN_OR_RETURN(out.instance_id,
                             store->BeginEpoch(ToHex(raw), store->Now()));
  }
  SELVAGE_RETURN_IF_ERROR(files.Rename(restoring, database));
  SELVAGE_RETURN_IF_ERROR(files.SyncDirectory(target.data_dir));
  return out;
}

}  // namespace selvage::coordinator

// Backups of a coordinator whose rows are in SQLite, made while it works, and
// the way back (docs/decisions/0013).
//
//   NAME/MANIFEST        what is here, with sizes and SHA-256; a digest of
//   itself NAME/coordinator.db  the rows as of one moment, without any round's
//   key NAME/blobs/DIGEST    every artefact that the rows name
//
// No key is in a backup, and nothing that a round has not released: partial
// sums stay out. A folder that has its name is whole: it is made as
// NAME.partial.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/file_system.h"
#include "base/random.h"
#include "base/status.h"
#include "base/time.h"
#include "coordinator/blob_store.h"
#include "coordinator/store/sqlite_store.h"
#include "crypto/digest.h"

namespace selvage::coordinator {

struct BackupFile {
  crypto::Digest digest;
  uint64_t size = 0;
  friend bool operator==(const BackupFile&, const BackupFile&) = default;
};

struct BackupManifest {
  std::string instance_id;
  uint32_t schema = 0;
  Time created{};
  BackupFile database;
  std::vector<BackupFile> artefacts;  // in ascending order of their digests
  uint64_t Bytes() const;
  friend bool operator==(const BackupManifest&,
                         const BackupManifest&) = default;
};

// Lines of text; the last one is the digest of those before.
std::string ManifestText(const BackupManifest& manifest);
// DATA_LOSS unless ManifestText() made it. Of bytes from anywhere.
Result<BackupManifest> ParseManifest(std::string_view text);

// [a-z0-9][a-z0-9.-]{0,63}
bool IsBackupName(std::string_view name);

// Makes DIRECTORY/NAME. Others go on using `store` and `blobs` meanwhile, but
// must not remove artefacts that rows name. INVALID_ARGUMENT: the name;
// ALREADY_EXISTS; CANCELLED once `stop` says so; DATA_LOSS: an artefact is
// damaged or gone; RESOURCE_EXHAUSTED (disk full), INTERNAL (I/O).
Result<BackupManifest> MakeBackup(SqliteStore& store, BlobStore& blobs,
                                  FileSystem& files, const Path& directory,
                                  const std::string& name,
                                  const std::function<bool()>& stop);

struct RestoreTarget {
  Path data_dir;
  Path blobs_dir;
  std::string database_file;  // in data_dir
};
struct Restored {
  BackupManifest manifest;
  std::string instance_id;  // with the new epoch
};
// Puts a backup where a coordinator will find it, and begins a new epoch there.
// Everything in the backup is verified before anything is changed: DATA_LOSS
// names what is damaged, truncated or missing. FAILED_PRECONDITION: data_dir
// holds more than keys (ca.pem, admin.token, keys/), blobs_dir is not empty, a
// coordinator is at work there, or the backup is of a newer program. The
// database appears last: a restore that did not finish leaves none.
Result<Restored> RestoreBackup(FileSystem& files, const Path& backup,
                               const RestoreTarget& target, Clock& clock,
                               RandomSource& random);

}  // namespace selvage::coordinator

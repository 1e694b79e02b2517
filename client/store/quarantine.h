// What becomes of a database that is damaged.
#pragma once

#include "base/file_system.h"
#include "base/status.h"

namespace selvage::client {

// Renames DATABASE and its WAL to DATABASE.damaged-N[-wal], N one higher than
// any there is, and removes all but the two newest. Through a power cut at any
// point DATABASE is either there with its WAL or out of the way. Returns the
// name it has now. REQUIRES: nobody has it open.
Result<Path> SetAside(FileSystem& files, const Path& database);

// Removes what SetAside() kept.
Status RemoveSetAside(FileSystem& files, const Path& database);

// A database that is not there has no log either: one that was left behind by
// SetAside() and a power cut is removed, so that it is not taken for the log of
// the next database.
Status RemoveOrphanedLog(FileSystem& files, const Path& database);

}  // namespace selvage::client

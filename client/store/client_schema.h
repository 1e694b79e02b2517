// The tables of a device's store and how they came about: numbered migrations,
// never edited, only added to.
#pragma once

#include "base/status.h"

namespace SQLite {
class Database;
}

namespace selvage::client {

// PRAGMA application_id of our files: "SlvC".
inline constexpr int kClientApplicationId = 0x536c7643;

// Brings an empty or older database up to date in one transaction, then checks
// that its tables are exactly those of this version. FAILED_PRECONDITION if a
// newer version made it; DATA_LOSS if it is not ours or its tables differ.
Status MigrateClientSchema(SQLite::Database& database);

}  // namespace selvage::client

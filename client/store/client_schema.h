// The tables of a device's store and how they came about: numbered migrations,
// never edited, only added to.
#pragma once

#include "base/bytes.h"
#include "base/status.h"
#include "base/time.h"
#include "client/store/value_seal.h"

namespace SQLite {
class Database;
}

namespace selvage::client {

// PRAGMA application_id of our files: "SlvC".
inline constexpr int kClientApplicationId = 0x536c7643;
// The first version whose values are sealed.
inline constexpr int kSealedSchemaVersion = 2;

// PRAGMA user_version: 0 for an empty database. DATA_LOSS if the database is
// not empty and not ours, FAILED_PRECONDITION if a newer version made it.
Result<int> ClientSchemaVersion(SQLite::Database& database);

// Brings an empty or older database up to date, then checks that its tables are
// exactly those of this version: DATA_LOSS if not. Values that lie open are
// sealed with `seal`, whose `wrapped_key` is kept; examples without a time are
// given `now`. One transaction: all of it, or none.
Status MigrateClientSchema(SQLite::Database& database, const ValueSeal& seal,
                           ByteSpan wrapped_key, Time now);

}  // namespace selvage::client

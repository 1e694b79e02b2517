// The schema of the SQLite store, as numbered migrations. A released migration
// is never edited: a change is a new number.
#pragma once

#include <cstdint>
#include <span>

namespace selvage::coordinator {

struct Migration {
  uint32_t version;
  const char* sql;
};

// In order, without gaps, from 1.
std::span<const Migration> Migrations();

// In the database's header: what kind of file this is ("SELV").
inline constexpr int64_t kApplicationId = 0x53454C56;

}  // namespace selvage::coordinator

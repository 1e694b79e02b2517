// The numbered migrations of the PostgreSQL schema. Each one is one
// transaction; a migration that was released is never changed.
#pragma once

#include <cstdint>
#include <span>

namespace selvage::coordinator {

struct PostgresMigration {
  int64_t version;
  const char* sql;
};

// In order, from 1.
std::span<const PostgresMigration> PostgresMigrations();

}  // namespace selvage::coordinator

// Devices that exist and never call.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"

namespace selvage::bench {

// Enrols `count` devices of `population` in the SQLite database of a
// coordinator that is not running.
Status RegisterDevices(const std::string& database,
                       const std::string& population, uint64_t count);

}  // namespace selvage::bench

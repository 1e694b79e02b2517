// What `--version` prints and what peers exchange.
#pragma once

#include <string_view>

namespace selvage {

std::string_view Version();  // "0.1.0"
std::string_view Commit();   // "1a2b3c4d5e6f", or "unknown" outside a checkout

}  // namespace selvage

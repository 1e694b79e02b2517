// JSON from outside, strictly.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/status.h"

namespace selvage::agent {

// RFC 8259, and nothing that readers could understand in two ways: no key
// twice, no nesting over 16. `what` names the text in errors; INVALID_ARGUMENT.
Result<nlohmann::ordered_json> ParseJson(std::string_view text,
                                         std::string_view what);

// For error messages: quoted, control characters escaped, at most 64 bytes.
std::string Quoted(std::string_view text);

}  // namespace selvage::agent

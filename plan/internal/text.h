// Words for error messages, and checks on text that came from outside.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.h"

namespace selvage::plan::internal {

bool IsValidUtf8(std::string_view text);

// True if every character is printable ASCII (0x20..0x7e).
bool IsPrintable(std::string_view text);

// `text` in single quotes, at most 80 characters of it, anything but printable
// ASCII replaced by '?', so that a hostile value cannot forge a log line.
std::string Quoted(std::string_view text);

// The shortest text that reads back as the same number.
std::string NumberText(double value);

// "250ms", "90s", "5m", "2h", "1d": the largest unit that is exact. Below a
// millisecond: "7us".
std::string DurationText(Duration value);

// The candidate that `word` was probably meant to be: at most two edits away,
// or one a prefix of the other. "" if there is none.
std::string_view Nearest(std::string_view word,
                         const std::vector<std::string_view>& candidates);

std::string Join(const std::vector<std::string_view>& words);  // "a, b, c"

}  // namespace selvage::plan::internal

#include "plan/internal/text.h"

#include <algorithm>
#include <charconv>
#include <numeric>

namespace selvage::plan::internal {
namespace {

constexpr size_t kQuotedSizeMax = 80;

size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row[b.size()];
}

}  // namespace

bool IsValidUtf8(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const auto lead = static_cast<uint8_t>(text[i]);
    size_t extra = 0;
    uint32_t smallest = 0;
    uint32_t code = 0;
    if (lead < 0x80) {
      ++i;
      continue;
    }
    if ((lead & 0xE0) == 0xC0) {
      extra = 1;
      smallest = 0x80;
      code = lead & 0x1F;
    } else if ((lead & 0xF0) == 0xE0) {
      extra = 2;
      smallest = 0x800;
      code = lead & 0x0F;
    } else if ((lead & 0xF8) == 0xF0) {
      extra = 3;
      smallest = 0x10000;
      code = lead & 0x07;
    } else {
      return false;
    }
    if (text.size() - i <= extra) return false;
    for (size_t k = 1; k <= extra; ++k) {
      const auto next = static_cast<uint8_t>(text[i + k]);
      if ((next & 0xC0) != 0x80) return false;
      code = code << 6 | (next & 0x3F);
    }
    const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
    if (code < smallest || code > 0x10FFFF || surrogate) return false;
    i += extra + 1;
  }
  return true;
}

bool IsPrintable(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return c >= 0x20 && c <= 0x7E; });
}

std::string Quoted(std::string_view text) {
  std::string out = "'";
  for (const char c : text.substr(0, kQuotedSizeMax)) {
    out += c >= 0x20 && c <= 0x7E ? c : '?';
  }
  if (text.size() > kQuotedSizeMax) out += "...";
  return out += "'";
}

std::string NumberText(double value) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
  return std::string(buffer, end);
}

std::string DurationText(Duration value) {
  struct Unit {
    int64_t micros;
    const char* name;
  };
  static constexpr Unit kUnits[] = {{86'400'000'000, "d"},
                                    {3'600'000'000, "h"},
                                    {60'000'000, "m"},
                                    {1'000'000, "s"},
                                    {1'000, "ms"}};
  for (const Unit& unit : kUnits) {
    if (value.count() != 0 && value.count() % unit.micros == 0) {
      return std::to_string(value.count() / unit.micros) + unit.name;
    }
  }
  return value.count() == 0 ? "0s" : std::to_string(value.count()) + "us";
}

std::string_view Nearest(std::string_view word,
                         const std::vector<std::string_view>& candidates) {
  constexpr size_t kEditsMax = 2;
  constexpr size_t kPrefixMin = 3;
  constexpr size_t kWordMax = 64;  // longer ones are no typing mistake
  if (word.size() > kWordMax) return {};
  std::string_view best;
  size_t best_edits = kEditsMax + 1;
  for (const std::string_view candidate : candidates) {
    const size_t edits = EditDistance(word, candidate);
    // "lr" is two edits away from every two-letter word: no hint at all.
    if (edits < best_edits && edits < std::max(word.size(), size_t{2})) {
      best = candidate;
      best_edits = edits;
    }
  }
  if (!best.empty()) return best;
  for (const std::string_view candidate : candidates) {
    const size_t common = std::min(word.size(), candidate.size());
    if (common >= kPrefixMin &&
        word.substr(0, common) == candidate.substr(0, common)) {
      return candidate;
    }
  }
  return {};
}

std::string Join(const std::vector<std::string_view>& words) {
  std::string out;
  for (const std::string_view word : words) {
    if (!out.empty()) out += ", ";
    out += word;
  }
  return out;
}

}  // namespace selvage::plan::internal

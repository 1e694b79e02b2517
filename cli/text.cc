#include "cli/text.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <limits>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/log.h"

namespace selvage::cli {
namespace {

bool IsNumeric(std::string_view cell) {
  return !cell.empty() &&
         cell.find_first_not_of("0123456789.-+/% ") == std::string_view::npos;
}

template <typename... Args>
std::string Format(const char* format, Args... args) {
  std::array<char, 64> buffer{};
  const int size = std::snprintf(buffer.data(), buffer.size(), format, args...);
  return std::string(buffer.data(), static_cast<size_t>(size));
}

}  // namespace

std::string Printable(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) c = '?';
  }
  return out;
}

size_t DisplayWidth(std::string_view text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(),
      [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

Table::Table(std::vector<std::string> header) {
  rows_.push_back(std::move(header));
}

void Table::Add(std::vector<std::string> cells) {
  SELVAGE_CHECK(cells.size() == rows_[0].size());
  for (std::string& cell : cells) cell = Printable(cell);
  rows_.push_back(std::move(cells));
}

std::string Table::ToString() const {
  const size_t columns = rows_[0].size();
  std::vector<size_t> widths(columns, 0);
  std::vector<bool> right(columns, rows_.size() > 1);
  for (size_t r = 0; r < rows_.size(); ++r) {
    for (size_t c = 0; c < columns; ++c) {
      const std::string& cell = rows_[r][c];
      widths[c] = std::max(widths[c], DisplayWidth(cell));
      if (r > 0 && cell != "-" && !IsNumeric(cell)) right[c] = false;
    }
  }
  std::string out;
  for (const auto& row : rows_) {
    std::string line;
    for (size_t c = 0; c < columns; ++c) {
      if (c > 0) line += "  ";
      const std::string pad(widths[c] - DisplayWidth(row[c]), ' ');
      line += right[c] ? pad + row[c] : row[c] + pad;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + '\n';
  }
  return out;
}

std::string Sparkline(std::span<const double> values, size_t width,
                      bool unicode) {
  static constexpr std::array<const char*, 8> kBars = {"▁", "▂", "▃", "▄",
                                                       "▅", "▆", "▇", "█"};
  static constexpr std::array<const char*, 8> kAscii = {"_", ".", ",", "-",
                                                        "=", "+", "*", "#"};
  if (width == 0 || values.empty()) return "";
  std::vector<double> points;
  const size_t group = (values.size() + width - 1) / width;
  for (size_t begin = 0; begin < values.size(); begin += group) {
    const auto part =
        values.subspan(begin, std::min(group, values.size() - begin));
    double sum = 0;
    for (const double v : part) sum += v;
    points.push_back(sum / static_cast<double>(part.size()));
  }
  double low = std::numeric_limits<double>::infinity();
  double high = -low;
  for (const double v : points) {
    if (!std::isfinite(v)) continue;
    low = std::min(low, v);
    high = std::max(high, v);
  }
  std::string out;
  for (const double v : points) {
    if (!std::isfinite(v)) {
      out += ' ';
      continue;
    }
    const double height = high > low ? (v - low) / (high - low) : 0.5;
    const auto level = static_cast<size_t>(std::lround(height * 7));
    out += unicode ? kBars[level] : kAscii[level];
  }
  return out;
}

std::string ProgressBar(uint64_t done, uint64_t total, size_t width,
                        bool unicode) {
  const double share = total == 0
                           ? 0
                           : std::min(1.0, static_cast<double>(done) /
                                               static_cast<double>(total));
  const auto full =
      static_cast<size_t>(std::lround(share * static_cast<double>(width)));
  std::string out;
  for (size_t i = 0; i < width; ++i) {
    out += unicode ? (i < full ? "█" : "░") : (i < full ? "#" : ".");
  }
  return out;
}

std::string FormatBytes(uint64_t bytes) {
  static constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB",
                                                        "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return Format(unit == 0 ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
}

std::string FormatDuration(Duration duration) {
  const int64_t micros = std::max<int64_t>(0, duration.count());
  const double seconds = static_cast<double>(micros) / 1e6;
  if (seconds < 60) return Format("%.1fs", seconds);
  const int64_t whole = micros / 1'000'000;
  if (whole < 3600) {
    return Format("%lldm%02llds", static_cast<long long>(whole / 60),
                  static_cast<long long>(whole % 60));
  }
  return Format("%lldh%02lldm", static_cast<long long>(whole / 3600),
                static_cast<long long>(whole / 60 % 60));
}

std::string FormatMicros(int64_t micros) {
  if (micros == 0) return "-";
  std::string text = FormatTime(FromMicros(micros));
  text[10] = ' ';
  return text.substr(0, 19) + "Z";
}

std::string FormatNumber(double value) {
  if (!std::isfinite(value)) return "-";
  return Format("%.4g", value);
}

Result<Duration> ParseDuration(std::string_view text) {
  const auto bad = [&] {
    return InvalidArgument("\"" + Printable(text) +
                           "\" is not a duration; write 250ms, 90s, 5m, 2h "
                           "or 1d");
  };
  int64_t count = 0;
  const char* end = text.data() + text.size();
  const auto [unit_begin, error] = std::from_chars(text.data(), end, count);
  const std::string_view unit(unit_begin,
                              static_cast<size_t>(end - unit_begin));
  if (error != std::errc() || count < 0 || count > 1'000'000'000) return bad();
  if (unit == "ms") return Duration(std::chrono::milliseconds(count));
  if (unit == "s") return Duration(std::chrono::seconds(count));
  if (count > 1'000'000) return bad();
  if (unit == "m") return Duration(std::chrono::minutes(count));
  if (unit == "h") return Duration(std::chrono::hours(count));
  if (unit == "d") return Duration(std::chrono::hours(24 * count));
  return bad();
}

std::string Nearest(std::string_view word,
                    std::span<const std::string> candidates) {
  const size_t limit = std::clamp<size_t>(word.size() / 3, 1, 3);
  size_t best = limit + 1;
  std::string out;
  for (const std::string& candidate : candidates) {
    // Optimal string alignment: Levenshtein's three edits, and two neighbours
    // exchanged, which is what hurried fingers do. Three rows at a time.
    std::vector<size_t> above_that;
    std::vector<size_t> above(candidate.size() + 1);
    for (size_t j = 0; j < above.size(); ++j) above[j] = j;
    for (size_t i = 1; i <= word.size(); ++i) {
      std::vector<size_t> row(above.size());
      row[0] = i;
      for (size_t j = 1; j < row.size(); ++j) {
        const size_t replaced =
            above[j - 1] + (word[i - 1] == candidate[j - 1] ? 0 : 1);
        row[j] = std::min({above[j] + 1, row[j - 1] + 1, replaced});
        if (i > 1 && j > 1 && word[i - 1] == candidate[j - 2] &&
            word[i - 2] == candidate[j - 1]) {
          row[j] = std::min(row[j], above_that[j - 2] + 1);
        }
      }
      above_that = std::move(above);
      above = std::move(row);
    }
    if (above.back() < best) {
      best = above.back();
      out = candidate;
    }
  }
  return out;
}

}  // namespace selvage::cli

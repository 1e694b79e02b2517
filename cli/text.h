// Text for people: tables, sparklines, sizes, times. Pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/time.h"

namespace selvage::cli {

// Left-aligned columns two spaces apart, a column whose cells are all numbers
// (below the header) to the right. Rows are as long as the header. Control
// characters in cells become '?', so a hostile name cannot drive a terminal.
class Table {
 public:
  explicit Table(std::vector<std::string> header);
  // REQUIRES: as many cells as the header has.
  void Add(std::vector<std::string> cells);
  std::string ToString() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

// `text` without control characters.
std::string Printable(std::string_view text);
// Columns that UTF-8 `text` takes when every code point takes one.
size_t DisplayWidth(std::string_view text);

// The last values as bars of eight heights between the smallest and the largest
// one; a flat line is drawn at half height, a NaN as a space. More values than
// `width` are averaged in groups. ASCII when `unicode` is false.
std::string Sparkline(std::span<const double> values, size_t width,
                      bool unicode);
// `done` of `total` as a bar of `width` columns.
std::string ProgressBar(uint64_t done, uint64_t total, size_t width,
                        bool unicode);

std::string FormatBytes(uint64_t bytes);        // "12.3 MiB"
std::string FormatDuration(Duration duration);  // "1h02m", "2m05s", "3.2s"
// "2026-11-22 16:04:18Z"; "-" for zero.
std::string FormatMicros(int64_t micros);
// Four significant digits.
std::string FormatNumber(double value);

// 250ms, 90s, 5m, 2h, 1d. INVALID_ARGUMENT names the text.
Result<Duration> ParseDuration(std::string_view text);

// The candidate with the smallest edit distance (two neighbours exchanged are
// one edit), "" if none is within a third of the word's length (at least 1, at
// most 3).
std::string Nearest(std::string_view word,
                    std::span<const std::string> candidates);

}  // namespace selvage::cli

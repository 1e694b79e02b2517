#include "client/agent/table.h"

#include <charconv>
#include <cmath>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "client/agent/image.h"
#include "client/agent/json.h"

namespace selvage::agent {
namespace {

constexpr size_t kColumnsMax = 65'536;
constexpr uint64_t kRowsMax = 1'000'000;
constexpr size_t kRowSizeMax = 1 << 20;

// Cuts CSV into cells, a row at a time.
class RowCutter {
 public:
  RowCutter(std::string_view text, char delimiter)
      : rest_(text), delimiter_(delimiter) {
    constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
    if (rest_.starts_with(kByteOrderMark)) {
      rest_.remove_prefix(kByteOrderMark.size());
    }
  }

  // The line that the row begins at, from 1.
  uint64_t line() const { return line_; }

  // false: there is no more. Lines with nothing on them are passed over.
  Result<bool> Next(std::vector<std::string>& cells) {
    while (!rest_.empty() && (rest_[0] == '\n' || rest_[0] == '\r')) {
      if (rest_[0] == '\n') ++next_line_;
      rest_.remove_prefix(1);
    }
    line_ = next_line_;
    cells.clear();
    if (rest_.empty()) return false;
    cells.emplace_back();
    bool quoted = false;      // inside quotes
    bool was_quoted = false;  // this cell had them
    size_t i = 0;
    for (; i < rest_.size(); ++i) {
      if (i > kRowSizeMax) return Bad("is longer than", kRowSizeMax);
      const char c = rest_[i];
      if (quoted) {
        if (c != '"') {
          if (c == '\n') ++next_line_;
          cells.back() += c;
        } else if (i + 1 < rest_.size() && rest_[i + 1] == '"') {
          cells.back() += '"';
          ++i;
        } else {
          quoted = false;
        }
      } else if (c == '"' && cells.back().empty() && !was_quoted) {
        quoted = true;
        was_quoted = true;
      } else if (c == delimiter_) {
        if (cells.size() >= kColumnsMax) {
          return Bad("has more cells than", kColumnsMax);
        }
        cells.emplace_back();
        was_quoted = false;
      } else if (c == '\n' || c == '\r') {
        break;
      } else if (was_quoted || c == '"') {
        return InvalidArgument("line " + std::to_string(line_) +
                               " has quotes in the middle of a cell");
      } else {
        cells.back() += c;
      }
    }
    if (quoted) {
      return InvalidArgument("line " + std::to_string(line_) +
                             " has quotes that do not end");
    }
    rest_.remove_prefix(i);
    return true;
  }

 private:
  Status Bad(const std::string& what, size_t bound) const {
    return InvalidArgument("line " + std::to_string(line_) + " " + what + " " +
                           std::to_string(bound));
  }

  std::string_view rest_;
  const char delimiter_;
  uint64_t line_ = 1;
  uint64_t next_line_ = 1;
};

std::string_view Trim(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

std::optional<double> NumberOf(std::string_view text) {
  text = Trim(text);
  double value = 0;
  const auto result =
      std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec != std::errc() || result.ptr != text.data() + text.size() ||
      !std::isfinite(value)) {
    return std::nullopt;
  }
  return value;
}

// Also "3.0" and "3.0e+00", which numerical tools write for a whole number.
std::optional<int64_t> WholeOf(std::string_view text) {
  text = Trim(text);
  int64_t value = 0;
  const auto result =
      std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec == std::errc() && result.ptr == text.data() + text.size()) {
    return value;
  }
  const std::optional<double> number = NumberOf(text);
  constexpr double kExactMax = 9007199254740992;  // 2^53
  if (!number.has_value() || std::abs(*number) > kExactMax ||
      *number != std::floor(*number)) {
    return std::nullopt;
  }
  return static_cast<int64_t>(*number);
}

class TableReader final : public ExampleReader {
 public:
  TableReader(std::string_view csv, const Manifest& manifest,
              ImageLoader images)
      : manifest_(manifest),
        images_(std::move(images)),
        rows_(csv, manifest.delimiter) {}

  Status ReadHeader() {
    SELVAGE_ASSIGN_OR_RETURN(const bool any, rows_.Next(header_));
    if (!any) return InvalidArgument("the table has no header");
    std::map<std::string, size_t, std::less<>> index;
    for (size_t i = 0; i < header_.size(); ++i) {
      header_[i] = std::string(Trim(header_[i]));
      if (!index.emplace(header_[i], i).second) {
        return InvalidArgument("the header has the column " +
                               Quoted(header_[i]) + " twice");
      }
    }
    const auto find = [&](const std::string& name) -> Result<size_t> {
      const auto it = index.find(name);
      if (it != index.end()) return it->second;
      return InvalidArgument("the header has no column " + Quoted(name));
    };
    for (const TensorSpec& tensor : manifest_.tensors) {
      std::vector<size_t>& columns = columns_.emplace_back();
      if (tensor.columns.empty()) {
        return InvalidArgument("tensor " + Quoted(tensor.name) +
                               " of the manifest has no columns");
      }
      for (const std::string& name : tensor.columns) {
        const size_t dots = name.find("..");
        if (dots == std::string::npos || index.contains(name)) {
          SELVAGE_ASSIGN_OR_RETURN(const size_t column, find(name));
          columns.push_back(column);
          continue;
        }
        SELVAGE_ASSIGN_OR_RETURN(const size_t first,
                                 find(name.substr(0, dots)));
        SELVAGE_ASSIGN_OR_RETURN(const size_t last,
                                 find(name.substr(dots + 2)));
        for (size_t i = first; i <= last; ++i) columns.push_back(i);
      }
      if (!tensor.image.has_value() && columns.size() != tensor.Count()) {
        return InvalidArgument("tensor " + Quoted(tensor.name) + " has " +
                               std::to_string(tensor.Count()) +
                               " elements, its columns are " +
                               std::to_string(columns.size()));
      }
    }
    if (!manifest_.timestamp_column.empty()) {
      SELVAGE_ASSIGN_OR_RETURN(timestamp_, find(manifest_.timestamp_column));
    }
    return OkStatus();
  }

  Result<std::optional<SpooledExample>> Next() override {
    SELVAGE_ASSIGN_OR_RETURN(const bool any, rows_.Next(cells_));
    if (!any) return std::optional<SpooledExample>();
    if (++count_ > kRowsMax) {
      return InvalidArgument("the table has more than " +
                             std::to_string(kRowsMax) + " rows");
    }
    if (cells_.size() != header_.size()) {
      return InvalidArgument("line " + std::to_string(rows_.line()) + " has " +
                             std::to_string(cells_.size()) +
                             " cells, the header " +
                             std::to_string(header_.size()));
    }
    SpooledExample example;
    example.local_only = manifest_.local_only;
    for (size_t t = 0; t < columns_.size(); ++t) {
      const TensorSpec& tensor = manifest_.tensors[t];
      if (tensor.image.has_value()) {
        SELVAGE_ASSIGN_OR_RETURN(Bytes bytes,
                                 ReadImage(tensor, columns_[t].front()));
        example.tensors.push_back(std::move(bytes));
        continue;
      }
      Bytes& bytes = example.tensors.emplace_back();
      bytes.reserve(static_cast<size_t>(tensor.Size()));
      for (size_t i = 0; i < columns_[t].size(); ++i) {
        SELVAGE_RETURN_IF_ERROR(AppendValue(tensor, columns_[t][i], i, bytes));
      }
    }
    if (timestamp_.has_value()) {
      const std::optional<double> value = NumberOf(cells_[*timestamp_]);
      const double micros =
          value.value_or(-1) * static_cast<double>(manifest_.timestamp_unit_us);
      constexpr double kMost = 1e18;
      if (!(micros > 0 && micros < kMost)) {
        return Bad(*timestamp_, "a time since 1970");
      }
      // A whole number of any unit is exact, unlike its double.
      const std::optional<int64_t> whole = WholeOf(cells_[*timestamp_]);
      example.timestamp_us = whole.has_value()
                                 ? *whole * manifest_.timestamp_unit_us
                                 : static_cast<int64_t>(micros);
    }
    return std::optional<SpooledExample>(std::move(example));
  }

 private:
  Status Bad(size_t column, const std::string& what) const {
    return InvalidArgument("line " + std::to_string(rows_.line()) +
                           ", column " + Quoted(header_[column]) + ": " +
                           Quoted(cells_[column]) + " is not " + what);
  }

  Status AppendValue(const TensorSpec& tensor, size_t column, size_t i,
                     Bytes& bytes) const {
    const std::string& cell = cells_[column];
    if (tensor.dtype == SELVAGE_F32) {
      const std::optional<double> number = NumberOf(cell);
      if (!number.has_value()) return Bad(column, "a finite number");
      const auto value =
          static_cast<float>((*number * tensor.scale -
                              tensor.mean[tensor.mean.size() == 1 ? 0 : i]) /
                             tensor.std[tensor.std.size() == 1 ? 0 : i]);
      if (!std::isfinite(value)) return Bad(column, "a number of float32");
      AppendLe(bytes, value);
      return OkStatus();
    }
    if (!tensor.classes.empty()) {
      for (size_t c = 0; c < tensor.classes.size(); ++c) {
        if (tensor.classes[c] != Trim(cell)) continue;
        AppendLe(bytes, static_cast<int64_t>(c));
        return OkStatus();
      }
      return Bad(column, "one of the " + std::to_string(tensor.classes.size()) +
                             " classes");
    }
    const std::optional<int64_t> whole = WholeOf(cell);
    if (!whole.has_value()) return Bad(column, "a whole number");
    if (tensor.dtype == SELVAGE_I64) {
      AppendLe(bytes, *whole);
      return OkStatus();
    }
    if (*whole < 0 || *whole > 255) return Bad(column, "in 0..255");
    bytes.push_back(static_cast<uint8_t>(*whole));
    return OkStatus();
  }

  Result<Bytes> ReadImage(const TensorSpec& tensor, size_t column) const {
    const std::string& name = cells_[column];
    const auto where = [&](const Status& status) {
      return status.WithContext("line " + std::to_string(rows_.line()) +
                                ", image " + Quoted(name));
    };
    const Result<Bytes> file = images_(name);
    if (!file.ok()) return where(file.status());
    const ImageSpec& spec = *tensor.image;
    const Result<Bytes> decoded = DecodeImage(*file, spec);
    if (!decoded.ok()) return where(decoded.status());
    const auto channels = static_cast<size_t>(spec.channels);
    const size_t pixels = decoded->size() / channels;
    Bytes out;
    out.reserve(static_cast<size_t>(tensor.Size()));
    for (size_t i = 0; i < decoded->size(); ++i) {
      const size_t channel = spec.channels_first ? i / pixels : i % channels;
      const size_t pixel = spec.channels_first ? i % pixels : i / channels;
      const uint8_t sample = (*decoded)[pixel * channels + channel];
      if (tensor.dtype == SELVAGE_U8) {
        out.push_back(sample);
        continue;
      }
      AppendLe(out, static_cast<float>(
                        (sample * tensor.scale -
                         tensor.mean[tensor.mean.size() == 1 ? 0 : channel]) /
                        tensor.std[tensor.std.size() == 1 ? 0 : channel]));
    }
    return out;
  }

  const Manifest& manifest_;
  const ImageLoader images_;
  RowCutter rows_;
  std::vector<std::string> header_;
  std::vector<std::string> cells_;
  std::vector<std::vector<size_t>> columns_;  // of each tensor
  std::optional<size_t> timestamp_;
  uint64_t count_ = 0;
};

}  // namespace

Result<std::unique_ptr<ExampleReader>> OpenTable(std::string_view csv,
                                                 const Manifest& manifest,
                                                 ImageLoader images) {
  auto reader = std::make_unique<TableReader>(csv, manifest, std::move(images));
  SELVAGE_RETURN_IF_ERROR(reader->ReadHeader());
  return std::unique_ptr<ExampleReader>(std::move(reader));
}

}  // namespace selvage::agent

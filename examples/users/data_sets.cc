#include "examples/users/data_sets.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace selvage::users {
namespace {

using Type = Column::Type;

// The parts of `text` between separators.
std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> out;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(separator, begin), text.size());
    out.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return out;
}

// Lines without what ends them (CR LF or LF), empty ones left out.
std::vector<std::string_view> Lines(std::string_view text) {
  std::vector<std::string_view> out;
  for (std::string_view line : Split(text, '\n')) {
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty()) out.push_back(line);
  }
  return out;
}

template <typename T>
std::optional<T> Number(std::string_view text) {
  T value{};
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || rest != end) return std::nullopt;
  return value;
}

Status BadLine(const char* file, size_t line, const std::string& problem) {
  return InvalidArgument(std::string(file) + ", line " + std::to_string(line) +
                         ": " + problem);
}

Status TooFew(const char* what, size_t there, const Sample& sample) {
  return InvalidArgument(
      "there are " + std::to_string(there) + " " + what + "; " +
      std::to_string(sample.devices + sample.newcomers) + " are wanted");
}

void AddLabel(Column& y, size_t label) {
  const uint8_t byte = static_cast<uint8_t>(label);
  y.Add(ByteSpan(&byte, 1));
}

// A user without examples yet.
User NewUser(std::string name, const Column& x, const Column& y) {
  return {std::move(name), {x, y}, {x, y}};
}

// ------------------------------------------------------------------ activity

constexpr size_t kSensors = 9;
constexpr size_t kWindow = 128;
constexpr size_t kStride = 64;
constexpr float kSensorScale = 5000;

struct Series {
  int subject;
  uint8_t activity;
  bool newcomer;
  size_t start;
  size_t rows;
};

Result<std::vector<Series>> ParseIndex(std::string_view index, size_t rows) {
  std::vector<Series> out;
  const std::vector<std::string_view> lines = Lines(index);
  for (size_t i = 1; i < lines.size(); ++i) {  // after the header
    const std::vector<std::string_view> fields = Split(lines[i], ',');
    if (fields.size() != 5) {
      return BadLine("index.csv", i + 1, "it does not have 5 fields");
    }
    const auto subject = Number<int>(fields[0]);
    const auto activity = Number<uint8_t>(fields[1]);
    const auto start = Number<uint32_t>(fields[3]);
    const auto count = Number<uint32_t>(fields[4]);
    if (!subject || !activity || !start || !count || *activity > 5 ||
        (fields[2] != "train" && fields[2] != "test")) {
      return BadLine("index.csv", i + 1, "a field is out of range");
    }
    if (uint64_t{*start} + *count > rows) {
      return BadLine("index.csv", i + 1,
                     "rows end at " +
                         std::to_string(uint64_t{*start} + *count) + " of " +
                         std::to_string(rows));
    }
    out.push_back({*subject, *activity, fields[2] == "test", *start, *count});
  }
  return out;
}

void AddWindow(ByteSpan series, size_t row, size_t channels, uint8_t activity,
               Examples& to) {
  std::vector<float> window(channels * kWindow);
  for (size_t t = 0; t < kWindow; ++t) {
    for (size_t c = 0; c < channels; ++c) {
      const size_t at = 2 * ((row + t) * kSensors + c);
      const auto value =
          static_cast<int16_t>(series[at] | uint16_t{series[at + 1]} << 8);
      window[c * kWindow + t] = static_cast<float>(value) / kSensorScale;
    }
  }
  to.x.Add(window);
  AddLabel(to.y, activity);
}

// --------------------------------------------------------------------- wisdm

constexpr size_t kWisdmFeatures = 43;
constexpr std::array<std::string_view, 6> kWisdmActivities = {
    "Walking", "Jogging", "Upstairs", "Downstairs", "Sitting", "Standing"};

struct WisdmRow {
  size_t activity;
  std::vector<float> features;
};

Result<std::map<int, std::vector<WisdmRow>>> ParseWisdm(std::string_view arff) {
  std::map<int, std::vector<WisdmRow>> out;
  const std::vector<std::string_view> lines = Lines(arff);
  const auto data = std::find(lines.begin(), lines.end(), "@data");
  if (data == lines.end()) return InvalidArgument("the ARFF file has no @data");
  for (auto line = data + 1; line != lines.end(); ++line) {
    const auto number = static_cast<size_t>(line - lines.begin()) + 1;
    const std::vector<std::string_view> fields = Split(*line, ',');
    if (fields.size() != kWisdmFeatures + 3) {
      return BadLine("the ARFF file", number, "it does not have 46 fields");
    }
    const auto user = Number<int>(fields[1]);
    const auto* const activity = std::find(
        kWisdmActivities.begin(), kWisdmActivities.end(), fields.back());
    if (!user || activity == kWisdmActivities.end()) {
      return BadLine("the ARFF file", number, "user or activity is unknown");
    }
    WisdmRow row{static_cast<size_t>(activity - kWisdmActivities.begin()), {}};
    for (size_t i = 0; i < kWisdmFeatures; ++i) {
      const std::string_view field = fields[2 + i];
      const auto value = field == "?" ? 0.0F : Number<float>(field);
      if (!value || !std::isfinite(*value)) {
        return BadLine("the ARFF file", number,
                       std::string(field) + " is not a number");
      }
      row.features.push_back(*value);
    }
    out[*user].push_back(std::move(row));
  }
  return out;
}

// ------------------------------------------------------------------- writers

constexpr size_t kWriterImagesMin = 100;

uint32_t BigEndian(ByteSpan bytes, size_t offset) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value = value << 8 | bytes[offset + i];
  return value;
}

// The values of an IDX file of unsigned bytes.
Result<ByteSpan> IdxValues(ByteSpan file, size_t rank, const char* name) {
  const size_t header = 4 + 4 * rank;
  const std::array<uint8_t, 4> magic = {0, 0, 8, static_cast<uint8_t>(rank)};
  if (file.size() < header ||
      !std::equal(magic.begin(), magic.end(), file.begin())) {
    return InvalidArgument(std::string("the ") + name +
                           " are not an IDX file of rank " +
                           std::to_string(rank));
  }
  uint64_t size = 1;
  for (size_t i = 0; i < rank; ++i) size *= BigEndian(file, 4 + 4 * i);
  if (file.size() - header != size) {
    return InvalidArgument(std::string("the ") + name + " have " +
                           std::to_string(file.size() - header) +
                           " values; their header says " +
                           std::to_string(size));
  }
  return file.subspan(header);
}

// --------------------------------------------------------------------- roles

constexpr size_t kRoleCharactersMin = 5000;
constexpr size_t kSequence = 80;

uint8_t Code(char c) {
  if (c == '\n') return 0;
  return static_cast<uint8_t>((c < ' ' || c > '~' ? '?' : c) - 31);
}

struct RoleText {
  std::string name;
  std::string text;
};

Result<std::vector<RoleText>> ParseRoles(std::string_view tsv) {
  std::vector<RoleText> out;
  const std::vector<std::string_view> lines = Lines(tsv);
  for (size_t i = 0; i < lines.size(); ++i) {
    const std::vector<std::string_view> fields = Split(lines[i], '\t');
    if (fields.size() != 3) {
      return BadLine("roles.tsv", i + 1, "it does not have 3 fields");
    }
    const nlohmann::json text = nlohmann::json::parse(
        fields[2], /*cb=*/nullptr, /*allow_exceptions=*/false);
    if (!text.is_string()) {
      return BadLine("roles.tsv", i + 1, "the text is not a JSON string");
    }
    out.push_back({std::string(fields[0]) + "/" + std::string(fields[1]),
                   text.get<std::string>()});
  }
  return out;
}

}  // namespace

Result<ActivityUsers> ReadActivity(std::string_view index, ByteSpan series,
                                   uint32_t channels) {
  if (channels == 0 || channels > kSensors) {
    return InvalidArgument(std::to_string(channels) +
                           " channels are not in 1..9");
  }
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<Series> all,
                           ParseIndex(index, series.size() / (2 * kSensors)));
  const Column x(Type::kFloats, {channels, uint32_t{kWindow}});
  const Column y(Type::kBytes, {});
  std::map<std::pair<bool, int>, User> users;  // devices first
  for (const Series& one : all) {
    User& user = users
                     .try_emplace({one.newcomer, one.subject},
                                  NewUser(std::to_string(one.subject), x, y))
                     .first->second;
    if (one.rows < kWindow) continue;
    const size_t windows = (one.rows - kWindow) / kStride + 1;
    const size_t train = TrainCount(windows);
    for (size_t i = 0; i < windows; ++i) {
      if (i == train) continue;  // it overlaps the last one for training
      AddWindow(series, one.start + i * kStride, channels, one.activity,
                i < train ? user.train : user.test);
    }
  }
  ActivityUsers out;
  for (auto& [key, user] : users) {
    if (!key.first) ++out.devices;
    out.users.push_back(std::move(user));
  }
  return out;
}

Result<Users> ReadWisdm(std::string_view arff, const Sample& sample) {
  SELVAGE_ASSIGN_OR_RETURN(const auto rows, ParseWisdm(arff));
  if (rows.size() < sample.devices + sample.newcomers) {
    return TooFew("users", rows.size(), sample);
  }
  std::vector<int> names;
  for (const auto& [name, of_user] : rows) names.push_back(name);
  SeededRandom random(DeriveSeed(sample.seed, "users", 0));
  Users out;
  for (const size_t i :
       Draw(names.size(), sample.devices + sample.newcomers, random)) {
    User user = NewUser(std::to_string(names[i]),
                        Column(Type::kFloats, {uint32_t{kWisdmFeatures}}),
                        Column(Type::kBytes, {}));
    std::array<std::vector<const WisdmRow*>, kWisdmActivities.size()> by;
    for (const WisdmRow& row : rows.at(names[i])) {
      by[row.activity].push_back(&row);
    }
    for (size_t activity = 0; activity < by.size(); ++activity) {
      const size_t train = TrainCount(by[activity].size());
      for (size_t k = 0; k < by[activity].size(); ++k) {
        Examples& to = k < train ? user.train : user.test;
        to.x.Add(by[activity][k]->features);
        AddLabel(to.y, activity);
      }
    }
    out.push_back(std::move(user));
  }
  return out;
}

Result<Users> ReadWriters(ByteSpan images, ByteSpan labels, ByteSpan writers,
                          const Sample& sample) {
  SELVAGE_ASSIGN_OR_RETURN(const ByteSpan pixels,
                           IdxValues(images, 3, "images"));
  SELVAGE_ASSIGN_OR_RETURN(const ByteSpan digits,
                           IdxValues(labels, 1, "labels"));
  const size_t count = BigEndian(images, 4);
  const uint32_t rows = BigEndian(images, 8);
  const uint32_t columns = BigEndian(images, 12);
  if (digits.size() != count || writers.size() != 2 * count) {
    return InvalidArgument("there are " + std::to_string(count) + " images, " +
                           std::to_string(digits.size()) + " labels and " +
                           std::to_string(writers.size() / 2) + " writers");
  }
  std::map<int, std::vector<size_t>> by;
  for (size_t i = 0; i < count; ++i) {
    by[writers[2 * i] | writers[2 * i + 1] << 8].push_back(i);
  }
  std::vector<int> names;
  for (const auto& [name, of_writer] : by) {
    if (of_writer.size() >= kWriterImagesMin) names.push_back(name);
  }
  if (names.size() < sample.devices + sample.newcomers) {
    return TooFew("writers of 100 images", names.size(), sample);
  }
  SeededRandom random(DeriveSeed(sample.seed, "users", 0));
  Users out;
  const size_t size = size_t{rows} * columns;
  for (const size_t i :
       Draw(names.size(), sample.devices + sample.newcomers, random)) {
    User user = NewUser(std::to_string(names[i]),
                        Column(Type::kBytes, {1, rows, columns}),
                        Column(Type::kBytes, {}));
    std::vector<size_t>& of_writer = by[names[i]];
    Shuffle(of_writer, random);
    const size_t train = TrainCount(of_writer.size());
    for (size_t k = 0; k < of_writer.size(); ++k) {
      Examples& to = k < train ? user.train : user.test;
      to.x.Add(pixels.subspan(of_writer[k] * size, size));
      AddLabel(to.y, digits[of_writer[k]]);
    }
    out.push_back(std::move(user));
  }
  return out;
}

Result<Users> ReadRoles(std::string_view tsv, const RoleSizes& sizes,
                        const Sample& sample) {
  SELVAGE_ASSIGN_OR_RETURN(std::vector<RoleText> roles, ParseRoles(tsv));
  std::erase_if(roles, [](const RoleText& role) {
    return role.text.size() < kRoleCharactersMin;
  });
  if (roles.size() < sample.devices + sample.newcomers) {
    return TooFew("roles of 5000 characters", roles.size(), sample);
  }
  SeededRandom random(DeriveSeed(sample.seed, "users", 0));
  Users out;
  for (const size_t i :
       Draw(roles.size(), sample.devices + sample.newcomers, random)) {
    const Column sequences(Type::kBytes, {uint32_t{kSequence}});
    User user = NewUser(roles[i].name, sequences, sequences);
    Bytes codes;
    for (const char c : roles[i].text) codes.push_back(Code(c));
    const size_t count = (codes.size() - 1) / kSequence;
    const size_t train = count * 80 / 100;
    for (size_t k = 0; k < count; ++k) {
      Examples& to = k < train ? user.train : user.test;
      if (to.x.count() == (k < train ? sizes.train_max : sizes.test_max)) {
        continue;
      }
      to.x.Add(ByteSpan(codes).subspan(k * kSequence, kSequence));
      to.y.Add(ByteSpan(codes).subspan(k * kSequence + 1, kSequence));
    }
    out.push_back(std::move(user));
  }
  return out;
}

}  // namespace selvage::users

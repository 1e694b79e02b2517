#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>

#include "plan/internal/fields.h"
#include "plan/internal/text.h"

namespace selvage::plan::internal {
namespace {

using Kind = Node::Kind;

template <typename T>
std::errc ParseNumber(std::string_view text, T& value) {
  const char* const end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value);
  if (result.ec == std::errc() && result.ptr != end) {
    return std::errc::invalid_argument;
  }
  return result.ec;
}

bool IsNumeric(const Node& node) {
  return node.kind == Kind::kPlain || node.kind == Kind::kNumber;
}

// What a value is, for "train.lr is X; must be ...".
std::string Shown(const Node& node) {
  switch (node.kind) {
    case Kind::kNull:
      return "empty";
    case Kind::kString:
      return "the text " + Quoted(node.text);
    case Kind::kPlain:
    case Kind::kNumber:
    case Kind::kBool: {
      const std::string quoted = Quoted(node.text);
      return quoted.substr(1, quoted.size() - 2);
    }
    case Kind::kList:
      return "a list";
    case Kind::kMap:
      return "a mapping";
  }
  return "";
}

std::optional<Duration> ParseDuration(std::string_view text) {
  struct Unit {
    std::string_view name;
    int64_t micros;
  };
  static constexpr Unit kUnits[] = {{"ms", 1'000},
                                    {"s", 1'000'000},
                                    {"m", 60'000'000},
                                    {"h", 3'600'000'000},
                                    {"d", 86'400'000'000}};
  const size_t digits =
      std::min(text.find_first_not_of("0123456789"), text.size());
  int64_t count = 0;
  if (ParseNumber(text.substr(0, digits), count) != std::errc()) return {};
  for (const Unit& unit : kUnits) {
    if (text.substr(digits) == unit.name &&
        count <= std::numeric_limits<int64_t>::max() / unit.micros) {
      return Duration(count * unit.micros);
    }
  }
  return {};
}

class FieldReader final : public Fields {
 public:
  FieldReader(const Node& node, std::string path, Status& status)
      : node_(node), path_(std::move(path)), status_(status) {}

  void Integer(std::string_view key, IntBound bound, int64_t& value) override {
    const Node* node = Take(key);
    if (node != nullptr) ReadInteger(PathOf(key), *node, bound, value);
  }
  void Unsigned(std::string_view key, uint64_t max, uint64_t& value) override {
    const Node* node = Take(key);
    if (node == nullptr) return;
    uint64_t read = 0;
    if (!IsNumeric(*node) || ParseNumber(node->text, read) != std::errc() ||
        read > max) {
      return Refuse(PathOf(key), *node,
                    "must be a whole number in 0.." + std::to_string(max));
    }
    value = read;
  }
  void Real(std::string_view key, RealBound bound, double& value) override {
    const Node* node = Take(key);
    if (node == nullptr) return;
    double read = 0;
    if (!IsNumeric(*node) || ParseNumber(node->text, read) != std::errc()) {
      return Refuse(PathOf(key), *node,
                    "must be a number" + BoundSuffix(bound));
    }
    const std::string problem = BoundProblem(bound, read);
    if (!problem.empty()) return Refuse(PathOf(key), *node, problem);
    value = read;
  }
  void Bool(std::string_view key, bool& value) override {
    const Node* node = Take(key);
    if (node == nullptr) return;
    const bool typed = node->kind == Kind::kPlain || node->kind == Kind::kBool;
    if (!typed || (node->text != "true" && node->text != "false")) {
      return Refuse(PathOf(key), *node, "must be true or false");
    }
    value = node->text == "true";
  }
  void Text(std::string_view key, TextRule rule, std::string& value) override {
    const Node* node = Take(key);
    if (node != nullptr) ReadText(PathOf(key), *node, rule, value);
  }
  void Choose(std::string_view key, const std::vector<Choice>& choices,
              int& index) override {
    const Node* node = Take(key);
    if (node == nullptr) return;
    std::vector<std::string_view> available;
    for (const Choice& choice : choices) {
      if (choice.available) available.push_back(choice.name);
    }
    const bool word = node->kind == Kind::kPlain || node->kind == Kind::kString;
    for (size_t i = 0; word && i < choices.size(); ++i) {
      if (choices[i].name != node->text) continue;
      if (!choices[i].available) {
        return Keep(
            ErrorAt(node->line, PathOf(key) + ": " + node->text +
                                    " is not available in this version"));
      }
      index = static_cast<int>(i);
      return;
    }
    const std::string_view nearest =
        word ? Nearest(node->text, available) : std::string_view();
    Refuse(PathOf(key), *node,
           nearest.empty() ? "must be one of " + Join(available)
                           : "did you mean " + std::string(nearest) + "?");
  }
  void Span(std::string_view key, Duration min, Duration max,
            Duration& value) override {
    const Node* node = Take(key);
    if (node == nullptr) return;
    std::optional<Duration> read;
    if (node->kind == Kind::kPlain) read = ParseDuration(node->text);
    int64_t micros = 0;
    if (node->kind == Kind::kNumber &&
        ParseNumber(node->text, micros) == std::errc()) {
      read = Duration(micros);
    }
    if (!read.has_value()) {
      return Refuse(PathOf(key), *node,
                    "must be a duration such as 250ms, 90s, 5m, 2h or 1d");
    }
    const std::string problem = BoundProblem(min, max, *read);
    if (!problem.empty()) return Refuse(PathOf(key), *node, problem);
    value = *read;
  }
  void TextList(std::string_view key, IntBound count, TextRule rule,
                std::vector<std::string>& values) override {
    const Node* node = TakeList(key, count);
    if (node == nullptr) return;
    values.assign(node->children.size(), "");
    for (size_t i = 0; i < values.size(); ++i) {
      ReadText(ItemPath(key, i), node->children[i], rule, values[i]);
    }
  }
  void IntList(std::string_view key, IntBound count, IntBound each,
               std::vector<int64_t>& values) override {
    const Node* node = TakeList(key, count);
    if (node == nullptr) return;
    values.assign(node->children.size(), 0);
    for (size_t i = 0; i < values.size(); ++i) {
      ReadInteger(ItemPath(key, i), node->children[i], each, values[i]);
    }
  }
  void MapList(std::string_view key, IntBound count, size_t,
               const std::function<void(size_t)>& resize,
               const std::function<void(Fields&, size_t)>& visit) override {
    const Node* node = TakeList(key, count);
    if (node == nullptr) return;
    resize(node->children.size());
    for (size_t i = 0; i < node->children.size() && status_.ok(); ++i) {
      ReadMap(node->children[i], ItemPath(key, i),
              [&](Fields& fields) { visit(fields, i); });
    }
  }
  void Section(std::string_view key, const Visit& visit) override {
    const Node* node = Take(key);
    if (node != nullptr) ReadMap(*node, PathOf(key), visit);
  }
  void OptionalSection(std::string_view key, bool& present,
                       const Visit& visit) override {
    present = node_.Find(key) != nullptr;
    Section(key, visit);
  }
  void Require(std::string_view key) override {
    if (node_.Find(key) == nullptr) {
      Keep(ErrorAt(node_.line, PathOf(key) + " is missing"));
    }
  }
  void Unavailable(std::string_view key) override {
    const Node* node = Take(key);
    if (node != nullptr) {
      Keep(ErrorAt(node->key_line,
                   PathOf(key) + " is not available in this version"));
    }
  }
  void Inapplicable(std::string_view key, std::string_view why, bool) override {
    const Node* node = Take(key);
    if (node != nullptr) {
      Keep(ErrorAt(node->key_line, PathOf(key) + ": " + std::string(why)));
    }
  }

  // A mistyped key comes before whatever else is wrong: it often is the cause.
  void Finish(Status before) {
    for (const Node& child : node_.children) {
      if (std::find(known_.begin(), known_.end(), child.key) != known_.end()) {
        continue;
      }
      const std::string_view nearest = Nearest(child.key, known_);
      const std::string quoted = Quoted(child.key);
      std::string message =
          PathOf(quoted.substr(1, quoted.size() - 2)) + " is not a key here; ";
      message += nearest.empty() ? "the keys are " + Join(known_)
                                 : "did you mean " + std::string(nearest) + "?";
      if (before.ok()) status_ = ErrorAt(child.key_line, std::move(message));
      return;
    }
  }

 private:
  const Node* Take(std::string_view key) {
    known_.push_back(key);
    return node_.Find(key);
  }
  const Node* TakeList(std::string_view key, IntBound count) {
    const Node* node = Take(key);
    if (node == nullptr) return nullptr;
    if (node->kind != Kind::kList) {
      Refuse(PathOf(key), *node, "must be a list");
      return nullptr;
    }
    const std::string problem = CountProblem(count, node->children.size());
    if (!problem.empty()) {
      Keep(ErrorAt(node->line, PathOf(key) + " " + problem));
      return nullptr;
    }
    return node;
  }
  void ReadMap(const Node& node, const std::string& path, const Visit& visit) {
    if (node.kind != Kind::kMap) {
      return Refuse(path, node, "must be a mapping of keys to values");
    }
    const Status before = status_;
    FieldReader child(node, path, status_);
    visit(child);
    child.Finish(before);
  }
  void ReadInteger(const std::string& path, const Node& node, IntBound bound,
                   int64_t& value) {
    int64_t read = 0;
    const std::errc error = ParseNumber(node.text, read);
    if (!IsNumeric(node) || error == std::errc::invalid_argument) {
      return Refuse(path, node,
                    "must be a whole number in " + std::to_string(bound.min) +
                        ".." + std::to_string(bound.max));
    }
    if (error == std::errc::result_out_of_range) {
      read = node.text.starts_with('-') ? std::numeric_limits<int64_t>::min()
                                        : std::numeric_limits<int64_t>::max();
    }
    const std::string problem = BoundProblem(bound, read);
    if (!problem.empty()) return Refuse(path, node, problem);
    value = read;
  }
  void ReadText(const std::string& path, const Node& node, TextRule rule,
                std::string& value) {
    if (node.kind != Kind::kPlain && node.kind != Kind::kString) {
      return Refuse(path, node, "must be text");
    }
    const std::string problem = rule(node.text);
    if (!problem.empty()) {
      return Keep(ErrorAt(node.line,
                          path + " is " + Quoted(node.text) + "; " + problem));
    }
    value = node.text;
  }
  static std::string BoundSuffix(RealBound bound) {
    // What a number that is in no range is told.
    return BoundProblem(bound, std::numeric_limits<double>::quiet_NaN())
        .substr(std::string_view("must be").size());
  }
  std::string PathOf(std::string_view key) const {
    return path_.empty() ? std::string(key) : path_ + "." + std::string(key);
  }
  std::string ItemPath(std::string_view key, size_t i) const {
    return PathOf(key) + "[" + std::to_string(i) + "]";
  }
  void Refuse(const std::string& path, const Node& node,
              const std::string& problem) {
    Keep(ErrorAt(node.line, path + " is " + Shown(node) + "; " + problem));
  }
  void Keep(Status status) {
    if (status_.ok()) status_ = std::move(status);
  }

  const Node& node_;
  const std::string path_;
  Status& status_;
  std::vector<std::string_view> known_;  // every key that was asked for
};

}  // namespace

Status ReadFields(const Node& root, std::string_view what,
                  const Fields::Visit& visit) {
  if (root.kind != Kind::kMap) {
    return ErrorAt(root.line, std::string(what) + " is " + Shown(root) +
                                  "; must be a mapping of keys to values");
  }
  Status status;
  FieldReader reader(root, "", status);
  visit(reader);
  reader.Finish(OkStatus());
  return status;
}

}  // namespace selvage::plan::internal

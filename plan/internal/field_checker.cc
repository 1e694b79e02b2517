#include <cmath>

#include "plan/internal/fields.h"
#include "plan/internal/text.h"

namespace selvage::plan::internal {
namespace {

class FieldChecker final : public Fields {
 public:
  FieldChecker(std::string path, Status& status)
      : path_(std::move(path)), status_(status) {}

  void Integer(std::string_view key, IntBound bound, int64_t& value) override {
    Keep(key, std::to_string(value), BoundProblem(bound, value));
  }
  void Unsigned(std::string_view key, uint64_t max, uint64_t& value) override {
    if (value > max) {
      Keep(key, std::to_string(value), "must be in 0.." + std::to_string(max));
    }
  }
  void Real(std::string_view key, RealBound bound, double& value) override {
    Keep(key, NumberText(value), BoundProblem(bound, value));
  }
  void Bool(std::string_view, bool&) override {}
  void Text(std::string_view key, TextRule rule, std::string& value) override {
    Keep(key, Quoted(value), rule(value));
  }
  void Choose(std::string_view key, const std::vector<Choice>& choices,
              int& index) override {
    if (index < 0 || static_cast<size_t>(index) >= choices.size()) {
      return Keep(key, std::to_string(index), "is no value of this setting");
    }
    const Choice& choice = choices[static_cast<size_t>(index)];
    if (!choice.available && status_.ok()) {
      status_ = InvalidArgument(path_ + std::string(key) + ": " +
                                std::string(choice.name) +
                                " is not available in this version");
    }
  }
  void Span(std::string_view key, Duration min, Duration max,
            Duration& value) override {
    Keep(key, DurationText(value), BoundProblem(min, max, value));
  }
  void TextList(std::string_view key, IntBound count, TextRule rule,
                std::vector<std::string>& values) override {
    KeepCount(key, count, values.size());
    for (size_t i = 0; i < values.size(); ++i) {
      Keep(Item(key, i), Quoted(values[i]), rule(values[i]));
    }
  }
  void IntList(std::string_view key, IntBound count, IntBound each,
               std::vector<int64_t>& values) override {
    KeepCount(key, count, values.size());
    for (size_t i = 0; i < values.size(); ++i) {
      Keep(Item(key, i), std::to_string(values[i]),
           BoundProblem(each, values[i]));
    }
  }
  void MapList(std::string_view key, IntBound count, size_t size,
               const std::function<void(size_t)>&,
               const std::function<void(Fields&, size_t)>& visit) override {
    KeepCount(key, count, size);
    for (size_t i = 0; i < size && status_.ok(); ++i) {
      FieldChecker child(path_ + Item(key, i) + ".", status_);
      visit(child, i);
    }
  }
  void Section(std::string_view key, const Visit& visit) override {
    FieldChecker child(path_ + std::string(key) + ".", status_);
    visit(child);
  }
  void OptionalSection(std::string_view key, bool& present,
                       const Visit& visit) override {
    if (present) Section(key, visit);
  }
  void Require(std::string_view) override {}
  void Unavailable(std::string_view) override {}
  void Inapplicable(std::string_view key, std::string_view why,
                    bool is_default) override {
    if (!is_default && status_.ok()) {
      status_ =
          InvalidArgument(path_ + std::string(key) + ": " + std::string(why));
    }
  }

 private:
  static std::string Item(std::string_view key, size_t i) {
    return std::string(key) + "[" + std::to_string(i) + "]";
  }
  void Keep(std::string_view key, const std::string& value,
            const std::string& problem) {
    if (problem.empty() || !status_.ok()) return;
    status_ = InvalidArgument(path_ + std::string(key) + " is " + value + "; " +
                              problem);
  }
  void KeepCount(std::string_view key, IntBound count, size_t size) {
    const std::string problem = CountProblem(count, size);
    if (problem.empty() || !status_.ok()) return;
    status_ = InvalidArgument(path_ + std::string(key) + " " + problem);
  }

  const std::string path_;  // "" or "train."
  Status& status_;
};

}  // namespace

Status CheckFields(const Fields::Visit& visit) {
  Status status;
  FieldChecker checker("", status);
  visit(checker);
  return status;
}

std::string BoundProblem(IntBound bound, int64_t value) {
  if (value >= bound.min && value <= bound.max) return "";
  if (bound.min == bound.max) return "must be " + std::to_string(bound.min);
  return "must be in " + std::to_string(bound.min) + ".." +
         std::to_string(bound.max);
}

std::string BoundProblem(RealBound bound, double value) {
  const bool above = bound.min_open ? value > bound.min : value >= bound.min;
  const bool below = bound.max_open ? value < bound.max : value <= bound.max;
  if (std::isfinite(value) && above && below) return "";
  return std::string("must be in ") + (bound.min_open ? "(" : "[") +
         NumberText(bound.min) + ", " + NumberText(bound.max) +
         (bound.max_open ? ")" : "]");
}

std::string BoundProblem(Duration min, Duration max, Duration value) {
  if (value >= min && value <= max) return "";
  return "must be in " + DurationText(min) + ".." + DurationText(max);
}

std::string CountProblem(IntBound count, size_t size) {
  if (size >= static_cast<size_t>(count.min) &&
      size <= static_cast<size_t>(count.max)) {
    return "";
  }
  return "has " + std::to_string(size) + " entries; must have " +
         std::to_string(count.min) + ".." + std::to_string(count.max);
}

}  // namespace selvage::plan::internal

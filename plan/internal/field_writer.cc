#include <nlohmann/json.hpp>

#include "plan/internal/fields.h"

namespace selvage::plan::internal {
namespace {

using nlohmann::json;

class FieldWriter final : public Fields {
 public:
  explicit FieldWriter(json& out) : out_(out) {}

  void Integer(std::string_view key, IntBound, int64_t& value) override {
    At(key) = value;
  }
  void Unsigned(std::string_view key, uint64_t, uint64_t& value) override {
    At(key) = value;
  }
  void Real(std::string_view key, RealBound, double& value) override {
    At(key) = value + 0.0;  // -0.0 equals 0.0, so it is written like it
  }
  void Bool(std::string_view key, bool& value) override { At(key) = value; }
  void Text(std::string_view key, TextRule, std::string& value) override {
    At(key) = value;
  }
  void Choose(std::string_view key, const std::vector<Choice>& choices,
              int& index) override {
    At(key) = std::string(choices.at(static_cast<size_t>(index)).name);
  }
  void Span(std::string_view key, Duration, Duration,
            Duration& value) override {
    At(key) = value.count();
  }
  void TextList(std::string_view key, IntBound, TextRule,
                std::vector<std::string>& values) override {
    At(key) = json(values);
  }
  void IntList(std::string_view key, IntBound, IntBound,
               std::vector<int64_t>& values) override {
    At(key) = json(values);
  }
  void MapList(std::string_view key, IntBound, size_t size,
               const std::function<void(size_t)>&,
               const std::function<void(Fields&, size_t)>& visit) override {
    json list = json::array();
    for (size_t i = 0; i < size; ++i) {
      json item = json::object();
      FieldWriter child(item);
      visit(child, i);
      list.push_back(std::move(item));
    }
    At(key) = std::move(list);
  }
  bool Wants(bool is_default) override { return !is_default; }
  void Section(std::string_view key, const Visit& visit) override {
    json& section = At(key) = json::object();
    FieldWriter child(section);
    visit(child);
  }
  void OptionalSection(std::string_view key, bool& present,
                       const Visit& visit) override {
    if (present) Section(key, visit);
  }
  void Require(std::string_view) override {}
  void Unavailable(std::string_view) override {}
  void Inapplicable(std::string_view, std::string_view, bool) override {}

 private:
  json& At(std::string_view key) { return out_[std::string(key)]; }

  json& out_;
};

}  // namespace

std::string WriteFields(const Fields::Visit& visit) {
  json out = json::object();
  FieldWriter writer(out);
  visit(writer);
  // Text was checked to be UTF-8 by whoever made the struct; `replace` keeps
  // a caller's mistake from becoming an exception.
  return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace selvage::plan::internal

#include <algorithm>
#include <nlohmann/json.hpp>

#include "plan/internal/document.h"
#include "plan/internal/text.h"

namespace selvage::plan::internal {
namespace {

using nlohmann::json;

class Handler final : public nlohmann::json_sax<json> {
 public:
  explicit Handler(TreeBuilder& tree) : tree_(tree) {}

  const Status& status() const { return status_; }

  bool null() override { return Scalar(Node::Kind::kNull, ""); }
  bool boolean(bool value) override {
    return Scalar(Node::Kind::kBool, value ? "true" : "false");
  }
  bool number_integer(number_integer_t value) override {
    return Scalar(Node::Kind::kNumber, std::to_string(value));
  }
  bool number_unsigned(number_unsigned_t value) override {
    return Scalar(Node::Kind::kNumber, std::to_string(value));
  }
  bool number_float(number_float_t, const string_t& text) override {
    return Scalar(Node::Kind::kNumber, text);
  }
  bool string(string_t& value) override {
    return Scalar(Node::Kind::kString, value);
  }
  bool binary(binary_t&) override { return Keep(Internal("binary in JSON")); }
  bool start_object(size_t) override {
    return Keep(tree_.Open(Node::Kind::kMap, 0));
  }
  bool key(string_t& value) override {
    tree_.Key(value, 0);
    return true;
  }
  bool end_object() override { return Keep(tree_.Close()); }
  bool start_array(size_t) override {
    return Keep(tree_.Open(Node::Kind::kList, 0));
  }
  bool end_array() override { return Keep(tree_.Close()); }
  bool parse_error(size_t position, const std::string&,
                   const json::exception&) override {
    return Keep(
        InvalidArgument("malformed JSON at byte " + std::to_string(position)));
  }

 private:
  bool Scalar(Node::Kind kind, std::string_view text) {
    return Keep(tree_.Scalar(kind, text, 0));
  }
  bool Keep(Status status) {
    if (status_.ok()) status_ = std::move(status);
    return status_.ok();
  }

  TreeBuilder& tree_;
  Status status_;
};

}  // namespace

Result<Node> ParseJson(std::string_view text, size_t size_max) {
  if (text.size() > size_max) {
    return InvalidArgument(std::to_string(text.size()) + " bytes; at most " +
                           std::to_string(size_max) + " are read");
  }
  TreeBuilder tree;
  Handler handler(tree);
  try {
    if (!json::sax_parse(text, &handler)) return handler.status();
  } catch (const std::exception& e) {
    return InvalidArgument(std::string("malformed JSON: ") + e.what());
  }
  return std::move(tree).Take();
}

}  // namespace selvage::plan::internal

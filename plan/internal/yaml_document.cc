#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <sstream>

#include "plan/internal/document.h"
#include "plan/internal/text.h"

namespace selvage::plan::internal {
namespace {

// Thrown through yaml-cpp by Handler and caught in ParseYaml: a callback has no
// other way to stop the parser.
struct Refusal {
  Status status;
};

void OrRefuse(Status status) {
  if (!status.ok()) throw Refusal{std::move(status)};
}

int LineOf(const YAML::Mark& mark) { return mark.line + 1; }

class Handler final : public YAML::EventHandler {
 public:
  explicit Handler(TreeBuilder& tree) : tree_(tree) {}

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (tree_.done()) {
      OrRefuse(ErrorAt(LineOf(mark), "there is a second document"));
    }
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    RefuseAnchor(mark, anchor);
    if (tree_.expects_key()) OrRefuse(ErrorAt(LineOf(mark), "an empty key"));
    OrRefuse(tree_.Scalar(Node::Kind::kNull, "", LineOf(mark)));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    OrRefuse(ErrorAt(LineOf(mark), "anchors and aliases are not allowed here"));
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag,
                YAML::anchor_t anchor, const std::string& value) override {
    RefuseAnchor(mark, anchor);
    // yaml-cpp says "?" for a plain and "!" for a quoted scalar.
    if (tag != "?" && tag != "!") RefuseTag(mark, tag);
    if (tree_.expects_key()) {
      tree_.Key(value, LineOf(mark));
      return;
    }
    OrRefuse(tree_.Scalar(tag == "?" ? Node::Kind::kPlain : Node::Kind::kString,
                          value, LineOf(mark)));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag,
                       YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    Open(Node::Kind::kList, mark, tag, anchor);
  }
  void OnSequenceEnd() override { OrRefuse(tree_.Close()); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag,
                  YAML::anchor_t anchor, YAML::EmitterStyle::value) override {
    Open(Node::Kind::kMap, mark, tag, anchor);
  }
  void OnMapEnd() override { OrRefuse(tree_.Close()); }

 private:
  void Open(Node::Kind kind, const YAML::Mark& mark, const std::string& tag,
            YAML::anchor_t anchor) {
    RefuseAnchor(mark, anchor);
    if (tag != "?" && !tag.empty()) RefuseTag(mark, tag);
    if (tree_.expects_key()) {
      OrRefuse(ErrorAt(LineOf(mark), "a key must be a word"));
    }
    OrRefuse(tree_.Open(kind, LineOf(mark)));
  }
  static void RefuseAnchor(const YAML::Mark& mark, YAML::anchor_t anchor) {
    if (anchor != YAML::NullAnchor) {
      OrRefuse(
          ErrorAt(LineOf(mark), "anchors and aliases are not allowed here"));
    }
  }
  static void RefuseTag(const YAML::Mark& mark, const std::string& tag) {
    OrRefuse(ErrorAt(LineOf(mark),
                     "the tag " + Quoted(tag) + " is not allowed here"));
  }

  TreeBuilder& tree_;
};

Status CheckCharacters(std::string_view text) {
  if (!IsValidUtf8(text)) return InvalidArgument("not valid UTF-8");
  int line = 1;
  for (const char c : text) {
    if (c == '\n') ++line;
    const bool control = (c >= 0 && c < 0x20) || c == 0x7F;
    if (control && c != '\n' && c != '\r' && c != '\t') {
      return ErrorAt(line, "a control character (byte " +
                               std::to_string(static_cast<int>(c)) + ")");
    }
  }
  return OkStatus();
}

}  // namespace

Result<Node> ParseYaml(std::string_view text, size_t size_max) {
  if (text.size() > size_max) {
    return InvalidArgument(std::to_string(text.size()) + " bytes; at most " +
                           std::to_string(size_max) + " are read");
  }
  SELVAGE_RETURN_IF_ERROR(CheckCharacters(text));
  TreeBuilder tree;
  try {
    std::istringstream in{std::string(text)};
    YAML::Parser parser(in);
    Handler handler(tree);
    while (parser.HandleNextDocument(handler)) {
    }
  } catch (const Refusal& refusal) {
    return refusal.status;
  } catch (const YAML::Exception& e) {
    return ErrorAt(e.mark.is_null() ? 0 : LineOf(e.mark), e.msg);
  } catch (const std::exception& e) {
    return InvalidArgument(std::string("malformed YAML: ") + e.what());
  }
  if (!tree.done()) return InvalidArgument("the file is empty");
  return std::move(tree).Take();
}

}  // namespace selvage::plan::internal

#include "plan/internal/document.h"

#include <algorithm>

#include "base/check.h"
#include "plan/internal/text.h"

namespace selvage::plan::internal {

const Node* Node::Find(std::string_view child) const {
  for (const Node& node : children) {
    if (node.key == child) return &node;
  }
  return nullptr;
}

Status ErrorAt(int line, std::string message) {
  if (line > 0) {
    message.insert(0, "line " + std::to_string(line) + ": ");
  }
  return InvalidArgument(std::move(message));
}

void TreeBuilder::Key(std::string_view text, int line) {
  SELVAGE_CHECK(expects_key());
  keys_.back() = {true, std::string(text), line};
}

Status TreeBuilder::CountNode(int line) {
  if (++node_count_ > kNodeCountMax) {
    return ErrorAt(line,
                   "more than " + std::to_string(kNodeCountMax) + " values");
  }
  return OkStatus();
}

void TreeBuilder::Add(Node node) {
  if (open_.empty()) {
    root_ = std::move(node);
    done_ = true;
    return;
  }
  Node& parent = open_.back();
  if (parent.kind == Node::Kind::kMap) {
    PendingKey& key = keys_.back();
    SELVAGE_CHECK(key.set);
    node.key = std::move(key.text);
    node.key_line = key.line;
    // An absent value is "at" whatever comes next; its key is the place to
    // look.
    if (node.kind == Node::Kind::kNull) node.line = key.line;
    key = {};
  }
  parent.children.push_back(std::move(node));
}

Status TreeBuilder::Scalar(Node::Kind kind, std::string_view text, int line) {
  SELVAGE_RETURN_IF_ERROR(CountNode(line));
  Node node;
  node.kind = kind;
  node.line = line;
  node.text = text;
  Add(std::move(node));
  return OkStatus();
}

Status TreeBuilder::Open(Node::Kind kind, int line) {
  SELVAGE_RETURN_IF_ERROR(CountNode(line));
  if (open_.size() >= kDepthMax) {
    return ErrorAt(
        line, "nested more than " + std::to_string(kDepthMax) + " levels deep");
  }
  Node node;
  node.kind = kind;
  node.line = line;
  open_.push_back(std::move(node));
  keys_.emplace_back();
  return OkStatus();
}

Status TreeBuilder::Close() {
  SELVAGE_CHECK(!open_.empty());
  Node node = std::move(open_.back());
  open_.pop_back();
  keys_.pop_back();
  if (node.kind == Node::Kind::kMap) {
    std::vector<const Node*> sorted;
    sorted.reserve(node.children.size());
    for (const Node& child : node.children) sorted.push_back(&child);
    std::stable_sort(
        sorted.begin(), sorted.end(),
        [](const Node* a, const Node* b) { return a->key < b->key; });
    const auto twice = std::adjacent_find(
        sorted.begin(), sorted.end(),
        [](const Node* a, const Node* b) { return a->key == b->key; });
    if (twice != sorted.end()) {
      const Node& again = **std::next(twice);
      return ErrorAt(again.key_line,
                     "the key " + Quoted(again.key) + " is there twice");
    }
  }
  Add(std::move(node));
  return OkStatus();
}

}  // namespace selvage::plan::internal

// YAML and JSON as one bounded tree, so that everything after the syntax is
// written once. No anchors, aliases, tags or duplicate keys survive parsing.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace selvage::plan::internal {

inline constexpr size_t kDepthMax = 16;
inline constexpr size_t kNodeCountMax = 1 << 18;

struct Node {
  enum class Kind {
    kNull,
    kPlain,   // an unquoted YAML scalar: a number, a bool or a word
    kString,  // quoted
    kNumber,  // JSON
    kBool,    // JSON; `text` is true or false
    kList,
    kMap,
  };
  Kind kind = Kind::kNull;
  int line = 0;      // from 1; 0: not known (JSON)
  std::string key;   // of a map's child
  int key_line = 0;  //
  std::string text;  // scalars
  std::vector<Node> children;

  const Node* Find(std::string_view child) const;
};

// INVALID_ARGUMENT, with the line where there is one: not UTF-8, control
// characters, over `size_max` bytes, kDepthMax levels or kNodeCountMax nodes,
// malformed, a duplicate key, an alias, anchor or tag, several documents.
Result<Node> ParseYaml(std::string_view text, size_t size_max);
Result<Node> ParseJson(std::string_view text, size_t size_max);

// Puts the tree together from a parser's events.
class TreeBuilder {
 public:
  bool done() const { return done_; }
  bool expects_key() const {
    return !open_.empty() && open_.back().kind == Node::Kind::kMap &&
           !keys_.back().set;
  }

  // REQUIRES: expects_key().
  void Key(std::string_view text, int line);
  Status Scalar(Node::Kind kind, std::string_view text, int line);
  Status Open(Node::Kind kind, int line);
  Status Close();
  Node Take() && { return std::move(root_); }

 private:
  struct PendingKey {
    bool set = false;
    std::string text;
    int line = 0;
  };
  Status CountNode(int line);
  void Add(Node node);

  std::vector<Node> open_;
  std::vector<PendingKey> keys_;  // parallel to open_
  Node root_;
  size_t node_count_ = 0;
  bool done_ = false;
};

// "line 7: message", or the message alone if `line` is 0.
Status ErrorAt(int line, std::string message);

}  // namespace selvage::plan::internal

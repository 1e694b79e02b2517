// One description of a document's fields serves three purposes: reading it,
// checking a struct against its bounds, and writing canonical JSON. A section
// is a function `void VisitX(Fields&, X&)` that names every key once.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/time.h"
#include "plan/internal/document.h"

namespace selvage::plan::internal {

struct IntBound {
  int64_t min = 0;
  int64_t max = 0;
};

struct RealBound {
  double min = 0;
  double max = 0;
  bool min_open = false;  // min itself is not allowed
  bool max_open = false;
};

struct Choice {
  std::string_view name;
  bool available = true;  // false: known, but not built into this version
};

// "" if the text is as it must be, else what it must be: "must be ...".
using TextRule = std::string (*)(std::string_view);

// Keys are dotted paths from the root in messages. The first problem is kept.
class Fields {
 public:
  using Visit = std::function<void(Fields&)>;

  virtual ~Fields() = default;

  // Reading: an absent key leaves `value` as it is.
  virtual void Integer(std::string_view key, IntBound bound,
                       int64_t& value) = 0;
  virtual void Unsigned(std::string_view key, uint64_t max,
                        uint64_t& value) = 0;
  virtual void Real(std::string_view key, RealBound bound, double& value) = 0;
  virtual void Bool(std::string_view key, bool& value) = 0;
  virtual void Text(std::string_view key, TextRule rule,
                    std::string& value) = 0;
  // `index` into `choices`; -1, reading only: absent.
  virtual void Choose(std::string_view key, const std::vector<Choice>& choices,
                      int& index) = 0;
  // "5m" in YAML, whole microseconds in JSON.
  virtual void Span(std::string_view key, Duration min, Duration max,
                    Duration& value) = 0;
  virtual void TextList(std::string_view key, IntBound count, TextRule rule,
                        std::vector<std::string>& values) = 0;
  virtual void IntList(std::string_view key, IntBound count, IntBound each,
                       std::vector<int64_t>& values) = 0;
  virtual void MapList(std::string_view key, IntBound count, size_t size,
                       const std::function<void(size_t)>& resize,
                       const std::function<void(Fields&, size_t)>& visit) = 0;
  // Whether to visit a key whose value is, or is not, its default. Writing:
  // only if it is not, so that a key which came later leaves older documents'
  // bytes as they were. Reading and checking: always.
  virtual bool Wants(bool /*is_default*/) { return true; }
  // A mapping that is always written, and read if there.
  virtual void Section(std::string_view key, const Visit& visit) = 0;
  // A mapping whose presence means something.
  virtual void OptionalSection(std::string_view key, bool& present,
                               const Visit& visit) = 0;

  // Reading: an error if the key is absent.
  virtual void Require(std::string_view key) = 0;
  // Reading: the key is known, but its feature is not built.
  virtual void Unavailable(std::string_view key) = 0;
  // The key makes no sense here, for the reason `why`.
  virtual void Inapplicable(std::string_view key, std::string_view why,
                            bool is_default) = 0;

  void Integer(std::string_view key, IntBound bound, int& value) {
    int64_t wide = value;
    Integer(key, bound, wide);
    value = static_cast<int>(wide);  // bounds of int fields fit an int
  }
  template <typename T, typename F>
  void Items(std::string_view key, IntBound count, std::vector<T>& values,
             F visit) {
    MapList(
        key, count, values.size(), [&](size_t n) { values.resize(n); },
        [&](Fields& fields, size_t i) { visit(fields, values[i]); });
  }
};

// INVALID_ARGUMENT names line, key path, value and bound; or a key that the
// visit did not ask for, and the nearest one that it did. `what` is the
// document: "the task file".
Status ReadFields(const Node& root, std::string_view what,
                  const Fields::Visit& visit);

// INVALID_ARGUMENT names key path, value and bound. `visit` changes nothing.
Status CheckFields(const Fields::Visit& visit);

// Canonical JSON: sorted keys, no white space, shortest round-trip numbers.
std::string WriteFields(const Fields::Visit& visit);

// What a value may be: "must be in 1..1000", "must be in (0, 100]". "" if it
// is.
std::string BoundProblem(IntBound bound, int64_t value);
std::string BoundProblem(RealBound bound, double value);
std::string BoundProblem(Duration min, Duration max, Duration value);
std::string CountProblem(IntBound count, size_t size);

}  // namespace selvage::plan::internal

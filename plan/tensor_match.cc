#include "plan/tensor_match.h"

#include <regex>

#include "plan/internal/text.h"

namespace selvage::plan {
namespace {

using internal::Quoted;

Result<std::regex> Compile(std::string_view pattern) {
  if (pattern.empty() || pattern.size() > kPatternSizeMax ||
      !internal::IsPrintable(pattern)) {
    return InvalidArgument("must be a regular expression of 1.." +
                           std::to_string(kPatternSizeMax) +
                           " printable characters");
  }
  // No tensor name has a brace, so one can only mean {n,m}.
  if (pattern.find('{') != std::string_view::npos) {
    return InvalidArgument("must not use counted repetition {n,m}");
  }
  for (const std::string_view ahead : {"(?=", "(?!"}) {
    const size_t last = pattern.rfind(ahead);
    if (last == std::string_view::npos) continue;
    if (last > 1 || (last == 1 && pattern[0] != '^')) {
      return InvalidArgument(
          "must not use look-ahead but at the start, as in ^(?!head\\.)");
    }
  }
  auto flags = std::regex::ECMAScript;
#ifdef _GLIBCXX_RELEASE
  // libstdc++'s default matcher backtracks: exponential in the worst case.
  flags |= std::regex_constants::__polynomial;
#endif
  try {
    return std::regex(pattern.begin(), pattern.end(), flags);
  } catch (const std::regex_error& e) {
    if (e.code() == std::regex_constants::error_backref ||
        e.code() == std::regex_constants::error_complexity) {
      return InvalidArgument("must not use back-references");
    }
    return InvalidArgument(
        "must be an ECMAScript regular expression (unbalanced brackets, a "
        "stray operator or an unknown escape)");
  }
}

Result<bool> Search(const std::regex& regex, const std::string& name) {
  if (name.size() > kTensorNameSizeMax) return false;
  try {
    return std::regex_search(name, regex);
  } catch (const std::regex_error&) {
    return InvalidArgument("must be a simpler regular expression");
  }
}

}  // namespace

Status CheckPattern(std::string_view pattern) {
  return Compile(pattern).status();
}

Result<std::vector<size_t>> MatchNames(const std::vector<std::string>& names,
                                       std::string_view pattern) {
  SELVAGE_ASSIGN_OR_RETURN(const std::regex regex, Compile(pattern));
  std::vector<size_t> matches;
  for (size_t i = 0; i < names.size(); ++i) {
    SELVAGE_ASSIGN_OR_RETURN(const bool found, Search(regex, names[i]));
    if (found) matches.push_back(i);
  }
  return matches;
}

Result<std::vector<size_t>> MatchTensors(
    const TensorTable& table, const std::vector<std::string>& patterns) {
  if (patterns.size() > kPatternCountMax) {
    return InvalidArgument(std::to_string(patterns.size()) +
                           " patterns; at most " +
                           std::to_string(kPatternCountMax));
  }
  std::vector<std::string> names;
  for (const TensorTable::Entry& entry : table.entries()) {
    names.push_back(entry.spec.name);
  }
  std::vector<bool> chosen(names.size());
  for (const std::string& pattern : patterns) {
    const Result<std::vector<size_t>> matches = MatchNames(names, pattern);
    if (!matches.ok()) {
      return InvalidArgument("the pattern " + Quoted(pattern) + " " +
                             std::string(matches.status().message()));
    }
    if (matches->empty()) {
      return InvalidArgument("the pattern " + Quoted(pattern) +
                             " matches no tensor");
    }
    for (const size_t i : *matches) chosen[i] = true;
  }
  std::vector<size_t> out;
  for (size_t i = 0; i < names.size(); ++i) {
    const Role role = table.entries()[i].spec.role;
    const bool trainable = role == Role::kShared || role == Role::kPersonal;
    if (patterns.empty() ? trainable : chosen[i]) out.push_back(i);
  }
  return out;
}

}  // namespace selvage::plan

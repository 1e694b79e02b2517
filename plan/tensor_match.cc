#include "plan/tensor_match.h"

#include <algorithm>
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
  // Their matching is exponential, and libstdc++ 12 overflows over the number
  // of one that has twenty digits.
  for (size_t i = 0; i + 1 < pattern.size(); ++i) {
    if (pattern[i] != '\\') continue;
    ++i;  // what is escaped, a backslash too
    if (pattern[i] >= '0' && pattern[i] <= '9') {
      return InvalidArgument("must not use back-references");
    }
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
  // libstdc++ 12 looks one character past a pattern that ends with "(": a
  // string has its terminator there.
  const std::string terminated(pattern);
  try {
    return std::regex(terminated, flags);
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

Status CheckCost(const std::vector<std::string>& names,
                 const std::vector<std::string>& patterns) {
  if (patterns.size() > kPatternCountMax) {
    return InvalidArgument(std::to_string(patterns.size()) +
                           " patterns; at most " +
                           std::to_string(kPatternCountMax));
  }
  uint64_t pattern_size = 0;
  for (const std::string& pattern : patterns) pattern_size += pattern.size();
  uint64_t name_cost = 0;  // a search starts at every character
  for (const std::string& name : names) name_cost += name.size() * name.size();
  if (pattern_size > kMatchCostMax ||
      name_cost > kMatchCostMax / std::max(pattern_size, uint64_t{1})) {
    return InvalidArgument("the patterns, " + std::to_string(pattern_size) +
                           " characters in all, are too long for " +
                           std::to_string(names.size()) +
                           " tensors with such names");
  }
  return OkStatus();
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

Result<std::vector<std::vector<size_t>>> MatchNames(
    const std::vector<std::string>& names,
    const std::vector<std::string>& patterns) {
  SELVAGE_RETURN_IF_ERROR(CheckCost(names, patterns));
  std::vector<std::vector<size_t>> matches(patterns.size());
  for (size_t p = 0; p < patterns.size(); ++p) {
    const std::string who = "the pattern " + Quoted(patterns[p]);
    const Result<std::regex> regex = Compile(patterns[p]);
    if (!regex.ok()) {
      return InvalidArgument(who + " " + std::string(regex.status().message()));
    }
    for (size_t i = 0; i < names.size(); ++i) {
      const Result<bool> found = Search(*regex, names[i]);
      if (!found.ok()) {
        return InvalidArgument(who + " " +
                               std::string(found.status().message()));
      }
      if (*found) matches[p].push_back(i);
    }
    if (matches[p].empty()) {
      return InvalidArgument(who + " matches no tensor");
    }
  }
  return matches;
}

Result<std::vector<size_t>> MatchTensors(
    const TensorTable& table, const std::vector<std::string>& patterns) {
  std::vector<std::string> names;
  for (const TensorTable::Entry& entry : table.entries()) {
    names.push_back(entry.spec.name);
  }
  SELVAGE_ASSIGN_OR_RETURN(const auto matches, MatchNames(names, patterns));
  std::vector<bool> chosen(names.size());
  for (const std::vector<size_t>& of_pattern : matches) {
    for (const size_t i : of_pattern) chosen[i] = true;
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

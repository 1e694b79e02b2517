// Choosing tensors by regular expression: `personalize.tensors` of a task,
// `roles` of a program file.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "plan/tensor_table.h"

namespace selvage::plan {

inline constexpr size_t kPatternSizeMax = 256;
inline constexpr size_t kPatternCountMax = 64;

// Bounds how long hostile patterns can take (about ten seconds): the sum over
// patterns and names of pattern size x name size squared. 500 tensors of 50
// characters may have 800 characters of patterns.
inline constexpr uint64_t kMatchCostMax = 1'000'000'000;

// A pattern is an ECMAScript regular expression that is searched for in a
// tensor's name (anchor it with ^ and $), restricted to what runs in polynomial
// time: no back-references, no counted repetition {n,m}; look-ahead only at the
// very start, as in "^(?!head\\.)". INVALID_ARGUMENT, fit to follow "PATTERN ",
// unless it is 1..kPatternSizeMax printable ASCII characters of such an
// expression.
Status CheckPattern(std::string_view pattern);

// For each pattern the indices into `names`, ascending, that it matches.
// INVALID_ARGUMENT names a pattern that is malformed or matches nothing, or
// says that there are more than kPatternCountMax or that they exceed
// kMatchCostMax.
Result<std::vector<std::vector<size_t>>> MatchNames(
    const std::vector<std::string>& names,
    const std::vector<std::string>& patterns);

// Indices into table.entries(), ascending, of the tensors that any of
// `patterns` matches, whatever their role. No patterns: every trainable tensor
// (shared and personal). Errors as MatchNames.
Result<std::vector<size_t>> MatchTensors(
    const TensorTable& table, const std::vector<std::string>& patterns);

}  // namespace selvage::plan

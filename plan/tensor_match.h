// Choosing tensors by regular expression: `personalize.tensors` of a task,
// `roles` of a program file.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "plan/tensor_table.h"

namespace selvage::plan {

inline constexpr size_t kPatternSizeMax = 256;
inline constexpr size_t kPatternCountMax = 64;

// A pattern is an ECMAScript regular expression that is searched for in a
// tensor's name (anchor it with ^ and $), restricted to what runs in time
// linear in pattern and name: no back-references, no counted repetition {n,m};
// look-ahead only at the very start, as in "^(?!head\\.)". INVALID_ARGUMENT,
// fit to follow "PATTERN; ", unless it is 1..kPatternSizeMax printable ASCII
// characters of such an expression.
Status CheckPattern(std::string_view pattern);

// Indices into table.entries(), ascending, of the tensors that any of
// `patterns` matches, whatever their role. No patterns: every trainable tensor
// (shared and personal). INVALID_ARGUMENT names a pattern that is malformed or
// matches nothing.
Result<std::vector<size_t>> MatchTensors(
    const TensorTable& table, const std::vector<std::string>& patterns);

// Indices into `names`, ascending, that `pattern` matches. For tables that are
// still being made. INVALID_ARGUMENT as CheckPattern.
Result<std::vector<size_t>> MatchNames(const std::vector<std::string>& names,
                                       std::string_view pattern);

}  // namespace selvage::plan

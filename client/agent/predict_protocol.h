// Predictions for other programs: one JSON object a line, one line back. The
// format is in docs/embedding.md, "The agent".
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"
#include "client/capi/selvage.hpp"

namespace selvage::agent {

inline constexpr size_t kRequestSizeMax = 4 << 20;
inline constexpr size_t kRequestExamplesMax = 4096;

// forward() of `count` first inputs. Thread-safe.
using Predictor = std::function<Result<host::Prediction>(
    const std::string& task, ByteSpan input, size_t count)>;

// The answer to one line, without its end; never throws. `tasks` are installed:
// a request that names none means the only one.
std::string AnswerRequest(std::string_view line,
                          const std::vector<std::string>& tasks,
                          const Predictor& predict);

// {"error": {"code": ..., "message": ...}}
std::string ErrorLine(const Status& status);

}  // namespace selvage::agent

// Where results go: data on stdout as a table or as one JSON envelope, messages
// on stderr.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/status.h"
#include "cli/environment.h"
#include "cli/exit_code.h"

namespace selvage::cli {

enum class OutputFormat { kTable, kJson };
// INVALID_ARGUMENT unless "table" or "json".
Result<OutputFormat> ParseOutputFormat(std::string_view text);

inline constexpr int kEnvelopeVersion = 1;

// Thread-compatible.
class Output {
 public:
  Output(Environment& environment, OutputFormat format);

  OutputFormat format() const { return format_; }
  bool json() const { return format_ == OutputFormat::kJson; }
  bool terminal() const { return environment_.out_is_terminal; }
  bool color() const { return color_; }
  bool unicode() const { return unicode_; }
  std::ostream& out() { return environment_.out; }

  // {"schema_version":1,"status":"ok","data":...} or what `table` prints.
  void Data(const nlohmann::ordered_json& data,
            const std::function<std::string()>& table);
  // The same on one line, for streams of results.
  void JsonLine(const nlohmann::ordered_json& data);

  void Message(std::string_view text);  // stderr
  void Warning(std::string_view text);  // stderr

  // "selvage: error: ..." and what to do about it on stderr; under -o json
  // also {"schema_version":1,"status":"error","error":{...}} on stdout.
  ExitCode Error(const Status& status, std::string_view hint);

 private:
  Environment& environment_;
  const OutputFormat format_;
  bool color_ = false;
  bool unicode_ = false;
};

// What a person can do about a failed call; "" if the message says it all.
std::string HintFor(const Status& status);

}  // namespace selvage::cli

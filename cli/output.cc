#include "cli/output.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/text.h"

namespace selvage::cli {
namespace {

using Json = nlohmann::ordered_json;

// Names may hold what is not UTF-8; a replacement character beats an exception.
std::string Dump(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

Json Envelope(std::string_view status) {
  return Json{{"schema_version", kEnvelopeVersion}, {"status", status}};
}

bool IsUtf8(const GetEnv& get_env) {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const auto value = get_env(name);
    if (!value || value->empty()) continue;
    return value->find("UTF-8") != std::string::npos ||
           value->find("utf8") != std::string::npos;
  }
  return false;
}

}  // namespace

Result<OutputFormat> ParseOutputFormat(std::string_view text) {
  if (text == "table") return OutputFormat::kTable;
  if (text == "json") return OutputFormat::kJson;
  return InvalidArgument("output format \"" + Printable(text) +
                         "\" is neither table nor json");
}

Output::Output(Environment& environment, OutputFormat format)
    : environment_(environment), format_(format) {
  const auto no_color = environment.get_env("NO_COLOR");
  const auto term = environment.get_env("TERM");
  color_ = environment.out_is_terminal && (!no_color || no_color->empty()) &&
           term != "dumb";
  unicode_ = IsUtf8(environment.get_env);
}

void Output::Data(const Json& data, const std::function<std::string()>& table) {
  if (json()) {
    Json envelope = Envelope("ok");
    envelope["data"] = data;
    environment_.out << Dump(envelope, 2) << '\n';
  } else {
    environment_.out << table();
  }
  environment_.out.flush();
}

void Output::JsonLine(const Json& data) {
  Json envelope = Envelope("ok");
  envelope["data"] = data;
  environment_.out << Dump(envelope, -1) << '\n';
  environment_.out.flush();
}

void Output::Message(std::string_view text) {
  // Messages quote what servers and files say: keep the lines, drop the rest of
  // what could drive a terminal.
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    environment_.err << Printable(text.substr(begin, end - begin)) << '\n';
    begin = end + 1;
  }
  environment_.err.flush();
}

void Output::Warning(std::string_view text) {
  Message("selvage: warning: " + std::string(text));
}

ExitCode Output::Error(const Status& status, std::string_view hint) {
  const ExitCode code = ExitCodeOf(status.code());
  const std::string message = code == ExitCode::kInterrupted
                                  ? "interrupted"
                                  : std::string(status.message());
  Message("selvage: error: " + message);
  if (!hint.empty()) Message("  " + std::string(hint));
  if (json()) {
    Json envelope = Envelope("error");
    Json& error = envelope["error"];
    error["code"] = StatusCodeName(status.code());
    error["exit_code"] = static_cast<int>(code);
    error["message"] = message;
    if (!hint.empty()) error["hint"] = hint;
    environment_.out << Dump(envelope, 2) << '\n';
    environment_.out.flush();
  }
  return code;
}

std::string HintFor(const Status& status) {
  switch (status.code()) {
    case StatusCode::kUnauthenticated:
      return "give the coordinator's admin token with --token-file FILE, or "
             "--coordinator DIR on its machine";
    case StatusCode::kUnavailable:
      return "is the coordinator running, and is the CA the right one? "
             "`selvage doctor` checks step by step";
    case StatusCode::kResourceExhausted:
      return "the coordinator is busy or its disk is full: try again later, "
             "`selvage doctor` shows the free space";
    case StatusCode::kAborted:
      return "it changed meanwhile: look at it with `selvage show` and repeat";
    default:
      return "";
  }
}

}  // namespace selvage::cli

#include "base/log.h"

#include <cstdio>
#include <ctime>

namespace selvage {
namespace {

// JSON string contents; also safe inside the text format's quotes.
void AppendEscaped(std::string& out, std::string_view text) {
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(c);
    } else if (byte < 0x20 || byte == 0x7F) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", byte);
      out += escape;
    } else {
      out.push_back(c);
    }
  }
}

bool NeedsQuotes(std::string_view text) {
  if (text.empty()) return true;
  for (const char c : text) {
    if (c <= ' ' || c == '"' || c == '\\' || c == '=' || c == 0x7F) return true;
  }
  return false;
}

}  // namespace

std::string_view LogLevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "DEBUG";
    case LogLevel::kInfo:
      return "INFO";
    case LogLevel::kWarning:
      return "WARNING";
    case LogLevel::kError:
      return "ERROR";
  }
  return "UNKNOWN";
}

std::string FormatTime(Time t) {
  const int64_t micros = ToMicros(t);
  int64_t seconds = micros / 1'000'000;
  int64_t fraction = micros % 1'000'000;
  if (fraction < 0) {
    fraction += 1'000'000;
    --seconds;
  }
  const std::time_t unix_time = seconds;
  std::tm utc{};
  gmtime_r(&unix_time, &utc);
  char date[32];
  std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &utc);
  char out[48];
  std::snprintf(out, sizeof out, "%s.%06lldZ", date,
                static_cast<long long>(fraction));
  return out;
}

void StreamEventSink::Write(LogLevel level, std::string_view event,
                            std::initializer_list<LogField> fields) {
  if (level < level_) return;
  std::string line;
  if (format_ == Format::kJson) {
    line = "{\"ts\":\"" + FormatTime(clock_.Now()) + "\",\"level\":\"" +
           std::string(LogLevelName(level)) + "\",\"event\":\"";
    AppendEscaped(line, event);
    line += '"';
    for (const LogField& field : fields) {
      line += ",\"";
      AppendEscaped(line, field.key);
      line += "\":";
      if (field.is_number) {
        line += field.value;
      } else {
        line += '"';
        AppendEscaped(line, field.value);
        line += '"';
      }
    }
    line += "}\n";
  } else {
    line = FormatTime(clock_.Now()) + " " + std::string(LogLevelName(level)) +
           " event=" + std::string(event);
    for (const LogField& field : fields) {
      line += ' ';
      line += field.key;
      line += '=';
      if (NeedsQuotes(field.value)) {
        line += '"';
        AppendEscaped(line, field.value);
        line += '"';
      } else {
        line += field.value;
      }
    }
    line += '\n';
  }
  const MutexLock lock(mu_);
  out_ << line << std::flush;
}

}  // namespace selvage

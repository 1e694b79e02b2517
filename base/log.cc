#include "base/log.h"

#include <cstdio>
#include <ctime>

namespace selvage {
namespace {

// The number of bytes of the UTF-8 character that `text` begins with; 0 if it
// begins with none (RFC 3629: no overlong forms, no surrogates).
size_t Utf8Length(std::string_view text) {
  const auto byte = [text](size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U;
  };
  const unsigned first = byte(0);
  const size_t length = first < 0x80   ? 1
                        : first < 0xC2 ? 0
                        : first < 0xE0 ? 2
                        : first < 0xF0 ? 3
                        : first < 0xF5 ? 4
                                       : 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  const bool overlong =
      (first == 0xE0 && byte(1) < 0xA0) || (first == 0xF0 && byte(1) < 0x90);
  const bool surrogate = first == 0xED && byte(1) >= 0xA0;
  const bool too_large = first == 0xF4 && byte(1) >= 0x90;
  return overlong || surrogate || too_large ? 0 : length;
}

void AppendEscape(std::string& out, unsigned code) {
  char escape[8];
  std::snprintf(escape, sizeof escape, "\\u%04x", code);
  out += escape;
}

// JSON string contents; also safe inside the text format's quotes. Control
// characters (C0, DEL, C1) are escaped, bytes that are not UTF-8 become U+FFFD.
void AppendEscaped(std::string& out, std::string_view text) {
  while (!text.empty()) {
    const size_t length = Utf8Length(text);
    const auto first = static_cast<unsigned char>(text[0]);
    if (length == 0) {
      AppendEscape(out, 0xFFFD);
    } else if (first < 0x20 || first == 0x7F) {
      AppendEscape(out, first);
    } else if (first == 0xC2 && static_cast<unsigned char>(text[1]) < 0xA0) {
      AppendEscape(out, static_cast<unsigned char>(text[1]));
    } else {
      if (first == '"' || first == '\\') out.push_back('\\');
      out += text.substr(0, length);
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
}

bool NeedsQuotes(std::string_view text) {
  if (text.empty()) return true;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte <= 0x20 || byte >= 0x7F || c == '"' || c == '\\' || c == '=') {
      return true;
    }
  }
  return false;
}

void AppendQuoted(std::string& out, std::string_view text) {
  out += '"';
  AppendEscaped(out, text);
  out += '"';
}

void AppendText(std::string& out, std::string_view text) {
  if (NeedsQuotes(text)) {
    AppendQuoted(out, text);
  } else {
    out += text;
  }
}

// std::to_string gives "nan" and "inf", which JSON does not have.
bool IsJsonNumber(const LogField& field) {
  return field.is_number && !field.value.empty() &&
         field.value.find_first_not_of("-.0123456789") == std::string::npos;
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
           std::string(LogLevelName(level)) + "\",\"event\":";
    AppendQuoted(line, event);
    for (const LogField& field : fields) {
      line += ',';
      AppendQuoted(line, field.key);
      line += ':';
      if (IsJsonNumber(field)) {
        line += field.value;
      } else {
        AppendQuoted(line, field.value);
      }
    }
    line += "}\n";
  } else {
    line = FormatTime(clock_.Now()) + " " + std::string(LogLevelName(level)) +
           " event=";
    AppendText(line, event);
    for (const LogField& field : fields) {
      line += ' ';
      line += field.key;
      line += '=';
      AppendText(line, field.value);
    }
    line += '\n';
  }
  const MutexLock lock(mu_);
  out_ << line << std::flush;
}

}  // namespace selvage

// Structured events, one line each: event=round_state round=17 state=COMMITTED.
// Cores return actions and never log; drivers and main() do. Never log tensors,
// tokens, keys or user data; device ids only at kDebug.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <ostream>
#include <string>
#include <string_view>

#include "base/mutex.h"
#include "base/time.h"

namespace selvage {

// kError: a human must act. kWarning: we recovered. kInfo: state changes.
// kDebug: per device.
enum class LogLevel { kDebug, kInfo, kWarning, kError };
std::string_view LogLevelName(LogLevel level);

struct LogField {
  LogField(std::string_view k, std::string_view v) : key(k), value(v) {}
  LogField(std::string_view k, const std::string& v) : key(k), value(v) {}
  LogField(std::string_view k, const char* v) : key(k), value(v) {}
  template <typename T>
  requires std::is_arithmetic_v<T> LogField(std::string_view k, T v)
      : key(k), value(std::to_string(v)), is_number(true) {}

  std::string_view key;
  std::string value;
  bool is_number = false;
};

class EventSink {
 public:
  virtual ~EventSink() = default;
  // Thread-safe; one line, written whole.
  virtual void Write(LogLevel level, std::string_view event,
                     std::initializer_list<LogField> fields) = 0;
};

// Writes `ts level event=... key=value` or one JSON object a line. Control
// characters in values are escaped and bytes that are not UTF-8 replaced, so a
// hostile string can neither forge a line nor break a JSON reader. In JSON a
// number that is not finite is a string ("nan", "inf").
class StreamEventSink final : public EventSink {
 public:
  enum class Format { kText, kJson };
  // `out` and `clock` must outlive the sink. Events below `level` are dropped.
  StreamEventSink(std::ostream& out, Clock& clock, Format format,
                  LogLevel level)
      : out_(out), clock_(clock), format_(format), level_(level) {}

  void Write(LogLevel level, std::string_view event,
             std::initializer_list<LogField> fields) override;

 private:
  Mutex mu_;
  std::ostream& out_ SELVAGE_GUARDED_BY(mu_);
  Clock& clock_;
  const Format format_;
  const LogLevel level_;
};

// Drops everything; for tests and libraries whose host gave no sink.
class NullEventSink final : public EventSink {
 public:
  void Write(LogLevel, std::string_view,
             std::initializer_list<LogField>) override {}
};

// "2026-11-22T16:04:18.123456Z"
std::string FormatTime(Time t);

}  // namespace selvage

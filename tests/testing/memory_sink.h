// An event sink for tests that read what was logged.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

#include "base/log.h"
#include "base/mutex.h"

namespace selvage::test {

// Keeps what was logged, to look for what must not be there.
class MemorySink final : public EventSink {
 public:
  void Write(LogLevel level, std::string_view event,
             std::initializer_list<LogField> fields) override {
    MutexLock lock(mu_);
    text_ += std::string(LogLevelName(level)) + " " + std::string(event);
    for (const LogField& field : fields) {
      text_ += " " + std::string(field.key) + "=" + field.value;
    }
    text_ += "\n";
  }
  std::string text() {
    MutexLock lock(mu_);
    return text_;
  }

 private:
  Mutex mu_;
  std::string text_ SELVAGE_GUARDED_BY(mu_);
};

}  // namespace selvage::test

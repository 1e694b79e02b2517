#include "base/log.h"

#include <rapidcheck.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/testing/fake_clock.h"
#include "tests/testing/status_matchers.h"

namespace selvage {
namespace {

using test::FakeClock;
using Format = StreamEventSink::Format;

// What a sink with `format` writes for one field.
std::string Line(Format format, std::string_view event, const LogField& field,
                 LogLevel level = LogLevel::kInfo) {
  FakeClock clock;
  std::ostringstream out;
  StreamEventSink sink(out, clock, format, LogLevel::kDebug);
  sink.Write(level, event, {field});
  return out.str();
}

TEST(LogTest, FormatTime_KnownTimes_GivesUtcWithMicroseconds) {
  EXPECT_EQ(FormatTime(Time{}), "1970-01-01T00:00:00.000000Z");
  EXPECT_EQ(FormatTime(FromMicros(1'000'000'000'123'456)),
            "2001-09-09T01:46:40.123456Z");
  EXPECT_EQ(FormatTime(FromMicros(-1)), "1969-12-31T23:59:59.999999Z");
  EXPECT_EQ(FormatTime(FromMicros(-1'000'000)), "1969-12-31T23:59:59.000000Z");
}

TEST(LogTest, Write_Text_IsOneLineOfKeysAndValues) {
  FakeClock clock;
  clock.Advance(std::chrono::seconds(1));
  std::ostringstream out;
  StreamEventSink sink(out, clock, Format::kText, LogLevel::kInfo);
  sink.Write(LogLevel::kWarning, "round_state",
             {{"round", 17}, {"state", "COMMITTED"}, {"note", "two words"}});
  EXPECT_EQ(out.str(),
            "1970-01-01T00:00:01.000000Z WARNING event=round_state round=17 "
            "state=COMMITTED note=\"two words\"\n");
}

TEST(LogTest, Write_Json_IsOneObjectALine) {
  FakeClock clock;
  std::ostringstream out;
  StreamEventSink sink(out, clock, Format::kJson, LogLevel::kInfo);
  sink.Write(LogLevel::kError, "e",
             {{"n", -3}, {"d", 0.5}, {"s", "x"}, {"b", true}});
  const auto json = nlohmann::json::parse(out.str());
  EXPECT_EQ(json["ts"], "1970-01-01T00:00:00.000000Z");
  EXPECT_EQ(json["level"], "ERROR");
  EXPECT_EQ(json["event"], "e");
  EXPECT_EQ(json["n"], -3);
  EXPECT_EQ(json["d"], 0.5);
  EXPECT_EQ(json["s"], "x");
  EXPECT_EQ(json["b"], 1);
  EXPECT_EQ(out.str().back(), '\n');
}

TEST(LogTest, Write_BelowTheLevel_WritesNothing) {
  FakeClock clock;
  std::ostringstream out;
  StreamEventSink sink(out, clock, Format::kText, LogLevel::kWarning);
  sink.Write(LogLevel::kDebug, "e", {});
  sink.Write(LogLevel::kInfo, "e", {});
  EXPECT_EQ(out.str(), "");
  sink.Write(LogLevel::kWarning, "e", {});
  sink.Write(LogLevel::kError, "e", {});
  EXPECT_NE(out.str(), "");
}

TEST(LogTest, Write_EveryControlCharacter_IsEscaped) {
  for (const Format format : {Format::kText, Format::kJson}) {
    for (int c = 0; c < 256; ++c) {
      const std::string value = std::string("a") + static_cast<char>(c) + "b";
      const std::string line = Line(format, "e", {"k", value});
      // The line's own end is its only control character.
      for (size_t i = 0; i + 1 < line.size(); ++i) {
        const auto byte = static_cast<unsigned char>(line[i]);
        EXPECT_TRUE(byte >= 0x20 && byte < 0x7F) << "value " << c;
      }
      EXPECT_EQ(line.back(), '\n');
    }
  }
}

TEST(LogTest, Write_ForgedLine_StaysInsideItsQuotes) {
  const std::string forged = "x\n1970-01-01T00:00:00.000000Z ERROR event=fake";
  const std::string text = Line(Format::kText, "e", {"k", forged});
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
  EXPECT_THAT(text, ::testing::HasSubstr("k=\"x\\u000a1970"));
  EXPECT_THAT(Line(Format::kText, "e", {"k", "x\" level=\"y"}),
              ::testing::HasSubstr(R"(k="x\" level=\"y")"));
  EXPECT_THAT(Line(Format::kText, "e", {"k", ""}),
              ::testing::HasSubstr("k=\"\""));
}

TEST(LogTest, Write_Utf8_IsKeptAndC1ControlsAreNot) {
  const std::string line = Line(Format::kJson, "e", {"k", "é€😀"});
  EXPECT_THAT(line, ::testing::HasSubstr("é€😀"));
  // U+009B is what ESC [ is in one character.
  EXPECT_THAT(Line(Format::kText, "e",
                   {"k",
                    "\xC2\x9B"
                    "31m"}),
              ::testing::HasSubstr("\\u009b31m"));
}

TEST(LogTest, Write_BytesThatAreNotUtf8_BecomeTheReplacementCharacter) {
  for (const std::string value :
       {"\x80", "\xC3", "\xC0\xAF", "\xE0\x80\x80", "\xED\xA0\x80", "\xF5\x80",
        "\xF4\x90\x80\x80", "\xE2\x82", "\xFF"}) {
    const auto json =
        nlohmann::json::parse(Line(Format::kJson, "e", {"k", value}));
    EXPECT_EQ(json["k"].get<std::string>().substr(0, 3), "\xEF\xBF\xBD");
  }
}

TEST(LogTest, Write_AnyStrings_IsValidJsonOfOneLine) {
  EXPECT_TRUE(rc::check([](const std::string& event, const std::string& key,
                           const std::string& value) {
    const std::string line = Line(Format::kJson, event, {key, value});
    RC_ASSERT(std::count(line.begin(), line.end(), '\n') == 1);
    RC_ASSERT(nlohmann::json::accept(line));
  }));
}

TEST(LogTest, Write_NumbersJsonCannotSay_AreStrings) {
  for (const double value : {std::numeric_limits<double>::quiet_NaN(),
                             std::numeric_limits<double>::infinity(),
                             -std::numeric_limits<double>::infinity()}) {
    const auto json =
        nlohmann::json::parse(Line(Format::kJson, "e", {"k", value}));
    EXPECT_TRUE(json["k"].is_string());
  }
  const auto json = nlohmann::json::parse(
      Line(Format::kJson, "e", {"k", std::numeric_limits<double>::lowest()}));
  EXPECT_TRUE(json["k"].is_number());
}

TEST(LogTest, Write_FromSeveralThreads_KeepsLinesWhole) {
  FakeClock clock;
  std::ostringstream out;
  StreamEventSink sink(out, clock, Format::kJson, LogLevel::kInfo);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&sink, t] {
      for (int i = 0; i < 100; ++i) {
        sink.Write(LogLevel::kInfo, "e", {{"thread", t}, {"i", i}});
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::istringstream in(out.str());
  int lines = 0;
  for (std::string line; std::getline(in, line); ++lines) {
    EXPECT_TRUE(nlohmann::json::accept(line)) << line;
  }
  EXPECT_EQ(lines, 400);
}

}  // namespace
}  // namespace selvage

#include "cli/watch_view.h"

#include <nlohmann/json.hpp>

#include <gmock/gmock.h>

#include "cli/render.h"
#include "cli/text.h"

namespace selvage::cli {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

v1::TaskSnapshot Snapshot() {
  v1::TaskSnapshot snapshot;
  v1::Task& task = *snapshot.mutable_task();
  task.set_name("fashion");
  task.set_state(v1::Task::RUNNING);
  task.set_num_rounds(30);
  task.set_committed_rounds(6);
  task.set_created_micros(1'000'000);
  task.set_key_metric("accuracy");
  v1::Round& round = *snapshot.mutable_round();
  round.set_number(7);
  round.set_state(v1::Round::COLLECTING);
  round.mutable_funnel()->set_checked_in(30);
  round.mutable_funnel()->set_assigned(10);
  round.mutable_funnel()->set_accepted(8);
  round.mutable_funnel()->set_outstanding(2);
  for (const double v : {0.5, 0.6, 0.7}) {
    snapshot.add_key_metric_history(v);
    snapshot.add_loss_history(1 - v);
  }
  return snapshot;
}

TEST(WatchFrameTest, WatchFrame_Running_ShowsPhaseFunnelAndCurves) {
  EXPECT_THAT(
      WatchFrame(Snapshot(), 22'000'000, {}),
      ElementsAre("fashion  RUNNING  21.0s",
                  "rounds     ######........................ 6 of 30",
                  "round 7    COLLECTING",
                  "funnel     checked in 30, assigned 10, accepted 8, "
                  "outstanding 2",
                  "accuracy   0.7      _=#", "loss       0.3      #=_"));
}

TEST(WatchFrameTest, WatchFrame_Narrow_NoLineIsWider) {
  v1::TaskSnapshot snapshot = Snapshot();
  (*snapshot.mutable_round()
        ->mutable_funnel()
        ->mutable_reasons())["OUT_OF_RANGE"] = 3;
  for (const size_t width : {size_t{20}, size_t{33}, size_t{80}}) {
    for (const std::string& line :
         WatchFrame(snapshot, 22'000'000,
                    {.width = width, .color = false, .unicode = true})) {
      EXPECT_LE(DisplayWidth(line), width) << line;
    }
  }
}

TEST(WatchFrameTest, WatchFrame_NoColor_HasNoControlCharacters) {
  v1::TaskSnapshot snapshot = Snapshot();
  snapshot.mutable_task()->set_name("\x1b[2Jx");
  snapshot.mutable_round()->set_reason("\x1b[31m");
  EXPECT_THAT(WatchFrame(snapshot, 0, {}), Each(Not(HasSubstr("\x1b"))));
}

TEST(RoundLineTest, RoundLine_Committed_SaysTimeAndMetrics) {
  v1::Round round;
  round.set_number(3);
  round.set_state(v1::Round::COMMITTED);
  round.set_opened_micros(1'000'000);
  round.set_ended_micros(3'100'000);
  round.mutable_funnel()->set_assigned(10);
  round.mutable_funnel()->set_accepted(10);
  v1::MetricSummary& metric = *round.add_metrics();
  metric.set_name("accuracy");
  metric.set_mean(0.71251);
  EXPECT_EQ(RoundLine(round, 30),
            "round 3/30  COMMITTED  accepted 10 of 10  2.1s  accuracy 0.7125");
}

TEST(RoundLineTest, RoundLine_Abandoned_SaysWhy) {
  v1::Round round;
  round.set_number(1);
  round.set_state(v1::Round::ABANDONED);
  round.set_reason("2 of 8 updates");
  EXPECT_EQ(RoundLine(round, 5),
            "round 1/5  ABANDONED  accepted 0 of 0  2 of 8 updates");
}

TEST(RenderTest, Round_FiguresAndPercentiles_AreThereIfTheServerSaysThem) {
  v1::Round round;
  v1::MetricSummary& accuracy = *round.add_metrics();
  accuracy.set_name("accuracy");
  accuracy.set_mean(0.5);
  accuracy.set_p10(0.25);
  accuracy.set_p50(0.5);
  accuracy.set_p90(0.75);
  v1::MetricSummary& loss = *round.add_metrics();
  loss.set_name("loss");
  loss.set_mean(2.5);
  EXPECT_FALSE(ToJson(round).contains("figures"));
  (*round.mutable_figures())["clip_fraction"] = 0.25;
  const nlohmann::ordered_json json = ToJson(round);
  EXPECT_EQ(json["figures"]["clip_fraction"], 0.25);
  EXPECT_EQ(json["metrics"]["accuracy"]["p10"], 0.25);
  EXPECT_EQ(json["metrics"]["accuracy"]["p90"], 0.75);
  EXPECT_EQ(json["metrics"]["loss"]["mean"], 2.5);
  for (const char* name : {"p10", "p50", "p90"}) {
    EXPECT_FALSE(json["metrics"]["loss"].contains(name)) << name;
  }
  EXPECT_THAT(Describe(round), HasSubstr("clip_fraction"));
}

TEST(RenderTest, TokenTable_States) {
  const auto token = [](const std::string& id, int64_t expires, uint32_t uses,
                        bool revoked) {
    v1::EnrolmentToken out;
    out.set_id(id);
    out.set_population("demo");
    out.set_expires_micros(expires);
    out.set_uses_max(2);
    out.set_uses(uses);
    out.set_revoked(revoked);
    return out;
  };
  const std::string table =
      TokenTable({token("a", 100, 1, false), token("b", 100, 2, false),
                  token("c", 10, 1, false), token("d", 100, 0, true)},
                 50);
  EXPECT_THAT(table, HasSubstr("a   demo        VALID     1/2"));
  EXPECT_THAT(table, HasSubstr("b   demo        USED_UP   2/2"));
  EXPECT_THAT(table, HasSubstr("c   demo        EXPIRED   1/2"));
  EXPECT_THAT(table, HasSubstr("d   demo        REVOKED   0/2"));
}

TEST(EraseFrameTest, EraseFrame_NothingDrawn_IsEmpty) {
  EXPECT_EQ(EraseFrame(0), "");
  EXPECT_EQ(EraseFrame(3), "\x1b[3A\r\x1b[0J");
}

}  // namespace
}  // namespace selvage::cli

#include "coordinator/telemetry/prometheus_telemetry.h"

#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <sstream>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace selvage::coordinator {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

size_t Count(const std::string& text, const std::string& what) {
  size_t count = 0;
  for (size_t at = text.find(what); at != std::string::npos;
       at = text.find(what, at + 1)) {
    ++count;
  }
  return count;
}

TEST(PrometheusTelemetryTest, Events_BecomeMetrics) {
  PrometheusTelemetry telemetry("1.2.3", "abc");
  const TaskLabel task{"demo", "digits"};
  telemetry.CheckedIn("demo", CheckInOutcome::kAssigned);
  telemetry.UploadBegan(task);
  telemetry.UploadBegan(task);
  UploadEnd accepted;
  accepted.result = UploadResult::kAccepted;
  accepted.bytes = 5000;
  telemetry.UploadEnded(task, accepted);
  UploadEnd rejected;
  rejected.result = UploadResult::kRejected;
  rejected.reason = RejectReason::kNotFinite;
  telemetry.UploadEnded(task, rejected);
  telemetry.AssignmentsIssued(task, 3);
  telemetry.RoundIs(task, {2, 3, 1});
  telemetry.Aggregated(std::chrono::milliseconds(20));
  telemetry.LeaseAcquired();
  telemetry.WriteFenced();
  telemetry.AuthFailed(AuthFailure::kAdminToken);
  telemetry.RateLimited(RateLimit::kUploads);
  telemetry.DatabaseCalled("commit_round", std::chrono::milliseconds(3));
  telemetry.BlobsCalled("put", std::chrono::milliseconds(3));
  const std::string open = telemetry.Text();
  EXPECT_THAT(
      open,
      HasSubstr("selvage_build_info{commit=\"abc\",version=\"1.2.3\"} 1\n"));
  EXPECT_THAT(open, HasSubstr("selvage_checkins_total{outcome=\"assigned\","
                              "population=\"demo\"} 1\n"));
  EXPECT_THAT(open, HasSubstr("selvage_updates_total{population=\"demo\","
                              "reason=\"NOT_FINITE\",result=\"rejected\","
                              "task=\"digits\"} 1\n"));
  EXPECT_THAT(open, HasSubstr("selvage_update_bytes_count 1\n"));
  EXPECT_THAT(open, HasSubstr("selvage_round_phase{population=\"demo\","
                              "task=\"digits\"} 2\n"));
  EXPECT_THAT(open, HasSubstr("selvage_aggregate_seconds_count 1\n"));
  EXPECT_THAT(open, HasSubstr("selvage_lease_acquired_total 1\n"));
  EXPECT_THAT(open, HasSubstr("selvage_lease_lost_total 0\n"));
  EXPECT_THAT(open, HasSubstr("selvage_fenced_writes_total 1\n"));
  EXPECT_THAT(
      open,
      HasSubstr("selvage_auth_failures_total{reason=\"admin_token\"} 1\n"));
  EXPECT_THAT(open,
              HasSubstr("selvage_ratelimited_total{scope=\"uploads\"} 1\n"));
  EXPECT_THAT(open, HasSubstr("selvage_db_query_duration_seconds_count{query="
                              "\"commit_round\"} 1\n"));
  EXPECT_THAT(open, HasSubstr("selvage_objectstore_request_duration_seconds_"
                              "count{op=\"put\"} 1\n"));
  EXPECT_THAT(open, HasSubstr("selvage_last_commit_timestamp_seconds 0\n"));

  RoundEnd end;
  end.ended = Time(std::chrono::seconds(1'700'000'000));
  end.duration = std::chrono::seconds(10);
  end.assignments = {1, 1, 0, 0, 0, 1};
  end.update_norm = 0.75;
  telemetry.RoundEnded(task, end);
  const std::string ended = telemetry.Text();
  EXPECT_THAT(ended,
              HasSubstr("selvage_assignments_total{outcome=\"unfinished\","
                        "population=\"demo\",task=\"digits\"} 1\n"));
  EXPECT_THAT(ended, HasSubstr("selvage_rounds_total{population=\"demo\","
                               "state=\"committed\",task=\"digits\"} 1\n"));
  EXPECT_THAT(ended,
              HasSubstr("selvage_last_commit_timestamp_seconds 1700000000"));
  EXPECT_THAT(ended, HasSubstr("selvage_round_duration_seconds_sum{outcome="
                               "\"committed\",population=\"demo\",task="
                               "\"digits\"} 10\n"));
  EXPECT_THAT(ended, HasSubstr("selvage_update_norm_sum{population=\"demo\","
                               "task=\"digits\"} 0.75\n"));
}

// docs/operations.md, "Metrics", lists all of them and no other.
TEST(PrometheusTelemetryTest, Names_AreThoseOfTheDocs) {
  PrometheusTelemetry telemetry("1", "x");
  const TaskLabel task{"demo", "digits"};
  telemetry.CheckedIn("demo", CheckInOutcome::kNothing);
  telemetry.UploadBegan(task);
  telemetry.UploadEnded(task, {});
  telemetry.AssignmentsIssued(task, 1);
  telemetry.RoundIs(task, {});
  RoundEnd round;
  round.update_norm = 1;
  telemetry.RoundEnded(task, round);
  telemetry.DatabaseCalled("get_task", Duration(1));
  telemetry.BlobsCalled("put", Duration(1));
  telemetry.PaceIs("demo", {});
  std::set<std::string> shown = {"selvage_connections_open",
                                 "selvage_db_pool_in_use"};  // the service's
  std::istringstream lines(telemetry.Text());
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("# TYPE ")) continue;
    shown.insert(line.substr(7, line.find(' ', 7) - 7));
  }
  std::ifstream in(std::string(SELVAGE_SOURCE_DIR) + "/docs/operations.md");
  std::string text{std::istreambuf_iterator<char>(in), {}};
  text.erase(0, text.find("\n## Metrics\n"));
  text.erase(text.find("\n## ", 1));
  const std::regex name("selvage_[a-z_]+");
  std::set<std::string> documented;
  for (std::sregex_iterator it(text.begin(), text.end(), name), end; it != end;
       ++it) {
    documented.insert(it->str());
  }
  EXPECT_EQ(shown, documented);
}

TEST(PrometheusTelemetryTest, LastCommit_IsNoEvaluationAndNoAbandonedRound) {
  PrometheusTelemetry telemetry("1", "x");
  RoundEnd end;
  end.ended = Time(std::chrono::seconds(1000));
  end.mode = RoundMode::kEvaluate;
  telemetry.RoundEnded({"p", "t"}, end);
  end.mode = RoundMode::kTrain;
  end.state = RoundState::kAbandoned;
  telemetry.RoundEnded({"p", "t"}, end);
  EXPECT_THAT(telemetry.Text(),
              HasSubstr("selvage_last_commit_timestamp_seconds 0\n"));
}

TEST(PrometheusTelemetryTest, ManyTasks_AreOtherInTheEnd) {
  PrometheusTelemetry telemetry("1", "x");
  const size_t more = 20;
  for (size_t i = 0; i < PrometheusTelemetry::kTasksMax + more; ++i) {
    telemetry.UploadBegan({"p", "task-" + std::to_string(i)});
  }
  for (size_t i = 0; i < PrometheusTelemetry::kPopulationsMax + more; ++i) {
    telemetry.CheckedIn("q" + std::to_string(i), CheckInOutcome::kNothing);
  }
  const std::string text = telemetry.Text();
  EXPECT_EQ(Count(text, "selvage_uploads_begun_total{"),
            PrometheusTelemetry::kTasksMax + 1);
  EXPECT_THAT(text, HasSubstr("selvage_uploads_begun_total{population=\"p\","
                              "task=\"other\"} 20\n"));
  // p is one of the populations.
  EXPECT_THAT(text, HasSubstr("selvage_checkins_total{outcome=\"nothing\","
                              "population=\"other\"} 21\n"));
}

TEST(PrometheusTelemetryTest, Text_EscapesWhatIsNotPlain) {
  PrometheusTelemetry telemetry("1", "x");
  telemetry.CheckedIn("a\"b\\c\nd", CheckInOutcome::kNothing);
  EXPECT_THAT(telemetry.Text(), HasSubstr("population=\"a\\\"b\\\\c\\nd\""));
}

TEST(PrometheusTelemetryTest, Gauges_AreAskedUntilToldNotTo) {
  PrometheusTelemetry telemetry("1", "x");
  int asked = 0;
  uint64_t refused = 0;
  telemetry.AddGauge("selvage_db_pool_in_use", "In use.",
                     [&asked] { return static_cast<double>(++asked); });
  telemetry.CountConnectionsRefused([&refused] { return refused; });
  EXPECT_THAT(telemetry.Text(), HasSubstr("selvage_db_pool_in_use 1\n"));
  refused = 7;
  EXPECT_THAT(
      telemetry.Text(),
      HasSubstr("selvage_ratelimited_total{scope=\"connections\"} 7\n"));
  telemetry.StopAsking();
  EXPECT_THAT(telemetry.Text(), HasSubstr("selvage_db_pool_in_use 2\n"));
  EXPECT_EQ(asked, 2);
}

TEST(PrometheusTelemetryTest, ManyThreads_LoseNothing) {
  PrometheusTelemetry telemetry("1", "x");
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&telemetry, t] {
      for (int i = 0; i < 500; ++i) {
        telemetry.CheckedIn("p", CheckInOutcome::kNothing);
        telemetry.DatabaseCalled("q" + std::to_string((t + i) % 7),
                                 Duration(1));
        if (i % 100 == 0) static_cast<void>(telemetry.Text());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(telemetry.Text(),
              HasSubstr("selvage_checkins_total{outcome=\"nothing\","
                        "population=\"p\"} 2000\n"));
}

}  // namespace
}  // namespace selvage::coordinator

#include "coordinator/telemetry/prometheus_telemetry.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/mutex.h"

namespace selvage::coordinator {
namespace {

using prometheus::Counter;
using prometheus::Gauge;
using prometheus::Histogram;
using Buckets = Histogram::BucketBoundaries;

std::string_view Word(CheckInOutcome outcome) {
  switch (outcome) {
    case CheckInOutcome::kAssigned:
      return "assigned";
    case CheckInOutcome::kOffered:
      return "offered";
    case CheckInOutcome::kNothing:
      return "nothing";
    case CheckInOutcome::kDenied:
      return "denied";
    case CheckInOutcome::kFailed:
      return "failed";
  }
  return "failed";
}

std::string_view Word(UploadResult result) {
  switch (result) {
    case UploadResult::kAccepted:
      return "accepted";
    case UploadResult::kRejected:
      return "rejected";
    case UploadResult::kLate:
      return "late";
    case UploadResult::kDuplicate:
      return "duplicate";
    case UploadResult::kFailed:
      return "failed";
    case UploadResult::kInterrupted:
      return "interrupted";
  }
  return "failed";
}

constexpr std::array<std::string_view, kAssignmentEndCount> kAssignmentEnds = {
    "accepted", "rejected", "late", "abandoned", "expired", "unfinished"};

std::string_view Word(RoundState state) {
  return state == RoundState::kCommitted ? "committed" : "abandoned";
}

std::string_view Word(AuthFailure reason) {
  switch (reason) {
    case AuthFailure::kCertificate:
      return "certificate";
    case AuthFailure::kEnrolmentToken:
      return "enrolment_token";
    case AuthFailure::kNotEnrolled:
      return "not_enrolled";
    case AuthFailure::kAssignmentToken:
      return "assignment_token";
    case AuthFailure::kAdminToken:
      return "admin_token";
  }
  return "certificate";
}

std::string_view Word(RateLimit scope) {
  switch (scope) {
    case RateLimit::kCheckIns:
      return "check_ins";
    case RateLimit::kUploads:
      return "uploads";
    case RateLimit::kSlowUpload:
      return "slow_upload";
    case RateLimit::kEnrolment:
      return "enrolment";
    case RateLimit::kConnections:
      return "connections";
  }
  return "uploads";
}

double Seconds(Duration duration) {
  return std::chrono::duration<double>(duration).count();
}

// `count` bounds, each `factor` times the one before.
Buckets Powers(double first, double factor, int count) {
  Buckets buckets;
  for (int i = 0; i < count; ++i, first *= factor) buckets.push_back(first);
  return buckets;
}

// Of calls that take milliseconds: 0.25 ms .. 32 s.
Buckets CallSeconds() { return Powers(0.00025, 2, 18); }

// The metrics of one name, by the values of their labels.
template <typename Metric>
class Family {
 public:
  // `args` make every metric of it.
  template <typename... Args>
  Family(prometheus::Registry& registry, const std::string& name,
         const std::string& help, std::vector<std::string> labels, Args... args)
      : labels_(std::move(labels)),
        add_([&family = Build(registry, name, help),
              args...](const prometheus::Labels& values) -> Metric& {
          return family.Add(values, args...);
        }) {}

  // REQUIRES: as many values as labels.
  Metric& Of(std::initializer_list<std::string_view> values)
      SELVAGE_EXCLUDES(mu_) {
    std::string key;
    for (const std::string_view value : values) {
      key.append(value);
      key += '\0';
    }
    MutexLock lock(mu_);
    const auto it = metrics_.find(key);
    if (it != metrics_.end()) return *it->second;
    prometheus::Labels named;
    size_t i = 0;
    for (const std::string_view value : values) {
      named.emplace(labels_.at(i++), value);
    }
    Metric& metric = add_(named);
    metrics_.emplace(std::move(key), &metric);
    return metric;
  }

 private:
  static prometheus::Family<Metric>& Build(prometheus::Registry& registry,
                                           const std::string& name,
                                           const std::string& help) {
    if constexpr (std::is_same_v<Metric, Counter>) {
      return prometheus::BuildCounter().Name(name).Help(help).Register(
          registry);
    } else if constexpr (std::is_same_v<Metric, Gauge>) {
      return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
    } else {
      return prometheus::BuildHistogram().Name(name).Help(help).Register(
          registry);
    }
  }

  const std::vector<std::string> labels_;
  const std::function<Metric&(const prometheus::Labels&)> add_;
  Mutex mu_;
  std::unordered_map<std::string, Metric*> metrics_ SELVAGE_GUARDED_BY(mu_);
};

// The first `max` values, and "other" for the rest.
class BoundedLabel {
 public:
  explicit BoundedLabel(size_t max) : max_(max) {}
  std::string_view Of(const std::string& value) SELVAGE_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    const auto it = seen_.find(value);
    if (it != seen_.end()) return *it;
    if (seen_.size() >= max_) return "other";
    return *seen_.insert(value).first;
  }

 private:
  const size_t max_;
  Mutex mu_;
  std::set<std::string> seen_ SELVAGE_GUARDED_BY(mu_);  // never shrinks
};

}  // namespace

struct PrometheusTelemetry::Metrics {
  struct Asked {
    Gauge* gauge;
    std::function<double()> value;
  };
  // Names as the metrics show them.
  struct Label {
    std::string_view population;
    std::string_view task;
  };
  Label Of(const TaskLabel& label) {
    return {populations.Of(label.population), tasks.Of(label.task)};
  }

  prometheus::Registry registry;
  BoundedLabel populations{kPopulationsMax};
  BoundedLabel tasks{kTasksMax};

  Family<Counter> checkins{registry,
                           "selvage_checkins_total",
                           "Check-ins that were answered.",
                           {"population", "outcome"}};
  Family<Counter> assignments_issued{registry,
                                     "selvage_assignments_issued_total",
                                     "Assignments given out.",
                                     {"population", "task"}};
  Family<Counter> assignments{
      registry,
      "selvage_assignments_total",
      "Assignments of rounds that have ended, by what became of them.",
      {"population", "task", "outcome"}};
  Family<Gauge> assignments_open{registry,
                                 "selvage_assignments_open",
                                 "Assignments of the round that is open.",
                                 {"population", "task"}};
  Family<Counter> uploads_begun{registry,
                                "selvage_uploads_begun_total",
                                "Upload streams that began.",
                                {"population", "task"}};
  Family<Gauge> uploads_open{registry,
                             "selvage_uploads_open",
                             "Upload streams without an answer yet.",
                             {"population", "task"}};
  Family<Counter> updates{registry,
                          "selvage_updates_total",
                          "Upload streams that ended, by how.",
                          {"population", "task", "result", "reason"}};
  Family<Histogram> update_bytes{
      registry, "selvage_update_bytes", "Sizes of accepted updates.",
      std::vector<std::string>{}, Powers(1024, 4, 12)};
  Family<Counter> rounds{registry,
                         "selvage_rounds_total",
                         "Rounds that ended, by their last state.",
                         {"population", "task", "state"}};
  Family<Counter> round_updates{
      registry,
      "selvage_round_updates_total",
      "Accepted updates of rounds that have ended, by the round's last state.",
      {"population", "task", "state"}};
  Family<Gauge> round_updates_open{registry,
                                   "selvage_round_updates_open",
                                   "Updates that the open round has accepted.",
                                   {"population", "task"}};
  Family<Histogram> round_duration{
      registry,
      "selvage_round_duration_seconds",
      "From the opening of a round to its end.",
      {"population", "task", "outcome"},
      Buckets{1, 5, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 21600,
              86400}};
  Family<Gauge> round_phase{
      registry,
      "selvage_round_phase",
      "State of the open round: 1 SELECTING, 2 COLLECTING, 3 CLOSING, 4 "
      "UNMASKING, 5 APPLYING; 0: none is driven here.",
      {"population", "task"}};
  Family<Histogram> update_norm{
      registry,
      "selvage_update_norm",
      "L2 norm of the mean of a committed round's updates, of shared "
      "parameters, before the server's step.",
      {"population", "task"},
      Powers(1e-4, std::sqrt(10.0), 18)};
  Family<Histogram> aggregate{registry, "selvage_aggregate_seconds",
                              "From the close of a round to its commit.",
                              std::vector<std::string>{}, Powers(0.005, 2, 18)};
  Family<Gauge> last_commit{
      registry,
      "selvage_last_commit_timestamp_seconds",
      "When a round made a version here last, in seconds since 1970; 0: not "
      "since the start.",
      {}};
  Family<Gauge> pace_target{registry,
                            "selvage_pace_target_per_second",
                            "Check-ins per second that are wanted at most.",
                            {"population"}};
  Family<Gauge> pace_observed{
      registry,
      "selvage_pace_observed_per_second",
      "Check-ins per second without work, in the last whole window.",
      {"population"}};
  Family<Gauge> retry_window{
      registry,
      "selvage_retry_window_seconds",
      "The middle of when devices without work are told to come back.",
      {"population"}};
  Family<Counter> lease_acquired{registry,
                                 "selvage_lease_acquired_total",
                                 "Tasks that this replica took over.",
                                 {}};
  Family<Counter> lease_lost{registry,
                             "selvage_lease_lost_total",
                             "Tasks that another replica took from this one.",
                             {}};
  Family<Counter> fenced_writes{
      registry,
      "selvage_fenced_writes_total",
      "Writes that the store refused, since somebody else had the round.",
      {}};
  Family<Counter> auth_failures{registry,
                                "selvage_auth_failures_total",
                                "Calls that did not say who they are.",
                                {"reason"}};
  Family<Counter> ratelimited{registry,
                              "selvage_ratelimited_total",
                              "What was turned away because of a limit.",
                              {"scope"}};
  Family<Histogram> database{registry,
                             "selvage_db_query_duration_seconds",
                             "Calls of the database.",
                             {"query"},
                             CallSeconds()};
  Family<Histogram> blobs{registry,
                          "selvage_objectstore_request_duration_seconds",
                          "Calls of the store of models and partial sums.",
                          {"op"},
                          CallSeconds()};
  Family<Gauge> build_info{registry,
                           "selvage_build_info",
                           "1; the labels say what this is.",
                           {"version", "commit"}};

  Mutex mu;
  bool asking SELVAGE_GUARDED_BY(mu) = true;
  std::vector<Asked> asked SELVAGE_GUARDED_BY(mu);
  std::function<uint64_t()> refused SELVAGE_GUARDED_BY(mu);
  uint64_t refused_told SELVAGE_GUARDED_BY(mu) = 0;
};

PrometheusTelemetry::PrometheusTelemetry(std::string_view version,
                                         std::string_view commit)
    : metrics_(std::make_unique<Metrics>()) {
  metrics_->build_info.Of({version, commit}).Set(1);
  // What has no label, or few, is there from the start: 0 is an answer.
  metrics_->update_bytes.Of({});
  metrics_->aggregate.Of({});
  metrics_->last_commit.Of({});
  metrics_->lease_acquired.Of({});
  metrics_->lease_lost.Of({});
  metrics_->fenced_writes.Of({});
  for (const AuthFailure reason :
       {AuthFailure::kCertificate, AuthFailure::kEnrolmentToken,
        AuthFailure::kNotEnrolled, AuthFailure::kAssignmentToken,
        AuthFailure::kAdminToken}) {
    metrics_->auth_failures.Of({Word(reason)});
  }
  for (const RateLimit scope :
       {RateLimit::kCheckIns, RateLimit::kUploads, RateLimit::kSlowUpload,
        RateLimit::kEnrolment, RateLimit::kConnections}) {
    metrics_->ratelimited.Of({Word(scope)});
  }
}

PrometheusTelemetry::~PrometheusTelemetry() = default;

void PrometheusTelemetry::CheckedIn(const std::string& population,
                                    CheckInOutcome outcome) {
  metrics_->checkins.Of({metrics_->populations.Of(population), Word(outcome)})
      .Increment();
}

void PrometheusTelemetry::UploadBegan(const TaskLabel& label) {
  const auto [population, task] = metrics_->Of(label);
  metrics_->uploads_begun.Of({population, task}).Increment();
  metrics_->uploads_open.Of({population, task}).Increment();
}

void PrometheusTelemetry::UploadEnded(const TaskLabel& label,
                                      const UploadEnd& end) {
  const auto [population, task] = metrics_->Of(label);
  std::string_view reason;
  if (end.result == UploadResult::kRejected) {
    reason = RejectReasonName(end.reason);
  } else if (end.result == UploadResult::kFailed) {
    reason = StatusCodeName(end.error);
  }
  metrics_->updates.Of({population, task, Word(end.result), reason})
      .Increment();
  metrics_->uploads_open.Of({population, task}).Decrement();
  if (end.result == UploadResult::kAccepted) {
    metrics_->update_bytes.Of({}).Observe(static_cast<double>(end.bytes));
  }
}

void PrometheusTelemetry::AssignmentsIssued(const TaskLabel& label,
                                            uint64_t count) {
  const auto [population, task] = metrics_->Of(label);
  metrics_->assignments_issued.Of({population, task})
      .Increment(static_cast<double>(count));
}

void PrometheusTelemetry::RoundIs(const TaskLabel& label,
                                  const RoundView& view) {
  const auto [population, task] = metrics_->Of(label);
  metrics_->round_phase.Of({population, task})
      .Set(static_cast<double>(view.phase));
  metrics_->assignments_open.Of({population, task})
      .Set(static_cast<double>(view.assignments));
  metrics_->round_updates_open.Of({population, task})
      .Set(static_cast<double>(view.updates));
  // Whoever divides by both wants to see the zeros.
  for (const RoundState state :
       {RoundState::kCommitted, RoundState::kAbandoned}) {
    metrics_->rounds.Of({population, task, Word(state)});
    metrics_->round_updates.Of({population, task, Word(state)});
  }
}

void PrometheusTelemetry::RoundEnded(const TaskLabel& label,
                                     const RoundEnd& end) {
  const auto [population, task] = metrics_->Of(label);
  const std::string_view state = Word(end.state);
  for (size_t i = 0; i < kAssignmentEnds.size(); ++i) {
    metrics_->assignments.Of({population, task, kAssignmentEnds[i]})
        .Increment(static_cast<double>(end.assignments[i]));
  }
  metrics_->rounds.Of({population, task, state}).Increment();
  metrics_->round_updates.Of({population, task, state})
      .Increment(static_cast<double>(
          end.assignments[static_cast<size_t>(AssignmentEnd::kAccepted)]));
  metrics_->round_duration.Of({population, task, state})
      .Observe(Seconds(end.duration));
  if (end.update_norm.has_value()) {
    metrics_->update_norm.Of({population, task}).Observe(*end.update_norm);
  }
  if (end.state == RoundState::kCommitted && end.mode == RoundMode::kTrain) {
    metrics_->last_commit.Of({}).Set(Seconds(end.ended.time_since_epoch()));
  }
}

void PrometheusTelemetry::Aggregated(Duration duration) {
  metrics_->aggregate.Of({}).Observe(Seconds(duration));
}

void PrometheusTelemetry::LeaseAcquired() {
  metrics_->lease_acquired.Of({}).Increment();
}

void PrometheusTelemetry::LeaseLost() {
  metrics_->lease_lost.Of({}).Increment();
}

void PrometheusTelemetry::WriteFenced() {
  metrics_->fenced_writes.Of({}).Increment();
}

void PrometheusTelemetry::PaceIs(const std::string& population,
                                 const PaceView& view) {
  const std::string_view label = metrics_->populations.Of(population);
  metrics_->pace_target.Of({label}).Set(view.target_per_second);
  metrics_->pace_observed.Of({label}).Set(view.observed_per_second);
  metrics_->retry_window.Of({label}).Set(Seconds(view.window));
}

void PrometheusTelemetry::AuthFailed(AuthFailure reason) {
  metrics_->auth_failures.Of({Word(reason)}).Increment();
}

void PrometheusTelemetry::RateLimited(RateLimit scope) {
  metrics_->ratelimited.Of({Word(scope)}).Increment();
}

void PrometheusTelemetry::DatabaseCalled(std::string_view query,
                                         Duration duration) {
  metrics_->database.Of({query}).Observe(Seconds(duration));
}

void PrometheusTelemetry::BlobsCalled(std::string_view op, Duration duration) {
  metrics_->blobs.Of({op}).Observe(Seconds(duration));
}

void PrometheusTelemetry::AddGauge(const std::string& name,
                                   const std::string& help,
                                   std::function<double()> value) {
  Gauge& gauge = prometheus::BuildGauge()
                     .Name(name)
                     .Help(help)
                     .Register(metrics_->registry)
                     .Add({});
  MutexLock lock(metrics_->mu);
  metrics_->asked.push_back({&gauge, std::move(value)});
}

void PrometheusTelemetry::CountConnectionsRefused(
    std::function<uint64_t()> total) {
  MutexLock lock(metrics_->mu);
  metrics_->refused = std::move(total);
}

void PrometheusTelemetry::StopAsking() {
  MutexLock lock(metrics_->mu);
  metrics_->asking = false;
}

std::string PrometheusTelemetry::Text() {
  {
    MutexLock lock(metrics_->mu);
    if (metrics_->asking) {
      for (const Metrics::Asked& asked : metrics_->asked) {
        asked.gauge->Set(asked.value());
      }
      if (metrics_->refused != nullptr) {
        const uint64_t refused = metrics_->refused();
        metrics_->ratelimited.Of({Word(RateLimit::kConnections)})
            .Increment(static_cast<double>(refused - metrics_->refused_told));
        metrics_->refused_told = refused;
      }
    }
  }
  return prometheus::TextSerializer().Serialize(metrics_->registry.Collect());
}

}  // namespace selvage::coordinator

// A Telemetry that keeps metrics for Prometheus; their names and what they mean
// are docs/operations.md, "Metrics". Labels come from small sets; populations
// and tasks, which people make, are "other" beyond the first kPopulationsMax
// and kTasksMax of the process.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "coordinator/telemetry.h"

namespace selvage::coordinator {

// Thread-safe.
class PrometheusTelemetry final : public Telemetry {
 public:
  static constexpr size_t kPopulationsMax = 100;
  static constexpr size_t kTasksMax = 500;

  // What selvage_build_info says.
  PrometheusTelemetry(std::string_view version, std::string_view commit);
  ~PrometheusTelemetry() override;

  void CheckedIn(const std::string& population,
                 CheckInOutcome outcome) override;
  void UploadBegan(const TaskLabel& label) override;
  void UploadEnded(const TaskLabel& label, const UploadEnd& end) override;
  void AssignmentsIssued(const TaskLabel& label, uint64_t count) override;
  void RoundIs(const TaskLabel& label, const RoundView& view) override;
  void RoundEnded(const TaskLabel& label, const RoundEnd& end) override;
  void Aggregated(Duration duration) override;
  void LeaseAcquired() override;
  void LeaseLost() override;
  void WriteFenced() override;
  void PaceIs(const std::string& population, const PaceView& view) override;
  void AuthFailed(AuthFailure reason) override;
  void RateLimited(RateLimit scope) override;
  void DatabaseCalled(std::string_view query, Duration duration) override;
  void BlobsCalled(std::string_view op, Duration duration) override;

  // A gauge that is asked for its value whenever the metrics are read, until
  // StopAsking(). Before the first Text().
  void AddGauge(const std::string& name, const std::string& help,
                std::function<double()> value);
  // Likewise what RateLimit::kConnections counts: so many in all.
  void CountConnectionsRefused(std::function<uint64_t()> total);
  // None of them is called any more once this returns.
  void StopAsking();

  // All metrics in the text format 0.0.4.
  std::string Text();

 private:
  struct Metrics;  // prometheus-cpp's

  const std::unique_ptr<Metrics> metrics_;
};

}  // namespace selvage::coordinator

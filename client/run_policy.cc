#include "client/run_policy.h"

#include <algorithm>

namespace selvage::client {
namespace {

constexpr uint64_t kKeepEveryBytes = 1 << 20;
constexpr Duration kKeepEveryCpu = std::chrono::seconds(10);
// Of a message without its texts: numbers, tags, lengths.
constexpr uint64_t kMessageSize = 128;

uint64_t SizeOf(const std::vector<std::string>& texts) {
  uint64_t size = 0;
  for (const std::string& text : texts) size += text.size() + 2;
  return size;
}

class Metered final : public Transport {
 public:
  Metered(std::unique_ptr<Transport> transport, RunPolicy& policy)
      : transport_(std::move(transport)), policy_(policy) {}

  Result<EnrollAnswer> Enroll(const EnrollRequest& request) override {
    const uint64_t sent = kMessageSize + request.token_id.size() +
                          request.token_secret.size() + request.csr_pem.size() +
                          request.device_name.size();
    Result<EnrollAnswer> answer = transport_->Enroll(request);
    policy_.CountBytes(
        sent,
        kMessageSize + (answer.ok() ? answer->certificate_pem.size() +
                                          32 * answer->plan_public_keys.size()
                                    : 0));
    return answer;
  }

  Result<CheckInAnswer> CheckIn(const CheckInRequest& request) override {
    uint64_t sent = kMessageSize + request.population.size() +
                    request.device_class.size() + request.app_version.size() +
                    SizeOf(request.engines) +
                    SizeOf(request.unsettled_assignments);
    for (const InstalledModel& model : request.installed) {
      sent += model.task.size() + 12;
    }
    Result<CheckInAnswer> answer = transport_->CheckIn(request);
    // An assignment has two digests, a signature and a token.
    policy_.CountBytes(sent, 2 * kMessageSize);
    return answer;
  }

  RetryWindow asked_to_wait() const override {
    return transport_->asked_to_wait();
  }

  Status Fetch(const crypto::Digest& digest, uint64_t offset, const Sink& sink,
               const KeepGoing& keep_going) override {
    policy_.CountBytes(kMessageSize, 0);
    return transport_->Fetch(
        digest, offset,
        [&](ByteSpan bytes, uint64_t total) {
          policy_.CountBytes(0, bytes.size());
          return sink(bytes, total);
        },
        keep_going);
  }

  Status FetchDelta(const crypto::Digest& digest, const crypto::Digest& base,
                    plan::CodecName codec, const Sink& sink,
                    const KeepGoing& keep_going) override {
    policy_.CountBytes(kMessageSize, 0);
    return transport_->FetchDelta(
        digest, base, codec,
        [&](ByteSpan bytes, uint64_t total) {
          policy_.CountBytes(0, bytes.size());
          return sink(bytes, total);
        },
        keep_going);
  }

  Result<Receipt> Upload(const UploadHeader& header, const UpdateBytes& update,
                         const KeepGoing& keep_going) override {
    // All of it, also where the coordinator asks for the rest only.
    policy_.CountBytes(2 * kMessageSize + update.size(), 0);
    Result<Receipt> receipt = transport_->Upload(header, update, keep_going);
    policy_.CountBytes(
        0, kMessageSize + (receipt.ok() ? receipt->message.size() : 0));
    return receipt;
  }

  Result<RetryWindow> Abandon(const std::string& assignment_id, ByteSpan token,
                              AbandonReason reason,
                              const std::string& message) override {
    policy_.CountBytes(
        kMessageSize + assignment_id.size() + token.size() + message.size(),
        kMessageSize);
    return transport_->Abandon(assignment_id, token, reason, message);
  }

  Result<RetryWindow> Report(
      const std::string& report_id,
      const std::vector<std::pair<std::string, uint64_t>>& counters) override {
    uint64_t sent = kMessageSize + report_id.size();
    for (const auto& [name, value] : counters) sent += name.size() + 12;
    policy_.CountBytes(sent, kMessageSize);
    return transport_->Report(report_id, counters);
  }

 private:
  const std::unique_ptr<Transport> transport_;
  RunPolicy& policy_;
};

}  // namespace

std::unique_ptr<Transport> MeteredTransport(
    std::unique_ptr<Transport> transport, RunPolicy& policy) {
  return std::make_unique<Metered>(std::move(transport), policy);
}

Status RunPolicy::Begin(const RunBudget& budget, const CancelToken& cancel) {
  const Time now = deps_.clock.Now();
  budget_ = budget;
  cancel_ = &cancel;
  end_ = budget.time >= kNever - now ? kNever : now + budget.time;
  wanted_ = {};
  stop_.reset();
  not_before_.reset();
  process_ = false;
  thread_seen_ = cpu().ThreadTime();
  process_seen_ = cpu().ProcessTime();
  sent_ = 0;
  received_ = 0;
  cpu_used_ = {};
  if (limited()) {
    SELVAGE_ASSIGN_OR_RETURN(std::optional<Bytes> saved, store_.LoadUsage());
    if (saved.has_value()) {
      Result<UsageLedger> ledger = UsageLedger::Restore(*saved);
      if (ledger.ok()) {
        ledger_ = *std::move(ledger);
        kept_ = *std::move(saved);
      } else {
        deps_.events.Write(LogLevel::kWarning, "usage_reset",
                           {{"reason", ledger.status().message()}});
      }
    }
  }
  ledger_.Observe(now);
  return OkStatus();
}

std::optional<std::string> RunPolicy::Stop() {
  CountCpu();
  if (!stop_.has_value()) stop_ = FindStop();
  return stop_;
}

std::optional<std::string> RunPolicy::FindStop() {
  if (cancel_ == nullptr) return "there is no session";
  if (cancel_->cancelled()) return "cancelled";
  const Time now = deps_.clock.Now();
  if (now >= end_) return "the time budget is used up";
  const Conditions conditions = Now();
  if (std::optional<std::string> unmet = UnmetCondition(wanted_, conditions)) {
    return unmet;
  }
  if (budget_.energy == EnergyClass::kChargingOnly && !conditions.charging) {
    return "the device is not charging";
  }
  ledger_.Observe(now);
  return OverLimit(0);
}

std::optional<std::string> RunPolicy::OverLimit(uint64_t more) {
  const auto over = [more](uint64_t used, uint64_t limit) {
    return limit > 0 &&
           (more > 0 ? more > limit - std::min(used, limit) : used >= limit);
  };
  const auto text = [](std::string_view what, uint64_t limit) {
    return std::string(what) + " (" + std::to_string(limit) + ") are used up";
  };
  if (over(sent_ + received_, budget_.bytes)) {
    return text("the bytes of the budget", budget_.bytes);
  }
  const DailyLimits& daily = options_.daily;
  const DayUsage& today = ledger_.today();
  std::optional<std::string> reason;
  if (Now().unmetered) {
    if (over(today.unmetered_bytes, daily.unmetered_bytes)) {
      reason = text("the unmetered bytes of the day", daily.unmetered_bytes);
    }
  } else if (over(today.metered_bytes, daily.metered_bytes)) {
    reason = text("the metered bytes of the day", daily.metered_bytes);
  }
  if (daily.cpu > Duration::zero() && today.cpu >= daily.cpu) {
    reason = text("the microseconds of CPU time of the day",
                  static_cast<uint64_t>(daily.cpu.count()));
  }
  if (reason.has_value()) not_before_ = ledger_.NextDay();
  return reason;
}

void RunPolicy::Reserve(uint64_t bytes) {
  if (!stop_.has_value()) stop_ = OverLimit(bytes);
}

void RunPolicy::CountProcess(bool on) {
  CountCpu();
  process_ = on;
}

void RunPolicy::CountCpu() {
  const Duration thread = cpu().ThreadTime();
  const Duration process = cpu().ProcessTime();
  Duration used = thread - thread_seen_;
  if (process_) used = process - process_seen_;
  thread_seen_ = thread;
  process_seen_ = process;
  // A session may be run by another thread than the one before.
  used = std::max(used, Duration::zero());
  cpu_used_ += used;
  ledger_.AddCpu(used);
  cpu_since_ += used;
  KeepIfMuch();
}

void RunPolicy::CountBytes(uint64_t sent, uint64_t received) {
  sent_ += sent;
  received_ += received;
  ledger_.Observe(deps_.clock.Now());
  ledger_.AddBytes(Now().unmetered, sent + received);
  bytes_since_ += sent + received;
  KeepIfMuch();
}

std::optional<std::string> RunPolicy::UploadsUsedUp(
    const std::string& assignment_id) {
  const int most = options_.floor.uploads_per_day_max;
  if (most == 0 || ledger_.HasUpload(assignment_id)) return std::nullopt;
  ledger_.Observe(deps_.clock.Now());
  if (ledger_.today().uploads < static_cast<uint32_t>(most)) {
    return std::nullopt;
  }
  not_before_ = ledger_.NextDay();
  return "the uploads of the day (" + std::to_string(most) + ") are used up";
}

Status RunPolicy::CountUpload(const std::string& assignment_id) {
  if (options_.floor.uploads_per_day_max == 0) return OkStatus();
  if (ledger_.HasUpload(assignment_id)) return OkStatus();
  UsageLedger before = ledger_;
  ledger_.AddUpload(assignment_id);
  Status status = Keep();
  if (!status.ok()) ledger_ = std::move(before);
  return status;
}

void RunPolicy::KeepIfMuch() {
  if (bytes_since_ >= kKeepEveryBytes || cpu_since_ >= kKeepEveryCpu) {
    // What cannot be written now is written by the next call, or counted again.
    (void)Keep();
  }
}

Status RunPolicy::Keep() {
  bytes_since_ = 0;
  cpu_since_ = {};
  if (!limited()) return OkStatus();
  Bytes bytes = ledger_.Save();
  if (bytes == kept_) return OkStatus();
  SELVAGE_RETURN_IF_ERROR(store_.SaveUsage(bytes));
  kept_ = std::move(bytes);
  return OkStatus();
}

void RunPolicy::End(RunUsage& usage) {
  CountCpu();
  if (Status status = Keep(); !status.ok()) {
    deps_.events.Write(LogLevel::kWarning, "usage_not_kept",
                       {{"reason", status.message()}});
  }
  usage.bytes_sent = sent_;
  usage.bytes_received = received_;
  usage.cpu = cpu_used_;
  usage.memory_peak_bytes = PeakMemoryBytes();
  cancel_ = nullptr;
}

}  // namespace selvage::client

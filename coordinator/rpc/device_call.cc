#include "coordinator/rpc/device_call.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "base/bytes.h"
#include "base/random.h"
#include "coordinator/rpc/convert.h"
#include "coordinator/rpc/status_convert.h"

namespace selvage::coordinator {
namespace {

std::atomic<uint64_t> calls{0};

// Half drawn once by each process, half its count of calls: no two alike, and
// nothing to draw for each.
std::string TraceId(uint64_t number) {
  static const std::string prefix = [] {
    Bytes raw(8);
    OsRandom().Fill(raw);
    return ToHex(raw);
  }();
  Bytes raw;
  for (int shift = 56; shift >= 0; shift -= 8) {
    raw.push_back(static_cast<uint8_t>(number >> shift));
  }
  return prefix + ToHex(raw);
}

bool IsOurFault(StatusCode code) {
  return code == StatusCode::kInternal || code == StatusCode::kDataLoss ||
         code == StatusCode::kUnknown;
}

}  // namespace

DeviceCall::DeviceCall(grpc::CallbackServerContext* context,
                       std::string_view method, EventSink& log, Clock& clock,
                       const RetryWindow& busy_retry,
                       std::shared_ptr<const void> running)
    : context_(context),
      method_(method),
      log_(log),
      clock_(clock),
      busy_retry_(busy_retry),
      begun_(clock.Now()),
      number_(calls.fetch_add(1, std::memory_order_relaxed) + 1),
      trace_id_(TraceId(number_)),
      running_(std::move(running)) {}

grpc::Status DeviceCall::End(const Status& status) {
  context_->AddTrailingMetadata(kTraceIdKey, trace_id_);
  if (status.code() == StatusCode::kResourceExhausted ||
      status.code() == StatusCode::kUnavailable) {
    const v1::RetryWindow window = ToProto(busy_retry_);
    const uint64_t width =
        window.max_ms() - std::min(window.min_ms(), window.max_ms()) + 1;
    // Neighbours far apart (Knuth's multiplicative hash): they do not come back
    // together.
    const uint64_t place = (number_ * 2'654'435'761u) % width;
    context_->AddTrailingMetadata(kRetryMinKey,
                                  std::to_string(window.min_ms()));
    context_->AddTrailingMetadata(kRetryMaxKey,
                                  std::to_string(window.max_ms()));
    context_->AddTrailingMetadata(kPushbackKey,
                                  std::to_string(window.min_ms() + place));
  }
  const double milliseconds =
      std::chrono::duration<double, std::milli>(clock_.Now() - begun_).count();
  if (IsOurFault(status.code())) {
    log_.Write(LogLevel::kWarning, "device_call",
               {{"method", method_},
                {"trace_id", trace_id_},
                {"code", StatusCodeName(status.code())},
                {"dur_ms", milliseconds},
                {"reason", status.message()}});
  } else {
    log_.Write(LogLevel::kDebug, "device_call",
               {{"method", method_},
                {"population", device_.population},
                {"device", device_.device_id},
                {"trace_id", trace_id_},
                {"code", StatusCodeName(status.code())},
                {"dur_ms", milliseconds},
                {"reason", status.message()}});
  }
  return ToGrpc(status);
}

}  // namespace selvage::coordinator

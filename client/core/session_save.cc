// The session's bytes: magic, version, fields in order, little-endian; strings
// and byte arrays with a 32-bit length in front.
#include <algorithm>

#include "client/core/session.h"

namespace selvage::client {
namespace {

constexpr uint32_t kMagic = 0x53534c53;  // "SLSS"
constexpr uint16_t kVersion = 1;
constexpr size_t kStringSizeMax = 4096;
constexpr Time kTimeMax = FromMicros(int64_t{1} << 61);  // about 73,000 years

void Put(Bytes& out, ByteSpan bytes) {
  AppendLe(out, static_cast<uint32_t>(bytes.size()));
  AppendBytes(out, bytes);
}
void Put(Bytes& out, const std::string& text) { Put(out, AsBytes(text)); }
void Put(Bytes& out, const RetryWindow& window) {
  AppendLe(out, window.min.count());
  AppendLe(out, window.max.count());
}
void PutBool(Bytes& out, bool value) {
  AppendLe(out, static_cast<uint8_t>(value ? 1 : 0));
}

// Reads what Put() wrote; the first error sticks and everything after it is
// zero, so that the fields read as a list.
class Fields {
 public:
  explicit Fields(ByteSpan bytes) : reader_(bytes) {}

  template <typename T>
  T Number(std::string_view what) {
    if (!status_.ok()) return T{};
    Result<T> value = reader_.Read<T>(what);
    if (!value.ok()) {
      status_ = value.status();
      return T{};
    }
    return *value;
  }
  bool Flag(std::string_view what) {
    const auto value = Number<uint8_t>(what);
    if (value > 1) Fail(what);
    return value == 1;
  }
  Bytes Raw(std::string_view what) {
    const auto size = Number<uint32_t>(what);
    if (size > kStringSizeMax) Fail(what);
    if (!status_.ok()) return {};
    Result<ByteSpan> bytes = reader_.ReadBytes(size, what);
    if (!bytes.ok()) {
      status_ = bytes.status();
      return {};
    }
    return Bytes(bytes->begin(), bytes->end());
  }
  std::string Text(std::string_view what) { return ToString(Raw(what)); }
  crypto::Digest Hash(std::string_view what) {
    if (!status_.ok()) return {};
    Result<ByteSpan> bytes = reader_.ReadBytes(32, what);
    if (!bytes.ok()) {
      status_ = bytes.status();
      return {};
    }
    crypto::Digest digest;
    std::copy(bytes->begin(), bytes->end(), digest.bytes.begin());
    return digest;
  }
  RetryWindow Window(std::string_view what) {
    RetryWindow window;
    window.min = Duration(Number<int64_t>(what));
    window.max = Duration(Number<int64_t>(what));
    return window;
  }
  // No clock shows a time outside these, and their differences fit.
  Time When(std::string_view what) {
    const Time time = FromMicros(Number<int64_t>(what));
    const bool possible =
        (time >= Time{} && time <= kTimeMax) || time == kNever;
    if (!possible) Fail(what);
    return possible ? time : Time{};
  }
  void Fail(std::string_view what) {
    if (status_.ok()) status_ = DataLoss(std::string(what) + " is impossible");
  }
  bool More() const { return status_.ok() && reader_.remaining() != 0; }
  Status Done() {
    if (status_.ok() && reader_.remaining() != 0) Fail("what follows the end");
    return status_;
  }
  const Status& status() const { return status_; }

 private:
  ByteReader reader_;
  Status status_;
};

// 0: a model offer, 1: train, 2: evaluate.
uint8_t WorkKind(const SessionWork& work) {
  if (!work.train) return 0;
  return work.evaluate ? 2 : 1;
}

bool IsSaved(SessionState state) {
  return state == SessionState::kFetching || state == SessionState::kTraining ||
         state == SessionState::kUploading ||
         state == SessionState::kPersonalizing;
}

}  // namespace

Bytes Session::Save() const {
  Bytes out;
  AppendLe(out, kMagic);
  AppendLe(out, kVersion);
  const bool busy = IsSaved(state_) || withdrawn_;
  AppendLe(out, static_cast<uint8_t>(busy ? state_ : SessionState::kIdle));
  AppendLe(out, ToMicros(next_run_));
  // A slot that was being given back is done with.
  const bool given_back = state_ == SessionState::kAbandoning && !withdrawn_;
  Put(out, given_back ? work_.assignment_id : last_assignment_);
  AppendLe(out, static_cast<uint32_t>(unsettled_.size()));
  for (const std::string& id : unsettled_) Put(out, id);
  // It came later: a state before any answer ends here, as it always did. With
  // work, that says what was told.
  if (!busy) {
    if (told_max_ > Duration::zero()) AppendLe(out, told_max_.count());
    return out;
  }

  AppendLe(out, crashes_);
  AppendLe(out, interruptions_);
  PutBool(out, running_);
  AppendLe(out, WorkKind(work_));
  Put(out, work_.assignment_id);
  Put(out, work_.task);
  AppendLe(out, work_.round);
  AppendLe(out, work_.version);
  AppendBytes(out, work_.plan_digest.span());
  Put(out, ByteSpan(work_.plan_signature));
  AppendBytes(out, work_.checkpoint_digest.span());
  AppendLe(out, static_cast<uint8_t>(work_.checkpoint_codec));
  Put(out, ByteSpan(work_.token));
  AppendLe(out, work_.seed);
  AppendLe(out, ToMicros(work_.compute_deadline));
  AppendLe(out, ToMicros(work_.upload_deadline));
  Put(out, work_.retry_if_accepted);
  Put(out, work_.retry);
  // It came later: the state of other work ends here, as it always did.
  if (!work_.control_digest.empty()) {
    AppendBytes(out, work_.control_digest.span());
  }
  return out;
}

Result<Session> Session::Restore(ByteSpan bytes) {
  Fields in(bytes);
  if (in.Number<uint32_t>("magic") != kMagic) in.Fail("the magic");
  if (in.Number<uint16_t>("version") != kVersion) in.Fail("the version");
  Session session;
  session.state_ = static_cast<SessionState>(in.Number<uint8_t>("state"));
  session.withdrawn_ = session.state_ == SessionState::kAbandoning;
  const bool busy = IsSaved(session.state_) || session.withdrawn_;
  if (!busy && session.state_ != SessionState::kIdle) in.Fail("the state");
  session.next_run_ = in.When("next_run");
  session.last_assignment_ = in.Text("last_assignment");
  const auto unsettled = in.Number<uint32_t>("unsettled");
  if (unsettled > kUnsettledMax) in.Fail("unsettled");
  for (uint32_t i = 0; i < unsettled && in.status().ok(); ++i) {
    session.unsettled_.push_back(in.Text("unsettled"));
  }
  if (!busy && in.More()) {
    session.told_max_ = Duration(in.Number<int64_t>("told_max"));
    if (session.told_max_ <= Duration::zero() ||
        session.told_max_ > kRetryMax) {
      in.Fail("told_max");
    }
  }
  if (busy) {
    session.crashes_ = in.Number<uint8_t>("crashes");
    session.interruptions_ = in.Number<uint8_t>("interruptions");
    if (session.crashes_ > kCrashesMax ||
        session.interruptions_ > kInterruptionsMax) {
      in.Fail("a counter");
    }
    session.running_ = in.Flag("running");
    SessionWork& work = session.work_;
    const auto kind = in.Number<uint8_t>("kind of work");
    if (kind > 2) in.Fail("the kind of work");
    work.train = kind != 0;
    work.evaluate = kind == 2;
    work.assignment_id = in.Text("assignment_id");
    work.task = in.Text("task");
    work.round = in.Number<uint64_t>("round");
    work.version = in.Number<uint64_t>("version");
    work.plan_digest = in.Hash("plan_digest");
    work.plan_signature = in.Raw("plan_signature");
    work.checkpoint_digest = in.Hash("checkpoint_digest");
    const auto codec = in.Number<uint8_t>("checkpoint_codec");
    if (codec > static_cast<uint8_t>(plan::CodecName::kFloat16)) {
      in.Fail("checkpoint_codec");
    }
    work.checkpoint_codec = static_cast<plan::CodecName>(codec);
    work.token = in.Raw("token");
    work.seed = in.Number<uint64_t>("seed");
    work.compute_deadline = in.When("compute_deadline");
    work.upload_deadline = in.When("upload_deadline");
    work.retry_if_accepted = in.Window("retry_if_accepted");
    work.retry = in.Window("retry");
    session.told_max_ = std::clamp(work.retry.max, Duration::zero(), kRetryMax);
    if (in.More()) {
      work.control_digest = in.Hash("control_digest");
      if (work.control_digest.empty()) in.Fail("control_digest");
    }
    if (work.task.empty() || work.train == work.assignment_id.empty()) {
      in.Fail("the work");
    }
    if (!work.train &&
        (session.state_ == SessionState::kTraining ||
         session.state_ == SessionState::kUploading || session.withdrawn_)) {
      in.Fail("the state");
    }
    if (work.evaluate && session.state_ == SessionState::kPersonalizing) {
      in.Fail("the state");
    }
  }
  if (session.withdrawn_ && session.running_) in.Fail("running");
  if (Status status = in.Done(); !status.ok()) {
    return DataLoss("session state: " + std::string(status.message()));
  }
  return session;
}

}  // namespace selvage::client

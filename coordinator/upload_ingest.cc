#include "coordinator/upload_ingest.h"

#include <malloc.h>

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "aggregation/codec/codec.h"
#include "aggregation/codec/pieces.h"
#include "aggregation/contribution.h"

namespace selvage::coordinator {
namespace {

Receipt Rejection(RejectReason reason, std::string message,
                  const RetryWindow& retry = {}) {
  return Receipt{ReceiptStatus::kRejected, reason, std::move(message), retry};
}

// Why CheckEncoded() refused bytes of the right size.
RejectReason ReasonOf(const aggregation::CodecSpec& codec,
                      std::span<const size_t> counts, ByteSpan bytes) {
  if (aggregation::CheckEncoding(codec, counts, bytes).ok()) {
    return RejectReason::kOutOfRange;
  }
  return aggregation::IsFinite(codec, counts, bytes)
             ? RejectReason::kBadEncoding
             : RejectReason::kNotFinite;
}

}  // namespace

std::optional<Receipt> UploadIngest::CheckHeader(
    const TaskDefinition& definition, const UploadHeader& header) {
  if (header.codec != definition.spec.update.codec) {
    return Rejection(
        RejectReason::kBadEncoding,
        "codec is " + std::string(plan::CodecNameText(header.codec)) +
            ", the plan says " +
            std::string(plan::CodecNameText(definition.spec.update.codec)));
  }
  if (header.size_bytes != definition.update_size_bytes) {
    return Rejection(RejectReason::kBadSize,
                     "size is " + std::to_string(header.size_bytes) +
                         " bytes, an update of this plan has " +
                         std::to_string(definition.update_size_bytes));
  }
  const plan::TaskSpec& spec = definition.spec;
  const uint32_t weight_max =
      spec.strategy.asynchronous.enabled
          ? static_cast<uint32_t>(spec.update.weight_cap)
          : definition.layout.weight_max;
  if (header.weight < 1 || header.weight > weight_max) {
    return Rejection(RejectReason::kBadWeight,
                     "weight is " + std::to_string(header.weight) +
                         ", the bounds are 1 and " +
                         std::to_string(weight_max));
  }
  if (const Status declared = aggregation::CheckDeclared(
          definition.contribution, spec.train, spec.update.weight_cap,
          header.weight, header.scalars);
      !declared.ok()) {
    return Rejection(RejectReason::kBadScalars,
                     std::string(declared.message()));
  }
  if (!header.metrics.empty()) {
    aggregation::MetricSums probe(definition.program.metrics.size());
    const Status added = probe.Add(header.metrics);
    if (!added.ok()) {
      return Rejection(RejectReason::kBadMetrics, std::string(added.message()));
    }
  }
  return std::nullopt;
}

std::optional<Receipt> UploadIngest::CheckEvaluation(
    const TaskDefinition& definition, const UploadHeader& header) {
  if (header.size_bytes != 0) {
    return Rejection(RejectReason::kBadSize,
                     "size is " + std::to_string(header.size_bytes) +
                         " bytes, an evaluation has none");
  }
  if (header.weight != 1) {
    return Rejection(RejectReason::kBadWeight,
                     "weight is " + std::to_string(header.weight) +
                         ", that of an evaluation is 1");
  }
  if (!header.scalars.empty()) {
    return Rejection(RejectReason::kBadScalars,
                     std::to_string(header.scalars.size()) +
                         " scalars, an evaluation has none");
  }
  aggregation::MetricSums probe(definition.program.metrics.size());
  if (const Status added = probe.Add(header.metrics); !added.ok()) {
    return Rejection(RejectReason::kBadMetrics, std::string(added.message()));
  }
  const bool any =
      std::any_of(header.metrics.begin(), header.metrics.end(),
                  [](const auto& metric) { return metric.count > 0; });
  if (!any) {
    return Rejection(RejectReason::kBadMetrics,
                     "the metrics are of no example");
  }
  const crypto::Digest digest = aggregation::DigestOf(header.metrics);
  if (digest != header.digest) {
    return Rejection(RejectReason::kBadDigest,
                     "the metrics have digest " + digest.ToHex() +
                         ", announced was " + header.digest.ToHex());
  }
  return std::nullopt;
}

std::optional<Receipt> UploadIngest::CheckBytes(
    const TaskDefinition& definition, const UploadHeader& header,
    ByteSpan bytes) {
  const Status checked = aggregation::ExactSum::CheckEncoded(
      definition.layout, {definition.spec.update, bytes, header.weight});
  if (checked.ok()) return std::nullopt;
  return Rejection(
      ReasonOf(definition.spec.update, definition.update_counts, bytes),
      std::string(checked.message()));
}

Result<std::optional<Receipt>> UploadIngest::CheckStaged(
    const TaskDefinition& definition, const UploadHeader& header,
    const StagedUpload& staged) {
  const aggregation::CodecSpec codec = definition.spec.update;
  const size_t size = aggregation::SliceBytesPerElement(codec);
  Bytes part;
  for (const aggregation::SumStretch& stretch : definition.stretches) {
    const size_t counts[] = {stretch.layout.element_count()};
    part.resize(counts[0] * size);
    SELVAGE_RETURN_IF_ERROR(staged.Read(uint64_t{stretch.first} * size, part));
    const Status checked = aggregation::ExactSum::CheckEncoded(
        stretch.layout, {codec, part, header.weight});
    if (!checked.ok()) {
      return std::optional<Receipt>(
          Rejection(ReasonOf(codec, counts, part),
                    "from element " + std::to_string(stretch.first) +
                        " on: " + std::string(checked.message())));
    }
  }
  return std::optional<Receipt>();
}

bool UploadIngest::GoesToDisk(const TaskDefinition& definition) const {
  const uint64_t size = definition.update_size_bytes;
  return size > limits_.staged_above && size <= limits_.staged_bytes_max &&
         aggregation::SliceBytesPerElement(definition.spec.update) > 0 &&
         !plan::HoldsUpdates(definition.spec.strategy.name);
}

bool UploadIngest::Admit(Staging& staging) {
  const uint64_t size = staging.header.size_bytes;
  if (staging.on_disk) {
    staging.staged_share = disk_budget_.Take(size);
    if (staging.staged_share.empty()) return false;
  }
  const uint64_t memory =
      staging.on_disk ? std::min(size, StagedUpload::kMemoryBytes) : size;
  // An evaluation is in flight, too.
  staging.share = budget_.Take(
      std::max<uint64_t>(1, memory + std::min(size, kTransportBytesMax)));
  return !staging.share.empty();
}

Result<Receipt> UploadIngest::Refuse(const RoundKey& round,
                                     const std::string& device_id,
                                     const UploadHeader& header,
                                     const Receipt& receipt) {
  ReceiptRow row;
  row.assignment_id = header.assignment_id;
  row.digest = header.digest;
  row.status = receipt.status;
  row.reason = receipt.reason;
  row.message = receipt.message;
  row.created = store_.Now();
  SELVAGE_ASSIGN_OR_RETURN(const ReceiptRow recorded,
                           store_.RecordRefusal(row));
  AssignmentRecord record;
  record.assignment.id = header.assignment_id;
  record.receipt = recorded;
  if (recorded.status == ReceiptStatus::kRejected) {
    sink_.Post(round, UpdateRefused{device_id});
  }
  Receipt answer =
      *SettledAnswer(record, header.digest, sink_.PaceOf(round.task_id));
  // Unless another stream was faster, this is the first answer.
  if (recorded.created == row.created) answer.repeated = false;
  return answer;
}

void UploadIngest::Begin(const DeviceIdentity& device,
                         const UploadHeader& header, BeginUploadCallback done) {
  Result<std::optional<BegunUpload>> begun =
      TryBegin(device, header, Line::kJoins);
  if (!begun.ok()) {
    done(begun.status());
  } else if (begun->has_value()) {
    done(**std::move(begun));
  } else {
    Wait(device, header, std::move(done));
  }
}

void UploadIngest::Wait(const DeviceIdentity& device,
                        const UploadHeader& header, BeginUploadCallback done) {
  const Time expires = store_.Now() + limits_.wait_max;
  Status refusal;
  {
    MutexLock lock(mu_);
    if (line_closed_.has_value()) {
      refusal = *line_closed_;
    } else if (waiting_.size() >= limits_.waiting_max) {
      refusal = ResourceExhausted(std::to_string(waiting_.size()) +
                                  " uploads wait for room, the limit is " +
                                  std::to_string(limits_.waiting_max));
    } else {
      waiting_.push_back({device, header, std::move(done), expires});
    }
  }
  if (refusal.ok()) {
    // Room may have come free in between, and the line has a deadline.
    sink_.Wake();
  } else {
    done(refusal);
  }
}

void UploadIngest::AdmitWaiting(Time now) {
  for (;;) {
    std::list<Waiting>::iterator first;
    {
      MutexLock lock(mu_);
      if (waiting_.empty()) return;
      first = waiting_.begin();  // stays: only this thread removes
    }
    Result<std::optional<BegunUpload>> begun =
        TryBegin(first->device, first->header, Line::kHeads);
    if (begun.ok() && !begun->has_value()) {
      if (now < first->expires) return;
      begun = ResourceExhausted("uploads in flight hold " +
                                std::to_string(budget_.used()) +
                                " bytes of memory, the limit is " +
                                std::to_string(limits_.bytes_max) + ", and " +
                                std::to_string(disk_budget_.used()) +
                                " bytes of disk, the limit is " +
                                std::to_string(limits_.staged_bytes_max));
    }
    std::list<Waiting> done;
    {
      MutexLock lock(mu_);
      done.splice(done.begin(), waiting_, first);
    }
    done.front().done(begun.ok() ? Result<BegunUpload>(**std::move(begun))
                                 : Result<BegunUpload>(begun.status()));
  }
}

void UploadIngest::RefuseWaiting(const Status& status) {
  std::list<Waiting> refused;
  {
    MutexLock lock(mu_);
    line_closed_ = status;
    refused.swap(waiting_);
  }
  for (Waiting& waiting : refused) waiting.done(status);
}

Result<std::optional<BegunUpload>> UploadIngest::TryBegin(
    const DeviceIdentity& device, const UploadHeader& header, Line line) {
  using Answer = std::optional<BegunUpload>;
  const std::optional<RoundKey> round =
      tickets_.RoundOf(header.assignment_id, device);
  if (!round.has_value() ||
      !crypto::EqualConstantTime(
          tickets_.AssignmentToken(header.assignment_id).span(),
          header.token)) {
    return Answer(
        Rejection(RejectReason::kBadToken,
                  "the token does not open this assignment for this device"));
  }
  const RetryWindow retry = sink_.PaceOf(round->task_id);
  SELVAGE_ASSIGN_OR_RETURN(const std::optional<AssignmentRecord> record,
                           store_.FindAssignment(header.assignment_id));
  if (!record.has_value()) {
    return Answer(Rejection(
        RejectReason::kUnknownAssignment,
        "there is no assignment " + header.assignment_id + " any more", retry));
  }
  // First what was answered before, then the state of the round.
  if (const std::optional<Receipt> settled =
          SettledAnswer(*record, header.digest, retry)) {
    return Answer(*settled);
  }
  const std::shared_ptr<const TaskDefinition> definition =
      sink_.DefinitionOf(round->task_id);
  // That it would count in: an asynchronous task's may be a later one.
  const RoundKey home = record->assignment.round;
  UploadSink::Door door = sink_.DoorOf(home);
  if (definition == nullptr && door != UploadSink::Door::kUnavailable) {
    door = UploadSink::Door::kClosed;
  }
  if (door == UploadSink::Door::kUnavailable) {
    return Unavailable("the round is being recovered");
  }
  if (door == UploadSink::Door::kClosed) {
    // Another stream may have had it counted since, as the round's last one. No
    // more can be: what the store says now stays.
    SELVAGE_ASSIGN_OR_RETURN(const std::optional<AssignmentRecord> last,
                             store_.FindAssignment(header.assignment_id));
    if (last.has_value()) {
      if (const std::optional<Receipt> settled =
              SettledAnswer(*last, header.digest, retry)) {
        return Answer(*settled);
      }
      if (last->assignment.round != home) {
        return Unavailable("the assignment went on to the next version");
      }
    }
    const std::vector<Store::AssignmentChange> late = {
        {header.assignment_id, AssignmentState::kLate, ""}};
    SELVAGE_RETURN_IF_ERROR(store_.ChangeAssignments(late));
    return Answer(
        Receipt{ReceiptStatus::kLate, RejectReason::kNone, "", retry});
  }
  const bool evaluation = door == UploadSink::Door::kEvaluates;
  if (const std::optional<Receipt> refusal =
          evaluation ? CheckEvaluation(*definition, header)
                     : CheckHeader(*definition, header)) {
    SELVAGE_ASSIGN_OR_RETURN(
        const Receipt receipt,
        Refuse(*round, device.device_id, header, *refusal));
    return Answer(receipt);
  }

  UploadTicket ticket;
  {
    MutexLock lock(mu_);
    const auto it = entries_.find(header.assignment_id);
    if (it != entries_.end()) {
      Entry& entry = it->second;
      streams_.erase(entry.upload_id);
      if (entry.staging->header.digest == header.digest) {
        // The stream takes over what an earlier one staged.
        entry.upload_id = next_upload_id_++;
        entry.active = true;
        streams_.emplace(entry.upload_id, header.assignment_id);
        MutexLock staging_lock(entry.staging->mu);
        entry.staging->owner = entry.upload_id;
        ticket = {entry.upload_id, StagedBytes(*entry.staging)};
      } else {
        entries_.erase(it);
      }
    }
    if (ticket.upload_id == 0) {
      if (line == Line::kJoins && !waiting_.empty()) return Answer();
      auto staging = std::make_shared<Staging>();
      staging->header = header;
      staging->round = *round;
      staging->device_id = device.device_id;
      staging->definition = definition;
      staging->evaluation = evaluation;
      staging->on_disk = !evaluation && GoesToDisk(*definition);
      if (!Admit(*staging)) return Answer();
      Entry entry;
      entry.staging = std::move(staging);
      entry.upload_id = next_upload_id_++;
      ticket = {entry.upload_id, 0};
      {
        MutexLock staging_lock(entry.staging->mu);
        entry.staging->owner = entry.upload_id;
      }
      streams_.emplace(entry.upload_id, header.assignment_id);
      entries_.emplace(header.assignment_id, std::move(entry));
    }
  }
  sink_.Post(*round, UploadBegan{device.device_id});
  return Answer(ticket);
}

std::shared_ptr<UploadIngest::Staging> UploadIngest::Find(uint64_t upload_id) {
  MutexLock lock(mu_);
  const auto stream = streams_.find(upload_id);
  if (stream == streams_.end()) return nullptr;
  return entries_.at(stream->second).staging;
}

Status UploadIngest::GoneStatus(uint64_t upload_id) {
  MutexLock lock(mu_);
  // Ids are given in order and never twice: one that is not known any more was
  // taken over by a newer stream, or ended.
  if (upload_id != 0 && upload_id < next_upload_id_) {
    return Aborted("upload " + std::to_string(upload_id) +
                   " was taken over by a newer stream or has ended");
  }
  return NotFound("no upload " + std::to_string(upload_id));
}

Status UploadIngest::Append(uint64_t upload_id,
                            std::span<const ByteSpan> pieces) {
  uint64_t size = 0;
  for (const ByteSpan piece : pieces) size += piece.size();
  bool mine = false;
  Status status;
  if (const std::shared_ptr<Staging> staging = Find(upload_id)) {
    MutexLock lock(staging->mu);
    if (staging->owner == upload_id) {
      if (size > staging->header.size_bytes - StagedBytes(*staging)) {
        return OutOfRange("more than the announced " +
                          std::to_string(staging->header.size_bytes) +
                          " bytes");
      }
      for (const ByteSpan piece : pieces) {
        status = AppendLocked(*staging, piece);
        if (!status.ok()) break;
      }
      mine = true;
    }
  }
  // These take mu_, which comes before staging->mu.
  if (!mine) return GoneStatus(upload_id);
  if (!status.ok()) Forget(upload_id);
  return status;
}

uint64_t UploadIngest::StagedBytes(const Staging& staging) {
  return staging.staged != nullptr ? staging.staged->size()
                                   : staging.bytes.size();
}

Status UploadIngest::AppendLocked(Staging& staging, ByteSpan piece) {
  staging.hasher.Update(piece);
  if (!staging.on_disk) {
    // At once, and exactly: growing copies, and the holes between half-grown
    // buffers are what an allocator cannot use again.
    if (staging.bytes->capacity() == 0) {
      staging.bytes =
          buffers_.Take(static_cast<size_t>(staging.header.size_bytes));
    }
    AppendBytes(*staging.bytes, piece);
    return OkStatus();
  }
  Status status;
  if (staging.staged == nullptr) {
    Result<std::unique_ptr<StagedUpload>> created =
        StagedUpload::Create(blobs_, random_);
    if (created.ok()) {
      staging.staged = *std::move(created);
    } else {
      status = created.status();
    }
  }
  if (status.ok()) status = staging.staged->Append(piece);
  if (status.ok()) return status;
  // Whatever it was, it may go well the next time.
  return Unavailable("the upload could not be staged: " + status.ToString());
}

void UploadIngest::Forget(uint64_t upload_id) {
  std::shared_ptr<Staging> staging;
  {
    MutexLock lock(mu_);
    const auto stream = streams_.find(upload_id);
    if (stream == streams_.end()) return;
    const auto entry = entries_.find(stream->second);
    staging = std::move(entry->second.staging);
    entries_.erase(entry);
    streams_.erase(stream);
  }
  sink_.Post(staging->round, UploadBroke{staging->device_id});
}

void UploadIngest::Finish(uint64_t upload_id, ReceiptCallback done) {
  std::shared_ptr<Staging> staging;
  {
    MutexLock lock(mu_);
    const auto stream = streams_.find(upload_id);
    if (stream != streams_.end()) {
      const auto entry = entries_.find(stream->second);
      staging = std::move(entry->second.staging);
      entries_.erase(entry);
      streams_.erase(stream);
    }
  }
  if (staging == nullptr) {
    done(GoneStatus(upload_id));
    return;
  }
  const UploadHeader& header = staging->header;
  const RetryWindow retry = sink_.PaceOf(staging->round.task_id);
  VerifiedUpload upload;
  crypto::Digest digest;
  Status written;
  {
    MutexLock lock(staging->mu);
    staging->owner = 0;
    upload.bytes = std::move(staging->bytes);
    upload.staged = std::move(staging->staged);
    digest = std::move(staging->hasher).Finish();
    if (upload.staged != nullptr) written = upload.staged->Finish();
  }
  const uint64_t arrived = upload.size_bytes();
  // A damaged transfer is not the device's last word: it may send it again.
  if (arrived != header.size_bytes ||
      (!staging->evaluation && digest != header.digest)) {
    sink_.Post(staging->round, UploadBroke{staging->device_id});
    done(arrived != header.size_bytes
             ? Rejection(RejectReason::kBadSize,
                         std::to_string(arrived) +
                             " bytes arrived, announced were " +
                             std::to_string(header.size_bytes),
                         retry)
             : Rejection(RejectReason::kBadDigest,
                         "the bytes have digest " + digest.ToHex() +
                             ", announced was " + header.digest.ToHex(),
                         retry));
    return;
  }
  Result<std::optional<Receipt>> checked = std::optional<Receipt>();
  if (!written.ok()) {
    checked = written;
  } else if (upload.staged != nullptr) {
    checked = CheckStaged(*staging->definition, header, *upload.staged);
  } else if (!staging->evaluation) {
    checked = CheckBytes(*staging->definition, header, upload.bytes);
  }
  if (!checked.ok()) {
    sink_.Post(staging->round, UploadBroke{staging->device_id});
    done(Unavailable("the upload could not be staged: " +
                     checked.status().ToString()));
    return;
  }
  if (const std::optional<Receipt>& refusal = *checked) {
    const Result<Receipt> answer =
        Refuse(staging->round, staging->device_id, header, *refusal);
    done(answer.ok() ? answer
                     : Result<Receipt>(Unavailable(
                           "the refusal could not be made durable: " +
                           answer.status().ToString())));
    return;
  }
  upload.assignment_id = header.assignment_id;
  upload.round = staging->round;
  upload.device_id = staging->device_id;
  upload.digest = header.digest;
  upload.weight = header.weight;
  upload.scalars = header.scalars;
  upload.metrics = header.metrics;
  upload.share = std::move(staging->share);
  upload.staged_share = std::move(staging->staged_share);
  upload.done = std::move(done);
  sink_.Post(std::move(upload));
}

void UploadIngest::Drop(uint64_t upload_id) {
  const Time expires = store_.Now() + limits_.staging_ttl;
  std::shared_ptr<Staging> staging;
  {
    MutexLock lock(mu_);
    const auto stream = streams_.find(upload_id);
    if (stream == streams_.end()) return;
    Entry& entry = entries_.at(stream->second);
    entry.active = false;
    entry.expires = expires;
    staging = entry.staging;
  }
  sink_.Post(staging->round, UploadBroke{staging->device_id});
}

void UploadIngest::Advance(Time now) {
  Expire(now);
  AdmitWaiting(now);
  if (budget_.used() > 0) {
    last_used_ = now;
  } else if (now >= last_used_ + limits_.buffers_kept &&
             buffers_.kept_bytes() > 0) {
    buffers_.Clear();
    // And what the allocator keeps of the models and sums of rounds.
    malloc_trim(0);
  }
}

void UploadIngest::Expire(Time now) {
  // Removing a large file takes a while: not under the lock.
  std::vector<std::shared_ptr<Staging>> expired;
  MutexLock lock(mu_);
  for (auto it = entries_.begin(); it != entries_.end();) {
    if (it->second.active || now < it->second.expires) {
      ++it;
      continue;
    }
    streams_.erase(it->second.upload_id);
    expired.push_back(std::move(it->second.staging));
    it = entries_.erase(it);
  }
}

Time UploadIngest::NextDeadline() {
  Time next = buffers_.kept_bytes() > 0 && budget_.used() == 0
                  ? last_used_ + limits_.buffers_kept
                  : kNever;
  MutexLock lock(mu_);
  if (!waiting_.empty()) next = std::min(next, waiting_.front().expires);
  for (const auto& [id, entry] : entries_) {
    if (!entry.active) next = std::min(next, entry.expires);
  }
  return next;
}

size_t UploadIngest::ActiveStreams(uint64_t task_id) {
  MutexLock lock(mu_);
  return static_cast<size_t>(
      std::count_if(entries_.begin(), entries_.end(), [&](const auto& entry) {
        return entry.second.active &&
               entry.second.staging->round.task_id == task_id;
      }));
}

bool UploadIngest::Idle() {
  MutexLock lock(mu_);
  // What is admitted and not left behind is arriving, being verified or waiting
  // for its commit.
  uint64_t left_behind = 0;
  for (const auto& [id, entry] : entries_) {
    if (!entry.active) left_behind += entry.staging->share.bytes();
  }
  return waiting_.empty() && budget_.used() == left_behind;
}

}  // namespace selvage::coordinator

#include "coordinator/upload_batch.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <set>
#include <utility>

#include "aggregation/codec/pieces.h"
#include "aggregation/robust/rules.h"
#include "coordinator/evaluation_partial.h"
#include "coordinator/held_updates.h"
#include "coordinator/partial.h"

namespace selvage::coordinator {
namespace {

// Takeovers during one commit, before it is given up.
constexpr int kEpochsMax = 3;

using Uploads = std::vector<VerifiedUpload>;

std::string NewPartialId(RandomSource& random) {
  Bytes raw(16);
  random.Fill(raw);
  return ToHex(raw);
}

// Staged updates whose stretch is in memory at a time.
constexpr size_t kStagedAtATime = 8;

// The encoding of an update's stretch, in `buffer` if it has to be read; empty
// if it is not part of that of the whole.
Result<ByteSpan> EncodedPart(const TaskDefinition& definition,
                             const VerifiedUpload& upload,
                             const aggregation::SumStretch& stretch,
                             Bytes& buffer) {
  const aggregation::CodecSpec codec = definition.spec.update;
  const size_t count = stretch.layout.element_count();
  if (upload.staged == nullptr) {
    if (definition.stretches.size() == 1) return ByteSpan(upload.bytes);
    return aggregation::EncodedSlice(codec, upload.bytes, stretch.first, count);
  }
  const size_t size = aggregation::SliceBytesPerElement(codec);
  buffer.resize(count * size);
  SELVAGE_RETURN_IF_ERROR(
      upload.staged->Read(uint64_t{stretch.first} * size, buffer));
  return ByteSpan(buffer);
}

// The decoded values of an update's stretch.
Status DecodePart(const TaskDefinition& definition,
                  const VerifiedUpload& upload,
                  const aggregation::SumStretch& stretch, Bytes& buffer,
                  std::vector<float>& values) {
  const aggregation::CodecSpec codec = definition.spec.update;
  values.resize(stretch.layout.element_count());
  if (upload.staged == nullptr) {
    aggregation::DecodeSlice(codec, definition.update_counts, upload.bytes,
                             stretch.first, values);
    return OkStatus();
  }
  SELVAGE_ASSIGN_OR_RETURN(const ByteSpan part,
                           EncodedPart(definition, upload, stretch, buffer));
  const size_t counts[] = {values.size()};
  aggregation::DecodeSlice(codec, counts, part, 0, values);
  return OkStatus();
}

// What each update is multiplied with (normbound). A scaled value is no larger
// than it was, so it is in range.
Result<std::vector<double>> FactorsOf(const TaskDefinition& definition,
                                      const Uploads& uploads) {
  std::vector<double> factors(uploads.size(), 1);
  const plan::StrategySpec& strategy = definition.spec.strategy;
  if (strategy.name != plan::StrategyName::kNormBound) return factors;
  Bytes buffer;
  std::vector<float> values;
  for (size_t u = 0; u < uploads.size(); ++u) {
    double squares = 0;
    for (const aggregation::SumStretch& stretch : definition.stretches) {
      SELVAGE_RETURN_IF_ERROR(
          DecodePart(definition, uploads[u], stretch, buffer, values));
      squares = aggregation::AddSquares(definition.shared, stretch.first,
                                        values, squares);
    }
    factors[u] = aggregation::BoundFactor(squares, strategy.clipping_norm);
  }
  return factors;
}

// The sum of one stretch of the updates.
Result<aggregation::ExactSum> SumOf(const TaskDefinition& definition,
                                    const Uploads& uploads,
                                    const std::vector<double>& factors,
                                    const aggregation::SumStretch& stretch) {
  SELVAGE_ASSIGN_OR_RETURN(aggregation::ExactSum sum,
                           aggregation::ExactSum::Create(stretch.layout));
  const bool as_they_are =
      std::all_of(factors.begin(), factors.end(),
                  [](double factor) { return factor == 1; });
  const aggregation::CodecSpec& codec = definition.spec.update;
  const bool in_parts = definition.stretches.size() == 1 ||
                        aggregation::SliceBytesPerElement(codec) > 0;
  if (as_they_are && in_parts) {
    // Decoded while they are folded, several at a time.
    const bool any_staged = std::any_of(
        uploads.begin(), uploads.end(),
        [](const VerifiedUpload& upload) { return upload.staged != nullptr; });
    const size_t at_a_time = any_staged ? kStagedAtATime : uploads.size();
    std::vector<Bytes> buffers(any_staged ? kStagedAtATime : 1);
    std::vector<aggregation::EncodedUpdate> updates;
    for (size_t u = 0; u < uploads.size(); ++u) {
      SELVAGE_ASSIGN_OR_RETURN(
          const ByteSpan part,
          EncodedPart(definition, uploads[u], stretch,
                      buffers[updates.size() % buffers.size()]));
      updates.push_back({codec, part, uploads[u].weight});
      if (updates.size() < at_a_time && u + 1 < uploads.size()) continue;
      SELVAGE_RETURN_IF_ERROR(sum.AddAllEncoded(updates));
      updates.clear();
    }
    return sum;
  }
  Bytes buffer;
  std::vector<float> values;
  for (size_t u = 0; u < uploads.size(); ++u) {
    SELVAGE_RETURN_IF_ERROR(
        DecodePart(definition, uploads[u], stretch, buffer, values));
    aggregation::ScaleElements(definition.shared, stretch.first, factors[u],
                               values);
    SELVAGE_RETURN_IF_ERROR(sum.Add({values, uploads[u].weight}));
  }
  return sum;
}

Result<aggregation::MetricSums> MetricsOf(const TaskDefinition& definition,
                                          const Uploads& uploads) {
  aggregation::MetricSums metrics(definition.program.metrics.size());
  for (const VerifiedUpload& upload : uploads) {
    if (upload.metrics.empty()) continue;
    SELVAGE_RETURN_IF_ERROR(metrics.Add(upload.metrics));
  }
  return metrics;
}

// Stores the sum of the updates.
Status StoreSum(const UploadBatch::Context& context, const std::string& id,
                const Uploads& uploads) {
  const TaskDefinition& definition = context.definition;
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<double> factors,
                           FactorsOf(definition, uploads));
  SELVAGE_ASSIGN_OR_RETURN(aggregation::MetricSums metrics,
                           MetricsOf(definition, uploads));
  PartialHead head{uploads.size(), std::move(metrics),
                   std::vector<int64_t>(definition.scalar_count)};
  if (definition.spec.strategy.name == plan::StrategyName::kNormBound) {
    head.scalars[0] = std::count_if(factors.begin(), factors.end(),
                                    [](double factor) { return factor < 1; });
  } else {
    for (const VerifiedUpload& upload : uploads) {
      // Bounded so that a round's sum fits (aggregation/contribution.h).
      for (size_t i = 0; i < head.scalars.size(); ++i) {
        head.scalars[i] += upload.scalars.at(i);
      }
    }
  }
  std::function<void(size_t, aggregation::ExactSum)> keep;
  if (context.sums != nullptr) {
    context.sums->Begin(definition.layout.element_count());
    keep = [&](size_t index, aggregation::ExactSum sum) {
      context.sums->Add(index, std::move(sum));
    };
  }
  return WritePartial(
      {context.round_key, context.lease.key, id}, head,
      definition.stretches.size(),
      [&](size_t index) {
        return SumOf(definition, uploads, factors, definition.stretches[index]);
      },
      context.blobs, context.random, keep);
}

// Makes durable what the store keeps of the batch, under this name: the sum of
// its evaluations or updates, or its updates one by one if the strategy needs
// them.
Status StoreBatch(const UploadBatch::Context& context, const std::string& id,
                  const Uploads& uploads) {
  const TaskDefinition& definition = context.definition;
  if (context.mode == RoundMode::kEvaluate) {
    aggregation::EvaluationSums sums(definition.program.metrics.size());
    for (const VerifiedUpload& upload : uploads) {
      SELVAGE_RETURN_IF_ERROR(sums.Add(upload.device_class, upload.metrics));
    }
    SELVAGE_ASSIGN_OR_RETURN(
        const Bytes sealed, SealEvaluation(context.round_key, context.lease.key,
                                           id, sums, context.random));
    return context.blobs.PutSealed(id, sealed);
  }
  if (!plan::HoldsUpdates(definition.spec.strategy.name)) {
    return StoreSum(context, id, uploads);
  }
  SELVAGE_ASSIGN_OR_RETURN(const aggregation::MetricSums metrics,
                           MetricsOf(definition, uploads));
  std::vector<UpdateToHold> updates;
  updates.reserve(uploads.size());
  for (const VerifiedUpload& upload : uploads) {
    updates.push_back({upload.assignment_id, upload.bytes, upload.weight});
  }
  SELVAGE_ASSIGN_OR_RETURN(
      const Bytes sealed,
      SealUpdates(definition, context.round_key, context.lease.key, id, updates,
                  metrics, context.random));
  return context.blobs.PutSealed(id, sealed);
}

// Moves the uploads that `keep` refuses to the end of `dropped`.
template <typename Keep>
void Split(Uploads& uploads, Uploads& dropped, Keep keep) {
  Uploads kept;
  for (VerifiedUpload& upload : uploads) {
    (keep(upload) ? kept : dropped).push_back(std::move(upload));
  }
  uploads = std::move(kept);
}

void AnswerAll(Uploads& uploads, const Result<Receipt>& answer,
               std::vector<PendingAnswer>& answers) {
  for (VerifiedUpload& upload : uploads) {
    answers.push_back({std::move(upload.done), answer});
  }
  uploads.clear();
}

// Of an asynchronous task: what does not belong to the round goes to `dropped`,
// what does gets the weight that its age leaves it. UNAVAILABLE.
Status Age(const UploadBatch::Context& context, Uploads& uploads,
           Uploads& dropped) {
  std::set<std::string> elsewhere;
  for (VerifiedUpload& upload : uploads) {
    uint64_t staleness = 0;
    if (upload.round != context.lease.key) {
      const auto record = context.store.FindAssignment(upload.assignment_id);
      if (!record.ok()) return Unavailable(record.status().ToString());
      if (!record->has_value() ||
          (*record)->assignment.round != context.lease.key) {
        elsewhere.insert(upload.assignment_id);
        continue;
      }
      const Result<uint64_t> known = context.staleness_of(upload.round.number);
      if (!known.ok()) return Unavailable(known.status().ToString());
      staleness = *known;
    }
    upload.weight =
        context.definition.spec.StaleWeight(upload.weight, staleness);
  }
  Split(uploads, dropped, [&](const VerifiedUpload& upload) {
    return !elsewhere.contains(upload.assignment_id);
  });
  return OkStatus();
}

// Answers uploads that cannot be counted any more by what the store says about
// their assignments: what was answered before, or LATE. Assignments of
// `open_again`, and later ones, may yet count.
void AnswerSettled(Uploads& uploads, Store& store, const RetryWindow& retry,
                   const std::optional<RoundKey>& open_again,
                   std::vector<PendingAnswer>& answers) {
  std::vector<Store::AssignmentChange> late;
  for (VerifiedUpload& upload : uploads) {
    const auto record = store.FindAssignment(upload.assignment_id);
    Result<Receipt> answer =
        Receipt{ReceiptStatus::kLate, RejectReason::kNone, "", retry};
    std::optional<Receipt> settled;
    if (!record.ok()) {
      answer = Unavailable(record.status().ToString());
    } else if (record->has_value()) {
      settled = SettledAnswer(**record, upload.digest, retry);
    }
    if (settled.has_value()) {
      answer = *settled;
    } else if (open_again.has_value() && record.ok() && record->has_value() &&
               (*record)->assignment.round >= *open_again) {
      answer = Unavailable("the version closed first, the next one opens");
    } else if (answer.ok()) {
      late.push_back({upload.assignment_id, AssignmentState::kLate, ""});
    }
    answers.push_back({std::move(upload.done), std::move(answer)});
  }
  uploads.clear();
  // Only for the funnel: LATE stays LATE without it.
  if (!late.empty()) (void)store.ChangeAssignments(late);
}

}  // namespace

Receipt ToReceipt(const ReceiptRow& row, const RetryWindow& retry) {
  return Receipt{row.status, row.reason, row.message, retry};
}

std::optional<Receipt> SettledAnswer(const AssignmentRecord& record,
                                     const crypto::Digest& digest,
                                     const RetryWindow& retry) {
  if (record.receipt.has_value()) {
    if (record.receipt->digest == digest) {
      Receipt again = ToReceipt(*record.receipt, retry);
      again.repeated = true;
      return again;
    }
    return Receipt{
        ReceiptStatus::kRejected, RejectReason::kConflict,
        "assignment " + record.assignment.id + " already has another update",
        retry};
  }
  if (record.assignment.state == AssignmentState::kAbandoned) {
    return Receipt{ReceiptStatus::kRejected, RejectReason::kWithdrawn,
                   "the device gave assignment " + record.assignment.id + " up",
                   retry};
  }
  if (record.assignment.state == AssignmentState::kLate) {
    return Receipt{ReceiptStatus::kLate, RejectReason::kNone, "", retry};
  }
  return std::nullopt;
}

void UploadBatch::Add(VerifiedUpload upload, Time now) {
  if (uploads_.empty()) oldest_ = now;
  uploads_.push_back(std::move(upload));
}

std::vector<PendingAnswer> UploadBatch::TakeAll(const Result<Receipt>& answer) {
  std::vector<PendingAnswer> answers;
  AnswerAll(uploads_, answer, answers);
  return answers;
}

UploadBatch::Flushed UploadBatch::Flush(const Context& context) {
  Flushed flushed;
  Uploads uploads = std::exchange(uploads_, {});
  // A second content, or a repeat, of an assignment that is in the batch: it
  // is answered by what the store says after the first one's commit.
  Uploads settled;
  const bool asynchronous = context.staleness_of != nullptr;
  if (asynchronous) {
    if (const Status aged = Age(context, uploads, settled); !aged.ok()) {
      flushed.status = aged;
      AnswerAll(uploads, aged, flushed.answers);
      AnswerAll(settled, aged, flushed.answers);
      return flushed;
    }
  }
  {
    std::set<std::string> seen;
    Split(uploads, settled, [&](const VerifiedUpload& upload) {
      return (asynchronous || upload.round == context.lease.key) &&
             seen.insert(upload.assignment_id).second;
    });
  }

  RoundLease lease = context.lease;
  const auto commit = [&]() -> Result<std::vector<std::string>> {
    PartialRow partial;
    partial.id = NewPartialId(context.random);
    partial.round = context.lease.key;
    partial.update_count = uploads.size();
    std::vector<ReceiptRow> receipts;
    for (const VerifiedUpload& upload : uploads) {
      partial.bytes_up += upload.size_bytes();
      ReceiptRow& row = receipts.emplace_back();
      row.assignment_id = upload.assignment_id;
      row.digest = upload.digest;
      row.partial_id = partial.id;
      row.created = context.now;
    }
    SELVAGE_RETURN_IF_ERROR(StoreBatch(context, partial.id, uploads));
    Result<std::vector<std::string>> conflicts =
        context.store.CommitPartial(lease, partial, receipts);
    // Only where the store surely has no row for it. After an I/O error it may
    // have one; then the blob must stay, and if not it is an orphan.
    const bool surely_unused =
        conflicts.ok()
            ? !conflicts->empty()
            : conflicts.status().code() == StatusCode::kFailedPrecondition ||
                  conflicts.status().code() == StatusCode::kAborted;
    if (surely_unused) (void)context.blobs.RemoveSealed(partial.id);
    flushed.partial_id = partial.id;
    return conflicts;
  };

  while (!uploads.empty()) {
    Result<std::vector<std::string>> conflicts = commit();
    for (int again = 0; again < kEpochsMax && context.any_epoch &&
                        conflicts.status().code() == StatusCode::kAborted;
         ++again) {
      const Result<RoundRow> row = context.store.GetRound(lease.key);
      if (!row.ok()) break;
      lease.epoch = row->epoch;
      conflicts = commit();
    }
    if (context.sums != nullptr) {
      if (conflicts.ok() && conflicts->empty()) {
        context.sums->Confirm(flushed.partial_id);
      } else {
        context.sums->Drop();
      }
    }
    if (conflicts.status().code() == StatusCode::kFailedPrecondition) {
      // The round closed first: an orderly end, not a failure.
      std::move(uploads.begin(), uploads.end(), std::back_inserter(settled));
      uploads.clear();
      break;
    }
    if (!conflicts.ok()) {
      flushed.status = conflicts.status();
      const Status answer =
          Unavailable("the update could not be made durable: " +
                      conflicts.status().ToString());
      AnswerAll(uploads, answer, flushed.answers);
      AnswerAll(settled, answer, flushed.answers);
      return flushed;
    }
    if (conflicts->empty()) break;
    Split(uploads, settled, [&](const VerifiedUpload& upload) {
      return std::find(conflicts->begin(), conflicts->end(),
                       upload.assignment_id) == conflicts->end();
    });
  }

  for (const VerifiedUpload& upload : uploads) {
    flushed.accepted.push_back(upload.device_id);
  }
  AnswerAll(
      uploads,
      Receipt{ReceiptStatus::kAccepted, RejectReason::kNone, "", context.retry},
      flushed.answers);
  AnswerSettled(settled, context.store, context.retry,
                asynchronous ? std::optional(context.lease.key) : std::nullopt,
                flushed.answers);
  return flushed;
}

std::vector<PendingAnswer> UploadBatch::CloseOut(Store& store,
                                                 const RetryWindow& retry) {
  std::vector<PendingAnswer> answers;
  AnswerSettled(uploads_, store, retry, std::nullopt, answers);
  return answers;
}

}  // namespace selvage::coordinator

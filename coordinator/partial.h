// Partials: durable exact sums over some updates of a round, sealed so that
// nothing derived from updates can be read from disk once the round has ended.
//
// A round has a random AES-256-GCM key. Its row holds the key wrapped under the
// wrapping key, which lives outside database, blobs and backups; the round's
// end overwrites it.
//
// A partial is written and read a stretch of the sum at a time
// (TaskDefinition::stretches), each sealed by itself, so that neither takes
// memory that grows with the model:
//   u64 n || Seal(head), n bytes || for each stretch: u64 n || Seal(ExactSum)
// Little-endian. Every seal is bound to round, id and place: nothing can stand
// in for anything else.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "aggregation/exact_sum.h"
#include "aggregation/metrics.h"
#include "base/random.h"
#include "coordinator/blob_store.h"
#include "coordinator/store.h"
#include "crypto/secret.h"

namespace selvage::coordinator {

Result<Bytes> WrapRoundKey(const crypto::SecretBytes& wrapping_key,
                           const crypto::SecretBytes& round_key,
                           const RoundKey& round, RandomSource& random);
// DATA_LOSS: another wrapping key, another round, or the round has ended.
Result<crypto::SecretBytes> UnwrapRoundKey(
    const crypto::SecretBytes& wrapping_key, const Bytes& wrapped,
    const RoundKey& round);

// What updates add up to, but for the sum of their values.
struct PartialHead {
  uint64_t update_count = 0;
  aggregation::MetricSums metrics;
  // TaskDefinition::scalar_count of them.
  std::vector<int64_t> scalars{};
};

// Which partial of which round, and what seals it. What it refers to must
// outlive it.
struct PartialName {
  const crypto::SecretBytes& round_key;
  RoundKey round;
  std::string id;
};

// Stores a partial of so many stretches, which `sum_of` gives in order; durable
// once this returns OK. `keep`, if there is one, is given each sum once it was
// written. Memory: a stretch's sum and twice its bytes.
Status WritePartial(
    const PartialName& name, const PartialHead& head, size_t stretch_count,
    const std::function<Result<aggregation::ExactSum>(size_t)>& sum_of,
    BlobStore& blobs, RandomSource& random,
    const std::function<void(size_t, aggregation::ExactSum)>& keep = {});

// Reads a partial in order. Thread-compatible.
class PartialReader {
 public:
  // NOT_FOUND; DATA_LOSS if it is not what was sealed, or has another number of
  // stretches. `blobs` must outlive the reader.
  static Result<PartialReader> Open(const PartialName& name,
                                    size_t stretch_count, BlobStore& blobs);

  const PartialHead& head() const { return head_; }
  // Adds the next stretch's sum to `into`. DATA_LOSS as Open(), or if it is a
  // sum of another number of updates than the head says. REQUIRES: there is
  // one more. Memory: twice the stretch's bytes. The file is open only while a
  // call lasts: a round may have more partials than a process may have files.
  Status MergeNext(aggregation::ExactSum& into);

 private:
  PartialReader(const PartialName& name, size_t stretch_count,
                BlobStore& blobs);
  // The next sealed part, opened. `place`: 0 the head, then the stretches.
  Result<Bytes> ReadPart(size_t place);

  const PartialName name_;
  const size_t stretch_count_;
  BlobStore& blobs_;
  PartialHead head_;
  size_t next_ = 0;      // place of the part that comes next
  uint64_t offset_ = 0;  // where it begins
};

}  // namespace selvage::coordinator

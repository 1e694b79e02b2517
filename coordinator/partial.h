// Partials: durable exact sums over some updates of a round, sealed so that
// nothing derived from updates can be read from disk once the round has ended.
//
// A round has a random AES-256-GCM key. Its row holds the key wrapped under the
// wrapping key, which lives outside database, blobs and backups; the round's
// end overwrites it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "aggregation/exact_sum.h"
#include "aggregation/metrics.h"
#include "base/random.h"
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

// What a round's updates add up to.
struct RoundSums {
  aggregation::ExactSum sum;
  aggregation::MetricSums metrics;
  // TaskDefinition::scalar_count of them.
  std::vector<int64_t> scalars{};
};

// Bound to the round and the id: a sealed partial cannot stand in for another.
// Memory: twice the sum besides the sum itself.
Result<Bytes> SealPartial(const crypto::SecretBytes& round_key,
                          const RoundKey& round, const std::string& id,
                          const RoundSums& sums, RandomSource& random);
// Adds a sealed partial to `into`, which has as many scalars. DATA_LOSS if it
// is not what was sealed. Memory: one sum besides `into` and `sealed` (which is
// consumed).
Status MergePartial(const crypto::SecretBytes& round_key, const RoundKey& round,
                    const std::string& id, Bytes sealed, RoundSums& into);

}  // namespace selvage::coordinator

// Partials of evaluation rounds: what partial.h is for updates.
#pragma once

#include <string>

#include "aggregation/evaluation_sums.h"
#include "base/random.h"
#include "base/status.h"
#include "coordinator/blob_store.h"
#include "coordinator/store.h"
#include "coordinator/task_definition.h"
#include "crypto/secret.h"

namespace selvage::coordinator {

// Bound to the round and the id, and to being an evaluation's.
Result<Bytes> SealEvaluation(const crypto::SecretBytes& round_key,
                             const RoundKey& round, const std::string& id,
                             const aggregation::EvaluationSums& sums,
                             RandomSource& random);

// The sum of the partials that committed rows name. DATA_LOSS, or NOT_FOUND, if
// one cannot be read.
Result<aggregation::EvaluationSums> MergeEvaluations(
    const TaskDefinition& definition, const RoundKey& round, Store& store,
    BlobStore& blobs, const crypto::SecretBytes& round_key);

}  // namespace selvage::coordinator

#include "coordinator/evaluation_partial.h"

#include "crypto/aead.h"

namespace selvage::coordinator {
namespace {

Bytes Context(const RoundKey& round, const std::string& id) {
  return ToBytes("selvage/v1 evaluation\n" + std::to_string(round.task_id) +
                 "\n" + std::to_string(round.number) + "\n" + id);
}

}  // namespace

Result<Bytes> SealEvaluation(const crypto::SecretBytes& round_key,
                             const RoundKey& round, const std::string& id,
                             const aggregation::EvaluationSums& sums,
                             RandomSource& random) {
  return crypto::Seal(round_key, sums.Serialize(), Context(round, id), random);
}

Result<aggregation::EvaluationSums> MergeEvaluations(
    const TaskDefinition& definition, const RoundKey& round, Store& store,
    BlobStore& blobs, const crypto::SecretBytes& round_key) {
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<PartialRow> partials,
                           store.ListPartials(round));
  aggregation::EvaluationSums sums(definition.program.metrics.size());
  uint64_t expected = 0;
  for (const PartialRow& partial : partials) {
    const Result<Bytes> sealed = blobs.ReadSealed(partial.id);
    if (!sealed.ok()) {
      return sealed.status().WithContext("partial " + partial.id);
    }
    SELVAGE_ASSIGN_OR_RETURN(
        const Bytes plain,
        crypto::Open(round_key, *sealed, Context(round, partial.id)));
    SELVAGE_ASSIGN_OR_RETURN(const aggregation::EvaluationSums parsed,
                             aggregation::EvaluationSums::Parse(plain));
    SELVAGE_RETURN_IF_ERROR(sums.MergeWith(parsed));
    expected += partial.update_count;
  }
  if (sums.device_count() != expected) {
    return DataLoss("the partials hold " + std::to_string(sums.device_count()) +
                    " evaluations, their rows say " + std::to_string(expected));
  }
  return sums;
}

}  // namespace selvage::coordinator

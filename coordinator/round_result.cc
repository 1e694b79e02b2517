#include "coordinator/round_result.h"

#include <limits>
#include <string>
#include <utility>

#include "aggregation/codec/checkpoint_codec.h"
#include "aggregation/server_optimizer.h"

namespace selvage::coordinator {

Result<RoundSums> MergePartials(const TaskDefinition& definition,
                                const RoundKey& round, Store& store,
                                BlobStore& blobs,
                                const crypto::SecretBytes& round_key) {
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<PartialRow> partials,
                           store.ListPartials(round));
  SELVAGE_ASSIGN_OR_RETURN(aggregation::ExactSum sum,
                           aggregation::ExactSum::Create(definition.layout));
  RoundSums sums{std::move(sum),
                 aggregation::MetricSums(definition.program.metrics.size())};
  uint64_t expected = 0;
  for (const PartialRow& partial : partials) {
    Result<Bytes> sealed = blobs.ReadSealed(partial.id);
    if (!sealed.ok()) {
      return sealed.status().WithContext("partial " + partial.id);
    }
    SELVAGE_RETURN_IF_ERROR(
        MergePartial(round_key, round, partial.id, *std::move(sealed), sums));
    expected += partial.update_count;
  }
  if (sums.sum.update_count() != expected) {
    return DataLoss("the partials hold " +
                    std::to_string(sums.sum.update_count()) +
                    " updates, their rows say " + std::to_string(expected));
  }
  return sums;
}

Status ApplyMean(const TaskDefinition& definition,
                 const std::vector<double>& mean, plan::Checkpoint& master) {
  const std::span<const double> all_deltas(mean);
  const std::span<float> all_values(master.floats);
  for (const auto& slice : definition.program.table.aggregated()) {
    const double rate = slice.role == plan::Role::kBufferFloat
                            ? 1.0
                            : definition.spec.strategy.server_learning_rate;
    const Status applied = aggregation::ApplyFedAvg(
        rate, all_deltas.subspan(slice.update_offset, slice.count),
        all_values.subspan(slice.float_offset, slice.count));
    if (!applied.ok()) {
      const auto& entry = definition.program.table.entries()[slice.entry];
      return applied.WithContext("tensor " + entry.spec.name);
    }
  }
  return OkStatus();
}

Result<VersionArtefacts> StoreVersion(const TaskDefinition& definition,
                                      uint64_t version, uint64_t round,
                                      const plan::Checkpoint& master,
                                      BlobStore& blobs) {
  const plan::TensorTable& table = definition.program.table;
  VersionArtefacts artefacts;
  SELVAGE_ASSIGN_OR_RETURN(const Bytes checkpoint,
                           aggregation::EncodeCheckpoint(
                               definition.spec.update.codec, table, master));
  artefacts.checkpoint_size = checkpoint.size();
  SELVAGE_ASSIGN_OR_RETURN(artefacts.checkpoint_digest, blobs.Put(checkpoint));
  // No time and no host in here: equal masters have equal digests.
  const Bytes safetensors = plan::WriteSafetensors(
      table, master,
      {{"format", "pt"},
       {"selvage.task", definition.spec.name},
       {"selvage.version", std::to_string(version)},
       {"selvage.round", std::to_string(round)},
       {"selvage.program", definition.program_digest.ToHex()}});
  artefacts.master_size = safetensors.size();
  SELVAGE_ASSIGN_OR_RETURN(artefacts.master_digest, blobs.Put(safetensors));
  return artefacts;
}

Result<plan::Checkpoint> LoadMaster(const plan::TensorTable& table,
                                    const VersionRow& row, BlobStore& blobs) {
  SELVAGE_ASSIGN_OR_RETURN(
      const Bytes bytes,
      blobs.Read(row.master_digest, std::numeric_limits<uint64_t>::max()));
  return plan::ReadSafetensors(table, bytes);
}

Bytes ReleasableMetrics(const aggregation::MetricSums& metrics,
                        uint64_t min_cohort) {
  for (const aggregation::MetricSums::Sum& sum : metrics.sums()) {
    if (static_cast<uint64_t>(sum.device_count) < min_cohort) return {};
  }
  return metrics.Serialize();
}

}  // namespace selvage::coordinator

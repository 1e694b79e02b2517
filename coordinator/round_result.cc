#include "coordinator/round_result.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <string>
#include <utility>

#include "aggregation/codec/checkpoint_parts.h"
#include "aggregation/robust/rules.h"

namespace selvage::coordinator {

namespace {

Result<RoundSums> MergePartials(const TaskDefinition& definition,
                                const RoundKey& round,
                                const std::vector<PartialRow>& partials,
                                BlobStore& blobs,
                                const crypto::SecretBytes& round_key) {
  SELVAGE_ASSIGN_OR_RETURN(aggregation::ExactSum sum,
                           aggregation::ExactSum::Create(definition.layout));
  RoundSums sums{std::move(sum),
                 aggregation::MetricSums(definition.program.metrics.size()),
                 std::vector<int64_t>(definition.scalar_count)};
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

}  // namespace

Result<RoundContent> RoundContent::Gather(
    const TaskDefinition& definition, const RoundKey& round, Store& store,
    BlobStore& blobs, const crypto::SecretBytes& round_key) {
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<PartialRow> partials,
                           store.ListPartials(round));
  RoundContent content;
  if (plan::HoldsUpdates(definition.spec.strategy.name)) {
    SELVAGE_ASSIGN_OR_RETURN(
        content.held_,
        HeldUpdates::Open(definition, round, partials, blobs, round_key));
  } else {
    SELVAGE_ASSIGN_OR_RETURN(
        content.sums_,
        MergePartials(definition, round, partials, blobs, round_key));
  }
  return content;
}

uint64_t RoundContent::update_count() const {
  return held_ != nullptr ? held_->update_count() : sums_->sum.update_count();
}

const aggregation::MetricSums& RoundContent::metrics() const {
  return held_ != nullptr ? held_->metrics() : sums_->metrics;
}

Result<RoundContent::Mean> RoundContent::Finish(
    const TaskDefinition& definition, size_t threads) && {
  const plan::StrategySpec& strategy = definition.spec.strategy;
  Mean mean;
  if (held_ != nullptr) {
    const std::unique_ptr<HeldUpdates> held = std::move(held_);
    SELVAGE_ASSIGN_OR_RETURN(mean.values,
                             aggregation::AggregateRobustly(
                                 strategy, *held, definition.buffers, threads));
    return mean;
  }
  RoundSums sums = *std::exchange(sums_, std::nullopt);
  if (strategy.name == plan::StrategyName::kNormBound) {
    mean.figures["clip_fraction"] =
        static_cast<double>(sums.scalars[0]) /
        static_cast<double>(std::max<uint64_t>(1, sums.sum.update_count()));
  }
  SELVAGE_ASSIGN_OR_RETURN(mean.values, std::move(sums.sum).FinishMean());
  return mean;
}

Status ApplyMean(const TaskDefinition& definition,
                 const std::vector<double>& mean, plan::Checkpoint& master,
                 aggregation::ServerState& state) {
  const std::span<const double> all_deltas(mean);
  const std::span<float> all_values(master.floats);
  const std::span<float> momentum(state.momentum);
  const std::span<float> second_moment(state.second_moment);
  size_t shared = 0;  // elements before this tensor
  for (const auto& slice : definition.program.table.aggregated()) {
    const auto delta = all_deltas.subspan(slice.update_offset, slice.count);
    const auto values = all_values.subspan(slice.float_offset, slice.count);
    Status applied;
    if (slice.role == plan::Role::kBufferFloat) {
      applied = aggregation::ApplyMeanOfBuffer(delta, values);
    } else {
      const auto part = [&](std::span<float> all) {
        return all.empty() ? all : all.subspan(shared, slice.count);
      };
      applied = aggregation::ApplyServerStep(definition.spec.strategy, delta,
                                             part(momentum),
                                             part(second_moment), values);
      shared += slice.count;
    }
    if (!applied.ok()) {
      const auto& entry = definition.program.table.entries()[slice.entry];
      return applied.WithContext("tensor " + entry.spec.name);
    }
  }
  return OkStatus();
}

size_t SharedCount(const plan::TensorTable& table) {
  size_t count = 0;
  for (const auto& slice : table.aggregated()) {
    if (slice.role == plan::Role::kShared) count += slice.count;
  }
  return count;
}

Result<aggregation::ServerState> LoadServerState(
    const TaskDefinition& definition, const VersionRow& base,
    BlobStore& blobs) {
  const plan::StrategySpec& strategy = definition.spec.strategy;
  const size_t count = SharedCount(definition.program.table);
  if (base.server_state_digest.empty()) {
    return aggregation::InitialServerState(strategy, count);
  }
  SELVAGE_ASSIGN_OR_RETURN(const Bytes bytes,
                           blobs.Read(base.server_state_digest,
                                      std::numeric_limits<uint64_t>::max()));
  return aggregation::ParseServerState(strategy, count, bytes);
}

namespace {

// Writes what a version needs and notes it.
class VersionWriter {
 public:
  VersionWriter(BlobStore& blobs, VersionArtefacts& artefacts)
      : blobs_(blobs), artefacts_(artefacts) {}

  Result<crypto::Digest> Put(ByteSpan bytes) {
    SELVAGE_ASSIGN_OR_RETURN(const crypto::Digest digest, blobs_.Put(bytes));
    artefacts_.artefacts.push_back({digest, bytes.size()});
    return digest;
  }

  // The checkpoint in its parts, which devices may fetch.
  Result<crypto::Digest> PutCheckpoint(plan::CodecName codec,
                                       const plan::TensorTable& table,
                                       const plan::Checkpoint& master) {
    std::vector<aggregation::PartName> names;
    for (const auto& part : aggregation::LayOutParts(codec, table)) {
      SELVAGE_ASSIGN_OR_RETURN(
          const Bytes bytes,
          aggregation::EncodePart(codec, table, part, master));
      SELVAGE_ASSIGN_OR_RETURN(const crypto::Digest digest, Put(bytes));
      artefacts_.references.push_back(digest);
      names.push_back({digest, bytes.size()});
    }
    if (names.size() == 1) return names.front().digest;
    SELVAGE_ASSIGN_OR_RETURN(const crypto::Digest list,
                             Put(aggregation::SerializePartList(names)));
    artefacts_.references.push_back(list);
    return list;
  }

  // The master as safetensors: its beginning, what never changes, the rest.
  Result<crypto::Digest> PutMaster(
      const plan::TensorTable& table, const plan::Checkpoint& master,
      const std::vector<std::pair<std::string, std::string>>& metadata) {
    const std::vector<aggregation::PartLayout> parts =
        aggregation::LayOutParts(plan::CodecName::kFloat32, table);
    if (parts.size() == 1) {
      return Put(plan::WriteSafetensors(table, master, metadata));
    }
    std::vector<size_t> order;
    for (const auto& part : parts) {
      for (const size_t index : part.entries) {
        if (table.entries()[index].spec.dtype == plan::DType::kFloat32) {
          order.push_back(index);
        }
      }
    }
    std::vector<crypto::Digest> pieces;
    uint64_t size = 0;
    const auto add = [&](ByteSpan bytes) -> Status {
      SELVAGE_ASSIGN_OR_RETURN(const crypto::Digest digest, Put(bytes));
      pieces.push_back(digest);
      size += bytes.size();
      return OkStatus();
    };
    SELVAGE_RETURN_IF_ERROR(
        add(plan::SafetensorsHead(table, master.ints, order, metadata)));
    for (const auto& part : parts) {
      Bytes floats;
      floats.reserve(static_cast<size_t>(part.size));
      for (const size_t index : part.entries) {
        const auto& entry = table.entries()[index];
        if (entry.spec.dtype != plan::DType::kFloat32) continue;
        AppendBytes(floats, AsBytes(std::span<const float>(master.floats)
                                        .subspan(entry.offset, entry.count)));
      }
      SELVAGE_RETURN_IF_ERROR(add(floats));
    }
    SELVAGE_ASSIGN_OR_RETURN(const crypto::Digest digest,
                             blobs_.PutJoined(pieces));
    artefacts_.artefacts.push_back({digest, size});
    return digest;
  }

 private:
  BlobStore& blobs_;
  VersionArtefacts& artefacts_;
};

}  // namespace

Result<VersionArtefacts> StoreVersion(const TaskDefinition& definition,
                                      uint64_t version, uint64_t round,
                                      const plan::Checkpoint& master,
                                      const aggregation::ServerState& state,
                                      BlobStore& blobs) {
  const plan::TensorTable& table = definition.program.table;
  SELVAGE_RETURN_IF_ERROR(plan::ValidateCheckpoint(table, master));
  VersionArtefacts artefacts;
  VersionWriter writer(blobs, artefacts);
  SELVAGE_ASSIGN_OR_RETURN(
      artefacts.checkpoint_digest,
      writer.PutCheckpoint(plan::CheckpointCodec(definition.spec.update), table,
                           master));
  // No time and no host in here: equal masters have equal digests.
  SELVAGE_ASSIGN_OR_RETURN(
      artefacts.master_digest,
      writer.PutMaster(
          table, master,
          {{"format", "pt"},
           {"selvage.task", definition.spec.name},
           {"selvage.version", std::to_string(version)},
           {"selvage.round", std::to_string(round)},
           {"selvage.program", definition.program_digest.ToHex()}}));
  if (!state.momentum.empty()) {
    SELVAGE_ASSIGN_OR_RETURN(artefacts.server_state_digest,
                             writer.Put(aggregation::SerializeServerState(
                                 definition.spec.strategy, state)));
  }
  return artefacts;
}

Result<plan::Checkpoint> LoadMaster(const plan::TensorTable& table,
                                    const VersionRow& row, BlobStore& blobs) {
  SELVAGE_ASSIGN_OR_RETURN(
      const Bytes bytes,
      blobs.Read(row.master_digest, std::numeric_limits<uint64_t>::max()));
  return plan::ReadSafetensors(table, bytes);
}

std::string FiguresText(const std::map<std::string, double>& figures) {
  std::string text;
  for (const auto& [name, value] : figures) {
    char number[32];
    std::snprintf(number, sizeof number, "%.17g", value);
    text += name + "=" + number + "\n";
  }
  return text;
}

Result<std::map<std::string, double>> ParseFigures(const std::string& text) {
  std::map<std::string, double> figures;
  for (size_t at = 0; at < text.size();) {
    const size_t equals = text.find('=', at);
    const size_t end = text.find('\n', at);
    if (end == std::string::npos || equals > end) {
      return DataLoss("figures of a round end early");
    }
    double value = 0;
    const std::string number = text.substr(equals + 1, end - equals - 1);
    char* after = nullptr;
    value = std::strtod(number.c_str(), &after);
    if (number.empty() || *after != '\0' || !std::isfinite(value)) {
      return DataLoss("a figure of a round is " + number);
    }
    figures[text.substr(at, equals - at)] = value;
    at = end + 1;
  }
  return figures;
}

Bytes ReleasableMetrics(const aggregation::MetricSums& metrics,
                        uint64_t min_cohort) {
  for (const aggregation::MetricSums::Sum& sum : metrics.sums()) {
    if (static_cast<uint64_t>(sum.device_count) < min_cohort) return {};
  }
  return metrics.Serialize();
}

}  // namespace selvage::coordinator

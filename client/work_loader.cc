#include "client/work_loader.h"

#include <algorithm>
#include <cmath>

#include "aggregation/codec/checkpoint_codec.h"
#include "aggregation/codec/checkpoint_parts.h"
#include "aggregation/codec/delta_codec.h"
#include "aggregation/contribution.h"
#include "aggregation/server_optimizer.h"
#include "client/base_file.h"

namespace selvage::client {
namespace {

WorkRefused PlanRefused(std::string message) {
  return {.reason = AbandonReason::kPlanRefused, .message = std::move(message)};
}
WorkRefused ProgramRefused(std::string message) {
  return {.reason = AbandonReason::kProgramRefused,
          .message = std::move(message)};
}

bool IsSigned(ByteSpan plan, ByteSpan signature,
              const std::vector<crypto::Ed25519PublicKey>& keys) {
  const Bytes input = plan::PlanSigningInput(AsText(plan));
  return std::any_of(keys.begin(), keys.end(),
                     [&](const crypto::Ed25519PublicKey& key) {
                       return crypto::VerifyEd25519(key, input, signature).ok();
                     });
}

}  // namespace

Result<Bytes> WorkLoader::Fetch(const crypto::Digest& digest, uint64_t size_max,
                                Bytes part, Transport& transport,
                                const Transport::KeepGoing& keep_going) {
  Bytes bytes = std::move(part);
  const size_t had = bytes.size();
  uint64_t total = 0;
  bool known = false;
  const auto sink = [&](ByteSpan chunk, uint64_t size) -> Status {
    if (size > size_max) {
      return ResourceExhausted("artefact " + digest.ToHex() + " has " +
                               std::to_string(size) + " bytes, more than the " +
                               std::to_string(size_max) + " it may have");
    }
    if ((known && size != total) || chunk.size() > size - bytes.size()) {
      return DataLoss("artefact " + digest.ToHex() +
                      " changed its size under way");
    }
    known = true;
    total = size;
    // Growing would hold it up to three times. The size is bounded above.
    bytes.reserve(static_cast<size_t>(size));
    AppendBytes(bytes, chunk);
    return OkStatus();
  };
  const Status fetched =
      transport.Fetch(digest, bytes.size(), sink, keep_going);
  if (!fetched.ok()) {
    // Only worth keeping if going on from there is possible at all.
    if (IsTransient(fetched.code()) && bytes.size() > had) {
      (void)cache_.PutPart(digest, bytes);
    }
    return fetched;
  }
  if (known && bytes.size() != total) {
    return Unavailable("artefact " + digest.ToHex() + " ended after " +
                       std::to_string(bytes.size()) + " of " +
                       std::to_string(total) + " bytes");
  }
  cache_.DropPart(digest);
  if (crypto::Sha256(bytes) != digest) {
    return DataLoss("artefact " + digest.ToHex() + " does not have its digest");
  }
  // A cache that cannot be written costs another fetch later, no more.
  (void)cache_.Put(digest, bytes);
  return bytes;
}

Result<Bytes> WorkLoader::Get(const crypto::Digest& digest, uint64_t size_max,
                              Transport& transport,
                              const Transport::KeepGoing& keep_going) {
  Result<Bytes> cached = cache_.Get(digest, size_max);
  if (cached.ok()) return cached;
  Bytes part = cache_.GetPart(digest, size_max);
  const bool resumed = !part.empty();
  Result<Bytes> fetched =
      Fetch(digest, size_max, std::move(part), transport, keep_going);
  if (resumed && !fetched.ok() && !IsTransient(fetched.status().code()) &&
      fetched.status().code() != StatusCode::kNotFound) {
    // The part may have been damaged on this side.
    cache_.DropPart(digest);
    return Fetch(digest, size_max, Bytes(), transport, keep_going);
  }
  return fetched;
}

Result<Bytes> WorkLoader::FetchDelta(const crypto::Digest& digest,
                                     const crypto::Digest& base, uint64_t size,
                                     plan::CodecName codec,
                                     Transport& transport,
                                     const Transport::KeepGoing& keep_going) {
  // Becomes what is wanted, where it is: a copy more would be one of a model.
  SELVAGE_ASSIGN_OR_RETURN(Bytes values, cache_.Get(base, size));
  Bytes delta;
  const auto sink = [&](ByteSpan chunk, uint64_t total) -> Status {
    // What is no smaller than the whole is no delta.
    if (total > size || chunk.size() > total - delta.size()) {
      return DataLoss("a delta of " + std::to_string(total) + " bytes for " +
                      std::to_string(size));
    }
    delta.reserve(static_cast<size_t>(total));
    AppendBytes(delta, chunk);
    return OkStatus();
  };
  SELVAGE_RETURN_IF_ERROR(
      transport.FetchDelta(digest, base, codec, sink, keep_going));
  // A coordinator that knows no deltas sends the whole.
  if (delta.size() == size && crypto::Sha256(delta) == digest) return delta;
  SELVAGE_RETURN_IF_ERROR(aggregation::ApplyDelta(codec, values, delta));
  if (crypto::Sha256(values) != digest) {
    return DataLoss("the delta from " + base.ToHex() + " does not give " +
                    digest.ToHex());
  }
  return values;
}

Result<Bytes> WorkLoader::GetVersion(const crypto::Digest& digest,
                                     uint64_t size, plan::CodecName codec,
                                     Transport& transport,
                                     const Transport::KeepGoing& keep_going) {
  // Below it, the request that may be in vain costs more.
  constexpr uint64_t kDeltaSizeMin = uint64_t{16} << 10;
  Result<Bytes> cached = cache_.Get(digest, size);
  if (cached.ok()) return cached;
  if (size >= kDeltaSizeMin && cache_.GetPart(digest, size).empty()) {
    const std::optional<crypto::Digest> base = cache_.NewestOfSize(size);
    if (base.has_value()) {
      Result<Bytes> rebuilt =
          FetchDelta(digest, *base, size, codec, transport, keep_going);
      if (rebuilt.ok()) {
        (void)cache_.Put(digest, *rebuilt);
        return rebuilt;
      }
      const StatusCode code = rebuilt.status().code();
      if (IsTransient(code) || code == StatusCode::kCancelled) {
        return rebuilt;  // the whole would fare no better
      }
    }
  }
  return Get(digest, size, transport, keep_going);
}

std::optional<std::variant<WorkRefused, Status>> WorkLoader::GetPlan(
    const SessionWork& work,
    const std::vector<crypto::Ed25519PublicKey>& plan_keys,
    const PlanCheck& check, Transport& transport,
    const Transport::KeepGoing& keep_going, std::string& json,
    plan::Plan& plan) {
  Result<Bytes> plan_bytes =
      Get(work.plan_digest, plan::kPlanSizeMax, transport, keep_going);
  if (!plan_bytes.ok()) return plan_bytes.status();
  // The signature first: nobody else's text is parsed.
  if (!IsSigned(*plan_bytes, work.plan_signature, plan_keys)) {
    return PlanRefused("the plan is not signed by a key of this population");
  }
  json = ToString(*plan_bytes);
  Result<plan::Plan> parsed = plan::ParsePlan(json);
  if (!parsed.ok()) {
    return PlanRefused("plan: " + std::string(parsed.status().message()));
  }
  plan = *std::move(parsed);
  if (plan.population != population_) {
    return PlanRefused("the plan is for population " + plan.population +
                       ", not " + population_);
  }
  if (plan.task != work.task) {
    return PlanRefused("the plan is for task " + plan.task + ", not " +
                       work.task);
  }
  if (std::optional<WorkRefused> refused = check(plan)) {
    return *std::move(refused);
  }
  return std::nullopt;
}

std::variant<plan::Plan, WorkRefused, Status> WorkLoader::LoadPlan(
    const SessionWork& work,
    const std::vector<crypto::Ed25519PublicKey>& plan_keys,
    const PlanCheck& check, Transport& transport,
    const Transport::KeepGoing& keep_going) {
  std::string json;
  plan::Plan plan;
  cache_.BeginWork();
  auto ended =
      GetPlan(work, plan_keys, check, transport, keep_going, json, plan);
  cache_.EndWork();
  if (!ended.has_value()) return plan;
  if (auto* refused = std::get_if<WorkRefused>(&*ended)) {
    return std::move(*refused);
  }
  return std::get<Status>(*std::move(ended));
}

Result<plan::Checkpoint> WorkLoader::GetCheckpoint(
    const SessionWork& work, const plan::TensorTable& table,
    Transport& transport, const Transport::KeepGoing& keep_going) {
  const plan::CodecName codec = work.checkpoint_codec;
  const uint64_t whole_size = aggregation::EncodedCheckpointSize(codec, table);
  const std::vector<aggregation::PartLayout> layout =
      aggregation::LayOutParts(codec, table);
  SELVAGE_ASSIGN_OR_RETURN(
      const Bytes first,
      layout.size() == 1
          ? GetVersion(work.checkpoint_digest, whole_size, codec, transport,
                       keep_going)
          : Get(work.checkpoint_digest, whole_size, transport, keep_going));
  const auto damaged = [](const Status& status) {
    return DataLoss("checkpoint: " + std::string(status.message()));
  };
  if (layout.size() == 1 || first.size() == whole_size) {
    Result<plan::Checkpoint> values =
        aggregation::DecodeCheckpoint(codec, table, first);
    if (!values.ok()) return damaged(values.status());
    return values;
  }
  const Result<std::vector<aggregation::PartName>> parts =
      aggregation::ParsePartList(layout, first);
  if (!parts.ok()) return damaged(parts.status());
  plan::Checkpoint values;
  values.floats.resize(table.float_count());
  values.ints.resize(table.int_count());
  for (size_t i = 0; i < parts->size(); ++i) {
    const auto& [digest, size] = (*parts)[i];
    SELVAGE_ASSIGN_OR_RETURN(
        const Bytes part,
        layout[i].constant
            ? Get(digest, size, transport, keep_going)
            : GetVersion(digest, size, codec, transport, keep_going));
    const Status decoded =
        aggregation::DecodePart(codec, table, layout[i], part, values);
    if (!decoded.ok()) return damaged(decoded);
  }
  return values;
}

Result<std::unique_ptr<BaseTensors>> WorkLoader::OpenBase(
    const SessionWork& work, const plan::TensorTable& table) {
  SELVAGE_ASSIGN_OR_RETURN(
      std::unique_ptr<BaseFile> base,
      BaseFile::Open(work.checkpoint_digest, work.checkpoint_codec, table,
                     cache_));
  return std::unique_ptr<BaseTensors>(std::move(base));
}

Result<std::vector<float>> WorkLoader::GetControl(
    const SessionWork& work, const plan::TensorTable& table,
    Transport& transport, const Transport::KeepGoing& keep_going) {
  plan::StrategySpec strategy;
  strategy.name = plan::StrategyName::kScaffold;
  std::vector<float> control(aggregation::SharedCount(table));
  if (work.control_digest.empty()) return control;
  const Bytes head = aggregation::FormOf(strategy, control.size()).head;
  const uint64_t size = head.size() + control.size() * sizeof(float);
  SELVAGE_ASSIGN_OR_RETURN(
      const Bytes bytes, Get(work.control_digest, size, transport, keep_going));
  if (bytes.size() != size ||
      !std::equal(head.begin(), head.end(), bytes.begin())) {
    return DataLoss("control variate: it is another strategy's or model's");
  }
  ByteReader reader(ByteSpan(bytes).subspan(head.size()));
  for (float& value : control) {
    SELVAGE_ASSIGN_OR_RETURN(value, reader.Read<float>("value"));
    if (!std::isfinite(value)) {
      return DataLoss("control variate: a value is not finite");
    }
  }
  return control;
}

LoadedWork WorkLoader::Load(
    const SessionWork& work,
    const std::vector<crypto::Ed25519PublicKey>& plan_keys,
    const PlanCheck& check, Transport& transport,
    const Transport::KeepGoing& keep_going) {
  cache_.BeginWork();
  LoadedWork loaded = LoadAll(work, plan_keys, check, transport, keep_going);
  cache_.EndWork();
  return loaded;
}

LoadedWork WorkLoader::LoadAll(
    const SessionWork& work,
    const std::vector<crypto::Ed25519PublicKey>& plan_keys,
    const PlanCheck& check, Transport& transport,
    const Transport::KeepGoing& keep_going) {
  VerifiedWork out;
  if (auto ended = GetPlan(work, plan_keys, check, transport, keep_going,
                           out.plan_json, out.plan)) {
    if (auto* refused = std::get_if<WorkRefused>(&*ended)) {
      return std::move(*refused);
    }
    return std::get<Status>(*std::move(ended));
  }

  Result<Bytes> program_bytes =
      Get(out.plan.program_digest, plan::kProgramJsonSizeMax, transport,
          keep_going);
  if (!program_bytes.ok()) return program_bytes.status();
  out.program_json = ToString(*program_bytes);
  Result<plan::Program> program = plan::ParseProgram(out.program_json);
  if (!program.ok()) {
    return ProgramRefused("program: " +
                          std::string(program.status().message()));
  }
  out.program = *std::move(program);
  if (std::find(out.program.metrics.begin(), out.program.metrics.end(),
                out.plan.key_metric) == out.program.metrics.end()) {
    return PlanRefused("the plan's key_metric " + out.plan.key_metric +
                       " is no metric of the program");
  }

  if (out.program.kind == plan::ProgramKind::kArchive) {
    Result<Bytes> archive =
        Get(out.program.archive_digest, out.program.archive_size_bytes,
            transport, keep_going);
    if (!archive.ok()) return archive.status();
    if (archive->size() != out.program.archive_size_bytes) {
      return ProgramRefused(
          "the archive does not have the size it is said to "
          "have");
    }
    out.archive = *std::move(archive);
  }

  Result<plan::Checkpoint> base =
      GetCheckpoint(work, out.program.table, transport, keep_going);
  if (!base.ok()) return base.status();
  out.base = *std::move(base);
  if (out.plan.contribution.name == plan::ContributionName::kScaffold &&
      work.train && !work.evaluate) {
    Result<std::vector<float>> control =
        GetControl(work, out.program.table, transport, keep_going);
    if (!control.ok()) return control.status();
    out.control = *std::move(control);
  }
  return out;
}

}  // namespace selvage::client

// From what the coordinator asked for to something that can run: artefacts by
// digest from the cache or the network, the plan's signature, and every check
// that comes before a program is loaded.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"
#include "client/core/session.h"
#include "client/core/transport.h"
#include "client/core/update_builder.h"
#include "client/store/blob_cache.h"
#include "crypto/signature.h"
#include "plan/checkpoint.h"
#include "plan/plan.h"
#include "plan/program.h"

namespace selvage::client {

struct VerifiedWork {
  std::string plan_json;
  plan::Plan plan;
  std::string program_json;
  plan::Program program;
  Bytes archive;          // empty unless the program is an archive
  plan::Checkpoint base;  // the decoded checkpoint
  // Of a scaffold assignment that trains: the server's control variate, one
  // value for each element of the shared tensors.
  std::vector<float> control = {};
};

// PLAN_REFUSED / PROGRAM_REFUSED, or a Status: CANCELLED (keep_going said so),
// UNAVAILABLE, NOT_FOUND, DATA_LOSS (the bytes do not have their digest), ...
using LoadedWork = std::variant<VerifiedWork, WorkRefused, Status>;

// What the host has against a plan that is signed and understood.
using PlanCheck = std::function<std::optional<WorkRefused>(const plan::Plan&)>;

class WorkLoader {
 public:
  // `cache` must outlive it.
  WorkLoader(BlobCache& cache, std::string population)
      : cache_(cache), population_(std::move(population)) {}

  // Only what the cache lacks is fetched; of a checkpoint in parts, the parts
  // that it lacks. A plan is refused unless one of
  // `plan_keys` signed it, every key in it is understood, it is for this
  // population and task, and `check` has nothing against it: nothing else of
  // the work is fetched before that, and no program is loaded.
  LoadedWork Load(const SessionWork& work,
                  const std::vector<crypto::Ed25519PublicKey>& plan_keys,
                  const PlanCheck& check, Transport& transport,
                  const Transport::KeepGoing& keep_going);

  // The checkpoint of work that was loaded, where the cache has it. NOT_FOUND
  // if it does not. `table` must outlive the result.
  Result<std::unique_ptr<BaseTensors>> OpenBase(const SessionWork& work,
                                                const plan::TensorTable& table);

  // The plan alone, after the same checks.
  std::variant<plan::Plan, WorkRefused, Status> LoadPlan(
      const SessionWork& work,
      const std::vector<crypto::Ed25519PublicKey>& plan_keys,
      const PlanCheck& check, Transport& transport,
      const Transport::KeepGoing& keep_going);

 private:
  LoadedWork LoadAll(const SessionWork& work,
                     const std::vector<crypto::Ed25519PublicKey>& plan_keys,
                     const PlanCheck& check, Transport& transport,
                     const Transport::KeepGoing& keep_going);
  Result<plan::Checkpoint> GetCheckpoint(
      const SessionWork& work, const plan::TensorTable& table,
      Transport& transport, const Transport::KeepGoing& keep_going);
  // scaffold's c. DATA_LOSS if it is not of this table.
  Result<std::vector<float>> GetControl(const SessionWork& work,
                                        const plan::TensorTable& table,
                                        Transport& transport,
                                        const Transport::KeepGoing& keep_going);
  // nullopt: `json` and `plan` hold it.
  std::optional<std::variant<WorkRefused, Status>> GetPlan(
      const SessionWork& work,
      const std::vector<crypto::Ed25519PublicKey>& plan_keys,
      const PlanCheck& check, Transport& transport,
      const Transport::KeepGoing& keep_going, std::string& json,
      plan::Plan& plan);
  Result<Bytes> Get(const crypto::Digest& digest, uint64_t size_max,
                    Transport& transport,
                    const Transport::KeepGoing& keep_going);
  // A version of something: `size` bytes that most likely are little different
  // from the version before, if that is still there.
  Result<Bytes> GetVersion(const crypto::Digest& digest, uint64_t size,
                           plan::CodecName codec, Transport& transport,
                           const Transport::KeepGoing& keep_going);
  Result<Bytes> FetchDelta(const crypto::Digest& digest,
                           const crypto::Digest& base, uint64_t size,
                           plan::CodecName codec, Transport& transport,
                           const Transport::KeepGoing& keep_going);
  Result<Bytes> Fetch(const crypto::Digest& digest, uint64_t size_max,
                      Bytes part, Transport& transport,
                      const Transport::KeepGoing& keep_going);

  BlobCache& cache_;
  const std::string population_;
};

}  // namespace selvage::client

// A whole federation in one process on virtual time: the coordinator as it is
// shipped, over a store in memory; the client library as apps have it, over a
// folder of its own for each device; models that really train.
//
// Sessions of one moment run on several threads. The result does not depend on
// how many: rounds draw their devices by the task's seed, sums are exact, and
// every device trains with one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/time.h"
#include "bench/accuracy/attack.h"
#include "client/core/trainer.h"
#include "crypto/digest.h"
#include "examples/quickstart/report.h"
#include "examples/users/table.h"
#include "plan/program.h"

namespace selvage::bench {

// The examples of one device. `test` is for the table at the end: nothing that
// trains or chooses sees it.
struct DeviceExamples {
  client::ExampleSet train;
  client::ExampleSet test;
};

struct FederationData {
  std::vector<DeviceExamples> devices;
  std::vector<DeviceExamples> newcomers;  // come after the last round
  client::ExampleSet test;                // of no device; may be empty
};

// A committed version on FederationData::test. Not finite values score as 0.
struct VersionScore {
  uint64_t version = 0;
  double accuracy = 0;  // percent
  double loss = 0;      // 0 where it is not finite
  Duration elapsed{};   // virtual, since the task was created
};

struct FederationOptions {
  std::string task_file;  // of population `demo`; float32 updates to attack
  plan::Program program;  // a source program; metrics: accuracy and loss
  Attack attack = Attack::kNone;
  size_t attackers = 0;  // the first so many devices
  // A model that devices cannot train any more is a result, not an error:
  // attackers may break it, or a strategy that diverges.
  bool may_break = false;
  int threads = 1;
  // Devices install the last version, finish their own models and score them;
  // then the newcomers do. Needs test examples of each.
  bool score_devices = false;
  // How long a device takes from an assignment to its update, by its place in
  // FederationData::devices. Empty: no time.
  std::function<Duration(size_t device)> takes = {};
  // After every committed round, in order; false ends the federation. Empty:
  // true.
  std::function<bool(const VersionScore&)> on_version = {};
};

struct FederationResult {
  std::vector<VersionScore> versions;  // empty without test examples
  users::Run run;                      // with score_devices
  crypto::Digest model;                // of the last version's safetensors
  uint64_t rounds = 0;                 // committed
  uint64_t abandoned = 0;              // rounds
  uint64_t rejected = 0;               // updates
  // Why it ended before its rounds were done, if on_version did not end it:
  // with may_break, a model that cannot be trained on.
  std::string failure;
};

// Works in a folder of its own under the system's temporary directory, which is
// gone afterwards. INVALID_ARGUMENT: task or data. Without `may_break` a
// session that fails, or a device that declines, is an error.
Result<FederationResult> RunFederation(const FederationOptions& options,
                                       const FederationData& data,
                                       client::Trainer& trainer);

}  // namespace selvage::bench

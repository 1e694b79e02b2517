// One device over the real client library and the real wire, with an engine
// that "learns" its own basis vector, that dies at a kill point of the caller's
// choice (kill_points.h, SELVAGE_TEST_KILL_AT):
//
//   device_with_faults DIRECTORY BUNDLE_FILE POPULATION INDEX
//
// Runs sessions until its update was accepted or there is nothing to do any
// more, and says after each how it ended.
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>

#include "base/file_system.h"
#include "base/log.h"
#include "base/random.h"
#include "client/client.h"
#include "client/rpc/grpc_transport.h"
#include "crypto/tls_policy.h"
#include "tests/integration/faults/jumping_clock.h"
#include "tests/integration/faults/kill_points.h"
#include "tests/integration/faults/one_hot_trainer.h"

namespace selvage::test {
namespace {

constexpr int kSessionsMax = 40;

Status Run(const Path& home, const Path& bundle, const std::string& population,
           size_t index, KillPoints& points) {
  JumpingClock clock;
  OsRandom random;
  PosixFileSystem disk;
  KillingFileSystem files(disk, points);
  StreamEventSink events(std::cout, clock, StreamEventSink::Format::kJson,
                         LogLevel::kInfo);
  OneHotTrainer trainer(index);
  client::ClientOptions options;
  options.state_dir = home / "state";
  options.cache_dir = home / "cache";
  options.population = population;
  SELVAGE_ASSIGN_OR_RETURN(const Bytes text, ReadFile(disk, bundle, 64 << 10));
  options.enrolment_bundle = ToString(text);
  options.device_name = "killed";
  SELVAGE_ASSIGN_OR_RETURN(
      const std::unique_ptr<client::Client> client,
      client::Client::Open(
          std::move(options),
          {.clock = clock,
           .random = random,
           .events = events,
           .files = files,
           .trainer = trainer,
           .transport = client::GrpcTransportFactory(random)}));
  SELVAGE_ASSIGN_OR_RETURN(const uint64_t examples,
                           client->CountExamples("default"));
  if (examples == 0) {
    SELVAGE_RETURN_IF_ERROR(
        client->AddExample("default", {.inputs = {Bytes(4)}}).status());
  }
  const client::CancelToken cancel;
  for (int i = 0; i < kSessionsMax; ++i) {
    SELVAGE_ASSIGN_OR_RETURN(const client::RunOutcome outcome,
                             client->RunOnce({}, cancel));
    std::cout << client::RunResultName(outcome.result) << " " << outcome.reason
              << std::endl;
    if (outcome.result == client::RunResult::kContributed) return OkStatus();
    clock.JumpTo(outcome.next_run);
  }
  return OkStatus();
}

}  // namespace
}  // namespace selvage::test

int main(int argc, char** argv) {
  using selvage::test::KillPoints;
  if (argc != 5 || !selvage::crypto::RequireTls13().ok()) return 2;
  KillPoints points(KillPoints::TargetFromEnvironment());
  if (!selvage::test::InstallKillingVfs(points).ok()) return 2;
  const selvage::Status status = selvage::test::Run(
      argv[1], argv[2], argv[3], std::strtoul(argv[4], nullptr, 10), points);
  if (status.ok()) return 0;
  std::cout << status << std::endl;
  return 1;
}

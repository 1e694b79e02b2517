// A device whose identity is a key of a keystore, lent through the C API, over
// the real wire: it enrols, trains a round, lets its certificate end, and gets
// the next one without a token.
#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/log.h"
#include "base/random.h"
#include "client/capi/host.h"
#include "client/client.h"
#include "client/rpc/grpc_transport.h"
#include "tests/integration/faults/harness.h"
#include "tests/integration/faults/jumping_clock.h"
#include "tests/integration/faults/one_hot_trainer.h"
#include "tests/testing/fake_keystore.h"
#include "tests/testing/status_matchers.h"

namespace selvage::test {
namespace {

constexpr char kTaskFile[] = R"(
name: keys
population: demo
program: native:one_hot
train: {local_epochs: 1, batch_size: 1, optimizer: {name: sgd, lr: 0.1}}
strategy: {name: fedavg, num_rounds: 2, cohort: 1, over_selection: 1, round_deadline: 7d}
privacy: {min_cohort: 1}
update: {codec: float32, weight_cap: 1}
data: {holdout: 0}
)";

struct Keystore {
  FakeKeystore key;
  int signatures = 0;
};
selvage_code Sign(void* user, const uint8_t digest[32], uint8_t signature[64]) {
  auto& keystore = *static_cast<Keystore*>(user);
  ++keystore.signatures;
  const Bytes made =
      keystore.key.Sign(*crypto::Digest::FromBytes(ByteSpan(digest, 32)));
  std::copy(made.begin(), made.end(), signature);
  return SELVAGE_OK;
}

// One process' life of the device, its clock wrong by `shift`. How the last
// session ended.
client::RunOutcome RunUntilContributed(const Path& home,
                                       const std::string& bundle,
                                       Keystore& keystore, Duration shift) {
  const Bytes public_key = keystore.key.PublicKey();
  selvage_callbacks callbacks{};
  callbacks.struct_size = sizeof callbacks;
  callbacks.user = &keystore;
  callbacks.sign = Sign;
  callbacks.identity_public_key = public_key.data();
  callbacks.identity_public_key_size = public_key.size();
  selvage_options given{};
  given.struct_size = sizeof given;
  given.callbacks = &callbacks;
  const std::unique_ptr<capi::Host> host = Take(capi::Host::Create(given));

  JumpingClock clock(shift);
  OsRandom random;
  NullEventSink events;
  PosixFileSystem files;
  OneHotTrainer trainer(0);
  client::ClientDependencies dependencies{
      .clock = clock,
      .random = random,
      .events = events,
      .files = files,
      .trainer = trainer,
      .transport = client::GrpcTransportFactory(random)};
  dependencies.identity_key = host->Dependencies().identity_key;
  client::ClientOptions options;
  options.state_dir = home / "state";
  options.cache_dir = home / "cache";
  options.population = kPopulation;
  options.enrolment_bundle = bundle;
  const std::unique_ptr<client::Client> client =
      Take(client::Client::Open(std::move(options), std::move(dependencies)));
  if (Take(client->CountExamples("default")) == 0) {
    Take(client->AddExample("default", {.inputs = {Bytes(4)}}));
  }
  const client::CancelToken cancel;
  client::RunOutcome outcome;
  for (int i = 0; i < 200; ++i) {
    outcome = Take(client->RunOnce({}, cancel));
    if (outcome.result == client::RunResult::kContributed ||
        outcome.result == client::RunResult::kFailed) {
      break;
    }
    clock.JumpTo(outcome.next_run);
  }
  return outcome;
}

// Both clocks go from half an hour ago to three quarters of an hour ahead: past
// the end of a certificate of one hour, while TLS itself, which looks at the
// machine's clock, finds each one valid in its time.
TEST(IdentityKeyTest, CertificateOver_RenewsWithoutTokenOrCertificate) {
  const Path root = FreshDirectory();
  Keystore keystore;
  CoordinatorUnderTest::Options options{
      .binary = SELVAGE_COORDINATOR_WITH_FAULTS,
      .environment = {{"SELVAGE_TEST_CLOCK_SHIFT_S", "-1800"}},
      .flags = {"--certificates-identity-lifetime", "1h", "--pace-retry-min",
                "10ms", "--pace-retry-max", "20ms"}};
  auto server = std::make_unique<CoordinatorUnderTest>(root / "data", options);
  ASSERT_TRUE(server->serving()) << server->process().output();
  ASSERT_THAT(server->CreatePopulation(), IsOk());
  const std::string bundle = Take(server->CreateBundle(1));
  Take(server->CreateTask(kTaskFile, OneHotProgram(1)), "create task");

  client::RunOutcome outcome = RunUntilContributed(
      root / "device", bundle, keystore, -std::chrono::minutes(30));
  ASSERT_EQ(outcome.result, client::RunResult::kContributed) << outcome.reason;
  EXPECT_EQ(keystore.signatures, 1);
  EXPECT_EQ(Take(server->Info()).certificates_issued(), 1U);

  options.flags.insert(options.flags.end(),
                       {"--device-address", server->device_address()});
  server.reset();
  options.environment = {{"SELVAGE_TEST_CLOCK_SHIFT_S", "2700"}};
  server = std::make_unique<CoordinatorUnderTest>(root / "data", options);
  ASSERT_TRUE(server->serving()) << server->process().output();

  // The bundle's one use is used up, and it is not given again.
  outcome = RunUntilContributed(root / "device", "", keystore,
                                std::chrono::minutes(45));
  ASSERT_EQ(outcome.result, client::RunResult::kContributed) << outcome.reason;
  EXPECT_EQ(outcome.round, 2U);
  EXPECT_EQ(keystore.signatures, 2);
  EXPECT_EQ(Take(server->Info()).certificates_issued(), 2U);

  // Another keystore is another device: this one says so and asks for nothing.
  Keystore other;
  outcome =
      RunUntilContributed(root / "device", "", other, std::chrono::minutes(46));
  EXPECT_EQ(outcome.result, client::RunResult::kFailed);
  EXPECT_THAT(outcome.reason,
              ::testing::HasSubstr("was enrolled with the identity key"));
  EXPECT_EQ(other.signatures, 0);
  std::filesystem::remove_all(root);
}

}  // namespace
}  // namespace selvage::test

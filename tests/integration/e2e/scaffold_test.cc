// SCAFFOLD over the real wire, with the real engine: control variates are
// fetched, sent, and move.
#include <csignal>
#include <cstring>
#include <filesystem>
#include <map>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/log.h"
#include "base/random.h"
#include "client/client.h"
#include "client/rpc/grpc_transport.h"
#include "client/training/torch/torch_trainer.h"
#include "tests/integration/faults/harness.h"
#include "tests/integration/faults/jumping_clock.h"

namespace selvage::test {
namespace {

constexpr size_t kShared = 3 * 4 + 3;  // elements
constexpr char kTaskFile[] = R"(
name: drift
population: demo
program: model.yaml
train: {local_epochs: 2, batch_size: 4, optimizer: {name: sgd, lr: 0.05}}
strategy: {name: scaffold, population_size: 2, num_rounds: 2, cohort: 2, over_selection: 1, round_deadline: 1d}
update: {codec: float32}
data: {holdout: 0}
)";
constexpr char kSource[] = R"(
def forward(self, x):
    return torch.linear(x, self.w.weight, self.w.bias)

def training_loss(self, x, y):
    return torch.cross_entropy_loss(self.forward(x), y)

def example_scores(self, x, y):
    z = self.forward(x)
    return torch.stack([(z.argmax(1) == y).float(), torch.cross_entropy_loss(z, y, None, 0)], 1)
)";

plan::Program LinearProgram() {
  plan::Program program;
  program.source = kSource;
  program.table =
      Take(plan::TensorTable::Create({{.name = "w.weight",
                                       .shape = {3, 4},
                                       .init = plan::Init::kKaimingUniform},
                                      {.name = "w.bias", .shape = {3}}}));
  program.inputs = {{"x", plan::DType::kFloat32, {4}},
                    {"y", plan::DType::kInt64, {}}};
  program.metrics = {"accuracy", "loss"};
  return program;
}

std::vector<float> FloatsOf(ByteSpan bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

// What one device was told and sent, by contribution.
struct Seen {
  std::vector<crypto::Digest> controls;  // of its assignments
  std::map<crypto::Digest, Bytes> fetched;
  std::vector<std::vector<float>> updates;
};

class SeeingTransport final : public client::Transport {
 public:
  SeeingTransport(std::unique_ptr<client::Transport> base, Seen& seen)
      : base_(std::move(base)), seen_(seen) {}

  Result<client::EnrollAnswer> Enroll(
      const client::EnrollRequest& request) override {
    return base_->Enroll(request);
  }
  Result<client::CheckInAnswer> CheckIn(
      const client::CheckInRequest& request) override {
    Result<client::CheckInAnswer> answer = base_->CheckIn(request);
    if (answer.ok()) {
      if (const auto* given = std::get_if<client::Assignment>(&answer->work)) {
        seen_.controls.push_back(given->control_digest);
      }
    }
    return answer;
  }
  Status Fetch(const crypto::Digest& digest, uint64_t offset, const Sink& sink,
               const KeepGoing& keep_going) override {
    return base_->Fetch(
        digest, offset,
        [&](ByteSpan bytes, uint64_t total) {
          AppendBytes(seen_.fetched[digest], bytes);
          return sink(bytes, total);
        },
        keep_going);
  }
  Status FetchDelta(const crypto::Digest& digest, const crypto::Digest& base,
                    plan::CodecName codec, const Sink& sink,
                    const KeepGoing& keep_going) override {
    return base_->FetchDelta(digest, base, codec, sink, keep_going);
  }
  Result<client::Receipt> Upload(const client::UploadHeader& header,
                                 const client::UpdateBytes& update,
                                 const KeepGoing& keep_going) override {
    SELVAGE_ASSIGN_OR_RETURN(const Bytes bytes, update.ReadAll());
    seen_.updates.push_back(FloatsOf(bytes));
    return base_->Upload(header, update, keep_going);
  }
  Result<client::RetryWindow> Abandon(const std::string& assignment_id,
                                      ByteSpan token,
                                      client::AbandonReason reason,
                                      const std::string& message) override {
    ADD_FAILURE() << message;
    return base_->Abandon(assignment_id, token, reason, message);
  }
  Result<client::RetryWindow> Report(
      const std::string& report_id,
      const std::vector<std::pair<std::string, uint64_t>>& counters) override {
    return base_->Report(report_id, counters);
  }

 private:
  const std::unique_ptr<client::Transport> base_;
  Seen& seen_;
};

class ScaffoldTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = FreshDirectory();
    server_ = std::make_unique<CoordinatorUnderTest>(root_ / "data");
    ASSERT_TRUE(server_->serving());
    ASSERT_TRUE(server_->CreatePopulation().ok());
    const std::string bundle = Take(server_->CreateBundle(2));
    Take(server_->CreateTask(kTaskFile, program_), "create task");
    for (size_t i = 0; i < 2; ++i) Open(i, bundle);
  }
  void TearDown() override {
    for (auto& device : devices_) device.reset();
    if (server_ != nullptr && !HasFatalFailure()) {
      EXPECT_EQ(server_->process().Stop(SIGTERM), 0);
    }
    std::filesystem::remove_all(root_);
  }

  void Open(size_t index, const std::string& bundle) {
    client::ClientOptions options;
    const Path home = root_ / ("device" + std::to_string(index));
    options.state_dir = home / "state";
    options.cache_dir = home / "cache";
    options.population = kPopulation;
    options.enrolment_bundle = bundle;
    devices_[index] = Take(client::Client::Open(
        std::move(options),
        {.clock = clock_,
         .random = random_,
         .events = events_,
         .files = files_,
         .trainer = trainer_,
         .transport = [this, index](const client::Endpoint& endpoint)
             -> Result<std::unique_ptr<client::Transport>> {
           SELVAGE_ASSIGN_OR_RETURN(std::unique_ptr<client::Transport> base,
                                    grpc_(endpoint));
           return std::unique_ptr<client::Transport>(
               new SeeingTransport(std::move(base), seen_[index]));
         }}));
    // Of one class each: what makes devices drift apart.
    SeededRandom random(index);
    for (int k = 0; k < 12; ++k) {
      client::Example example;
      example.inputs.resize(2);
      for (int i = 0; i < 4; ++i) {
        AppendLe(example.inputs[0], static_cast<float>(UniformUnit(random)));
      }
      AppendLe<int64_t>(example.inputs[1], static_cast<int64_t>(index));
      Take(devices_[index]->AddExample("default", example));
    }
  }
  // Sessions of both, in turn, until each contributed so often.
  void Contribute(int times) {
    std::string outcomes;
    int done[2] = {0, 0};
    for (int i = 0; i < 400; ++i) {
      for (size_t k = 0; k < 2; ++k) {
        if (done[k] == times) continue;
        const client::RunOutcome outcome =
            Take(devices_[k]->RunOnce({}, client::CancelToken()), "RunOnce");
        clock_.JumpTo(outcome.next_run);
        outcomes += std::to_string(k) + " " +
                    std::string(client::RunResultName(outcome.result)) + " " +
                    outcome.reason + "\n";
        if (outcome.result == client::RunResult::kContributed) ++done[k];
      }
      if (done[0] == times && done[1] == times) return;
    }
    FAIL() << outcomes.substr(0, 4000);
  }

  const plan::Program program_ = LinearProgram();
  Path root_;
  JumpingClock clock_;
  OsRandom random_;
  PosixFileSystem files_;
  client::TorchTrainer trainer_;
  std::ostringstream log_;
  StreamEventSink events_{log_, clock_, StreamEventSink::Format::kJson,
                          LogLevel::kDebug};
  const client::TransportFactory grpc_ = client::GrpcTransportFactory(random_);
  std::unique_ptr<CoordinatorUnderTest> server_;
  Seen seen_[2];
  std::unique_ptr<client::Client> devices_[2];
};

TEST_F(ScaffoldTest, TwoRounds_ControlVariatesAreFetchedSentAndMove) {
  ASSERT_NO_FATAL_FAILURE(Contribute(2));
  Take(server_->WatchUntilEnded("drift"));

  std::vector<float> mean(kShared);
  for (const Seen& seen : seen_) {
    ASSERT_EQ(seen.updates.size(), 2U);
    ASSERT_EQ(seen.controls.size(), 2U);
    for (const auto& update : seen.updates) {
      ASSERT_EQ(update.size(), 2 * kShared);  // and as many of the control
      const auto control = std::span(update).subspan(kShared);
      EXPECT_TRUE(std::ranges::any_of(control, [](float v) { return v != 0; }));
    }
    EXPECT_NE(seen.updates[0], seen.updates[1]);
    for (size_t k = 0; k < kShared; ++k) {
      mean[k] += seen.updates[0][kShared + k] / 2;
    }
  }
  // The second round's c is what moved in the first, and both devices have it.
  const crypto::Digest second = seen_[0].controls[1];
  EXPECT_EQ(seen_[1].controls[1], second);
  EXPECT_NE(second, seen_[0].controls[0]);
  for (const Seen& seen : seen_) {
    ASSERT_EQ(seen.fetched.count(second), 1U);
    const Bytes& artefact = seen.fetched.at(second);
    ASSERT_GT(artefact.size(), kShared * sizeof(float));
    const std::vector<float> control =
        FloatsOf(ByteSpan(artefact).last(kShared * sizeof(float)));
    for (size_t k = 0; k < kShared; ++k) {
      EXPECT_NEAR(control[k], mean[k], 1e-4) << k;
    }
  }
}

}  // namespace
}  // namespace selvage::test

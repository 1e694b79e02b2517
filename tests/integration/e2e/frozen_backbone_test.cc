// Fine-tuning a small head on a frozen backbone of 20 MB, with the real
// coordinator, wire and engine: the backbone comes down once.
#include <csignal>
#include <filesystem>
#include <fstream>
#include <map>

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

namespace fs = std::filesystem;

constexpr uint64_t kBackboneBytes = uint64_t{784} * 6400 * sizeof(float);
constexpr uint64_t kHeadBytes = (6400 * 10 + 10) * sizeof(float);
constexpr char kTaskFile[] = R"(
name: fine-tune
population: demo
program: model.yaml
train: {local_epochs: 1, batch_size: 4, optimizer: {name: sgd, lr: 0.001}}
strategy: {name: fedavg, num_rounds: 3, cohort: 1, over_selection: 1, round_deadline: 1d}
personalize: {method: fine_tune, tensors: ["^head"], epochs: 1, optimizer: {name: sgd, lr: 0.001}}
update: {codec: float32}
data: {holdout: 0.25}
)";
constexpr char kSource[] = R"(
def forward(self, x):
    x = x.flatten(1).float() / 255
    h = torch.relu(torch.linear(x, self.backbone.weight))
    return torch.linear(h, self.head.weight, self.head.bias)

def training_loss(self, x, y):
    return torch.cross_entropy_loss(self.forward(x), y)

def example_scores(self, x, y):
    z = self.forward(x)
    return torch.stack([(z.argmax(1) == y).float(), torch.cross_entropy_loss(z, y, None, 0)], 1)
)";

plan::Program FineTuneProgram() {
  plan::Program program;
  program.source = kSource;
  program.table =
      Take(plan::TensorTable::Create({{.name = "head.weight",
                                       .shape = {10, 6400},
                                       .init = plan::Init::kKaimingUniform},
                                      {.name = "backbone.weight",
                                       .shape = {6400, 784},
                                       .role = plan::Role::kFrozen,
                                       .init = plan::Init::kKaimingUniform},
                                      {.name = "head.bias", .shape = {10}}}));
  program.inputs = {{"x", plan::DType::kUint8, {1, 28, 28}},
                    {"y", plan::DType::kInt64, {}}};
  program.metrics = {"accuracy", "loss"};
  return program;
}

// Counts what comes down.
class CountingTransport final : public client::Transport {
 public:
  CountingTransport(std::unique_ptr<client::Transport> base, uint64_t& bytes)
      : base_(std::move(base)), bytes_(bytes) {}

  Result<client::EnrollAnswer> Enroll(
      const client::EnrollRequest& request) override {
    return base_->Enroll(request);
  }
  Result<client::CheckInAnswer> CheckIn(
      const client::CheckInRequest& request) override {
    return base_->CheckIn(request);
  }
  Status Fetch(const crypto::Digest& digest, uint64_t offset, const Sink& sink,
               const KeepGoing& keep_going) override {
    return base_->Fetch(
        digest, offset,
        [&](ByteSpan bytes, uint64_t total) {
          bytes_ += bytes.size();
          return sink(bytes, total);
        },
        keep_going);
  }
  Status FetchDelta(const crypto::Digest& digest, const crypto::Digest& base,
                    plan::CodecName codec, const Sink& sink,
                    const KeepGoing& keep_going) override {
    return base_->FetchDelta(
        digest, base, codec,
        [&](ByteSpan bytes, uint64_t total) {
          bytes_ += bytes.size();
          return sink(bytes, total);
        },
        keep_going);
  }
  Result<client::Receipt> Upload(const client::UploadHeader& header,
                                 const client::UpdateBytes& update,
                                 const KeepGoing& keep_going) override {
    // What is frozen does not go up either.
    EXPECT_EQ(update.size(), kHeadBytes);
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
  uint64_t& bytes_;
};

uint64_t SizeOf(const Path& directory) {
  uint64_t size = 0;
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    if (entry.is_regular_file()) size += entry.file_size();
  }
  return size;
}

class FrozenBackboneTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = FreshDirectory();
    server_ = std::make_unique<CoordinatorUnderTest>(root_ / "data");
    ASSERT_TRUE(server_->serving());
    ASSERT_TRUE(server_->CreatePopulation().ok());
    bundle_ = Take(server_->CreateBundle(1));
    Take(server_->CreateTask(kTaskFile, program_), "create task");
  }
  void TearDown() override {
    client_.reset();
    if (server_ != nullptr && !HasFatalFailure()) {
      EXPECT_EQ(server_->process().Stop(SIGTERM), 0);
    }
    fs::remove_all(root_);
  }

  void Open() {
    client_.reset();
    client::ClientOptions options;
    options.state_dir = root_ / "device" / "state";
    options.cache_dir = root_ / "device" / "cache";
    options.population = kPopulation;
    options.enrolment_bundle = bundle_;
    client_ = Take(client::Client::Open(
        std::move(options),
        {.clock = clock_,
         .random = random_,
         .events = events_,
         .files = files_,
         .trainer = trainer_,
         .transport = [this](const client::Endpoint& endpoint)
             -> Result<std::unique_ptr<client::Transport>> {
           SELVAGE_ASSIGN_OR_RETURN(std::unique_ptr<client::Transport> base,
                                    grpc_(endpoint));
           return std::unique_ptr<client::Transport>(
               new CountingTransport(std::move(base), bytes_down_));
         }}));
  }
  void AddExamples() {
    SeededRandom random(5);
    for (int64_t k = 0; k < 12; ++k) {
      client::Example example;
      example.inputs.resize(2);
      example.inputs[0].resize(784);
      random.Fill(example.inputs[0]);
      AppendLe<int64_t>(example.inputs[1], k % 10);
      Take(client_->AddExample("default", example));
    }
  }
  // Sessions until one ends so; the bytes that came down meanwhile.
  uint64_t RunUntil(client::RunResult wanted) {
    bytes_down_ = 0;
    std::string outcomes;
    for (int i = 0; i < 100; ++i) {
      const client::RunOutcome outcome =
          Take(client_->RunOnce({}, client::CancelToken()), "RunOnce");
      clock_.JumpTo(outcome.next_run);
      outcomes += std::string(client::RunResultName(outcome.result)) + " " +
                  outcome.reason + "\n";
      if (outcome.result == wanted) return bytes_down_;
    }
    ADD_FAILURE() << outcomes;
    return 0;
  }

  const plan::Program program_ = FineTuneProgram();
  Path root_;
  std::string bundle_;
  JumpingClock clock_;
  OsRandom random_;
  PosixFileSystem files_;
  client::TorchTrainer trainer_;
  std::ostringstream log_;
  StreamEventSink events_{log_, clock_, StreamEventSink::Format::kJson,
                          LogLevel::kDebug};
  const client::TransportFactory grpc_ = client::GrpcTransportFactory(random_);
  uint64_t bytes_down_ = 0;
  std::unique_ptr<CoordinatorUnderTest> server_;
  std::unique_ptr<client::Client> client_;
};

TEST_F(FrozenBackboneTest, FineTuning_BackboneComesDownOnce) {
  Open();
  AddExamples();
  const plan::Checkpoint before =
      Take(server_->LatestModel("fine-tune", program_.table));

  EXPECT_GT(RunUntil(client::RunResult::kContributed), kBackboneBytes);
  // The second round: how the head changed, and the list that names the parts.
  const uint64_t second = RunUntil(client::RunResult::kContributed);
  EXPECT_GT(second, 1024u);
  EXPECT_LT(second, kHeadBytes * 9 / 10);

  // The third with a cache that lost the backbone's bytes.
  for (const auto& entry : fs::directory_iterator(root_ / "device" / "cache")) {
    if (entry.file_size() == kBackboneBytes) {
      std::fstream file(entry.path(),
                        std::ios::binary | std::ios::in | std::ios::out);
      file.seekp(1000000);
      file << "damage";
    }
  }
  Open();
  const uint64_t third = RunUntil(client::RunResult::kContributed);
  EXPECT_GT(third, kBackboneBytes);
  EXPECT_LT(third, kBackboneBytes + kHeadBytes * 9 / 10);

  // The final model, personalised and served.
  EXPECT_LT(RunUntil(client::RunResult::kInstalled), kHeadBytes * 9 / 10);
  EXPECT_EQ(Take(client_->Info("fine-tune")).version, 3u);
  EXPECT_EQ(Take(client_->Predict("fine-tune", Bytes(784, 1), 1)).shape,
            (std::vector<int64_t>{1, 10}));

  // Four versions, exported whole: the head moved, the backbone did not.
  const plan::Checkpoint after =
      Take(server_->LatestModel("fine-tune", program_.table));
  const auto* backbone = program_.table.Find("backbone.weight");
  const auto* head = program_.table.Find("head.weight");
  const auto at = [](const plan::Checkpoint& values,
                     const plan::TensorTable::Entry* entry) {
    return std::span(values.floats).subspan(entry->offset, entry->count);
  };
  EXPECT_TRUE(std::ranges::equal(at(before, backbone), at(after, backbone)));
  EXPECT_FALSE(std::ranges::equal(at(before, head), at(after, head)));
  // And stored once.
  EXPECT_LT(SizeOf(root_ / "data"), kBackboneBytes + 16 * kHeadBytes);
}

}  // namespace
}  // namespace selvage::test

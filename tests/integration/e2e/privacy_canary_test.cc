// T-37: pixels that cannot be mistaken and personal tensors that cannot be
// mistaken go into devices that train and personalise. Neither is in anything
// that a device hands to the network, in any file of the coordinator, or in a
// log.
#include <csignal>
#include <cstring>
#include <filesystem>
#include <mutex>
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

namespace fs = std::filesystem;

constexpr std::string_view kPixels = "PIXELS-OF-A-FACE";  // 16: 49 of an image
// Two of these next to each other are in no honest file.
constexpr float kPersonal = 12345.678F;
constexpr char kTaskFile[] = R"(
name: canary
population: demo
program: model.yaml
train: {local_epochs: 1, batch_size: 4, optimizer: {name: sgd, lr: 0.01}}
strategy: {name: fedavg, num_rounds: 2, cohort: 2, over_selection: 1, round_deadline: 1d}
personalize: {method: fine_tune, tensors: ["^head"], epochs: 1, optimizer: {name: sgd, lr: 0.01}}
update: {codec: float32}
data: {holdout: 0.25}
)";

std::string PersonalBytes() {
  std::string bytes(2 * sizeof kPersonal, '\0');
  std::memcpy(bytes.data(), &kPersonal, sizeof kPersonal);
  std::memcpy(bytes.data() + sizeof kPersonal, &kPersonal, sizeof kPersonal);
  return bytes;
}
// As they are, in hexadecimal and in base64 (at one of its three alignments).
std::vector<std::string> Canaries() {
  std::vector<std::string> out;
  for (const std::string& raw : {std::string(kPixels), PersonalBytes()}) {
    out.push_back(raw);
    out.push_back(ToHex(AsBytes(raw)));
    out.push_back(
        ToBase64(AsBytes(raw).first(raw.size() / 3 * 3)).substr(0, 8));
  }
  return out;
}
// Which of the canaries `text` contains.
std::string Find(std::string_view text) {
  for (const std::string& canary : Canaries()) {
    if (text.find(canary) != std::string_view::npos) {
      return "canary " + ToHex(AsBytes(canary));
    }
  }
  return "";
}

// Everything that is handed to the network, as text.
class Wire {
 public:
  void Sent(std::string_view text) {
    std::lock_guard lock(mu_);
    sent_.append(text);
    sent_.push_back('\n');
  }
  std::string sent() {
    std::lock_guard lock(mu_);
    return sent_;
  }

 private:
  std::mutex mu_;
  std::string sent_;
};

class RecordingTransport final : public client::Transport {
 public:
  RecordingTransport(std::unique_ptr<client::Transport> base, Wire& wire)
      : base_(std::move(base)), wire_(wire) {}

  Result<client::EnrollAnswer> Enroll(
      const client::EnrollRequest& request) override {
    wire_.Sent(request.token_id);
    wire_.Sent(AsText(request.token_secret));
    wire_.Sent(request.csr_pem);
    wire_.Sent(request.device_name);
    return base_->Enroll(request);
  }
  Result<client::CheckInAnswer> CheckIn(
      const client::CheckInRequest& request) override {
    wire_.Sent(request.population + request.device_class + request.app_version);
    for (const std::string& engine : request.engines) wire_.Sent(engine);
    for (const std::string& id : request.unsettled_assignments) wire_.Sent(id);
    for (const auto& model : request.installed) wire_.Sent(model.task);
    return base_->CheckIn(request);
  }
  Status Fetch(const crypto::Digest& digest, uint64_t offset, const Sink& sink,
               const KeepGoing& keep_going) override {
    wire_.Sent(AsText(digest.span()));
    return base_->Fetch(digest, offset, sink, keep_going);
  }
  Status FetchDelta(const crypto::Digest& digest, const crypto::Digest& base,
                    plan::CodecName codec, const Sink& sink,
                    const KeepGoing& keep_going) override {
    wire_.Sent(AsText(digest.span()));
    wire_.Sent(AsText(base.span()));
    return base_->FetchDelta(digest, base, codec, sink, keep_going);
  }
  Result<client::Receipt> Upload(const client::UploadHeader& header,
                                 const client::UpdateBytes& update,
                                 const KeepGoing& keep_going) override {
    wire_.Sent(header.assignment_id);
    wire_.Sent(AsText(header.token));
    for (const aggregation::MetricValue& metric : header.metrics) {
      wire_.Sent(std::to_string(metric.numerator));
    }
    SELVAGE_ASSIGN_OR_RETURN(const Bytes bytes, update.ReadAll());
    wire_.Sent(AsText(bytes));
    return base_->Upload(header, update, keep_going);
  }
  Result<client::RetryWindow> Abandon(const std::string& assignment_id,
                                      ByteSpan token,
                                      client::AbandonReason reason,
                                      const std::string& message) override {
    wire_.Sent(assignment_id);
    wire_.Sent(message);
    return base_->Abandon(assignment_id, token, reason, message);
  }
  Result<client::RetryWindow> Report(
      const std::string& report_id,
      const std::vector<std::pair<std::string, uint64_t>>& counters) override {
    wire_.Sent(report_id);
    for (const auto& [name, value] : counters) wire_.Sent(name);
    return base_->Report(report_id, counters);
  }

 private:
  const std::unique_ptr<client::Transport> base_;
  Wire& wire_;
};

// LibTorch's model, whose personal tensors come out of training as canaries.
class CanaryModel final : public client::TrainableModel {
 public:
  CanaryModel(std::unique_ptr<client::TrainableModel> base,
              plan::TensorTable table)
      : base_(std::move(base)), table_(std::move(table)) {}

  Status SetValues(const plan::Checkpoint& values) override {
    return base_->SetValues(values);
  }
  Result<plan::Checkpoint> Values() override { return base_->Values(); }
  Result<client::TrainingReport> Train(
      const client::ExampleSet& examples,
      const client::LocalTraining& options) override {
    SELVAGE_ASSIGN_OR_RETURN(const client::TrainingReport report,
                             base_->Train(examples, options));
    SELVAGE_ASSIGN_OR_RETURN(plan::Checkpoint values, base_->Values());
    for (const plan::TensorTable::Entry& entry : table_.entries()) {
      if (entry.spec.role != plan::Role::kPersonal) continue;
      for (size_t i = 0; i < entry.count; ++i) {
        values.floats[entry.offset + i] = kPersonal;
      }
    }
    SELVAGE_RETURN_IF_ERROR(base_->SetValues(values));
    return report;
  }
  Result<std::vector<float>> Score(
      const client::ExampleSet& examples) override {
    return base_->Score(examples);
  }
  Result<Prediction> Predict(size_t count, ByteSpan input) override {
    return base_->Predict(count, input);
  }

 private:
  const std::unique_ptr<client::TrainableModel> base_;
  const plan::TensorTable table_;
};
class CanaryTrainer final : public client::Trainer {
 public:
  std::vector<std::string> engines() const override { return torch_.engines(); }
  Result<std::unique_ptr<client::TrainableModel>> Load(
      const plan::Program& program, ByteSpan archive) override {
    SELVAGE_ASSIGN_OR_RETURN(std::unique_ptr<client::TrainableModel> model,
                             torch_.Load(program, archive));
    return std::unique_ptr<client::TrainableModel>(
        new CanaryModel(std::move(model), program.table));
  }

 private:
  client::TorchTrainer torch_;
};

// The quickstart's program with the head as each device's own.
plan::Program PersonalProgram() {
  const Path folder = Path(SELVAGE_EXAMPLES) / "fashion";
  std::string yaml = ReadText(folder / "model.yaml");
  yaml += "\n";
  plan::Program program =
      Take(plan::ParseProgramFile(
               yaml,
               [&](const std::string& name) -> Result<std::string> {
                 return ReadText(folder / name);
               }))
          .program;
  std::vector<plan::TensorSpec> tensors;
  for (const plan::TensorTable::Entry& entry : program.table.entries()) {
    tensors.push_back(entry.spec);
    if (entry.spec.name.starts_with("head.")) {
      tensors.back().role = plan::Role::kPersonal;
      // So that a delta of it would be the canary as well.
      tensors.back().init = plan::Init::kZeros;
    }
  }
  program.table = Take(plan::TensorTable::Create(std::move(tensors)));
  return program;
}

TEST(PrivacyCanaryTest, PixelsAndPersonalTensors_StayOnTheDevice) {
  const Path root = FreshDirectory();
  CoordinatorUnderTest server(root / "data");
  ASSERT_TRUE(server.serving());
  ASSERT_TRUE(server.CreatePopulation().ok());
  const std::string bundle = Take(server.CreateBundle(2));
  Take(server.CreateTask(kTaskFile, PersonalProgram()), "create task");

  JumpingClock clock;
  OsRandom random;
  PosixFileSystem files;
  CanaryTrainer trainer;
  Wire wire;
  std::ostringstream device_log;
  StreamEventSink events(device_log, clock, StreamEventSink::Format::kJson,
                         LogLevel::kDebug);
  const client::TransportFactory grpc = client::GrpcTransportFactory(random);
  std::vector<std::unique_ptr<client::Client>> clients;
  for (int i = 0; i < 2; ++i) {
    const Path home = root / ("device-" + std::to_string(i));
    client::ClientOptions options;
    options.state_dir = home / "state";
    options.cache_dir = home / "cache";
    options.population = kPopulation;
    options.enrolment_bundle = bundle;
    clients.push_back(Take(client::Client::Open(
        std::move(options),
        {.clock = clock,
         .random = random,
         .events = events,
         .files = files,
         .trainer = trainer,
         .transport = [&](const client::Endpoint& endpoint)
             -> Result<std::unique_ptr<client::Transport>> {
           SELVAGE_ASSIGN_OR_RETURN(std::unique_ptr<client::Transport> base,
                                    grpc(endpoint));
           return std::unique_ptr<client::Transport>(
               new RecordingTransport(std::move(base), wire));
         }})));
    for (int64_t k = 0; k < 12; ++k) {
      client::Example example;
      example.inputs.resize(2);
      while (example.inputs[0].size() < 784) {
        AppendBytes(example.inputs[0], AsBytes(kPixels));
      }
      AppendLe<int64_t>(example.inputs[1], k % 10);
      Take(clients.back()->AddExample("default", example));
    }
  }
  const client::CancelToken cancel;
  std::vector<int> contributed(2, 0);
  std::vector<bool> installed(2, false);
  std::string outcomes;
  for (int i = 0; i < 400 && !(installed[0] && installed[1]); ++i) {
    const size_t k = static_cast<size_t>(i) % 2;
    const client::RunOutcome outcome =
        Take(clients[k]->RunOnce({}, cancel), "RunOnce");
    clock.JumpTo(outcome.next_run);
    outcomes += std::string(client::RunResultName(outcome.result)) + " " +
                outcome.reason + "\n";
    if (outcome.result == client::RunResult::kContributed) ++contributed[k];
    installed[k] =
        installed[k] || (contributed[k] == 2 &&
                         outcome.result == client::RunResult::kInstalled);
  }
  EXPECT_THAT(contributed, ::testing::Each(2)) << outcomes;
  EXPECT_THAT(installed, ::testing::Each(true)) << outcomes;
  EXPECT_EQ(Take(server.WatchUntilEnded("canary")).task().committed_rounds(),
            2U);
  EXPECT_EQ(server.process().Stop(SIGTERM), 0);

  // The search finds what is there ...
  EXPECT_NE(Find("xx" + std::string(kPixels) + "xx"), "");
  EXPECT_NE(Find("xx" + PersonalBytes() + "xx"), "");
  // ... and not even on the devices, whose stores are sealed.
  for (auto& client : clients) client->Close();
  for (const auto& entry :
       fs::recursive_directory_iterator(root / "device-0")) {
    if (!entry.is_regular_file()) continue;
    EXPECT_EQ(Find(ReadText(entry.path())), "") << entry.path();
  }
  EXPECT_GT(wire.sent().size(), 4 * 64 * 784 * sizeof(float));
  EXPECT_EQ(Find(wire.sent()), "");
  EXPECT_EQ(Find(device_log.str()), "");
  EXPECT_EQ(Find(server.process().output()), "");
  int searched = 0;
  for (const auto& entry : fs::recursive_directory_iterator(root / "data")) {
    if (!entry.is_regular_file()) continue;
    EXPECT_EQ(Find(ReadText(entry.path())), "") << entry.path();
    ++searched;
  }
  EXPECT_GE(searched, 10);
  fs::remove_all(root);
}

}  // namespace
}  // namespace selvage::test

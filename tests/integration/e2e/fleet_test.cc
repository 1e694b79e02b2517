// selvage-coordinator and selvage-device as they are shipped: a fleet of
// devices, each with its own key, certificate, store and connection, learns.
#include <bit>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/random.h"
#include "client/training/torch/lenet5.h"
#include "client/training/torch/torch_trainer.h"
#include "tests/integration/faults/harness.h"
#include "tests/testing/postgres_server.h"

namespace selvage::test {
namespace {

namespace fs = std::filesystem;

constexpr int kDevices = 4;
constexpr int kExamples = 40;

void AppendBigEndian(Bytes& out, uint32_t value) {
  for (const int shift : {24, 16, 8, 0}) {
    out.push_back(static_cast<uint8_t>(value >> shift));
  }
}
// An IDX file: `type` 8 for bytes, 13 for big-endian float32.
void WriteIdx(const Path& path, uint8_t type,
              const std::vector<uint32_t>& dimensions, ByteSpan values) {
  Bytes bytes = {0, 0, type, static_cast<uint8_t>(dimensions.size())};
  for (const uint32_t size : dimensions) AppendBigEndian(bytes, size);
  AppendBytes(bytes, values);
  std::ofstream(path, std::ios::binary) << AsText(bytes);
}
Bytes BigEndianFloats(const std::vector<float>& values) {
  Bytes out;
  for (const float value : values) {
    AppendBigEndian(out, std::bit_cast<uint32_t>(value));
  }
  return out;
}

float Unit(RandomSource& random) {
  return static_cast<float>(UniformUnit(random) * 2 - 1);
}

// y = sin(x0 + 2 x1) - x2 x3, on another part of the plane for every device.
void WriteRegressionExamples(const Path& folder, uint64_t seed) {
  fs::create_directories(folder);
  SeededRandom random(seed);
  std::vector<float> x;
  std::vector<float> y;
  const float shift = 0.2F * static_cast<float>(seed);
  for (int i = 0; i < kExamples; ++i) {
    const float a = Unit(random) + shift;
    const float b = Unit(random);
    const float c = Unit(random);
    const float d = Unit(random);
    x.insert(x.end(), {a, b, c, d});
    y.push_back(std::sin(a + 2 * b) - c * d);
  }
  WriteIdx(folder / "train-x.idx", 13, {kExamples, 4}, BigEndianFloats(x));
  // Of rank 2: in rank 1 the format has class labels.
  WriteIdx(folder / "train-y.idx", 13, {kExamples, 1}, BigEndianFloats(y));
}

// Bars at the place that the label says.
void WriteImageExamples(const Path& folder, uint64_t seed) {
  fs::create_directories(folder);
  SeededRandom random(seed);
  Bytes x(kExamples * 784);
  random.Fill(x);
  Bytes y;
  for (size_t i = 0; i < kExamples; ++i) {
    const auto label = static_cast<uint8_t>(i % 10);
    y.push_back(label);
    for (size_t p = 0; p < 784; ++p) {
      uint8_t& pixel = x[i * 784 + p];
      pixel = static_cast<uint8_t>(p / 56 == label ? 255 : pixel % 64);
    }
  }
  WriteIdx(folder / "train-x.idx", 8, {kExamples, 28, 28}, x);
  WriteIdx(folder / "train-y.idx", 8, {kExamples}, y);
}

class FleetTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root = FreshDirectory();
    CoordinatorUnderTest::Options options;
    options.flags = {"--pace-retry-min", "20ms", "--pace-retry-max", "50ms"};
    server = std::make_unique<CoordinatorUnderTest>(root / "data", options);
    ASSERT_TRUE(server->serving()) << server->process().output();
    ASSERT_TRUE(server->CreatePopulation().ok());
    std::ofstream(root / "bundle.json") << Take(server->CreateBundle(kDevices));
  }
  void TearDown() override {
    server = nullptr;
    fs::remove_all(root);
  }

  void WriteExamples(void (*write)(const Path&, uint64_t)) {
    for (int i = 0; i < kDevices; ++i) {
      write(root / "examples" / ("device-00" + std::to_string(i)),
            static_cast<uint64_t>(i));
    }
  }

  // The fleet's sessions until every device has the task's final model.
  void RunFleet(const std::string& task) {
    ChildProcess fleet(
        {SELVAGE_DEVICE, "--fleet", (root / "fleet").string(), "--devices",
         std::to_string(kDevices), "--name-prefix", "device-", "--population",
         kPopulation, "--bundle", (root / "bundle.json").string(), "--examples",
         (root / "examples").string(), "--until-task", task, "--log-level",
         "info"},
        {{"OPENBLAS_NUM_THREADS", "1"}});
    ASSERT_EQ(fleet.WaitForExit(std::chrono::minutes(2)), 0) << fleet.output();
  }

  static plan::ProgramFile ReadProgram(const Path& file) {
    return Take(plan::ParseProgramFile(
                    ReadText(file),
                    [&file](const std::string& name) -> Result<std::string> {
                      return ReadText(file.parent_path() / name);
                    }),
                "program file");
  }

  void ExpectCommitted(const std::string& task, size_t rounds) {
    const std::vector<v1::Round> all = Take(server->ListRounds(task));
    ASSERT_EQ(all.size(), rounds);
    for (const v1::Round& round : all) {
      EXPECT_EQ(round.state(), v1::Round::COMMITTED) << round.reason();
      EXPECT_EQ(round.funnel().accepted(), uint64_t{kDevices});
    }
  }

  Path root;
  std::unique_ptr<CoordinatorUnderTest> server;
};

std::string TaskFile(const std::string& name, const std::string& program,
                     const std::string& initial, int rounds) {
  return "name: " + name + "\npopulation: demo\nprogram: " + program +
         "\ninitial: " + initial + R"(
seed: 1
train: {local_epochs: 3, batch_size: 8, optimizer: {name: sgd, lr: 0.05}}
strategy: {name: fedavg, cohort: 4, over_selection: 1, round_deadline: 60s, num_rounds: )" +
         std::to_string(rounds) + "}\n";
}

double FirstMetric(const v1::Round& round) {
  return round.metrics_size() > 0 ? round.metrics(0).mean() : NAN;
}

TEST_F(FleetTest, Regression_LossFallsAndOthersStartFromIt) {
  WriteExamples(WriteRegressionExamples);
  const plan::Program program =
      ReadProgram(Path(SELVAGE_EXAMPLES) / "regression" / "model.yaml").program;
  Take(server->CreateTask(TaskFile("regression", "model.yaml", "random", 6),
                          program),
       "create task");
  RunFleet("regression");
  if (HasFatalFailure()) return;
  ExpectCommitted("regression", 6);
  const std::vector<v1::Round> rounds = Take(server->ListRounds("regression"));
  const double first = FirstMetric(rounds.front());
  EXPECT_LT(FirstMetric(rounds.back()), 0.8 * first);
  const v1::ServerInfo info = Take(server->Info());
  EXPECT_EQ(info.certificates_issued(), uint64_t{kDevices});
  EXPECT_GE(info.tls_connections(), uint64_t{kDevices});

  // Warm starts: from the task's version, and from a file.
  const plan::Checkpoint model =
      Take(server->LatestModel("regression", program.table));
  const crypto::Digest file = Take(
      server->UploadArtefact(plan::WriteSafetensors(program.table, model, {})));
  Take(server->CreateTask(
           TaskFile("from-file", "model.yaml", "model.safetensors", 1), program,
           file),
       "from a file");
  EXPECT_EQ(Take(server->LatestModel("from-file", program.table)), model);
  v1::StopTaskRequest stop;
  stop.set_name("from-file");
  v1::Task stopped;
  ASSERT_TRUE(server->admin()
                  .StopTask(server->AdminContext().get(), stop, &stopped)
                  .ok());
  Take(server->CreateTask(TaskFile("warm", "model.yaml", "regression@6", 1),
                          program),
       "from a task");
  EXPECT_EQ(Take(server->LatestModel("warm", program.table)), model);
  // The same devices, from the state they kept.
  RunFleet("warm");
  if (HasFatalFailure()) return;
  ExpectCommitted("warm", 1);
  EXPECT_LT(FirstMetric(Take(server->GetRound("warm", 1))), 0.8 * first);
  EXPECT_NE(Take(server->LatestModel("warm", program.table)), model);
}

// Half of the devices talk to one coordinator and half to another, a third one
// drives the rounds until it is killed in the middle of one: real training, and
// the model of one process to the bit.
TEST_F(FleetTest, RealTraining_ThreeReplicasOneKilled_ModelIsThatOfOneProcess) {
  if (const auto missing = PostgresServer::Missing()) {
    GTEST_SKIP() << *missing;
  }
  constexpr int kHalf = kDevices / 2;
  constexpr int kRounds = 5;
  const std::string task =
      TaskFile("regression", "model.yaml", "random", kRounds);
  const plan::Program program =
      ReadProgram(Path(SELVAGE_EXAMPLES) / "regression" / "model.yaml").program;
  for (const std::string half : {"left-", "right-"}) {
    for (int i = 0; i < kHalf; ++i) {
      WriteRegressionExamples(
          root / "examples" / (half + "00" + std::to_string(i)),
          static_cast<uint64_t>(half.size()) + static_cast<uint64_t>(i));
    }
  }
  const auto start_half = [&](const Path& state, const std::string& half,
                              CoordinatorUnderTest& at, std::string bundle,
                              const std::string& endpoint) {
    const size_t place = bundle.find(endpoint);
    EXPECT_NE(place, std::string::npos) << bundle;
    bundle.replace(place, endpoint.size(), at.device_address());
    const Path file = state / (half + "bundle.json");
    fs::create_directories(state);
    std::ofstream(file) << bundle;
    return std::make_unique<ChildProcess>(
        std::vector<std::string>{
            SELVAGE_DEVICE, "--fleet", (state / half).string(), "--devices",
            std::to_string(kHalf), "--name-prefix", half, "--population",
            kPopulation, "--bundle", file.string(), "--examples",
            (root / "examples").string(), "--until-task", "regression"},
        std::map<std::string, std::string>{{"OPENBLAS_NUM_THREADS", "1"}});
  };
  const auto finish = [](ChildProcess& half) {
    EXPECT_EQ(half.WaitForExit(std::chrono::minutes(2)), 0) << half.output();
  };

  // One process, over SQLite.
  Take(server->CreateTask(task, program), "create task");
  {
    const std::string bundle = Take(server->CreateBundle(kDevices));
    const std::string endpoint = server->device_address();
    const auto left =
        start_half(root / "single", "left-", *server, bundle, endpoint);
    const auto right =
        start_half(root / "single", "right-", *server, bundle, endpoint);
    finish(*left);
    finish(*right);
  }
  ASSERT_FALSE(HasFailure());
  const plan::Checkpoint wanted =
      Take(server->LatestModel("regression", program.table));

  const auto postgres = Take(PostgresServer::Start(), "initdb");
  ASSERT_TRUE(postgres->CreateDatabase("fleet", "template0").ok());
  std::vector<std::unique_ptr<CoordinatorUnderTest>> replicas;
  for (const std::string name : {"driver", "left", "right"}) {
    CoordinatorUnderTest::Options options;
    options.flags = {"--pace-retry-min", "20ms",
                     "--pace-retry-max", "50ms",
                     "--store-postgres", postgres->Address("fleet"),
                     "--store-migrate",  "--replicas-enabled",
                     "--replicas-name",  name,
                     "--replicas-lease", "1s",
                     "--replicas-poll",  "50ms",
                     "--drain-delay",    "0s",
                     "--blobs-dir",      (root / "blobs").string(),
                     "--keys-dir",       (root / "keys").string()};
    replicas.push_back(std::make_unique<CoordinatorUnderTest>(
        root / ("replica-" + name), options));
    CoordinatorUnderTest& replica = *replicas.back();
    ASSERT_TRUE(replica.serving()) << replica.process().output();
    if (name != "driver") continue;
    ASSERT_TRUE(replica.CreatePopulation().ok());
    Take(replica.CreateTask(task, program), "create task");
    // It drives before there is another one.
    Take(replica.Watch("regression",
                       [](const v1::TaskSnapshot& snapshot) {
                         return snapshot.round().number() == 1;
                       }),
         "watch");
  }
  const std::string bundle = Take(replicas[0]->CreateBundle(kDevices));
  const std::string endpoint = replicas[0]->device_address();
  const auto left =
      start_half(root / "shared", "left-", *replicas[1], bundle, endpoint);
  const auto right =
      start_half(root / "shared", "right-", *replicas[2], bundle, endpoint);
  Take(replicas[2]->Watch("regression",
                          [](const v1::TaskSnapshot& snapshot) {
                            return snapshot.round().number() >= 2;
                          }),
       "watch");
  EXPECT_EQ(replicas[0]->process().Stop(SIGKILL), 128 + SIGKILL);
  finish(*left);
  finish(*right);
  ASSERT_FALSE(HasFailure());
  // Another one went on.
  EXPECT_GT(std::stoi(Take(
                postgres->Ask("SELECT token FROM selvage.claim", "fleet"))),
            1);
  const std::vector<v1::Round> rounds =
      Take(replicas[1]->ListRounds("regression"));
  ASSERT_EQ(rounds.size(), size_t{kRounds});
  for (const v1::Round& round : rounds) {
    EXPECT_EQ(round.state(), v1::Round::COMMITTED) << round.reason();
    EXPECT_EQ(round.funnel().accepted(), uint64_t{kDevices});
  }
  EXPECT_EQ(Take(replicas[2]->LatestModel("regression", program.table)),
            wanted);
}

TEST_F(FleetTest, EvaluationRounds_MeasureVersions_AndEndTheTask) {
  WriteExamples(WriteRegressionExamples);
  const plan::Program program =
      ReadProgram(Path(SELVAGE_EXAMPLES) / "regression" / "model.yaml").program;
  Take(server->CreateTask(TaskFile("evaluated", "model.yaml", "random", 40) +
                              "evaluate: {mode: min, every: 2, stop_condition: "
                              "squared_error < 1, deadline: 60s}\n",
                          program),
       "create task");
  RunFleet("evaluated");
  if (HasFatalFailure()) return;

  const std::vector<v1::Round> rounds = Take(server->ListRounds("evaluated"));
  uint64_t trained = 0;
  uint64_t evaluated = 0;
  for (const v1::Round& round : rounds) {
    EXPECT_EQ(round.state(), v1::Round::COMMITTED) << round.reason();
    EXPECT_EQ(round.funnel().accepted(), uint64_t{kDevices});
    if (round.mode() == v1::Assignment::TRAIN) {
      ++trained;
      EXPECT_GT(round.bytes_up(), 0u);
      continue;
    }
    ++evaluated;
    EXPECT_EQ(trained, 2 * evaluated);
    EXPECT_EQ(round.base_version(), trained);
    EXPECT_EQ(round.bytes_up(), 0u);
    ASSERT_GT(round.metrics_size(), 0);
    EXPECT_EQ(round.metrics(0).device_count(), uint64_t{kDevices});
    ASSERT_EQ(round.classes_size(), 1);
    EXPECT_EQ(round.classes(0).metrics(0).mean(), round.metrics(0).mean());
  }
  ASSERT_GT(evaluated, 0u);
  EXPECT_LT(FirstMetric(rounds.back()), 1);
  v1::GetTaskRequest get;
  get.set_name("evaluated");
  v1::Task task;
  ASSERT_TRUE(
      server->admin().GetTask(server->AdminContext().get(), get, &task).ok());
  EXPECT_EQ(task.state(), v1::Task::FINISHED);
  EXPECT_THAT(task.end_reason(), ::testing::HasSubstr("target reached"));
  EXPECT_EQ(task.committed_rounds(), trained);
  EXPECT_EQ(task.evaluated_rounds(), evaluated);
  EXPECT_EQ(task.best_version(), task.latest_version());
}

#ifdef SELVAGE_CLI
TEST_F(FleetTest, Evaluate_OnTheServersData_IsAttachedToTheVersion) {
  WriteExamples(WriteRegressionExamples);
  const plan::Program program =
      ReadProgram(Path(SELVAGE_EXAMPLES) / "regression" / "model.yaml").program;
  Take(server->CreateTask(TaskFile("scored", "model.yaml", "random", 3) +
                              "evaluate: {mode: min, source: server}\n",
                          program),
       "create task");
  RunFleet("scored");
  if (HasFatalFailure()) return;
  WriteRegressionExamples(root / "server", 2);
  ChildProcess evaluate(
      {SELVAGE_CLI, "--coordinator", (root / "data").string(), "evaluate",
       "scored", "--watch", "--data", (root / "server/train-x.idx").string(),
       "--data", (root / "server/train-y.idx").string()},
      {{"SELVAGE_TORCH", SELVAGE_TORCH_CLI}, {"OPENBLAS_NUM_THREADS", "1"}});
  ASSERT_EQ(evaluate.WaitForExit(std::chrono::minutes(1)), 0)
      << evaluate.output();

  double best = INFINITY;
  uint64_t best_version = 0;
  for (uint64_t number = 0; number <= 3; ++number) {
    v1::GetModelVersionRequest get;
    get.set_task("scored");
    get.set_version(number);
    v1::ModelVersion version;
    ASSERT_TRUE(
        server->admin()
            .GetModelVersion(server->AdminContext().get(), get, &version)
            .ok());
    ASSERT_EQ(version.evaluations_size(), 1);
    const v1::Evaluation& one = version.evaluations(0);
    EXPECT_EQ(one.data_set(), "default");
    EXPECT_EQ(one.example_count(), uint64_t{kExamples});
    EXPECT_EQ(one.model_digest(), version.safetensors_digest());
    EXPECT_EQ(one.data_digest().size(), 32u);
    ASSERT_GT(one.metrics_size(), 0);
    if (one.metrics(0).value() < best) {
      best = one.metrics(0).value();
      best_version = number;
    }
  }
  v1::GetModelVersionRequest get;
  get.set_task("scored");
  get.set_best(true);
  v1::ModelVersion version;
  ASSERT_TRUE(server->admin()
                  .GetModelVersion(server->AdminContext().get(), get, &version)
                  .ok());
  EXPECT_EQ(version.version(), best_version);
  EXPECT_GT(best_version, 0u);
}
#endif

TEST_F(FleetTest, NativeArchitecture_TrainsARound) {
  WriteExamples(WriteImageExamples);
  plan::Program program;
  program.kind = plan::ProgramKind::kNative;
  program.native_name = "lenet5";
  program.table = Take(
      client::TorchTrainer({.native = {{"lenet5", client::LeNet5Factory()}}})
          .NativeTable("lenet5"));
  program.inputs = {{"x", plan::DType::kUint8, {1, 28, 28}},
                    {"y", plan::DType::kInt64, {}}};
  program.metrics = {"accuracy", "loss"};
  Take(server->CreateTask(TaskFile("native", "native:lenet5", "random", 1),
                          program),
       "create task");
  RunFleet("native");
  if (!HasFatalFailure()) ExpectCommitted("native", 1);
}

TEST_F(FleetTest, ArchiveFromPython_TrainsARound) {
  const Path archive = root / "model.pt";
  const std::string command = "/usr/bin/python3 " SELVAGE_EXAMPLES
                              "/archive/make_archive.py " +
                              archive.string() + " 2>/dev/null";
  if (std::system(command.c_str()) != 0) {
    GTEST_SKIP() << "python3-torch, which makes the archive, is not installed";
  }
  WriteExamples(WriteImageExamples);
  const std::string bytes = ReadText(archive);
  plan::Program program =
      ReadProgram(Path(SELVAGE_EXAMPLES) / "archive" / "model.yaml").program;
  program.archive_digest = Take(server->UploadArtefact(AsBytes(bytes)));
  program.archive_size_bytes = bytes.size();
  Take(
      server->CreateTask(TaskFile("archive", "model.pt", "random", 1), program),
      "create task");
  RunFleet("archive");
  if (!HasFatalFailure()) ExpectCommitted("archive", 1);
}

}  // namespace
}  // namespace selvage::test

// Clients come and go, stand beside each other, and call back.
#include <dirent.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <functional>
#include <set>
#include <thread>
#include <utility>

#include "tests/unit/capi/app_fixture.h"

namespace selvage::test {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

size_t EntriesOf(const char* directory) {
  size_t count = 0;
  DIR* dir = opendir(directory);
  while (readdir(dir) != nullptr) ++count;
  closedir(dir);
  return count;
}

size_t ResidentKib() {
  long pages = 0;
  long resident = 0;
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  EXPECT_EQ(std::fscanf(file, "%ld %ld", &pages, &resident), 2);
  std::fclose(file);
  return static_cast<size_t>(resident) * 4;
}

class LifetimeTest : public AppFixture {};

TEST_F(LifetimeTest, OpenClose_AThousandTimes_LeavesNothingBehind) {
  Open();
  {
    host::Client client(std::exchange(client_, nullptr));
    client.InstallModel(Model());
  }
  const auto once = [&](int i) {
    Open();
    if (i % 10 == 0) {
      const float x[2] = {1, 1};
      selvage_prediction* out = nullptr;
      ASSERT_EQ(selvage_predict(client_, "tiny", x, sizeof x, 1, &out),
                SELVAGE_OK);
      selvage_free(out);
    }
    selvage_close(client_);
    client_ = nullptr;
  };
  for (int i = 0; i < 50; ++i) once(i);
  const size_t resident = ResidentKib();
  const size_t descriptors = EntriesOf("/proc/self/fd");
  const size_t threads = EntriesOf("/proc/self/task");
  for (int i = 0; i < 1000; ++i) once(i);
  EXPECT_EQ(EntriesOf("/proc/self/fd"), descriptors);
  EXPECT_EQ(EntriesOf("/proc/self/task"), threads);
#if !defined(__SANITIZE_ADDRESS__)
  EXPECT_LE(ResidentKib(), resident + 512);
#else
  (void)resident;
#endif
  EXPECT_EQ(tiny_.closed, 1051);
  EXPECT_EQ(tiny_.models, 0);
}

TEST_F(LifetimeTest, Open_StateInUse_IsRefused) {
  Open();
  selvage_client* second = nullptr;
  EXPECT_EQ(selvage_open(&options_, &second), SELVAGE_FAILED_PRECONDITION);
  EXPECT_EQ(second, nullptr);
  EXPECT_EQ(tiny_.closed, 0);
}

// The exit code of a forked child that runs `body`.
int Forked(const std::function<void()>& body) {
  const pid_t pid = fork();
  if (pid == 0) {
    alarm(60);
    try {
      body();
    } catch (...) {
      _exit(99);
    }
    _exit(::testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  if (pid < 0 || waitpid(pid, &status, 0) != pid) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

TEST_F(LifetimeTest, Fork_AfterClose_ChildTrainsAndPredicts) {
  const auto use = [this](const std::string& name) {
    host::Client client(Options(name));
    client.InstallModel(Model());
    AddReadings(client, 60);
    EXPECT_GT(client.TrainLocally("tiny"), 0U);
    EXPECT_NEAR(client.Predict("tiny", std::vector<float>{1, 1}).values[0], 2,
                0.1);
  };
  use("parent");
  EXPECT_EQ(Forked([&] {
              use("child");
              use("parent");
            }),
            0);
  use("parent");
}

TEST_F(LifetimeTest, Fork_WhileOpen_ChildIsRefusedParentGoesOn) {
  std::optional<host::Client> client(Options("one"));
  client->InstallModel(Model());
  AddReadings(*client, 60);
  EXPECT_EQ(
      Forked([&] {
        uint64_t count = 0;
        EXPECT_EQ(selvage_count_examples(client->handle(), "readings", &count),
                  SELVAGE_FAILED_PRECONDITION);
        EXPECT_THAT(selvage_last_error(), HasSubstr("is a fork"));
        const float x[2] = {1, 1};
        selvage_prediction* out = nullptr;
        EXPECT_EQ(
            selvage_predict(client->handle(), "tiny", x, sizeof x, 1, &out),
            SELVAGE_FAILED_PRECONDITION);
        selvage_close(client->handle());
        EXPECT_THAT(selvage_last_error(), HasSubstr("is a fork"));
        // Nor can it take the directory; another one it can.
        EXPECT_THROW(host::Client(Options("one")), host::Error);
        host::Client own(Options("two"));
        own.InstallModel(Model());
        AddReadings(own, 60);
        EXPECT_GT(own.TrainLocally("tiny"), 0U);
      }),
      0);
  EXPECT_EQ(client->CountExamples("readings"), 60U);
  EXPECT_GT(client->TrainLocally("tiny"), 0U);
}

TEST_F(LifetimeTest, Fork_ChildLivesOn_DoesNotHoldTheStateDirectory) {
  std::optional<host::Client> client(Options("one"));
  int pipe_ends[2] = {};
  ASSERT_EQ(pipe(pipe_ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    ::close(pipe_ends[1]);
    char byte = 0;
    _exit(read(pipe_ends[0], &byte, 1) == 0 ? 0 : 1);
  }
  ASSERT_GT(child, 0);
  client.reset();
  client.emplace(Options("one"));
  EXPECT_EQ(client->CountExamples("readings"), 0U);
  ::close(pipe_ends[0]);
  ::close(pipe_ends[1]);
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST_F(LifetimeTest, TwoClients_AtOnce_AreIndependent) {
  host::Client one(Options("one"));
  host::Client two(Options("two"));
  one.InstallModel(Model());
  two.InstallModel(Model());
  std::thread first([&] {
    AddReadings(one, 60);
    one.TrainLocally("tiny");
  });
  AddReadings(two, 20);
  first.join();
  EXPECT_EQ(one.CountExamples("readings"), 60U);
  EXPECT_EQ(two.CountExamples("readings"), 20U);
  const std::vector<float> x = {1, 1};
  EXPECT_NEAR(one.Predict("tiny", x).values[0], 2, 0.1);
  EXPECT_EQ(two.Predict("tiny", x).values[0], 0);
}

TEST_F(LifetimeTest, Collections_Schema_IsKept) {
  host::Client client(Options("one"));
  client.DeclareCollection(
      "readings", {{{"x", SELVAGE_F32, {2}}, {"y", SELVAGE_F32}}, {}, 10, 0});
  AddReadings(client, 12);
  EXPECT_EQ(client.CountExamples("readings"), 10U);
  const std::vector<float> x = {1, 2, 3};
  EXPECT_THROW(
      client.AddExample("readings", {host::Tensor::Of(x), host::Tensor::Of(x)}),
      host::Error);
  const int64_t id =
      client.AddExample("other", host::Example({host::Tensor::Of(x)}));
  client.DeleteExample(id);
  EXPECT_EQ(client.CountExamples("other"), 0U);
}

TEST_F(LifetimeTest, RunOnce_WithoutABundle_IsAnOutcome) {
  host::Options options = Options("one");
  std::vector<std::string> log;
  options.log = [&](int32_t, const char* line) { log.emplace_back(line); };
  options.log_level = SELVAGE_LOG_DEBUG;
  host::Client client(options);
  const host::RunResult result = client.RunOnce();
  EXPECT_EQ(result.outcome, SELVAGE_FAILED);
  EXPECT_THAT(result.reason, HasSubstr("bundle"));
  EXPECT_EQ(client.DeviceId(), "");
  EXPECT_FALSE(result.enrolled);
  EXPECT_THAT(client.Tasks(), IsEmpty());
  EXPECT_THAT(client.Audit(), IsEmpty());
}

TEST_F(LifetimeTest, Conditions_Lost_StopLocalTraining) {
  host::Options options = Options("one");
  std::atomic<int> asked{0};
  std::set<int32_t> phases;
  options.conditions = [&]() -> host::Conditions {
    if (++asked > 20) throw std::runtime_error("the battery service is gone");
    return {};
  };
  options.progress = [&](const host::Progress& progress) {
    phases.insert(progress.phase);
    throw std::runtime_error("nobody looks");
  };
  host::Client client(options);
  client.InstallModel(Model());
  AddReadings(client, 60);
  try {
    client.TrainLocally("tiny");
    FAIL() << "asked " << asked << " times";
  } catch (const host::Error& error) {
    EXPECT_EQ(error.code(), SELVAGE_CANCELLED) << error.what();
  }
  EXPECT_GT(asked, 20);
  EXPECT_THAT(phases, Contains(SELVAGE_PHASE_PERSONALIZING));
}

TEST_F(LifetimeTest, StorageKey_Another_DoesNotOpen) {
  host::Options options = Options("one");
  uint8_t fill = 1;
  bool there = true;
  options.storage_key = [&](uint8_t* key) {
    std::fill_n(key, 32, fill);
    return there;
  };
  { host::Client client(options); }
  { host::Client client(options); }
  fill = 2;
  EXPECT_THROW(host::Client client(options), host::Error);
  fill = 1;
  there = false;
  EXPECT_THROW(host::Client client(options), host::Error);
  there = true;
  host::Client client(options);
}

// Examples of the host's: the same sixty readings by index.
struct Source {
  size_t next = 0;
  int open = 0;
  float values[3] = {};
  selvage_tensor tensors[2] = {};
};
selvage_code OpenSource(void* user, const char* collection, void** iterator) {
  auto* source = static_cast<Source*>(user);
  if (std::string(collection) != "readings") return SELVAGE_NOT_FOUND;
  source->next = 0;
  ++source->open;
  *iterator = source;
  return SELVAGE_OK;
}
selvage_code NextOfSource(void* iterator, selvage_sourced_example* out) {
  auto* source = static_cast<Source*>(iterator);
  if (source->next == 60) return SELVAGE_OUT_OF_RANGE;
  const size_t i = source->next++;
  source->values[0] = static_cast<float>(i % 7) / 7;
  source->values[1] = static_cast<float>(i % 5) / 5;
  source->values[2] = 3 * source->values[0] - 2 * source->values[1] + 1;
  for (selvage_tensor& tensor : source->tensors) {
    tensor.struct_size = sizeof tensor;
  }
  source->tensors[0].data = source->values;
  source->tensors[0].size = 8;
  source->tensors[1].data = source->values + 2;
  source->tensors[1].size = 4;
  out->inputs = source->tensors;
  out->input_count = 2;
  out->id = i;
  return SELVAGE_OK;
}
void CloseSource(void* iterator) { --static_cast<Source*>(iterator)->open; }

TEST_F(LifetimeTest, DataSource_IsWhatIsTrainedOn) {
  Source source;
  selvage_data_source table = {};
  table.struct_size = sizeof table;
  table.user = &source;
  table.open = OpenSource;
  table.next = NextOfSource;
  table.close = CloseSource;
  host::Options options = Options("one");
  options.data_source = &table;
  host::Client client(options);
  client.InstallModel(Model());
  EXPECT_GT(client.TrainLocally("tiny"), 0U);
  EXPECT_EQ(source.open, 0);
  EXPECT_NEAR(client.Predict("tiny", std::vector<float>{1, 1}).values[0], 2,
              0.1);
}

TEST_F(LifetimeTest, EnginePlugin_Missing_IsSaidWhenNeeded) {
  host::Options options = Options("one");
  options.engine = nullptr;
  options.engine_library = "/nowhere/libengine.so";
  std::vector<std::string> log;
  options.log = [&](int32_t, const char* line) { log.emplace_back(line); };
  host::Client client(options);
  try {
    client.InstallModel(Model());
    FAIL();
  } catch (const host::Error& error) {
    EXPECT_EQ(error.code(), SELVAGE_FAILED_PRECONDITION);
  }
  EXPECT_THAT(log, Contains(HasSubstr("event=engine_missing")));
}

TEST_F(LifetimeTest, TimeAndRandomness_AreTheHosts) {
  host::Options options = Options("one");
  std::atomic<int> clock{0};
  std::atomic<int> dice{0};
  options.now = [&] {
    ++clock;
    return host::SystemTime(std::chrono::hours(24 * 365 * 50));
  };
  options.random = [&](uint8_t* out, size_t size) {
    ++dice;
    std::fill_n(out, size, uint8_t{5});
  };
  host::Client client(options);
  AddReadings(client, 1);
  EXPECT_GT(clock, 0);
  EXPECT_GT(dice, 0);
}

}  // namespace
}  // namespace selvage::test

// Callbacks that block, fail, throw or call back: what stalls, and what goes
// on.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <future>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <utility>

#include "tests/unit/capi/app_fixture.h"

namespace selvage::test {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

// Where a callback stays until it is let go.
class Barrier {
 public:
  // Arms it: the next Pass() blocks.
  void Arm() {
    const std::lock_guard lock(mu_);
    armed_ = true;
  }
  void Pass() {
    std::unique_lock lock(mu_);
    if (!armed_) return;
    armed_ = false;
    blocked_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return released_; });
  }
  void WaitUntilBlocked() {
    std::unique_lock lock(mu_);
    changed_.wait(lock, [this] { return blocked_; });
  }
  void Release() {
    const std::lock_guard lock(mu_);
    released_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  bool armed_ = false;
  bool blocked_ = false;
  bool released_ = false;
};

// Examples of the host's; the iterator is the barrier's business.
struct Source {
  Barrier* barrier = nullptr;
  selvage_code open_fails = SELVAGE_OK;
  selvage_code next_fails = SELVAGE_OK;
  uint64_t next = 0;
  float values[3] = {};
  selvage_tensor tensors[2] = {};

  selvage_data_source Table() {
    selvage_data_source table = {};
    table.struct_size = sizeof table;
    table.user = this;
    table.open = [](void* user, const char*, void** iterator) {
      auto* self = static_cast<Source*>(user);
      self->next = 0;
      *iterator = self;
      return self->open_fails;
    };
    table.next = [](void* iterator, selvage_sourced_example* out) {
      auto* self = static_cast<Source*>(iterator);
      if (self->barrier != nullptr) self->barrier->Pass();
      if (self->next_fails != SELVAGE_OK && self->next == 30) {
        return self->next_fails;
      }
      if (self->next == 60) return selvage_code{SELVAGE_OUT_OF_RANGE};
      const auto i = static_cast<float>(self->next);
      self->values[0] = i / 60;
      self->values[1] = 1 - i / 30;
      self->values[2] = self->values[0] + self->values[1];
      for (selvage_tensor& tensor : self->tensors) {
        tensor.struct_size = sizeof tensor;
      }
      self->tensors[0].data = self->values;
      self->tensors[0].size = 8;
      self->tensors[1].data = self->values + 2;
      self->tensors[1].size = 4;
      out->inputs = self->tensors;
      out->input_count = 2;
      out->id = self->next++;
      return selvage_code{SELVAGE_OK};
    };
    table.close = [](void*) {};
    return table;
  }
};

class BlockingTest : public AppFixture {
 protected:
  // Trains on a thread of its own until the barrier stops it, and looks around.
  void ExpectOnlyThatCallStalls(host::Client& client) {
    host::Client other(Options("other"));
    other.InstallModel(Model());
    AddReadings(other, 30);
    const std::vector<float> x = {1, 1};
    (void)client.Predict("tiny", x);

    host::Cancel cancel;
    barrier_.Arm();
    std::future<selvage_code> training = std::async(std::launch::async, [&] {
      return selvage_train_locally(client.handle(), "tiny", nullptr,
                                   cancel.handle(), nullptr);
    });
    barrier_.WaitUntilBlocked();
    // Predictions go on, and so does the other client.
    for (int i = 0; i < 100; ++i) (void)client.Predict("tiny", x);
    EXPECT_GT(other.TrainLocally("tiny"), 0U);
    // A second call is told at once.
    uint64_t count = 0;
    EXPECT_EQ(selvage_count_examples(client.handle(), "readings", &count),
              SELVAGE_FAILED_PRECONDITION);
    EXPECT_STREQ(selvage_last_error(),
                 "another call of this client is under way");
    // Cancelling does not wait, and counts once the callback is done.
    cancel.Now();
    barrier_.Release();
    EXPECT_EQ(training.get(), SELVAGE_CANCELLED);
    EXPECT_EQ(selvage_count_examples(client.handle(), "readings", &count),
              SELVAGE_OK);
  }

  Barrier barrier_;
};

TEST_F(BlockingTest, Conditions_Block_PredictGoesOn) {
  host::Options options = Options("one");
  options.conditions = [&]() -> host::Conditions {
    barrier_.Pass();
    return {};
  };
  host::Client client(options);
  client.InstallModel(Model());
  AddReadings(client, 60);
  ExpectOnlyThatCallStalls(client);
}

TEST_F(BlockingTest, Progress_Blocks_PredictGoesOn) {
  host::Options options = Options("one");
  options.progress = [&](const host::Progress&) { barrier_.Pass(); };
  host::Client client(options);
  client.InstallModel(Model());
  AddReadings(client, 60);
  ExpectOnlyThatCallStalls(client);
}

TEST_F(BlockingTest, DataSource_Blocks_PredictGoesOn) {
  Source source;
  source.barrier = &barrier_;
  const selvage_data_source table = source.Table();
  host::Options options = Options("one");
  options.data_source = &table;
  host::Client client(options);
  client.InstallModel(Model());
  ExpectOnlyThatCallStalls(client);
}

TEST_F(BlockingTest, Log_Blocks_PredictGoesOn) {
  host::Options options = Options("one");
  options.log_level = SELVAGE_LOG_DEBUG;
  options.log = [&](int32_t, const char*) { barrier_.Pass(); };
  host::Client client(options);
  client.InstallModel(Model());
  const std::vector<float> x = {1, 1};
  (void)client.Predict("tiny", x);
  barrier_.Arm();
  // Without a bundle it fails, and says so.
  std::future<int32_t> session =
      std::async(std::launch::async, [&] { return client.RunOnce().outcome; });
  barrier_.WaitUntilBlocked();
  for (int i = 0; i < 100; ++i) (void)client.Predict("tiny", x);
  barrier_.Release();
  EXPECT_EQ(session.get(), SELVAGE_FAILED);
}

TEST_F(BlockingTest, Close_DuringACall_WaitsForIt) {
  selvage_callbacks callbacks = {};
  callbacks.struct_size = sizeof callbacks;
  callbacks.user = &barrier_;
  callbacks.progress = [](void* user, const selvage_progress*) {
    static_cast<Barrier*>(user)->Pass();
  };
  options_.callbacks = &callbacks;
  Open();
  auto client = std::make_unique<host::Client>(std::exchange(client_, nullptr));
  client->InstallModel(Model());
  AddReadings(*client, 60);
  selvage_client* const handle = client->handle();
  host::Cancel cancel;
  barrier_.Arm();
  std::future<selvage_code> training = std::async(std::launch::async, [&] {
    return selvage_train_locally(handle, "tiny", nullptr, cancel.handle(),
                                 nullptr);
  });
  barrier_.WaitUntilBlocked();
  std::atomic<bool> closed{false};
  std::thread closing([&] {
    client.reset();
    closed = true;
  });
  // Served until the closing begins, then told.
  const float x[2] = {1, 1};
  selvage_code predicted = SELVAGE_OK;
  while (predicted == SELVAGE_OK) {
    selvage_prediction* out = nullptr;
    predicted = selvage_predict(handle, "tiny", x, sizeof x, 1, &out);
    selvage_free(out);
  }
  EXPECT_EQ(predicted, SELVAGE_FAILED_PRECONDITION);
  EXPECT_STREQ(selvage_last_error(), "this client is being closed");
  EXPECT_FALSE(closed);
  cancel.Now();
  barrier_.Release();
  EXPECT_EQ(training.get(), SELVAGE_CANCELLED);
  closing.join();
  EXPECT_TRUE(closed);
  EXPECT_EQ(tiny_.closed, 1);
  EXPECT_EQ(tiny_.models, 0);
  Open();
}

TEST_F(BlockingTest, DataSource_Fails_IsTheCallsFailure) {
  Source source;
  const selvage_data_source table = source.Table();
  host::Options options = Options("one");
  options.data_source = &table;
  host::Client client(options);
  client.InstallModel(Model());
  const auto code_of = [&] {
    return selvage_train_locally(client.handle(), "tiny", nullptr, nullptr,
                                 nullptr);
  };
  source.open_fails = SELVAGE_UNAVAILABLE;
  EXPECT_EQ(code_of(), SELVAGE_UNAVAILABLE);
  EXPECT_THAT(selvage_last_error(), HasSubstr("data source"));
  source.open_fails = SELVAGE_OK;
  source.next_fails = SELVAGE_PERMISSION_DENIED;
  EXPECT_EQ(code_of(), SELVAGE_PERMISSION_DENIED);
  source.next_fails = SELVAGE_CANCELLED;
  EXPECT_EQ(code_of(), SELVAGE_CANCELLED);
  source.next_fails = 4711;  // no code of ours
  EXPECT_EQ(code_of(), SELVAGE_INTERNAL);
  source.next_fails = SELVAGE_OK;
  EXPECT_EQ(code_of(), SELVAGE_OK);
}

TEST_F(BlockingTest, Callbacks_Throw_NothingGetsOut) {
  host::Options options = Options("one");
  options.log_level = SELVAGE_LOG_DEBUG;
  options.log = [](int32_t, const char*) { throw std::runtime_error("full"); };
  options.progress = [](const host::Progress&) { throw 42; };
  bool key_there = false;
  options.storage_key = [&](uint8_t* key) -> bool {
    if (!key_there) throw std::runtime_error("locked");
    std::fill_n(key, 32, uint8_t{7});
    return true;
  };
  try {
    const host::Client client(options);
    FAIL() << "opened without a key";
  } catch (const host::Error& error) {
    EXPECT_EQ(error.code(), SELVAGE_FAILED_PRECONDITION);
    EXPECT_THAT(error.message(), HasSubstr("storage key"));
  }
  key_there = true;
  host::Client client(options);
  client.InstallModel(Model());
  AddReadings(client, 60);
  EXPECT_GT(client.TrainLocally("tiny"), 0U);
  EXPECT_EQ(client.RunOnce().outcome, SELVAGE_FAILED);  // no bundle
}

TEST_F(BlockingTest, Callback_CallsItsOwnClient_IsRefused) {
  host::Options options = Options("one");
  selvage_client* handle = nullptr;
  std::vector<std::string> answers;
  options.progress = [&](const host::Progress&) {
    if (handle == nullptr || !answers.empty()) return;
    uint64_t count = 0;
    EXPECT_EQ(selvage_count_examples(handle, "readings", &count),
              SELVAGE_FAILED_PRECONDITION);
    answers.emplace_back(selvage_last_error());
    selvage_close(handle);
    answers.emplace_back(selvage_last_error());
  };
  host::Client client(options);
  client.InstallModel(Model());
  AddReadings(client, 60);
  handle = client.handle();
  EXPECT_GT(client.TrainLocally("tiny"), 0U);
  EXPECT_THAT(answers, Contains("a callback must not call its own client"));
  EXPECT_THAT(answers, Contains("a callback must not close its own client"));
  EXPECT_EQ(client.CountExamples("readings"), 60U);
}

TEST_F(BlockingTest, Callback_UsesAnotherClient_IsServed) {
  host::Client other(Options("other"));
  other.InstallModel(Model());
  host::Options options = Options("one");
  uint64_t added = 0;
  options.progress = [&](const host::Progress&) {
    if (added++ == 0) AddReadings(other, 20);
  };
  host::Client client(options);
  client.InstallModel(Model());
  AddReadings(client, 60);
  EXPECT_GT(client.TrainLocally("tiny"), 0U);
  EXPECT_EQ(other.CountExamples("readings"), 20U);
}

}  // namespace
}  // namespace selvage::test

// The worker and many callers at once, for ThreadSanitizer and for the oracle:
// every acknowledged update is counted once whatever the interleaving.
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>

#include "tests/unit/coordinator/world.h"

namespace selvage::coordinator::test {
namespace {

constexpr int kDevices = 12;
constexpr int kRounds = 3;

// Waits for a callback; no polling, no sleeping.
template <typename T>
class Answered {
 public:
  void Set(Result<T> value) {
    // Under the lock: whoever waits may destroy this object as soon as it sees
    // the value.
    const std::lock_guard<std::mutex> lock(mu_);
    value_ = std::move(value);
    set_.notify_one();
  }
  Result<T> Get() {
    std::unique_lock<std::mutex> lock(mu_);
    set_.wait(lock, [this] { return value_.has_value(); });
    return *value_;
  }

 private:
  std::mutex mu_;
  std::condition_variable set_;
  std::optional<Result<T>> value_;
};

class ThreadsTest : public ::testing::Test {
 protected:
  ThreadsTest() {
    WorldOptions options;
    options.sqlite = true;
    options.devices = kDevices;
    options.rounds = kRounds;
    options.strategy =
        "cohort: 6, min_updates: 6, over_selection: 1.5, round_deadline: 5m, "
        "min_available_nodes: 12";
    world_ = std::make_unique<World>(std::move(options));
    world_->SetUpTask();
  }

  // A device's life until the model is offered to it.
  void Live(int device) {
    Coordinator& api = world_->coordinator();
    for (;;) {
      Answered<CheckInAnswer> answered;
      api.CheckIn(world_->Device(device), world_->Request(),
                  [&](Result<CheckInAnswer> a) { answered.Set(std::move(a)); });
      const Result<CheckInAnswer> answer = answered.Get();
      if (!answer.ok()) return;
      if (std::holds_alternative<ModelOffer>(answer->work)) return;
      if (const auto* work = std::get_if<Assignment>(&answer->work)) {
        Deliver(device, *work);
      }
      world_->clock.Advance(std::chrono::milliseconds(1));
      std::this_thread::yield();
    }
  }
  void Deliver(int device, const Assignment& work) {
    Coordinator& api = world_->coordinator();
    const Bytes bytes = world_->OneHot(work.round, device);
    const UploadHeader header = world_->Header(work, bytes);
    for (int copy = 0; copy < 2; ++copy) {  // everyone sends twice
      const auto begun = world_->Begin(device, header);
      if (!begun.ok()) return;
      const auto* ticket = std::get_if<UploadTicket>(&*begun);
      if (ticket == nullptr) {
        Note(device, work, std::get<Receipt>(*begun));
        continue;
      }
      const size_t half = bytes.size() / 2;
      EXPECT_THAT(
          api.AppendUpload(ticket->upload_id, ByteSpan(bytes).first(half)),
          IsOk());
      EXPECT_THAT(
          api.AppendUpload(ticket->upload_id, ByteSpan(bytes).subspan(half)),
          IsOk());
      Answered<Receipt> answered;
      api.FinishUpload(ticket->upload_id, [&](Result<Receipt> receipt) {
        answered.Set(std::move(receipt));
      });
      const Result<Receipt> receipt = answered.Get();
      if (receipt.ok()) Note(device, work, *receipt);
    }
  }
  void Note(int device, const Assignment& work, const Receipt& receipt) {
    EXPECT_NE(receipt.status, ReceiptStatus::kRejected) << receipt.message;
    if (receipt.status != ReceiptStatus::kAccepted) return;
    std::lock_guard<std::mutex> lock(mu_);
    accepted_[work.round].insert(device);
  }

  std::unique_ptr<World> world_;
  std::mutex mu_;
  std::map<uint64_t, std::set<int>> accepted_;
};

TEST_F(ThreadsTest, WorkerAndConcurrentDevices_OracleHolds) {
  std::atomic<int> snapshots{0};
  const auto watch = world_->coordinator().WatchTask(
      "task", [&](const TaskSnapshot&) { ++snapshots; });
  ASSERT_THAT(watch, IsOk());
  world_->coordinator().Start();

  std::vector<std::thread> devices;
  for (int i = 0; i < kDevices; ++i) {
    devices.emplace_back([this, i] { Live(i); });
  }
  std::atomic<bool> done{false};
  std::thread admin([&] {
    while (!done) {
      EXPECT_THAT(world_->coordinator().GetTask("task"), IsOk());
      EXPECT_THAT(world_->coordinator().ListRounds("task", {}), IsOk());
      std::this_thread::yield();
    }
  });
  for (std::thread& device : devices) device.join();
  done = true;
  admin.join();
  world_->coordinator().Drain();
  world_->coordinator().Unwatch(*watch);
  world_->coordinator().Stop();

  EXPECT_GT(snapshots, 0);
  ASSERT_EQ(world_->coordinator().GetTask("task")->state, TaskState::kFinished);
  ASSERT_EQ(accepted_.size(), static_cast<size_t>(kRounds));
  for (const auto& [round, who] : accepted_) {
    const auto info = world_->coordinator().GetRound("task", round);
    ASSERT_EQ(info->funnel.accepted, who.size());
    const float once =
        static_cast<float>(1.0 / static_cast<double>(who.size()));
    const std::vector<float> model = world_->Model(info->result_version);
    for (int i = 0; i < kDevices; ++i) {
      EXPECT_EQ(model[world_->Coordinate(round, i)],
                who.contains(i) ? once : 0.0f);
    }
  }
}

TEST_F(ThreadsTest, StopInTheMiddle_AnswersEverybody) {
  world_->coordinator().Start();
  std::vector<std::thread> devices;
  for (int i = 0; i < kDevices; ++i) {
    devices.emplace_back([this, i] {
      for (int turn = 0; turn < 20; ++turn) {
        Answered<CheckInAnswer> answered;
        world_->coordinator().CheckIn(
            world_->Device(i), world_->Request(),
            [&](Result<CheckInAnswer> a) { answered.Set(std::move(a)); });
        if (!answered.Get().ok()) return;
      }
    });
  }
  world_->coordinator().Stop();
  for (std::thread& device : devices) device.join();
}

}  // namespace
}  // namespace selvage::coordinator::test

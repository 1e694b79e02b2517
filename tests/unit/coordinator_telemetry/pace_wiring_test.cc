// What a check-in that gets no work costs: no call of the store.
#include <atomic>

#include <gtest/gtest.h>

#include "coordinator/telemetry/metered_store.h"
#include "tests/unit/coordinator/world.h"

namespace selvage::coordinator::test {
namespace {

class Counter final : public Telemetry {
 public:
  void DatabaseCalled(std::string_view, Duration) override { ++calls; }
  void RateLimited(RateLimit scope) override {
    if (scope == RateLimit::kCheckIns) ++turned_away;
  }
  std::atomic<int> calls{0};
  std::atomic<int> turned_away{0};
};

class PaceWiringTest : public ::testing::Test {
 protected:
  void Open(double per_second, int cohort) {
    WorldOptions options;
    const std::string size = std::to_string(cohort);
    options.strategy = "cohort: " + size + ", min_updates: " + size +
                       ", over_selection: 1.0, round_deadline: 5m";
    options.telemetry = &counter_;
    options.devices = kDevices;
    options.store_around = [this](Store& store) -> Store& {
      metered_ = std::make_unique<MeteredStore>(store, steady_, counter_);
      return *metered_;
    };
    options.options.pace_target_per_second = per_second;
    world_ = std::make_unique<World>(options);
    world_->SetUpTask();
    world_->Turn();
  }
  std::optional<Result<CheckInAnswer>> CheckIn(
      int device, std::vector<std::string> unsettled = {}) {
    CheckInRequest request = world_->Request();
    request.unsettled_assignments = std::move(unsettled);
    return *world_->CheckIn(device, std::move(request));
  }

  static constexpr int kDevices = 4;
  Counter counter_;
  FakeClock steady_;
  std::unique_ptr<MeteredStore> metered_;
  std::unique_ptr<World> world_;
};

TEST_F(PaceWiringTest, CheckIn_ThatGetsNoWork_CallsNoStore) {
  Open(2000, 2);
  const std::map<int, Assignment> assigned = world_->DrawRound();
  ASSERT_EQ(assigned.size(), 2u);
  int outside = 0;
  while (assigned.contains(outside)) ++outside;
  ASSERT_LT(outside, kDevices);
  const int before = counter_.calls;
  for (int i = 0; i < 100; ++i) {
    // At once: no turn of the worker in between.
    // What became of its last update is known without it, too.
    const auto answer = CheckIn(outside, {assigned.begin()->second.id});
    ASSERT_TRUE(answer.has_value() && answer->ok());
    EXPECT_TRUE(std::holds_alternative<std::monostate>((*answer)->work));
    EXPECT_GT((*answer)->retry.max, Duration::zero());
  }
  EXPECT_EQ(counter_.calls, before);
}

// More than the pace allows ask for a place; who has one is not sent away.
TEST_F(PaceWiringTest, CheckIn_BeyondThePace_IsTurnedAwayUnlessItHoldsWork) {
  Open(0.1, kDevices);  // two at once, and as many every ten seconds
  for (int i = 0; i < kDevices; ++i) {
    EXPECT_FALSE(world_->Assigned(i).has_value()) << i;
  }
  EXPECT_EQ(counter_.turned_away, 2);
  // The other two come, and there is a draw: whom it chose is let in.
  world_->clock.Advance(std::chrono::seconds(10));
  std::map<int, Assignment> assigned;
  for (int pass = 0; pass < 2; ++pass) {
    for (int i = kDevices - 1; i >= 0; --i) {
      if (const auto work = world_->Assigned(i)) assigned.emplace(i, *work);
    }
  }
  EXPECT_EQ(counter_.turned_away, 2);
  ASSERT_EQ(assigned.size(), size_t{kDevices});
  for (int pass = 0; pass < 20; ++pass) {
    for (const auto& [device, work] : assigned) {
      const auto again = world_->Assigned(device);
      ASSERT_TRUE(again.has_value());
      EXPECT_EQ(again->id, work.id);
    }
  }
}

}  // namespace
}  // namespace selvage::coordinator::test

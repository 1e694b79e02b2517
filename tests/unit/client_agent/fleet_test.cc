#include "client/agent/fleet.h"

#include <map>

#include <gmock/gmock.h>

#include "client/capi/handles.h"
#include "tests/unit/client/client_fixture.h"

namespace selvage::agent {
namespace {

using host::RunResult;
using test::IsOk;

// Every read moves it on, so that a fleet never waits on the machine's clock.
class HastyClock final : public Clock {
 public:
  Time Now() override {
    return FromMicros(now_.fetch_add(5'000'000, std::memory_order_relaxed));
  }

 private:
  std::atomic<int64_t> now_{1'700'000'000'000'000};
};

class FleetTest : public test::ClientFixture {
 protected:
  std::unique_ptr<host::Client> OpenDevice(const std::string& name) {
    client::ClientOptions options = Options();
    options.state_dir = directory_.path() / name / "state";
    options.cache_dir = directory_.path() / name / "cache";
    options.device_name = name;
    Result<std::unique_ptr<client::Client>> client =
        client::Client::Open(options, Dependencies());
    EXPECT_THAT(client, IsOk());
    return std::make_unique<host::Client>(capi::Adopt(*std::move(client)));
  }
};

TEST_F(FleetTest, Run_Once_OneSessionEach) {
  const auto first = OpenDevice("dev-1");
  const auto second = OpenDevice("dev-2");
  std::map<std::string, int> sessions;
  Fleet fleet({.threads = 1, .once = true},
              {{"dev-1", first.get()}, {"dev-2", second.get()}}, clock_,
              random_, [&](const FleetDevice& device, const RunResult&) {
                ++sessions[device.name];
              });
  EXPECT_THAT(fleet.Run(), IsOk());
  EXPECT_EQ(sessions, (std::map<std::string, int>{{"dev-1", 1}, {"dev-2", 1}}));
}

TEST_F(FleetTest, Run_UntilTask_EndsWhenEveryDeviceInstalledIt) {
  const auto first = OpenDevice("dev-1");
  const auto second = OpenDevice("dev-2");
  server_->Give(server_->NewOffer(3));
  server_->Give(server_->NewOffer(3));
  int installed = 0;
  HastyClock hasty;
  // The clients' clock follows their sessions; the fleet's runs by itself.
  Fleet fleet({.threads = 1, .until_task = "digits"},
              {{"dev-1", first.get()}, {"dev-2", second.get()}}, hasty, random_,
              [&](const FleetDevice&, const RunResult& result) {
                if (result.outcome == SELVAGE_INSTALLED) ++installed;
                clock_.Advance(std::chrono::minutes(1));
              });
  EXPECT_THAT(fleet.Run(), IsOk());
  EXPECT_EQ(installed, 2);
}

TEST_F(FleetTest, Stop_FromAnotherPlace_EndsRun) {
  const auto first = OpenDevice("dev-1");
  HastyClock hasty;
  Fleet* self = nullptr;
  int sessions = 0;
  Fleet fleet({.threads = 2}, {{"dev-1", first.get()}}, hasty, random_,
              [&](const FleetDevice&, const RunResult&) {
                if (++sessions == 3) self->Stop();
              });
  self = &fleet;
  EXPECT_THAT(fleet.Run(), IsOk());
  EXPECT_EQ(sessions, 3);
}

TEST_F(FleetTest, Run_Misuse_EndsWithItsName) {
  const auto first = OpenDevice("dev-1");
  // The fleet's thread is another one, and finds this call under way.
  capi::CallGate::Call call;
  ASSERT_THAT(call.EnterAlone(first->handle()->gate), IsOk());
  Fleet fleet({.threads = 1}, {{"dev-1", first.get()}}, clock_, random_,
              [](const FleetDevice&, const RunResult&) {});
  EXPECT_THAT(fleet.Run(), test::StatusIs(StatusCode::kFailedPrecondition,
                                          ::testing::HasSubstr("dev-1")));
}

}  // namespace
}  // namespace selvage::agent

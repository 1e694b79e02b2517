// Uploads that find no room: the line they wait in.
#include <gmock/gmock.h>

#include "coordinator/tickets.h"
#include "coordinator/upload_batch.h"
#include "coordinator/upload_ingest.h"
#include "tests/unit/coordinator/world.h"

namespace selvage::coordinator::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Two updates of 48 bytes fit, and what the transport holds of them.
WorldOptions RoomForTwo() {
  WorldOptions options;
  options.strategy =
      "cohort: 4, min_updates: 4, over_selection: 1.0, round_deadline: 5m";
  options.options.upload_bytes_max = 200;
  return options;
}

class UploadLineTest : public ::testing::Test {
 protected:
  using Begun = std::shared_ptr<std::optional<Result<BegunUpload>>>;

  void StartFull() {
    world_ = std::make_unique<World>(RoomForTwo());
    world_->SetUpTask();
    world_->Turn();
    assigned_ = world_->DrawRound();
    for (int i = 0; i < 2; ++i) {
      inside_.push_back(std::get<UploadTicket>(*world_->Begin(i, Header(i))));
    }
  }
  UploadHeader Header(int device) {
    return world_->Header(assigned_.at(device), world_->OneHot(1, device));
  }
  Begun Begin(int device) {
    auto begun = std::make_shared<std::optional<Result<BegunUpload>>>();
    world_->coordinator().BeginUpload(world_->Device(device), Header(device),
                                      [begun](Result<BegunUpload> answer) {
                                        EXPECT_FALSE(begun->has_value());
                                        *begun = std::move(answer);
                                      });
    return begun;
  }
  ReceiptStatus Deliver(int device, const UploadTicket& ticket) {
    Coordinator& coordinator = world_->coordinator();
    EXPECT_THAT(
        coordinator.AppendUpload(ticket.upload_id, world_->OneHot(1, device)),
        IsOk());
    std::optional<Result<Receipt>> receipt;
    coordinator.FinishUpload(ticket.upload_id, [&](Result<Receipt> answer) {
      receipt = std::move(answer);
    });
    for (int i = 0; i < 3 && !receipt.has_value(); ++i) {
      world_->Turn(milliseconds(500));
    }
    EXPECT_TRUE(receipt.has_value() && receipt->ok());
    return receipt.has_value() && receipt->ok() ? (*receipt)->status
                                                : ReceiptStatus::kRejected;
  }

  std::unique_ptr<World> world_;
  std::map<int, Assignment> assigned_;
  std::vector<UploadTicket> inside_;
};
TEST_F(UploadLineTest, OverTheBudget_WaitsInLineForRoom) {
  StartFull();

  const Begun third = Begin(2);
  const Begun fourth = Begin(3);
  world_->coordinator().Poll();

  EXPECT_FALSE(third->has_value());
  EXPECT_FALSE(fourth->has_value());
  EXPECT_EQ(Deliver(0, inside_[0]), ReceiptStatus::kAccepted);
  world_->coordinator().Poll();
  ASSERT_TRUE(third->has_value());  // first come, first served
  EXPECT_FALSE(fourth->has_value());
  EXPECT_EQ(Deliver(1, inside_[1]), ReceiptStatus::kAccepted);
  world_->coordinator().Poll();
  ASSERT_TRUE(fourth->has_value());
  EXPECT_EQ(Deliver(2, std::get<UploadTicket>(***third)),
            ReceiptStatus::kAccepted);
  EXPECT_EQ(Deliver(3, std::get<UploadTicket>(***fourth)),
            ReceiptStatus::kAccepted);
}

TEST_F(UploadLineTest, NoRoomForTenSeconds_IsResourceExhausted) {
  StartFull();
  const Begun third = Begin(2);

  world_->Turn(milliseconds(9999));
  EXPECT_FALSE(third->has_value());
  EXPECT_LE(world_->coordinator().NextDeadline(),
            world_->clock.Now() + milliseconds(1));
  world_->Turn(milliseconds(1));

  ASSERT_TRUE(third->has_value());
  EXPECT_THAT(**third, StatusIs(StatusCode::kResourceExhausted));
}

TEST_F(UploadLineTest, BrokenStreamsInFront_MakeRoomWhenTheirStagingExpires) {
  StartFull();
  for (const UploadTicket& ticket : inside_) {
    world_->coordinator().DropUpload(ticket.upload_id);
  }
  world_->Turn(seconds(55));
  const Begun third = Begin(2);

  world_->Turn(seconds(6));

  ASSERT_TRUE(third->has_value());
  EXPECT_THAT(**third, IsOk());
}

TEST_F(UploadLineTest, TheRoundEndsMeanwhile_IsLate) {
  StartFull();
  const Begun third = Begin(2);
  ASSERT_THAT(world_->coordinator().StopTask("task", "", ""), IsOk());

  world_->Turn(seconds(1));
  EXPECT_EQ(Deliver(0, inside_[0]), ReceiptStatus::kLate);
  world_->coordinator().Poll();

  ASSERT_TRUE(third->has_value());
  EXPECT_EQ(std::get<Receipt>(***third).status, ReceiptStatus::kLate);
}

TEST_F(UploadLineTest, Drain_IsUnavailable) {
  StartFull();
  const Begun third = Begin(2);

  world_->coordinator().Drain();
  world_->coordinator().Poll();

  ASSERT_TRUE(third->has_value());
  EXPECT_THAT(**third, StatusIs(StatusCode::kUnavailable));
}

TEST_F(UploadLineTest, Stop_IsUnavailable_AlsoForThoseWhoComeLater) {
  StartFull();
  const Begun third = Begin(2);

  world_->coordinator().Stop();
  const Begun fourth = Begin(3);

  for (const Begun& begun : {third, fourth}) {
    ASSERT_TRUE(begun->has_value());
    EXPECT_THAT(**begun, StatusIs(StatusCode::kUnavailable));
  }
}

TEST_F(UploadLineTest, AThousandInLine_TheNextIsSentHomeAtOnce) {
  StartFull();
  std::vector<Begun> waiting;
  for (int i = 0; i < 1000; ++i) waiting.push_back(Begin(2));

  const Begun next = Begin(3);

  ASSERT_TRUE(next->has_value());
  EXPECT_THAT(**next, StatusIs(StatusCode::kResourceExhausted));
  for (const Begun& begun : waiting) EXPECT_FALSE(begun->has_value());
  world_->coordinator().Stop();
  for (const Begun& begun : waiting) EXPECT_TRUE(begun->has_value());
}

// A sink whose round closes while an upload is being let in.
class ClosingSink final : public UploadSink {
 public:
  explicit ClosingSink(std::function<void()> close)
      : close_(std::move(close)) {}
  Door DoorOf(const RoundKey&) override {
    close_();
    return Door::kClosed;
  }
  std::shared_ptr<const TaskDefinition> DefinitionOf(uint64_t) override {
    return nullptr;
  }
  RetryWindow PaceOf(uint64_t) override { return {}; }
  void Post(const RoundKey&, RoundEvent) override {}
  void Post(VerifiedUpload) override {}
  void Wake() override {}

 private:
  const std::function<void()> close_;
};

// The same update on two streams at once, and the other one was the round's
// last: what it was told is what this one is told.
TEST(UploadIngestTest, CountedAndClosedWhileBeingLetIn_ToldTheReceipt) {
  WorldOptions options;
  options.strategy =
      "cohort: 2, min_updates: 2, over_selection: 1.0, round_deadline: 5m";
  World world(options);
  world.SetUpTask();
  world.Turn();
  const std::map<int, Assignment> assigned = world.DrawRound();
  ASSERT_EQ(assigned.size(), 2u);
  const int last = assigned.rbegin()->first;
  const Assignment& last_work = assigned.rbegin()->second;
  EXPECT_FALSE(
      world.SendOneHot(assigned.begin()->first, assigned.begin()->second)
          ->has_value());
  std::optional<Receipt> other;
  ClosingSink sink([&] { other = world.Upload(last, last_work); });
  const Tickets tickets(world.server_key(),
                        EpochOf(world.store().instance_id()));
  UploadIngest ingest(
      {}, {world.store(), world.blobs(), world.random(), tickets, sink});

  std::optional<Result<BegunUpload>> begun;
  ingest.Begin(world.Device(last),
               world.Header(last_work, world.OneHot(1, last)),
               [&](Result<BegunUpload> answer) { begun = std::move(answer); });

  ASSERT_TRUE(other.has_value());
  EXPECT_EQ(other->status, ReceiptStatus::kAccepted);
  ASSERT_TRUE(begun.has_value());
  ASSERT_THAT(*begun, IsOk());
  ASSERT_TRUE(std::holds_alternative<Receipt>(**begun));
  EXPECT_EQ(std::get<Receipt>(**begun).status, ReceiptStatus::kAccepted);
}

}  // namespace
}  // namespace selvage::coordinator::test

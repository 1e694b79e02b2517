// Uploads on disk: what the file holds, and rounds that are folded from it.
#include "coordinator/staged_upload.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include <gmock/gmock.h>

#include "base/random.h"
#include "coordinator/task_definition.h"
#include "tests/unit/coordinator/world.h"

namespace selvage::coordinator::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr size_t kPiece = StagedUpload::kPieceSize;
const Path kIncoming = "/blobs/incoming";

class StagedUploadTest : public ::testing::Test {
 protected:
  StagedUploadTest() : plain_(2 * kPiece + 1000) {
    random_.Fill(plain_);
    store_ = *FileBlobStore::Open(files_, "/blobs");
    staged_ = *StagedUpload::Create(*store_, random_);
  }
  Path OnlyFile() {
    const auto names = files_.List(kIncoming);
    SELVAGE_CHECK(names.ok() && names->size() == 1);
    return kIncoming / names->front();
  }
  // In pieces of another size than they are sealed in.
  void AppendAll() {
    const ByteSpan rest = plain_;
    for (size_t at = 0; at < rest.size(); at += 300'000) {
      ASSERT_THAT(staged_->Append(rest.subspan(
                      at, std::min<size_t>(300'000, rest.size() - at))),
                  IsOk());
    }
    ASSERT_THAT(staged_->Finish(), IsOk());
  }
  // The file with other contents under the same name. The staged upload reads
  // what the open file holds, so the change is made in place.
  void Overwrite(const Bytes& bytes) {
    const auto file = files_.Create(OnlyFile(), 0600);
    ASSERT_THAT(file, IsOk());
    ASSERT_THAT((*file)->Append(bytes), IsOk());
  }
  Bytes Stored() { return *ReadFile(files_, OnlyFile(), uint64_t{1} << 30); }

  FaultFileSystem files_;
  LockedRandom random_{3};
  Bytes plain_;
  std::unique_ptr<FileBlobStore> store_;
  std::unique_ptr<StagedUpload> staged_;
};

TEST_F(StagedUploadTest, Read_AnyRange_IsWhatWasAppended) {
  AppendAll();

  EXPECT_EQ(staged_->size(), plain_.size());
  const std::pair<size_t, size_t> ranges[] = {
      {0, plain_.size()}, {0, 0},           {plain_.size(), 0},
      {kPiece - 3, 7},    {kPiece, kPiece}, {2 * kPiece + 999, 1}};
  for (const auto& range : ranges) {
    Bytes out(range.second);
    ASSERT_THAT(staged_->Read(range.first, out), IsOk()) << range.first;
    EXPECT_TRUE(
        std::equal(out.begin(), out.end(),
                   plain_.begin() + static_cast<ptrdiff_t>(range.first)))
        << range.first;
  }
}

TEST_F(StagedUploadTest, File_HoldsNothingReadable) {
  plain_ = Bytes(kPiece, uint8_t{'a'});
  AppendAll();

  const Bytes stored = Stored();
  const std::vector<uint8_t> run(8, uint8_t{'a'});
  EXPECT_GT(stored.size(), plain_.size());
  EXPECT_EQ(std::search(stored.begin(), stored.end(), run.begin(), run.end()),
            stored.end());
}

TEST_F(StagedUploadTest, Read_DamagedExchangedOrCutFile_IsDataLoss) {
  AppendAll();
  const Bytes stored = Stored();
  const auto sealed_piece =
      static_cast<ptrdiff_t>(kPiece + crypto::kAeadOverhead);
  Bytes damaged = stored;
  damaged[kPiece / 2] ^= 1;
  Bytes exchanged = stored;
  std::swap_ranges(exchanged.begin(), exchanged.begin() + sealed_piece,
                   exchanged.begin() + sealed_piece);
  Bytes cut = stored;
  cut.resize(kPiece);
  Bytes out(1);
  for (const Bytes& bytes : {damaged, exchanged, cut}) {
    Overwrite(bytes);
    EXPECT_THAT(staged_->Read(0, out), StatusIs(StatusCode::kDataLoss));
  }
  Overwrite(stored);
  EXPECT_THAT(staged_->Read(0, out), IsOk());
}

TEST_F(StagedUploadTest, Destroyed_TakesItsFileAlong) {
  AppendAll();

  staged_.reset();

  EXPECT_THAT(*files_.List(kIncoming), IsEmpty());
}

TEST_F(StagedUploadTest, LeftBehind_IsRemovedAtTheNextStart) {
  AppendAll();
  const Bytes stored = Stored();
  staged_.reset();
  const auto left = files_.Create(kIncoming / "7", 0600);
  ASSERT_THAT(left, IsOk());
  ASSERT_THAT((*left)->Append(stored), IsOk());

  const auto again = FileBlobStore::Open(files_, "/blobs");

  ASSERT_THAT(again, IsOk());
  EXPECT_THAT(*files_.List(kIncoming), IsEmpty());
}

TEST_F(StagedUploadTest, DiskFull_IsResourceExhausted) {
  files_.SetFreeBytes(kPiece + 10);

  EXPECT_THAT(staged_->Append(ByteSpan(plain_)),
              StatusIs(StatusCode::kResourceExhausted));
}

// ---- Rounds ----------------------------------------------------------------

WorldOptions AllOnDisk() {
  WorldOptions options;
  options.strategy =
      "cohort: 4, min_updates: 4, over_selection: 1.0, round_deadline: 5m";
  options.options.staged_above = 0;
  return options;
}

class StagedRoundTest : public ::testing::Test {
 protected:
  void Start(const WorldOptions& options) {
    world_ = std::make_unique<World>(options);
    world_->SetUpTask();
    world_->Turn();
    assigned_ = world_->DrawRound();
    ASSERT_THAT(assigned_, SizeIs(4));
  }
  UploadHeader Header(int device) {
    return world_->Header(assigned_.at(device), world_->OneHot(1, device));
  }
  size_t FilesStaged() {
    return world_->files.List("/data/blobs/incoming")->size();
  }
  void SendAll() {
    std::vector<World::Answer> answers;
    for (const auto& entry : assigned_) {
      answers.push_back(world_->SendOneHot(entry.first, entry.second));
    }
    for (int i = 0; i < 20; ++i) world_->Turn(milliseconds(500));
    for (const World::Answer& answer : answers) {
      ASSERT_TRUE(answer->has_value());
      ASSERT_THAT(**answer, IsOk());
      EXPECT_EQ((***answer).status, ReceiptStatus::kAccepted);
    }
  }
  // The model after one round over these options.
  std::vector<float> ModelOf(const WorldOptions& options) {
    Start(options);
    SendAll();
    return world_->Model(1);
  }

  std::unique_ptr<World> world_;
  std::map<int, Assignment> assigned_;
};

TEST_F(StagedRoundTest, Round_OfSeveralStretches_IsTheSameAsFromMemory) {
  for (const plan::CodecName codec :
       {plan::CodecName::kFloat32, plan::CodecName::kBFloat16}) {
    for (const bool bounded : {false, true}) {
      WorldOptions options = AllOnDisk();
      options.devices = 4;
      options.rounds = static_cast<int>(kStretchElements / 4 + 10'000);
      options.codec = codec;
      if (bounded) {
        options.strategy_name = "normbound";
        options.strategy += ", clipping_norm: 0.25";
      }
      const std::vector<float> from_disk = ModelOf(options);
      EXPECT_EQ(FilesStaged(), 0u);
      options.options.staged_above = uint64_t{1} << 30;
      const std::vector<float> from_memory = ModelOf(options);

      EXPECT_EQ(from_disk, from_memory);
      EXPECT_GT(from_disk.at(0), 0.0f);
    }
  }
}

TEST_F(StagedRoundTest, BrokenStream_ResumesAndExpires) {
  Start(AllOnDisk());
  const Bytes bytes = world_->OneHot(1, 0);
  Coordinator& coordinator = world_->coordinator();
  const auto first = std::get<UploadTicket>(*world_->Begin(0, Header(0)));
  ASSERT_THAT(
      coordinator.AppendUpload(first.upload_id, ByteSpan(bytes).first(10)),
      IsOk());
  EXPECT_EQ(FilesStaged(), 1u);
  coordinator.DropUpload(first.upload_id);
  world_->Turn(seconds(59));

  const auto second = std::get<UploadTicket>(*world_->Begin(0, Header(0)));
  EXPECT_EQ(second.offset, 10u);
  coordinator.DropUpload(second.upload_id);
  world_->Turn(seconds(61));
  EXPECT_EQ(FilesStaged(), 0u);
  const auto third = std::get<UploadTicket>(*world_->Begin(0, Header(0)));
  EXPECT_EQ(third.offset, 0u);
  coordinator.DropUpload(third.upload_id);

  SendAll();
  EXPECT_EQ(world_->Model()[world_->Coordinate(1, 0)], 0.25f);
}

TEST_F(StagedRoundTest, RestartInTheMiddle_StartsAnewAndCountsOnce) {
  WorldOptions options = AllOnDisk();
  options.sqlite = true;
  Start(options);
  const Bytes bytes = world_->OneHot(1, 0);
  const auto first = std::get<UploadTicket>(*world_->Begin(0, Header(0)));
  ASSERT_THAT(world_->coordinator().AppendUpload(first.upload_id,
                                                 ByteSpan(bytes).first(10)),
              IsOk());

  ASSERT_THAT(world_->Crash(), IsOk());
  world_->Turn();

  EXPECT_EQ(FilesStaged(), 0u);
  const auto second = std::get<UploadTicket>(*world_->Begin(0, Header(0)));
  EXPECT_EQ(second.offset, 0u);
  SendAll();
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(world_->Model()[world_->Coordinate(1, i)], 0.25f);
  }
}

TEST_F(StagedRoundTest, OutOfRangeAndNotFinite_AreRefused) {
  Start(AllOnDisk());
  const float values[] = {8.0f, std::nanf("")};
  const RejectReason reasons[] = {RejectReason::kOutOfRange,
                                  RejectReason::kNotFinite};
  for (int i = 0; i < 2; ++i) {
    const Bytes bytes = [&] {
      std::vector<float> raw(12);
      raw[static_cast<size_t>(i)] = values[i];
      return Bytes(AsBytes(std::span<const float>(raw)).begin(),
                   AsBytes(std::span<const float>(raw)).end());
    }();
    const World::Answer answer =
        world_->Send(i, world_->Header(assigned_.at(i), bytes), bytes);
    ASSERT_TRUE(answer->has_value());
    ASSERT_THAT(**answer, IsOk());
    EXPECT_EQ((**answer)->reason, reasons[i]);
  }
  EXPECT_EQ(FilesStaged(), 0u);
}

TEST_F(StagedRoundTest, DamagedTransfer_MayBeSentAgain) {
  Start(AllOnDisk());
  Bytes damaged = world_->OneHot(1, 0);
  damaged[5] ^= 1;

  const World::Answer answer = world_->Send(0, Header(0), damaged);

  EXPECT_EQ((**answer)->reason, RejectReason::kBadDigest);
  SendAll();
}

TEST_F(StagedRoundTest, DiskFull_IsTryAgain_AndThenItGoesOn) {
  Start(AllOnDisk());
  const auto begun = std::get<UploadTicket>(*world_->Begin(0, Header(0)));
  const Bytes bytes = world_->OneHot(1, 0);
  world_->files.SetFreeBytes(0);

  // A full disk shows at the latest when the last piece is sealed.
  const Status appended =
      world_->coordinator().AppendUpload(begun.upload_id, bytes);
  std::optional<Result<Receipt>> receipt;
  if (appended.ok()) {
    world_->coordinator().FinishUpload(
        begun.upload_id,
        [&](Result<Receipt> answer) { receipt = std::move(answer); });
    ASSERT_TRUE(receipt.has_value());
    EXPECT_THAT(*receipt, StatusIs(StatusCode::kUnavailable));
  } else {
    EXPECT_THAT(appended, StatusIs(StatusCode::kUnavailable));
  }
  world_->files.SetFreeBytes(std::nullopt);

  EXPECT_EQ(FilesStaged(), 0u);
  SendAll();
  EXPECT_EQ(world_->Model()[world_->Coordinate(1, 0)], 0.25f);
}

TEST_F(StagedRoundTest, DiskBudgetUsedUp_WaitsInLineAndIsThenExhausted) {
  WorldOptions options = AllOnDisk();
  options.options.staged_bytes_max = 100;  // two updates of 48 bytes
  Start(options);
  const auto first = std::get<UploadTicket>(*world_->Begin(0, Header(0)));
  (void)std::get<UploadTicket>(*world_->Begin(1, Header(1)));
  const auto begin = [&](int device) {
    auto begun = std::make_shared<std::optional<Result<BegunUpload>>>();
    world_->coordinator().BeginUpload(
        world_->Device(device), Header(device),
        [begun](Result<BegunUpload> answer) { *begun = std::move(answer); });
    return begun;
  };
  const auto third = begin(2);
  const auto fourth = begin(3);
  world_->coordinator().Poll();
  EXPECT_FALSE(third->has_value());

  // What one frees lets the next one in; the other is refused in the end.
  std::optional<Result<Receipt>> receipt;
  ASSERT_THAT(
      world_->coordinator().AppendUpload(first.upload_id, world_->OneHot(1, 0)),
      IsOk());
  world_->coordinator().FinishUpload(
      first.upload_id,
      [&](Result<Receipt> answer) { receipt = std::move(answer); });
  world_->Turn(milliseconds(600));
  world_->Turn(milliseconds(600));
  ASSERT_TRUE(third->has_value());
  EXPECT_THAT(**third, IsOk());
  EXPECT_FALSE(fourth->has_value());
  world_->Turn(seconds(10));
  ASSERT_TRUE(fourth->has_value());
  EXPECT_THAT(**fourth, StatusIs(StatusCode::kResourceExhausted));
  EXPECT_THAT((*fourth)->status().message(), HasSubstr("bytes of disk"));
}

TEST_F(StagedRoundTest, EncodingWithoutSlicesOrLargerThanTheDisk_IsInMemory) {
  WorldOptions sliceless = AllOnDisk();
  sliceless.codec = plan::CodecName::kFloat16;
  WorldOptions tiny = AllOnDisk();
  tiny.options.staged_bytes_max = 47;
  for (const WorldOptions& options : {sliceless, tiny}) {
    Start(options);
    const auto ticket = std::get<UploadTicket>(*world_->Begin(0, Header(0)));
    ASSERT_THAT(world_->coordinator().AppendUpload(ticket.upload_id,
                                                   world_->OneHot(1, 0)),
                IsOk());
    EXPECT_EQ(FilesStaged(), 0u);
    SendAll();
  }
}

}  // namespace
}  // namespace selvage::coordinator::test

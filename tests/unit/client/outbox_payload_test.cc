#include "client/store/outbox_payload.h"

#include <SQLiteCpp/SQLiteCpp.h>

#include <fstream>
#include <iterator>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/fault_vfs.h"
#include "tests/testing/scratch_folder.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/client/store_fixture.h"

namespace selvage::client {
namespace {

using test::FaultVfs;
using test::IsOk;
using test::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;

// Two pieces and a half, no two stretches of them alike.
Bytes MakePayload() {
  Bytes payload(kOutboxPieceBytes * 5 / 2);
  SeededRandom random(3);
  random.Fill(payload);
  return payload;
}

OutboxEntry EntryOf(const std::string& id, ByteSpan payload) {
  OutboxEntry entry;
  entry.assignment_id = id;
  entry.update.stored_bytes = payload.size();
  entry.update.digest = crypto::Sha256(payload);
  entry.update.weight = 3;
  return entry;
}

// In stretches of uneven size.
Status Write(ClientStore& store, const std::string& id, ByteSpan payload) {
  OutboxWriter writer(store, id);
  for (size_t at = 0; at < payload.size(); at += 1'000'001) {
    SELVAGE_RETURN_IF_ERROR(writer.Append(
        payload.subspan(at, std::min<size_t>(1'000'001, payload.size() - at))));
  }
  return writer.Finish();
}

class OutboxPayloadTest : public ::testing::Test {
 protected:
  void SetUp() override { Open(); }
  void Open() {
    store_.reset();
    auto store = parts_.Open(path_);
    ASSERT_THAT(store, IsOk());
    store_ = *std::move(store);
  }
  Status Record(const OutboxEntry& entry) {
    return store_->SaveSession({.session = {1}, .outbox = &entry});
  }
  // What the file has, while nobody has it open.
  int64_t Pieces() {
    SQLite::Database db(path_.string(), SQLite::OPEN_READWRITE);
    return db.execAndGet("SELECT count(*) FROM outbox_piece").getInt64();
  }
  void Sql(const std::string& sql) {
    SQLite::Database(path_.string(), SQLite::OPEN_READWRITE).exec(sql);
  }

  test::StoreParts parts_;
  test::ScratchFolder directory_;
  Path path_ = directory_.path() / "client.db";
  std::unique_ptr<ClientStore> store_;
  const Bytes payload_ = MakePayload();
};

TEST_F(OutboxPayloadTest, BytesOf_RecordedAndReopened_AreWhatWasWritten) {
  ASSERT_THAT(Write(*store_, "a1", payload_), IsOk());
  ASSERT_THAT(Record(EntryOf("a1", payload_)), IsOk());
  Open();
  const auto kept = store_->LoadOutbox();
  ASSERT_THAT(kept, IsOk());
  ASSERT_TRUE(kept->has_value());
  EXPECT_TRUE((*kept)->update.encoded.empty());
  ASSERT_EQ((*kept)->update.size_bytes(), payload_.size());
  EXPECT_EQ((*kept)->update.digest, crypto::Sha256(payload_));
  EXPECT_EQ(store_->InspectOutbox()->front().size_bytes, payload_.size());
  EXPECT_EQ(store_->Audit(1)->front().size_bytes, payload_.size());

  const UpdateBytes bytes = BytesOf(*store_, **kept);
  Bytes all(static_cast<size_t>(bytes.size()));
  ASSERT_THAT(bytes.Read(0, all), IsOk());
  EXPECT_TRUE(all == payload_);
  // Across a border, and back again.
  for (const size_t at : {2 * kOutboxPieceBytes - 5, size_t{7}}) {
    Bytes some(11);
    ASSERT_THAT(bytes.Read(at, some), IsOk());
    EXPECT_TRUE(std::equal(some.begin(), some.end(),
                           payload_.begin() + static_cast<std::ptrdiff_t>(at)));
  }
}

TEST_F(OutboxPayloadTest, SaveSession_DropsTheOutbox_AndItsPieces) {
  ASSERT_THAT(Write(*store_, "a1", payload_), IsOk());
  ASSERT_THAT(Record(EntryOf("a1", payload_)), IsOk());
  EXPECT_EQ(Pieces(), 3);
  ASSERT_THAT(store_->SaveSession({.session = {2}, .drop_outbox = true}),
              IsOk());
  EXPECT_EQ(Pieces(), 0);
  EXPECT_EQ(store_->Audit(1)->front().size_bytes, payload_.size());
  ASSERT_THAT(Write(*store_, "a2", payload_), IsOk());
  ASSERT_THAT(Record(EntryOf("a2", payload_)), IsOk());
  ASSERT_THAT(store_->Forget(Bytes{4}, {}), IsOk());
  EXPECT_EQ(Pieces(), 0);
}

TEST_F(OutboxPayloadTest, Open_HalfWritten_IsDropped) {
  // As a process leaves it that dies in the middle.
  ASSERT_THAT(store_->AddOutboxPiece("a1", 0, payload_), IsOk());
  EXPECT_EQ(Pieces(), 1);
  Open();
  EXPECT_EQ(Pieces(), 0);
  EXPECT_FALSE(store_->LoadOutbox()->has_value());
  // ... and the same work is done again.
  ASSERT_THAT(Write(*store_, "a1", payload_), IsOk());
  ASSERT_THAT(Record(EntryOf("a1", payload_)), IsOk());
  EXPECT_THAT(store_->LoadOutbox(), IsOk());
}

TEST_F(OutboxPayloadTest, OutboxWriter_NotFinished_LeavesNothing) {
  {
    OutboxWriter writer(*store_, "a1");
    ASSERT_THAT(writer.Append(payload_), IsOk());
    EXPECT_EQ(Pieces(), 2);
  }
  EXPECT_EQ(Pieces(), 0);
  // What an earlier attempt left does not end up in the next one.
  ASSERT_THAT(store_->AddOutboxPiece("a0", 5, payload_), IsOk());
  ASSERT_THAT(Write(*store_, "a1", payload_), IsOk());
  EXPECT_EQ(Pieces(), 3);
}

TEST_F(OutboxPayloadTest, SaveSession_PiecesMissing_IsRefused) {
  ASSERT_THAT(Write(*store_, "a1", ByteSpan(payload_).first(100)), IsOk());
  EXPECT_THAT(Record(EntryOf("a1", payload_)),
              StatusIs(StatusCode::kDataLoss, HasSubstr("100 bytes")));
  EXPECT_THAT(Record(EntryOf("a2", payload_)),
              StatusIs(StatusCode::kDataLoss, HasSubstr("0 bytes")));
  EXPECT_FALSE(store_->LoadOutbox()->has_value());
}

TEST_F(OutboxPayloadTest, LoadOutbox_Damaged_SaysSo) {
  for (const char* change :
       {"UPDATE outbox_piece SET payload = zeroblob(60) WHERE number = 1",
        "UPDATE outbox_piece SET payload = (SELECT payload FROM outbox_piece "
        "WHERE number = 0) WHERE number = 1",
        "UPDATE outbox_piece SET number = 2 - number WHERE number <> 1",
        "DELETE FROM outbox_piece WHERE number = 2",
        "DELETE FROM outbox_piece WHERE number = 0",
        "DELETE FROM outbox_piece"}) {
    SCOPED_TRACE(change);
    ASSERT_THAT(Write(*store_, "a1", payload_), IsOk());
    const OutboxEntry entry = EntryOf("a1", payload_);
    ASSERT_THAT(Record(entry), IsOk());
    store_.reset();
    // A swap goes by way of a number that nobody has.
    std::string sql = change;
    if (sql.find("2 - number") != std::string::npos) {
      sql =
          "UPDATE outbox_piece SET number = 9 WHERE number = 0;"
          "UPDATE outbox_piece SET number = 0 WHERE number = 1;"
          "UPDATE outbox_piece SET number = 1 WHERE number = 9";
    }
    Sql(sql);
    Open();
    EXPECT_THAT(store_->LoadOutbox(), StatusIs(StatusCode::kDataLoss));
    Bytes all(payload_.size());
    EXPECT_THAT(BytesOf(*store_, entry).Read(0, all),
                StatusIs(StatusCode::kDataLoss));
    ASSERT_THAT(store_->SaveSession({.session = {2}, .drop_outbox = true}),
                IsOk());
    EXPECT_EQ(Pieces(), 0);
  }
}

TEST_F(OutboxPayloadTest, Append_NothingLiesOpen) {
  constexpr char kCanary[] = "an update that nobody may read";
  Bytes payload;
  while (payload.size() < kOutboxPieceBytes + 1000) {
    AppendBytes(payload, AsBytes(kCanary));
  }
  ASSERT_THAT(Write(*store_, "a1", payload), IsOk());
  ASSERT_THAT(Record(EntryOf("a1", payload)), IsOk());
  const auto expect_none = [&] {
    for (const auto& file :
         std::filesystem::directory_iterator(directory_.path())) {
      std::ifstream in(file.path(), std::ios::binary);
      const std::string text{std::istreambuf_iterator<char>(in), {}};
      EXPECT_THAT(text.find(kCanary), std::string::npos) << file.path();
    }
  };
  expect_none();  // the log too
  store_.reset();
  expect_none();
}

TEST(OutboxPayloadPowerTest, Write_PowerCutAnywhere_WholeUpdateOrNone) {
  const Bytes payload = MakePayload();
  int recorded = 0;
  int lost = 0;
  for (uint64_t point = 0; recorded == 0; point += 40 + point / 3) {
    SCOPED_TRACE("power cut after operation " + std::to_string(point));
    ASSERT_LT(point, 100'000U);
    FaultVfs vfs;
    test::StoreParts parts;
    bool done = false;
    {
      auto store = parts.Open("/client.db", vfs.name());
      ASSERT_THAT(store, IsOk());
      vfs.FailAfter(point);
      const OutboxEntry entry = EntryOf("a1", payload);
      done = Write(**store, "a1", payload).ok() &&
             (*store)->SaveSession({.session = {1}, .outbox = &entry}).ok();
    }
    SeededRandom random(point);
    point % 2 == 0 ? vfs.Crash() : vfs.CrashTorn(random);
    vfs.ClearFaults();
    auto store = parts.Open("/client.db", vfs.name());
    ASSERT_THAT(store, IsOk());
    const auto kept = (*store)->LoadOutbox();
    ASSERT_THAT(kept, IsOk());
    EXPECT_TRUE(kept->has_value() || !done);
    kept->has_value() ? ++recorded : ++lost;
    // Nothing is left of what was not recorded: its place can be taken.
    if (!kept->has_value()) {
      const OutboxEntry entry = EntryOf("a1", payload);
      ASSERT_THAT(Write(**store, "a1", payload), IsOk());
      EXPECT_THAT((*store)->SaveSession({.session = {1}, .outbox = &entry}),
                  IsOk());
    }
  }
  EXPECT_GT(lost, 3);
}

TEST(OutboxPayloadPowerTest, Append_DiskFull_SaysSoAndRecovers) {
  const Bytes payload = MakePayload();
  FaultVfs vfs;
  test::StoreParts parts;
  auto store = parts.Open("/client.db", vfs.name());
  ASSERT_THAT(store, IsOk());
  vfs.SetFreeBytes(kOutboxPieceBytes * 2);
  {
    OutboxWriter writer(**store, "a1");
    EXPECT_THAT(writer.Append(payload),
                StatusIs(StatusCode::kResourceExhausted));
    // It stays: nothing is left out in the middle.
    EXPECT_THAT(writer.Finish(), Not(IsOk()));
  }
  vfs.SetFreeBytes(std::nullopt);
  const OutboxEntry entry = EntryOf("a1", payload);
  ASSERT_THAT(Write(**store, "a1", payload), IsOk());
  EXPECT_THAT((*store)->SaveSession({.session = {1}, .outbox = &entry}),
              IsOk());
}

}  // namespace
}  // namespace selvage::client

#include "coordinator/store/file_blob_store.h"

#include <algorithm>
#include <string>
#include <vector>

#include <gmock/gmock.h>

#include "tests/testing/fault_file_system.h"
#include "tests/testing/status_matchers.h"

namespace selvage::coordinator {
namespace {

using ::selvage::test::FaultFileSystem;
using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;

class FileBlobStoreTest : public ::testing::Test {
 protected:
  FileBlobStoreTest() { Open(); }
  void Open() {
    auto opened = FileBlobStore::Open(files_, "/blobs");
    ASSERT_THAT(opened, IsOk());
    store_ = *std::move(opened);
  }
  void Crash() {
    store_.reset();
    files_.Crash();
    Open();
  }
  void Overwrite(const Path& path, std::string_view text) {
    auto file = files_.Create(path, 0600);
    ASSERT_THAT(file, IsOk());
    ASSERT_THAT((*file)->Append(AsBytes(text)), IsOk());
    ASSERT_THAT((*file)->Sync(), IsOk());
  }

  FaultFileSystem files_;
  std::unique_ptr<FileBlobStore> store_;
};

TEST_F(FileBlobStoreTest, Put_SurvivesAPowerCut) {
  const auto digest = store_->Put(AsBytes("hello"));
  ASSERT_THAT(digest, IsOk());
  ASSERT_THAT(store_->PutSealed("p1", AsBytes("sealed")), IsOk());
  Crash();

  EXPECT_EQ(*store_->Read(*digest, 100), ToBytes("hello"));
  EXPECT_EQ(*store_->ReadSealed("p1"), ToBytes("sealed"));
  EXPECT_THAT(*store_->List(), ::testing::ElementsAre(*digest));
  EXPECT_THAT(*store_->ListSealed(), ::testing::ElementsAre("p1"));
}

TEST_F(FileBlobStoreTest, Put_Twice_StoresOnce) {
  const auto first = store_->Put(AsBytes("hello"));
  const uint64_t before = files_.operations();
  const auto second = store_->Put(AsBytes("hello"));
  EXPECT_EQ(*first, *second);
  EXPECT_EQ(files_.operations(), before + 1) << "a look";
}

TEST_F(FileBlobStoreTest, Writers_ShareADirectory) {
  auto a = *FileBlobStore::Open(files_, "/shared", "a");
  auto writing = a->NewBlob();
  ASSERT_THAT(writing, IsOk());
  ASSERT_THAT((*writing)->Append(AsBytes("hello")), IsOk());
  // Another one that opens the directory leaves it alone.
  auto b = *FileBlobStore::Open(files_, "/shared", "b");
  EXPECT_THAT(*FileBlobStore::Incoming(files_, "/shared"),
              ::testing::ElementsAre("a.0"));
  const auto same = b->Put(AsBytes("hello"));
  ASSERT_THAT(same, IsOk());
  ASSERT_THAT((*writing)->Commit(*same), IsOk());
  EXPECT_EQ(*a->Read(*same, 10), ToBytes("hello"));
  EXPECT_EQ(b->List()->size(), 1u);

  // What one removed, the other writes again.
  ASSERT_THAT(a->Remove(*same), IsOk());
  ASSERT_THAT(b->Put(AsBytes("hello")), IsOk());
  EXPECT_EQ(*a->Read(*same, 10), ToBytes("hello"));

  auto lost = a->NewBlob();
  ASSERT_THAT(lost, IsOk());
  ASSERT_THAT(FileBlobStore::RemoveIncoming(files_, "/shared", "a.1"), IsOk());
  ASSERT_THAT(FileBlobStore::RemoveIncoming(files_, "/shared", "a.1"), IsOk());
  EXPECT_FALSE((*lost)->Finish().ok());
}

TEST_F(FileBlobStoreTest, Open_DamagedBytes_IsDataLoss) {
  const auto digest = store_->Put(AsBytes("hello"));
  store_.reset();
  Overwrite(Path("/blobs/artefacts") / digest->ToHex(), "jello");
  Open();

  EXPECT_THAT(store_->Open(*digest), StatusIs(StatusCode::kDataLoss));
  EXPECT_THAT(store_->Read(*digest, 100), StatusIs(StatusCode::kDataLoss));
  // Storing it again heals it.
  ASSERT_THAT(store_->Put(AsBytes("hello")), IsOk());
  EXPECT_THAT(store_->Open(*digest), IsOk());
}

TEST_F(FileBlobStoreTest, PutJoined_ReadsAsOneAndSurvivesAPowerCut) {
  const std::vector<crypto::Digest> pieces = {
      *store_->Put(AsBytes("hel")), *store_->Put(AsBytes("")),
      *store_->Put(AsBytes("lo")), *store_->Put(AsBytes(" you"))};
  const auto digest = store_->PutJoined(pieces);
  ASSERT_THAT(digest, IsOk());
  EXPECT_EQ(*digest, crypto::Sha256(AsBytes("hello you")));
  Crash();

  EXPECT_EQ(*store_->Read(*digest, 9), ToBytes("hello you"));
  EXPECT_THAT(store_->Read(*digest, 8),
              StatusIs(StatusCode::kResourceExhausted));
  EXPECT_EQ(store_->List()->size(), 5u);
  const auto reader = store_->Open(*digest);
  ASSERT_THAT(reader, IsOk());
  EXPECT_EQ((*reader)->size(), 9u);
  for (uint64_t offset = 0; offset <= 10; ++offset) {
    for (size_t size = 0; size <= 10; ++size) {
      Bytes out(size);
      const auto read = (*reader)->ReadAt(offset, out);
      ASSERT_THAT(read, IsOk());
      out.resize(*read);
      EXPECT_EQ(
          ToString(out),
          std::string("hello you").substr(std::min<uint64_t>(offset, 9), size));
    }
  }
  ASSERT_THAT(store_->Remove(*digest), IsOk());
  EXPECT_THAT(store_->Open(*digest), StatusIs(StatusCode::kNotFound));
  EXPECT_EQ(store_->List()->size(), 4u);
}

TEST_F(FileBlobStoreTest, PutJoined_UnderAKnownDigest_ReadsAsOne) {
  const std::vector<crypto::Digest> pieces = {*store_->Put(AsBytes("a")),
                                              *store_->Put(AsBytes("b"))};
  const crypto::Digest digest = crypto::Sha256(AsBytes("ab"));
  ASSERT_THAT(store_->PutJoined(pieces, digest), IsOk());
  Crash();
  EXPECT_EQ(*store_->Read(digest, 2), ToBytes("ab"));

  const crypto::Digest never = crypto::Sha256(AsBytes("never stored"));
  EXPECT_THAT(store_->PutJoined(std::vector{pieces[0], never}, digest),
              StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(store_->PutJoined({}, digest),
              StatusIs(StatusCode::kInvalidArgument));
}

// Who says a wrong digest is found out by who reads.
TEST_F(FileBlobStoreTest, PutJoined_UnderAnotherDigest_IsDataLossWhenOpened) {
  const std::vector<crypto::Digest> pieces = {*store_->Put(AsBytes("a"))};
  const crypto::Digest digest = crypto::Sha256(AsBytes("b"));
  ASSERT_THAT(store_->PutJoined(pieces, digest), IsOk());
  EXPECT_THAT(store_->Read(digest, 2), StatusIs(StatusCode::kDataLoss));
  Crash();
  EXPECT_THAT(store_->Open(digest), StatusIs(StatusCode::kDataLoss));
}

TEST_F(FileBlobStoreTest, PutJoined_PieceThatIsNotThere_IsNotFound) {
  const std::vector<crypto::Digest> pieces = {
      *store_->Put(AsBytes("a")), crypto::Sha256(AsBytes("never stored"))};
  EXPECT_THAT(store_->PutJoined(pieces), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(store_->PutJoined({}), StatusIs(StatusCode::kInvalidArgument));
  const std::vector<crypto::Digest> many(BlobStore::kPiecesMax + 1, pieces[0]);
  EXPECT_THAT(store_->PutJoined(many), StatusIs(StatusCode::kInvalidArgument));
}

TEST_F(FileBlobStoreTest, Open_JoinedWithALostOrDamagedPiece_IsDataLoss) {
  const std::vector<crypto::Digest> pieces = {*store_->Put(AsBytes("a")),
                                              *store_->Put(AsBytes("b"))};
  const auto digest = store_->PutJoined(pieces);
  ASSERT_THAT(digest, IsOk());
  const Path list = Path("/blobs/joined") / digest->ToHex();
  store_.reset();
  Overwrite(Path("/blobs/artefacts") / pieces[1].ToHex(), "c");
  Open();
  EXPECT_THAT(store_->Open(*digest), StatusIs(StatusCode::kDataLoss));
  EXPECT_THAT(store_->Read(*digest, 100), StatusIs(StatusCode::kDataLoss));

  ASSERT_THAT(files_.Remove(Path("/blobs/artefacts") / pieces[1].ToHex()),
              IsOk());
  EXPECT_THAT(store_->Open(*digest), StatusIs(StatusCode::kDataLoss));
  for (const std::string& text :
       {std::string("x"), std::string(65, 'x'), pieces[0].ToHex(),
        pieces[0].ToHex() + "\n"}) {
    store_.reset();
    Overwrite(list, text);
    Open();
    EXPECT_THAT(store_->Open(*digest), StatusIs(StatusCode::kDataLoss));
  }
}

TEST_F(FileBlobStoreTest, Open_ReadsAtOffsets_AndOutlivesRemove) {
  const auto digest = store_->Put(AsBytes("hello"));
  const auto reader = store_->Open(*digest);
  ASSERT_THAT(reader, IsOk());
  ASSERT_THAT(store_->Remove(*digest), IsOk());
  Bytes out(10);

  EXPECT_EQ((*reader)->size(), 5u);
  EXPECT_EQ(*(*reader)->ReadAt(3, out), 2u);
  EXPECT_EQ(out[0], 'l');
  EXPECT_THAT(store_->Open(*digest), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(store_->Remove(*digest), IsOk());
}

TEST_F(FileBlobStoreTest, Read_OverTheLimit_IsResourceExhausted) {
  const auto digest = store_->Put(AsBytes("hello"));
  EXPECT_THAT(store_->Read(*digest, 4),
              StatusIs(StatusCode::kResourceExhausted));
}

TEST_F(FileBlobStoreTest, Writer_Streams_AndChecksTheDigest) {
  const crypto::Digest digest = crypto::Sha256(AsBytes("hello world"));
  {
    const auto writer = store_->NewBlob();
    ASSERT_THAT(writer, IsOk());
    ASSERT_THAT((*writer)->Append(AsBytes("hello ")), IsOk());
    ASSERT_THAT((*writer)->Append(AsBytes("world")), IsOk());
    EXPECT_THAT((*writer)->Commit(digest), IsOk());
  }
  {
    const auto writer = store_->NewBlob();
    ASSERT_THAT((*writer)->Append(AsBytes("other")), IsOk());
    EXPECT_THAT((*writer)->Commit(digest), StatusIs(StatusCode::kDataLoss));
  }
  {
    const auto writer = store_->NewBlob();
    ASSERT_THAT((*writer)->Append(AsBytes("dropped")), IsOk());
  }
  Crash();
  EXPECT_EQ(*store_->Read(digest, 100), ToBytes("hello world"));
  EXPECT_EQ(store_->List()->size(), 1u);
  EXPECT_TRUE(files_.List("/blobs/incoming")->empty());
}

TEST_F(FileBlobStoreTest, EveryOperation_Failing_LeavesOldOrWhole) {
  for (uint64_t k = 0; k < 12; ++k) {
    const std::string text = "content " + std::to_string(k);
    files_.FailAfter(k, StatusCode::kInternal);
    const auto digest = store_->Put(AsBytes(text));
    files_.ClearFaults();
    Crash();
    const auto read = store_->Read(crypto::Sha256(AsBytes(text)), 100);
    if (digest.ok()) {
      EXPECT_THAT(read, IsOk()) << k;
    } else if (read.ok()) {
      EXPECT_EQ(*read, ToBytes(text)) << k;
    }
    EXPECT_TRUE(files_.List("/blobs/incoming")->empty()) << k;
  }
}

TEST_F(FileBlobStoreTest, DiskFull_IsSaid_AndLeavesNoRubbish) {
  files_.SetFreeBytes(3);
  EXPECT_THAT(store_->Put(AsBytes("hello")),
              StatusIs(StatusCode::kResourceExhausted));
  EXPECT_EQ(*store_->FreeBytes(), 3u);
  files_.SetFreeBytes(std::nullopt);
  EXPECT_THAT(store_->Put(AsBytes("hello")), IsOk());
}

}  // namespace
}  // namespace selvage::coordinator

#include "coordinator/delta_cache.h"

#include <thread>
#include <vector>

#include <gmock/gmock.h>

#include "aggregation/codec/delta_codec.h"
#include "base/random.h"
#include "coordinator/store/file_blob_store.h"
#include "tests/testing/fault_file_system.h"
#include "tests/testing/status_matchers.h"

namespace selvage::coordinator {
namespace {

using ::selvage::test::FaultFileSystem;
using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;

constexpr auto kCodec = plan::CodecName::kFloat16;

class DeltaCacheTest : public ::testing::Test {
 protected:
  DeltaCacheTest() : blobs_(*FileBlobStore::Open(files_, "/blobs")) {}

  // Version 0 is random, each later one differs from it in its last digits.
  crypto::Digest Version(int version, size_t size = 20000) {
    Bytes bytes(size);
    SeededRandom(1).Fill(bytes);
    SeededRandom random(static_cast<uint64_t>(version));
    for (size_t i = 0; version > 0 && i < size; i += 2) {
      bytes[i] = static_cast<uint8_t>(bytes[i] ^ UniformBelow(random, 4));
    }
    bytes_[crypto::Sha256(bytes)] = bytes;
    return *blobs_->Put(bytes);
  }
  // The delta if it makes the one of the other.
  Result<Bytes> Get(DeltaCache& cache, const crypto::Digest& base,
                    const crypto::Digest& target) {
    SELVAGE_ASSIGN_OR_RETURN(
        const std::unique_ptr<ArtefactReader> reader,
        cache.Open({.codec = kCodec, .base = base, .target = target}));
    Bytes delta(static_cast<size_t>(reader->size()));
    for (size_t at = 0; at < delta.size();) {  // in pieces, as a stream does
      const size_t size = std::min<size_t>(999, delta.size() - at);
      SELVAGE_ASSIGN_OR_RETURN(
          const size_t read,
          reader->ReadAt(at, std::span(delta).subspan(at, size)));
      EXPECT_EQ(read, size);
      at += read;
    }
    Bytes over(1);
    EXPECT_EQ(*reader->ReadAt(delta.size(), over), 0u);
    EXPECT_EQ(*reader->ReadAt(delta.size() + 1, over), 0u);
    EXPECT_EQ(*aggregation::DecodeDelta(kCodec, bytes_.at(base), delta),
              bytes_.at(target));
    return delta;
  }

  FaultFileSystem files_;
  std::unique_ptr<FileBlobStore> blobs_;
  std::map<crypto::Digest, Bytes> bytes_;
};

TEST_F(DeltaCacheTest, Open_SecondTime_ReadsNothing) {
  DeltaCache cache({}, *blobs_);
  const auto first = Get(cache, Version(0), Version(1));
  ASSERT_THAT(first, IsOk());
  EXPECT_LT(first->size(), 10000u);
  const crypto::Digest base = Version(0);
  const crypto::Digest target = Version(1);
  const uint64_t operations = files_.operations();
  EXPECT_EQ(*Get(cache, base, target), *first);
  EXPECT_EQ(files_.operations(), operations);
}

TEST_F(DeltaCacheTest, Open_NothingSavedOtherSizesOrTooLarge_IsNotFound) {
  DeltaCache cache({.artefact_bytes_max = 20000}, *blobs_);
  Bytes noise(20000);
  SeededRandom(99).Fill(noise);
  const crypto::Digest unlike = *blobs_->Put(noise);
  const crypto::Digest missing = crypto::Sha256(AsBytes("missing"));
  for (const auto& [base, target] :
       std::vector<std::pair<crypto::Digest, crypto::Digest>>{
           {Version(0), unlike},
           {Version(0), Version(1, 20002)},
           {Version(0, 20002), Version(1, 20002)},
           {Version(0), missing},
           {missing, Version(0)}}) {
    for (int time = 0; time < 2; ++time) {
      EXPECT_THAT(Get(cache, base, target), StatusIs(StatusCode::kNotFound));
    }
  }
  // Answers of "none" are kept too, and cost a little.
  EXPECT_GT(cache.bytes(), 0u);
  EXPECT_LT(cache.bytes(), 2000u);
}

TEST_F(DeltaCacheTest, Open_OverTheBound_TheLeastRecentlyUsedGoes) {
  const crypto::Digest base = Version(0);
  uint64_t one = 0;
  {
    DeltaCache cache({}, *blobs_);
    ASSERT_THAT(Get(cache, base, Version(1)), IsOk());
    one = cache.bytes();
  }
  DeltaCache cache({.bytes_max = 5 * one / 2}, *blobs_);
  for (int version = 1; version <= 6; ++version) {
    ASSERT_THAT(Get(cache, base, Version(version)), IsOk());
    ASSERT_THAT(Get(cache, base, Version(1)), IsOk());
    EXPECT_LE(cache.bytes(), 5 * one / 2);
  }
  const crypto::Digest first = Version(1);
  const crypto::Digest second = Version(2);
  const uint64_t operations = files_.operations();
  ASSERT_THAT(Get(cache, base, first), IsOk());
  EXPECT_EQ(files_.operations(), operations);
  ASSERT_THAT(Get(cache, base, second), IsOk());
  EXPECT_GT(files_.operations(), operations);
}

TEST_F(DeltaCacheTest, Open_NoRoomAtAll_StillGivesTheDelta) {
  DeltaCache cache({.bytes_max = 0}, *blobs_);
  ASSERT_THAT(Get(cache, Version(0), Version(1)), IsOk());
  EXPECT_EQ(cache.bytes(), 0u);
}

TEST_F(DeltaCacheTest, Open_ReaderOutlivesEvictionAndCache) {
  auto cache =
      std::make_unique<DeltaCache>(DeltaCache::Limits{.bytes_max = 0}, *blobs_);
  auto reader =
      cache->Open({.codec = kCodec, .base = Version(0), .target = Version(1)});
  ASSERT_THAT(reader, IsOk());
  cache.reset();
  Bytes all(static_cast<size_t>((*reader)->size()));
  EXPECT_EQ(*(*reader)->ReadAt(0, all), all.size());
}

TEST_F(DeltaCacheTest, Open_DamagedBlob_IsDataLossAndNotKept) {
  const crypto::Digest base = Version(0);
  const crypto::Digest target = Version(1);
  blobs_ = *FileBlobStore::Open(files_, "/blobs");
  const auto file =
      *files_.Create(Path("/blobs/artefacts") / base.ToHex(), 0600);
  ASSERT_THAT(file->Append(Bytes(20000)), IsOk());
  DeltaCache cache({}, *blobs_);
  EXPECT_THAT(Get(cache, base, target), StatusIs(StatusCode::kDataLoss));
  EXPECT_EQ(cache.bytes(), 0u);
}

TEST_F(DeltaCacheTest, Open_ManyThreads_OneMakesItAndOrTheyTakeTheWhole) {
  DeltaCache cache({.waiting_max = 4}, *blobs_);
  const crypto::Digest base = Version(0);
  const crypto::Digest target = Version(1);
  std::atomic<int> served{0};
  std::atomic<int> none{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 16; ++i) {
    threads.emplace_back([&] {
      const auto reader =
          cache.Open({.codec = kCodec, .base = base, .target = target});
      ++(reader.ok() ? served : none);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GE(served, 4);
  EXPECT_EQ(served + none, 16);
  EXPECT_THAT(Get(cache, base, target), IsOk());
}

}  // namespace
}  // namespace selvage::coordinator

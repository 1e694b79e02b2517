#include "coordinator/rpc/shared_chunks.h"

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "crypto/digest.h"
#include "tests/testing/status_matchers.h"

namespace selvage::coordinator {
namespace {

using test::IsOk;
using test::StatusIs;

crypto::Digest DigestOf(const std::string& name) {
  return crypto::Sha256(AsBytes(name));
}

std::string TextOf(const grpc::Slice& slice) {
  return {slice.begin(), slice.end()};
}

// Says what it was asked for, and counts.
struct Maker {
  int calls = 0;
  Result<std::string> Get(SharedChunks::Stream& stream, uint64_t offset,
                          const std::string& text) {
    SELVAGE_ASSIGN_OR_RETURN(
        const grpc::Slice slice,
        stream.Get(offset, text.size(), [&]() -> Result<grpc::Slice> {
          ++calls;
          return grpc::Slice(text);
        }));
    return TextOf(slice);
  }
};

TEST(SharedChunks, SecondStreamOfAnArtefact_GetsWhatTheFirstOneRead) {
  SharedChunks chunks(100);
  Maker maker;
  const auto first = chunks.Open(DigestOf("a"));
  const auto second = chunks.Open(DigestOf("a"));
  EXPECT_EQ(*maker.Get(*first, 0, "head"), "head");
  EXPECT_EQ(*maker.Get(*second, 0, "head"), "head");
  EXPECT_EQ(*maker.Get(*second, 4, "tail"), "tail");
  EXPECT_EQ(*maker.Get(*first, 4, "tail"), "tail");
  EXPECT_EQ(maker.calls, 2);
  EXPECT_EQ(chunks.kept_bytes(), 8u);
}

TEST(SharedChunks, OtherArtefactsPlacesAndSizes_AreOthers) {
  SharedChunks chunks(100);
  Maker maker;
  const auto a = chunks.Open(DigestOf("a"));
  const auto b = chunks.Open(DigestOf("b"));
  EXPECT_EQ(*maker.Get(*a, 0, "aaaa"), "aaaa");
  EXPECT_EQ(*maker.Get(*b, 0, "bbbb"), "bbbb");
  EXPECT_EQ(*maker.Get(*a, 2, "aacc"), "aacc");
  EXPECT_EQ(*maker.Get(*a, 0, "aa"), "aa");
  EXPECT_EQ(maker.calls, 4);
}

TEST(SharedChunks, NobodyFetchesTheArtefact_NothingIsKept) {
  SharedChunks chunks(100);
  Maker maker;
  auto a = chunks.Open(DigestOf("a"));
  auto again = chunks.Open(DigestOf("a"));
  auto b = chunks.Open(DigestOf("b"));
  ASSERT_THAT(maker.Get(*a, 0, "aaaa"), IsOk());
  ASSERT_THAT(maker.Get(*b, 0, "bb"), IsOk());
  a.reset();
  EXPECT_EQ(chunks.kept_bytes(), 6u);
  again.reset();
  EXPECT_EQ(chunks.kept_bytes(), 2u);
  b.reset();
  EXPECT_EQ(chunks.kept_bytes(), 0u);
  a = chunks.Open(DigestOf("a"));
  ASSERT_THAT(maker.Get(*a, 0, "aaaa"), IsOk());
  EXPECT_EQ(maker.calls, 3);
}

TEST(SharedChunks, NoRoom_LongestUnusedGoesFirst) {
  SharedChunks chunks(8);
  Maker maker;
  const auto stream = chunks.Open(DigestOf("a"));
  ASSERT_THAT(maker.Get(*stream, 0, "0000"), IsOk());
  ASSERT_THAT(maker.Get(*stream, 4, "4444"), IsOk());
  ASSERT_THAT(maker.Get(*stream, 0, "0000"), IsOk());  // used
  ASSERT_THAT(maker.Get(*stream, 8, "8888"), IsOk());  // instead of 4
  EXPECT_EQ(maker.calls, 3);
  EXPECT_EQ(chunks.kept_bytes(), 8u);
  ASSERT_THAT(maker.Get(*stream, 0, "0000"), IsOk());
  EXPECT_EQ(maker.calls, 3);
  ASSERT_THAT(maker.Get(*stream, 4, "4444"), IsOk());
  EXPECT_EQ(maker.calls, 4);
  // What is larger than all the room is not kept, and costs nobody else's.
  ASSERT_THAT(maker.Get(*stream, 12, "123456789"), IsOk());
  ASSERT_THAT(maker.Get(*stream, 12, "123456789"), IsOk());
  EXPECT_EQ(maker.calls, 6);
  EXPECT_EQ(chunks.kept_bytes(), 8u);
}

TEST(SharedChunks, ErrorsAreNotKept) {
  SharedChunks chunks(100);
  Maker maker;
  const auto stream = chunks.Open(DigestOf("a"));
  EXPECT_THAT(
      stream->Get(
          0, 4, []() -> Result<grpc::Slice> { return DataLoss("truncated"); }),
      StatusIs(StatusCode::kDataLoss));
  EXPECT_EQ(*maker.Get(*stream, 0, "good"), "good");
}

TEST(SharedChunks, ManyThreads_EveryStreamGetsItsBytes) {
  constexpr uint64_t kSize = 64;
  SharedChunks chunks(20 * kSize);  // less than all of them
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) {
        const std::string name(1, static_cast<char>('a' + (t + i) % 2));
        const auto stream = chunks.Open(DigestOf(name));
        for (uint64_t offset = 0; offset < 16; ++offset) {
          const std::string text(kSize,
                                 static_cast<char>(name[0] + 2 * offset));
          const Result<grpc::Slice> slice = stream->Get(
              offset, kSize,
              [&]() -> Result<grpc::Slice> { return grpc::Slice(text); });
          if (!slice.ok() || TextOf(*slice) != text) ++wrong;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(chunks.kept_bytes(), 0u);
}

}  // namespace
}  // namespace selvage::coordinator

#include "coordinator/buffer_pool.h"

#include <memory>
#include <utility>

#include <gtest/gtest.h>

namespace selvage::coordinator {
namespace {

Bytes& Filled(BufferPool::Buffer& buffer, size_t size) {
  buffer->assign(size, uint8_t{7});
  return *buffer;
}

TEST(BufferPoolTest, Take_AfterGivingBack_IsTheSameMemoryAndEmpty) {
  BufferPool pool(1000);
  const uint8_t* memory = nullptr;
  {
    BufferPool::Buffer buffer = pool.Take(100);
    EXPECT_EQ(buffer.size(), 0U);
    EXPECT_EQ(buffer->capacity(), 100U);
    memory = Filled(buffer, 100).data();
    EXPECT_EQ(pool.kept_bytes(), 0U);
  }
  EXPECT_EQ(pool.kept_bytes(), 100U);
  BufferPool::Buffer again = pool.Take(100);
  EXPECT_EQ(again.size(), 0U);
  EXPECT_EQ(Filled(again, 100).data(), memory);
  EXPECT_EQ(pool.kept_bytes(), 0U);
}

TEST(BufferPoolTest, Take_OfAnotherSize_IsFreshMemory) {
  BufferPool pool(1000);
  { const BufferPool::Buffer small = pool.Take(100); }
  { const BufferPool::Buffer large = pool.Take(200); }
  EXPECT_EQ(pool.kept_bytes(), 300U);
  const BufferPool::Buffer other = pool.Take(150);  // 200 is far too large
  EXPECT_EQ(pool.kept_bytes(), 300U);
  const BufferPool::Buffer near = pool.Take(190);
  EXPECT_EQ(pool.kept_bytes(), 100U);
}

TEST(BufferPoolTest, KeptAndOut_StayWithinTheBound) {
  BufferPool pool(250);
  {
    BufferPool::Buffer a = pool.Take(100);
    BufferPool::Buffer b = pool.Take(100);
    BufferPool::Buffer c = pool.Take(100);  // admission is somebody else's
    a = BufferPool::Buffer();
    EXPECT_EQ(pool.kept_bytes(), 0U);  // 200 are out
    b = BufferPool::Buffer();
    EXPECT_EQ(pool.kept_bytes(), 100U);
  }
  EXPECT_EQ(pool.kept_bytes(), 200U);
  const BufferPool::Buffer other = pool.Take(60);  // the older one made room
  EXPECT_EQ(pool.kept_bytes(), 100U);
  { const BufferPool::Buffer huge = pool.Take(1000); }  // is not kept
  EXPECT_EQ(pool.kept_bytes(), 0U);
}

TEST(BufferPoolTest, Clear_GivesUpWhatNobodyUses) {
  BufferPool pool(1000);
  BufferPool::Buffer used = pool.Take(100);
  { const BufferPool::Buffer unused = pool.Take(100); }
  pool.Clear();
  EXPECT_EQ(pool.kept_bytes(), 0U);
  used = BufferPool::Buffer();
  EXPECT_EQ(pool.kept_bytes(), 100U);
}

TEST(BufferPoolTest, Buffer_MovedOrOfNoPool_IsGivenBackOnce) {
  BufferPool pool(1000);
  BufferPool::Buffer from = pool.Take(100);
  BufferPool::Buffer to(std::move(from));
  from = BufferPool::Buffer(Bytes(5));
  EXPECT_EQ(from.size(), 5U);
  EXPECT_EQ(ByteSpan(from).size(), 5U);
  to = std::move(from);
  EXPECT_EQ(pool.kept_bytes(), 100U);
  to = BufferPool::Buffer();
  EXPECT_EQ(pool.kept_bytes(), 100U);
}

TEST(BufferPoolTest, Buffer_OutlivesThePool) {
  auto pool = std::make_unique<BufferPool>(1000);
  BufferPool::Buffer buffer = pool->Take(100);
  pool.reset();
  EXPECT_EQ(Filled(buffer, 100).size(), 100U);
}

}  // namespace
}  // namespace selvage::coordinator

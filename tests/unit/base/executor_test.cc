#include "base/executor.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace selvage {
namespace {

TEST(ExecutorTest, Run_AnyCount_RunsEveryJobOnceAndWaitsForAll) {
  InlineExecutor inline_executor;
  ThreadExecutor one(1);
  ThreadExecutor two(2);
  ThreadExecutor seven(7);
  for (Executor* executor :
       std::initializer_list<Executor*>{&inline_executor, &one, &two, &seven}) {
    for (const size_t count : {0U, 1U, 2U, 7U, 1000U}) {
      std::vector<std::atomic<int>> runs(count);
      executor->Run(count, [&](size_t job) { ++runs[job]; });
      for (const std::atomic<int>& run : runs) EXPECT_EQ(run, 1);
    }
  }
}

TEST(ExecutorTest, Concurrency_IsTheNumberOfThreads) {
  EXPECT_EQ(InlineExecutor().concurrency(), 1U);
  for (const size_t threads : {1U, 2U, 5U}) {
    EXPECT_EQ(ThreadExecutor(threads).concurrency(), threads);
  }
}

TEST(ExecutorTest, Run_Inline_StaysOnTheCallersThreadInOrder) {
  std::vector<size_t> order;
  InlineExecutor().Run(4, [&](size_t job) { order.push_back(job); });
  EXPECT_EQ(order, (std::vector<size_t>{0, 1, 2, 3}));
  std::set<std::thread::id> threads;
  ThreadExecutor(1).Run(
      4, [&](size_t) { threads.insert(std::this_thread::get_id()); });
  EXPECT_EQ(threads, std::set<std::thread::id>{std::this_thread::get_id()});
}

// Three jobs that end only once all three have begun.
TEST(ExecutorTest, Run_AsManyJobsAsThreads_RunAtTheSameTime) {
  ThreadExecutor executor(3);
  std::mutex mu;
  std::condition_variable changed;
  int begun = 0;
  executor.Run(3, [&](size_t) {
    std::unique_lock<std::mutex> lock(mu);
    ++begun;
    changed.notify_all();
    changed.wait(lock, [&] { return begun == 3; });
  });
  EXPECT_EQ(begun, 3);
}

TEST(ExecutorTest, Run_FromSeveralThreads_OneAfterTheOther) {
  ThreadExecutor executor(3);
  std::atomic<int> total{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&] {
      for (int round = 0; round < 100; ++round) {
        std::atomic<int> mine{0};
        executor.Run(10, [&](size_t) {
          ++mine;
          ++total;
        });
        EXPECT_EQ(mine, 10);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(total, 4000);
}

TEST(ExecutorTest, Destruction_WithoutWork_Ends) { ThreadExecutor idle(4); }

}  // namespace
}  // namespace selvage

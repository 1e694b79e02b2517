// Where work that can be cut into pieces runs. The caller names the executor;
// nothing starts threads behind its back.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace selvage {

class Executor {
 public:
  virtual ~Executor() = default;
  // How many jobs may run at the same time; >= 1.
  virtual size_t concurrency() const = 0;
  // Runs job(0) .. job(count - 1), each once, in any order, perhaps at the same
  // time; returns when all have ended. Jobs do not throw.
  virtual void Run(size_t count, const std::function<void(size_t)>& job) = 0;
};

// Everything on the caller's thread.
class InlineExecutor final : public Executor {
 public:
  size_t concurrency() const override { return 1; }
  void Run(size_t count, const std::function<void(size_t)>& job) override {
    for (size_t i = 0; i < count; ++i) job(i);
  }
};

// The caller's thread and `threads - 1` others that wait for work. One Run() at
// a time, the others wait. Thread-safe; a job must not call Run().
class ThreadExecutor final : public Executor {
 public:
  explicit ThreadExecutor(size_t threads);  // >= 1
  ~ThreadExecutor() override;
  ThreadExecutor(const ThreadExecutor&) = delete;
  ThreadExecutor& operator=(const ThreadExecutor&) = delete;

  size_t concurrency() const override { return threads_.size() + 1; }
  void Run(size_t count, const std::function<void(size_t)>& job) override;

 private:
  void Work();
  // Runs jobs until none is left to start. `lock` is held before and after.
  void RunJobs(std::unique_lock<std::mutex>& lock);

  std::mutex run_mu_;  // one Run() at a time
  std::mutex mu_;      // everything below
  std::condition_variable changed_;
  const std::function<void(size_t)>* job_ = nullptr;
  size_t count_ = 0;
  size_t next_ = 0;
  size_t running_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace selvage

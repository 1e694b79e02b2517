#include "base/executor.h"

#include "base/check.h"

namespace selvage {

ThreadExecutor::ThreadExecutor(size_t threads) {
  SELVAGE_CHECK(threads >= 1);
  for (size_t i = 1; i < threads; ++i) {
    threads_.emplace_back([this] { Work(); });
  }
}

ThreadExecutor::~ThreadExecutor() {
  {
    std::lock_guard<std::mutex> lock(mu_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadExecutor::RunJobs(std::unique_lock<std::mutex>& lock) {
  while (next_ < count_) {
    const size_t index = next_++;
    const std::function<void(size_t)>& job = *job_;
    ++running_;
    lock.unlock();
    job(index);
    lock.lock();
    --running_;
  }
}

void ThreadExecutor::Work() {
  std::unique_lock<std::mutex> lock(mu_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || next_ < count_; });
    if (stopping_) return;
    RunJobs(lock);
    if (running_ == 0) changed_.notify_all();
  }
}

void ThreadExecutor::Run(size_t count, const std::function<void(size_t)>& job) {
  std::lock_guard<std::mutex> one(run_mu_);
  std::unique_lock<std::mutex> lock(mu_);
  job_ = &job;
  count_ = count;
  next_ = 0;
  lock.unlock();
  if (count > 1) changed_.notify_all();
  lock.lock();
  RunJobs(lock);
  changed_.wait(lock, [this] { return running_ == 0; });
  count_ = 0;
  next_ = 0;
  job_ = nullptr;
}

}  // namespace selvage

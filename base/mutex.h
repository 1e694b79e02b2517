// Mutex and MutexLock: std::mutex that clang's -Wthread-safety can check.
//
// Why not absl::Mutex: Debian's libabsl is not built with ThreadSanitizer, so
// every absl::Mutex critical section is reported as a race (see docs/style.md,
// "Sanitizers").
#pragma once

#include <mutex>

#if defined(__clang__)
#define SELVAGE_TSA(x) __attribute__((x))
#else
#define SELVAGE_TSA(x)
#endif

#define SELVAGE_CAPABILITY(name) SELVAGE_TSA(capability(name))
#define SELVAGE_SCOPED_CAPABILITY SELVAGE_TSA(scoped_lockable)
#define SELVAGE_GUARDED_BY(mu) SELVAGE_TSA(guarded_by(mu))
#define SELVAGE_REQUIRES(...) SELVAGE_TSA(requires_capability(__VA_ARGS__))
#define SELVAGE_EXCLUDES(...) SELVAGE_TSA(locks_excluded(__VA_ARGS__))
#define SELVAGE_ACQUIRE(...) SELVAGE_TSA(acquire_capability(__VA_ARGS__))
#define SELVAGE_RELEASE(...) SELVAGE_TSA(release_capability(__VA_ARGS__))

namespace selvage {

class SELVAGE_CAPABILITY("mutex") Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void Lock() SELVAGE_ACQUIRE() { mu_.lock(); }
  void Unlock() SELVAGE_RELEASE() { mu_.unlock(); }

 private:
  std::mutex mu_;
};

class SELVAGE_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mu) SELVAGE_ACQUIRE(mu) : mu_(mu) { mu_.Lock(); }
  ~MutexLock() SELVAGE_RELEASE() { mu_.Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mu_;
};

}  // namespace selvage

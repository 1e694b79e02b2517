// A SQLite VFS in memory that forgets what a power cut would forget.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/random.h"

namespace selvage::test {

// Open a database with name() as its VFS, e.g.
//   SQLite::Database(path, flags, /*busy timeout*/ 0, vfs.name());
// Any absolute path will do; folders need not exist. WAL works, its shared
// memory included. The rules are those of SQLite's own VFS for unix, at their
// worst:
//   - writes and truncations are durable after the file's xSync;
//   - names (files made and deleted) are durable after the first xSync of a
//     journal or WAL made in the same folder, or after an xDelete that asks for
//     it;
//   - writes whose xSync failed never become durable.
//
// Thread-safe. Close every database before the FaultVfs goes away (closing
// after a Crash() is fine). Deterministic, SQLite's randomness included; only a
// connection that waits for another thread's lock sleeps.
class FaultVfs {
 public:
  static constexpr uint64_t kForever = std::numeric_limits<uint64_t>::max();

  // Registers itself with SQLite under a name no other VFS has.
  FaultVfs();
  ~FaultVfs();
  FaultVfs(const FaultVfs&) = delete;
  FaultVfs& operator=(const FaultVfs&) = delete;

  const std::string& name() const;

  // The machine loses power and starts again: nothing that is not durable is
  // left, no lock is held. Connections that were open get SQLITE_IOERR from now
  // on; close them and open again. Faults and the free space stay as set.
  void Crash();

  // As Crash(), but of what is not durable some survives, as chance has it:
  // each write, truncation and name since the last xSync alone, in order.
  void CrashTorn(RandomSource& random);

  // After `operations` more operations, the next `times` fail with an
  // SQLITE_IOERR_... (opening: SQLITE_CANTOPEN) and do nothing. Operations are
  // xOpen, xDelete, xAccess, xRead, xWrite, xTruncate, xSync and xFileSize.
  void FailAfter(uint64_t operations, uint64_t times = kForever);
  void ClearFaults();

  // The disk has room for `bytes` more; then a write that makes a file longer
  // is SQLITE_FULL. Deleting and truncating makes room. nullopt: no limit.
  void SetFreeBytes(std::optional<uint64_t> bytes);

  // Operations so far, those that failed included.
  uint64_t operations() const;
  // xSync calls that succeeded.
  uint64_t syncs() const;
  // The paths of the files there are, sorted.
  std::vector<std::string> Files() const;
  // The bytes of a file as the operating system shows them; nullopt if there is
  // none. For tests that look for what must not be in a database.
  std::optional<std::string> Contents(const std::string& path) const;

  struct State;

 private:
  std::unique_ptr<State> state_;
};

}  // namespace selvage::test

// A PostgreSQL of a test's own, and a PgBouncer before it: in a temporary
// directory, on a Unix socket, with fsync on. They end, and their directory
// goes, with the process, also when it crashes.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "base/status.h"

struct pg_conn;  // of libpq

namespace selvage::test {

// A program that a shell watches over: it is stopped, and `directory` removed,
// when this object or the process is gone. Not as root: as user `postgres` or
// `nobody` then. Thread-compatible.
class WatchedProgram {
 public:
  // `stop`: the signal that ends it at once, e.g. "QUIT".
  WatchedProgram(const std::vector<std::string>& command, const Path& directory,
                 const std::string& stop);
  ~WatchedProgram();
  WatchedProgram(const WatchedProgram&) = delete;
  WatchedProgram& operator=(const WatchedProgram&) = delete;

  void Start();
  // SIGKILL to it and its children.
  void Kill();

 private:
  void Tell(const std::string& line);

  int commands_ = -1;
  int watcher_ = -1;
};

// LISTENs on a channel. Aborts if it cannot.
class PostgresListener {
 public:
  PostgresListener(const std::string& address, const std::string& channel);
  ~PostgresListener();
  PostgresListener(const PostgresListener&) = delete;
  PostgresListener& operator=(const PostgresListener&) = delete;
  // The payload of the next notification; nothing if none comes in ten seconds.
  std::optional<std::string> Next();

 private:
  pg_conn* const connection_;
};

// Thread-compatible.
class PostgresServer {
 public:
  // What is missing to start one ("/usr/lib/postgresql/15/bin: install
  // postgresql-15"); nothing if it can be started.
  static std::optional<std::string> Missing();
  static std::optional<std::string> PgBouncerMissing();

  // Runs initdb and starts the server. INTERNAL with the end of its log.
  static Result<std::unique_ptr<PostgresServer>> Start();
  ~PostgresServer();

  // The address of a database, as `user`. "selvage" is superuser,
  // "coordinator" owns what CreateDatabase() makes.
  std::string Address(const std::string& database,
                      const std::string& user = "coordinator") const;
  // Its Unix socket.
  std::string SocketPath() const;
  // A new database like `like`; "template0" is an empty one.
  Status CreateDatabase(const std::string& name, const std::string& like);
  // One statement as superuser.
  Status Execute(const std::string& statement,
                 const std::string& database = "postgres");
  // Its first column of its first row.
  Result<std::string> Ask(const std::string& query,
                          const std::string& database = "postgres");
  // kill -9 of the server with everything it started, and a start.
  Status KillAndRestart();
  // The two halves: returns when nobody can connect any more, or can again.
  Status Kill();
  Status StartAgain();

  // Starts PgBouncer in transaction mode before this server. `pool_size`
  // server connections per database.
  Status StartPgBouncer(int pool_size);
  // The same as Address(), through PgBouncer.
  std::string PgBouncerAddress(const std::string& database) const;

  int max_connections() const { return 30; }

 private:
  explicit PostgresServer(Path directory) : directory_(std::move(directory)) {}
  Status AwaitReady(const std::string& address);

  const Path directory_;
  std::unique_ptr<WatchedProgram> server_;
  std::unique_ptr<WatchedProgram> bouncer_;
};

}  // namespace selvage::test

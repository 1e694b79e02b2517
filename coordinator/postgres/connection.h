// One connection to PostgreSQL, over libpq.
//
// Why not libpqxx: the one of Debian 12 (6.4) reconnects by itself in the
// middle of a transaction, after which a statement runs outside of it; it has
// no SQLSTATE for a lost connection, and it waits for ever on a server that
// does not answer.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/time.h"

struct pg_conn;
struct pg_result;

namespace selvage::coordinator {

// What went wrong with a statement. Thrown; PostgresStore::Read() and Write()
// turn it into a Status.
struct PostgresError {
  std::string sqlstate;  // five characters; empty: the server said nothing
  std::string message;   // one line
  bool lost = false;     // the connection is of no use any more
};

// A list of connection parameters as libpq takes them ("host=db user=x" or a
// postgresql:// address), parsed. INVALID_ARGUMENT, with none of its text: it
// does not parse, or it has a password, which belongs into a file.
Status CheckConnectionString(const std::string& text);

struct ConnectOptions {
  std::string conninfo;  // CheckConnectionString() is OK with it
  std::string password =
      {};  // empty: PGPASSWORD, PGPASSFILE, ~/.pgpass or none
  Duration timeout = std::chrono::seconds(5);  // to connect; at least 2 s
};

// Thread-compatible.
class Connection {
 public:
  using Rows = std::shared_ptr<const pg_result>;

  // UNAVAILABLE: nobody there, too many connections, refused.
  static Result<std::unique_ptr<Connection>> Open(
      const ConnectOptions& options);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // How long the following calls may take together before the connection
  // counts as lost.
  void SetBudget(Duration budget);

  // Statements without parameters, separated by semicolons. Returns the rows
  // of the last one. Throws PostgresError.
  Rows Run(const std::string& statements);
  // One statement; $1, $2, ... are `parameters`, as text. Throws PostgresError,
  // with sqlstate 22021 for a parameter that has a NUL.
  Rows Run(const std::string& statement,
           const std::vector<std::string>& parameters);

  // Waits for notifications on a channel that LISTEN named, without a limit;
  // their payloads. None: `stop` (a descriptor) became readable first.
  // UNAVAILABLE: the connection is lost.
  Result<std::vector<std::string>> AwaitNotifications(int stop);

  bool lost() const { return lost_; }
  // As the server, or whatever stands before it, said when it was opened.
  int backend_process() const;
  int server_version() const;  // 150004: 15.4

 private:
  explicit Connection(pg_conn* connection) : connection_(connection) {}

  Rows Finish(bool sent);
  void WaitForResult();
  [[noreturn]] void ThrowLost(const std::string& message);

  pg_conn* connection_;
  bool lost_ = false;
  Time deadline_{};  // of SteadyClock; zero: none
};

}  // namespace selvage::coordinator

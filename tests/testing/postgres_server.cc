#include "tests/testing/postgres_server.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include <libpq-fe.h>

namespace selvage::test {
namespace {

constexpr char kPgBouncer[] = "/usr/sbin/pgbouncer";
constexpr int kReadyMillis = 60'000;
constexpr int kPollMillis = 20;

// The newest PostgreSQL of Debian's packages; empty if there is none.
Path Binaries() {
  Path best;
  int newest = 0;
  std::error_code error;
  for (const auto& entry :
       std::filesystem::directory_iterator("/usr/lib/postgresql", error)) {
    const int version = std::atoi(entry.path().filename().c_str());
    if (version > newest &&
        std::filesystem::exists(entry.path() / "bin" / "initdb")) {
      newest = version;
      best = entry.path() / "bin";
    }
  }
  return best;
}

// PostgreSQL and PgBouncer refuse to run as root.
const passwd* ServerUser() {
  if (geteuid() != 0) return nullptr;
  const passwd* user = getpwnam("postgres");
  return user != nullptr ? user : getpwnam("nobody");
}

// Runs `command` as the server's user with `input` as its standard input.
// Between fork and exec nothing allocates.
int Spawn(const std::vector<std::string>& command, int input, int output) {
  std::vector<char*> arguments;
  for (const std::string& argument : command) {
    arguments.push_back(const_cast<char*>(argument.c_str()));
  }
  arguments.push_back(nullptr);
  const passwd* user = ServerUser();
  const uid_t uid = user == nullptr ? 0 : user->pw_uid;
  const gid_t gid = user == nullptr ? 0 : user->pw_gid;
  const int child = fork();
  if (child != 0) return child;
  if (setsid() < 0) _exit(126);
  if (user != nullptr &&
      (setgroups(0, nullptr) != 0 || setgid(gid) != 0 || setuid(uid) != 0)) {
    _exit(126);
  }
  dup2(input, STDIN_FILENO);
  dup2(output, STDOUT_FILENO);
  dup2(output, STDERR_FILENO);
  execv(arguments[0], arguments.data());
  _exit(127);
}

std::string Tail(const Path& file) {
  std::ifstream in(file);
  std::stringstream text;
  text << in.rdbuf();
  const std::string all = text.str();
  return all.size() > 2000 ? all.substr(all.size() - 2000) : all;
}

struct Connected {
  explicit Connected(const std::string& address)
      : connection(PQconnectdb(address.c_str())) {}
  ~Connected() { PQfinish(connection); }
  PGconn* connection;
};

}  // namespace

WatchedProgram::WatchedProgram(const std::vector<std::string>& command,
                               const Path& directory, const std::string& stop) {
  // Reads what to do; at the end of its input, which is when the test is gone,
  // it cleans up.
  static constexpr char kWatcher[] =
      "cd / || exit 1; directory=$1; stop=$2; shift 2; p=\n"
      "while read -r what; do case $what in\n"
      "start) \"$@\" >>\"$directory/log\" 2>&1 & p=$! ;;\n"
      // Stopped first: a child born between the list and the signals would
      // outlive it, and keep the next server out.
      "kill) kill -STOP $p; sleep 0.05\n"
      "kill -9 $p $(cat /proc/$p/task/$p/children); wait $p ;;\n"
      "esac; done 2>/dev/null\n"
      "kill -$stop $p; wait; rm -rf \"$directory\"\n";
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) std::abort();
  std::vector<std::string> watcher = {
      "/bin/sh", "-c", kWatcher, "watcher", directory.string(), stop};
  watcher.insert(watcher.end(), command.begin(), command.end());
  const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
  watcher_ = Spawn(watcher, ends[0], null);
  close(null);
  close(ends[0]);
  commands_ = ends[1];
}

WatchedProgram::~WatchedProgram() {
  close(commands_);
  waitpid(watcher_, nullptr, 0);
}

void WatchedProgram::Tell(const std::string& line) {
  if (write(commands_, line.data(), line.size()) !=
      static_cast<ssize_t>(line.size())) {
    std::abort();
  }
}

void WatchedProgram::Start() { Tell("start\n"); }
void WatchedProgram::Kill() { Tell("kill\n"); }

PostgresListener::PostgresListener(const std::string& address,
                                   const std::string& channel)
    : connection_(PQconnectdb(address.c_str())) {
  PGresult* result = PQexec(connection_, ("LISTEN " + channel).c_str());
  if (PQresultStatus(result) != PGRES_COMMAND_OK) std::abort();
  PQclear(result);
}

PostgresListener::~PostgresListener() { PQfinish(connection_); }

std::optional<std::string> PostgresListener::Next() {
  constexpr int kPatienceMillis = 10'000;
  for (;;) {
    if (PQconsumeInput(connection_) == 0) return std::nullopt;
    if (PGnotify* notify = PQnotifies(connection_)) {
      std::string payload = notify->extra;
      PQfreemem(notify);
      return payload;
    }
    pollfd wait{PQsocket(connection_), POLLIN, 0};
    if (poll(&wait, 1, kPatienceMillis) <= 0) return std::nullopt;
  }
}

std::optional<std::string> PostgresServer::Missing() {
  if (Binaries().empty()) {
    return "no PostgreSQL in /usr/lib/postgresql: apt-get install "
           "postgresql-15";
  }
  if (geteuid() == 0 && ServerUser() == nullptr) {
    return "PostgreSQL refuses to run as root, and there is no user postgres "
           "or nobody";
  }
  return std::nullopt;
}

std::optional<std::string> PostgresServer::PgBouncerMissing() {
  if (std::filesystem::exists(kPgBouncer)) return std::nullopt;
  return std::string("no ") + kPgBouncer + ": apt-get install pgbouncer";
}

Result<std::unique_ptr<PostgresServer>> PostgresServer::Start() {
  std::string pattern =
      (std::filesystem::temp_directory_path() / "selvage-pg-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) return Internal("mkdtemp " + pattern);
  const Path directory = pattern;
  if (const passwd* user = ServerUser();
      user != nullptr &&
      chown(pattern.c_str(), user->pw_uid, user->pw_gid) != 0) {
    return Internal("chown " + pattern);
  }
  std::unique_ptr<PostgresServer> server(new PostgresServer(directory));
  const Path data = directory / "data";
  server->server_ = std::make_unique<WatchedProgram>(
      std::vector<std::string>{
          (Binaries() / "postgres").string(), "-D", data.string(), "-k",
          directory.string(), "-c", "listen_addresses=", "-c",
          "shared_buffers=16MB", "-c",
          "max_connections=" + std::to_string(server->max_connections()), "-c",
          "fsync=on"},
      directory, "QUIT");
  const Path log = directory / "initdb.log";
  const int output =
      open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
  const int initdb = Spawn(
      {(Binaries() / "initdb").string(), "-D", data.string(), "-U", "selvage",
       "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"},
      null, output);
  close(output);
  close(null);
  int status = 0;
  waitpid(initdb, &status, 0);
  if (status != 0) return Internal("initdb: " + Tail(log));
  server->server_->Start();
  SELVAGE_RETURN_IF_ERROR(
      server->AwaitReady(server->Address("postgres", "selvage")));
  SELVAGE_RETURN_IF_ERROR(server->Execute("CREATE ROLE coordinator LOGIN"));
  return server;
}

// The bouncer's directory is below the server's.
PostgresServer::~PostgresServer() {
  bouncer_.reset();
  server_.reset();
}

Status PostgresServer::AwaitReady(const std::string& address) {
  for (int waited = 0; waited < kReadyMillis; waited += kPollMillis) {
    const Connected connected(address);
    if (PQstatus(connected.connection) == CONNECTION_OK) return OkStatus();
    poll(nullptr, 0, kPollMillis);
  }
  return Internal("not ready: " + address + ": " + Tail(directory_ / "log"));
}

std::string PostgresServer::Address(const std::string& database,
                                    const std::string& user) const {
  return "host=" + directory_.string() + " dbname=" + database +
         " user=" + user;
}

std::string PostgresServer::SocketPath() const {
  return (directory_ / ".s.PGSQL.5432").string();
}

Result<std::string> PostgresServer::Ask(const std::string& query,
                                        const std::string& database) {
  const Connected connected(Address(database, "selvage"));
  PGresult* result = PQexec(connected.connection, query.c_str());
  const ExecStatusType status = PQresultStatus(result);
  const bool ok = status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK;
  const std::string text =
      !ok ? PQresultErrorMessage(result)
          : (PQntuples(result) > 0 ? PQgetvalue(result, 0, 0) : "");
  PQclear(result);
  if (!ok) return Internal(query + ": " + text);
  return text;
}

Status PostgresServer::Execute(const std::string& statement,
                               const std::string& database) {
  return Ask(statement, database).status();
}

Status PostgresServer::CreateDatabase(const std::string& name,
                                      const std::string& like) {
  return Execute("CREATE DATABASE " + name + " TEMPLATE " + like +
                 " OWNER coordinator");
}

Status PostgresServer::KillAndRestart() {
  static constexpr char kStarted[] = "SELECT pg_postmaster_start_time()";
  SELVAGE_ASSIGN_OR_RETURN(const std::string before, Ask(kStarted));
  server_->Kill();
  server_->Start();
  for (int waited = 0; waited < kReadyMillis; waited += kPollMillis) {
    const Result<std::string> now = Ask(kStarted);
    if (now.ok() && *now != before) return OkStatus();
    poll(nullptr, 0, kPollMillis);
  }
  return Internal("not restarted: " + Tail(directory_ / "log"));
}

Status PostgresServer::Kill() {
  server_->Kill();
  for (int waited = 0; waited < kReadyMillis; waited += kPollMillis) {
    if (!Ask("SELECT 1").ok()) return OkStatus();
    poll(nullptr, 0, kPollMillis);
  }
  return Internal("it was killed and still answers");
}

Status PostgresServer::StartAgain() {
  server_->Start();
  for (int waited = 0; waited < kReadyMillis; waited += kPollMillis) {
    if (Ask("SELECT 1").ok()) return OkStatus();
    poll(nullptr, 0, kPollMillis);
  }
  return Internal("not started: " + Tail(directory_ / "log"));
}

Status PostgresServer::StartPgBouncer(int pool_size) {
  const Path directory = directory_ / "bouncer";
  std::filesystem::create_directory(directory);
  const Path ini = directory / "pgbouncer.ini";
  std::ofstream(ini) << "[databases]\n* = host=" << directory_.string()
                     << " user=coordinator\n[pgbouncer]\n"
                     << "unix_socket_dir = " << directory.string()
                     << "\nlisten_addr =\nauth_type = any\n"
                     << "pool_mode = transaction\nmax_client_conn = 200\n"
                     << "default_pool_size = " << pool_size << "\n";
  if (const passwd* user = ServerUser();
      user != nullptr &&
      (chown(directory.c_str(), user->pw_uid, user->pw_gid) != 0 ||
       chown(ini.c_str(), user->pw_uid, user->pw_gid) != 0)) {
    return Internal("chown " + directory.string());
  }
  bouncer_ = std::make_unique<WatchedProgram>(
      std::vector<std::string>{kPgBouncer, ini.string()}, directory, "TERM");
  bouncer_->Start();
  return AwaitReady(PgBouncerAddress("postgres"));
}

std::string PostgresServer::PgBouncerAddress(
    const std::string& database) const {
  return "host=" + (directory_ / "bouncer").string() +
         " port=6432 dbname=" + database + " user=coordinator";
}

}  // namespace selvage::test

#include "coordinator/postgres/round_listener.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <charconv>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "coordinator/postgres/postgres_sql.h"
#include "coordinator/postgres/postgres_store.h"

namespace selvage::coordinator {
namespace {

constexpr int kReconnectMillis = 5000;
constexpr Duration kStatementTime = std::chrono::seconds(5);

}  // namespace

RoundListener::RoundListener(const ConnectOptions& options, EventSink& log,
                             std::function<void(uint64_t)> on_hint)
    : options_(options), log_(log), on_hint_(std::move(on_hint)) {
  SELVAGE_CHECK(pipe2(stop_pipe_, O_CLOEXEC) == 0);
  thread_ = std::thread([this] { Run(); });
}

RoundListener::~RoundListener() {
  close(stop_pipe_[1]);  // the reading end becomes readable
  thread_.join();
  close(stop_pipe_[0]);
}

bool RoundListener::Pause() {
  pollfd stop{};
  stop.fd = stop_pipe_[0];
  stop.events = POLLIN;
  return poll(&stop, 1, kReconnectMillis) <= 0;
}

void RoundListener::Run() {
  for (bool said = false;;) {
    const Status lost = Listen();
    if (lost.ok()) return;
    if (!said) {
      log_.Write(LogLevel::kInfo, "round_hints_lost",
                 {{"reason", lost.ToString()}});
    }
    said = true;
    if (!Pause()) return;
  }
}

Status RoundListener::Listen() {
  SELVAGE_ASSIGN_OR_RETURN(const std::unique_ptr<Connection> db,
                           Connection::Open(options_));
  try {
    db->SetBudget(kStatementTime);
    int64_t process = 0;
    {
      PostgresSql sql(*db, "SELECT pg_backend_pid()");
      if (sql.Next()) sql.Columns(process);
    }
    // A pooler tells its clients a process id of its own making.
    if (process != db->backend_process()) {
      log_.Write(LogLevel::kInfo, "round_hints_off",
                 {{"reason", "the database is behind a pooler"}});
      return OkStatus();
    }
    db->Run(std::string("LISTEN ") + kRoundChannel);
    for (;;) {
      SELVAGE_ASSIGN_OR_RETURN(const std::vector<std::string> payloads,
                               db->AwaitNotifications(stop_pipe_[0]));
      if (payloads.empty()) return OkStatus();
      std::set<uint64_t> tasks;
      for (const std::string& payload : payloads) {
        uint64_t task = 0;
        std::from_chars(payload.data(), payload.data() + payload.size(), task);
        tasks.insert(task);
      }
      for (const uint64_t task : tasks) on_hint_(task);
    }
  } catch (const PostgresError& error) {
    return Unavailable("database: " + error.message);
  }
}

}  // namespace selvage::coordinator

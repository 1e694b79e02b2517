#include "coordinator/postgres/connection.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include <libpq-fe.h>

#include "coordinator/postgres/steady_clock.h"

namespace selvage::coordinator {
namespace {

// libpq's messages have several lines and end with one.
std::string OneLine(const char* text) {
  std::string line = text == nullptr ? "" : text;
  while (!line.empty() && (line.back() == '\n' || line.back() == ' ')) {
    line.pop_back();
  }
  std::replace(line.begin(), line.end(), '\n', ' ');
  std::replace(line.begin(), line.end(), '\t', ' ');
  return line;
}

// The server ends the connection with these, or is no longer behind it.
bool EndsConnection(const std::string& sqlstate) {
  return sqlstate.starts_with("08") || sqlstate == "57P01" ||
         sqlstate == "57P02" || sqlstate == "57P03" || sqlstate == "25P03";
}

using ConnInfo = std::unique_ptr<PQconninfoOption, decltype(&PQconninfoFree)>;

ConnInfo Parse(const std::string& text) {
  return ConnInfo(PQconninfoParse(text.c_str(), nullptr), PQconninfoFree);
}

// Milliseconds for poll(), rounded up.
int PollMillis(Duration left) {
  return static_cast<int>(
      std::clamp<int64_t>((left.count() + 999) / 1000, 0, 3'600'000));
}

}  // namespace

Status CheckConnectionString(const std::string& text) {
  if (text.find('\0') != std::string::npos) {
    return InvalidArgument("the connection string has a NUL");
  }
  const ConnInfo parsed = Parse(text);
  if (parsed == nullptr) {
    return InvalidArgument(
        "the connection string is neither a list of key=value nor a "
        "postgresql:// address that libpq understands");
  }
  for (const PQconninfoOption* o = parsed.get(); o->keyword != nullptr; ++o) {
    const std::string keyword = o->keyword;
    if (o->val != nullptr &&
        (keyword == "password" || keyword == "sslpassword")) {
      return InvalidArgument("the connection string has a " + keyword +
                             ": put it into a file");
    }
  }
  return OkStatus();
}

Result<std::unique_ptr<Connection>> Connection::Open(
    const ConnectOptions& options) {
  SELVAGE_RETURN_IF_ERROR(CheckConnectionString(options.conninfo));
  const ConnInfo parsed = Parse(options.conninfo);
  if (parsed == nullptr) return ResourceExhausted("database: out of memory");
  std::vector<std::string> keywords;
  std::vector<std::string> values;
  const auto add = [&](const std::string& keyword, const std::string& value) {
    if (std::find(keywords.begin(), keywords.end(), keyword) !=
        keywords.end()) {
      return;
    }
    keywords.push_back(keyword);
    values.push_back(value);
  };
  for (const PQconninfoOption* o = parsed.get(); o->keyword != nullptr; ++o) {
    if (o->val != nullptr) add(o->keyword, o->val);
  }
  if (!options.password.empty()) add("password", options.password);
  const auto seconds = std::max<int64_t>(
      2, std::chrono::duration_cast<std::chrono::seconds>(options.timeout)
             .count());
  // What the address says comes first.
  add("connect_timeout", std::to_string(seconds));
  add("application_name", "selvage-coordinator");
  add("client_encoding", "UTF8");
  add("keepalives_idle", "30");
  add("keepalives_interval", "5");
  add("keepalives_count", "3");
  add("tcp_user_timeout", "15000");  // ms
  std::vector<const char*> keyword_pointers;
  std::vector<const char*> value_pointers;
  for (size_t i = 0; i < keywords.size(); ++i) {
    keyword_pointers.push_back(keywords[i].c_str());
    value_pointers.push_back(values[i].c_str());
  }
  keyword_pointers.push_back(nullptr);
  value_pointers.push_back(nullptr);
  PGconn* raw =
      PQconnectdbParams(keyword_pointers.data(), value_pointers.data(), 0);
  if (raw == nullptr) return ResourceExhausted("database: out of memory");
  std::unique_ptr<Connection> connection(new Connection(raw));
  if (PQstatus(raw) != CONNECTION_OK) {
    return Unavailable("database: " + OneLine(PQerrorMessage(raw)));
  }
  if (PQsetnonblocking(raw, 1) != 0) {
    return Unavailable("database: " + OneLine(PQerrorMessage(raw)));
  }
  // Notices go nowhere: errors are what the store acts on.
  PQsetNoticeReceiver(
      raw, [](void*, const PGresult*) {}, nullptr);
  return connection;
}

Connection::~Connection() { PQfinish(connection_); }

int Connection::server_version() const { return PQserverVersion(connection_); }

int Connection::backend_process() const { return PQbackendPID(connection_); }

Result<std::vector<std::string>> Connection::AwaitNotifications(int stop) {
  std::vector<std::string> payloads;
  for (;;) {
    while (PGnotify* const notification = PQnotifies(connection_)) {
      payloads.emplace_back(notification->extra);
      PQfreemem(notification);
    }
    if (!payloads.empty()) return payloads;
    pollfd wait[2] = {};
    wait[0].fd = PQsocket(connection_);
    wait[0].events = POLLIN;
    wait[1].fd = stop;
    wait[1].events = POLLIN;
    if (poll(wait, 2, -1) < 0 && errno != EINTR) {
      return Unavailable(std::string("database: poll: ") +
                         std::strerror(errno));
    }
    if (wait[1].revents != 0) return payloads;
    if (wait[0].revents != 0 && PQconsumeInput(connection_) == 0) {
      lost_ = true;
      return Unavailable("database: " + OneLine(PQerrorMessage(connection_)));
    }
  }
}

void Connection::SetBudget(Duration budget) {
  deadline_ = SteadyClock().Now() + budget;
}

void Connection::ThrowLost(const std::string& message) {
  lost_ = true;
  throw PostgresError{"", message, true};
}

// Sends what is left to send and reads until a result is complete.
void Connection::WaitForResult() {
  while (true) {
    const int unsent = PQflush(connection_);
    if (unsent < 0) ThrowLost(OneLine(PQerrorMessage(connection_)));
    if (unsent == 0 && PQisBusy(connection_) == 0) return;
    int timeout = -1;
    if (deadline_ != Time{}) {
      const Duration left = deadline_ - SteadyClock().Now();
      if (left <= Duration::zero())
        ThrowLost("the server did not answer in time");
      timeout = PollMillis(left);
    }
    pollfd wait{};
    wait.fd = PQsocket(connection_);
    wait.events = static_cast<int16_t>(POLLIN | (unsent > 0 ? POLLOUT : 0));
    if (poll(&wait, 1, timeout) < 0 && errno != EINTR) {
      ThrowLost(std::string("poll: ") + std::strerror(errno));
    }
    if (wait.revents != 0 && PQconsumeInput(connection_) == 0) {
      ThrowLost(OneLine(PQerrorMessage(connection_)));
    }
  }
}

Connection::Rows Connection::Finish(bool sent) {
  if (!sent) ThrowLost(OneLine(PQerrorMessage(connection_)));
  Rows last;
  PostgresError error;
  bool failed = false;
  while (true) {
    WaitForResult();
    PGresult* result = PQgetResult(connection_);
    if (result == nullptr) break;
    Rows rows(result,
              [](const pg_result* r) { PQclear(const_cast<pg_result*>(r)); });
    const ExecStatusType status = PQresultStatus(result);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
      if (!failed) {
        const char* sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
        const char* primary =
            PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
        error.sqlstate = sqlstate == nullptr ? "" : sqlstate;
        error.message = OneLine(
            primary != nullptr ? primary : PQresultErrorMessage(result));
        failed = true;
      }
    } else {
      last = std::move(rows);
    }
    if (PQstatus(connection_) == CONNECTION_BAD) break;
  }
  if (!failed && PQstatus(connection_) == CONNECTION_BAD) {
    ThrowLost(OneLine(PQerrorMessage(connection_)));
  }
  if (!failed) return last;
  error.lost = PQstatus(connection_) == CONNECTION_BAD ||
               EndsConnection(error.sqlstate) || error.sqlstate.empty();
  lost_ = lost_ || error.lost;
  throw error;
}

Connection::Rows Connection::Run(const std::string& statements) {
  return Finish(PQsendQuery(connection_, statements.c_str()) == 1);
}

Connection::Rows Connection::Run(const std::string& statement,
                                 const std::vector<std::string>& parameters) {
  std::vector<const char*> values;
  for (const std::string& parameter : parameters) {
    if (parameter.find('\0') != std::string::npos) {
      throw PostgresError{"22021", "text with a NUL cannot be stored", false};
    }
    values.push_back(parameter.c_str());
  }
  return Finish(PQsendQueryParams(connection_, statement.c_str(),
                                  static_cast<int>(values.size()), nullptr,
                                  values.data(), nullptr, nullptr, 0) == 1);
}

}  // namespace selvage::coordinator

// Whole runs under faults that a seed draws: shipped coordinators (one over
// SQLite, two over PostgreSQL), raw devices over mutual TLS that send, send
// again, break off and repeat themselves, and processes, database and links
// that die, stop and come back meanwhile. Then everything is mended, the task
// has to end, and a judge (judge.h) reads the histories.
//
//   SELVAGE_CHAOS_SEED, SELVAGE_CHAOS_RUNS   the first seed, how many
//   scripts/chaos --seed S                   one of them again
//
// A seed draws the schedule. What the processes make of it in real time may
// differ between runs.
#include <poll.h>

#include <cmath>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <random>
#include <sstream>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include "coordinator/api.h"
#include "tests/chaos/flaky_link.h"
#include "tests/chaos/judge.h"
#include "tests/integration/faults/harness.h"
#include "tests/testing/postgres_server.h"

namespace selvage::test {
namespace {

using ::testing::IsEmpty;

constexpr size_t kDevices = 5;
constexpr uint64_t kRounds = 3;      // that commit
constexpr uint64_t kRoundsMax = 10;  // with those that are abandoned
constexpr size_t kElements = kDevices * kRoundsMax;
constexpr char kTask[] = "one-hot";
constexpr int kStepsMax = 6000;
#if defined(__SANITIZE_ADDRESS__)
constexpr uint64_t kRunsByDefault = 5;
#else
constexpr uint64_t kRunsByDefault = 25;
#endif

constexpr char kTaskFile[] = R"(
name: one-hot
population: demo
program: native:one_hot
train: {local_epochs: 1, batch_size: 1, optimizer: {name: sgd, lr: 0.1}}
strategy: {name: fedavg, num_rounds: 3, cohort: 5, min_updates: 5, over_selection: 1, round_deadline: 10m}
update: {codec: float32, weight_cap: 1}
)";

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* const value = std::getenv(name);
  return value == nullptr ? otherwise : std::strtoull(value, nullptr, 10);
}

void Pause(int milliseconds) { poll(nullptr, 0, milliseconds); }

size_t Element(size_t device, uint64_t round) {
  return static_cast<size_t>(round - 1) * kDevices + device;
}

// ---------------------------------------------------------------- the schedule

enum class Fault {
  kKillPoint,      // it dies where it makes something durable
  kKilled,         // SIGKILL
  kTerminated,     // SIGTERM, and it comes back
  kStopped,        // SIGSTOP, with replicas beyond its lease
  kCut,            // nobody reaches it for a while
  kSlow,           // its link delays everything
  kDatabase,       // kill -9 of PostgreSQL with everything it started
  kBackends,       // pg_terminate_backend of all
  kNoConnections,  // PostgreSQL has none left for a while
  // Between one replica and PostgreSQL:
  kDatabaseCut,     // no connection, for a while
  kDatabaseFrozen,  // a black hole, longer than its lease
  kDatabaseSlow,    // everything is late
};

struct Event {
  Fault fault;
  size_t after;  // receipts
  size_t replica;
  std::string point{};  // of kKillPoint
};

struct Schedule {
  bool postgres = false;
  std::vector<Event> events;

  std::string Text() const;
};

std::string NameOf(Fault fault) {
  switch (fault) {
    case Fault::kKillPoint:
      return "dies at";
    case Fault::kKilled:
      return "is killed";
    case Fault::kTerminated:
      return "is terminated";
    case Fault::kStopped:
      return "is stopped";
    case Fault::kCut:
      return "is cut off";
    case Fault::kSlow:
      return "is slow";
    case Fault::kDatabase:
      return "PostgreSQL is killed";
    case Fault::kBackends:
      return "PostgreSQL's backends are terminated";
    case Fault::kNoConnections:
      return "PostgreSQL has no connections left";
    case Fault::kDatabaseCut:
      return "is cut off from PostgreSQL";
    case Fault::kDatabaseFrozen:
      return "hears nothing from PostgreSQL";
    case Fault::kDatabaseSlow:
      return "is slow to reach PostgreSQL";
  }
  return "";
}

std::string Schedule::Text() const {
  std::ostringstream out;
  out << (postgres ? "postgres, 2 replicas" : "sqlite");
  for (const Event& event : events) {
    out << "; after " << event.after << " receipts ";
    if (event.fault < Fault::kDatabase || event.fault >= Fault::kDatabaseCut)
      out << "replica " << event.replica << " ";
    out << NameOf(event.fault);
    if (!event.point.empty()) out << " " << event.point;
  }
  return out.str();
}

class Draw {
 public:
  explicit Draw(uint64_t seed) : engine_(seed) {}
  uint64_t Below(uint64_t n) { return engine_() % n; }

 private:
  std::mt19937_64 engine_;
};

Schedule DrawSchedule(uint64_t seed, bool postgres) {
  static const std::vector<std::string> kFilePoints = {
      "before.file.create", "before.file.append",    "before.file.sync",
      "before.file.rename", "before.directory.sync", "before.file.remove"};
  Draw draw(seed * 2 + (postgres ? 1 : 0));
  Schedule schedule;
  schedule.postgres = postgres;
  std::vector<std::string> points = kFilePoints;
  const std::vector<std::string> store =
      postgres ? std::vector<std::string>{"before.transaction.commit",
                                          "after.transaction.commit"}
               : std::vector<std::string>{"before.transaction.write",
                                          "before.transaction.sync",
                                          "after.transaction.sync"};
  // As often as the files', though there are fewer names.
  for (int i = 0; i < 3; ++i) {
    points.insert(points.end(), store.begin(), store.end());
  }
  const uint64_t kinds = postgres ? 12 : 6;
  const uint64_t count = 1 + draw.Below(3);
  std::vector<bool> has_point(2);
  for (uint64_t i = 0; i < count; ++i) {
    Event event;
    // Every third is a kill point.
    event.fault = draw.Below(3) == 0 ? Fault::kKillPoint
                                     : static_cast<Fault>(draw.Below(kinds));
    event.after = draw.Below(kDevices * kRounds);
    event.replica = postgres ? draw.Below(2) : 0;
    if (event.fault == Fault::kKillPoint) {
      if (has_point[event.replica]) event.fault = Fault::kKilled;
      has_point[event.replica] = true;
    }
    if (event.fault == Fault::kKillPoint) {
      event.point = points[draw.Below(points.size())] + ":" +
                    std::to_string(1 + draw.Below(5));
    }
    schedule.events.push_back(std::move(event));
  }
  return schedule;
}

// ---------------------------------------------------------------------- a run

class Drill {
 public:
  // `database` of `postgres` is there and empty; nullptr: SQLite.
  Drill(uint64_t seed, Schedule schedule, Path root, PostgresServer* postgres,
        std::string database)
      : schedule_(std::move(schedule)),
        root_(std::move(root)),
        postgres_(postgres),
        database_(std::move(database)),
        draw_(seed),
        replicas_(schedule_.postgres ? 2 : 1),
        devices_(kDevices) {}

  ~Drill() {
    for (Replica& replica : replicas_) Wake(replica);
  }

  History Play() {
    SetUp();
    for (int step = 0; step < kStepsMax && !Done(step); ++step) {
      Inflict();
      Supervise();
      if (!Step()) Pause(2);
    }
    Mend();
    // What was lost on the way is made good: every fault is over.
    for (int step = 0; step < kStepsMax && !Done(0); ++step) {
      Supervise();
      if (!Step()) Pause(2);
    }
    return Collect();
  }

  // Replicas that died at a kill point.
  int deaths() const { return deaths_; }

 private:
  struct Replica {
    std::unique_ptr<CoordinatorUnderTest> server{};
    FlakyLink link{};
    FlakyLink database{};
    int down_for = 0;      // steps, before it is started again
    int stopped_for = 0;   // steps, before SIGCONT
    int troubled_for = 0;  // steps, before its link is mended
    bool stopped = false;
    bool armed = false;
  };
  struct Device {
    DeviceCredentials credentials{};
    std::vector<std::unique_ptr<RawDevice>> connections{};  // by replica
    std::optional<v1::Assignment> work{};
    std::optional<v1::Assignment> last{};
  };

  std::vector<std::string> Flags(size_t i) const {
    std::vector<std::string> flags = {"--pace-retry-min", "10ms",
                                      "--pace-retry-max", "50ms"};
    if (!schedule_.postgres) return flags;
    const std::string link = replicas_[i].database.address();
    const std::string port = link.substr(link.rfind(':') + 1);
    const std::vector<std::string> more = {"--store-postgres",
                                           "host=127.0.0.1 port=" + port +
                                               " dbname=" + database_ +
                                               " user=coordinator",
                                           "--store-migrate",
                                           "--replicas-enabled",
                                           "--replicas-name",
                                           "r" + std::to_string(i),
                                           "--replicas-lease",
                                           "1s",
                                           "--replicas-poll",
                                           "50ms",
                                           "--blobs-dir",
                                           (root_ / "blobs").string(),
                                           "--keys-dir",
                                           (root_ / "keys").string(),
                                           "--store-operation-timeout",
                                           "3s",
                                           "--drain-delay",
                                           "0s"};
    flags.insert(flags.end(), more.begin(), more.end());
    return flags;
  }

  // In its first life it may have a kill point.
  void Start(size_t i, bool first) {
    Replica& replica = replicas_[i];
    CoordinatorUnderTest::Options options;
    options.flags = Flags(i);
    for (const Event& event : schedule_.events) {
      if (!first || event.replica != i || event.point.empty()) continue;
      options.binary = SELVAGE_COORDINATOR_WITH_FAULTS;
      options.environment = {{"SELVAGE_TEST_KILL_AT", event.point},
                             {"SELVAGE_TEST_KILL_ON_SIGNAL", "1"}};
    }
    replica.server = nullptr;  // the lock of its directory
    replica.armed = false;
    replica.server = std::make_unique<CoordinatorUnderTest>(
        root_ / ("r" + std::to_string(i)), options);
    if (!replica.server->serving()) return;  // the database may be away
    replica.link.Lead(replica.server->device_address());
  }
  bool Serves(const Replica& replica) const {
    return replica.server != nullptr && replica.server->serving() &&
           !replica.stopped;
  }

  void SetUp() {
    for (size_t i = 0; i < replicas_.size(); ++i) {
      if (postgres_ != nullptr) {
        replicas_[i].database.Lead(postgres_->SocketPath());
      }
      Start(i, true);
      ASSERT_TRUE(replicas_[i].server->serving())
          << replicas_[i].server->process().output();
    }
    CoordinatorUnderTest& server = *replicas_[0].server;
    ASSERT_TRUE(server.CreatePopulation().ok());
    const std::string bundle = Take(server.CreateBundle(kDevices));
    ca_certificate_ = server.ca_certificate();
    for (size_t i = 0; i < kDevices; ++i) {
      devices_[i].credentials =
          Take(EnrolDevice(server, bundle, "device-" + std::to_string(i)));
      devices_[i].connections.resize(replicas_.size());
    }
    Take(server.CreateTask(kTaskFile, OneHotProgram(kElements)));
  }

  // ----------------------------------------------------------------- faults

  void Inflict() {
    for (size_t e = 0; e < schedule_.events.size(); ++e) {
      const Event& event = schedule_.events[e];
      if (inflicted_.contains(e) || receipts_ < event.after) continue;
      inflicted_.insert(e);
      Inflict(event);
    }
  }
  void Inflict(const Event& event) {
    Replica& replica = replicas_[event.replica];
    const bool alive = Serves(replica);
    switch (event.fault) {
      case Fault::kKillPoint:
        if (!alive) return;
        replica.armed = true;
        kill(replica.server->process().pid(), SIGUSR1);
        return;
      case Fault::kKilled:
        if (!alive) return;
        replica.server->process().Stop(SIGKILL);
        Down(replica);
        return;
      case Fault::kTerminated:
        if (!alive) return;
        EXPECT_EQ(replica.server->process().Stop(SIGTERM), 0)
            << replica.server->process().output();
        Down(replica);
        return;
      case Fault::kStopped:
        if (!alive) return;
        // As a balancer's health check would: nobody is led there.
        replica.link.Cut();
        kill(replica.server->process().pid(), SIGSTOP);
        replica.stopped = true;
        replica.stopped_for = schedule_.postgres ? 700 : 30;
        return;
      case Fault::kCut:
        replica.link.Cut();
        replica.troubled_for = 40;
        return;
      case Fault::kSlow:
        replica.link.Delay(5);
        replica.troubled_for = 40;
        return;
      case Fault::kDatabaseCut:
        replica.database.Cut();
        replica.troubled_for = 40;
        return;
      case Fault::kDatabaseFrozen:
        // Its health check fails: nobody is led there.
        replica.link.Cut();
        replica.database.Freeze();
        replica.troubled_for = 700;
        return;
      case Fault::kDatabaseSlow:
        replica.database.Delay(5);
        replica.troubled_for = 40;
        return;
      case Fault::kDatabase:
        if (const Status status = postgres_->KillAndRestart(); !status.ok()) {
          ADD_FAILURE() << status.ToString();
        }
        return;
      case Fault::kNoConnections:
        Limit("0");
        limited_for_ = 40;
        [[fallthrough]];
      case Fault::kBackends:
        EXPECT_TRUE(postgres_
                        ->Execute("SELECT pg_terminate_backend(pid) FROM "
                                  "pg_stat_activity WHERE datname = '" +
                                  database_ + "'")
                        .ok());
        return;
    }
  }
  void Limit(const std::string& connections) {
    EXPECT_TRUE(postgres_
                    ->Execute("ALTER DATABASE " + database_ +
                              " CONNECTION LIMIT " + connections)
                    .ok());
  }
  void Down(Replica& replica) {
    replica.server = nullptr;
    replica.down_for = static_cast<int>(draw_.Below(20));
  }
  void Wake(Replica& replica) {
    if (!replica.stopped) return;
    kill(replica.server->process().pid(), SIGCONT);
    replica.stopped = false;
    replica.link.Mend();
  }

  // What whoever runs the service does: starts what has died, in a while.
  void Supervise() {
    if (limited_for_ > 0 && --limited_for_ == 0) Limit("-1");
    for (size_t i = 0; i < replicas_.size(); ++i) {
      Replica& replica = replicas_[i];
      if (replica.stopped && --replica.stopped_for <= 0) Wake(replica);
      if (replica.troubled_for > 0 && --replica.troubled_for == 0) {
        replica.link.Mend();
        replica.database.Mend();
      }
      if (replica.stopped) continue;
      if (replica.server != nullptr &&
          replica.server->process().WaitForExit(Duration::zero())) {
        if (replica.armed) ++deaths_;
        Down(replica);
      }
      // Start() waits until it serves: not while that waits for a later step.
      const bool has_database = replica.troubled_for == 0 && limited_for_ == 0;
      if (replica.server == nullptr && replica.down_for-- <= 0 &&
          has_database) {
        Start(i, false);
      }
    }
  }
  void Mend() {
    if (limited_for_ > 0) Limit("-1");
    limited_for_ = 0;
    for (size_t i = 0; i < replicas_.size(); ++i) {
      Wake(replicas_[i]);
      replicas_[i].link.Mend();
      replicas_[i].database.Mend();
      replicas_[i].down_for = 0;
    }
  }

  // ---------------------------------------------------------------- devices

  RawDevice& Connection(Device& device, size_t replica) {
    auto& connection = device.connections[replica];
    if (connection == nullptr) {
      connection = std::make_unique<RawDevice>(
          ca_certificate_, replicas_[replica].link.address(),
          device.credentials);
    }
    return *connection;
  }

  // One thing that one device does. False: there was nothing to do.
  bool Step() {
    const size_t index = draw_.Below(kDevices);
    const size_t replica = draw_.Below(replicas_.size());
    const uint64_t how = draw_.Below(10);
    Device& device = devices_[index];
    if (!Serves(replicas_[replica])) return false;
    if (how == 0 && device.last.has_value()) {
      Upload(index, replica, *device.last);
      return true;
    }
    if (!device.work.has_value()) return CheckIn(index, replica);
    const v1::Assignment work = *device.work;
    if (how == 1) {
      BreakOff(index, replica, work);
    } else if (how == 2 && replicas_.size() > 1 &&
               Serves(replicas_[1 - replica])) {
      UploadTwice(index, work);
    } else {
      Upload(index, replica, work);
    }
    return true;
  }

  bool CheckIn(size_t index, size_t replica) {
    Device& device = devices_[index];
    const auto answer = Connection(device, replica).CheckIn();
    if (!answer.ok()) {
      device.connections[replica] = nullptr;
      return false;
    }
    if (!answer->has_assignment()) return false;
    const v1::Assignment& work = answer->assignment();
    EXPECT_LE(work.round(), kRoundsMax);
    if (work.round() > kRoundsMax) return false;
    device.work = work;
    return true;
  }

  static Bytes UpdateOf(size_t index, const v1::Assignment& work) {
    return OneHotUpdate(kElements, Element(index, work.round()));
  }
  RawDevice::UploadAnswer Send(size_t index, size_t replica,
                               const v1::Assignment& work,
                               const RawDevice::UploadOptions& options) {
    const Bytes update = UpdateOf(index, work);
    return Connection(devices_[index], replica)
        .Upload(OneHotHeader(work, update), update, options);
  }
  void Note(size_t index, size_t replica, const v1::Assignment& work,
            const RawDevice::UploadAnswer& answer) {
    Device& device = devices_[index];
    if (!answer.receipt.has_value()) {
      device.connections[replica] = nullptr;
      return;
    }
    history_.answers.push_back({index, work.round(), answer.Name()});
    if (device.work.has_value() && device.work->id() == work.id()) {
      ++receipts_;
      device.last = device.work;
      device.work.reset();
    }
  }
  void Upload(size_t index, size_t replica, const v1::Assignment& work) {
    history_.sent.insert({index, work.round()});
    Note(index, replica, work, Send(index, replica, work, {}));
  }
  void BreakOff(size_t index, size_t replica, const v1::Assignment& work) {
    history_.sent.insert({index, work.round()});
    RawDevice::UploadOptions options;
    options.chunk_size = 16;
    options.cancel_after = 16 * (1 + draw_.Below(8));
    Note(index, replica, work, Send(index, replica, work, options));
  }
  // The same bytes at both at once.
  void UploadTwice(size_t index, const v1::Assignment& work) {
    history_.sent.insert({index, work.round()});
    for (size_t replica : {0, 1}) Connection(devices_[index], replica);
    RawDevice::UploadAnswer other;
    std::thread thread([&] { other = Send(index, 1, work, {}); });
    const RawDevice::UploadAnswer answer = Send(index, 0, work, {});
    thread.join();
    Note(index, 0, work, answer);
    Note(index, 1, work, other);
  }

  // ---------------------------------------------------------------- the end

  // All rounds are committed, as some replica sees it. Asked now and then.
  bool Done(int step) {
    if (step % 16 != 0 || receipts_ < kDevices * kRounds) return false;
    for (Replica& replica : replicas_) {
      if (!Serves(replica)) continue;
      const auto rounds = replica.server->ListRounds(kTask);
      if (!rounds.ok()) continue;
      uint64_t committed = 0;
      for (const v1::Round& round : *rounds) {
        if (round.state() == v1::Round::COMMITTED) ++committed;
      }
      return committed >= kRounds;
    }
    return false;
  }

  History Collect() {
    history_.devices = kDevices;
    history_.cohort_min = kDevices;
    for (int attempt = 0; attempt < 500; ++attempt) {
      Supervise();
      if (Serves(replicas_[0]) && Read(*replicas_[0].server).ok()) break;
      Pause(10);
    }
    // Told again, it is told the same.
    for (size_t i = 0; i < kDevices; ++i) {
      if (!devices_[i].last.has_value()) continue;
      for (size_t replica = 0; replica < replicas_.size(); ++replica) {
        if (!Serves(replicas_[replica])) continue;
        Upload(i, replica, *devices_[i].last);
      }
    }
    if (!schedule_.postgres) replicas_[0].server = nullptr;  // its lock
    EXPECT_TRUE(ReadTransitions().ok());
    return history_;
  }

  Status Read(CoordinatorUnderTest& server) {
    SELVAGE_ASSIGN_OR_RETURN(const v1::TaskSnapshot end,
                             server.WatchUntilEnded(kTask));
    SELVAGE_ASSIGN_OR_RETURN(const std::vector<v1::Round> rounds,
                             server.ListRounds(kTask));
    const plan::TensorTable table = OneHotProgram(kElements).table;
    SELVAGE_ASSIGN_OR_RETURN(const plan::Checkpoint model,
                             server.LatestModel(kTask, table));
    history_.ended = end.task().state() == v1::Task::FINISHED;
    history_.latest_version = end.task().latest_version();
    for (const v1::Round& round : rounds) {
      history_.rounds[round.number()] = {v1::Round::State_Name(round.state()),
                                         round.funnel().accepted()};
      for (size_t device = 0; device < kDevices; ++device) {
        if (round.number() > kRoundsMax) continue;
        const double value =
            static_cast<double>(model.floats[Element(device, round.number())]);
        const double accepted = static_cast<double>(
            std::max<uint64_t>(1, round.funnel().accepted()));
        const double count = value * accepted / double{kOneHotValue};
        EXPECT_NEAR(count, std::round(count), 1e-5);
        history_.counted[{device, round.number()}] =
            static_cast<int>(std::lround(count));
      }
    }
    return OkStatus();
  }

  void AddTransition(uint64_t round, int from, int to) {
    const auto name = [](int state) -> std::string {
      if (state == 0) return "";
      return std::string(coordinator::RoundStateName(
          static_cast<coordinator::RoundState>(state)));
    };
    history_.transitions.push_back({round, name(from), name(to)});
  }
  Status ReadTransitions() {
    if (schedule_.postgres) {
      SELVAGE_ASSIGN_OR_RETURN(
          const std::string text,
          postgres_->Ask("SELECT string_agg(number || ' ' || from_state || ' ' "
                         "|| to_state, ' ' ORDER BY id) FROM selvage.history",
                         database_));
      std::istringstream in(text);
      uint64_t round = 0;
      int from = 0;
      int to = 0;
      while (in >> round >> from >> to) AddTransition(round, from, to);
      return OkStatus();
    }
    sqlite3* db = nullptr;
    const std::string path = root_ / "r0" / "coordinator.db";
    if (sqlite3_open_v2(path.c_str(), &db, SQLITE_OPEN_READONLY, nullptr) !=
        SQLITE_OK) {
      return Internal("cannot open " + path);
    }
    sqlite3_stmt* query = nullptr;
    sqlite3_prepare_v2(
        db, "SELECT number, from_state, to_state FROM history ORDER BY rowid",
        -1, &query, nullptr);
    while (query != nullptr && sqlite3_step(query) == SQLITE_ROW) {
      AddTransition(static_cast<uint64_t>(sqlite3_column_int64(query, 0)),
                    sqlite3_column_int(query, 1), sqlite3_column_int(query, 2));
    }
    sqlite3_finalize(query);
    sqlite3_close(db);
    return OkStatus();
  }

  const Schedule schedule_;
  const Path root_;
  PostgresServer* const postgres_;
  const std::string database_;
  Draw draw_;
  std::vector<Replica> replicas_;
  std::vector<Device> devices_;
  std::string ca_certificate_;
  std::set<size_t> inflicted_;  // of the schedule's events
  int limited_for_ = 0;         // steps, before there are connections again
  size_t receipts_ = 0;
  int deaths_ = 0;
  History history_;
};

// -------------------------------------------------------------------- the
// tests

class ChaosTest : public ::testing::Test {
 protected:
  void PlayAll(PostgresServer* postgres) {
    const Path root = FreshDirectory();
    const uint64_t first = FromEnvironment("SELVAGE_CHAOS_SEED", 1);
    const uint64_t runs = FromEnvironment("SELVAGE_CHAOS_RUNS", kRunsByDefault);
    int deaths = 0;
    for (uint64_t seed = first; seed < first + runs; ++seed) {
      const Schedule schedule = DrawSchedule(seed, postgres != nullptr);
      SCOPED_TRACE("scripts/chaos --seed " + std::to_string(seed) +
                   " --store " + (postgres != nullptr ? "postgres" : "sqlite") +
                   "\n" + schedule.Text());
      const std::string name = "run_" + std::to_string(seed);
      if (postgres != nullptr) {
        ASSERT_TRUE(postgres->CreateDatabase(name, "template0").ok());
      }
      std::filesystem::create_directories(root / name);
      {
        Drill drill(seed, schedule, root / name, postgres, name);
        EXPECT_THAT(Judge(drill.Play()), IsEmpty());
        deaths += drill.deaths();
      }
      if (runs == 1)
        std::cout << "seed " << seed << ": " << schedule.Text() << "\n";
      if (HasFailure()) return;  // what is in the directory stays
      std::filesystem::remove_all(root / name);
      if (postgres != nullptr) {
        ASSERT_TRUE(
            postgres->Execute("DROP DATABASE " + name + " WITH (FORCE)").ok());
      }
    }
    std::cout << runs << " runs, " << deaths << " died at kill points\n";
  }
};

TEST_F(ChaosTest, Sqlite_OneCoordinator_NothingLostNothingTwice) {
  PlayAll(nullptr);
}

TEST_F(ChaosTest, Postgres_TwoReplicas_NothingLostNothingTwice) {
  if (const auto missing = PostgresServer::Missing()) {
    GTEST_SKIP() << *missing;
  }
  const auto postgres = Take(PostgresServer::Start(), "initdb");
  PlayAll(postgres.get());
}

}  // namespace
}  // namespace selvage::test

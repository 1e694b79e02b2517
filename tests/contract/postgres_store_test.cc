// The store contract on a real PostgreSQL, directly and through PgBouncer in
// transaction mode, and what only a server can do to a store.
#include "coordinator/postgres/postgres_store.h"

#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>

#include <gmock/gmock.h>

#include "coordinator/postgres/postgres_schema.h"
#include "coordinator/postgres/postgres_sql.h"
#include "coordinator/postgres/round_listener.h"
#include "tests/contract/store_contract.h"
#include "tests/testing/postgres_server.h"

namespace selvage::coordinator {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kTemplate[] = "selvage_template";

PostgresStoreOptions OptionsFor(const std::string& address) {
  PostgresStoreOptions options;
  options.connect.conninfo = address;
  options.pool_size = 4;
  return options;
}

// One server for the process: it ends with it. A database for each test, a copy
// of one with the schema.
class Postgres {
 public:
  // Nullptr, and a message, where there is no PostgreSQL.
  static Postgres* Get() {
    static const std::unique_ptr<Postgres> instance = Make();
    return instance.get();
  }
  test::PostgresServer& server() { return *server_; }
  std::string NewDatabase(const std::string& like = kTemplate) {
    const std::string name = "t" + std::to_string(++count_);
    EXPECT_THAT(server_->CreateDatabase(name, like), test::IsOk());
    return name;
  }
  bool bouncer() const { return bouncer_; }

 private:
  static std::unique_ptr<Postgres> Make() {
    if (test::PostgresServer::Missing().has_value()) return nullptr;
    auto postgres = std::make_unique<Postgres>();
    auto server = test::PostgresServer::Start();
    EXPECT_THAT(server, test::IsOk());
    if (!server.ok()) return nullptr;
    postgres->server_ = *std::move(server);
    EXPECT_THAT(postgres->server_->CreateDatabase(kTemplate, "template0"),
                test::IsOk());
    PostgresStoreOptions options =
        OptionsFor(postgres->server_->Address(kTemplate));
    options.migrate = true;
    test::FakeClock clock;
    SeededRandom random{1};
    EXPECT_THAT(PostgresStore::Open(options, clock, random), test::IsOk());
    // A clock of the database's that a test can move.
    EXPECT_THAT(
        postgres->server_->Execute(
            "CREATE SCHEMA skew; CREATE TABLE skew.clock (micros BIGINT); "
            "INSERT INTO skew.clock VALUES (0); "
            "CREATE FUNCTION skew.clock_timestamp() RETURNS timestamptz "
            "VOLATILE LANGUAGE sql AS 'SELECT pg_catalog.clock_timestamp() + "
            "micros * interval ''1 microsecond'' FROM skew.clock'; "
            "GRANT USAGE ON SCHEMA skew TO coordinator; "
            "GRANT SELECT ON skew.clock TO coordinator",
            kTemplate),
        test::IsOk());
    if (!test::PostgresServer::PgBouncerMissing().has_value()) {
      const Status started = postgres->server_->StartPgBouncer(6);
      EXPECT_THAT(started, test::IsOk());
      postgres->bouncer_ = started.ok();
    }
    return postgres;
  }

  std::unique_ptr<test::PostgresServer> server_;
  bool bouncer_ = false;
  std::atomic<int> count_{0};
};

class PostgresUnderTest final : public StoreUnderTest {
 public:
  PostgresUnderTest(Postgres& postgres, bool through_bouncer)
      : postgres_(postgres), database_(postgres.NewDatabase()) {
    address_ = through_bouncer ? postgres.server().PgBouncerAddress(database_)
                               : postgres.server().Address(database_);
    EXPECT_THAT(postgres.server().Execute(
                    "ALTER DATABASE " + database_ +
                    " SET search_path = skew, pg_catalog, public"),
                test::IsOk());
    Reopen();
  }
  ~PostgresUnderTest() override {
    store_.reset();
    (void)postgres_.server().Execute("DROP DATABASE " + database_ +
                                     " WITH (FORCE)");
  }
  // The database's clock follows the test's: forward, for a server's clock is
  // kept by its host.
  Store& store() override {
    if (const Time now = clock.Now(); now > skew_) {
      skew_ = now;
      EXPECT_THAT(postgres_.server().Execute("UPDATE skew.clock SET micros = " +
                                                 std::to_string(ToMicros(now)),
                                             database_),
                  test::IsOk());
    }
    return *store_;
  }
  void Reopen() override {
    store_.reset();
    auto opened = PostgresStore::Open(OptionsFor(address_), clock, random);
    ASSERT_THAT(opened, test::IsOk());
    store_ = *std::move(opened);
  }
  const std::string& database() const { return database_; }

 private:
  Postgres& postgres_;
  const std::string database_;
  std::string address_;
  Time skew_{};
  std::unique_ptr<PostgresStore> store_;
};

INSTANTIATE_TEST_SUITE_P(
    Postgres, StoreContract,
    ::testing::Values(MakeStore([]() -> std::unique_ptr<StoreUnderTest> {
      Postgres* postgres = Postgres::Get();
      if (postgres == nullptr) return nullptr;
      return std::make_unique<PostgresUnderTest>(*postgres, false);
    })));
INSTANTIATE_TEST_SUITE_P(
    PgBouncer, StoreContract,
    ::testing::Values(MakeStore([]() -> std::unique_ptr<StoreUnderTest> {
      Postgres* postgres = Postgres::Get();
      if (postgres == nullptr || !postgres->bouncer()) return nullptr;
      return std::make_unique<PostgresUnderTest>(*postgres, true);
    })));

// ------------------------------------------------------- what a server can do

class PostgresStoreTest : public StoreContract {
 protected:
  void SetUp() override {
    if (const auto missing = test::PostgresServer::Missing()) {
      GTEST_SKIP() << *missing;
    }
    postgres_ = Postgres::Get();
    ASSERT_NE(postgres_, nullptr);
    StoreContract::SetUp();
  }
  const std::string& database() {
    return static_cast<PostgresUnderTest&>(*under_test_).database();
  }
  test::PostgresServer& server() { return postgres_->server(); }
  std::unique_ptr<Connection> Connect(const std::string& user = "coordinator") {
    auto opened =
        Connection::Open({.conninfo = server().Address(database(), user)});
    EXPECT_THAT(opened, test::IsOk());
    return *std::move(opened);
  }
  // Waits until a connection of this test's database waits for a lock.
  void AwaitBlocked() {
    for (int i = 0; i < 2000; ++i) {
      const auto waiting = server().Ask(
          "SELECT count(*) FROM pg_stat_activity WHERE datname = '" +
          database() + "' AND wait_event_type = 'Lock'");
      ASSERT_THAT(waiting, test::IsOk());
      if (*waiting != "0") return;
      poll(nullptr, 0, 5);
    }
    FAIL() << "nobody waits for a lock";
  }
  PostgresStore& postgres() { return static_cast<PostgresStore&>(store()); }
  void AwaitListener() {
    for (int i = 0; i < 2000; ++i) {
      const auto listening = server().Ask(
          "SELECT count(*) FROM pg_stat_activity WHERE datname = '" +
          database() + "' AND state = 'idle' AND query LIKE 'LISTEN %'");
      ASSERT_THAT(listening, test::IsOk());
      if (*listening != "0") return;
      poll(nullptr, 0, 5);
    }
    FAIL() << "nobody listens";
  }
  // All connections of now; the store may make new ones meanwhile.
  void TerminateAll() {
    const auto pids = server().Ask(
        "SELECT coalesce(string_agg(pid::text, ','), '0') FROM "
        "pg_stat_activity WHERE datname = '" +
        database() + "'");
    ASSERT_THAT(pids, test::IsOk());
    const std::string of_them =
        " FROM pg_stat_activity WHERE pid IN (" + *pids + ")";
    ASSERT_THAT(server().Execute("SELECT pg_terminate_backend(pid)" + of_them),
                test::IsOk());
    for (int i = 0; i < 2000; ++i) {
      const auto left = server().Ask("SELECT count(*)" + of_them);
      if (left.ok() && *left == "0") return;
      poll(nullptr, 0, 5);
    }
    FAIL() << "backends do not end";
  }

  Postgres* postgres_ = nullptr;
};

INSTANTIATE_TEST_SUITE_P(
    Server, PostgresStoreTest,
    ::testing::Values(MakeStore([]() -> std::unique_ptr<StoreUnderTest> {
      return std::make_unique<PostgresUnderTest>(*Postgres::Get(), false);
    })));

// Which events there were.
class EventNames final : public EventSink {
 public:
  void Write(LogLevel, std::string_view event,
             std::initializer_list<LogField>) override {
    std::lock_guard<std::mutex> lock(mu_);
    names_.insert(std::string(event));
    wake_.notify_all();
  }
  bool Await(const std::string& event) {
    std::unique_lock<std::mutex> lock(mu_);
    return wake_.wait_for(lock, std::chrono::seconds(60),
                          [&] { return names_.contains(event); });
  }

 private:
  std::mutex mu_;
  std::condition_variable wake_;
  std::set<std::string> names_;
};

// docs/protocol.md, "Uploads in a replica", step 4, statement by statement: the
// upload's transaction is open when the round closes.
TEST_P(PostgresStoreTest, Close_WaitsForAnOpenCommit_AndListsItsPartial) {
  const RoundLease lease = RoundWith({"d"});
  const auto upload = Connect();
  upload->Run("BEGIN ISOLATION LEVEL READ COMMITTED");
  PostgresSql(*upload,
              "SELECT 1 FROM selvage.round WHERE task_id = $1 AND number = 1 "
              "AND state IN (1, 2) AND epoch = 1 FOR SHARE",
              lease.key.task_id);
  PostgresSql(*upload, "INSERT INTO selvage.partial VALUES ('p', $1, 1, 1, 9)",
              lease.key.task_id);

  Status closed;
  Result<std::vector<PartialRow>> listed = std::vector<PartialRow>{};
  std::thread closer([&] {
    closed = store().Transition(lease, RoundState::kCollecting,
                                RoundState::kClosing, At(7), 0);
    listed = store().ListPartials(lease.key);
  });
  AwaitBlocked();
  upload->Run("COMMIT");
  closer.join();

  EXPECT_THAT(closed, test::IsOk());
  ASSERT_THAT(listed, test::IsOk());
  EXPECT_EQ(listed->size(), 1u);
}

TEST_P(PostgresStoreTest, Commit_WaitsForAnOpenClose_AndIsRefused) {
  const RoundLease lease = RoundWith({"d"});
  const auto closer = Connect();
  closer->Run("BEGIN ISOLATION LEVEL READ COMMITTED");
  PostgresSql(*closer,
              "UPDATE selvage.round SET state = $2 WHERE task_id = $1 AND "
              "number = 1 AND epoch = 1",
              lease.key.task_id, RoundState::kClosing);

  Result<std::vector<std::string>> answer = std::vector<std::string>{};
  std::thread committer([&] {
    const std::vector<ReceiptRow> receipts = {Accepted("a-1-d", "p")};
    answer = store().CommitPartial(lease, SomePartial(lease, "p"), receipts);
  });
  AwaitBlocked();
  closer->Run("COMMIT");
  committer.join();

  EXPECT_THAT(answer, test::StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_TRUE(store().ListPartials(lease.key)->empty());
}

TEST_P(PostgresStoreTest, Deadlock_IsTriedAgain) {
  const RoundLease lease = RoundWith({"d"});
  const auto other = Connect("selvage");
  other->Run("BEGIN");
  other->Run("SET LOCAL deadlock_timeout = '10s'");  // ours is found first
  PostgresSql(*other,
              "SELECT 1 FROM selvage.assignment WHERE id = 'a-1-d' FOR UPDATE");

  Result<std::vector<std::string>> answer = std::vector<std::string>{};
  std::thread committer([&] {
    const std::vector<ReceiptRow> receipts = {Accepted("a-1-d", "p")};
    answer = store().CommitPartial(lease, SomePartial(lease, "p"), receipts);
  });
  AwaitBlocked();  // it has the round and waits for the assignment
  PostgresSql(*other,
              "UPDATE selvage.round SET checked_in = 1 WHERE task_id = $1",
              lease.key.task_id);
  other->Run("COMMIT");
  committer.join();

  ASSERT_THAT(answer, test::IsOk());
  EXPECT_TRUE(answer->empty());
  EXPECT_EQ(store().ListPartials(lease.key)->size(), 1u);
}

TEST_P(PostgresStoreTest, LockTimeout_IsUnavailable_AndNamesTheRow) {
  const RoundLease lease = RoundWith({"d"});
  PostgresStoreOptions options = OptionsFor(server().Address(database()));
  options.lock_timeout = std::chrono::milliseconds(20);
  auto impatient =
      PostgresStore::Open(options, under_test_->clock, under_test_->random);
  ASSERT_THAT(impatient, test::IsOk());
  const auto other = Connect();
  other->Run("BEGIN");
  other->Run("SELECT 1 FROM selvage.round FOR UPDATE");

  const auto taken = (*impatient)->TakeRound(lease.key);

  EXPECT_THAT(taken, test::StatusIs(StatusCode::kUnavailable));
  EXPECT_THAT(std::string(taken.status().message()),
              AllOf(HasSubstr("round 1 of task"), HasSubstr("55P03")));
  other->Run("ROLLBACK");
  EXPECT_THAT((*impatient)->TakeRound(lease.key), test::IsOk());
}

TEST_P(PostgresStoreTest, TerminatedBackends_TheNextCallWorks) {
  const RoundLease lease = RoundWith({"d", "e"});
  TerminateAll();
  const std::vector<ReceiptRow> receipts = {Accepted("a-1-d", "p")};

  const auto answer =
      store().CommitPartial(lease, SomePartial(lease, "p"), receipts);

  ASSERT_THAT(answer, test::IsOk());
  TerminateAll();
  EXPECT_EQ(store().ListPartials(lease.key)->size(), 1u);
}

// In the middle of a transaction, before COMMIT: it did not happen, and it is
// safe to do it again.
TEST_P(PostgresStoreTest, TerminatedWhileWaiting_HappensOnce) {
  const RoundLease lease = RoundWith({"d"});
  auto other = Connect();
  other->Run("BEGIN");
  other->Run("SELECT 1 FROM selvage.round FOR UPDATE");
  Result<RoundLease> taken = RoundLease{};
  std::thread taker([&] { taken = store().TakeRound(lease.key); });
  AwaitBlocked();

  TerminateAll();  // also the one that holds the lock
  taker.join();

  ASSERT_THAT(taken, test::IsOk());
  EXPECT_EQ(taken->epoch, 2u);
  EXPECT_EQ(store().GetRound(lease.key)->epoch, 2u);
}

TEST_P(PostgresStoreTest, ServerKilled_AcknowledgedPartialIsThere) {
  const RoundLease lease = RoundWith({"d", "e"});
  const std::vector<ReceiptRow> first = {Accepted("a-1-d", "p")};
  ASSERT_TRUE(
      store().CommitPartial(lease, SomePartial(lease, "p"), first)->empty());

  ASSERT_THAT(server().KillAndRestart(), test::IsOk());

  const auto record = store().FindAssignment("a-1-d");
  ASSERT_THAT(record, test::IsOk());
  EXPECT_EQ((*record)->receipt->partial_id, "p");
  EXPECT_EQ(store().ListPartials(lease.key)->size(), 1u);
  const std::vector<ReceiptRow> second = {Accepted("a-1-e", "q")};
  EXPECT_THAT(store().CommitPartial(lease, SomePartial(lease, "q"), second),
              test::IsOk());
}

TEST_P(PostgresStoreTest, NoConnectionLeft_IsUnavailable_AndRecovers) {
  TerminateAll();  // the pool is empty, and does not know it
  std::vector<std::unique_ptr<Connection>> hoard;
  while (true) {
    auto opened =
        Connection::Open({.conninfo = server().Address("postgres", "selvage")});
    if (!opened.ok()) {
      EXPECT_THAT(opened, test::StatusIs(StatusCode::kUnavailable));
      break;
    }
    hoard.push_back(*std::move(opened));
    ASSERT_LE(hoard.size(), static_cast<size_t>(server().max_connections()));
  }

  const auto refused = store().GetPopulation("demo");

  EXPECT_THAT(refused, test::StatusIs(StatusCode::kUnavailable));
  EXPECT_THAT(std::string(refused.status().message()),
              AllOf(HasSubstr("population demo"),
                    testing::AnyOf(HasSubstr("too many clients"),
                                   HasSubstr("remaining connection slots"))));
  hoard.clear();
  Status recovered = Unavailable("not tried");
  for (int i = 0; i < 500 && !recovered.ok(); ++i) {
    recovered = store().GetPopulation("demo").status();
    if (!recovered.ok()) poll(nullptr, 0, 10);  // backends are still ending
  }
  EXPECT_THAT(recovered, test::IsOk());
}

TEST_P(PostgresStoreTest, PoolExhausted_WaitsAndIsUnavailable) {
  const RoundLease lease = RoundWith({"d"});
  PostgresStoreOptions options = OptionsFor(server().Address(database()));
  options.pool_size = 1;
  options.operation_timeout = std::chrono::milliseconds(300);
  auto small =
      PostgresStore::Open(options, under_test_->clock, under_test_->random);
  ASSERT_THAT(small, test::IsOk());
  const auto other = Connect();
  other->Run("BEGIN");
  other->Run("SELECT 1 FROM selvage.round FOR UPDATE");
  std::thread taker([&] {
    EXPECT_THAT((*small)->TakeRound(lease.key),
                test::StatusIs(StatusCode::kUnavailable));
  });
  AwaitBlocked();
  EXPECT_EQ((*small)->connections_in_use(), 1u);

  // Either it gets the connection when the other call gives up, or it says so.
  const auto read = (*small)->GetRound(lease.key);
  if (!read.ok()) {
    EXPECT_THAT(read, test::StatusIs(StatusCode::kUnavailable));
    EXPECT_THAT(std::string(read.status().message()),
                HasSubstr("all 1 connections of the pool are in use"));
  }
  taker.join();
  other->Run("ROLLBACK");
  EXPECT_THAT((*small)->GetRound(lease.key), test::IsOk());
}

TEST_P(PostgresStoreTest, Notify_OnRoundStateChange) {
  test::PostgresListener listener(server().Address(database()), kRoundChannel);

  const RoundLease lease = SomeRound();

  EXPECT_EQ(listener.Next(), std::to_string(lease.key.task_id) + "/1");
}

TEST_P(PostgresStoreTest, KeepReplica_OneThatDoesNotShare_IsAlone) {
  const auto lease = std::chrono::seconds(60);
  const ReplicaRow first{"a", "1", false, ""};
  EXPECT_THAT(postgres().KeepReplica(first, lease, true), test::IsOk());
  EXPECT_THAT(postgres().KeepReplica(first, lease, false), test::IsOk());

  for (const bool shared : {false, true}) {
    const auto refused =
        postgres().KeepReplica({"b", "2", shared, ""}, lease, true);
    EXPECT_THAT(refused, test::StatusIs(StatusCode::kFailedPrecondition));
    EXPECT_THAT(std::string(refused.status().message()),
                AllOf(HasSubstr("in use by the coordinator a"),
                      HasSubstr("replicas.enabled"),
                      HasSubstr("its place is free in ")));
  }
  // Gone, its place is free; what another one says of it changes nothing.
  EXPECT_THAT(postgres().RemoveReplica({"a", "other", false, ""}),
              test::IsOk());
  EXPECT_THAT(postgres().KeepReplica({"b", "2", false, ""}, lease, true),
              test::StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_THAT(postgres().RemoveReplica(first), test::IsOk());
  EXPECT_THAT(postgres().KeepReplica({"b", "2", false, ""}, lease, true),
              test::IsOk());
}

TEST_P(PostgresStoreTest, KeepReplica_Expired_GivesWay_AndIsToldSo) {
  const ReplicaRow first{"a", "1", false, ""};
  EXPECT_THAT(postgres().KeepReplica(first, std::chrono::seconds(10), true),
              test::IsOk());
  under_test_->clock.Advance(std::chrono::seconds(11));
  EXPECT_THAT(postgres().KeepReplica({"b", "2", false, ""},
                                     std::chrono::seconds(10), true),
              test::IsOk());
  EXPECT_THAT(postgres().KeepReplica(first, std::chrono::seconds(10), false),
              test::StatusIs(StatusCode::kFailedPrecondition));
  // Unless nobody came.
  under_test_->clock.Advance(std::chrono::seconds(22));
  EXPECT_THAT(postgres().KeepReplica(first, std::chrono::seconds(10), false),
              test::IsOk());
}

TEST_P(PostgresStoreTest, KeepReplica_SameName_TakesThePlace) {
  const auto lease = std::chrono::seconds(60);
  const ReplicaRow before{"a", "1", true, "k"};
  const ReplicaRow after{"a", "2", true, "k"};
  EXPECT_THAT(postgres().KeepReplica(before, lease, true), test::IsOk());
  EXPECT_THAT(postgres().KeepReplica(after, lease, true), test::IsOk());
  EXPECT_THAT(postgres().KeepReplica(before, lease, false),
              test::StatusIs(StatusCode::kAborted));
  EXPECT_THAT(postgres().RemoveReplica(before), test::IsOk());
  EXPECT_THAT(postgres().KeepReplica(after, lease, false), test::IsOk());
}

TEST_P(PostgresStoreTest, KeepReplica_Several_KnowEachOther_OrHaveOtherKeys) {
  const auto lease = std::chrono::seconds(60);
  EXPECT_THAT(*postgres().KeepReplica({"a", "1", true, "k"}, lease, true),
              ::testing::IsEmpty());
  EXPECT_THAT(*postgres().KeepReplica({"b", "2", true, "k"}, lease, true),
              ::testing::ElementsAre("a"));
  EXPECT_THAT(*postgres().KeepReplica({"a", "1", true, "k"}, lease, false),
              ::testing::ElementsAre("b"));
  const auto refused =
      postgres().KeepReplica({"c", "3", true, "other"}, lease, true);
  EXPECT_THAT(refused, test::StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("not those of the replica a"));
}

TEST_P(PostgresStoreTest, KeepReplica_AtOnce_OneIsLetIn) {
  std::atomic<int> let_in{0};
  std::vector<std::thread> processes;
  for (int i = 0; i < 4; ++i) {
    processes.emplace_back([&, i] {
      const std::string name = std::to_string(i);
      const auto kept = postgres().KeepReplica({name, name, false, ""},
                                               std::chrono::seconds(60), true);
      if (kept.ok()) ++let_in;
    });
  }
  for (std::thread& process : processes) process.join();
  EXPECT_EQ(let_in, 1);
}

// What is heard is the store's business; a pooler is known by what it says of
// itself, and then nothing is heard and nothing is harmed.
TEST_P(PostgresStoreTest, RoundListener_HearsOfRounds_UnlessPooled) {
  EventNames events;
  std::mutex mu;
  std::condition_variable wake;
  std::set<uint64_t> heard;
  {
    RoundListener listener(OptionsFor(server().Address(database())).connect,
                           events, [&](uint64_t task_id) {
                             std::lock_guard<std::mutex> lock(mu);
                             heard.insert(task_id);
                             wake.notify_all();
                           });
    AwaitListener();
    const RoundLease lease = SomeRound();
    std::unique_lock<std::mutex> lock(mu);
    EXPECT_TRUE(wake.wait_for(lock, std::chrono::seconds(60),
                              [&] { return !heard.empty(); }));
    EXPECT_THAT(heard, ::testing::ElementsAre(lease.key.task_id));
  }
  if (!postgres_->bouncer()) return;
  RoundListener deaf(OptionsFor(server().PgBouncerAddress(database())).connect,
                     events, [&](uint64_t) { ADD_FAILURE(); });
  EXPECT_TRUE(events.Await("round_hints_off"));
}

TEST_P(PostgresStoreTest, TextWithNul_IsRefused) {
  EXPECT_THAT(store().CreatePopulation({std::string("a\0b", 3), At(1)}, {}),
              test::StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(store().CreatePopulation({"\xff", At(1)}, {}),
              test::StatusIs(StatusCode::kInvalidArgument));
}

TEST_P(PostgresStoreTest, Schema_MissingAndNotToBeMade_IsRefused) {
  const std::string empty = postgres_->NewDatabase("template0");
  PostgresStoreOptions options = OptionsFor(server().Address(empty));
  const auto newest = std::to_string(PostgresMigrations().back().version);

  const auto refused =
      PostgresStore::Open(options, under_test_->clock, under_test_->random);

  EXPECT_THAT(refused, test::StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_THAT(std::string(refused.status().message()),
              AllOf(HasSubstr("has schema 0"), HasSubstr("needs " + newest)));

  // Replicas that start at once: one migrates, all go on.
  options.migrate = true;
  std::vector<std::thread> replicas;
  for (int i = 0; i < 3; ++i) {
    replicas.emplace_back([&] {
      SeededRandom random{7};
      EXPECT_THAT(PostgresStore::Open(options, under_test_->clock, random),
                  test::IsOk());
    });
  }
  for (std::thread& replica : replicas) replica.join();

  ASSERT_THAT(server().Execute(
                  "UPDATE selvage.schema_version SET version = 1000", empty),
              test::IsOk());
  const auto newer =
      PostgresStore::Open(options, under_test_->clock, under_test_->random);
  EXPECT_THAT(newer, test::StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_THAT(std::string(newer.status().message()),
              AllOf(HasSubstr("has schema 1000"),
                    HasSubstr("schemas up to " + newest)));
}

TEST_P(PostgresStoreTest, Open_CommitsNotDurable_IsRefused) {
  ASSERT_THAT(server().Execute("ALTER DATABASE " + database() +
                               " SET synchronous_commit = off"),
              test::IsOk());
  const auto refused =
      PostgresStore::Open(OptionsFor(server().Address(database())),
                          under_test_->clock, under_test_->random);
  EXPECT_THAT(refused, test::StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("synchronous_commit is off"));
}

TEST_P(PostgresStoreTest, DiskFull_IsResourceExhausted) {
  // A tablespace cannot be filled here; a trigger says what a full one does.
  ASSERT_THAT(
      server().Execute("CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE "
                       "plpgsql AS $$ BEGIN RAISE EXCEPTION USING ERRCODE = "
                       "'disk_full', MESSAGE = 'no space left'; END $$; "
                       "CREATE TRIGGER full_disk BEFORE INSERT ON "
                       "selvage.population EXECUTE FUNCTION full_disk()",
                       database()),
      test::IsOk());
  const Status done = store().CreatePopulation({"more", At(2)}, {});
  EXPECT_THAT(done, test::StatusIs(StatusCode::kResourceExhausted));
  EXPECT_THAT(std::string(done.message()), HasSubstr("population more"));
}

TEST(CheckConnectionString, PasswordOrNonsense_IsRefusedWithoutItsText) {
  EXPECT_THAT(CheckConnectionString("host=/tmp dbname=x"), test::IsOk());
  EXPECT_THAT(CheckConnectionString("postgresql://u@h:5432/d?sslmode=require"),
              test::IsOk());
  for (const std::string& text :
       {std::string("host=h password=hunter2"),
        std::string("postgresql://u:hunter2@h/d"), std::string("hunter2"),
        std::string("host='hunter2"), std::string("host=h\0hunter2", 14)}) {
    const Status refused = CheckConnectionString(text);
    EXPECT_THAT(refused, test::StatusIs(StatusCode::kInvalidArgument)) << text;
    EXPECT_THAT(std::string(refused.message()), Not(HasSubstr("hunter2")));
  }
}

TEST(MonotoneClock, ObservedBehindOrAhead_NeverGoesBack) {
  test::FakeClock steady;
  MonotoneClock clock(steady, Time{});
  const Time start = Time(std::chrono::hours(1000));
  clock.Observe(start);
  steady.Advance(std::chrono::seconds(3));
  EXPECT_EQ(clock.Now(), start + std::chrono::seconds(3));

  clock.Observe(start - std::chrono::hours(1));  // a failover
  EXPECT_EQ(clock.Now(), start + std::chrono::seconds(3));
  steady.Advance(std::chrono::seconds(2));
  EXPECT_EQ(clock.Now(), start + std::chrono::seconds(5));

  clock.Observe(start + std::chrono::minutes(1));
  EXPECT_EQ(clock.Now(), start + std::chrono::minutes(1));
}

}  // namespace
}  // namespace selvage::coordinator

// What an owner and a host may ask of a client: declared data, data of their
// own, consent, what was sent, to be forgotten; and that a damaged store, a
// missing key or a dying process never ends in a client that does not open.
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include <gmock/gmock.h>

#include "client/store/quarantine.h"
#include "tests/unit/client/client_fixture.h"
#include "tests/unit/client/store_fixture.h"

namespace selvage::client {
namespace {

namespace fs = std::filesystem;
using test::HostKey;
using test::IsOk;
using test::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

std::string ReadAll(const Path& path) {
  std::ifstream in(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

void Spoil(const Path& path) {
  std::ofstream(path, std::ios::binary) << std::string(8192, 'x');
}

// Examples as a host has them.
class FakeSource final : public DataSource {
 public:
  Result<std::unique_ptr<ExampleIterator>> Open(
      std::string_view collection) override {
    opened.emplace_back(collection);
    if (!open_status.ok()) return open_status;
    return std::unique_ptr<ExampleIterator>(new Iterator(*this));
  }

  std::vector<SourcedExample> examples;
  std::vector<std::string> opened;
  Status open_status;
  Status end;          // what Next() says after the last one; OK: nullopt
  size_t endless = 0;  // so many copies of the first one, with ids of their own
  size_t given = 0;

 private:
  class Iterator final : public ExampleIterator {
   public:
    explicit Iterator(FakeSource& source) : source_(source) {}
    Result<std::optional<SourcedExample>> Next() override {
      ++source_.given;
      if (next_ < source_.examples.size()) {
        return std::optional<SourcedExample>(source_.examples[next_++]);
      }
      if (next_ < source_.endless) {
        SourcedExample copy = source_.examples.front();
        copy.id = 1'000'000 + next_++;
        return std::optional<SourcedExample>(copy);
      }
      if (!source_.end.ok()) return source_.end;
      return std::optional<SourcedExample>();
    }

   private:
    FakeSource& source_;
    size_t next_ = 0;
  };
};

SourcedExample MakeSourced(uint64_t id, bool consent = true) {
  SourcedExample sourced;
  sourced.id = id;
  sourced.example.inputs.emplace_back(16, static_cast<uint8_t>(id));
  sourced.example.inputs.push_back({6, 0, 0, 0, 0, 0, 0, 0});
  sourced.example.consent = consent;
  return sourced;
}

// A disk that stops answering at the n-th call.
class DyingFiles final : public FileSystem {
 public:
  explicit DyingFiles(int calls) : left_(calls) {}
  bool dead() const { return left_ <= 0; }

  Result<std::unique_ptr<WritableFile>> Create(const Path& path,
                                               int mode) override {
    if (Die()) return Internal("dead");
    return files_.Create(path, mode);
  }
  Result<std::unique_ptr<ReadableFile>> Open(const Path& path) override {
    if (Die()) return Internal("dead");
    return files_.Open(path);
  }
  Status Rename(const Path& from, const Path& to) override {
    return Die() ? Internal("dead") : files_.Rename(from, to);
  }
  Status SyncDirectory(const Path& directory) override {
    return Die() ? Internal("dead") : files_.SyncDirectory(directory);
  }
  Status Remove(const Path& path) override {
    return Die() ? Internal("dead") : files_.Remove(path);
  }
  Status CreateDirectories(const Path& path) override {
    return Die() ? Internal("dead") : files_.CreateDirectories(path);
  }
  Result<std::vector<std::string>> List(const Path& directory) override {
    if (Die()) return Internal("dead");
    return files_.List(directory);
  }
  Result<uint64_t> FreeBytes(const Path& path) override {
    return files_.FreeBytes(path);
  }

 private:
  bool Die() { return --left_ < 0; }
  PosixFileSystem files_;
  int left_;
};

class OwnerTest : public test::ClientFixture {
 protected:
  ClientDependencies Parts() {
    ClientDependencies dependencies = Dependencies();
    dependencies.storage_key = host_key_;
    dependencies.data_source = source_;
    return dependencies;
  }
  Status TryOpen() {
    client_.reset();
    Result<std::unique_ptr<Client>> client = Client::Open(Options(), Parts());
    if (!client.ok()) return client.status();
    client_ = *std::move(client);
    return OkStatus();
  }
  // An update that does not get through.
  void GetStuckUploading() {
    ASSERT_THAT(TryOpen(), IsOk());
    AddExamples(24);
    server_->Give(server_->NewAssignment());
    server_->hook = [](const std::string& call) {
      return call == "upload" ? Unavailable("no network") : OkStatus();
    };
    EXPECT_EQ(Run().result, RunResult::kFailed);
    WaitForTurn();
  }
  std::vector<std::string> SetAsideFiles() {
    std::vector<std::string> names;
    for (const auto& file : fs::directory_iterator(state_dir_)) {
      const std::string name = file.path().filename().string();
      if (name.find("damaged") != std::string::npos) names.push_back(name);
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  HostKey key_;
  StorageKeySource* host_key_ = nullptr;
  FakeSource data_;
  DataSource* source_ = nullptr;
};

// ------------------------------------------------------- a store that is
// damaged

TEST_F(OwnerTest, Open_DamagedStore_IsSetAsideAndTheIdentityLives) {
  ASSERT_THAT(TryOpen(), IsOk());
  AddExamples(24);
  Run();
  EXPECT_EQ(client_->device_id(), "dev-7");
  const std::string key = ReadAll(state_dir_ / "device.key");
  client_.reset();
  Spoil(state_dir_ / "client.db");

  ASSERT_THAT(TryOpen(), IsOk());

  EXPECT_EQ(*client_->CountExamples("numbers"), 0U);
  EXPECT_THAT(log_.str(), HasSubstr("event=store_quarantined"));
  EXPECT_THAT(SetAsideFiles(), ElementsAre("client.db.damaged-1"));
  EXPECT_EQ(ReadAll(state_dir_ / "device.key"), key);
  // The same key and token: the same identity.
  Run();
  EXPECT_EQ(client_->device_id(), "dev-7");
  // It is told in the next report.
  clock_.Advance(std::chrono::hours(50));
  Run();
  clock_.Advance(std::chrono::hours(50));
  Run();
  EXPECT_THAT(server_->counters,
              ::testing::Contains(
                  std::pair<std::string, uint64_t>("store_quarantined", 1)));
}

TEST_F(OwnerTest, Open_DamagedAgainAndAgain_KeepsTwo) {
  for (int i = 0; i < 5; ++i) {
    ASSERT_THAT(TryOpen(), IsOk());
    AddExamples(2);
    client_.reset();
    Spoil(state_dir_ / "client.db");
  }
  ASSERT_THAT(TryOpen(), IsOk());
  EXPECT_THAT(SetAsideFiles(),
              ElementsAre("client.db.damaged-4", "client.db.damaged-5"));
  EXPECT_EQ(*client_->CountExamples("numbers"), 0U);
}

TEST_F(OwnerTest, Open_PagesOverwritten_NeverFailsToOpen) {
  int set_aside = 0;
  for (uint64_t page = 0; page < 12; ++page) {
    SCOPED_TRACE("page " + std::to_string(page));
    fs::remove_all(state_dir_);
    ASSERT_THAT(TryOpen(), IsOk());
    AddExamples(400);
    client_.reset();
    std::fstream file(state_dir_ / "client.db",
                      std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(page * 4096));
    file << std::string(4096, '\xa5');
    file.close();
    ASSERT_THAT(TryOpen(), IsOk());
    if (!SetAsideFiles().empty()) ++set_aside;
    AddExamples(24);
    server_->Give(server_->NewAssignment());
    RunUntil(RunResult::kContributed);
    server_ = std::make_unique<test::FakeServer>(clock_);
  }
  EXPECT_GT(set_aside, 3);
}

TEST_F(OwnerTest, Open_DiesAtEveryStepOfSettingAside_OpensTheNextTime) {
  int died = 0;
  for (int calls = 1;; ++calls) {
    SCOPED_TRACE("dead after " + std::to_string(calls) + " calls");
    fs::remove_all(state_dir_);
    ASSERT_THAT(TryOpen(), IsOk());
    AddExamples(3);
    const std::string key = ReadAll(state_dir_ / "device.key");
    client_.reset();
    Spoil(state_dir_ / "client.db");
    Spoil(state_dir_ / "client.db-wal");
    DyingFiles files(calls);
    ClientDependencies parts = Parts();
    ClientDependencies dying = {.clock = parts.clock,
                                .random = parts.random,
                                .events = parts.events,
                                .files = files,
                                .trainer = parts.trainer,
                                .transport = parts.transport};
    const bool opened = Client::Open(Options(), dying).ok();
    if (opened) break;
    ++died;
    ASSERT_THAT(TryOpen(), IsOk());
    EXPECT_EQ(ReadAll(state_dir_ / "device.key"), key);
    EXPECT_EQ(*client_->CountExamples("numbers"), 0U);
    AddExamples(2);
    ASSERT_THAT(TryOpen(), IsOk());
    EXPECT_EQ(*client_->CountExamples("numbers"), 2U);
  }
  EXPECT_GT(died, 8);
}

// --------------------------------------------------------------------- the key

TEST_F(OwnerTest, Open_StorageKeyGone_IsRefusedAndNothingIsSetAside) {
  ASSERT_THAT(TryOpen(), IsOk());
  AddExamples(3);
  client_.reset();
  fs::rename(state_dir_ / "storage.key", directory_.path() / "elsewhere");
  EXPECT_THAT(TryOpen(), StatusIs(StatusCode::kFailedPrecondition,
                                  HasSubstr("storage.key is not there")));
  EXPECT_THAT(SetAsideFiles(), IsEmpty());
  fs::rename(directory_.path() / "elsewhere", state_dir_ / "storage.key");
  ASSERT_THAT(TryOpen(), IsOk());
  EXPECT_EQ(*client_->CountExamples("numbers"), 3U);
}

TEST_F(OwnerTest, Open_HostKey_SealsTheDeviceKeyToo) {
  ASSERT_THAT(TryOpen(), IsOk());
  Run();
  EXPECT_THAT(ReadAll(state_dir_ / "device.key"), HasSubstr("PRIVATE KEY"));
  host_key_ = &key_;
  for (int i = 0; i < 2; ++i) {  // taken over, then as it is
    ASSERT_THAT(TryOpen(), IsOk());
    EXPECT_EQ(client_->device_id(), "dev-7");
    for (const auto& file : fs::directory_iterator(state_dir_)) {
      EXPECT_THAT(ReadAll(file.path()), Not(HasSubstr("PRIVATE KEY")))
          << file.path();
    }
    EXPECT_FALSE(fs::exists(state_dir_ / "storage.key"));
  }
  clock_.Advance(std::chrono::hours(24 * 80));  // a renewal needs the key
  Run();
  EXPECT_EQ(server_->enrolments, 2);
  key_.fill = 9;
  EXPECT_THAT(TryOpen(), StatusIs(StatusCode::kFailedPrecondition));
  host_key_ = nullptr;
  EXPECT_THAT(TryOpen(), StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_THAT(SetAsideFiles(), IsEmpty());
}

TEST_F(OwnerTest, Open_SealedDeviceKeyOfAnotherHostKey_IsRefused) {
  host_key_ = &key_;
  ASSERT_THAT(TryOpen(), IsOk());
  client_.reset();
  fs::remove(state_dir_ / "client.db");  // the store is new, the key is not
  key_.fill = 9;
  EXPECT_THAT(TryOpen(), StatusIs(StatusCode::kFailedPrecondition,
                                  HasSubstr("device key file")));
  fs::remove(state_dir_ / "client.db");
  host_key_ = nullptr;
  EXPECT_THAT(TryOpen(), StatusIs(StatusCode::kFailedPrecondition,
                                  HasSubstr("gives no storage key")));
}

// ---------------------------------------------------------------- what was
// sent

TEST_F(OwnerTest, InspectOutbox_UpdateWaits_ShowsIt) {
  GetStuckUploading();
  const auto outbox = client_->InspectOutbox();
  ASSERT_THAT(outbox, IsOk());
  ASSERT_EQ(outbox->size(), 1U);
  const OutboxItem& item = outbox->front();
  EXPECT_EQ(item.task, "digits");
  EXPECT_EQ(item.round, 1U);
  EXPECT_EQ(item.assignment_id, "round-1");
  EXPECT_GT(item.size_bytes, 0U);
  EXPECT_GT(item.norm, 0.0);
  EXPECT_GT(item.weight, 0U);
  EXPECT_GT(item.expires, clock_.Now());
  EXPECT_THAT(*client_->Audit(10), ::testing::SizeIs(1));

  server_->hook = [](const std::string&) { return OkStatus(); };
  EXPECT_EQ(Run().result, RunResult::kContributed);

  EXPECT_THAT(*client_->InspectOutbox(), IsEmpty());
  EXPECT_EQ(server_->payloads["round-1"].size(), item.size_bytes);
  EXPECT_EQ(server_->weights["round-1"], item.weight);
  ASSERT_THAT(TryOpen(), IsOk());
  const auto audit = client_->Audit(10);
  ASSERT_THAT(audit, IsOk());
  ASSERT_EQ(audit->size(), 2U);
  EXPECT_EQ((*audit)[0].result, AuditResult::kAccepted);
  EXPECT_EQ((*audit)[1].result, AuditResult::kRecorded);
  for (const AuditEntry& entry : *audit) {
    EXPECT_EQ(entry.task, "digits");
    EXPECT_EQ(entry.round, 1U);
    EXPECT_EQ(entry.size_bytes, item.size_bytes);
    EXPECT_EQ(entry.norm, item.norm);
    EXPECT_EQ(entry.weight, item.weight);
  }
  EXPECT_GT((*audit)[0].when, (*audit)[1].when);
}

TEST_F(OwnerTest, Audit_LateRejectedExpired_SaysSo) {
  ASSERT_THAT(TryOpen(), IsOk());
  AddExamples(24);
  for (const ReceiptStatus status :
       {ReceiptStatus::kLate, ReceiptStatus::kRejected}) {
    server_->receipt_status = status;
    server_->Give(server_->NewAssignment());
    RunUntil(RunResult::kNotAccepted);
    WaitForTurn();
  }
  server_->Give(server_->NewAssignment());
  server_->hook = [](const std::string& call) {
    return call == "upload" ? Unavailable("no network") : OkStatus();
  };
  EXPECT_EQ(Run().result, RunResult::kFailed);
  clock_.Advance(std::chrono::hours(24 * 20));
  Run();
  std::vector<AuditResult> results;
  const auto audit = client_->Audit(10);
  for (const AuditEntry& entry : *audit) results.push_back(entry.result);
  EXPECT_THAT(results,
              ElementsAre(AuditResult::kWithdrawn, AuditResult::kRecorded,
                          AuditResult::kRejected, AuditResult::kRecorded,
                          AuditResult::kLate, AuditResult::kRecorded));
  EXPECT_EQ(AuditResultName(audit->front().result), "withdrawn");
}

// --------------------------------------------------------------------- consent

TEST_F(OwnerTest, RunOnce_WithoutConsent_IsNeverTrainedOnForAnUpload) {
  ASSERT_THAT(TryOpen(), IsOk());
  Bytes y;
  AppendLe(y, int64_t{6});
  const std::vector<Example> examples(
      24, {{Bytes(16, 1), y}, std::nullopt, /*consent=*/false});
  ASSERT_THAT(client_->AddExamples("numbers", examples), IsOk());
  server_->Give(server_->NewAssignment());
  EXPECT_EQ(Run().result, RunResult::kDeclined);
  EXPECT_THAT(server_->abandoned, ElementsAre(AbandonReason::kTooFewExamples));
  WaitForTurn();
  // This device may adapt its own model to them.
  server_->Give(server_->NewOffer(7));
  RunUntil(RunResult::kInstalled);
  EXPECT_TRUE(client_->Info("digits")->personal_serving);
  EXPECT_GT(client_->Info("digits")->holdout_count, 0U);
  // What goes out is of the others alone.
  AddExamples(8);
  WaitForTurn();
  server_->Give(server_->NewAssignment());
  RunUntil(RunResult::kContributed);
  EXPECT_LE(server_->weights["round-2"], 8U);
}

// ------------------------------------------------------------------ forgetting

TEST_F(OwnerTest, ForgetMe_UpdateWaits_NothingOfItIsEverSent) {
  GetStuckUploading();
  server_->hook = [](const std::string&) { return OkStatus(); };

  ASSERT_THAT(client_->ForgetMe(), IsOk());

  EXPECT_THAT(*client_->InspectOutbox(), IsEmpty());
  EXPECT_EQ(*client_->CountExamples("numbers"), 0U);
  EXPECT_EQ(client_->Audit(1)->front().result, AuditResult::kWithdrawn);
  EXPECT_TRUE(server_->abandoned.empty());
  ASSERT_THAT(TryOpen(), IsOk());  // it is remembered
  const RunOutcome outcome = Run();
  EXPECT_EQ(outcome.result, RunResult::kDeclined);
  EXPECT_THAT(outcome.reason, HasSubstr("withdrawn"));
  // Not why: that is the owner's own business.
  EXPECT_THAT(server_->abandoned, ElementsAre(AbandonReason::kInterrupted));
  EXPECT_THAT(server_->abandon_messages, ElementsAre(""));
  EXPECT_TRUE(server_->updates.empty());
  EXPECT_EQ(client_->device_id(), "dev-7");
}

TEST_F(OwnerTest, ForgetMe_CoordinatorAway_GivesBackWhenItIsThere) {
  GetStuckUploading();
  ASSERT_THAT(client_->ForgetMe(), IsOk());
  server_->hook = [](const std::string&) { return Unavailable("no network"); };
  EXPECT_EQ(Run().result, RunResult::kFailed);
  EXPECT_TRUE(server_->abandoned.empty());
  server_->hook = [](const std::string&) { return OkStatus(); };
  ASSERT_THAT(TryOpen(), IsOk());
  WaitForTurn();
  EXPECT_EQ(Run().result, RunResult::kDeclined);
  EXPECT_EQ(server_->abandoned.size(), 1U);
  EXPECT_TRUE(server_->updates.empty());
}

TEST_F(OwnerTest, ForgetMe_PersonalModelServes_GlobalServesAtOnce) {
  ASSERT_THAT(TryOpen(), IsOk());
  AddExamples(24);
  ASSERT_THAT(client_->DeclareCollection("numbers", {.count_max = 30}), IsOk());
  server_->Give(server_->NewOffer(7));
  RunUntil(RunResult::kInstalled);
  ASSERT_TRUE(client_->Info("digits")->personal_serving);
  const float personal = client_->Predict("digits", Bytes(16, 0), 1)->values[0];
  client_.reset();
  Spoil(state_dir_ / "client.db-wal");  // no log of this database: ignored
  ASSERT_THAT(TryOpen(), IsOk());
  std::ofstream(state_dir_ / "client.db.damaged-3") << "of the owner";
  EXPECT_EQ(client_->Predict("digits", Bytes(16, 0), 1)->values[0], personal);

  ASSERT_THAT(client_->ForgetMe(), IsOk());

  const float global = client_->Predict("digits", Bytes(16, 0), 1)->values[0];
  EXPECT_NE(global, personal);
  EXPECT_EQ(global, server_->checkpoint.floats[0]);
  const auto info = client_->Info("digits");
  EXPECT_FALSE(info->personal_serving);
  EXPECT_THAT(info->personal_scores, IsEmpty());
  EXPECT_THAT(info->global_scores, IsEmpty());
  EXPECT_EQ(info->holdout_count, 0U);
  EXPECT_EQ(info->version, 7U);
  EXPECT_THAT(SetAsideFiles(), IsEmpty());
  ExampleSet examples;
  examples.count = 1;
  examples.inputs = {Bytes(16, 0), Bytes(8, 0)};
  EXPECT_THAT(client_->Evaluate("digits", Slot::kPersonal, examples),
              StatusIs(StatusCode::kNotFound));
  // What was declared stays, and life goes on.
  AddExamples(40);
  EXPECT_EQ(*client_->CountExamples("numbers"), 30U);
  ASSERT_THAT(client_->ForgetMe(), IsOk());
  ASSERT_THAT(client_->ForgetMe({.audit = true}), IsOk());
  EXPECT_THAT(*client_->Audit(10), IsEmpty());
  client_->Close();
  EXPECT_THAT(client_->ForgetMe(), StatusIs(StatusCode::kFailedPrecondition));
}

// -------------------------------------------------------- a host's own
// examples

TEST_F(OwnerTest, RunOnce_DataSource_AnyOrderGivesTheSameUpdate) {
  source_ = &data_;
  for (uint64_t id = 1; id <= 24; ++id) {
    data_.examples.push_back(MakeSourced(id * 77));
  }
  Bytes first;
  for (int i = 0; i < 2; ++i) {
    state_dir_ = directory_.path() / ("state" + std::to_string(i));
    server_ = std::make_unique<test::FakeServer>(clock_);
    ASSERT_THAT(TryOpen(), IsOk());
    AddExamples(3);  // stored ones are not looked at
    server_->Give(server_->NewAssignment());
    EXPECT_EQ(Run().result, RunResult::kContributed);
    const uint64_t holdout = client_->Info("digits")->holdout_count;
    EXPECT_GT(holdout, 0U);
    EXPECT_EQ(server_->weights["round-1"], 24 - holdout);
    if (i == 0) first = server_->payloads["round-1"];
    std::reverse(data_.examples.begin(), data_.examples.end());
    data_.end = OutOfRange("no more");
  }
  EXPECT_EQ(server_->payloads["round-1"], first);
  EXPECT_THAT(data_.opened.front(), "numbers");
}

TEST_F(OwnerTest, RunOnce_DataSourceWithoutConsentOrOfOtherShape_IsPassedOver) {
  source_ = &data_;
  for (uint64_t id = 1; id <= 30; ++id) {
    data_.examples.push_back(MakeSourced(id, /*consent=*/id <= 10));
  }
  SourcedExample other = MakeSourced(31);
  other.example.inputs[0].resize(3);
  data_.examples.push_back(other);
  ASSERT_THAT(TryOpen(), IsOk());
  server_->Give(server_->NewAssignment());
  EXPECT_EQ(Run().result, RunResult::kContributed);
  EXPECT_LE(server_->weights["round-1"], 10U);
  EXPECT_GT(client_->Info("digits")->holdout_count,
            10 - server_->weights["round-1"]);
}

TEST_F(OwnerTest, RunOnce_DataSourceFails_IsAnOutcome) {
  source_ = &data_;
  data_.examples.push_back(MakeSourced(1));
  ASSERT_THAT(TryOpen(), IsOk());
  server_->Give(server_->NewAssignment());
  data_.end = Internal("the database is locked");
  RunOutcome outcome = Run();
  EXPECT_EQ(outcome.result, RunResult::kFailed);
  EXPECT_THAT(outcome.reason, HasSubstr("the host's examples of numbers"));
  WaitForTurn();
  data_.end = OkStatus();
  data_.open_status = Unavailable("not unlocked yet");
  outcome = Run();
  EXPECT_EQ(outcome.result, RunResult::kFailed);
  EXPECT_THAT(outcome.reason, HasSubstr("not unlocked yet"));
  WaitForTurn();
  data_.open_status = OkStatus();
  for (uint64_t id = 2; id <= 24; ++id) {
    data_.examples.push_back(MakeSourced(id));
  }
  EXPECT_EQ(RunUntil(RunResult::kContributed).result, RunResult::kContributed);
}

TEST_F(OwnerTest, TrainLocally_DataSourceOfDoubtfulIds_IsRefused) {
  source_ = &data_;
  for (int i = 0; i < 10; ++i) data_.examples.push_back(MakeSourced(5));
  ASSERT_THAT(TryOpen(), IsOk());
  const std::string plan = plan::CanonicalJson(server_->plan);
  const std::string program = plan::CanonicalJson(server_->program);
  const Bytes values =
      plan::WriteSafetensors(server_->program.table, server_->checkpoint, {});
  EXPECT_THAT(client_->InstallModel(plan, program, {}, values),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("the id 5")));
}

TEST_F(OwnerTest, RunOnce_EndlessDataSource_IsReadUpToTheBounds) {
  source_ = &data_;
  data_.examples.push_back(MakeSourced(1));
  data_.endless = 1'000'000'000;
  ClientOptions options = Options();
  options.source_count_max = 50;
  Result<std::unique_ptr<Client>> client = Client::Open(options, Parts());
  ASSERT_THAT(client, IsOk());
  client_ = *std::move(client);
  server_->Give(server_->NewAssignment());
  EXPECT_EQ(Run().result, RunResult::kContributed);
  EXPECT_EQ(data_.given % 50, 0U);
  const uint64_t weight = server_->weights["round-1"];
  EXPECT_LT(weight, 50U);
  EXPECT_GT(weight, 20U);
  client_.reset();

  options = Options();
  options.state_dir = directory_.path() / "other";
  options.source_bytes_max = 24 * 30;  // 16 + 8 bytes each
  data_.given = 0;
  server_ = std::make_unique<test::FakeServer>(clock_);
  client = Client::Open(options, Parts());
  ASSERT_THAT(client, IsOk());
  client_ = *std::move(client);
  server_->Give(server_->NewAssignment());
  EXPECT_EQ(Run().result, RunResult::kContributed);
  EXPECT_EQ(data_.given % 31, 0U);
  EXPECT_LT(server_->weights["round-1"], 30U);
}

// ------------------------------------------------------------------- the disk

TEST_F(OwnerTest, StateDirectory_AfterWholeSessions_HasNoCanary) {
  // Four bytes no honest float has, as a personal tensor has them.
  Bytes tensor;
  AppendLe(tensor, test::kPersonalCanary);
  const auto expect_clean = [&] {
    for (const auto& file : fs::directory_iterator(state_dir_)) {
      const std::string contents = ReadAll(file.path());
      EXPECT_THAT(contents, Not(HasSubstr(test::kPixelCanary))) << file.path();
      EXPECT_THAT(contents, Not(HasSubstr(std::string(AsText(tensor)))))
          << file.path();
    }
  };
  server_->program = test::MakeFakeProgram(/*with_personal=*/true);
  server_->plan = test::MakeFakePlan(server_->program);
  server_->Publish(server_->plan, server_->program);
  server_->PublishCheckpoint(
      plan::InitializeCheckpoint(server_->program.table, 5));
  ASSERT_THAT(TryOpen(), IsOk());
  AddExamples(24);
  expect_clean();  // the log is still there
  server_->Give(server_->NewAssignment());
  EXPECT_EQ(Run().result, RunResult::kContributed);
  expect_clean();
  WaitForTurn();
  server_->Give(server_->NewOffer(7));
  RunUntil(RunResult::kInstalled);
  expect_clean();
  client_.reset();
  expect_clean();
}

TEST_F(OwnerTest, Open_AThousandTimes_LeavesNothingBehind) {
  const auto descriptors = [] {
    size_t count = 0;
    for (const auto& entry : fs::directory_iterator("/proc/self/fd")) {
      (void)entry;
      ++count;
    }
    return count;
  };
  const auto resident_kib = [] {
    std::ifstream in("/proc/self/statm");
    long size = 0;
    long resident = 0;
    in >> size >> resident;
    return resident * ::sysconf(_SC_PAGESIZE) / 1024;
  };
  ASSERT_THAT(TryOpen(), IsOk());
  AddExamples(24);
  Run();
  size_t descriptors_before = 0;
  long resident_before = 0;
  for (int i = 0; i < 1000; ++i) {
    ASSERT_THAT(TryOpen(), IsOk());
    if (i % 100 == 99) (void)Run();
    client_.reset();
    if (i == 199) {
      descriptors_before = descriptors();
      resident_before = resident_kib();
    }
  }
  EXPECT_EQ(descriptors(), descriptors_before);
#if !defined(__SANITIZE_ADDRESS__)
  EXPECT_LT(resident_kib() - resident_before, 2048);
#else
  (void)resident_before;
#endif
}

}  // namespace
}  // namespace selvage::client

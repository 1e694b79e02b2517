// The store at rest: what is sealed, under which key, how an open store of the
// first version becomes a sealed one, and what a power cut leaves of it.
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include <gmock/gmock.h>

#include "tests/testing/fault_vfs.h"
#include "tests/testing/scratch_folder.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/client/client_fixture.h"
#include "tests/unit/client/store_fixture.h"
#include "tests/unit/client/store_version1.h"

namespace selvage::client {
namespace {

using test::FaultVfs;
using test::IsOk;
using test::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::vector<size_t> kSizes = {20, 1};

std::string ReadAll(const Path& path) {
  std::ifstream in(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

// Every value that MakeVersion1Store() put there.
void ExpectVersion1Values(ClientStore& store) {
  const auto ids = store.ExampleIds("numbers", kSizes);
  ASSERT_THAT(ids, IsOk());
  ASSERT_EQ(ids->size(), 10U);
  const auto set = store.LoadExamples(*ids, kSizes);
  ASSERT_THAT(set, IsOk());
  ASSERT_EQ(set->count, 10U);
  for (size_t i = 0; i < 10; ++i) {
    EXPECT_EQ(AsText(ByteSpan(set->inputs[0]).subspan(20 * i, 20)),
              test::kExampleCanary);
    EXPECT_EQ(set->inputs[1][i], '0' + i);
  }
  EXPECT_EQ(*store.CountExamples("numbers"), 10U);
  EXPECT_EQ(**store.LoadSession(), ToBytes(test::kSessionCanary));
  EXPECT_EQ(**store.Bundle(), test::kBundleCanary);
  const auto model = store.LoadModel("digits");
  ASSERT_THAT(model, IsOk());
  EXPECT_EQ((*model)->personal_values, ToBytes(test::kTensorCanary));
  EXPECT_EQ((*model)->alone_values, ToBytes(test::kTensorCanary));
  EXPECT_TRUE((*model)->personal_serving);
  EXPECT_THAT((*model)->global_scores, ElementsAre(0.5));
  EXPECT_THAT((*model)->personal_scores, ElementsAre(1.0));
  EXPECT_EQ((*store.LoadTensors("digits"))->master_values,
            ToBytes(test::kTensorCanary));
  const auto outbox = store.LoadOutbox();
  ASSERT_THAT(outbox, IsOk());
  EXPECT_EQ((*outbox)->assignment_id, "a1");
  EXPECT_EQ((*outbox)->update.encoded, ToBytes(test::kUpdateCanary));
  EXPECT_EQ((*outbox)->update.weight, 12U);
}

class StoreSealTest : public ::testing::Test {
 protected:
  StoreSealTest() { parts_.key_file = directory_.path() / "storage.key"; }

  Status Open() {
    store_.reset();
    auto store = parts_.Open(path_);
    if (!store.ok()) return store.status();
    store_ = *std::move(store);
    return OkStatus();
  }
  void Sql(const std::string& sql) {
    SQLite::Database(path_.string(), SQLite::OPEN_READWRITE).exec(sql);
  }
  void AddOne(uint8_t fill, bool consent = true) {
    const std::vector<Example> one = {
        {{Bytes(20, fill), Bytes(1, fill)}, std::nullopt, consent}};
    ASSERT_THAT(store_->AddExamples("numbers", one), IsOk());
  }
  void ExpectNoCanaryOnDisk() {
    for (const auto& file :
         std::filesystem::directory_iterator(directory_.path())) {
      const std::string contents = ReadAll(file.path());
      for (const char* canary : test::kCanaries) {
        EXPECT_EQ(contents.find(canary), std::string::npos)
            << canary << " in " << file.path();
      }
    }
  }

  test::StoreParts parts_;
  test::ScratchFolder directory_;
  Path path_ = directory_.path() / "client.db";
  std::unique_ptr<ClientStore> store_;
};

TEST_F(StoreSealTest, Open_NoHostKey_MakesOnePrivateFile) {
  parts_.host = nullptr;
  ASSERT_THAT(Open(), IsOk());
  AddOne(1);
  const std::string key = ReadAll(parts_.key_file);
  EXPECT_EQ(key.size(), 32U);
  struct stat info {};
  ASSERT_EQ(::stat(parts_.key_file.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0600U);
  ASSERT_THAT(Open(), IsOk());
  EXPECT_EQ(ReadAll(parts_.key_file), key);
  EXPECT_EQ(*store_->CountExamples("numbers"), 1U);
}

TEST_F(StoreSealTest, Open_KeyFileGone_RefusesAndLosesNothing) {
  parts_.host = nullptr;
  ASSERT_THAT(Open(), IsOk());
  AddOne(1);
  store_.reset();
  const Path hidden = directory_.path() / "hidden";
  std::filesystem::rename(parts_.key_file, hidden);
  EXPECT_THAT(Open(), StatusIs(StatusCode::kFailedPrecondition,
                               HasSubstr("storage.key is not there")));
  EXPECT_FALSE(std::filesystem::exists(parts_.key_file));
  std::filesystem::rename(hidden, parts_.key_file);
  ASSERT_THAT(Open(), IsOk());
  EXPECT_EQ(*store_->CountExamples("numbers"), 1U);
}

TEST_F(StoreSealTest, Open_KeyFileOfAnotherSize_IsRefused) {
  parts_.host = nullptr;
  for (const size_t size : {0U, 31U, 33U, 5000U}) {
    std::ofstream(parts_.key_file, std::ios::binary) << std::string(size, 'k');
    EXPECT_THAT(Open(), StatusIs(StatusCode::kFailedPrecondition,
                                 HasSubstr("bytes, not 32")))
        << size;
  }
}

TEST_F(StoreSealTest, Open_OtherKey_IsRefusedAndLosesNothing) {
  ASSERT_THAT(Open(), IsOk());
  AddOne(1);
  parts_.host_key.fill = 8;
  EXPECT_THAT(Open(), StatusIs(StatusCode::kFailedPrecondition,
                               HasSubstr("storage key is not the one")));
  parts_.host_key.fill = 7;
  ASSERT_THAT(Open(), IsOk());
  EXPECT_EQ(*store_->CountExamples("numbers"), 1U);
}

TEST_F(StoreSealTest, Open_HostKeyFails_PassesItOn) {
  parts_.host_key.status = Unavailable("the keystore is locked");
  EXPECT_THAT(Open(), StatusIs(StatusCode::kUnavailable,
                               HasSubstr("keystore is locked")));
  parts_.host_key.status = OkStatus();
  parts_.host_key.size = 16;
  EXPECT_THAT(Open(), StatusIs(StatusCode::kFailedPrecondition,
                               HasSubstr("16 bytes, not 32")));
}

TEST_F(StoreSealTest, Open_HostBringsAKey_TakesOverFromTheFile) {
  parts_.host = nullptr;
  ASSERT_THAT(Open(), IsOk());
  AddOne(3);
  parts_.host = &parts_.host_key;
  ASSERT_THAT(Open(), IsOk());
  EXPECT_FALSE(std::filesystem::exists(parts_.key_file));
  const auto ids = store_->ExampleIds("numbers", kSizes);
  EXPECT_EQ(store_->LoadExamples(*ids, kSizes)->inputs[0], Bytes(20, 3));
  ASSERT_THAT(Open(), IsOk());
  parts_.host = nullptr;
  EXPECT_THAT(Open(), StatusIs(StatusCode::kFailedPrecondition));
}

TEST_F(StoreSealTest, Open_WrappedKeyDamaged_IsDataLoss) {
  ASSERT_THAT(Open(), IsOk());
  store_.reset();
  Sql("UPDATE meta SET value = zeroblob(92) WHERE name = 'data_key'");
  EXPECT_THAT(Open(), StatusIs(StatusCode::kDataLoss));
  Sql("DELETE FROM meta WHERE name = 'data_key'");
  EXPECT_THAT(Open(), StatusIs(StatusCode::kDataLoss));
  Sql("DROP TABLE meta");
  EXPECT_THAT(Open(), StatusIs(StatusCode::kDataLoss));
}

TEST_F(StoreSealTest, Open_TablesAreNotWhatTheVersionSays_IsDataLoss) {
  test::MakeVersion1Store(path_.string(), "");
  Sql("ALTER TABLE outbox RENAME COLUMN weight TO heaviness");
  EXPECT_THAT(Open(), StatusIs(StatusCode::kDataLoss));
}

TEST_F(StoreSealTest, Open_Version1_SealsEverythingInPlace) {
  test::MakeVersion1Store(path_.string(), "");
  EXPECT_NE(ReadAll(path_).find(test::kExampleCanary), std::string::npos);
  ASSERT_THAT(Open(), IsOk());
  ExpectVersion1Values(*store_);
  ExpectNoCanaryOnDisk();  // the log included
  ASSERT_THAT(Open(), IsOk());
  ExpectVersion1Values(*store_);
  // Old examples are as old as the migration: a ttl does not take them at once.
  ASSERT_THAT(
      store_->DeclareCollection("numbers", {.ttl = std::chrono::hours(24)}),
      IsOk());
  EXPECT_EQ(*store_->CountExamples("numbers"), 10U);
  parts_.clock.Advance(std::chrono::hours(24));
  EXPECT_EQ(*store_->CountExamples("numbers"), 0U);
}

TEST_F(StoreSealTest, Writes_NoValueLiesOpen) {
  ASSERT_THAT(Open(), IsOk());
  const std::vector<Example> examples(
      3, {{ToBytes(test::kExampleCanary), Bytes(1, 1)}});
  ASSERT_THAT(store_->AddExamples("numbers", examples), IsOk());
  OutboxEntry entry;
  entry.assignment_id = "a1";
  entry.update.encoded = ToBytes(test::kUpdateCanary);
  entry.update.digest = crypto::Sha256(entry.update.encoded);
  const PersonalTensors tensors{.task = "digits",
                                .program_digest = crypto::Sha256({}),
                                .master_values = ToBytes(test::kTensorCanary)};
  ASSERT_THAT(store_->SaveSession({.session = ToBytes(test::kSessionCanary),
                                   .outbox = &entry,
                                   .tensors = &tensors}),
              IsOk());
  ASSERT_THAT(store_->SetBundle(test::kBundleCanary), IsOk());
  StoredModel model;
  model.task = "digits";
  model.plan_json = "{}";
  model.program_digest = crypto::Sha256(AsBytes("program"));
  model.personal_values = ToBytes(test::kTensorCanary);
  model.alone_values = ToBytes(test::kTensorCanary);
  model.personal_serving = true;
  GoodModel good;
  good.task = "digits";
  good.plan_json = "{}";
  good.program_digest = model.program_digest;
  good.values = ToBytes(test::kTensorCanary);
  good.personal = true;
  ASSERT_THAT(store_->InstallModel(model, AsBytes("program"), {}, &good),
              IsOk());
  ExpectNoCanaryOnDisk();  // most of it is in the log now
  store_.reset();
  ExpectNoCanaryOnDisk();
  ASSERT_THAT(Open(), IsOk());
  EXPECT_EQ((*store_->LoadModel("digits"))->personal_values,
            ToBytes(test::kTensorCanary));
}

// What is bound to a value cannot be changed beside it.
TEST_F(StoreSealTest, LoadExamples_RowTamperedWith_IsLeftOutAndCounted) {
  for (const char* change :
       {"UPDATE example SET consent = 1 WHERE id = 2",
        "UPDATE example SET inputs = (SELECT inputs FROM example WHERE id = 1) "
        "WHERE id = 2",
        "UPDATE example SET timestamp = 5 WHERE id = 2",
        "UPDATE example SET inputs = zeroblob(49) WHERE id = 2",
        "UPDATE example SET inputs = x'' WHERE id = 2"}) {
    SCOPED_TRACE(change);
    std::filesystem::remove(path_);
    ASSERT_THAT(Open(), IsOk());
    AddOne(1);
    AddOne(2, /*consent=*/false);
    AddOne(3);
    store_.reset();
    Sql(change);
    ASSERT_THAT(Open(), IsOk());
    const auto ids = store_->ExampleIds("numbers", kSizes);
    const auto set = store_->LoadExamples(*ids, kSizes);
    ASSERT_THAT(set, IsOk());
    EXPECT_EQ(set->count, 2U);
    EXPECT_THAT(set->inputs[1], ElementsAre(1, 3));
    EXPECT_EQ(*store_->CountExamples("numbers"), 2U);
    const auto report = store_->TakeReport("r1");
    ASSERT_TRUE((*report).has_value());
    EXPECT_THAT(
        (*report)->counters,
        ElementsAre(std::pair<std::string, uint64_t>("values_damaged", 1)));
    store_.reset();
  }
  EXPECT_THAT(parts_.log.str(), HasSubstr("stored_value_damaged"));
}

TEST_F(StoreSealTest, LoadModel_PersonalSlotDamaged_GlobalServes) {
  test::MakeVersion1Store(path_.string(), "");
  ASSERT_THAT(Open(), IsOk());
  store_.reset();
  Sql("UPDATE model SET personal_values = alone_values");
  Sql("UPDATE meta SET value = x'00' WHERE name = 'session'");
  Sql("UPDATE outbox SET payload = zeroblob(40)");
  Sql("UPDATE tensors SET master_values = zeroblob(40)");
  ASSERT_THAT(Open(), IsOk());
  const auto model = store_->LoadModel("digits");
  ASSERT_THAT(model, IsOk());
  EXPECT_FALSE((*model)->personal_values.has_value());
  EXPECT_FALSE((*model)->personal_serving);
  EXPECT_EQ((*model)->global_values, (Bytes{1, 2, 3, 4}));
  EXPECT_EQ(**store_->LoadSession(), Bytes());  // no session reads from that
  EXPECT_THAT(store_->LoadOutbox(), StatusIs(StatusCode::kDataLoss));
  EXPECT_FALSE(store_->LoadTensors("digits")->has_value());
}

// What is not looked at when a large store is opened is found when it is used,
// and then the next opening looks.
TEST_F(StoreSealTest, Open_LargeStoreDamaged_IsFoundAtTheLatestAfterUse) {
  ASSERT_THAT(Open(), IsOk());
  const std::vector<Example> large(3, {{Bytes(12 << 20, 1)}});
  for (const Example& example : large) {
    ASSERT_THAT(store_->AddExamples("numbers", std::vector<Example>{example}),
                IsOk());
  }
  std::vector<Example> many(300, {{Bytes(20, 1), Bytes(1, 1)}});
  ASSERT_THAT(store_->AddExamples("others", many), IsOk());
  ASSERT_THAT(Open(), IsOk());  // looked at, now that it is large
  store_.reset();
  int64_t page = 0;
  {
    SQLite::Database db(path_.string(), SQLite::OPEN_READONLY);
    page = db.execAndGet(
                 "SELECT pageno FROM dbstat WHERE name = 'example_by_layout' "
                 "AND pagetype = 'leaf' LIMIT 1")
               .getInt64();
  }
  {
    std::fstream file(path_, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp((page - 1) * 4096);
    file << std::string(4096, '\xa5');
  }
  ASSERT_THAT(Open(), IsOk());  // a clean close, days ago at most
  EXPECT_THAT(store_->ExampleIds("others", kSizes),
              StatusIs(StatusCode::kDataLoss));
  EXPECT_THAT(Open(), StatusIs(StatusCode::kDataLoss, HasSubstr("damaged")));
}

// ---------------------------------------------------------------- the disk

TEST(StoreSealPowerTest, Open_Version1PowerCutAnywhere_OldOrNewNeverBetween) {
  int failed = 0;
  for (uint64_t point = 0;; ++point) {
    SCOPED_TRACE("power cut after operation " + std::to_string(point));
    FaultVfs vfs;
    test::StoreParts parts;
    test::MakeVersion1Store("/client.db", vfs.name());
    vfs.FailAfter(point);
    const bool opened = parts.Open("/client.db", vfs.name()).ok();
    SeededRandom random(point);
    vfs.CrashTorn(random);
    vfs.ClearFaults();
    auto store = parts.Open("/client.db", vfs.name());
    ASSERT_THAT(store, IsOk());
    ExpectVersion1Values(**store);
    store->reset();
    for (const std::string& file : vfs.Files()) {
      for (const char* canary : test::kCanaries) {
        EXPECT_EQ(vfs.Contents(file)->find(canary), std::string::npos)
            << canary << " in " << file;
      }
    }
    if (opened) break;
    ++failed;
  }
  EXPECT_GT(failed, 40);
}

// A write that fails once, and a host that opens again.
TEST(StoreSealPowerTest, Open_Version1AnyOperationFails_TriedAgainItWorks) {
  for (uint64_t point = 0;; ++point) {
    SCOPED_TRACE("operation " + std::to_string(point) + " fails");
    FaultVfs vfs;
    test::StoreParts parts;
    test::MakeVersion1Store("/client.db", vfs.name());
    const uint64_t before = vfs.operations();
    vfs.FailAfter(point, 1);
    (void)parts.Open("/client.db", vfs.name());
    const bool all = vfs.operations() - before <= point;
    vfs.ClearFaults();
    auto store = parts.Open("/client.db", vfs.name());
    ASSERT_THAT(store, IsOk());
    ExpectVersion1Values(**store);
    if (all) break;
  }
}

TEST(StoreSealPowerTest, Forget_PowerCutAnywhere_AllOrNothing) {
  int failed = 0;
  for (uint64_t point = 0;; ++point) {
    SCOPED_TRACE("power cut after operation " + std::to_string(point));
    FaultVfs vfs;
    test::StoreParts parts;
    test::MakeVersion1Store("/client.db", vfs.name());
    bool forgotten = false;
    {
      auto store = parts.Open("/client.db", vfs.name());
      ASSERT_THAT(store, IsOk());
      vfs.FailAfter(point);
      forgotten = (*store)->Forget(AsBytes("idle"), {}).ok();
      SeededRandom random(point);
      vfs.CrashTorn(random);
    }
    vfs.ClearFaults();
    auto store = parts.Open("/client.db", vfs.name());
    ASSERT_THAT(store, IsOk());
    if (**(*store)->LoadSession() != ToBytes("idle")) {
      EXPECT_FALSE(forgotten);
      ExpectVersion1Values(**store);
      EXPECT_THAT(*(*store)->Audit(10), ::testing::IsEmpty());
    } else {
      EXPECT_EQ(*(*store)->CountExamples("numbers"), 0U);
      EXPECT_FALSE((*store)->LoadOutbox()->has_value());
      EXPECT_FALSE((*store)->LoadTensors("digits")->has_value());
      const auto model = (*store)->LoadModel("digits");
      EXPECT_FALSE((*model)->personal_values.has_value());
      EXPECT_FALSE((*model)->alone_values.has_value());
      EXPECT_FALSE((*model)->personal_serving);
      EXPECT_EQ((*model)->global_values, (Bytes{1, 2, 3, 4}));
      const auto audit = (*store)->Audit(10);
      ASSERT_THAT(audit, IsOk());
      ASSERT_EQ(audit->size(), 1U);
      EXPECT_EQ(audit->front().result, AuditResult::kWithdrawn);
      EXPECT_EQ(audit->front().weight, 12U);
      EXPECT_EQ(audit->front().size_bytes, 21U);
    }
    if (forgotten) break;
    ++failed;
  }
  EXPECT_GT(failed, 5);
}

TEST(StoreSealPowerTest, AddExamples_PowerCutWhileEvicting_AllOrNothing) {
  const std::vector<size_t> sizes = {4};
  int failed = 0;
  for (uint64_t point = 0;; ++point) {
    SCOPED_TRACE("power cut after operation " + std::to_string(point));
    FaultVfs vfs;
    test::StoreParts parts;
    bool added = false;
    {
      auto store = parts.Open("/client.db", vfs.name());
      ASSERT_THAT(store, IsOk());
      ASSERT_THAT((*store)->DeclareCollection("numbers", {.count_max = 5}),
                  IsOk());
      ASSERT_THAT((*store)->AddExamples(
                      "numbers", std::vector<Example>(5, {{Bytes(4, 1)}})),
                  IsOk());
      vfs.FailAfter(point);
      added =
          (*store)
              ->AddExamples("numbers", std::vector<Example>(3, {{Bytes(4, 2)}}))
              .ok();
      SeededRandom random(point);
      vfs.CrashTorn(random);
    }
    vfs.ClearFaults();
    auto store = parts.Open("/client.db", vfs.name());
    ASSERT_THAT(store, IsOk());
    EXPECT_EQ(*(*store)->CountExamples("numbers"), 5U);
    const auto ids = (*store)->ExampleIds("numbers", sizes);
    ASSERT_THAT(ids, IsOk());
    const auto report = (*store)->TakeReport("r");
    ASSERT_THAT(report, IsOk());
    if (ids->back() == 5) {
      EXPECT_FALSE(added);
      EXPECT_FALSE(report->has_value());
    } else {
      EXPECT_THAT(*ids, ElementsAre(4, 5, 6, 7, 8));
      ASSERT_TRUE(report->has_value());
      EXPECT_EQ((*report)->counters.front().second, 3U);
    }
    if (added) break;
    ++failed;
  }
  EXPECT_GT(failed, 5);
}

// An update and its entry in the audit are one.
TEST(StoreSealPowerTest, SaveSession_PowerCutAnywhere_AuditTellsTheOutbox) {
  int cuts = 0;
  for (uint64_t point = 0; point < 300; point += 2) {
    SCOPED_TRACE("power cut after operation " + std::to_string(point));
    FaultVfs vfs;
    test::StoreParts parts;
    bool finished = true;
    {
      auto store = parts.Open("/client.db", vfs.name());
      ASSERT_THAT(store, IsOk());
      vfs.FailAfter(point);
      for (uint64_t i = 1; i <= 3 && finished; ++i) {
        OutboxEntry entry;
        entry.assignment_id = "a" + std::to_string(i);
        entry.task = "digits";
        entry.round = i;
        entry.update.encoded = Bytes(100, 1);
        entry.update.digest = crypto::Sha256(entry.update.encoded);
        entry.update.norm = 0.5;
        finished =
            (*store)->SaveSession({.session = {}, .outbox = &entry}).ok() &&
            (*store)
                ->SaveSession({.session = {},
                               .drop_outbox = true,
                               .dropped = AuditResult::kAccepted})
                .ok();
      }
      SeededRandom random(point);
      vfs.CrashTorn(random);
    }
    vfs.ClearFaults();
    auto store = parts.Open("/client.db", vfs.name());
    ASSERT_THAT(store, IsOk());
    const auto outbox = (*store)->InspectOutbox();
    const auto audit = (*store)->Audit(10);
    ASSERT_THAT(outbox, IsOk());
    ASSERT_THAT(audit, IsOk());
    EXPECT_EQ(audit->size() % 2, outbox->size());
    for (size_t i = 0; i < audit->size(); ++i) {
      const size_t from_oldest = audit->size() - 1 - i;
      EXPECT_EQ((*audit)[i].result, from_oldest % 2 == 0
                                        ? AuditResult::kRecorded
                                        : AuditResult::kAccepted);
      EXPECT_EQ((*audit)[i].round, from_oldest / 2 + 1);
      EXPECT_EQ((*audit)[i].size_bytes, 100U);
      EXPECT_EQ((*audit)[i].norm, 0.5);
    }
    ++cuts;
    if (finished) break;
  }
  EXPECT_GT(cuts, 10);
}

}  // namespace
}  // namespace selvage::client

// Collections: what they accept, what expires, what is evicted and told.
#include <gmock/gmock.h>

#include "tests/testing/scratch_folder.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/client/client_fixture.h"
#include "tests/unit/client/store_fixture.h"

namespace selvage::client {
namespace {

using std::chrono::hours;
using test::IsOk;
using test::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const std::vector<size_t> kFour = {4};

class CollectionsTest : public ::testing::Test {
 protected:
  void Open() {
    store_.reset();
    auto store = parts_.Open(path_);
    ASSERT_THAT(store, IsOk());
    store_ = *std::move(store);
  }
  // Observed at `hour`.
  Result<std::vector<int64_t>> Add(int hour, size_t count = 1,
                                   const std::string& collection = "numbers",
                                   size_t size = 4) {
    const Time when = FromMicros(0) + hours(24 * 365 * 52) + hours(hour);
    return store_->AddExamples(
        collection, std::vector<Example>(count, {{Bytes(size, 1)}, when}));
  }
  std::vector<int64_t> Ids() { return *store_->ExampleIds("numbers", kFour); }
  uint64_t Counter(const std::string& name) {
    const auto report = store_->TakeReport("r" + std::to_string(reports_++));
    uint64_t value = 0;
    if (report->has_value()) {
      for (const auto& counter : (*report)->counters) {
        if (counter.first == name) value = counter.second;
      }
      EXPECT_THAT(store_->ForgetReport((*report)->report_id), IsOk());
    }
    return value;
  }

  test::StoreParts parts_;
  test::ScratchFolder directory_;
  Path path_ = directory_.path() / "client.db";
  std::unique_ptr<ClientStore> store_;
  int reports_ = 0;
};

const std::vector<TensorSchema> kDigit = {
    {.name = "pixels", .dtype = plan::DType::kUint8, .shape = {4, 4}},
    {.name = "label", .dtype = plan::DType::kInt64}};

TEST_F(CollectionsTest, AddExamples_Schema_NamesWhatDoesNotFit) {
  Open();
  ASSERT_THAT(store_->DeclareCollection("digits", {.schema = kDigit}), IsOk());
  Open();  // it is durable
  const Example good{{Bytes(16, 1), Bytes(8, 0)}};
  const auto add = [&](const Example& second) {
    return store_->AddExamples("digits", std::vector<Example>{good, second})
        .status();
  };
  EXPECT_THAT(
      add({{Bytes(15, 1), Bytes(8, 0)}}),
      StatusIs(StatusCode::kInvalidArgument,
               HasSubstr("collection digits, example 1: tensor pixels has 15 "
                         "bytes, u8[4,4] takes 16")));
  EXPECT_THAT(add({{Bytes(16, 1), Bytes(4, 0)}}),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("tensor label has 4 bytes, i64[] takes 8")));
  EXPECT_THAT(add({{Bytes(16, 1)}}),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("it has 1 tensors, the schema 2")));
  EXPECT_THAT(add({{Bytes(16, 1), Bytes(8, 0)}, FromMicros(-1)}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("timestamp")));
  EXPECT_THAT(add({{Bytes(16, 1), Bytes(8, 0)}, kNever}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("timestamp")));
  EXPECT_EQ(*store_->CountExamples("digits"), 0U);  // all or none
  EXPECT_THAT(add(good), IsOk());
  EXPECT_EQ(*store_->CountExamples("digits"), 2U);
}

// What an import that was killed does when it is started again.
TEST_F(CollectionsTest, AddExamples_KeyIsThere_AddsNothingAndNamesIt) {
  Open();
  const auto add = [&](const std::string& collection,
                       std::vector<std::string> keys) {
    std::vector<Example> examples;
    for (std::string& key : keys) {
      examples.push_back({.inputs = {Bytes(4, 1)}, .key = std::move(key)});
    }
    return *store_->AddExamples(collection, examples);
  };
  EXPECT_THAT(add("numbers", {"a", "b"}), ElementsAre(1, 2));
  Open();
  EXPECT_THAT(add("numbers", {"b", "c", "", "", "c"}),
              ElementsAre(2, 3, 4, 5, 3));
  EXPECT_EQ(*store_->CountExamples("numbers"), 5U);
  // Each collection has keys of its own, each as long as its example lives.
  EXPECT_THAT(add("letters", {"a"}), ElementsAre(6));
  ASSERT_THAT(store_->DeleteExample(1), IsOk());
  EXPECT_THAT(add("numbers", {"a"}), ElementsAre(7));
}

TEST_F(CollectionsTest, AddExamples_Key_IsNotInTheFile) {
  Open();
  const std::string key = "CANARY-of-a-file-name.csv/7";
  ASSERT_THAT(store_->AddExamples(
                  "numbers",
                  std::vector<Example>{{.inputs = {Bytes(4, 1)}, .key = key}}),
              IsOk());
  store_.reset();
  PosixFileSystem files;
  EXPECT_THAT(ToString(*ReadFile(files, path_, 1 << 20)),
              ::testing::Not(HasSubstr("CANARY")));
}

TEST_F(CollectionsTest, DeclareCollection_BadDeclarations_AreRefused) {
  Open();
  const auto declare = [&](std::vector<TensorSchema> schema) {
    return store_->DeclareCollection("digits", {.schema = std::move(schema)});
  };
  const Status refused[] = {
      declare({{.name = ""}}),
      declare({{.name = "two words"}}),
      declare({{.name = std::string(65, 'a')}}),
      declare({{.name = "a"}, {.name = "a"}}),
      declare({{.name = "a", .shape = {0}}}),
      declare({{.name = "a", .shape = {-1}}}),
      declare({{.name = "a", .shape = {int64_t{1} << 40, int64_t{1} << 40}}}),
      declare({{.name = "a", .shape = std::vector<int64_t>(9, 1)}}),
      declare({{.name = "a", .shape = {4 << 20}}, {.name = "b", .shape = {1}}}),
      declare(std::vector<TensorSchema>(17)),
      store_->DeclareCollection("digits", {.ttl = Duration(-1)}),
      store_->DeclareCollection("digits", {.count_max = UINT64_MAX}),
      store_->DeclareCollection("digits", {.bytes_max = UINT64_MAX}),
      store_->DeclareCollection("digits", {.schema = kDigit, .bytes_max = 23}),
  };
  for (const Status& status : refused) {
    EXPECT_THAT(status, StatusIs(StatusCode::kInvalidArgument,
                                 HasSubstr("collection digits")));
  }
  EXPECT_THAT(
      store_->DeclareCollection("digits", {.schema = kDigit, .bytes_max = 24}),
      IsOk());
}

TEST_F(CollectionsTest, AddExamples_OverCount_OldestGoesByTimeThenById) {
  Open();
  ASSERT_THAT(store_->DeclareCollection("numbers", {.count_max = 3}), IsOk());
  ASSERT_THAT(Add(/*hour=*/5), IsOk());  // 1
  ASSERT_THAT(Add(3), IsOk());           // 2
  ASSERT_THAT(Add(3), IsOk());           // 3
  ASSERT_THAT(Add(9), IsOk());           // 4
  EXPECT_THAT(Ids(), ElementsAre(1, 3, 4));
  ASSERT_THAT(Add(1), IsOk());  // older than all there is: it goes itself
  EXPECT_THAT(Ids(), ElementsAre(1, 3, 4));
  EXPECT_EQ(Counter("examples_evicted"), 2U);
  EXPECT_THAT(parts_.log.str(), HasSubstr("event=examples_evicted"));
  ASSERT_THAT(Add(10, 7), IsOk());  // more than fit, at once
  EXPECT_THAT(Ids(), ElementsAre(10, 11, 12));
  // Other collections are left alone.
  ASSERT_THAT(Add(1, 5, "others"), IsOk());
  EXPECT_EQ(*store_->CountExamples("others"), 5U);
  EXPECT_EQ(*store_->CountExamples("numbers"), 3U);
}

TEST_F(CollectionsTest, AddExamples_OverBytes_OldestGo) {
  Open();
  ASSERT_THAT(store_->DeclareCollection("numbers", {.bytes_max = 10}), IsOk());
  ASSERT_THAT(Add(1), IsOk());
  ASSERT_THAT(Add(2), IsOk());
  ASSERT_THAT(Add(3, 1, "numbers", 6), IsOk());  // 4 + 4 + 6 > 10
  EXPECT_THAT(Ids(), ElementsAre(2));
  EXPECT_THAT(Add(4, 1, "numbers", 11),
              StatusIs(StatusCode::kResourceExhausted,
                       HasSubstr("it has 11 bytes, bytes_max is 10")));
  EXPECT_EQ(*store_->CountExamples("numbers"), 2U);
}

TEST_F(CollectionsTest, DeclareCollection_TighterBounds_ApplyAtOnce) {
  Open();
  ASSERT_THAT(Add(1, 6), IsOk());
  ASSERT_THAT(store_->DeclareCollection("numbers", {.count_max = 2}), IsOk());
  EXPECT_THAT(Ids(), ElementsAre(5, 6));
  ASSERT_THAT(store_->DeclareCollection("numbers", {}), IsOk());
  ASSERT_THAT(Add(1, 6), IsOk());
  EXPECT_EQ(*store_->CountExamples("numbers"), 8U);
}

TEST_F(CollectionsTest, CountExamples_Ttl_WhatIsOlderIsGone) {
  Open();
  ASSERT_THAT(store_->DeclareCollection("numbers", {.ttl = hours(24)}), IsOk());
  const std::vector<Example> fresh(2, {{Bytes(4, 1)}});
  ASSERT_THAT(store_->AddExamples("numbers", fresh), IsOk());
  ASSERT_THAT(Add(/*hour=*/0), IsOk());  // a year ago
  EXPECT_THAT(Ids(), ElementsAre(1, 2));
  parts_.clock.Advance(hours(23));
  ASSERT_THAT(store_->AddExamples("numbers", fresh), IsOk());
  EXPECT_EQ(*store_->CountExamples("numbers"), 4U);
  parts_.clock.Advance(hours(1));
  EXPECT_THAT(Ids(), ElementsAre(4, 5));
  EXPECT_EQ(Counter("examples_expired"), 3U);
}

TEST_F(CollectionsTest, ExampleIds_Consented_LeavesOutTheOthers) {
  Open();
  std::vector<Example> examples(4, {{Bytes(4, 1)}});
  examples[1].consent = false;
  examples[2].consent = false;
  ASSERT_THAT(store_->AddExamples("numbers", examples), IsOk());
  EXPECT_THAT(*store_->ExampleIds("numbers", kFour, true), ElementsAre(1, 4));
  EXPECT_THAT(Ids(), ElementsAre(1, 2, 3, 4));
}

TEST_F(CollectionsTest, AddExamples_StoreFull_OldestOfAllCollectionsGo) {
  parts_.bytes_max = 2 << 20;
  Open();
  for (int i = 0; i < 60; ++i) {
    ASSERT_THAT(Add(i, 1, i % 2 == 0 ? "numbers" : "others", 60'000), IsOk());
  }
  const uint64_t kept =
      *store_->CountExamples("numbers") + *store_->CountExamples("others");
  EXPECT_GT(kept, 20U);
  EXPECT_LT(kept, 35U);
  EXPECT_EQ(Counter("examples_evicted"), 60 - kept);
  const std::vector<size_t> sizes = {60'000};
  EXPECT_EQ(store_->ExampleIds("others", sizes)->back(), 60);
  store_.reset();
  EXPECT_LE(std::filesystem::file_size(path_), parts_.bytes_max + 300'000);
  Open();
  // One larger than everything is refused, and nothing is lost for it.
  EXPECT_THAT(Add(99, 1, "numbers", 3 << 20),
              StatusIs(StatusCode::kResourceExhausted,
                       HasSubstr("store_bytes_max is 2097152")));
  EXPECT_EQ(
      *store_->CountExamples("numbers") + *store_->CountExamples("others"),
      kept);
}

TEST_F(CollectionsTest, Audit_ManyUpdates_KeepsTheLastThousand) {
  Open();
  OutboxEntry entry;
  entry.assignment_id = "a";
  entry.update.encoded = Bytes(3, 1);
  entry.update.digest = crypto::Sha256(entry.update.encoded);
  for (uint64_t i = 1; i <= 510; ++i) {
    entry.round = i;
    ASSERT_THAT(store_->SaveSession({.session = {}, .outbox = &entry}), IsOk());
    ASSERT_THAT(store_->SaveSession({.session = {},
                                     .drop_outbox = true,
                                     .dropped = AuditResult::kLate}),
                IsOk());
  }
  const auto audit = store_->Audit(5000);
  ASSERT_THAT(audit, IsOk());
  EXPECT_EQ(audit->size(), kAuditMax);
  EXPECT_EQ(audit->front().round, 510U);
  EXPECT_EQ(audit->front().result, AuditResult::kLate);
  EXPECT_EQ(audit->back().round, 11U);
  EXPECT_EQ(store_->Audit(2)->size(), 2U);
  // The audit stays when the rest is forgotten, unless it is asked for.
  ASSERT_THAT(store_->Forget({}, {}), IsOk());
  EXPECT_EQ(store_->Audit(5000)->size(), kAuditMax);
  ASSERT_THAT(store_->Forget({}, {.audit = true}), IsOk());
  EXPECT_THAT(*store_->Audit(5000), IsEmpty());
}

}  // namespace
}  // namespace selvage::client

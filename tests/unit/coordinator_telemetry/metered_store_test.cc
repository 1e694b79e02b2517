#include "coordinator/telemetry/metered_store.h"

#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/store/memory_store.h"
#include "coordinator/telemetry/metered_blob_store.h"
#include "tests/unit/coordinator/world.h"

namespace selvage::coordinator {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

class Calls final : public Telemetry {
 public:
  void DatabaseCalled(std::string_view query, Duration duration) override {
    EXPECT_GE(duration, Duration::zero());
    ++database[std::string(query)];
  }
  void BlobsCalled(std::string_view op, Duration) override {
    ++blobs[std::string(op)];
  }
  std::map<std::string, int> database;
  std::map<std::string, int> blobs;
};

TEST(MeteredStoreTest, Calls_GoThroughAndAreToldByName) {
  test::FakeClock clock;
  test::LockedRandom random(1);
  MemoryStore inner(clock, random);
  Calls calls;
  MeteredStore store(inner, clock, calls);
  PopulationRow row;
  row.name = "demo";
  EXPECT_THAT(store.CreatePopulation(row, {}), test::IsOk());
  EXPECT_THAT(store.CreatePopulation(row, {}),
              test::StatusIs(StatusCode::kAlreadyExists));
  EXPECT_THAT(inner.GetPopulation("demo"), test::IsOk());
  EXPECT_EQ(store.instance_id(), inner.instance_id());
  EXPECT_EQ(store.Now(), inner.Now());
  EXPECT_THAT(calls.database, ElementsAre(Pair("create_population", 2)));
}

TEST(MeteredBlobStoreTest, Calls_GoThroughAndAreToldByName) {
  test::FaultFileSystem files;
  auto inner = FileBlobStore::Open(files, "/blobs");
  ASSERT_THAT(inner, test::IsOk());
  test::FakeClock clock;
  Calls calls;
  MeteredBlobStore blobs(**inner, clock, calls);
  const auto digest = blobs.Put(AsBytes("abc"));
  ASSERT_THAT(digest, test::IsOk());
  EXPECT_THAT(blobs.Read(*digest, 10), test::IsOk());
  EXPECT_THAT(blobs.Read(crypto::Sha256(AsBytes("x")), 10),
              test::StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(calls.blobs, ElementsAre(Pair("put", 1), Pair("read", 2)));
}

}  // namespace
}  // namespace selvage::coordinator

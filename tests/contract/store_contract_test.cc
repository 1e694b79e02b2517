#include "tests/contract/store_contract.h"

#include <filesystem>

#include "coordinator/store/memory_store.h"
#include "coordinator/store/sqlite_store.h"
#include "tests/testing/scratch_folder.h"

namespace selvage::coordinator {
namespace {

class MemoryUnderTest final : public StoreUnderTest {
 public:
  Store& store() override { return store_; }
  void Reopen() override {}

 private:
  MemoryStore store_{clock, random};
};

class SqliteUnderTest final : public StoreUnderTest {
 public:
  SqliteUnderTest() { Reopen(); }
  Store& store() override { return *store_; }
  void Reopen() override {
    store_.reset();
    auto opened = SqliteStore::Open({.path = directory_.path() / "store.db"},
                                    clock, random);
    ASSERT_THAT(opened, test::IsOk());
    store_ = *std::move(opened);
  }

 private:
  const test::ScratchFolder directory_;
  std::unique_ptr<SqliteStore> store_;
};

INSTANTIATE_TEST_SUITE_P(Memory, StoreContract, ::testing::Values(MakeStore([] {
                           return std::make_unique<MemoryUnderTest>();
                         })));
INSTANTIATE_TEST_SUITE_P(Sqlite, StoreContract, ::testing::Values(MakeStore([] {
                           return std::make_unique<SqliteUnderTest>();
                         })));

}  // namespace
}  // namespace selvage::coordinator

#include "tests/testing/fault_file_system.h"

#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"
#include "tests/testing/status_matchers.h"

namespace selvage::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class FaultFileSystemTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_THAT(fs_.CreateDirectories("/d"), IsOk()); }

  // A file that is open and holds `text`, nothing of it durable.
  std::unique_ptr<WritableFile> Write(const Path& path, std::string_view text) {
    Result<std::unique_ptr<WritableFile>> file = fs_.Create(path, 0600);
    EXPECT_THAT(file, IsOk());
    EXPECT_THAT((*file)->Append(AsBytes(text)), IsOk());
    return *std::move(file);
  }
  std::string Contents(const Path& path) {
    const Result<Bytes> contents = ReadFile(fs_, path, 1 << 20);
    return contents.ok()
               ? ToString(*contents)
               : std::string(StatusCodeName(contents.status().code()));
  }

  FaultFileSystem fs_;
};

TEST_F(FaultFileSystemTest, Crash_AfterDurableWrite_KeepsTheFile) {
  ASSERT_THAT(WriteFileDurably(fs_, "/d/a", AsBytes("hello"), 0640), IsOk());
  fs_.Crash();
  EXPECT_EQ(Contents("/d/a"), "hello");
  EXPECT_THAT(*fs_.List("/d"), ElementsAre("a"));
  EXPECT_EQ(*fs_.Mode("/d/a"), 0640);
}

TEST_F(FaultFileSystemTest, Crash_BytesNotSynced_AreLost) {
  const auto file = Write("/d/a", "one");
  ASSERT_THAT(file->Sync(), IsOk());
  ASSERT_THAT(fs_.SyncDirectory("/d"), IsOk());
  ASSERT_THAT(file->Append(AsBytes("two")), IsOk());
  EXPECT_EQ(Contents("/d/a"), "onetwo");
  fs_.Crash();
  EXPECT_EQ(Contents("/d/a"), "one");
}

TEST_F(FaultFileSystemTest, Crash_NameNotSynced_IsLost) {
  ASSERT_THAT(Write("/d/a", "one")->Sync(), IsOk());
  EXPECT_EQ(Contents("/d/a"), "one");
  fs_.Crash();
  EXPECT_EQ(Contents("/d/a"), "NOT_FOUND");
}

TEST_F(FaultFileSystemTest, Crash_NameSyncedButNotTheBytes_LeavesAnEmptyFile) {
  Write("/d/a", "one");
  ASSERT_THAT(fs_.SyncDirectory("/d"), IsOk());
  fs_.Crash();
  EXPECT_EQ(Contents("/d/a"), "");
}

TEST_F(FaultFileSystemTest, Crash_RenameNotSynced_IsUndone) {
  ASSERT_THAT(WriteFileDurably(fs_, "/d/a", AsBytes("old")), IsOk());
  ASSERT_THAT(WriteFileDurably(fs_, "/d/b", AsBytes("new")), IsOk());
  ASSERT_THAT(fs_.Rename("/d/b", "/d/a"), IsOk());
  EXPECT_EQ(Contents("/d/a"), "new");
  EXPECT_EQ(Contents("/d/b"), "NOT_FOUND");
  fs_.Crash();
  EXPECT_EQ(Contents("/d/a"), "old");
  EXPECT_EQ(Contents("/d/b"), "new");
}

TEST_F(FaultFileSystemTest, Crash_RemoveNotSynced_IsUndone) {
  ASSERT_THAT(WriteFileDurably(fs_, "/d/a", AsBytes("x")), IsOk());
  ASSERT_THAT(fs_.Remove("/d/a"), IsOk());
  EXPECT_EQ(Contents("/d/a"), "NOT_FOUND");
  fs_.Crash();
  EXPECT_EQ(Contents("/d/a"), "x");
  ASSERT_THAT(fs_.Remove("/d/a"), IsOk());
  ASSERT_THAT(fs_.SyncDirectory("/d"), IsOk());
  fs_.Crash();
  EXPECT_EQ(Contents("/d/a"), "NOT_FOUND");
}

TEST_F(FaultFileSystemTest, Crash_OverwriteInPlace_LosesTheOldContentsToo) {
  ASSERT_THAT(WriteFileDurably(fs_, "/d/a", AsBytes("old")), IsOk());
  Write("/d/a", "new");
  fs_.Crash();
  EXPECT_EQ(Contents("/d/a"), "");
}

TEST_F(FaultFileSystemTest, Crash_FilesThatWereOpen_AreDead) {
  ASSERT_THAT(WriteFileDurably(fs_, "/d/a", AsBytes("old")), IsOk());
  const auto reader = *fs_.Open("/d/a");
  const auto writer = Write("/d/b", "x");
  fs_.Crash();
  Bytes out(1);
  EXPECT_THAT(reader->ReadAt(0, out),
              StatusIs(StatusCode::kInternal, HasSubstr("crashed")));
  EXPECT_THAT(writer->Append(AsBytes("y")), StatusIs(StatusCode::kInternal));
  EXPECT_THAT(writer->Sync(), StatusIs(StatusCode::kInternal));
  EXPECT_THAT(writer->Close(), StatusIs(StatusCode::kInternal));
  EXPECT_THAT(fs_.Open("/d/a"), IsOk());
}

TEST_F(FaultFileSystemTest, CrashTorn_ManySeeds_ShowEveryOutcomeAndNoOther) {
  std::set<std::string> contents;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    FaultFileSystem fs;
    ASSERT_THAT(fs.CreateDirectories("/d"), IsOk());
    ASSERT_THAT(WriteFileDurably(fs, "/d/a", AsBytes("old")), IsOk());
    const auto file = *fs.Create("/d/new", 0600);
    ASSERT_THAT(file->Append(AsBytes("abc")), IsOk());
    ASSERT_THAT(fs.Remove("/d/a"), IsOk());
    SeededRandom random(seed);
    fs.CrashTorn(random);
    std::string seen;
    for (const char* name : {"/d/a", "/d/new"}) {
      const Result<Bytes> bytes = ReadFile(fs, name, 100);
      seen += bytes.ok() ? ToString(*bytes) + ";" : "-;";
    }
    contents.insert(seen);
  }
  EXPECT_THAT(contents,
              ElementsAre("-;-;", "-;;", "-;a;", "-;ab;", "-;abc;", "old;-;",
                          "old;;", "old;a;", "old;ab;", "old;abc;"));
}

TEST_F(FaultFileSystemTest,
       WriteFileDurably_CrashAfterAnyOperation_IsAllOrOld) {
  // The function under test, held to its promise at every point.
  for (uint64_t n = 0; n < 20; ++n) {
    for (uint64_t seed = 0; seed < 20; ++seed) {
      FaultFileSystem fs;
      ASSERT_THAT(fs.CreateDirectories("/d"), IsOk());
      ASSERT_THAT(WriteFileDurably(fs, "/d/a", AsBytes("old")), IsOk());
      fs.FailAfter(n, StatusCode::kInternal);
      const Status written = WriteFileDurably(fs, "/d/a", AsBytes("new!"));
      fs.ClearFaults();
      SeededRandom random(seed);
      fs.CrashTorn(random);
      const std::string contents = ToString(*ReadFile(fs, "/d/a", 100));
      if (written.ok()) {
        EXPECT_EQ(contents, "new!") << n;
      } else {
        EXPECT_TRUE(contents == "old" || contents == "new!") << n << contents;
      }
    }
  }
}

TEST_F(FaultFileSystemTest, FailAfter_NOperations_ThenFailsForAWhile) {
  const uint64_t before = fs_.operations();
  fs_.FailAfter(2, StatusCode::kUnavailable, 2);
  EXPECT_THAT(fs_.List("/d"), IsOk());
  EXPECT_THAT(fs_.CreateDirectories("/e"), IsOk());
  EXPECT_THAT(fs_.Create("/d/a", 0600),
              StatusIs(StatusCode::kUnavailable, HasSubstr("'/d/a'")));
  EXPECT_THAT(fs_.FreeBytes("/d"), StatusIs(StatusCode::kUnavailable));
  EXPECT_THAT(fs_.List("/d"), IsOk());
  EXPECT_THAT(*fs_.List("/d"), IsEmpty());
  EXPECT_EQ(fs_.operations(), before + 6);
}

TEST_F(FaultFileSystemTest, FailAfter_EveryOperation_FailsWithoutEffect) {
  ASSERT_THAT(WriteFileDurably(fs_, "/d/a", AsBytes("abc")), IsOk());
  const auto writer = Write("/d/b", "x");
  const auto reader = *fs_.Open("/d/a");
  fs_.FailAfter(0, StatusCode::kInternal);
  const auto failed = StatusIs(StatusCode::kInternal, HasSubstr("injected"));
  Bytes out(3);
  EXPECT_THAT(fs_.Create("/d/c", 0600), failed);
  EXPECT_THAT(fs_.Open("/d/a"), failed);
  EXPECT_THAT(fs_.Rename("/d/a", "/d/z"), failed);
  EXPECT_THAT(fs_.SyncDirectory("/d"), failed);
  EXPECT_THAT(fs_.Remove("/d/a"), failed);
  EXPECT_THAT(fs_.CreateDirectories("/e"), failed);
  EXPECT_THAT(fs_.List("/d"), failed);
  EXPECT_THAT(fs_.FreeBytes("/d"), failed);
  EXPECT_THAT(reader->ReadAt(0, out), failed);
  EXPECT_THAT(writer->Append(AsBytes("y")), failed);
  EXPECT_THAT(writer->Sync(), failed);
  EXPECT_THAT(writer->Close(), failed);
  fs_.ClearFaults();
  EXPECT_THAT(*fs_.List("/"), ElementsAre("d"));
  EXPECT_THAT(*fs_.List("/d"), ElementsAre("a", "b"));
  EXPECT_EQ(Contents("/d/b"), "x");
}

TEST_F(FaultFileSystemTest, Sync_FailedOnce_NeverSavesThoseBytes) {
  const auto file = Write("/d/a", "one");
  ASSERT_THAT(fs_.SyncDirectory("/d"), IsOk());
  fs_.FailAfter(0, StatusCode::kInternal, 1);
  EXPECT_FALSE(file->Sync().ok());
  EXPECT_THAT(file->Sync(), IsOk());  // says OK, as Linux does
  ASSERT_THAT(file->Append(AsBytes("two")), IsOk());
  ASSERT_THAT(file->Sync(), IsOk());
  EXPECT_EQ(Contents("/d/a"), "onetwo");
  fs_.Crash();
  EXPECT_EQ(Contents("/d/a"), std::string(3, '\0') + "two");
}

TEST_F(FaultFileSystemTest, SetFreeBytes_DiskFull_WritesWhatFits) {
  const auto file = Write("/d/a", "12345");
  fs_.SetFreeBytes(3);
  EXPECT_EQ(*fs_.FreeBytes("/d"), 3U);
  EXPECT_THAT(file->Append(AsBytes("6789")),
              StatusIs(StatusCode::kResourceExhausted));
  EXPECT_EQ(Contents("/d/a"), "12345678");
  EXPECT_EQ(*fs_.FreeBytes("/d"), 0U);
  EXPECT_THAT(fs_.Create("/d/b", 0600),
              StatusIs(StatusCode::kResourceExhausted));
  EXPECT_THAT(fs_.CreateDirectories("/d/e"),
              StatusIs(StatusCode::kResourceExhausted));
  EXPECT_THAT(*fs_.List("/d"), ElementsAre("a"));
  EXPECT_THAT(file->Sync(), IsOk());
  ASSERT_THAT(fs_.Remove("/d/a"), IsOk());
  EXPECT_EQ(*fs_.FreeBytes("/d"), 8U);
  EXPECT_THAT(WriteFileDurably(fs_, "/d/b", AsBytes("12345678")), IsOk());
  fs_.SetFreeBytes(std::nullopt);
  EXPECT_THAT(WriteFileDurably(fs_, "/d/c", Bytes(100)), IsOk());
}

TEST_F(FaultFileSystemTest, WriteFileDurably_DiskFull_LeavesTheOldFileAlone) {
  ASSERT_THAT(WriteFileDurably(fs_, "/d/a", AsBytes("old")), IsOk());
  fs_.SetFreeBytes(2);
  EXPECT_THAT(WriteFileDurably(fs_, "/d/a", AsBytes("newer")),
              StatusIs(StatusCode::kResourceExhausted));
  EXPECT_EQ(Contents("/d/a"), "old");
  EXPECT_THAT(*fs_.List("/d"), ElementsAre("a"));
}

TEST_F(FaultFileSystemTest, Errors_AreThoseOfThePosixFileSystem) {
  ASSERT_THAT(WriteFileDurably(fs_, "/d/a", {}), IsOk());
  EXPECT_THAT(fs_.Open("/d/no"), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(fs_.Open("/d"), StatusIs(StatusCode::kInternal));
  EXPECT_THAT(fs_.Open("/d/a/b"), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(fs_.Create("/no/a", 0600), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(fs_.Create("/d/a/b", 0600), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(fs_.Create("/d", 0600), StatusIs(StatusCode::kInternal));
  EXPECT_THAT(fs_.Rename("/d/no", "/d/b"), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(fs_.Rename("/d/a", "/no/b"), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(fs_.Remove("/d/no"), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(fs_.List("/no"), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(fs_.List("/d/a"), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(fs_.SyncDirectory("/no"), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(fs_.FreeBytes("/no"), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(fs_.Mode("/no"), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(fs_.CreateDirectories("/d/a"),
              StatusIs(StatusCode::kAlreadyExists));
  EXPECT_THAT(fs_.CreateDirectories("/d/a/b"),
              StatusIs(StatusCode::kAlreadyExists));
}

TEST_F(FaultFileSystemTest, Paths_InSeveralSpellings_NameOneFile) {
  ASSERT_THAT(WriteFileDurably(fs_, "d/./a", AsBytes("x")), IsOk());
  EXPECT_EQ(Contents("/d/a"), "x");
  EXPECT_EQ(Contents("/d/../d/a"), "x");
  EXPECT_THAT(fs_.CreateDirectories("/e/f/"), IsOk());
  fs_.Crash();
  EXPECT_THAT(*fs_.List("/e/"), ElementsAre("f"));
}

TEST_F(FaultFileSystemTest, ManyThreads_WriteTheirOwnFiles_AllArrive) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (int i = 0; i < 50; ++i) {
        const std::string name =
            "/d/" + std::to_string(t) + "-" + std::to_string(i);
        EXPECT_THAT(WriteFileDurably(fs_, name, AsBytes(name)), IsOk());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  fs_.Crash();
  EXPECT_EQ(fs_.List("/d")->size(), 200U);
}

}  // namespace
}  // namespace selvage::test

#include "base/file_system.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "tests/testing/scratch_folder.h"
#include "tests/testing/status_matchers.h"

namespace selvage {
namespace {

using test::IsOk;
using test::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class PosixFileSystemTest : public ::testing::Test {
 protected:
  std::string Contents(const Path& path) {
    const Result<Bytes> contents = ReadFile(fs_, path, 1 << 20);
    return contents.ok() ? ToString(*contents) : contents.status().ToString();
  }
  static int ModeOf(const Path& path) {
    struct stat info {};
    EXPECT_EQ(::stat(path.c_str(), &info), 0);
    return static_cast<int>(info.st_mode & 0777U);
  }

  PosixFileSystem fs_;
  const test::ScratchFolder scratch_;
  const Path& folder_ = scratch_.path();
};

TEST_F(PosixFileSystemTest, WriteFileDurably_NewFile_IsThereAlone) {
  const Path path = folder_ / "a";
  ASSERT_THAT(WriteFileDurably(fs_, path, AsBytes("hello")), IsOk());
  EXPECT_EQ(Contents(path), "hello");
  EXPECT_EQ(ModeOf(path), 0600);
  EXPECT_THAT(*fs_.List(folder_), ElementsAre("a"));
}

TEST_F(PosixFileSystemTest, WriteFileDurably_ExistingFile_IsReplaced) {
  const Path path = folder_ / "a";
  ASSERT_THAT(WriteFileDurably(fs_, path, AsBytes("a longer text")), IsOk());
  ASSERT_THAT(WriteFileDurably(fs_, path, AsBytes("new"), 0640), IsOk());
  EXPECT_EQ(Contents(path), "new");
  EXPECT_EQ(ModeOf(path), 0640);
}

TEST_F(PosixFileSystemTest, WriteFileDurably_MissingFolder_IsNotFound) {
  EXPECT_THAT(WriteFileDurably(fs_, folder_ / "no" / "a", AsBytes("x")),
              StatusIs(StatusCode::kNotFound, HasSubstr("no/a.tmp")));
}

TEST_F(PosixFileSystemTest, WriteFileDurably_TargetIsAFolder_LeavesNoRest) {
  ASSERT_THAT(fs_.CreateDirectories(folder_ / "d"), IsOk());
  EXPECT_FALSE(WriteFileDurably(fs_, folder_ / "d", AsBytes("x")).ok());
  EXPECT_THAT(*fs_.List(folder_), ElementsAre("d"));
}

TEST_F(PosixFileSystemTest, Create_ExistingWiderFile_GetsTheModeAskedFor) {
  const Path path = folder_ / "key.tmp";
  std::ofstream(path) << "stale";
  ASSERT_EQ(::chmod(path.c_str(), 0666), 0);
  const auto file = fs_.Create(path, 0600);
  ASSERT_THAT(file, IsOk());
  EXPECT_EQ(ModeOf(path), 0600);
  EXPECT_EQ(Contents(path), "");
}

TEST_F(PosixFileSystemTest, Create_Appends_AccumulateAndCloseTwice) {
  auto file = fs_.Create(folder_ / "a", 0600);
  ASSERT_THAT(file, IsOk());
  EXPECT_THAT((*file)->Append(AsBytes("one ")), IsOk());
  EXPECT_THAT((*file)->Append({}), IsOk());
  EXPECT_THAT((*file)->Append(AsBytes("two")), IsOk());
  EXPECT_THAT((*file)->Sync(), IsOk());
  EXPECT_THAT((*file)->Close(), IsOk());
  EXPECT_THAT((*file)->Close(), IsOk());
  EXPECT_FALSE((*file)->Append(AsBytes("x")).ok());
  EXPECT_EQ(Contents(folder_ / "a"), "one two");
}

TEST_F(PosixFileSystemTest, Create_FullDevice_IsResourceExhausted) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP();
  // Create sets permissions, so ask for those the device has.
  const Path link = folder_ / "full";
  std::filesystem::create_symlink("/dev/full", link);
  struct stat info {};
  ASSERT_EQ(::stat("/dev/full", &info), 0);
  auto file = fs_.Create(link, static_cast<int>(info.st_mode & 0777U));
  if (!file.ok()) GTEST_SKIP() << "the device is not ours to open";
  EXPECT_THAT((*file)->Append(AsBytes("x")),
              StatusIs(StatusCode::kResourceExhausted, HasSubstr("full")));
}

TEST_F(PosixFileSystemTest, Open_ReadAt_GivesPiecesUpToTheEnd) {
  ASSERT_THAT(WriteFileDurably(fs_, folder_ / "a", AsBytes("0123456789")),
              IsOk());
  const auto file = fs_.Open(folder_ / "a");
  ASSERT_THAT(file, IsOk());
  EXPECT_EQ((*file)->size(), 10U);
  Bytes out(4);
  EXPECT_EQ(*(*file)->ReadAt(3, out), 4U);
  EXPECT_EQ(ToString(out), "3456");
  EXPECT_EQ(*(*file)->ReadAt(8, out), 2U);
  EXPECT_EQ(ToString(ByteSpan(out).first(2)), "89");
  EXPECT_EQ(*(*file)->ReadAt(10, out), 0U);
  EXPECT_EQ(*(*file)->ReadAt(1000, out), 0U);
}

TEST_F(PosixFileSystemTest, Open_MissingOrFolder_IsAnError) {
  EXPECT_THAT(fs_.Open(folder_ / "a"),
              StatusIs(StatusCode::kNotFound, HasSubstr("/a")));
  EXPECT_THAT(fs_.Open(folder_), StatusIs(StatusCode::kInternal));
  ASSERT_THAT(WriteFileDurably(fs_, folder_ / "a", {}), IsOk());
  EXPECT_THAT(fs_.Open(folder_ / "a" / "b"), StatusIs(StatusCode::kNotFound));
}

TEST_F(PosixFileSystemTest, ReadFile_AtAndOverTheLimit_IsReadAndRefused) {
  const Path path = folder_ / "a";
  ASSERT_THAT(WriteFileDurably(fs_, path, AsBytes("12345")), IsOk());
  EXPECT_THAT(ReadFile(fs_, path, 5), IsOk());
  EXPECT_THAT(ReadFile(fs_, path, 4),
              StatusIs(StatusCode::kResourceExhausted,
                       HasSubstr("is 5 bytes, the limit is 4")));
  ASSERT_THAT(WriteFileDurably(fs_, path, {}), IsOk());
  EXPECT_THAT(*ReadFile(fs_, path, 0), IsEmpty());
}

TEST_F(PosixFileSystemTest, Rename_OntoAnother_ReplacesIt) {
  ASSERT_THAT(WriteFileDurably(fs_, folder_ / "a", AsBytes("a")), IsOk());
  ASSERT_THAT(WriteFileDurably(fs_, folder_ / "b", AsBytes("b")), IsOk());
  EXPECT_THAT(fs_.Rename(folder_ / "a", folder_ / "b"), IsOk());
  EXPECT_EQ(Contents(folder_ / "b"), "a");
  EXPECT_THAT(fs_.Rename(folder_ / "a", folder_ / "c"),
              StatusIs(StatusCode::kNotFound));
}

TEST_F(PosixFileSystemTest, Remove_FileTwice_IsNotFoundTheSecondTime) {
  ASSERT_THAT(WriteFileDurably(fs_, folder_ / "a", {}), IsOk());
  EXPECT_THAT(fs_.Remove(folder_ / "a"), IsOk());
  EXPECT_THAT(fs_.Remove(folder_ / "a"), StatusIs(StatusCode::kNotFound));
}

TEST_F(PosixFileSystemTest, CreateDirectories_Nested_ArePrivate) {
  const Path deep = folder_ / "a" / "b" / "c";
  EXPECT_THAT(fs_.CreateDirectories(deep), IsOk());
  EXPECT_THAT(fs_.CreateDirectories(deep), IsOk());
  EXPECT_THAT(fs_.CreateDirectories(deep / ""), IsOk());
  EXPECT_EQ(ModeOf(deep), 0700);
  EXPECT_EQ(ModeOf(folder_ / "a"), 0700);
}

TEST_F(PosixFileSystemTest, CreateDirectories_FileInTheWay_IsAnError) {
  ASSERT_THAT(WriteFileDurably(fs_, folder_ / "a", {}), IsOk());
  EXPECT_THAT(fs_.CreateDirectories(folder_ / "a"),
              StatusIs(StatusCode::kAlreadyExists));
  EXPECT_FALSE(fs_.CreateDirectories(folder_ / "a" / "b").ok());
}

TEST_F(PosixFileSystemTest, List_SeveralFiles_AreSorted) {
  EXPECT_THAT(*fs_.List(folder_), IsEmpty());
  for (const char* name : {"c", "a", "b"}) {
    ASSERT_THAT(WriteFileDurably(fs_, folder_ / name, {}), IsOk());
  }
  EXPECT_THAT(*fs_.List(folder_), ElementsAre("a", "b", "c"));
  EXPECT_THAT(fs_.List(folder_ / "no"), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(fs_.List(folder_ / "a"), StatusIs(StatusCode::kNotFound));
}

TEST_F(PosixFileSystemTest, SyncDirectory_MissingOrFile_IsNotFound) {
  EXPECT_THAT(fs_.SyncDirectory(folder_), IsOk());
  EXPECT_THAT(fs_.SyncDirectory(folder_ / "no"),
              StatusIs(StatusCode::kNotFound));
}

TEST_F(PosixFileSystemTest, FreeBytes_AnyFolder_IsSomething) {
  EXPECT_THAT(fs_.FreeBytes(folder_), IsOk());
  EXPECT_THAT(fs_.FreeBytes(folder_ / "no"), StatusIs(StatusCode::kNotFound));
}

TEST_F(PosixFileSystemTest, Create_WithoutPermission_IsPermissionDenied) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may write everywhere";
  ASSERT_EQ(::chmod(folder_.c_str(), 0500), 0);
  EXPECT_THAT(fs_.Create(folder_ / "a", 0600),
              StatusIs(StatusCode::kPermissionDenied));
  ASSERT_EQ(::chmod(folder_.c_str(), 0700), 0);
}

}  // namespace
}  // namespace selvage

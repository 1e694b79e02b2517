#include "examples/users/data_sets.h"

#include <unistd.h>

#include <filesystem>
#include <set>

#include <gmock/gmock.h>

#include "client/agent/idx.h"
#include "examples/users/shares.h"
#include "tests/testing/status_matchers.h"

namespace selvage::users {
namespace {

using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// What a device would read.
agent::IdxRows Rows(const Column& column) {
  Result<agent::IdxRows> rows = agent::ParseIdx(column.Encode());
  EXPECT_THAT(rows, IsOk());
  return rows.ok() ? *rows : agent::IdxRows{};
}

std::vector<float> Floats(const agent::IdxRows& rows, size_t row) {
  std::vector<float> out(rows.row_bytes / 4);
  std::memcpy(out.data(), rows.Row(row).data(), rows.row_bytes);
  return out;
}

std::vector<int> Labels(const Column& column) {
  const agent::IdxRows rows = Rows(column);
  std::vector<int> out;
  for (size_t i = 0; i < rows.count; ++i) out.push_back(rows.Row(i)[0]);
  return out;
}

// ------------------------------------------------------------------- shares

TEST(SharesTest, TrainCount_OfTime_TakesSixtyPercent) {
  EXPECT_EQ(TrainCount(0), 0u);
  EXPECT_EQ(TrainCount(1), 1u);
  EXPECT_EQ(TrainCount(5), 3u);
  EXPECT_EQ(TrainCount(100), 60u);
}

TEST(SharesTest, Draw_WithoutReplacement_GivesEachOnce) {
  SeededRandom random(1);
  const std::vector<size_t> all = Draw(20, 20, random);
  EXPECT_EQ(std::set<size_t>(all.begin(), all.end()).size(), 20u);
  EXPECT_EQ(*std::max_element(all.begin(), all.end()), 19u);
}

TEST(SharesTest, Encode_Floats_AreWhatADeviceReads) {
  Column column(Column::Type::kFloats, {2});
  column.Add(std::vector<float>{1.5F, -2});
  column.Add(std::vector<float>{0, 3});
  const agent::IdxRows rows = Rows(column);
  EXPECT_EQ(rows.count, 2u);
  EXPECT_THAT(Floats(rows, 0), ElementsAre(1.5F, -2));
  EXPECT_THAT(Floats(rows, 1), ElementsAre(0, 3));
}

class WriteUsersTest : public ::testing::Test {
 protected:
  WriteUsersTest()
      : directory_(Path(::testing::TempDir()) /
                   ("selvage-users-" + std::to_string(::getpid()))) {}
  ~WriteUsersTest() override { std::filesystem::remove_all(directory_); }

  static User MakeUser(const std::string& name, bool tests = true) {
    const Column x(Column::Type::kFloats, {1});
    const Column y(Column::Type::kBytes, {});
    User user{name, {x, y}, {x, y}};
    const uint8_t label = 1;
    for (Examples* examples : {&user.train, &user.test}) {
      if (examples == &user.test && !tests) continue;
      examples->x.Add(std::vector<float>{1});
      examples->y.Add(ByteSpan(&label, 1));
    }
    return user;
  }

  const Path directory_;
  PosixFileSystem files_;
};

TEST_F(WriteUsersTest, WriteUsers_DevicesThenNewcomers_AFolderEach) {
  ASSERT_THAT(WriteUsers(files_, directory_,
                         {MakeUser("a"), MakeUser("b"), MakeUser("c")}, 2),
              IsOk());
  for (const char* name : {"device-000", "device-001", "newcomer-000"}) {
    for (const char* file :
         {"train-x.idx", "train-y.idx", "test-x.idx", "test-y.idx"}) {
      EXPECT_TRUE(std::filesystem::exists(directory_ / name / file))
          << name << "/" << file;
    }
  }
}

TEST_F(WriteUsersTest, WriteUsers_NoTestExamples_NamesTheUser) {
  EXPECT_THAT(WriteUsers(files_, directory_, {MakeUser("anna", false)}, 1),
              StatusIs(StatusCode::kFailedPrecondition,
                       HasSubstr("user anna has 1 training and 0 test")));
}

// ----------------------------------------------------------------- activity

// `rows` rows, channel c of row t being 10 t + c.
Bytes Sensors(size_t rows) {
  Bytes out;
  for (size_t t = 0; t < rows; ++t) {
    for (size_t c = 0; c < 9; ++c) {
      AppendLe(out, static_cast<int16_t>(10 * t + c));
    }
  }
  return out;
}

constexpr const char* kHeader = "subject,activity,split,start_row,rows\n";

TEST(ActivityTest, ReadActivity_OneSeries_SplitsByTimeAndLeavesAGap) {
  // (768 - 128) / 64 + 1 = 11 windows: 6 train, one is dropped, 4 test.
  const auto read =
      ReadActivity(std::string(kHeader) + "7,3,test,0,768\n2,1,train,0,768\n",
                   Sensors(768), 9);
  ASSERT_THAT(read, IsOk());
  EXPECT_EQ(read->devices, 1u);
  ASSERT_EQ(read->users.size(), 2u);
  EXPECT_EQ(read->users[0].name, "2");
  EXPECT_EQ(read->users[1].name, "7");
  const User& user = read->users[0];
  EXPECT_THAT(Labels(user.train.y), ElementsAre(1, 1, 1, 1, 1, 1));
  EXPECT_THAT(Labels(user.test.y), ElementsAre(1, 1, 1, 1));
  // No sample is in both.
  const std::vector<float> last = Floats(Rows(user.train.x), 5);
  const std::vector<float> first = Floats(Rows(user.test.x), 0);
  ASSERT_EQ(last.size(), 9u * 128);
  EXPECT_FLOAT_EQ(last[127], 10.0F * (5 * 64 + 127) / 5000);
  EXPECT_FLOAT_EQ(first[0], 10.0F * (7 * 64) / 5000);
  EXPECT_FLOAT_EQ(first[128], (10.0F * (7 * 64) + 1) / 5000);
}

TEST(ActivityTest, ReadActivity_ThreeChannels_TakesTheFirst) {
  const auto read =
      ReadActivity(std::string(kHeader) + "2,1,train,0,768\n", Sensors(768), 3);
  ASSERT_THAT(read, IsOk());
  EXPECT_EQ(Rows(read->users[0].train.x).row_bytes, 3u * 128 * 4);
}

TEST(ActivityTest, ReadActivity_Nonsense_NamesTheLine) {
  const auto refused = [](const std::string& line, const char* problem) {
    EXPECT_THAT(ReadActivity(kHeader + line, Sensors(200), 9),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr(problem)));
  };
  refused("1,0,train,0\n", "line 2: it does not have 5 fields");
  refused("1,6,train,0,128\n", "line 2: a field is out of range");
  refused("1,0,both,0,128\n", "out of range");
  refused("1,0,train,0,-1\n", "out of range");
  refused("1,0,train,100,101\n", "rows end at 201 of 200");
  EXPECT_THAT(ReadActivity(kHeader, Sensors(1), 10),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("10 channels")));
}

// -------------------------------------------------------------------- wisdm

std::string WisdmLine(int user, float first, const char* activity,
                      const char* peak = "7") {
  std::string line = "1," + std::to_string(user) + "," + std::to_string(first);
  for (int i = 1; i < 43; ++i) line += i == 33 ? "," + std::string(peak) : ",0";
  return line + "," + activity + "\n";
}

TEST(WisdmTest, ReadWisdm_OneUser_SplitsEachActivityByTime) {
  std::string arff = "@relation r\n@attribute x numeric\n@data\n";
  for (int i = 0; i < 5; ++i) {
    arff += WisdmLine(4, static_cast<float>(i), "Walking", "?");
    arff += WisdmLine(4, static_cast<float>(i), "Standing");
  }
  const auto users = ReadWisdm(arff, {.devices = 1, .newcomers = 0});
  ASSERT_THAT(users, IsOk());
  const User& user = users->front();
  EXPECT_EQ(user.name, "4");
  EXPECT_THAT(Labels(user.train.y), ElementsAre(0, 0, 0, 5, 5, 5));
  EXPECT_THAT(Labels(user.test.y), ElementsAre(0, 0, 5, 5));
  const agent::IdxRows test = Rows(user.test.x);
  ASSERT_EQ(test.row_bytes, 43u * 4);
  EXPECT_EQ(Floats(test, 0)[0], 3);
  EXPECT_EQ(Floats(test, 0)[33], 0);  // missing
  EXPECT_EQ(Floats(test, 2)[33], 7);
}

TEST(WisdmTest, ReadWisdm_Seeds_DrawDifferentNewcomers) {
  std::string arff = "@data\n";
  for (int user = 0; user < 20; ++user) {
    for (int i = 0; i < 2; ++i) arff += WisdmLine(user, 0, "Sitting");
  }
  const auto names = [&](uint64_t seed) {
    std::vector<std::string> out;
    const auto users =
        ReadWisdm(arff, {.devices = 15, .newcomers = 5, .seed = seed});
    EXPECT_THAT(users, IsOk());
    for (const User& user : *users) out.push_back(user.name);
    return out;
  };
  const std::vector<std::string> first = names(1);
  EXPECT_EQ(std::set<std::string>(first.begin(), first.end()).size(), 20u);
  EXPECT_EQ(first, names(1));
  EXPECT_NE(first, names(2));
}

TEST(WisdmTest, ReadWisdm_Nonsense_IsRefused) {
  const Sample one{.devices = 1, .newcomers = 0};
  EXPECT_THAT(ReadWisdm("@relation r\n", one),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("no @data")));
  EXPECT_THAT(ReadWisdm("@data\n1,2,3\n", one),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("line 2")));
  EXPECT_THAT(ReadWisdm("@data\n" + WisdmLine(1, 0, "Dancing"), one),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("unknown")));
  EXPECT_THAT(ReadWisdm("@data\n" + WisdmLine(1, 0, "Walking", "nan"), one),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("nan")));
  EXPECT_THAT(
      ReadWisdm("@data\n" + WisdmLine(1, 0, "Walking"),
                {.devices = 2, .newcomers = 1}),
      StatusIs(StatusCode::kInvalidArgument, HasSubstr("1 users; 3 are")));
}

// ------------------------------------------------------------------ writers

Bytes Idx(const std::vector<uint32_t>& dimensions, const Bytes& values) {
  Bytes out = {0, 0, 8, static_cast<uint8_t>(dimensions.size())};
  for (const uint32_t size : dimensions) {
    for (int shift = 24; shift >= 0; shift -= 8) {
      out.push_back(static_cast<uint8_t>(size >> shift));
    }
  }
  AppendBytes(out, values);
  return out;
}

// Images of one pixel: 100 of writer 300, 100 of writer 5, 99 of writer 9;
// pixel and label tell the writer.
struct Digits {
  Bytes images, labels, writers;
};
Digits MakeDigits() {
  Bytes pixels;
  Digits out;
  for (uint16_t i = 0; i < 299; ++i) {
    const uint16_t writer = i >= 200 ? 9 : i % 2 == 0 ? 300 : 5;
    pixels.push_back(static_cast<uint8_t>(writer));
    AppendLe(out.writers, writer);
  }
  out.images = Idx({299, 1, 1}, pixels);
  for (uint8_t& pixel : pixels) pixel = pixel == 5 ? 5 : 3;
  out.labels = Idx({299}, pixels);
  return out;
}

TEST(WritersTest, ReadWriters_WithEnoughImages_GivesEachItsOwn) {
  const Digits digits = MakeDigits();
  const auto users = ReadWriters(digits.images, digits.labels, digits.writers,
                                 {.devices = 1, .newcomers = 1});
  ASSERT_THAT(users, IsOk());
  for (const User& user : *users) {
    const uint8_t pixel = user.name == "5" ? 5 : 300 & 255;
    const agent::IdxRows train = Rows(user.train.x);
    const agent::IdxRows test = Rows(user.test.x);
    EXPECT_EQ(train.count, 60u);
    EXPECT_EQ(test.count, 40u);
    for (size_t i = 0; i < 60; ++i) EXPECT_EQ(train.Row(i)[0], pixel);
    for (const int label : Labels(user.test.y)) {
      EXPECT_EQ(label, pixel == 5 ? 5 : 3);
    }
  }
}

TEST(WritersTest, ReadWriters_TooFewOrNotTogether_IsRefused) {
  Digits digits = MakeDigits();
  const Sample two{.devices = 1, .newcomers = 1};
  EXPECT_THAT(ReadWriters(digits.images, digits.labels, digits.writers,
                          {.devices = 2, .newcomers = 1}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("there are 2")));
  EXPECT_THAT(
      ReadWriters(digits.labels, digits.labels, digits.writers, two),
      StatusIs(StatusCode::kInvalidArgument, HasSubstr("images are not")));
  digits.writers.pop_back();
  EXPECT_THAT(ReadWriters(digits.images, digits.labels, digits.writers, two),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("298 writers")));
  digits.images.pop_back();
  EXPECT_THAT(
      ReadWriters(digits.images, digits.labels, digits.writers, two),
      StatusIs(StatusCode::kInvalidArgument, HasSubstr("header says 299")));
}

// -------------------------------------------------------------------- roles

std::string Role(const char* name, size_t characters) {
  std::string text;
  while (text.size() < characters) text += "a~\\n\\u00e9";
  return std::string("Play\t") + name + "\t\"" + text + "\"\n";
}

TEST(RolesTest, ReadRoles_OneRole_PredictsTheNextCharacter) {
  // Every "a~\n\u00e9" is ten characters here and five bytes as text.
  const auto users =
      ReadRoles(Role("ROMEO", 12'000), {}, {.devices = 1, .newcomers = 0});
  ASSERT_THAT(users, IsOk());
  EXPECT_EQ(users->front().name, "Play/ROMEO");
  const agent::IdxRows x = Rows(users->front().train.x);
  const agent::IdxRows y = Rows(users->front().train.y);
  ASSERT_EQ(x.row_bytes, 80u);
  EXPECT_EQ(x.count, 59u);  // (6000 - 1) / 80 = 74 sequences
  EXPECT_EQ(users->front().test.x.count(), 15u);
  EXPECT_THAT(Bytes(x.Row(0).begin(), x.Row(0).begin() + 6),
              ElementsAre('a' - 31, '~' - 31, 0, '?' - 31, '?' - 31, 'a' - 31));
  for (size_t i = 0; i < 79; ++i) EXPECT_EQ(y.Row(0)[i], x.Row(0)[i + 1]);
  EXPECT_EQ(y.Row(0)[79], x.Row(1)[0]);
}

TEST(RolesTest, ReadRoles_ManySequences_TakesTheFirst) {
  const auto users =
      ReadRoles(Role("ROMEO", 12'000), {.train_max = 7, .test_max = 3},
                {.devices = 1, .newcomers = 0});
  ASSERT_THAT(users, IsOk());
  EXPECT_EQ(users->front().train.x.count(), 7u);
  EXPECT_EQ(users->front().test.y.count(), 3u);
}

TEST(RolesTest, ReadRoles_Nonsense_IsRefused) {
  const Sample one{.devices = 1, .newcomers = 0};
  EXPECT_THAT(ReadRoles("Play\tROMEO\n", {}, one),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("3 fields")));
  EXPECT_THAT(ReadRoles("Play\tROMEO\t{}\n", {}, one),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("JSON string")));
  EXPECT_THAT(ReadRoles(Role("SERVANT", 100), {}, one),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("0 roles")));
}

}  // namespace
}  // namespace selvage::users

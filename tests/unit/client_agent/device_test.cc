#include "client/agent/device.h"

#include <fstream>

#include <gmock/gmock.h>

#include "client/capi/handles.h"
#include "tests/unit/client/client_fixture.h"

namespace selvage::agent {
namespace {

using test::IsOk;
using test::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;

class DeviceTest : public test::ClientFixture {
 protected:
  DeviceTest() {
    data_.folder = directory_.path() / "data";
    data_.collection = "numbers";
    data_.inputs = {"x", "y"};
    std::filesystem::create_directories(data_.folder);
  }

  void Write(const std::string& name, uint8_t count, bool labels) {
    Bytes bytes = {0, 0, 8, static_cast<uint8_t>(labels ? 1 : 2),
                   0, 0, 0, count};
    if (!labels) {
      bytes.insert(bytes.end(), {0, 0, 0, 16});
    }
    for (int i = 0; i < count * (labels ? 1 : 16); ++i) bytes.push_back(6);
    std::ofstream(data_.folder / name, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
  }

  // From here on the client is the app's.
  host::Client& App() {
    if (!app_.has_value()) app_.emplace(capi::Adopt(std::move(client_)));
    return *app_;
  }

  DeviceData data_;
  std::optional<host::Client> app_;
};

TEST_F(DeviceTest, ImportExamples_Twice_ImportsOnce) {
  Open();
  Write("train-x.idx", 12, false);
  Write("train-y.idx", 12, true);
  EXPECT_THAT(ImportExamples(files_, data_, App()), IsOk());
  EXPECT_THAT(ImportExamples(files_, data_, App()), IsOk());
  EXPECT_EQ(App().CountExamples("numbers"), 12U);
}

TEST_F(DeviceTest, ImportExamples_Interrupted_IsCompleted) {
  Open();
  AddExamples(5);
  Write("train-x.idx", 12, false);
  Write("train-y.idx", 12, true);
  EXPECT_THAT(ImportExamples(files_, data_, App()), IsOk());
  EXPECT_EQ(App().CountExamples("numbers"), 12U);
}

TEST_F(DeviceTest, ImportExamples_FilesDisagree_IsRefused) {
  Open();
  Write("train-x.idx", 12, false);
  Write("train-y.idx", 11, true);
  EXPECT_THAT(ImportExamples(files_, data_, App()),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("train-y.idx")));
  EXPECT_EQ(App().CountExamples("numbers"), 0U);
}

// The test files are not needed, so not opened, until the very end.
TEST_F(DeviceTest, ImportExamples_NoTestFiles_IsFine) {
  Open();
  Write("train-x.idx", 12, false);
  Write("train-y.idx", 12, true);
  EXPECT_THAT(ImportExamples(files_, data_, App()), IsOk());
  EXPECT_THAT(ReadTestExamples(files_, data_), StatusIs(StatusCode::kNotFound));
}

TEST_F(DeviceTest, EvaluateDevice_Slots_AreScoredByMetric) {
  Open();
  AddExamples(24);
  Write("test-x.idx", 30, false);
  Write("test-y.idx", 30, true);
  server_->Give(server_->NewOffer(4));
  Run();
  const Result<std::string> json =
      EvaluateDevice(files_, data_, "dev-7", "digits", App());
  ASSERT_THAT(json, IsOk());
  EXPECT_THAT(*json, HasSubstr(R"("examples":30)"));
  EXPECT_THAT(*json, HasSubstr(R"("personal":{"accuracy":1.0)"));
  EXPECT_THAT(*json, HasSubstr(R"("global":{"accuracy":0.0)"));
  EXPECT_THAT(*json, HasSubstr(R"("serving":{"accuracy":1.0)"));
  EXPECT_THAT(*json, Not(HasSubstr("alone")));
}

}  // namespace
}  // namespace selvage::agent

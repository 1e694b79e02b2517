// The spool's folder, and the loop of a device that takes from it.
#include "client/agent/spool.h"

#include <sys/stat.h>

#include <fstream>
#include <map>

#include <gmock/gmock.h>

#include "client/agent/device_loop.h"
#include "client/capi/handles.h"
#include "tests/unit/client/client_fixture.h"

namespace selvage::agent {
namespace {

namespace fs = std::filesystem;
using test::IsOk;
using test::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr const char* kManifest = R"({
  "collection": "numbers",
  "tensors": [
    {"name": "x", "dtype": "uint8", "image": "file", "width": 4, "height": 4,
     "shape": [16]},
    {"name": "y", "dtype": "int64", "columns": ["label"]}]
})";

class SpoolTest : public test::ClientFixture {
 protected:
  SpoolTest() {
    Open();
    app_.emplace(capi::Adopt(std::move(client_)));
    fs::create_directories(folder_);
  }
  void Write(const std::string& name, const std::string& text) {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }
  // `count` examples of 16 bytes and a label.
  static std::string Tensors(int count) {
    const std::string header =
        R"({"x":{"dtype":"U8","shape":[)" + std::to_string(count) +
        R"(,16],"data_offsets":[0,)" + std::to_string(16 * count) +
        R"(]},"y":{"dtype":"I64","shape":[)" + std::to_string(count) +
        R"(],"data_offsets":[)" + std::to_string(16 * count) + "," +
        std::to_string(24 * count) + "]}}";
    Bytes out;
    AppendLe(out, static_cast<uint64_t>(header.size()));
    AppendBytes(out, AsBytes(header));
    out.resize(out.size() + static_cast<size_t>(24 * count));
    return ToString(out);
  }
  Spool Make(SpoolOptions options = {.collection = "numbers"}) {
    Result<Spool> spool = Spool::Open(folder_, std::move(options), events_);
    EXPECT_THAT(spool, IsOk());
    return *std::move(spool);
  }
  SpoolPass Import(Spool& spool) {
    const Result<SpoolPass> pass = spool.Import(*app_, stop_);
    EXPECT_THAT(pass, IsOk());
    return pass.ok() ? *pass : SpoolPass();
  }
  uint64_t Count() { return app_->CountExamples("numbers"); }
  std::vector<std::string> Names(const std::string& folder = "") {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_ / folder)) {
      names.push_back(entry.path().filename());
    }
    std::sort(names.begin(), names.end());
    return names;
  }
  std::string ReadText(const std::string& name) {
    return ToString(*ReadFile(files_, folder_ / name, 1 << 20));
  }

  Path folder_ = directory_.path() / "spool";
  std::atomic<bool> stop_{false};
  std::optional<host::Client> app_;
};

TEST_F(SpoolTest, Import_Tensors_AreTakenAndDeleted) {
  Write("a.safetensors", Tensors(300));
  Spool spool = Make();
  const SpoolPass pass = Import(spool);
  EXPECT_EQ(pass.imported, 1U);
  EXPECT_EQ(pass.examples, 300U);
  EXPECT_EQ(Count(), 300U);
  EXPECT_THAT(Names(), ElementsAre("done", "failed"));
  EXPECT_THAT(Names("done"), IsEmpty());
}

TEST_F(SpoolTest, Import_Folder_TakesTableAndImages) {
  Write("run/manifest.json", kManifest);
  Write("run/data.csv", "file,label\nimages/1.pgm,3\nimages/2.pgm,4\n");
  Write("run/images/1.pgm", "P5 4 4 255\n0123456789abcdef");
  Write("run/images/2.pgm", "P5 4 4 255\nabcdef0123456789");
  Spool spool = Make({.keep_done = true});
  EXPECT_EQ(Import(spool).examples, 2U);
  EXPECT_EQ(Count(), 2U);
  EXPECT_THAT(Names("done"), ElementsAre("run"));
  // Deleted with everything in it.
  Write("again/manifest.json", kManifest);
  Write("again/data.csv", "file,label\n1.pgm,3\n");
  Write("again/1.pgm", "P5 4 4 255\n0123456789abcdef");
  Spool deleting = Make();
  EXPECT_EQ(Import(deleting).examples, 1U);
  EXPECT_THAT(Names(), ElementsAre(".selvage-trash", "done", "failed"));
  EXPECT_THAT(Names(".selvage-trash"), IsEmpty());
  EXPECT_EQ(Count(), 3U);
}

TEST_F(SpoolTest, Import_MoreThanAreKept_TheOldestGo) {
  for (const char* name : {"a", "b", "c"}) {
    Write(std::string(name) + ".safetensors", Tensors(3));
    Write(std::string(name) + ".txt", "neither");
    Spool spool = Make({.keep_done = true, .kept_max = 4});
    EXPECT_EQ(Import(spool).imported, 1U);
  }
  EXPECT_THAT(Names("done"),
              ElementsAre("a.safetensors", "b.safetensors", "c.safetensors"));
  EXPECT_THAT(Names("failed"),
              ElementsAre("b.txt", "b.txt.error", "c.txt", "c.txt.error"));
  // A folder goes with what is in it.
  fs::create_directories(folder_ / "failed" / "d" / "images");
  Spool spool = Make({.kept_max = 1});
  Import(spool);
  EXPECT_THAT(Names("done"), ElementsAre("c.safetensors"));
  EXPECT_THAT(Names("failed"), ElementsAre("d"));
}

TEST_F(SpoolTest, Import_Twice_CountsOnce) {
  Write("a.safetensors", Tensors(300));
  fs::create_hard_link(folder_ / "a.safetensors", directory_.path() / "kept");
  Spool first = Make();
  EXPECT_EQ(Import(first).imported, 1U);
  // As if the process had died before it moved the file.
  fs::create_hard_link(directory_.path() / "kept", folder_ / "a.safetensors");
  Spool second = Make();
  EXPECT_EQ(Import(second).imported, 1U);
  EXPECT_EQ(Count(), 300U);
  // The same contents as another file are other examples.
  Write("a.safetensors", Tensors(300));
  EXPECT_EQ(Import(second).imported, 1U);
  EXPECT_EQ(Count(), 600U);
}

TEST_F(SpoolTest, Import_Bad_GoesToFailedWithItsReason) {
  Write("bad.csv", "file,label\n");
  Write("empty.safetensors", "");
  Write("notes.txt", "hello");
  Write("half/manifest.json", kManifest);
  Write("half/data.csv", "file,label\n1.pgm,3\n1.pgm,x\n");
  Write("half/1.pgm", "P5 4 4 255\n0123456789abcdef");
  Write("good.safetensors", Tensors(1));
  Spool spool = Make();
  const SpoolPass pass = Import(spool);
  EXPECT_EQ(pass.failed, 4U);
  EXPECT_EQ(pass.imported, 1U);
  // Not one of half's.
  EXPECT_EQ(Count(), 1U);
  EXPECT_THAT(Names(), ElementsAre("done", "failed"));
  EXPECT_THAT(Names("failed"),
              ElementsAre("bad.csv", "bad.csv.error", "empty.safetensors",
                          "empty.safetensors.error", "half", "half.error",
                          "notes.txt", "notes.txt.error"));
  EXPECT_THAT(ReadText("failed/half.error"),
              HasSubstr("line 3, column \"label\": \"x\" is not a whole"));
  EXPECT_THAT(ReadText("failed/notes.txt.error"), HasSubstr("neither"));
  // The same name again.
  Write("notes.txt", "hello");
  Import(spool);
  EXPECT_EQ(ReadText("failed/notes.txt.1"), "hello");
}

TEST_F(SpoolTest, Import_DoesNotFitTheSchema_IsTheFilesFault) {
  app_->DeclareCollection("numbers", {{{"x", SELVAGE_U8, {8}}}});
  Write("a.safetensors", Tensors(3));
  Spool spool = Make();
  EXPECT_EQ(Import(spool).failed, 1U);
  EXPECT_THAT(ReadText("failed/a.safetensors.error"), HasSubstr("numbers"));
}

TEST_F(SpoolTest, Import_LinksAndUnfinished_AreLeftAlone) {
  Write(".hidden.safetensors", Tensors(1));
  Write("a.safetensors.tmp", Tensors(1));
  Write("a.safetensors.part", Tensors(1));
  const Path secret = directory_.path() / "secret.safetensors";
  std::ofstream(secret, std::ios::binary) << Tensors(1);
  fs::create_symlink(secret, folder_ / "link.safetensors");
  ASSERT_EQ(mkfifo((folder_ / "pipe.safetensors").c_str(), 0600), 0);
  Spool spool = Make();
  const SpoolPass pass = Import(spool);
  EXPECT_EQ(pass.imported + pass.failed, 0U);
  EXPECT_EQ(Count(), 0U);
}

TEST_F(SpoolTest, Import_PathsThatLeadAway_AreRefused) {
  const Path secret = directory_.path() / "secret.pgm";
  std::ofstream(secret) << "P5 4 4 255\n0123456789abcdef";
  for (const char* name : {"../../secret.pgm", "link.pgm", "folder/secret.pgm",
                           "pipe.pgm", "", "./1.pgm"}) {
    Write("run/manifest.json", kManifest);
    Write("run/data.csv", std::string("file,label\n") + name + ",3\n");
    fs::create_symlink(secret, folder_ / "run/link.pgm");
    fs::create_symlink(directory_.path(), folder_ / "run/folder");
    ASSERT_EQ(mkfifo((folder_ / "run/pipe.pgm").c_str(), 0600), 0);
    Spool spool = Make();
    EXPECT_EQ(Import(spool).failed, 1U) << name;
    fs::remove_all(folder_ / "failed");
  }
  EXPECT_EQ(Count(), 0U);
}

TEST_F(SpoolTest, Import_Bounds_AreKept) {
  Write("large.safetensors", Tensors(100));
  for (int i = 0; i < 3; ++i) {
    Write("s" + std::to_string(i) + ".safetensors", Tensors(1));
  }
  Write(std::string(129, 'n') + ".csv", "");
  SpoolOptions options{.collection = "numbers"};
  options.file_size_max = 1000;
  options.units_per_pass = 2;
  Spool spool = Make(options);
  SpoolPass pass = Import(spool);
  EXPECT_EQ(pass.imported + pass.failed, 2U);
  EXPECT_TRUE(pass.more);
  Import(spool);
  pass = Import(spool);
  EXPECT_FALSE(pass.more);
  EXPECT_EQ(Count(), 3U);
  EXPECT_THAT(ReadText("failed/large.safetensors.error"),
              HasSubstr("more than 1000"));
}

TEST_F(SpoolTest, Import_Stopped_LeavesTheRestForLater) {
  Write("a.safetensors", Tensors(10));
  Spool spool = Make();
  stop_ = true;
  EXPECT_EQ(Import(spool).imported, 0U);
  stop_ = false;
  EXPECT_EQ(Import(spool).imported, 1U);
  EXPECT_EQ(Count(), 10U);
}

TEST_F(SpoolTest, Open_NoFolder_SaysSo) {
  EXPECT_THAT(Spool::Open(directory_.path() / "none", {}, events_),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("none")));
}

// Moves the clock to what it is asked to wait for.
class FakeWaiter final : public Waiter {
 public:
  explicit FakeWaiter(test::FakeClock& clock) : clock_(clock) {}
  void WaitUntil(Time until) override {
    if (until > clock_.Now()) clock_.Advance(until - clock_.Now());
    ++waits;
    if (on_wait) on_wait();
  }
  void Wake() override { ++wakes; }

  int waits = 0;
  int wakes = 0;
  std::function<void()> on_wait;

 private:
  test::FakeClock& clock_;
};

class DeviceLoopTest : public SpoolTest {
 protected:
  DeviceLoop Loop(DeviceLoopOptions options, Spool* spool) {
    return DeviceLoop(
        options,
        {.on_result =
             [this](const host::RunResult& result) {
               sessions_.push_back(clock_.Now());
               outcomes_.push_back(result.outcome);
             },
         .on_tasks = [this](std::vector<std::string> t) { tasks_ = t; },
         .on_status = [](const std::string&) {},
         .alive = [this] { ++alive_; }},
        *app_, spool, waiter_, clock_, random_, events_);
  }

  FakeWaiter waiter_{clock_};
  std::vector<Time> sessions_;
  std::vector<int32_t> outcomes_;
  std::vector<std::string> tasks_;
  int alive_ = 0;
};

TEST_F(DeviceLoopTest, Run_Once_TakesTheSpoolThenOneSession) {
  Write("a.safetensors", Tensors(24));
  Spool spool = Make();
  DeviceLoop loop = Loop({.once = true}, &spool);
  EXPECT_THAT(loop.Run(), IsOk());
  EXPECT_EQ(Count(), 24U);
  EXPECT_EQ(sessions_.size(), 1U);
}

TEST_F(DeviceLoopTest, Run_Timer_KeepsItsDistance) {
  using std::chrono::hours;
  using std::chrono::minutes;
  DeviceLoop loop =
      Loop({.schedule = {.every = hours(1), .jitter = minutes(10)}}, nullptr);
  waiter_.on_wait = [&] {
    if (sessions_.size() >= 20) loop.Stop();
  };
  EXPECT_THAT(loop.Run(), IsOk());
  ASSERT_GE(sessions_.size(), 20U);
  for (size_t i = 1; i < sessions_.size(); ++i) {
    EXPECT_GE(sessions_[i] - sessions_[i - 1], hours(1));
  }
  EXPECT_GT(alive_, 20);
}

TEST_F(DeviceLoopTest, Run_Installed_TellsTasksAndEnds) {
  Write("a.safetensors", Tensors(24));
  server_->Give(server_->NewOffer(3));
  Spool spool = Make();
  DeviceLoop loop = Loop({.until_task = "digits"}, &spool);
  EXPECT_THAT(loop.Run(), IsOk());
  EXPECT_EQ(outcomes_.back(), SELVAGE_INSTALLED);
  EXPECT_THAT(tasks_, ElementsAre("digits"));
}

TEST_F(DeviceLoopTest, Run_Offline_TrainsAndNeverCalls) {
  server_->Give(server_->NewOffer(3));
  Write("a.safetensors", Tensors(24));
  Spool spool = Make();
  {
    DeviceLoop loop = Loop({.until_task = "digits"}, &spool);
    EXPECT_THAT(loop.Run(), IsOk());
  }
  int calls = 0;
  server_->hook = [&](const std::string&) {
    ++calls;
    return OkStatus();
  };
  outcomes_.clear();
  const Time began = clock_.Now();
  DeviceLoop loop = Loop(
      {.schedule = {.every = std::chrono::hours(1)}, .offline = true}, &spool);
  // Trained once on what is here, and again when there is more.
  int waits = 0;
  waiter_.on_wait = [&] {
    ++waits;
    if (waits == 400) Write("b.safetensors", Tensors(24));
    if (waits == 800) loop.Stop();
  };
  EXPECT_THAT(loop.Run(), IsOk());
  EXPECT_EQ(outcomes_.size(), 2U);
  EXPECT_GE(clock_.Now() - began, std::chrono::hours(6));
  EXPECT_EQ(calls, 0);
}

TEST_F(DeviceLoopTest, Hurry_Waiting_RunsASessionNow) {
  DeviceLoop loop =
      Loop({.schedule = {.every = std::chrono::hours(1000)}}, nullptr);
  waiter_.on_wait = [&] {
    if (sessions_.size() < 3) {
      loop.Hurry();
    } else {
      loop.Stop();
    }
  };
  EXPECT_THAT(loop.Run(), IsOk());
  EXPECT_EQ(sessions_.size(), 3U);
  EXPECT_EQ(waiter_.wakes, 3);
}

}  // namespace
}  // namespace selvage::agent

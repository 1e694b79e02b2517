// Tasks, artefacts, versions, pages.
#include <gmock/gmock.h>

#include "tests/unit/coordinator/world.h"

namespace selvage::coordinator::test {
namespace {

using ::testing::HasSubstr;

class TaskAdminTest : public ::testing::Test {
 protected:
  TaskAdminTest() {
    WorldOptions options;
    options.strategy =
        "cohort: 4, min_updates: 4, over_selection: 1.0, round_deadline: 5m";
    options.rounds = 3;
    world_ = std::make_unique<World>(std::move(options));
    EXPECT_THAT(api().CreatePopulation("demo", ""), IsOk());
    world_->EnrolDevices();
    program_ = world_->Upload(AsBytes(plan::CanonicalJson(world_->Program())));
  }
  Coordinator& api() { return world_->coordinator(); }
  CreateTaskRequest Request(const std::string& name) {
    return {.task_file = world_->TaskFile(name),
            .program_digest = program_,
            .initial_digest = {},
            .request_id = ""};
  }
  static std::string With(std::string text, const std::string& from,
                          const std::string& to) {
    return text.replace(text.find(from), from.size(), to);
  }

  std::unique_ptr<World> world_;
  crypto::Digest program_;
};

TEST_F(TaskAdminTest, CreateTask_Says_WhatItMade) {
  const auto task = api().CreateTask(Request("one"));

  ASSERT_THAT(task, IsOk());
  EXPECT_EQ(task->name, "one");
  EXPECT_EQ(task->population, "demo");
  EXPECT_EQ(task->state, TaskState::kRunning);
  EXPECT_EQ(task->num_rounds, 3u);
  EXPECT_EQ(task->key_metric, "accuracy");
  EXPECT_THAT(task->metrics, ::testing::ElementsAre("accuracy", "loss"));
  EXPECT_EQ(task->program_digest, program_);
  EXPECT_FALSE(task->etag.empty());
  const auto version = api().GetModelVersion("one", std::nullopt);
  ASSERT_THAT(version, IsOk());
  EXPECT_EQ(version->version, 0u);
  EXPECT_EQ(version->program_digest, program_);
  EXPECT_THAT(api().GetModelVersion("one", 1),
              StatusIs(StatusCode::kNotFound, HasSubstr("latest is 0")));
  EXPECT_THAT(api().GetRound("one", 1), StatusIs(StatusCode::kNotFound));
  world_->Turn();
  EXPECT_THAT(api().GetRound("one", 1), IsOk());
}

TEST_F(TaskAdminTest, CreateTask_ValidateOnly_LeavesNothing) {
  CreateTaskRequest request = Request("one");
  request.validate_only = true;
  const size_t blobs = world_->blobs().List()->size();

  const auto task = api().CreateTask(request);

  ASSERT_THAT(task, IsOk());
  EXPECT_FALSE(task->plan_digest.empty());
  EXPECT_THAT(api().GetTask("one"), StatusIs(StatusCode::kNotFound));
  EXPECT_EQ(world_->blobs().List()->size(), blobs);
  request.task_file = With(request.task_file, "batch_size", "batchsize");
  EXPECT_THAT(api().CreateTask(request),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("batch_size")));
}

TEST_F(TaskAdminTest, CreateTask_RequestId_OneEffectOneAnswer) {
  CreateTaskRequest request = Request("one");
  request.request_id = "r";
  const auto first = api().CreateTask(request);
  const auto second = api().CreateTask(request);

  ASSERT_THAT(second, IsOk());
  EXPECT_EQ(second->plan_digest, first->plan_digest);
  EXPECT_EQ(api().ListTasks("", {})->items.size(), 1u);
  CreateTaskRequest other = Request("two");
  other.request_id = "r";
  EXPECT_THAT(api().CreateTask(other),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("request_id")));
  EXPECT_THAT(api().CreateTask(Request("one")),
              StatusIs(StatusCode::kAlreadyExists));
}

TEST_F(TaskAdminTest, CreateTask_Refusals_NameWhatIsWrong) {
  CreateTaskRequest request = Request("one");
  request.program_digest = crypto::Sha256(AsBytes("nothing"));
  EXPECT_THAT(api().CreateTask(request),
              StatusIs(StatusCode::kNotFound, HasSubstr("was not uploaded")));
  request = Request("one");
  request.program_digest = {};
  EXPECT_THAT(api().CreateTask(request),
              StatusIs(StatusCode::kInvalidArgument));
  request = Request("one");
  request.program_digest = world_->Upload(AsBytes("{\"not\":\"a program\"}"));
  EXPECT_THAT(api().CreateTask(request),
              StatusIs(StatusCode::kInvalidArgument));
  request = Request("one");
  request.task_file = With(request.task_file, "demo", "elsewhere");
  EXPECT_THAT(api().CreateTask(request), StatusIs(StatusCode::kNotFound));
  request = Request("one");
  request.task_file += "evaluate: {key_metric: f1}\n";
  EXPECT_THAT(api().CreateTask(request),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("f1")));
  request = Request("one");
  request.initial_digest = program_;
  EXPECT_THAT(api().CreateTask(request),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("initial")));
  request = Request("one");
  request.task_file = With(request.task_file, "random", "m.safetensors");
  EXPECT_THAT(api().CreateTask(request),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("initial")));
  request.initial_digest = program_;
  EXPECT_THAT(api().CreateTask(request),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("initial")));
  EXPECT_TRUE(api().ListTasks("", {})->items.empty());
}

TEST_F(TaskAdminTest, CreateTask_InitialFile_IsVersionZero) {
  plan::Checkpoint model;
  model.floats.assign(12, 0.5f);
  model.ints = {3, 4};
  CreateTaskRequest request = Request("task");
  request.task_file = With(request.task_file, "random", "m.safetensors");
  request.initial_digest = world_->Upload(
      plan::WriteSafetensors(world_->Program().table, model, {}));

  ASSERT_THAT(api().CreateTask(request), IsOk());

  EXPECT_EQ(world_->Model(), model.floats);
}

TEST_F(TaskAdminTest, CreateTask_WarmStart_TakesAnotherTasksVersion) {
  ASSERT_THAT(api().CreateTask(Request("task")), IsOk());
  world_->Turn();
  for (const auto& [device, work] : world_->DrawRound()) {
    world_->Upload(device, work);
  }
  const std::vector<float> trained = world_->Model(1);
  ASSERT_EQ(trained[0], 0.25f);
  CreateTaskRequest request = Request("warm");
  request.task_file = With(request.task_file, "random", "task@1");

  ASSERT_THAT(api().CreateTask(request), IsOk());

  const auto version = api().GetModelVersion("warm", 0);
  const auto bytes = world_->blobs().Read(version->safetensors_digest, 1 << 20);
  EXPECT_EQ(plan::ReadSafetensors(world_->Program().table, *bytes)->floats,
            trained);
  request = Request("no-version");
  request.task_file = With(request.task_file, "random", "task@9");
  EXPECT_THAT(api().CreateTask(request),
              StatusIs(StatusCode::kNotFound, HasSubstr("version 9")));
  request = Request("no-task");
  request.task_file = With(request.task_file, "random", "other@0");
  EXPECT_THAT(api().CreateTask(request),
              StatusIs(StatusCode::kNotFound, HasSubstr("other")));
}

TEST_F(TaskAdminTest, TwoTasks_OldestFirst_ThenTheOther) {
  ASSERT_THAT(api().CreateTask(Request("first")), IsOk());
  ASSERT_THAT(api().CreateTask(Request("second")), IsOk());
  world_->Turn();
  std::map<int, Assignment> assigned = world_->DrawRound();
  ASSERT_EQ(assigned.size(), 4u);
  EXPECT_EQ(assigned.at(0).task, "first");
  for (int i = 0; i < 2; ++i) world_->Upload(i, assigned.at(i));

  // Those that are done are free for the second one.
  for (int i = 0; i < 2; ++i) EXPECT_FALSE(world_->Assigned(i).has_value());
  EXPECT_EQ(api().GetRound("second", 1)->funnel.checked_in, 2u);
}

TEST_F(TaskAdminTest, StopTask_StaleEtag_IsAborted) {
  const auto task = api().CreateTask(Request("one"));
  world_->Turn();
  EXPECT_THAT(api().StopTask("one", "", "1-99"),
              StatusIs(StatusCode::kAborted, HasSubstr("etag")));
  EXPECT_EQ(api().GetTask("one")->state, TaskState::kRunning);

  const auto stopped = api().StopTask("one", "", task->etag);

  ASSERT_THAT(stopped, IsOk());
  EXPECT_EQ(stopped->state, TaskState::kStopped);
  EXPECT_NE(stopped->etag, task->etag);
  EXPECT_THAT(api().StopTask("none", "", ""), StatusIs(StatusCode::kNotFound));
}

TEST_F(TaskAdminTest, Lists_Page_InOrder) {
  for (const char* name : {"a", "b", "c"}) {
    ASSERT_THAT(api().CreateTask(Request(name)), IsOk());
  }
  world_->Turn();
  const auto first = api().ListTasks("demo", {2, ""});
  ASSERT_EQ(first->items.size(), 2u);
  EXPECT_EQ(first->items[1].name, "b");
  const auto rest = api().ListTasks("demo", {2, first->next_page_token});
  ASSERT_EQ(rest->items.size(), 1u);
  EXPECT_TRUE(rest->next_page_token.empty());
  EXPECT_THAT(api().ListTasks("", {2, "x"}),
              StatusIs(StatusCode::kInvalidArgument));

  for (int i = 0; i < 3; ++i) world_->Turn(std::chrono::minutes(5));
  const auto rounds = api().ListRounds("a", {2, ""});
  ASSERT_EQ(rounds->items.size(), 2u);
  EXPECT_EQ(rounds->items[0].number, 1u);
  EXPECT_EQ(rounds->items[0].state, RoundState::kAbandoned);
  const auto more = api().ListRounds("a", {9, rounds->next_page_token});
  EXPECT_EQ(more->items.front().number, 3u);
  EXPECT_EQ(api().ListModelVersions("a", {})->items.size(), 1u);
}

TEST_F(TaskAdminTest, Artefacts_WrongBytes_AreNotStored) {
  const Bytes bytes = ToBytes("hello");
  const crypto::Digest digest = crypto::Sha256(bytes);
  const auto id = api().BeginArtefact(digest, 5);
  ASSERT_TRUE(id.ok() && id->has_value());
  EXPECT_THAT(api().AppendArtefact(**id, AsBytes("hello!")),
              StatusIs(StatusCode::kOutOfRange));
  ASSERT_THAT(api().AppendArtefact(**id, AsBytes("hallo")), IsOk());
  EXPECT_THAT(api().FinishArtefact(**id), StatusIs(StatusCode::kDataLoss));
  EXPECT_THAT(api().OpenArtefactAsAdmin(digest),
              StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(api().FinishArtefact(**id), StatusIs(StatusCode::kNotFound));

  world_->Upload(bytes);
  EXPECT_THAT(api().OpenArtefactAsAdmin(digest), IsOk());
  EXPECT_FALSE(api().BeginArtefact(digest, 5)->has_value());
  EXPECT_THAT(api().BeginArtefact({}, 5),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST_F(TaskAdminTest, Restart_CollectsOrphans_KeepsTheRest) {
  world_->Upload(AsBytes("kept"));
  ASSERT_THAT(world_->blobs().Put(AsBytes("orphan")), IsOk());
  ASSERT_THAT(world_->blobs().PutSealed("0011", AsBytes("orphan")), IsOk());

  ASSERT_THAT(world_->Reopen(), IsOk());

  EXPECT_THAT(world_->blobs().Open(crypto::Sha256(AsBytes("kept"))), IsOk());
  EXPECT_THAT(world_->blobs().Open(crypto::Sha256(AsBytes("orphan"))),
              StatusIs(StatusCode::kNotFound));
  EXPECT_TRUE(world_->blobs().ListSealed()->empty());
}

TEST_F(TaskAdminTest, Info_IsOfThisInstance) {
  const auto info = api().Info();
  ASSERT_THAT(info, IsOk());
  EXPECT_EQ(info->certificates_issued, 4u);
  EXPECT_GT(info->free_bytes, 0u);
  EXPECT_EQ(info->instance_id.size(), 16u);
}

}  // namespace
}  // namespace selvage::coordinator::test

#include "cli/task_bundle.h"

#include <gmock/gmock.h>

#include "plan/checkpoint.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/cli/cli_fixture.h"

namespace selvage::cli {
namespace {

using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kTask =
    "name: fashion\n"
    "population: demo\n"
    "program: model.yaml\n"
    "strategy: {num_rounds: 3, cohort: 2}\n";

constexpr const char* kTensors =
    "tensors:\n"
    "  - {name: w, shape: [2, 3], init: zeros}\n"
    "inputs: [{name: x, dtype: f32, shape: [3]}]\n"
    "metrics: [loss]\n";

class TaskBundleTest : public test::CliFixture {
 protected:
  TaskBundleTest() : environment_(MakeEnvironment()), torch_(environment_) {}

  Result<TaskBundle> Load(const std::string& task) {
    return LoadTask(environment_, torch_, Write("task.yaml", task));
  }

  Environment environment_;
  TorchTool torch_;
};

TEST_F(TaskBundleTest, LoadTask_Source_IsCanonical) {
  Write("model.py", "def forward(self, x):\n    return x\n");
  Write("model.yaml", std::string("source: model.py\n") + kTensors);
  const auto bundle = Load(kTask);
  ASSERT_THAT(bundle, IsOk());
  EXPECT_EQ(bundle->spec.name, "fashion");
  EXPECT_EQ(bundle->task_file, kTask);
  const auto program = plan::ParseProgram(bundle->program.json);
  ASSERT_THAT(program, IsOk());
  EXPECT_EQ(program->kind, plan::ProgramKind::kSource);
  EXPECT_EQ(bundle->program.archive, std::nullopt);
}

TEST_F(TaskBundleTest, LoadTask_Mistakes_NameFileAndLine) {
  EXPECT_THAT(
      Load("name: x\npopulation: demo\nprogram: model.yaml\n"
           "strategy: {num_round: 3}\n"),
      StatusIs(StatusCode::kInvalidArgument,
               AllOf(HasSubstr("task.yaml: line 4"), HasSubstr("num_rounds"))));
  EXPECT_THAT(Load(kTask),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("model.yaml")));
  Write("model.yaml", std::string("source: gone.py\n") + kTensors);
  EXPECT_THAT(Load(kTask),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("gone.py")));
  EXPECT_THAT(LoadTask(environment_, torch_, "/none/task.yaml"),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("cannot read /none/task.yaml")));
}

TEST_F(TaskBundleTest, LoadTask_ArchiveFile_HasDigestAndSize) {
  Write("model.pt", "archive bytes");
  Write("model.yaml", std::string("archive: model.pt\n") + kTensors);
  const auto bundle = Load(kTask);
  ASSERT_THAT(bundle, IsOk());
  EXPECT_EQ(bundle->program.program.archive_digest,
            crypto::Sha256(AsBytes("archive bytes")));
  EXPECT_EQ(bundle->program.program.archive_size_bytes, 13u);
  EXPECT_EQ(*bundle->program.archive, directory_ / "model.pt");
}

TEST_F(TaskBundleTest, LoadTask_BareArchive_NeedsSelvageTorch) {
  Write("model.pt", "archive bytes");
  EXPECT_THAT(
      Load("name: x\npopulation: demo\nprogram: model.pt\n"),
      StatusIs(StatusCode::kFailedPrecondition, HasSubstr("selvage-torch")));
}

TEST_F(TaskBundleTest, LoadTask_BareArchive_StartsFromItsOwnValues) {
  plan::TensorSpec spec;
  spec.name = "w";
  spec.shape = {2};
  plan::Program program;
  program.kind = plan::ProgramKind::kArchive;
  program.archive_digest = crypto::Sha256(AsBytes("archive bytes"));
  program.archive_size_bytes = 13;
  program.table = *plan::TensorTable::Create({spec});
  program.inputs = {{"x", plan::DType::kFloat32, {2}}};
  program.metrics = {"loss"};
  Write("made/program.json", plan::CanonicalJson(program));
  Write("made/model.safetensors", "values");
  const std::string tool = Write(
      "tool/selvage-torch", "#!/bin/sh\n[ \"$1\" = package ] && cp -r " +
                                (directory_ / "made").string() + " \"$4\"\n");
  std::filesystem::permissions(tool, std::filesystem::perms::owner_all);
  variables_["SELVAGE_TORCH"] = tool;
  TorchTool torch(environment_);
  Write("model.pt", "archive bytes");
  const auto bundle = LoadTask(
      environment_, torch,
      Write("t.yaml", "name: x\npopulation: demo\nprogram: model.pt\n"));
  ASSERT_THAT(bundle, IsOk());
  EXPECT_EQ(*bundle->program.archive, directory_ / "model.pt");
  ASSERT_TRUE(bundle->initial.has_value());
  EXPECT_EQ(Read(*bundle->initial), "values");
  EXPECT_EQ(plan::ParseTaskFile(bundle->task_file)->initial,
            "model.safetensors");
}

TEST_F(TaskBundleTest, LoadProgram_Native_IsDescribedByItsYaml) {
  Write("mlp.yaml", std::string("native: mlp\n") + kTensors);
  const auto bundle =
      LoadProgram(environment_, torch_, directory_, "native:mlp");
  ASSERT_THAT(bundle, IsOk());
  EXPECT_EQ(bundle->program.native_name, "mlp");

  Write("lenet.yaml", std::string("native: mlp\n") + kTensors);
  EXPECT_THAT(LoadProgram(environment_, torch_, directory_, "native:lenet"),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("does not say `native: lenet`")));
  EXPECT_THAT(LoadProgram(environment_, torch_, directory_, "native:gone"),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("is described by gone.yaml")));
}

TEST_F(TaskBundleTest, LoadProgram_UnknownKind_IsRefused) {
  EXPECT_THAT(LoadProgram(environment_, torch_, directory_, "model.onnx"),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("FILE.yaml, FILE.pt and native:NAME")));
}

TEST_F(TaskBundleTest, LoadTask_Initial_IsCheckedAgainstTheTable) {
  Write("mlp.yaml", std::string("native: mlp\n") + kTensors);
  const auto program =
      LoadProgram(environment_, torch_, directory_, "native:mlp");
  ASSERT_THAT(program, IsOk());
  plan::Checkpoint values;
  values.floats.assign(6, 1.0F);
  Write("m.safetensors",
        ToString(plan::WriteSafetensors(program->program.table, values, {})));
  const std::string head = "name: x\npopulation: demo\nprogram: native:mlp\n";
  const auto bundle = Load(head + "initial: m.safetensors\n");
  ASSERT_THAT(bundle, IsOk());
  EXPECT_EQ(*bundle->initial, directory_ / "m.safetensors");

  Write("bad.safetensors", "not one");
  EXPECT_THAT(
      Load(head + "initial: bad.safetensors\n"),
      StatusIs(StatusCode::kInvalidArgument, HasSubstr("bad.safetensors")));
  EXPECT_THAT(Load(head + "initial: other@3\n"), IsOk());
}

TEST_F(TaskBundleTest, EditTaskFile_Settings_AreReplaced) {
  const auto edited = EditTaskFile(
      kTask, "copy", {{"strategy.num_rounds", "7"}, {"seed", "5"}});
  ASSERT_THAT(edited, IsOk());
  const auto spec = plan::ParseTaskFile(*edited);
  ASSERT_THAT(spec, IsOk());
  EXPECT_EQ(spec->name, "copy");
  EXPECT_EQ(spec->strategy.num_rounds, 7);
  EXPECT_EQ(spec->strategy.cohort, 2);
  EXPECT_EQ(spec->seed, 5u);
}

TEST_F(TaskBundleTest, EditTaskFile_NewSection_IsMade) {
  const auto edited =
      EditTaskFile(kTask, "copy", {{"train.optimizer.lr", "0.5"}});
  ASSERT_THAT(edited, IsOk());
  EXPECT_EQ(plan::ParseTaskFile(*edited)->train.optimizer.lr, 0.5);
}

TEST_F(TaskBundleTest, EditTaskFile_BadSetting_IsRefusedWithoutALine) {
  EXPECT_THAT(EditTaskFile(kTask, "copy", {{"strategy.num_round", "7"}}),
              StatusIs(StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("num_rounds"), Not(HasSubstr("line")))));
  EXPECT_THAT(EditTaskFile(kTask, "copy", {{"name.x", "7"}}),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(EditTaskFile(kTask, "copy", {{"seed", "{"}}),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST_F(TaskBundleTest, ParseSetting_NoEquals_IsRefused) {
  EXPECT_EQ(ParseSetting("a.b=c=d")->first, "a.b");
  EXPECT_EQ(ParseSetting("a.b=c=d")->second, "c=d");
  EXPECT_THAT(ParseSetting("a.b"), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(ParseSetting("=b"), StatusIs(StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace selvage::cli

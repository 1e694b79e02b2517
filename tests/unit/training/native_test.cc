#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/training/torch/lenet5.h"
#include "client/training/torch/torch_trainer.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/training/programs.h"

namespace selvage::client {
namespace {

using test::IsOk;
using test::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class NativeTest : public ::testing::Test {
 protected:
  NativeTest() : trainer_({.native = {{"lenet5", LeNet5Factory()}}}) {
    program_.kind = plan::ProgramKind::kNative;
    program_.native_name = "lenet5";
    auto table = trainer_.NativeTable("lenet5");
    EXPECT_THAT(table, IsOk());
    program_.table = *std::move(table);
    program_.inputs = {
        {.name = "x", .dtype = plan::DType::kUint8, .shape = {1, 28, 28}},
        {.name = "y", .dtype = plan::DType::kInt64, .shape = {}}};
    program_.metrics = {"accuracy", "loss"};
  }

  TorchTrainer trainer_;
  plan::Program program_;
};

TEST_F(NativeTest, Engines_NamesEngineAndArchitectures) {
  EXPECT_THAT(trainer_.engines(),
              ElementsAre("libtorch/1.13", "native:lenet5"));
}

TEST_F(NativeTest, NativeTable_LeNet5_HasItsTensors) {
  EXPECT_EQ(program_.table.entries().size(), 10u);
  ASSERT_NE(program_.table.Find("conv2.weight"), nullptr);
  EXPECT_THAT(program_.table.Find("conv2.weight")->spec.shape,
              ElementsAre(16, 6, 5, 5));
  EXPECT_EQ(program_.table.float_count(), 61'706u);
  EXPECT_THAT(trainer_.NativeTable("other"), StatusIs(StatusCode::kNotFound));
}

TEST_F(NativeTest, Train_LeNet5_Learns) {
  std::vector<plan::TensorSpec> specs;
  for (const auto& entry : program_.table.entries()) {
    specs.push_back(entry.spec);
    specs.back().init = plan::Init::kKaimingUniform;
  }
  program_.table = *plan::TensorTable::Create(std::move(specs));
  auto model = trainer_.Load(program_, {});
  ASSERT_THAT(model, IsOk());
  ASSERT_THAT(
      (*model)->SetValues(plan::InitializeCheckpoint(program_.table, 1)),
      IsOk());
  const ExampleSet examples = test::FashionExamples(100, 1);
  const auto report =
      (*model)->Train(examples, {.epochs = 6,
                                 .batch_size = 10,
                                 .optimizer = {.lr = 0.05, .momentum = 0.9},
                                 .trainable = test::AllTrainable(program_),
                                 .keep_going = {}});
  ASSERT_THAT(report, IsOk());
  EXPECT_EQ(report->steps, 60u);
  EXPECT_LT(report->mean_loss, 1.5);
  const auto scores = (*model)->Score(examples);
  ASSERT_THAT(scores, IsOk());
  EXPECT_EQ(scores->size(), 200u);
}

TEST_F(NativeTest, Load_OtherName_IsNotFound) {
  program_.native_name = "resnet50";
  EXPECT_THAT(trainer_.Load(program_, {}),
              StatusIs(StatusCode::kNotFound, HasSubstr("resnet50")));
}

TEST_F(NativeTest, Load_OtherShape_NamesTensor) {
  std::vector<plan::TensorSpec> specs;
  for (const auto& entry : program_.table.entries()) {
    specs.push_back(entry.spec);
  }
  specs[0].shape = {6, 1, 3, 3};
  program_.table = *plan::TensorTable::Create(std::move(specs));
  EXPECT_THAT(trainer_.Load(program_, {}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr(".weight")));
}

TEST_F(NativeTest, ExportTorchScript_IsFailedPrecondition) {
  EXPECT_THAT(
      ExportTorchScript(program_, plan::InitializeCheckpoint(program_.table, 1),
                        {}),
      StatusIs(StatusCode::kFailedPrecondition, HasSubstr("native:lenet5")));
}

TEST(TorchEngineTest, DescribeTorchEngine_NamesVersionAndBlas) {
  TorchTrainer trainer({.threads = 1, .native = {}});
  const TorchEngineInfo info = DescribeTorchEngine();
  EXPECT_THAT(info.version, HasSubstr("1.13"));
  EXPECT_THAT(info.blas_library, HasSubstr("blas"));
  EXPECT_EQ(info.threads, 1);
}

}  // namespace
}  // namespace selvage::client

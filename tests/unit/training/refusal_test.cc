// Programs that must not run: each is refused by name before anything of it
// does.
#include <chrono>
#include <filesystem>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/training/torch/torch_trainer.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/training/programs.h"

namespace selvage::client {
namespace {

using test::IsOk;
using test::LinearProgram;
using test::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kRest[] = R"(
def training_loss(self, x, y):
    return torch.mse_loss(self.forward(x), y)

def example_scores(self, x, y):
    error = self.forward(x) - y
    return torch.stack([error * error, error.abs()], 1)
)";

Status LoadStatus(const std::string& source) {
  return TorchTrainer().Load(LinearProgram(source), {}).status();
}

// forward(x) with these lines before `return x * self.w + self.b`.
std::string Forward(const std::string& lines) {
  return "\ndef forward(self, x):\n" + lines +
         "    return x * self.w + self.b\n" + kRest;
}

TEST(RefusalTest, Load_Linear_IsOk) {
  EXPECT_THAT(LoadStatus(Forward("")), IsOk());
}

TEST(RefusalTest, Load_ReadsFile_NamesOperatorAndMethod) {
  EXPECT_THAT(
      LoadStatus(Forward("    x = x + torch.from_file(\"/etc/passwd\", False, "
                         "16)\n")),
      StatusIs(StatusCode::kPermissionDenied,
               AllOf(HasSubstr("aten::from_file"), HasSubstr("forward"))));
}

TEST(RefusalTest, Load_WritesFile_NamesOperatorAndLeavesNoFile) {
  const auto path = std::filesystem::temp_directory_path() /
                    "selvage-refusal-test-must-not-exist";
  EXPECT_THAT(
      LoadStatus(Forward("    torch.save(x, \"" + path.string() + "\")\n")),
      StatusIs(StatusCode::kPermissionDenied, HasSubstr("aten::save")));
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(RefusalTest, Load_Prints_NamesPrint) {
  EXPECT_THAT(LoadStatus(Forward("    print(x)\n")),
              StatusIs(StatusCode::kPermissionDenied,
                       AllOf(HasSubstr("prim::Print"), HasSubstr("forward"))));
}

TEST(RefusalTest, Load_ForbiddenInsideIfInLoop_IsFound) {
  EXPECT_THAT(
      LoadStatus(Forward("    for i in range(3):\n"
                         "        if i == 2:\n"
                         "            x = x.resize_([1])\n")),
      StatusIs(StatusCode::kPermissionDenied, HasSubstr("aten::resize_")));
}

TEST(RefusalTest, Load_ForbiddenInHelperMethod_IsFound) {
  EXPECT_THAT(
      LoadStatus(Forward("    x = self.helper(x)\n") +
                 "\ndef helper(self, x):\n"
                 "    return x.as_strided([4], [1])\n"),
      StatusIs(StatusCode::kPermissionDenied, HasSubstr("aten::as_strided")));
}

TEST(RefusalTest, Load_ForbiddenInUnusedMethod_IsFound) {
  EXPECT_THAT(LoadStatus(Forward("") + "\ndef unused(self, x):\n"
                                       "    torch.manual_seed(1)\n"
                                       "    return x\n"),
              StatusIs(StatusCode::kPermissionDenied,
                       AllOf(HasSubstr("manual_seed"), HasSubstr("unused"))));
}

TEST(RefusalTest, Load_UninitialisedMemory_IsRefused) {
  EXPECT_THAT(
      LoadStatus(Forward("    x = x + torch.empty([1])\n")),
      StatusIs(StatusCode::kPermissionDenied, HasSubstr("aten::empty")));
}

TEST(RefusalTest, Load_WritesToOut_IsRefused) {
  EXPECT_THAT(LoadStatus(Forward("    torch.add(x, x, out=x)\n")),
              StatusIs(StatusCode::kPermissionDenied, HasSubstr("out")));
}

TEST(RefusalTest, Load_AssignsAttribute_SaysWhatToDo) {
  EXPECT_THAT(LoadStatus(Forward("    self.w = x\n")),
              StatusIs(StatusCode::kPermissionDenied, HasSubstr("copy_")));
}

TEST(RefusalTest, Load_Fork_IsRefused) {
  EXPECT_FALSE(LoadStatus(Forward("    f = torch.jit.fork(self.helper, x)\n") +
                          "\ndef helper(self, x):\n    return x\n")
                   .ok());
}

TEST(RefusalTest, Load_ContextManager_IsRefused) {
  EXPECT_FALSE(
      LoadStatus(Forward("    with torch.no_grad():\n        x = x + 1\n"))
          .ok());
}

// Compiling evaluates default arguments, so this would read the file before
// any graph exists.
TEST(RefusalTest, Load_DefaultArgumentCallsOperator_IsRefusedBeforeCompiling) {
  EXPECT_THAT(
      LoadStatus(Forward("") + "\ndef helper(self, x, y: Tensor = "
                               "torch.from_file(\"/etc/passwd\", False, 16)):\n"
                               "    return x\n"),
      StatusIs(StatusCode::kPermissionDenied, HasSubstr("default")));
}

TEST(RefusalTest, Load_LiteralDefaults_AreOk) {
  EXPECT_THAT(LoadStatus(Forward("    x = self.helper(x)\n") +
                         "\ndef helper(self, x, scale: float = -1.5, "
                         "names: List[str] = [\"a\"]):\n"
                         "    return x * scale\n"),
              IsOk());
}

TEST(RefusalTest, Load_DoesNotCompile_SaysWhyAndWhere) {
  EXPECT_THAT(
      LoadStatus(Forward("    x = torch.no_such_operator(x)\n")),
      StatusIs(StatusCode::kInvalidArgument,
               AllOf(HasSubstr("no_such_operator"), HasSubstr("line 3"))));
  EXPECT_THAT(LoadStatus("def forward(self, x):\n    return (x"),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(LoadStatus("import os\n"),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(LoadStatus("class A:\n    pass\n"),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST(RefusalTest, Load_MissingMethod_IsNamed) {
  EXPECT_THAT(
      LoadStatus("def forward(self, x):\n    return x\n"),
      StatusIs(StatusCode::kInvalidArgument, HasSubstr("training_loss")));
}

TEST(RefusalTest, Load_WrongSignature_IsNamed) {
  EXPECT_THAT(LoadStatus("def forward(self, x):\n    return x\n"
                         "def training_loss(self, x):\n    return x.sum()\n"
                         "def example_scores(self, x, y):\n    return x\n"),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("training_loss must take 2 tensors")));
  EXPECT_THAT(
      LoadStatus("def forward(self, x):\n    return x\n"
                 "def training_loss(self, x, y):\n    return 1.0\n"
                 "def example_scores(self, x, y):\n    return x\n"),
      StatusIs(StatusCode::kInvalidArgument, HasSubstr("training_loss")));
}

TEST(RefusalTest, Load_UnknownTensor_IsNamed) {
  EXPECT_THAT(LoadStatus(Forward("    x = x + self.missing\n")),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("missing")));
}

TEST(RefusalTest, Load_TensorNamedTraining_IsRefused) {
  const auto program =
      LinearProgram(Forward(""), {{.name = "w", .shape = {}},
                                  {.name = "b", .shape = {}},
                                  {.name = "training", .shape = {}}});
  EXPECT_THAT(TorchTrainer().Load(program, {}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("training")));
}

TEST(RefusalTest, Load_SharedTensorWrittenInPlace_IsRefused) {
  EXPECT_THAT(LoadStatus(Forward("    self.w.add_(1)\n")),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("tensor w")));
}

// The parser and the compiler recurse; a page of nonsense must not overflow the
// stack.
TEST(RefusalTest, Load_DeepExpressions_AreRefused) {
  const auto repeat = [](const std::string& text, size_t count) {
    std::string out;
    for (size_t i = 0; i < count; ++i) out += text;
    return out;
  };
  EXPECT_THAT(LoadStatus(Forward("    x = " + repeat("(", 100'000) + "x" +
                                 repeat(")", 100'000) + "\n")),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("too deep")));
  EXPECT_THAT(LoadStatus(Forward("    x = " + repeat("-", 200'000) + "x\n")),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("too")));
  EXPECT_THAT(LoadStatus(Forward("    x = x" + repeat(" + x", 100'000) + "\n")),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("too")));
  EXPECT_THAT(
      LoadStatus(Forward(
          "    if x.dim() == 0:\n        x = x + 1\n" +
          repeat("    elif x.dim() == 1:\n        x = x + 1\n", 20'000))),
      StatusIs(StatusCode::kInvalidArgument, HasSubstr("elif")));
  std::string nested;
  for (size_t i = 0; i < 500; ++i) {
    nested += repeat(" ", 4 + i) + "if x.dim() == 0:\n";
  }
  EXPECT_THAT(LoadStatus(Forward(nested + repeat(" ", 504) + "x = x\n")),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("too deep")));
}

// The longest statement that passes the check must also survive the compiler.
TEST(RefusalTest, Load_LongestExpressions_Compile) {
  std::string sum = "    x = x";
  for (int i = 0; i < 1900; ++i) sum += " + x";
  EXPECT_THAT(LoadStatus(Forward(sum + "\n")), IsOk());
  std::string minus = "    x = ";
  for (int i = 0; i < 3900; ++i) minus += "-";
  EXPECT_THAT(LoadStatus(Forward(minus + "x\n")), IsOk());
}

TEST(RefusalTest, Load_CallsThatDouble_AreRefused) {
  std::string source = Forward("    x = self.f40(x)\n");
  source += "\ndef f0(self, x):\n    return x + 1\n";
  for (int i = 1; i <= 40; ++i) {
    const std::string callee = "self.f" + std::to_string(i - 1);
    source += "\ndef f" + std::to_string(i) + "(self, x):\n    return " +
              callee + "(" + callee + "(x))\n";
  }
  EXPECT_THAT(LoadStatus(source),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("inlined")));
}

TEST(RefusalTest, Load_CallsItself_IsRefused) {
  EXPECT_THAT(LoadStatus(Forward("    x = self.f(x)\n") +
                         "\ndef f(self, x):\n    return self.f(x)\n"),
              StatusIs(StatusCode::kInvalidArgument));
}

// ---- time ----

constexpr char kForever[] =
    "    while True:\n"
    "        x = x * 0.5\n";

std::unique_ptr<TrainableModel> Load(const std::string& source) {
  TorchTrainer trainer(
      {.score_time_max = std::chrono::milliseconds(200), .native = {}});
  auto model = trainer.Load(LinearProgram(source), {});
  EXPECT_THAT(model, IsOk());
  return *std::move(model);
}

const ExampleSet kTwo = test::LinearExamples({1, 2}, {1, 2});

TEST(RefusalTest, Train_Forever_StopsAtItsDeadline) {
  const auto model = Load(Forward(kForever));
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_THAT(
      model->Train(kTwo, {.optimizer = {},
                          .trainable = {0, 1},
                          .step_time_max = std::chrono::milliseconds(200),
                          .keep_going = {}}),
      StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("step 1")));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
}

TEST(RefusalTest, Score_Forever_StopsAtItsDeadline) {
  const std::string source =
      "def forward(self, x):\n    return x * self.w + self.b\n"
      "def training_loss(self, x, y):\n    return self.forward(x).sum()\n"
      "def example_scores(self, x, y):\n" +
      std::string(kForever) + "    return x\n";
  EXPECT_THAT(Load(source)->Score(kTwo), StatusIs(StatusCode::kDeadlineExceeded,
                                                  HasSubstr("example_scores")));
}

TEST(RefusalTest, Predict_ForeverInHelper_StopsAtItsDeadline) {
  const std::string source = Forward("    x = self.helper(x)\n") +
                             "\ndef helper(self, x):\n" + kForever +
                             "    return x\n";
  const auto model = Load(source);
  EXPECT_THAT(model->Predict(2, kTwo.inputs[0]),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("forward")));
  // The model and the thread are as good as before.
  EXPECT_THAT(model->Values(), IsOk());
}

// ---- what it does while it runs ----

TEST(RefusalTest, Train_AsksForTooMuchMemory_IsResourceExhausted) {
  const auto model =
      Load(Forward("    x = x + torch.zeros([1000000000000]).sum()\n"));
  EXPECT_THAT(
      model->Train(kTwo,
                   {.optimizer = {}, .trainable = {0, 1}, .keep_going = {}}),
      StatusIs(StatusCode::kResourceExhausted));
}

// What a program says when it raises may hold an example.
TEST(RefusalTest, Train_ProgramRaises_ItsWordsAreLeftOut) {
  const auto model =
      Load(Forward("    assert bool(x.sum() < 0), \"canary {}\".format(x)\n"));
  const auto report = model->Train(
      kTwo, {.optimizer = {}, .trainable = {0, 1}, .keep_going = {}});
  EXPECT_THAT(report, StatusIs(StatusCode::kInternal, HasSubstr("raised")));
  EXPECT_EQ(report.status().message().find("canary"), std::string::npos);
}

TEST(RefusalTest, Train_LossDoesNotDependOnTensors_IsInternal) {
  const auto model = Load(
      "def forward(self, x):\n    return x * self.w + self.b\n"
      "def training_loss(self, x, y):\n    return x.sum()\n"
      "def example_scores(self, x, y):\n    return x\n");
  EXPECT_THAT(
      model->Train(kTwo,
                   {.optimizer = {}, .trainable = {0, 1}, .keep_going = {}}),
      StatusIs(StatusCode::kInternal, HasSubstr("does not depend")));
}

TEST(RefusalTest, Train_LossIsNotANumber_IsInternal) {
  const auto model = Load(
      "def forward(self, x):\n    return x * self.w + self.b\n"
      "def training_loss(self, x, y):\n    return self.forward(x)\n"
      "def example_scores(self, x, y):\n    return x\n");
  EXPECT_THAT(
      model->Train(kTwo,
                   {.optimizer = {}, .trainable = {0, 1}, .keep_going = {}}),
      StatusIs(StatusCode::kInternal, HasSubstr("training_loss")));
}

TEST(RefusalTest, Score_OfAnotherShape_IsInternal) {
  const auto model = Load(
      "def forward(self, x):\n    return x * self.w + self.b\n"
      "def training_loss(self, x, y):\n    return self.forward(x).sum()\n"
      "def example_scores(self, x, y):\n    return x\n");
  EXPECT_THAT(model->Score(kTwo),
              StatusIs(StatusCode::kInternal, HasSubstr("[examples, 2]")));
}

TEST(RefusalTest, Score_NotFinite_IsOutOfRange) {
  const auto model = Load(
      "def forward(self, x):\n    return x * self.w + self.b\n"
      "def training_loss(self, x, y):\n    return self.forward(x).sum()\n"
      "def example_scores(self, x, y):\n"
      "    return torch.stack([x, torch.log(x - 5)], 1)\n");
  EXPECT_THAT(model->Score(kTwo), StatusIs(StatusCode::kOutOfRange));
}

TEST(RefusalTest, Predict_OtherRows_IsInternal) {
  const auto model = Load(
      "def forward(self, x):\n    return (x * self.w + self.b).sum()\n"
      "def training_loss(self, x, y):\n    return self.forward(x)\n"
      "def example_scores(self, x, y):\n    return x\n");
  EXPECT_THAT(model->Predict(2, kTwo.inputs[0]),
              StatusIs(StatusCode::kInternal, HasSubstr("forward")));
}

}  // namespace
}  // namespace selvage::client

#include "cli/torch/torch_cli.h"

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plan/checkpoint.h"
#include "plan/program.h"
#include "tests/testing/scratch_folder.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/training/programs.h"
#include "tests/unit/training/python.h"

namespace selvage::cli {
namespace {

namespace fs = std::filesystem;
using test::IsOk;
using ::testing::AllOf;
using ::testing::HasSubstr;

class TorchCliTest : public ::testing::Test {
 protected:
  ExitCode Run(const std::vector<std::string>& arguments) {
    out_.str("");
    err_.str("");
    return RunTorchCli(arguments, files_, out_, err_);
  }
  std::string Text(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
  }
  void Write(const std::string& name, const std::string& text) {
    std::ofstream(directory_ / name) << text;
  }
  static std::string Example(const std::string& name) {
    return std::string(SELVAGE_SOURCE_DIR) + "/examples/" + name;
  }
  std::string In(const std::string& name) {
    return (directory_ / name).string();
  }

  PosixFileSystem files_;
  const test::ScratchFolder scratch_;
  const fs::path& directory_ = scratch_.path();
  std::ostringstream out_;
  std::ostringstream err_;
};

TEST_F(TorchCliTest, Package_Fashion_WritesProgramAndInitialValues) {
  ASSERT_EQ(Run({"package", Example("fashion/model.yaml"), "--out",
                 In("package"), "--seed", "7"}),
            ExitCode::kOk)
      << err_.str();
  const auto program = plan::ParseProgram(Text(In("package/program.json")));
  ASSERT_THAT(program, IsOk());
  EXPECT_EQ(program->metrics.size(), 2u);
  const std::string safetensors = Text(In("package/model.safetensors"));
  const auto values =
      plan::ReadSafetensors(program->table, AsBytes(safetensors));
  ASSERT_THAT(values, IsOk());
  EXPECT_EQ(*values, plan::InitializeCheckpoint(program->table, 7));
  EXPECT_FALSE(fs::exists(In("package/archive.pt")));
  EXPECT_THAT(out_.str(), HasSubstr("50890 shared"));
}

TEST_F(TorchCliTest, Export_WhatPackageWrote_MakesAnArchiveThatChecks) {
  ASSERT_EQ(Run({"package", Example("regression/model.yaml"), "--out",
                 In("package")}),
            ExitCode::kOk)
      << err_.str();
  ASSERT_EQ(Run({"export", "--program", In("package/program.json"), "--model",
                 In("package/model.safetensors"), "--out", In("model.pt"), "-o",
                 "json"}),
            ExitCode::kOk)
      << err_.str();
  const auto envelope = nlohmann::json::parse(out_.str());
  EXPECT_EQ(envelope["schema_version"], 1);
  EXPECT_EQ(envelope["status"], "ok");
  EXPECT_EQ(envelope["data"]["model"], In("model.pt"));
  Write("model.yaml", R"(
archive: model.pt
tensors:
  - {name: hidden.weight, shape: [16, 4], dtype: f32, init: zeros}
  - {name: hidden.bias, shape: [16], dtype: f32, init: zeros}
  - {name: out.weight, shape: [1, 16], dtype: f32, init: zeros}
  - {name: out.bias, shape: [1], dtype: f32, init: zeros}
inputs: [{name: x, dtype: f32, shape: [4]}, {name: y, dtype: f32, shape: []}]
metrics: [squared_error, absolute_error]
)");
  EXPECT_EQ(Run({"check", In("model.yaml")}), ExitCode::kOk) << err_.str();
  EXPECT_THAT(out_.str(),
              AllOf(HasSubstr("aten::linear"), HasSubstr("archive")));
  ASSERT_EQ(Run({"package", In("model.yaml"), "--out", In("again")}),
            ExitCode::kOk)
      << err_.str();
  EXPECT_EQ(Text(In("again/archive.pt")), Text(In("model.pt")));
  // A bare archive must say what its inputs are.
  EXPECT_EQ(Run({"package", In("model.pt"), "--out", In("bare")}),
            ExitCode::kUsage);
  EXPECT_THAT(err_.str(), HasSubstr("selvage.yaml"));
}

TEST_F(TorchCliTest, Package_BareArchive_TakesItsDescriptionAndValues) {
  if (!test::HavePythonTorch()) GTEST_SKIP() << "python3-torch is missing";
  const test::PythonRun run =
      test::RunPython({Example("archive/make_archive.py"), In("model.pt")});
  ASSERT_EQ(run.exit_code, 0) << run.out;
  ASSERT_EQ(Run({"package", In("model.pt"), "--out", In("package"), "--role",
                 "^head\\.=personal", "--role", "^conv1\\.=frozen"}),
            ExitCode::kOk)
      << err_.str();
  const auto program = plan::ParseProgram(Text(In("package/program.json")));
  ASSERT_THAT(program, IsOk());
  const auto role = [&](const std::string& name) {
    return program->table.Find(name)->spec.role;
  };
  EXPECT_EQ(role("head.bias"), plan::Role::kPersonal);
  EXPECT_EQ(role("conv1.weight"), plan::Role::kFrozen);
  EXPECT_EQ(role("norm.running_mean"), plan::Role::kPersonal);
  EXPECT_EQ(role("norm.num_batches_tracked"), plan::Role::kBufferInt);
  EXPECT_EQ(role("conv2.weight"), plan::Role::kShared);
  const std::string safetensors = Text(In("package/model.safetensors"));
  const auto values =
      plan::ReadSafetensors(program->table, AsBytes(safetensors));
  ASSERT_THAT(values, IsOk());
  const auto* variance = program->table.Find("norm.running_var");
  EXPECT_EQ(values->floats[variance->offset], 1.0F);

  EXPECT_EQ(Run({"package", In("model.pt"), "--out", In("package"), "--role",
                 "^nothing=personal"}),
            ExitCode::kUsage);
  EXPECT_THAT(err_.str(), HasSubstr("matches no tensor"));
  EXPECT_EQ(Run({"package", In("model.pt"), "--out", In("package"), "--role",
                 "^head=mine"}),
            ExitCode::kUsage);
  EXPECT_EQ(Run({"check", In("package/program.json"), "--archive",
                 In("package/archive.pt")}),
            ExitCode::kOk)
      << err_.str();
  EXPECT_EQ(Run({"check", In("package/program.json")}), ExitCode::kUsage);
  EXPECT_THAT(err_.str(), HasSubstr("--archive"));
}

TEST_F(TorchCliTest, Check_ForbiddenOperator_IsGateFailedAndNamed) {
  Write("model.py", R"(
def forward(self, x):
    return x * self.w + torch.from_file("/etc/passwd", False, 1)
def training_loss(self, x):
    return self.forward(x).sum()
def example_scores(self, x):
    return self.forward(x)
)");
  Write("model.yaml", R"(
source: model.py
tensors: [{name: w, shape: [1], dtype: f32, init: ones}]
inputs: [{name: x, dtype: f32, shape: [1]}]
metrics: [a]
)");
  EXPECT_EQ(Run({"check", In("model.yaml"), "-o", "json"}),
            ExitCode::kPrecondition);
  EXPECT_THAT(err_.str(), AllOf(HasSubstr("selvage-torch: error: "),
                                HasSubstr("aten::from_file")));
  const auto envelope = nlohmann::json::parse(out_.str());
  EXPECT_EQ(envelope["status"], "error");
  EXPECT_EQ(envelope["error"]["code"], "PERMISSION_DENIED");
  EXPECT_EQ(Run({"package", In("model.yaml"), "--out", In("p")}),
            ExitCode::kPrecondition);
  EXPECT_FALSE(fs::exists(In("p/program.json")));
}

TEST_F(TorchCliTest, Run_Mistakes_SayWhatIsWrong) {
  EXPECT_EQ(Run({}), ExitCode::kUsage);
  EXPECT_EQ(Run({"pack"}), ExitCode::kUsage);
  EXPECT_EQ(Run({"package", "model.yaml"}), ExitCode::kUsage);
  EXPECT_EQ(Run({"check", In("nothing.yaml")}), ExitCode::kUsage);
  EXPECT_THAT(err_.str(), HasSubstr("nothing.yaml"));
  EXPECT_EQ(Run({"check", In("model.onnx")}), ExitCode::kUsage);
  EXPECT_EQ(Run({"package", Example("fashion/model.yaml"), "--out", In("p"),
                 "--role", "^head=personal"}),
            ExitCode::kUsage);
  EXPECT_THAT(err_.str(), HasSubstr("bare archive"));
}

TEST_F(TorchCliTest, Info_NamesEngineAndBlas) {
  ASSERT_EQ(Run({"info"}), ExitCode::kOk);
  EXPECT_THAT(out_.str(), AllOf(HasSubstr("1.13"), HasSubstr("blas")));
  ASSERT_EQ(Run({"-o", "json", "info"}), ExitCode::kOk);
  const auto data = nlohmann::json::parse(out_.str())["data"];
  EXPECT_TRUE(data["openblas"].is_boolean());
  EXPECT_EQ(data["threads"], 1);
  EXPECT_THAT(data["engines"].dump(), HasSubstr("native:lenet5"));
}

TEST_F(TorchCliTest, Run_HelpAndVersion_AreOk) {
  EXPECT_EQ(Run({"--help"}), ExitCode::kOk);
  EXPECT_THAT(out_.str(), HasSubstr("package"));
  EXPECT_EQ(Run({"package", "--help"}), ExitCode::kOk);
  EXPECT_THAT(out_.str(), HasSubstr("Examples:"));
  EXPECT_EQ(Run({"--version"}), ExitCode::kOk);
  EXPECT_THAT(out_.str(), HasSubstr("selvage-torch 0."));
}

// Two examples of examples/regression: x [4] f32, y [] f32.
std::string RegressionData(const std::string& header_y) {
  const std::string header =
      R"({"x":{"dtype":"F32","shape":[2,4],"data_offsets":[0,32]},"y":)" +
      header_y + R"(,"__metadata__":{"a":"b"}})";
  Bytes out;
  AppendLe(out, static_cast<uint64_t>(header.size()));
  AppendBytes(out, AsBytes(header));
  for (int i = 0; i < 8; ++i) AppendLe(out, 0.0F);
  AppendLe(out, 1.0F);
  AppendLe(out, 3.0F);
  return ToString(out);
}
constexpr char kGoodY[] =
    R"({"dtype":"F32","shape":[2],"data_offsets":[32,40]})";

TEST_F(TorchCliTest, Evaluate_ScoresAreMeansOverExamples) {
  ASSERT_EQ(Run({"package", Example("regression/model.yaml"), "--out",
                 In("package")}),
            ExitCode::kOk)
      << err_.str();
  Write("data.safetensors", RegressionData(kGoodY));
  const std::vector<std::string> command = {"evaluate",
                                            "--program",
                                            In("package/program.json"),
                                            "--model",
                                            In("package/model.safetensors"),
                                            "--data",
                                            In("data.safetensors"),
                                            "-o",
                                            "json"};
  ASSERT_EQ(Run(command), ExitCode::kOk) << err_.str();
  const auto data = nlohmann::json::parse(out_.str()).at("data");
  EXPECT_EQ(data["examples"], 2);
  EXPECT_EQ(data["data_digest"].get<std::string>().size(), 64u);
  // Biases start at zero, so the model says 0 for x = 0: (1 + 9) / 2.
  EXPECT_DOUBLE_EQ(data["metrics"]["squared_error"].get<double>(), 5.0);
  EXPECT_DOUBLE_EQ(data["metrics"]["absolute_error"].get<double>(), 2.0);
  const std::string first = out_.str();
  ASSERT_EQ(Run(command), ExitCode::kOk);
  EXPECT_EQ(out_.str(), first);
}

TEST_F(TorchCliTest, Evaluate_DataThatDoesNotFit_IsUsage) {
  ASSERT_EQ(Run({"package", Example("regression/model.yaml"), "--out",
                 In("package")}),
            ExitCode::kOk)
      << err_.str();
  const auto evaluate = [&](const std::string& bytes) {
    Write("data.safetensors", bytes);
    return Run({"evaluate", "--program", In("package/program.json"), "--model",
                In("package/model.safetensors"), "--data",
                In("data.safetensors")});
  };
  const std::string good = RegressionData(kGoodY);
  for (const std::string& y :
       {std::string(R"({"dtype":"I64","shape":[2],"data_offsets":[32,40]})"),
        std::string(R"({"dtype":"F32","shape":[2,1],"data_offsets":[32,40]})"),
        std::string(R"({"dtype":"F32","shape":[2],"data_offsets":[32,44]})"),
        std::string(R"({"dtype":"F32","shape":[1],"data_offsets":[32,36]})"),
        std::string(R"({"dtype":"F32","shape":[2],"data_offsets":[40,32]})"),
        std::string(R"({"dtype":"F32","shape":[-1],"data_offsets":[32,40]})"),
        std::string("3")}) {
    EXPECT_EQ(evaluate(RegressionData(y)), ExitCode::kUsage) << y;
    EXPECT_THAT(err_.str(), HasSubstr("data.safetensors"));
  }
  for (const size_t size :
       {size_t{0}, size_t{7}, size_t{30}, good.size() - 1}) {
    EXPECT_EQ(evaluate(good.substr(0, size)), ExitCode::kUsage) << size;
  }
  EXPECT_EQ(Run({"evaluate", "--program", In("package/program.json"), "--model",
                 In("package/model.safetensors"), "--data", In("none.idx")}),
            ExitCode::kUsage);
}

}  // namespace
}  // namespace selvage::cli

// TorchScript archives: made here by ExportTorchScript, by Python where
// python3-torch is installed, and damaged in every way that must be noticed.
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/random.h"
#include "client/training/torch/archive_scan.h"
#include "client/training/torch/torch_trainer.h"
#include "tests/testing/scratch_folder.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/training/archive_tools.h"
#include "tests/unit/training/programs.h"
#include "tests/unit/training/python.h"

namespace selvage::client {
namespace {

namespace fs = std::filesystem;
using test::FashionExamples;
using test::FashionProgram;
using test::IsOk;
using test::PackArchive;
using test::StatusIs;
using test::UnpackArchive;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ArchiveTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    const plan::Program source = FashionProgram();
    auto exported = ExportTorchScript(
        source, plan::InitializeCheckpoint(source.table, 1), {});
    ASSERT_THAT(exported, IsOk());
    archive_ = new Bytes(*std::move(exported));
  }
  static void TearDownTestSuite() { delete archive_; }

  static plan::Program ProgramOf(ByteSpan archive) {
    plan::Program program = FashionProgram();
    program.kind = plan::ProgramKind::kArchive;
    program.source.clear();
    program.archive_digest = crypto::Sha256(archive);
    program.archive_size_bytes = archive.size();
    return program;
  }

  static Status LoadStatus(ByteSpan archive) {
    return TorchTrainer().Load(ProgramOf(archive), archive).status();
  }

  using Records = std::map<std::string, std::string>;
  static Bytes Edited(const std::function<void(Records&)>& edit) {
    Records records = UnpackArchive(*archive_);
    edit(records);
    return PackArchive(records);
  }
  static std::string& Code(Records& records) {
    return records.at("code/__torch__/selvage.py");
  }
  static void Replace(std::string& text, const std::string& what,
                      const std::string& with) {
    const size_t at = text.find(what);
    ASSERT_NE(at, std::string::npos) << text;
    text.replace(at, what.size(), with);
  }

  void WriteFile(const fs::path& path, ByteSpan bytes) {
    std::ofstream out(path, std::ios::binary);
    out.write(reinterpret_cast<const char*>(bytes.data()),
              static_cast<std::streamsize>(bytes.size()));
  }
  Bytes ReadFile(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    return Bytes(std::istreambuf_iterator<char>(in), {});
  }

  static Bytes* archive_;
  const test::ScratchFolder scratch_;
  const fs::path& directory_ = scratch_.path();
};
Bytes* ArchiveTest::archive_ = nullptr;

// ---- what is right ----

TEST_F(ArchiveTest, Load_Exported_ScoresAsTheSource) {
  const plan::Program source = FashionProgram();
  const plan::Checkpoint values = plan::InitializeCheckpoint(source.table, 3);
  const ExampleSet examples = FashionExamples(30, 1);
  TorchTrainer trainer;
  std::vector<std::vector<float>> scores;
  for (const plan::Program& program : {source, ProgramOf(*archive_)}) {
    auto model =
        trainer.Load(program, program.kind == plan::ProgramKind::kArchive
                                  ? ByteSpan(*archive_)
                                  : ByteSpan());
    ASSERT_THAT(model, IsOk());
    ASSERT_THAT((*model)->SetValues(values), IsOk());
    LocalTraining options;
    options.trainable = test::AllTrainable(program);
    ASSERT_THAT((*model)->Train(examples, options), IsOk());
    auto score = (*model)->Score(examples);
    ASSERT_THAT(score, IsOk());
    scores.push_back(*std::move(score));
  }
  EXPECT_EQ(scores[0], scores[1]);
}

TEST_F(ArchiveTest, InspectArchive_Exported_GivesTableAndValues) {
  const plan::Program source = FashionProgram();
  auto contents = InspectArchive(*archive_);
  ASSERT_THAT(contents, IsOk());
  ASSERT_EQ(contents->table.entries().size(), 4u);
  EXPECT_EQ(contents->table.entries()[0].spec.name, "body.weight");
  EXPECT_EQ(contents->values, plan::InitializeCheckpoint(source.table, 1));
}

TEST_F(ArchiveTest, ExportTorchScript_WrongValues_IsInvalid) {
  EXPECT_THAT(ExportTorchScript(FashionProgram(), {}, {}),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST_F(ArchiveTest, PackArchive_Unchanged_Loads) {
  EXPECT_THAT(LoadStatus(Edited([](Records&) {})), IsOk());
}

// ---- what is wrong ----

TEST_F(ArchiveTest, Load_WrongDigest_IsDataLoss) {
  plan::Program program = ProgramOf(*archive_);
  Bytes other = *archive_;
  other[other.size() / 2] ^= 1;
  EXPECT_THAT(TorchTrainer().Load(program, other),
              StatusIs(StatusCode::kDataLoss, HasSubstr("digest")));
  EXPECT_THAT(TorchTrainer().Load(program, ByteSpan(*archive_).first(1000)),
              StatusIs(StatusCode::kDataLoss, HasSubstr("1000 bytes")));
  EXPECT_THAT(TorchTrainer().Load(program, {}),
              StatusIs(StatusCode::kDataLoss));
}

TEST_F(ArchiveTest, Load_SetState_IsRefusedBeforeLoading) {
  const fs::path trap = directory_ / "trap";
  const Bytes bad = Edited([&](Records& records) {
    Code(records) +=
        "  def __setstate__(self: __torch__.selvage.Program,\n"
        "    state: Tensor) -> NoneType:\n"
        "    torch.save(state, \"" +
        trap.string() + "\")\n    return None\n";
  });
  EXPECT_THAT(LoadStatus(bad), StatusIs(StatusCode::kPermissionDenied,
                                        HasSubstr("__setstate__")));
  EXPECT_THAT(InspectArchive(bad), StatusIs(StatusCode::kPermissionDenied));
  EXPECT_FALSE(fs::exists(trap));
}

TEST_F(ArchiveTest, Load_ForbiddenOperatorInCode_IsNamed) {
  const Bytes bad = Edited([](Records& records) {
    Replace(Code(records), "torch.relu(", "torch.empty_like(");
  });
  EXPECT_THAT(LoadStatus(bad), StatusIs(StatusCode::kPermissionDenied,
                                        AllOf(HasSubstr("aten::empty_like"),
                                              HasSubstr("forward"))));
}

TEST_F(ArchiveTest, Load_OtherNamespaceInCode_IsNamed) {
  const Bytes bad = Edited([](Records& records) {
    Replace(Code(records), "torch.relu(", "ops.quantized.relu6(");
  });
  EXPECT_THAT(LoadStatus(bad), StatusIs(StatusCode::kPermissionDenied,
                                        HasSubstr("quantized::relu6")));
}

TEST_F(ArchiveTest, Load_ClassConstantThatCalls_IsRefused) {
  const Bytes bad = Edited([](Records& records) {
    Replace(Code(records), "  training : bool\n",
            "  training : bool\n"
            "  k : Final[int] = torch.len([1, 2])\n");
  });
  EXPECT_THAT(LoadStatus(bad), StatusIs(StatusCode::kPermissionDenied,
                                        HasSubstr("class constant")));
}

TEST_F(ArchiveTest, Load_TensorsOfAnotherShape_NamesTensor) {
  plan::Program program = ProgramOf(*archive_);
  std::vector<plan::TensorSpec> specs;
  for (const auto& entry : program.table.entries()) {
    specs.push_back(entry.spec);
  }
  specs[0].shape = {32, 784};
  program.table = *plan::TensorTable::Create(specs);
  EXPECT_THAT(TorchTrainer().Load(program, *archive_),
              StatusIs(StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("body.weight"), HasSubstr("[32, 784]"),
                             HasSubstr("[64, 784]"))));
  specs[0].shape = {64, 784};
  specs.pop_back();
  program.table = *plan::TensorTable::Create(specs);
  EXPECT_THAT(TorchTrainer().Load(program, *archive_),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("head.bias")));
  specs.push_back({.name = "head.bias", .shape = {10}});
  specs.push_back({.name = "extra", .shape = {}});
  program.table = *plan::TensorTable::Create(specs);
  EXPECT_THAT(TorchTrainer().Load(program, *archive_),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("extra")));
}

TEST_F(ArchiveTest, Load_ParameterAsBuffer_IsRefused) {
  plan::Program program = ProgramOf(*archive_);
  std::vector<plan::TensorSpec> specs;
  for (const auto& entry : program.table.entries()) {
    specs.push_back(entry.spec);
  }
  specs[3].role = plan::Role::kBufferFloat;
  program.table = *plan::TensorTable::Create(specs);
  EXPECT_THAT(TorchTrainer().Load(program, *archive_),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("head.bias")));
}

TEST_F(ArchiveTest, Load_StorageShorterThanItsTensor_IsRefused) {
  const Bytes bad = Edited([](Records& records) {
    std::string& data = records.at("data/0");
    data.resize(data.size() - 4);
  });
  EXPECT_THAT(LoadStatus(bad),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("storage 0")));
}

TEST_F(ArchiveTest, Load_MissingOrUnknownRecords_AreRefused) {
  for (const std::string name :
       {"data.pkl", "constants.pkl", "data/0", "code/__torch__/selvage.py"}) {
    EXPECT_THAT(
        LoadStatus(Edited([&](Records& records) { records.erase(name); })),
        StatusIs(StatusCode::kInvalidArgument))
        << name;
  }
  for (const std::string name :
       {"model.json", "bytecode.pkl", "code/run.so", "attributes.pkl"}) {
    EXPECT_THAT(
        LoadStatus(Edited([&](Records& records) { records[name] = "x"; })),
        StatusIs(StatusCode::kInvalidArgument, HasSubstr(name)))
        << name;
  }
}

TEST_F(ArchiveTest, Load_CompressedTensors_AreRefused) {
  EXPECT_THAT(LoadStatus(PackArchive(UnpackArchive(*archive_), true)),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("compressed")));
}

TEST_F(ArchiveTest, Load_CodeThatUnpacksHuge_IsRefused) {
  const Bytes bad = Edited([](Records& records) {
    records["code/big.py"] = std::string(20 << 20, '\n');
  });
  ASSERT_LT(bad.size(), size_t{1} << 20);
  EXPECT_THAT(LoadStatus(bad),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("16 MiB")));
}

TEST_F(ArchiveTest, Load_NotAnArchive_IsInvalid) {
  for (const std::string& text :
       {std::string("x"), std::string(1000, 'x'), std::string("PK\x03\x04"),
        "PK\x03\x04" + std::string(1000, '\0')}) {
    EXPECT_THAT(LoadStatus(AsBytes(text)),
                StatusIs(StatusCode::kInvalidArgument));
  }
}

TEST_F(ArchiveTest, Load_BytesFlipped_IsDataLoss) {
  const plan::Program program = ProgramOf(*archive_);
  SeededRandom random(1);
  TorchTrainer trainer;
  for (int i = 0; i < 50; ++i) {
    Bytes bad = *archive_;
    bad[UniformBelow(random, bad.size())] ^=
        static_cast<uint8_t>(1 + UniformBelow(random, 255));
    EXPECT_THAT(trainer.Load(program, bad), StatusIs(StatusCode::kDataLoss));
  }
}

// Signed or not, a file that is not what PyTorch writes must not crash us.
TEST_F(ArchiveTest, Load_BytesFlippedWithADigestThatFits_ReturnsAStatus) {
  SeededRandom random(2);
  const Records records = UnpackArchive(*archive_);
  TorchTrainer trainer;
  for (int i = 0; i < 150; ++i) {
    Bytes bad = *archive_;
    // Half of them where the structure is: the last tenth of the file.
    const size_t from = i % 2 == 0 ? 0 : bad.size() - bad.size() / 10;
    for (int k = 0; k < 3; ++k) {
      bad[from + UniformBelow(random, bad.size() - from)] ^=
          static_cast<uint8_t>(1 + UniformBelow(random, 255));
    }
    const auto loaded = trainer.Load(ProgramOf(bad), bad);
    EXPECT_THAT(loaded.status().code(),
                AnyOf(StatusCode::kOk, StatusCode::kInvalidArgument,
                      StatusCode::kPermissionDenied));
  }
  // And inside the packed records, which the flips above seldom reach whole.
  for (int i = 0; i < 150; ++i) {
    Records changed = records;
    const std::string name =
        i % 3 == 0 ? "data.pkl"
                   : (i % 3 == 1 ? "code/__torch__/selvage.py"
                                 : "code/__torch__/selvage.py.debug_pkl");
    std::string& text = changed.at(name);
    text[UniformBelow(random, text.size())] = static_cast<char>(random.Next());
    const Bytes bad = PackArchive(changed);
    const auto loaded = trainer.Load(ProgramOf(bad), bad);
    EXPECT_THAT(loaded.status().code(),
                AnyOf(StatusCode::kOk, StatusCode::kInvalidArgument,
                      StatusCode::kPermissionDenied));
  }
}

// ---- Python ----

TEST_F(ArchiveTest, ExportTorchScript_PythonOpensItAndAgrees) {
  if (!test::HavePythonTorch()) GTEST_SKIP() << "python3-torch is missing";
  const plan::Program program = FashionProgram();
  const plan::Checkpoint values = plan::InitializeCheckpoint(program.table, 1);
  auto model = TorchTrainer().Load(program, {});
  ASSERT_THAT(model, IsOk());
  ASSERT_THAT((*model)->SetValues(values), IsOk());
  const auto mine = (*model)->Predict(1, Bytes(784, 128));
  ASSERT_THAT(mine, IsOk());

  WriteFile(directory_ / "model.pt", *archive_);
  const test::PythonRun run = test::RunPython(
      {"-c",
       "import sys, torch\n"
       "m = torch.jit.load(sys.argv[1])\n"
       "assert not m.training\n"
       "assert [n for n, p in m.named_parameters() if p.requires_grad] == "
       "['body.weight', 'body.bias', 'head.weight', 'head.bias']\n"
       "x = torch.full((1, 1, 28, 28), 128, dtype=torch.uint8)\n"
       "print(' '.join(repr(v) for v in m(x)[0].tolist()))\n"
       "print(float(m.training_loss(x, torch.tensor([3]))))\n",
       (directory_ / "model.pt").string()});
  ASSERT_EQ(run.exit_code, 0) << run.out;
  std::istringstream lines(run.out);
  for (const float value : mine->values) {
    double theirs = 0;
    ASSERT_TRUE(lines >> theirs) << run.out;
    EXPECT_NEAR(theirs, value, 1e-5);
  }
}

class PythonArchiveTest : public ArchiveTest {
 protected:
  void SetUp() override {
    ArchiveTest::SetUp();
    if (!test::HavePythonTorch()) GTEST_SKIP() << "python3-torch is missing";
  }

  // The archive that a script of `lines` saves to sys.argv[1].
  Bytes FromPython(const std::string& lines) {
    const fs::path path = directory_ / "python.pt";
    WriteFile(directory_ / "make.py",
              AsBytes("import sys, torch\nfrom torch import nn\n" + lines));
    const test::PythonRun run =
        test::RunPython({(directory_ / "make.py").string(), path.string()});
    EXPECT_EQ(run.exit_code, 0) << run.out;
    return ReadFile(path);
  }
};

TEST_F(PythonArchiveTest, Load_ExampleArchive_TrainsWithItsOwnStatistics) {
  const fs::path path = directory_ / "model.pt";
  const test::PythonRun run = test::RunPython(
      {std::string(SELVAGE_SOURCE_DIR) + "/examples/archive/make_archive.py",
       path.string()});
  ASSERT_EQ(run.exit_code, 0) << run.out;
  const Bytes archive = ReadFile(path);

  auto file = plan::ParseProgramFile(
      test::ReadSourceFile("examples/archive/model.yaml"),
      [](const std::string&) -> Result<std::string> { return NotFound("x"); });
  ASSERT_THAT(file, IsOk());
  plan::Program program = std::move(file->program);
  program.archive_digest = crypto::Sha256(archive);
  program.archive_size_bytes = archive.size();

  auto contents = InspectArchive(archive);
  ASSERT_THAT(contents, IsOk());
  auto model = TorchTrainer().Load(program, archive);
  ASSERT_THAT(model, IsOk());
  ASSERT_THAT((*model)->SetValues(contents->values), IsOk());
  const ExampleSet examples = FashionExamples(60, 1);
  LocalTraining options;
  options.epochs = 5;
  options.batch_size = 10;
  options.optimizer.lr = 0.05;
  options.trainable = test::AllTrainable(program);
  const auto report = (*model)->Train(examples, options);
  ASSERT_THAT(report, IsOk());
  EXPECT_LT(report->mean_loss, 2.0);
  const auto after = (*model)->Values();
  ASSERT_THAT(after, IsOk());
  EXPECT_THAT(after->ints, ElementsAre(30));  // num_batches_tracked
  EXPECT_THAT((*model)->Score(examples), IsOk());

  // Twice the same, dropout included.
  auto again = TorchTrainer().Load(program, archive);
  ASSERT_THAT(again, IsOk());
  ASSERT_THAT((*again)->SetValues(contents->values), IsOk());
  ASSERT_THAT((*again)->Train(examples, options), IsOk());
  EXPECT_EQ(*(*again)->Values(), *after);
}

constexpr char kModule[] = R"(
class M(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(784, 4), nn.ReLU(), nn.Linear(4, 10))
        self.setup()
    def setup(self):
        pass
    def forward(self, x):
        return self.body(x.float().flatten(1))
    @torch.jit.export
    def training_loss(self, x, y):
        return nn.functional.cross_entropy(self.forward(x), y)
    @torch.jit.export
    def example_scores(self, x, y):
        z = self.forward(x)
        return torch.stack([(z.argmax(1) == y).float(), z[:, 0]], 1)
)";

TEST_F(PythonArchiveTest, InspectArchive_Sequential_HasNumberedNames) {
  const Bytes archive = FromPython(std::string(kModule) +
                                   "torch.jit.script(M()).save(sys.argv[1])\n");
  auto contents = InspectArchive(archive);
  ASSERT_THAT(contents, IsOk());
  EXPECT_NE(contents->table.Find("body.0.weight"), nullptr);
  EXPECT_NE(contents->table.Find("body.2.bias"), nullptr);
}

TEST_F(PythonArchiveTest, Load_SetStateFromPython_IsRefused) {
  const Bytes archive = FromPython(std::string(kModule) + R"(
from typing import Tuple
class S(M):
    @torch.jit.export
    def __getstate__(self):
        return (self.training,)
    @torch.jit.export
    def __setstate__(self, state: Tuple[bool]):
        self.training = state[0]
torch.jit.script(S()).save(sys.argv[1])
)");
  EXPECT_THAT(InspectArchive(archive),
              StatusIs(StatusCode::kPermissionDenied, HasSubstr("state__")));
}

TEST_F(PythonArchiveTest, Load_ForbiddenInSubmodule_NamesIt) {
  const Bytes archive = FromPython(std::string(kModule) + R"(
class Bad(nn.Module):
    def forward(self, x):
        if x.size(0) > 1:
            for i in range(2):
                print(x)
        return x
class B(M):
    def setup(self):
        self.bad = Bad()
    def forward(self, x):
        return self.body(self.bad(x).float().flatten(1))
torch.jit.script(B()).save(sys.argv[1])
)");
  EXPECT_THAT(InspectArchive(archive), StatusIs(StatusCode::kPermissionDenied,
                                                HasSubstr("prim::Print")));
}

TEST_F(PythonArchiveTest, Load_TensorsOutsideTheTable_AreRefused) {
  EXPECT_THAT(InspectArchive(FromPython(std::string(kModule) + R"(
from typing import List
class L(M):
    hidden: List[torch.Tensor]
    def setup(self):
        self.hidden = [torch.ones(3)]
    def forward(self, x):
        return self.body(x.float().flatten(1)) + self.hidden[0].sum()
torch.jit.script(L()).save(sys.argv[1])
)")),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("hidden")));
  EXPECT_THAT(
      InspectArchive(FromPython(std::string(kModule) + R"(
class T(M):
    def setup(self):
        self.body[2].bias = self.body[2].bias
        self.other = self.body[0]
torch.jit.script(T()).save(sys.argv[1])
)")),
      StatusIs(StatusCode::kInvalidArgument, HasSubstr("shares its memory")));
  EXPECT_THAT(InspectArchive(FromPython(std::string(kModule) +
                                        "torch.jit.script(M().double())"
                                        ".save(sys.argv[1])\n")),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("Double")));
}

TEST_F(PythonArchiveTest, Load_LargeConstant_IsRefused) {
  const Bytes archive = FromPython(R"(
big = torch.ones(1000, 1000)
def f(x):
    return x.float().flatten(1)[:, :10] + big[0, 0]
m = torch.jit.trace(f, torch.ones(2, 784))
torch.jit.save(m, sys.argv[1])
)");
  EXPECT_THAT(InspectArchive(archive),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("1 MiB")));
}

}  // namespace
}  // namespace selvage::client

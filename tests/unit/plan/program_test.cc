#include "plan/program.h"

#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/status_matchers.h"
#include "tests/unit/plan/test_programs.h"

namespace selvage::plan {
namespace {

using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;
using ::testing::HasSubstr;

constexpr std::string_view kGoldenJson =
    R"({"format":1,"inputs":[{"dtype":"f32","name":"x","shape":[3]},)"
    R"({"dtype":"i64","name":"y","shape":[]}],"kind":"source",)"
    R"("metrics":["accuracy","loss"],"source":"def forward(self, x):\n)"
    R"(    return torch.linear(x, self.w, self.b)\n","tensors":[)"
    R"({"dtype":"f32","init":"kaiming_uniform","name":"w","role":"shared",)"
    R"("shape":[2,3]},{"dtype":"f32","init":"zeros","name":"b",)"
    R"("role":"personal","shape":[2]}]})";

Program ArchiveProgram() {
  Program program = test::SourceProgram();
  program.kind = ProgramKind::kArchive;
  program.source.clear();
  program.archive_digest.bytes.fill(0xAB);
  program.archive_size_bytes = 12345;
  return program;
}

Program NativeProgram() {
  Program program = test::SourceProgram();
  program.kind = ProgramKind::kNative;
  program.source.clear();
  program.native_name = "lenet5";
  return program;
}

void ExpectSame(const Program& a, const Program& b) {
  EXPECT_EQ(CanonicalJson(a), CanonicalJson(b));
  EXPECT_EQ(a.kind, b.kind);
  EXPECT_EQ(a.source, b.source);
  EXPECT_EQ(a.archive_digest, b.archive_digest);
  EXPECT_EQ(a.archive_size_bytes, b.archive_size_bytes);
  EXPECT_EQ(a.native_name, b.native_name);
  EXPECT_EQ(a.table, b.table);
  EXPECT_EQ(a.inputs, b.inputs);
  EXPECT_EQ(a.metrics, b.metrics);
}

TEST(Program, CanonicalJson_GoldenBytesAndDigest) {
  const std::string json = CanonicalJson(test::SourceProgram());
  EXPECT_EQ(json, kGoldenJson);
  EXPECT_EQ(crypto::Sha256(AsBytes(json)).ToHex(),
            "a4c1ab86599cbc1eaf6c3758897e2144bfbc5c958e7e26336fa19e1797b71de5");
}

TEST(Program, ParseProgram_EveryKind_RoundTrips) {
  for (const Program& program :
       {test::SourceProgram(), ArchiveProgram(), NativeProgram()}) {
    ASSERT_THAT(program.Validate(), IsOk());
    const auto parsed = ParseProgram(CanonicalJson(program));
    ASSERT_THAT(parsed, IsOk());
    ExpectSame(*parsed, program);
  }
}

TEST(Program, ParseProgram_UnicodeAndEscapesInSource_RoundTrip) {
  Program program = test::SourceProgram();
  program.source =
      "# caf\xc3\xa9 \xf0\x9f\x98\x80 \"\\ \t\r\n\x01\x7f</script>";
  const auto parsed = ParseProgram(CanonicalJson(program));
  ASSERT_THAT(parsed, IsOk());
  EXPECT_EQ(parsed->source, program.source);
}

TEST(Program, ParseProgram_EveryTruncation_Refused) {
  for (size_t size = 0; size < kGoldenJson.size(); ++size) {
    EXPECT_THAT(ParseProgram(kGoldenJson.substr(0, size)),
                StatusIs(StatusCode::kInvalidArgument));
  }
}

std::string With(std::string_view from, std::string_view to) {
  std::string json(kGoldenJson);
  const size_t at = json.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return json.replace(at, from.size(), to);
}

TEST(Program, ParseProgram_Mistakes_AreNamed) {
  const struct {
    std::string json;
    std::string message;
  } cases[] = {
      {"[]", "the program is a list; must be a mapping of keys to values"},
      {"", "malformed JSON"},
      {With("{\"format\"", "{ \"format\""),
       "the program is not canonical JSON: "
       "byte 1"},
      {std::string(kGoldenJson) + "\n", "is not canonical JSON"},
      {With("\"format\":1", "\"format\":2"), "format is 2; must be 1"},
      {With("\"format\":1,", ""), "format is missing"},
      {With("\"format\":1", "\"format\":1.0"),
       "format is 1.0; must be a whole number in 1..1"},
      {With("\"kind\":\"source\"", "\"kind\":\"sauce\""),
       "kind is the text 'sauce'; did you mean source?"},
      {With("\"kind\":\"source\"", "\"kind\":\"native\""),
       "source is not a key here"},
      {With("\"kind\":\"source\"", "\"kind\":\"source\",\"kind\":\"source\""),
       "the key 'kind' is there twice"},
      {With("\"metrics\"", "\"metric\""),
       "metric is not a key here; did you mean metrics?"},
      {With("[\"accuracy\",\"loss\"]", "[]"),
       "metrics has 0 entries; must have 1..16"},
      {With("[\"accuracy\",\"loss\"]", "[\"loss\",\"loss\"]"),
       "metric loss is there twice"},
      {With("[\"accuracy\",\"loss\"]", "[\"Loss\"]"),
       "metrics[0] is 'Loss'; must be 1..64 of a-z, 0-9 and _"},
      {With("[\"accuracy\",\"loss\"]", "[7]"), "metrics[0] is 7; must be text"},
      {With("\"name\":\"y\"", "\"name\":\"x\""), "input x is there twice"},
      {With("\"name\":\"x\"", "\"name\":\"1x\""),
       "inputs[0].name is '1x'; must be an identifier"},
      {With("\"shape\":[3]", "\"shape\":[0]"),
       "inputs[0].shape[0] is 0; must be in 1..67108864"},
      {With("\"shape\":[3]", "\"shape\":[65536,65536]"),
       "input x: more than 67108864 elements in one example"},
      {With("\"shape\":[3]", "\"shape\":[1,1,1,1,1,1,1,1,1]"),
       "inputs[0].shape has 9 entries; must have 0..8"},
      {With("\"shape\":[2,3]", "\"shape\":[2,-3]"),
       "tensors[0].shape[1] is -3; must be in 1..2147483648"},
      {With("\"shape\":[2,3]", "\"shape\":[99999999999999999999]"),
       "tensors[0].shape[0] is"},
      {With("\"role\":\"shared\"", "\"role\":\"buffer_int\""),
       "tensor w: role buffer_int needs dtype i64, not f32"},
      {With("\"name\":\"b\"", "\"name\":\"w\""), "tensor w is there twice"},
      {With("\"name\":\"b\"", "\"name\":\"0\""),
       "tensor 0: a part that is a number cannot be written"},
      {With("\"role\":\"shared\"", "\"rolle\":\"shared\""),
       "tensors[0].rolle is not a key here; did you mean role?"},
      {With("def", "\\u0000"), "source is '?"},
      {With("def", "\xff"), "malformed JSON"},
  };
  for (const auto& c : cases) {
    EXPECT_THAT(ParseProgram(c.json),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr(c.message)))
        << c.json;
  }
}

TEST(Program, Validate_FieldsOfAnotherKind_Refused) {
  Program program = NativeProgram();
  program.source = "x";
  EXPECT_THAT(program.Validate(),
              StatusIs(StatusCode::kInvalidArgument,
                       "source is set in a program of kind native"));
  program = ArchiveProgram();
  program.native_name = "x";
  EXPECT_THAT(program.Validate(),
              StatusIs(StatusCode::kInvalidArgument,
                       "native is set in a program of kind archive"));
  program = test::SourceProgram();
  program.archive_size_bytes = 1;
  EXPECT_THAT(program.Validate(),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("is set in a program of kind source")));
}

TEST(Program, Validate_Bounds_AreNamed) {
  Program program = ArchiveProgram();
  program.archive_size_bytes = kArchiveSizeMax + 1;
  EXPECT_THAT(program.Validate(),
              StatusIs(StatusCode::kInvalidArgument,
                       "archive_size_bytes is 1073741825; must be in "
                       "0..1073741824"));
  program.archive_size_bytes = 0;
  EXPECT_THAT(program.Validate(),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("archive_size_bytes is 0")));
  program = ArchiveProgram();
  program.archive_digest = {};
  EXPECT_THAT(program.Validate(), StatusIs(StatusCode::kInvalidArgument,
                                           "archive_digest is not set"));
  program = test::SourceProgram();
  program.source.assign(kProgramSourceSizeMax + 1, 'x');
  EXPECT_THAT(program.Validate(), StatusIs(StatusCode::kInvalidArgument,
                                           HasSubstr("must be 1..1048576")));
  program.source = "\xc3(";
  EXPECT_THAT(program.Validate(), StatusIs(StatusCode::kInvalidArgument,
                                           HasSubstr("must be UTF-8")));
  program = NativeProgram();
  program.native_name = "LeNet";
  EXPECT_THAT(program.Validate(), StatusIs(StatusCode::kInvalidArgument,
                                           HasSubstr("native is 'LeNet'")));
  program = test::SourceProgram();
  program.table = TensorTable();
  EXPECT_THAT(program.Validate(),
              StatusIs(StatusCode::kInvalidArgument,
                       "tensors has 0 entries; must have 1..4096"));
  program = test::SourceProgram();
  program.inputs.assign(17, program.inputs[0]);
  EXPECT_THAT(program.Validate(),
              StatusIs(StatusCode::kInvalidArgument,
                       "inputs has 17 entries; must have 1..16"));
}

TEST(Program, InputSizeBytes_IsOfOneExample) {
  EXPECT_EQ((InputSpec{"x", DType::kUint8, {1, 28, 28}}).SizeBytes(), 784U);
  EXPECT_EQ((InputSpec{"y", DType::kInt64, {}}).SizeBytes(), 8U);
}

// The program file.

constexpr std::string_view kFile = R"(# model.yaml
source: model.py
tensors:
  - {name: body.weight, shape: [64, 784], dtype: f32, role: shared, init: kaiming_uniform}
  - {name: body.bias,   shape: [64], init: zeros}
  - {name: body.steps,  shape: [], dtype: i64}
  - {name: head.weight, shape: [10, 64], init: kaiming_uniform}
  - {name: head.bias,   shape: [10], role: shared, init: zeros}
roles:
  - {match: "^head\\.", role: personal}
  - {match: "weight$", role: frozen}
inputs: [{name: x, dtype: u8, shape: [1, 28, 28]}, {name: y, dtype: i64, shape: []}]
metrics: [accuracy, loss]
)";

Result<std::string> ReadModelPy(const std::string& path) {
  if (path != "model.py") return NotFound("no such file");
  return std::string("def forward(self, x):\n    return x\n");
}

std::string FileWith(std::string_view from, std::string_view to) {
  std::string yaml(kFile);
  const size_t at = yaml.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return yaml.replace(at, from.size(), to);
}

TEST(ProgramFile, Parse_Example_HasRolesAndSource) {
  const auto file = ParseProgramFile(kFile, ReadModelPy);
  ASSERT_THAT(file, IsOk());
  const Program& program = file->program;
  EXPECT_THAT(program.Validate(), IsOk());
  EXPECT_EQ(program.kind, ProgramKind::kSource);
  EXPECT_THAT(program.source, HasSubstr("def forward"));
  const auto role = [&](std::string_view name) {
    return program.table.Find(name)->spec.role;
  };
  EXPECT_EQ(role("body.weight"), Role::kShared);  // its own, not the rule's
  EXPECT_EQ(role("body.bias"), Role::kShared);    // the default
  EXPECT_EQ(role("body.steps"), Role::kBufferInt);
  EXPECT_EQ(role("head.weight"), Role::kPersonal);  // the first rule
  EXPECT_EQ(role("head.bias"), Role::kShared);
  EXPECT_EQ(program.inputs[0], (InputSpec{"x", DType::kUint8, {1, 28, 28}}));
  EXPECT_THAT(program.metrics, ::testing::ElementsAre("accuracy", "loss"));
}

TEST(ProgramFile, Parse_Archive_LeavesDigestToTheCaller) {
  const auto file = ParseProgramFile(
      FileWith("source: model.py", "archive: out/model.pt"), ReadModelPy);
  ASSERT_THAT(file, IsOk());
  EXPECT_EQ(file->archive_path, "out/model.pt");
  EXPECT_EQ(file->program.kind, ProgramKind::kArchive);
  EXPECT_FALSE(file->program.Validate().ok());
  Program program = file->program;
  program.archive_digest.bytes.fill(1);
  program.archive_size_bytes = 10;
  EXPECT_THAT(program.Validate(), IsOk());
}

TEST(ProgramFile, Parse_Native_HasItsName) {
  const auto file = ParseProgramFile(
      FileWith("source: model.py", "native: lenet5"), ReadModelPy);
  ASSERT_THAT(file, IsOk());
  EXPECT_EQ(file->program.native_name, "lenet5");
  EXPECT_THAT(file->program.Validate(), IsOk());
}

TEST(ProgramFile, Parse_Mistakes_AreNamedWithTheirLine) {
  const struct {
    std::string yaml;
    StatusCode code;
    std::string message;
  } cases[] = {
      {"", StatusCode::kInvalidArgument, "the file is empty"},
      {"- a", StatusCode::kInvalidArgument,
       "line 1: the program file is a list; must be a mapping"},
      {FileWith("source: model.py", "sorce: model.py"),
       StatusCode::kInvalidArgument,
       "line 2: sorce is not a key here; did you mean source?"},
      {FileWith("source: model.py", "source: other.py"), StatusCode::kNotFound,
       "source: other.py: no such file"},
      {FileWith("source: model.py\n", ""), StatusCode::kInvalidArgument,
       "has 0 of source, archive and native; must have one"},
      {FileWith("source: model.py", "source: model.py\nnative: lenet5"),
       StatusCode::kInvalidArgument,
       "has 2 of source, archive and native; must have one"},
      {FileWith("source: model.py", "source: [model.py]"),
       StatusCode::kInvalidArgument, "line 2: source is a list; must be text"},
      {FileWith("role: shared, init: kaiming_uniform", "role: shared"),
       StatusCode::kInvalidArgument, "line 4: tensors[0].init is missing"},
      {FileWith("shape: [64, 784], ", ""), StatusCode::kInvalidArgument,
       "line 4: tensors[0].shape is missing"},
      {FileWith("role: shared", "role: share"), StatusCode::kInvalidArgument,
       "line 4: tensors[0].role is share; did you mean shared?"},
      {FileWith("dtype: f32", "dtype: f16"), StatusCode::kInvalidArgument,
       "line 4: tensors[0].dtype is f16; did you mean f32?"},
      {FileWith("dtype: f32", "dtype: u8"), StatusCode::kInvalidArgument,
       "tensor body.weight: u8 is for inputs only"},
      {FileWith("[64, 784]", "[64, 7x4]"), StatusCode::kInvalidArgument,
       "line 4: tensors[0].shape[1] is 7x4; must be a whole number in "
       "1..2147483648"},
      {FileWith("body.bias", "body.weight"), StatusCode::kInvalidArgument,
       "tensor body.weight is there twice"},
      {FileWith("\"^head\\\\.\"", "\"^tail\""), StatusCode::kInvalidArgument,
       "roles: the pattern '^tail' matches no tensor"},
      {FileWith("\"^head\\\\.\"", "\"(\""), StatusCode::kInvalidArgument,
       "line 10: roles[0].match is '('; must be an ECMAScript"},
      {FileWith("role: personal", "roll: personal"),
       StatusCode::kInvalidArgument,
       "line 10: roles[0].roll is not a key here; did you mean role?"},
      {FileWith("metrics: [accuracy, loss]", "metrics: accuracy"),
       StatusCode::kInvalidArgument,
       "line 13: metrics is accuracy; must be a list"},
      {FileWith("metrics: [accuracy, loss]", ""), StatusCode::kInvalidArgument,
       "metrics is missing"},
  };
  for (const auto& c : cases) {
    EXPECT_THAT(ParseProgramFile(c.yaml, ReadModelPy),
                StatusIs(c.code, HasSubstr(c.message)))
        << c.yaml;
  }
}

TEST(ProgramFile, Parse_SourceThatIsNoText_Refused) {
  const auto reader = [](std::string text) {
    return [text](const std::string&) -> Result<std::string> { return text; };
  };
  EXPECT_THAT(
      ParseProgramFile(kFile, reader("\xff\xfe")),
      StatusIs(StatusCode::kInvalidArgument, "source: model.py must be UTF-8"));
  EXPECT_THAT(ParseProgramFile(kFile, reader(std::string(1, '\0'))),
              StatusIs(StatusCode::kInvalidArgument,
                       "source: model.py must not have a NUL character"));
  EXPECT_THAT(ParseProgramFile(kFile, reader("")),
              StatusIs(StatusCode::kInvalidArgument,
                       "source: model.py must be 1..1048576 bytes"));
  EXPECT_THAT(ParseProgramFile(
                  kFile, reader(std::string(kProgramSourceSizeMax + 1, '#'))),
              StatusIs(StatusCode::kInvalidArgument,
                       "source: model.py must be 1..1048576 bytes"));
}

}  // namespace
}  // namespace selvage::plan

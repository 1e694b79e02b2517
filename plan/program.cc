#include "plan/program.h"

#include <algorithm>
#include <optional>

#include "plan/internal/document.h"
#include "plan/internal/fields.h"
#include "plan/internal/sections.h"
#include "plan/internal/text.h"
#include "plan/tensor_match.h"

namespace selvage::plan {
namespace {

using internal::Choice;
using internal::Fields;
using internal::IntBound;
using internal::Node;
using internal::Quoted;

constexpr int kProgramFormat = 1;
constexpr IntBound kTensorCount{1, kTensorCountMax};
constexpr IntBound kRank{0, kTensorRankMax};
constexpr IntBound kDimension{1, kElementCountMax};
constexpr IntBound kInputCount{1, kInputCountMax};
constexpr IntBound kInputDimension{1, kInputElementCountMax};
constexpr IntBound kMetricCount{1, kMetricCountMax};

// These follow the order of their enums.
const std::vector<Choice>& Kinds() {
  static const std::vector<Choice> kChoices = {
      {"source"}, {"archive"}, {"native"}};
  return kChoices;
}
const std::vector<Choice>& DTypes() {
  static const std::vector<Choice> kChoices = {{"f32"}, {"i64"}, {"u8"}};
  return kChoices;
}
const std::vector<Choice>& Roles() {
  static const std::vector<Choice> kChoices = {
      {"shared"}, {"buffer_float"}, {"buffer_int"}, {"personal"}, {"frozen"}};
  return kChoices;
}
const std::vector<Choice>& Inits() {
  static const std::vector<Choice> kChoices = {
      {"zeros"}, {"ones"}, {"kaiming_uniform"}, {"xavier_uniform"}, {"normal"}};
  return kChoices;
}

template <typename Enum>
void Choose(Fields& f, std::string_view key, const std::vector<Choice>& names,
            Enum& value) {
  int index = static_cast<int>(value);
  f.Choose(key, names, index);
  value = static_cast<Enum>(index);
}

bool IsIdentifier(std::string_view text) {
  constexpr std::string_view kAllowed =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789";
  return !text.empty() && text.size() <= 64 &&
         (text[0] < '0' || text[0] > '9') &&
         text.find_first_not_of(kAllowed) == std::string_view::npos;
}

std::string InputNameProblem(std::string_view text) {
  return IsIdentifier(text) ? "" : "must be an identifier of 1..64 characters";
}

std::string TensorNameProblem(std::string_view text) {
  return text.size() <= kTensorNameSizeMax && internal::IsPrintable(text)
             ? ""
             : "must be dotted identifiers of at most " +
                   std::to_string(kTensorNameSizeMax) + " characters";
}

std::string SourceProblem(std::string_view text) {
  if (text.empty() || text.size() > kProgramSourceSizeMax) {
    return "must be 1.." + std::to_string(kProgramSourceSizeMax) + " bytes";
  }
  if (!internal::IsValidUtf8(text)) return "must be UTF-8";
  if (text.find('\0') != std::string_view::npos) {
    return "must not have a NUL character";
  }
  return "";
}

std::string PatternProblem(std::string_view text) {
  const Status status = CheckPattern(text);
  return status.ok() ? "" : std::string(status.message());
}

void VisitInput(Fields& f, InputSpec& input) {
  f.Require("name");
  f.Require("dtype");
  f.Require("shape");
  f.Text("name", InputNameProblem, input.name);
  Choose(f, "dtype", DTypes(), input.dtype);
  f.IntList("shape", kRank, kInputDimension, input.shape);
}

void VisitTensor(Fields& f, TensorSpec& tensor) {
  f.Require("name");
  f.Require("shape");
  f.Text("name", TensorNameProblem, tensor.name);
  f.IntList("shape", kRank, kDimension, tensor.shape);
  Choose(f, "dtype", DTypes(), tensor.dtype);
  Choose(f, "role", Roles(), tensor.role);
  Choose(f, "init", Inits(), tensor.init);
}

void VisitInputsAndMetrics(Fields& f, Program& p) {
  f.Require("inputs");
  f.Require("metrics");
  f.Items("inputs", kInputCount, p.inputs, VisitInput);
  f.TextList("metrics", kMetricCount, internal::WordProblem, p.metrics);
}

// `tensors` stands in for p.table, which can only be made from all of them.
void VisitProgram(Fields& f, Program& p, std::vector<TensorSpec>& tensors) {
  f.Require("format");
  f.Require("kind");
  f.Require("tensors");
  int64_t format = kProgramFormat;
  f.Integer("format", {kProgramFormat, kProgramFormat}, format);
  Choose(f, "kind", Kinds(), p.kind);
  switch (p.kind) {
    case ProgramKind::kSource:
      f.Require("source");
      f.Text("source", SourceProblem, p.source);
      break;
    case ProgramKind::kArchive: {
      f.Require("archive_digest");
      f.Require("archive_size_bytes");
      std::string digest = p.archive_digest.ToHex();
      f.Text("archive_digest", internal::DigestProblem, digest);
      if (const auto parsed = crypto::Digest::FromHex(digest); parsed.ok()) {
        p.archive_digest = *parsed;
      }
      f.Unsigned("archive_size_bytes", kArchiveSizeMax, p.archive_size_bytes);
      break;
    }
    case ProgramKind::kNative:
      f.Require("native");
      f.Text("native", internal::WordProblem, p.native_name);
      break;
  }
  f.Items("tensors", kTensorCount, tensors, VisitTensor);
  VisitInputsAndMetrics(f, p);
}

std::vector<TensorSpec> SpecsOf(const TensorTable& table) {
  std::vector<TensorSpec> specs;
  for (const TensorTable::Entry& entry : table.entries()) {
    specs.push_back(entry.spec);
  }
  return specs;
}

template <typename T, typename NameOf>
std::optional<std::string> FirstRepeated(const std::vector<T>& items,
                                         NameOf name_of) {
  for (size_t i = 0; i < items.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (name_of(items[i]) == name_of(items[j])) return name_of(items[i]);
    }
  }
  return std::nullopt;
}

// Everything but what belongs to one kind.
Status CheckShapesAndNames(const Program& p) {
  if (const auto twice =
          FirstRepeated(p.inputs, [](const InputSpec& i) { return i.name; })) {
    return InvalidArgument("input " + *twice + " is there twice");
  }
  if (const auto twice =
          FirstRepeated(p.metrics, [](const std::string& m) { return m; })) {
    return InvalidArgument("metric " + *twice + " is there twice");
  }
  for (const InputSpec& input : p.inputs) {
    int64_t count = 1;
    for (const int64_t dimension : input.shape) {
      if (dimension > kInputElementCountMax / count) {
        return InvalidArgument("input " + input.name + ": more than " +
                               std::to_string(kInputElementCountMax) +
                               " elements in one example");
      }
      count *= dimension;
    }
  }
  if (p.kind != ProgramKind::kSource) return OkStatus();
  for (const TensorTable::Entry& entry : p.table.entries()) {
    const std::string dotted = "." + entry.spec.name;
    for (size_t dot = dotted.find('.'); dot != std::string::npos;
         dot = dotted.find('.', dot + 1)) {
      if (dotted[dot + 1] >= '0' && dotted[dot + 1] <= '9') {
        return InvalidArgument("tensor " + entry.spec.name +
                               ": a part that is a number cannot be written "
                               "in TorchScript source");
      }
    }
  }
  return OkStatus();
}

Status CheckKind(const Program& p) {
  const bool source = p.kind == ProgramKind::kSource;
  const bool archive = p.kind == ProgramKind::kArchive;
  const bool native = p.kind == ProgramKind::kNative;
  const std::string kind(ProgramKindName(p.kind));
  if (!source && !p.source.empty()) {
    return InvalidArgument("source is set in a program of kind " + kind);
  }
  if (!native && !p.native_name.empty()) {
    return InvalidArgument("native is set in a program of kind " + kind);
  }
  if (!archive && (!p.archive_digest.empty() || p.archive_size_bytes != 0)) {
    return InvalidArgument(
        "archive_digest or archive_size_bytes is set in a "
        "program of kind " +
        kind);
  }
  if (archive && p.archive_digest.empty()) {
    return InvalidArgument("archive_digest is not set");
  }
  if (archive && p.archive_size_bytes == 0) {
    return InvalidArgument("archive_size_bytes is 0; must be in 1.." +
                           std::to_string(kArchiveSizeMax));
  }
  return OkStatus();
}

struct RoleRule {
  std::string match;
  Role role = Role::kShared;
};

// A tensor as the program file has it; -1: not said.
struct TensorRow {
  TensorSpec spec;
  int role = -1;
  int init = -1;
};

struct FileFields {
  std::string source_path;
  std::string archive_path;
  Program program;
  std::vector<TensorRow> rows;
  std::vector<RoleRule> rules;
};

void VisitRow(Fields& f, TensorRow& row) {
  f.Require("name");
  f.Require("shape");
  f.Text("name", TensorNameProblem, row.spec.name);
  f.IntList("shape", kRank, kDimension, row.spec.shape);
  Choose(f, "dtype", DTypes(), row.spec.dtype);
  f.Choose("role", Roles(), row.role);
  f.Choose("init", Inits(), row.init);
  // All zeros is a fine bias and a weight that never learns: say which.
  if (row.spec.dtype == DType::kFloat32) f.Require("init");
}

void VisitRule(Fields& f, RoleRule& rule) {
  f.Require("match");
  f.Require("role");
  f.Text("match", PatternProblem, rule.match);
  Choose(f, "role", Roles(), rule.role);
}

void VisitFile(Fields& f, FileFields& file) {
  f.Require("tensors");
  f.Text("source", internal::FilePathProblem, file.source_path);
  f.Text("archive", internal::FilePathProblem, file.archive_path);
  f.Text("native", internal::WordProblem, file.program.native_name);
  f.Items("tensors", kTensorCount, file.rows, VisitRow);
  VisitInputsAndMetrics(f, file.program);
  f.Items("roles", {0, static_cast<int64_t>(kPatternCountMax)}, file.rules,
          VisitRule);
}

Result<TensorTable> MakeTable(std::vector<TensorRow> rows,
                              const std::vector<RoleRule>& rules) {
  std::vector<std::string> names;
  for (const TensorRow& row : rows) names.push_back(row.spec.name);
  std::vector<std::string> patterns;
  for (const RoleRule& rule : rules) patterns.push_back(rule.match);
  const Result<std::vector<std::vector<size_t>>> matches =
      MatchNames(names, patterns);
  if (!matches.ok()) return matches.status().WithContext("roles");
  for (size_t r = 0; r < rules.size(); ++r) {
    for (const size_t i : (*matches)[r]) {
      if (rows[i].role < 0) rows[i].role = static_cast<int>(rules[r].role);
    }
  }
  std::vector<TensorSpec> specs;
  for (TensorRow& row : rows) {
    const bool is_int = row.spec.dtype == DType::kInt64;
    row.spec.role = row.role >= 0 ? static_cast<Role>(row.role)
                    : is_int      ? Role::kBufferInt
                                  : Role::kShared;
    row.spec.init = row.init >= 0 ? static_cast<Init>(row.init) : Init::kZeros;
    specs.push_back(std::move(row.spec));
  }
  return TensorTable::Create(std::move(specs));
}

}  // namespace

std::string_view ProgramKindName(ProgramKind kind) {
  return Kinds()[static_cast<size_t>(kind)].name;
}

size_t InputSpec::SizeBytes() const {
  size_t size = SizeOf(dtype);
  for (const int64_t dimension : shape) size *= static_cast<size_t>(dimension);
  return size;
}

Status Program::Validate() const {
  Program copy = *this;
  std::vector<TensorSpec> tensors = SpecsOf(table);
  SELVAGE_RETURN_IF_ERROR(internal::CheckFields(
      [&](Fields& f) { VisitProgram(f, copy, tensors); }));
  SELVAGE_RETURN_IF_ERROR(CheckKind(*this));
  return CheckShapesAndNames(*this);
}

std::string CanonicalJson(const Program& program) {
  Program copy = program;
  std::vector<TensorSpec> tensors = SpecsOf(program.table);
  return internal::WriteFields(
      [&](Fields& f) { VisitProgram(f, copy, tensors); });
}

Result<Program> ParseProgram(std::string_view json) {
  SELVAGE_ASSIGN_OR_RETURN(const Node root,
                           internal::ParseJson(json, kProgramJsonSizeMax));
  Program program;
  std::vector<TensorSpec> tensors;
  SELVAGE_RETURN_IF_ERROR(internal::ReadFields(
      root, "the program",
      [&](Fields& f) { VisitProgram(f, program, tensors); }));
  SELVAGE_ASSIGN_OR_RETURN(program.table,
                           TensorTable::Create(std::move(tensors)));
  SELVAGE_RETURN_IF_ERROR(CheckKind(program));
  SELVAGE_RETURN_IF_ERROR(CheckShapesAndNames(program));
  SELVAGE_RETURN_IF_ERROR(
      internal::RequireCanonical(json, CanonicalJson(program), "the program"));
  return program;
}

Result<ProgramFile> ParseProgramFile(std::string_view yaml,
                                     const ReadText& read) {
  SELVAGE_ASSIGN_OR_RETURN(const Node root,
                           internal::ParseYaml(yaml, kProgramFileSizeMax));
  FileFields file;
  SELVAGE_RETURN_IF_ERROR(internal::ReadFields(
      root, "the program file", [&](Fields& f) { VisitFile(f, file); }));
  Program program = std::move(file.program);
  const int kinds = (file.source_path.empty() ? 0 : 1) +
                    (file.archive_path.empty() ? 0 : 1) +
                    (program.native_name.empty() ? 0 : 1);
  if (kinds != 1) {
    return InvalidArgument("the program file has " + std::to_string(kinds) +
                           " of source, archive and native; must have one");
  }
  SELVAGE_ASSIGN_OR_RETURN(program.table,
                           MakeTable(std::move(file.rows), file.rules));
  program.kind = !file.source_path.empty()    ? ProgramKind::kSource
                 : !file.archive_path.empty() ? ProgramKind::kArchive
                                              : ProgramKind::kNative;
  if (program.kind == ProgramKind::kSource) {
    Result<std::string> text = read(file.source_path);
    if (!text.ok()) {
      return text.status().WithContext("source: " + file.source_path);
    }
    const std::string problem = SourceProblem(*text);
    if (!problem.empty()) {
      return InvalidArgument("source: " + file.source_path + " " + problem);
    }
    program.source = *std::move(text);
  }
  SELVAGE_RETURN_IF_ERROR(CheckShapesAndNames(program));
  return ProgramFile{std::move(program), std::move(file.archive_path)};
}

}  // namespace selvage::plan

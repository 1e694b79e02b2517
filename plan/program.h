// A program: how to compute with a model. Its artefact is one canonical JSON
// document, content-addressed; an archive's code is a second artefact that the
// document names by digest.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"
#include "crypto/digest.h"
#include "plan/tensor_table.h"

namespace selvage::plan {

enum class ProgramKind {
  kSource,   // TorchScript source, compiled on the device
  kArchive,  // a TorchScript archive made by Python
  kNative,   // an architecture that the app registered in C++
};
std::string_view ProgramKindName(ProgramKind kind);

// One argument of training_loss, in order; `shape` without the batch dimension.
struct InputSpec {
  std::string name;  // [A-Za-z_][A-Za-z0-9_]{0,63}
  DType dtype = DType::kFloat32;
  std::vector<int64_t> shape;

  size_t SizeBytes() const;  // of one example
  friend bool operator==(const InputSpec&, const InputSpec&) = default;
};

inline constexpr size_t kProgramSourceSizeMax = 1 << 20;
inline constexpr uint64_t kArchiveSizeMax = uint64_t{1} << 30;
inline constexpr size_t kProgramFileSizeMax = 1 << 20;  // model.yaml
inline constexpr size_t kProgramJsonSizeMax = 8 << 20;
inline constexpr size_t kInputCountMax = 16;
inline constexpr int64_t kInputElementCountMax = 1 << 26;  // of one example
inline constexpr size_t kMetricCountMax = 16;

struct Program {
  ProgramKind kind = ProgramKind::kSource;
  std::string source;               // kSource: the text
  crypto::Digest archive_digest;    // kArchive: SHA-256 of the archive
  uint64_t archive_size_bytes = 0;  // kArchive
  std::string native_name;          // kNative: [a-z0-9_]{1,64}
  TensorTable table;
  std::vector<InputSpec> inputs;  // 1..kInputCountMax
  // Columns of example_scores; 1..kMetricCountMax, each [a-z0-9_]{1,64}.
  std::vector<std::string> metrics;

  // INVALID_ARGUMENT names the field and the bound; also for what belongs to
  // another kind.
  Status Validate() const;
};

// Canonical: sorted keys, no white space, so equal programs have equal digests.
// REQUIRES: program.Validate().ok().
std::string CanonicalJson(const Program& program);
// INVALID_ARGUMENT for anything that CanonicalJson does not write.
Result<Program> ParseProgram(std::string_view json);

// The program file (model.yaml): strict keys {source | archive | native,
// tensors, inputs, metrics, roles}. A tensor says its name, shape and (f32)
// init; dtype is f32 if absent. Its role is its own, or that of the first entry
// of `roles`, a list of {match: PATTERN, role: R} (tensor_match.h), that
// matches its name, or shared (f32) or buffer_int (i64). `read` fetches the
// file that `source:` names, relative to the program file.
//
// INVALID_ARGUMENT, with the line where there is one, for every mistake; errors
// of `read` pass through. Of an archive only the path is known here: the caller
// sets program.archive_digest and archive_size_bytes, then calls Validate().
struct ProgramFile {
  Program program;
  std::string archive_path;  // kArchive: as written in the file
};
using ReadText = std::function<Result<std::string>(const std::string& path)>;
Result<ProgramFile> ParseProgramFile(std::string_view yaml,
                                     const ReadText& read);

}  // namespace selvage::plan

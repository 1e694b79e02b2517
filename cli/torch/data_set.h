// A data set as it lies on disk: examples of a program's inputs.
#pragma once

#include <vector>

#include "base/bytes.h"
#include "base/file_system.h"
#include "base/status.h"
#include "client/core/trainer.h"
#include "crypto/digest.h"
#include "plan/program.h"

namespace selvage::cli {

inline constexpr uint64_t kDataFileSizeMax = uint64_t{1} << 30;

struct DataSet {
  client::ExampleSet examples;
  // SHA-256 over the SHA-256 of each file, in the order given.
  crypto::Digest digest;
};

// One IDX file (client/agent/idx.h) for each input of `program`, in their
// order, or one .safetensors file whose tensors have the inputs' names, types
// (F32, I64, U8) and shapes with the number of examples in front; others in it
// are ignored. INVALID_ARGUMENT names the file and what does not fit.
Result<DataSet> ReadDataSet(FileSystem& files, const std::vector<Path>& paths,
                            const plan::Program& program);

// The same for the bytes of one safetensors file.
Result<client::ExampleSet> ParseSafetensorsData(ByteSpan bytes,
                                                const plan::Program& program);

}  // namespace selvage::cli

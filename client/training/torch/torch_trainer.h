// The reference Trainer: LibTorch 1.13 on the CPU. No LibTorch type appears
// here, so that including it costs nothing.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"
#include "base/time.h"
#include "client/core/trainer.h"
#include "plan/checkpoint.h"
#include "plan/program.h"
#include "plan/tensor_table.h"

namespace selvage::client {

class NativeArchitecture;  // native.h
using NativeFactory = std::function<std::shared_ptr<NativeArchitecture>()>;

struct TorchTrainerOptions {
  // Threads of one operator. Process-wide, like everything about LibTorch's
  // threads: the last TorchTrainer made decides. Bits differ between 1 and 2.
  int threads = 1;
  // Longest that Score() or Predict() may spend on 256 examples.
  Duration score_time_max = std::chrono::seconds(30);
  // native:NAME -> a fresh model.
  std::map<std::string, NativeFactory> native;
};

// What a loaded model promises beyond trainer.h:
// - Until SetValues() every value is zero.
// - Examples are shuffled anew for every epoch by a SeededRandom(seed).
// - SGD and Adam follow PyTorch's formulas (momentum without dampening or
//   Nesterov, weight decay added to the gradient; Kingma and Ba, 2015). Their
//   state lives as long as one Train(), unless LocalTraining asks for it.
// - A program that draws random numbers (dropout) trains with LibTorch's
//   generator seeded and held, so two such models of one process take turns.
//   The generator is left as it was found.
// - Between the operators of a loop a step is stopped at its deadline; one long
//   operator cannot be interrupted.
// - A program that writes to a `shared` or `frozen` tensor which it was not
//   asked to train fails with INTERNAL.
// - LibTorch's words in a Status are its first line; the text of an exception
//   that the program itself raised is left out, as it may hold an example.
class TorchTrainer final : public Trainer {
 public:
  // If LibTorch's BLAS is OpenBLAS, its threads are set too; setting
  // OPENBLAS_NUM_THREADS=1 in the environment also spares creating them.
  explicit TorchTrainer(TorchTrainerOptions options = {});

  std::vector<std::string> engines() const override;
  Result<std::unique_ptr<TrainableModel>> Load(const plan::Program& program,
                                               ByteSpan archive) override;

  // The tensors of a native architecture with the role `shared`,
  // `buffer_float` or `buffer_int` each. NOT_FOUND; INVALID_ARGUMENT if they
  // make no table.
  Result<plan::TensorTable> NativeTable(const std::string& name) const;

 private:
  const TorchTrainerOptions options_;
};

// The program with `values` in it, as a TorchScript archive in evaluation mode
// that torch.jit.load opens; shared and personal f32 tensors are parameters
// that require gradients. `archive` as for Trainer::Load.
// FAILED_PRECONDITION for a native program: it has no TorchScript form.
Result<Bytes> ExportTorchScript(const plan::Program& program,
                                const plan::Checkpoint& values,
                                ByteSpan archive);

struct ArchiveContents {
  // Parameters `shared`, buffers `buffer_float` and `buffer_int`.
  plan::TensorTable table;
  plan::Checkpoint values;
  // The text that its maker put in as the extra file selvage.yaml: inputs,
  // metrics and roles as a program file has them. "" if there is none.
  std::string description;
};
// What a TorchScript archive holds, after the same checks as Load() (but for
// the digest, which nobody has stated yet). INVALID_ARGUMENT names a tensor
// that is neither float32 nor int64, or a name that a table cannot have.
Result<ArchiveContents> InspectArchive(ByteSpan archive);

// The operators that a source or archive program uses, sorted; errors as
// Load(), and FAILED_PRECONDITION for a native program.
Result<std::vector<std::string>> ListOperators(const plan::Program& program,
                                               ByteSpan archive);

struct TorchEngineInfo {
  std::string version;       // "1.13.1"
  std::string blas_library;  // the file that sgemm_ comes from
  bool openblas = false;     // false: the slow reference BLAS, or unknown
  int threads = 0;           // LibTorch's, now
  std::string build;         // LibTorch's own description of its build
};
TorchEngineInfo DescribeTorchEngine();

}  // namespace selvage::client

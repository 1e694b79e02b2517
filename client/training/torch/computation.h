// What a loaded program of any kind is to the training loop. Internal to the
// engine: it shows LibTorch's Tensor.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "base/bytes.h"
#include "base/status.h"
#include "client/training/torch/torch_trainer.h"
#include "plan/program.h"

namespace selvage::client::torch_engine {

struct NamedTensor {
  std::string name;
  at::Tensor tensor;
  bool is_buffer = false;  // not a parameter, or the program writes to it
};

// Its calls throw what LibTorch throws. Thread-compatible.
class Computation {
 public:
  virtual ~Computation() = default;
  // The same tensors every time.
  virtual std::vector<NamedTensor> Tensors() const = 0;
  virtual void SetTraining(bool on) = 0;
  virtual at::Tensor Forward(const at::Tensor& x) = 0;
  virtual at::Tensor TrainingLoss(const std::vector<at::Tensor>& inputs) = 0;
  virtual at::Tensor ExampleScores(const std::vector<at::Tensor>& inputs) = 0;
  virtual bool uses_randomness() const = 0;
};

// A source or archive program, checked; errors as Trainer::Load.
Result<std::unique_ptr<Computation>> LoadTorchScript(
    const plan::Program& program, ByteSpan archive);

std::unique_ptr<Computation> WrapNative(
    std::shared_ptr<NativeArchitecture> architecture);

// The tensors in the table's order. INVALID_ARGUMENT names the first that is
// missing, extra, of another shape or dtype, of a role that does not fit
// (parameters cannot have a buffer's role, nor buffers be `shared`), or shares
// memory with another.
Result<std::vector<NamedTensor>> BindTensors(
    const plan::TensorTable& table, const std::vector<NamedTensor>& tensors);

// Copies between tensors in the table's order and a checkpoint. REQUIRES:
// contiguous float32 and int64 tensors of the table's shapes.
void CopyIn(const plan::TensorTable& table, const plan::Checkpoint& values,
            const std::vector<NamedTensor>& tensors);
void CopyIn(const plan::TensorTable& table, std::span<const float> floats,
            std::span<const int64_t> ints,
            const std::vector<NamedTensor>& tensors);
void CopyOut(const plan::TensorTable& table,
             const std::vector<NamedTensor>& tensors, std::span<float> floats,
             std::span<int64_t> ints);
plan::Checkpoint CopyOut(const plan::TensorTable& table,
                         const std::vector<NamedTensor>& tensors);

// Parameters `shared`, buffers by dtype; see InspectArchive().
Result<plan::TensorTable> TableOf(const std::vector<NamedTensor>& tensors);

}  // namespace selvage::client::torch_engine

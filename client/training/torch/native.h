// How an app brings an architecture of its own, written in C++, which plans
// name as native:NAME. See lenet5.cc for one.
#pragma once

#include <vector>

#include <torch/torch.h>

namespace selvage::client {

// Its named parameters and buffers are the tensor table: register them in the
// constructor, none twice. One object is one model; the engine calls it from
// one thread at a time. Exceptions become the Status of the call.
class NativeArchitecture : public torch::nn::Module {
 public:
  // `x`: [n, ...], the program's first input. One row per example.
  virtual torch::Tensor Forward(const torch::Tensor& x) = 0;
  // `inputs`: all of the program's inputs, in order. A scalar.
  virtual torch::Tensor TrainingLoss(
      const std::vector<torch::Tensor>& inputs) = 0;
  // float32 [n, metrics].
  virtual torch::Tensor ExampleScores(
      const std::vector<torch::Tensor>& inputs) = 0;
  // Whether any of the three draws random numbers (dropout): such models train
  // one at a time, because LibTorch's generator is one per process.
  virtual bool UsesRandomness() const { return true; }
};

}  // namespace selvage::client

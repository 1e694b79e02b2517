#include "client/training/torch/lenet5.h"

#include <memory>
#include <vector>

#include <torch/torch.h>

#include "client/training/torch/native.h"

namespace selvage::client {
namespace {

namespace nn = torch::nn;
using torch::Tensor;

class LeNet5 final : public NativeArchitecture {
 public:
  LeNet5()
      : conv1_(register_module(
            "conv1", nn::Conv2d(nn::Conv2dOptions(1, 6, 5).padding(2)))),
        conv2_(
            register_module("conv2", nn::Conv2d(nn::Conv2dOptions(6, 16, 5)))),
        fc1_(register_module("fc1", nn::Linear(400, 120))),
        fc2_(register_module("fc2", nn::Linear(120, 84))),
        fc3_(register_module("fc3", nn::Linear(84, 10))) {}

  Tensor Forward(const Tensor& x) override {
    Tensor h = x.to(torch::kFloat32) / 255;
    h = torch::max_pool2d(torch::relu(conv1_(h)), 2);
    h = torch::max_pool2d(torch::relu(conv2_(h)), 2);
    h = torch::relu(fc1_(h.flatten(1)));
    return fc3_(torch::relu(fc2_(h)));
  }

  Tensor TrainingLoss(const std::vector<Tensor>& inputs) override {
    return torch::cross_entropy_loss(Forward(inputs[0]), inputs[1]);
  }

  Tensor ExampleScores(const std::vector<Tensor>& inputs) override {
    const Tensor z = Forward(inputs[0]);
    return torch::stack(
        {(z.argmax(1) == inputs[1]).to(torch::kFloat32),
         torch::cross_entropy_loss(z, inputs[1], {}, at::Reduction::None)},
        1);
  }

  bool UsesRandomness() const override { return false; }

 private:
  nn::Conv2d conv1_;
  nn::Conv2d conv2_;
  nn::Linear fc1_;
  nn::Linear fc2_;
  nn::Linear fc3_;
};

}  // namespace

NativeFactory LeNet5Factory() {
  return [] { return std::make_shared<LeNet5>(); };
}

}  // namespace selvage::client

// Small programs and examples for the engine's tests.
#pragma once

#include <string>
#include <vector>

#include "client/core/trainer.h"
#include "plan/checkpoint.h"
#include "plan/program.h"

namespace selvage::test {

// y = w x + b for one number, with squared loss.
inline constexpr char kLinearSource[] = R"(
def forward(self, x):
    return x * self.w + self.b

def training_loss(self, x, y):
    return torch.mse_loss(self.forward(x), y)

def example_scores(self, x, y):
    error = self.forward(x) - y
    return torch.stack([error * error, error.abs()], 1)
)";

// Inputs x and y: one float each; metrics a and b; a scalar w and b, shared.
plan::Program LinearProgram(const std::string& source = kLinearSource);

// Any source over given tensors; inputs and metrics as LinearProgram.
plan::Program LinearProgram(const std::string& source,
                            std::vector<plan::TensorSpec> tensors);

// examples/fashion: 784-64-10 over u8 images and i64 labels.
plan::Program FashionProgram();

client::ExampleSet LinearExamples(const std::vector<float>& x,
                                  const std::vector<float>& y);

// `count` images of which the brightest tenth tells the class; a function of
// the seed.
client::ExampleSet FashionExamples(size_t count, uint64_t seed);

// Every f32 tensor that is no buffer.
std::vector<size_t> AllTrainable(const plan::Program& program);

std::string ReadSourceFile(const std::string& path_in_repository);

}  // namespace selvage::test

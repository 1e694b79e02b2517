// The memory of tensors that training and scoring really take, counted by an
// allocator of our own, against the estimate that a device's budget goes by.
#include <c10/core/CPUAllocator.h>
#include <malloc.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <new>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/core/memory_estimate.h"
#include "client/training/torch/lenet5.h"
#include "client/training/torch/torch_trainer.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/training/programs.h"

namespace selvage::client {
namespace {

using test::IsOk;

// Counts what is alive.
class CountingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t size) const override {
    constexpr size_t kAlignment = 64;
    void* const memory = std::aligned_alloc(
        kAlignment, (size + kAlignment) / kAlignment * kAlignment);
    if (memory == nullptr) throw std::bad_alloc();
    alive += malloc_usable_size(memory);
    peak = std::max(peak, alive);
    return {memory, memory, Free, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return Free; }

  static inline size_t alive = 0;
  static inline size_t peak = 0;

 private:
  static void Free(void* memory) {
    alive -= malloc_usable_size(memory);
    std::free(memory);
  }
};

class MemoryTest : public ::testing::Test {
 protected:
  static constexpr uint8_t kPriority = 100;
  static void SetUpTestSuite() {
    static CountingAllocator counting;
    before_ = c10::GetCPUAllocator();
    c10::SetCPUAllocator(&counting, kPriority);
  }
  static void TearDownTestSuite() { c10::SetCPUAllocator(before_, kPriority); }

 private:
  static inline c10::Allocator* before_ = nullptr;
};

struct Case {
  std::string name;
  plan::Program program;
  std::vector<int> batches;
};

plan::Program Sequence(const std::string& source,
                       std::vector<plan::TensorSpec> tensors,
                       std::vector<int64_t> shape, plan::DType dtype) {
  plan::Program program = test::LinearProgram(source, std::move(tensors));
  program.inputs = {{.name = "x", .dtype = dtype, .shape = std::move(shape)},
                    {.name = "y", .dtype = plan::DType::kInt64, .shape = {}}};
  return program;
}

constexpr char kLstm[] = R"(
def forward(self, x):
    zero = torch.zeros([1, x.size(0), 64])
    out = torch.lstm(x, [zero, zero], [self.wi, self.wh, self.bi, self.bh], True, 1, 0.0, self.training, False, True)
    return torch.linear(out[0][:, -1], self.head, self.bias)

def training_loss(self, x, y):
    return torch.cross_entropy_loss(self.forward(x), y)

def example_scores(self, x, y):
    z = self.forward(x)
    return torch.stack([(z.argmax(1) == y).float(), torch.cross_entropy_loss(z, y, None, 0)], 1)
)";

std::vector<Case> Cases() {
  std::vector<Case> cases;
  cases.push_back({"mlp 784-64-10", test::FashionProgram(), {1, 10, 64, 256}});
  {
    plan::Program wide = test::FashionProgram();
    wide.table = *plan::TensorTable::Create(
        {{.name = "body.weight", .shape = {1024, 784}},
         {.name = "body.bias", .shape = {1024}},
         {.name = "head.weight", .shape = {10, 1024}},
         {.name = "head.bias", .shape = {10}}});
    cases.push_back({"mlp 784-1024-10", wide, {1, 10, 64, 256}});
  }
  {
    plan::Program lenet;
    lenet.kind = plan::ProgramKind::kNative;
    lenet.native_name = "lenet5";
    lenet.table = *TorchTrainer({.native = {{"lenet5", LeNet5Factory()}}})
                       .NativeTable("lenet5");
    lenet.inputs = {
        {.name = "x", .dtype = plan::DType::kUint8, .shape = {1, 28, 28}},
        {.name = "y", .dtype = plan::DType::kInt64, .shape = {}}};
    lenet.metrics = {"accuracy", "loss"};
    cases.push_back({"cnn lenet5", lenet, {1, 10, 64}});
  }
  cases.push_back({"lstm 128 x 9, 64",
                   Sequence(kLstm,
                            {{.name = "wi", .shape = {256, 9}},
                             {.name = "wh", .shape = {256, 64}},
                             {.name = "bi", .shape = {256}},
                             {.name = "bh", .shape = {256}},
                             {.name = "head", .shape = {6, 64}},
                             {.name = "bias", .shape = {6}}},
                            {128, 9}, plan::DType::kFloat32),
                   {1, 10, 64}});
  {
    plan::Program roles =
        Sequence(test::ReadSourceFile("bench/accuracy/shakespeare/model.py"),
                 {{.name = "embed.weight", .shape = {96, 16}},
                  {.name = "conv1.weight", .shape = {128, 16, 5}},
                  {.name = "conv1.bias", .shape = {128}},
                  {.name = "conv2.weight", .shape = {128, 128, 5}},
                  {.name = "conv2.bias", .shape = {128}},
                  {.name = "conv3.weight", .shape = {128, 128, 7}},
                  {.name = "conv3.bias", .shape = {128}},
                  {.name = "head.weight", .shape = {96, 128, 1}},
                  {.name = "head.bias", .shape = {96}}},
                 {80}, plan::DType::kUint8);
    roles.inputs[1] = {
        .name = "y", .dtype = plan::DType::kUint8, .shape = {80}};
    cases.push_back({"conv1d 80 characters", roles, {1, 10, 64}});
  }
  return cases;
}

TEST_F(MemoryTest, Estimate_AgainstWhatIsCounted) {
  for (const Case& c : Cases()) {
    TorchTrainer trainer({.native = {{"lenet5", LeNet5Factory()}}});
    auto model = trainer.Load(c.program, {});
    ASSERT_THAT(model, IsOk()) << c.name;
    ASSERT_THAT(
        (*model)->SetValues(plan::InitializeCheckpoint(c.program.table, 1)),
        IsOk());
    for (const int batch : c.batches) {
      const auto count = static_cast<size_t>(batch);
      ExampleSet examples{.count = 2 * count, .inputs = {}};
      for (const plan::InputSpec& input : c.program.inputs) {
        examples.inputs.emplace_back(2 * count * input.SizeBytes());
      }
      LocalTraining options;
      options.batch_size = batch;
      options.optimizer.lr = 1e-3;
      options.trainable = test::AllTrainable(c.program);
      options.optimizer.name = plan::OptimizerName::kAdam;
      options.proximal_mu = 0.1;
      const TrainingSize size{.examples = examples.count,
                              .holdout = examples.count,
                              .batch_size = batch,
                              .optimizer = plan::OptimizerName::kAdam,
                              .proximal = true};
      const size_t before = CountingAllocator::alive;
      CountingAllocator::peak = before;
      ASSERT_THAT((*model)->Train(examples, options), IsOk()) << c.name;
      const auto step = static_cast<double>(CountingAllocator::peak - before);
      CountingAllocator::peak = CountingAllocator::alive;
      ASSERT_THAT((*model)->Score(examples), IsOk()) << c.name;
      const auto score = static_cast<double>(CountingAllocator::peak - before);
      const auto step_estimate =
          static_cast<double>(EstimateStepMemory(c.program, size));
      const auto score_estimate =
          static_cast<double>(EstimateScoreMemory(c.program, size));
      std::cout << c.name << ", batch " << batch << ": step " << step << " ("
                << step_estimate / step << "), scoring " << score << " ("
                << score_estimate / score << ")\n";
      EXPECT_GE(step_estimate, step);
      EXPECT_LE(step_estimate, 11 * step);
      EXPECT_GE(score_estimate, score);
    }
  }
}

}  // namespace
}  // namespace selvage::client

// B8: a federated training session over the same loop written by hand in
// LibTorch: the CNN of McMahan et al. (2017), 1,663,370 parameters, 600 images,
// batches of 10, one epoch, one thread. A session loads the program from
// source, sets the values, trains and reads the values back; the loop makes a
// torch::nn module, copies the same values in, trains with torch::optim::SGD
// and reads them back.
//
// Time: interleaved, medians. Memory: the peak of a process that does one of
// the two and nothing else (this program, started again with --only=).
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include <torch/torch.h>

#include "base/check.h"
#include "base/random.h"
#include "bench/report.h"
#include "client/training/torch/torch_trainer.h"
#include "plan/checkpoint.h"
#include "plan/program.h"

namespace selvage::bench {
namespace {

namespace nn = torch::nn;

constexpr int kImages = 600;
constexpr int kBatch = 10;
constexpr double kLearningRate = 0.05;
constexpr int kRepetitions = 11;

constexpr char kSource[] = R"(
def forward(self, x):
    h = x.float() / 255
    h = torch.max_pool2d(torch.relu(torch.conv2d(h, self.conv1.weight, self.conv1.bias, padding=[2, 2])), [2, 2])
    h = torch.max_pool2d(torch.relu(torch.conv2d(h, self.conv2.weight, self.conv2.bias, padding=[2, 2])), [2, 2])
    h = torch.relu(torch.linear(h.flatten(1), self.fc1.weight, self.fc1.bias))
    return torch.linear(h, self.fc2.weight, self.fc2.bias)

def training_loss(self, x, y):
    return torch.cross_entropy_loss(self.forward(x), y)

def example_scores(self, x, y):
    z = self.forward(x)
    return torch.stack([(z.argmax(1) == y).float(), torch.cross_entropy_loss(z, y, None, 0)], 1)
)";

plan::Program CnnProgram() {
  const auto tensor = [](const char* name, std::vector<int64_t> shape) {
    plan::TensorSpec spec;
    spec.name = name;
    spec.shape = std::move(shape);
    spec.init = plan::Init::kKaimingUniform;
    return spec;
  };
  plan::Program program;
  program.source = kSource;
  auto table = plan::TensorTable::Create(
      {tensor("conv1.weight", {32, 1, 5, 5}), tensor("conv1.bias", {32}),
       tensor("conv2.weight", {64, 32, 5, 5}), tensor("conv2.bias", {64}),
       tensor("fc1.weight", {512, 3136}), tensor("fc1.bias", {512}),
       tensor("fc2.weight", {10, 512}), tensor("fc2.bias", {10})});
  SELVAGE_CHECK(table.ok());
  program.table = *std::move(table);
  SELVAGE_CHECK(program.table.float_count() == 1'663'370);
  program.inputs = {
      {.name = "x", .dtype = plan::DType::kUint8, .shape = {1, 28, 28}},
      {.name = "y", .dtype = plan::DType::kInt64, .shape = {}}};
  program.metrics = {"accuracy", "loss"};
  return program;
}

client::ExampleSet Images() {
  SeededRandom random(1);
  client::ExampleSet out{.count = kImages, .inputs = std::vector<Bytes>(2)};
  out.inputs[0].resize(kImages * 784);
  random.Fill(out.inputs[0]);
  for (int i = 0; i < kImages; ++i) {
    AppendLe(out.inputs[1], static_cast<int64_t>(UniformBelow(random, 10)));
  }
  return out;
}

// What both start from.
struct Work {
  plan::Program program = CnnProgram();
  plan::Checkpoint initial = plan::InitializeCheckpoint(program.table, 1);
  client::ExampleSet images = Images();
};

plan::Checkpoint Session(client::TorchTrainer& trainer, const Work& work) {
  auto model = trainer.Load(work.program, {});
  SELVAGE_CHECK(model.ok());
  SELVAGE_CHECK((*model)->SetValues(work.initial).ok());
  client::LocalTraining options;
  options.batch_size = kBatch;
  options.optimizer.lr = kLearningRate;
  options.seed = 1;
  for (size_t i = 0; i < work.program.table.entries().size(); ++i) {
    options.trainable.push_back(i);
  }
  options.keep_going = [] { return true; };
  SELVAGE_CHECK((*model)->Train(work.images, options).ok());
  auto values = (*model)->Values();
  SELVAGE_CHECK(values.ok());
  return *std::move(values);
}

struct CnnImpl : nn::Module {
  CnnImpl()
      : conv1(register_module(
            "conv1", nn::Conv2d(nn::Conv2dOptions(1, 32, 5).padding(2)))),
        conv2(register_module(
            "conv2", nn::Conv2d(nn::Conv2dOptions(32, 64, 5).padding(2)))),
        fc1(register_module("fc1", nn::Linear(3136, 512))),
        fc2(register_module("fc2", nn::Linear(512, 10))) {}

  torch::Tensor forward(const torch::Tensor& x) {
    torch::Tensor h = x.to(torch::kFloat32) / 255;
    h = torch::max_pool2d(torch::relu(conv1(h)), 2);
    h = torch::max_pool2d(torch::relu(conv2(h)), 2);
    return fc2(torch::relu(fc1(h.flatten(1))));
  }

  nn::Conv2d conv1;
  nn::Conv2d conv2;
  nn::Linear fc1;
  nn::Linear fc2;
};
TORCH_MODULE(Cnn);

plan::Checkpoint HandWritten(const Work& work) {
  Cnn model;
  const std::vector<torch::Tensor> parameters = model->parameters();
  {
    const torch::NoGradGuard no_grad;
    size_t at = 0;
    for (const torch::Tensor& parameter : parameters) {
      const auto count = static_cast<size_t>(parameter.numel());
      std::copy_n(work.initial.floats.begin() + static_cast<ptrdiff_t>(at),
                  count, parameter.data_ptr<float>());
      at += count;
    }
  }
  Bytes pixels = work.images.inputs[0];
  Bytes labels = work.images.inputs[1];
  const torch::Tensor x =
      torch::from_blob(pixels.data(), {kImages, 1, 28, 28}, torch::kUInt8);
  const torch::Tensor y =
      torch::from_blob(labels.data(), {kImages}, torch::kInt64);
  torch::optim::SGD optimizer(parameters, kLearningRate);
  const torch::Tensor order = torch::randperm(kImages);
  double loss_sum = 0;
  for (int at = 0; at < kImages; at += kBatch) {
    const torch::Tensor rows = order.narrow(0, at, kBatch);
    optimizer.zero_grad();
    const torch::Tensor loss = torch::cross_entropy_loss(
        model->forward(x.index_select(0, rows)), y.index_select(0, rows));
    loss_sum += loss.item<double>();
    loss.backward();
    optimizer.step();
  }
  SELVAGE_CHECK(loss_sum > 0);
  plan::Checkpoint out;
  for (const torch::Tensor& parameter : parameters) {
    const float* const values = parameter.data_ptr<float>();
    out.floats.insert(out.floats.end(), values, values + parameter.numel());
  }
  return out;
}

double PeakMiB() {
  rusage usage{};
  SELVAGE_CHECK(getrusage(RUSAGE_SELF, &usage) == 0);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

// The peak of this program when it runs `which` alone.
double PeakOf(const std::string& which) {
  const std::string self =
      std::filesystem::read_symlink("/proc/self/exe").string();
  FILE* const pipe = popen(("'" + self + "' --only=" + which).c_str(), "r");
  SELVAGE_CHECK(pipe != nullptr);
  double peak = 0;
  SELVAGE_CHECK(fscanf(pipe, "%lf", &peak) == 1);
  SELVAGE_CHECK(pclose(pipe) == 0);
  return peak;
}

Status Run(Report& report) {
  report.PrintMachine();
  client::TorchTrainer trainer({.threads = 1, .native = {}});
  std::printf("BLAS: %s\n", client::DescribeTorchEngine().blas_library.c_str());
  const Work work;
  std::vector<double> session;
  std::vector<double> by_hand;
  for (int i = -1; i < kRepetitions; ++i) {  // the first pair only warms up
    const double begin = WallSeconds();
    Session(trainer, work);
    const double middle = WallSeconds();
    HandWritten(work);
    const double end = WallSeconds();
    if (i < 0) continue;
    session.push_back(middle - begin);
    by_hand.push_back(end - middle);
  }
  SELVAGE_RETURN_IF_ERROR(report.Add({.id = "B8",
                                      .case_name = "session time",
                                      .value = Median(session),
                                      .unit = "s",
                                      .reference = "hand-written LibTorch loop",
                                      .reference_value = Median(by_hand)}));
  std::vector<double> session_peak;
  std::vector<double> by_hand_peak;
  for (int i = 0; i < 3; ++i) {
    session_peak.push_back(PeakOf("session"));
    by_hand_peak.push_back(PeakOf("hand"));
  }
  return report.Add({.id = "B8",
                     .case_name = "session memory",
                     .value = Median(session_peak),
                     .unit = "MiB",
                     .reference = "hand-written LibTorch loop",
                     .reference_value = Median(by_hand_peak)},
                    "peak of the whole process");
}

int Main(int argc, char** argv) {
  std::vector<std::string> rest;
  auto report = Report::FromArgs(argc, argv, &rest);
  SELVAGE_CHECK(report.ok());
  if (rest == std::vector<std::string>{"--only=session"} ||
      rest == std::vector<std::string>{"--only=hand"}) {
    client::TorchTrainer trainer({.threads = 1, .native = {}});
    const Work work;
    if (rest[0] == "--only=hand") {
      HandWritten(work);
    } else {
      Session(trainer, work);
    }
    std::printf("%.3f\n", PeakMiB());
    return 0;
  }
  if (!rest.empty()) {
    std::fprintf(stderr, "unknown argument %s; there is --out=FILE\n",
                 rest[0].c_str());
    return 2;
  }
  const Status status = Run(*report);
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace selvage::bench

int main(int argc, char** argv) { return selvage::bench::Main(argc, argv); }

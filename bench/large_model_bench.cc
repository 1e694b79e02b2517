// B12: a model of 600 MB through a round of two devices: the private memory of
// the coordinator beside half the model and 256 MiB, that of a device beside
// the same training loop written by hand in LibTorch and a quarter of the
// model.
//
// Nine square layers without biases, all of them trained by everybody: there is
// no frozen part that could stay on disk. The coordinator is the shipped one, a
// device an app on selvage.hpp in a process of its own, over mutual TLS; each
// trains two steps of plain SGD, sends its update and installs the round's
// model. Private memory is the anonymous memory that a process holds (RssAnon),
// looked at every five milliseconds from outside, the highest of the whole run:
// from the start of the process to its end, making the task included.
//
// --mb=N: another size. --codec=NAME: of the updates. --check: fail unless both
// are within their bounds; 77, and why, on a machine that has no room for the
// run. --device-mib=N: what a device may take besides, for sizes where what
// does not grow with the model counts: what it takes more than the bare loop
// for gRPC, OpenSSL, SQLite, the compiled program and pieces of 4 MiB on their
// way.
#include <sys/types.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <torch/torch.h>

#include "base/check.h"
#include "base/mutex.h"
#include "base/random.h"
#include "bench/coordinator_process.h"
#include "bench/process.h"
#include "bench/report.h"
#include "client/capi/selvage.hpp"
#include "tests/testing/scratch_folder.h"

namespace selvage::bench {
namespace {

namespace fs = std::filesystem;

constexpr int kLayers = 9;
constexpr int kExamples = 16;
constexpr int kBatch = 8;
constexpr double kLearningRate = 0.01;
constexpr double kMiB = 1024.0 * 1024.0;
constexpr int kSkipped = 77;  // exit code

int64_t WidthOf(double megabytes) {
  return static_cast<int64_t>(
      std::sqrt(megabytes * 1e6 / sizeof(float) / kLayers));
}
double ModelMiB(int64_t width) {
  return static_cast<double>(width * width * kLayers) * sizeof(float) / kMiB;
}

struct Examples {
  explicit Examples(int64_t wide)
      : width(wide), x(static_cast<size_t>(wide) * kExamples), y(kExamples) {
    SeededRandom random(1);
    for (float& value : x) value = static_cast<float>(UniformUnit(random));
    for (float& value : y) value = static_cast<float>(UniformUnit(random));
  }
  int64_t width;
  std::vector<float> x;
  std::vector<float> y;
};

// ---- By hand ---------------------------------------------------------------

void HandWritten(Examples& examples) {
  const int64_t width = examples.width;
  std::vector<torch::Tensor> weights;
  for (int layer = 0; layer < kLayers; ++layer) {
    torch::Tensor weight = torch::empty({width, width});
    const double bound = 1 / std::sqrt(static_cast<double>(width));
    weight.uniform_(-bound, bound);
    weights.push_back(weight.set_requires_grad(true));
  }
  torch::optim::SGD optimizer(weights, kLearningRate);
  const torch::Tensor x =
      torch::from_blob(examples.x.data(), {kExamples, width});
  const torch::Tensor y = torch::from_blob(examples.y.data(), {kExamples});
  for (int at = 0; at < kExamples; at += kBatch) {
    optimizer.zero_grad();
    torch::Tensor h = x.narrow(0, at, kBatch);
    for (const torch::Tensor& weight : weights) {
      h = torch::tanh(torch::linear(h, weight));
    }
    const torch::Tensor loss =
        torch::mse_loss(h.mean(1), y.narrow(0, at, kBatch));
    SELVAGE_CHECK(std::isfinite(loss.item<double>()));
    loss.backward();
    optimizer.step();
  }
}

// ---- As an app -------------------------------------------------------------

void WriteProgram(const fs::path& folder, int64_t width,
                  const std::string& codec) {
  const std::string w = std::to_string(width);
  std::ofstream code(folder / "model.py");
  code << "def forward(self, x):\n    h = x\n";
  for (int layer = 0; layer < kLayers; ++layer) {
    code << "    h = torch.tanh(torch.linear(h, self.l" << layer
         << ".weight))\n";
  }
  code << "    return h.mean(1)\n\n"
          "def training_loss(self, x, y):\n"
          "    return torch.mse_loss(self.forward(x), y)\n\n"
          "def example_scores(self, x, y):\n"
          "    error = self.forward(x) - y\n"
          "    return torch.stack([error * error], 1)\n";
  std::ofstream model(folder / "model.yaml");
  model << "source: model.py\ntensors:\n";
  for (int layer = 0; layer < kLayers; ++layer) {
    model << "  - {name: l" << layer << ".weight, shape: [" << w << ", " << w
          << "], dtype: f32, role: shared, init: kaiming_uniform}\n";
  }
  model << "inputs:\n  - {name: x, dtype: f32, shape: [" << w
        << "]}\n  - {name: y, dtype: f32, shape: []}\n"
           "metrics: [squared_error]\n";
  std::ofstream task(folder / "task.yaml");
  task << "name: large\npopulation: bench\nprogram: model.yaml\n"
          "train: {local_epochs: 1, batch_size: "
       << kBatch << ", optimizer: {name: sgd, lr: " << kLearningRate
       << "}}\n"
          "strategy: {name: fedavg, num_rounds: 1, cohort: 2, "
          "over_selection: 1.0}\nupdate: {codec: "
       << codec
       << "}\n"
          "evaluate: {key_metric: squared_error, mode: min}\n"
          "data: {collection: numbers, holdout: 0}\n";
}

void Device(const fs::path& home, const fs::path& bundle, int64_t width) {
  host::Options options;
  options.state_dir = (home / "state").string();
  options.cache_dir = (home / "cache").string();
  options.population = "bench";
  std::ifstream in(bundle);
  options.enrolment_bundle = {std::istreambuf_iterator<char>(in), {}};
  host::Client client(options);
  {
    Examples examples(width);
    std::vector<host::Example> rows;
    for (size_t i = 0; i < kExamples; ++i) {
      rows.push_back(host::Example(
          {host::Tensor::Raw(examples.x.data() + i * static_cast<size_t>(width),
                             static_cast<uint64_t>(width) * sizeof(float)),
           host::Tensor::Raw(examples.y.data() + i, sizeof(float))}));
    }
    client.AddExamples("numbers", rows);
  }
  std::int64_t next_run_us = 0;
  for (;;) {
    std::this_thread::sleep_until(
        host::SystemTime(std::chrono::microseconds(next_run_us)));
    const host::RunResult result = client.RunOnce();
    if (result.outcome == SELVAGE_CONTRIBUTED) return;
    if (result.outcome == SELVAGE_FAILED) {
      std::fprintf(stderr, "%s: %s\n", selvage_outcome_name(result.outcome),
                   result.reason.c_str());
    }
    next_run_us = result.next_run_us;
  }
}

// ---- Processes -------------------------------------------------------------

// The anonymous memory of a process now; 0 if it is gone.
double AnonymousMiB(pid_t pid) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(status, line);) {
    constexpr std::string_view kField = "RssAnon:";
    if (line.starts_with(kField)) {
      return std::stod(line.substr(kField.size())) / 1024;
    }
  }
  return 0;
}

// The peaks of other processes, from when they are named.
class Watcher {
 public:
  Watcher() : thread_([this] { Run(); }) {}
  ~Watcher() {
    over_ = true;
    thread_.join();
  }
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;

  void Watch(pid_t pid) {
    MutexLock lock(mu_);
    peaks_[pid] = 0;
  }
  double PeakOf(pid_t pid) {
    MutexLock lock(mu_);
    return peaks_.at(pid);
  }

 private:
  void Run() {
    while (!over_) {
      {
        MutexLock lock(mu_);
        for (auto& [pid, peak] : peaks_) {
          peak = std::max(peak, AnonymousMiB(pid));
        }
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }

  std::atomic<bool> over_{false};
  Mutex mu_;
  std::map<pid_t, double> peaks_ SELVAGE_GUARDED_BY(mu_);
  std::thread thread_;
};

// Why this machine cannot hold the run: three trainings and a coordinator in
// memory, models, updates and uploads on disk. Empty if it can.
std::string WhyNoRoom(double megabytes, const fs::path& folder) {
  constexpr double kModelsInMemory = 10;
  constexpr double kModelsOnDisk = 20;
  double available = 0;  // MB
  std::ifstream meminfo("/proc/meminfo");
  for (std::string line; std::getline(meminfo, line);) {
    constexpr std::string_view kField = "MemAvailable:";
    if (line.starts_with(kField)) {
      available = std::stod(line.substr(kField.size())) * 1024 / 1e6;
    }
  }
  const double free = static_cast<double>(fs::space(folder).available) / 1e6;
  const auto lacks = [](const char* what, double have, double need) {
    return "the run needs " + std::to_string(std::lround(need)) + " MB of " +
           what + ", there are " + std::to_string(std::lround(have));
  };
  if (available < kModelsInMemory * megabytes) {
    return lacks("memory", available, kModelsInMemory * megabytes);
  }
  if (free < kModelsOnDisk * megabytes) {
    return lacks("disk", free, kModelsOnDisk * megabytes);
  }
  return "";
}

// ---- The bench -------------------------------------------------------------

struct Arguments {
  double megabytes = 600;
  std::string codec = "float16";
  bool check = false;
  double device_mib = 0;  // beside the bound
};

Status Run(Report& report, const Arguments& arguments) {
  report.PrintMachine();
  const test::ScratchFolder scratch;
  const int64_t width = WidthOf(arguments.megabytes);
  const double model = ModelMiB(width);
  const std::string self = fs::read_symlink("/proc/self/exe").string();
  const std::string only = "--only=" + std::to_string(width);
  WriteProgram(scratch.path(), width, arguments.codec);
  Watcher watcher;

  const pid_t loop = StartProcess({self, only});
  watcher.Watch(loop);
  SELVAGE_CHECK(WaitForProcess(loop));

  const double begin = WallSeconds();
  CoordinatorProcess coordinator(scratch.path(), "100ms", "200ms");
  watcher.Watch(coordinator.pid());
  coordinator.CreateTask(scratch.path() / "task.yaml");
  const double made = WallSeconds();
  std::vector<pid_t> devices;
  for (const char* name : {"a", "b"}) {
    devices.push_back(
        StartProcess({self, only, (scratch.path() / name).string(),
                      coordinator.bundle_file().string()}));
    watcher.Watch(devices.back());
  }
  for (const pid_t device : devices) SELVAGE_CHECK(WaitForProcess(device));
  coordinator.Do({"watch", "large", "--timeout", "30m"});
  const double end = WallSeconds();

  double device_peak = 0;
  for (const pid_t device : devices) {
    device_peak = std::max(device_peak, watcher.PeakOf(device));
  }
  const std::string size =
      std::to_string(static_cast<int>(std::lround(arguments.megabytes))) +
      " MB model, " +
      (arguments.codec == "float16" ? "" : arguments.codec + " updates, ");
  char note[160];
  std::snprintf(note, sizeof note,
                "model %.0f MiB; task made in %.1f s, round %.1f s", model,
                made - begin, end - made);
  const Row rows[] = {{.id = "B12",
                       .case_name = size + "coordinator",
                       .value = watcher.PeakOf(coordinator.pid()),
                       .unit = "MiB",
                       .reference = "0.5 x model + 256 MiB",
                       .reference_value = 0.5 * model + 256},
                      {.id = "B12",
                       .case_name = size + "device",
                       .value = device_peak,
                       .unit = "MiB",
                       .reference = "hand-written loop + 0.25 x model",
                       .reference_value = watcher.PeakOf(loop) + 0.25 * model +
                                          arguments.device_mib},
                      {.id = "B12",
                       .case_name = size + "device beside the loop",
                       .value = device_peak,
                       .unit = "MiB",
                       .reference = "hand-written loop",
                       .reference_value = watcher.PeakOf(loop)}};
  for (const Row& row : rows) {
    SELVAGE_RETURN_IF_ERROR(report.Add(row, note));
  }
  for (const Row& row : std::span(rows).first(2)) {
    if (arguments.check && row.ratio() > 1) {
      return OutOfRange(row.case_name + " takes " + std::to_string(row.value) +
                        " MiB, more than " +
                        std::to_string(row.reference_value));
    }
  }
  return OkStatus();
}

int Main(int argc, char** argv) {
  std::vector<std::string> rest;
  auto report = Report::FromArgs(argc, argv, &rest);
  SELVAGE_CHECK(report.ok());
  constexpr std::string_view kOnly = "--only=";
  constexpr std::string_view kSize = "--mb=";
  constexpr std::string_view kCodec = "--codec=";
  constexpr std::string_view kDevice = "--device-mib=";
  if (!rest.empty() && rest[0].starts_with(kOnly)) {
    const int64_t width = std::stoll(rest[0].substr(kOnly.size()));
    if (rest.size() == 3) {
      Device(rest[1], rest[2], width);
    } else {
      Examples examples(width);
      HandWritten(examples);
    }
    return 0;
  }
  Arguments arguments;
  for (const std::string& word : rest) {
    if (word.starts_with(kSize)) {
      arguments.megabytes = std::stod(word.substr(kSize.size()));
    } else if (word.starts_with(kCodec)) {
      arguments.codec = word.substr(kCodec.size());
    } else if (word.starts_with(kDevice)) {
      arguments.device_mib = std::stod(word.substr(kDevice.size()));
    } else if (word == "--check") {
      arguments.check = true;
    } else {
      std::fprintf(stderr,
                   "unknown argument %s; there are --mb=N, --codec=NAME, "
                   "--device-mib=N, --check and --out=FILE\n",
                   word.c_str());
      return 2;
    }
  }
  if (arguments.check) {
    const std::string reason =
        WhyNoRoom(arguments.megabytes, fs::temp_directory_path());
    if (!reason.empty()) {
      std::fprintf(stderr, "skipped: %s\n", reason.c_str());
      return kSkipped;
    }
  }
  const Status status = Run(*report, arguments);
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace selvage::bench

int main(int argc, char** argv) { return selvage::bench::Main(argc, argv); }

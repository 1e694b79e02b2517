// B8: a federated training session of an app, over the same loop written by
// hand in LibTorch: the CNN of McMahan et al. (2017), 1,663,370 parameters, 600
// images, batches of 10, one epoch, one thread.
//
// The app sees selvage.hpp alone. Its session is selvage_run_once() with the
// shipped coordinator on this machine over mutual TLS: check in, fetch the
// checkpoint, open the sealed examples, load the program from source, train in
// libselvage-torch.so, encode the update, write it to the outbox, send it. The
// loop makes a torch::nn module and trains with torch::optim::SGD. `local` is
// the part of a session that does what the loop does: from the fetched
// checkpoint to the update in the outbox; `session` is everything, the network
// included.
//
// Stopping: sessions that are cancelled, or become too hot, at a random moment
// of their training, from that moment to the return of the call, which by then
// has written a checkpoint; beside a training step.
//
// Time: interleaved, medians. Memory: the peak of a process that does one of
// the two and nothing else (this program, started again with --only=).
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <torch/torch.h>

#include "base/check.h"
#include "base/random.h"
#include "bench/coordinator_process.h"
#include "bench/report.h"
#include "client/capi/selvage.hpp"
#include "tests/testing/scratch_folder.h"

namespace selvage::bench {
namespace {

namespace fs = std::filesystem;
namespace nn = torch::nn;

constexpr int kImages = 600;
constexpr int kBatch = 10;
constexpr double kLearningRate = 0.05;
constexpr int kRepetitions = 11;
constexpr int kStops = 60;  // of each kind

struct Images {
  std::vector<uint8_t> pixels = std::vector<uint8_t>(kImages * 784);
  std::vector<int64_t> labels;

  Images() {
    SeededRandom random(1);
    random.Fill(pixels);
    for (int i = 0; i < kImages; ++i) {
      labels.push_back(static_cast<int64_t>(UniformBelow(random, 10)));
    }
  }
};

// ---- By hand ---------------------------------------------------------------

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

// The trained values.
std::vector<float> HandWritten(Images& images) {
  Cnn model;
  const std::vector<torch::Tensor> parameters = model->parameters();
  const torch::Tensor x = torch::from_blob(images.pixels.data(),
                                           {kImages, 1, 28, 28}, torch::kUInt8);
  const torch::Tensor y =
      torch::from_blob(images.labels.data(), {kImages}, torch::kInt64);
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
  std::vector<float> out;
  for (const torch::Tensor& parameter : parameters) {
    const float* const values = parameter.data_ptr<float>();
    out.insert(out.end(), values, values + parameter.numel());
  }
  return out;
}

// ---- As an app -------------------------------------------------------------

struct Session {
  double seconds = 0;  // all of selvage_run_once
  double local = 0;    // from what was fetched to what is sent
};

// Seconds since the host wanted it to stop.
struct Stopped {
  double last_step = 0;  // begun, plus one step
  double call = 0;       // returned
};

class App {
 public:
  App(const fs::path& home, const fs::path& bundle, const Images& images)
      : client_(OptionsFor(home, bundle)) {
    std::vector<host::Example> examples;
    for (int i = 0; i < kImages; ++i) {
      const auto at = static_cast<size_t>(i);
      examples.push_back(host::Example(
          {host::Tensor::Raw(images.pixels.data() + at * 784, 784),
           host::Tensor::Raw(images.labels.data() + at, sizeof(int64_t))}));
    }
    client_.AddExamples("images", examples);
  }

  // The next session that contributes. An interrupted one goes on.
  Session Contribute() {
    for (;;) {
      WaitForTurn();
      const std::optional<Session> session = Run(nullptr);
      if (session.has_value()) return *session;
    }
  }

  // Stops a session at a moment `at` (0..1) of its training; nullopt if it was
  // over before.
  std::optional<Stopped> Stop(double at, bool by_condition) {
    for (;;) {
      WaitForTurn();
      host::Cancel cancel;
      std::atomic<double> asked{0};
      std::atomic<bool> over{false};
      first_step_ = 0;
      std::thread hand([&] {
        while (first_step_.load() == 0 && !over) std::this_thread::yield();
        if (over) return;
        std::this_thread::sleep_for(std::chrono::duration<double>(at * 0.4));
        asked = WallSeconds();
        if (by_condition) {
          hot_ = true;
        } else {
          cancel.Now();
        }
      });
      const bool contributed = Run(&cancel).has_value();
      const double returned = WallSeconds();
      over = true;
      hand.join();
      hot_ = false;
      const bool trained = first_step_.load() > 0;
      if (trained && !contributed && outcome_ == SELVAGE_INTERRUPTED) {
        return Stopped{std::max(0.0, newest_step_ - asked) + Median(steps_),
                       returned - asked};
      }
      if (trained) return std::nullopt;
    }
  }

  const std::vector<double>& steps() const { return steps_; }

 private:
  host::Options OptionsFor(const fs::path& home, const fs::path& bundle) {
    host::Options options;
    options.state_dir = (home / "state").string();
    options.cache_dir = (home / "cache").string();
    options.population = "bench";
    std::ifstream in(bundle);
    options.enrolment_bundle = {std::istreambuf_iterator<char>(in), {}};
    options.limits.emplace();
    options.limits->threads_max = 1;
    options.progress = [this](const host::Progress& now) {
      const double time = WallSeconds();
      if (now.phase == SELVAGE_PHASE_TRAINING && now.steps > 0) {
        if (first_step_.load() == 0) first_step_ = time;
        if (last_step_ > 0) steps_.push_back(time - last_step_);
        last_step_ = newest_step_ = time;
        return;
      }
      last_step_ = 0;
      if (now.phase == SELVAGE_PHASE_TRAINING) begins_ = time;
      if (now.phase == SELVAGE_PHASE_UPLOADING && sends_ == 0) sends_ = time;
    };
    options.conditions = [this] {
      host::Conditions now;
      if (hot_.load()) now.thermal = SELVAGE_THERMAL_CRITICAL;
      return now;
    };
    return options;
  }

  void WaitForTurn() {
    std::this_thread::sleep_until(
        host::SystemTime(std::chrono::microseconds(next_run_us_)));
  }

  // nullopt: it did not contribute.
  std::optional<Session> Run(host::Cancel* cancel) {
    first_step_ = 0;
    last_step_ = begins_ = sends_ = 0;
    const double begin = WallSeconds();
    const host::RunResult result = client_.RunOnce({}, cancel);
    const double end = WallSeconds();
    next_run_us_ = result.next_run_us;
    outcome_ = result.outcome;
    if (outcome_ == SELVAGE_FAILED || outcome_ == SELVAGE_DECLINED) {
      std::fprintf(stderr, "%s: %s\n", selvage_outcome_name(outcome_),
                   result.reason.c_str());
      std::exit(1);
    }
    if (outcome_ != SELVAGE_CONTRIBUTED || first_step_.load() == 0) {
      return std::nullopt;
    }
    return Session{end - begin, sends_ - begins_};
  }

  std::atomic<double> first_step_{0};
  std::atomic<bool> hot_{false};
  double last_step_ = 0;
  double newest_step_ = 0;
  double begins_ = 0;
  double sends_ = 0;
  std::vector<double> steps_;
  std::int64_t next_run_us_ = 0;
  std::int32_t outcome_ = SELVAGE_NOTHING_TO_DO;
  host::Client client_;
};

// ---- The bench -------------------------------------------------------------

double PeakMiB() {
  rusage usage{};
  SELVAGE_CHECK(getrusage(RUSAGE_SELF, &usage) == 0);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

// The peak of this program when it does `what` alone.
double PeakOf(const std::string& what) {
  const std::string self = fs::read_symlink("/proc/self/exe").string();
  FILE* const pipe =
      popen(("'" + self + "' '--only=" + what + "'").c_str(), "r");
  SELVAGE_CHECK(pipe != nullptr);
  double peak = 0;
  SELVAGE_CHECK(fscanf(pipe, "%lf", &peak) == 1);
  SELVAGE_CHECK(pclose(pipe) == 0);
  return peak;
}

double Quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(q *
                                    static_cast<double>(values.size() - 1))];
}

Status MeasureStops(Report& report, App& app, bool by_condition) {
  std::vector<double> last_step;
  std::vector<double> call;
  SeededRandom random(by_condition ? 3 : 2);
  while (call.size() < kStops) {
    const std::optional<Stopped> stopped =
        app.Stop(UniformUnit(random), by_condition);
    if (!stopped.has_value()) continue;
    last_step.push_back(stopped->last_step * 1e3);
    call.push_back(stopped->call * 1e3);
  }
  const double step = Median(app.steps()) * 1e3;
  const std::string why = by_condition ? "lost condition" : "cancel";
  const auto add = [&](const std::string& what,
                       const std::vector<double>& values,
                       const std::string& reference, double reference_value) {
    for (const auto& [label, q] :
         {std::pair{"median", 0.5}, {"p90", 0.9}, {"slowest", 1.0}}) {
      SELVAGE_RETURN_IF_ERROR(
          report.Add({.id = "B8",
                      .case_name = why + " to " + what + ", " + label,
                      .value = Quantile(values, q),
                      .unit = "ms",
                      .reference = reference,
                      .reference_value = reference_value},
                     "of " + std::to_string(kStops)));
    }
    return OkStatus();
  };
  SELVAGE_RETURN_IF_ERROR(
      add("last step's end", last_step, "one step + 50 ms", step + 50));
  return add("return with a checkpoint", call, "one step", step);
}

Status Run(Report& report) {
  report.PrintMachine();
  const test::ScratchFolder scratch;
  // A task of a thousand rounds, each of one device.
  CoordinatorProcess coordinator(scratch.path(), "20ms", "50ms");
  coordinator.CreateTask(SELVAGE_BENCH_SESSION "/task.yaml");
  Images images;
  std::vector<double> session;
  std::vector<double> local;
  std::vector<double> by_hand;
  App app(scratch.path() / "app", coordinator.bundle_file(), images);
  for (int i = -1; i < kRepetitions; ++i) {  // the first pair only warms up
    const Session one = app.Contribute();
    const double begin = WallSeconds();
    HandWritten(images);
    const double end = WallSeconds();
    if (i < 0) continue;
    session.push_back(one.seconds);
    local.push_back(one.local);
    by_hand.push_back(end - begin);
  }
  constexpr char kRival[] = "hand-written LibTorch loop";
  SELVAGE_RETURN_IF_ERROR(
      report.Add({.id = "B8",
                  .case_name = "local part of a session",
                  .value = Median(local),
                  .unit = "s",
                  .reference = kRival,
                  .reference_value = Median(by_hand)},
                 "from the fetched checkpoint to the update in the outbox"));
  SELVAGE_RETURN_IF_ERROR(report.Add({.id = "B8",
                                      .case_name = "session",
                                      .value = Median(session),
                                      .unit = "s",
                                      .reference = kRival,
                                      .reference_value = Median(by_hand)},
                                     "with check-in, 6.7 MB down and up"));
  std::vector<double> session_peak;
  std::vector<double> by_hand_peak;
  for (int i = 0; i < 3; ++i) {
    const fs::path home = scratch.path() / ("alone-" + std::to_string(i));
    session_peak.push_back(
        PeakOf(home.string() + ":" + coordinator.bundle_file().string()));
    by_hand_peak.push_back(PeakOf("hand"));
  }
  SELVAGE_RETURN_IF_ERROR(report.Add({.id = "B8",
                                      .case_name = "session memory",
                                      .value = Median(session_peak),
                                      .unit = "MiB",
                                      .reference = kRival,
                                      .reference_value = Median(by_hand_peak)},
                                     "peak of the whole process"));
  SELVAGE_RETURN_IF_ERROR(MeasureStops(report, app, /*by_condition=*/false));
  return MeasureStops(report, app, /*by_condition=*/true);
}

// "hand", or "HOME:BUNDLE" of an app.
int Only(const std::string& what) {
  Images images;
  if (what == "hand") {
    HandWritten(images);
  } else {
    const size_t colon = what.find(':');
    SELVAGE_CHECK(colon != std::string::npos);
    App app(what.substr(0, colon), what.substr(colon + 1), images);
    (void)app.Contribute();
  }
  std::printf("%.3f\n", PeakMiB());
  return 0;
}

}  // namespace
}  // namespace selvage::bench

int main(int argc, char** argv) {
  at::set_num_threads(1);
  return selvage::bench::RunBench(argc, argv, selvage::bench::Run,
                                  selvage::bench::Only);
}

// B11: buffered asynchronous aggregation (FedBuff) against synchronous rounds
// with as many devices at work at a time. A hundred devices whose speeds are
// log-normal; the real coordinator and client library, models that train,
// virtual time. scripts/asynchronous gives it the data.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numbers>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "base/random.h"
#include "base/status.h"
#include "bench/accuracy/data.h"
#include "bench/accuracy/federation.h"
#include "bench/accuracy/rows.h"
#include "client/training/torch/torch_trainer.h"

namespace selvage::bench {
namespace {

struct Options {
  std::string source = ".";
  std::string data;
  std::vector<uint64_t> seeds = {1, 2, 3};
  std::string partition = "iid";
  int threads = 2;
  int concurrency = 30;
  int buffer = 10;
  double sigma = 1;    // of the logarithm of a device's time
  double median = 20;  // seconds
  double threshold = 80;
  double rate = 0.01;   // of the devices
  int versions = 3000;  // at most
};

// A way to run the task.
struct Way {
  std::string name;
  int cohort = 0;
  std::vector<std::pair<std::string, std::string>> settings;
};

std::vector<Way> Ways(const Options& options) {
  const std::string at_work = std::to_string(options.concurrency);
  // As many at work as of old; the round ends when three quarters have sent.
  const int early = std::max(1, static_cast<int>(options.concurrency / 1.3));
  return {
      {"synchronous", options.concurrency, {{"strategy.over_selection", "1"}}},
      {"synchronous, 1.3 x over-selected",
       early,
       {{"strategy.over_selection",
         std::to_string(static_cast<double>(options.concurrency) / early)}}},
      {"asynchronous",
       options.buffer,
       {{"strategy.asynchronous.concurrency", at_work},
        {"strategy.asynchronous.max_staleness", "200"}}},
  };
}

struct Figure {
  bool reached = false;
  double seconds = 0;  // virtual
  uint64_t updates = 0;
  uint64_t versions = 0;
};

Result<Figure> RunWay(const Options& options, const Way& way, uint64_t seed,
                      client::Trainer& trainer) {
  PosixFileSystem files;
  const DataSet set = options.partition == "iid" ? DataSet::kMnistIid
                                                 : DataSet::kMnistTwoShards;
  SELVAGE_ASSIGN_OR_RETURN(const FederationData data,
                           LoadData(files, options.data, set, seed));
  Row row;
  row.task = "bench/accuracy/mnist/asynchronous-task.yaml";
  row.settings = way.settings;
  row.settings.emplace_back("strategy.cohort", std::to_string(way.cohort));
  row.settings.emplace_back("train.optimizer.lr", std::to_string(options.rate));
  row.settings.emplace_back("strategy.num_rounds",
                            std::to_string(options.versions));
  SELVAGE_ASSIGN_OR_RETURN(Work work,
                           LoadWork(files, options.source, row, seed, 0));
  FederationOptions federation;
  federation.task_file = std::move(work.task_file);
  federation.program = std::move(work.program);
  federation.threads = options.threads;
  // One draw a device, the same for every way: some are always slow.
  SeededRandom random(DeriveSeed(seed, "speeds", 0));
  std::vector<Duration> takes(data.devices.size());
  for (Duration& time : takes) {
    const double u = 1 - UniformUnit(random);
    const double normal = std::sqrt(-2 * std::log(u)) *
                          std::cos(2 * std::numbers::pi * UniformUnit(random));
    time = std::chrono::duration_cast<Duration>(std::chrono::duration<double>(
        options.median * std::exp(options.sigma * normal)));
  }
  federation.takes = [&](size_t device) { return takes.at(device); };
  Figure figure;
  federation.on_version = [&](const VersionScore& score) {
    figure.versions = score.version;
    figure.updates = score.version * static_cast<uint64_t>(way.cohort);
    figure.seconds = std::chrono::duration<double>(score.elapsed).count();
    figure.reached = score.accuracy >= options.threshold;
    return !figure.reached;
  };
  SELVAGE_ASSIGN_OR_RETURN(const FederationResult result,
                           RunFederation(federation, data, trainer));
  if (!result.failure.empty()) return Internal(result.failure);
  if (result.abandoned > 0) {
    return Internal(std::to_string(result.abandoned) + " were abandoned");
  }
  return figure;
}

Status Run(const Options& options) {
  client::TorchTrainer trainer;
  std::printf("%-34s %4s %9s %8s %9s %7s %8s\n", "", "seed", "time s",
              "updates", "versions", "time x", "updates x");
  for (const uint64_t seed : options.seeds) {
    Figure rival;
    for (const Way& way : Ways(options)) {
      SELVAGE_ASSIGN_OR_RETURN(const Figure figure,
                               RunWay(options, way, seed, trainer));
      if (rival.versions == 0) rival = figure;
      std::printf("%-34s %4llu %9.0f %8llu %9llu %7.2f %8.2f%s\n",
                  way.name.c_str(), static_cast<unsigned long long>(seed),
                  figure.seconds,
                  static_cast<unsigned long long>(figure.updates),
                  static_cast<unsigned long long>(figure.versions),
                  figure.seconds / rival.seconds,
                  static_cast<double>(figure.updates) /
                      static_cast<double>(rival.updates),
                  figure.reached ? "" : "  NOT REACHED");
      std::fflush(stdout);
    }
  }
  return OkStatus();
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("FedBuff against synchronous rounds on virtual time.");
  app.add_option("--source", options.source, "The top of the source tree.");
  app.add_option("--data", options.data, "The folder with mnist/.")->required();
  app.add_option("--seeds", options.seeds)->delimiter(',');
  app.add_option("--partition", options.partition)
      ->check(CLI::IsMember({"iid", "shards"}));
  app.add_option("--threads", options.threads)->check(CLI::Range(1, 64));
  app.add_option("--concurrency", options.concurrency)
      ->check(CLI::Range(1, 100));
  app.add_option("--buffer", options.buffer)->check(CLI::Range(1, 100));
  app.add_option("--sigma", options.sigma)->check(CLI::Range(0.0, 3.0));
  app.add_option("--median", options.median)->check(CLI::Range(1.0, 1000.0));
  app.add_option("--threshold", options.threshold)
      ->check(CLI::Range(1.0, 100.0));
  app.add_option("--rate", options.rate)->check(CLI::Range(1e-6, 10.0));
  app.add_option("--versions", options.versions)
      ->check(CLI::Range(1, 1'000'000));
  CLI11_PARSE(app, argc, argv);
  const Status status = Run(options);
  if (status.ok()) return 0;
  std::fprintf(stderr, "asynchronous_bench: %s\n", status.ToString().c_str());
  return 1;
}

}  // namespace
}  // namespace selvage::bench

int main(int argc, char** argv) { return selvage::bench::Main(argc, argv); }

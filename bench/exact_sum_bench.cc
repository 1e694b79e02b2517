// B1: fold K float32 updates of P values into an exact weighted sum. The limit
// is a float axpy, y += a x, over the same buffers in the same run: what an
// inexact sum would cost.
//
// Both are timed in turn, repetition by repetition, so that a noisy neighbour
// disturbs both; the figures are medians.
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "aggregation/exact_sum.h"
#include "base/check.h"
#include "bench/report.h"

namespace selvage::bench {
namespace {

using aggregation::ExactSum;
using aggregation::WeightedUpdate;

struct Case {
  const char* name;
  size_t updates;
  size_t values;
};
constexpr Case kCases[] = {
    {"10x1e5", 10, 100'000},     {"10x1e6", 10, 1'000'000},
    {"100x1e6", 100, 1'000'000}, {"10x1e7", 10, 10'000'000},
    {"50x1e7", 50, 10'000'000},
};
constexpr uint32_t kWeight = 60;
// At least so many repetitions, and more of the short ones.
constexpr int kRepetitionsMin = 9;
constexpr double kSecondsPerCase = 3;

#if defined(__x86_64__) && !defined(__clang__)
__attribute__((target_clones("avx512f", "avx2,fma", "default")))
#endif
void Axpy(float a, const float* __restrict x, float* __restrict y,
          size_t count) {
  for (size_t i = 0; i < count; ++i) y[i] += a * x[i];
}

struct Times {
  std::vector<double> wall;
  std::vector<double> cpu;
};

template <typename Work>
void Time(Times& times, const Work& work) {
  const double wall = WallSeconds();
  const double cpu = ThreadCpuSeconds();
  work();
  benchmark::ClobberMemory();
  times.wall.push_back(WallSeconds() - wall);
  times.cpu.push_back(ThreadCpuSeconds() - cpu);
}

Status Run(const Case& bench_case, Report& report) {
  const size_t size = bench_case.values;
  std::vector<std::vector<float>> buffers(bench_case.updates);
  for (size_t u = 0; u < buffers.size(); ++u) {
    // Values like those of deltas; what they are does not change the time.
    uint32_t state = static_cast<uint32_t>(u) * 2'654'435'761u + 1;
    buffers[u].resize(size);
    for (float& value : buffers[u]) {
      state = state * 1'664'525u + 1'013'904'223u;
      value = static_cast<float>(static_cast<int32_t>(state)) * 0x1p-36f;
    }
  }
  std::vector<WeightedUpdate> updates;
  for (const auto& buffer : buffers) updates.push_back({buffer, kWeight});

  SELVAGE_ASSIGN_OR_RETURN(ExactSum sum,
                           ExactSum::Create({.ranges = {{.count = size}},
                                             .weight_max = kWeight,
                                             .update_count_max = 1'000'000}));
  std::vector<float> mean(size);
  const auto fold = [&] { SELVAGE_CHECK(sum.AddAll(updates).ok()); };
  const auto axpy = [&] {
    for (const auto& buffer : buffers) {
      Axpy(0x1p-10f, buffer.data(), mean.data(), size);
    }
    benchmark::DoNotOptimize(mean.data());
  };
  // Both accumulators are in memory, and the processor is awake.
  fold();
  axpy();

  Times exact;
  Times limit;
  const double end = WallSeconds() + kSecondsPerCase;
  for (int r = 0; r < kRepetitionsMin || WallSeconds() < end; ++r) {
    Time(limit, axpy);
    Time(exact, fold);
  }
  const double gigabytes = static_cast<double>(bench_case.updates) *
                           static_cast<double>(size) * sizeof(float) * 1e-9;
  char note[96];
  std::snprintf(note, sizeof note, "(CPU time: %.2f; %zu repetitions)",
                Median(limit.cpu) / Median(exact.cpu), exact.wall.size());
  return report.Add({.id = "B1",
                     .case_name = bench_case.name,
                     .value = gigabytes / Median(exact.wall),
                     .unit = "GB/s",
                     .reference = "float axpy, 1 thread",
                     .reference_value = gigabytes / Median(limit.wall)},
                    note);
}

Status RunAll(int argc, char** argv) {
  std::vector<std::string> wanted;  // names of cases; none: all
  SELVAGE_ASSIGN_OR_RETURN(Report report,
                           Report::FromArgs(argc, argv, &wanted));
  report.PrintMachine();
  for (const Case& bench_case : kCases) {
    if (!wanted.empty() &&
        std::ranges::find(wanted, bench_case.name) == wanted.end()) {
      continue;
    }
    SELVAGE_RETURN_IF_ERROR(Run(bench_case, report));
  }
  return OkStatus();
}

}  // namespace
}  // namespace selvage::bench

int main(int argc, char** argv) {
  const selvage::Status status = selvage::bench::RunAll(argc, argv);
  if (status.ok()) return 0;
  std::fprintf(stderr, "exact_sum_bench: %s\n", status.ToString().c_str());
  return 1;
}

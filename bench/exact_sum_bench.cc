// B1: fold K float32 updates of P values into an exact weighted sum, on one
// thread and on two. The limit is a float axpy, y += a x, over the same buffers
// on as many threads in the same run: what an inexact sum would cost.
//
// B2: the same of encoded updates, decoded and checked while they are folded;
// beside it the time of float32 in the same run.
//
// Both are timed in turn, repetition by repetition, so that a noisy neighbour
// disturbs both; the figures are medians.
#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

#include "aggregation/codec/codec.h"
#include "aggregation/exact_sum.h"
#include "base/check.h"
#include "base/executor.h"
#include "base/random.h"
#include "bench/report.h"

namespace selvage::bench {
namespace {

using aggregation::EncodedUpdate;
using aggregation::ExactSum;
using aggregation::WeightedUpdate;
using plan::CodecName;

struct Case {
  const char* name;
  size_t updates;
  size_t values;
  // GB/s of the best other kernel that was measured on a machine of this kind
  // (2 virtual cores), on 1 and 2 threads: Google's aggregation core
  // (federated_sum) or MetisFL's fastest build (docs/benchmarks.md).
  double rival[2];
};
constexpr Case kCases[] = {
    {"10x1e5", 10, 100'000, {10.7, 14}},
    {"10x1e6", 10, 1'000'000, {5.0, 8.2}},
    {"100x1e6", 100, 1'000'000, {4.3, 8.5}},
    {"10x1e7", 10, 10'000'000, {3.5, 4.0}},
    {"50x1e7", 50, 10'000'000, {3.7, 6.3}},
};
constexpr uint32_t kWeight = 60;
// At least so many repetitions, and more of the short ones.
constexpr int kRepetitionsMin = 9;
constexpr double kSecondsPerCase = 1.5;

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

std::vector<std::vector<float>> BuffersOf(const Case& bench_case) {
  std::vector<std::vector<float>> buffers(bench_case.updates);
  for (size_t u = 0; u < buffers.size(); ++u) {
    // Values like those of deltas; what they are does not change the time.
    uint32_t state = static_cast<uint32_t>(u) * 2'654'435'761u + 1;
    buffers[u].resize(bench_case.values);
    for (float& value : buffers[u]) {
      state = state * 1'664'525u + 1'013'904'223u;
      value = static_cast<float>(static_cast<int32_t>(state)) * 0x1p-36f;
    }
  }
  return buffers;
}

Result<ExactSum> NewSum(const Case& bench_case) {
  return ExactSum::Create({.ranges = {{.count = bench_case.values}},
                           .weight_max = kWeight,
                           .update_count_max = 1'000'000});
}

// Runs both once, so that accumulators are in memory and the processor is
// awake, then in turn.
template <typename Work, typename Reference>
std::pair<Times, Times> TimeInTurn(const Work& work,
                                   const Reference& reference) {
  work();
  reference();
  std::pair<Times, Times> times;
  const double end = WallSeconds() + kSecondsPerCase;
  for (int r = 0; r < kRepetitionsMin || WallSeconds() < end; ++r) {
    Time(times.second, reference);
    Time(times.first, work);
  }
  return times;
}

Status RunFloat32(const Case& bench_case,
                  const std::vector<std::vector<float>>& buffers,
                  Report& report) {
  const size_t size = bench_case.values;
  std::vector<WeightedUpdate> updates;
  for (const auto& buffer : buffers) updates.push_back({buffer, kWeight});
  for (const size_t threads : {1, 2}) {
    ThreadExecutor executor(threads);
    SELVAGE_ASSIGN_OR_RETURN(ExactSum sum, NewSum(bench_case));
    std::vector<float> mean(size);
    const auto fold = [&] {
      SELVAGE_CHECK(sum.AddAll(updates, &executor).ok());
    };
    const auto axpy = [&] {
      executor.Run(threads, [&](size_t part) {
        const size_t begin = size * part / threads;
        const size_t count = size * (part + 1) / threads - begin;
        for (const auto& buffer : buffers) {
          Axpy(0x1p-10f, buffer.data() + begin, mean.data() + begin, count);
        }
      });
      benchmark::DoNotOptimize(mean.data());
    };
    const auto [exact, limit] = TimeInTurn(fold, axpy);
    const double gigabytes = static_cast<double>(bench_case.updates) *
                             static_cast<double>(size) * sizeof(float) * 1e-9;
    const double speed = gigabytes / Median(exact.wall);
    const double rival = bench_case.rival[threads - 1];
    char note[128];
    std::snprintf(note, sizeof note,
                  "(%zu repetitions; %.1f x the best rival's %.1f GB/s, "
                  "measured elsewhere)",
                  exact.wall.size(), speed / rival, rival);
    SELVAGE_RETURN_IF_ERROR(
        report.Add({.id = "B1",
                    .case_name = std::string(bench_case.name) +
                                 (threads == 1 ? "" : " on 2 threads"),
                    .value = speed,
                    .unit = "GB/s",
                    .reference = threads == 1 ? "float axpy, 1 thread"
                                              : "float axpy, 2 threads",
                    .reference_value = gigabytes / Median(limit.wall)},
                   note));
  }
  return OkStatus();
}

Status RunEncoded(const Case& bench_case, CodecName codec,
                  const std::vector<std::vector<float>>& buffers,
                  Report& report) {
  SeededRandom random(1);
  const size_t counts[] = {bench_case.values};
  std::vector<WeightedUpdate> plain;
  std::vector<Bytes> encodings;
  std::vector<EncodedUpdate> updates;
  for (const auto& buffer : buffers) {
    plain.push_back({buffer, kWeight});
    SELVAGE_ASSIGN_OR_RETURN(
        Bytes bytes, aggregation::Encode(codec, counts, buffer, &random));
    encodings.push_back(std::move(bytes));
  }
  for (const Bytes& bytes : encodings) {
    updates.push_back({codec, bytes, kWeight});
  }
  for (const size_t threads : {1, 2}) {
    ThreadExecutor executor(threads);
    SELVAGE_ASSIGN_OR_RETURN(ExactSum sum, NewSum(bench_case));
    SELVAGE_ASSIGN_OR_RETURN(ExactSum plain_sum, NewSum(bench_case));
    const auto [encoded, float32] = TimeInTurn(
        [&] { SELVAGE_CHECK(sum.AddAllEncoded(updates, &executor).ok()); },
        [&] { SELVAGE_CHECK(plain_sum.AddAll(plain, &executor).ok()); });
    const double millis = 1e3 / static_cast<double>(bench_case.updates);
    SELVAGE_RETURN_IF_ERROR(
        report.Add({.id = "B2",
                    .case_name = std::string(bench_case.name) + " " +
                                 std::string(plan::CodecNameText(codec)) +
                                 (threads == 1 ? "" : " on 2 threads"),
                    .value = millis * Median(encoded.wall),
                    .unit = "ms per update",
                    .reference = "float32 in the same run",
                    .reference_value = millis * Median(float32.wall)}));
  }
  return OkStatus();
}

Status Run(const Case& bench_case, Report& report) {
  const std::vector<std::vector<float>> buffers = BuffersOf(bench_case);
  SELVAGE_RETURN_IF_ERROR(RunFloat32(bench_case, buffers, report));
  for (const CodecName codec : plan::kCodecNames) {
    if (codec == CodecName::kFloat32) continue;
    SELVAGE_RETURN_IF_ERROR(RunEncoded(bench_case, codec, buffers, report));
  }
  return OkStatus();
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

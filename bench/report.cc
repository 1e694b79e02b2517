#include "bench/report.h"

#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string_view>
#include <thread>

#include "base/check.h"
#include "base/version.h"

namespace selvage::bench {
namespace {

constexpr std::string_view kOutFlag = "--out=";

std::string Processor() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("model name")) {
      return line.substr(line.find(':') + 2);
    }
  }
  return "unknown processor";
}

double Seconds(clockid_t clock) {
  timespec now{};
  SELVAGE_CHECK(clock_gettime(clock, &now) == 0);
  return static_cast<double>(now.tv_sec) +
         static_cast<double>(now.tv_nsec) * 1e-9;
}

// An empty list if there is no such file yet.
Result<nlohmann::json> ReadList(const std::filesystem::path& path) {
  std::ifstream in(path);
  if (!in) return nlohmann::json::array();
  nlohmann::json list = nlohmann::json::parse(in, nullptr, false);
  if (!list.is_array()) {
    return DataLoss(path.string() + " is not a JSON list");
  }
  return list;
}

}  // namespace

Result<Report> Report::FromArgs(int argc, char** argv,
                                std::vector<std::string>* rest) {
  std::filesystem::path out;
  for (int i = 1; i < argc; ++i) {
    const std::string_view arg = argv[i];
    if (arg.starts_with(kOutFlag)) {
      out = arg.substr(kOutFlag.size());
    } else if (rest != nullptr) {
      rest->emplace_back(arg);
    } else {
      return InvalidArgument("unknown argument " + std::string(arg) +
                             "; there is --out=FILE");
    }
  }
  return Report(out);
}

void Report::PrintMachine() const {
  const long page = sysconf(_SC_PAGESIZE);
  const double memory =
      static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(page);
#ifdef NDEBUG
  const char* const assertions = "optimised";
#else
  const char* const assertions = "DEBUG build: these figures mean nothing";
#endif
  std::printf("machine: %s, %u threads, L2 %ld KiB, L3 %ld KiB, %.1f GiB\n",
              Processor().c_str(), std::thread::hardware_concurrency(),
              sysconf(_SC_LEVEL2_CACHE_SIZE) >> 10,
              sysconf(_SC_LEVEL3_CACHE_SIZE) >> 10, memory / (1 << 30));
  std::printf("build: selvage %s (%s), %s, %s\n",
              std::string(Version()).c_str(), std::string(Commit()).c_str(),
#ifdef __clang__
              "clang " __clang_version__,
#else
              "g++ " __VERSION__,
#endif
              assertions);
}

Status Report::Add(const Row& row, const std::string& note) {
  std::printf("%-3s %-18s %9.3f %-5s | %-28s %9.3f | ratio %.2f  %s\n",
              row.id.c_str(), row.case_name.c_str(), row.value,
              row.unit.c_str(), row.reference.c_str(), row.reference_value,
              row.ratio(), note.c_str());
  std::fflush(stdout);
  if (out_.empty()) return OkStatus();
  SELVAGE_ASSIGN_OR_RETURN(nlohmann::json list, ReadList(out_));
  list.push_back({{"id", row.id},
                  {"case", row.case_name},
                  {"value", row.value},
                  {"unit", row.unit},
                  {"reference", row.reference},
                  {"reference_value", row.reference_value},
                  {"ratio", row.ratio()}});
  const std::filesystem::path next = out_.string() + ".tmp";
  std::ofstream file(next);
  file << list.dump(2) << "\n";
  file.close();
  std::error_code error;
  if (file) std::filesystem::rename(next, out_, error);
  if (!file || error) return Unavailable("cannot write " + out_.string());
  return OkStatus();
}

int RunBench(int argc, char** argv, const std::function<Status(Report&)>& run,
             const std::function<int(const std::string& what)>& only) {
  constexpr std::string_view kOnly = "--only=";
  std::vector<std::string> rest;
  Result<Report> report = Report::FromArgs(argc, argv, &rest);
  SELVAGE_CHECK(report.ok());
  if (rest.size() == 1 && rest[0].starts_with(kOnly)) {
    return only(rest[0].substr(kOnly.size()));
  }
  if (!rest.empty()) {
    std::fprintf(stderr, "unknown argument %s; there is --out=FILE\n",
                 rest[0].c_str());
    return 2;
  }
  const Status status = run(*report);
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}

double Median(std::span<const double> values) {
  SELVAGE_CHECK(!values.empty());
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  const size_t middle = sorted.size() / 2;
  return sorted.size() % 2 == 1 ? sorted[middle]
                                : (sorted[middle - 1] + sorted[middle]) / 2;
}

double WallSeconds() { return Seconds(CLOCK_MONOTONIC); }
double ProcessCpuSeconds() { return Seconds(CLOCK_PROCESS_CPUTIME_ID); }
double ThreadCpuSeconds() { return Seconds(CLOCK_THREAD_CPUTIME_ID); }

}  // namespace selvage::bench

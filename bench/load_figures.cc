#include "bench/load_figures.h"

#include <cstdio>

namespace selvage::bench {

nlohmann::ordered_json ToJson(const Figures& figures) {
  nlohmann::ordered_json out;
  out["answered"] = figures.answered;
  out["per_second"] = figures.Rate();
  out["p50_ms"] = figures.Percentile(0.5);
  out["p90_ms"] = figures.Percentile(0.9);
  out["p99_ms"] = figures.Percentile(0.99);
  out["max_ms"] = figures.Percentile(1);
  out["errors"] = figures.errors;
  return out;
}

void Print(const std::string& what, const Figures& figures) {
  std::printf("%-26s %8.0f /s   p50 %8.2f  p90 %8.2f  p99 %8.2f  max %8.2f ms",
              what.c_str(), figures.Rate(), figures.Percentile(0.5),
              figures.Percentile(0.9), figures.Percentile(0.99),
              figures.Percentile(1));
  for (const auto& [code, count] : figures.errors) {
    std::printf("   %s: %llu", code.c_str(),
                static_cast<unsigned long long>(count));
  }
  std::printf("\n");
  std::fflush(stdout);
}

}  // namespace selvage::bench

// What selvage-load counts, and how it says it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace selvage::bench {

// Of one kind of call. Thread-compatible.
struct Figures {
  uint64_t answered = 0;
  double seconds = 0;                      // that the calls took together
  std::map<std::string, uint64_t> errors;  // by code
  std::vector<double> latencies;           // milliseconds; Sort()ed for below
  size_t answer_bytes = 0;                 // of the last one

  void Sort() { std::sort(latencies.begin(), latencies.end()); }
  double Rate() const {
    return seconds > 0 ? static_cast<double>(answered) / seconds : 0;
  }
  // REQUIRES: sorted. 0 if nothing was answered.
  double Percentile(double share) const {
    if (latencies.empty()) return 0;
    const auto at =
        static_cast<size_t>(share * static_cast<double>(latencies.size() - 1));
    return latencies[at];
  }
};

nlohmann::ordered_json ToJson(const Figures& figures);
void Print(const std::string& what, const Figures& figures);

}  // namespace selvage::bench

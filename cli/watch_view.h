// A running task for people: a frame that is redrawn on a terminal, or one line
// a round for logs. Pure functions of the snapshot.
#pragma once

#include <string>
#include <vector>

#include "selvage/v1/admin.pb.h"

namespace selvage::cli {

struct WatchStyle {
  size_t width = 80;
  bool color = false;
  bool unicode = false;
};

// Lines without line ends, none wider than style.width.
std::vector<std::string> WatchFrame(const v1::TaskSnapshot& snapshot,
                                    int64_t now_micros,
                                    const WatchStyle& style);

// "round 3/30  COMMITTED  accepted 10 of 10  2.1s  accuracy 0.713, loss 0.82"
std::string RoundLine(const v1::Round& round, uint64_t num_rounds);

// "task fashion is FINISHED: 30 rounds committed, 0 abandoned, version 30"
std::string TaskLine(const v1::Task& task);

// What moves the cursor up over a frame of `lines` and clears it.
std::string EraseFrame(size_t lines);

}  // namespace selvage::cli

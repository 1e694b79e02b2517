// How the learning rate of local training goes, the same for every engine.
#pragma once

#include <cstdint>

#include "plan/task.h"

namespace selvage::client {

// What optimizer.lr is multiplied by at time t >= 0, in (0, 1] but for a cosine
// that ends at 0. With w = warmup:
//
//   t < w            (t + 1) / w
//   constant         1
//   step             factor^floor((t - w) / every)
//   cosine           lowest + (1 - lowest) (1 + cos(pi min(1, (t - w) /
//                    length))) / 2   (Loshchilov and Hutter, 2017, no restarts)
double RateFactor(const plan::RateSchedule& schedule, uint64_t t);

}  // namespace selvage::client

// The one-hot oracle (the idea is the Janus project's simulation's): device i
// uploads kOneHotValue in element i of a model that starts at zero, with weight
// 1. What the committed model holds says who was counted, and how often.
#pragma once

namespace selvage::test {

inline constexpr float kOneHotValue = 0.25F;

}  // namespace selvage::test

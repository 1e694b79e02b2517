// Floats that codecs and sums get wrong if they get anything wrong.
#pragma once

#include <bit>
#include <cfloat>
#include <cmath>
#include <vector>

#include "base/random.h"

namespace selvage::aggregation {

// A finite float of any exponent, often zero, denormal, a power of two or its
// neighbour.
inline float AnyFinite(SeededRandom& random) {
  constexpr float kSpecial[] = {
      0.0f,     -0.0f,    0x1p-149f, -0x1p-149f, FLT_MIN,     -FLT_MIN,
      FLT_MAX,  -FLT_MAX, 0x1p127f,  0x1p-126f,  1.0f,        -1.0f,
      16384.0f, 16392.0f, 32768.0f,  32784.0f,   0x1.004p14f, 0x1.ffep15f};
  switch (UniformBelow(random, 4)) {
    case 0:
      return kSpecial[UniformBelow(random, std::size(kSpecial))];
    case 1: {  // near a power of two, where the exponent rule decides
      const int exponent = static_cast<int>(UniformBelow(random, 270)) - 145;
      const float power = std::ldexp(1.0f, std::min(exponent, 127));
      const auto offset = static_cast<uint32_t>(UniformBelow(random, 1 << 15));
      return std::bit_cast<float>(std::bit_cast<uint32_t>(power) + offset);
    }
    default:
      for (;;) {
        const auto bits = static_cast<uint32_t>(random.Next());
        const float value = std::bit_cast<float>(bits);
        if (std::isfinite(value)) return value;
      }
  }
}

// Strictly within the bound; often at its edge, a tie of the rounding, zero or
// denormal.
inline float AnyWithin(double max_abs, double scale, SeededRandom& random) {
  for (;;) {
    float value = 0;
    switch (UniformBelow(random, 5)) {
      case 0:  // half way between two steps
        value = static_cast<float>(
            (static_cast<double>(UniformBelow(random, 2000)) + 0.5) / scale);
        break;
      case 1:  // next to the bound
        value = std::nextafter(static_cast<float>(max_abs), 0.0f);
        break;
      case 2:
        value = std::bit_cast<float>(
            static_cast<uint32_t>(UniformBelow(random, 0x01000000)));
        break;
      default:
        value = static_cast<float>(UniformUnit(random) * max_abs);
    }
    if (UniformBelow(random, 2) == 0) value = -value;
    if (std::abs(double{value}) < max_abs) return value;
  }
}

}  // namespace selvage::aggregation

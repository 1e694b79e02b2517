// Randomness as an argument: keys and tokens take an OsRandom, selection,
// shuffles and simulations a SeededRandom, tests whichever they like.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

namespace selvage {

class RandomSource {
 public:
  virtual ~RandomSource() = default;
  // Fills `out`. Thread safety is the implementation's.
  virtual void Fill(std::span<uint8_t> out) = 0;
};

// The operating system's generator (getrandom). Thread-safe. Stops the process
// if the kernel has no randomness to give: there is no safe way to go on.
class OsRandom final : public RandomSource {
 public:
  void Fill(std::span<uint8_t> out) override;
};

// xoshiro256** seeded through SplitMix64 (Blackman and Vigna, 2018). The same
// seed gives the same bytes on every platform. Not for keys. Thread-compatible.
class SeededRandom final : public RandomSource {
 public:
  explicit SeededRandom(uint64_t seed);
  void Fill(std::span<uint8_t> out) override;
  uint64_t Next();

 private:
  uint64_t state_[4];
};

uint64_t RandomU64(RandomSource& random);

// Uniform in [0, bound), without modulo bias. REQUIRES: bound > 0.
uint64_t UniformBelow(RandomSource& random, uint64_t bound);

// Uniform in [0, 1) with 53 random bits.
double UniformUnit(RandomSource& random);

// Fisher-Yates; the order depends only on the source's bytes, unlike
// std::shuffle, whose result differs between standard libraries.
template <typename Container>
void Shuffle(Container& items, RandomSource& random) {
  for (size_t i = items.size(); i > 1; --i) {
    using std::swap;
    swap(items[i - 1], items[static_cast<size_t>(UniformBelow(random, i))]);
  }
}

// A well-mixed 64-bit seed from a parent seed and what it is for, so that one
// task seed yields independent streams ("selection", 3), ("init", 0), ...
// FNV-1a over the label and the numbers, finished by SplitMix64.
uint64_t DeriveSeed(uint64_t parent, std::string_view label, uint64_t index);

}  // namespace selvage

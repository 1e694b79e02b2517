#include "base/random.h"

#include <sys/random.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "base/check.h"

namespace selvage {
namespace {

uint64_t SplitMix64(uint64_t& state) {
  uint64_t z = (state += 0x9E3779B97F4A7C15ULL);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}

}  // namespace

void OsRandom::Fill(std::span<uint8_t> out) {
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t n = getrandom(out.data() + done, out.size() - done, 0);
    if (n < 0 && errno == EINTR) continue;
    SELVAGE_CHECK(n > 0);
    done += static_cast<size_t>(n);
  }
}

SeededRandom::SeededRandom(uint64_t seed) {
  for (uint64_t& word : state_) word = SplitMix64(seed);
}

uint64_t SeededRandom::Next() {
  const uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
  const uint64_t t = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= t;
  state_[3] = std::rotl(state_[3], 45);
  return result;
}

void SeededRandom::Fill(std::span<uint8_t> out) {
  size_t done = 0;
  while (done < out.size()) {
    const uint64_t word = Next();
    const size_t n = std::min(sizeof word, out.size() - done);
    for (size_t i = 0; i < n; ++i) {  // little-endian on every machine
      out[done + i] = static_cast<uint8_t>(word >> (8 * i));
    }
    done += n;
  }
}

uint64_t RandomU64(RandomSource& random) {
  uint8_t bytes[8];
  random.Fill(bytes);
  uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = value << 8 | bytes[i];
  return value;
}

uint64_t UniformBelow(RandomSource& random, uint64_t bound) {
  SELVAGE_CHECK(bound > 0);
  // Reject the low `2^64 mod bound` values so that every residue is equally
  // likely.
  const uint64_t threshold = (0 - bound) % bound;
  for (;;) {
    const uint64_t value = RandomU64(random);
    if (value >= threshold) return value % bound;
  }
}

double UniformUnit(RandomSource& random) {
  return static_cast<double>(RandomU64(random) >> 11) * 0x1.0p-53;
}

uint64_t DeriveSeed(uint64_t parent, std::string_view label, uint64_t index) {
  uint64_t hash = 0xCBF29CE484222325ULL;
  const auto mix = [&hash](uint8_t byte) {
    hash = (hash ^ byte) * 0x100000001B3ULL;
  };
  for (int i = 0; i < 8; ++i) mix(static_cast<uint8_t>(parent >> (8 * i)));
  for (const char c : label) mix(static_cast<uint8_t>(c));
  for (int i = 0; i < 8; ++i) mix(static_cast<uint8_t>(index >> (8 * i)));
  return SplitMix64(hash);
}

}  // namespace selvage

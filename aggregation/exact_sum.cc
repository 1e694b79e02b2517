#include "aggregation/exact_sum.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "aggregation/codec/block.h"
#include "aggregation/codec/half.h"
#include "aggregation/fold.h"
#include "aggregation/narrow.h"
#include "base/check.h"
#include "crypto/digest.h"

namespace selvage::aggregation {
namespace {

using plan::CodecName;

__extension__ using Uint128 = unsigned __int128;

constexpr double kMaxAbsMax = 0x1p24;
constexpr int kScaleExponentMax = 180;
// floor((2^63 - 1) / 2^31): the most that all weights together may be.
constexpr uint64_t kWeightSumMax =
    static_cast<uint64_t>(std::numeric_limits<int64_t>::max() >> 31);

constexpr uint32_t kMagic = 0x4d555353;  // "SSUM"
constexpr uint32_t kVersion = 2;
constexpr size_t kHeaderSize = 4 + 4 + 32 + 8 + 8;

// While every update is folded into a tile of the accumulator, its 128 KiB stay
// in the second-level cache. Smaller tiles lose more at the changes of update
// than they gain (bench/exact_sum_bench.cc).
constexpr size_t kTile = 16384;

std::string Text(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

// The bits of the largest float below max_abs.
uint32_t BitsMaxFor(double max_abs) {
  float below = static_cast<float>(max_abs);
  if (double{below} >= max_abs) below = std::nextafter(below, 0.0f);
  return std::bit_cast<uint32_t>(below);
}

FoldBound BoundOf(const SumRange& range) {
  return {.scale = ScaleFor(range.max_abs),
          .bits_max = BitsMaxFor(range.max_abs)};
}

std::vector<size_t> CountsOf(const SumLayout& layout) {
  std::vector<size_t> counts;
  counts.reserve(layout.ranges.size());
  for (const SumRange& range : layout.ranges) counts.push_back(range.count);
  return counts;
}

crypto::Digest DigestOf(const SumLayout& layout) {
  Bytes bytes = ToBytes("selvage/v1 sum layout\n");
  AppendLe(bytes, layout.weight_max);
  AppendLe(bytes, layout.update_count_max);
  for (const SumRange& range : layout.ranges) {
    AppendLe(bytes, uint64_t{range.count});
    AppendLe(bytes, range.max_abs);
  }
  return crypto::Sha256(bytes);
}

Status CheckWeight(const SumLayout& layout, uint32_t weight) {
  if (weight >= 1 && weight <= layout.weight_max) return OkStatus();
  return InvalidArgument("weight " + std::to_string(weight) + " is not in 1.." +
                         std::to_string(layout.weight_max));
}

Status CheckCount(const SumLayout& layout, size_t count) {
  if (count == layout.element_count()) return OkStatus();
  return InvalidArgument("update has " + std::to_string(count) +
                         " values, but the layout has " +
                         std::to_string(layout.element_count()));
}

Status CheckEncodedSize(const SumLayout& layout, const EncodedUpdate& update) {
  const uint64_t size = EncodedSize(update.codec, CountsOf(layout));
  if (update.bytes.size() == size) return OkStatus();
  return InvalidArgument("update has " + std::to_string(update.bytes.size()) +
                         " bytes, but its encoding has " +
                         std::to_string(size));
}

Status OutOfBounds(size_t range, size_t element, float value, double max_abs) {
  return InvalidArgument("tensor " + std::to_string(range) + ", element " +
                         std::to_string(element) + " is " + Text(value) +
                         ", but |value| < " + Text(max_abs) + " is required");
}

// Only the bounds of one range's values; the encoding has been checked.
Status CheckBounds(size_t range, double max_abs, const EncodedBlock& block) {
  const uint32_t bits_max = BitsMaxFor(max_abs);
  if (block.codec == CodecName::kTopK) {
    for (size_t i = 0; i < block.kept; ++i) {
      const float value = FloatAt(block.data, i);
      if (!(std::abs(double{value}) < max_abs)) {
        return OutOfBounds(range, IndexAt(block.indices, i), value, max_abs);
      }
    }
    return OkStatus();
  }
  std::array<float, kRotationBlock> piece;
  for (size_t begin = 0; begin < block.count; begin += piece.size()) {
    const size_t size = std::min(piece.size(), block.count - begin);
    DecodePiece(BestSimdLevel(), block, begin, size, piece.data());
    if (MaxAbsBits(BestSimdLevel(),
                   reinterpret_cast<const uint8_t*>(piece.data()),
                   size) <= bits_max) {
      continue;
    }
    for (size_t i = 0; i < size; ++i) {
      if (!(std::abs(double{piece[i]}) < max_abs)) {
        return OutOfBounds(range, begin + i, piece[i], max_abs);
      }
    }
  }
  return OkStatus();
}

// Encoding and bounds; the size is right. One pass unless something is wrong.
// Values of a rotated block are known only once it is decoded: without
// `with_late_bounds` that is left to whoever folds it.
Status CheckBlocks(const SumLayout& layout, const EncodedUpdate& update,
                   bool with_late_bounds) {
  const SimdLevel level = BestSimdLevel();
  BlockReader reader(update.codec, update.bytes.data());
  std::vector<EncodedBlock> blocks;
  blocks.reserve(layout.ranges.size());
  bool sound = true;
  for (const SumRange& range : layout.ranges) {
    blocks.push_back(reader.Next(range.count));
    sound = sound && IsSound(level, blocks.back(), BitsMaxFor(range.max_abs));
  }
  const bool late = update.codec.name == CodecName::kRotatedInt8;
  if (sound && !(late && with_late_bounds)) return OkStatus();
  // As Decode() does: all of the encoding first. (For float32 the bounds say it
  // all: NaN and infinity are out of them.)
  if (!sound && update.codec.name != CodecName::kFloat32) {
    for (size_t r = 0; r < blocks.size(); ++r) {
      SELVAGE_RETURN_IF_ERROR(CheckBlockEncoding(r, blocks[r]));
    }
  }
  for (size_t r = 0; r < blocks.size(); ++r) {
    SELVAGE_RETURN_IF_ERROR(
        CheckBounds(r, layout.ranges[r].max_abs, blocks[r]));
  }
  if (sound) return OkStatus();
  return Internal("an update changed while it was read");
}

// Updates of one codec that are folded together.
struct Group {
  CodecName codec = CodecName::kFloat32;
  std::vector<size_t> members;  // 1 to kFoldSourcesMax
};

// Codec by codec, as few groups as can be, of sizes as even as can be.
std::vector<Group> GroupsOf(std::span<const EncodedUpdate> updates) {
  std::vector<Group> groups;
  for (const CodecName codec : plan::kCodecNames) {
    std::vector<size_t> all;
    for (size_t u = 0; u < updates.size(); ++u) {
      if (updates[u].codec.name == codec) all.push_back(u);
    }
    for (size_t first = 0; first < all.size();) {
      const size_t left =
          (all.size() - first + kFoldSourcesMax - 1) / kFoldSourcesMax;
      const size_t size = (all.size() - first + left - 1) / left;
      const auto begin = all.begin() + static_cast<std::ptrdiff_t>(first);
      groups.push_back(
          {codec, {begin, begin + static_cast<std::ptrdiff_t>(size)}});
      first += size;
    }
  }
  return groups;
}

// A range and where every update has it.
struct RangeOfUpdates {
  FoldBound bound;
  size_t count = 0;
  size_t offset = 0;                 // in the sum
  std::vector<EncodedBlock> blocks;  // by update
};

// Whether an encoding can be checked a tile at a time while it is folded:
// memory is read once then. The bounds of float32 and bfloat16 say all about
// them, and Fold() looks at those; positions must be right before they are
// used.
bool IsCheckedByTile(CodecName codec) {
  return codec == CodecName::kFloat16 || codec == CodecName::kInt8;
}
bool IsCheckedByFold(CodecName codec) {
  return codec == CodecName::kFloat32 || codec == CodecName::kBFloat16;
}

// Stretches of the sum that are folded at a time, and what goes into them.
class Walk {
 public:
  Walk(const SumLayout& layout, std::span<const EncodedUpdate> updates,
       std::span<int64_t> sums)
      : updates_(updates), groups_(GroupsOf(updates)), sums_(sums) {
    std::vector<BlockReader> readers;
    readers.reserve(updates.size());
    for (const EncodedUpdate& update : updates) {
      readers.emplace_back(update.codec, update.bytes.data());
    }
    size_t offset = 0;
    for (size_t r = 0; r < layout.ranges.size(); ++r) {
      const SumRange& range = layout.ranges[r];
      RangeOfUpdates& all = ranges_.emplace_back();
      all.bound = BoundOf(range);
      all.count = range.count;
      all.offset = offset;
      for (BlockReader& reader : readers) {
        all.blocks.push_back(reader.Next(range.count));
      }
      for (size_t begin = 0; begin < range.count; begin += kTile) {
        tiles_.push_back({r, begin, std::min(kTile, range.count - begin)});
      }
      offset += range.count;
    }
    most_.resize(tiles_.size() * updates_.size());
  }

  size_t tile_count() const { return tiles_.size(); }

  // Adds the updates to tiles [first, last) (sign 1), or takes them away again
  // (sign -1). Stops in front of the first block with a value out of bounds,
  // always the same one, and returns whether there was none. Of different
  // tiles at the same time.
  bool Run(size_t first, size_t last, double sign) {
    for (size_t t = first; t < last; ++t) {
      for (const Group& group : groups_) {
        if (!IsTileSound(t, group)) return false;
        if (!Fold(tiles_[t], group, sign)) return false;
      }
    }
    return true;
  }

  // Once all tiles were run: what no tile tells by itself.
  bool AreExponentsSound() const {
    std::vector<uint16_t> most(ranges_.size() * updates_.size());
    for (size_t t = 0; t < tiles_.size(); ++t) {
      for (size_t u = 0; u < updates_.size(); ++u) {
        uint16_t& all = most[tiles_[t].range * updates_.size() + u];
        all = std::max(all, most_[t * updates_.size() + u]);
      }
    }
    for (size_t r = 0; r < ranges_.size(); ++r) {
      for (size_t u = 0; u < updates_.size(); ++u) {
        if (!IsExponentSound(ranges_[r].blocks[u],
                             most[r * updates_.size() + u])) {
          return false;
        }
      }
    }
    return true;
  }

 private:
  struct Tile {
    size_t range = 0;
    size_t begin = 0;  // in the range
    size_t size = 0;
  };

  // What Fold() does not see, just before it reads the same bytes again.
  bool IsTileSound(size_t t, const Group& group) {
    if (!IsCheckedByTile(group.codec)) return true;
    const Tile& tile = tiles_[t];
    const RangeOfUpdates& range = ranges_[tile.range];
    for (const size_t u : group.members) {
      if (!IsPieceSound(BestSimdLevel(), range.blocks[u], tile.begin, tile.size,
                        range.bound.bits_max, most_[t * updates_.size() + u])) {
        return false;
      }
    }
    return true;
  }

  bool Fold(const Tile& tile, const Group& group, double sign) const {
    const RangeOfUpdates& range = ranges_[tile.range];
    const std::span<int64_t> sums =
        sums_.subspan(range.offset + tile.begin, tile.size);
    if (group.codec == CodecName::kTopK) {
      for (const size_t u : group.members) {
        Scatter(range, tile, range.blocks[u], sign * updates_[u].weight, sums);
      }
      return true;
    }
    if (group.codec == CodecName::kRotatedInt8) {
      return FoldRotated(range, tile, group, sign, sums);
    }
    std::array<FoldSource, kFoldSourcesMax> sources;
    for (size_t m = 0; m < group.members.size(); ++m) {
      const size_t u = group.members[m];
      const EncodedBlock& block = range.blocks[u];
      sources[m] = {.data = block.data + tile.begin * ElementSize(group.codec),
                    .factor = block.factor,
                    .weight = sign * updates_[u].weight,
                    .scales = block.scales == nullptr
                                  ? nullptr
                                  : block.scales + tile.begin / kInt8Block * 2};
    }
    return aggregation::Fold(BestSimdLevel(), group.codec,
                             {sources.data(), group.members.size()},
                             range.bound, sums) == tile.size;
  }

  // Decodes a few runs at a time, which stay in the first-level cache.
  bool FoldRotated(const RangeOfUpdates& range, const Tile& tile,
                   const Group& group, double sign,
                   std::span<int64_t> sums) const {
    std::array<std::array<float, kRotationBlock>, kFoldSourcesMax> runs;
    std::array<FoldSource, kFoldSourcesMax> sources;
    for (size_t at = 0; at < tile.size; at += kRotationBlock) {
      const size_t size = std::min(kRotationBlock, tile.size - at);
      for (size_t m = 0; m < group.members.size(); ++m) {
        const size_t u = group.members[m];
        DecodePiece(BestSimdLevel(), range.blocks[u], tile.begin + at, size,
                    runs[m].data());
        sources[m] = {.data = reinterpret_cast<const uint8_t*>(runs[m].data()),
                      .weight = sign * updates_[u].weight};
      }
      if (aggregation::Fold(BestSimdLevel(), CodecName::kFloat32,
                            {sources.data(), group.members.size()}, range.bound,
                            sums.subspan(at, size)) < size) {
        return false;
      }
    }
    return true;
  }

  static void Scatter(const RangeOfUpdates& range, const Tile& tile,
                      const EncodedBlock& block, double weight,
                      std::span<int64_t> sums) {
    const auto whole = static_cast<int64_t>(weight);
    for (size_t i = FirstAtLeast(block, tile.begin); i < block.kept; ++i) {
      const size_t index = IndexAt(block.indices, i) - tile.begin;
      if (index >= tile.size) return;
      // |x * scale| <= 2^31, so 1.5 * 2^52 rounds it half to even (fold.h).
      const double scaled = double{FloatAt(block.data, i)} * range.bound.scale;
      sums[index] +=
          static_cast<int64_t>((scaled + 0x1.8p52) - 0x1.8p52) * whole;
    }
  }

  // The first kept element whose index is at least that.
  static size_t FirstAtLeast(const EncodedBlock& block, size_t index) {
    size_t low = 0;
    size_t high = block.kept;
    while (low < high) {
      const size_t middle = low + (high - low) / 2;
      if (IndexAt(block.indices, middle) < index) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }

  const std::span<const EncodedUpdate> updates_;
  const std::vector<Group> groups_;
  const std::span<int64_t> sums_;
  std::vector<RangeOfUpdates> ranges_;
  std::vector<Tile> tiles_;
  // Of each update in each tile, for IsExponentSound().
  std::vector<uint16_t> most_;
};

struct Header {
  uint64_t update_count = 0;
  uint64_t weight_sum = 0;
};

// What a serialized sum begins with, checked but for room for it in another
// one. The sums are the bytes after kHeaderSize (narrow.h).
Result<Header> ReadHeader(const SumLayout& layout, ByteSpan bytes) {
  if (bytes.size() < kHeaderSize) {
    return DataLoss("a serialized sum has at least " +
                    std::to_string(kHeaderSize) + " bytes, not " +
                    std::to_string(bytes.size()));
  }
  ByteReader reader(bytes);
  SELVAGE_ASSIGN_OR_RETURN(const auto magic, reader.Read<uint32_t>("magic"));
  SELVAGE_ASSIGN_OR_RETURN(const auto version,
                           reader.Read<uint32_t>("version"));
  SELVAGE_ASSIGN_OR_RETURN(const auto digest, reader.ReadBytes(32, "digest"));
  SELVAGE_ASSIGN_OR_RETURN(const auto update_count,
                           reader.Read<uint64_t>("update count"));
  SELVAGE_ASSIGN_OR_RETURN(const auto weight_sum,
                           reader.Read<uint64_t>("weight sum"));
  if (magic != kMagic) return DataLoss("these bytes are not a serialized sum");
  if (version != kVersion) {
    return DataLoss("serialized sum has version " + std::to_string(version) +
                    ", this program reads " + std::to_string(kVersion));
  }
  if (!std::ranges::equal(digest, DigestOf(layout).bytes)) {
    return DataLoss("serialized sum is of another layout");
  }
  if (update_count > layout.update_count_max) {
    return DataLoss("serialized sum counts " + std::to_string(update_count) +
                    " updates, but update_count_max is " +
                    std::to_string(layout.update_count_max));
  }
  if (weight_sum < update_count ||
      weight_sum > update_count * layout.weight_max) {
    return DataLoss("serialized sum has weight " + std::to_string(weight_sum) +
                    " for " + std::to_string(update_count) + " updates");
  }
  return Header{.update_count = update_count, .weight_sum = weight_sum};
}

// Sums, the first of which is element `first`, of updates that weigh so much.
Status CheckWithin(std::span<const int64_t> sums, size_t first,
                   uint64_t weight_sum) {
  const uint64_t bound = weight_sum << 31;
  // The sign says which ones are too large, without a comparison of 64 bits,
  // which not every processor makes of several at a time.
  uint64_t beyond = 0;
  for (const int64_t sum : sums) {
    const auto bits = static_cast<uint64_t>(sum);
    beyond |= (bound - bits) | (bound + bits);
  }
  if (static_cast<int64_t>(beyond) >= 0) return OkStatus();
  const auto most = static_cast<int64_t>(bound);
  for (size_t i = 0; i < sums.size(); ++i) {
    if (sums[i] >= -most && sums[i] <= most) continue;
    return DataLoss("serialized sum, element " + std::to_string(first + i) +
                    " is more than its weights can add up to");
  }
  return OkStatus();
}

Bytes SerializeHeader(const SumLayout& layout, uint64_t update_count,
                      uint64_t weight_sum) {
  Bytes out;
  out.reserve(kHeaderSize);
  AppendLe(out, kMagic);
  AppendLe(out, kVersion);
  AppendBytes(out, DigestOf(layout).span());
  AppendLe(out, update_count);
  AppendLe(out, weight_sum);
  return out;
}

// sum / weight, correctly rounded.
double Quotient(int64_t sum, uint64_t weight) {
  constexpr int64_t kExact = int64_t{1} << 53;
  if (sum >= -kExact && sum <= kExact) {
    return static_cast<double>(sum) / static_cast<double>(weight);
  }
  // weight < 2^32, so with 33 more bits the quotient has at least 54; its last
  // bit then only says whether anything follows.
  const uint64_t magnitude =
      sum < 0 ? 0 - static_cast<uint64_t>(sum) : static_cast<uint64_t>(sum);
  const Uint128 dividend = Uint128{magnitude} << 34;
  const Uint128 sticky = dividend % weight != 0 ? 1 : 0;
  const double quotient =
      static_cast<double>((dividend / weight) | sticky) * 0x1p-34;
  return sum < 0 ? -quotient : quotient;
}

}  // namespace

double ScaleFor(double max_abs) {
  int exponent = 0;
  const double fraction = std::frexp(max_abs, &exponent);
  const int scale_exponent = fraction == 0.5 ? 32 - exponent : 31 - exponent;
  return std::ldexp(1.0, std::min(scale_exponent, kScaleExponentMax));
}

size_t SumLayout::element_count() const {
  size_t count = 0;
  for (const SumRange& range : ranges) count += range.count;
  return count;
}

Status SumLayout::Validate() const {
  for (size_t r = 0; r < ranges.size(); ++r) {
    const double max_abs = ranges[r].max_abs;
    if (!(max_abs > 0 && max_abs <= kMaxAbsMax)) {
      return InvalidArgument("max_abs of tensor " + std::to_string(r) + " is " +
                             Text(max_abs) + ", not in (0, 2^24]");
    }
  }
  if (weight_max < 1 || weight_max > kWeightMax) {
    return InvalidArgument("weight_max " + std::to_string(weight_max) +
                           " is not in 1.." + std::to_string(kWeightMax));
  }
  if (update_count_max > kWeightSumMax / weight_max) {
    return InvalidArgument("weight_max (" + std::to_string(weight_max) +
                           ") * update_count_max (" +
                           std::to_string(update_count_max) +
                           ") * 2^31 exceeds 2^63 - 1: the sum could overflow");
  }
  return OkStatus();
}

std::vector<SumStretch> CutLayout(const SumLayout& layout, size_t size) {
  SELVAGE_CHECK(size > 0);
  std::vector<SumStretch> stretches;
  const auto begin = [&](size_t first) {
    SumStretch& stretch = stretches.emplace_back();
    stretch.first = first;
    stretch.layout.weight_max = layout.weight_max;
    stretch.layout.update_count_max = layout.update_count_max;
  };
  begin(0);
  size_t room = size;
  size_t first = 0;
  for (const SumRange& range : layout.ranges) {
    for (size_t left = range.count; left > 0;) {
      if (room == 0) {
        begin(first);
        room = size;
      }
      const size_t count = std::min(left, room);
      stretches.back().layout.ranges.push_back({count, range.max_abs});
      first += count;
      left -= count;
      room -= count;
    }
  }
  return stretches;
}

ExactSum::ExactSum(SumLayout layout)
    : layout_(std::move(layout)), sums_(layout_.element_count()) {}

Result<ExactSum> ExactSum::Create(SumLayout layout) {
  SELVAGE_RETURN_IF_ERROR(layout.Validate());
  return ExactSum(std::move(layout));
}

Status ExactSum::Check(const SumLayout& layout, const WeightedUpdate& update) {
  SELVAGE_RETURN_IF_ERROR(CheckWeight(layout, update.weight));
  SELVAGE_RETURN_IF_ERROR(CheckCount(layout, update.values.size()));
  return CheckBlocks(layout,
                     {.codec = CodecName::kFloat32,
                      .bytes = AsBytes(update.values),
                      .weight = update.weight},
                     /*with_late_bounds=*/true);
}

Status ExactSum::CheckEncoded(const SumLayout& layout,
                              const EncodedUpdate& update) {
  SELVAGE_RETURN_IF_ERROR(CheckWeight(layout, update.weight));
  SELVAGE_RETURN_IF_ERROR(CheckEncodedSize(layout, update));
  return CheckBlocks(layout, update, /*with_late_bounds=*/true);
}

Status ExactSum::Add(const WeightedUpdate& update) {
  return AddAll({&update, 1});
}

Status ExactSum::AddAll(std::span<const WeightedUpdate> updates,
                        Executor* executor) {
  SELVAGE_RETURN_IF_ERROR(CheckRoomFor(updates.size()));
  std::vector<EncodedUpdate> encoded;
  encoded.reserve(updates.size());
  for (size_t u = 0; u < updates.size(); ++u) {
    Status status = CheckWeight(layout_, updates[u].weight);
    if (status.ok()) status = CheckCount(layout_, updates[u].values.size());
    if (!status.ok()) {
      return status.WithContext("update " + std::to_string(u));
    }
    encoded.push_back({.codec = CodecName::kFloat32,
                       .bytes = AsBytes(updates[u].values),
                       .weight = updates[u].weight});
  }
  return FoldAll(encoded, executor);
}

Status ExactSum::AddAllEncoded(std::span<const EncodedUpdate> updates,
                               Executor* executor) {
  SELVAGE_RETURN_IF_ERROR(CheckRoomFor(updates.size()));
  for (size_t u = 0; u < updates.size(); ++u) {
    Status status = CheckWeight(layout_, updates[u].weight);
    if (status.ok()) status = CheckEncodedSize(layout_, updates[u]);
    const CodecName codec = updates[u].codec.name;
    if (status.ok() && !IsCheckedByTile(codec) && !IsCheckedByFold(codec)) {
      status = CheckBlocks(layout_, updates[u], /*with_late_bounds=*/false);
    }
    if (!status.ok()) {
      return status.WithContext("update " + std::to_string(u));
    }
  }
  return FoldAll(updates, executor);
}

Status ExactSum::CheckRoomFor(uint64_t count) const {
  if (count <= layout_.update_count_max - update_count_) return OkStatus();
  return ResourceExhausted("the sum holds " + std::to_string(update_count_) +
                           " updates; " + std::to_string(count) +
                           " more exceed update_count_max (" +
                           std::to_string(layout_.update_count_max) + ")");
}

Status ExactSum::FoldAll(std::span<const EncodedUpdate> updates,
                         Executor* executor) {
  Walk walk(layout_, updates, sums_);
  const size_t tiles = walk.tile_count();
  const size_t shards =
      executor == nullptr
          ? 1
          : std::max<size_t>(1, std::min(executor->concurrency(), tiles));
  std::vector<uint8_t> within(shards, 1);  // bytes: each is one thread's own
  const auto run = [&](size_t shard, double sign) {
    return walk.Run(tiles * shard / shards, tiles * (shard + 1) / shards, sign);
  };
  const auto run_all = [&](double sign) {
    const auto job = [&](size_t shard) { within[shard] = run(shard, sign); };
    if (shards == 1) {
      job(0);
    } else {
      executor->Run(shards, job);
    }
  };
  run_all(1);
  if (!std::ranges::all_of(within, [](uint8_t ok) { return ok != 0; }) ||
      !walk.AreExponentsSound()) {
    // Updates are checked while folding, which reads the updates once instead
    // of twice. Integers let us take back exactly what was added, and each
    // shard stops where it stopped before.
    run_all(-1);
    for (size_t u = 0; u < updates.size(); ++u) {
      const Status status =
          CheckBlocks(layout_, updates[u], /*with_late_bounds=*/true);
      if (!status.ok()) {
        return status.WithContext("update " + std::to_string(u));
      }
    }
    return Internal("an update changed while it was read");
  }
  update_count_ += updates.size();
  for (const EncodedUpdate& update : updates) weight_sum_ += update.weight;
  return OkStatus();
}

Status ExactSum::MergeWith(ExactSum&& other) {
  if (!(other.layout_ == layout_)) {
    return InvalidArgument("the two sums have different layouts");
  }
  SELVAGE_RETURN_IF_ERROR(CheckRoomFor(other.update_count_));
  for (size_t i = 0; i < sums_.size(); ++i) sums_[i] += other.sums_[i];
  update_count_ += other.update_count_;
  weight_sum_ += other.weight_sum_;
  return OkStatus();
}

uint64_t ExactSum::serialized_size() const {
  return kHeaderSize + NarrowSize(sums_);
}

Status ExactSum::SerializeTo(
    const std::function<Status(ByteSpan)>& sink) const {
  SELVAGE_RETURN_IF_ERROR(
      sink(SerializeHeader(layout_, update_count_, weight_sum_)));
  return WriteNarrow(sums_, sink);
}

Bytes ExactSum::Serialize() const {
  Bytes out;
  out.reserve(serialized_size());
  SELVAGE_CHECK(SerializeTo([&](ByteSpan piece) {
                  AppendBytes(out, piece);
                  return OkStatus();
                }).ok());
  return out;
}

Result<ExactSum> ExactSum::Parse(const SumLayout& layout, ByteSpan bytes) {
  SELVAGE_RETURN_IF_ERROR(layout.Validate());
  ExactSum sum(layout);
  SELVAGE_RETURN_IF_ERROR(sum.MergeSerialized(bytes));
  return sum;
}

Status ExactSum::AddSerialized(ByteSpan sums, uint64_t weight_sum) {
  size_t added = 0;
  const Status status = ReadNarrow(
      sums, sums_.size(), [&](std::span<const int64_t> block) -> Status {
        SELVAGE_RETURN_IF_ERROR(CheckWithin(block, added, weight_sum));
        for (size_t i = 0; i < block.size(); ++i) sums_[added + i] += block[i];
        added += block.size();
        return OkStatus();
      });
  if (status.ok()) return status;
  // Integers let us take back exactly what was added before it turned out.
  size_t next = 0;
  (void)ReadNarrow(sums, sums_.size(),
                   [&](std::span<const int64_t> block) -> Status {
                     if (next == added) return status;
                     for (const int64_t sum : block) sums_[next++] -= sum;
                     return OkStatus();
                   });
  return status;
}

Status ExactSum::MergeSerialized(ByteSpan bytes) {
  SELVAGE_ASSIGN_OR_RETURN(const Header header, ReadHeader(layout_, bytes));
  SELVAGE_RETURN_IF_ERROR(CheckRoomFor(header.update_count));
  SELVAGE_RETURN_IF_ERROR(
      AddSerialized(bytes.subspan(kHeaderSize), header.weight_sum));
  update_count_ += header.update_count;
  weight_sum_ += header.weight_sum;
  return OkStatus();
}

Result<std::vector<double>> ExactSum::FinishMean() && {
  if (weight_sum_ == 0) {
    return FailedPrecondition("there is no mean: the sum holds no update");
  }
  const std::vector<int64_t> sums = std::move(sums_);
  std::vector<double> means;
  means.reserve(sums.size());
  size_t next = 0;
  for (const SumRange& range : layout_.ranges) {
    const double step = 1 / ScaleFor(range.max_abs);
    for (const size_t end = next + range.count; next < end; ++next) {
      means.push_back(Quotient(sums[next], weight_sum_) * step);
    }
  }
  return means;
}

}  // namespace selvage::aggregation

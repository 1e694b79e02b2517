#include "examples/quickstart/partition.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <numbers>
#include <optional>

namespace selvage::quickstart {
namespace {

constexpr uint64_t kFileSizeMax = uint64_t{1} << 30;
constexpr uint8_t kUnsignedByte = 0x08;

uint32_t BigEndian(const Bytes& bytes, size_t offset) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value = value << 8 | bytes[offset + i];
  return value;
}

// An IDX file of unsigned bytes with `rank` dimensions; the values start at
// 4 + 4 rank.
Result<Bytes> ReadIdx(FileSystem& files, const Path& path, size_t rank) {
  SELVAGE_ASSIGN_OR_RETURN(Bytes bytes, ReadFile(files, path, kFileSizeMax));
  const size_t header = 4 + 4 * rank;
  if (bytes.size() < header || bytes[0] != 0 || bytes[1] != 0 ||
      bytes[2] != kUnsignedByte || bytes[3] != rank) {
    return InvalidArgument(path.string() + " is not an IDX file of rank " +
                           std::to_string(rank));
  }
  uint64_t size = 1;
  for (size_t i = 0; i < rank; ++i) size *= BigEndian(bytes, 4 + 4 * i);
  if (bytes.size() - header != size) {
    return InvalidArgument(path.string() + " has " +
                           std::to_string(bytes.size() - header) +
                           " values; its header says " + std::to_string(size));
  }
  return bytes;
}

Bytes IdxHeader(const std::vector<size_t>& dimensions) {
  Bytes out = {0, 0, kUnsignedByte, static_cast<uint8_t>(dimensions.size())};
  for (const size_t dimension : dimensions) {
    for (int shift = 24; shift >= 0; shift -= 8) {
      out.push_back(static_cast<uint8_t>(dimension >> shift));
    }
  }
  return out;
}

// Box and Muller, 1958.
double Normal(RandomSource& random) {
  const double u = 1 - UniformUnit(random);  // (0, 1]
  const double v = UniformUnit(random);
  return std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v);
}

double Gamma(double shape, RandomSource& random) {
  if (shape < 1) {
    const double boost = std::pow(1 - UniformUnit(random), 1 / shape);
    return Gamma(shape + 1, random) * boost;
  }
  const double d = shape - 1.0 / 3;
  const double c = 1 / std::sqrt(9 * d);
  while (true) {
    const double x = Normal(random);
    const double v = std::pow(1 + c * x, 3);
    if (v <= 0) continue;
    const double u = 1 - UniformUnit(random);
    if (std::log(u) < x * x / 2 + d - d * v + d * std::log(v)) return d * v;
  }
}

size_t SampleClass(const std::vector<double>& p, RandomSource& random) {
  double left = UniformUnit(random);
  for (size_t k = 0; k + 1 < p.size(); ++k) {
    if (left < p[k]) return k;
    left -= p[k];
  }
  return p.size() - 1;
}

// The images of each class in a shuffled order, handed out one by one.
class Pools {
 public:
  Pools(const std::vector<uint8_t>& labels, size_t classes,
        RandomSource& random)
      : pools_(classes), next_(classes, 0) {
    for (size_t i = 0; i < labels.size(); ++i) pools_[labels[i]].push_back(i);
    for (auto& pool : pools_) Shuffle(pool, random);
  }

  // nullopt if the class has no image at all.
  std::optional<size_t> Take(size_t label) {
    if (pools_[label].empty()) return std::nullopt;
    return pools_[label][next_[label]++ % pools_[label].size()];
  }

 private:
  std::vector<std::vector<size_t>> pools_;
  std::vector<size_t> next_;
};

std::vector<size_t> Draw(int count, const std::vector<double>& p, Pools& pools,
                         RandomSource& random) {
  std::vector<size_t> out;
  while (out.size() < static_cast<size_t>(count)) {
    if (const auto image = pools.Take(SampleClass(p, random))) {
      out.push_back(*image);
    }
  }
  return out;
}

Status WritePair(FileSystem& files, const Path& directory,
                 const std::string& kind, const std::vector<size_t>& images,
                 const LabelledImages& from) {
  Bytes x = IdxHeader({images.size(), from.rows, from.columns});
  Bytes y = IdxHeader({images.size()});
  for (const size_t image : images) {
    AppendBytes(x,
                ByteSpan(from.pixels)
                    .subspan(image * from.image_bytes(), from.image_bytes()));
    y.push_back(from.labels[image]);
  }
  SELVAGE_RETURN_IF_ERROR(
      WriteFileDurably(files, directory / (kind + "-x.idx"), x, 0644));
  return WriteFileDurably(files, directory / (kind + "-y.idx"), y, 0644);
}

}  // namespace

Result<LabelledImages> ReadLabelledImages(FileSystem& files, const Path& images,
                                          const Path& labels) {
  SELVAGE_ASSIGN_OR_RETURN(const Bytes x, ReadIdx(files, images, 3));
  SELVAGE_ASSIGN_OR_RETURN(const Bytes y, ReadIdx(files, labels, 1));
  LabelledImages out;
  out.rows = BigEndian(x, 8);
  out.columns = BigEndian(x, 12);
  out.pixels.assign(x.begin() + 16, x.end());
  out.labels.assign(y.begin() + 8, y.end());
  if (BigEndian(x, 4) != out.labels.size() || out.labels.empty()) {
    return InvalidArgument(images.string() + " has " +
                           std::to_string(BigEndian(x, 4)) + " images and " +
                           labels.string() + " " +
                           std::to_string(out.labels.size()) + " labels");
  }
  return out;
}

std::vector<double> SampleDirichlet(double alpha, size_t classes,
                                    RandomSource& random) {
  std::vector<double> p(classes);
  double sum = 0;
  for (double& value : p) {
    value = Gamma(alpha, random);
    sum += value;
  }
  for (double& value : p) value /= sum;
  return p;
}

std::vector<DeviceShare> Partition(const std::vector<uint8_t>& train_labels,
                                   const std::vector<uint8_t>& test_labels,
                                   const PartitionSpec& spec) {
  const size_t classes =
      size_t{1} +
      std::max(*std::max_element(train_labels.begin(), train_labels.end()),
               *std::max_element(test_labels.begin(), test_labels.end()));
  SeededRandom shuffle(DeriveSeed(spec.seed, "pools", 0));
  Pools train(train_labels, classes, shuffle);
  Pools test(test_labels, classes, shuffle);
  std::vector<DeviceShare> out;
  const auto add = [&](const char* kind, int index) {
    SeededRandom random(
        DeriveSeed(spec.seed, kind, static_cast<uint64_t>(index)));
    char name[32];
    std::snprintf(name, sizeof name, "%s-%03d", kind, index);
    const std::vector<double> p = SampleDirichlet(spec.alpha, classes, random);
    DeviceShare share{name, {}, {}};
    share.train = Draw(spec.train_images, p, train, random);
    share.test = Draw(spec.test_images, p, test, random);
    out.push_back(std::move(share));
  };
  for (int i = 0; i < spec.devices; ++i) add("device", i);
  for (int i = 0; i < spec.newcomers; ++i) add("newcomer", i);
  return out;
}

Status WriteShare(FileSystem& files, const Path& directory,
                  const DeviceShare& share, const LabelledImages& train,
                  const LabelledImages& test) {
  const Path folder = directory / share.name;
  SELVAGE_RETURN_IF_ERROR(files.CreateDirectories(folder));
  SELVAGE_RETURN_IF_ERROR(
      WritePair(files, folder, "train", share.train, train));
  return WritePair(files, folder, "test", share.test, test);
}

}  // namespace selvage::quickstart

// Splits an image data set over devices so that each has a label distribution
// of its own: p ~ Dirichlet(alpha), and both its training and its test images
// are drawn by p (the partition of Hsu, Qi and Brown, 2019, by device).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/file_system.h"
#include "base/random.h"
#include "base/status.h"

namespace selvage::quickstart {

struct LabelledImages {
  uint32_t rows = 0;
  uint32_t columns = 0;
  Bytes pixels;                 // one image after the other
  std::vector<uint8_t> labels;  // one per image

  size_t image_bytes() const { return size_t{rows} * columns; }
};

// Two files of the MNIST family (IDX, unsigned bytes). INVALID_ARGUMENT if they
// are not, or do not belong together.
Result<LabelledImages> ReadLabelledImages(FileSystem& files, const Path& images,
                                          const Path& labels);

struct PartitionSpec {
  int devices = 30;
  int newcomers = 5;
  int train_images = 60;  // per device
  int test_images = 100;
  double alpha = 0.5;
  uint64_t seed = 1;
};

// Indices into the two sets.
struct DeviceShare {
  std::string name;  // device-000, ..., newcomer-000, ...
  std::vector<size_t> train;
  std::vector<size_t> test;
};

// A point of the simplex with `classes` corners, by Gamma(alpha) deviates
// (Marsaglia and Tsang, 2000).
std::vector<double> SampleDirichlet(double alpha, size_t classes,
                                    RandomSource& random);

// Depends on the labels, the spec and nothing else. No image is given out twice
// until a class is used up; then that class starts again from the beginning.
// Every device draws from its own stream, so a larger fleet leaves the
// distributions of the first devices as they are.
std::vector<DeviceShare> Partition(const std::vector<uint8_t>& train_labels,
                                   const std::vector<uint8_t>& test_labels,
                                   const PartitionSpec& spec);

// Writes DIRECTORY/NAME/{train,test}-{x,y}.idx.
Status WriteShare(FileSystem& files, const Path& directory,
                  const DeviceShare& share, const LabelledImages& train,
                  const LabelledImages& test);

}  // namespace selvage::quickstart

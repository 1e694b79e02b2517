// Readers of the data sets with natural users that docs/benchmarks.md reports
// on. Each takes the set's own files, unpacked; INVALID_ARGUMENT names what is
// wrong in them, and where.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"
#include "examples/users/shares.h"

namespace selvage::users {

// How many users become devices and newcomers, and everything random.
struct Sample {
  size_t devices = 0;
  size_t newcomers = 0;
  uint64_t seed = 1;
};

// Devices first, then newcomers.
using Users = std::vector<User>;

// UCI HAR (Anguita et al., 2013), repacked: `index` is the CSV
// subject,activity,split,start_row,rows, and `series` has 9 little-endian int16
// a row (value / 5000): accelerometer, the same without gravity, gyroscope. The
// original split decides: subjects of `train` are devices, of `test` newcomers.
// Examples are float32 [channels, 128], windows of 2.56 s that half overlap; of
// each activity a subject's first 60 % are for training and what follows the
// next window, which overlaps them, for tests. `channels`: the first so many.
struct ActivityUsers {
  Users users;
  size_t devices = 0;
};
Result<ActivityUsers> ReadActivity(std::string_view index, ByteSpan series,
                                   uint32_t channels);

// WISDM 1.1, transformed (Kwapisz et al., 2010): the ARFF file. Examples are
// float32 [43], a missing peak distance is 0. Newcomers are drawn; of each
// activity a user's first 60 % are for training.
Result<Users> ReadWisdm(std::string_view arff, const Sample& sample);

// MNIST by writer: IDX files of images and labels, and a little-endian uint16
// writer per image (QMNIST; Yadav and Bottou, 2019). Draws writers with at
// least 100 images; 60 % of a writer's images, drawn, are for training.
// Examples are u8 [1, rows, columns].
Result<Users> ReadWriters(ByteSpan images, ByteSpan labels, ByteSpan writers,
                          const Sample& sample);

// Shakespeare's roles: lines PLAY, ROLE, JSON string, separated by tabs. Draws
// roles with at least 5,000 characters. An example is 80 characters and, as y,
// the character that follows each of them; the first 80 % of a role's examples
// are for training. Of both parts, the first `train_max` and `test_max` are
// taken. A character c is code c - 31 (so from 1 to 95), a new line 0, any
// foreign one that of '?'.
struct RoleSizes {
  size_t train_max = 100;
  size_t test_max = 40;
};
Result<Users> ReadRoles(std::string_view tsv, const RoleSizes& sizes,
                        const Sample& sample);

}  // namespace selvage::users

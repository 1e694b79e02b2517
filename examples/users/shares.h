// Data sets whose users are real, as one folder a device. A reader of a data
// set makes a User of each, with training and test examples kept apart; the
// first devices take part in rounds, newcomers come afterwards.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/file_system.h"
#include "base/random.h"
#include "base/status.h"

namespace selvage::users {

// One input of a program, example after example: an IDX file in the making.
class Column {
 public:
  enum class Type : uint8_t { kBytes = 0x08, kFloats = 0x0D };

  // `shape` is that of one example; {} for one value, such as a label.
  Column(Type type, std::vector<uint32_t> shape);

  // One example. REQUIRES: as many values as the shape says, of the type.
  void Add(std::span<const float> values);
  void Add(ByteSpan values);

  uint32_t count() const { return count_; }
  // The IDX file: header, then big-endian values.
  Bytes Encode() const;

 private:
  const Type type_;
  const std::vector<uint32_t> shape_;
  size_t size_ = 1;  // values of one example
  uint32_t count_ = 0;
  Bytes values_;
};

struct Examples {
  Column x;
  Column y;
};

struct User {
  std::string name;  // in the data set
  Examples train;
  Examples test;
};

// How many of `count` examples are for training, 60 in 100, where they come in
// the order of time: the rest, which is later, is for tests. At least one is
// for training if there is any.
size_t TrainCount(size_t count);

// `count` of 0..size-1, drawn without replacement in a shuffled order.
// REQUIRES: count <= size.
std::vector<size_t> Draw(size_t size, size_t count, RandomSource& random);

// Writes DIRECTORY/{device,newcomer}-NNN/{train,test}-{x,y}.idx, the first
// `devices` users as devices. FAILED_PRECONDITION names a user without training
// or test examples.
Status WriteUsers(FileSystem& files, const Path& directory,
                  const std::vector<User>& users, size_t devices);

}  // namespace selvage::users

#include "examples/users/shares.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <numeric>

#include "base/check.h"

namespace selvage::users {
namespace {

void AppendBigEndian(Bytes& out, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) {
    out.push_back(static_cast<uint8_t>(value >> shift));
  }
}

Status WriteExamples(FileSystem& files, const Path& folder,
                     const std::string& kind, const Examples& examples) {
  SELVAGE_RETURN_IF_ERROR(WriteFileDurably(files, folder / (kind + "-x.idx"),
                                           examples.x.Encode(), 0644));
  return WriteFileDurably(files, folder / (kind + "-y.idx"),
                          examples.y.Encode(), 0644);
}

}  // namespace

Column::Column(Type type, std::vector<uint32_t> shape)
    : type_(type), shape_(std::move(shape)) {
  for (const uint32_t dimension : shape_) size_ *= dimension;
}

void Column::Add(std::span<const float> values) {
  SELVAGE_CHECK(type_ == Type::kFloats && values.size() == size_);
  for (const float value : values) {
    AppendBigEndian(values_, std::bit_cast<uint32_t>(value));
  }
  ++count_;
}

void Column::Add(ByteSpan values) {
  SELVAGE_CHECK(type_ == Type::kBytes && values.size() == size_);
  AppendBytes(values_, values);
  ++count_;
}

Bytes Column::Encode() const {
  Bytes out = {0, 0, static_cast<uint8_t>(type_),
               static_cast<uint8_t>(shape_.size() + 1)};
  AppendBigEndian(out, count_);
  for (const uint32_t dimension : shape_) AppendBigEndian(out, dimension);
  AppendBytes(out, values_);
  return out;
}

size_t TrainCount(size_t count) {
  return count == 0 ? 0 : std::max<size_t>(1, count * 60 / 100);
}

std::vector<size_t> Draw(size_t size, size_t count, RandomSource& random) {
  SELVAGE_CHECK(count <= size);
  std::vector<size_t> out(size);
  std::iota(out.begin(), out.end(), size_t{0});
  Shuffle(out, random);
  out.resize(count);
  return out;
}

Status WriteUsers(FileSystem& files, const Path& directory,
                  const std::vector<User>& users, size_t devices) {
  for (size_t i = 0; i < users.size(); ++i) {
    const User& user = users[i];
    if (user.train.x.count() == 0 || user.test.x.count() == 0) {
      return FailedPrecondition(
          "user " + user.name + " has " + std::to_string(user.train.x.count()) +
          " training and " + std::to_string(user.test.x.count()) +
          " test examples");
    }
    char name[32];
    std::snprintf(name, sizeof name, "%s-%03zu",
                  i < devices ? "device" : "newcomer",
                  i < devices ? i : i - devices);
    const Path folder = directory / name;
    SELVAGE_RETURN_IF_ERROR(files.CreateDirectories(folder));
    SELVAGE_RETURN_IF_ERROR(WriteExamples(files, folder, "train", user.train));
    SELVAGE_RETURN_IF_ERROR(WriteExamples(files, folder, "test", user.test));
  }
  return OkStatus();
}

}  // namespace selvage::users

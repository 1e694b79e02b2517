// What the examples of a spool look like and where they stand in a table: a
// JSON document, described in docs/embedding.md, "The agent".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"
#include "client/capi/selvage.hpp"

namespace selvage::agent {

// Of one example, without timestamp and key.
inline constexpr size_t kExampleSizeMax = 16 << 20;

struct ImageSpec {
  int64_t width = 0;  // what every image must have; nothing is resized
  int64_t height = 0;
  int64_t channels = 1;  // 1: grey, 3: red, green, blue
  bool channels_first = true;
};

// One input of the program. (raw * scale - mean) / std, in double; of float32
// only.
struct TensorSpec {
  std::string name;
  int32_t dtype = SELVAGE_F32;
  std::vector<int64_t> shape;
  // Of a table; "a..b" is every column from a to b. An image: the one column
  // that has its file's name.
  std::vector<std::string> columns;
  std::optional<ImageSpec> image;
  double scale = 1;
  // One for all, or one for each column or channel.
  std::vector<double> mean = {0};
  std::vector<double> std = {1};
  // Not empty: the cell is one of these names, the value its index.
  std::vector<std::string> classes;

  uint64_t Count() const;  // elements
  uint64_t Size() const;   // bytes
};

struct Manifest {
  std::string collection;
  std::vector<TensorSpec> tensors;  // the program's inputs, in order
  std::string table = "data.csv";   // in a folder, beside the manifest
  char delimiter = ',';
  std::string timestamp_column;  // empty: when it is imported
  int64_t timestamp_unit_us = 1'000'000;
  bool local_only = false;
  int64_t ttl_ms = 0;  // bounds of the collection; 0: none
  uint64_t count_max = 0;
  uint64_t bytes_max = 0;

  // With the schema and the bounds.
  host::Collection Declaration() const;
};

// INVALID_ARGUMENT names the key, its value and the bound. Unknown keys are
// refused. Bounds: 16 tensors, 65,536 columns, 16 MiB an example.
Result<Manifest> ParseManifest(std::string_view text);

size_t SizeOfDType(int32_t dtype);
std::string_view DTypeName(int32_t dtype);
// "float32", "int64", "uint8".
std::optional<int32_t> DTypeOf(std::string_view name);

// One example on its way into a collection.
struct SpooledExample {
  std::vector<Bytes> tensors;
  std::optional<int64_t> timestamp_us;
  bool local_only = false;
};

// Gives the examples of one file, first to last. Thread-compatible.
class ExampleReader {
 public:
  virtual ~ExampleReader() = default;
  // nullopt: there are no more. INVALID_ARGUMENT and others name the place.
  virtual Result<std::optional<SpooledExample>> Next() = 0;
};

}  // namespace selvage::agent

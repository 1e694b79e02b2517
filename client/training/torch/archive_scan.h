// The directory of a TorchScript archive: a zip file as PyTorch writes it.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "base/bytes.h"
#include "base/status.h"

namespace selvage::client::torch_engine {

struct ArchiveRecord {
  uint64_t size_bytes = 0;  // uncompressed
  bool compressed = false;
};

// Records by name, without the archive's own top folder ("model/code/..."
// becomes "code/..."). INVALID_ARGUMENT if it is not such a file: no zip, two
// records of one name, more than one top folder, a record that a TorchScript
// module does not have, tensors that are compressed, or sizes that the file
// cannot hold (compressed records: 16 MiB each, 64 MiB together).
Result<std::map<std::string, ArchiveRecord>> ReadArchiveDirectory(
    ByteSpan archive);

}  // namespace selvage::client::torch_engine

// Reads the pickles of a TorchScript archive without building anything, so that
// a file which lies about its storages is refused before LibTorch trusts it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>

#include "base/bytes.h"
#include "base/status.h"

namespace selvage::client::torch_engine {

// Bytes of the storage `key` (a number) beside this pickle; nullopt if there is
// none.
using StorageSize =
    std::function<std::optional<uint64_t>(std::string_view key)>;

// INVALID_ARGUMENT names the pickle, the position and what is wrong: an opcode
// or a global that a TorchScript module does not need, a storage that is larger
// than its record or not on the CPU, a tensor that reaches outside its storage,
// containers nested more than 100 deep.
Status ScanPickle(std::string_view name, ByteSpan pickle,
                  const StorageSize& storage_size);

}  // namespace selvage::client::torch_engine

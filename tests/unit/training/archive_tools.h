// Taking TorchScript archives apart and putting them together again.
#pragma once

#include <map>
#include <string>

#include "base/bytes.h"

namespace selvage::test {

// Records without the top folder, e.g. "data.pkl"; `version` is left out, the
// writer adds its own.
std::map<std::string, std::string> UnpackArchive(ByteSpan archive);

// `compress_tensors` packs what must not be packed.
Bytes PackArchive(const std::map<std::string, std::string>& records,
                  bool compress_tensors = false);

}  // namespace selvage::test

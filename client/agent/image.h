// Images of examples: PNG, baseline and progressive JPEG, binary PGM and PPM.
#pragma once

#include "base/bytes.h"
#include "base/status.h"
#include "client/agent/manifest.h"

namespace selvage::agent {

// 8-bit samples, [height, width, channels]: grey if `wanted` has one channel,
// else red, green, blue; transparency is taken away over black. The size is
// read and compared before anything is decoded. INVALID_ARGUMENT: another size,
// no such format, damaged.
Result<Bytes> DecodeImage(ByteSpan file, const ImageSpec& wanted);

}  // namespace selvage::agent

// Parts of the library that are opened when they are needed.
#pragma once

#include <string>

#include "base/status.h"

namespace selvage::capi {

// The address of `symbol` in `file`. A file name without a folder is looked for
// beside the object that this code is in, then where the dynamic loader does.
// What was opened stays in the process (gRPC and LibTorch cannot be unloaded)
// and gives its names to nobody else. FAILED_PRECONDITION says what is missing.
Result<void*> OpenSharedObject(const std::string& file, const char* symbol);

}  // namespace selvage::capi

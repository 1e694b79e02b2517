// An engine in a shared object of its own, opened when it is first needed.
#pragma once

#include <memory>

#include "base/file_system.h"
#include "base/log.h"
#include "client/core/trainer.h"

namespace selvage::capi {

// `file`: empty for LibTorch's, beside the object that this code is in, or
// where the dynamic loader finds it. What cannot be opened is
// FAILED_PRECONDITION at Load(), a warning, and no engines() at all; the next
// call tries again. An engine that was opened stays in the process. `events`
// must outlive it. Thread-safe.
std::unique_ptr<client::Trainer> MakePluginTrainer(Path file,
                                                   EventSink& events);

}  // namespace selvage::capi

// The engine seam in C, both ways: a C table of functions as a Trainer, and a
// Trainer as a C table.
//
// Values and examples are copied at the border: the two sides may come from
// different compilers, and neither frees what the other allocated.
#pragma once

#include <memory>

#include "base/status.h"
#include "client/capi/selvage.h"
#include "client/core/trainer.h"

namespace selvage::capi {

// INVALID_ARGUMENT names the function that is missing.
Status ValidateEngine(const selvage_engine& engine);

// A Trainer that calls `engine`, which it closes when it goes away. What an
// engine returns is checked for its size and for being finite, never trusted.
// REQUIRES: ValidateEngine(engine).ok().
std::unique_ptr<client::Trainer> MakeEngineTrainer(
    const selvage_engine& engine);

// Fills in `engine` (struct_size included) with functions that call `trainer`;
// engine->close destroys it. No exception leaves them.
void ExportTrainer(std::unique_ptr<client::Trainer> trainer,
                   selvage_engine* engine);

// The text of `status` and its code, as engines report them.
selvage_code ReportTo(selvage_engine_error* error, const Status& status);

}  // namespace selvage::capi

// Running another program and reading what it prints.
#pragma once

#include <string>
#include <vector>

#include "base/file_system.h"
#include "base/status.h"
#include "cli/interrupt.h"

namespace selvage::cli {

struct ProcessOutcome {
  int exit_code = 0;  // 128 + the signal if one ended it
  std::string out;    // at most 16 MiB of each; the rest is dropped
  std::string err;
};

// Starts `arguments[0]` (a path) without a shell, standard input empty and no
// signal blocked, and waits. An interrupt ends the program with SIGTERM.
// Errors: NOT_FOUND if it cannot be started; CANCELLED after an interrupt;
// INTERNAL.
Result<ProcessOutcome> RunProcess(const std::vector<std::string>& arguments,
                                  Interrupt& interrupt);

}  // namespace selvage::cli

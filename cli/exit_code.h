// What the process tells its caller (docs/cli.md, "Exit codes").
#pragma once

#include "base/status.h"

namespace selvage::cli {

enum class ExitCode : int {
  kOk = 0,
  kGeneric = 1,       // anything without a number of its own
  kUsage = 2,         // the command line or a file given to it is wrong
  kAuth = 3,          // no, wrong or insufficient credentials
  kNotFound = 4,      // the named thing does not exist
  kConflict = 5,      // it exists already, or changed meanwhile
  kPrecondition = 6,  // not in the state that this needs
  kTimeout = 7,       // the time given with --timeout is over
  kUnavailable = 8,   // the coordinator cannot be reached or is overloaded
  kInterrupted = 130,
};

ExitCode ExitCodeOf(StatusCode code);

}  // namespace selvage::cli

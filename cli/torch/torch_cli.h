// The command line of selvage-torch as one call, so that tests run it in
// memory.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "cli/exit_code.h"

namespace selvage::cli {

// `arguments` without the program's name. Data goes to `out` as text or, under
// -o json, as the envelope of `selvage` (docs/cli.md); one line about an error
// to `err`.
ExitCode RunTorchCli(const std::vector<std::string>& arguments,
                     FileSystem& files, std::ostream& out, std::ostream& err);

}  // namespace selvage::cli

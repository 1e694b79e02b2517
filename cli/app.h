// The whole command line as one call.
#pragma once

#include <string>
#include <vector>

#include "cli/environment.h"
#include "cli/exit_code.h"

namespace selvage::cli {

// `arguments` without the program's name.
ExitCode RunCli(const std::vector<std::string>& arguments,
                Environment& environment);

}  // namespace selvage::cli

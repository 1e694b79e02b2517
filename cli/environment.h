// Everything the command line reads from or writes to the process around it,
// so that tests run verbs in memory.
#pragma once

#include <functional>
#include <istream>
#include <optional>
#include <ostream>
#include <string>

#include "base/file_system.h"
#include "base/random.h"
#include "base/time.h"
#include "cli/interrupt.h"

namespace selvage::cli {

using GetEnv = std::function<std::optional<std::string>(const std::string&)>;

// References must outlive the verb.
struct Environment {
  std::istream& in;
  std::ostream& out;  // data
  std::ostream& err;  // messages
  bool in_is_terminal = false;
  bool out_is_terminal = false;
  size_t width = 80;  // columns of the terminal
  GetEnv get_env;
  Clock& clock;
  RandomSource& random;
  FileSystem& files;
  Interrupt& interrupt;
  Path program_directory;  // where this binary lies: selvage-torch's neighbour
};

}  // namespace selvage::cli

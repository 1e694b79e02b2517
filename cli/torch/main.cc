#include <iostream>

#include "base/file_system.h"
#include "cli/torch/torch_cli.h"

int main(int argc, char** argv) {
  selvage::PosixFileSystem files;
  const selvage::cli::ExitCode code = selvage::cli::RunTorchCli(
      {argv + 1, argv + argc}, files, std::cout, std::cerr);
  std::cout.flush();
  return static_cast<int>(code);
}

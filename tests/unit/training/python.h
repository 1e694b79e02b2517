// Python's side of TorchScript, where python3-torch is installed.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace selvage::test {

struct PythonRun {
  int exit_code = 0;
  std::string out;  // standard output and error
};

// False without python3-torch.
bool HavePythonTorch();

// Runs python3 with these arguments.
PythonRun RunPython(const std::vector<std::string>& arguments);

}  // namespace selvage::test

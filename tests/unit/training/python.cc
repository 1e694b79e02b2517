#include "tests/unit/training/python.h"

#include <sys/wait.h>

#include <array>
#include <cstdio>

#include "base/check.h"

namespace selvage::test {

PythonRun RunPython(const std::vector<std::string>& arguments) {
  // No sanitizer runtime of ours in there; Debian's interpreter, which is the
  // one that python3-torch belongs to.
  std::string command = "env -u LD_PRELOAD /usr/bin/python3";
  for (const std::string& argument : arguments) {
    std::string quoted;
    for (const char c : argument) {
      quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
    }
    command += " '" + quoted + "'";
  }
  command += " 2>&1";
  FILE* pipe = popen(command.c_str(), "r");
  SELVAGE_CHECK(pipe != nullptr);
  PythonRun run;
  std::array<char, 4096> buffer;
  size_t read = 0;
  while ((read = fread(buffer.data(), 1, buffer.size(), pipe)) > 0) {
    run.out.append(buffer.data(), read);
  }
  const int status = pclose(pipe);
  run.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
  return run;
}

bool HavePythonTorch() {
  static const bool have = RunPython({"-c", "import torch"}).exit_code == 0;
  return have;
}

}  // namespace selvage::test

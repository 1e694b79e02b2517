// Other programs, and other runs of this one, that a bench measures.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

namespace selvage::bench {

// Where this program and the shipped ones were built.
std::filesystem::path BinDirectory();

// Starts words[0], looked for in PATH if it has no slash, with its output and
// errors thrown away.
pid_t StartProcess(std::vector<std::string> words);

// Waits for its end; false unless it exited with 0.
bool WaitForProcess(pid_t pid);

}  // namespace selvage::bench

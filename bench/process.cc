#include "bench/process.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"

extern char** environ;

namespace selvage::bench {

std::filesystem::path BinDirectory() {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path();
}

pid_t StartProcess(std::vector<std::string> words) {
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null",
                                   O_WRONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null",
                                   O_WRONLY, 0);
  pid_t pid = -1;
  SELVAGE_CHECK(posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(),
                             environ) == 0);
  posix_spawn_file_actions_destroy(&actions);
  return pid;
}

bool WaitForProcess(pid_t pid) {
  int status = 0;
  SELVAGE_CHECK(waitpid(pid, &status, 0) == pid);
  return status == 0;
}

}  // namespace selvage::bench

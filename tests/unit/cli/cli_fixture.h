// An Environment in memory for tests of the command line.
#pragma once

#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <sstream>
#include <string>

#include <gtest/gtest.h>

#include "base/file_system.h"
#include "base/random.h"
#include "cli/environment.h"
#include "tests/testing/fake_clock.h"

namespace selvage::test {

// An interrupt whose pauses are over at once.
class ImpatientInterrupt final : public cli::Interrupt {
 public:
  bool WaitFor(Duration) override { return triggered(); }
};

class CliFixture : public ::testing::Test {
 protected:
  CliFixture() {
    clock_.Advance(std::chrono::hours(24 * 365 * 56));
    directory_ =
        std::filesystem::path(::testing::TempDir()) /
        ("selvage-cli-" + std::to_string(::getpid()) + "-" +
         ::testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
    variables_["HOME"] = (directory_ / "home").string();
  }
  ~CliFixture() override { std::filesystem::remove_all(directory_); }

  cli::Environment MakeEnvironment() {
    return {.in = in_,
            .out = out_,
            .err = err_,
            .in_is_terminal = in_is_terminal_,
            .out_is_terminal = out_is_terminal_,
            .width = 80,
            .get_env =
                [this](const std::string& name) -> std::optional<std::string> {
              const auto found = variables_.find(name);
              if (found == variables_.end()) return std::nullopt;
              return found->second;
            },
            .clock = clock_,
            .random = random_,
            .files = files_,
            .interrupt = interrupt_,
            .program_directory = directory_ / "bin"};
  }

  // Returns the path.
  std::string Write(const std::string& name, const std::string& text) {
    const std::filesystem::path path = directory_ / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
    return path.string();
  }
  static std::string Read(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  std::filesystem::path directory_;
  std::istringstream in_;
  std::ostringstream out_;
  std::ostringstream err_;
  bool in_is_terminal_ = false;
  bool out_is_terminal_ = false;
  std::map<std::string, std::string> variables_;
  FakeClock clock_;
  SeededRandom random_{7};
  PosixFileSystem files_;
  ImpatientInterrupt interrupt_;
};

}  // namespace selvage::test

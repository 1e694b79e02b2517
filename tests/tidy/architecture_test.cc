// The dependency arrows of ARCHITECTURE.md, as a test.
//
// Every #include "x/y.h" in a layer's folder must point at the layer itself or
// at one it may use. The include path is the repository root, so the compiler
// alone would let any file reach any other.
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>

#include <gtest/gtest.h>

namespace {

namespace fs = std::filesystem;

// Folder -> the other layers it may include. A file belongs to the longest
// folder that contains it, so coordinator/store is not part of coordinator.
const std::map<std::string, std::set<std::string>> kMayInclude = {
    {"base", {}},
    {"aggregation", {"base"}},
    {"aggregation/secure", {"base"}},
    {"coordinator", {"base", "aggregation"}},
    {"coordinator/store", {"base", "coordinator"}},
    {"client/capi", {"base"}},
};

// "" if `path` is in no layer.
std::string LayerOf(const std::string& path) {
  std::string best;
  for (const auto& [folder, unused] : kMayInclude) {
    if (path.starts_with(folder + "/") && folder.size() > best.size()) {
      best = folder;
    }
  }
  return best;
}

void CheckFile(const fs::path& file, const std::string& name) {
  static const std::regex kInclude(R"rx(^#include "([^"]+)")rx");
  const std::string from = LayerOf(name);
  ASSERT_NE(from, "") << name << " is in no layer";
  std::ifstream in(file);
  int number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    std::smatch match;
    if (!std::regex_search(line, match, kInclude)) continue;
    const std::string to = LayerOf(match[1]);
    EXPECT_TRUE(to == from || kMayInclude.at(from).contains(to))
        << name << ":" << number << ": " << from << " must not include "
        << match[1];
  }
}

TEST(ArchitectureTest, IncludesFollowTheArrows) {
  const fs::path root = SELVAGE_SOURCE_DIR;
  int files = 0;
  for (const std::string top :
       {"base", "aggregation", "client", "coordinator"}) {
    for (const auto& entry : fs::recursive_directory_iterator(root / top)) {
      const auto extension = entry.path().extension();
      if (extension != ".h" && extension != ".cc") continue;
      ++files;
      CheckFile(entry.path(), fs::relative(entry.path(), root).string());
    }
  }
  EXPECT_GT(files, 0);
}

}  // namespace

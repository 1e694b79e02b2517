// The dependency arrows of ARCHITECTURE.md, as a test.
//
// Every #include of another layer must follow the table below, and every
// third-party header must be where its rule says. The include path is the
// repository root, so the compiler alone would let any file reach any other.
// Changing an arrow is a change here and in ARCHITECTURE.md.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Folder -> the other layers it may include. A file belongs to the longest
// folder that contains it, so coordinator/store is not part of coordinator.
const std::map<std::string, std::set<std::string>> kMayInclude = {
    {"base", {}},
    {"crypto", {"base"}},
    {"plan", {"base", "crypto"}},
    {"proto", {}},

    {"aggregation", {"aggregation/codec", "base", "crypto", "plan"}},
    {"aggregation/codec", {"aggregation", "base", "crypto", "plan"}},
    {"aggregation/robust", {"base", "plan"}},
    {"aggregation/secure", {"base", "crypto", "plan"}},

    {"client/core",
     {"aggregation", "aggregation/codec", "base", "crypto", "plan"}},
    {"client/training", {"base", "client/core", "crypto", "plan"}},
    {"client/training/torch",
     {"base", "client/capi/engine", "client/core", "client/training", "crypto",
      "plan"}},
    {"client/store", {"base", "client/core", "crypto", "plan"}},
    {"client/rpc", {"base", "client/core", "crypto", "plan", "proto"}},
    {"client",
     {"aggregation", "aggregation/codec", "base", "client/core", "client/rpc",
      "client/store", "client/training", "client/training/torch", "crypto",
      "plan"}},
    // Of client/capi, selvage.h alone.
    {"client/capi/engine", {"base", "client/capi", "client/core", "plan"}},
    {"client/capi",
     {"base", "client", "client/capi/engine", "client/core", "client/rpc",
      "crypto", "plan"}},
    // A host like any other: of client/capi, selvage.h and selvage.hpp alone.
    {"client/agent", {"base", "client/capi"}},

    {"coordinator",
     {"aggregation", "aggregation/codec", "aggregation/robust", "base",
      "crypto", "plan"}},
    {"coordinator/store", {"base", "coordinator", "crypto", "plan"}},
    {"coordinator/postgres",
     {"base", "coordinator", "coordinator/store", "crypto", "plan"}},
    {"coordinator/telemetry", {"base", "coordinator", "crypto", "plan"}},
    {"coordinator/rpc", {"base", "coordinator", "crypto", "plan", "proto"}},
    {"coordinator/server",
     {"aggregation", "aggregation/codec", "base", "coordinator",
      "coordinator/postgres", "coordinator/rpc", "coordinator/store",
      "coordinator/telemetry", "crypto", "plan", "proto"}},

    {"cli", {"base", "crypto", "plan", "proto"}},
    {"cli/torch",
     {"base", "cli", "client/agent", "client/core", "client/training",
      "client/training/torch", "crypto", "plan"}},
};

// Where a third-party library may be included: paths are matched as ECMAScript
// regular expressions against the whole path of the including file.
struct LibraryRule {
  std::string name;
  std::regex header;  // matched at the beginning of what is included
  std::regex files;
};

const std::vector<LibraryRule>& LibraryRules() {
  static const std::vector<LibraryRule> rules = {
      // TLS 1.3 is a setting of OpenSSL that gRPC does not pass on; `selvage
      // doctor` looks at a server's chain.
      {"OpenSSL", std::regex("openssl/"),
       std::regex("crypto/[^/]+\\.cc|crypto/openssl_ptr\\.h|"
                  "(coordinator/server|client/rpc)/.+\\.cc|"
                  "cli/tls_probe\\.cc")},
      {"SQLite", std::regex("sqlite3|SQLiteCpp/"),
       std::regex("(client|coordinator)/store/.+\\.cc")},
      {"libpq", std::regex("libpq"),
       std::regex("coordinator/postgres/.+\\.cc")},
      {"cpp-httplib and prometheus-cpp", std::regex("httplib\\.h|prometheus/"),
       std::regex("coordinator/telemetry/.+\\.cc")},
      {"yaml-cpp", std::regex("yaml-cpp/"),
       std::regex("(plan|coordinator/server|client/agent|cli)/.+\\.cc")},
      {"nlohmann-json (forward declarations)",
       std::regex("nlohmann/json_fwd\\.hpp"),
       std::regex("(plan|client|coordinator|cli)/.+")},
      {"nlohmann-json", std::regex("nlohmann/"),
       std::regex("(plan|client|coordinator|cli)/.+\\.cc")},
      {"Eigen", std::regex("Eigen/"), std::regex("aggregation/.+\\.cc")},
      {"gRPC and Protobuf",
       std::regex("grpc/|grpcpp/|google/protobuf/|google/rpc/|absl/"),
       std::regex("((client|coordinator)/rpc|coordinator/server|cli)/.+")},
      {"CLI11", std::regex("CLI/"),
       std::regex("(coordinator/server|client/agent|cli)/.+\\.cc")},
      {"libpng and TurboJPEG", std::regex("png\\.h|turbojpeg\\.h"),
       std::regex("client/agent/image\\.cc")},
      {"LibTorch", std::regex("torch/|ATen/|c10/|caffe2/"),
       std::regex("(client/training/torch|cli/torch)/.+")},
      {"the system", std::regex("sys/|arpa/|netinet/|net/|linux/"),
       std::regex(".+")},
  };
  return rules;
}

// The layer a file of this repository belongs to; "" if none.
std::string LayerOf(const std::string& path) {
  // Generated from proto/selvage/v1.
  if (path.starts_with("selvage/v1/")) return "proto";
  std::string best;
  for (const auto& [folder, unused] : kMayInclude) {
    if (path.starts_with(folder + "/") && folder.size() > best.size()) {
      best = folder;
    }
  }
  return best;
}

// "" if `from` may include its own layer's or another layer's file `to`.
std::string WhyNotLayer(const std::string& from, const std::string& to) {
  const std::string from_layer = LayerOf(from);
  const std::string to_layer = LayerOf(to);
  if (to_layer.empty()) return to + " is in no layer";
  if (to_layer != from_layer &&
      !kMayInclude.at(from_layer).contains(to_layer)) {
    return from_layer + " must not include " + to;
  }
  // x/internal/ is for x alone.
  const size_t internal = to.find("/internal/");
  if (internal != std::string::npos &&
      !from.starts_with(to.substr(0, internal + 1))) {
    return to + " is internal";
  }
  return "";
}

// "" if `from` may include the system or third-party header `header`.
std::string WhyNotLibrary(const std::string& from, const std::string& header) {
  for (const LibraryRule& rule : LibraryRules()) {
    if (!std::regex_search(header, rule.header,
                           std::regex_constants::match_continuous)) {
      continue;
    }
    return std::regex_match(from, rule.files)
               ? ""
               : rule.name + " must not be included here (" + header + ")";
  }
  // The standard library and POSIX have no folders but those above.
  return header.find('/') == std::string::npos
             ? ""
             : "no rule for the library of " + header;
}

// One line per include of `text`, the file `name`, that the tables forbid.
std::vector<std::string> Violations(const std::string& name,
                                    const std::string& text) {
  static const std::regex kInclude(
      R"rx(^\s*#\s*include\s*([<"])([^">]+)[">])rx");
  std::vector<std::string> violations;
  if (LayerOf(name).empty()) return {name + " is in no layer"};
  std::istringstream in(text);
  int number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    std::smatch match;
    if (!std::regex_search(line, match, kInclude)) continue;
    const std::string header = match[2];
    const bool ours = match[1] == "\"" || !LayerOf(header).empty();
    const std::string why =
        ours ? WhyNotLayer(name, header) : WhyNotLibrary(name, header);
    if (!why.empty()) {
      violations.push_back(name + ":" + std::to_string(number) + ": " + why);
    }
  }
  return violations;
}

// The folder of `name` as the table should list it: internal folders belong to
// the folder around them.
std::string FolderOf(const std::string& name) {
  std::string folder = fs::path(name).parent_path().string();
  if (const size_t internal = (folder + "/").find("/internal/");
      internal != std::string::npos) {
    folder.resize(internal);
  }
  return folder;
}

struct Source {
  std::string name;  // from the repository root
  std::string text;
};

std::vector<Source> Sources() {
  const fs::path root = SELVAGE_SOURCE_DIR;
  std::set<std::string> tops;
  for (const auto& [folder, unused] : kMayInclude) {
    tops.insert(folder.substr(0, folder.find('/')));
  }
  std::vector<Source> sources;
  for (const std::string& top : tops) {
    if (!fs::exists(root / top)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(root / top)) {
      const auto extension = entry.path().extension();
      if (extension != ".h" && extension != ".cc") continue;
      std::ifstream in(entry.path());
      sources.push_back({fs::relative(entry.path(), root).string(),
                         {std::istreambuf_iterator<char>(in), {}}});
    }
  }
  return sources;
}

TEST(ArchitectureTest, Includes_EveryFile_FollowTheTables) {
  const std::vector<Source> sources = Sources();
  EXPECT_GT(sources.size(), 20U);
  for (const Source& source : sources) {
    for (const std::string& violation : Violations(source.name, source.text)) {
      ADD_FAILURE() << violation;
    }
  }
}

TEST(ArchitectureTest, Folders_EveryOneWithSources_IsInTheTable) {
  for (const Source& source : Sources()) {
    EXPECT_TRUE(kMayInclude.contains(FolderOf(source.name)))
        << source.name << ": " << FolderOf(source.name)
        << " is not a layer of the table";
  }
}

TEST(ArchitectureTest, Table_EveryArrow_PointsAtALayer) {
  for (const auto& [from, targets] : kMayInclude) {
    for (const std::string& to : targets) {
      EXPECT_TRUE(kMayInclude.contains(to)) << from << " -> " << to;
    }
  }
}

// LibTorch stays out of the coordinator and the command line, whatever the
// table becomes.
TEST(ArchitectureTest, Table_Coordinator_NeverReachesTheClientOrLibTorch) {
  std::vector<std::string> open = {"coordinator/server", "cli"};
  std::set<std::string> reached(open.begin(), open.end());
  while (!open.empty()) {
    const std::string layer = open.back();
    open.pop_back();
    for (const std::string& to : kMayInclude.at(layer)) {
      if (reached.insert(to).second) open.push_back(to);
    }
  }
  for (const std::string& layer : reached) {
    EXPECT_FALSE(layer.starts_with("client")) << layer;
  }
}

// What others see of the C API is its headers, not what they are made of.
TEST(ArchitectureTest, CApi_FromOutside_IsSelvageHAndHppAlone) {
  static const std::regex kCApi(R"rx("client/capi/[^/"]+")rx");
  for (const Source& source : Sources()) {
    if (LayerOf(source.name) == "client/capi") continue;
    for (std::sregex_iterator it(source.text.begin(), source.text.end(), kCApi);
         it != std::sregex_iterator(); ++it) {
      EXPECT_THAT(it->str(), ::testing::AnyOf("\"client/capi/selvage.h\"",
                                              "\"client/capi/selvage.hpp\""))
          << source.name;
    }
  }
}

// Hosts are what the C API is for, so ours use it and nothing beside it: of the
// library, the apps among the examples and the tests of the wrapper see
// selvage.h and selvage.hpp alone; the agent besides it what any program of
// ours may (base, checked by the table above).
TEST(ArchitectureTest, Hosts_Includes_AreSelvageHAndHppAlone) {
  const fs::path root = SELVAGE_SOURCE_DIR;
  const std::regex ours(R"rx(#\s*include\s*["<]([^">]+)[">])rx");
  const std::regex api(R"rx((client/capi/|selvage/)?selvage\.(h|hpp))rx");
  // What is no host: tools that make files for examples.
  const std::regex tools("examples/(quickstart|users|sensor)/.*");
  // With test code of its own beside it.
  const std::regex tests(
      "tests/unit/capi/(arguments_test|blocking_test|lifetime_test|"
      "app_fixture|c_app|dlopen_app|tiny_engine)\\.(cc|c|h)|"
      "tests/install/app/.*|tests/integration/e2e/fork_app\\.cc");
  size_t looked_at = 0;
  for (const char* top : {"examples", "tests/unit/capi", "tests/install/app",
                          "tests/integration/e2e"}) {
    for (const auto& entry : fs::recursive_directory_iterator(root / top)) {
      const std::string name = fs::relative(entry.path(), root).string();
      const auto extension = entry.path().extension();
      if (extension != ".c" && extension != ".cc" && extension != ".h") {
        continue;
      }
      const bool is_test = std::regex_match(name, tests);
      if (name.starts_with("tests/") ? !is_test
                                     : std::regex_match(name, tools)) {
        continue;
      }
      ++looked_at;
      std::ifstream in(entry.path());
      const std::string text{std::istreambuf_iterator<char>(in), {}};
      for (std::sregex_iterator it(text.begin(), text.end(), ours);
           it != std::sregex_iterator(); ++it) {
        const std::string header = (*it)[1];
        if (header.find('/') == std::string::npos &&
            !header.starts_with("selvage")) {
          continue;  // the standard library's
        }
        if (header.starts_with("sys/") || header.starts_with("gmock/") ||
            header.starts_with("gtest/") ||
            (is_test && header.starts_with("tests/unit/capi/"))) {
          continue;
        }
        EXPECT_TRUE(std::regex_match(header, api))
            << name << " includes " << header;
      }
    }
  }
  EXPECT_GE(looked_at, 9U);
}

// The example is promised to be short: an app in about fifty lines.
TEST(ArchitectureTest, EmbedC_Lines_AreAboutFifty) {
  std::ifstream in(fs::path(SELVAGE_SOURCE_DIR) / "examples/embed_c/main.c");
  size_t lines = 0;
  for (std::string line; std::getline(in, line);) ++lines;
  EXPECT_GT(lines, 20U);
  EXPECT_LE(lines, 60U);
}

TEST(ArchitectureTest, Headers_EveryOne_IsGuardedByPragmaOnce) {
  for (const Source& source : Sources()) {
    if (!source.name.ends_with(".h")) continue;
    // ISO C knows no #pragma once.
    if (source.name == "client/capi/selvage.h") continue;
    EXPECT_THAT("\n" + source.text, HasSubstr("\n#pragma once\n"))
        << source.name;
  }
}

// The checks themselves, on files made up for them.

TEST(ViolationsTest, AllowedArrows_AreSilent) {
  EXPECT_THAT(Violations("plan/task.cc",
                         "#include \"plan/task.h\"\n"
                         "#include \"base/status.h\"\n"
                         "#include <string>\n"
                         "#include <sys/stat.h>\n"
                         "#include <yaml-cpp/yaml.h>\n"),
              IsEmpty());
  EXPECT_THAT(Violations("coordinator/rpc/admin_service.h",
                         "#include <selvage/v1/admin.grpc.pb.h>\n"
                         "#include <grpcpp/server_context.h>\n"),
              IsEmpty());
}

TEST(ViolationsTest, ForbiddenArrow_IsNamedWithItsLine) {
  EXPECT_THAT(Violations("base/status.h", "\n#include \"crypto/digest.h\"\n"),
              ElementsAre("base/status.h:2: base must not include "
                          "crypto/digest.h"));
  EXPECT_THAT(Violations("coordinator/round.h",
                         "#  include <coordinator/store/sqlite.h>\n"),
              ElementsAre(HasSubstr("coordinator must not include")));
  EXPECT_THAT(Violations("client/core/session.cc",
                         "#include \"selvage/v1/device.pb.h\"\n"),
              ElementsAre(HasSubstr("client/core must not include")));
}

TEST(ViolationsTest, IncludeOutsideTheLayers_IsRefused) {
  for (const char* include :
       {"#include \"status.h\"", "#include \"../base/status.h\"",
        "#include \"tests/testing/fake_clock.h\"",
        "#include \"bench/report.h\""}) {
    EXPECT_THAT(Violations("plan/task.cc", include),
                ElementsAre(HasSubstr("is in no layer")));
  }
  EXPECT_THAT(Violations("tests/x.cc", ""),
              ElementsAre(HasSubstr("is in no layer")));
}

TEST(ViolationsTest, InternalHeader_IsForItsFolderAlone) {
  const std::string include = "#include \"plan/internal/text.h\"\n";
  EXPECT_THAT(Violations("plan/task.cc", include), IsEmpty());
  EXPECT_THAT(Violations("plan/internal/text.cc", include), IsEmpty());
  EXPECT_THAT(Violations("cli/app.cc", include),
              ElementsAre(HasSubstr("is internal")));
}

TEST(ViolationsTest, LibraryOutsideItsFiles_IsRefused) {
  const std::pair<const char*, const char*> cases[] = {
      {"client/core/session.cc", "torch/torch.h"},
      {"client/client.cc", "ATen/core/Tensor.h"},
      {"coordinator/server/main.cc", "torch/script.h"},
      {"crypto/digest.h", "openssl/evp.h"},
      {"plan/plan.cc", "openssl/evp.h"},
      {"coordinator/round.cc", "sqlite3.h"},
      {"coordinator/store/sqlite_store.h", "SQLiteCpp/Database.h"},
      {"plan/task.h", "yaml-cpp/yaml.h"},
      {"cli/output.h", "nlohmann/json.hpp"},
      {"base/log.cc", "nlohmann/json.hpp"},
      {"base/log.h", "nlohmann/json_fwd.hpp"},
      {"client/client.cc", "grpcpp/channel.h"},
      {"coordinator/coordinator.h", "google/protobuf/message.h"},
      {"aggregation/exact_sum.h", "Eigen/Core"},
      {"base/mutex.h", "absl/synchronization/mutex.h"},
      {"base/status.h", "boost/outcome.hpp"},
  };
  for (const auto& [file, header] : cases) {
    EXPECT_EQ(
        Violations(file, std::string("#include <") + header + ">\n").size(), 1U)
        << file << " " << header;
  }
}

}  // namespace

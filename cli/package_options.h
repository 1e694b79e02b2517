// What `selvage model package` and `selvage-torch package` have in common: the
// former hands its options to the latter.
#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace selvage::cli {

struct PackageOptions {
  std::string model;  // model.yaml or model.pt
  std::string out;    // directory
  std::vector<std::string> roles;
};

// Subcommand `package` of `app`; `options` must outlive it.
CLI::App* AddPackageVerb(CLI::App& app, PackageOptions& options);

}  // namespace selvage::cli

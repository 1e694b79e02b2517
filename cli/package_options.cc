#include "cli/package_options.h"

#include <CLI/CLI.hpp>

namespace selvage::cli {

CLI::App* AddPackageVerb(CLI::App& app, PackageOptions& options) {
  auto* verb = app.add_subcommand(
      "package", "make a program document and an initial checkpoint");
  verb->add_option("model", options.model, "model.yaml or model.pt")
      ->type_name("FILE")
      ->required();
  verb->add_option("--out", options.out, "directory to write")
      ->type_name("DIR")
      ->required();
  verb->add_option("--role", options.roles,
                   "for model.pt: give tensors that match a role; repeatable, "
                   "the first match counts")
      ->type_name("REGEX=ROLE")
      ->expected(1)
      ->take_all();
  return verb;
}

}  // namespace selvage::cli

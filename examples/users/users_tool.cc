// The two ends of a run over a data set with natural users: a folder of
// examples a device before it, the accuracy table after it.
#include <CLI/CLI.hpp>
#include <functional>
#include <iostream>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "base/status.h"
#include "examples/users/data_sets.h"
#include "examples/users/shares.h"
#include "examples/users/table.h"

namespace selvage::users {
namespace {

constexpr uint64_t kFileSizeMax = uint64_t{1} << 30;

struct SplitOptions {
  std::string source;
  std::string out;
  uint32_t channels = 9;
  RoleSizes sizes;
  Sample sample;
};

// A file of the source folder.
Result<Bytes> Read(FileSystem& files, const SplitOptions& options,
                   const char* name) {
  return ReadFile(files, Path(options.source) / name, kFileSizeMax);
}

Status Write(FileSystem& files, const SplitOptions& options, const Users& users,
             size_t devices) {
  SELVAGE_RETURN_IF_ERROR(WriteUsers(files, options.out, users, devices));
  std::cout << devices << " " << users.size() - devices << "\n";
  return OkStatus();
}

Status SplitActivity(const SplitOptions& options) {
  PosixFileSystem files;
  SELVAGE_ASSIGN_OR_RETURN(const Bytes index,
                           Read(files, options, "index.csv"));
  SELVAGE_ASSIGN_OR_RETURN(const Bytes series,
                           Read(files, options, "series_i16le_9ch.bin"));
  SELVAGE_ASSIGN_OR_RETURN(
      const ActivityUsers all,
      ReadActivity(AsText(index), series, options.channels));
  return Write(files, options, all.users, all.devices);
}

Status SplitWisdm(const SplitOptions& options) {
  PosixFileSystem files;
  SELVAGE_ASSIGN_OR_RETURN(
      const Bytes arff, Read(files, options, "WISDM_ar_v1.1_transformed.arff"));
  SELVAGE_ASSIGN_OR_RETURN(const Users users,
                           ReadWisdm(AsText(arff), options.sample));
  return Write(files, options, users, options.sample.devices);
}

Status SplitWriters(const SplitOptions& options) {
  PosixFileSystem files;
  SELVAGE_ASSIGN_OR_RETURN(const Bytes images,
                           Read(files, options, "train-images-idx3-ubyte"));
  SELVAGE_ASSIGN_OR_RETURN(const Bytes labels,
                           Read(files, options, "train-labels-idx1-ubyte"));
  SELVAGE_ASSIGN_OR_RETURN(const Bytes writers,
                           Read(files, options, "train-writers-u16le"));
  SELVAGE_ASSIGN_OR_RETURN(
      const Users users, ReadWriters(images, labels, writers, options.sample));
  return Write(files, options, users, options.sample.devices);
}

Status SplitRoles(const SplitOptions& options) {
  PosixFileSystem files;
  SELVAGE_ASSIGN_OR_RETURN(const Bytes tsv, Read(files, options, "roles.tsv"));
  SELVAGE_ASSIGN_OR_RETURN(
      const Users users, ReadRoles(AsText(tsv), options.sizes, options.sample));
  return Write(files, options, users, options.sample.devices);
}

struct TableOptions {
  std::string data_set;
  std::vector<std::string> results;
  std::string append;
  bool check = false;
};

Status PrintTable(const TableOptions& options) {
  PosixFileSystem files;
  SELVAGE_ASSIGN_OR_RETURN(const std::span<const Target> targets,
                           TargetsOf(options.data_set));
  std::vector<Run> runs;
  for (const std::string& directory : options.results) {
    SELVAGE_ASSIGN_OR_RETURN(Run run, ReadRun(files, directory));
    runs.push_back(std::move(run));
  }
  const Summary summary = Summarise(runs);
  std::cout << Table(options.data_set, summary, targets);
  if (!options.append.empty()) {
    SELVAGE_RETURN_IF_ERROR(
        AppendRows(files, options.append, options.data_set, summary, targets));
  }
  if (options.check && !AllMet(summary, targets)) {
    return FailedPrecondition(options.data_set + " misses a target");
  }
  return OkStatus();
}

int Main(int argc, char** argv) {
  CLI::App app(
      "Gives every device of a run the examples of one user of a data set, and "
      "tells how well they did.",
      "selvage-users-tool");
  app.require_subcommand(1);
  Status status;
  SplitOptions split;
  // A subcommand; it prints how many devices and newcomers it wrote.
  const auto add = [&](const char* name, const char* meaning, bool draws,
                       Status (*run)(const SplitOptions&)) {
    CLI::App* command = app.add_subcommand(name, meaning);
    command->add_option("--source", split.source, "unpacked files")->required();
    command->add_option("--out", split.out, "one folder a device")->required();
    if (draws) {
      command->add_option("--devices", split.sample.devices)
          ->required()
          ->check(CLI::Range(1, 10'000));
      command->add_option("--newcomers", split.sample.newcomers)
          ->required()
          ->check(CLI::Range(1, 10'000));
      command->add_option("--seed", split.sample.seed)->required();
    }
    command->callback([&status, &split, run] { status = run(split); });
    return command;
  };
  add("activity", "UCI HAR: subjects", false, SplitActivity)
      ->add_option("--channels", split.channels, "the first so many of 9")
      ->check(CLI::Range(1, 9));
  add("wisdm", "WISDM 1.1: users", true, SplitWisdm);
  add("writers", "MNIST: writers", true, SplitWriters);
  CLI::App* roles = add("roles", "Shakespeare: roles", true, SplitRoles);
  roles->add_option("--train", split.sizes.train_max, "sequences, at most");
  roles->add_option("--test", split.sizes.test_max, "sequences, at most");

  TableOptions table;
  CLI::App* print =
      app.add_subcommand("table", "print the accuracies of finished runs");
  print->add_option("--data-set", table.data_set, "whose targets")->required();
  print
      ->add_option("results", table.results,
                   "a folder a run, with devices/ and newcomers/")
      ->required();
  print->add_option("--append", table.append, "list of benchmark rows");
  print->add_flag("--check", table.check, "fail if a target is missed");
  print->callback([&] { status = PrintTable(table); });

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  if (!status.ok()) {
    std::cerr << "selvage-users-tool: " << status.message() << '\n';
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace selvage::users

int main(int argc, char** argv) { return selvage::users::Main(argc, argv); }

// The two ends of scripts/quickstart: the data before it, the report after it.
#include <CLI/CLI.hpp>
#include <iostream>
#include <string>

#include "base/file_system.h"
#include "base/status.h"
#include "crypto/digest.h"
#include "examples/quickstart/check.h"
#include "examples/quickstart/partition.h"
#include "examples/quickstart/report.h"

namespace selvage::quickstart {
namespace {

constexpr uint64_t kFileSizeMax = uint64_t{1} << 30;

struct PartitionOptions {
  std::string source;
  std::string out;
  PartitionSpec spec;
};

Status RunPartition(const PartitionOptions& options) {
  PosixFileSystem files;
  const Path source = options.source;
  SELVAGE_ASSIGN_OR_RETURN(
      const LabelledImages train,
      ReadLabelledImages(files, source / "train-images-idx3-ubyte",
                         source / "train-labels-idx1-ubyte"));
  SELVAGE_ASSIGN_OR_RETURN(
      const LabelledImages test,
      ReadLabelledImages(files, source / "t10k-images-idx3-ubyte",
                         source / "t10k-labels-idx1-ubyte"));
  for (const DeviceShare& share :
       Partition(train.labels, test.labels, options.spec)) {
    SELVAGE_RETURN_IF_ERROR(WriteShare(files, options.out, share, train, test));
  }
  return OkStatus();
}

struct ReportOptions {
  std::string results;
  std::string newcomers;
  std::string rounds;
  std::string server;
  std::string safetensors;
  std::string out;
  Findings findings;
};

Status RunReport(ReportOptions options) {
  PosixFileSystem files;
  Findings& findings = options.findings;
  SELVAGE_ASSIGN_OR_RETURN(findings.fleet, ReadScores(files, options.results));
  SELVAGE_ASSIGN_OR_RETURN(findings.newcomers,
                           ReadScores(files, options.newcomers));
  SELVAGE_ASSIGN_OR_RETURN(const Bytes rounds,
                           ReadFile(files, options.rounds, kFileSizeMax));
  SELVAGE_ASSIGN_OR_RETURN(findings.history, ParseRounds(AsText(rounds)));
  SELVAGE_ASSIGN_OR_RETURN(const Bytes server,
                           ReadFile(files, options.server, kFileSizeMax));
  SELVAGE_RETURN_IF_ERROR(ParseServerInfo(AsText(server), findings));
  SELVAGE_ASSIGN_OR_RETURN(const Bytes values,
                           ReadFile(files, options.safetensors, kFileSizeMax));
  findings.model_digest = crypto::Sha256(values).ToHex();

  const Path out = options.out;
  SELVAGE_RETURN_IF_ERROR(WriteFileDurably(
      files, out / "summary.json", AsBytes(SummaryJson(findings)), 0644));
  SELVAGE_RETURN_IF_ERROR(WriteFileDurably(
      files, out / "report.html", AsBytes(ReportHtml(findings)), 0644));
  std::cout << SummaryTable(findings);
  return OkStatus();
}

struct CheckOptions {
  std::string directory;
  Expectations expected;
};

Status RunCheck(const CheckOptions& options) {
  PosixFileSystem files;
  const std::vector<std::string> problems =
      CheckArtefacts(files, options.directory, options.expected);
  if (problems.empty()) return OkStatus();
  std::string all;
  for (const std::string& problem : problems) all += "\n  " + problem;
  return FailedPrecondition(options.directory +
                            " is not as it should be:" + all);
}

int Main(int argc, char** argv) {
  CLI::App app("Prepares the quickstart's data and writes its report.",
               "selvage-quickstart-tool");
  app.require_subcommand(1);
  Status status;

  PartitionOptions partition;
  auto* split = app.add_subcommand(
      "partition", "give every device images with a mix of classes of its own");
  split->add_option("--source", partition.source, "unpacked IDX files")
      ->required();
  split->add_option("--out", partition.out, "one folder a device")->required();
  split->add_option("--devices", partition.spec.devices)
      ->check(CLI::Range(1, 10'000));
  split->add_option("--newcomers", partition.spec.newcomers)
      ->check(CLI::Range(0, 10'000));
  split->add_option("--train", partition.spec.train_images)
      ->check(CLI::Range(1, 10'000));
  split->add_option("--test", partition.spec.test_images)
      ->check(CLI::Range(1, 10'000));
  split->add_option("--alpha", partition.spec.alpha, "Dirichlet parameter")
      ->check(CLI::Range(0.01, 1000.0));
  split->add_option("--seed", partition.spec.seed);
  split->callback([&] { status = RunPartition(partition); });

  ReportOptions report;
  auto* write = app.add_subcommand(
      "report", "write summary.json and report.html, print the table");
  write->add_option("--results", report.results, "scores of the fleet")
      ->required();
  write->add_option("--newcomers", report.newcomers, "scores of newcomers")
      ->required();
  write->add_option("--rounds", report.rounds, "rounds.jsonl")->required();
  write->add_option("--server", report.server, "selvage show server -o json")
      ->required();
  write->add_option("--safetensors", report.safetensors, "the final model")
      ->required();
  write->add_option("--out", report.out, "folder to write to")->required();
  write->add_option("--seed", report.findings.seed)->required();
  write->add_option("--devices", report.findings.devices)->required();
  write->add_option("--num-rounds", report.findings.rounds)->required();
  write->add_option("--seconds", report.findings.seconds)->required();
  write->add_option("--model", report.findings.model, "model.pt")->required();
  write->callback([&] { status = RunReport(report); });

  CheckOptions check;
  auto* verify = app.add_subcommand(
      "check", "look whether a finished run left what it promises");
  verify->add_option("directory", check.directory)->required();
  verify->add_option("--devices", check.expected.devices);
  verify->add_option("--rounds", check.expected.rounds);
  verify->add_flag("--targets", check.expected.targets,
                   "hold the accuracies to the targets of whole runs");
  verify->callback([&] { status = RunCheck(check); });

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  if (!status.ok()) {
    std::cerr << "selvage-quickstart-tool: " << status.message() << '\n';
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace selvage::quickstart

int main(int argc, char** argv) {
  return selvage::quickstart::Main(argc, argv);
}

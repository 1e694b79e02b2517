// model, pull, evaluate: programs and versions.
#include <CLI/CLI.hpp>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/evaluate.h"
#include "cli/package_options.h"
#include "cli/pull.h"
#include "cli/render.h"
#include "cli/task_bundle.h"
#include "cli/verbs.h"

namespace selvage::cli {
namespace {

Result<ExitCode> ListVersions(Context& context, const std::string& task) {
  SELVAGE_ASSIGN_OR_RETURN(AdminClient* const admin, context.Admin());
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<v1::ModelVersion> versions,
                           admin->ListModelVersions(task));
  context.output().Data(ListToJson(versions),
                        [&] { return VersionTable(versions); });
  return ExitCode::kOk;
}

struct VersionOptions {
  std::string task;
  std::optional<uint64_t> version;
};

Result<ExitCode> ShowVersion(Context& context, const VersionOptions& options) {
  SELVAGE_ASSIGN_OR_RETURN(AdminClient* const admin, context.Admin());
  SELVAGE_ASSIGN_OR_RETURN(
      const v1::ModelVersion version,
      admin->GetModelVersion(options.task, options.version));
  context.output().Data(ToJson(version), [&] { return Describe(version); });
  return ExitCode::kOk;
}

// All of it is selvage-torch's work: it compiles the program, checks it
// against the operator allow-list and makes the initial values.
Result<ExitCode> Package(Context& context, const PackageOptions& options) {
  std::vector<std::string> arguments = {"package", options.model, "--out",
                                        options.out};
  for (const std::string& role : options.roles) {
    arguments.insert(arguments.end(), {"--role", role});
  }
  SELVAGE_ASSIGN_OR_RETURN(const std::string text,
                           context.torch().Run(arguments));
  context.output().Data({{"directory", options.out}}, [&] { return text; });
  return ExitCode::kOk;
}

void AddPackage(CLI::App& model, Verb& chosen) {
  const auto options = std::make_shared<PackageOptions>();
  auto* verb = AddPackageVerb(model, *options);
  verb->footer(
      R"(Compiles the program, checks it against the operators that devices permit, and
writes program.json and model.safetensors. Done by selvage-torch, which must be
installed.

Examples:
  selvage model package model.yaml --out package/
  selvage model package model.pt --out package/ --role '^head\.=personal')");
  verb->callback([options, &chosen] {
    chosen = [options](Context& context) { return Package(context, *options); };
  });
}

void AddModel(CLI::App& app, Verb& chosen) {
  auto* model = app.add_subcommand("model", "programs and model versions");
  model->require_subcommand(1);
  model->footer(R"(Examples:
  selvage model package model.yaml --out package/
  selvage model list fashion-personal
  selvage model show fashion-personal 30)");
  AddPackage(*model, chosen);

  auto* list = model->add_subcommand("list", "list a task's versions");
  const auto task = std::make_shared<std::string>();
  list->add_option("task", *task, "the task's name")
      ->type_name("TASK")
      ->required();
  list->footer(R"(Examples:
  selvage model list fashion-personal)");
  list->callback([task, &chosen] {
    chosen = [task](Context& context) { return ListVersions(context, *task); };
  });

  auto* show = model->add_subcommand("show", "show one version");
  const auto options = std::make_shared<VersionOptions>();
  show->add_option("task", options->task, "the task's name")
      ->type_name("TASK")
      ->required();
  show->add_option("version", options->version, "default: the latest")
      ->type_name("VERSION");
  show->footer(R"(Examples:
  selvage model show fashion-personal
  selvage model show fashion-personal 0 -o json)");
  show->callback([options, &chosen] {
    chosen = [options](Context& context) {
      return ShowVersion(context, *options);
    };
  });
}

void AddPull(CLI::App& app, Verb& chosen) {
  auto* verb = app.add_subcommand("pull", "take a model and its history home");
  const auto options = std::make_shared<PullOptions>();
  const auto out = std::make_shared<std::string>();
  verb->add_option("task", options->task, "the task's name")
      ->type_name("TASK")
      ->required();
  auto* version = verb->add_option("--version", options->version, "this one")
                      ->type_name("VERSION");
  auto* best = verb->add_flag("--best", options->best,
                              "the one with the best key metric")
                   ->excludes(version);
  verb->add_flag("--last")
      ->description("the latest, which is the default")
      ->excludes(version)
      ->excludes(best);
  verb->add_option("--out", *out,
                   "directory to write; default: the task's name")
      ->type_name("DIR");
  const std::map<std::string, TorchScriptExport> modes = {
      {"auto", TorchScriptExport::kAuto},
      {"always", TorchScriptExport::kAlways},
      {"never", TorchScriptExport::kNever}};
  verb->add_option("--torchscript", options->torchscript,
                   "write model.pt: auto (if selvage-torch is there), always, "
                   "never")
      ->type_name("WHEN")
      ->transform(CLI::CheckedTransformer(modes).description(""));
  verb->footer(
      R"(Writes model.safetensors, program.json, rounds.jsonl (one round a line) and
model.pt, a TorchScript file that torch.jit.load opens.

Examples:
  selvage pull fashion-personal
  selvage pull fashion-personal --best
  selvage pull fashion-personal --version 10 --out at-10/ --torchscript never)");
  verb->callback([options, out, &chosen] {
    options->out = out->empty() ? options->task : *out;
    chosen = [options](Context& context) { return Pull(context, *options); };
  });
}

void AddEvaluate(CLI::App& app, Verb& chosen) {
  auto* verb =
      app.add_subcommand("evaluate", "score model versions on your own data");
  const auto options = std::make_shared<EvaluateOptions>();
  verb->add_option("task", options->task, "the task's name")
      ->type_name("TASK")
      ->required();
  verb->add_option("--data", options->data,
                   "one IDX file for each of the program's inputs, in their "
                   "order, or one safetensors file with the inputs' names")
      ->type_name("FILE")
      ->required()
      ->expected(1)
      ->take_all();
  verb->add_option("--data-set", options->data_set,
                   "what the data is called; default: default")
      ->type_name("NAME");
  auto* version =
      verb->add_option("--version", options->version, "default: the latest")
          ->type_name("VERSION");
  auto* best = verb->add_flag("--best", options->best,
                              "the one with the best key metric so far")
                   ->excludes(version);
  verb->add_flag("--watch", options->watch,
                 "every version without an evaluation on this data set, now "
                 "and as they come, until the task ended")
      ->excludes(version)
      ->excludes(best);
  verb->add_flag("--dry-run", options->dry_run,
                 "print the scores and attach nothing");
  verb->footer(
      R"(Downloads the version and scores it with selvage-torch, in a process of its own; the
coordinator runs no model. The result is attached to the version, once per data set. In a
task with `evaluate: {source: server}` it decides the best version and the early end.

Examples:
  selvage evaluate fashion-personal --data t10k-images-idx3-ubyte \
      --data t10k-labels-idx1-ubyte --data-set t10k
  selvage evaluate fashion-personal --data held-out.safetensors --watch)");
  verb->callback([options, &chosen] {
    chosen = [options](Context& context) {
      return Evaluate(context, *options);
    };
  });
}

}  // namespace

void AddModelVerbs(CLI::App& app, Verb& chosen) {
  AddModel(app, chosen);
  AddPull(app, chosen);
  AddEvaluate(app, chosen);
}

}  // namespace selvage::cli

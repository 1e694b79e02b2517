// run, clone: what creates tasks.
#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/render.h"
#include "cli/task_bundle.h"
#include "cli/text.h"
#include "cli/verbs.h"

namespace selvage::cli {
namespace {

struct LaunchOptions {
  bool wait = false;
  bool watch = false;
  std::string timeout;
  std::string dry_run;               // "", "client" or "server"
  std::vector<std::string> changes;  // KEY=VALUE
};

void AddLaunchOptions(CLI::App& verb, LaunchOptions& options) {
  auto* wait = verb.add_flag("--wait", options.wait, "return when it ended");
  verb.add_flag("--watch", options.watch, "show it until it ended")
      ->excludes(wait);
  verb.add_option("--set", options.changes,
                  "a setting of the task file to change; repeatable")
      ->type_name("KEY=VALUE")
      ->expected(1)
      ->take_all();
  verb.add_option("--timeout", options.timeout,
                  "with --wait or --watch: how long, e.g. 10m")
      ->type_name("TIME");
  verb.add_option("--dry-run", options.dry_run,
                  "check only: here (client) or by the coordinator (server)")
      ->type_name("WHERE")
      ->check(CLI::IsMember({"client", "server"}));
}

Result<std::optional<Duration>> Timeout(const std::string& text) {
  if (text.empty()) return std::optional<Duration>();
  SELVAGE_ASSIGN_OR_RETURN(const Duration timeout, ParseDuration(text));
  return std::optional<Duration>(timeout);
}

// Creates (or only validates) the task, says so, and follows it if asked.
Result<ExitCode> Launch(Context& context, v1::CreateTaskRequest request,
                        const LaunchOptions& options) {
  SELVAGE_ASSIGN_OR_RETURN(const std::optional<Duration> timeout,
                           Timeout(options.timeout));
  SELVAGE_ASSIGN_OR_RETURN(AdminClient* const admin, context.Admin());
  request.set_request_id(context.RequestId());
  request.set_validate_only(options.dry_run == "server");
  SELVAGE_ASSIGN_OR_RETURN(const v1::Task task, admin->CreateTask(request));
  const bool follow =
      (options.wait || options.watch) && !request.validate_only();
  Output& output = context.output();
  // Followed tasks print what they became, not what they started as.
  if (!follow) {
    nlohmann::ordered_json data = ToJson(task);
    data["dry_run"] = request.validate_only();
    output.Data(data, [&] {
      return request.validate_only()
                 ? "task " + task.name() + " is valid; nothing was created\n"
                 : "task " + task.name() + " created\n";
    });
    if (!request.validate_only()) {
      output.Message("follow it with: selvage watch " + task.name());
    }
    return ExitCode::kOk;
  }
  output.Message("task " + task.name() + " created");
  SELVAGE_RETURN_IF_ERROR(FollowTask(
      context, task.name(), {.show = options.watch, .timeout = timeout}));
  return ExitCode::kOk;
}

Status UploadBundle(Context& context, const TaskBundle& bundle,
                    v1::CreateTaskRequest& request) {
  SELVAGE_ASSIGN_OR_RETURN(AdminClient* const admin, context.Admin());
  FileSystem& files = context.environment().files;
  const ByteSpan program = AsBytes(bundle.program.json);
  const auto uploaded = admin->UploadArtifact(program);
  if (!uploaded.ok()) return uploaded.status();
  request.set_program_digest(ToString(crypto::Sha256(program).span()));
  if (bundle.program.archive) {
    const auto archive = admin->UploadArtifact(files, *bundle.program.archive);
    if (!archive.ok()) return archive.status();
  }
  if (bundle.initial) {
    SELVAGE_ASSIGN_OR_RETURN(
        const Bytes values,
        ReadFile(files, *bundle.initial, kInitialModelSizeMax));
    const auto initial = admin->UploadArtifact(values);
    if (!initial.ok()) return initial.status();
    request.set_initial_digest(ToString(crypto::Sha256(values).span()));
  }
  return OkStatus();
}

Result<std::vector<Setting>> ParseSettings(
    const std::vector<std::string>& changes) {
  std::vector<Setting> settings;
  for (const std::string& change : changes) {
    SELVAGE_ASSIGN_OR_RETURN(Setting setting, ParseSetting(change));
    settings.push_back(std::move(setting));
  }
  return settings;
}

Result<ExitCode> RunTask(Context& context, const std::string& file,
                         const LaunchOptions& options) {
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<Setting> settings,
                           ParseSettings(options.changes));
  SELVAGE_ASSIGN_OR_RETURN(
      const TaskBundle bundle,
      LoadTask(context.environment(), context.torch(), file, settings));
  if (options.dry_run == "client") {
    const plan::TensorTable& table = bundle.program.program.table;
    context.output().Data(
        {{"name", bundle.spec.name},
         {"dry_run", true},
         {"program_digest",
          crypto::Sha256(AsBytes(bundle.program.json)).ToHex()},
         {"tensors", table.entries().size()},
         {"update_values", table.update_count()}},
        [&] {
          return "task " + bundle.spec.name +
                 " reads well: " + std::to_string(table.entries().size()) +
                 " tensors, an update of " +
                 std::to_string(table.update_count()) +
                 " values; nothing was sent\n";
        });
    return ExitCode::kOk;
  }
  v1::CreateTaskRequest request;
  request.set_task_file(bundle.task_file);
  SELVAGE_RETURN_IF_ERROR(UploadBundle(context, bundle, request));
  return Launch(context, std::move(request), options);
}

Result<ExitCode> CloneTask(Context& context, const std::string& from,
                           const std::string& name,
                           const LaunchOptions& options) {
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<Setting> settings,
                           ParseSettings(options.changes));
  SELVAGE_ASSIGN_OR_RETURN(AdminClient* const admin, context.Admin());
  SELVAGE_ASSIGN_OR_RETURN(const v1::Task task, admin->GetTask(from));
  SELVAGE_ASSIGN_OR_RETURN(const std::string file,
                           EditTaskFile(task.task_file(), name, settings));
  if (options.dry_run == "client") {
    context.output().Data(
        {{"name", name}, {"dry_run", true}, {"task_file", file}},
        [&] { return file; });
    return ExitCode::kOk;
  }
  v1::CreateTaskRequest request;
  request.set_task_file(file);
  request.set_program_digest(task.program_digest());
  request.set_initial_digest(task.initial_digest());
  return Launch(context, std::move(request), options);
}

}  // namespace

void AddRunVerbs(CLI::App& app, Verb& chosen) {
  {
    auto* verb = app.add_subcommand("run", "launch the task of a task file");
    struct Options : LaunchOptions {
      std::string file;
    };
    const auto options = std::make_shared<Options>();
    verb->add_option("task", options->file, "the task file")
        ->type_name("TASK.yaml")
        ->required();
    AddLaunchOptions(*verb, *options);
    verb->footer(
        R"(Reads the task file and what it refers to (program: model.yaml, model.pt or
native:NAME; initial: model.safetensors), checks them here, uploads what the
coordinator does not have yet, and creates the task.

Examples:
  selvage run task.yaml
  selvage run task.yaml --watch
  selvage run task.yaml --wait --timeout 2h
  selvage run task.yaml --set name=quick --set strategy.num_rounds=5
  selvage run task.yaml --dry-run server)");
    verb->callback([options, &chosen] {
      chosen = [options](Context& context) {
        return RunTask(context, options->file, *options);
      };
    });
  }
  {
    auto* verb =
        app.add_subcommand("clone", "launch a copy of a task, with changes");
    struct Options : LaunchOptions {
      std::string from;
      std::string name;
    };
    const auto options = std::make_shared<Options>();
    verb->add_option("task", options->from, "the task to copy")
        ->type_name("TASK")
        ->required();
    verb->add_option("name", options->name, "the copy's name")
        ->type_name("NAME")
        ->required();
    AddLaunchOptions(*verb, *options);
    verb->footer(R"(Examples:
  selvage clone fashion fashion-2
  selvage clone fashion fashion-slow --set train.optimizer.lr=0.01
  selvage clone fashion warm --set initial=fashion@30 --dry-run client)");
    verb->callback([options, &chosen] {
      chosen = [options](Context& context) {
        return CloneTask(context, options->from, options->name, *options);
      };
    });
  }
}

}  // namespace selvage::cli

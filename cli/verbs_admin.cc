// admin: backup and restore.
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/subprocess.h"
#include "cli/text.h"
#include "cli/torch_tool.h"
#include "cli/verbs.h"

namespace selvage::cli {
namespace {

// "20261123t094500z" of a time in microseconds.
std::string NameOf(int64_t micros) {
  std::string name;
  for (const char c : FormatMicros(micros)) {
    if (c >= '0' && c <= '9') name += c;
  }
  return "backup-" + name.substr(0, 14);
}

Result<ExitCode> MakeBackup(Context& context, const std::string& name) {
  SELVAGE_ASSIGN_OR_RETURN(AdminClient* const admin, context.Admin());
  const int64_t now = ToMicros(context.environment().clock.Now());
  SELVAGE_ASSIGN_OR_RETURN(
      const v1::Backup backup,
      admin->CreateBackup(name.empty() ? NameOf(now) : name));
  context.output().Data(
      {{"name", backup.name()},
       {"path", backup.path()},
       {"artefacts", backup.artefacts()},
       {"bytes", backup.size_bytes()},
       {"instance_id", backup.instance_id()}},
      [&] {
        return "backup " + Printable(backup.name()) + " is in " +
               Printable(backup.path()) + " on the coordinator's machine: " +
               std::to_string(backup.artefacts()) + " artefacts, " +
               std::to_string(backup.size_bytes()) + " bytes\n";
      });
  context.output().Message(
      "it has no keys: keep those of the data directory elsewhere, but not "
      "keys/wrapping.key");
  return ExitCode::kOk;
}

struct RestoreOptions {
  std::string backup;
  std::string data_dir;
  std::string config;
};

Result<ExitCode> Restore(Context& context, const RestoreOptions& options) {
  const std::optional<Path> program =
      FindProgram(context.environment(), "selvage-coordinator",
                  "SELVAGE_COORDINATOR_PROGRAM");
  if (!program.has_value()) {
    return FailedPrecondition(
        "this needs selvage-coordinator, which is neither beside selvage nor "
        "in PATH; run it on the coordinator's machine");
  }
  std::vector<std::string> command = {program->string(), "restore",
                                      options.backup};
  if (!options.data_dir.empty()) {
    command.insert(command.end(), {"--data-dir", options.data_dir});
  }
  if (!options.config.empty()) {
    command.insert(command.end(), {"--config", options.config});
  }
  SELVAGE_ASSIGN_OR_RETURN(
      const ProcessOutcome outcome,
      RunProcess(command, context.environment().interrupt));
  if (outcome.exit_code != 0) {
    std::string text = outcome.err;
    text.erase(text.find_last_not_of(" \n") + 1);
    const auto code = static_cast<ExitCode>(outcome.exit_code);
    return Status(code == ExitCode::kUsage ? StatusCode::kInvalidArgument
                  : code == ExitCode::kPrecondition
                      ? StatusCode::kFailedPrecondition
                      : StatusCode::kInternal,
                  text);
  }
  context.output().Data({{"restored", options.backup}},
                        [&] { return outcome.out; });
  context.output().Message(
      "enrolment tokens are revoked; devices that enrolled after the backup "
      "must enrol again");
  return ExitCode::kOk;
}

}  // namespace

void AddAdminVerbs(CLI::App& app, Verb& chosen) {
  auto* admin = app.add_subcommand("admin", "backups of a coordinator");
  admin->require_subcommand(1);
  admin->footer(R"(Examples:
  selvage admin backup --name before-upgrade
  selvage admin restore /var/backups/selvage/before-upgrade --data-dir /srv/new)");
  const auto name = std::make_shared<std::string>();
  auto* backup = admin->add_subcommand(
      "backup", "copy rows and models to the coordinator's backup_dir");
  backup->add_option("--name", *name, "its folder; default: from the time");
  backup->footer(R"(The coordinator goes on working. No key is in a backup.

Examples:
  selvage admin backup
  selvage admin backup --name before-upgrade -o json)");
  backup->callback([&chosen, name] {
    chosen = [name](Context& context) { return MakeBackup(context, *name); };
  });
  const auto options = std::make_shared<RestoreOptions>();
  auto* restore = admin->add_subcommand(
      "restore", "put a backup into a new data directory, on this machine");
  restore->add_option("backup", options->backup, "the backup's folder")
      ->required();
  restore->add_option("--data-dir", options->data_dir,
                      "where the coordinator will run; it may hold keys only");
  restore->add_option("--config", options->config,
                      "the coordinator's file of settings");
  restore->footer(
      R"(Runs `selvage-coordinator restore`. The backup is verified before anything is
changed. Rounds that were open are abandoned, old sessions are refused.

Examples:
  selvage admin restore /var/backups/selvage/before-upgrade --data-dir /srv/new)");
  restore->callback([&chosen, options] {
    chosen = [options](Context& context) { return Restore(context, *options); };
  });
}

}  // namespace selvage::cli

#include "cli/pull.h"

#include <nlohmann/json.hpp>

#include "cli/render.h"
#include "cli/text.h"
#include "plan/program.h"

namespace selvage::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kProgramJsonMax = 8 << 20;

struct PulledFiles {
  Path safetensors;
  Path plan;
  ProgramFiles program;
  Path rounds;
  std::optional<Path> torchscript;
};

Status Download(AdminClient& admin, FileSystem& files,
                const std::string& digest, const Path& path) {
  SELVAGE_ASSIGN_OR_RETURN(const crypto::Digest parsed,
                           crypto::Digest::FromBytes(AsBytes(digest)));
  const Status status = admin.DownloadArtifact(parsed, files, path);
  return status.ok() ? status : status.WithContext(path.filename().string());
}

Status WriteRounds(AdminClient& admin, FileSystem& files,
                   const std::string& task, const Path& path) {
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<v1::Round> rounds,
                           admin.ListRounds(task));
  std::string lines;
  for (const v1::Round& round : rounds) {
    lines +=
        ToJson(round).dump(-1, ' ', false, Json::error_handler_t::replace) +
        '\n';
  }
  return WriteFileDurably(files, path, AsBytes(lines), 0644);
}

Status ExportTorchScript(Context& context, const PullOptions& options,
                         PulledFiles& pulled) {
  if (options.torchscript == TorchScriptExport::kNever) return OkStatus();
  if (options.torchscript == TorchScriptExport::kAuto &&
      pulled.program.native) {
    context.output().Message(
        "no model.pt: a native program has no TorchScript form");
    return OkStatus();
  }
  if (options.torchscript == TorchScriptExport::kAuto &&
      !context.torch().path()) {
    context.output().Warning(
        "no model.pt: selvage-torch is neither beside selvage nor in PATH "
        "(SELVAGE_TORCH=PATH says where it is); model.safetensors has the "
        "same values");
    return OkStatus();
  }
  const Path out = options.out / "model.pt";
  std::vector<std::string> arguments = {"export",
                                        "--program",
                                        pulled.program.program.string(),
                                        "--model",
                                        pulled.safetensors.string(),
                                        "--out",
                                        out.string()};
  if (pulled.program.archive) {
    arguments.insert(arguments.end(),
                     {"--archive", pulled.program.archive->string()});
  }
  const auto exported = context.torch().Run(arguments);
  if (!exported.ok()) return exported.status();
  pulled.torchscript = out;
  return OkStatus();
}

}  // namespace

Result<ProgramFiles> DownloadProgram(AdminClient& admin, FileSystem& files,
                                     const v1::ModelVersion& version,
                                     const Path& directory) {
  ProgramFiles out;
  out.program = directory / "program.json";
  SELVAGE_RETURN_IF_ERROR(
      Download(admin, files, version.program_digest(), out.program));
  SELVAGE_ASSIGN_OR_RETURN(const Bytes json,
                           ReadFile(files, out.program, kProgramJsonMax));
  SELVAGE_ASSIGN_OR_RETURN(const plan::Program program,
                           plan::ParseProgram(AsText(json)));
  out.native = program.kind == plan::ProgramKind::kNative;
  if (program.kind != plan::ProgramKind::kArchive) return out;
  out.archive = directory / "archive.pt";
  SELVAGE_RETURN_IF_ERROR(
      admin.DownloadArtifact(program.archive_digest, files, *out.archive));
  return out;
}

Result<ExitCode> Pull(Context& context, const PullOptions& options) {
  SELVAGE_ASSIGN_OR_RETURN(AdminClient* const admin, context.Admin());
  FileSystem& files = context.environment().files;
  SELVAGE_ASSIGN_OR_RETURN(
      const v1::ModelVersion version,
      options.best ? admin->GetBestModelVersion(options.task)
                   : admin->GetModelVersion(options.task, options.version));
  SELVAGE_RETURN_IF_ERROR(files.CreateDirectories(options.out));

  PulledFiles pulled;
  pulled.safetensors = options.out / "model.safetensors";
  SELVAGE_RETURN_IF_ERROR(Download(*admin, files, version.safetensors_digest(),
                                   pulled.safetensors));
  SELVAGE_ASSIGN_OR_RETURN(
      pulled.program, DownloadProgram(*admin, files, version, options.out));
  // The three that a device takes as its first model (selvage-device --model).
  SELVAGE_ASSIGN_OR_RETURN(const v1::Task task, admin->GetTask(options.task));
  pulled.plan = options.out / "plan.json";
  SELVAGE_RETURN_IF_ERROR(
      Download(*admin, files, task.plan_digest(), pulled.plan));
  pulled.rounds = options.out / "rounds.jsonl";
  SELVAGE_RETURN_IF_ERROR(
      WriteRounds(*admin, files, options.task, pulled.rounds));
  SELVAGE_RETURN_IF_ERROR(ExportTorchScript(context, options, pulled));

  Json data = ToJson(version);
  Json& names = data["files"] = Json::object();
  names["safetensors"] = pulled.safetensors.string();
  names["plan"] = pulled.plan.string();
  names["program"] = pulled.program.program.string();
  if (pulled.program.archive)
    names["archive"] = pulled.program.archive->string();
  names["rounds"] = pulled.rounds.string();
  if (pulled.torchscript) names["torchscript"] = pulled.torchscript->string();
  context.output().Data(data, [&] {
    std::string text = "version " + std::to_string(version.version()) + " of " +
                       Printable(version.task()) + ":\n";
    for (const auto& [kind, name] : names.items()) {
      text += "  " + name.get<std::string>() + "\n";
    }
    return text;
  });
  return ExitCode::kOk;
}

}  // namespace selvage::cli

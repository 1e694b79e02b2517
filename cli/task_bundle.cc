#include "cli/task_bundle.h"

#include <stdlib.h>
#include <yaml-cpp/yaml.h>

#include <cerrno>
#include <cstring>

#include "cli/text.h"
#include "plan/checkpoint.h"

namespace selvage::cli {
namespace {

constexpr uint64_t kProgramFileMax = 2 << 20;
constexpr std::string_view kNativePrefix = "native:";

bool HasSuffix(const std::string& name, std::string_view suffix) {
  return name.ends_with(suffix);
}

// A file that the user names must exist: anything else is their mistake.
Result<Bytes> ReadGiven(Environment& environment, const Path& path,
                        uint64_t size_max) {
  auto bytes = ReadFile(environment.files, path, size_max);
  if (!bytes.ok()) {
    return InvalidArgument("cannot read " + path.string() + ": " +
                           std::string(bytes.status().message()));
  }
  return bytes;
}

// Sets digest and size of the archive in `program`.
Status DescribeArchive(Environment& environment, const Path& path,
                       plan::Program& program) {
  auto file = environment.files.Open(path);
  if (!file.ok()) {
    return InvalidArgument("cannot read the archive " + path.string() + ": " +
                           std::string(file.status().message()));
  }
  if ((*file)->size() > plan::kArchiveSizeMax) {
    return InvalidArgument("the archive " + path.string() + " has " +
                           std::to_string((*file)->size()) +
                           " bytes; must be at most " +
                           std::to_string(plan::kArchiveSizeMax));
  }
  crypto::Sha256Hasher hasher;
  Bytes chunk(1 << 20);
  for (uint64_t offset = 0; offset < (*file)->size();) {
    SELVAGE_ASSIGN_OR_RETURN(const size_t size, (*file)->ReadAt(offset, chunk));
    if (size == 0) return Aborted(path.string() + " became shorter");
    hasher.Update(ByteSpan(chunk).first(size));
    offset += size;
  }
  program.archive_digest = std::move(hasher).Finish();
  program.archive_size_bytes = (*file)->size();
  return OkStatus();
}

Result<ProgramBundle> LoadProgramFile(Environment& environment,
                                      const Path& path) {
  SELVAGE_ASSIGN_OR_RETURN(const Bytes yaml,
                           ReadGiven(environment, path, kProgramFileMax));
  const Path directory = path.parent_path();
  auto file = plan::ParseProgramFile(
      AsText(yaml), [&](const std::string& name) -> Result<std::string> {
        SELVAGE_ASSIGN_OR_RETURN(
            const Bytes text,
            ReadGiven(environment, directory / name, kProgramFileMax));
        return ToString(text);
      });
  if (!file.ok()) return file.status().WithContext(path.string());
  ProgramBundle bundle;
  bundle.program = std::move(file->program);
  if (bundle.program.kind == plan::ProgramKind::kArchive) {
    bundle.archive = directory / file->archive_path;
    SELVAGE_RETURN_IF_ERROR(
        DescribeArchive(environment, *bundle.archive, bundle.program));
  }
  const Status valid = bundle.program.Validate();
  if (!valid.ok()) return valid.WithContext(path.string());
  bundle.json = plan::CanonicalJson(bundle.program);
  return bundle;
}

// A bare archive: selvage-torch finds its tensors, inputs and metrics.
Result<ProgramBundle> LoadArchive(Environment& environment, TorchTool& torch,
                                  const Path& path) {
  SELVAGE_ASSIGN_OR_RETURN(TemporaryDirectory scratch,
                           TemporaryDirectory::Create(environment.get_env));
  const Path out = scratch.path() / "package";
  const auto packaged =
      torch.Run({"package", path.string(), "--out", out.string()});
  if (!packaged.ok()) return packaged.status();
  SELVAGE_ASSIGN_OR_RETURN(
      const Bytes json,
      ReadFile(environment.files, out / "program.json", kProgramFileMax));
  ProgramBundle bundle;
  bundle.json = ToString(json);
  SELVAGE_ASSIGN_OR_RETURN(bundle.program, plan::ParseProgram(bundle.json));
  bundle.archive = path;
  bundle.values = out / "model.safetensors";
  bundle.scratch.emplace(std::move(scratch));
  return bundle;
}

}  // namespace

Result<TemporaryDirectory> TemporaryDirectory::Create(const GetEnv& get_env) {
  const auto given = get_env("TMPDIR");
  const Path base = given && !given->empty() ? *given : "/tmp";
  std::string pattern = (base / "selvage-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) {
    return FailedPrecondition("cannot create a directory in " + base.string() +
                              ": " + std::strerror(errno));
  }
  return TemporaryDirectory(pattern);
}

TemporaryDirectory::~TemporaryDirectory() {
  if (path_.empty()) return;
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

Result<ProgramBundle> LoadProgram(Environment& environment, TorchTool& torch,
                                  const Path& directory,
                                  const std::string& reference) {
  if (reference.starts_with(kNativePrefix)) {
    const std::string name = reference.substr(kNativePrefix.size());
    const Path path = directory / (name + ".yaml");
    auto bundle = LoadProgramFile(environment, path);
    if (!bundle.ok()) {
      return bundle.status().WithContext("program " + reference +
                                         " is described by " + name + ".yaml");
    }
    if (bundle->program.native_name != name) {
      return InvalidArgument("program " + reference + ": " + path.string() +
                             " does not say `native: " + name + "`");
    }
    return bundle;
  }
  const Path path = directory / reference;
  if (HasSuffix(reference, ".yaml") || HasSuffix(reference, ".yml")) {
    return LoadProgramFile(environment, path);
  }
  if (HasSuffix(reference, ".pt")) {
    return LoadArchive(environment, torch, path);
  }
  return InvalidArgument("program \"" + Printable(reference) +
                         "\" is none of FILE.yaml, FILE.pt and native:NAME");
}

Result<TaskBundle> LoadTask(Environment& environment, TorchTool& torch,
                            const Path& task_file,
                            const std::vector<Setting>& settings) {
  SELVAGE_ASSIGN_OR_RETURN(const Bytes text, ReadGiven(environment, task_file,
                                                       plan::kTaskFileSizeMax));
  TaskBundle bundle;
  bundle.task_file = ToString(text);
  auto spec = plan::ParseTaskFile(bundle.task_file);
  if (!spec.ok()) return spec.status().WithContext(task_file.string());
  bundle.spec = *std::move(spec);
  if (!settings.empty()) {
    SELVAGE_ASSIGN_OR_RETURN(
        bundle.task_file,
        EditTaskFile(bundle.task_file, bundle.spec.name, settings));
    SELVAGE_ASSIGN_OR_RETURN(bundle.spec,
                             plan::ParseTaskFile(bundle.task_file));
  }
  const Path directory = task_file.parent_path();
  SELVAGE_ASSIGN_OR_RETURN(
      bundle.program,
      LoadProgram(environment, torch, directory, bundle.spec.program));

  if (bundle.spec.initial == "random" && bundle.program.values) {
    // An archive starts from what is in it: nobody said how its tensors should
    // start otherwise.
    bundle.initial = bundle.program.values;
    const std::string name =
        Path(bundle.spec.program).replace_extension(".safetensors").string();
    SELVAGE_ASSIGN_OR_RETURN(
        bundle.task_file,
        EditTaskFile(bundle.task_file, bundle.spec.name, {{"initial", name}}));
    SELVAGE_ASSIGN_OR_RETURN(bundle.spec,
                             plan::ParseTaskFile(bundle.task_file));
    return bundle;
  }
  const std::string& initial = bundle.spec.initial;
  if (!HasSuffix(initial, ".safetensors")) return bundle;
  const Path path = directory / initial;
  SELVAGE_ASSIGN_OR_RETURN(const Bytes values,
                           ReadGiven(environment, path, kInitialModelSizeMax));
  const auto checkpoint =
      plan::ReadSafetensors(bundle.program.program.table, values);
  if (!checkpoint.ok()) {
    return checkpoint.status().WithContext("initial " + path.string());
  }
  bundle.initial = path;
  return bundle;
}

Result<Setting> ParseSetting(std::string_view text) {
  const size_t equals = text.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    return InvalidArgument("--set \"" + Printable(text) +
                           "\" is not KEY=VALUE, e.g. strategy.num_rounds=50");
  }
  return Setting(text.substr(0, equals), text.substr(equals + 1));
}

Result<std::string> EditTaskFile(const std::string& task_file,
                                 const std::string& name,
                                 const std::vector<Setting>& settings) {
  std::string edited;
  try {
    YAML::Node root = YAML::Load(task_file);
    root["name"] = name;
    for (const auto& [key, value] : settings) {
      YAML::Node node = root;
      size_t begin = 0;
      for (size_t dot = key.find('.'); dot != std::string::npos;
           dot = key.find('.', begin)) {
        node.reset(node[key.substr(begin, dot - begin)]);
        begin = dot + 1;
      }
      node[key.substr(begin)] = YAML::Load(value);
    }
    YAML::Emitter emitter;
    emitter << root;
    edited = std::string(emitter.c_str()) + "\n";
  } catch (const YAML::Exception& e) {
    return InvalidArgument(std::string("--set does not fit the task file: ") +
                           e.what());
  }
  const auto spec = plan::ParseTaskFile(edited);
  if (!spec.ok()) {
    // Lines of a file that nobody has seen help nobody.
    std::string message(spec.status().message());
    if (message.starts_with("line ")) {
      const size_t colon = message.find(": ");
      if (colon != std::string::npos) message.erase(0, colon + 2);
    }
    return InvalidArgument(message);
  }
  return edited;
}

}  // namespace selvage::cli

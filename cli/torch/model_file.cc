#include "cli/torch/model_file.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "client/training/torch/torch_trainer.h"
#include "crypto/digest.h"
#include "plan/tensor_match.h"

namespace selvage::cli {
namespace {

// A file that the user names must exist: anything else is their mistake.
Result<Bytes> ReadGiven(FileSystem& files, const Path& path,
                        uint64_t size_max) {
  auto bytes = ReadFile(files, path, size_max);
  if (!bytes.ok()) {
    return InvalidArgument(std::string(bytes.status().message()));
  }
  return bytes;
}

Result<Bytes> ReadArchive(FileSystem& files, const Path& path) {
  return ReadGiven(files, path, plan::kArchiveSizeMax);
}

void Describe(const Bytes& archive, plan::Program& program) {
  program.archive_digest = crypto::Sha256(archive);
  program.archive_size_bytes = archive.size();
}

Result<ModelFile> ReadYaml(FileSystem& files, const Path& path) {
  SELVAGE_ASSIGN_OR_RETURN(const Bytes yaml,
                           ReadGiven(files, path, plan::kProgramFileSizeMax));
  const Path directory = path.parent_path();
  SELVAGE_ASSIGN_OR_RETURN(
      plan::ProgramFile file,
      plan::ParseProgramFile(
          AsText(yaml), [&](const std::string& name) -> Result<std::string> {
            SELVAGE_ASSIGN_OR_RETURN(const Bytes text,
                                     ReadGiven(files, directory / name,
                                               plan::kProgramSourceSizeMax));
            return ToString(text);
          }));
  ModelFile out;
  out.program = std::move(file.program);
  if (out.program.kind == plan::ProgramKind::kArchive) {
    SELVAGE_ASSIGN_OR_RETURN(out.archive,
                             ReadArchive(files, directory / file.archive_path));
    Describe(out.archive, out.program);
  }
  SELVAGE_RETURN_IF_ERROR(out.program.Validate());
  return out;
}

Result<ModelFile> ReadDocument(FileSystem& files, const Path& path,
                               const std::optional<Path>& archive) {
  SELVAGE_ASSIGN_OR_RETURN(const Bytes json,
                           ReadGiven(files, path, plan::kProgramJsonSizeMax));
  ModelFile out;
  SELVAGE_ASSIGN_OR_RETURN(out.program, plan::ParseProgram(AsText(json)));
  const bool wanted = out.program.kind == plan::ProgramKind::kArchive;
  if (wanted != archive.has_value()) {
    return InvalidArgument(
        wanted ? "the program is an archive: say where it is with --archive"
               : "--archive is for programs of kind archive, this one is " +
                     std::string(plan::ProgramKindName(out.program.kind)));
  }
  if (wanted) {
    SELVAGE_ASSIGN_OR_RETURN(out.archive, ReadArchive(files, *archive));
  }
  return out;
}

// The tensors of an archive as a program file lists them, with the roles that
// the command line gives.
Result<std::string> TensorRows(const plan::TensorTable& table,
                               const std::vector<RoleOption>& roles) {
  std::vector<std::string> names;
  for (const auto& entry : table.entries()) names.push_back(entry.spec.name);
  std::vector<std::optional<plan::Role>> given(names.size());
  std::vector<std::string> patterns;
  for (const RoleOption& option : roles) patterns.push_back(option.match);
  auto matches = plan::MatchNames(names, patterns);
  if (!matches.ok()) return matches.status().WithContext("--role");
  for (size_t k = 0; k < roles.size(); ++k) {
    for (const size_t i : (*matches)[k]) {
      if (!given[i].has_value()) given[i] = roles[k].role;
    }
  }
  std::string out;
  for (size_t i = 0; i < names.size(); ++i) {
    const plan::TensorSpec& spec = table.entries()[i].spec;
    nlohmann::json row = {{"name", spec.name},
                          {"shape", spec.shape},
                          {"dtype", plan::DTypeName(spec.dtype)}};
    if (spec.dtype == plan::DType::kFloat32) row["init"] = "zeros";
    if (given[i].has_value()) row["role"] = plan::RoleName(*given[i]);
    out += "  - " + row.dump() + "\n";
  }
  return out;
}

Result<ModelFile> ReadBareArchive(FileSystem& files, const Path& path,
                                  const std::vector<RoleOption>& roles) {
  ModelFile out;
  SELVAGE_ASSIGN_OR_RETURN(out.archive, ReadArchive(files, path));
  SELVAGE_ASSIGN_OR_RETURN(client::ArchiveContents contents,
                           client::InspectArchive(out.archive));
  if (contents.description.empty()) {
    return InvalidArgument(
        "the archive does not say what its inputs and metrics are; save it "
        "with _extra_files={\"selvage.yaml\": ...}, or write a program file");
  }
  SELVAGE_ASSIGN_OR_RETURN(const std::string rows,
                           TensorRows(contents.table, roles));
  auto file = plan::ParseProgramFile(
      contents.description + "\narchive: model.pt\ntensors:\n" + rows,
      [](const std::string& name) -> Result<std::string> {
        return InvalidArgument("an archive has no source " + name);
      });
  if (!file.ok()) return file.status().WithContext("its selvage.yaml");
  out.program = std::move(file->program);

  // Rows that nobody gave a role are `shared`; a buffer cannot be.
  std::vector<plan::TensorSpec> specs;
  for (size_t i = 0; i < contents.table.entries().size(); ++i) {
    specs.push_back(out.program.table.entries()[i].spec);
    if (contents.table.entries()[i].spec.role == plan::Role::kBufferFloat &&
        specs.back().role == plan::Role::kShared) {
      specs.back().role = plan::Role::kBufferFloat;
    }
  }
  SELVAGE_ASSIGN_OR_RETURN(out.program.table,
                           plan::TensorTable::Create(std::move(specs)));
  Describe(out.archive, out.program);
  SELVAGE_RETURN_IF_ERROR(out.program.Validate());
  out.values = std::move(contents.values);
  return out;
}

Result<ModelFile> Read(FileSystem& files, const Path& path,
                       const std::optional<Path>& archive,
                       const std::vector<RoleOption>& roles) {
  const std::string extension = path.extension().string();
  if (!roles.empty() && extension != ".pt") {
    return InvalidArgument(
        "--role is for a bare archive; a program file has `roles`");
  }
  if (extension == ".json") return ReadDocument(files, path, archive);
  if (archive.has_value()) {
    return InvalidArgument("--archive goes with a program.json only");
  }
  if (extension == ".yaml" || extension == ".yml") {
    return ReadYaml(files, path);
  }
  if (extension == ".pt") return ReadBareArchive(files, path, roles);
  return InvalidArgument("is none of FILE.yaml, FILE.pt and FILE.json");
}

}  // namespace

Result<RoleOption> ParseRoleOption(const std::string& text) {
  const size_t at = text.rfind('=');
  if (at == std::string::npos || at == 0) {
    return InvalidArgument("--role " + text + " is not REGEX=ROLE");
  }
  RoleOption out{.match = text.substr(0, at)};
  SELVAGE_ASSIGN_OR_RETURN(out.role, plan::ParseRole(text.substr(at + 1)));
  return out;
}

Result<ModelFile> ReadModelFile(FileSystem& files, const Path& path,
                                const std::optional<Path>& archive,
                                const std::vector<RoleOption>& roles) {
  auto model = Read(files, path, archive, roles);
  if (!model.ok()) return model.status().WithContext(path.string());
  return model;
}

}  // namespace selvage::cli

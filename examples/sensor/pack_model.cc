// Makes the files of a model that ships with an app, from a task file: what
// selvage_install_model takes.
//
//   selvage-pack-model TASK.yaml OUT_DIR
//
// Writes plan.json, program.json and model.safetensors (values as `initial:
// random` gives them).
#include <iostream>
#include <string>

#include "base/file_system.h"
#include "base/status.h"
#include "crypto/digest.h"
#include "plan/checkpoint.h"
#include "plan/plan.h"
#include "plan/program.h"
#include "plan/task.h"

namespace selvage {
namespace {

Result<std::string> ReadText(FileSystem& files, const Path& path) {
  SELVAGE_ASSIGN_OR_RETURN(const Bytes bytes,
                           ReadFile(files, path, plan::kProgramFileSizeMax));
  return ToString(bytes);
}

Status Pack(const Path& task_file, const Path& out) {
  PosixFileSystem files;
  SELVAGE_ASSIGN_OR_RETURN(const std::string task_text,
                           ReadText(files, task_file));
  SELVAGE_ASSIGN_OR_RETURN(const plan::TaskSpec task,
                           plan::ParseTaskFile(task_text));
  const Path program_file = task_file.parent_path() / task.program;
  SELVAGE_ASSIGN_OR_RETURN(const std::string program_text,
                           ReadText(files, program_file));
  SELVAGE_ASSIGN_OR_RETURN(
      const plan::ProgramFile program,
      plan::ParseProgramFile(program_text, [&](const std::string& name) {
        return ReadText(files, program_file.parent_path() / name);
      }));
  SELVAGE_RETURN_IF_ERROR(program.program.Validate());
  const std::string program_json = plan::CanonicalJson(program.program);
  SELVAGE_ASSIGN_OR_RETURN(
      const plan::Plan plan,
      plan::MakePlan(task, crypto::Sha256(AsBytes(program_json)),
                     program.program));
  const plan::TensorTable& table = program.program.table;
  const plan::Checkpoint values = plan::InitializeCheckpoint(table, task.seed);

  SELVAGE_RETURN_IF_ERROR(files.CreateDirectories(out));
  SELVAGE_RETURN_IF_ERROR(WriteFileDurably(
      files, out / "plan.json", AsBytes(plan::CanonicalJson(plan)), 0644));
  SELVAGE_RETURN_IF_ERROR(WriteFileDurably(files, out / "program.json",
                                           AsBytes(program_json), 0644));
  return WriteFileDurably(files, out / "model.safetensors",
                          plan::WriteSafetensors(table, values, {}), 0644);
}

}  // namespace
}  // namespace selvage

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: selvage-pack-model TASK.yaml OUT_DIR\n";
    return 2;
  }
  const selvage::Status status = selvage::Pack(argv[1], argv[2]);
  if (status.ok()) return 0;
  std::cerr << "selvage-pack-model: " << status << "\n";
  return 1;
}

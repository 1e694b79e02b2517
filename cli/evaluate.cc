#include "cli/evaluate.h"

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "cli/pull.h"
#include "cli/render.h"
#include "cli/text.h"

namespace selvage::cli {
namespace {

using Json = nlohmann::json;

// Removed with everything in it.
class WorkDirectory {
 public:
  static Result<WorkDirectory> Create(Environment& environment) {
    Bytes name(8);
    environment.random.Fill(name);
    const auto below = environment.get_env("TMPDIR");
    const Path path =
        Path(below.value_or("/tmp")) / ("selvage-evaluate-" + ToHex(name));
    SELVAGE_RETURN_IF_ERROR(environment.files.CreateDirectories(path));
    return WorkDirectory(path);
  }
  WorkDirectory(WorkDirectory&& other) noexcept
      : path_(std::exchange(other.path_, Path())) {}
  WorkDirectory& operator=(WorkDirectory&&) = delete;
  ~WorkDirectory() {
    if (path_.empty()) return;
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const Path& path() const { return path_; }

 private:
  explicit WorkDirectory(Path path) : path_(std::move(path)) {}
  Path path_;
};

// What selvage-torch answered, as an evaluation of `version`.
Result<v1::Evaluation> Parse(const std::string& text,
                             const EvaluateOptions& options,
                             const v1::ModelVersion& version) {
  v1::Evaluation out;
  out.set_task(options.task);
  out.set_version(version.version());
  out.set_data_set(options.data_set);
  out.set_model_digest(version.safetensors_digest());
  try {
    const Json data = Json::parse(text).at("data");
    out.set_example_count(data.at("examples").get<uint64_t>());
    SELVAGE_ASSIGN_OR_RETURN(
        const crypto::Digest digest,
        crypto::Digest::FromHex(data.at("data_digest").get<std::string>()));
    out.set_data_digest(ToString(digest.span()));
    for (const auto& [name, value] : data.at("metrics").items()) {
      auto& metric = *out.add_metrics();
      metric.set_name(name);
      metric.set_value(value.get<double>());
    }
  } catch (const Json::exception& e) {
    return Internal("selvage-torch evaluate: its answer is not understood: " +
                    std::string(e.what()));
  }
  return out;
}

class Evaluator {
 public:
  Evaluator(Context& context, AdminClient& admin,
            const EvaluateOptions& options, Path directory)
      : context_(context),
        admin_(admin),
        options_(options),
        directory_(std::move(directory)) {}

  // Scores one version and, unless it is a dry run, attaches the result.
  Result<v1::Evaluation> Run(const v1::ModelVersion& version) {
    FileSystem& files = context_.environment().files;
    if (!program_.has_value()) {
      // All versions of a task have the same.
      SELVAGE_ASSIGN_OR_RETURN(
          program_, DownloadProgram(admin_, files, version, directory_));
    }
    SELVAGE_ASSIGN_OR_RETURN(
        const crypto::Digest digest,
        crypto::Digest::FromBytes(AsBytes(version.safetensors_digest())));
    const Path model = directory_ / "model.safetensors";
    SELVAGE_RETURN_IF_ERROR(admin_.DownloadArtifact(digest, files, model));
    std::vector<std::string> arguments = {"evaluate",
                                          "-o",
                                          "json",
                                          "--program",
                                          program_->program.string(),
                                          "--model",
                                          model.string()};
    if (program_->archive) {
      arguments.insert(arguments.end(),
                       {"--archive", program_->archive->string()});
    }
    for (const std::string& file : options_.data) {
      arguments.insert(arguments.end(), {"--data", file});
    }
    SELVAGE_ASSIGN_OR_RETURN(const std::string text,
                             context_.torch().Run(arguments));
    SELVAGE_ASSIGN_OR_RETURN(const v1::Evaluation scored,
                             Parse(text, options_, version));
    if (options_.dry_run) return scored;
    return admin_.AddEvaluation(scored);
  }

 private:
  Context& context_;
  AdminClient& admin_;
  const EvaluateOptions& options_;
  const Path directory_;
  std::optional<ProgramFiles> program_;
};

std::string Line(const v1::Evaluation& evaluation) {
  return "version " + std::to_string(evaluation.version()) + "  " +
         EvaluationText(evaluation) + "\n";
}

bool HasEvaluation(const v1::ModelVersion& version,
                   const std::string& data_set) {
  for (const v1::Evaluation& one : version.evaluations()) {
    if (one.data_set() == data_set) return true;
  }
  return false;
}

// Versions that lack an evaluation, oldest first. Returns the newest version.
Result<uint64_t> EvaluateMissing(Context& context, AdminClient& admin,
                                 const EvaluateOptions& options,
                                 Evaluator& evaluator, uint64_t from) {
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<v1::ModelVersion> versions,
                           admin.ListModelVersions(options.task));
  uint64_t newest = 0;
  for (const v1::ModelVersion& version : versions) {
    newest = version.version();
    if (version.version() < from || HasEvaluation(version, options.data_set)) {
      continue;
    }
    const Result<v1::Evaluation> evaluation = evaluator.Run(version);
    if (evaluation.status().code() == StatusCode::kAlreadyExists) {
      // Somebody else watches, too.
      context.output().Warning(std::string(evaluation.status().message()));
      continue;
    }
    if (!evaluation.ok()) return evaluation.status();
    context.output().Data(ToJson(*evaluation),
                          [&] { return Line(*evaluation); });
  }
  return newest;
}

Result<ExitCode> Watch(Context& context, AdminClient& admin,
                       const EvaluateOptions& options, Evaluator& evaluator) {
  uint64_t next = 0;  // versions before it are done
  while (true) {
    SELVAGE_ASSIGN_OR_RETURN(
        const uint64_t newest,
        EvaluateMissing(context, admin, options, evaluator, next));
    next = newest + 1;
    bool newer = false;
    const Status watched = admin.WatchTask(
        options.task, {}, [&](const v1::TaskSnapshot& snapshot) {
          newer = snapshot.task().latest_version() >= next;
          return !newer;
        });
    if (newer) continue;
    SELVAGE_RETURN_IF_ERROR(watched);
    return ExitCode::kOk;
  }
}

}  // namespace

Result<ExitCode> Evaluate(Context& context, const EvaluateOptions& options) {
  if (options.watch && options.dry_run) {
    return InvalidArgument(
        "--watch goes by what is attached: there is no --dry-run of it");
  }
  SELVAGE_ASSIGN_OR_RETURN(AdminClient* const admin, context.Admin());
  SELVAGE_ASSIGN_OR_RETURN(const WorkDirectory directory,
                           WorkDirectory::Create(context.environment()));
  Evaluator evaluator(context, *admin, options, directory.path());
  if (options.watch) return Watch(context, *admin, options, evaluator);
  SELVAGE_ASSIGN_OR_RETURN(
      const v1::ModelVersion version,
      options.best ? admin->GetBestModelVersion(options.task)
                   : admin->GetModelVersion(options.task, options.version));
  SELVAGE_ASSIGN_OR_RETURN(const v1::Evaluation evaluation,
                           evaluator.Run(version));
  context.output().Data(ToJson(evaluation), [&] { return Line(evaluation); });
  return ExitCode::kOk;
}

}  // namespace selvage::cli
